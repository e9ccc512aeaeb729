"""whyerrno import: a recording made elsewhere, by perf alone."""

from __future__ import annotations

from pathlib import Path

import click

from profiler.cli.names import check_errno, check_syscall, complete_errno, complete_syscall
from profiler.cli.output import json_option, salvage_option
from profiler.cli.progress import show_progress
from profiler.cli.root import EXIT_STATUS, Settings, common_options
from profiler.cli.verdict import conclude
from profiler.errors import InputError, UsageError


@click.command(
    epilog="""\b
Examples:
  whyerrno import perf.data --vmlinux vmlinux -o runs/imported
  whyerrno import perf.data --vmlinux vmlinux --source ~/src/linux --syscall bind --errno EADDRINUSE -o runs/imported
  perf script > perf.txt; whyerrno import perf.txt --vmlinux vmlinux -o runs/from-text

"""
    + EXIT_STATUS
)
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--vmlinux",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The kernel recorded, with debug information.",
)
@click.option(
    "--source", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Its source tree, same version."
)
@click.option("--syscall", metavar="NAME", shell_complete=complete_syscall, help="The call that failed.")
@click.option("--errno", metavar="NAME", shell_complete=complete_errno, help="The errno it failed with.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Directory of the new run.")
@click.option("--force", is_flag=True, help="Replace the output directory if it exists.")
@salvage_option
@click.option("--report/--no-report", default=True, show_default=True, help="Write report.html and the PNGs.")
@json_option
@common_options
@click.pass_obj
def command(
    settings: Settings,
    *,
    data: Path,
    vmlinux: Path | None,
    source: Path | None,
    syscall: str | None,
    errno: str | None,
    output: Path,
    force: bool,
    salvage: bool,
    report: bool,
    as_json: bool,
) -> int:
    """Make a run of DATA: a perf.data file or directory, or the text of `perf script` or `perf annotate --stdio`.

    Record with `perf record -a -g` while the call fails in a loop. Without --syscall and --errno there is a profile
    per source line, and no verdict.
    """
    check_directory(data, output)
    if bool(syscall) != bool(errno):
        raise UsageError("--syscall and --errno go together", hint="give both, or neither for a profile alone")
    from profiler import importing

    with show_progress(quiet=settings.quiet) as progress:
        analysis = importing.import_perf(
            data,
            vmlinux=vmlinux,
            source=source,
            syscall=check_syscall(syscall) if syscall else "",
            errno=check_errno(errno) if errno else "",
            out=output,
            force=force,
            salvage=salvage,
            progress=progress,
        )
    return conclude(analysis, output, as_json=as_json, report=report)


def check_directory(data: Path, output: Path) -> None:
    """Refuse a directory that perf did not make, and an output inside of what is to be copied into it."""
    if not data.is_dir():
        return
    if not (data / "data").is_file():
        raise InputError(f"{data} is a directory, and none of perf's", hint="perf's has a file `data` in it")
    if output.resolve().is_relative_to(data.resolve()):
        raise UsageError(f"{output} lies inside {data}", hint="choose another -o")
