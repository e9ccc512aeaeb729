"""whyerrno demo: the same failure on two kernels, from fetching them to the comparison."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

import profiler
from profiler.cli.compare import write_comparison
from profiler.cli.names import find_scenario
from profiler.cli.progress import Progress, show_progress
from profiler.cli.root import Settings, common_options
from profiler.cli.verdict import REPORT, print_terminal_report, write_report
from profiler.errors import InputError, ProfilerError
from profiler.model import EXIT_CODES

if TYPE_CHECKING:
    from profiler.model import Analysis

SCENARIO = "io-uring-setup-enomem"
VERSIONS = ("5.10", "7.3")
SAMPLE_DATA = Path(profiler.__file__).parent.parent / "sample_data"


@click.command(
    epilog="""\b
Examples:
  whyerrno demo
  whyerrno demo --offline -o /tmp/demo
"""
)
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs/demo"),
    show_default=True,
    help="Directory of the two runs and the comparison; an earlier demo in it is replaced.",
)
@click.option("--offline", is_flag=True, help="Use the recordings that come with the source tree.")
@click.option(
    "--sample-data",
    type=click.Path(file_okay=False, path_type=Path),
    default=SAMPLE_DATA,
    help="Where those recordings are.  [default: sample_data of the source tree]",
)
@common_options
@click.pass_obj
def command(settings: Settings, *, output: Path, offline: bool, sample_data: Path) -> int:
    """Fetch two stock kernels, make io_uring_setup fail with ENOMEM on both, and compare.

    With no network or no QEMU the same is shown from recordings made earlier, and said so.
    """
    analyses = saved(sample_data) if offline else record_or_saved(output, sample_data, quiet=settings.quiet)
    directories = {version: output / f"{SCENARIO}-{version}" for version in VERSIONS}
    for version, analysis in analyses.items():
        write_report(analysis, directories[version])
        click.echo(f"\n---- Linux {analysis.kernel.release} ----\n")
        print_terminal_report(analysis)
    click.echo("\n---- both ----\n")
    page, _ = write_comparison(list(directories.values()), list(analyses.values()), output, terminal=True)
    click.echo()
    for version, analysis in analyses.items():
        click.echo(f"{version:5} {analysis.conclusion.value}: {analysis.reason}")
    for directory in directories.values():
        click.echo(f"report      {directory / REPORT}")
    click.echo(f"comparison  {page}")
    return max(EXIT_CODES[analysis.conclusion] for analysis in analyses.values())


def record_or_saved(output: Path, sample_data: Path, *, quiet: bool) -> dict[str, Analysis]:
    """Analyses of two new runs, or the saved ones where a run is not possible here."""
    try:
        with show_progress(quiet=quiet) as progress:
            return {version: record(version, output, progress) for version in VERSIONS}
    except ProfilerError as error:
        click.echo(f"whyerrno: cannot run guests here: {error}", err=True)
        click.echo(f"whyerrno: showing the recordings in {sample_data} instead", err=True)
        return saved(sample_data)


def record(version: str, output: Path, progress: Progress) -> Analysis:
    from profiler import pipeline

    scenario = find_scenario(SCENARIO)
    request = pipeline.RunRequest(
        target=f"vm:{version}",
        scenario=SCENARIO,
        program=[],
        files=[],
        syscall=scenario.syscall,
        errno=scenario.errno,
    )
    directory = output / f"{SCENARIO}-{version}"
    return pipeline.diagnose(
        request, directory, force=True, progress=lambda phase, fraction: progress(f"{version}: {phase}", fraction)
    )


def saved(sample_data: Path) -> dict[str, Analysis]:
    """The analyses kept in the source tree. Raises InputError where they are not there."""
    from profiler import recording

    directories = {version: sample_data / f"{SCENARIO}-{version}" for version in VERSIONS}
    for directory in directories.values():
        if not (directory / recording.ANALYSIS).is_file():
            raise InputError(
                f"{directory} holds no analysis", hint="the source tree has it; say --sample-data DIRECTORY"
            )
    return {version: recording.read_analysis(directory) for version, directory in directories.items()}
