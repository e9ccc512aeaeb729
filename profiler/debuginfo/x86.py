"""x86-64 instructions as steps on places, decoded by iced-x86.

Only what carries a return value or decides a branch is modelled; every other write makes its place
unknown, which is always safe: an unknown value is never taken for an errno.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from iced_x86 import (
    Code,
    ConditionCode,
    Decoder,
    Instruction,
    InstructionInfoFactory,
    Mnemonic,
    OpAccess,
    OpKind,
    Register,
    RegisterExt,
    RflagsBits,
)

from profiler.graph import Step, StepKind, Test

RETURN_PLACE = "rax"
# System V ABI: what a callee may change (rax is written by the call itself, as its result).
CALL_CLOBBERS = ("rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11")
# arch/x86/lib/putuser.S returns its error in ecx, since Linux 5.10 or earlier; everything else in eax.
RESULTS_OF = {"__put_user": ("rcx",), "__put_user_nocheck": ("rcx",)}

_WRITES = {OpAccess.WRITE, OpAccess.READ_WRITE, OpAccess.COND_WRITE, OpAccess.READ_COND_WRITE}
_NAMES = {
    getattr(Register, name): name.lower() for name in dir(Register) if name.startswith("R") and name[1:].isalnum()
}
_INFO = InstructionInfoFactory()
_IMMEDIATES = {
    OpKind.IMMEDIATE8,
    OpKind.IMMEDIATE16,
    OpKind.IMMEDIATE32,
    OpKind.IMMEDIATE64,
    OpKind.IMMEDIATE8TO16,
    OpKind.IMMEDIATE8TO32,
    OpKind.IMMEDIATE8TO64,
    OpKind.IMMEDIATE32TO64,
}
OPERATORS = {
    Mnemonic.AND: "and",
    Mnemonic.OR: "or",
    Mnemonic.XOR: "xor",
    Mnemonic.ADD: "add",
    Mnemonic.SUB: "sub",
    Mnemonic.SHL: "shl",
    Mnemonic.SAR: "sar",
    Mnemonic.SHR: "shr",
}
_MOVES = {Mnemonic.MOV, Mnemonic.MOVZX, Mnemonic.MOVSX, Mnemonic.MOVSXD}
# jcc → what its being taken says of a compared with b, after `cmp a, b`; `test a, a` compares with 0.
_RELATIONS = {
    ConditionCode.E: ("==", "!="),
    ConditionCode.NE: ("!=", "=="),
    ConditionCode.L: ("<", ">="),
    ConditionCode.GE: (">=", "<"),
    ConditionCode.LE: ("<=", ">"),
    ConditionCode.G: (">", "<="),
}
_ERROR_BOUND = -4096  # IS_ERR_VALUE: (unsigned long)x >= (unsigned long)-MAX_ERRNO


def decode(code: bytes, address: int) -> Iterator[Instruction]:
    """Instructions one after the other; an invalid one ends the stream and is yielded last."""
    for instruction in Decoder(64, code, ip=address):
        yield instruction
        if instruction.code == Code.INVALID:
            return


def place_of_register(register: int) -> str:
    return _NAMES.get(RegisterExt.full_register(register), "")  # type: ignore[arg-type]


def signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


@dataclass(slots=True)
class Frame:
    """Where the stack pointer and a frame pointer stand, from the stack pointer at entry; None: not known."""

    rsp: int | None = 0
    rbp: int | None = None

    def copy(self) -> Frame:
        return Frame(self.rsp, self.rbp)

    def slot(self, instruction: Instruction) -> str:
        """The place of the instruction's memory operand, or "" where it is no stack slot."""
        if instruction.memory_index != Register.NONE:
            return ""
        base = {Register.RSP: self.rsp, Register.RBP: self.rbp}.get(instruction.memory_base)
        if base is None:
            return ""
        return f"stack{base + signed(instruction.memory_displacement, 64):+d}"

    def advance(self, instruction: Instruction) -> None:
        """Moves the frame past one instruction."""
        mnemonic = instruction.mnemonic
        if mnemonic == Mnemonic.MOV and instruction.op0_kind == OpKind.REGISTER == instruction.op1_kind:
            if instruction.op0_register == Register.RBP:
                self.rbp = self.rsp if instruction.op1_register == Register.RSP else None
                return
            if instruction.op0_register == Register.RSP:
                self.rsp = self.rbp if instruction.op1_register == Register.RBP else None
                return
        if mnemonic == Mnemonic.LEAVE:
            self.rsp, self.rbp = (None if self.rbp is None else self.rbp + 8), None
            return
        if mnemonic == Mnemonic.LEA and instruction.op0_register == Register.RSP:
            slot = self.slot(instruction)
            self.rsp = int(slot.removeprefix("stack")) if slot else None
            return
        if mnemonic in (Mnemonic.SUB, Mnemonic.ADD) and instruction.op0_register == Register.RSP:
            by = immediate(instruction, 1)
            sign = 1 if mnemonic == Mnemonic.ADD else -1
            self.rsp = None if self.rsp is None or by is None else self.rsp + sign * by
            return
        if mnemonic == Mnemonic.AND and instruction.op0_register == Register.RSP:
            # A realigned stack: slots are still told apart, from a new origin that no caller's slot reaches.
            self.rsp = -(1 << 20)
            return
        if self.rsp is not None and not instruction.is_call_near and not instruction.is_call_near_indirect:
            self.rsp += instruction.stack_pointer_increment  # what a call pushes, its return takes off again
        writes = instruction.op_count and mnemonic not in (Mnemonic.CMP, Mnemonic.TEST, Mnemonic.PUSH)
        if writes and instruction.op0_kind == OpKind.REGISTER and place_of_register(instruction.op0_register) == "rbp":
            self.rbp = None


