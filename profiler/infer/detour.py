"""What a walk would have come to, had it left a block by another edge."""

from __future__ import annotations

from collections.abc import Sequence

from profiler.graph import Edge, EdgeKind
from profiler.infer.slice import OTHER, Slicer, State
from profiler.infer.walks import Node

_UNLIKELY = (EdgeKind.FAULT, EdgeKind.TRAP, EdgeKind.KEY)


def states_behind(slicer: Slicer, edge: Edge, walk: Sequence[Node], index: int) -> set[State]:
    """States of the returned value right behind `edge`, an edge that `walk` did not take at `walk[index]`.

    A detour ends at an exit, or where it comes back to a later block of the walk: from there on the walk's
    own branches decide, so the state is the walk's. A detour that only cleans up brings back the state it left
    with, and so is told from one that returns something else.
    """
    slicer = slicer.certain
    rejoined = {node[0][0]: node[1] for node in walk[index + 1 :]}
    region = _region(slicer, edge.target, set(rejoined))
    states: dict[int, set[State]] = {start: {state} for start, state in rejoined.items()}
    states |= {start: set() for start in region}
    changed = True
    while changed:
        changed = False
        for start in region:
            found = _states_at(slicer, start, states)
            if not found <= states[start]:
                states[start] |= found
                changed = True
    return _through_edge(slicer, edge, states.get(edge.target, set()))


def _region(slicer: Slicer, start: int, stops: set[int]) -> list[int]:
    """Blocks that can be reached from `start` without passing through `stops`."""
    if start in stops:
        return []
    found, pending = {start}, [start]
    while pending:
        for edge in slicer.graph.blocks[pending.pop()].edges:
            if edge.kind not in _UNLIKELY and edge.target not in found and edge.target not in stops:
                found.add(edge.target)
                pending.append(edge.target)
    return sorted(found, reverse=True)


def _states_at(slicer: Slicer, start: int, states: dict[int, set[State]]) -> set[State]:
    block = slicer.graph.blocks[start]
    found: set[State] = set()
    if block.returns or (block.call is not None and block.call.tail):
        found |= {state for state, _ in slicer.at_exit(block)}
    for edge in block.edges:
        if edge.kind not in _UNLIKELY:
            for behind in _through_edge(slicer, edge, states.get(edge.target, set())):
                found |= {state for state, _ in slicer.through(block, behind)}
    return found


def _through_edge(slicer: Slicer, edge: Edge, behind: set[State]) -> set[State]:
    return {state if slicer.allows(edge, state) else OTHER for state in behind}
