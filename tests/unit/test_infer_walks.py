"""Sums and maxima over the walks of a function, held against the enumeration of every walk."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from profiler import graph
from profiler.graph import Block, Call, Edge, EdgeKind, FunctionGraph, Step, StepKind
from profiler.infer.slice import OTHER, CallValue, Held, Origin, OriginKind, Slicer, State
from profiler.infer.walks import Walks, Weights, log_sum, solve

ERRNO = 22
IN_CALLEE = CallValue(math.log(0.3), math.log(0.7))
# The rules of the product, as its documentation states them
PRIORS = {EdgeKind.FAULT: -6.0, EdgeKind.TRAP: -8.0, EdgeKind.KEY: -3.0}
LOOP_PRIOR = -0.5
ARGUMENT_PRIOR = -4.0

deterministic = settings(derandomize=True, deadline=None, max_examples=120)


def block(start: int, *edges: Edge | int, value: int | None = None, returns: bool = False, **more: object) -> Block:
    """Block `start` of one instruction; an edge given as a number is a jump; `value` is put into rax."""
    steps = () if value is None else (Step(start, "rax", StepKind.CONST, value=value),)
    out = tuple(Edge(edge, EdgeKind.JUMP) if isinstance(edge, int) else edge for edge in edges)
    plain = Block(start, start + 1, 1, start, steps, out, returns=returns)
    return replace(plain, **more)  # type: ignore[arg-type]


def function(*blocks: Block) -> FunctionGraph:
    return FunctionGraph("f", blocks[0].start, {b.start: b for b in blocks})


def solved(f: FunctionGraph, odds: dict[int, float] | None = None, value: CallValue = IN_CALLEE) -> Walks:
    weights = {start: (odds or {}).get(start, 0.0) for start in f.blocks}
    return solve(f, Slicer(f, ERRNO, lambda _: value), Weights(weights, weights))


def constant(address: int) -> Origin:
    return Origin(OriginKind.CONSTANT, address)


DIAMOND = function(
    block(0, 1, 2),
    block(1, 3, value=-ERRNO),
    block(2, 3, value=-ERRNO),
    block(3, returns=True),
)


def test_without_evidence_two_ways_are_equally_likely() -> None:
    assert solved(DIAMOND).origins == pytest.approx({constant(1): math.log(0.5), constant(2): math.log(0.5)})


def test_evidence_shifts_the_odds_by_just_its_log_odds() -> None:
    walks = solved(DIAMOND, {1: 2.0, 2: -1.0})
    assert walks.origins[constant(1)] - walks.origins[constant(2)] == pytest.approx(3.0)
    assert [node[0][0] for node in walks.best_walk(constant(1))] == [0, 1, 3]
    assert [node[0][0] for node in walks.best_walk(constant(2))] == [0, 2, 3]


def test_a_block_that_is_fallen_into_is_weighed_apart() -> None:
    """Under emulation such a block cannot have samples of its own and is not blamed for that."""
    f = function(
        block(0, Edge(1, EdgeKind.FALL), 2), block(1, returns=True, value=-ERRNO), block(2, returns=True, value=-ERRNO)
    )
    reached, fallen = dict.fromkeys(f.blocks, -5.0), dict.fromkeys(f.blocks, 0.0)
    walks = solve(f, Slicer(f, ERRNO, lambda _: IN_CALLEE), Weights(reached, fallen))
    assert walks.origins[constant(1)] - walks.origins[constant(2)] == pytest.approx(5.0)


def test_faults_traps_and_keys_are_unlikely_before_any_sample() -> None:
    kinds = (EdgeKind.JUMP, *PRIORS)
    f = function(
        block(0, *(Edge(10 + i, kind) for i, kind in enumerate(kinds))),
        *(block(10 + i, returns=True, value=-ERRNO) for i in range(len(kinds))),
    )
    origins = solved(f).origins
    plain = origins[constant(10)]
    assert [origins[constant(10 + i)] - plain for i in range(4)] == pytest.approx([0.0, -6.0, -8.0, -3.0])


def test_a_walk_whose_test_denies_the_errno_does_not_return_it() -> None:
    """`if (ret >= 0) return ret;` cannot return the errno; the other side can."""
    test = graph.Test("rax", ">=", 0)
    f = function(
        block(0, 1, value=-ERRNO),
        block(1, Edge(2, EdgeKind.TAKEN, test), Edge(3, EdgeKind.NOT_TAKEN, graph.Test("rax", "<", 0))),
        block(2, returns=True),
        block(3, returns=True),
    )
    walks = solved(f)
    assert [node[0][0] for node in walks.best_walk(constant(0))] == [0, 1, 3]
    assert walks.log_errno == walks.log_other  # both walks exist, one returns something else


def test_a_loop_may_be_passed_once_or_gone_round_once() -> None:
    f = function(block(0, 1), block(1, 1, 2), block(2, returns=True, value=-ERRNO))
    walks = solved(f)
    assert walks.log_errno == pytest.approx(math.log(1 + math.exp(LOOP_PRIOR)))


def test_evidence_for_a_loop_counts_once_and_against_it_twice() -> None:
    """Else a body with many samples would be worth any detour for a second round."""
    f = function(block(0, 1), block(1, 1, 2), block(2, returns=True, value=-ERRNO))
    assert solved(f, {1: 3.0}).log_errno == pytest.approx(3.0 + math.log(1 + math.exp(LOOP_PRIOR)))
    assert solved(f, {1: -3.0}).log_errno == pytest.approx(log_sum([-3.0, LOOP_PRIOR - 6.0]))


def test_what_comes_behind_a_loop_is_not_on_its_second_round() -> None:
    """Two loops one after the other may each be gone round."""
    f = function(block(0, 0, 1), block(1, 1, 2), block(2, returns=True, value=-ERRNO))
    round_once = math.log(1 + math.exp(LOOP_PRIOR))
    assert solved(f, {2: 2.0}).log_errno == pytest.approx(2 * round_once + 2.0)


def test_a_value_set_in_the_first_round_is_overwritten_in_the_second() -> None:
    """The state of the value is tracked through both rounds: the last constant before the return counts."""
    f = function(block(0, 1), block(1, 2, value=-ERRNO), block(2, 1, 3, value=-1), block(3, returns=True))
    assert solved(f).origins == {}
    g = function(block(0, 1, value=-1), block(1, 2, 3), block(2, 1, value=-ERRNO), block(3, returns=True))
    assert [node[0] for node in solved(g).best_walk(constant(2))] == [(0, 0), (1, 0), (2, 0), (1, 1), (3, 0)]


def test_a_function_that_cannot_be_left_returns_nothing() -> None:
    walks = solved(function(block(0, 0)))
    assert (walks.log_errno, walks.log_other, walks.origins) == (-math.inf, -math.inf, {})


def test_a_value_that_nothing_sets_was_an_argument() -> None:
    walks = solved(function(block(0, returns=True)))
    origin = Origin(OriginKind.ARGUMENT, 0)
    assert walks.origins == {origin: 0.0}
    assert walks.log_errno == pytest.approx(ARGUMENT_PRIOR)
    assert walks.log_other == pytest.approx(0.0)
    assert walks.best_walk(origin) == [((0, 0), origin)]


def test_probabilities_of_an_edge_and_of_a_block() -> None:
    f = function(block(0, 1, 2), block(1, 3), block(2, 3), block(3, returns=True, value=-ERRNO))
    walks = solved(f, {1: math.log(3.0)})
    origin = constant(3)
    walk = walks.best_walk(origin)
    assert walks.edge_probability(origin, walk, 0) == pytest.approx(0.75)
    assert walks.edge_probability(origin, walk, 1) == pytest.approx(0.75)
    assert [walks.block_probability(origin, start) for start in range(4)] == pytest.approx([1.0, 0.75, 0.25, 1.0])
    assert walks.block_probability(origin, 99) == 0.0


def test_the_edge_of_a_loop_is_counted_on_any_visit() -> None:
    f = function(block(0, 1), block(1, 1, 2), block(2, returns=True, value=-ERRNO))
    walks = solved(f)
    walk = walks.best_walk(constant(2))
    assert walks.edge_probability(constant(2), walk, len(walk) - 2) == pytest.approx(1.0)


def test_a_long_function_needs_no_deep_stack() -> None:
    """Neither the order of blocks nor the search for loops recurses."""
    length = 5000
    chain = [block(i, i + 1, i) for i in range(length)]
    walks = solved(function(*chain, block(length, returns=True, value=-ERRNO)))
    assert len(walks.best_walk(constant(length))) == length + 1


@pytest.mark.parametrize(
    ("weights", "expected"),
    [([], -math.inf), ([-math.inf], -math.inf), ([0.0, 0.0], math.log(2)), ([-2000.0], -2000.0), ([800.0, 0.0], 800.0)],
)
def test_the_sum_of_logs_neither_overflows_nor_underflows(weights: list[float], expected: float) -> None:
    assert log_sum(weights) == pytest.approx(expected)


# ---- every walk, one by one ----


@dataclass
class _Rules:
    """Back edges and loops of a graph, found by other means than the product's."""

    f: FunctionGraph

    def __post_init__(self) -> None:
        reach: dict[int, set[int]] = {start: {e.target for e in b.edges} for start, b in self.f.blocks.items()}
        for middle in self.f.blocks:
            for start in self.f.blocks:
                if middle in reach[start]:
                    reach[start] |= reach[middle]
        self.together = {(a, b) for a in reach for b in reach if a == b or (b in reach[a] and a in reach[b])}
        self.back: set[tuple[int, int]] = set()
        self._search(self.f.entry, [], set())

    def _search(self, start: int, path: list[int], seen: set[int]) -> None:
        """Depth first in the order of the edges: an edge to a block on the path closes a loop."""
        seen.add(start)
        for edge in self.f.blocks[start].edges:
            if edge.target in (*path, start):
                self.back.add((start, edge.target))
            elif edge.target not in seen:
                self._search(edge.target, [*path, start], seen)


