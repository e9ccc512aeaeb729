"""Samples of one walk, put in at one end, give back its origin at the other."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.graph import Block, Edge, EdgeKind, FunctionGraph, Step, StepKind
from profiler.infer import evidence
from profiler.infer.slice import OTHER, CallValue, Origin, OriginKind, Slicer, State
from profiler.infer.walks import solve

ERRNO = 22
PER_INSTRUCTION = 25


@st.composite
def walks_through_functions(draw: st.DrawFn) -> tuple[FunctionGraph, list[int]]:
    """A function without loops, in which any block may set the value, and one walk through it."""
    count = draw(st.integers(2, 8))
    blocks = {}
    for start in range(0, 16 * count, 16):
        later = list(range(start + 16, 16 * count, 16))
        size = min(2, len(later))
        targets = draw(st.lists(st.sampled_from(later), min_size=1, max_size=size, unique=True)) if later else []
        value = draw(st.sampled_from([None, None, -ERRNO, 0, -1])) if start else 0
        steps = () if value is None else (Step(start, "rax", StepKind.CONST, value=value),)
        kinds = (EdgeKind.TAKEN, EdgeKind.NOT_TAKEN) if len(targets) == 2 else (EdgeKind.JUMP,)
        edges = tuple(Edge(target, kind) for target, kind in zip(targets, kinds, strict=False))
        length = draw(st.integers(1, 8))
        blocks[start] = Block(start, start + length, length, start + length - 1, steps, edges, returns=not targets)
    walk = [0]
    while edges := blocks[walk[-1]].edges:
        walk.append(draw(st.sampled_from(edges)).target)
    return FunctionGraph("f", 0, blocks), walk


def returned(graph: FunctionGraph, walk: list[int]) -> State:
    """What the walk returns, by carrying it out."""
    origin: State = OTHER
    for start in walk:
        for step in graph.blocks[start].steps:
            origin = Origin(OriginKind.CONSTANT, step.address) if step.value == -ERRNO else OTHER
    return origin


@settings(derandomize=True, deadline=None, max_examples=400)
@given(walks_through_functions(), st.booleans())
def test_the_walk_that_was_sampled_is_the_likeliest(case: tuple[FunctionGraph, list[int]], emulated: bool) -> None:
    """With samples in every block of one walk and in no other, its value's origin is the most probable one."""
    graph, walk = case
    own = {start: PER_INSTRUCTION * (1 if emulated else graph.blocks[start].instructions) for start in walk}
    samples = evidence.assign(graph, own, {})
    weights = evidence.weights(graph, samples, emulated, evidence.rate(graph, samples, emulated))
    walks = solve(graph, Slicer(graph, ERRNO, lambda _: CallValue(-1.0, -1.0)), weights)
    truth = returned(graph, walk)
    if isinstance(truth, Origin):
        assert walks.log_errno > walks.log_other
        assert max(walks.origins, key=lambda origin: walks.origins[origin]) == truth
        assert [node[0][0] for node in walks.best_walk(truth)] == walk
    else:
        assert walks.log_other > walks.log_errno
