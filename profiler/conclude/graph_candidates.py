"""Places in the source crossed out by the function graph: nobody came there who did not call what lies on the way.

The list has functions by their names in the source, the trace those of the compiled code. So each place is looked for
in the code of the functions that ran, inlined ones included: it is out where its function is in none of them and would
have been traced by itself, or where all of its instructions lie behind a call that was not made. However one may come
to the function does not matter for that. What the code does not show stays in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from profiler.evidence import GRAPH
from profiler.graph import FunctionGraph
from profiler.infer.landmarks import Traced, called_before
from profiler.model import SourceCandidate, SourceLocation

Place = tuple[str, str, int]  # function, file, line
_LARGEST = 1 << 16  # bytes of a function whose lines are looked up


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


def cross_out(candidates: Iterable[SourceCandidate], traced: Traced, code: Code) -> list[SourceCandidate]:
    """All candidates, those with a reason where the traced calls cannot have come to."""
    if not traced.complete or not traced.called:
        return list(candidates)
    ran = _Ran(traced, code)
    found = []
    for candidate in candidates:
        reason = "" if candidate.excluded_by else ran.excludes(candidate)
        found.append(replace(candidate, excluded_by=GRAPH, reason=reason) if reason else candidate)
    return found


@dataclass(slots=True)
class _Compiled:
    """A function that ran, as compiled."""

    graph: FunctionGraph
    places: dict[Place, list[int]] = field(default_factory=dict)  # of the source → addresses
    absent: dict[int, str] = field(default_factory=dict)  # address → the landmark before it that was not called


class _Ran:
    """The code of all functions that ran, by the functions of the source that are in it."""

    def __init__(self, traced: Traced, code: Code) -> None:
        self._code = code
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
        if not candidate.condition_line:
            return ""
        place = (site.function, site.file, candidate.condition_line)
        reasons = [self._behind_landmark(holder, place) for holder in holders]
        return reasons[0] if all(reasons) else ""

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

    def _behind_landmark(self, holder: _Compiled, place: Place) -> str:
        """The landmark that all the instructions of a place lie behind, and that was not called."""
        addresses = holder.places.get(place, [])
        if not addresses:
            return ""
        missing = [self._landmark(holder, address) for address in addresses]
        if not all(missing):
            return ""
        caller = holder.graph.name
        return f"{caller}() always calls {missing[0]}() on the way there, and did not"

    def _landmark(self, holder: _Compiled, address: int) -> str:
        block = next((b for b in holder.graph.blocks.values() if b.start <= address < b.end), None)
        if block is None:
            return ""
        if block.start not in holder.absent:
            holder.absent[block.start] = ""
            own = [block.call.target] if block.call is not None and block.call.target is not None else []
            for target in [*called_before(holder.graph, block.start), *own]:
                found = self._code.function_at(target)
                if found is not None and self._traced.proves_absence(found[0], of=holder.graph.name):
                    holder.absent[block.start] = found[0]
                    break
        return holder.absent[block.start]

    def _read(self, name: str) -> None:
        functions = self._code.vmlinux.functions_named(name)
        self._unknown = self._unknown or not functions
        for function in functions:
            compiled = self._compiled(function.start)
            for source in {place[0] for place in compiled.places}:
                self._holders.setdefault(source, []).append(compiled)

    def _compiled(self, entry: int) -> _Compiled:
        compiled = _Compiled(self._code.graph(entry))
        for _, block in sorted(compiled.graph.blocks.items()):
            for address in range(block.start, min(block.end, block.start + _LARGEST)):
                for frame in self._code.frames(address):
                    addresses = compiled.places.setdefault((frame.function, frame.file, frame.line), [])
                    if not addresses or addresses[-1] < block.start:
                        addresses.append(address)  # one of a block is enough
        return compiled

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
