"""A comparison as a picture: the deciding function's lines, a bar a run."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import Any

from reports.canvas import MONO, THEMES, Theme, clip, figure, heading, plain_axes
from reports.comparison import AlignedLine, ComparedFunction, Comparison
from reports.findings import BRANCH, ERROR_SITE
from reports.visible import visible, visible_source

LINES_AT_MOST = 26
RUNS_AT_MOST = 6
_WIDTH, _LEFT, _BARS = 12.0, 6.7, 4.9  # inches: of the picture, left of the bars, of the bars


def write(comparison: Comparison, path: Path, *, theme: str) -> None:
    colours = THEMES[theme]
    function = next((f for f in comparison.functions if f.lines), None)
    lines = _rows(function) if function else []
    runs = [run for run, name in enumerate(function.names) if name][:RUNS_AT_MOST] if function else []
    subtitle = _subtitle(comparison, function, len(lines))
    above, below = 0.75 + 0.2 * len(subtitle) + 0.2 * math.ceil(len(runs) / 3), 0.6
    rows = (0.12 * len(runs) + 0.14) * len(lines)
    height = above + rows + below
    with figure(path, _WIDTH, height, colours) as made:
        heading(made, colours, _title(comparison), subtitle, left=0.3)
        if not lines:
            return
        axes = made.add_axes((_LEFT / _WIDTH, below / height, _BARS / _WIDTH, rows / height))
        plain_axes(axes, colours)
        _draw(axes, comparison, lines, runs, colours)


def _title(comparison: Comparison) -> str:
    first = comparison.runs[0].analysis
    return clip(f"{visible(first.syscall)}() and {visible(first.errno)} {comparison.span}", 90)


def _subtitle(comparison: Comparison, function: ComparedFunction | None, shown: int) -> list[str]:
    lines = textwrap.wrap(clip(comparison.summary, 420), 150)
    if function is None:
        return [*lines, "No function's lines can be compared: no source was at hand, or nothing was sampled."]
    sampled = sum(line.peak > 0 for line in function.lines)
    part = f", the {shown} hottest of {sampled} sampled lines" if sampled > shown else ""
    lines.append(f"{clip(visible(function.name), 60)}{part}; whiskers are 95% intervals")
    for run in comparison.runs:
        if run.excluded:
            lines.append(clip(f"{run.label} {run.excluded}: not tested", 150))
    return lines[:7]


def _rows(function: ComparedFunction) -> list[AlignedLine]:
    wanted = [line for line in function.lines if line.peak > 0 or {BRANCH, ERROR_SITE} & line.marks]
    ranked = sorted(wanted, key=lambda line: (not ({BRANCH, ERROR_SITE} & line.marks), -line.peak))
    kept = {id(line) for line in ranked[:LINES_AT_MOST]}
    return [line for line in wanted if id(line) in kept]


def _draw(axes: Any, comparison: Comparison, lines: list[AlignedLine], runs: list[int], theme: Theme) -> None:
    thick = 0.78 / len(runs)
    top = max((cell.high for line in lines for cell in line.cells if cell and cell.samples), default=0.01)
    axes.set_xlim(0, 118 * top)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set_yticks([])
    axes.set_xlabel("share of the function's samples (%)", color=theme.muted)
    for number, run in enumerate(runs):
        offset = (number - (len(runs) - 1) / 2) * thick
        _draw_run(axes, comparison, lines, run, theme, offset=offset, thick=thick)
    for y, line in enumerate(lines):
        _draw_label(axes, y, line, runs, theme)
    axes.legend(
        loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, frameon=False, fontsize=8.5, labelcolor=theme.text,
        handlelength=1.2, columnspacing=1.2, borderaxespad=0.2,
    )  # fmt: skip


def _draw_run(
    axes: Any, comparison: Comparison, lines: list[AlignedLine], run: int, theme: Theme, *, offset: float, thick: float
) -> None:
    rows = [(y + offset, line.cells[run], line.differences[run]) for y, line in enumerate(lines)]
    there = [(y, cell, difference) for y, cell, difference in rows if cell is not None]
    shares = [100 * cell.share for _, cell, _ in there]
    low = [max(100 * (cell.share - cell.low), 0) if cell.samples else 0 for _, cell, _ in there]
    high = [max(100 * (cell.high - cell.share), 0) if cell.samples else 0 for _, cell, _ in there]
    places = [y for y, _, _ in there]
    label = clip(comparison.runs[run].short, 26)
    axes.barh(places, shares, height=thick * 0.92, color=theme.runs[run % len(theme.runs)], label=label)
    axes.errorbar(shares, places, xerr=[low, high], fmt="none", ecolor=theme.text, elinewidth=0.8, capsize=1.5)
    for (y, _, difference), share, up in zip(there, shares, high, strict=True):
        if difference is not None and difference.significant:
            axes.annotate(
                f"{100 * difference.change:+.1f}", (share + up, y), (4, 0), textcoords="offset points", va="center",
                size=7, color=theme.text,
            )  # fmt: skip
    for y, cell, _ in rows:
        if cell is None:
            axes.annotate(
                "not there", (0, y), (3, 0), textcoords="offset points", va="center", size=6.5, color=theme.muted,
                style="italic",
            )  # fmt: skip


def _draw_label(axes: Any, y: int, line: AlignedLine, runs: list[int], theme: Theme) -> None:
    transform = axes.get_yaxis_transform()
    branch, site = BRANCH in line.marks, ERROR_SITE in line.marks
    colour = theme.branch if branch else theme.site if site else theme.text
    left = 0.25 / _BARS - _LEFT / _BARS
    if branch or site:
        band = theme.branch_band if branch else theme.site_band
        axes.axhspan(y - 0.5, y + 0.5, xmin=left, xmax=1, color=band, zorder=0, clip_on=False, linewidth=0)
    numbers = "/".join(str(cell.line) if (cell := line.cells[run]) else "-" for run in runs)
    text = visible_source(line.text or "").replace("\t", "  ")
    note = "  ← decides" if branch else "  ← error set" if site else ""
    room = 92 - len(numbers) - len(note)
    axes.text(
        left + 0.01, y, f"{numbers}  {clip(text, room)}{note}", transform=transform, family=MONO, size=7,
        va="center", ha="left", color=colour, weight="bold" if branch or site else "normal",
    )  # fmt: skip