Walk = list[tuple[int, int, Edge | None, float]]  # block, visit, edge taken, weight of that edge and what it leads to


def every_walk(f: FunctionGraph, weights: Weights) -> Iterator[Walk]:
    rules = _Rules(f)

    def onwards(start: int, visit: int) -> Iterator[Walk]:
        here = f.blocks[start]
        if here.returns or (here.call is not None and here.call.tail):
            yield [(start, visit, None, 0.0)]
        for edge in here.edges:
            closes = (start, edge.target) in rules.back
            if closes and visit:
                continue
            second = 0 if (start, edge.target) not in rules.together else 1 if closes else visit
            odds = (weights.fallen_into if edge.kind == EdgeKind.FALL else weights.reached)[edge.target]
            weight = (min(0.0, odds) if second else odds) + PRIORS.get(edge.kind, 0.0) + LOOP_PRIOR * closes
            for rest in onwards(edge.target, second):
                yield [(start, visit, edge, weight), *rest]

    yield from onwards(f.entry, 0)


def states_of(slicer: Slicer, walk: Walk) -> list[tuple[State, float]]:
    """What the value of one walk comes to, backwards from its exit."""
    states = slicer.at_exit(slicer.graph.blocks[walk[-1][0]])
    for start, _, edge, _ in reversed(walk[:-1]):
        assert edge is not None
        here = slicer.graph.blocks[start]
        before: list[tuple[State, float]] = []
        for state, factor in states:
            if slicer.allows(edge, state):
                before += [(found, factor + more) for found, more in slicer.through(here, state)]
            else:
                before.append((OTHER, factor))
        states = before
    return states


