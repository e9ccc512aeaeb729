"""The origin of an errno, and the branch that decided it, from the log of code that a real CPU emulator ran."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from profiler.infer import exact
from profiler.infer.calltree import Symbols
from profiler.infer.decision import Decision, last_choice
from profiler.infer.exact import Entry, Exact
from profiler.infer.slice import OriginKind
from tests.unit.test_infer_execution import FAULT, INTERRUPT
from tests.unit.toy_execution import ENTRY, FROB, HEAP, NOT_MAPPED, ToyMachine, toy
from tests.unit.toy_kernel import ToyKernel

EPERM, EFAULT, EINVAL = 1, 14, 22


def examined(kernel: ToyKernel, machine: ToyMachine, errno: int = EINVAL) -> list[Exact]:
    entry = Entry(kernel.at["entry_SYSCALL_64"], FROB, kernel.at.get("__x64_sys_frob"), (kernel.at["do_syscall_64"],))
    symbols = Symbols(kernel.owner_of, kernel.graph)
    return exact.examine(exact.Logged(machine.log(), kernel.executed, symbols, kernel.graph), entry, errno)


class Found:
    """The only origin of one call's errno."""

    def __init__(
        self,
        body: str,
        *,
        errno: int = EINVAL,
        words: Sequence[int] = (),
        fixups: Mapping[str, str] | None = None,
        effects: Mapping[str, tuple[str, int]] | None = None,
        entry: str = ENTRY,
        interrupts: Mapping[str, int] | None = None,
        **registers: int,
    ) -> None:
        self.kernel = toy(body, fixups=fixups, entry=entry)
        self.machine = ToyMachine(self.kernel)
        self.machine.write(HEAP, *words)
        self.machine.effects = dict(effects or {})
        self.machine.interrupts = dict(interrupts or {})
        assert self.machine.call(**{"rdi": HEAP, **registers}) == -errno
        (self.path,) = examined(self.kernel, self.machine, errno)

    @property
    def origin(self) -> tuple[str, OriginKind]:
        return self.label(self.path.origin.address), self.path.origin.kind

    @property
    def chain(self) -> list[str]:
        return [node.name for node in self.path.chain]

    @property
    def decision(self) -> Decision | None:
        return last_choice(self.path.levels)

    @property
    def decider(self) -> tuple[str, str, bool | None]:
        """The label of the deciding instruction, its kind, and whether a jump was taken."""
        decision = self.decision
        assert decision is not None
        return self.label(decision.address), decision.kind, decision.taken

    def label(self, address: int) -> str:
        return next((name for name, at in self.kernel.at.items() if at == address), self.kernel.name(address))


def test_the_constant_of_a_callees_callee_is_the_origin_and_its_jump_decided() -> None:
    found = Found("""
        __x64_sys_frob:
            call outer
        .test:
            test eax, eax
            js .out
            xor eax, eax
        .out:
            ret
        outer:
            test edi, edi
            je .out
            call inner
            test eax, eax
            jne .out
            xor eax, eax
        .out:
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
    """)
    assert found.origin == ("inner.bad", OriginKind.CONSTANT)
    assert found.chain == ["__x64_sys_frob", "outer", "inner"]
    assert found.decider == ("inner.decides", "jump", True)
    assert (found.path.calls, found.path.results, found.path.writer) == (1, {-EINVAL: 1}, None)


def test_an_errno_set_early_and_returned_late_was_decided_behind_it() -> None:
    found = Found(
        """
        __x64_sys_frob:
            push r12
        .set:
            mov r12d, -22
            cmp [rdi], 9
            je .out
            call check
            test eax, eax
        .decides:
            jne .out
            xor r12d, r12d
        .out:
            mov eax, r12d
            pop r12
            ret
        check:
            mov eax, [rdi+8]
            ret
        """,
        words=(0, 5),
    )
    assert found.origin == ("__x64_sys_frob.set", OriginKind.CONSTANT)
    assert found.decider == ("__x64_sys_frob.decides", "jump", True)
    assert found.chain == ["__x64_sys_frob"]


def test_an_errno_that_a_callee_wrote_through_a_pointer_comes_from_there() -> None:
    found = Found("""
        __x64_sys_frob:
            sub rsp, 24
            xor eax, eax
            mov [rsp+8], rax
            mov rsi, rdi
            lea rdi, [rsp+8]
            call fill
            mov eax, [rsp+8]
            add rsp, 24
            ret
        fill:
            test rsi, rsi
        .decides:
            jne .bad
            ret
        .bad:
            mov [rdi], -22
            ret
    """)
    assert found.origin == ("fill.bad", OriginKind.CONSTANT)
    assert found.chain == ["__x64_sys_frob", "fill"]
    assert found.decider == ("fill.decides", "jump", True)


