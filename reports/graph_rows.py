"""Two call trees as rows of a table: which functions to show of them, and what stands beside what.

Whole trees have hundreds of functions, most of them called alike. Shown first is the way down to where both part, and
what is called beside it and from there on; what is left out below a function is counted.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from profiler.model import GraphComparison, GraphLine
from reports.visible import visible

_OF_ALL = re.compile(r"in (\d+) of (\d+) ")
_DETOUR = 4  # levels further away than it is
_NEAR = 4  # callees before and behind the one on the way to where both part


@dataclass(frozen=True, slots=True)
class Cell:
    """A function in one of the trees."""

    depth: int
    function: str
    returned: str
    hidden: int  # functions called below it that are not shown
    alone: bool  # only this side goes through it

    @property
    def notes(self) -> str:
        """What stands behind the name: `= -12`, `+14`."""
        return (f" = {self.returned}" if self.returned else "") + (f" +{self.hidden}" if self.hidden else "")


@dataclass(frozen=True, slots=True)
class Row:
    failing: Cell | None
    succeeding: Cell | None
    note: str = ""  # "20 times", "in 3 of 32 failing"
    parts: bool = False  # here both part: the first row that differs


def rows(comparison: GraphComparison, most: int, deepest: int | None = None) -> list[Row]:
    """At most `most` rows, down to `deepest` levels below the entry. Without succeeding calls, of the failing alone."""
    lines = comparison.lines
    kept = {index for index in _kept(lines, most) if deepest is None or lines[index].depth <= deepest}
    hidden = _hidden(lines, kept)
    shown = [(lines[index], hidden[index]) for index in sorted(kept)]
    return list(_side_by_side(shown))


def _kept(lines: Sequence[GraphLine], most: int) -> set[int]:
    """Indices of the lines to show. A line comes only with the one that it is below."""
    above = _parents(lines)
    parting = [index for index, line in enumerate(lines) if line.diverges]
    path = {above_it for index in parting for above_it in _upwards(above, index)}
    near = _neighbours(above, path)
    rank: dict[int, tuple[int, int]] = {}
    for index, line in enumerate(lines):
        parent = above[index]
        if index in path or parent < 0:
            own = 0
        elif parent in path:
            own = 1 if index in near else 3
        else:
            own = rank[parent][0] + (1 if line.failing != line.succeeding else 2)
        rank[index] = (own + (_DETOUR if index not in path and _is_rare(line) else 0), index)
    return set(sorted(rank, key=rank.__getitem__)[:most])


def _is_rare(line: GraphLine) -> bool:
    """Whether it is a detour of few calls: an interrupt, a wait."""
    shares = [int(some) / int(whole) for some, whole in _OF_ALL.findall(line.note)]
    return bool(shares) and max(shares) < 0.5 and not (line.failing and line.succeeding)


def _neighbours(above: Sequence[int], path: set[int]) -> set[int]:
    """What is called right before and behind what lies on the path."""
    callees: dict[int, list[int]] = {}
    for index, parent in enumerate(above):
        callees.setdefault(parent, []).append(index)
    found = set()
    for index in path:
        beside = callees[above[index]]
        at = beside.index(index)
        found.update(beside[max(0, at - _NEAR) : at + _NEAR + 1])
    return found


def _parents(lines: Sequence[GraphLine]) -> list[int]:
    """For each line the one that it is below; -1 for the outermost."""
    found: list[int] = []
    stack: list[int] = []
    for index, line in enumerate(lines):
        while stack and lines[stack[-1]].depth >= line.depth:
            stack.pop()
        found.append(stack[-1] if stack else -1)
        stack.append(index)
    return found


def _upwards(above: Sequence[int], index: int) -> Iterator[int]:
    while index >= 0:
        yield index
        index = above[index]


def _hidden(lines: Sequence[GraphLine], kept: set[int]) -> dict[int, tuple[int, int]]:
    """For each line that is shown, how many are not below it, on either side: with the nearest one above them."""
    above = _parents(lines)
    found = dict.fromkeys(kept, (0, 0))
    for index, line in enumerate(lines):
        if index not in kept:
            nearest = next((one for one in _upwards(above, above[index]) if one in kept), None)
            if nearest is not None:
                failing, succeeding = found[nearest]
                found[nearest] = (failing + line.failing, succeeding + bool(line.succeeding))
    return found


def _side_by_side(shown: Sequence[tuple[GraphLine, tuple[int, int]]]) -> Iterator[Row]:
    """What both go through in one row; what one side goes through alone beside what the other does instead."""

    def is_common(item: tuple[GraphLine, tuple[int, int]]) -> bool:
        return item[0].failing and item[0].succeeding is not False

    for common, group in itertools.groupby(shown, key=is_common):
        items = list(group)
        if common:
            yield from (_row(item, item) for item in items)
            continue
        left = [item for item in items if item[0].failing]
        right = [item for item in items if item[0].succeeding]
        parting = any(item[0].diverges for item in items)
        for number, (one, other) in enumerate(itertools.zip_longest(left, right)):
            row = _row(one, other)
            yield Row(row.failing, row.succeeding, row.note, parting and number == 0)


def _row(left: tuple[GraphLine, tuple[int, int]] | None, right: tuple[GraphLine, tuple[int, int]] | None) -> Row:
    notes = dict.fromkeys(item[0].note for item in (left, right) if item is not None and item[0].note)
    failing = succeeding = None
    if left is not None:
        line, hidden = left
        failing = Cell(line.depth, visible(line.function), visible(line.failing_returned), hidden[0], right is not left)
    if right is not None and right[0].succeeding:
        line, hidden = right
        alone = right is not left
        succeeding = Cell(line.depth, visible(line.function), visible(line.succeeding_returned), hidden[1], alone)
    return Row(failing, succeeding, visible("; ".join(notes)))
