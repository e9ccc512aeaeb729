"""x86-64 instructions as steps on places, decoded by iced-x86.

Only what carries a return value or decides a branch is modelled; every other write makes its place
unknown, which is always safe: an unknown value is never taken for an errno.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field

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

from profiler.debuginfo.pointers import Pointers
from profiler.graph import Pointer, Step, StepKind, Test

RETURN_PLACE = "rax"
ARGUMENTS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
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
_LEAVE_PLACES_ALONE = {
    Mnemonic.CMP,
    Mnemonic.TEST,
    Mnemonic.NOP,
    Mnemonic.JMP,
    Mnemonic.UD2,
    Mnemonic.STI,
    Mnemonic.CLI,
}
_ONE_RESULT = {Mnemonic.LEA, Mnemonic.NEG, Mnemonic.NOT, Mnemonic.SBB, Mnemonic.INC, Mnemonic.DEC, *_MOVES, *OPERATORS}
_TELL_OF_ZERO = (Mnemonic.NEG, Mnemonic.AND)
_KERNEL_TOP = -4096  # addresses of the kernel are negative numbers below those of the errors
_WORD = (1 << 64) - 1
_ERROR_BOUND = -4096  # IS_ERR_VALUE: (unsigned long)x >= (unsigned long)-MAX_ERRNO


def decode(code: bytes, address: int) -> Iterator[Instruction]:
    """Instructions one after the other; an invalid one ends the stream and is yielded last."""
    for instruction in Decoder(64, code, ip=address):
        yield instruction
        if instruction.code == Code.INVALID:
            return


@functools.cache
def place_of_register(register: int) -> str:
    return _NAMES.get(RegisterExt.full_register(register), "")  # type: ignore[arg-type]


def signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def _at_entry() -> Pointers:
    pointers = Pointers({"rsp": Pointer("stack", 0)})
    for register in ARGUMENTS:
        pointers[register] = Pointer(register, 0)
    return pointers


@dataclass(slots=True)
class Frame:
    """What registers and memory point to: the stack, what the function was given, and what is reached from there."""

    pointers: Pointers = field(default_factory=_at_entry)

    def copy(self) -> Frame:
        return Frame(self.pointers.copy())

    def meet(self, other: Frame) -> bool:
        """Keeps what both agree on; whether that took something away."""
        return self.pointers.meet(other.pointers)

    @property
    def stack(self) -> int | None:
        """Where the stack pointer stands, from where it stood at entry; None where that is not known."""
        pointer = self.pointers["rsp"]
        return pointer.offset if pointer is not None and pointer.base == "stack" else None

    def arguments(self, *, tail: bool) -> tuple[tuple[str, Pointer], ...]:
        """What a callee is given, and where its stack begins."""
        known = [(register, self.pointers[register]) for register in ARGUMENTS]
        if self.stack is not None:
            known.append(("stack", Pointer("stack", self.stack - (0 if tail else 8))))
        return tuple((name, pointer) for name, pointer in known if pointer is not None)

    def address(self, instruction: Instruction) -> Pointer | None:
        """What the instruction's memory operand points to."""
        if instruction.memory_index != Register.NONE or instruction.memory_segment == Register.FS:
            return None
        base, displacement = instruction.memory_base, instruction.memory_displacement
        if base in (Register.NONE, Register.RIP):
            return Pointer("gs" if instruction.memory_segment == Register.GS else "global", displacement)
        pointer = self.pointers[place_of_register(base)]
        if pointer is None or instruction.memory_segment == Register.GS:
            return None
        return pointer.plus(signed(displacement, 64))

    def slot(self, instruction: Instruction) -> str:
        """The place of the instruction's memory operand, or "" where it has no name."""
        pointer = self.address(instruction)
        return pointer.place if pointer is not None else ""

    def advance(self, instruction: Instruction) -> None:
        """Moves the frame past one instruction."""
        mnemonic = instruction.mnemonic
        if mnemonic in _LEAVE_PLACES_ALONE:
            return
        if mnemonic in (Mnemonic.PUSH, Mnemonic.POP):
            self._advance_stack(instruction)
        elif instruction.is_call_near or instruction.is_call_near_indirect:
            self.pointers.forget((RETURN_PLACE, *CALL_CLOBBERS))
        elif mnemonic == Mnemonic.LEAVE:
            self.pointers["rsp"], self.pointers["rbp"] = _plus(self.pointers["rbp"], 8), None
        elif mnemonic == Mnemonic.AND and instruction.op0_register == Register.RSP:
            # A realigned stack: slots are still told apart, from a new origin that no caller's slot reaches.
            self.pointers["rsp"] = Pointer("stack", -(1 << 20))
        elif mnemonic in _ONE_RESULT:
            to = _operand_place(instruction, 0, self)
            if to and (operand_bits(instruction, 0) == 64 or to in self.pointers.known):
                self.pointers[to] = self._result(instruction, to)
        else:
            self.pointers["rsp"] = _plus(self.pointers["rsp"], instruction.stack_pointer_increment)
            self.pointers.forget(name for name in written(instruction)[0] if name not in ("rsp", "rip", ""))

    def _advance_stack(self, instruction: Instruction) -> None:
        by = instruction.stack_pointer_increment
        place = _operand_place(instruction, 0, self) if instruction.op0_kind == OpKind.REGISTER else ""
        if by > 0:
            top = self.pointers["rsp"]
            self.pointers[place] = self.pointers[top.place] if top is not None else None
            self.pointers["rsp"] = _plus(top, by)
            return
        pushed = self.pointers[place] if place else None
        self.pointers["rsp"] = top = _plus(self.pointers["rsp"], by)
        if top is not None:
            self.pointers[top.place] = pushed

    def _result(self, instruction: Instruction, to: str) -> Pointer | None:
        """The pointer that an instruction with one result leaves in `to`."""
        mnemonic = instruction.mnemonic
        if mnemonic == Mnemonic.LEA:
            return self.address(instruction)
        if operand_bits(instruction, 0) != 64:
            return None
        value = immediate(instruction, 1) if instruction.op_count == 2 else None
        if mnemonic == Mnemonic.MOV:
            if value is not None:
                return Pointer("global", value & _WORD) if value < _KERNEL_TOP else None
            source = _operand_place(instruction, 1, self)
            return self.pointers[source] if source else None
        if mnemonic in (Mnemonic.ADD, Mnemonic.SUB) and value is not None:
            return _plus(self.pointers[to], value if mnemonic == Mnemonic.ADD else -value)
        return None


