"""The statistics of a comparison, against published and independently computed numbers."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.significance import change_interval, g_test, holm, wilson


def test_wilson_interval_of_published_example() -> None:
    """81 of 263 gives 0.2553 to 0.3662 (Newcombe 1998, Two-sided confidence intervals for the single proportion)."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_change_interval_of_published_example() -> None:
    """56/70 less 48/80 gives 0.0524 to 0.3339 (Newcombe 1998, method 10)."""
    assert change_interval(56, 70, 48, 80) == pytest.approx((0.0524, 0.3339), abs=5e-5)


@pytest.mark.parametrize(
    ("table", "p"),
    [
        ((30, 100, 50, 100), 0.0038859077736766669),
        ((3, 100, 9, 100), 0.07376082696716843),
        ((449, 1449, 9, 2009), 1.004043070404856e-174),
    ],
)
def test_g_test_agrees_with_an_independent_implementation(table: tuple[int, int, int, int], p: float) -> None:
    """The p-values are those of scipy's log-likelihood statistic divided by Williams' q."""
    assert g_test(*table) == pytest.approx(p, rel=1e-9)


def test_nothing_to_tell_apart_is_no_difference() -> None:
    """No samples, none of the line, or all of the line in both runs give p = 1."""
    assert g_test(0, 100, 0, 50) == g_test(100, 100, 50, 50) == g_test(0, 0, 3, 10) == 1.0


def test_holm_of_a_worked_example() -> None:
    """0.01, 0.04, 0.03, 0.005 become 0.03, 0.06, 0.06, 0.02."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_false_alarms_are_as_rare_as_promised() -> None:
    """Of 2,000 comparisons of equal shares, about 5% are below 0.05."""
    draw = random.Random(5)
    alarms = 0
    for _ in range(2000):
        hits = [sum(draw.random() < 0.2 for _ in range(150)) for _ in range(2)]
        alarms += g_test(hits[0], 150, hits[1], 150) < 0.05
    assert 60 < alarms < 140


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_only_ever_raises_and_keeps_the_order(values: list[float]) -> None:
    """A corrected value is never below the plain one, never above 1, and the ranking stays."""
    adjusted = holm(values)
    assert all(a >= v and a <= 1 for a, v in zip(adjusted, values, strict=True))
    ranked = sorted(range(len(values)), key=values.__getitem__)
    assert [adjusted[i] for i in ranked] == sorted(adjusted)


@given(st.integers(1, 500), st.integers(1, 500), st.data())
def test_intervals_hold_the_estimate(total: int, base_total: int, data: st.DataObject) -> None:
    """Each interval contains what it is an interval of, and a p-value is a probability."""
    hits, base = data.draw(st.integers(0, total)), data.draw(st.integers(0, base_total))
    low, high = wilson(hits, total)
    assert 0 <= low <= hits / total + 1e-12 and hits / total - 1e-12 <= high <= 1
    change = hits / total - base / base_total
    low, high = change_interval(hits, total, base, base_total)
    assert low - 1e-12 <= change <= high + 1e-12
    assert 0 <= g_test(hits, total, base, base_total) <= 1
