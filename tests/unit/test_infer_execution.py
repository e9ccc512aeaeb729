"""An execution log taken apart into calls and functions; the logs are of code that a real CPU emulator ran."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from profiler.infer import execution
from profiler.infer.calltree import CallNode, Symbols
from profiler.infer.execution import Frame, LoggedCall
from profiler.model import ExecutionLog
from tests.unit.toy_execution import ENTRY, FROB, HEAP, NOT_MAPPED, OTHER, ToyMachine, toy
from tests.unit.toy_kernel import ToyKernel

EINVAL, EFAULT = 22, 14

INTERRUPT = """
    asm_sysvec_apic_timer_interrupt:
        push rax
        push rcx
        call work
        pop rcx
        pop rax
        iretq
    work:
        mov ecx, 3
        mov eax, 5
        ret
"""
FAULT = """
    asm_exc_page_fault:
        push rax
        call exc_page_fault
        pop rax
        iretq
    exc_page_fault:
        mov eax, 1
        ret
"""
SIMPLE = (
    """
    __x64_sys_frob:
        test edi, edi
        je .bad
        xor eax, eax
        ret
    .bad:
        mov eax, -22
    .out:
        ret
    """
    + INTERRUPT
)


def calls(kernel: ToyKernel, log: ExecutionLog, number: int = FROB) -> list[LoggedCall]:
    symbols = Symbols(kernel.owner_of, kernel.graph)
    return execution.calls(log, kernel.executed, symbols, kernel.at["entry_SYSCALL_64"], number)


def frames(kernel: ToyKernel, log: ExecutionLog) -> Frame:
    (call,) = calls(kernel, log)
    return execution.frames(log, call, kernel.executed, Symbols(kernel.owner_of, kernel.graph))


def ran(body: str, **registers: int) -> tuple[ToyKernel, ExecutionLog, Frame]:
    kernel = toy(body)
    machine = ToyMachine(kernel)
    machine.call(**registers)
    log = machine.log()
    return kernel, log, frames(kernel, log)


def named(frame: Frame) -> list[object]:
    """Functions as called: name, callees."""
    return [frame.name, *(named(child) for child in frame.children)]


def below_syscall(root: Frame) -> list[object]:
    return named(root.children[0].children[0])


def walk(frame: Frame) -> Iterator[Frame]:
    yield frame
    for child in frame.children:
        yield from walk(child)


def places(kernel: ToyKernel, log: ExecutionLog, frame: Frame) -> list[str]:
    return [kernel.name(int(log.address[row])) for row in frame.rows]


# ---- calls ----


def test_an_empty_log_holds_no_call() -> None:
    empty = ToyMachine(toy(SIMPLE)).log()
    assert calls(toy(SIMPLE), empty) == []


def test_a_log_that_never_enters_the_kernel_holds_no_call() -> None:
    kernel = toy(SIMPLE)
    machine = ToyMachine(kernel)
    machine.set(rsp=0x7FFF0000)
    machine.run(kernel.at["__x64_sys_frob"], until="__x64_sys_frob.out")
    assert calls(kernel, machine.log()) == []


def test_every_call_of_the_number_is_found_with_what_it_returned() -> None:
    kernel = toy(SIMPLE)
    machine = ToyMachine(kernel)
    for argument in (0, 1, 0):
        machine.call(rdi=argument)
    machine.call(OTHER, rdi=0)
    log = machine.log()
    assert [call.result for call in calls(kernel, log)] == [-EINVAL, 0, -EINVAL]
    assert [call.result for call in calls(kernel, log, OTHER)] == [-EINVAL]
    assert sum(len(call.rows) for call in [*calls(kernel, log), *calls(kernel, log, OTHER)]) == len(log.address)


def test_a_call_that_the_logs_end_cuts_off_is_no_call() -> None:
    kernel = toy(SIMPLE)
    machine = ToyMachine(kernel)
    machine.call(rdi=0)
    whole = len(machine.rows)
    machine.call(rdi=0)
    machine.rows.pop()
    log = machine.log()
    (call,) = calls(kernel, log)
    assert call.rows.tolist() == list(range(whole))


def test_a_call_whose_beginning_is_not_in_the_log_is_no_call() -> None:
    kernel = toy(SIMPLE)
    machine = ToyMachine(kernel)
    machine.call(rdi=0)
    machine.rows = machine.rows[5:]
    machine.call(rdi=1)
    assert [call.result for call in calls(kernel, machine.log())] == [0]


def test_a_call_that_another_threads_call_cuts_into_is_left_out() -> None:
    """The thread slept amid its call; whose rows are whose cannot be told."""
    kernel = toy(SIMPLE)
    sleeping, other = ToyMachine(kernel), ToyMachine(kernel)
    sleeping.call(rdi=0)
    other.call(rdi=1)
    other.rows = [*sleeping.rows[:10], *other.rows, *sleeping.rows[10:]]
    assert [call.result for call in calls(kernel, other.log())] == [0]


def test_a_call_does_not_end_with_the_return_of_a_thread_that_took_its_place() -> None:
    """Amid an interrupt another thread is switched to, that had been interrupted amid a call of its own: it leaves by
    its own iret, and goes on to its own user."""
    kernel = toy(SIMPLE)
    mine, other = ToyMachine(kernel), ToyMachine(kernel)
    for machine in (mine, other):
        machine.interrupts = {"__x64_sys_frob.bad": 1}
    mine.call(rdi=0)
    other.call(rdi=0, rsp=0x7FFE0000)
    switched = next(i for i, row in enumerate(mine.rows) if row[0] == kernel.at["work"])
    mine.rows = [*mine.rows[: switched + 1], *other.rows[switched + 1 :]]
    assert calls(kernel, mine.log()) == []


# ---- interrupts and faults ----


def interrupted(*labels: str) -> tuple[ToyKernel, ExecutionLog, LoggedCall]:
    kernel = toy(SIMPLE)
    machine = ToyMachine(kernel)
    machine.interrupts = dict.fromkeys(labels, 1)
    assert machine.call(rdi=0) == -EINVAL
    log = machine.log()
    (call,) = calls(kernel, log)
    return kernel, log, call


def undisturbed() -> list[int]:
    kernel = toy(SIMPLE)
    machine = ToyMachine(kernel)
    machine.call(rdi=0)
    return [address for address, _, _ in machine.rows]


def test_an_interrupt_amid_a_call_is_left_out() -> None:
    _, log, call = interrupted("__x64_sys_frob.bad")
    assert len(log.address) == len(undisturbed()) + 9
    assert log.address[call.rows].tolist() == undisturbed()


def test_an_interrupt_that_interrupts_an_interrupt_is_left_out_with_it() -> None:
    _, log, call = interrupted("__x64_sys_frob.out", "work")
    assert len(log.address) == len(undisturbed()) + 18
    assert log.address[call.rows].tolist() == undisturbed()


def test_an_interrupt_behind_each_of_two_instructions_is_left_out_both_times() -> None:
    _, log, call = interrupted("__x64_sys_frob.bad", "__x64_sys_frob.out")
    assert log.address[call.rows].tolist() == undisturbed()


def test_an_interrupt_at_the_entry_and_at_a_call_is_left_out() -> None:
    _, log, call = interrupted("do_syscall_64", "do_syscall_64.call", "__x64_sys_frob")
    assert log.address[call.rows].tolist() == undisturbed()


def test_an_interrupt_behind_a_return_is_left_out() -> None:
    """Behind a return and an indirect call anything may follow; what the CPU enters from outside tells it."""
    _, log, call = interrupted("do_syscall_64.back")
    assert len(log.address) == len(undisturbed()) + 9
    assert log.address[call.rows].tolist() == undisturbed()
    body = "__x64_sys_frob:\ncall rdi\nret\nhandler:\nmov eax, -22\nret" + INTERRUPT
    kernel = toy(body)
    machine = ToyMachine(kernel)
    machine.interrupts = {"handler": 1}
    assert machine.call(rdi=kernel.at["handler"]) == -EINVAL
    (call,) = calls(kernel, machine.log())
    assert call.result == -EINVAL
    assert below_syscall(frames(kernel, machine.log())) == ["__x64_sys_frob", ["handler"]]


def test_two_interrupts_one_right_behind_the_other_are_left_out() -> None:
    kernel = toy(SIMPLE)
    machine = ToyMachine(kernel)
    machine.interrupts = {"__x64_sys_frob.bad": 2}
    machine.call(rdi=0)
    log = machine.log()
    (call,) = calls(kernel, log)
    assert len(log.address) == len(undisturbed()) + 18
    assert log.address[call.rows].tolist() == undisturbed()


def test_an_interrupt_of_the_user_between_two_calls_belongs_to_neither() -> None:
    kernel = toy(SIMPLE)
    machine = ToyMachine(kernel)
    machine.call(rdi=0)
    machine.interrupt_user()
    machine.interrupt_user()
    machine.call(rdi=1)
    log = machine.log()
    assert [(call.result, len(call.rows)) for call in calls(kernel, log)] == [
        (-EINVAL, len(undisturbed())),
        (0, len(undisturbed())),
    ]


SLOW_RETURN = """
    entry_SYSCALL_64:
        mov rcx, rsp
        mov rsp, [0x5008]
        push rax
        mov rdx, 24
        push rdx
        push rcx
        push rdx
        push rdx
        mov rdx, 4096
        push rdx
        call __x64_sys_frob
        cdqe
        iretq
