"""From recorded samples to an Analysis, on a toy kernel with its source."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from profiler.conclude.analysis import LEAST_SAMPLES, conclude, entry_symbol
from profiler.conclude.confidence import MOST_CONFIDENCE
from profiler.model import Analysis, Conclusion, LoadResult, SourceLocation
from tests.unit.toy_kernel import FILE, TEXT, ToyKernel
from tests.unit.toy_recording import LOAD, LOAD_PID, OTHER_PID, ToySource, manifest, recorded, subject

SOURCE = ToySource("""
    static int find_slot(struct frob *f, int slot)
    {
        if (slot > f->most)
            return -EINVAL;
        return insert(f, slot);
    }

    SYSCALL_DEFINE1(frob, int, slot)
    {
        struct frob *f = current_frob();

        if (!f)
            return -ESRCH;
        return find_slot(f, slot);
    }
""")
KERNEL = ToyKernel("""
    do_syscall_64:
        nop
    .call:
        call __x64_sys_frob
        ret
    __x64_sys_frob:
        test rax, rax   ; 12
        je .none        ; 12
    .call:
        call find_slot  ; 14
        ret             ; 8
    .none:
        mov eax, -3     ; 13
        ret             ; 8
    find_slot:
        cmp esi, [rdi]  ; 3
        jg .bad         ; 3
    .insert:
        call insert     ; 5
        ret             ; 6
    .bad:
        mov eax, -22    ; 4
        ret             ; 6
    insert:
        nop             ; 30
        mov eax, -22    ; 31
        ret             ; 32
    busy_loop:
        nop
        ret
