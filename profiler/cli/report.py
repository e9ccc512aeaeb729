"""whyerrno report: HTML, PNGs and annotated source of a finished run."""

from __future__ import annotations

from pathlib import Path

import click

from profiler.cli.root import common_options
from profiler.cli.verdict import print_terminal_report, write_report


@click.command(
    epilog="""\b
Examples:
  whyerrno report runs/bind-6.1
  whyerrno report runs/bind-6.1 -o /tmp/bind
"""
)
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(file_okay=False, path_type=Path), help="Directory to write to.  [default: RUN]"
)
@common_options
def command(run: Path, output: Path | None) -> int:
    """Write report.html and the PNGs of a finished RUN, and print its annotated source.

    Reads analysis.json alone: works offline, anywhere. Files of an earlier report are replaced. The exit status is
    0 whatever the verdict is.
    """
    from profiler import recording

    analysis = recording.read_analysis(run)
    files = write_report(analysis, output or run)
    print_terminal_report(analysis)
    click.echo()
    for file in files:
        click.echo(f"wrote {file}")
    return 0
