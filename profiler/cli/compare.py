"""whyerrno compare: the same failure on several kernels, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from profiler.cli.output import json_option, print_json
from profiler.cli.root import common_options
from profiler.errors import UsageError

if TYPE_CHECKING:
    from profiler.model import Analysis


@click.command(
    epilog="""\b
Examples:
  whyerrno compare runs/uring-5.10 runs/uring-7.3 -o compare/
  whyerrno compare runs/uring-* --json
"""
)
@click.argument("runs", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("compare"),
    show_default=True,
    help="Directory for compare.html and compare.png.",
)
@click.option("--force", is_flag=True, help="Replace an earlier comparison in the output directory.")
@json_option
@common_options
def command(runs: tuple[Path, ...], output: Path, force: bool, as_json: bool) -> int:
    """Put the verdicts of two or more RUNS side by side, with their lines aligned across kernel versions."""
    if len(runs) < 2:
        raise UsageError("compare needs two runs or more", hint="whyerrno compare RUN RUN -o DIRECTORY")
    page = output / "compare.html"
    if page.exists() and not force:
        raise UsageError(f"{page} exists", hint="choose another -o, or --force to replace it")
    from profiler import recording

    analyses = [recording.read_analysis(run) for run in runs]
    calls = sorted({analysis.syscall for analysis in analyses})
    if len(calls) > 1:
        raise UsageError(f"these runs are of different system calls: {', '.join(calls)}", hint="compare those of one")
    files = write_comparison(runs, analyses, output, terminal=not as_json)
    if as_json:
        print_json(summary(runs, analyses))
    else:
        click.echo()
        for file in files:
            click.echo(f"wrote {file}")
    return 0


def write_comparison(runs: Sequence[Path], analyses: Sequence[Analysis], output: Path, *, terminal: bool) -> list[Path]:
    """compare.html and compare.png in `output`, and the comparison on the terminal; the paths, the page first."""
    from rich.console import Console

    from reports import compare

    labels = [run.name or str(run.resolve()) for run in runs]
    if len(set(labels)) < len(labels):
        labels = [str(run) for run in runs]
    comparison = compare.compare(list(zip(labels, analyses, strict=True)))
    output.mkdir(parents=True, exist_ok=True)
    page, picture = output / "compare.html", output / "compare.png"
    compare.write_html(comparison, page)
    compare.write_png(comparison, picture)
    if terminal:
        compare.render(comparison, Console())
    return [page, picture]


def summary(runs: Sequence[Path], analyses: Sequence[Analysis]) -> list[dict[str, Any]]:
    """What --json prints: the verdicts, without samples and source lines."""
    keys = ("syscall", "errno", "kernel", "conclusion", "reason", "error_site", "branch", "confidence", "samples")
    whole = [analysis.to_json() for analysis in analyses]
    return [{"run": str(run)} | {key: a[key] for key in keys} for run, a in zip(runs, whole, strict=True)]
