"""The load's rate by rung, from a counter that somebody else writes."""

import mmap
import os
import struct
from pathlib import Path

import pytest

from loadgen import loop
from profiler.errors import RecordError
from profiler.record.rate import Rate


class Counter:
    """A counter file, written through a mapping of its own as the loop does."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        path.write_bytes(bytes(64))
        descriptor = os.open(path, os.O_RDWR)
        self._map = mmap.mmap(descriptor, 64)
        os.close(descriptor)

    def set(self, calls: int, milliseconds: float) -> None:
        struct.pack_into("=Qq", self._map, 0, calls, int(milliseconds * 1e6))


@pytest.fixture
def counter(tmp_path: Path) -> Counter:
    return Counter(tmp_path / "counter")


def test_rates_are_calls_over_the_time_that_they_took(counter: Counter) -> None:
    """Each rung has its own rate; what lies between two of them counts for neither."""
    rate = Rate(counter.path)
    counter.set(1000, 10)
    rate.begin("none")
    counter.set(21_000, 110)
    rate.end("none")
    counter.set(500_000, 2000)
    rate.begin("graph")
    counter.set(501_000, 2100)
    rate.end("graph")
    assert rate.rates() == {"none": 200_000.0, "graph": 10_000.0}


def test_several_stretches_of_one_rung_are_one_rate(counter: Counter) -> None:
    rate = Rate(counter.path)
    for calls, ms in ((0, 0), (1000, 10), (5000, 20), (6000, 50)):
        counter.set(calls, ms)
        (rate.begin if calls in (0, 5000) else rate.end)("samples")
    assert rate.rates() == {"samples": 50_000.0}


def test_too_few_calls_make_no_rate(counter: Counter) -> None:
    """Of three calls, or of a millisecond, nothing is said; nor of a rung that ended without a beginning."""
    rate = Rate(counter.path)
    for rung, calls, ms in (("few", 3, 100), ("short", 9000, 1)):
        counter.set(0, 0)
        rate.begin(rung)
        counter.set(calls, ms)
        rate.end(rung)
    rate.end("never begun")
    assert rate.rates() == {}


def test_a_load_without_a_counter_is_not_measured_and_not_waited_for() -> None:
    rate = Rate()
    rate.measure(3600)
    assert rate.rates() == {}
    rate.close()


def test_a_counter_that_is_no_counter_is_refused(tmp_path: Path) -> None:
    """An empty file, a link and an absent one end in a message."""
    (tmp_path / "empty").touch()
    (tmp_path / "link").symlink_to(Counter(tmp_path / "real").path)
    for name in ("empty", "link", "absent"):
        with pytest.raises(RecordError, match="counter cannot be read"):
            Rate(str(tmp_path / name))


def test_the_loop_counts_where_the_recorder_reads(tmp_path: Path) -> None:
    """What loadgen writes into a shared outcome, in its layout, is what Rate reads."""
    outcome = loop.shared_outcome(str(tmp_path / "shared"))
    rate = Rate(str(tmp_path / "shared"))
    assert rate.count() == (0, 0)
    outcome.calls, outcome.busy_ns = 7, 8
    assert rate.count() == (7, 8)
    with pytest.raises(RecordError, match="live counter cannot be made"):
        loop.shared_outcome(str(tmp_path / "shared"))
