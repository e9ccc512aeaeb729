"""What a campaign does for one run, in a process of its own."""

from __future__ import annotations

from pathlib import Path

from profiler import evidence
from profiler.campaign.plan import PlannedRun
from profiler.cli.names import find_scenario
from profiler.cli.progress import Progress


def diagnose(run: PlannedRun, directory: Path, progress: Progress) -> None:
    """Record, analyze and report `run` into `directory`, replacing what an unfinished one left."""
    from profiler import pipeline
    from profiler.cli.verdict import write_report

    scenario = find_scenario(run.scenario)
    request = pipeline.RunRequest(
        target=run.target,
        scenario=run.scenario,
        program=[],
        files=[],
        syscall=scenario.syscall,
        errno=scenario.errno,
        seconds=run.seconds,
        frequency=run.frequency,
        event=run.event,
        evidence=evidence.parse(run.evidence),
        confidence=run.confidence,
        least_seconds=run.least_seconds,
    )
    analysis = pipeline.diagnose(request, directory, force=True, progress=progress)
    progress("writing the report", None)
    write_report(analysis, directory)
