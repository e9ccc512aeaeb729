"""whyerrno campaign: scenarios × targets × repeats, in parallel, resumable."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from profiler.campaign.outcome import Outcome
from profiler.campaign.plan import Campaign
from profiler.cli.names import find_scenario
from profiler.cli.output import json_option, print_json
from profiler.cli.root import Settings, common_options

if TYPE_CHECKING:
    from reports.campaign import CampaignRow

GIGABYTES_A_RUN = 2.5  # a guest's memory, and the analysis beside it


@click.group(
    epilog="""\b
Examples:
  whyerrno campaign run campaign.toml -o campaigns/first
  whyerrno campaign report campaigns/first
"""
)
def command() -> None:
    """Run many scenarios on many kernels, and put the verdicts into one table."""


@command.command(
    epilog="""\b
A campaign file:
  scenarios = ["bind-eaddrinuse", "io-uring-setup-enomem"]    # or "all"
  targets = ["vm:5.10", "vm:6.1", "vm:6.12", "vm:7.3"]
  repeats = 1
  evidence = "auto"      # or rungs of the ladder: "man,source,samples"
  confidence = 0.95      # of a verdict that ends a recording early
  least_seconds = 2
  seconds = 10           # of sampling, at most
  frequency = 8000
  event = "auto"
  timeout = 900          # seconds, for one whole run

\b
Examples:
  whyerrno campaign run campaign.toml -o campaigns/first
  whyerrno campaign run campaign.toml -o campaigns/first --jobs 1 --json
"""
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory of the campaign; one begun before is taken up again.  [default: campaigns/NAME of the file]",
)
@click.option(
    "-j", "--jobs", type=click.IntRange(1), help="Runs at once.  [default: as many as cores and memory allow]"
)
@click.option("--force", is_flag=True, help="Run the finished runs again, too.")
@json_option
@common_options
@click.pass_obj
def run(settings: Settings, *, file: Path, output: Path | None, jobs: int | None, force: bool, as_json: bool) -> int:
    """Run every scenario of FILE on every target, several at once.

    A run that fails, hangs or crashes ends alone and is accounted for. Started again, the campaign does only what is
    not finished. The exit status is 0 when every run reached a conclusion, whichever, and 1 otherwise.
    """
    from profiler.campaign import outcome, plan, runner
    from profiler.cli.campaign_progress import show_campaign
    from profiler.cli.campaign_work import diagnose

    campaign = plan.read(file, all_scenarios=scenario_names())
    check_names(campaign)
    directory = output or Path("campaigns") / file.stem
    planned = plan.runs(campaign)
    with runner.opened(directory, campaign), show_campaign(len(planned), quiet=settings.quiet) as watcher:
        outcomes = runner.run_all(
            planned, directory, diagnose, jobs=jobs or default_jobs(), watcher=watcher, again=force
        )
        outcome.write_results(directory, outcomes)
        write_index(directory, outcomes)
    return conclude(directory, outcomes, as_json=as_json)


@command.command(
    epilog="""\b
Examples:
  whyerrno campaign report campaigns/first
"""
)
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@json_option
@common_options
def report(directory: Path, as_json: bool) -> int:
    """Write the index page of a finished campaign again, and print its table."""
    from profiler.campaign import outcome

    outcomes = outcome.read_results(directory)
    write_index(directory, outcomes)
    return conclude(directory, outcomes, as_json=as_json)


def scenario_names() -> list[str]:
    from loadgen.scenarios import SCENARIOS

    return list(SCENARIOS)


def check_names(campaign: Campaign) -> None:
    """Raises UsageError on an unknown scenario or target, before anything is run."""
    from profiler.target import check_spec

    for scenario in campaign.scenarios:
        find_scenario(scenario)
    for target in campaign.targets:
        check_spec(target)


def default_jobs() -> int:
    """One run a core, as far as memory reaches."""
    cores = len(os.sched_getaffinity(0))
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(cores, int(available / (GIGABYTES_A_RUN * 1e9))))


def conclude(directory: Path, outcomes: list[Outcome], *, as_json: bool) -> int:
    """Print the table of verdicts and the runs that failed; the exit code."""
    from rich.console import Console

    from profiler.campaign import outcome
    from reports import campaign as pages

    if as_json:
        print_json(outcome.results(outcomes))
    else:
        pages.render([row(o) for o in outcomes], Console())
        click.echo(f"wrote {directory / 'index.html'}")
    return 0 if all(o.concluded for o in outcomes) else 1


def write_index(directory: Path, outcomes: list[Outcome]) -> None:
    from reports import campaign as pages

    pages.write_index([row(o) for o in outcomes], directory / "index.html", title=directory.resolve().name)


def row(outcome: Outcome) -> CampaignRow:
    """An outcome as the reports want it."""
    from profiler.cli.verdict import REPORT
    from reports.campaign import CampaignRow

    run, site = outcome.run, outcome.error_site
    directory = f"runs/{run.name}" if outcome.concluded else ""
    return CampaignRow(
        scenario=run.scenario,
        target=run.target,
        status=outcome.status,
        repeat=run.repeat,
        reason=outcome.message,
        run_dir=directory,
        report=f"{directory}/{REPORT}" if directory else "",
        release=outcome.release,
        package_version=outcome.package_version,
        confidence=outcome.confidence if outcome.concluded else None,
        function=site.function if site else "",
        file=site.file if site else "",
        line=site.line if site else 0,
        seconds=outcome.seconds,
        evidence=outcome.evidence,
    )
