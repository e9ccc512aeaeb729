"""AArch64 instructions as steps on places, decoded by capstone.

As in `x86`, only what carries a return value or decides a branch is modelled; every other write makes its
place unknown, which is always safe. Instructions and aliases: Arm Architecture Reference Manual, chapter C6.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import capstone
from capstone import arm64

from profiler.debuginfo.pointers import Pointers
from profiler.graph import Pointer, Step, StepKind, Test

RETURN_PLACE = "x0"
ARGUMENTS = tuple(f"x{n}" for n in range(8))
# Procedure Call Standard: what a callee may change besides x0; x18 is the kernel's own, x30 the link register.
CALL_CLOBBERS = (*(f"x{n}" for n in range(1, 18)), "x30")
_FIRMWARE_CLOBBERS = tuple(f"x{n}" for n in range(18))  # SMC Calling Convention
ZERO = "zero"  # the register that reads as 0 and keeps nothing
OTHER_SIDE = "other side"  # a place for as long as one instruction lasts
_KERNEL_TOP = -4096  # addresses of the kernel are negative numbers below those of the errors
_WORD = (1 << 64) - 1
_ALIASES = {"fp": "x29", "lr": "x30", "wsp": "sp", "wzr": ZERO, "xzr": ZERO, "ip0": "x16", "ip1": "x17"}

_MOVES = {"mov", "movz", "movn", "uxtb", "uxth", "uxtw", "sxtb", "sxth", "sxtw"}
_UNARY = {"neg": "neg", "mvn": "not"}
_BINARY = {
    "add": "add",
    "sub": "sub",
    "subs": "sub",
    "adds": "add",
    "and": "and",
    "ands": "and",
    "orr": "or",
    "eor": "xor",
    "lsl": "shl",
    "lsr": "shr",
    "asr": "sar",
}
# conditional selects: what is done to the side taken where the condition does not hold
_SELECTS: dict[str, tuple[tuple[str, int], ...]] = {
    "csel": (),
    "csinc": (("add", 1),),
    "csinv": (("not", 0),),
    "csneg": (("neg", 0),),
}
# their aliases with one source, which change it where the condition holds
_CHANGES = {"cinc": ("add", 1), "cinv": ("not", 0), "cneg": ("neg", 0)}
_SETS = {"cset": (0, 1), "csetm": (0, -1)}
_COMPARES = {"cmp", "cmn", "tst"}
_LOADS = ("ldr", "ldur", "ldp", "ldar", "ldxr", "ldaxr", "ldtr", "ldpsw", "ldnp")
_STORES = ("str", "stur", "stp", "stlr", "sttr", "stnp")
# b.cond → what its being taken, and not taken, says of a compared with b
_RELATIONS = {
    "eq": ("==", "!="),
    "ne": ("!=", "=="),
    "lt": ("<", ">="),
    "ge": (">=", "<"),
    "le": ("<=", ">"),
    "gt": (">", "<="),
}
_SIGNS = {"mi": ("<", ">="), "pl": (">=", "<")}
# unsigned comparisons with -4096 or -4095, by which IS_ERR_VALUE is done
_ERROR_RANGES = {
    ("hi", -4096): ("error", "not error"),
    ("ls", -4096): ("not error", "error"),
    ("hs", -4095): ("error", "not error"),
    ("lo", -4095): ("not error", "error"),
}


@dataclass(frozen=True, slots=True)
class Operand:
    """A register by full name, an immediate, or memory."""

    register: str = ""
    immediate: int | None = None
    base: str = ""  # of memory
    index: str = ""
    displacement: int = 0
    shift: int = 0  # to the left, of the register or the immediate
    extended: bool = False  # the register is first narrowed, or shifted in another way
    bits: int = 64


@dataclass(frozen=True, slots=True)
class Instruction:
    address: int
    mnemonic: str
    condition: str  # of b.cond and the conditional selects
    operands: tuple[Operand, ...]
    writes: tuple[str, ...]  # registers
    writes_back: bool
    sets_flags: bool
    text: str  # the operands as capstone prints them, for system registers

    @property
    def memory(self) -> Operand | None:
        return next((operand for operand in self.operands if operand.base), None)


_ENGINE = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_LITTLE_ENDIAN)
_ENGINE.detail = True


def decode(code: bytes, address: int) -> Instruction | None:
    """The instruction in the first four bytes; None where they are none."""
    found = next(_ENGINE.disasm(code[:4], address, 1), None)
    if found is None or found.mnemonic == "udf":
        return None
    mnemonic, _, condition = found.mnemonic.partition(".")
    if not condition and found.cc not in (arm64.ARM64_CC_INVALID, arm64.ARM64_CC_AL):
        condition = found.op_str.rpartition(", ")[2]
    operands = tuple(_operand(found, operand) for operand in found.operands)
    return Instruction(
        address,
        mnemonic,
        condition,
        operands,
        _writes(found, mnemonic),
        found.writeback,
        found.update_flags,
        found.op_str,
    )


def _operand(found: capstone.CsInsn, operand: arm64.Arm64Op) -> Operand:
    if operand.type == arm64.ARM64_OP_REG:
        name = found.reg_name(operand.reg)
        plain = operand.ext == arm64.ARM64_EXT_INVALID and operand.shift.type in (0, arm64.ARM64_SFT_LSL)
        bits = 32 if name[0] == "w" else 64
        return Operand(register=_full(name), shift=operand.shift.value, extended=not plain, bits=bits)
    if operand.type == arm64.ARM64_OP_IMM:
        return Operand(immediate=operand.imm << operand.shift.value)
    if operand.type == arm64.ARM64_OP_MEM:
        index = _full(found.reg_name(operand.mem.index)) if operand.mem.index else ""
        shift = operand.shift.value
        return Operand(
            base=_full(found.reg_name(operand.mem.base)), index=index, displacement=operand.mem.disp, shift=shift
        )
    return Operand()


def _full(name: str) -> str:
    if name in _ALIASES:
        return _ALIASES[name]
    return f"x{name[1:]}" if name[0] == "w" and name[1:].isdigit() else name


def _writes(found: capstone.CsInsn, mnemonic: str) -> tuple[str, ...]:
    """Capstone takes the first operand of a comparison for written, and says nothing of atomic operations."""
    if mnemonic in _COMPARES:
        return ()
    if mnemonic in ("hvc", "smc"):
        return _FIRMWARE_CLOBBERS
    written = [found.reg_name(register) for register in found.regs_access()[1]]
    written += [found.reg_name(o.reg) for o in found.operands if o.type == arm64.ARM64_OP_REG and not o.access]
    names = dict.fromkeys(_full(name) for name in written)
    return tuple(name for name in names if name == "sp" or (name[0] == "x" and name != ZERO))


def signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def _at_entry() -> Pointers:
    known: dict[str, Pointer | None] = {register: Pointer(register, 0) for register in ARGUMENTS}
    return Pointers(known | {"sp": Pointer("stack", 0)})


@dataclass(frozen=True, slots=True)
class TableEntry:
    """What was loaded from a table of jump offsets: the table, and bytes an entry."""

    table: int
    size: int
    signed: bool


@dataclass(slots=True)
class Frame:
    """What registers and memory point to; for jump tables also which registers hold an entry, or where it leads."""

    pointers: Pointers = field(default_factory=_at_entry)
    entries: dict[str, TableEntry] = field(default_factory=dict)
    jumps: dict[str, tuple[TableEntry, int]] = field(default_factory=dict)  # register → entry, and what it is added to

    def copy(self) -> Frame:
        return Frame(self.pointers.copy(), dict(self.entries), dict(self.jumps))

    def meet(self, other: Frame) -> bool:
        """Keeps what both agree on; whether that took something away. Tables matter only while code is found."""
        return self.pointers.meet(other.pointers)

    def arguments(self, *, tail: bool) -> tuple[tuple[str, Pointer], ...]:
        """What a callee is given, and where its stack begins."""
        known = [(register, self.pointers[register]) for register in ARGUMENTS]
        stack = self.pointers["sp"]
        if stack is not None and stack.base == "stack":
            known.append(("stack", stack))
        return tuple((name, pointer) for name, pointer in known if pointer is not None)

    def address(self, instruction: Instruction) -> Pointer | None:
        """What the instruction's memory operand points to."""
        memory = instruction.memory
        if memory is None or memory.index:
            return None
        pointer = self.pointers[memory.base]
        return pointer.plus(memory.displacement) if pointer is not None else None

    def advance(self, instruction: Instruction) -> None:
        """Moves the frame past one instruction."""
        result = self.result(instruction)
        entry, jump = self._entry(instruction), self._jump(instruction)
        places = _transferred(instruction, self)
        loaded = {register: self.pointers[place] for register, place in places if place}
        if instruction.mnemonic.startswith(_STORES):
            for register, place in places:
                self.pointers[place] = self.pointers[register]
        if instruction.mnemonic in ("bl", "blr"):
            self.pointers.forget((RETURN_PLACE, *CALL_CLOBBERS))
            self.entries.clear()
            self.jumps.clear()
        for name in instruction.writes:
            self.entries.pop(name, None)
            self.jumps.pop(name, None)
            if name != (instruction.memory.base if instruction.memory and instruction.writes_back else ""):
                self.pointers[name] = loaded.get(name) if instruction.mnemonic.startswith(_LOADS) else result
        self._write_back(instruction)
        if entry is not None:
            self.entries[instruction.operands[0].register] = entry
        if jump is not None:
            self.jumps[instruction.operands[0].register] = jump

    def _write_back(self, instruction: Instruction) -> None:
        memory = instruction.memory
        if memory is not None and instruction.writes_back:
            behind = instruction.operands[-1].immediate  # [x0], #16: only afterwards
            pointer = self.pointers[memory.base]
            by = memory.displacement if behind is None else behind
            self.pointers[memory.base] = pointer.plus(by) if pointer is not None else None

    def result(self, instruction: Instruction) -> Pointer | None:
        """The pointer that an instruction with one result leaves there."""
        operands = instruction.operands
        if not operands or operands[0].bits != 64:
            return None
        if instruction.mnemonic in ("adr", "adrp"):
            return _global(operands[1].immediate)
        if instruction.mnemonic == "mov":
            source = operands[1]
            return self.pointers[source.register] if source.register else None
        if instruction.mnemonic in ("add", "sub") and operands[2].immediate is not None:
            pointer = self.pointers[operands[1].register]
            sign = 1 if instruction.mnemonic == "add" else -1
            return pointer.plus(sign * operands[2].immediate) if pointer is not None else None
        return None

    def _entry(self, instruction: Instruction) -> TableEntry | None:
        size = {"ldrb": 1, "ldrh": 2, "ldrsb": 1, "ldrsh": 2, "ldr": 4, "ldrsw": 4}.get(instruction.mnemonic)
        memory = instruction.memory
        if size is None or memory is None or not memory.index or 1 << memory.shift != size:
            return None
        table = self.pointers[memory.base]
        if table is None or table.base != "global":
            return None
        return TableEntry(table.offset, size, "s" in instruction.mnemonic)

    def _jump(self, instruction: Instruction) -> tuple[TableEntry, int] | None:
        """`add x0, x1, w0, sxth #2`: entries count instructions from the code at x1."""
        if instruction.mnemonic != "add" or instruction.operands[2].shift != 2:
            return None
        base = self.pointers[instruction.operands[1].register]
        entry = self.entries.get(instruction.operands[2].register)
        if base is None or base.base != "global" or entry is None:
            return None
        return TableEntry(entry.table, entry.size, entry.signed or ", s" in instruction.text), base.offset


