"""What a conditional jump, move or set of x86-64 compares: the operands of the instruction that set the flags."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from iced_x86 import ConditionCode, Instruction, Mnemonic, OpKind, Register, RflagsBits

from profiler.debuginfo import x86
from profiler.debuginfo.operands import WORD, Constant, Memory, Operation, Value, plus
from profiler.debuginfo.operands import Register as Held
from profiler.graph import Block, EdgeKind, FunctionGraph

_STATUS = RflagsBits.OF | RflagsBits.SF | RflagsBits.ZF | RflagsBits.CF | RflagsBits.PF
_FARTHEST = 8  # blocks followed backwards, each the only way to the next
_EQUALITY = {ConditionCode.E: "==", ConditionCode.NE: "!="}
_SIGNED = {ConditionCode.L: "<", ConditionCode.GE: ">=", ConditionCode.LE: "<=", ConditionCode.G: ">"}
_UNSIGNED = {ConditionCode.B: "<", ConditionCode.AE: ">=", ConditionCode.BE: "<=", ConditionCode.A: ">"}
_SIGN = {ConditionCode.S: "<", ConditionCode.NS: ">="}
_RESULT_OF = {
    Mnemonic.AND: "and",
    Mnemonic.OR: "or",
    Mnemonic.XOR: "xor",
    Mnemonic.ADD: "add",
    Mnemonic.SUB: "sub",
    Mnemonic.SHR: "shr",
    Mnemonic.SHL: "shl",
    Mnemonic.SAR: "sar",
}
_MOVES = (Mnemonic.MOV, Mnemonic.MOVZX, Mnemonic.MOVSX, Mnemonic.MOVSXD)
_SEGMENTS = {Register.GS: "gs", Register.FS: "fs"}
_HIGH_BYTES = (Register.AH, Register.BH, Register.CH, Register.DH)


class Code(Protocol):
    """What is asked of a kernel's code; profiler.debuginfo.code.KernelCode."""

    @property
    def machine(self) -> str: ...
    def read(self, address: int, size: int) -> bytes: ...
    def function_at(self, address: int) -> tuple[str, int, int] | None: ...
    def owner_of(self, address: int) -> tuple[str, int, int] | None: ...
    def graph(self, entry: int) -> FunctionGraph: ...


@dataclass(frozen=True, slots=True)
class Origin:
    """How an operand came into its register. kind: memory (it is none, or was loaded), call, argument, constant,
    computed, unknown."""

    kind: str
    callee: str = ""  # of a call, where it is known


@dataclass(frozen=True, slots=True)
class Comparison:
    """`left relation right`, of which the jump is taken where it holds.

    Both are zero-extended numbers of `bits` bits, to be taken as signed ones where `signed` says so; None where the
    relation does not tell. `masked`: left is a bitwise and, and right zero. `address`: the instruction before which
    the operands can be read.
    """

    address: int
    jump: int
    left: Value
    relation: str
    right: Value
    bits: int
    signed: bool | None
    masked: bool = False
    left_origin: Origin = Origin("unknown")
    right_origin: Origin = Origin("unknown")


def comparison_at(code: Code, address: int) -> Comparison | None:
    """Of the jump, conditional move or set, or `sbb`, at an address; None where it is none, or not told.

    Raises LookupError where no function is.
    """
    if code.machine != "x86_64":
        return None
    owner = code.owner_of(address)
    if owner is None:
        raise LookupError(f"no function at {address:#x}")
    graph = code.graph(owner[1])
    history = list(_backwards(code, graph, address))
    if not history or history[0][0].ip != address:
        return None
    deciding = history[0][0]
    # sbb takes the carry off, which a comparison leaves where the first is below the second
    condition = ConditionCode.B if deciding.mnemonic == Mnemonic.SBB else deciding.condition_code
    if condition == ConditionCode.NONE:
        return None
    at = next((i for i, (before, _) in enumerate(history[1:], 1) if _may_set_flags(before)), None)
    if at is None:
        return None
    setter = history[at][0]
    found = _compared(setter, condition, _Origins(code, [before for before, _ in history[at + 1 :]]))
    if found is None:
        return None
    same_block = all(block is history[0][1] for _, block in history[: at + 1])
    read_at = setter.ip if same_block or not _undisturbed(setter, [before for before, _ in history[:at]]) else address
    return Comparison(read_at, address, *found)


