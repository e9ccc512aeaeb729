"""Every scenario on every kernel, recorded once as a campaign: in full, or as a user would with the rungs asked for."""

from __future__ import annotations

from pathlib import Path

from loadgen.scenarios import SCENARIOS
from profiler import evidence, pipeline
from profiler.campaign import outcome, plan, runner
from profiler.campaign.plan import PlannedRun
from profiler.campaign.worker import Progress
from profiler.cli.campaign_progress import show_campaign
from profiler.cli.names import find_scenario

KERNELS = ("5.10", "6.1", "6.12", "7.3")
IN_FULL = "samples,exact"  # recorded whole, however soon the verdict is decided, to be analyzed from either


def record_all(
    directory: Path, kernels: list[str], scenarios: list[str], *, seconds: float, jobs: int, rungs: str = IN_FULL
) -> int:
    """Records what is not recorded yet; 0 where every run was recorded and reached a conclusion."""
    names = sorted(SCENARIOS) if scenarios == [plan.ALL] else scenarios
    for name in names:
        find_scenario(name)
    targets = tuple(f"vm:{kernel}" for kernel in kernels)
    campaign = plan.Campaign(tuple(names), targets, seconds=seconds, evidence=rungs)
    planned = plan.runs(campaign)
    with runner.opened(directory, campaign), show_campaign(len(planned), quiet=False) as watcher:
        outcomes = runner.run_all(planned, directory, record, jobs=jobs, watcher=watcher)
        outcome.write_results(directory, outcomes)
    return 0 if all(ended.concluded for ended in outcomes) else 1


def record(run: PlannedRun, directory: Path, progress: Progress) -> None:
    """One run of the campaign."""
    scenario = find_scenario(run.scenario)
    request = pipeline.RunRequest(
        target=run.target,
        scenario=run.scenario,
        syscall=scenario.syscall,
        errno=scenario.errno,
        seconds=run.seconds,
        frequency=run.frequency,
        event=run.event,
        evidence=evidence.parse(run.evidence),
    )
    if run.evidence != IN_FULL:
        pipeline.diagnose(request, directory, force=True, progress=progress)
        return
    pipeline.record(request, directory, force=True, progress=progress)
    # The table analyzes anew; this only tells the campaign how the run ended, by the quicker evidence.
    pipeline.analyze(directory, evidence=frozenset({evidence.EXACT}), progress=progress)