def test_an_errno_kept_in_an_object_before_the_call_comes_from_memory() -> None:
    found = Found(
        """
        __x64_sys_frob:
            call pending
            ret
        pending:
            xor eax, eax
            cmp [rdi+8], 0
        .decides:
            je .out
        .read:
            xchg [rdi+8], eax
            neg eax
        .out:
            ret
        """,
        words=(0, EINVAL),
    )
    assert found.origin == ("pending.read", OriginKind.MEMORY)
    assert found.chain == ["__x64_sys_frob", "pending"]
    assert found.decider == ("pending.decides", "jump", False)


def test_what_is_read_from_an_object_has_its_origin_there_and_its_writer_is_told() -> None:
    found = Found(
        """
        __x64_sys_frob:
            call reset
            call pending
            ret
        reset:
            nop
        .written:
            mov [rdi+8], 22
            ret
        pending:
            mov eax, [rdi+8]
            test eax, eax
        .decides:
            je .out
            neg eax
        .out:
            ret
        """,
        words=(0, 0),
    )
    assert found.origin == ("pending", OriginKind.MEMORY)
    assert found.chain == ["__x64_sys_frob", "pending"]
    assert found.path.writer == found.kernel.at["reset.written"]


def test_a_constant_that_a_test_made_known_is_followed_to_what_was_tested() -> None:
    found = Found("""
        __x64_sys_frob:
            push rbx
            call check
            mov ebx, eax
            cmp ebx, -22
            jne .out
            nop
            mov eax, -22
            pop rbx
            ret
        .out:
            mov eax, ebx
            pop rbx
            ret
        check:
            test esi, esi
        .decides:
            je .bad
            xor eax, eax
            ret
        .bad:
            mov eax, -22
            ret
    """)
    assert found.origin == ("check.bad", OriginKind.CONSTANT)
    assert found.decider == ("check.decides", "jump", True)


def test_a_test_of_what_was_set_in_this_very_execution_decides_nothing() -> None:
    found = Found("""
        __x64_sys_frob:
            sub rsp, 24
            mov [rsp+8], 0
            mov edx, -22
            test esi, esi
        .decides:
            je .bad
            lea rdi, [rsp+8]
            call use
            mov edx, eax
        .bad:
            mov eax, [rsp+8]
            test eax, eax
            je .out
            mov edx, -5
        .out:
            mov eax, edx
            add rsp, 24
            ret
        use:
            mov [rdi], 1
            xor eax, eax
            ret
    """)
    assert found.decider == ("__x64_sys_frob.decides", "jump", True)


SELECT = """
    __x64_sys_frob:
        xor edx, edx
        test esi, esi
    .bad:
        mov eax, -22
    .select:
        {} eax, edx
        ret
"""


@pytest.mark.parametrize("move", ["cmove", "cmovs"])
def test_a_conditional_move_that_was_not_made_decided(move: str) -> None:
    found = Found(SELECT.format(move), rsi=1)
    assert found.origin == ("__x64_sys_frob.bad", OriginKind.CONSTANT)
    assert found.decider == ("__x64_sys_frob.select", "select", None)


def test_a_conditional_move_that_was_made_decided() -> None:
    found = Found(
        """
        __x64_sys_frob:
            xor eax, eax
            test esi, esi
        .bad:
            mov edx, -22
        .select:
            cmovne eax, edx
            ret
        """,
        rsi=1,
    )
    assert found.origin == ("__x64_sys_frob.bad", OriginKind.CONSTANT)
    assert found.decider == ("__x64_sys_frob.select", "select", None)


def test_arithmetic_on_the_carry_flag_is_origin_and_decision() -> None:
    found = Found(
        """
        __x64_sys_frob:
            cmp esi, 3
        .flags:
            sbb eax, eax
            and eax, -22
            ret
        """,
        rsi=1,
    )
    assert found.origin == ("__x64_sys_frob.flags", OriginKind.FLAGS)
    assert found.decider == ("__x64_sys_frob.flags", "flags", None)


def test_a_set_flag_is_origin_and_decision() -> None:
    found = Found(
        """
        __x64_sys_frob:
            test esi, esi
        .flags:
            setne al
            movzx eax, al
            neg eax
            ret
        """,
        errno=EPERM,
        rsi=1,
    )
    assert found.origin == ("__x64_sys_frob.flags", OriginKind.FLAGS)
    assert found.decider == ("__x64_sys_frob.flags", "flags", None)