"""


def test_a_call_may_leave_the_kernel_by_iret() -> None:
    """As it does where every register of the user has to be restored."""
    kernel = toy(SIMPLE, entry=SLOW_RETURN)
    machine = ToyMachine(kernel)
    machine.interrupts = {"__x64_sys_frob.bad": 1}
    assert machine.call(rdi=0) == -EINVAL
    machine.interrupt_user()
    machine.call(rdi=1)
    found = calls(kernel, machine.log())
    assert [call.result for call in found] == [-EINVAL, 0]
    assert [len(call.rows) for call in found] == [17, 17]


COPIES = (
    """
    __x64_sys_frob:
        xor eax, eax
    .load:
        mov rcx, [rdi]
        mov [rsp-8], rcx
        ret
    .fixup:
        mov eax, -14
        ret
    """
    + FAULT
)
FIXUPS = {"__x64_sys_frob.load": "__x64_sys_frob.fixup"}


def test_a_fault_with_a_fixup_is_left_out_and_the_call_goes_on_at_the_fixup() -> None:
    kernel = toy(COPIES, fixups=FIXUPS)
    machine = ToyMachine(kernel)
    assert machine.call(rdi=NOT_MAPPED) == -EFAULT
    log = machine.log()
    (call,) = calls(kernel, log)
    places = [kernel.name(int(address)) for address in log.address[call.rows]]
    assert not any("page_fault" in place for place in places)
    at = places.index(kernel.name(kernel.at["__x64_sys_frob.load"]))
    assert places[at + 1] == kernel.name(kernel.at["__x64_sys_frob.fixup"])
    assert call.result == -EFAULT


def test_a_fault_that_is_mended_makes_no_other_path_of_the_call() -> None:
    kernel = toy(COPIES, fixups=FIXUPS)
    machine = ToyMachine(kernel)
    machine.mended = {"__x64_sys_frob.load"}
    assert machine.call(rdi=NOT_MAPPED) == 0
    machine.call(rdi=HEAP)
    log = machine.log()
    found = calls(kernel, log)
    assert len(found[0].rows) == len(found[1].rows) + 1
    assert [count for _, count in execution.paths(log, found, 0)] == [2]


def test_text_that_was_switched_since_it_ran_makes_no_interrupt() -> None:
    """The image at hand has a jump where a no-op ran (a static key): the row behind it lies in the function."""
    kernel = toy("""
        __x64_sys_frob:
            nop
        .key:
            jmp .other
        .on:
            mov eax, -22
            ret
        .other:
            xor eax, eax
            ret
    """)
    machine = ToyMachine(kernel)
    machine.call()
    skipped = kernel.at["__x64_sys_frob.other"]
    put, on = {skipped: kernel.at["__x64_sys_frob.on"]}, []
    for address, registers, flags in machine.rows:
        on.append((put.get(address, address), registers, flags))
    machine.rows = on
    log = machine.log()
    (call,) = calls(kernel, log)
    assert len(call.rows) == len(log.address)


# ---- paths ----


def test_paths_are_of_one_result_and_counted_with_the_most_frequent_first() -> None:
    kernel = toy("""
        __x64_sys_frob:
            test edi, edi
            je .none
            js .bad
            nop
        .bad:
            mov eax, -22
            ret
        .none:
            xor eax, eax
            ret
    """)
    machine = ToyMachine(kernel)
    for argument in (1, 0, -1, 0, -1):
        machine.call(rdi=argument)
    log = machine.log()
    found = calls(kernel, log)
    most, least = execution.paths(log, found, -EINVAL)
    assert (most[1], least[1]) == (2, 1)
    assert most[0] is found[2]
    assert least[0] is found[0]
    assert execution.paths(log, found, -1) == []


def test_string_moves_of_other_lengths_are_the_same_path() -> None:
    kernel = toy("""
        __x64_sys_frob:
            mov rcx, rsi
            lea rsi, [rdi+64]
            rep movsb
            mov eax, -22
            ret
    """)
    machine = ToyMachine(kernel)
    for length in (3, 9):
        machine.call(rdi=HEAP, rsi=length)
    log = machine.log()
    assert [count for _, count in execution.paths(log, calls(kernel, log), -EINVAL)] == [2]


# ---- frames ----


def test_calls_and_returns_make_the_frames() -> None:
    kernel, log, root = ran("""
        __x64_sys_frob:
            call first
        .again:
            call first
            ret
        first:
            call second
            ret
        second:
            mov eax, -22
            ret
    """)
    assert root.name == "entry_SYSCALL_64"
    assert below_syscall(root) == ["__x64_sys_frob", ["first", ["second"]], ["first", ["second"]]]
    first = root.children[0].children[0].children[1]
    assert first.call_row is not None
    assert int(log.address[first.call_row]) == kernel.at["__x64_sys_frob.again"]
    assert not first.tail


def test_every_row_lies_in_one_frame_and_in_its_own_function() -> None:
    kernel, log, root = ran("""
        __x64_sys_frob:
            call first
            jmp second
        first:
            push rbx
            call second
            pop rbx
            ret
        second:
            mov eax, -22
            ret
    """)
    rows = [row for frame in walk(root) for row in frame.rows]
    assert sorted(rows) == list(range(len(log.address)))
    for frame in walk(root):
        assert all(kernel.function_at(int(log.address[row]))[1] == frame.entry for row in frame.rows)  # type: ignore[index]


def test_a_frame_knows_what_it_returned() -> None:
    _, _, root = ran("""
        __x64_sys_frob:
            call helper
            mov eax, -22
            ret
        helper:
            mov eax, 5
            ret
    """)
    frob = root.children[0].children[0]
    assert (frob.children[0].result, frob.result) == (5, (-EINVAL) & 0xFFFFFFFF)


def test_a_tail_call_lies_below_the_function_that_jumped_and_returns_for_both() -> None:
    kernel, log, root = ran("""
        __x64_sys_frob:
            call outer
            nop
            ret
        outer:
            nop
        .jump:
            jmp inner
        inner:
            mov eax, -22
            ret
    """)
    assert below_syscall(root) == ["__x64_sys_frob", ["outer", ["inner"]]]
    frob = root.children[0].children[0]
    inner = frob.children[0].children[0]
    assert inner.tail
    assert inner.call_row is not None
    assert int(log.address[inner.call_row]) == kernel.at["outer.jump"]
    assert inner.result == frob.children[0].result == (-EINVAL) & 0xFFFFFFFF
    assert places(kernel, log, frob)[-1].startswith("__x64_sys_frob")


RETPOLINE = """
    __x86_indirect_thunk_rax:
        call .set
    .trap:
        int3
        jmp .trap
    .set:
        mov [rsp], rax
        jmp __x86_return_thunk
    __x86_return_thunk:
        ret
