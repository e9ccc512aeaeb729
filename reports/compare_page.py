"""A comparison as one self-contained HTML page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup, escape

from reports import findings, ladder, walk
from reports.alignment import normal
from reports.annotated import Budget
from reports.comparison import AlignedLine, Cell, ComparedFunction, Comparison
from reports.excerpt import Stretch, fold
from reports.highlight import highlight_part
from reports.page import render, write_whole
from reports.visible import visible_source

_PAGE_BYTES = 1_100_000
_ROW_BYTES = 150
_CELL_BYTES = 330
_BLOCK_ROWS = 300  # that are shown or left out together


@dataclass(frozen=True, slots=True)
class LineView:
    line: AlignedLine
    code: Markup
    older: list[str]  # other texts of the line, from earlier versions
    bars: list[tuple[Cell, str, str, str] | None]  # cell, bar, low and high from 0 to 100


@dataclass(frozen=True, slots=True)
class BlockView:
    folded: bool
    size: int
    lines: list[LineView]  # empty where left out


@dataclass(frozen=True, slots=True)
class FunctionView:
    function: ComparedFunction
    anchor: str
    blocks: list[BlockView]
    differing: int
    shown: list[int]  # the runs that have it


def write(comparison: Comparison, path: Path) -> None:
    """Equal comparisons give equal bytes. Raises OSError."""
    budget = Budget(_PAGE_BYTES)
    views = [_view(function, f"f{number}", budget) for number, function in enumerate(comparison.functions)]
    page = render(
        "compare.html",
        comparison=comparison,
        functions=views,
        findings=findings,
        ladder=ladder,
        sampled=any(run.analysis.samples.total for run in comparison.runs),
        walked=_walked(comparison),
    )
    write_whole(path, page)


def _walked(comparison: Comparison) -> str:
    """By what the lines are known to be on the path, run by run; "" where no run shows one."""
    analyses = [run.analysis for run in comparison.runs]
    observed = [walk.is_observed(a) for a in analyses if any(walk.is_known(f) for f in a.functions)]
    if not observed:
        return ""
    if all(observed):
        return "executed in a logged call"
    return "executed in a logged call, or on the likeliest walk" if any(observed) else "on the likeliest walk"


def _view(function: ComparedFunction, anchor: str, budget: Budget) -> FunctionView:
    sources = [visible_source(line.text or "") for line in function.lines]
    scale = max((cell.high for line in function.lines for cell in line.cells if cell and cell.samples), default=0) or 1
    unsampled = not any(function.samples)
    interesting = [
        bool(line.marks or line.peak > 0 or line.parts or (unsampled and line.ran)) for line in function.lines
    ]
    stretches = [part for whole in fold(interesting, context=2, shortest=6) for part in whole.pieces(_BLOCK_ROWS)]
    blocks: dict[Stretch, BlockView] = {}
    for stretch in sorted(stretches, key=lambda part: _importance(function.lines[part.start : part.stop])):
        rows = function.lines[stretch.start : stretch.stop]
        lines: list[LineView] = []
        if budget.take(sum(_size(row) for row in rows)):
            codes = highlight_part(sources, stretch.start, stretch.stop)
            lines = [_line(row, code, scale) for row, code in zip(rows, codes, strict=True)]
        blocks[stretch] = BlockView(stretch.folded, len(stretch), lines)
    ordered = [blocks[stretch] for stretch in stretches]
    return FunctionView(function, anchor, ordered, sum(line.differs for line in function.lines), _shown(function))


def _importance(lines: list[AlignedLine]) -> tuple[bool, float]:
    """Sorts what must be on the page first: branches and error sites, then samples."""
    return not any(line.marks for line in lines), -sum(line.peak for line in lines)


def _shown(function: ComparedFunction) -> list[int]:
    return [run for run, name in enumerate(function.names) if name]


def _line(line: AlignedLine, code: Markup, scale: float) -> LineView:
    newest = normal(line.text or "")
    older = {normal(cell.text): visible_source(cell.text).strip() for cell in line.cells if cell and cell.text}
    older.pop(newest, None)
    bars = [_bar(cell, scale) if cell else None for cell in line.cells]
    return LineView(line, code, list(older.values()), bars)


def _bar(cell: Cell, scale: float) -> tuple[Cell, str, str, str]:
    width, low, high = (f"{100 * min(max(value / scale, 0), 1):.1f}" for value in (cell.share, cell.low, cell.high))
    return cell, width, low, high


def _size(line: AlignedLine) -> int:
    """About how many bytes the row will take."""
    sampled = sum(1 for cell in line.cells if cell and cell.samples)
    texts = sum(len(escape((cell.text or "")[:1000])) for cell in line.cells if cell)
    return _ROW_BYTES + 2 * texts + _CELL_BYTES * sampled
