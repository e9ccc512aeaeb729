"""Constants that are copies: of a variable that a test found equal to them."""

from __future__ import annotations

import pytest

from profiler import graph
from profiler.debuginfo.equalities import with_copies
from profiler.graph import Block, Edge, EdgeKind, Step, StepKind

ERRNO = -101
LOADED = Step(21, "rax", StepKind.CONST, value=ERRNO)


def block(start: int, steps: tuple[Step, ...] = (), edges: tuple[Edge, ...] = ()) -> Block:
    return Block(start, start + 10, 2, start + 9, steps, edges)


def behind_test(
    relation: str = "==", value: int = ERRNO, steps: tuple[Step, ...] = (LOADED,), *, second_way: bool = False
) -> tuple[Step, ...]:
    """What becomes of the steps of the block behind a test of rbx."""
    edges = (Edge(20, EdgeKind.NOT_TAKEN, graph.Test("rbx", relation, value)), Edge(30, EdgeKind.TAKEN))
    blocks = {0: block(0, edges=edges), 20: block(20, steps), 30: block(30)}
    if second_way:
        blocks[30] = block(30, edges=(Edge(20, EdgeKind.JUMP),))
    return with_copies(blocks, 0)[20].steps


def test_a_constant_loaded_where_a_variable_is_known_to_equal_it_is_a_copy() -> None:
    assert behind_test() == (Step(21, "rax", StepKind.COPY, source="rbx"),)


@pytest.mark.parametrize(("relation", "value"), [("!=", ERRNO), ("==", -22), ("==", 0)])
def test_other_constants_and_other_tests_leave_it_a_constant(relation: str, value: int) -> None:
    assert behind_test(relation, value) == (LOADED,)


def test_where_another_way_leads_it_stays_a_constant() -> None:
    assert behind_test(second_way=True) == (LOADED,)


def test_once_the_variable_is_written_a_constant_is_one() -> None:
    written = Step(20, "rbx", StepKind.UNKNOWN)
    assert behind_test(steps=(written, LOADED)) == (written, LOADED)
