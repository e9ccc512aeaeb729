"""Constants that are copies: a variable that was just found equal to an errno may be handed on as that constant.

For `if (err == -ENETUNREACH) count(); return err;` GCC loads the constant anew on the side where the variable is known
to equal it. It says nothing of where the value came from; the variable does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from profiler.graph import Block, Edge, Step, StepKind, Test

_LARGEST_ERRNO = 4095
_WORD = (1 << 32) - 1


def with_copies(blocks: Mapping[int, Block], entry: int) -> dict[int, Block]:
    """The blocks, with such constants as copies of the place that was tested."""
    ways: dict[int, list[Edge]] = {}
    for block in blocks.values():
        for edge in block.edges:
            ways.setdefault(edge.target, []).append(edge)
    found = dict(blocks)
    for start, edges in ways.items():
        test = edges[0].test
        if start != entry and len(edges) == 1 and test is not None and start in blocks and _is_errno(test):
            found[start] = replace(blocks[start], steps=_copied(blocks[start].steps, test))
    return found


def _is_errno(test: Test) -> bool:
    return test.relation == "==" and -_LARGEST_ERRNO <= test.value < 0


def _copied(steps: tuple[Step, ...], test: Test) -> tuple[Step, ...]:
    """The steps up to the first that writes the tested place, with copies; the others as they are."""
    result = list(steps)
    for index, step in enumerate(steps):
        if step.kind == StepKind.CONST and step.place != test.place and step.value & _WORD == test.value & _WORD:
            result[index] = Step(step.address, step.place, StepKind.COPY, source=test.place)
        if step.place == test.place:
            break
    return tuple(result)
