"""Every place in a system call's call tree that can produce an errno, by a walk of the kernel's source.

The walk goes from the entry through the calls whose result reaches the caller's, those through function pointers to
what initialisers set the member of that struct type to. The nearest functions come first; one pointer that may lead to
many functions counts as farther than a plain call, as its target is the less likely one. What was left out is said.
"""

from __future__ import annotations

import heapq
import math
import posixpath
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace

from profiler.conclude.kernel_sources import KernelSources
from profiler.debuginfo.source_flow import SYNONYMS
from profiler.debuginfo.source_summary import ANY, RETURN, Link, Place, Summary
from profiler.model import ErrorSite, SourceCandidate, SourceList

MOST = 1000  # candidates of one list
MOST_FUNCTIONS = 4000  # looked at for one list
MOST_TARGETS = 32  # of one function pointer
DEEPEST = 14  # calls from the entry
PASSED_ON = 5  # times that an error is handed from a function to its callee
DEEPEST_MACRO = 6  # macros within macros
MEMBER_DEPTH = 4  # calls in which a member of a shared object is looked for
# A seccomp filter answers in place of the system call; a number that no call has ends in sys_ni_syscall.
BEFORE_THE_CALL = (("__seccomp_filter", "kernel/seccomp.c"),)
NO_SUCH_CALL = "__do_sys_ni_syscall"
CORE = ("arch", "block", "fs", "io_uring", "ipc", "kernel", "lib", "mm", "net", "security")
_SAME_FILE, _CALL, _POINTER, _CALLBACK = 0.7, 1.0, 1.0, 1.5


@dataclass(frozen=True, slots=True)
class Function:
    name: str
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class _State:
    """A function, and the outlet by which its errnos reach the system call's result."""

    function: Function
    outlet: str
    via: tuple[str, ...]
    distance: float
    into_members: int = 0  # calls since the member was read


@dataclass(slots=True)
class _Cuts:
    """What the walk left out."""

    pointers: set[str] = field(default_factory=set)
    deep: int = 0
    functions: bool = False
    most: int = 0
    unread: set[str] = field(default_factory=set)

    def says(self) -> str:
        parts = []
        if self.most:
            parts.append(f"only the {self.most} nearest places are listed")
        if self.functions:
            parts.append(f"the walk ended after {MOST_FUNCTIONS} functions")
        if self.deep:
            parts.append(f"{self.deep} calls deeper than {DEEPEST} were not followed")
        if self.pointers:
            named = sorted(self.pointers)
            shown = ", ".join(named[:4]) + (f" and {len(named) - 4} more" if len(named) > 4 else "")
            lead = "1 function pointer leads" if len(named) == 1 else f"{len(named)} function pointers lead"
            parts.append(f"{lead} to more than {MOST_TARGETS} functions{' each' * (len(named) > 1)} ({shown})")
        return "; ".join(parts)


def candidates(
    sources: KernelSources,
    entry: str,
    errno: str,
    *,
    ran: Collection[str] | None = None,
    most: int = MOST,
) -> SourceList:
    """The places for a system call by its entry's name in the source (`bind`, `newstat`).

    `ran`: functions known to have run, with those inlined; pointers are then followed to these alone, and no function
    is cut for being one of many.
    """
    walk = _Walk(sources, errno, frozenset(ran) if ran is not None else None, most)
    walk.run(_roots(sources, entry))
    found = sorted(walk.found.values(), key=lambda item: (item[0], item[1].site.file, item[1].site.line))
    if len(found) > most:
        walk.cuts.most = most
    sources.save()
    return SourceList([candidate for _, candidate in found[:most]], walk.cuts.says())


def _roots(sources: KernelSources, entry: str) -> Iterator[_State]:
    names = [f"__do_sys_{entry}", f"sys_{entry}"]
    found = next((function for name in names if (function := sources.locate(name, ""))), None)
    if found is None:
        found = sources.locate(NO_SUCH_CALL, "")
    if found is not None:
        yield _State(Function(*found), RETURN, (), 0.0)
    for name, file in BEFORE_THE_CALL:
        before = sources.locate(name, file)
        if before is not None:
            yield _State(Function(*before), RETURN, (), 2.0)


