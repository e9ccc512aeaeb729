"""From an execution log to an Analysis: the log is of a toy kernel's code, run by a real CPU emulator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from profiler.conclude import exactly, words
from profiler.conclude.analysis import conclude
from profiler.infer.calltree import CallNode
from profiler.infer.slice import Origin, OriginKind
from profiler.model import Analysis, Conclusion, ExecutionLog, ProbeHits
from profiler.syscalls import NUMBERS
from tests.unit.toy_execution import HEAP, ToyMachine, toy
from tests.unit.toy_kernel import FILE
from tests.unit.toy_probes import hits_of, instructions
from tests.unit.toy_recording import ToySource, recorded, subject

EINVAL = 22
BIND = NUMBERS["x86_64"]["bind"]
SOURCE = ToySource("""
    static int find_slot(struct frob *f, int slot)
    {
        if (slot > f->most)
            return -EINVAL;
        return insert(f, slot);
    }

    SYSCALL_DEFINE1(bind, int, slot)
    {
        struct frob *f = current_frob();

        if (!f)
            return -EINVAL;
        return find_slot(f, slot);
    }
""")
KERNEL = toy(
    """
    __x64_sys_bind:
        test rdi, rdi   ; 12
        je .none        ; 12
    .call:
        call find_slot  ; 14
        cdqe            ; 8
        ret             ; 8
    .none:
        mov eax, -22    ; 13
        cdqe            ; 8
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
        xor eax, eax    ; 31
        ret             ; 32
    """,
    name="__x64_sys_bind",
)
CALLED = "find_slot < __x64_sys_bind.call < do_syscall_64.call"
BAD = "find_slot.bad < __x64_sys_bind.call < do_syscall_64.call"
SAMPLES = {"__x64_sys_bind < do_syscall_64.call": 60, CALLED: 90, BAD: 80}
REFUSED = {"rdi": HEAP, "rsi": 3}
NO_OBJECT = {"rdi": 0}
ACCEPTED = {"rdi": HEAP, "rsi": 1}


def logged(*calls: dict[str, int], offset: int = 0) -> ExecutionLog:
    machine = ToyMachine(KERNEL)
    machine.write(HEAP, 2)
    for registers in calls:
        machine.call(BIND, **registers)
    return machine.log(offset=offset)


def concluded(log: ExecutionLog | None, samples: dict[str, int] | None = None, **asked: Any) -> Analysis:
    data = recorded(KERNEL, SAMPLES if samples is None else samples, kaslr_offset=asked.get("kaslr_offset", 0))
    return conclude(subject(syscall="bind", **asked), data, KERNEL, SOURCE, {}, log)


def located(*calls: dict[str, int]) -> exactly.Answer:
    question = exactly.Question("x86_64", BIND, EINVAL, "__x64_sys_bind", 0)
    sampled = CallNode(KERNEL.at["__x64_sys_bind"], "__x64_sys_bind", None, None)
    answer = exactly.locate(logged(*calls), question, KERNEL, sampled)
    assert answer is not None
    return answer


def test_a_log_names_site_and_branch_without_a_single_sample() -> None:
    found = concluded(logged(REFUSED), {})
    assert found.conclusion == Conclusion.NAMED
    assert found.error_site is not None
    assert (found.error_site.function, found.error_site.file, found.error_site.line) == ("find_slot", FILE, 4)
    assert found.branch is not None
    assert (found.branch.condition, found.branch.outcome, found.branch.line) == ("slot > f->most", True, 3)
    assert [link.function for link in found.chain] == ["__x64_sys_bind", "find_slot"]


def test_a_log_outweighs_samples_that_say_otherwise() -> None:
    found = concluded(logged(NO_OBJECT))
    assert found.error_site is not None
    assert (found.error_site.function, found.error_site.line) == ("__x64_sys_bind", 13)
    assert found.branch is not None
    assert (found.branch.condition, found.branch.outcome) == ("!f", True)


def test_samples_are_shown_with_the_path_that_a_log_gave() -> None:
    lines = {
        line.line: line
        for function in concluded(logged(REFUSED)).functions
        if function.function == "find_slot"
        for line in function.lines
    }
    assert (lines[3].samples, lines[4].samples) == (90, 80)
    assert (lines[4].on_path, lines[5].on_path) == (True, False)


def test_a_line_with_a_jump_says_which_line_the_path_went_on_to() -> None:
    found = {function.function: function for function in concluded(logged(REFUSED)).functions}
    lines = {line.line: line for line in found["find_slot"].lines}
    assert lines[3].goes_to == [4]
    assert lines[4].goes_to == []
    entry = {line.line: line for line in found["__x64_sys_bind"].lines}
    assert entry[12].goes_to == [14]


def test_the_evidence_says_what_was_logged() -> None:
    note = concluded(logged(REFUSED, REFUSED, ACCEPTED)).evidence[0]
    assert note.source == "exact"
    assert note.says.startswith("3 whole calls were logged instruction by instruction, 2 of them fail on this path")
    assert note.excluded == 2  # the site in the entry function, and what insert() might have returned


def test_a_kernel_that_was_loaded_elsewhere_gives_the_same_site() -> None:
    moved = concluded(logged(REFUSED, offset=0x1C00000), kaslr_offset=0x1C00000)
    assert moved.error_site == concluded(logged(REFUSED)).error_site


@pytest.mark.parametrize("calls", [[], [ACCEPTED], [ACCEPTED, ACCEPTED]])
def test_a_log_without_a_failing_call_leaves_it_to_the_samples_and_says_so(calls: list[dict[str, int]]) -> None:
    found = concluded(logged(*calls))
    assert words.NO_WHOLE_CALL in found.warnings
    assert found.error_site is not None
    assert (found.error_site.function, found.error_site.line) == ("find_slot", 4)
    assert [note.source for note in found.evidence] != ["exact"]


def test_a_log_without_a_failing_call_and_no_samples_names_nothing() -> None:
    found = concluded(logged(ACCEPTED), {})
    assert found.conclusion == Conclusion.INCONCLUSIVE
    assert words.NO_WHOLE_CALL in found.warnings


# ---- several outcomes ----


def test_two_origins_are_both_candidates_with_their_shares() -> None:
    answer = located(REFUSED, NO_OBJECT, REFUSED, REFUSED)
    first, second = answer.candidates[:2]
    assert (first.origin.address, first.probability) == (KERNEL.at["find_slot.bad"], 0.75)
    assert (second.origin.address, second.probability) == (KERNEL.at["__x64_sys_bind.none"], 0.25)
    assert exactly.other_outcomes(answer, KERNEL) == [
        "the failing calls that were logged come from 2 places: "
        f"75% at {KERNEL.name(first.origin.address)}, 25% at {KERNEL.name(second.origin.address)}"
    ]


def test_two_origins_are_told_to_the_user() -> None:
    found = concluded(logged(REFUSED, NO_OBJECT, REFUSED, REFUSED))
    assert any("come from 2 places: 75% at find_slot" in warning for warning in found.warnings)
    assert found.confidence <= 0.75


def test_calls_that_end_differently_are_told_with_what_they_returned() -> None:
    answer = located(REFUSED, ACCEPTED, REFUSED)
    assert exactly.other_outcomes(answer, KERNEL) == [
        f"the calls that were logged return different values ({-EINVAL}: 2, 0: 1)"
    ]


def test_calls_that_all_end_alike_give_no_warning() -> None:
    assert exactly.other_outcomes(located(REFUSED, REFUSED), KERNEL) == []


def test_every_other_place_in_the_functions_that_ran_is_a_candidate_without_a_chance() -> None:
    answer = located(REFUSED)
    assert [(other.origin, other.probability) for other in answer.candidates] == [
        (Origin(OriginKind.CONSTANT, KERNEL.at["find_slot.bad"]), 1.0),
        (Origin(OriginKind.CONSTANT, KERNEL.at["__x64_sys_bind.none"]), 0.0),
        (Origin(OriginKind.CALL, KERNEL.at["find_slot.insert"]), 0.0),
    ]
    assert [candidate.is_executed for candidate in answer.candidates] == [True, False, False]


def test_an_architecture_whose_entry_is_not_known_has_no_answer() -> None:
    question = exactly.Question("aarch64", BIND, EINVAL, "__arm64_sys_bind", 0)
    sampled = CallNode(0, "", None, None)
    assert exactly.locate(logged(REFUSED), question, KERNEL, sampled) is None


# ---- of probes ----

BOTH = ("__x64_sys_bind", "find_slot", "insert")
OFFSET = 0x1A00_0000


def probed(*functions: str, offset: int = 0, calls: tuple[dict[str, int], ...] = (REFUSED,)) -> ProbeHits:
    machine = ToyMachine(KERNEL)
    machine.write(HEAP, 2)
    for registers in calls:
        machine.call(BIND, **registers)
    return hits_of(machine, instructions(KERNEL, functions), offset=offset)


def asked(offset: int = 0) -> exactly.Question:
    return exactly.Question("x86_64", BIND, EINVAL, "__x64_sys_bind", offset)


def by_probes(*rounds: ProbeHits, offset: int = 0) -> exactly.Answer | None:
    sampled = CallNode(KERNEL.at["__x64_sys_bind"], "__x64_sys_bind", None, None)
    return exactly.locate_probed(rounds, asked(offset), KERNEL, sampled)


def test_probes_give_the_answer_that_a_log_gives() -> None:
    found = by_probes(probed(*BOTH))
    assert found is not None
    assert found.paths[0].origin == located(REFUSED).paths[0].origin
    assert [candidate.origin for candidate in found.candidates] == [
        candidate.origin for candidate in located(REFUSED).candidates
    ]


def test_the_last_round_that_shows_an_origin_is_the_one_that_counts() -> None:
    first, whole = probed("__x64_sys_bind"), probed(*BOTH)
    nothing = probed(*BOTH, calls=(ACCEPTED,))
    for rounds in ((first, whole), (whole, nothing)):
        found = by_probes(*rounds)
        assert found is not None
        assert found.paths[0].origin == Origin(OriginKind.CONSTANT, KERNEL.at["find_slot.bad"])
    found = by_probes(whole, first)
    assert found is not None
    assert found.paths[0].origin.kind == OriginKind.CALL


def test_rounds_that_show_no_failing_call_have_no_answer() -> None:
    assert by_probes() is None
    assert by_probes(probed(*BOTH, calls=(ACCEPTED,))) is None


def test_what_was_seen_has_the_addresses_of_the_code() -> None:
    """Those that refused probes as well: where the kernel was loaded does not matter to the next round."""
    hits = replace(probed(*BOTH, offset=OFFSET), refused={KERNEL.at["insert"] + OFFSET: "EINVAL"})
    seen = exactly.see(hits, asked(OFFSET), KERNEL)
    assert seen.hits.attached == instructions(KERNEL, BOTH)
    assert seen.hits.refused == {KERNEL.at["insert"]: "EINVAL"}
    assert seen.paths[0].origin == Origin(OriginKind.CONSTANT, KERNEL.at["find_slot.bad"])


def test_a_kernel_without_the_system_call_has_nothing_to_see() -> None:
    question = exactly.Question("x86_64", BIND, EINVAL, "__x64_sys_nothing", 0)
    with pytest.raises(LookupError):
        exactly.see(probed(*BOTH), question, KERNEL)


def test_the_evidence_says_how_many_probes_there_were_and_what_they_saw() -> None:
    hits = replace(probed(*BOTH), lost=3)
    found = by_probes(hits)
    assert found is not None
    note = exactly.probes_say(found, [hits], EINVAL, KERNEL.name)
    assert note.source == "probes"
    assert note.says.startswith(f"{len(hits.attached)} instructions were probed in 1 round, 1 whole calls seen")
    assert "3 hits were lost" in note.says
    assert note.excluded == len(found.candidates) - 1
