"""Samples per source line, with inlined code and intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.debuginfo.functions import Function
from profiler.debuginfo.histogram import histograms, line_histogram, wilson_interval
from profiler.model import InlinedSamples, SourceLocation

OUTER_10 = SourceLocation("outer", "net/a.c", 10)
OUTER_11 = SourceLocation("outer", "net/a.c", 11)
INNER_3 = SourceLocation("inner", "include/a.h", 3)
OTHER = SourceLocation("other", "net/a.c", 90)


CHAINS = {0x100: (OUTER_10,), 0x104: (INNER_3, OUTER_11), 0x108: (OUTER_11,), 0x200: (OTHER,)}


class Table:
    """Chains by address, as a line table gives them."""

    def frames(self, address: int) -> tuple[SourceLocation, ...]:
        return CHAINS.get(address, ())


def addresses(*values: int) -> np.ndarray:
    return np.array(values, np.uint64)


def test_inlined_code_counts_for_its_call_line_and_for_its_own_line() -> None:
    found = histograms(addresses(0x104, 0x104, 0x108), Table())
    outer, inner = found["outer", "net/a.c"], found["inner", "include/a.h"]
    assert {line: count.samples for line, count in outer.lines.items()} == {11: 3}
    assert outer.lines[11].inlined == [InlinedSamples("inner", "include/a.h", 3, 2)]
    assert {line: count.samples for line, count in inner.lines.items()} == {3: 2}
    assert (outer.inlined, inner.inlined) == (False, True)


def test_only_the_functions_own_ranges_count() -> None:
    histogram = line_histogram(addresses(0x100, 0x104, 0x200, 0x999), Table(), Function(0x100, 0x110, "outer"))
    assert histogram is not None
    assert (histogram.function, histogram.samples) == ("outer", 2)


def test_pieces_of_a_function_are_counted_together() -> None:
    pieces = [Function(0x100, 0x104, "outer"), Function(0x104, 0x110, "outer.cold")]
    histogram = line_histogram(addresses(0x100, 0x104, 0x108), Table(), pieces)
    assert histogram is not None
    assert histogram.samples == 3


def test_a_function_without_samples_has_no_histogram() -> None:
    assert line_histogram(addresses(0x200), Table(), Function(0x100, 0x110, "outer")) is None


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # computed with scipy.stats.binomtest(k, n).proportion_ci(method="wilson")
    [(0, 10, 0.0, 0.2775327998628892), (5, 10, 0.236593090512564, 0.763406909487436), (10, 10, 0.72246720013711, 1.0)],
)
def test_the_interval_is_wilsons(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=1e-9)


@given(st.integers(0, 10**7), st.integers(0, 10**7))
def test_the_interval_holds_the_share_and_stays_within_0_and_1(a: int, b: int) -> None:
    low, high = wilson_interval(min(a, b), max(a, b))
    assert 0 <= low <= high <= 1
    if max(a, b):
        assert low <= min(a, b) / max(a, b) <= high
