"""Which lines of a function to show at once, and which to fold away."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive rows `start` to `stop` (exclusive) of a function's lines."""

    start: int
    stop: int
    folded: bool

    def __len__(self) -> int:
        return self.stop - self.start

    def pieces(self, longest: int) -> list[Stretch]:
        """The stretch in pieces of at most `longest` rows."""
        starts = range(self.start, self.stop, longest)
        return [Stretch(start, min(start + longest, self.stop), self.folded) for start in starts]


def fold(interesting: Sequence[bool], *, context: int = 3, shortest: int = 8) -> list[Stretch]:
    """Stretches covering all rows in order; rows further than `context` from an interesting one are folded.

    A function's first and last row count as interesting (its signature and its end), and a stretch
    shorter than `shortest` is not worth folding.
    """
    total = len(interesting)
    shown = [False] * total
    for index, wanted in enumerate(interesting):
        if wanted or index in (0, total - 1):
            for near in range(max(0, index - context), min(total, index + context + 1)):
                shown[near] = True
    stretches: list[Stretch] = []
    for start, stop in _runs(shown):
        folded = not shown[start] and stop - start >= shortest
        if stretches and stretches[-1].folded == folded:
            stretches[-1] = Stretch(stretches[-1].start, stop, folded)
        else:
            stretches.append(Stretch(start, stop, folded))
    return stretches


def _runs(flags: Sequence[bool]) -> list[tuple[int, int]]:
    """(start, stop) of each run of equal flags."""
    edges = [0, *(i for i in range(1, len(flags)) if flags[i] != flags[i - 1]), len(flags)]
    return list(itertools.pairwise(edges)) if flags else []
