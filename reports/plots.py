"""The PNGs of one run: samples per line of the origin function, and the candidates by probability."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from profiler.model import Analysis, AnnotatedFunction, Candidate, Conclusion
from reports import findings, walk
from reports.canvas import MONO, THEMES, Theme, clip, figure, heading, plain_axes
from reports.findings import BRANCH, ERROR_SITE
from reports.visible import counted, percent, place, prose, visible, visible_source

LINES_AT_MOST = 40
CANDIDATES_AT_MOST = 15
_CODE_AT_MOST = 76  # characters of a source line
_ROW = 0.235  # inches


def write_line_plot(analysis: Analysis, path: Path, *, theme: str = "light") -> None:
    """Share of samples per line of the origin function, as a PNG. `theme`: light or dark. Raises OSError."""
    colours = THEMES[theme]
    index = findings.origin_index(analysis)
    function = analysis.functions[index] if index is not None else None
    rows = _rows(analysis, function) if function else []
    if analysis.samples.total == 0 and walk.is_observed(analysis):
        _write_empty(analysis, path, colours, "Nothing was sampled: the instruction log alone shows the path.")
        return
    if not analysis.samples.total and (others := findings.evidence_words(analysis)):
        _write_empty(analysis, path, colours, f"Nothing was sampled: the path is known by {others} alone.")
        return
    if function is None or not rows:
        _write_empty(analysis, path, colours, "No samples fell into a function with known lines.")
        return
    height = 1.55 + _ROW * len(rows)
    with figure(path, 11.5, height, colours) as made:
        heading(
            made, colours, clip(findings.headline(analysis), 90), _subtitle(analysis, function, len(rows)), left=0.3
        )
        axes = made.add_axes((6.7 / 11.5, 0.55 / height, 4.4 / 11.5, (height - 1.55) / height))
        plain_axes(axes, colours)
        _draw_lines(axes, analysis, function, rows, colours)


def _rows(analysis: Analysis, function: AnnotatedFunction) -> list[int]:
    """Lines with samples or a mark, in order; of too many, the marked and the hottest."""
    lines = function.lines
    wanted = [row for row, line in enumerate(lines) if line.samples or findings.marks_of(analysis, function, line)]
    decided = [row for row in wanted if {BRANCH, ERROR_SITE} & set(findings.marks_of(analysis, function, lines[row]))]
    hottest = sorted(set(wanted) - set(decided), key=lambda row: (-lines[row].samples, row))
    return sorted((decided + hottest)[:LINES_AT_MOST])


def _subtitle(analysis: Analysis, function: AnnotatedFunction, shown: int) -> list[str]:
    sampled = sum(line.samples > 0 for line in function.lines)
    part = f", {shown} lines shown of {sampled} with samples" if sampled > shown else ""
    where = f"{clip(visible(function.function), 50)}, {clip(visible(function.file), 60)}"
    source = "" if findings.has_source(function) else "; source not at hand"
    return [
        f"{where}: {counted(function.samples, 'sample')}{part}; whiskers are 95% intervals{source}",
        clip(findings.kernel_name(analysis), 110),
    ]


def _draw_lines(axes: Any, analysis: Analysis, function: AnnotatedFunction, rows: list[int], theme: Theme) -> None:
    lines = [function.lines[row] for row in rows]
    shares = [100 * line.samples / max(function.samples, 1) for line in lines]
    low = [max(share - 100 * line.low, 0) for share, line in zip(shares, lines, strict=True)]
    high = [max(100 * line.high - share, 0) for share, line in zip(shares, lines, strict=True)]
    axes.barh(range(len(rows)), shares, height=0.66, color=theme.bar)
    axes.errorbar(shares, range(len(rows)), xerr=[low, high], fmt="none", ecolor=theme.whisker, elinewidth=1, capsize=2)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    longest = max(len(_note(findings.marks_of(analysis, function, line))) for line in lines)
    room = 1 - (0.25 + 0.075 * longest) / 4.4  # of the 4.4 inches, beside the note at the longest bar's end
    axes.set_xlim(0, max([*(share + up for share, up in zip(shares, high, strict=True)), 1.0]) / room)
    axes.set_xlabel("share of the function's samples (%)", color=theme.muted)
    axes.set_yticks([])
    for y, (row, line) in enumerate(zip(rows, lines, strict=True)):
        marks = findings.marks_of(analysis, function, line)
        text = visible_source(line.text).replace("\t", "  ") if line.text is not None else ""
        _draw_label(axes, y, f"{line.line:>5}  {clip(text, _CODE_AT_MOST)}", marks, theme)
        if y and rows[y - 1] + 1 < row:
            axes.axhline(y - 0.5, xmin=-1.45, xmax=1, color=theme.grid, linewidth=0.6, linestyle=":", clip_on=False)
        note = _note(marks)
        if note:
            colour = theme.branch if BRANCH in marks else theme.site
            axes.annotate(
                note, (shares[y] + high[y], y), (7, 0), textcoords="offset points", va="center", color=colour,
                weight="bold", size=9,
            )  # fmt: skip


def _draw_label(axes: Any, y: int, text: str, marks: tuple[str, ...], theme: Theme) -> None:
    """The line's number and source left of the axis, on a band across the picture where it is marked."""
    transform = axes.get_yaxis_transform()
    decided = BRANCH in marks or ERROR_SITE in marks
    colour = theme.text
    if decided:
        band = theme.branch_band if BRANCH in marks else theme.site_band
        colour = theme.branch if BRANCH in marks else theme.site
        axes.axhspan(y - 0.5, y + 0.5, xmin=-1.46, xmax=1, color=band, zorder=0, clip_on=False, linewidth=0)
    axes.text(
        -1.44, y, text, transform=transform, family=MONO, size=7.6, va="center", ha="left", color=colour,
        weight="bold" if decided else "normal",
    )  # fmt: skip


