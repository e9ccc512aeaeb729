"""From a tree of sampled calls to the place where the errno came from, and the branch that decided it.

All in terms of machine code; the source is put to it elsewhere.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from profiler.graph import Block, FunctionGraph, StepKind
from profiler.infer import evidence
from profiler.infer.calltree import CallNode, counts_by_return_address
from profiler.infer.decision import Decision, Level, last_choice
from profiler.infer.passing import in_callee
from profiler.infer.slice import CallValue, Held, Origin, OriginKind, Slicer, signed32
from profiler.infer.walks import Node, Walks, Weights, log_difference, log_sum, solve

# A callee without a single sample: log-probability that it is the one to return the errno.
_SILENT_BUT_ABLE, _SILENT_MAYBE, _SILENT_UNABLE = -2.0, -4.0, -14.0
_LEAST_PROBABILITY = 1e-12
_NEVER = -200.0  # log-probability of what an execution log contradicts
_MOST_PASSED = 4  # of what a callee was given and may just have passed on, followed in its caller
# A callee without a sample that was given the address of the value: that it wrote nothing, or something else.
_SILENT_UNTOUCHED, _SILENT_OTHER = -0.7, -0.7
_DEEPEST_WRITER = 3  # calls down to the one that writes through a pointer, where they are not sampled


@dataclass(slots=True)
class SolvedCall:
    """One function in one calling context, with all its walks weighed."""

    node: CallNode
    graph: FunctionGraph
    walks: Walks
    samples: evidence.BlockSamples
    per_exposure: float
    callees: dict[int, list[SolvedCall]] = field(default_factory=dict)  # by start of the calling block
    # Callees asked for what they leave in memory: by block, and the place as they name it.
    writers: dict[tuple[int, str], SolvedCall] = field(default_factory=dict)

    def origin_of(self, callee: SolvedCall) -> Origin:
        """The origin that stands for what `callee` returned, or left in memory."""
        for (start, place), writer in self.writers.items():
            if writer is callee:
                return Origin(OriginKind.CALL, start, place)
        start = next(start for start, callees in self.callees.items() if callee in callees)
        return Origin(OriginKind.CALL, start)

    def behind(self, origin: Origin) -> SolvedCall | None:
        """The callee that an origin stands for; None where it is no call, or one that shows no sample."""
        if origin.kind != OriginKind.CALL:
            return None
        if origin.place:
            return self.writers.get((origin.address, origin.place))
        callees = self.callees.get(origin.address)
        return max(callees, key=lambda callee: callee.node.total()) if callees else None

    def value(self) -> CallValue:
        walks = self.walks
        if self.node.returned is not None and not walks.slicer.wanted:
            is_errno = signed32(self.node.returned) == -walks.slicer.errno
            return CallValue(0.0, _NEVER) if is_errno else CallValue(_NEVER, 0.0)
        whole = log_sum([walks.log_errno, walks.log_other, walks.log_untouched])
        if not math.isfinite(whole):
            return CallValue(_SILENT_MAYBE, 0.0)
        likeliest = sorted(walks.passed, key=lambda passed: -passed[1])[:_MOST_PASSED]
        passed = tuple((held, weight - whole) for held, weight in likeliest)
        # What is followed in the caller turns out there to be the errno or not; counted among the rest it would
        # weigh double.
        untouched = walks.slicer.asked if walks.slicer.wanted else None
        followed = [weight for held, weight in likeliest if held != untouched]
        other = log_difference(walks.log_other, log_sum(followed))
        return CallValue(walks.log_errno - whole, max(_NEVER, other - whole), passed)


@dataclass(frozen=True, slots=True)
class _Prepared:
    graph: FunctionGraph
    callees: dict[int, list[SolvedCall]]
    samples: evidence.BlockSamples
    per_exposure: float
    weights: Weights


@dataclass(frozen=True, slots=True)
class Located:
    """One candidate: the calls that lead to it, outermost first, and its origin in the last of them."""

    calls: tuple[SolvedCall, ...]
    origin: Origin
    probability: float

    levels_known: tuple[Level, ...] = ()  # where the walks are not a matter of likelihood

    @property
    def is_executed(self) -> bool:
        """Whether an execution log shows it, rather than samples make it likely."""
        return bool(self.levels_known)

    @property
    def levels(self) -> tuple[Level, ...]:
        """The walk through each of the calls, outermost first."""
        return self.levels_known or self._likeliest()

    def _likeliest(self) -> tuple[Level, ...]:
        found, origin = [], self.origin
        for depth in range(len(self.calls) - 1, -1, -1):
            call = self.calls[depth]
            walk = call.walks.best_walk(origin)
            limit = len(walk) if depth == len(self.calls) - 1 else _index_of(walk, origin)
            going_on = functools.partial(call.walks.edge_probability, origin, walk)
            found.append(Level(call.graph, call.walks.slicer, origin, tuple(walk), limit, going_on))
            if depth:
                origin = self.calls[depth - 1].origin_of(call)
        return tuple(reversed(found))


def _index_of(walk: list[Node], origin: Origin) -> int:
    """Where the walk makes the call whose value it returns: its last visit."""
    return max((i for i, node in enumerate(walk) if node[0][0] == origin.address), default=len(walk) - 1)


class Inference:
    """Solves a call tree from the leaves up. `graph_of` gives the graph of the function at an address."""

    def __init__(self, graph_of: Callable[[int], FunctionGraph], errno: int, emulated: bool) -> None:
        self.graph_of = graph_of
        self.errno = errno
        self.emulated = emulated
        self._shortest: dict[int, int] = {}
        self._able: dict[int, float] = {}
        self._solved: dict[tuple[int, str], SolvedCall] = {}  # by node and place asked for
        self._prepared: dict[int, _Prepared] = {}  # by node
        self._writes: dict[tuple[int, str, int], bool] = {}
        self._places_written: dict[int, frozenset[str]] = {}  # of memory, by function

    def solve(self, node: CallNode, wanted: str = "") -> SolvedCall:
        """The function's walks, by what they return, or leave in `wanted`, a place of memory."""
        if (id(node), wanted) not in self._solved:
            self._solved[id(node), wanted] = self._solve(node, wanted)
        return self._solved[id(node), wanted]

    def _solve(self, node: CallNode, wanted: str) -> SolvedCall:
        prepared = self._prepare(node)
        graph, callees = prepared.graph, prepared.callees
        writers: dict[tuple[int, str], SolvedCall] = {}
        slicer = Slicer(
            graph,
            self.errno,
            lambda block: self._call_value(block, callees.get(block.start)),
            left_in=lambda block, place: self._left_in(block, place, callees.get(block.start), writers),
            wanted=wanted,
        )
        walks = solve(graph, slicer, prepared.weights)
        return SolvedCall(node, graph, walks, prepared.samples, prepared.per_exposure, callees, writers)

    def _prepare(self, node: CallNode) -> _Prepared:
        """What does not depend on the place that is asked for."""
        if id(node) not in self._prepared:
            graph = self.graph_of(node.entry)
            callees: dict[int, list[SolvedCall]] = {}
            for block_start, child in _calling_blocks(graph, node):
                callees.setdefault(block_start, []).append(self.solve(child))
            samples = evidence.assign(graph, node.own, counts_by_return_address(node))
            per_exposure = evidence.rate(graph, samples, self.emulated)
            weights = evidence.weights(graph, samples, self.emulated, per_exposure)
            if node.executed is None:
                silent = {s: self._silence(block, callees.get(s), per_exposure) for s, block in graph.blocks.items()}
                weights = evidence.combined(weights, Weights(silent, silent))
            else:
                weights = evidence.combined(weights, evidence.executed(graph, node.executed))
            self._prepared[id(node)] = _Prepared(graph, callees, samples, per_exposure, weights)
        return self._prepared[id(node)]

    def _left_in(
        self,
        block: Block,
        place: str,
        callees: list[SolvedCall] | None,
        writers: dict[tuple[int, str], SolvedCall],
    ) -> CallValue | None:
        """What a callee leaves in a place, named as in the callee; None where it does not write it."""
        assert block.call is not None
        if callees:
            node = max(callees, key=lambda callee: callee.node.total()).node
            if not self._may_write(node.entry, place, _DEEPEST_WRITER):
                return None
            writers[block.start, place] = self.solve(node, place)
            return writers[block.start, place].value()
        target = block.call.target
        if target is not None and not self._may_write(target, place, _DEEPEST_WRITER):
            return None
        able = _SILENT_MAYBE if target is None else self._ability(target)
        return CallValue(able, _SILENT_OTHER, ((Held(place), _SILENT_UNTOUCHED),))

    def _may_write(self, entry: int, place: str, deepest: int) -> bool:
        """Whether a function, or one that it gives the address to, writes a place."""
        if (entry, place, deepest) not in self._writes:
            self._writes[entry, place, deepest] = False  # what a recursive call finds
            with contextlib.suppress(LookupError):
                self._writes[entry, place, deepest] = self._writes_itself_or_below(entry, place, deepest)
        return self._writes[entry, place, deepest]

    def _writes_itself_or_below(self, entry: int, place: str, deepest: int) -> bool:
        graph = self.graph_of(entry)
        if entry not in self._places_written:
            self._places_written[entry] = frozenset(
                step.place for block in graph.blocks.values() for step in block.steps if step.place.startswith("[")
            )
        if place in self._places_written[entry]:
            return True
        for block in graph.blocks.values():
            if deepest and block.call is not None and (names := in_callee(block.call, place)):
                target = block.call.target
                if target is None or any(self._may_write(target, name, deepest - 1) for name in names):
                    return True
        return False

    def _silence(self, block: Block, callees: list[SolvedCall] | None, per_exposure: float) -> float:
        """What it says against a call that its callee shows no sample at all."""
        if callees or block.call is None or block.interrupts_off:
            return 0.0
        blocks = 1 if block.call.target is None else self._shortest_run(block.call.target)
        return evidence.unsampled(blocks, per_exposure)

    def _shortest_run(self, entry: int) -> int:
        """The fewest blocks a call of the function can run through."""
        if entry not in self._shortest:
            self._shortest[entry] = 1
            with contextlib.suppress(LookupError):
                self._shortest[entry] = _fewest_blocks(self.graph_of(entry))
        return self._shortest[entry]

    def _call_value(self, block: Block, callees: list[SolvedCall] | None) -> CallValue:
        assert block.call is not None
        if callees:
            return max(callees, key=lambda callee: callee.node.total()).value()
        able = _SILENT_MAYBE if block.call.target is None else self._ability(block.call.target)
        return CallValue(able, math.log1p(-math.exp(able)))

    def _ability(self, entry: int) -> float:
        """How likely a callee that shows no sample is to return the errno: by the constants in its code."""
        if entry not in self._able:
            try:
                self._able[entry] = _ability(self.graph_of(entry), self.errno)
            except LookupError:
                self._able[entry] = _SILENT_MAYBE
        return self._able[entry]


