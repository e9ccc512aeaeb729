"""Progress on stderr: a bar on a terminal, one line a phase elsewhere, nothing when quiet."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

import click

Progress = Callable[[str, float | None], None]  # phase, fraction done (None: not known)


@contextlib.contextmanager
def show_progress(*, quiet: bool) -> Iterator[Progress]:
    """A callable that takes (phase, fraction from 0 to 1 or None) and shows it on stderr."""
    if quiet:
        yield lambda _phase, _fraction: None
    elif sys.stderr.isatty():
        with _bar() as progress:
            yield progress
    else:
        yield _phase_lines()


@contextlib.contextmanager
def _bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=30), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=None)

        def progress(phase: str, fraction: float | None) -> None:
            bars.update(task, description=phase, total=None if fraction is None else 1.0, completed=fraction or 0.0)

        yield progress


def _phase_lines() -> Progress:
    last = ""

    def progress(phase: str, _fraction: float | None) -> None:
        nonlocal last
        if phase != last:
            last = phase
            click.echo(f"whyerrno: {phase}", err=True)

    return progress