def _note(marks: tuple[str, ...]) -> str:
    words = {BRANCH: "deciding branch", ERROR_SITE: "error set here"}
    return ", ".join(words[mark] for mark in marks if mark in words)


def write_candidate_plot(analysis: Analysis, path: Path, *, theme: str = "light") -> None:
    """The candidates by probability, with why each is out, as a PNG. `theme`: light or dark. Raises OSError."""
    colours = THEMES[theme]
    shown = sorted(analysis.candidates, key=lambda candidate: -candidate.probability)[:CANDIDATES_AT_MOST]
    if not shown:
        _write_empty(analysis, path, colours, "There are no candidates to rank.")
        return
    height = 1.6 + 0.5 * len(shown)
    left = len(analysis.candidates) - len(shown)
    subtitle = [
        f"{counted(len(analysis.candidates), 'place')} could have returned {clip(visible(analysis.errno), 30)}"
        + (f"; the {len(shown)} likeliest are shown" if left else ""),
        clip(findings.kernel_name(analysis), 110),
    ]
    with figure(path, 11.5, height, colours) as made:
        heading(made, colours, clip(findings.headline(analysis), 90), subtitle, left=0.3)
        axes = made.add_axes((4.3 / 11.5, 0.55 / height, 2.6 / 11.5, (height - 1.6) / height))
        plain_axes(axes, colours)
        _draw_candidates(axes, analysis, shown, colours)


def _draw_candidates(axes: Any, analysis: Analysis, shown: list[Candidate], theme: Theme) -> None:
    kept = [candidate.excluded_by is None for candidate in shown]
    values = [100 * candidate.probability for candidate in shown]
    axes.barh(range(len(shown)), values, height=0.5, color=[theme.site if k else theme.muted for k in kept])
    axes.set_xlim(0, 100)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_yticks([])
    axes.set_xlabel("probability (%)", color=theme.muted)
    transform = axes.get_yaxis_transform()
    for y, candidate in enumerate(shown):
        weight = "bold" if kept[y] else "normal"
        name, where = clip(visible(candidate.site.function), 40), place(candidate.site.file, candidate.site.line)
        axes.text(-0.04, y - 0.17, name, transform=transform, ha="right", va="center", weight=weight)
        axes.text(
            -0.04, y + 0.2, "…" * (len(where) > 52) + where[-52:], transform=transform, ha="right", va="center",
            size=7.6, color=theme.muted,
        )  # fmt: skip
        axes.text(1.04, y, percent(candidate.probability), transform=transform, va="center", weight=weight)
        axes.text(
            1.28, y, _why(analysis, candidate), transform=transform, va="center", size=8.2,
            color=theme.site if kept[y] else theme.muted, weight=weight,
        )  # fmt: skip


def _why(analysis: Analysis, candidate: Candidate) -> str:
    """Why it is out, in two short lines at most."""
    if candidate.excluded_by is None:
        return "the verdict" if analysis.conclusion is Conclusion.NAMED else "still possible"
    lines: list[str] = []
    rest = prose(candidate.excluded_by)
    while rest and len(lines) < 2:
        cut = len(rest) if len(rest) <= 54 else max(rest.rfind(" ", 20, 54), 0) or 54
        lines.append(rest[:cut])
        rest = rest[cut:].lstrip()
    return "\n".join(lines) + ("…" if rest else "")


def _write_empty(analysis: Analysis, path: Path, theme: Theme, why: str) -> None:
    with figure(path, 11.5, 1.5, theme) as made:
        heading(
            made,
            theme,
            clip(findings.headline(analysis), 90),
            [why, clip(findings.kernel_name(analysis), 110)],
            left=0.3,
        )
