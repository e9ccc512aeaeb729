"""Places in the source crossed out by what is known to have run, rung by rung.

What proves something is absence, and only where it can be told: of a function that has code of its own, by evidence
that misses nothing; of a line that has code. What a compiler folded into another line is therefore left in.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from profiler.model import ErrorSite, SourceCandidate, SourceLocation

Line = tuple[str, int]  # file, line


class Frames(Protocol):
    def frames(self, address: int) -> tuple[SourceLocation, ...]: ...


@dataclass(frozen=True, slots=True)
class Ran:
    """What one rung saw run.

    functions  with those inlined into others
    lines      source lines of which code ran; None where the rung does not tell lines
    complete   whether what is not there did not run
    """

    functions: frozenset[str]
    lines: frozenset[Line] | None = None
    complete: bool = True


def of_addresses(code: Frames, addresses: Iterable[int], *, complete: bool) -> Ran:
    """What instructions at these addresses were part of."""
    frames = {frame for address in addresses for frame in code.frames(address)}
    functions = frozenset(frame.function for frame in frames)
    return Ran(functions, frozenset((frame.file, frame.line) for frame in frames), complete)


def cross_out(
    found: Iterable[SourceCandidate],
    ran: Mapping[str, Ran],
    site: ErrorSite | None,
    *,
    has_code: Callable[[str], bool],
    lines_of_code: Collection[Line] = frozenset(),
) -> list[SourceCandidate]:
    """The candidates, those that cannot be meant with the rung and the reason; the verdict's `site` is always left in.

    `ran`: by rung, those first that are to be named first. `has_code`: whether a function has a symbol in the kernel
    that ran. `lines_of_code`: lines that have code in it.
    """
    told = [_excluded(candidate, ran, has_code, lines_of_code) for candidate in found]
    return [_left(candidate) if site is not None and _is_at(candidate, site) else candidate for candidate in told]


def _is_at(candidate: SourceCandidate, site: ErrorSite) -> bool:
    return (candidate.site.file, candidate.site.line) == (site.file, site.line)


def _left(candidate: SourceCandidate) -> SourceCandidate:
    return replace(candidate, excluded_by="", reason="")


def _excluded(
    candidate: SourceCandidate,
    ran: Mapping[str, Ran],
    has_code: Callable[[str], bool],
    lines_of_code: Collection[Line],
) -> SourceCandidate:
    if candidate.excluded_by:
        return candidate
    for rung, seen in ran.items():
        reason = _reason(candidate, seen, has_code, lines_of_code)
        if reason:
            return replace(candidate, excluded_by=rung, reason=reason)
    return candidate


def _not_called(via: list[str], seen: Ran, has_code: Callable[[str], bool]) -> str:
    """The function that the place lies in; where that is always inlined, the one it is inlined into on this way.

    Functions farther up prove nothing: `via` is the shortest way, and there may be others.
    """
    for name in reversed(via):
        if name in seen.functions:
            return ""
        if has_code(name):
            return name
    return ""


def _reason(
    candidate: SourceCandidate, seen: Ran, has_code: Callable[[str], bool], lines_of_code: Collection[Line]
) -> str:
    if not seen.complete:
        return ""
    missing = _not_called(candidate.via[1:], seen, has_code)
    if missing:
        return f"{missing}() was not called"
    if seen.lines is None:
        return ""
    at = (candidate.site.file, candidate.site.line)
    return f"line {at[1]} did not run" if at in lines_of_code and at not in seen.lines else ""