def _operand_place(instruction: Instruction, index: int, frame: Frame) -> str:
    kind = instruction.op_kind(index)
    if kind == OpKind.REGISTER:
        return place_of_register(instruction.op_register(index))
    return frame.slot(instruction) if kind == OpKind.MEMORY else ""


def _operand_bits(instruction: Instruction, index: int) -> int:
    if instruction.op_kind(index) == OpKind.REGISTER:
        return int(RegisterExt.size(instruction.op_register(index))) * 8
    return {1: 8, 2: 16, 4: 32, 8: 64}.get(_memory_bytes(instruction), 64)


def _memory_bytes(instruction: Instruction) -> int:
    from iced_x86 import MemorySizeExt  # noqa: PLC0415 (dear to import, needed rarely)

    return int(MemorySizeExt.size(instruction.memory_size))


def immediate(instruction: Instruction, index: int) -> int | None:
    """The signed value of an immediate operand; None where it is none."""
    if instruction.op_kind(index) not in _IMMEDIATES:
        return None
    return signed(instruction.immediate(index), _operand_bits(instruction, 0))


def steps_of(instruction: Instruction, frame: Frame) -> Iterator[Step]:
    """What one instruction, not a call, does to places; `frame` is as it stands before it."""
    if instruction.mnemonic == Mnemonic.LEA and (steps := _lea_steps(instruction)):
        yield from steps
        return
    yielded = _known_step(instruction, frame)
    if yielded is not None:
        yield yielded
    known = yielded.place if yielded is not None else None
    for used in _INFO.info(instruction).used_registers():
        if used.access in _WRITES:
            place = place_of_register(used.register)
            if place and place not in (known, "rsp", "rip"):
                yield Step(instruction.ip, place, StepKind.UNKNOWN)
    if known is None and instruction.op_count and instruction.op0_kind == OpKind.MEMORY and _writes_memory(instruction):
        slot = frame.slot(instruction)
        if slot:
            yield Step(instruction.ip, slot, StepKind.UNKNOWN)


def _writes_memory(instruction: Instruction) -> bool:
    return any(used.access in _WRITES for used in _INFO.info(instruction).used_memory())


