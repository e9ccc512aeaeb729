"""Where a value came from, in code that a real CPU emulator ran: the first instruction that did not copy it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.graph import StepKind
from profiler.infer.dataflow import Cell, Followed, follow
from profiler.infer.slice import apply, signed32
from profiler.model import LOGGED_REGISTERS
from tests.unit.test_infer_execution import INTERRUPT, calls
from tests.unit.toy_execution import HEAP, STACK_OBJECT, ToyMachine, toy
from tests.unit.toy_kernel import ToyKernel

EINVAL = 22


def followed(
    body: str, *, words: tuple[int, ...] = (), returns: int = -EINVAL, **registers: int
) -> tuple[str, Followed]:
    """The label of the origin in a call of `body`, and what else is said of it. rdi points to `words`, an object that
    was there before the call; or else to an array on the stack."""
    kernel = toy(body)
    machine = ToyMachine(kernel)
    machine.write(HEAP, *words)
    assert machine.call(**{"rdi": HEAP if words else STACK_OBJECT, **registers}) == returns
    return _of(kernel, machine)


def _of(kernel: ToyKernel, machine: ToyMachine) -> tuple[str, Followed]:
    log = machine.log()
    found = follow(log, list(range(len(log.address))), kernel.executed, "rax")
    assert found is not None
    address = int(log.address[found.row])
    return next((label for label, at in kernel.at.items() if at == address), kernel.name(address)), found


def test_a_constant_is_followed_out_of_a_callees_callee() -> None:
    origin, found = followed("""
        __x64_sys_frob:
            call outer
            ret
        outer:
            push rbx
            call inner
            mov ebx, eax
            nop
            mov eax, ebx
            pop rbx
            ret
        inner:
            nop
        .here:
            mov eax, -22
            ret
    """)
    assert (origin, found.move.kind, found.move.value, found.cell) == ("inner.here", StepKind.CONST, -EINVAL, None)


def test_a_callees_out_parameter_is_followed_to_the_constant_that_it_wrote() -> None:
    origin, found = followed("""
        __x64_sys_frob:
            sub rsp, 24
            mov [rsp+8], rax
            lea rdi, [rsp+8]
            call fill
            mov eax, [rsp+8]
            add rsp, 24
            ret
        fill:
            mov eax, 1
        .here:
            mov [rdi], -22
            ret
    """)
    assert (origin, found.move.kind, found.cell) == ("fill.here", StepKind.CONST, None)


def test_a_value_is_followed_through_a_structure_on_the_stack() -> None:
    """Its pointer is handed on, and kept in a structure of its own: addresses are known, so that it does not matter."""
    origin, _ = followed("""
        __x64_sys_frob:
            sub rsp, 48
            lea rax, [rsp+16]
            mov [rsp], rax
            mov rdi, rsp
            call set
            mov rdi, [rsp]
            mov eax, [rdi+12]
            add rsp, 48
            ret
        set:
            mov rdx, [rdi]
        .here:
            mov ecx, -22
            mov [rdx+12], ecx
            mov [rdx+8], eax
            mov [rdx+16], eax
            ret
    """)
    assert origin == "set.here"


def test_memory_that_nobody_wrote_in_the_call_is_the_origin_itself() -> None:
    origin, found = followed(
        """
        __x64_sys_frob:
            mov r8, rdi
        .here:
            mov eax, [r8+16]
            push rax
            xor eax, eax
            pop rax
            ret
        """,
        words=(0, 0, -EINVAL),
    )
    assert (origin, found.cell) == ("__x64_sys_frob.here", Cell(HEAP + 16, 4))


def test_an_error_kept_as_a_positive_number_is_followed_through_its_negation() -> None:
    """As of sk->sk_err: exchanged with zero, and negated."""
    origin, found = followed(
        """
        __x64_sys_frob:
            xor eax, eax
        .here:
            xchg [rdi+8], eax
            neg eax
            ret
        """,
        words=(0, EINVAL),
    )
    assert (origin, found.cell) == ("__x64_sys_frob.here", Cell(HEAP + 8, 4))
    assert any(stop.pending == (("neg", 0),) for stop in found.stops)


def test_what_an_exchange_put_into_memory_is_followed_to_the_register_it_was_in() -> None:
    origin, _ = followed("""
        __x64_sys_frob:
            nop
        .here:
            mov ecx, -22
            xchg [rdi], ecx
            mov eax, [rdi]
            ret
    """)
    assert origin == "__x64_sys_frob.here"


@pytest.mark.parametrize(("chosen", "origin"), [(0, "__x64_sys_frob.moved"), (1, "__x64_sys_frob.kept")])
def test_a_conditional_move_is_followed_to_the_side_that_it_took(chosen: int, origin: str) -> None:
    found, _ = followed(
        """
        __x64_sys_frob:
            test esi, esi
        .kept:
            mov eax, -22
        .moved:
            mov edx, -22
            cmove eax, edx
            ret
        """,
        rsi=chosen,
    )
    assert found == origin


CONDITIONS = ("o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g")


@settings(derandomize=True, deadline=None, max_examples=80)
@given(st.sampled_from(CONDITIONS), st.integers(-3, 3), st.sampled_from([0, 1, -1, 2**31 - 1, -(2**31)]))
def test_every_condition_is_read_from_the_flags_as_the_cpu_reads_it(condition: str, left: int, right: int) -> None:
    machine = ToyMachine(_SELECTS[condition])
    machine.call(rdi=left, rsi=right)
    origin, _ = _of(_SELECTS[condition], machine)
    assert origin == ("__x64_sys_frob.moved" if machine.get("rax") == 1 else "__x64_sys_frob.kept")


_SELECTS = {
    condition: toy(f"""
        __x64_sys_frob:
            cmp edi, esi
        .kept:
            mov eax, 2
        .moved:
            mov edx, 1
            cmov{condition} eax, edx
            ret
    """)
    for condition in CONDITIONS
}


def test_a_value_made_from_the_carry_flag_begins_there() -> None:
    """`sbb; and; or`: what was masked and added is kept with it."""
    origin, found = followed(
        """
        __x64_sys_frob:
            cmp esi, 5
        .here:
            sbb eax, eax
            and eax, 21
            sub eax, 22
            ret
        """,
        returns=-EINVAL,
        rsi=7,
    )
    assert (origin, found.move.kind) == ("__x64_sys_frob.here", StepKind.FLAGS)
    assert ("and", 21) in found.stops[-1].pending


def test_a_value_made_from_a_set_flag_begins_there() -> None:
    origin, found = followed(
        """
        __x64_sys_frob:
            cmp esi, 5
        .here:
            sete al
            movzx eax, al
            neg eax
            ret
        """,
        returns=-1,
        rsi=5,
    )
    assert (origin, found.move.kind) == ("__x64_sys_frob.here", StepKind.FLAGS)


def test_a_value_is_found_that_a_callee_saved_register_kept_through_a_spill() -> None:
    """The errno is set early; what is called later saves the register, uses it, and brings it back."""
    origin, _ = followed("""
        __x64_sys_frob:
            push rbx
        .here:
            mov ebx, -22
            call busy
            mov eax, ebx
            pop rbx
            ret
        busy:
            push rbx
            push rbp
            mov ebx, 5
            mov rbp, rbx
            mov eax, ebp
            pop rbp
            pop rbx
            ret
    """)
    assert origin == "__x64_sys_frob.here"


@pytest.mark.parametrize(("move", "count"), [("rep movsb", 16), ("rep movsq", 2)])
def test_a_string_move_is_followed_to_the_bytes_that_it_copied(move: str, count: int) -> None:
    origin, _ = followed(f"""
        __x64_sys_frob:
            mov rdx, rdi
            mov [rdx], rax
        .here:
            mov [rdx+8], -22
            mov rsi, rdx
            lea rdi, [rdx+64]
            mov ecx, {count}
            {move}
            mov eax, [rdx+72]
            ret
    """)
    assert origin == "__x64_sys_frob.here"


def test_what_a_string_store_wrote_came_from_the_register() -> None:
    origin, _ = followed("""
        __x64_sys_frob:
            mov rdx, rdi
        .here:
            mov rax, -22
            mov ecx, 3
            rep stosq
            xor eax, eax
            mov eax, [rdx+16]
            ret
    """)
    assert origin == "__x64_sys_frob.here"


def test_a_wider_copy_of_memory_is_followed_to_the_part_that_matters() -> None:
    origin, _ = followed("""
        __x64_sys_frob:
            xor eax, eax
            mov [rdi], eax
        .here:
            mov [rdi+4], -22
            mov rax, [rdi]
            mov [rdi+32], rax
            mov rcx, [rdi+32]
            mov [rdi+64], rcx
            mov eax, [rdi+68]
            ret
    """)
    assert origin == "__x64_sys_frob.here"


def test_the_upper_half_of_a_wide_load_is_followed_to_its_own_bytes() -> None:
    """How a structure of two numbers is returned in one register."""
    origin, _ = followed("""
        __x64_sys_frob:
            call pair
            shr rax, 32
            ret
        pair:
            mov [rdi], 5
        .here:
            mov [rdi+4], -22
            mov rax, [rdi]
            ret
    """)
    assert origin == "pair.here"


def test_a_string_move_does_nothing_where_its_count_is_zero() -> None:
    """As at the row behind its last element, when the registers point behind what was copied."""
    origin, _ = followed("""
        __x64_sys_frob:
            mov rdx, rdi
        .here:
            mov [rdx+32], -22
            mov ecx, 4
            xor eax, eax
            rep stosq
            mov rdi, rdx
            lea rsi, [rdx+64]
            mov ecx, 4
            rep movsq
            mov eax, [rdx+32]
            ret
    """)
    assert origin == "__x64_sys_frob.here"


def test_a_frame_pointer_is_followed_through_leave() -> None:
    origin, _ = followed("""
        __x64_sys_frob:
            push rbp
        .here:
            mov ebp, -22
            call framed
            mov eax, ebp
            pop rbp
            ret
        framed:
            push rbp
            mov rbp, rsp
            sub rsp, 24
            leave
            ret
    """)
    assert origin == "__x64_sys_frob.here"


def test_what_was_written_to_another_place_does_not_matter() -> None:
    """Stores just before and just behind the value leave it alone."""
    origin, _ = followed("""
        __x64_sys_frob:
            nop
        .here:
            mov [rdi+8], -22
            mov [rdi+4], -1
            mov [rdi+12], -1
            mov eax, [rdi+8]
            ret
    """)
    assert origin == "__x64_sys_frob.here"


def test_what_the_register_held_before_the_first_row_has_no_origin() -> None:
    kernel = toy("__x64_sys_frob:\nmov eax, edi\nret")
    machine = ToyMachine(kernel)
    machine.call(rdi=5)
    log = machine.log()
    assert follow(log, list(range(len(log.address))), kernel.executed, "rdx") is None
    assert follow(log, [0], kernel.executed, "rax") is None


def test_an_instruction_that_does_not_decode_is_taken_to_write_nothing() -> None:
    kernel = toy("__x64_sys_frob:\n.here:\nmov eax, -22\n.gap:\nnop\nret")
    machine = ToyMachine(kernel)
    machine.call()
    log = machine.log()
    gap = kernel.at["__x64_sys_frob.gap"]
    found = follow(log, list(range(len(log.address))), lambda at: None if at == gap else kernel.executed(at), "rax")
    assert found is not None
    assert int(log.address[found.row]) == kernel.at["__x64_sys_frob.here"]


def test_a_string_move_that_an_interrupt_cut_in_two_is_followed_whole() -> None:
    """Each turn behind which it was interrupted was made, though the same instruction comes again."""
    kernel = toy(
        """
        __x64_sys_frob:
            mov rdx, rdi
        .here:
            mov [rdx+8], -22
            mov rsi, rdx
            lea rdi, [rdx+64]
            mov ecx, 3
        .copy:
            rep movsq
            mov eax, [rdx+72]
            ret
        """
        + INTERRUPT
    )
    machine = ToyMachine(kernel)
    turns = {2: False, 1: False}  # rcx → whether it was interrupted there

    def interrupt(machine: ToyMachine) -> None:
        if turns.get(machine.get("rcx")) is False:
            turns[machine.get("rcx")] = True
            machine.interrupt()

    machine.before = {"__x64_sys_frob.copy": interrupt}
    assert machine.call(rdi=STACK_OBJECT) == -EINVAL
    (call,) = calls(kernel, machine.log())
    assert all(turns.values())
    found = follow(machine.log(), call.rows.tolist(), kernel.executed, "rax")
    assert found is not None
    assert machine.rows[found.row][0] == kernel.at["__x64_sys_frob.here"]


# ---- programs whose origin is known by how they are made ----

REGISTERS = ("rax", "rcx", "rdx", "rsi", "r8", "r10", "r14")
SLOTS = (0, 8, 16, 24)


@st.composite
def programs(draw: st.DrawFn) -> tuple[str, str]:
    """A straight run of moves between registers, stack slots and an array; the label of the constant that
    comes to be in rax at its end, told by carrying labels along instead of values."""
    places = [*REGISTERS, *(f"[rsp+{slot}]" for slot in SLOTS), *(f"[rdi+{slot}]" for slot in SLOTS)]
    lines, held = ["sub rsp, 32"], {}
    for number, place in enumerate(places):
        lines += [f".first{number}:", f"mov {place}, {-number - 1}"]
        held[place] = f".first{number}"
    for number in range(draw(st.integers(1, 30))):
        source, target = draw(st.sampled_from(places)), draw(st.sampled_from(places))
        both_memory = source.startswith("[") and target.startswith("[")
        way = draw(st.sampled_from(["mov", "mov", "const", "xchg", "add", "push"]))
        if way == "mov" and not both_memory:
            lines.append(f"mov {target}, {source}")
            held[target] = held[source]
        elif way == "const":
            lines += [f".const{number}:", f"mov {target}, {number + 100}"]
            held[target] = f".const{number}"
        elif way == "xchg" and not source.startswith("["):
            lines.append(f"xchg {target}, {source}")
            held[target], held[source] = held[source], held[target]
        elif way == "add" and not target.startswith("["):
            lines.append(f"add {target}, 3")
        elif way == "push" and not source.startswith("["):
            lines += [f"push {source}", f"mov r11, {source}", f"pop {source}"]
    lines.append("add rsp, 32")
    return "\n".join(["__x64_sys_frob:", *lines, "ret"]), held["rax"]


@settings(derandomize=True, deadline=None, max_examples=50)
@given(programs())
def test_the_origin_is_the_constant_that_was_moved_there_by_construction(program: tuple[str, str]) -> None:
    """And wherever the value was on its way, the operations still pending there make of it what is returned."""
    body, label = program
    kernel = toy(body)
    machine = ToyMachine(kernel)
    machine.call(rdi=STACK_OBJECT)
    origin, found = _of(kernel, machine)
    assert origin == f"__x64_sys_frob{label}"
    result, log = signed32(machine.get("rax")), machine.log()
    assert signed32(apply(found.stops[-1].pending if found.stops else (), found.move.value)) == result
    for stop in found.stops:
        if isinstance(stop.location, str):
            value = int(log.registers[stop.row, LOGGED_REGISTERS.index(stop.location)])
            assert signed32(apply(stop.pending, value)) == result


# ---- calls whose callee is not in the log ----

HIDDEN = """
    __x64_sys_frob:
        push rbx
        sub rsp, 32
    .first:
        mov ebx, -22
    .kept:
        mov [rsp+8], {kept}
    .given:
        lea rdi, [rsp+{given}]
    .calls:
        call hidden
    .back:
        mov eax, {result}
        add rsp, 32
        pop rbx
        cdqe
        ret
    hidden:
        mov {writes}
        mov eax, -22
        ret
