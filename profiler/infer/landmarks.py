"""Landmarks: a function that is always called on the way to a place, and was not called, excludes the place.

That a function is absent from a trace proves something only where it would have been there: the tracer knows it, no
part of the trace was lost or cut off, and the code that would have called it calls it, and has no copy of it inlined.
So all here is about machine code: which direct calls lie on every walk to an instruction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from profiler.graph import Block, FunctionGraph
from profiler.infer.graph_difference import Tree


@dataclass(frozen=True, slots=True)
class Traced:
    """What a number of calls did, by function names.

    called     (caller, callee) that was seen in at least one of them
    traceable  functions that the tracer would have shown
    complete   nothing was lost, and no depth was cut off
    """

    called: frozenset[tuple[str, str]]
    traceable: frozenset[str]
    complete: bool

    @property
    def ran(self) -> frozenset[str]:
        return frozenset(callee for _, callee in self.called)

    def proves_absence(self, function: str, of: str = "") -> bool:
        """Whether `function` was surely not called, by anybody, or by `of` itself."""
        if not self.complete or function not in self.traceable:
            return False
        if not of:
            return function not in self.ran
        return of in self.traceable and (of, function) not in self.called


def traced(trees: Iterable[Tree], traceable: frozenset[str], *, complete: bool) -> Traced:
    """Of calls of one entry function. The entry's caller is ""."""
    called: set[tuple[str, str]] = set()
    for tree in trees:
        stack: list[str] = [""]
        for node in tree.nodes:
            del stack[node.depth + 1 :]
            called.add((stack[-1], node.function))
            stack.append(node.function)
    return Traced(frozenset(called), traceable, complete)


@dataclass(frozen=True, slots=True)
class Way:
    """How a candidate would be reached: functions from the entry down to the one that holds it, and what that one
    always calls before it."""

    functions: Sequence[str]
    called_before: Sequence[str]


def excluded(way: Way, traced: Traced) -> str:
    """Why the calls did not come there, in words; "" where they may have."""
    for function in way.functions:
        if traced.proves_absence(function):
            return f"{function}() was not called"
    holder = way.functions[-1]
    for landmark in way.called_before:
        if traced.proves_absence(landmark, of=holder):
            return f"{holder}() always calls {landmark}() on the way there, and did not"
    return ""


def called_before(graph: FunctionGraph, address: int) -> list[int]:
    """Entries of the functions that `graph`'s own function calls directly on every walk from its entry to the
    instruction at `address`, in the order of their calls. Empty where the instruction is not in the graph."""
    block = block_at(graph, address)
    if block is None:
        return []
    found = dominators(graph)
    # Of two blocks that both dominate a third one dominates the other: the earlier one has fewer dominators itself.
    on_the_way = sorted(found.get(block.start, frozenset()) - {block.start}, key=lambda start: len(found[start]))
    calls = [graph.blocks[start].call for start in on_the_way]
    return [call.target for call in calls if call is not None and call.target is not None]


def feasible(graph: FunctionGraph, absent: Callable[[int], bool]) -> frozenset[int]:
    """Starts of the blocks that lie on a walk from the entry to an exit on which no function is called that was not.

    `absent` tells of a function's entry whether it was surely not called.
    """
    open_ = {start for start, block in graph.blocks.items() if not _calls_one(block, absent)}
    forwards = {start: [e.target for e in graph.blocks[start].edges if e.target in open_] for start in open_}
    backwards: dict[int, list[int]] = {start: [] for start in open_}
    for start, targets in forwards.items():
        for target in targets:
            backwards[target].append(start)
    exits = [start for start in open_ if not graph.blocks[start].edges]
    return frozenset(_reached(forwards, [graph.entry] if graph.entry in open_ else []) & _reached(backwards, exits))


def _calls_one(block: Block, absent: Callable[[int], bool]) -> bool:
    return block.call is not None and block.call.target is not None and absent(block.call.target)


def _reached(following: Mapping[int, Sequence[int]], starts: Iterable[int]) -> set[int]:
    waiting = list(starts)
    seen = set(waiting)
    while waiting:
        for target in following[waiting.pop()]:
            if target not in seen:
                seen.add(target)
                waiting.append(target)
    return seen


def block_at(graph: FunctionGraph, address: int) -> Block | None:
    return next((block for block in graph.blocks.values() if block.start <= address < block.end), None)


def dominators(graph: FunctionGraph) -> dict[int, frozenset[int]]:
    """For each block that can be reached, by start: the blocks on every walk to it from the entry, itself included."""
    blocks = graph.blocks.items()
    return dominating(
        graph.entry, {start: [e.target for e in b.edges if e.target in graph.blocks] for start, b in blocks}
    )


def dominating(entry: int, following: Mapping[int, Sequence[int]]) -> dict[int, frozenset[int]]:
    """The same of any graph, by what follows each node."""
    order = _reverse_postorder(entry, following)
    place = {node: number for number, node in enumerate(order)}
    before: dict[int, list[int]] = {node: [] for node in order}
    for node in order:
        for target in following[node]:
            before[target].append(node)
    everything = (1 << len(order)) - 1
    sets = dict.fromkeys(order, everything)  # as bits, by place in the order
    sets[entry] = 1
    changed = True
    while changed:
        changed = False
        for node in order[1:]:
            common = everything
            for predecessor in before[node]:
                common &= sets[predecessor]
            common |= 1 << place[node]
            changed = changed or common != sets[node]
            sets[node] = common
    return {node: frozenset(order[n] for n in range(len(order)) if bits >> n & 1) for node, bits in sets.items()}


def _reverse_postorder(entry: int, following: Mapping[int, Sequence[int]]) -> list[int]:
    """The entry first; of two nodes of which one comes before the other on walks without loops, that one first."""
    finished: list[int] = []
    seen = {entry}
    stack = [(entry, iter(following[entry]))]
    while stack:
        node, targets = stack[-1]
        for target in targets:
            if target not in seen:
                seen.add(target)
                stack.append((target, iter(following[target])))
                break
        else:
            finished.append(node)
            stack.pop()
    return finished[::-1]
