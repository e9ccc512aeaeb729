"""The ladder of a verdict: one note for every rung, in order, with its state and what it took and cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from profiler import manual, rungs
from profiler.case import Case, no_samples
from profiler.conclude.analysis import Concluded
from profiler.evidence import RUNGS
from profiler.model import (
    Analysis,
    Conclusion,
    EvidenceNote,
    ExecutionLog,
    Kernel,
    LoadResult,
    ProbeHits,
    RungState,
)
from profiler.rungs import Recorded, complete
from tests.unit.test_conclude_exactly import (
    BAD,
    BOTH,
    CALLED,
    KERNEL,
    NO_OBJECT,
    REFUSED,
    SAMPLES,
    SOURCE,
    logged,
    probed,
)
from tests.unit.toy_recording import LOAD, manifest, recorded, subject

MANY = {"__x64_sys_bind < do_syscall_64.call": 600, CALLED: 900, BAD: 800}
TAKEN, NOT_NEEDED = RungState.TAKEN, RungState.NOT_NEEDED
NOT_POSSIBLE, NOT_ASKED = RungState.NOT_POSSIBLE, RungState.NOT_ASKED


@pytest.fixture(autouse=True)
def _no_manual(monkeypatch: pytest.MonkeyPatch) -> None:
    """What manual pages are on this machine is of no matter here."""
    monkeypatch.setattr(manual, "read", lambda _call: None)
    monkeypatch.setattr(manual, "advice", lambda _call: "apt install manpages-dev")
    monkeypatch.setattr(rungs.operands, "plan", lambda *_: None)


def completed(
    directory: Path,
    *,
    samples: dict[str, int] | None = None,
    execution: ExecutionLog | None = None,
    probes: tuple[ProbeHits, ...] = (),
    used: frozenset[str] = frozenset(RUNGS),
    load: LoadResult = LOAD,
    **facts: Any,
) -> Analysis:
    about = subject(syscall="bind", load=load, manifest=manifest(syscall="bind", **facts))
    kernel = Kernel("6.1.0-toy", "6.1.1-1", "ab" * 20, "x86_64")
    case = Case(about, KERNEL, SOURCE, None, kernel)  # type: ignore[arg-type]
    data = recorded(KERNEL, samples) if samples else no_samples()
    concluded: Concluded = case.conclude(data, execution, probes)
    return complete(case, concluded, Recorded(directory, used, data, execution, list(probes)), lambda *_: None)


def notes(analysis: Analysis) -> dict[str, EvidenceNote]:
    return {note.source: note for note in analysis.evidence}


def test_every_rung_has_a_note_in_the_ladders_order(tmp_path: Path) -> None:
    found = completed(tmp_path, samples=MANY)
    assert [note.source for note in found.evidence] == list(RUNGS)


def test_a_rung_that_gave_nothing_says_why(tmp_path: Path) -> None:
    asked = {"rungs": ["man", "samples", "source", "probes", "exact"], "emulated": True}
    found = notes(completed(tmp_path, samples=MANY, used=frozenset({"man", "source", "samples"}), **asked))
    states = {source: note.state for source, note in found.items()}
    assert states["samples"] == TAKEN
    assert (states["probes"], states["exact"]) == (NOT_NEEDED, NOT_NEEDED)
    assert (states["log"], states["graph"]) == (NOT_ASKED, NOT_ASKED)
    assert states["man"] == NOT_POSSIBLE
    assert states["source"] == TAKEN  # by the source's walk, though its places cannot be listed
    assert "apt install manpages-dev" in found["man"].says


def test_an_execution_log_is_not_possible_where_nothing_is_emulated(tmp_path: Path) -> None:
    found = notes(completed(tmp_path, samples=MANY))["exact"]
    assert (found.state, found.says) == (NOT_POSSIBLE, "the target is no emulated guest")


def test_a_rung_whose_order_failed_has_its_problem_and_the_hint(tmp_path: Path) -> None:
    order = {"do": "probes", "answered": 1, "seconds": 0.25, "problem": "no kprobes here", "hint": "boot one with"}
    used = frozenset(RUNGS) - {"probes"}
    found = notes(completed(tmp_path, samples=MANY, orders=[order], used=used))["probes"]
    assert (found.state, found.says) == (NOT_POSSIBLE, "no kprobes here (boot one with)")


def test_a_rung_that_was_taken_and_told_nothing_says_so(tmp_path: Path) -> None:
    found = notes(completed(tmp_path, samples=MANY))["graph"]
    assert (found.state, found.says) == (TAKEN, "it told nothing of these calls")


def test_probes_decide_and_what_samples_alone_say_stands_beside_them(tmp_path: Path) -> None:
    analysis = completed(tmp_path, samples=MANY, probes=(probed(*BOTH),))
    found = notes(analysis)
    assert analysis.conclusion is Conclusion.NAMED
    assert found["probes"].state == TAKEN
    assert "alone they name find_slot" in found["samples"].says
    assert found["samples"].disagrees == ""


@pytest.mark.parametrize("by", ["exact", "probes"])
def test_samples_that_alone_name_another_place_disagree(tmp_path: Path, by: str) -> None:
    """The verdict is that of what ran exactly."""
    if by == "exact":
        analysis = completed(tmp_path, samples=MANY, execution=logged(NO_OBJECT))
    else:
        analysis = completed(tmp_path, samples=MANY, probes=(probed(*BOTH, calls=(NO_OBJECT,)),))
    assert analysis.error_site is not None
    assert analysis.error_site.function == "__x64_sys_bind"
    assert notes(analysis)["samples"].disagrees.startswith(f"with {by}, which names __x64_sys_bind at ")


def test_too_few_samples_to_name_a_place_disagree_with_nothing(tmp_path: Path) -> None:
    found = notes(completed(tmp_path, samples={BAD: 3}, probes=(probed(*BOTH),)))["samples"]
    assert (found.state, found.disagrees) == (TAKEN, "")
    assert found.says


def test_a_log_and_no_samples_says_so_of_them(tmp_path: Path) -> None:
    used = frozenset(RUNGS) - {"samples"}
    found = notes(completed(tmp_path, execution=logged(REFUSED), used=used, emulated=True))
    assert found["exact"].state == TAKEN
    assert found["samples"].state == NOT_NEEDED


def test_what_a_rung_cost_the_load_is_its_rate_beside_the_loads_own(tmp_path: Path) -> None:
    rates = {"none": 1000.0, "samples": 900.0, "probes": 250.0, "graph": 1010.0}
    found = notes(completed(tmp_path, samples=MANY, rates=rates))
    assert {source: found[source].overhead for source in ("samples", "probes", "graph", "exact", "man")} == {
        "samples": 0.1,
        "probes": 0.75,
        "graph": 0.0,
        "exact": None,
        "man": None,
    }


def test_without_the_loads_own_rate_no_cost_is_told(tmp_path: Path) -> None:
    found = completed(tmp_path, samples=MANY, rates={"samples": 900.0})
    assert all(note.overhead is None for note in found.evidence)


def test_seconds_are_those_on_the_target_too(tmp_path: Path) -> None:
    orders = [
        {"do": word, "answered": number, "seconds": seconds, "problem": "", "hint": ""}
        for number, (word, seconds) in enumerate([("graph", 2.0), ("probes", 3.0), ("operands", 0.5)])
    ]
    found = notes(completed(tmp_path, samples=MANY, orders=orders, probes=(probed(*BOTH),)))
    assert 3.5 <= found["probes"].seconds < 6
    assert found["graph"].seconds == 2.0
    assert 10.0 <= found["samples"].seconds < 12


def test_a_verdict_of_calls_that_did_not_fail_so_has_no_ladder(tmp_path: Path) -> None:
    load = replace(LOAD, results={"0": 1000})
    found = completed(tmp_path, samples=SAMPLES, load=load)
    assert found.conclusion is Conclusion.NOT_REPRODUCED
    assert found.evidence == []


def test_the_verdict_itself_is_not_changed_by_the_ladder(tmp_path: Path) -> None:
    about = subject(syscall="bind", manifest=manifest(syscall="bind"))
    kernel = Kernel("6.1.0-toy", "6.1.1-1", "ab" * 20, "x86_64")
    case = Case(about, KERNEL, SOURCE, None, kernel)  # type: ignore[arg-type]
    alone = case.conclude(recorded(KERNEL, MANY)).analysis
    found = completed(tmp_path, samples=MANY)
    assert (found.conclusion, found.error_site, found.branch, found.confidence) == (
        alone.conclusion,
        alone.error_site,
        alone.branch,
        alone.confidence,
    )