def written(instruction: Instruction) -> tuple[list[str], bool]:
    """The registers that an instruction writes, by full name, and whether it writes memory."""
    info = _INFO.info(instruction)
    registers = [place_of_register(used.register) for used in info.used_registers() if used.access in _WRITES]
    return registers, any(used.access in _WRITES for used in info.used_memory())


def _known_step(instruction: Instruction, frame: Frame) -> Step | None:
    mnemonic, at = instruction.mnemonic, instruction.ip
    if mnemonic in (Mnemonic.PUSH, Mnemonic.POP):
        return _stack_step(instruction, frame)
    if mnemonic == Mnemonic.CDQE:
        return Step(at, "rax", StepKind.COPY, source="rax")
    if instruction.op_count == 0 or mnemonic in (Mnemonic.CMP, Mnemonic.TEST):
        return None
    place = _operand_place(instruction, 0, frame)
    if not place:
        return None
    if mnemonic in _MOVES:
        return _move_step(instruction, frame, place)
    if mnemonic == Mnemonic.SBB and instruction.op1_kind == OpKind.REGISTER == instruction.op0_kind:
        same = instruction.op0_register == instruction.op1_register
        return Step(at, place, StepKind.FLAGS, choices=(0, -1)) if same else None
    if mnemonic == Mnemonic.XOR and instruction.op1_kind == OpKind.REGISTER == instruction.op0_kind:
        same = instruction.op0_register == instruction.op1_register
        return Step(at, place, StepKind.CONST, value=0) if same else None
    if mnemonic in (Mnemonic.NEG, Mnemonic.NOT):
        return Step(at, place, StepKind.OPERATE, operator="neg" if mnemonic == Mnemonic.NEG else "not")
    if instruction.condition_code != ConditionCode.NONE:
        return _conditional_step(instruction, frame, place)
    if mnemonic in OPERATORS and instruction.op_count == 2:
        return _arithmetic_step(instruction, place)
    return None


def _arithmetic_step(instruction: Instruction, place: str) -> Step | None:
    value, mnemonic = immediate(instruction, 1), instruction.mnemonic
    if value is None:
        return None
    if mnemonic == Mnemonic.OR and value == -1:  # how -Os loads -EPERM
        return Step(instruction.ip, place, StepKind.CONST, value=-1)
    operator = OPERATORS[mnemonic]
    if operator in ("shr", "sar") and _operand_bits(instruction, 0) == 32:
        operator += "32"
    return Step(instruction.ip, place, StepKind.OPERATE, operator=operator, value=value)


def _stack_step(instruction: Instruction, frame: Frame) -> Step | None:
    if frame.rsp is None:
        return None
    if instruction.mnemonic == Mnemonic.PUSH:
        slot = f"stack{frame.rsp - 8:+d}"
        if instruction.op0_kind == OpKind.REGISTER:
            return Step(instruction.ip, slot, StepKind.COPY, source=place_of_register(instruction.op0_register))
        return Step(instruction.ip, slot, StepKind.UNKNOWN)
    if instruction.op0_kind == OpKind.REGISTER:
        place = place_of_register(instruction.op0_register)
        return Step(instruction.ip, place, StepKind.COPY, source=f"stack{frame.rsp:+d}")
    return None


def _move_step(instruction: Instruction, frame: Frame, place: str) -> Step:
    at = instruction.ip
    value = immediate(instruction, 1)
    if value is not None:
        return Step(at, place, StepKind.CONST, value=value)
    source = _operand_place(instruction, 1, frame)
    if source:
        return Step(at, place, StepKind.COPY, source=source)
    kind = StepKind.LOAD if instruction.op1_kind == OpKind.MEMORY else StepKind.UNKNOWN
    return Step(at, place, kind)