def _global(address: int | None) -> Pointer | None:
    return Pointer("global", address & _WORD) if address is not None else None


def _transferred(instruction: Instruction, frame: Frame) -> list[tuple[str, str]]:
    """(register, place) of each that a load or store moves; the place "" where memory has no name."""
    if not instruction.mnemonic.startswith((*_LOADS, *_STORES)) or instruction.memory is None:
        return []
    pair = instruction.mnemonic in ("ldp", "stp", "ldpsw", "ldnp", "stnp")
    registers = [operand for operand in instruction.operands if operand.register][: 2 if pair else 1]
    if instruction.mnemonic.startswith("stlxr") or not registers:
        return []
    address = frame.address(instruction)
    size = 4 if instruction.mnemonic == "ldpsw" else registers[0].bits // 8
    return [
        (operand.register, address.plus(size * index).place if address is not None else "")
        for index, operand in enumerate(registers)
    ]


def steps_of(instruction: Instruction, frame: Frame) -> Iterator[Step]:
    """What one instruction, not a call, does to places; `frame` is as it stands before it."""
    known: set[str] = set()
    for step in _known_steps(instruction, frame):
        known.add(step.place)
        if step.place not in (ZERO, "sp"):
            yield step
    for name in instruction.writes:
        if name not in known and name != "sp":
            yield Step(instruction.address, name, StepKind.UNKNOWN)
    if _writes_memory(instruction) and not known and (pointer := frame.address(instruction)) and pointer.place:
        yield Step(instruction.address, pointer.place, StepKind.UNKNOWN)