class _Walk:
    def __init__(self, sources: KernelSources, errno: str, ran: frozenset[str] | None, most: int) -> None:
        self.sources = sources
        self.errnos = {errno, ANY} | SYNONYMS.get(errno, set())
        self.ran = ran
        self.most = most
        self.cuts = _Cuts()
        self.found: dict[tuple[str, int], tuple[float, SourceCandidate]] = {}
        self.looked_at: set[tuple[str, str, str]] = set()
        self.passing: dict[tuple[str, str, int], bool] = {}
        self.order = 0
        self.waiting: list[tuple[float, int, _State]] = []

    def run(self, roots: Iterable[_State]) -> None:
        for root in roots:
            self._push(root)
        while self.waiting:
            _, _, state = heapq.heappop(self.waiting)
            key = (state.function.name, state.function.file, state.outlet)
            if key in self.looked_at:
                continue
            if len(self.looked_at) >= MOST_FUNCTIONS:
                self.cuts.functions = True
                break
            self.looked_at.add(key)
            self._look_at(state)

    def _push(self, state: _State) -> None:
        if len(state.via) > DEEPEST:
            self.cuts.deep += 1
            return
        self.order += 1
        heapq.heappush(self.waiting, (state.distance, self.order, state))

    def _look_at(self, state: _State) -> None:
        function = state.function
        summary = self.sources.summary(function.name, function.file, function.line)
        if summary is None:
            return
        via = (*state.via, function.name)
        for place in summary.places:
            if place.outlet == state.outlet and place.errno in self.errnos:
                self._add(function, place, via, state.distance)
        if state.outlet.startswith("."):
            self._follow_member(summary, state, via)
        elif state.outlet == RETURN:
            for member in summary.reads:
                self._push(_State(function, member, state.via, state.distance + 0.1))
        for link in summary.links:
            if link.outlet == state.outlet:
                self._follow(link, state, via)
        for given in summary.given if state.outlet == RETURN else ():
            target = self.sources.locate(given.callee, function.file)
            if target is not None and self._passes(Function(*target), given.number, 0):
                self._follow(given.value, state, via)

    def _passes(self, function: Function, number: int, depth: int) -> bool:
        """Whether a function may return what it is given, or hand it to one that does."""
        key = (function.name, function.file, number)
        if key not in self.passing:
            self.passing[key] = False  # of one that calls itself
            summary = self.sources.summary(function.name, function.file, function.line)
            if summary is not None:
                self.passing[key] = number in summary.passes or any(
                    self._passes(Function(*target), handed.number, depth + 1)
                    for handed in summary.handed
                    if handed.own == number and depth < PASSED_ON
                    if (target := self.sources.locate(handed.callee, function.file)) is not None
                )
        return self.passing[key]

    def _follow_member(self, summary: Summary, state: _State, via: tuple[str, ...]) -> None:
        """Whatever the function calls in its own file may set the member."""
        if state.into_members >= MEMBER_DEPTH:
            return
        for name in summary.calls:
            target = self.sources.locate(name, state.function.file)
            if target is not None and target[1] == state.function.file:
                distance = state.distance + _SAME_FILE
                self._push(_State(Function(*target), state.outlet, via, distance, state.into_members + 1))

    def _add(self, function: Function, place: Place, via: tuple[str, ...], distance: float) -> None:
        key = (function.file, place.line)
        known = self.found.get(key)
        if known is not None and known[0] <= distance:
            return
        text = self.sources.line(function.file, place.line)
        site = ErrorSite(function.name, function.file, place.line, "", text)
        self.found[key] = (distance, SourceCandidate(site, place.condition, place.condition_line, list(via)))

    # ---- calls ----

    def _follow(self, link: Link, state: _State, via: tuple[str, ...], inside: tuple[str, ...] = ()) -> None:
        if link.member:
            self._through_pointer(link, state, via)
            return
        target = self.sources.locate(link.name, state.function.file)
        if target is not None:
            step = _SAME_FILE if target[1] == state.function.file else _CALL
            step += _CALLBACK if link.callback else 0.0
            self._push(_State(Function(*target), link.wanted, via, state.distance + step))
        elif not link.callback:
            self._into_macro(link, state, via, inside)

    def _into_macro(self, link: Link, state: _State, via: tuple[str, ...], inside: tuple[str, ...]) -> None:
        """A macro's errnos and calls are those of the line that uses it. `inside`: the macros that it is part of."""
        expansion = self.sources.macro(link.name, state.function.file)
        if expansion is None or len(inside) >= DEEPEST_MACRO:
            return
        here = Place(link.outlet, "", link.line, link.condition, link.condition_line)
        for errno in expansion.errnos:
            if errno in self.errnos and link.wanted == RETURN:
                self._add(state.function, replace(here, errno=errno), via, state.distance)
        for called in expansion.calls:
            if called.name not in (link.name, *inside):
                inner = replace(link, name=called.name, through=called.through, member=bool(called.through))
                self._follow(inner, state, via, (*inside, link.name))

    def _through_pointer(self, link: Link, state: _State, via: tuple[str, ...]) -> None:
        targets = self._targets(link, state.function.file)
        if self.ran is not None:
            targets = [target for target in targets if target.name in self.ran]
        elif len(targets) > MOST_TARGETS:
            self.cuts.pointers.add(f"{link.through}->{link.name}" if link.through else link.name)
            targets = targets[:MOST_TARGETS]
        step = _POINTER + math.log2(1 + len(targets)) / 2
        for target in targets:
            distance = state.distance + (_POINTER if target.file in self.sources.asked else step)
            self._push(_State(target, link.wanted, via, distance))

    def _targets(self, link: Link, file: str) -> list[Function]:
        """What the pointer may lead to, functions of the core and of the caller's folder first."""
        known = self.sources.pointers(link.name, link.through)
        folder = posixpath.dirname(file)

        def rank(entry: tuple[str, str]) -> tuple[bool, bool, bool, str, str]:
            name, where = entry
            near = posixpath.dirname(where) == folder
            return where not in self.sources.asked, not near, where.partition("/")[0] not in CORE, where, name

        found = (self.sources.locate(name, where) for name, where in sorted(known, key=rank))
        return list(dict.fromkeys(Function(*target) for target in found if target is not None))