"""


def test_an_indirect_call_through_a_retpoline_is_a_call_of_where_it_led() -> None:
    body = """
        __x64_sys_frob:
            mov rax, rdi
        .call:
            call __x86_indirect_thunk_rax
            nop
            jmp __x86_return_thunk
        handler:
            mov eax, -22
            jmp __x86_return_thunk
    """
    kernel = toy(body + RETPOLINE)
    machine = ToyMachine(kernel)
    assert machine.call(rdi=kernel.at["handler"]) == -EINVAL
    log = machine.log()
    root = frames(kernel, log)
    assert below_syscall(root) == ["__x64_sys_frob", ["handler"]]
    frob = root.children[0].children[0]
    assert frob.children[0].result == frob.result == (-EINVAL) & 0xFFFFFFFF
    assert frob.children[0].call_row is not None
    assert int(log.address[frob.children[0].call_row]) == kernel.at["__x64_sys_frob.call"]
    assert places(kernel, log, root)[-1] == kernel.name(int(log.address[-1]))


def test_an_indirect_jump_through_a_retpoline_is_a_tail_call() -> None:
    body = """
        __x64_sys_frob:
            call outer
            nop
            ret
        outer:
            mov rax, rdi
            jmp __x86_indirect_thunk_rax
        handler:
            mov eax, -22
            ret
    """
    kernel = toy(body + RETPOLINE)
    machine = ToyMachine(kernel)
    assert machine.call(rdi=kernel.at["handler"]) == -EINVAL
    root = frames(kernel, machine.log())
    assert below_syscall(root) == ["__x64_sys_frob", ["outer", ["handler"]]]
    assert root.children[0].children[0].children[0].children[0].tail


def test_a_return_is_told_where_the_image_has_a_jump_to_the_return_thunk() -> None:
    """The kernel puts a plain return there as it boots, if the CPU needs no thunk."""
    kernel = toy("""
        __x64_sys_frob:
            call helper
            call helper
            jmp __x86_return_thunk
        helper:
            mov eax, -22
            jmp __x86_return_thunk
        __x86_return_thunk:
            ret
    """)
    machine = ToyMachine(kernel)
    machine.call()
    thunk = kernel.at["__x86_return_thunk"]
    machine.rows = [row for row in machine.rows if row[0] != thunk]
    root = frames(kernel, machine.log())
    assert below_syscall(root) == ["__x64_sys_frob", ["helper"], ["helper"]]
    assert root.children[0].children[0].result == (-EINVAL) & 0xFFFFFFFF


def test_an_indirect_call_without_a_thunk_is_a_call() -> None:
    body = "__x64_sys_frob:\ncall rdi\nnop\nret\nhandler:\nmov eax, -22\nret"
    kernel = toy(body)
    machine = ToyMachine(kernel)
    machine.call(rdi=kernel.at["handler"])
    assert below_syscall(frames(kernel, machine.log())) == ["__x64_sys_frob", ["handler"]]


def test_a_static_call_by_its_trampoline_is_a_call_of_where_that_jumps() -> None:
    _, _, root = ran("""
        __x64_sys_frob:
            call __SCT__frob
            nop
            ret
        __SCT__frob:
            jmp handler
        handler:
            mov eax, -22
            ret
    """)
    assert below_syscall(root) == ["__x64_sys_frob", ["handler"]]


def test_a_part_that_was_split_off_is_its_functions_own_code() -> None:
    kernel, log, root = ran("""
        __x64_sys_frob:
            call check
            nop
            ret
        check:
            test edi, edi
            jne check.cold
        .back:
            ret
        check.cold:
            call report
            mov eax, -22
            jmp check.back
        report:
            ret
    """, rdi=1)  # fmt: skip
    assert below_syscall(root) == ["__x64_sys_frob", ["check", ["report"]]]
    check = root.children[0].children[0].children[0]
    assert any(place.startswith("check.cold") for place in places(kernel, log, check))


def test_recursion_makes_frame_below_frame() -> None:
    _, _, root = ran("""
        __x64_sys_frob:
            test edi, edi
            je .bad
            sub edi, 1
            call __x64_sys_frob
            ret
        .bad:
            mov eax, -22
            ret
    """, rdi=2)  # fmt: skip
    assert below_syscall(root) == ["__x64_sys_frob", ["__x64_sys_frob", ["__x64_sys_frob"]]]


def test_a_call_of_the_next_instruction_is_no_function() -> None:
    """How an address is asked for: the frames behind it stay right."""
    _, _, root = ran("""
        __x64_sys_frob:
            call .here
        .here:
            pop rdx
            call helper
            ret
        helper:
            mov eax, -22
            ret
    """)
    assert below_syscall(root) == ["__x64_sys_frob", ["helper"]]


def test_a_stack_switch_does_not_lose_the_frames() -> None:
    """As of handlers on another stack: the return address lies on the new one."""
    body = """
        __x64_sys_frob:
            push rbp
            mov rbp, rsp
            lea rsp, [rdi+2048]
            call helper
            mov rsp, rbp
            pop rbp
            ret
        helper:
            call deeper
            ret
        deeper:
            mov eax, -22
            ret
    """
    _, _, root = ran(body, rdi=HEAP)
    assert below_syscall(root) == ["__x64_sys_frob", ["helper", ["deeper"]]]
    assert [frame.name for frame in walk(root)][:3] == ["entry_SYSCALL_64", "do_syscall_64", "__x64_sys_frob"]
    assert root.children[0].children[0].result == (-EINVAL) & 0xFFFFFFFF


def test_find_gives_the_outermost_execution_of_a_function() -> None:
    kernel, _, root = ran("""
        __x64_sys_frob:
            test edi, edi
            je .bad
            sub edi, 1
            call __x64_sys_frob
            ret
        .bad:
            mov eax, -22
            ret
    """, rdi=1)  # fmt: skip
    found = execution.find(root, kernel.at["__x64_sys_frob"])
    assert found is root.children[0].children[0]
    assert execution.find(root, 5) is None


# ---- the tree ----

LOOP = """
    __x64_sys_frob:
        mov ebx, 3
    .next:
        call step
        test eax, eax
        js .out
        sub ebx, 1
        jne .next
    .out:
        ret
    step:
        cmp ebx, 1
        je .bad
        xor eax, eax
        ret
    .bad:
        mov eax, -22
        ret
