"""The measure of accuracy: how verdicts are judged and counted, and samples cut to a prefix."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from profiler.model import PerfRecording, Samples
from tests import truth
from tests.bench.accuracy import curve, tables
from tests.bench.accuracy.analyses import cut, since_load
from tests.bench.accuracy.judging import Prefix, Row, Verdict, judge

SITE = truth.Place("f", "a.c", 10, 10)
BRANCH = truth.TrueBranch(truth.Place("f", "a.c", 8, 9), 8, True, "decider", "")
TRUE = truth.Truth("s", "6.1.1-1", True, (SITE,), (BRANCH,), ("f",), None, "")


def analysis(conclusion: str = "named", site: int = 10, branch: int = 8, outcome: bool | None = True) -> dict[str, Any]:
    return {
        "conclusion": conclusion,
        "reason": "",
        "confidence": 0.97,
        "error_site": {"function": "f", "file": "a.c", "line": site},
        "branch": {"function": "f", "file": "a.c", "line": branch, "outcome": outcome},
    }


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (analysis(), "right"),
        (analysis(outcome=None), "right"),
        (analysis(outcome=False), "wrong"),
        (analysis(site=11), "wrong"),
        (analysis(branch=7), "wrong"),
        (analysis("inconclusive"), "inconclusive"),
        (analysis("not-reproduced"), "wrong"),
    ],
)
def test_a_verdict_is_right_where_site_and_branch_are(found: dict[str, Any], verdict: str) -> None:
    assert judge(TRUE, found).verdict == verdict


def test_a_call_that_does_not_fail_is_rightly_not_reproduced() -> None:
    absent = replace(TRUE, reproduced=False, sites=(), branches=())
    assert judge(absent, analysis("not-reproduced")).verdict == "not reproduced"
    assert judge(absent, analysis()).verdict == "wrong"


def verdict(kind: str, confidence: float = 0.97) -> Verdict:
    right = kind == "right"
    return Verdict(kind, right, right, confidence, "", claims_place=True)


def row(kind: str, confidence: float = 0.97, kernel: str = "6.1.1-1", prefixes: list[Prefix] | None = None) -> Row:
    return Row("r", "s", kernel, "samples", verdict(kind, confidence), "", 100, 0, 1.0, prefixes or [])


def test_shares_are_of_the_calls_that_fail_as_said() -> None:
    rows = [row("right"), row("right", 0.9), row("wrong"), row("inconclusive", 0.5), row("not reproduced")]
    one, whole = tables.tallies(rows)
    assert (one.kernel, whole.kernel) == ("6.1", "all")
    assert tables.cells(one)[2:9] == ["4", "2 (50.0%)", "2 (50.0%)", "2 (50.0%)", "1 (25.0%)", "1 (25.0%)", "1 of 2"]


def test_the_prefix_that_decides_is_the_first_that_is_sure() -> None:
    prefixes = [
        Prefix(0.5, 10, verdict("inconclusive", 0.5)),
        Prefix(1.0, 20, verdict("right", 0.9)),
        Prefix(2.0, 40, verdict("right", 0.96)),
        Prefix(10.0, 200, verdict("right", 0.99)),
    ]
    assert row("right", prefixes=prefixes).decided == prefixes[2]
    assert "1 of 1 decided at 0.95, half of them within 2.0 s and 40 samples" in tables.text(
        [row("right", prefixes=prefixes)]
    )


def test_the_curve_holds_stated_confidence_against_what_is_right(tmp_path: Path) -> None:
    rows = [row("right", 0.99), row("right", 0.99), row("wrong", 0.99), row("inconclusive", 0.4)]
    low, high = curve.bins(rows)
    assert (low.count, low.right, high.count, high.right) == (1, 0, 3, 2)
    assert high.interval[0] < high.observed < high.interval[1]
    curve.draw(rows, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_prefix_is_counted_from_the_first_sample_of_the_load() -> None:
    """perf records a few samples of its own start, long before the load is let go."""
    seconds = np.array([0.0, 5.0, 5.5, 7.0])
    lengths = [2, 1, 3, 2]
    data = recording_of(seconds, pids=[9, 1, 1, 1], lengths=lengths)
    elapsed = since_load(data, 1)
    assert elapsed == pytest.approx([-5.0, 0.0, 0.5, 2.0])
    kept = cut(data, (elapsed >= 0) & (elapsed < 1)).samples
    assert kept.ip.tolist() == [1, 2]
    assert kept.chain_start.tolist() == [0, 1, 4]
    assert kept.chain.tolist() == [10, 20, 21, 22]


def recording_of(seconds: np.ndarray[Any, Any], pids: list[int], lengths: list[int]) -> PerfRecording:
    count = len(seconds)
    none = np.zeros(count, np.int32)
    chain = [10 * row + depth for row, length in enumerate(lengths) for depth in range(length)]
    samples = Samples(
        ip=np.arange(count, dtype=np.uint64),
        pid=np.array(pids, np.int32),
        tid=none,
        cpu=none,
        time=(seconds * 1e9).astype(np.uint64),
        period=np.ones(count, np.uint64),
        event=np.zeros(count, np.int16),
        in_kernel=np.ones(count, bool),
        comm=none,
        chain_start=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        chain=np.array(chain, np.uint64),
    )
    return PerfRecording(samples, events=(), comms=(), parents={}, lost=0, throttled=0)
