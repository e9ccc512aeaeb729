"""Which instructions to probe, round after round, until the errno's origin, and what decided, is seen.

The first round probes what is likely to have run, and what lies behind its branches; each further one what ran, and
what the round before saw control leave to: blocks without probes, functions that were called and not looked into.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from profiler.graph import Block, EdgeKind, FunctionGraph
from profiler.infer.decision import breaks, last_choice
from profiler.infer.exact import Exact
from profiler.infer.probed import Probed
from profiler.infer.slice import OriginKind
from profiler.model import ProbeHits

MOST_INSTRUCTIONS = 450  # of one round: putting one probe on takes some 10 ms in an emulated guest
MOST_RETURNS = 32
_SPARE = 120  # instructions of a function that is looked into for the first time
_FURTHER = 60  # behind a block that was not expected to run
_NOT_SEEN = (OriginKind.CALL, OriginKind.MEMORY, OriginKind.UNKNOWN)

Known = dict[int, set[int]]  # function → blocks


@dataclass(frozen=True, slots=True)
class Round:
    """Addresses to probe; `returns` are functions whose return is asked for."""

    instructions: frozenset[int]
    returns: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Planner:
    """`function_of`: the entry of the function that holds an address; `points_of`: the addresses of a block that are
    probed, its first among them."""

    graph_of: Callable[[int], FunctionGraph]
    function_of: Callable[[int], int | None]
    points_of: Callable[[Block], list[int]]

    def first(self, likely: Mapping[int, Iterable[int]], returns: Iterable[int] = ()) -> Round:
        """`likely`: blocks by function, the outermost function first; of a function without any, its beginning."""
        known = {entry: set(blocks) or {entry} for entry, blocks in likely.items()}
        fresh = {entry: known.pop(entry) for entry, blocks in likely.items() if not blocks}
        return Round(self._around(known, fresh), frozenset(list(returns)[:MOST_RETURNS]))

    def next(self, asked: Round, hits: ProbeHits, probed: Probed, path: Exact | None, errno: int) -> Round | None:
        """None where nothing more would be seen."""
        torn = self._torn(path) if path is not None else set()
        if path is not None and not path.unseen and path.origin.kind not in _NOT_SEEN and not torn:
            return None
        ran = self._ran(hits)
        failing = failing_functions(hits, errno)
        fresh: Known = {entry: self._unexpected(entry, ran[entry], hits) for entry in torn & ran.keys()}
        self._look_into(fresh, ran, [*probed.passed, *(path.unseen if path is not None else ())])
        self._look_into(fresh, ran, failing)
        if path is None or path.origin.kind in _NOT_SEEN:
            for entry, blocks in ran.items():
                fresh.setdefault(entry, set()).update(self._unexpected(entry, blocks, hits))
                self._look_into(fresh, ran, self._fixups(entry, blocks))
        if path is not None:  # what has nothing to do with the value need not be seen again
            matters = path.through | {node.entry for node in path.chain} | _callers(probed, path.unseen) | {*failing}
            ran = {entry: blocks for entry, blocks in ran.items() if entry in matters}
        wanted = self._around(ran, {entry: blocks for entry, blocks in fresh.items() if blocks})
        return Round(wanted, frozenset(failing)) if wanted - asked.instructions else None

    def _torn(self, path: Exact) -> set[int]:
        """Functions in which the branch that decided may lie where there were no probes."""
        return {path.chain[depth].entry for depth, _ in breaks(path.levels, last_choice(path.levels))}

    def _look_into(self, fresh: Known, ran: Known, entries: Iterable[int]) -> None:
        for entry in entries:
            if entry not in ran and self._has_graph(entry):
                fresh.setdefault(entry, {entry})

    def _has_graph(self, entry: int) -> bool:
        try:
            return bool(self.graph_of(entry).blocks)
        except LookupError:
            return False

    def _ran(self, hits: ProbeHits) -> Known:
        """The blocks that were hit, by function; one whose first instruction refuses probes by those that follow."""
        ran: Known = {}
        hit = set(hits.address[~hits.is_return].tolist())
        for entry in {self.function_of(address) for address in hit}:
            if entry is None or not self._has_graph(entry):
                continue
            for block in self.graph_of(entry).blocks.values():
                if not hit.isdisjoint(self.points_of(block)):
                    ran.setdefault(entry, set()).add(block.start)
        return ran

    def _unexpected(self, entry: int, ran: set[int], hits: ProbeHits) -> set[int]:
        """Blocks where not every instruction had a probe: those that ran, and those that may have, behind them."""
        graph = self.graph_of(entry)
        near = ran | {edge.target for start in ran for edge in graph.blocks[start].edges if edge.target in graph.blocks}
        probed = hits.attached | hits.refused.keys()
        return {start for start in near if not self._is_probed(graph.blocks[start], probed, whole=start in ran)}

    def _is_probed(self, block: Block, probed: frozenset[int], *, whole: bool) -> bool:
        instructions = self.points_of(block)
        return probed.issuperset(instructions) if whole else not probed.isdisjoint(instructions)

    def _fixups(self, entry: int, ran: set[int]) -> list[int]:
        """The functions that faults of blocks lead to, where these are others."""
        graph = self.graph_of(entry)
        edges = [edge for start in ran for edge in graph.blocks[start].edges if edge.kind == EdgeKind.FAULT]
        found = [self.function_of(edge.target) for edge in edges if edge.target not in graph.blocks]
        return [function for function in found if function is not None]

    def _around(self, known: Known, fresh: Known) -> frozenset[int]:
        """All of `known`, and the beginnings of what follows; `fresh`, and what follows as far as there is room."""
        found: set[int] = set()
        for entry, starts in known.items():
            blocks = self.graph_of(entry).blocks
            for start in sorted(starts & blocks.keys()):
                if len(found) < 2 * MOST_INSTRUCTIONS:
                    found.update(self.points_of(blocks[start]))
        for entry, starts in fresh.items():
            room = max(_FURTHER if entry in known else _SPARE, MOST_INSTRUCTIONS // (3 * len(fresh)))
            found |= self._on_from(entry, starts, room)
        for entry, starts in known.items():
            blocks = self.graph_of(entry).blocks
            for start in sorted(starts & blocks.keys()):
                found.update(edge.target for edge in blocks[start].edges if edge.target in blocks)
        return frozenset(found)

    def _on_from(self, entry: int, starts: Iterable[int], room: int) -> set[int]:
        """The blocks `starts`, and on from them, nearest first, while there is room."""
        blocks = self.graph_of(entry).blocks
        found: set[int] = set()
        pending, seen = list(starts), set(starts)
        while pending and len(found) < room:
            block = blocks.get(pending.pop(0))
            if block is None:
                continue
            found.update(self.points_of(block))
            following = [edge.target for edge in block.edges if edge.target not in seen]
            seen.update(following)
            pending += following
        return found


def _callers(probed: Probed, callees: frozenset[int]) -> set[int]:
    """The functions on the way to calls of `callees` that were not seen: without them these would be lost again."""
    rows = {row for row, entry in probed.unseen.items() if entry in callees}
    pending = [probed.frames_of(call) for call in probed.calls]
    found: set[int] = set()
    while pending:
        frame = pending.pop()
        if not rows.isdisjoint(frame.rows):
            found.update(outer.entry for outer in frame.outwards())
        pending += frame.children
    return found


def failing_functions(hits: ProbeHits, errno: int) -> list[int]:
    """Functions of which a return probe saw the errno, as an int or as an error pointer; the deepest first."""
    rax = hits.registers[:, 0].astype("int64")
    low = rax & 0xFFFFFFFF
    failed = hits.is_return & ((rax == -errno) | (low == (-errno) & 0xFFFFFFFF))
    return list(dict.fromkeys(hits.address[failed].tolist()))