def _calling_blocks(graph: FunctionGraph, node: CallNode) -> Iterator[tuple[int, CallNode]]:
    by_end = {block.end: block.start for block in graph.blocks.values() if block.call and not block.call.tail}
    by_jump = {block.last: block.start for block in graph.blocks.values() if block.call and block.call.tail}
    for (return_address, _), child in node.children.items():
        start = by_jump.get(child.tail_from or 0) if return_address is None else by_end.get(return_address)
        if start is not None:
            yield start, child


def _fewest_blocks(graph: FunctionGraph) -> int:
    queue = deque([(graph.entry, 1)])
    seen = {graph.entry}
    while queue:
        start, length = queue.popleft()
        block = graph.blocks[start]
        if block.returns or (block.call and block.call.tail):
            return length
        for edge in block.edges:
            if edge.target not in seen:
                seen.add(edge.target)
                queue.append((edge.target, length + 1))
    return 1


def _ability(graph: FunctionGraph, errno: int) -> float:
    calls = False
    for block in graph.blocks.values():
        calls = calls or block.call is not None
        for step in block.steps:
            if step.kind in (StepKind.CONST, StepKind.OPERATE) and step.value in (-errno, errno):
                return _SILENT_BUT_ABLE
    return _SILENT_MAYBE if calls else _SILENT_UNABLE


def candidates(root: SolvedCall) -> list[Located]:
    """Every place the errno may have come from, the likeliest first; probabilities sum to one."""
    found = list(_located(root, (), 0.0))
    whole = log_sum([weight for _, _, weight in found])
    located = [Located(calls, origin, math.exp(weight - whole)) for calls, origin, weight in found]
    return sorted(located, key=lambda c: (-c.probability, c.origin.address))


def _located(
    call: SolvedCall, outer: tuple[SolvedCall, ...], weight: float
) -> Iterator[tuple[tuple[SolvedCall, ...], Origin, float]]:
    calls = (*outer, call)
    for origin, log_probability in call.walks.origins.items():
        total = weight + log_probability
        callee = call.behind(origin)
        if callee is not None and math.isfinite(callee.walks.log_errno):
            yield from _located(callee, calls, total)
        else:
            yield calls, origin, total


def decide(located: Located) -> Decision | None:
    """The deciding branch on the way to a candidate."""
    return last_choice(located.levels)


def most_probable(found: list[Located]) -> Located | None:
    return found[0] if found and found[0].probability > _LEAST_PROBABILITY else None
