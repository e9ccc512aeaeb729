"""The path as a walk through a function's lines: what ran, what did not, where each branch went on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from profiler.model import Analysis, AnnotatedFunction, AnnotatedLine, Conclusion, RungState
from reports.visible import counted

OBSERVED = "exact"  # the rung that logs every instruction
PROBED = "probes"


@dataclass(frozen=True, slots=True)
class Words:
    """What a mark beside a line means. A log shows what ran; samples only make a walk likely."""

    on: str
    off: str
    gone: str  # as off, of some lines among others
    sentence: str


_EXECUTED = Words(
    "executed",
    "not executed",
    "not executed",
    "These lines were executed: a failing call was logged, instruction by instruction.",
)
_LIKELIEST = Words(
    "on the likeliest walk",
    "not on it",
    "off the likeliest walk",
    "This is the likeliest walk: inferred from where the samples fell, not observed.",
)
_PROBED = Words(
    "on the walk",
    "not on it",
    "off the walk",
    "Whole failing calls took this walk: probes on the running kernel saw which way they went at each branch.",
)
MOVED = "Marks go by instruction: where the compiler merged or moved code, a line may be marked for another's sake."


def is_observed(analysis: Analysis) -> bool:
    """Whether the lines on the path are those that a logged call executed."""
    return OBSERVED in _taken(analysis)


def words(analysis: Analysis) -> Words:
    taken = _taken(analysis)
    if OBSERVED in taken:
        return _EXECUTED
    return _PROBED if PROBED in taken and analysis.conclusion is Conclusion.NAMED else _LIKELIEST


def _taken(analysis: Analysis) -> set[str]:
    return {note.source for note in analysis.evidence if note.state is RungState.TAKEN}


def is_known(function: AnnotatedFunction) -> bool:
    """Whether anything is known of a path through the function."""
    return any(line.on_path for line in function.lines)


def tally(analysis: Analysis, function: AnnotatedFunction) -> str:
    """`8 of 84 lines executed`, of those that have code; "" where no path is known."""
    if not is_known(function):
        return ""
    on = sum(line.on_path is True for line in function.lines)
    there = sum(line.on_path is not None for line in function.lines)
    return f"{on} of {counted(there, 'line')} {words(analysis).on}"


def skips(lines: Sequence[AnnotatedLine]) -> list[tuple[int, int]]:
    """(row of a branch, row it went on to) where it went past code below it of which nothing is on the path.

    No two overlap but in their ends.
    """
    rows = {line.line: row for row, line in enumerate(lines)}
    found = []
    for row, line in enumerate(lines):
        for there in sorted(rows[number] for number in line.goes_to if number in rows):
            between = [passed.on_path for passed in lines[row + 1 : there]]
            if there > row and False in between and True not in between:
                found.append((row, there))
    return found


def folded(analysis: Analysis, lines: Sequence[AnnotatedLine]) -> str:
    """Of lines that are folded away: `24 lines, 19 of them not executed`."""
    off = sum(line.on_path is False for line in lines)
    which = "all" if off == len(lines) else str(off)
    about = f", {which} of them {words(analysis).gone}" if off else ""
    return counted(len(lines), "line") + about
