"""Calls put together from the hits of a few functions' instructions, which a real CPU emulator ran."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.conclude import exactly
from profiler.infer.exact import Exact
from profiler.infer.probed import Probed
from profiler.infer.slice import OriginKind
from profiler.model import ProbeHits
from tests.unit.test_infer_exact import examined
from tests.unit.test_infer_execution import FAULT, INTERRUPT
from tests.unit.toy_execution import HEAP, NOT_MAPPED, ToyMachine, toy
from tests.unit.toy_kernel import ToyKernel
from tests.unit.toy_probes import EINVAL, SYSCALL, hits_of, instructions, question

EFAULT = 14
KASLR = 0x1CE0_0000


class Put:
    """One failing call of `body`, of which the functions `probed` alone have probes, and those not at labels `but`."""

    def __init__(
        self,
        body: str,
        probed: Iterable[str],
        *,
        but: Iterable[str] = (),
        refuse: Iterable[str] = (),
        errno: int = EINVAL,
        words: tuple[int, ...] = (),
        fixups: Mapping[str, str] | None = None,
        effects: Mapping[str, tuple[str, int]] | None = None,
        interrupts: Mapping[str, int] | None = None,
        **registers: int,
    ) -> None:
        self.kernel = toy(body, fixups=fixups)
        self.machine = ToyMachine(self.kernel)
        self.machine.write(HEAP, *words)
        self.machine.effects = dict(effects or {})
        self.machine.interrupts = dict(interrupts or {})
        assert self.machine.call(**{"rdi": HEAP, **registers}) == -errno
        refused = {self.kernel.at[label]: "EINVAL" for label in refuse}
        self.hits = hits_of(self.machine, instructions(self.kernel, probed, but), refused=refused)
        seen = exactly.see(self.hits, question(errno), self.kernel)
        self.probed, self.paths = seen.probed, seen.paths

    @property
    def path(self) -> Exact:
        (path,) = self.paths
        return path

    @property
    def origin(self) -> tuple[str, OriginKind]:
        """Its label and kind; of a call, that of the call itself, which ends the block."""
        origin, level = self.path.origin, self.path.levels[-1]
        is_call = origin.kind == OriginKind.CALL
        return self.label(level.graph.blocks[origin.address].last if is_call else origin.address), origin.kind

    @property
    def chain(self) -> list[str]:
        return [node.name for node in self.path.chain]

    @property
    def ran(self) -> list[str]:
        """Labels, or names, of the only call's rows."""
        (call,) = self.probed.calls
        return [self.label(int(address)) for address in self.probed.log.address[call.rows]]

    @property
    def unseen(self) -> dict[str, str | None]:
        """Where control left to what was not seen, and where that is."""
        address = self.probed.log.address
        return {
            self.label(int(address[row])): None if entry is None else self.label(entry)
            for row, entry in self.probed.unseen.items()
        }

    def label(self, address: int) -> str:
        return label(self.kernel, address)


def label(kernel: ToyKernel, address: int) -> str:
    return next((name for name, at in kernel.at.items() if at == address), kernel.name(address))


def in_log(kernel: ToyKernel, machine: ToyMachine, functions: Iterable[str]) -> list[int]:
    """The addresses of `functions` that the machine ran, in their order."""
    addresses = instructions(kernel, functions)
    return [address for address, _, _ in machine.rows if address in addresses]


NESTED = """
    __x64_sys_frob:
        push rbx
    .calls:
        call outer
    .back:
        test eax, eax
        pop rbx
        cdqe
        ret
    outer:
        push rbx
        mov rbx, rdi
    .calls:
        call inner
    .back:
        test eax, eax
    .jumps:
        jne .out
        xor eax, eax
    .out:
        pop rbx
        ret
    inner:
        cmp [rdi], 3
    .decides:
        jne .bad
        xor eax, eax
        ret
    .bad:
        mov eax, -22
        ret
"""


def test_calls_of_probed_functions_are_put_together_as_they_ran() -> None:
    found = Put(NESTED, [SYSCALL, "outer", "inner"])
    (call,) = found.probed.calls
    assert call.result == -EINVAL
    expected = in_log(found.kernel, found.machine, [SYSCALL, "outer", "inner"])
    assert found.probed.log.address[call.rows].tolist() == expected
    assert found.probed.unseen == {}
    assert (found.origin, found.chain) == (("inner.bad", OriginKind.CONSTANT), [SYSCALL, "outer", "inner"])