"""


def tree(kernel: ToyKernel, log: ExecutionLog, root: Frame, prefer: set[Frame]) -> CallNode:
    return execution.tree(log, root, kernel.executed, prefer)[root]


def _loop() -> tuple[ToyKernel, ExecutionLog, Frame]:
    """rbx is the entry code's: kept here, the toy's loop uses it."""
    return ran(LOOP.replace("ebx", "r9d"))


def test_calls_from_one_place_are_one_context_and_the_preferred_one_is_shown() -> None:
    kernel, log, root = _loop()
    frob = root.children[0].children[0]
    assert [child.result for child in frob.children] == [0, 0, (-EINVAL) & 0xFFFFFFFF]
    for child in frob.children:
        (below,) = tree(kernel, log, frob, {child}).children.values()
        assert below.returned == child.result
        assert (kernel.at["step.bad"] in (below.executed or {})) == (child is frob.children[2])
    (last,) = tree(kernel, log, frob, set()).children.values()
    assert last.returned == frob.children[2].result


def test_the_tree_counts_how_often_each_instruction_ran() -> None:
    kernel, log, root = _loop()
    node = tree(kernel, log, root.children[0].children[0], set())
    assert node.executed is not None
    assert node.executed[kernel.at["__x64_sys_frob.next"]] == 3
    assert node.executed[kernel.at["__x64_sys_frob.out"]] == 1


def test_the_tree_tells_a_tail_call_by_its_jump_and_a_call_by_its_return_address() -> None:
    kernel, log, root = ran("""
        __x64_sys_frob:
        .call:
            call outer
            ret
        outer:
            nop
        .jump:
            jmp inner
        inner:
            mov eax, -22
            ret
    """)
    node = tree(kernel, log, root.children[0].children[0], set())
    (outer,) = node.children.values()
    (inner,) = outer.children.values()
    assert (outer.return_address, outer.tail_from) == (kernel.behind("__x64_sys_frob.call"), None)
    assert (inner.return_address, inner.tail_from) == (None, kernel.at["outer.jump"])


def test_the_log_of_a_kernel_that_is_not_known_is_taken_apart_without_names() -> None:
    kernel = toy(SIMPLE, entry=ENTRY)
    machine = ToyMachine(kernel)
    machine.call(rdi=0)
    log = machine.log()
    nameless = Symbols(lambda _: None, kernel.graph)
    (call,) = execution.calls(log, kernel.executed, nameless, kernel.at["entry_SYSCALL_64"], FROB)
    root = execution.frames(log, call, kernel.executed, nameless)
    assert [row for frame in walk(root) for row in frame.rows]
    no_registers = dataclasses.replace(log, registers=np.zeros_like(log.registers))
    assert execution.calls(no_registers, kernel.executed, nameless, kernel.at["entry_SYSCALL_64"], FROB) == []
