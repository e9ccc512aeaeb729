"""What the inference must be true to on any graph: probabilities are shares of the walks, and sum to one over outcomes;
across calls, too; and more evidence for the truth never lowers it."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from profiler.graph import Block, Call, Edge, EdgeKind, FunctionGraph, Step, StepKind
from profiler.infer import evidence
from profiler.infer.calltree import CallNode
from profiler.infer.slice import CallValue, Origin, OriginKind, Slicer, State
from profiler.infer.verdict import Inference, candidates, decide
from profiler.infer.walks import Walks, Weights, log_sum, solve
from tests.unit.test_infer_sampled_walks import returned, walks_through_functions
from tests.unit.test_infer_walks import (
    ERRNO,
    IN_CALLEE,
    Walk,
    enumerate_walks,
    every_walk,
    functions,
    problems,
    states_of,
)

deterministic = settings(derandomize=True, deadline=None, max_examples=80)


def solved(problem: tuple[FunctionGraph, Weights]) -> Walks:
    return solve(problem[0], Slicer(problem[0], ERRNO, lambda _: IN_CALLEE), problem[1])


def walks_from(walks: Walks, problem: tuple[FunctionGraph, Weights], origin: Origin) -> list[tuple[float, Walk]]:
    """Every walk whose value comes from `origin`, with its weight."""
    return [
        (sum(weight for *_, weight in walk) + factor, walk)
        for walk in every_walk(*problem)
        for state, factor in states_of(walks.slicer, walk)
        if state == origin
    ]


def going_on(walks: Walks, origin: Origin, start: int, target: int) -> float:
    """The probability of an edge, whether or not it is on the likeliest walk."""
    return walks.edge_probability(origin, [((start, 0), origin), ((target, 0), origin)], 0)


@st.composite
def ways_on(draw: st.DrawFn) -> tuple[FunctionGraph, Weights]:
    """A function that leads from block to block to its return, with jumps from anywhere to anywhere."""
    count = draw(st.integers(4, 6))
    blocks = []
    for start in range(count):
        jumps = draw(st.sets(st.integers(0, count - 1), max_size=2)) if start < count - 1 else set()
        targets = {*jumps, start + 1} if start < count - 1 else set()
        value = draw(st.sampled_from([None, None, None, -ERRNO])) if start else -ERRNO
        steps = () if value is None else (Step(start, "rax", StepKind.CONST, value=value),)
        edges = tuple(Edge(target, EdgeKind.TAKEN) for target in sorted(targets))
        blocks.append(Block(start, start + 1, 1, start, steps, edges, returns=start == count - 1))
    odds = {block.start: draw(st.integers(-12, 12)) / 4 for block in blocks}
    return FunctionGraph("f", 0, {block.start: block for block in blocks}), Weights(odds, odds)


@settings(deterministic, max_examples=150)
@given(st.one_of(problems(), ways_on()))
def test_the_probability_of_an_edge_is_the_share_of_the_walks_that_take_it(
    problem: tuple[FunctionGraph, Weights],
) -> None:
    """A walk that takes it in both rounds of a loop counts once."""
    walks = solved(problem)
    for origin in walks.origins:
        found = walks_from(walks, problem, origin)
        if origin.kind == OriginKind.ARGUMENT:
            continue
        whole = log_sum([weight for weight, _ in found])
        for start, block in problem[0].blocks.items():
            for target in {edge.target for edge in block.edges}:
                taking = [w for w, walk in found if any(s == start and e and e.target == target for s, _, e, _ in walk)]
                share = math.exp(log_sum(taking) - whole)
                assert going_on(walks, origin, start, target) == pytest.approx(share, abs=1e-9)


@deterministic
@given(walks_through_functions(), st.data())
def test_outcomes_of_a_branch_sum_to_the_probability_of_coming_to_it(
    case: tuple[FunctionGraph, list[int]], data: st.DataObject
) -> None:
    """On the likeliest walk of each origin, where no loop brings a walk back."""
    graph, _ = case
    odds = {start: data.draw(st.floats(-8, 8)) for start in graph.blocks}
    walks = solved((graph, Weights(odds, odds)))
    for origin in walks.origins:
        for (start, _), _ in walks.best_walk(origin):
            outcomes = {edge.target for edge in graph.blocks[start].edges}
            if outcomes:
                reached = walks.block_probability(origin, start)
                assert sum(going_on(walks, origin, start, target) for target in outcomes) == pytest.approx(reached)


# ---- across calls ----

G = 1000  # where the callee's blocks lie


def sampled(draw: st.DrawFn, graph: FunctionGraph) -> Counter[int]:
    return Counter({start: count for start in graph.blocks if (count := draw(st.integers(0, 60)))})


def moved(graph: FunctionGraph, by: int) -> FunctionGraph:
    """The same function elsewhere; its calls, of which nothing is known here, left out. It begins by clearing the
    registers, so that it passes nothing on that it was given."""
    cleared = tuple(Step(graph.entry, place, StepKind.CONST, value=0) for place in ("rax", "rbx"))
    blocks = {}
    for start, block in graph.blocks.items():
        edges = tuple(replace(edge, target=edge.target + by) for edge in block.edges)
        own = (*cleared, *block.steps) if start == graph.entry else block.steps
        steps = tuple(replace(step, address=step.address + by) for step in own)
        returns = block.returns or bool(block.call and block.call.tail)
        there = replace(block, start=start + by, end=block.end + by, last=block.last + by)
        blocks[start + by] = replace(there, edges=edges, steps=steps, call=None, returns=returns)
    return FunctionGraph("g", graph.entry + by, blocks)


def calling(graph: FunctionGraph) -> FunctionGraph:
    """The same function with g as the target of all its calls; tail calls made plain returns."""
    blocks = {}
    for start, block in graph.blocks.items():
        returns = block.returns or bool(block.call and block.call.tail)
        call = Call(start, G, tail=False) if block.call and not block.call.tail else None
        blocks[start] = replace(block, call=call, returns=returns)
    return FunctionGraph("f", graph.entry, blocks)


@st.composite
def calls(draw: st.DrawFn) -> tuple[dict[int, FunctionGraph], CallNode]:
    """f, which may call g anywhere, also in loops, with samples in both; every call has some in its callee."""
    f, g = calling(draw(functions(4))), moved(draw(functions(4)), G)
    root = CallNode(f.entry, "f", None, None, own=sampled(draw, f))
    for block in f.blocks.values():
        if block.call is not None:
            child = root.child(block.end, G, "g")
            child.own = sampled(draw, g) or Counter({G: 1})
    return {f.entry: f, G: g}, root


def weighed(graph: FunctionGraph, node: CallNode) -> Weights:
    in_callees = {at: child.total() for (at, _), child in node.children.items() if at is not None}
    samples = evidence.assign(graph, node.own, in_callees)
    return evidence.weights(graph, samples, False, evidence.rate(graph, samples, False))


@deterministic
@given(calls())
def test_candidates_across_a_call_are_shares_of_every_pair_of_walks(
    case: tuple[dict[int, FunctionGraph], CallNode],
) -> None:
    """Every walk of the caller with every walk of the callee: the share of each origin, and their sum."""
    graphs, root = case
    f, g = graphs[root.entry], graphs[G]
    inner: dict[int, dict[Origin, float]] = {}  # by calling block: log-probability of each origin in g
    values: dict[int, CallValue] = {}
    for (at, _), node in root.children.items():
        assert at is not None
        by_origin, other = enumerate_walks(g, Slicer(g, ERRNO, lambda _: IN_CALLEE), weighed(g, node))
        shares = {origin: log_sum(found) for origin, found in by_origin.items()}
        whole = log_sum([*shares.values(), other])
        assume(math.isfinite(whole))
        values[at - 1] = CallValue(log_sum(list(shares.values())) - whole, other - whole)
        inner[at - 1] = {origin: weight - log_sum(list(shares.values())) for origin, weight in shares.items()}
    outer, _ = enumerate_walks(f, Slicer(f, ERRNO, lambda block: values[block.start]), weighed(f, root))
    expected: dict[tuple[int, Origin], float] = {}
    for origin, found in outer.items():
        weight = log_sum(found)
        if origin.kind == OriginKind.CALL and inner[origin.address]:
            expected |= {(origin.address, deep): weight + share for deep, share in inner[origin.address].items()}
        else:
            expected[-1, origin] = weight
    whole = log_sum(list(expected.values()))
    assume(math.isfinite(whole))
    found_by = {
        (c.calls[0].origin_of(c.calls[1]).address if len(c.calls) > 1 else -1, c.origin): c.probability
        for c in candidates(Inference(graphs.__getitem__, ERRNO, emulated=False).solve(root))
    }
    assert sum(found_by.values()) == pytest.approx(1.0)
    for key, weight in expected.items():
        assert found_by.get(key, 0.0) == pytest.approx(math.exp(weight - whole), abs=1e-9)


@st.composite
def lone_calls(draw: st.DrawFn) -> tuple[FunctionGraph, CallNode]:
    graph = draw(functions())
    return graph, CallNode(graph.entry, "f", None, None, own=sampled(draw, graph))


@deterministic
@given(lone_calls())
def test_what_a_call_may_come_to_sums_to_one(case: tuple[FunctionGraph, CallNode]) -> None:
    """The errno, anything else, and what it was given and only passed on, which its caller goes on following."""
    graph, root = case
    call = Inference({graph.entry: graph}.__getitem__, ERRNO, emulated=False).solve(root)
    value = call.value()
    if math.isfinite(log_sum([call.walks.log_errno, call.walks.log_other])):
        found = [value.errno, value.other, *(weight for _, weight in value.passed)]
        assert sum(map(math.exp, found)) == pytest.approx(1.0)


def test_a_value_that_a_callee_leaves_alone_is_followed_once() -> None:
    """A caller whose errno stands in the return register before a call that does not touch it always returns it."""
    set_first = (Step(0, "rax", StepKind.CONST, value=-ERRNO),)
    call = Call(0, G, tail=False)
    f = FunctionGraph(
        "f",
        0,
        {
            0: Block(0, 1, 1, 0, set_first, (Edge(1, EdgeKind.AFTER_CALL),), call),
            1: Block(1, 2, 1, 1, (), (), returns=True),
        },
    )
    g = FunctionGraph("g", G, {G: Block(G, G + 1, 1, G, (), (), returns=True)})
    root = CallNode(0, "f", None, None, own=Counter({0: 50, 1: 50}))
    root.child(1, G, "g").own = Counter({G: 50})
    solved_call = Inference({0: f, G: g}.__getitem__, ERRNO, emulated=False).solve(root)
    assert math.exp(solved_call.value().errno) == pytest.approx(1.0)


@deterministic
@given(calls())
def test_a_decision_is_a_probability_in_a_function_of_the_chain(
    case: tuple[dict[int, FunctionGraph], CallNode],
) -> None:
    """Whatever the graphs: it lies between the candidate's entry and its origin, at a block of that function's walk."""
    graphs, root = case
    for candidate in candidates(Inference(graphs.__getitem__, ERRNO, emulated=False).solve(root)):
        decision = decide(candidate)
        if decision is not None:
            assert 0.0 <= decision.probability <= 1.0
            walk = [node[0][0] for node in candidate.levels[decision.depth].walk]
            assert decision.before in walk
            assert decision.after is None or (decision.before, decision.after) in itertools.pairwise(walk)


# ---- more evidence ----


def probability(graph: FunctionGraph, own: Counter[int], truth: State, emulated: bool) -> float:
    """That the errno is returned, and from there."""
    samples = evidence.assign(graph, own, {})
    weights = evidence.weights(graph, samples, emulated, evidence.rate(graph, samples, emulated))
    walks = solve(graph, Slicer(graph, ERRNO, lambda _: CallValue(-1.0, -1.0)), weights)
    share = walks.log_errno - log_sum([walks.log_errno, walks.log_other])
    return math.exp(share + walks.origins[truth]) if isinstance(truth, Origin) else 1.0 - math.exp(share)


@settings(deterministic, max_examples=200)
@given(walks_through_functions(), st.booleans(), st.integers(1, 40), st.integers(2, 50))
def test_more_samples_of_the_true_walk_never_lower_the_truth(
    case: tuple[FunctionGraph, list[int]], emulated: bool, few: int, times: int
) -> None:
    """The walk sampled as often again and again, each block by its exposure."""
    graph, walk = case
    own = Counter({start: few * (1 if emulated else graph.blocks[start].instructions) for start in walk})
    more = Counter({start: count * times for start, count in own.items()})
    truth = returned(graph, walk)
    assert probability(graph, more, truth, emulated) >= probability(graph, own, truth, emulated) - 1e-9


@settings(deterministic, max_examples=200)
@given(walks_through_functions(), st.booleans(), st.data())
def test_a_sample_more_in_a_block_of_the_true_walk_never_lowers_the_truth(
    case: tuple[FunctionGraph, list[int]], emulated: bool, data: st.DataObject
) -> None:
    graph, walk = case
    own = Counter({start: 25 * (1 if emulated else graph.blocks[start].instructions) for start in walk})
    more = own + Counter({data.draw(st.sampled_from(walk)): data.draw(st.integers(1, 500))})
    truth = returned(graph, walk)
    assert probability(graph, more, truth, emulated) >= probability(graph, own, truth, emulated) - 1e-9


@deterministic
@given(problems(), st.floats(0.0, 8.0))
def test_evidence_for_a_block_that_other_walks_leave_out_never_lowers_its_origin(
    problem: tuple[FunctionGraph, Weights], more: float
) -> None:
    """Nor the probability that the errno is returned at all. Loops may pass the block twice."""
    f, weights = problem
    before = solved(problem)
    by_block: dict[int, set[State]] = {start: set() for start in f.blocks}
    for walk in every_walk(f, weights):
        states: set[State] = {state for state, _ in states_of(before.slicer, walk)}
        for start, *_ in walk:
            by_block[start] |= states
    for start, states in by_block.items():
        if len(states) == 1 and (origin := next(iter(states))) in before.origins and start != f.entry:
            assert isinstance(origin, Origin)
            reached = {**weights.reached, start: weights.reached[start] + more}
            fallen = {**weights.fallen_into, start: weights.fallen_into[start] + more}
            after = solved((f, Weights(reached, fallen)))
            assert after.origins[origin] >= before.origins[origin] - 1e-9
            assert after.log_errno - after.log_other >= before.log_errno - before.log_other - 1e-9


def test_a_loop_gone_round_twice_makes_no_edge_of_it_more_likely_than_its_walks() -> None:
    """An edge passed in both rounds was once counted twice, and came out as certain."""
    value = (Step(3, "rax", StepKind.CONST, value=-ERRNO),)
    blocks = [
        Block(0, 1, 1, 0, (), (Edge(1, EdgeKind.TAKEN), Edge(3, EdgeKind.NOT_TAKEN))),
        Block(1, 2, 1, 1, (), (Edge(2, EdgeKind.JUMP),)),
        Block(2, 3, 1, 2, (), (Edge(1, EdgeKind.TAKEN), Edge(3, EdgeKind.NOT_TAKEN))),
        Block(3, 4, 1, 3, value, (), returns=True),
    ]
    f = FunctionGraph("f", 0, {block.start: block for block in blocks})
    none = dict.fromkeys(f.blocks, 0.0)
    walks = solved((f, Weights(none, none)))
    origin = Origin(OriginKind.CONSTANT, 3)
    entered = 1 + math.exp(-0.5)  # by one round, or by two
    assert going_on(walks, origin, 1, 2) == pytest.approx(entered / (1 + entered))
    assert going_on(walks, origin, 0, 3) == pytest.approx(1 / (1 + entered))