def _writes_memory(instruction: Instruction) -> bool:
    return instruction.memory is not None and not instruction.mnemonic.startswith((*_LOADS, "prfm"))


def _known_steps(instruction: Instruction, frame: Frame) -> list[Step]:
    mnemonic, operands, at = instruction.mnemonic, instruction.operands, instruction.address
    if mnemonic.startswith((*_LOADS, *_STORES)):
        return _transfer_steps(instruction, frame)
    if not operands or not operands[0].register:
        return []
    place = operands[0].register
    if mnemonic in _SETS:
        return [Step(at, place, StepKind.FLAGS, choices=_SETS[mnemonic])]
    if mnemonic in _SELECTS:
        return _select_steps(instruction, operands[1].register, operands[2].register, _SELECTS[mnemonic])
    if mnemonic in _CHANGES:
        return _select_steps(instruction, operands[1].register, operands[1].register, (_CHANGES[mnemonic],))
    if mnemonic == "movk":
        return _keep_steps(instruction)
    if mnemonic in _MOVES:
        return [_moved(at, place, operands[1])] if not operands[1].extended else []
    if mnemonic in _UNARY and not operands[1].extended and not operands[1].shift:
        return [
            _moved(at, place, operands[1]),
            Step(at, place, StepKind.OPERATE, operator=_UNARY[mnemonic]),
        ]
    if mnemonic in _BINARY and len(operands) > 2 and operands[2].immediate is not None:
        operator = _BINARY[mnemonic]
        operator += "32" if operator in ("shr", "sar") and operands[0].bits == 32 else ""
        return [
            _moved(at, place, operands[1]),
            Step(at, place, StepKind.OPERATE, operator=operator, value=operands[2].immediate),
        ]
    return []