def test_a_return_gives_its_frame_what_it_returned() -> None:
    found = Put(NESTED, [SYSCALL, "outer", "inner"])
    top = found.probed.frames_of(found.probed.calls[0])
    (outer,) = top.children
    (inner,) = outer.children
    assert (top.name, outer.name, inner.name) == (SYSCALL, "outer", "inner")
    assert [frame.result for frame in (outer, inner)] == [(1 << 32) - EINVAL] * 2
    assert (outer.tail, inner.tail) == (False, False)


def test_a_callee_without_probes_is_noted_with_its_entry_and_its_result_has_its_origin_there() -> None:
    found = Put(NESTED, [SYSCALL, "outer"])
    assert found.unseen == {"outer.calls": "inner"}
    assert found.origin == ("outer.calls", OriginKind.CALL)
    assert found.path.unseen == {found.kernel.at["inner"]}
    assert found.chain == [SYSCALL, "outer"]


def test_what_a_function_without_probes_between_two_with_probes_returned_was_perhaps_made_there() -> None:
    found = Put(NESTED, [SYSCALL, "inner"])
    assert found.probed.passed == {found.kernel.at["outer"]}
    assert found.path.unseen == {found.kernel.at["outer"]}
    assert found.origin[1] == OriginKind.CALL
    (inner,) = found.probed.frames_of(found.probed.calls[0]).children
    assert inner.name == "inner"


def test_a_function_that_refuses_probes_is_passed_where_it_returns_what_its_callee_did() -> None:
    kernel = toy(NESTED)
    outer = [label for label in kernel.at if label.startswith("outer")]
    found = Put(NESTED, [SYSCALL, "inner"], refuse=outer)
    assert found.origin == ("inner.bad", OriginKind.CONSTANT)
    assert found.chain == [SYSCALL, "inner"]


def test_two_functions_that_one_without_probes_calls_are_two_calls_of_the_same_place() -> None:
    found = Put(
        """
        __x64_sys_frob:
            nop
        .calls:
            call between
            cdqe
            ret
        between:
            push rbx
            call first
            call second
            pop rbx
            ret
        first:
            mov eax, 5
            ret
        second:
            nop
        .bad:
            mov eax, -22
            ret
        """,
        [SYSCALL, "first", "second"],
    )
    top = found.probed.frames_of(found.probed.calls[0])
    assert [child.name for child in top.children] == ["first", "second"]
    assert top.children[0].result == 5
    assert found.probed.passed == {found.kernel.at["between"]}


TAIL = """
    __x64_sys_frob:
        test rdi, rdi
        je .fine
    .leaves:
        jmp handler
    .fine:
        xor eax, eax
        cdqe
        ret
    handler:
        nop
    .bad:
        mov rax, -22
        ret
"""


def test_a_tail_jump_to_a_probed_function_is_part_of_the_chain() -> None:
    found = Put(TAIL, [SYSCALL, "handler"])
    (child,) = found.probed.frames_of(found.probed.calls[0]).children
    assert (child.name, child.tail) == ("handler", True)
    assert found.origin == ("handler.bad", OriginKind.CONSTANT)
    assert found.chain == [SYSCALL, "handler"]


def test_a_tail_jump_to_where_no_probe_is_counts_as_failed_and_names_where_it_leads() -> None:
    found = Put(TAIL, [SYSCALL])
    (call,) = found.probed.calls
    assert call.result == -EINVAL
    assert found.unseen == {"__x64_sys_frob.leaves": "handler"}
    assert found.origin == ("__x64_sys_frob.leaves", OriginKind.CALL)
    assert found.path.unseen == {found.kernel.at["handler"]}


WRAPPED = """
    __x64_sys_frob:
        nop
    .leaves:
        jmp body
    body:
        push rbx
        call work
        pop rbx
        ret
    work:
        nop
    .bad:
        mov rax, -22
        ret
"""


