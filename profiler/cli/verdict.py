"""How a command that ends in one Analysis says it: JSON or the terminal report, the files, the exit code."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from profiler.cli.output import print_json
from profiler.errors import ProfilerError
from profiler.model import EXIT_CODES, Analysis

REPORT = "report.html"


def conclude(analysis: Analysis, directory: Path, *, as_json: bool, report: bool) -> int:
    """Print `analysis`, write its report into `directory` if asked, and return the exit code."""
    files = _write_report_beside(analysis, directory) if report else []
    if as_json:
        print_json(analysis.to_json())
    else:
        print_terminal_report(analysis)
        click.echo(f"\nrecording {directory}")
        for file in files:
            click.echo(f"wrote     {file}")
    return EXIT_CODES[analysis.conclusion]


def _write_report_beside(analysis: Analysis, directory: Path) -> list[Path]:
    """The report in the run's own directory. Raises ProfilerError: whatever happens now, the run itself is whole."""
    try:
        return write_report(analysis, directory)
    except OSError as error:
        raise ProfilerError(
            f"the report could not be written into {directory}: {error.strerror or error}",
            hint=f"recording and analysis are whole; `whyerrno report {directory} -o DIRECTORY` writes the report",
        ) from error


def write_report(analysis: Analysis, directory: Path) -> list[Path]:
    """report.html and the two PNGs, in `directory`; their paths."""
    from reports import html, plots

    directory.mkdir(parents=True, exist_ok=True)
    page, lines, candidates = directory / REPORT, directory / "lines.png", directory / "candidates.png"
    with tempfile.TemporaryDirectory() as dark:
        dark_lines, dark_candidates = Path(dark, lines.name), Path(dark, candidates.name)
        for theme, line_plot, candidate_plot in (("light", lines, candidates), ("dark", dark_lines, dark_candidates)):
            plots.write_line_plot(analysis, line_plot, theme=theme)
            plots.write_candidate_plot(analysis, candidate_plot, theme=theme)
        pictures = [html.Plot("Candidates", candidates, dark_candidates)]
        if analysis.samples.total:
            pictures.insert(0, html.Plot("Samples per line", lines, dark_lines))
        html.write_report(analysis, page, plots=pictures)
    return [page, lines, candidates]


def print_terminal_report(analysis: Analysis) -> None:
    from rich.console import Console

    from reports import terminal

    terminal.render(analysis, Console())