def _may_set_flags(instruction: Instruction) -> bool:
    return bool(instruction.rflags_modified & _STATUS) or _is_call(instruction)


def _is_call(instruction: Instruction) -> bool:
    return instruction.is_call_near or instruction.is_call_near_indirect


def _backwards(code: Code, graph: FunctionGraph, address: int) -> Iterator[tuple[Instruction, Block]]:
    """The instruction at the address and those that ran before it, the nearest first, as far as there is one way."""
    block = next((b for b in graph.blocks.values() if b.start <= address < b.end), None)
    end = address
    for _ in range(_FARTHEST):
        if block is None:
            return
        instructions = list(x86.decode(code.read(block.start, block.end - block.start), block.start))
        for instruction in reversed([i for i in instructions if i.ip <= end]):
            yield instruction, block
        ways = [b for b in graph.blocks.values() if any(e.target == block.start for e in b.edges)]
        if len(ways) != 1 or block.start == graph.entry:
            return
        if any(e.kind == EdgeKind.FAULT for e in ways[0].edges if e.target == block.start):
            return
        block, end = ways[0], ways[0].end


def _undisturbed(setter: Instruction, between: list[Instruction]) -> bool:
    """Whether the operands are still the same at the jump."""
    if setter.mnemonic not in (Mnemonic.CMP, Mnemonic.TEST, Mnemonic.BT):
        return False
    read = {x86.place_of_register(setter.op_register(i)) for i in (0, 1) if setter.op_kind(i) == OpKind.REGISTER}
    read |= {x86.place_of_register(setter.memory_base), x86.place_of_register(setter.memory_index)}
    for instruction in between:
        registers, memory = x86.written(instruction)
        if memory or read & set(registers):
            return False
    return True


_Found = tuple[Value, str, Value, int, bool | None, bool, Origin, Origin]


def _compared(setter: Instruction, condition: int, origins: _Origins) -> _Found | None:
    """The fields of a Comparison from `left` on."""
    mnemonic = setter.mnemonic
    if setter.has_lock_prefix or not setter.op_count or _is_call(setter):
        return None
    bits = x86.operand_bits(setter, 0)
    left, left_origin = operand(setter, 0, bits), origins.of(setter, 0)
    right = operand(setter, 1, bits) if setter.op_count > 1 else Constant(0)
    right_origin = origins.of(setter, 1) if setter.op_count > 1 else Origin("constant")
    if left is None or right is None:
        return None
    if mnemonic == Mnemonic.NEG and condition in (ConditionCode.B, ConditionCode.AE):
        relation = "!=" if condition == ConditionCode.B else "=="
        return left, relation, Constant(0), bits, None, False, left_origin, Origin("constant")
    if mnemonic == Mnemonic.BT:
        return _bit(left, right, bits, condition, left_origin)
    if mnemonic == Mnemonic.CMP or (mnemonic == Mnemonic.SUB and condition not in _SIGN):
        relation, is_signed = _relation(condition)
        if condition in _SIGN and right != Constant(0):
            return None
        return (left, relation, right, bits, is_signed, False, left_origin, right_origin) if relation else None
    return _with_zero(setter, condition, left, right, (left_origin, right_origin), bits)


def _relation(condition: int) -> tuple[str, bool | None]:
    if condition in _EQUALITY:
        return _EQUALITY[condition], None  # type: ignore[index]
    if condition in _SIGNED:
        return _SIGNED[condition], True  # type: ignore[index]
    if condition in _UNSIGNED:
        return _UNSIGNED[condition], False  # type: ignore[index]
    return (_SIGN[condition], True) if condition in _SIGN else ("", None)  # type: ignore[index]


def _bit(left: Value, right: Value, bits: int, condition: int, origin: Origin) -> _Found | None:
    """`bt` puts one bit into the carry flag."""
    if condition not in (ConditionCode.B, ConditionCode.AE):
        return None
    number = Operation("and", right, Constant(bits - 1))
    mask = Operation("shl", Constant(1), number)
    if isinstance(right, Constant):
        mask_value: Value = Constant(1 << (right.value & (bits - 1)))
    else:
        mask_value = mask
    relation = "!=" if condition == ConditionCode.B else "=="
    whole = Operation("and", left, mask_value)
    return whole, relation, Constant(0), bits, None, True, origin, Origin("constant")