def test_a_body_that_refuses_probes_is_passed_where_its_callee_returns_the_errno_at_the_very_end() -> None:
    """As __do_sys_wait4() of 6.12, which is notrace: __x64_sys_wait4() jumps to it, and it calls kernel_wait4()."""
    body = [label for label in toy(WRAPPED).at if label.startswith("body")]
    found = Put(WRAPPED, [SYSCALL, "work"], refuse=body)
    (call,) = found.probed.calls
    assert call.result == -EINVAL
    assert found.origin == ("work.bad", OriginKind.CONSTANT)
    assert found.chain == [SYSCALL, "work"]
    assert found.probed.passed == {found.kernel.at["body"]}


def test_a_body_that_merely_has_no_probes_may_have_returned_something_else() -> None:
    assert Put(WRAPPED, [SYSCALL, "work"]).probed.calls == []


def test_a_body_that_has_the_same_errno_of_its_own_is_not_passed() -> None:
    """As __do_sys_bpf() on 5.10: of EPERM it is not known whether its own is returned, or its callee's."""
    made = WRAPPED.replace("call work", "call work\n        mov rax, -22")
    body = [label for label in toy(made).at if label.startswith("body")]
    assert Put(made, [SYSCALL, "work"], refuse=body).probed.calls == []


def test_a_function_between_that_has_the_same_errno_of_its_own_is_where_it_may_come_from() -> None:
    made = NESTED.replace("xor eax, eax\n    .out:", "mov eax, -22\n    .out:")
    outer = [label for label in toy(made).at if label.startswith("outer")]
    found = Put(made, [SYSCALL, "inner"], refuse=outer)
    assert found.path.unseen == {found.kernel.at["outer"]}


def test_a_body_whose_callee_returned_something_else_is_not_passed() -> None:
    made = WRAPPED.replace("call work", "call work\n        mov rax, -22").replace(".bad:\n        mov rax, -22", "")
    body = [label for label in toy(made).at if label.startswith("body")]
    assert Put(made, [SYSCALL, "work"], refuse=body).probed.calls == []


def test_a_tail_jump_of_a_callee_to_where_no_probe_is_comes_back_behind_its_call() -> None:
    found = Put(
        """
        __x64_sys_frob:
            nop
        .calls:
            call outer
        .back:
            test eax, eax
            cdqe
            ret
        outer:
            nop
        .leaves:
            jmp handler
        handler:
            mov eax, -22
            ret
        """,
        [SYSCALL, "outer"],
    )
    assert found.unseen == {"outer.leaves": "handler"}
    assert found.origin == ("outer.leaves", OriginKind.CALL)
    assert found.path.unseen == {found.kernel.at["handler"]}
    assert "__x64_sys_frob.back" in found.ran


def test_instructions_that_refuse_probes_are_filled_in() -> None:
    refuse = ["outer.calls", "outer.back", "inner.bad", "__x64_sys_frob.back"]
    found, whole = Put(NESTED, [SYSCALL, "outer", "inner"], refuse=refuse), Put(NESTED, [SYSCALL, "outer", "inner"])
    assert found.ran == whole.ran
    assert found.origin == whole.origin
    assert found.probed.unseen == {}


def test_a_call_that_refuses_its_probe_leads_to_a_callee_without_probes_too() -> None:
    found = Put(NESTED, [SYSCALL, "outer"], refuse=["outer.calls"])
    assert found.unseen == {"outer.calls": "inner"}
    assert found.origin == ("outer.calls", OriginKind.CALL)


def test_a_call_whose_very_first_instruction_refuses_its_probe_is_not_seen() -> None:
    found = Put(NESTED, [SYSCALL, "outer", "inner"], refuse=[SYSCALL])
    assert (found.probed.calls, found.paths) == ([], ())


HOLE = """
    __x64_sys_frob:
        test esi, esi
        je .skip
    .hole:
        mov eax, -22
        cmp [rdi], 3
    .more:
        jne .out
        nop
    .skip:
        mov eax, -1
    .out:
        cdqe
        ret
"""


