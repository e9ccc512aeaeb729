"""The branch that decided: the last place on the walk from which something else could still have been returned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from profiler.graph import Block, EdgeKind, FunctionGraph, StepKind
from profiler.infer.detour import states_behind
from profiler.infer.slice import OTHER, Held, Origin, OriginKind, Slicer, State
from profiler.infer.walks import Node


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """One function on the way to the origin, and the walk through it, entry first.

    `limit`: how many of the walk's blocks lie before the value came to be in the function: all of them in the
    function of origin, up to the call in its callers. `probability_of`: how likely a walk goes on from
    the block at an index of the walk as this one does.
    """

    graph: FunctionGraph
    slicer: Slicer
    origin: Origin
    walk: tuple[Node, ...]
    limit: int
    probability_of: Callable[[int], float]
    pointer: Level | None = None  # of the function called, where this one set the pointer: the walk up to the call
    fault: int | None = None  # the access that faulted, where the origin is what the fault led to outside the graph

    def block(self, index: int) -> Block:
        return self.graph.blocks[self.walk[index][0][0]]

    def blocks(self, count: int) -> list[Block]:
        """The first `count` blocks of the walk."""
        return [self.graph.blocks[node[0][0]] for node in self.walk[:count]]


@dataclass(frozen=True, slots=True)
class Decision:
    """The last place on the walk from which something else could still have been returned."""

    depth: int  # of the call that it lies in: 0 for the outermost
    address: int  # of the jump, the conditional move, or the arithmetic on flags
    taken: bool | None  # whether the jump was taken; None where there is none
    kind: str  # "jump", "fault", "select", "flags"; "pointer": a jump that chose the function that was called
    probability: float
    before: int  # start of the block it ends or lies in
    after: int | None  # start of the block that followed
    by_pointer: bool = False  # between it and the origin lies an indirect call: the pointer may have decided instead


def last_choice(levels: Sequence[Level]) -> Decision | None:
    """The deciding branch: in the function of origin, else in the nearest caller that had a choice.

    What a caller does after the call is not asked: it tests, by one sign or another, that the call failed (a null
    pointer beside an errno in memory).
    """
    by_pointer = False
    for depth in range(len(levels) - 1, -1, -1):
        decision = _last_in(levels[depth])
        if decision is not None:
            return replace(decision, depth=depth, by_pointer=by_pointer)
        if depth:
            caller = levels[depth - 1]
            chosen = _last_in(caller.pointer) if caller.pointer is not None else None
            if chosen is not None:
                return replace(chosen, depth=depth - 1, kind="pointer")
            made = caller.graph.blocks[caller.origin.address].call
            by_pointer = by_pointer or (made is not None and made.target is None)
    return None


def breaks(levels: Sequence[Level], decision: Decision | None) -> list[tuple[int, int]]:
    """(depth, block) where a walk, from the deciding branch on, goes on at a block that this one does not lead to:
    what lies between was not seen, and may have decided."""
    first, start = (decision.depth, decision.before) if decision is not None else (0, None)
    found = []
    for depth, level in enumerate(levels[first:], first):
        starts = [node[0][0] for node in level.walk]
        since = len(starts) - 1 - starts[::-1].index(start) if depth == first and start in starts else 0
        for index in range(since, min(level.limit, len(starts) - 1)):
            if starts[index + 1] not in {edge.target for edge in level.block(index).edges}:
                found.append((depth, starts[index]))
    return found


def _last_in(level: Level) -> Decision | None:
    if level.fault is not None:
        return Decision(0, level.fault, None, "fault", 1.0, level.walk[-1][0][0], None)
    for index in range(level.limit - 1, -1, -1):
        if index + 1 < len(level.walk):
            decision = _jump_choice(level, index)
            if decision is not None:
                return decision
        decision = _branchless_choice(level, index)
        if decision is not None:
            return decision
    return None


def _jump_choice(level: Level, index: int) -> Decision | None:
    block = level.block(index)
    target = level.walk[index + 1][0][0]
    taken = next((edge for edge in block.edges if edge.target == target), None)
    if taken is None:
        return None
    if taken.kind == EdgeKind.FAULT:
        return _decision(level, index, None, "fault")
    if taken.kind not in (EdgeKind.TAKEN, EdgeKind.NOT_TAKEN) or _is_forced(level, index):
        return None
    blocks = level.blocks(index + 1)
    for edge in block.edges:
        if edge.target == taken.target or edge.kind in (EdgeKind.FAULT, EdgeKind.TRAP, EdgeKind.KEY):
            continue
        # Where both sides keep the value in one place, it is the same value, wherever it came from.
        states = states_behind(level.slicer, edge, level.walk, index) - {level.walk[index + 1][1]}
        if any(_leads_elsewhere(level, blocks, state) for state in states):
            return _decision(level, index, taken.kind == EdgeKind.TAKEN, "jump")
    if block.call is not None and block.call.tail:  # a conditional tail call that was not made
        return _decision(level, index, False, "jump")
    return None


def _leads_elsewhere(level: Level, blocks: list[Block], state: State) -> bool:
    """Whether a walk that goes on in `state` behind `blocks` can return something else.

    Another constant of the same errno is the same value: compilers repeat a constant on both sides of a branch
    that only cleans up (handle_mounts on 6.12).
    """
    same = (OriginKind.CONSTANT, OriginKind.FLAGS)
    return any(
        not isinstance(found, Origin) or (found != level.origin and found.kind not in same)
        for found in level.slicer.resolve(blocks, state)
    )


def _is_forced(level: Level, index: int) -> bool:
    """Whether the jump could not go the other way: it tests the very value that is returned, or a known constant."""
    tests = [edge.test for edge in level.block(index).edges if edge.test is not None]
    if not tests:
        return False
    blocks, slicer, place = level.blocks(index + 1), level.slicer, tests[0].place
    behind = level.walk[index + 1][1]
    if isinstance(behind, Held) and not behind.pending:
        last = blocks[-1:]
        tested = slicer.values_of(last, place)
        if OTHER not in tested and tested == slicer.values_of(last, behind.place):
            return True
    return slicer.values_of(blocks, place) == {level.origin} or slicer.constant_of(blocks, place) is not None


def _branchless_choice(level: Level, index: int) -> Decision | None:
    """A conditional move or arithmetic on flags in the block that chose the value."""
    block = level.block(index)
    behind = level.walk[index + 1][1] if index + 1 < len(level.walk) else None
    for step, sides in level.slicer.choices(block, behind, level.blocks(index)):
        if level.origin in sides and any(side != level.origin for side in sides):
            kind = "select" if step.kind == StepKind.SELECT else "flags"
            return Decision(0, step.address, None, kind, 1.0, block.start, None)
    return None


def _decision(level: Level, index: int, taken: bool | None, kind: str) -> Decision:
    block = level.block(index)
    return Decision(0, block.last, taken, kind, level.probability_of(index), block.start, level.walk[index + 1][0][0])