def _lea_steps(instruction: Instruction) -> list[Step]:
    """`lea` as arithmetic on one register: `[r + n]`, `[r*4 + n]`, and `[r + r*4 + n]`, as in -22 + 5*flag."""
    base = place_of_register(instruction.memory_base)
    index = place_of_register(instruction.memory_index)
    if (base and index and base != index) or not (base or index) or "rsp" in (base, index) or "rip" in (base, index):
        return []
    factor = (instruction.memory_index_scale if index else 0) + (1 if base else 0)
    place, at = place_of_register(instruction.op0_register), instruction.ip
    added = signed(instruction.memory_displacement, 64)
    return [
        Step(at, place, StepKind.COPY, source=base or index),
        Step(at, place, StepKind.OPERATE, operator="mul", value=factor),
        Step(at, place, StepKind.OPERATE, operator="add", value=added),
    ]


def _conditional_step(instruction: Instruction, frame: Frame, place: str) -> Step | None:
    if instruction.op_count == 1:  # setcc
        return Step(instruction.ip, place, StepKind.FLAGS, choices=(0, 1))
    source = _operand_place(instruction, 1, frame)  # cmovcc
    if instruction.op1_kind == OpKind.MEMORY and not source:
        source = "memory"
    return Step(instruction.ip, place, StepKind.SELECT, source=source) if source else None


def taken_address(instruction: Instruction, frame: Frame) -> str:
    """The stack slot whose address the instruction computes, or ""."""
    if instruction.mnemonic != Mnemonic.LEA or instruction.op0_register == Register.RSP:
        return ""
    return frame.slot(instruction)


def tested_place(compare: Instruction, frame: Frame) -> str:
    """The place that a `cmp` or `test` looks at; "" where it is not followed."""
    return _operand_place(compare, 0, frame)


def tests_of(compare: Instruction | None, place: str, jump: Instruction) -> tuple[Test | None, Test | None]:
    """What the jump being taken, and not being taken, says of `place`: (taken, not taken).

    Of a comparison narrower than 32 bits (a bool) only being equal to zero is told.
    """
    if compare is None or not place:
        return None, None
    narrow = _operand_bits(compare, 0) < 32
    if compare.mnemonic == Mnemonic.TEST:
        if compare.op1_kind != OpKind.REGISTER or compare.op1_register != compare.op0_register:
            return None, None
        value: int | None = 0
    else:
        value = immediate(compare, 1)
    if value is None or (narrow and (value or jump.condition_code not in (ConditionCode.E, ConditionCode.NE))):
        return None, None
    return _relation(jump.condition_code, place, value, compare.mnemonic == Mnemonic.TEST)


def _relation(condition: int, place: str, value: int, is_test: bool) -> tuple[Test | None, Test | None]:
    if condition in _RELATIONS:
        taken, other = _RELATIONS[condition]  # type: ignore[index]
    elif is_test and condition in (ConditionCode.S, ConditionCode.NS):
        taken, other = ("<", ">=") if condition == ConditionCode.S else (">=", "<")
    elif value == _ERROR_BOUND and condition in (ConditionCode.A, ConditionCode.BE):
        taken, other = ("error", "not error") if condition == ConditionCode.A else ("not error", "error")
    else:
        return None, None
    return Test(place, taken, value), Test(place, other, value)


def sets_flags(instruction: Instruction) -> bool:
    """Whether the status flags that jumps read may be changed by it."""
    status = RflagsBits.OF | RflagsBits.SF | RflagsBits.ZF | RflagsBits.CF | RflagsBits.PF
    return bool(instruction.rflags_modified & status)


def is_compare(instruction: Instruction) -> bool:
    return instruction.mnemonic in (Mnemonic.CMP, Mnemonic.TEST)


def interrupts_after(instruction: Instruction, off: bool) -> bool:
    """Whether interrupts are off after the instruction; popf is taken to restore them on."""
    if instruction.mnemonic == Mnemonic.CLI:
        return True
    if instruction.mnemonic in (Mnemonic.STI, Mnemonic.POPFQ):
        return False
    return off


def is_trap(instruction: Instruction) -> bool:
    return instruction.mnemonic in (Mnemonic.UD2, Mnemonic.UD1, Mnemonic.UD0, Mnemonic.INT3)
