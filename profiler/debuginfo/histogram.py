"""Samples per source line of a function, with intervals.

Inlined code counts twice over: for the line of the caller that it was inlined at, and in the histogram
of its own function by its own line.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from profiler.debuginfo.functions import Function
from profiler.model import InlinedSamples, SourceLocation

Z_95 = 1.959963984540054  # the normal distribution's 97.5% quantile


class Lines(Protocol):
    """What a histogram asks of a line table."""

    def frames(self, address: int) -> tuple[SourceLocation, ...]: ...


@dataclass(frozen=True, slots=True)
class LineCount:
    """Samples of one line. `low` and `high` bound its share of the function's samples, at 95%."""

    line: int
    samples: int
    low: float
    high: float
    inlined: list[InlinedSamples]  # of those samples, what was inlined here, by its own place; most first


@dataclass(frozen=True, slots=True)
class LineHistogram:
    """Samples per source line of one source function, by line."""

    function: str
    file: str
    samples: int
    inlined: bool  # all of its samples are of code inlined into other functions
    lines: dict[int, LineCount]


def wilson_interval(successes: int, trials: int, z: float = Z_95) -> tuple[float, float]:
    """The score interval of a share: E. B. Wilson, JASA 22 (1927) 209-212. (0, 1) for no trials.

    Chosen over the usual p ± z·s because most lines have few samples or none, where that one has width 0.
    """
    if trials == 0:
        return 0.0, 1.0
    share = successes / trials
    scale = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    return low, 1.0 if successes == trials else min(1.0, centre + half)


def histograms(addresses: NDArray[np.uint64], lines: Lines) -> dict[tuple[str, str], LineHistogram]:
    """A histogram of every source function, (name, file), that the addresses fall into, inlined ones included.

    `addresses`: link addresses of samples, shape (n,), in any order, with repeats.
    """
    tallies: dict[tuple[str, str], _Tally] = {}
    distinct, counts = np.unique(np.asarray(addresses, np.uint64), return_counts=True)
    for address, count in zip(distinct.tolist(), counts.tolist(), strict=True):
        chain = lines.frames(address)
        seen: set[tuple[str, str]] = set()
        # outwards in, so that a function inlined into itself is counted once, at its outer line
        for depth in range(len(chain) - 1, -1, -1):
            frame = chain[depth]
            key = (frame.function, frame.file)
            if key not in seen:
                seen.add(key)
                inner = chain[0] if depth else None
                tally = tallies.setdefault(key, _Tally())
                tally.add(frame.line, count, inner, outermost=depth == len(chain) - 1)
    return {key: tally.histogram(*key) for key, tally in tallies.items()}


def line_histogram(
    addresses: NDArray[np.uint64], lines: Lines, function: Function | Iterable[Function]
) -> LineHistogram | None:
    """The histogram of the source function that a machine function, or several pieces of one, came from.

    Addresses outside the given ranges are left out. None where no sample lies within.
    """
    pieces = [function] if isinstance(function, Function) else list(function)
    inside = np.zeros(len(addresses), dtype=bool)
    for piece in pieces:
        inside |= (addresses >= piece.start) & (addresses < piece.end)
    within = addresses[inside]
    chain = next(filter(None, (lines.frames(address) for address in within.tolist())), None)
    return histograms(within, lines)[chain[-1].function, chain[-1].file] if chain else None


class _Tally:
    """Counts of one function while they are added up."""

    def __init__(self) -> None:
        self.samples = 0
        self.outermost = 0
        self.lines: dict[int, int] = {}
        self.inlined: dict[int, dict[SourceLocation, int]] = {}

    def add(self, line: int, count: int, inner: SourceLocation | None, *, outermost: bool) -> None:
        self.samples += count
        self.outermost += count if outermost else 0
        self.lines[line] = self.lines.get(line, 0) + count
        if inner is not None:
            places = self.inlined.setdefault(line, {})
            places[inner] = places.get(inner, 0) + count

    def histogram(self, function: str, file: str) -> LineHistogram:
        lines = {line: self._line(line, samples) for line, samples in sorted(self.lines.items())}
        return LineHistogram(function, file, self.samples, self.outermost == 0, lines)

    def _line(self, line: int, samples: int) -> LineCount:
        places = sorted(self.inlined.get(line, {}).items(), key=lambda item: (-item[1], item[0].file, item[0].line))
        inlined = [InlinedSamples(place.function, place.file, place.line, count) for place, count in places]
        low, high = wilson_interval(samples, self.samples)
        return LineCount(line, samples, low, high, inlined)