def enumerate_walks(f: FunctionGraph, slicer: Slicer, weights: Weights) -> tuple[dict[Origin, list[float]], float]:
    """Weights of the walks by origin, with those that return something else as one sum."""
    by_origin: dict[Origin, list[float]] = defaultdict(list)
    other: list[float] = []
    entry = weights.reached[f.entry]
    for walk in every_walk(f, weights):
        whole = entry + sum(weight for *_, weight in walk)
        for state, factor in states_of(slicer, walk):
            if isinstance(state, Held):
                by_origin[Origin(OriginKind.ARGUMENT, f.entry)].append(whole + factor + ARGUMENT_PRIOR)
                other.append(whole + factor)
            elif isinstance(state, Origin):
                by_origin[state].append(whole + factor)
            else:
                other.append(whole + factor)
    return by_origin, log_sum(other)


TESTS = [None, graph.Test("rax", "==", 0), graph.Test("rax", "<", 0), graph.Test("rbx", "!=", 0)]
KINDS = [EdgeKind.JUMP, EdgeKind.FALL, EdgeKind.TAKEN, EdgeKind.FAULT, EdgeKind.KEY]
STEPS = [
    (StepKind.CONST, "rax", "", -ERRNO),
    (StepKind.CONST, "rax", "", 0),
    (StepKind.CONST, "rbx", "", -ERRNO),
    (StepKind.COPY, "rax", "rbx", 0),
    (StepKind.SELECT, "rax", "rbx", 0),
    (StepKind.LOAD, "rax", "", 0),
    (StepKind.UNKNOWN, "rbx", "", 0),
]


@st.composite
def functions(draw: st.DrawFn, most: int = 5) -> FunctionGraph:
    """Up to `most` blocks with any edges between them, so with loops, loops in loops, and dead code."""
    count = draw(st.integers(1, most))
    blocks = []
    for start in range(count):
        targets = draw(st.lists(st.integers(0, count - 1), max_size=2, unique=True))
        edges = tuple(Edge(t, draw(st.sampled_from(KINDS)), draw(st.sampled_from(TESTS))) for t in targets)
        chosen = draw(st.lists(st.sampled_from(STEPS), max_size=2))
        steps = tuple(Step(start, place, kind, source, value) for kind, place, source, value in chosen)
        ends = draw(st.sampled_from(["", "", "call", "tail", "return"])) if edges else "return"
        call = Call(start, None, tail=ends == "tail") if ends in ("call", "tail") else None
        blocks.append(Block(start, start + 1, 1, start, steps, edges, call, returns=ends == "return"))
    return function(*blocks)