"""


def without_hidden(kept: int, given: str, result: str, writes: str = "ecx, 1") -> tuple[str, Followed]:
    """As `followed`, of a log that lacks the rows of `hidden`."""
    kernel = toy(HIDDEN.format(kept=kept, given=given, result=result, writes=writes))
    machine = ToyMachine(kernel)
    assert machine.call() == -EINVAL
    start, end = next((start, end) for name, start, end in kernel.functions if name == "hidden")
    machine.rows = [row for row in machine.rows if not start <= row[0] < end]
    log = machine.log()
    call = next(row for row in range(len(log.address)) if log.address[row] == kernel.at["__x64_sys_frob.calls"])
    rows = list(range(len(log.address)))
    found = follow(log, rows, kernel.executed, "rax", {call: kernel.at["hidden"]})
    assert found is not None
    address = int(log.address[found.row])
    return next(label for label, at in kernel.at.items() if at == address).partition(".")[2], found


def test_what_a_callee_that_was_not_seen_returned_has_its_origin_in_the_call() -> None:
    origin, found = without_hidden(0, "8", "eax")
    assert (origin, found.move.kind, found.unseen) == ("calls", StepKind.UNKNOWN, (found.row,))


def test_what_a_callee_must_leave_alone_is_followed_past_one_that_was_not_seen() -> None:
    origin, found = without_hidden(0, "8", "ebx")
    assert (origin, found.move.kind, found.unseen) == ("first", StepKind.CONST, ())


def test_a_callee_saved_register_that_is_another_behind_a_call_was_set_there() -> None:
    """By a callee that was not seen, whatever the convention says."""
    kernel = toy(HIDDEN.format(kept=0, given="8", result="ebx", writes="ebx, -5"))
    machine = ToyMachine(kernel)
    assert machine.call() == -5
    start = kernel.at["hidden"]
    machine.rows = [row for row in machine.rows if row[0] < start]
    log = machine.log()
    call = log.address.tolist().index(kernel.at["__x64_sys_frob.calls"])
    found = follow(log, list(range(len(log.address))), kernel.executed, "rax", {call: start})
    assert found is not None
    assert (found.row, found.unseen) == (call, (call,))


def test_a_stack_slot_that_holds_another_value_than_was_written_was_changed_meanwhile() -> None:
    origin, found = without_hidden(7, "8", "[rsp+8]", "[rdi], -22")
    assert origin == "back"
    assert [*found.unseen] == [found.row - 1]


def test_a_stack_slot_that_still_holds_what_was_written_is_followed_but_its_pointer_was_given_away() -> None:
    origin, found = without_hidden(-EINVAL, "8", "[rsp+8]")
    assert (origin, found.move.kind) == ("kept", StepKind.CONST)
    assert len(found.unseen) == 1


def test_a_stack_slot_whose_pointer_was_not_given_away_is_followed_without_doubt() -> None:
    origin, found = without_hidden(-EINVAL, "16", "[rsp+8]")
    assert (origin, found.move.kind, found.unseen) == ("kept", StepKind.CONST, ())


def test_a_register_is_not_followed_past_a_hole_in_its_own_function() -> None:
    kernel = toy("""
        __x64_sys_frob:
            push rbx
        .set:
            mov ebx, -22
        .jumps:
            jmp .hidden
        .hidden:
            mov ebx, -22
        .back:
            mov eax, ebx
            pop rbx
            cdqe
            ret
    """)
    machine = ToyMachine(kernel)
    assert machine.call() == -EINVAL
    machine.rows = [row for row in machine.rows if row[0] != kernel.at["__x64_sys_frob.hidden"]]
    log = machine.log()
    jump = log.address.tolist().index(kernel.at["__x64_sys_frob.jumps"])
    found = follow(log, list(range(len(log.address))), kernel.executed, "rax", {jump: None})
    assert found is not None
    assert (found.row, found.unseen) == (jump, (jump,))
