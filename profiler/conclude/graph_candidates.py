"""Places in the source crossed out by the function graph: nobody came there who did not call what lies on the way.

The list has functions by their names in the source, the trace those of the compiled code. So each place is looked for
in the code of the functions that ran, inlined ones included. It is out where its function is in none of them and would
have been traced by itself; or where, in all of them, a statement that comes before it on every way in the source makes
a call that was not made. However one may come to the function does not matter for that. What the code does not show
stays in.

It is calls that count. Compilers move constants and share them between returns, and drop a comparison on the ways on
which its outcome is known: the lines that debug information gives those prove nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from profiler.debuginfo.source_flow import FlowNode, SourceFlow
from profiler.evidence import GRAPH
from profiler.graph import Block, FunctionGraph
from profiler.infer.landmarks import Traced, dominating, feasible
from profiler.model import ErrorSite, SourceCandidate, SourceLocation

Place = tuple[str, str, int]  # function, file, line
_STRUCTURE = ("entry", "exit", "label", "case", "loop")  # nodes that are no code of their own


class Function(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def start(self) -> int: ...


class Symbols(Protocol):
    """profiler.debuginfo.vmlinux.Vmlinux"""

    def functions_named(self, name: str) -> Sequence[Function]: ...
    def pieces_of(self, name: str) -> Sequence[Function]: ...


class Code(Protocol):
    """What is asked of a kernel's code; profiler.debuginfo.code.KernelCode."""

    @property
    def vmlinux(self) -> Symbols: ...
    def graph(self, entry: int) -> FunctionGraph: ...
    def frames(self, address: int) -> tuple[SourceLocation, ...]: ...
    def function_at(self, address: int) -> tuple[str, int, int] | None: ...
    def instructions_of(self, block: Block) -> list[int]: ...


# function, file, line → its control flow in the source; None where that is not at hand
FlowOf = Callable[[str, str, int], SourceFlow | None]


def cross_out(
    candidates: Iterable[SourceCandidate], traced: Traced, code: Code, flow_of: FlowOf
) -> list[SourceCandidate]:
    """All candidates, those with a reason where the traced calls cannot have come to."""
    if not traced.complete or not traced.called:
        return list(candidates)
    ran = _Ran(traced, code, flow_of)
    found = []
    for candidate in candidates:
        reason = "" if candidate.excluded_by else ran.excludes(candidate)
        found.append(replace(candidate, excluded_by=GRAPH, reason=reason) if reason else candidate)
    return found


@dataclass(slots=True)
class _Compiled:
    """A function that ran, as compiled."""

    graph: FunctionGraph
    feasible: frozenset[int]  # blocks, by start
    blocks: dict[Place, list[int]] = field(default_factory=dict)  # of each place in the source, by start