def test_blocks_without_probes_may_have_set_the_value() -> None:
    kernel = toy(HOLE)
    machine = ToyMachine(kernel)
    assert machine.call(rdi=HEAP, rsi=1) == -EINVAL
    attached = {
        address
        for address in instructions(kernel, [SYSCALL])
        if not kernel.at["__x64_sys_frob.hole"] <= address < kernel.at["__x64_sys_frob.skip"]
    }
    seen = exactly.see(hits_of(machine, attached), question(), kernel)
    (path,) = seen.paths
    if seen.probed.unseen:
        assert path.origin.kind in (OriginKind.CALL, OriginKind.UNKNOWN)
    else:  # one way alone leads through it
        assert path.origin.address == kernel.at["__x64_sys_frob.hole"]


INDIRECT = """
    __x64_sys_frob:
        test rdi, rdi
        je .none
        mov {register}, rdi
    .calls:
        call {callee}
    .back:
        cdqe
        ret
    .none:
        xor eax, eax
        cdqe
        ret
    handler:
        nop
    .bad:
        mov rax, -22
        ret
    __x86_indirect_thunk_rax:
        call .set
    .trap:
        int3
        jmp .trap
    .set:
        mov [rsp], rax
        ret
"""
CALLEES = {
    "a register": ("rax", "rax"),
    "another register": ("r10", "r10"),
    "a thunk": ("rax", "__x86_indirect_thunk_rax"),
}


@pytest.mark.parametrize("how", CALLEES)
def test_an_indirect_call_to_a_function_without_probes_is_noted_with_what_the_register_held(how: str) -> None:
    register, callee = CALLEES[how]
    body = INDIRECT.format(register=register, callee=callee)
    found = Put(body, [SYSCALL], rdi=toy(body).at["handler"])
    assert found.unseen == {"__x64_sys_frob.calls": "handler"}
    assert found.origin == ("__x64_sys_frob.calls", OriginKind.CALL)


@pytest.mark.parametrize("how", CALLEES)
def test_an_indirect_call_to_a_probed_function_is_part_of_the_chain(how: str) -> None:
    register, callee = CALLEES[how]
    body = INDIRECT.format(register=register, callee=callee)
    found = Put(body, [SYSCALL, "handler"], rdi=toy(body).at["handler"])
    assert found.chain == [SYSCALL, "handler"]
    assert found.origin == ("handler.bad", OriginKind.CONSTANT)
    assert found.probed.passed == frozenset()


def test_an_indirect_jump_through_a_thunk_is_a_tail_call() -> None:
    body = INDIRECT.format(register="rax", callee="rax").replace("call rax", "jmp __x86_indirect_thunk_rax")
    found = Put(body, [SYSCALL, "handler"], rdi=toy(body).at["handler"])
    (child,) = found.probed.frames_of(found.probed.calls[0]).children
    assert (child.name, child.tail) == ("handler", True)
    assert found.origin == ("handler.bad", OriginKind.CONSTANT)


def test_a_return_through_a_thunk_is_a_return() -> None:
    body = NESTED.replace("ret\n", "jmp __x86_return_thunk\n") + "\n    __x86_return_thunk:\n        ret\n"
    found = Put(body, [SYSCALL, "outer", "inner"])
    assert found.origin == ("inner.bad", OriginKind.CONSTANT)
    assert found.chain == [SYSCALL, "outer", "inner"]
    assert found.probed.calls[0].result == -EINVAL
    assert found.probed.unseen == {}


COPY = (
    """
    __x64_sys_frob:
        call get_user
        test eax, eax
        cdqe
        ret
    get_user:
        nop
    .load:
        mov rdx, [rsi]
        xor eax, eax
        ret
    .fixup:
        mov eax, -14
        ret
    """
    + FAULT
)


def test_a_fault_leads_from_its_access_to_the_fixup() -> None:
    found = Put(
        COPY,
        [SYSCALL, "get_user"],
        errno=EFAULT,
        fixups={"get_user.load": "get_user.fixup"},
        rsi=NOT_MAPPED,
    )
    assert found.origin == ("get_user.fixup", OriginKind.CONSTANT)
    assert found.chain == [SYSCALL, "get_user"]


def test_an_interrupt_between_two_hits_changes_nothing() -> None:
    at = {"inner.decides": 1, "outer.back": 2, "inner.bad": 1}
    found = Put(NESTED + INTERRUPT, [SYSCALL, "outer", "inner"], interrupts=at)
    assert found.origin == ("inner.bad", OriginKind.CONSTANT)
    assert found.ran == Put(NESTED, [SYSCALL, "outer", "inner"]).ran


