"""What an instruction is said to do, against what a real CPU emulator does."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from profiler.debuginfo import x86_execution
from profiler.graph import Control, Memory, Move, StepKind
from profiler.infer.dataflow import cell_of
from profiler.infer.slice import apply, signed32
from profiler.model import LOGGED_REGISTERS
from tests.unit.toy_execution import HEAP, ToyMachine
from tests.unit.toy_kernel import TEXT, ToyKernel

_FORMS = (
    *("mov {a}, {b}", "mov {a}, [rdi+8]", "mov [rdi+8], {a}", "mov [rdi+8], {n}", "mov {a}, {n}", "xchg {a}, {b}"),
    *("xchg [rdi+8], {a}", "add {a}, {n}", "and {a}, {n}", "or {a}, {n}", "xor {a}, {n}", "sub {a}, {n}", "neg {a}"),
    *("not {a}", "xor {a}, {a}", "sub {a}, {a}", "add {a}, {b}", "or {a}, {b}", "imul {a}, {b}", "lea {q}, [{r}+{n}]"),
    *("lea {q}, [{r}+rcx*4+{n}]", "push {q}", "pop {q}", "cdqe", "leave", "or {a}, -1", "sbb {a}, {a}", "cmp {a}, {b}"),
    *("test {a}, {a}", "cmovne {a}, {b}", "cmovle {a}, {b}", "cmove {a}, [rdi+8]", "add {a}, [rdi+8]", "nop"),
    *("add [rdi+8], {a}", "cmpxchg [rdi+8], {a}", "xadd [rdi+8], {a}", "bswap {a}", "sets al", "movzx {a}, al"),
    *("movsx {a}, al", "movsxd {q}, {a}", "rep movsb", "rep movsq", "rep stosq"),
)
_SMALL = ("eax", "ecx", "edx", "ebx", "r8d", "r13d")
_WIDE = ("rax", "rcx", "rdx", "rbx", "r8", "r13")


@st.composite
def instructions(draw: st.DrawFn) -> str:
    form = draw(st.sampled_from(_FORMS))
    first, second = draw(st.sampled_from(range(len(_WIDE)))), draw(st.sampled_from(range(len(_WIDE))))
    names = _WIDE if draw(st.booleans()) and "movsxd" not in form else _SMALL
    number = draw(st.sampled_from([0, 1, -22, 5, 0x1234]))
    return form.format(a=names[first], b=names[second], q=_WIDE[first], r=_WIDE[second], n=number)


def _assembled(instruction: str) -> ToyKernel:
    try:
        return ToyKernel(f"f:\n{instruction}\n.behind:\nnop")
    except AssertionError:
        assume(False)
        raise


def _run(machine: ToyMachine, values: list[int], words: list[int]) -> tuple[list[int], list[int]]:
    """One instruction; what the registers and the words around [rdi] then hold."""
    machine.write(HEAP, *words)
    machine.write(HEAP + 512, *words[::-1])
    machine.set(**dict(zip(LOGGED_REGISTERS, values, strict=True)))
    machine.run(machine.kernel.at["f"], until="f.behind")
    return [machine.get(name) for name in LOGGED_REGISTERS], [machine.word(HEAP + 8 * i) for i in range(8)]


_VALUES = st.sampled_from([0, 1, 3, 22, (1 << 64) - 22, 0xFFFFFFEA, 1 << 40, (1 << 63) + 5])


@settings(derandomize=True, deadline=None, max_examples=200)
@given(instructions(), st.lists(_VALUES, min_size=16, max_size=16), st.lists(_VALUES, min_size=8, max_size=8))
def test_whatever_an_instruction_changes_is_among_what_it_is_said_to_do(
    instruction: str, values: list[int], words: list[int]
) -> None:
    """And what is said of its values is so, of the 32 bits that an errno has."""
    machine = ToyMachine(_assembled(instruction))
    values = _with_pointers(values)
    after, left = _run(machine, values, words)
    executed = machine.kernel.executed(TEXT)
    assert executed is not None
    written = {move.to for move in executed.moves if isinstance(move.to, str)}
    changed = {name for name, old, new in zip(LOGGED_REGISTERS, values, after, strict=True) if old != new}
    assert changed - {"rsp"} <= written
    log = machine.log()
    rows = range(len(machine.rows))  # of a string instruction one a turn
    cells = [cell_of(log, row, move.to) for row in rows for move in executed.moves if isinstance(move.to, Memory)]
    for index in (i for i, word in enumerate(left) if word != words[i]):
        assert any(c.address < HEAP + 8 * index + 8 and HEAP + 8 * index < c.address + c.size for c in cells)
    if "rep " not in instruction and not instruction.endswith(" al"):
        for move in executed.moves:
            _check(move, machine, words)


def _with_pointers(values: list[int]) -> list[int]:
    """rdi and rsi into the words, the stack where there is memory, a small count."""
    known = dict(zip(LOGGED_REGISTERS, values, strict=True))
    known |= {"rdi": HEAP, "rsi": HEAP + 512, "rsp": HEAP + 1024, "rbp": HEAP + 16}
    known["rcx"] %= 4
    return [known[name] for name in LOGGED_REGISTERS]


def _check(move: Move, machine: ToyMachine, words: list[int]) -> None:
    log = machine.log()
    registers = dict(zip(LOGGED_REGISTERS, machine.rows[0][1], strict=True))

    def before(operand: str | Memory | None) -> int:
        assert operand is not None
        if isinstance(operand, str):
            return registers[operand]
        cell = cell_of(log, 0, operand)
        index, offset = divmod(cell.address - HEAP, 8)
        return (words[index] if index < 8 else machine.word(HEAP + 8 * index)) >> 8 * offset

    now = machine.get(move.to) if isinstance(move.to, str) else machine.word(cell_of(log, 0, move.to).address)
    if move.kind == StepKind.CONST:
        assert signed32(now) == signed32(move.value)
    elif move.kind == StepKind.COPY:
        assert signed32(now) == signed32(before(move.source))
    elif move.kind == StepKind.OPERATE:
        operand = move.to if move.source is None else move.source
        assert signed32(now) == signed32(apply(((move.operator, move.value),), before(operand)))


CONTROLS = {
    "ret": (Control.RETURN, None),
    "jmp .there": (Control.JUMP, "f.there"),
    "jmp rax": (Control.JUMP, None),
    "jmp [rax+8]": (Control.JUMP, None),
    "call .there": (Control.CALL, "f.there"),
    "call rax": (Control.CALL, None),
    "jne .there": (Control.CONDITIONAL, "f.there"),
    "sysretq": (Control.SYSCALL_RETURN, None),
    "iretq": (Control.INTERRUPT_RETURN, None),
    "nop": (Control.NEXT, None),
    "ud2": (Control.NEXT, None),
    "mov eax, 5": (Control.NEXT, None),
}


@pytest.mark.parametrize("instruction", CONTROLS)
def test_where_control_goes_is_told(instruction: str) -> None:
    kernel = ToyKernel(f"f:\n{instruction}\n.behind:\nnop\n.there:\nret")
    executed = kernel.executed(TEXT)
    control, target = CONTROLS[instruction]
    assert executed is not None
    assert (executed.control, executed.target) == (control, kernel.at[target] if target else None)
    assert (executed.address, executed.following) == (TEXT, kernel.at["f.behind"])


@pytest.mark.parametrize(
    ("code", "condition"),
    [("7405", "e"), ("0f8505000000", "ne"), ("7f05", "g"), ("7805", "s"), ("eb05", ""), ("e305", ""), ("e005", "")],
)
def test_a_jump_tells_by_which_flags_it_is_taken(code: str, condition: str) -> None:
    """Not those that a register decides: jrcxz (e3), loopne (e0)."""
    executed = x86_execution.decode(bytes.fromhex(code), TEXT)
    assert executed is not None
    assert executed.condition == condition


def test_memory_of_each_segment_is_told_apart() -> None:
    """`mov rax, gs:[0x1000]`, the same of fs, and of neither."""
    moves = [x86_execution.decode(bytes.fromhex(f"{prefix}488b042500100000"), 0) for prefix in ("65", "64", "")]
    assert [move.moves[0].source for move in moves if move] == [
        Memory("", "", 1, 0x1000, 8, segment) for segment in ("gs", "fs", "")
    ]


def test_memory_relative_to_the_instruction_has_its_address() -> None:
    executed = x86_execution.decode(bytes.fromhex("8b0510000000"), TEXT)  # mov eax, [rip+0x10]
    assert executed is not None
    assert executed.moves[0].source == Memory("", "", 1, TEXT + 6 + 0x10, 4)


@pytest.mark.parametrize("code", ["", "0f", "06", "ffff"])
def test_bytes_that_are_no_instruction_are_none(code: str) -> None:
    assert x86_execution.decode(bytes.fromhex(code), TEXT) is None