def _with_zero(
    setter: Instruction, condition: int, left: Value, right: Value, origins: tuple[Origin, Origin], bits: int
) -> _Found | None:
    """`test`, and arithmetic whose result is compared with zero."""
    mnemonic = setter.mnemonic
    is_test = mnemonic == Mnemonic.TEST
    relation, is_signed = _relation(condition)
    if condition not in (*_EQUALITY, *_SIGN) and not (is_test and is_signed):
        return None
    zero = Constant(0)
    if is_test and left == right:
        return left, relation, zero, bits, is_signed, False, origins[0], Origin("constant")
    if is_test or mnemonic == Mnemonic.AND:
        whole = Operation("and", left, right)
        return whole, relation, zero, bits, is_signed, True, origins[0], origins[1]
    if mnemonic == Mnemonic.XOR and condition in _EQUALITY:
        return left, relation, right, bits, None, False, *origins
    operator = _RESULT_OF.get(mnemonic)
    if mnemonic in (Mnemonic.INC, Mnemonic.DEC):
        operator, right = ("add" if mnemonic == Mnemonic.INC else "sub"), Constant(1)
    if operator is None or (operator in ("shr", "sar", "shl") and not isinstance(right, Constant)):
        return None
    if operator == "sar":
        left = Operation("sign", left, Constant(bits))
    whole = Operation("zero", Operation(operator, left, right), Constant(bits))
    return whole, relation, zero, bits, is_signed, False, Origin("computed"), Origin("constant")


def operand(instruction: Instruction, index: int, bits: int) -> Value | None:
    """An operand as a number of `bits` bits."""
    kind = instruction.op_kind(index)
    if kind == OpKind.REGISTER:
        register = instruction.op_register(index)
        place = x86.place_of_register(register)
        if not place:
            return None
        value: Value = Held(place)
        if register in _HIGH_BYTES:
            value = Operation("shr", value, Constant(8))
        return value if bits == 64 else Operation("zero", value, Constant(bits))
    if kind == OpKind.MEMORY:
        return memory_operand(instruction)
    value_of = x86.immediate(instruction, index)
    return Constant(value_of & ((1 << bits) - 1)) if value_of is not None else None


def memory_operand(instruction: Instruction) -> Memory:
    segment = _SEGMENTS.get(instruction.segment_prefix, "")
    size = x86.memory_bytes(instruction)
    if instruction.is_ip_rel_memory_operand:
        return Memory(Constant(instruction.ip_rel_memory_address), size, segment)
    displacement = instruction.memory_displacement & WORD
    base, index = x86.place_of_register(instruction.memory_base), x86.place_of_register(instruction.memory_index)
    address: Value = Held(base) if base else Constant(0)
    if index:
        scaled = Operation("mul", Held(index), Constant(instruction.memory_index_scale))
        address = Operation("add", address, scaled) if base else scaled
    return Memory(plus(address, x86.signed(displacement, 64)), size, segment)


class _Origins:
    """Of operands, by the instructions that ran before, the nearest first."""

    def __init__(self, code: Code, before: list[Instruction]) -> None:
        self._code = code
        self._before = before

    def of(self, instruction: Instruction, index: int) -> Origin:
        kind = instruction.op_kind(index)
        if kind == OpKind.MEMORY:
            return Origin("memory")
        if kind != OpKind.REGISTER:
            return Origin("constant")
        return self._of_register(x86.place_of_register(instruction.op_register(index)))

    def _of_register(self, register: str) -> Origin:
        for before in self._before:
            if _is_call(before):
                if register == x86.RETURN_PLACE:
                    return Origin("call", self._callee(before))
                if register in x86.CALL_CLOBBERS:
                    return Origin("unknown")
            elif register in x86.written(before)[0]:
                if before.mnemonic not in _MOVES or before.op_kind(0) != OpKind.REGISTER:
                    return Origin("computed")
                if before.op_kind(1) == OpKind.MEMORY:
                    return Origin("memory")
                if before.op_kind(1) != OpKind.REGISTER:
                    return Origin("constant")
                register = x86.place_of_register(before.op_register(1))
        return Origin("unknown")

    def _callee(self, call: Instruction) -> str:
        if call.op0_kind != OpKind.NEAR_BRANCH64:
            return ""
        found = self._code.function_at(call.near_branch_target)
        return found[0] if found else ""