def _plus(pointer: Pointer | None, distance: int) -> Pointer | None:
    return pointer.plus(distance) if pointer is not None else None


def _operand_place(instruction: Instruction, index: int, frame: Frame) -> str:
    kind = instruction.op_kind(index)
    if kind == OpKind.REGISTER:
        return place_of_register(instruction.op_register(index))
    return frame.slot(instruction) if kind == OpKind.MEMORY else ""


def operand_bits(instruction: Instruction, index: int) -> int:
    if instruction.op_kind(index) == OpKind.REGISTER:
        return int(RegisterExt.size(instruction.op_register(index))) * 8
    return {1: 8, 2: 16, 4: 32, 8: 64}.get(memory_bytes(instruction), 64)


def memory_bytes(instruction: Instruction) -> int:
    from iced_x86 import MemorySizeExt  # noqa: PLC0415 (dear to import, needed rarely)

    return int(MemorySizeExt.size(instruction.memory_size))


def immediate(instruction: Instruction, index: int) -> int | None:
    """The signed value of an immediate operand; None where it is none."""
    if instruction.op_kind(index) not in _IMMEDIATES:
        return None
    return signed(instruction.immediate(index), operand_bits(instruction, 0))


def steps_of(instruction: Instruction, frame: Frame) -> Iterator[Step]:
    """What one instruction, not a call, does to places; `frame` is as it stands before it."""
    if instruction.mnemonic == Mnemonic.LEA and (steps := _lea_steps(instruction)):
        yield from steps
        return
    made = _exchange_steps(instruction, frame)
    if not made and (step := _known_step(instruction, frame)) is not None:
        made = [step]
    yield from made
    known = {step.place for step in made}
    for used in _INFO.info(instruction).used_registers():
        if used.access in _WRITES:
            place = place_of_register(used.register)
            if place and place not in known and place not in ("rsp", "rip"):
                yield Step(instruction.ip, place, StepKind.UNKNOWN)
    if instruction.op_count and instruction.op0_kind == OpKind.MEMORY and _writes_memory(instruction):
        yield from _overwritten(instruction, frame, known)


def _overwritten(instruction: Instruction, frame: Frame, known: set[str]) -> Iterator[Step]:
    """Places, of four bytes each, that a store wipes out besides those that are `known` to be written."""
    address = frame.address(instruction)
    if address is None:
        return
    for distance in range(0, max(memory_bytes(instruction), 1), 4):
        place = address.plus(distance).place
        if place and place not in known:
            yield Step(instruction.ip, place, StepKind.UNKNOWN)


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


_OLD = "old value"  # a place for as long as one instruction lasts


