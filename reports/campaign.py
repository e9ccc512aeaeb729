"""A campaign's results: an index page over all runs, and a table scenario × kernel."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from rich.console import Console
from rich.table import Table
from rich.text import Text

from profiler.model import Conclusion
from reports import findings
from reports.page import render as render_page
from reports.page import write_whole
from reports.terminal_text import Writer
from reports.visible import prose, visible

_WORDS = {conclusion.value: words for conclusion, words in findings.CONCLUSION_WORDS.items()}
_STYLES = {"named": "green", "inconclusive": "dark_orange", "not-reproduced": "steel_blue"}


@dataclass(frozen=True, slots=True)
class CampaignRow:
    """How one run ended. `status` is a Conclusion's value, or another word for a run without one: error, crashed."""

    scenario: str
    target: str  # vm:6.1, local; a column of the table
    status: str
    repeat: int = 1
    reason: str = ""  # the verdict in words, or what went wrong
    run_dir: str = ""  # relative to the index page; "" where there is none
    report: str = ""  # the page to link to, relative to the index page; "" where there is none
    release: str = ""  # of the kernel that ran
    package_version: str = ""
    exit_code: int | None = None
    confidence: float | None = None
    function: str = ""  # of the error site
    file: str = ""
    line: int = 0
    seconds: float | None = None  # wall clock
    correct: bool | None = None  # as held against the scenario's truth; None where that is not known
    evidence: Sequence[str] = ()  # that the verdict rests on, as of `Effort.evidence`

    @property
    def concluded(self) -> bool:
        return self.status in _WORDS

    @property
    def words(self) -> str:
        return _WORDS.get(self.status, visible(self.status).capitalize())

    @property
    def tone(self) -> str:
        """The style class: a conclusion's value, or failed."""
        return self.status if self.concluded else "failed"

    @property
    def rests_on(self) -> str:
        """`instruction log and samples`"""
        return findings.kinds_words(self.evidence)

    @property
    def link(self) -> str:
        """A relative address and nothing else, whatever the names hold."""
        return "./" + quote(self.report.encode("utf-8", "surrogatepass"), safe="/") if self.report else ""


@dataclass(frozen=True, slots=True)
class Spot:
    """The runs of one scenario on one target that ended alike."""

    row: CampaignRow  # the first of them
    times: int


def spots(rows: Sequence[CampaignRow]) -> list[Spot]:
    """The outcomes of the repeats, the most frequent first."""
    found: dict[tuple[str, str, int], list[CampaignRow]] = {}
    for row in rows:
        found.setdefault((row.status, row.function, row.line), []).append(row)
    ordered = sorted(found.values(), key=lambda alike: -len(alike))
    return [Spot(alike[0], len(alike)) for alike in ordered]


def _axes(rows: Sequence[CampaignRow]) -> tuple[list[str], list[str]]:
    """Scenarios and targets, each in the order in which they first appear."""
    return list(dict.fromkeys(row.scenario for row in rows)), list(dict.fromkeys(row.target for row in rows))


def _at(rows: Sequence[CampaignRow], scenario: str, target: str) -> list[Spot]:
    return spots([row for row in rows if (row.scenario, row.target) == (scenario, target)])


def tally(rows: Sequence[CampaignRow]) -> list[tuple[str, str, int]]:
    """(words, style class, runs) of each way to end that occurs, conclusions first."""
    order = [conclusion.value for conclusion in Conclusion]
    statuses = sorted({row.status for row in rows}, key=lambda s: (order.index(s) if s in order else 9, s))
    firsts = [next(row for row in rows if row.status == status) for status in statuses]
    return [(row.words, row.tone, sum(other.status == row.status for other in rows)) for row in firsts]


def write_index(rows: Sequence[CampaignRow], path: Path, *, title: str = "Campaign") -> None:
    """The index page, self-contained but for its links to the runs' own pages. Raises OSError."""
    scenarios, targets = _axes(rows)
    kernels = {
        target: ", ".join(dict.fromkeys(visible(row.release) for row in rows if row.target == target and row.release))
        for target in targets
    }
    grid = [(scenario, [_at(rows, scenario, target) for target in targets]) for scenario in scenarios]
    ordered = sorted(rows, key=lambda row: (scenarios.index(row.scenario), targets.index(row.target), row.repeat))
    page = render_page(
        "campaign.html",
        title=visible(title),
        rows=[dataclasses.replace(row, reason=prose(row.reason)) for row in ordered],
        grid=grid,
        targets=[(target, kernels[target]) for target in targets],
        tally=tally(rows),
        checked=[row for row in rows if row.correct is not None],
        wrong=[row for row in ordered if row.correct is False],
        seconds=sum(row.seconds or 0 for row in rows),
    )
    write_whole(path, page)


def render(rows: Sequence[CampaignRow], console: Console) -> None:
    """Print the table scenario × target, then the runs that ended without a conclusion."""
    writer = Writer(console)
    scenarios, targets = _axes(rows)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", show_edge=False)
    table.add_column("scenario", overflow="fold")
    for target in targets:
        table.add_column(writer.text(visible(target)), overflow="fold")
    for scenario in scenarios:
        cells = [_cell(_at(rows, scenario, target), writer) for target in targets]
        table.add_row(writer.text(visible(scenario)), *cells)
    writer.table(table)
    writer.blank()
    writer.paragraph(", ".join(f"{number} {words.lower()}" for words, _, number in tally(rows)))
    for row in rows:
        if not row.concluded:
            head = f"{visible(row.scenario)} on {visible(row.target)}, repeat {row.repeat}: {visible(row.status)}"
            writer.paragraph((head, "bold red"), f" {prose(row.reason)}")


def _cell(found: list[Spot], writer: Writer) -> Text:
    lines = []
    for spot in found:
        row = spot.row
        text = f"{visible(row.function)}:{row.line}" if row.function and row.status == "named" else row.words.lower()
        wrong = " wrong" if row.correct is False else ""
        times = f" ×{spot.times}" if len(found) > 1 or spot.times > 1 else ""
        lines.append((f"{text}{wrong}{times}", "bold red" if wrong else _STYLES.get(row.status, "red")))
    pieces = [piece for index, line in enumerate(lines) for piece in ((("\n", ""), line) if index else (line,))]
    return writer.text(*pieces or [("—", "dim")])
