"""Is a line's share of samples different between two runs? Small statistics, standard library only.

Samples are taken as independent draws, which a fixed sampling interval against a tight loop is only
nearly; read a difference that is barely significant with that in mind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL = 0.05
LEAST_SAMPLES = 30  # in a function, below which no line of it is tested


@dataclass(frozen=True, slots=True)
class Difference:
    """A line in one run against the baseline run."""

    change: float  # share less the baseline's share, -1 to 1
    low: float  # 95% interval of the change
    high: float
    p: float  # of the G-test alone
    adjusted: float  # after Holm's correction over all tests of the comparison

    @property
    def significant(self) -> bool:
        return self.adjusted < LEVEL


def wilson(hits: int, total: int) -> tuple[float, float]:
    """The 95% score interval of hits/total (Wilson, JASA 22, 1927). (0, 1) where total is 0."""
    if total <= 0:
        return 0.0, 1.0
    z = 1.959964
    share, spread = hits / total, z * z / total
    centre = share + spread / 2
    half = z * math.sqrt(share * (1 - share) / total + spread / (4 * total))
    return max(0.0, (centre - half) / (1 + spread)), min(1.0, (centre + half) / (1 + spread))


def change_interval(hits: int, total: int, base_hits: int, base_total: int) -> tuple[float, float]:
    """The 95% interval of hits/total - base_hits/base_total, from two score intervals.

    Newcombe, Statistics in Medicine 17 (1998) 873-890, method 10.
    """
    share, base = hits / total, base_hits / base_total
    low, high = wilson(hits, total)
    base_low, base_high = wilson(base_hits, base_total)
    change = share - base
    return change - math.hypot(share - low, base_high - base), change + math.hypot(high - share, base - base_low)


def g_test(hits: int, total: int, base_hits: int, base_total: int) -> float:
    """The p-value of "both shares are one", by the G-test of the 2 × 2 table with Williams' correction.

    G = 2 Σ O ln(O/E), divided by q = 1 + (N/R₁ + N/R₂ - 1)(N/C₁ + N/C₂ - 1) / 6N; Sokal and Rohlf, Biometry
    (3rd ed. 1995), section 17.4; Williams, Biometrika 63 (1976) 33-37. Its distribution is χ² with one degree of
    freedom, whose upper tail is erfc(√(G/2)).
    """
    observed = (hits, total - hits, base_hits, base_total - base_hits)
    whole, columns = total + base_total, (hits + base_hits, total + base_total - hits - base_hits)
    if min(total, base_total, *columns) <= 0:
        return 1.0  # the line has no samples, or all of them, in both: nothing to tell apart
    expected = [row * column / whole for row in (total, base_total) for column in columns]
    g = 2 * sum(o * math.log(o / e) for o, e in zip(observed, expected, strict=True) if o > 0)
    rows_term = whole / total + whole / base_total - 1
    columns_term = whole / columns[0] + whole / columns[1] - 1
    return math.erfc(math.sqrt(max(g, 0.0) / (1 + rows_term * columns_term / (6 * whole)) / 2))


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, in the order given.

    Holm, Scandinavian Journal of Statistics 6 (1979) 65-70: the chance of one or more false alarms
    among all tests stays below the level, however the tests depend on each other.
    """
    adjusted = [1.0] * len(values)
    worst = 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        worst = max(worst, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = worst
    return adjusted