# ---- several calls, several threads, and where the kernel was loaded ----


def joined(*hits: ProbeHits) -> ProbeHits:
    """Of threads that ran at the same time: their rows by turns."""
    columns = {}
    order = np.argsort(np.concatenate([one.time for one in hits]), kind="stable")
    for name in ("address", "is_return", "registers", "flags", "thread", "time"):
        columns[name] = np.concatenate([getattr(one, name) for one in hits])[order]
    return replace(hits[0], **columns)


def test_hits_of_threads_that_ran_at_the_same_time_are_calls_of_their_own() -> None:
    kernel = toy(NESTED)
    of_threads = []
    for thread, word in enumerate((1, 3, 5)):
        machine = ToyMachine(kernel)
        machine.write(HEAP, word)
        for _ in range(2):
            machine.call(rdi=HEAP)
        of_threads.append(hits_of(machine, instructions(kernel, [SYSCALL, "outer", "inner"]), thread=thread))
    (path,) = exactly.see(joined(*of_threads), question(), kernel).paths
    assert path.results == {-EINVAL: 4, 0: 2}
    assert (path.calls, label(kernel, path.origin.address)) == (4, "inner.bad")


def test_a_call_that_is_cut_off_is_left_out() -> None:
    whole = Put(NESTED, [SYSCALL, "outer", "inner"])
    machine = whole.machine
    machine.call(rdi=HEAP)
    while machine.rows[-1][0] != whole.kernel.at["inner.bad"]:
        machine.rows.pop()
    hits = hits_of(machine, instructions(whole.kernel, [SYSCALL, "outer", "inner"]))
    seen = exactly.see(hits, question(), whole.kernel)
    assert len(seen.probed.calls) == 1
    assert seen.paths[0].results == {-EINVAL: 1}


def test_no_hits_are_no_calls() -> None:
    kernel = toy(NESTED)
    seen = exactly.see(hits_of(ToyMachine(kernel), instructions(kernel, [SYSCALL])), question(), kernel)
    assert (seen.probed.calls, seen.paths) == ([], ())


def test_a_kernel_that_was_loaded_elsewhere_gives_the_same_path() -> None:
    whole = Put(NESTED, [SYSCALL, "outer"])
    hits = hits_of(whole.machine, instructions(whole.kernel, [SYSCALL, "outer"]), offset=KASLR)
    seen = exactly.see(hits, question(offset=KASLR), whole.kernel)
    assert seen.paths[0].origin == whole.path.origin
    assert seen.paths[0].unseen == whole.path.unseen
    assert seen.hits.attached == whole.hits.attached


def test_a_pointer_of_a_kernel_that_was_loaded_elsewhere_names_the_callee() -> None:
    body = INDIRECT.format(register="rax", callee="rax")
    kernel = toy(body)
    machine = ToyMachine(kernel)
    machine.call(rdi=kernel.at["handler"])
    hits = hits_of(machine, instructions(kernel, [SYSCALL]), offset=KASLR)
    hits.registers[hits.registers == np.uint64(kernel.at["handler"])] += np.uint64(KASLR)
    (path,) = exactly.see(hits, question(offset=KASLR), kernel).paths
    assert path.unseen == {kernel.at["handler"]}


# ---- whatever has probes, nothing wrong is said ----

DEEP = """
    __x64_sys_frob:
        push rbx
        sub rsp, 24
        mov [rsp+8], 0
        mov rbx, rdi
        call prepare
        test eax, eax
        js .out
        lea rsi, [rsp+8]
        mov rdi, rbx
        call fill
        mov eax, [rsp+8]
        test eax, eax
        js .out
        mov rdi, rbx
        call last
    .out:
        add rsp, 24
        pop rbx
        cdqe
        ret
    prepare:
        push r12
        mov r12d, -22
        cmp [rdi], 1
    .branches:
        je .out
    .calls:
        call check
    .takes:
        mov r12d, eax
    .out:
        mov eax, r12d
        pop r12
        ret
    check:
        xor eax, eax
        cmp [rdi], 2
        jne .fine
        mov eax, -22
    .fine:
        ret
    fill:
        cmp [rdi], 3
        jne .fine
        mov [rsi], -22
    .fine:
        jmp finish
    finish:
        mov eax, 7
        ret
    last:
        cmp [rdi], 4
        je other
        xor eax, eax
        ret
    other:
        mov edx, -22
        cmp [rdi+8], 0
        jne .keep
    .again:
        mov edx, -22
    .nop:
        nop
    .keep:
        mov eax, edx
        ret
"""
FUNCTIONS = (SYSCALL, "prepare", "check", "fill", "finish", "last", "other")
DEEP_KERNEL = toy(DEEP)
ALL = sorted(instructions(DEEP_KERNEL, FUNCTIONS))


