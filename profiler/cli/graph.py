"""whyerrno graph: which functions failing calls go through, and succeeding ones, side by side."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from profiler.cli.load_options import the_call_and_where, what_the_program_needs
from profiler.cli.names import complete_scenario
from profiler.cli.output import json_option, print_json
from profiler.cli.progress import show_progress
from profiler.cli.root import Settings, common_options
from profiler.cli.run import check_load
from profiler.errors import UsageError

if TYPE_CHECKING:
    from profiler.graph_rung import GraphResult


@click.command(
    epilog="""\b
Examples:
  whyerrno graph io-uring-setup-enomem --target vm:5.10
  whyerrno graph bind-eaddrinuse --target vm:6.1 --depth 4
  whyerrno graph openat-eacces --target vm:6.1 --json --output traces
  whyerrno graph --syscall bind --errno EADDRINUSE --target vm:6.1 -- ./repro 5
"""
)
@click.argument("scenario", required=False, shell_complete=complete_scenario)
@click.argument("program", nargs=-1, type=click.UNPROCESSED, metavar="[-- PROGRAM [ARGS]...]")
@the_call_and_where
@click.option(
    "--calls",
    type=click.IntRange(1, 10_000),
    default=32,
    show_default=True,
    help="How many calls of each side to take.",
)
@click.option(
    "--depth", type=click.IntRange(1, 100), help="Show so many levels of calls.  [default: what fits the terminal]"
)
@click.option("--rows", type=click.IntRange(5, 10_000), default=40, show_default=True, help="Lines of the two trees.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Directory to keep the raw traces and graph.json in."
)
@what_the_program_needs
@json_option
@common_options
@click.pass_context
def command(
    context: click.Context,
    *,
    scenario: str | None,
    program: tuple[str, ...],
    syscall: str | None,
    errno: str | None,
    target: str,
    calls: int,
    depth: int | None,
    rows: int,
    output: Path | None,
    files: tuple[Path, ...],
    modules: tuple[str, ...],
    as_json: bool,
) -> int:
    """Trace the functions of failing calls and of succeeding ones, and show both trees side by side.

    The load is a SCENARIO of the project (`whyerrno scenarios`), most of which know how the same call succeeds, or a
    PROGRAM of your own that repeats the call; where that succeeds now and then, its calls are told apart by what they
    returned. Where the trees part is marked. With the kernel's debug info and source at hand, the places in the source
    that the failing calls cannot have come to are crossed out: their function was not called, or a function that is
    always called on the way to them was not.
    """
    if scenario and (syscall or errno):
        program, scenario = (scenario, *program), None  # `-- PROGRAM ARGS`: the first word came here
    _, syscall, errno = check_load(scenario, syscall, errno, program)
    from profiler import graph_rung
    from profiler.request import RunRequest

    run = RunRequest(
        target=target,
        scenario=scenario,
        program=list(program),
        files=list(files),
        modules=list(modules),
        syscall=syscall,
        errno=errno,
    )
    settings = context.ensure_object(Settings)
    with tempfile.TemporaryDirectory() as scratch, show_progress(quiet=settings.quiet) as progress:
        directory = _empty(output) if output is not None else Path(scratch)
        result = graph_rung.graph(graph_rung.GraphRequest(run, calls), directory, progress=progress)
    if as_json:
        print_json(result.to_json())
    else:
        _print(result, depth, rows)
    if output is not None:
        click.echo(f"\nwrote     {output}", err=as_json)
    return 0


def _empty(output: Path) -> Path:
    """Raises UsageError where there is something already."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"{output} exists", hint="choose another --output")
    output.mkdir(parents=True, exist_ok=True)
    return output


def _print(result: GraphResult, depth: int | None, rows: int) -> None:
    from rich.console import Console

    from reports import terminal_graph

    console = Console()
    terminal_graph.heading(result.syscall, result.errno, result.release or result.target, result.warnings, console)
    terminal_graph.render(result.comparison, console, most=rows, deepest=depth)
    terminal_graph.render_candidates(result.candidates, console, cut=result.cut)