class _Ran:
    """The code of all functions that ran, by the functions of the source that are in it."""

    def __init__(self, traced: Traced, code: Code, flow_of: FlowOf) -> None:
        self._code, self._flow_of = code, flow_of
        self._names: dict[str, tuple[str, ...]] = {}
        self._traced = self._by_one_name(traced)
        self._holders: dict[str, list[_Compiled]] = {}  # by function of the source
        self._unknown = False  # whether functions ran whose code is not at hand
        for name in sorted(self._traced.ran):
            self._read(name)

    def excludes(self, candidate: SourceCandidate) -> str:
        """Why it is out; "" where it may not be."""
        site = candidate.site
        holders = self._holders.get(site.function, [])
        if not holders:
            return self._absent(candidate)
        for node in self._always_before(site):
            lines = range(node.first_line, node.last_line + 1)
            places = [(site.function, site.file, line) for line in lines]
            reasons = [self._not_executed(holder, places) for holder in holders]
            if all(reasons):
                return reasons[0]
        return ""

    # ---- functions that did not run ----

    def _absent(self, candidate: SourceCandidate) -> str:
        """Of a function that is in none of those that ran. One that is always inlined is as absent as what it is
        part of."""
        site = candidate.site
        if self._unknown and not site.file.endswith(".c"):
            return ""
        for function in reversed(candidate.via or [site.function]):
            symbols = self._symbols(function)
            if symbols:
                if not all(self._traced.proves_absence(symbol) for symbol in symbols):
                    return ""
                part = "" if function == site.function else f", which {site.function}() is part of,"
                return f"{function}(){part} was not called"
        return ""

    def _symbols(self, function: str) -> set[str]:
        pieces = {piece.name for piece in self._code.vmlinux.pieces_of(function) if ".cold" not in piece.name}
        return {one for piece in pieces for one in self._canonical(piece)}

    # ---- functions that ran ----

    def _always_before(self, site: ErrorSite) -> list[FlowNode]:
        """The statements with calls on every way to a place in the source, the nearest first."""
        flow = self._flow_of(site.function, site.file, site.line)
        if flow is None or flow.parse_errors:
            return []
        dominators = dominators_of(flow)
        here = [n for n in flow.nodes_at(site.line) if n.kind not in _STRUCTURE and n.index in dominators]
        if not here:
            return []
        always = frozenset.intersection(*(dominators[node.index] for node in here))
        nodes = [node for node in flow.nodes if node.index in always and node.calls]
        return sorted(nodes, key=lambda node: -len(dominators[node.index]))

    def _not_executed(self, holder: _Compiled, places: Sequence[Place]) -> str:
        """Why a statement that makes a call cannot have been executed; "" where it may have been, or makes none."""
        blocks = sorted({start for place in places for start in holder.blocks.get(place, [])})
        if not blocks or any(start in holder.feasible for start in blocks):
            return ""
        caller = holder.graph.name
        for start in blocks:
            call = holder.graph.blocks[start].call
            if call is None or call.target is None or not self._is_absent(call.target, caller):
                continue
            # Other instructions of the statement may stand behind calls that are not its own.
            if any((f.function, f.file, f.line) in places for f in self._code.frames(call.address)):
                found = self._code.function_at(call.target)
                return f"{caller}() calls {found[0] if found else '?'}() on the way there, and did not"
        return ""

    def _is_absent(self, target: int, caller: str) -> bool:
        found = self._code.function_at(target)
        return found is not None and found[1] == target and self._traced.proves_absence(found[0], of=caller)

    def _read(self, name: str) -> None:
        functions = self._code.vmlinux.functions_named(name)
        self._unknown = self._unknown or not functions
        for function in functions:
            compiled = self._compiled(function.start)
            for source in {place[0] for place in compiled.blocks}:
                self._holders.setdefault(source, []).append(compiled)

    def _compiled(self, entry: int) -> _Compiled:
        graph = self._code.graph(entry)
        compiled = _Compiled(graph, feasible(graph, lambda target: self._is_absent(target, graph.name)))
        for start, block in graph.blocks.items():
            for place in dict.fromkeys(self._places(block)):
                compiled.blocks.setdefault(place, []).append(start)
        return compiled

    def _places(self, block: Block) -> Iterator[Place]:
        for address in self._code.instructions_of(block):
            for frame in self._code.frames(address):
                yield frame.function, frame.file, frame.line

    # ---- names ----

    def _by_one_name(self, traced: Traced) -> Traced:
        """Symbols that lie at one address have several names; here each has the one that its code is found by."""
        called = frozenset(
            (caller, callee)
            for one, other in traced.called
            for caller in (self._canonical(one) if one else ("",))
            for callee in self._canonical(other)
        )
        traceable = frozenset(found for name in traced.traceable for found in self._canonical(name))
        return Traced(called, traceable, traced.complete)

    def _canonical(self, name: str) -> tuple[str, ...]:
        if name not in self._names:
            places = (self._code.function_at(function.start) for function in self._code.vmlinux.functions_named(name))
            self._names[name] = tuple(dict.fromkeys(found[0] for found in places if found)) or (name,)
        return self._names[name]


def dominators_of(flow: SourceFlow) -> dict[int, frozenset[int]]:
    """For each node that can be reached: those that every way to it comes through, itself included."""
    return dominating(flow.entry, {node.index: [e.target for e in flow.leaving(node.index)] for node in flow.nodes})