def ran_deep(words: tuple[int, int]) -> ToyMachine:
    machine = ToyMachine(DEEP_KERNEL)
    machine.write(HEAP, *words)
    assert machine.call(rdi=HEAP) == -EINVAL
    return machine


def is_open(path: Exact) -> bool:
    """Whether the path names no constant: the value came out of a call, or memory, that was not looked into."""
    return path.origin.kind in (OriginKind.CALL, OriginKind.UNKNOWN, OriginKind.MEMORY)


def seen_of(machine: ToyMachine, attached: Iterable[int]) -> tuple[Probed, tuple[Exact, ...]]:
    seen = exactly.see(hits_of(machine, attached), question(), DEEP_KERNEL)
    return seen.probed, seen.paths


WAYS = [(1, 0), (2, 0), (3, 0), (4, 0), (4, 1)]
TRUE = {words: examined(DEEP_KERNEL, ran_deep(words))[0].origin for words in WAYS}


@pytest.mark.parametrize("words", WAYS)
def test_with_probes_everywhere_the_origin_is_that_of_an_execution_log(words: tuple[int, int]) -> None:
    _, (path,) = seen_of(ran_deep(words), ALL)
    assert path.origin == TRUE[words]


@given(words=st.sampled_from(WAYS), functions=st.sets(st.sampled_from(FUNCTIONS[1:])))
@settings(max_examples=80, deadline=None)
def test_with_some_functions_probed_no_other_constant_is_ever_named(
    words: tuple[int, int], functions: set[str]
) -> None:
    _, paths = seen_of(ran_deep(words), instructions(DEEP_KERNEL, {SYSCALL, *functions}))
    for path in paths:
        assert path.origin == TRUE[words] or is_open(path)


@given(words=st.sampled_from(WAYS), left_out=st.sets(st.sampled_from(ALL), max_size=12))
@settings(max_examples=120, deadline=None)
def test_with_some_instructions_probed_no_other_constant_is_ever_named(
    words: tuple[int, int], left_out: set[int]
) -> None:
    _, paths = seen_of(ran_deep(words), set(ALL) - left_out)
    for path in paths:
        assert path.origin == TRUE[words] or is_open(path)


@pytest.mark.parametrize("words", [(4, 0), (4, 1)])
def test_which_way_a_jump_past_unprobed_instructions_went_is_told_by_its_flags(words: tuple[int, int]) -> None:
    """Both ways lead straight to the next hit; one of them sets the errno once more."""
    again = {DEEP_KERNEL.at["other.again"], DEEP_KERNEL.at["other.nop"]}
    _, (path,) = seen_of(ran_deep(words), set(ALL) - again)
    assert path.origin == TRUE[words]


def test_a_register_is_not_followed_past_a_hole_that_may_have_set_it_to_what_it_held() -> None:
    """The errno stood in r12 before the hole, too: from where nothing was decided."""
    hole = {DEEP_KERNEL.at["prepare.branches"], DEEP_KERNEL.at["prepare.calls"], DEEP_KERNEL.at["prepare.takes"]}
    probed = instructions(DEEP_KERNEL, [SYSCALL, "prepare"]) - hole
    _, (path,) = seen_of(ran_deep((2, 0)), probed)
    assert path.origin.kind in (OriginKind.CALL, OriginKind.UNKNOWN)


def test_the_entry_code_is_no_part_of_what_is_put_together() -> None:
    """The probes are on the system call's own function at the outermost."""
    found = Put(NESTED, [SYSCALL, "entry_SYSCALL_64", "do_syscall_64"])
    assert found.chain[0] == SYSCALL