def odds_of(draw: st.DrawFn, f: FunctionGraph) -> dict[int, float]:
    # quarters, so that walks tie now and then
    return {start: draw(st.integers(-16, 16)) / 4 for start in f.blocks}


@st.composite
def problems(draw: st.DrawFn) -> tuple[FunctionGraph, Weights]:
    f = draw(functions())
    return f, Weights(odds_of(draw, f), odds_of(draw, f))


def close(value: float, expected: float) -> bool:
    return value == expected or math.isclose(value, expected, rel_tol=1e-9, abs_tol=1e-9)


@deterministic
@given(problems())
def test_sums_equal_those_over_every_walk(problem: tuple[FunctionGraph, Weights]) -> None:
    """Whatever the graph: the walks that return the errno, those that do not, and the share of each origin."""
    f, weights = problem
    slicer = Slicer(f, ERRNO, lambda _: IN_CALLEE)
    walks = solve(f, slicer, weights)
    by_origin, other = enumerate_walks(f, slicer, weights)
    whole = log_sum([w for found in by_origin.values() for w in found])
    assert close(walks.log_errno, whole)
    assert close(walks.log_other, other)
    assert set(walks.origins) == set(by_origin)
    for origin, found in by_origin.items():
        assert close(walks.origins[origin], log_sum(found) - whole)


@deterministic
@given(problems())
def test_probabilities_of_the_origins_sum_to_one(problem: tuple[FunctionGraph, Weights]) -> None:
    f, weights = problem
    origins = solve(f, Slicer(f, ERRNO, lambda _: IN_CALLEE), weights).origins
    assume(origins)
    assert sum(math.exp(weight) for weight in origins.values()) == pytest.approx(1.0)


@deterministic
@given(problems())
def test_the_best_walk_is_the_heaviest_of_every_walk(problem: tuple[FunctionGraph, Weights]) -> None:
    """It is a walk of the graph, and no other of its origin weighs more."""
    f, weights = problem
    slicer = Slicer(f, ERRNO, lambda _: IN_CALLEE)
    walks = solve(f, slicer, weights)
    best: dict[Origin, float] = {}
    weight_of: dict[tuple[Origin, tuple[tuple[int, int], ...]], float] = {}
    for walk in every_walk(f, weights):
        whole = sum(weight for *_, weight in walk)
        for state, factor in states_of(slicer, walk):
            origin = Origin(OriginKind.ARGUMENT, f.entry) if isinstance(state, Held) else state
            if isinstance(origin, Origin):
                key = (origin, tuple((start, visit) for start, visit, *_ in walk))
                weight_of[key] = max(weight_of.get(key, -math.inf), whole + factor)
                best[origin] = max(best.get(origin, -math.inf), whole + factor)
    assert set(best) == set(walks.origins)
    for origin, heaviest in best.items():
        found = tuple(node[0] for node in walks.best_walk(origin))
        assert close(weight_of[origin, found], heaviest)


@deterministic
@given(problems())
def test_the_probability_of_a_block_is_the_share_of_the_walks_through_it(
    problem: tuple[FunctionGraph, Weights],
) -> None:
    f, weights = problem
    slicer = Slicer(f, ERRNO, lambda _: IN_CALLEE)
    walks = solve(f, slicer, weights)
    for origin in walks.origins:
        if origin.kind == OriginKind.ARGUMENT:
            continue
        found = [
            (sum(weight for *_, weight in walk) + factor, {start for start, *_ in walk})
            for walk in every_walk(f, weights)
            for state, factor in states_of(slicer, walk)
            if state == origin
        ]
        whole = log_sum([weight for weight, _ in found])
        for start in f.blocks:
            share = math.exp(log_sum([weight for weight, on in found if start in on]) - whole)
            assert walks.block_probability(origin, start) == pytest.approx(share, abs=1e-9)


@deterministic
@given(problems(), st.floats(0.0, 8.0))
def test_more_evidence_for_a_block_never_lowers_an_origin_that_needs_it(
    problem: tuple[FunctionGraph, Weights], more: float
) -> None:
    """For an origin all of whose walks come through a block, evidence for the block can only help."""
    f, weights = problem
    slicer = Slicer(f, ERRNO, lambda _: IN_CALLEE)
    positive = Weights(
        {k: abs(w) for k, w in weights.reached.items()}, {k: abs(w) for k, w in weights.fallen_into.items()}
    )
    before = solve(f, slicer, positive)
    for start in f.blocks:
        reached = {**positive.reached, start: positive.reached[start] + more}
        fallen = {**positive.fallen_into, start: positive.fallen_into[start] + more}
        after = solve(f, slicer, Weights(reached, fallen))
        for origin, weight in before.origins.items():
            if before.block_probability(origin, start) > 1 - 1e-12:
                assert after.origins[origin] >= weight - 1e-9
