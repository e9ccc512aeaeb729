"""The trees of failing and of succeeding calls in a terminal, side by side."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from profiler.model import GraphComparison, SourceCandidate
from reports.graph_rows import Cell, Row, rows
from reports.terminal_text import Piece, Writer
from reports.visible import counted, place, prose, visible

ROWS_AT_MOST = 40
CANDIDATES_AT_MOST = 12
_FAILING, _SUCCEEDING = "red", "green"
_GUTTER = " │ "
_LEAST_STEP, _STEP = 1, 2  # of indentation


def heading(syscall: str, errno: str, kernel: str, warnings: Sequence[str], console: Console) -> None:
    writer = Writer(console)
    writer.line((f"{visible(syscall)}() and {visible(errno)}", "bold"), (f" on {visible(kernel)}", ""))
    for warning in warnings:
        writer.paragraph(("note  ", "dim"), prose(warning))


def render(
    comparison: GraphComparison, console: Console, *, most: int = ROWS_AT_MOST, deepest: int | None = None
) -> None:
    """Both trees, and in words where they part. `deepest`: levels of calls, with all that they hold."""
    writer = Writer(console)
    writer.paragraph(calls_sentence(comparison))
    shown = rows(comparison, most if deepest is None else len(comparison.lines), deepest)
    if not shown:
        return
    writer.blank()
    _trees(shown, writer, both=comparison.succeeding_calls > 0)
    if any(cell is not None and cell.hidden for row in shown for cell in (row.failing, row.succeeding)):
        writer.line(("+N: so many calls below, not shown here; --json has all of them", "dim"))
    if comparison.divergence:
        writer.blank()
        writer.paragraph(("They part ", "bold"), f"{prose(comparison.divergence)}.")


def calls_sentence(comparison: GraphComparison) -> str:
    failing = counted(comparison.failing_calls, "failing call")
    if not comparison.succeeding_calls:
        return f"{failing}; none that succeeded ({visible(comparison.told_by)})"
    succeeding = counted(comparison.succeeding_calls, "succeeding call")
    return f"{failing} and {succeeding}, told apart by {visible(comparison.told_by)}"


def _trees(shown: list[Row], writer: Writer, *, both: bool) -> None:
    # Of one tree alone the notes stand behind it.
    alone = max(writer.width - max(len(row.note) + 2 for row in shown), writer.width // 2)
    width = (writer.width - len(_GUTTER)) // 2 if both else alone
    step = _step(shown, width)
    writer.line(
        *_beside(("failing".ljust(width), f"bold {_FAILING}"), ("succeeding", f"bold {_SUCCEEDING}"), both=both)
    )
    label = " here they part "
    for row in shown:
        if row.parts:
            writer.line((label.center(2 * width + len(_GUTTER), "─"), "bold magenta"))
            label = " and so "
        left = _cell(row.failing, width, step, _FAILING)
        right = _cell(row.succeeding, width, step, _SUCCEEDING)
        writer.line(*left, *([(_GUTTER, "dim"), *right] if both else []), *_note(row, both=both))


def _beside(left: Piece, right: Piece, *, both: bool) -> list[Piece]:
    return [left, (_GUTTER, "dim"), right] if both else [left]


def _step(shown: list[Row], width: int) -> int:
    """As deep an indentation as lets the names in."""
    cells = [cell for row in shown for cell in (row.failing, row.succeeding) if cell is not None]
    longest = max(_STEP * cell.depth + len(cell.function) + len(cell.notes) for cell in cells)
    return _STEP if longest <= width else _LEAST_STEP


def _cell(cell: Cell | None, width: int, step: int, colour: str) -> list[Piece]:
    """Exactly `width` columns; a name that is too long is cut short, so that all are as deep as they are."""
    if cell is None:
        return [" " * width]
    room = width - len(cell.notes)
    indent = min(step * cell.depth, room // 2)
    name = cell.function
    if len(name) > room - indent:
        name = name[: room - indent - 1] + "…"
    style = f"bold {colour}" if cell.alone else ""
    padding = " " * (width - indent - len(name) - len(cell.notes))
    return [" " * indent, (name, style), (cell.notes, "dim"), padding]


def _note(row: Row, *, both: bool) -> list[Piece]:
    """Where there is a column of its own for it."""
    return [] if both or not row.note else [("  " + row.note, "dim")]


# ---- candidates ----


def render_candidates(
    candidates: Sequence[SourceCandidate], console: Console, *, most: int = CANDIDATES_AT_MOST, cut: str = ""
) -> None:
    """Which places in the source the calls cannot have come to, and which are left. `cut`: what the list leaves out."""
    writer = Writer(console)
    left = [candidate for candidate in candidates if not candidate.excluded_by]
    out = [candidate for candidate in candidates if candidate.excluded_by]
    for title, some in (("Still possible", left), ("Excluded", out)):
        if not some:
            continue
        writer.blank()
        writer.line((title, "bold"), (f"  {counted(len(some), 'place')} of {len(candidates)}", "dim"))
        for candidate in some[:most]:
            _candidate(candidate, writer)
        if len(some) > most:
            writer.line((f"and {counted(len(some) - most, 'more place')}, all with --json", "dim"))
    if cut:
        writer.blank()
        writer.paragraph((f"Not in the list: {prose(cut)}.", "dim"))


def _candidate(candidate: SourceCandidate, writer: Writer) -> None:
    site = candidate.site
    grid = Table.grid(padding=(0, 2))
    grid.add_column(overflow="fold", ratio=1)
    out = bool(candidate.excluded_by)
    where: list[Piece] = [(visible(site.function), "" if out else "bold"), (f"  {place(site.file, site.line)}", "dim")]
    grid.add_row(writer.text(*where))
    writer.table(grid)
    if candidate.condition:
        writer.paragraph(("if ", "dim"), (prose(candidate.condition), "magenta"), indent=2)
    if candidate.reason:
        writer.paragraph((prose(candidate.reason), "italic"), indent=2)