def _moved(at: int, place: str, source: Operand) -> Step:
    if source.immediate is not None:
        return Step(at, place, StepKind.CONST, value=source.immediate)
    if source.register == ZERO:
        return Step(at, place, StepKind.CONST, value=0)
    return Step(at, place, StepKind.COPY, source=source.register)


def _keep_steps(instruction: Instruction) -> list[Step]:
    """`movk`: 16 bits are replaced, the others kept."""
    at, place = instruction.address, instruction.operands[0].register
    value = instruction.operands[1].immediate or 0
    shift = max((value.bit_length() - 1) // 16 * 16, 0)
    return [
        Step(at, place, StepKind.OPERATE, operator="and", value=~(0xFFFF << shift)),
        Step(at, place, StepKind.OPERATE, operator="or", value=value),
    ]


def _select_steps(
    instruction: Instruction, first: str, second: str, operations: tuple[tuple[str, int], ...]
) -> list[Step]:
    """`first`, or `second` after the operations: by the flags."""
    at, place = instruction.address, instruction.operands[0].register
    steps = [_moved(at, OTHER_SIDE, Operand(register=second))]
    steps += [Step(at, OTHER_SIDE, StepKind.OPERATE, operator=name, value=value) for name, value in operations]
    if first != place:
        steps.append(_moved(at, place, Operand(register=first)))
    return [*steps, Step(at, place, StepKind.SELECT, source=OTHER_SIDE)]


def _transfer_steps(instruction: Instruction, frame: Frame) -> list[Step]:
    at = instruction.address
    if instruction.mnemonic.startswith(_LOADS):
        return [
            Step(at, register, StepKind.COPY if place else StepKind.LOAD, source=place)
            for register, place in _transferred(instruction, frame)
        ]
    return [
        _moved(at, place, Operand(register=register)) for register, place in _transferred(instruction, frame) if place
    ]


def taken_address(instruction: Instruction, frame: Frame) -> str:
    """The stack slot whose address the instruction computes, or ""."""
    if instruction.mnemonic not in ("add", "sub", "mov") or instruction.operands[0].register in ("sp", "x29"):
        return ""
    if instruction.mnemonic == "mov" and instruction.operands[1].register != "sp":
        return ""
    pointer = frame.result(instruction)
    return pointer.place if pointer is not None and pointer.base == "stack" else ""


def is_compare(instruction: Instruction) -> bool:
    return instruction.mnemonic in _COMPARES


def tested_place(compare: Instruction, frame: Frame) -> str:
    """The place that a comparison looks at; "" where it is not followed."""
    return compare.operands[0].register


def tests_of(compare: Instruction | None, place: str, jump: Instruction) -> tuple[Test | None, Test | None]:
    """What the jump being taken, and not being taken, says of a place: (taken, not taken).

    `cbz` and `tbz` look at a register themselves; of single bits only the sign is told.
    """
    own = jump.operands[0].register if jump.operands else ""
    if jump.mnemonic in ("cbz", "cbnz"):
        relations = _RELATIONS["eq" if jump.mnemonic == "cbz" else "ne"]
        return Test(own, relations[0], 0), Test(own, relations[1], 0)
    if jump.mnemonic in ("tbz", "tbnz"):
        if jump.operands[1].immediate not in (31, 63):
            return None, None
        relations = _SIGNS["mi" if jump.mnemonic == "tbnz" else "pl"]
        return Test(own, relations[0], 0), Test(own, relations[1], 0)
    if compare is None or not place:
        return None, None
    return _compared(compare, place, jump.condition)


def _compared(compare: Instruction, place: str, condition: str) -> tuple[Test | None, Test | None]:
    second = compare.operands[1]
    if compare.mnemonic == "tst":
        value = 0 if second.register == place and not second.extended and not second.shift else None
    else:
        value = second.immediate
        if second.register == ZERO:
            value = 0
        if value is not None and compare.mnemonic == "cmn":
            value = -value
    if value is None:
        return None, None
    relations = _RELATIONS.get(condition) or _ERROR_RANGES.get((condition, value))
    if relations is None and value == 0:
        relations = _SIGNS.get(condition)
    if relations is None:
        return None, None
    return Test(place, relations[0], value), Test(place, relations[1], value)