def _exchange_steps(instruction: Instruction, frame: Frame) -> list[Step]:
    """`xchg`, `xadd` and `cmpxchg`: what the first operand held goes to a register, whatever becomes of it."""
    if instruction.mnemonic not in (Mnemonic.XCHG, Mnemonic.XADD, Mnemonic.CMPXCHG):
        return []
    at, to, register = instruction.ip, _operand_place(instruction, 0, frame), _operand_place(instruction, 1, frame)
    old = Step(at, _OLD, StepKind.COPY, source=to) if to else Step(at, _OLD, StepKind.LOAD)
    result = "rax" if instruction.mnemonic == Mnemonic.CMPXCHG else register
    steps = [old]
    if to and instruction.mnemonic == Mnemonic.XCHG:
        steps.append(Step(at, to, StepKind.COPY, source=register))
    elif to and instruction.mnemonic == Mnemonic.CMPXCHG:
        steps.append(Step(at, to, StepKind.SELECT, source=register))
    elif to:
        steps.append(Step(at, to, StepKind.UNKNOWN))
    return [*steps, Step(at, result, StepKind.COPY, source=_OLD)]


def _arithmetic_step(instruction: Instruction, place: str) -> Step | None:
    value, mnemonic = immediate(instruction, 1), instruction.mnemonic
    if value is None:
        return None
    if mnemonic == Mnemonic.OR and value == -1:  # how -Os loads -EPERM
        return Step(instruction.ip, place, StepKind.CONST, value=-1)
    operator = OPERATORS[mnemonic]
    if operator in ("shr", "sar") and operand_bits(instruction, 0) == 32:
        operator += "32"
    return Step(instruction.ip, place, StepKind.OPERATE, operator=operator, value=value)


def _stack_step(instruction: Instruction, frame: Frame) -> Step | None:
    top = frame.stack
    if top is None:
        return None
    if instruction.mnemonic == Mnemonic.PUSH:
        slot = Pointer("stack", top - 8).place
        if instruction.op0_kind == OpKind.REGISTER:
            return Step(instruction.ip, slot, StepKind.COPY, source=place_of_register(instruction.op0_register))
        return Step(instruction.ip, slot, StepKind.UNKNOWN)
    if instruction.op0_kind == OpKind.REGISTER:
        place = place_of_register(instruction.op0_register)
        return Step(instruction.ip, place, StepKind.COPY, source=Pointer("stack", top).place)
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
    slot = frame.slot(instruction)
    return slot if slot.startswith("stack") else ""


def tested_place(compare: Instruction, frame: Frame) -> str:
    """The place that a `cmp` or `test` looks at; "" where it is not followed."""
    return _operand_place(compare, 0, frame)


def tests_of(compare: Instruction | None, place: str, jump: Instruction) -> tuple[Test | None, Test | None]:
    """What the jump being taken, and not being taken, says of `place`: (taken, not taken).

    Of a comparison narrower than 32 bits (a bool) only being equal to zero is told.
    """
    if compare is None or not place:
        return None, None
    if compare.mnemonic in _TELL_OF_ZERO:
        is_equality = jump.condition_code in (ConditionCode.E, ConditionCode.NE)
        return _relation(jump.condition_code, place, 0, is_test=True) if is_equality else (None, None)
    narrow = operand_bits(compare, 0) < 32
    if compare.mnemonic == Mnemonic.TEST:
        if compare.op1_kind != OpKind.REGISTER or compare.op1_register != compare.op0_register:
            return None, None
        value: int | None = 0
    else:
        value = immediate(compare, 1)
    if value is None or (narrow and (value or jump.condition_code not in (ConditionCode.E, ConditionCode.NE))):
        return None, None
    return _relation(jump.condition_code, place, value, is_test=compare.mnemonic == Mnemonic.TEST)


def _relation(condition: int, place: str, value: int, *, is_test: bool) -> tuple[Test | None, Test | None]:
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
    """Whether jumps behind it tell of its first operand: a comparison, or arithmetic that leaves zero or not."""
    return instruction.mnemonic in (Mnemonic.CMP, Mnemonic.TEST, *_TELL_OF_ZERO)


def interrupts_after(instruction: Instruction, off: bool) -> bool:
    """Whether interrupts are off after the instruction; popf is taken to restore them on."""
    if instruction.mnemonic == Mnemonic.CLI:
        return True
    if instruction.mnemonic in (Mnemonic.STI, Mnemonic.POPFQ):
        return False
    return off


def is_trap(instruction: Instruction) -> bool:
    return instruction.mnemonic in (Mnemonic.UD2, Mnemonic.UD1, Mnemonic.UD0, Mnemonic.INT3)
