"""The measure of accuracy: how verdicts are judged and counted, and samples cut to a prefix."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from profiler.model import PerfRecording, Samples
from tests import truth
from tests.bench.accuracy import analyses, curve, tables
from tests.bench.accuracy.analyses import cut, since_load
from tests.bench.accuracy.judging import Prefix, Row, Verdict, judge
from tests.unit import sample_analysis as samples

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


def test_values_are_counted_of_the_verdicts_that_name_a_place() -> None:
    """An inconclusive verdict with a value counts for nothing; seconds are the median and the most."""
    rows = [
        replace(row(kind), evidence="ladder", valued=valued, wall=wall)
        for kind, valued, wall in (
            ("right", True, 12.0),
            ("right", True, 30.4),
            ("wrong", False, 14.0),
            ("inconclusive", True, 13.0),
        )
    ]
    assert tables.cells(tables.tallies(rows)[-1])[-2:] == ["2 of 3 (67%)", "14, 30"]
    assert tables.cells(tables.tallies([row("inconclusive")])[-1])[-2:] == ["0", ""]


def campaign(directory: Path, evidence: str) -> Path:
    """A campaign of one scenario on one kernel that ended, with nothing in its recording but what is read here."""
    settings = {"repeat": 1, "seconds": 5.0, "frequency": 8000, "event": "auto", "timeout": 900.0, "evidence": evidence}
    run = {"scenario": "bind-eaddrinuse", "target": "vm:6.1", **settings}
    recorded = directory / "runs" / "bind-eaddrinuse_vm-6.1_1"
    recorded.mkdir(parents=True)
    plan = {"scenarios": ["bind-eaddrinuse"], "targets": ["vm:6.1"], "evidence": evidence}
    (directory / "campaign.json").write_text(json.dumps(plan))
    (directory / "outcomes").mkdir()
    (directory / "outcomes" / f"{recorded.name}.json").write_text(json.dumps({"run": run, "seconds": 21.5}))
    whole = samples.named()
    assert whole.manifest is not None
    manifest = replace(whole.manifest, scenario="bind-eaddrinuse", package_version="6.1.192-2")
    (recorded / "manifest.json").write_text(json.dumps(manifest.to_json()))
    (recorded / "analysis.json").write_text(json.dumps(samples.climbed().to_json()))
    return directory


def test_a_ladder_is_judged_by_its_own_verdict_with_the_seconds_that_it_took(tmp_path: Path) -> None:
    """A directory of whole runs gives one row a run; nothing is analyzed for it."""
    top = campaign(tmp_path / "climbed", "man,log,source,graph,samples,probes")
    (found,) = analyses.find([top], tmp_path / "out", ["all"])
    (made,) = analyses.conclude(found, list(analyses.EVIDENCE), again=False)
    assert (made.evidence, made.verdict, made.valued, made.wall) == ("ladder", "wrong", True, 21.5)
    assert not (tmp_path / "out").exists()
    assert analyses.conclude(found, ["samples"], again=False) == []


@pytest.mark.parametrize(
    ("evidence", "kinds"),
    [("samples,exact", ("samples", "exact", "default")), ("samples", ("samples",)), ("samples,probes", ("ladder",))],
)
def test_what_a_directory_is_analyzed_from_is_what_it_was_recorded_for(
    tmp_path: Path, evidence: str, kinds: tuple[str, ...]
) -> None:
    """Directories of both sorts may be tabulated together; a run that left no recording fails in its own columns."""
    top = campaign(tmp_path / "some", evidence)
    (found,) = analyses.find([top], tmp_path / "out", ["all"])
    assert found.kinds == kinds
    (found.directory / "manifest.json").unlink()
    rows = analyses.missing([top], list(analyses.EVIDENCE), ["all"])
    assert [(each.evidence, each.verdict) for each in rows] == [(kind, "error") for kind in kinds]
    assert sorted(rows, key=lambda each: each.order) == rows


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