def test_the_turn_of_a_loop_that_failed_is_the_one_followed() -> None:
    found = Found(
        """
        __x64_sys_frob:
            mov ecx, 5
        .next:
            call check
            test eax, eax
            js .out
            lea rdi, [rdi+8]
            sub ecx, 1
            jne .next
            xor eax, eax
        .out:
            ret
        check:
            cmp [rdi], 7
        .decides:
            je .bad
            xor eax, eax
            ret
        .bad:
            mov eax, -22
            ret
        """,
        words=(1, 2, 7, 4, 5),
    )
    assert found.origin == ("check.bad", OriginKind.CONSTANT)
    assert found.decider == ("check.decides", "jump", True)
    (check,) = found.path.root.children.values()
    assert check.executed is not None
    assert check.executed[found.kernel.at["check.bad"]] == 1
    assert found.path.root.executed is not None
    assert found.path.root.executed[found.kernel.at["__x64_sys_frob.next"]] == 3


def test_the_errno_of_a_loops_own_third_turn_was_decided_there() -> None:
    found = Found(
        """
        __x64_sys_frob:
            xor eax, eax
        .next:
            cmp [rdi], 7
        .decides:
            je .bad
            add rdi, 8
            cmp [rdi], 0
            jne .next
            ret
        .bad:
            mov eax, -22
            ret
        """,
        words=(1, 2, 7, 4, 5, 0),
    )
    assert found.origin == ("__x64_sys_frob.bad", OriginKind.CONSTANT)
    assert found.decider == ("__x64_sys_frob.decides", "jump", True)


def test_a_tail_call_is_part_of_the_chain() -> None:
    found = Found("""
        __x64_sys_frob:
            call outer
            nop
            ret
        outer:
            test rdi, rdi
        .decides:
            je .fine
            jmp inner
        .fine:
            xor eax, eax
            ret
        inner:
            mov eax, -22
            ret
    """)
    assert found.chain == ["__x64_sys_frob", "outer", "inner"]
    assert found.origin == ("inner", OriginKind.CONSTANT)
    assert found.decider == ("outer.decides", "jump", False)


def test_a_function_behind_a_pointer_is_part_of_the_chain_and_the_pointer_may_have_decided() -> None:
    body = """
        __x64_sys_frob:
            test rdi, rdi
        .decides:
            je .none
            mov rax, rdi
            call __x86_indirect_thunk_rax
            jmp __x86_return_thunk
        .none:
            xor eax, eax
            jmp __x86_return_thunk
        handler:
            mov eax, -22
            jmp __x86_return_thunk
        __x86_indirect_thunk_rax:
            call .set
        .trap:
            int3
            jmp .trap
        .set:
            mov [rsp], rax
            ret
        __x86_return_thunk:
            ret
    """
    found = Found(body, rdi=toy(body).at["handler"])
    assert found.chain == ["__x64_sys_frob", "handler"]
    assert found.origin == ("handler", OriginKind.CONSTANT)
    assert found.decider == ("__x64_sys_frob.decides", "jump", False)
    assert found.decision is not None
    assert found.decision.by_pointer


def test_a_part_that_was_split_off_belongs_to_its_function() -> None:
    found = Found("""
        __x64_sys_frob:
            call check
            ret
        check:
            test rdi, rdi
        .decides:
            jne check.cold
            xor eax, eax
        .out:
            ret
        check.cold:
            nop
        .bad:
            mov eax, -22
            jmp check.out
    """)
    assert found.chain == ["__x64_sys_frob", "check"]
    assert found.origin == ("check.cold.bad", OriginKind.CONSTANT)
    assert found.decider == ("check.decides", "jump", True)


def test_an_interrupt_amid_the_call_changes_nothing() -> None:
    body = (
        """
        __x64_sys_frob:
            call check
        .back:
            test eax, eax
            ret
        check:
            cmp [rdi], 3
        .decides:
            jne .bad
            xor eax, eax
            ret
        .bad:
            mov eax, -22
        .out:
            ret
        """
        + INTERRUPT
    )
    found = Found(body, interrupts={"__x64_sys_frob.back": 2, "check.decides": 1, "check.bad": 1, "check.out": 1})
    still = Found(body)
    assert found.origin == still.origin == ("check.bad", OriginKind.CONSTANT)
    assert found.decider == still.decider == ("check.decides", "jump", True)
    assert found.path.instructions == still.path.instructions


