"""A verdict whose way leads through a module that is not known well enough here."""

from __future__ import annotations

import pytest

from profiler.conclude.analysis import conclude
from profiler.model import Analysis, Conclusion
from tests.unit.test_conclude_analysis import KERNEL, SAMPLES, SOURCE
from tests.unit.toy_kernel import TEXT
from tests.unit.toy_recording import manifest, recorded, subject

MODULE = TEXT + 0x100000
IN_MODULE = (MODULE, *(KERNEL.behind(call) for call in ("__x64_sys_frob.call", "do_syscall_64.call")))


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KERNEL, "unread", {MODULE: "tun"})


def concluded(loose: dict[tuple[int, ...], int], **asked: object) -> Analysis:
    return conclude(subject(**asked), recorded(KERNEL, SAMPLES, loose=loose), KERNEL, SOURCE, {})


@pytest.mark.usefixtures("unread")
def test_no_place_is_named_where_the_call_runs_through_unknown_code() -> None:
    analysis = concluded({IN_MODULE: 40}, manifest=manifest())
    assert analysis.conclusion is Conclusion.INCONCLUSIVE
    assert (analysis.error_site, analysis.candidates) == (None, [])
    assert "the module tun" in analysis.reason


@pytest.mark.usefixtures("unread")
def test_the_command_that_gets_the_debug_info_is_named() -> None:
    (fetched,) = concluded({IN_MODULE: 40}, manifest=manifest()).next_steps
    assert "whyerrno kernels fetch 6.1.1-1 --module tun" in fetched
    (installed,) = concluded({IN_MODULE: 40}, manifest=manifest(target="local")).next_steps
    assert "apt install linux-image-6.1.0-toy-dbg" in installed


@pytest.mark.usefixtures("unread")
def test_a_few_samples_in_a_module_do_not_stand_in_the_way() -> None:
    assert concluded({IN_MODULE: 1}, manifest=manifest()).conclusion is Conclusion.NAMED


@pytest.mark.usefixtures("unread")
def test_what_a_module_does_outside_the_call_does_not_stand_in_the_way() -> None:
    assert concluded({(MODULE,): 100}, manifest=manifest()).conclusion is Conclusion.NAMED


def test_unknown_code_of_no_module_is_no_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KERNEL, "unread", {})
    assert concluded({IN_MODULE: 40}, manifest=manifest()).conclusion is Conclusion.NAMED


def test_an_origin_without_lines_is_given_as_the_modules_and_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KERNEL, "bare", {KERNEL.at["find_slot"]: "tun"})
    analysis = concluded({}, manifest=manifest())
    assert analysis.conclusion is Conclusion.INCONCLUSIVE
    assert "in the module tun, at find_slot" in analysis.reason
    assert "--module tun" in analysis.next_steps[0]


def test_a_module_above_the_origin_needs_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KERNEL, "bare", {KERNEL.at["__x64_sys_frob"]: "tun"})
    assert concluded({}, manifest=manifest()).conclusion is Conclusion.NAMED
