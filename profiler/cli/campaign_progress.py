"""Progress of a campaign: a bar for the whole and one a run on a terminal, a line a finished run elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from profiler.campaign.outcome import Outcome
from profiler.campaign.plan import PlannedRun
from profiler.campaign.runner import Watcher

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID


@contextlib.contextmanager
def show_campaign(total: int, *, quiet: bool) -> Iterator[Watcher]:
    """What to tell a campaign of `total` runs to."""
    if quiet:
        yield Silent()
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=20), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            yield CampaignBars(bars, total)
    else:
        yield Lines(total)


class Silent:
    def started(self, run: PlannedRun) -> None:
        pass

    def progress(self, run: PlannedRun, phase: str, fraction: float | None) -> None:
        pass

    def ended(self, outcome: Outcome, *, kept: bool) -> None:
        pass


class Lines(Silent):
    """One line on stderr for each run that ended."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0

    def ended(self, outcome: Outcome, *, kept: bool) -> None:
        self.done += 1
        click.echo(f"whyerrno: {self.done}/{self.total} {line(outcome, kept=kept)}", err=True)


class CampaignBars(Silent):
    def __init__(self, bars: Bars, total: int) -> None:
        self.bars = bars
        self.all = bars.add_task("campaign", total=total)
        self.tasks: dict[PlannedRun, TaskID] = {}

    def started(self, run: PlannedRun) -> None:
        self.tasks[run] = self.bars.add_task(name(run), total=None)

    def progress(self, run: PlannedRun, phase: str, fraction: float | None) -> None:
        total = None if fraction is None else 1.0
        text = f"{name(run)}: {phase}"
        self.bars.update(self.tasks[run], description=text[:44], total=total, completed=fraction or 0.0)

    def ended(self, outcome: Outcome, *, kept: bool) -> None:
        if outcome.run in self.tasks:
            self.bars.remove_task(self.tasks.pop(outcome.run))
        self.bars.advance(self.all)
        self.bars.console.print(line(outcome, kept=kept), markup=False, highlight=False)


def name(run: PlannedRun) -> str:
    return f"{run.scenario} {run.target}" + (f" #{run.repeat}" if run.repeat > 1 else "")


def line(outcome: Outcome, *, kept: bool) -> str:
    how = "kept" if kept else f"{outcome.seconds:.0f} s"
    return f"{name(outcome.run)}: {outcome.status} ({how})"