""")
ENTRY = "__x64_sys_frob < do_syscall_64.call"
CALLED = "find_slot < __x64_sys_frob.call < do_syscall_64.call"
BAD = "find_slot.bad < __x64_sys_frob.call < do_syscall_64.call"
SAMPLES = {ENTRY: 60, CALLED: 90, BAD: 80, "do_syscall_64": 10}


def concluded(samples: dict[str, int] | None = None, asked: dict[str, Any] | None = None, **more: Any) -> Analysis:
    data = recorded(KERNEL, SAMPLES if samples is None else samples, **more)
    return conclude(subject(**(asked or {})), data, KERNEL, SOURCE, {})


def test_the_site_and_the_branch_are_named_in_source_terms() -> None:
    found = concluded()
    assert found.conclusion == Conclusion.NAMED
    assert found.confidence == MOST_CONFIDENCE
    assert found.error_site is not None
    assert (found.error_site.function, found.error_site.file, found.error_site.line) == ("find_slot", FILE, 4)
    assert found.error_site.text == "return -EINVAL;"
    assert found.error_site.address == KERNEL.name(KERNEL.at["find_slot.bad"])
    assert found.branch is not None
    assert (found.branch.condition, found.branch.outcome, found.branch.line) == ("slot > f->most", True, 3)
    assert found.reason == (
        "frob() fails with EINVAL because find_slot() at toy.c:4 returns it: `slot > f->most` at toy.c:3 was true"
    )


class Lineless(ToyKernel):
    """The toy kernel without lines for some functions, as assembly has none: no frames, or one without a file."""

    def __init__(self, without: set[str], *, named: bool) -> None:
        self.__dict__.update(KERNEL.__dict__)
        self.without, self.named = without, named

    def frames(self, address: int) -> tuple[SourceLocation, ...]:
        found = self.function_at(address)
        if found is None or found[0] not in self.without:
            return super().frames(address)
        return (SourceLocation(found[0], "", 0),) if self.named else ()


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("without", [{"find_slot"}, {name for name, _, _ in KERNEL.functions}])
def test_a_function_without_lines_is_named_by_its_instructions(without: set[str], named: bool) -> None:
    found = conclude(subject(), recorded(KERNEL, SAMPLES), Lineless(without, named=named), SOURCE, {})
    site, branch = KERNEL.name(KERNEL.at["find_slot.bad"]), "find_slot+0x"
    assert found.error_site is not None
    assert (found.error_site.file, found.error_site.address) == ("", site)
    assert found.reason.startswith(f"frob() fails with EINVAL because find_slot() at {site} (no line is known)")
    assert found.branch is not None
    assert found.branch.function == "find_slot"
    assert found.branch.address.startswith(branch)


def test_the_chain_leads_from_the_entry_to_the_origin() -> None:
    chain = [(link.function, link.line, link.inlined) for link in concluded().chain]
    assert chain == [("__x64_sys_frob", 0, False), ("find_slot", 14, False)]


def test_every_candidate_but_the_named_one_says_why_it_is_out() -> None:
    found = concluded()
    assert [candidate.excluded_by is None for candidate in found.candidates] == [True] + [False] * (
        len(found.candidates) - 1
    )
    assert found.candidates[0].site == found.error_site
    assert len(found.candidates) == 2  # insert() could return it too
    assert sum(candidate.probability for candidate in found.candidates) == pytest.approx(1.0)
    assert found.candidates[1].excluded_by == (
        "insert() has 0 samples from this call, and its return value is not the one returned"
    )


def test_samples_are_counted_by_where_they_were_taken() -> None:
    found = concluded(others={"busy_loop": 33}, lost=0)
    assert (found.samples.total, found.samples.in_load) == (273, 240)
    assert (found.samples.in_kernel, found.samples.on_path) == (240, 230)


def test_the_functions_of_the_chain_are_annotated_with_their_samples() -> None:
    found = {function.function: function for function in concluded().functions}
    assert set(found) == {"__x64_sys_frob", "find_slot"}
    lines = {line.line: line for line in found["find_slot"].lines}
    assert (lines[3].samples, lines[3].marks, lines[3].on_path) == (90, ["branch"], True)
    assert (lines[4].samples, lines[4].marks, lines[4].on_path) == (80, ["error-site"], True)
    assert (lines[5].samples, lines[5].marks, lines[5].on_path) == (0, [], False)
    assert lines[3].text == "    if (slot > f->most)"
    assert lines[3].low < 90 / 170 < lines[3].high


def test_a_kernel_loaded_elsewhere_gives_the_same_analysis() -> None:
    """KASLR moves the samples by one offset, which the manifest knows."""
    moved = concluded(kaslr_offset=0x1C00000, asked={"kaslr_offset": 0x1C00000})
    still = concluded()
    assert _without_time(moved) == _without_time(still)


def test_the_same_recording_gives_the_same_analysis() -> None:
    assert _without_time(concluded()) == _without_time(concluded())


def _without_time(analysis: Analysis) -> dict[str, Any]:
    return dataclasses.replace(
        analysis, evidence=[dataclasses.replace(note, seconds=0.0) for note in analysis.evidence]
    ).to_json()


def test_an_analysis_survives_its_json_form() -> None:
    found = concluded(asked={"manifest": manifest()})
    assert Analysis.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_without_source_the_debug_lines_name_the_place() -> None:
    found = conclude(subject(), recorded(KERNEL, SAMPLES), KERNEL, None)
    assert found.conclusion == Conclusion.NAMED
    assert found.error_site is not None
    assert (found.error_site.function, found.error_site.line, found.error_site.text) == ("find_slot", 4, None)
    assert found.branch is not None
    assert (found.branch.line, found.branch.condition, found.branch.outcome) == (3, None, None)


# ---- what must not be named ----


@pytest.mark.parametrize(
    ("results", "seen"),
    [({"0": 900}, "it succeeded"), ({"EPERM": 5, "ENOMEM": 2, "EINVAL": 0}, "it failed with EPERM")],
)
def test_a_call_that_did_not_fail_so_is_not_reproduced(results: dict[str, int], seen: str) -> None:
    found = concluded(asked={"load": dataclasses.replace(LOAD, results=results)})
    assert found.conclusion == Conclusion.NOT_REPRODUCED
    assert found.reason == f"frob() did not fail with EINVAL: {seen}"
    assert (found.error_site, found.branch, found.confidence, found.candidates) == (None, None, 0.0, [])


def test_too_few_samples_name_nothing_and_say_what_to_do() -> None:
    found = concluded({ENTRY: 20, CALLED: LEAST_SAMPLES - 21})
    assert found.conclusion == Conclusion.INCONCLUSIVE
    assert found.reason == f"only {LEAST_SAMPLES - 1} samples were taken within frob(): too few to name a path"
    assert found.error_site is None
    assert found.samples.on_path == LEAST_SAMPLES - 1
    assert any("--seconds" in step for step in found.next_steps)


def test_samples_of_other_processes_are_not_the_loads() -> None:
    found = concluded({}, others=SAMPLES)
    assert found.conclusion == Conclusion.INCONCLUSIVE
    assert (found.samples.in_load, found.samples.on_path) == (0, 0)


def test_children_of_the_load_belong_to_it() -> None:
    """A program may fork; who came from it is known by the FORK records, in any order and depth."""
    parents = {OTHER_PID: 55, 55: LOAD_PID, 9: 1}
    found = concluded({}, others=SAMPLES, parents=parents)
    assert found.conclusion == Conclusion.NAMED
    assert found.samples.in_load == 240


def test_a_load_that_is_not_known_has_all_samples() -> None:
    """An import has no load: the whole recording counts."""
    everything = LoadResult(0, 0.0, {}, 0, "")
    assert concluded({}, others=SAMPLES, asked={"load": everything}).conclusion == Conclusion.NAMED
    assert concluded({}, others=SAMPLES, asked={"load": None}).conclusion == Conclusion.NAMED


def test_arms_that_the_samples_do_not_tell_apart_are_inconclusive_and_both_named() -> None:
    kernel = ToyKernel("""
        __x64_sys_frob:
            nop             ; 3
            test edi, edi   ; 4
            js .a           ; 4
        .b:
            mov eax, -22    ; 7
            ret             ; 8
        .a:
            mov eax, -22    ; 5
            ret             ; 8
    """)
    found = conclude(subject(), recorded(kernel, {"__x64_sys_frob": 100}), kernel, None)
    assert found.conclusion == Conclusion.INCONCLUSIVE
    assert found.confidence < 0.8
    assert found.reason.startswith("the evidence does not tell apart where EINVAL comes from: ")
    assert "toy.c:5" in found.reason
    assert "toy.c:7" in found.reason
    assert found.next_steps


def test_an_errno_that_the_code_cannot_return_has_no_place() -> None:
    found = concluded(asked={"errno": "EXDEV", "errno_number": 18, "load": None})
    assert found.conclusion == Conclusion.INCONCLUSIVE


def test_a_value_read_from_memory_is_shown_but_not_named() -> None:
    kernel = ToyKernel("""
        __x64_sys_frob:
            test edi, edi     ; 3
            js .member        ; 3
            xor eax, eax      ; 4
            ret               ; 6
        .member:
            mov eax, [rdi+8]  ; 5
            ret               ; 6
    """)
    found = conclude(subject(), recorded(kernel, {"__x64_sys_frob": 100, "__x64_sys_frob.member": 100}), kernel, None)
    assert found.conclusion == Conclusion.INCONCLUSIVE
    assert found.error_site is not None
    assert found.error_site.line == 5
    assert found.reason == (
        "frob() may return EINVAL from __x64_sys_frob() at toy.c:5, but the evidence does not settle it; "
        "it was put into `toy->error` before, and read from there"
    )


@pytest.mark.parametrize("name", ["syscall", "errno"])
def test_with_no_call_or_errno_named_there_is_a_profile_and_no_verdict(name: str) -> None:
    found = concluded(asked={name: "", "load": None})
    assert found.conclusion == Conclusion.INCONCLUSIVE
    assert "no verdict" in found.reason
    assert any("--syscall" in step for step in found.next_steps)
    assert [(f.function, f.samples) for f in found.functions[:2]] == [("find_slot", 170), ("__x64_sys_frob", 60)]
    assert found.candidates == []


def test_without_callchains_functions_are_placed_by_their_calls() -> None:
    found = concluded(callchains=False)
    assert found.conclusion == Conclusion.NAMED
    assert found.error_site is not None
    assert found.error_site.line == 4
    assert found.samples.on_path == 230


def test_a_kernel_without_the_entry_names_nothing() -> None:
    """The call is of another name there, or not built in: its samples cannot be told from others."""
    found = concluded(asked={"syscall": "nosuch"})
    assert found.conclusion == Conclusion.INCONCLUSIVE
    assert found.samples.on_path == 0
    assert found.error_site is None


def test_samples_outside_every_symbol_are_not_on_the_path() -> None:
    """Of a module or of code made at run time: counted, and never mistaken for kernel functions."""
    elsewhere = {(TEXT + 0x100000 + 16 * n, KERNEL.behind("do_syscall_64.call")): 3 for n in range(50)}
    only = concluded({}, loose=elsewhere)
    assert (only.samples.in_kernel, only.samples.on_path, only.conclusion) == (150, 0, Conclusion.INCONCLUSIVE)
    beside = concluded(loose=elsewhere)
    assert (beside.samples.on_path, beside.conclusion) == (230, Conclusion.NAMED)


def test_no_samples_at_all_is_an_answer_too() -> None:
    for chains in (True, False):
        found = concluded({}, callchains=chains)
        assert found.conclusion == Conclusion.INCONCLUSIVE
        assert found.samples.total == 0


# ---- warnings ----


def test_lost_samples_are_told_as_a_share() -> None:
    assert concluded(lost=60).warnings == ["60 samples were lost (20.0%)"]


def test_throttling_is_told() -> None:
    (warning,) = concluded(throttled=4).warnings
    assert warning.startswith("the kernel throttled sampling 4 times")


def test_a_mixture_of_results_is_told_with_the_shares() -> None:
    load = dataclasses.replace(LOAD, results={"EINVAL": 700, "0": 300, "EPERM": 0})
    (warning,) = concluded(asked={"load": load}).warnings
    assert "(70% EINVAL, 30% succeeded): what was recorded is a mixture of their paths" in warning


def test_two_errnos_of_one_load_are_both_told_with_their_shares() -> None:
    load = dataclasses.replace(LOAD, results={"EINVAL": 66600, "EFAULT": 33333, "EINTR": 1})
    (warning,) = concluded(asked={"load": load}).warnings
    assert "did not all end with EINVAL (66.6% EINVAL, 33.4% EFAULT, under 0.1% EINTR)" in warning


def test_a_few_other_results_are_no_mixture() -> None:
    load = dataclasses.replace(LOAD, results={"EINVAL": 995, "EINTR": 5})
    assert concluded(asked={"load": load}).warnings == []


def test_a_load_that_stopped_by_itself_is_told() -> None:
    load = dataclasses.replace(LOAD, stopped_by="memory", message="2 GB used")
    assert concluded(asked={"load": load}).warnings == ["the load stopped by itself: 2 GB used"]


def test_warnings_of_the_recording_are_kept() -> None:
    recording = manifest(warnings=["3 records of perf.data could not be decoded"])
    assert concluded(asked={"manifest": recording}).warnings == recording.warnings


@pytest.mark.parametrize(
    ("syscall", "arch", "symbol"),
    [
        ("bind", "x86_64", "__x64_sys_bind"),
        ("bind", "aarch64", "__arm64_sys_bind"),
        ("umount2", "x86_64", "__x64_sys_umount"),
        ("stat", "x86_64", "__x64_sys_newstat"),
    ],
)
def test_the_entry_is_named_as_the_architecture_names_it(syscall: str, arch: str, symbol: str) -> None:
    assert entry_symbol(syscall, arch) == symbol