COPY = (
    """
    __x64_sys_frob:
        call get_user
        test eax, eax
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


def test_a_read_that_faults_decided() -> None:
    found = Found(COPY, errno=EFAULT, fixups={"get_user.load": "get_user.fixup"}, rsi=NOT_MAPPED)
    assert found.origin == ("get_user.fixup", OriginKind.CONSTANT)
    assert found.decider == ("get_user.load", "fault", None)


def test_an_errno_that_the_handler_of_a_fault_put_into_a_register_comes_from_the_access() -> None:
    """As the exception table may ask of it: before the access the register held zero."""
    body = (
        """
        __x64_sys_frob:
            xor ecx, ecx
        .load:
            mov rdx, [rsi]
        .behind:
            mov eax, ecx
            ret
        """
        + FAULT
    )
    found = Found(
        body,
        errno=EFAULT,
        fixups={"__x64_sys_frob.load": "__x64_sys_frob.behind"},
        effects={"__x64_sys_frob.load": ("rcx", -EFAULT)},
        rsi=NOT_MAPPED,
    )
    assert found.origin[0] == "__x64_sys_frob.load"


def test_what_a_faulting_access_would_have_loaded_is_not_the_origin() -> None:
    body = (
        """
        __x64_sys_frob:
            nop
        .set:
            mov eax, -22
        .load:
            mov rax, [rsi]
            xor eax, eax
        .behind:
            ret
        """
        + FAULT
    )
    found = Found(body, fixups={"__x64_sys_frob.load": "__x64_sys_frob.behind"}, rsi=NOT_MAPPED)
    assert found.origin == ("__x64_sys_frob.set", OriginKind.CONSTANT)


FILTERED = ENTRY.replace(
    "        mov rdx, [rbx+24]",
    """
        call seccomp
        test eax, eax
    .decides:
        jne .refused
        mov rdx, [rbx+24]""",
).replace(
    "        pop rbx\n        ret",
    """
        pop rbx
        ret
    .refused:
        mov [rbx], -1
        mov [rbx+4], -1
        pop rbx
        ret
    seccomp:
        mov eax, [rdi+8]
        ret""",
)


def test_a_refusal_before_the_entry_function_is_followed_in_the_dispatcher() -> None:
    found = Found("__x64_sys_frob:\nxor eax, eax\nret", errno=EPERM, entry=FILTERED)
    assert found.chain == ["do_syscall_64"]
    assert found.origin == ("do_syscall_64.refused", OriginKind.CONSTANT)
    assert found.path.root.name == "do_syscall_64"


def test_the_branch_in_the_dispatcher_decided_a_refusal_there() -> None:
    found = Found("__x64_sys_frob:\nxor eax, eax\nret", errno=EPERM, entry=FILTERED)
    assert found.decider == ("do_syscall_64.decides", "jump", True)


# ---- several calls ----

TWO_ORIGINS = """
    __x64_sys_frob:
        test edi, edi
        js .second
        je .fine
        nop
    .first:
        mov eax, -22
        ret
    .fine:
        xor eax, eax
        ret
    .second:
        cmp edi, -5
        je .third
    .again:
        mov eax, -22
        ret
    .third:
        mov eax, -1
        ret
"""


def test_calls_that_fail_in_different_places_are_all_told_the_most_frequent_first() -> None:
    kernel = toy(TWO_ORIGINS)
    machine = ToyMachine(kernel)
    for argument in (1, -1, -1, 0, -5, -1):
        machine.call(rdi=argument)
    paths = examined(kernel, machine)
    assert [(path.origin.address, path.calls) for path in paths] == [
        (kernel.at["__x64_sys_frob.again"], 3),
        (kernel.at["__x64_sys_frob.first"], 1),
    ]
    assert all(path.results == {-EINVAL: 4, 0: 1, -EPERM: 1} for path in paths)


def test_different_ways_to_the_same_origin_are_one() -> None:
    kernel = toy("""
        __x64_sys_frob:
            test edi, edi
            je .bad
            nop
        .bad:
            mov eax, -22
            ret
    """)
    machine = ToyMachine(kernel)
    for argument in (0, 1, 1):
        machine.call(rdi=argument)
    (path,) = examined(kernel, machine)
    assert path.calls == 3


def test_a_log_without_a_failing_call_has_no_origin() -> None:
    kernel = toy(TWO_ORIGINS)
    machine = ToyMachine(kernel)
    assert examined(kernel, machine) == []
    machine.call(rdi=0)
    assert examined(kernel, machine) == []
    machine.call(rdi=1)
    assert examined(kernel, machine, EFAULT) == []


def test_a_failing_call_that_is_cut_off_has_no_origin() -> None:
    kernel = toy(TWO_ORIGINS)
    machine = ToyMachine(kernel)
    machine.call(rdi=1)
    machine.rows = machine.rows[:-1]
    assert examined(kernel, machine) == []


def test_a_value_that_the_user_brought_along_has_no_origin() -> None:
    """The errno was in a register when the kernel was entered, and no instruction made it."""
    kernel = toy("__x64_sys_frob:\nmov eax, r8d\nret")
    machine = ToyMachine(kernel)
    assert machine.call(r8=-EINVAL) == -EINVAL
    assert examined(kernel, machine) == []
