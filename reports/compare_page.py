"""A comparison as one self-contained HTML page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from reports import findings
from reports.alignment import normal
from reports.annotated import Budget
from reports.comparison import AlignedLine, Cell, ComparedFunction, Comparison
from reports.excerpt import fold
from reports.highlight import highlight
from reports.page import render, write_whole
from reports.visible import visible_source

_PAGE_BYTES = 1_100_000
_ROW_BYTES = 150
_CELL_BYTES = 330


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
    write_whole(path, render("compare.html", comparison=comparison, functions=views, findings=findings))


def _view(function: ComparedFunction, anchor: str, budget: Budget) -> FunctionView:
    coloured = highlight([visible_source(line.text or "") for line in function.lines])
    scale = max((cell.high for line in function.lines for cell in line.cells if cell and cell.samples), default=0) or 1
    interesting = [bool(line.marks or line.peak > 0) for line in function.lines]
    blocks = []
    for stretch in fold(interesting, context=2, shortest=6):
        lines = [_line(function.lines[row], coloured[row], scale) for row in range(stretch.start, stretch.stop)]
        fits = budget.take(sum(_size(line) for line in lines))
        blocks.append(BlockView(stretch.folded, len(lines), lines if fits else []))
    return FunctionView(function, anchor, blocks, sum(line.differs for line in function.lines), _shown(function))


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


def _size(line: LineView) -> int:
    sampled = sum(1 for bar in line.bars if bar and bar[0].samples)
    return _ROW_BYTES + len(line.code) + sum(map(len, line.older)) + _CELL_BYTES * sampled
