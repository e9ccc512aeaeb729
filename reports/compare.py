"""Two or more runs of a failure, compared: verdicts, and samples per line aligned across versions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from profiler.model import Analysis, AnnotatedFunction, AnnotatedLine
from reports import comparison as words
from reports import findings
from reports.alignment import align, alike
from reports.comparison import (
    ABSENT,
    INLINED,
    PRESENT,
    AlignedLine,
    Cell,
    ComparedFunction,
    ComparedRun,
    Comparison,
)
from reports.significance import LEAST_SAMPLES, Difference, change_interval, g_test, holm
from reports.visible import visible

_RENAMED = 0.6  # share of lines in common from which a function under another name is the same one
_FUNCTIONS_AT_MOST = 60

Group = list[AnnotatedFunction | None]  # one function in every run; None where that run does not show it


def compare(analyses: list[tuple[str, Analysis]]) -> Comparison:
    """Hold runs against each other. Each comes with a label (its directory, its kernel).

    Raises ValueError for fewer than two.
    """
    if len(analyses) < 2:
        raise ValueError("a comparison takes two runs or more")
    runs = words.compared_runs(analyses)
    functions = [_compared(group, runs) for group in _groups([run.analysis for run in runs])]
    functions.sort(key=lambda function: not function.decides)
    functions, tests = _corrected(functions)
    text, agree = words.summary(runs, functions)
    return Comparison(runs, text, agree, words.notices(runs), functions[:_FUNCTIONS_AT_MOST], tests)


def write_html(comparison: Comparison, path: Path) -> None:
    """The comparison as one self-contained page. Raises OSError."""
    from reports import compare_page  # noqa: PLC0415

    compare_page.write(comparison, path)


def write_png(comparison: Comparison, path: Path, *, theme: str = "light") -> None:
    """Shares of samples per aligned line of the deciding function. `theme`: light or dark. Raises OSError."""
    from reports import compare_plot  # noqa: PLC0415

    compare_plot.write(comparison, path, theme=theme)


def render(comparison: Comparison, console: Console) -> None:
    """Print the verdicts side by side, and the lines of the deciding function that differ."""
    from reports import compare_terminal  # noqa: PLC0415

    compare_terminal.render(comparison, console)


# ---- which functions belong together ----


def _base(name: str) -> str:
    """The name without what compilers append: .isra.0, .part.3, .cold"""
    return name.partition(".")[0]


def _groups(analyses: list[Analysis]) -> list[Group]:
    """Functions by name, in the order of the first run that has each; then renamed ones are put together."""
    found: dict[str, Group] = {}
    for index, analysis in enumerate(analyses):
        for function in analysis.functions:
            group = found.setdefault(_base(function.function), [None] * len(analyses))
            if group[index] is None:
                group[index] = function
    groups = list(found.values())
    for group in groups:
        _take_renamed(group, groups)
    return [group for group in groups if any(group)]


def _take_renamed(group: Group, groups: list[Group]) -> None:
    """Fill the gaps of `group` from the group that is most alike and in none of the same runs, and empty that one."""
    while any(group) and not all(group):
        rivals = [other for other in groups if other is not group and any(other) and _disjoint(group, other)]
        scored = [(alike(_texts(group), _texts(other)), number) for number, other in enumerate(rivals)]
        score, number = max(scored, default=(0.0, 0))
        if score < _RENAMED:
            return
        chosen = rivals[number]
        for run, function in enumerate(chosen):
            group[run] = group[run] or function
            chosen[run] = None


def _disjoint(one: Group, other: Group) -> bool:
    return not any(a and b for a, b in zip(one, other, strict=True))


def _texts(group: Group) -> list[str]:
    """The source of the first version of which it is known."""
    for function in group:
        if function is not None and findings.has_source(function):
            return [line.text or "" for line in function.lines]
    return []


# ---- one function across the runs ----


def _compared(group: Group, runs: list[ComparedRun]) -> ComparedFunction:
    presence = [_presence(function, group, run.analysis) for function, run in zip(group, runs, strict=True)]
    cells = [_cells(function, run.analysis) for function, run in zip(group, runs, strict=True)]
    readable = all(findings.has_source(function) for function in group if function is not None)
    lines = [AlignedLine(row, [None] * len(runs)) for row in _aligned(cells)] if readable else []
    shown = [function for function in group if function is not None]
    return ComparedFunction(
        name=shown[-1].function,
        names=[function.function if function else "" for function in group],
        files=[function.file if function else "" for function in group],
        presence=presence,
        samples=[function.samples if function else 0 for function in group],
        lines=_tested(lines, group, runs),
        notes=list(_notes(group, presence, runs, readable)),
        decides=any(_decides(function, run.analysis) for function, run in zip(group, runs, strict=True)),
    )


def _presence(function: AnnotatedFunction | None, group: Group, analysis: Analysis) -> str:
    if function is not None:
        return INLINED if function.inlined else PRESENT
    names = {_base(other.function) for other in group if other is not None}
    return INLINED if names & _inlined_names(analysis) else ABSENT


def _inlined_names(analysis: Analysis) -> set[str]:
    lines = (line for function in analysis.functions for line in function.lines)
    return {_base(place.function) for line in lines for place in line.inlined} | {
        _base(link.function) for link in analysis.chain if link.inlined
    }


def _decides(function: AnnotatedFunction | None, analysis: Analysis) -> bool:
    wanted = {place.function for place in (analysis.branch, analysis.error_site) if place is not None}
    return function is not None and function.function in wanted


def _cells(function: AnnotatedFunction | None, analysis: Analysis) -> list[Cell]:
    return [_cell(function, line, analysis) for line in function.lines] if function else []


def _cell(function: AnnotatedFunction, line: AnnotatedLine, analysis: Analysis) -> Cell:
    return Cell(
        line=line.line,
        text=line.text,
        samples=line.samples,
        share=line.samples / max(function.samples, 1),
        low=line.low,
        high=line.high,
        on_path=line.on_path,
        marks=findings.marks_of(analysis, function, line),
    )


def _aligned(versions: list[list[Cell]]) -> list[list[Cell | None]]:
    """Rows with a cell a version; each version is aligned with what the earlier ones made."""
    rows: list[list[Cell | None]] = []
    faces: list[str] = []
    for number, cells in enumerate(versions):
        texts = [cell.text or "" for cell in cells]
        merged: list[list[Cell | None]] = []
        newer: list[str] = []
        for i, j in align(faces, texts) if cells else [(i, None) for i in range(len(rows))]:
            before = rows[i] if i is not None else [None] * number
            merged.append([*before, cells[j] if j is not None else None])
            newer.append(texts[j] if j is not None else faces[i] if i is not None else "")
        rows, faces = merged, newer
    return rows


def _notes(group: Group, presence: list[str], runs: list[ComparedRun], readable: bool) -> Iterator[str]:
    """What moved, was renamed, inlined or is absent, a sentence each."""
    shown = [(run.label, function) for run, function in zip(runs, group, strict=True) if function is not None]
    if len({_base(function.function) for _, function in shown}) > 1:
        yield f"Renamed: {_by_value([(function.function, label) for label, function in shown])}."
    if len({function.file for _, function in shown}) > 1:
        yield f"Moved: {_by_value([(function.file, label) for label, function in shown])}."
    for run, function, state in zip(runs, group, presence, strict=True):
        if function is None and state == INLINED:
            yield f"Inlined into its caller in {run.label}: its samples are counted there, not as zero here."
        elif function is None:
            yield f"Absent in {run.label}: no sample there shows it, so it is not compared, and not counted as zero."
    if not readable:
        yield "The source of a version was not at hand, so lines cannot be aligned."
    for run, function in zip(runs, group, strict=True):
        if function is not None and function.samples < LEAST_SAMPLES and run.analysis.samples.total:
            yield f"{run.label} has too few samples in it ({function.samples}) for a test; {LEAST_SAMPLES} are needed."


def _by_value(pairs: list[tuple[str, str]]) -> str:
    """`a.c in one and two, b.c in three` of (value, run) pairs."""
    runs: dict[str, list[str]] = {}
    for value, run in pairs:
        runs.setdefault(value, []).append(run)
    return ", ".join(f"{visible(value)} in {words.together(found)}" for value, found in runs.items())


# ---- tests for difference ----


def _tested(lines: list[AlignedLine], group: Group, runs: list[ComparedRun]) -> list[AlignedLine]:
    totals = [
        function.samples if function and not run.excluded else 0 for function, run in zip(group, runs, strict=True)
    ]
    sound = [index for index, total in enumerate(totals) if total >= LEAST_SAMPLES]
    if len(sound) < 2:
        return lines
    return [_tested_line(line, totals, sound[0], sound[1:]) for line in lines]


def _tested_line(line: AlignedLine, totals: list[int], base: int, others: list[int]) -> AlignedLine:
    differences: list[Difference | None] = [None] * len(totals)
    first = line.cells[base]
    for index in others:
        cell = line.cells[index]
        if first is None or cell is None or not (first.samples or cell.samples):
            continue
        counts = (min(cell.samples, totals[index]), totals[index], min(first.samples, totals[base]), totals[base])
        p = g_test(*counts)
        differences[index] = Difference(cell.share - first.share, *change_interval(*counts), p, p)
    return dataclasses.replace(line, differences=differences)


def _corrected(functions: list[ComparedFunction]) -> tuple[list[ComparedFunction], int]:
    """The functions with their p-values corrected over all tests, and the number of tests."""
    every = [d for function in functions for line in function.lines for d in line.differences if d is not None]
    adjusted = iter(holm([difference.p for difference in every]))

    def corrected(line: AlignedLine) -> AlignedLine:
        redone = [dataclasses.replace(d, adjusted=next(adjusted)) if d is not None else None for d in line.differences]
        return dataclasses.replace(line, differences=redone)

    return [
        dataclasses.replace(function, lines=[corrected(line) for line in function.lines]) for function in functions
    ], len(every)
