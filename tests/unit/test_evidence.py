"""The rungs as they are asked for, and what they cost."""

import pytest

from profiler import evidence
from profiler.errors import UsageError


def test_rungs_are_named_and_auto_leaves_the_choice() -> None:
    assert evidence.parse("man, probes") == {"man", "probes"}
    assert evidence.parse("auto") == evidence.AUTO == frozenset()


@pytest.mark.parametrize("text", ["", "sample", "auto,man", "man,,log"])
def test_what_is_no_rung_is_refused_with_those_there_are(text: str) -> None:
    with pytest.raises(UsageError, match="man,log,source,graph,samples,probes,exact"):
        evidence.parse(text)


def test_overhead_is_what_is_lost_of_the_rate_alone() -> None:
    """Where either rate was not measured nothing is said."""
    rates = {"none": 120_000.0, "graph": 30_000.0}
    assert evidence.overhead(rates, "graph") == pytest.approx(0.75)
    assert evidence.overhead(rates, "samples") is None
    assert evidence.overhead({"graph": 30_000.0}, "graph") is None
