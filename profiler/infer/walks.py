"""All walks through one function that return the errno, weighed by the evidence.

The graph is multiplied by the states of the backward slice: a node of the product is (block, visit,
state at its start). Every walk from entry to exit is then a path of the product, and tells by the state
it has at the entry what it returns and where that came from. Sums over all paths (forward-backward, in
log-odds) give the probability of each origin and each branch; the maximum gives the likeliest walk.

Loops: inside a loop (a strongly connected component) the product has two layers; an edge that closes it
leads from the first visit to the second, and is left out there. So a walk may take a loop's body and come
back to its head once. Evidence for a block counts on the first visit, evidence against it on both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from profiler.graph import Block, Edge, EdgeKind, FunctionGraph
from profiler.infer.slice import OTHER, Held, Origin, Slicer, State

# How much less likely than a plain jump an edge is, before any sample is seen.
_EDGE_PRIORS = {EdgeKind.FAULT: -6.0, EdgeKind.TRAP: -8.0, EdgeKind.KEY: -3.0}
_LOOP_PRIOR = -0.5
_ROUNDING = 1e-12

Position = tuple[int, int]  # block start, visit (0 or 1)
Node = tuple[Position, State]


@dataclass(frozen=True, slots=True)
class Weights:
    """Log-odds of each block having run: reached by a jump or call, or by falling into it from the block before.

    Under emulation a sample lands on the first instruction after a jump only, so a block that is merely
    fallen into cannot have any and must not be blamed for that.
    """

    reached: dict[int, float]
    fallen_into: dict[int, float]


@dataclass(slots=True)
class _Arc:
    node: Node
    edge: Edge | None
    weight: float


@dataclass(slots=True)
class Walks:
    """The product, solved. `log_errno`, `log_other`: summed weight of walks that return the errno, or not."""

    slicer: Slicer
    arcs: dict[Node, list[_Arc]]
    suffix: dict[Node, float]  # log-sum over walks from here to an exit
    best: dict[Node, float]
    entry: Position
    log_errno: float = -math.inf
    log_other: float = -math.inf
    log_untouched: float = -math.inf  # of the walks that leave the place asked for alone
    passed: list[tuple[Held, float]] = field(default_factory=list)  # states at the entry, with summed weight
    origins: dict[Origin, float] = field(default_factory=dict)  # log-probability given that the errno is returned

    def best_walk(self, origin: Origin) -> list[Node]:
        """The likeliest walk whose value comes from `origin`, entry first."""
        node: Node = (self.entry, origin)
        walk = [node]
        while arcs := self.arcs[node]:
            arc = max(arcs, key=lambda a: a.weight + (self.best[a.node] if a.edge is not None else 0.0))
            if arc.edge is None:
                break
            node = arc.node
            walk.append(node)
        return walk

    def edge_probability(self, origin: Origin, walk: list[Node], index: int) -> float:
        """Probability that a walk from `origin` goes from the block of `walk[index]` to the next one of `walk`, on
        any visit."""
        start, following = walk[index][0][0], walk[index + 1][0][0]
        return self._share(origin, lambda node, arc: node[0][0] == start and arc.node[0][0] == following)

    def block_probability(self, origin: Origin, start: int) -> float:
        """Probability that a walk from `origin` comes through a block, on any visit."""
        if start == self.entry[0]:
            return 1.0
        return self._share(origin, lambda _node, arc: arc.node[0][0] == start)

    def _share(self, origin: Origin, passes: Callable[[Node, _Arc], bool]) -> float:
        """Of the walks from `origin`, the share that takes such an arc. They are summed by the first one that they
        take, so that a walk that takes several, in both rounds of a loop, counts once."""
        sums: dict[Node, list[float]] = {(self.entry, origin): [0.0]}
        taking: list[float] = []
        for node in reversed(list(self.arcs)):  # built exits first, so this is entry first
            if node not in sums:
                continue
            before = log_sum(sums[node])
            for arc in self.arcs[node]:
                if arc.edge is None:
                    continue
                if passes(node, arc):
                    taking.append(before + arc.weight + self.suffix[arc.node])
                else:
                    sums.setdefault(arc.node, []).append(before + arc.weight)
        return min(1.0, math.exp(log_sum(taking) - self.suffix[self.entry, origin]))


def solve(graph: FunctionGraph, slicer: Slicer, weights: Weights) -> Walks:
    """Weighs every walk through `graph`. Cost: blocks x states x edges."""
    back, loops = _back_edges(graph), _components(graph)
    arcs: dict[Node, list[_Arc]] = {}
    suffix: dict[Node, float] = {}
    best: dict[Node, float] = {}
    states_at: dict[Position, list[State]] = {}
    for position in _exits_first(graph, back, loops):
        incoming: dict[State, list[_Arc]] = {}
        block = graph.blocks[position[0]]
        for state, arc in _arcs(graph, slicer, weights, block, position, back, loops, states_at):
            incoming.setdefault(state, []).append(arc)
        for state, out in incoming.items():
            node = (position, state)
            arcs[node] = out
            suffix[node] = log_sum([a.weight + (suffix[a.node] if a.edge is not None else 0.0) for a in out])
            best[node] = max(a.weight + (best[a.node] if a.edge is not None else 0.0) for a in out)
        states_at[position] = list(incoming)
    walks = Walks(slicer, arcs, suffix, best, (graph.entry, 0))
    _conclude(walks, states_at.get(walks.entry, []), weights)
    return walks


def _arcs(
    graph: FunctionGraph,
    slicer: Slicer,
    weights: Weights,
    block: Block,
    position: Position,
    back: set[tuple[int, int]],
    loops: dict[int, int],
    states_at: dict[Position, list[State]],
) -> list[tuple[State, _Arc]]:
    """(state at the block's start, arc) for each way on from a block; an arc's weight holds the next block's."""
    found: list[tuple[State, _Arc]] = []
    if block.returns or (block.call is not None and block.call.tail):
        found += [(state, _Arc((position, state), None, factor)) for state, factor in slicer.at_exit(block)]
    for edge in block.edges:
        closes = (block.start, edge.target) in back
        if closes and position[1]:
            continue
        target = _position(loops, position, edge.target, closes=closes)
        reach = weights.fallen_into if edge.kind == EdgeKind.FALL else weights.reached
        evidence = min(0.0, reach[edge.target]) if target[1] else reach[edge.target]
        weight = evidence + _EDGE_PRIORS.get(edge.kind, 0.0) + (_LOOP_PRIOR if closes else 0.0)
        for behind in states_at.get(target, []):
            arc = _Arc((target, behind), edge, weight)
            if slicer.allows(edge, behind):
                found += [(s, _Arc(arc.node, edge, weight + factor)) for s, factor in slicer.through(block, behind)]
            else:
                found.append((OTHER, arc))  # the edge can be taken, but not with the errno
    return found


def _conclude(walks: Walks, states: list[State], weights: Weights) -> None:
    first = weights.reached[walks.entry[0]]
    errno: dict[Origin, list[float]] = {}
    other: list[float] = []
    for state in list(states):
        weight = walks.suffix[walks.entry, state] + first
        if isinstance(state, Origin):
            errno.setdefault(state, []).append(weight)
            continue
        if isinstance(state, Held):
            walks.passed.append((state, weight))
            origin = walks.slicer.at_entry(state)
            if origin is not None:
                prior = walks.slicer.prior_of(origin)
                _add_origin(walks, origin, state, prior)
                errno.setdefault(origin, []).append(weight + prior)
            elif state == walks.slicer.asked:
                walks.log_untouched = weight
                continue
        other.append(weight)
    by_origin = {origin: log_sum(found) for origin, found in errno.items()}
    walks.log_errno = log_sum(list(by_origin.values()))
    walks.log_other = log_sum(other)
    if math.isfinite(walks.log_errno):
        walks.origins = {origin: weight - walks.log_errno for origin, weight in by_origin.items()}


def _add_origin(walks: Walks, origin: Origin, state: Held, prior: float) -> None:
    """Lets walks that end in `state` at the entry be walks from `origin`, beside those that already are."""
    node, held = (walks.entry, origin), (walks.entry, state)
    arcs = [_Arc(arc.node, arc.edge, arc.weight + prior) for arc in walks.arcs[held]]
    walks.arcs[node] = walks.arcs.get(node, []) + arcs
    walks.suffix[node] = log_sum([walks.suffix.get(node, -math.inf), walks.suffix[held] + prior])
    walks.best[node] = max(walks.best.get(node, -math.inf), walks.best[held] + prior)


def _back_edges(graph: FunctionGraph) -> set[tuple[int, int]]:
    back: set[tuple[int, int]] = set()
    active: set[int] = {graph.entry}
    seen: set[int] = {graph.entry}
    stack = [(graph.entry, iter(graph.blocks[graph.entry].edges))]
    while stack:
        start, edges = stack[-1]
        for edge in edges:
            if edge.target in active:
                back.add((start, edge.target))
            elif edge.target not in seen:
                seen.add(edge.target)
                active.add(edge.target)
                stack.append((edge.target, iter(graph.blocks[edge.target].edges)))
                break
        else:
            active.discard(start)
            stack.pop()
    return back


def _exits_first(graph: FunctionGraph, back: set[tuple[int, int]], loops: dict[int, int]) -> list[Position]:
    """Positions so ordered that every arc leads to an earlier one."""
    order: list[Position] = []
    start: Position = (graph.entry, 0)
    seen: set[Position] = {start}
    following = _successors(graph, back, loops)
    stack = [(start, iter(following(start)))]
    while stack:
        position, targets = stack[-1]
        for target in targets:
            if target not in seen:
                seen.add(target)
                stack.append((target, iter(following(target))))
                break
        else:
            order.append(position)
            stack.pop()
    return order


def _position(loops: dict[int, int], position: Position, target: int, *, closes: bool) -> Position:
    """Where an edge from `position` leads: leaving a loop, what comes next is on its first visit."""
    if loops[target] != loops[position[0]]:
        return target, 0
    return target, 1 if closes else position[1]


def _components(graph: FunctionGraph) -> dict[int, int]:
    """The strongly connected component of each reachable block, by number (Tarjan, SIAM J. Comput. 1 (1972) 146)."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    component: dict[int, int] = {}
    open_blocks: list[int] = []
    work: list[tuple[int, int]] = [(graph.entry, 0)]
    while work:
        start, position = work.pop()
        if position == 0:
            index[start] = low[start] = len(index)
            open_blocks.append(start)
        edges = graph.blocks[start].edges
        for place in range(position, len(edges)):
            target = edges[place].target
            if target not in index:
                work += [(start, place + 1), (target, 0)]
                break
            if target not in component:
                low[start] = min(low[start], index[target])
        else:
            _close_component(start, index, low, component, open_blocks)
            if work:
                low[work[-1][0]] = min(low[work[-1][0]], low[start])
    return component


def _close_component(
    start: int, index: dict[int, int], low: dict[int, int], component: dict[int, int], open_blocks: list[int]
) -> None:
    if low[start] == index[start]:
        while open_blocks:
            member = open_blocks.pop()
            component[member] = index[start]
            if member == start:
                break


def _successors(
    graph: FunctionGraph, back: set[tuple[int, int]], loops: dict[int, int]
) -> Callable[[Position], list[Position]]:
    def following(position: Position) -> list[Position]:
        start, visit = position
        targets: list[Position] = []
        for edge in graph.blocks[start].edges:
            closes = (start, edge.target) in back
            if not (closes and visit):
                targets.append(_position(loops, position, edge.target, closes=closes))
        return targets

    return following


def log_sum(weights: list[float]) -> float:
    """log(sum(exp(w))), -inf for none."""
    top = max(weights, default=-math.inf)
    if not math.isfinite(top):
        return top
    return top + math.log(sum(math.exp(w - top) for w in weights))


def log_difference(whole: float, part: float) -> float:
    """log(exp(whole) - exp(part)), -inf where nothing but rounding is left."""
    left = -math.expm1(part - whole) if math.isfinite(whole) else 0.0
    return whole + math.log(left) if left > _ROUNDING else -math.inf


__all__ = ["OTHER", "Node", "Walks", "Weights", "log_difference", "log_sum", "solve"]
