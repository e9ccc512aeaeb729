"""whyerrno analyze: conclude again from a recording alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from profiler.cli.output import json_option
from profiler.cli.progress import show_progress
from profiler.cli.root import EXIT_STATUS, Settings, common_options
from profiler.cli.verdict import conclude

if TYPE_CHECKING:
    from profiler.model import Kernel


@click.command(
    epilog="""\b
Examples:
  whyerrno analyze runs/bind-6.1
  whyerrno analyze runs/bind-6.1 --json --no-report
  whyerrno analyze runs/from-elsewhere --kernel ~/src/linux

"""
    + EXIT_STATUS
)
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--kernel",
    metavar="VERSION|PATH",
    help="The kernel recorded, where it is not found by itself: a fetched version, a build tree or unpacked package.",
)
@click.option("--report/--no-report", default=True, show_default=True, help="Write report.html and the PNGs.")
@json_option
@common_options
@click.pass_obj
def command(settings: Settings, run: Path, kernel: str | None, report: bool, as_json: bool) -> int:
    """Analyze a recording again, offline, and replace its analysis.json.

    Needs the vmlinux that was recorded (matched by build id) among the fetched kernels, or given by --kernel.
    """
    from profiler import pipeline

    given = find_kernel(kernel) if kernel else None
    with show_progress(quiet=settings.quiet) as progress:
        analysis = pipeline.analyze(run, kernel=given, progress=progress)
    return conclude(analysis, run, as_json=as_json, report=report)


def find_kernel(kernel: str) -> Kernel:
    """A kernel by a path to it, or among those fetched. Raises MissingError where there is none."""
    from profiler import lab
    from profiler.errors import MissingError

    if Path(kernel).exists():
        return lab.from_path(Path(kernel))
    found = lab.find(kernel)
    if found is None:
        raise MissingError(f"kernel {kernel} is not here", hint=f"`whyerrno kernels fetch {kernel}` fetches it")
    return found
