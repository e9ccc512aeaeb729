"""x86-64 instructions as an execution log needs them: where control goes, and which operand takes its value from where.

Unlike x86.steps_of, which reasons about code that may run, memory operands are kept whole here: the log
has the registers, so that every address is known.
"""

from __future__ import annotations

from iced_x86 import ConditionCode, FlowControl, Instruction, Mnemonic, OpKind, Register, RegisterExt

from profiler.debuginfo import x86
from profiler.graph import Control, Executed, Memory, Move, Operand, StepKind

_CONTROL = {
    FlowControl.CONDITIONAL_BRANCH: Control.CONDITIONAL,
    FlowControl.UNCONDITIONAL_BRANCH: Control.JUMP,
    FlowControl.INDIRECT_BRANCH: Control.JUMP,
    FlowControl.CALL: Control.CALL,
    FlowControl.INDIRECT_CALL: Control.CALL,
}
_INDIRECT = (FlowControl.INDIRECT_BRANCH, FlowControl.INDIRECT_CALL)
_SYSCALL_RETURNS = (Mnemonic.SYSRET, Mnemonic.SYSRETQ, Mnemonic.SYSEXIT, Mnemonic.SYSEXITQ)
_INTERRUPT_RETURNS = (Mnemonic.IRET, Mnemonic.IRETD, Mnemonic.IRETQ)
_SEGMENTS = {Register.GS: "gs", Register.FS: "fs"}
_CONDITIONS = {
    getattr(ConditionCode, name): name.lower() for name in dir(ConditionCode) if name.isalpha() and name != "NONE"
}
_COMPARES = (Mnemonic.CMP, Mnemonic.TEST)
# String instructions, one element at a time in the log.
_STRING_MOVES = (Mnemonic.MOVSB, Mnemonic.MOVSW, Mnemonic.MOVSD, Mnemonic.MOVSQ)
_STRING_STORES = (Mnemonic.STOSB, Mnemonic.STOSW, Mnemonic.STOSD, Mnemonic.STOSQ)


def decode(code: bytes, address: int) -> Executed | None:
    """The instruction at the start of `code`; None where the bytes are none."""
    instruction = next(x86.decode(code, address), None)
    if instruction is None or instruction.is_invalid:
        return None
    direct = instruction.op_count > 0 and instruction.op0_kind == OpKind.NEAR_BRANCH64
    return Executed(
        address,
        instruction.next_ip,
        _control(instruction),
        instruction.near_branch_target if direct else None,
        tuple(_moves(instruction)),
        _operand(instruction, 0) if instruction.flow_control in _INDIRECT else None,
        _CONDITIONS[instruction.condition_code] if instruction.is_jcc_short_or_near else "",
        _stack(instruction),
        _width(instruction),
    )


def _stack(instruction: Instruction) -> int | None:
    if instruction.flow_control in (FlowControl.CALL, FlowControl.INDIRECT_CALL):
        return 0
    if instruction.is_stack_instruction:
        return None if instruction.mnemonic == Mnemonic.LEAVE else instruction.stack_pointer_increment
    if instruction.op_count == 0 or instruction.op0_kind != OpKind.REGISTER or instruction.op0_register != Register.RSP:
        return 0
    if instruction.mnemonic in _COMPARES:
        return 0
    value = x86.immediate(instruction, 1) if instruction.op_count == 2 else None
    sign = {Mnemonic.ADD: 1, Mnemonic.SUB: -1}.get(instruction.mnemonic)
    return sign * value if sign is not None and value is not None else None


def _width(instruction: Instruction) -> int:
    if instruction.op_count == 0 or instruction.op0_kind != OpKind.REGISTER:
        return 0
    bits = 8 * RegisterExt.size(instruction.op0_register)
    for index in range(1, instruction.op_count):
        if instruction.op_kind(index) == OpKind.REGISTER:
            same = 8 * RegisterExt.size(instruction.op_register(index)) == bits
            return bits if same else 0
    return bits


def _control(instruction: Instruction) -> Control:
    if instruction.mnemonic in _SYSCALL_RETURNS:
        return Control.SYSCALL_RETURN
    if instruction.mnemonic in _INTERRUPT_RETURNS:
        return Control.INTERRUPT_RETURN
    if instruction.flow_control == FlowControl.RETURN:
        return Control.RETURN
    return _CONTROL.get(instruction.flow_control, Control.NEXT)


def _moves(instruction: Instruction) -> list[Move]:
    """What is known first; whatever else it writes holds an unknown value afterwards."""
    moves = _known(instruction)
    known = {move.to for move in moves}
    registers, writes_memory = x86.written(instruction)
    for register in registers:
        if register not in known and register not in ("", "rsp", "rip"):
            moves.append(Move(register, StepKind.UNKNOWN))
    if writes_memory and not any(isinstance(to, Memory) for to in known) and (to := _memory(instruction)) is not None:
        moves.append(Move(to, StepKind.UNKNOWN))
    return moves


def _known(instruction: Instruction) -> list[Move]:
    mnemonic = instruction.mnemonic
    if mnemonic == Mnemonic.PUSH:
        return [_from(instruction, 0, Memory("rsp", "", 1, -8))]
    if mnemonic == Mnemonic.POP:
        to = _operand(instruction, 0)
        return [Move(to, StepKind.COPY, Memory("rsp", "", 1, 0))] if to is not None else []
    if mnemonic == Mnemonic.LEAVE:
        return [Move("rbp", StepKind.COPY, Memory("rbp", "", 1, 0))]
    if mnemonic == Mnemonic.CDQE:
        return [Move("rax", StepKind.COPY, "rax")]
    if instruction.op_count == 0 or mnemonic in _COMPARES:
        return []
    if mnemonic in (*_STRING_MOVES, *_STRING_STORES):
        return [_string(instruction)]
    to = _operand(instruction, 0)
    return _to(instruction, to) if to is not None else []


def _string(instruction: Instruction) -> Move:
    """A repeated one has a row behind its last element, too, at which the count is zero."""
    size = x86.memory_bytes(instruction)
    source = Memory("rsi", "", 1, 0, size) if instruction.mnemonic in _STRING_MOVES else "rax"
    repeated = instruction.has_rep_prefix or instruction.has_repne_prefix
    return Move(Memory("rdi", "", 1, 0, size), StepKind.COPY, source, counter="rcx" if repeated else "")


def _to(instruction: Instruction, to: Operand) -> list[Move]:
    mnemonic = instruction.mnemonic
    if mnemonic in (Mnemonic.MOV, Mnemonic.MOVZX, Mnemonic.MOVSX, Mnemonic.MOVSXD):
        return [_from(instruction, 1, to)]
    if mnemonic == Mnemonic.XCHG:
        other = _operand(instruction, 1)
        return [Move(to, StepKind.COPY, other), Move(other, StepKind.COPY, to)] if other is not None else []
    if mnemonic == Mnemonic.CMPXCHG:  # the old value of the memory, whether it was exchanged or not
        return [Move("rax", StepKind.COPY, to), Move(to, StepKind.UNKNOWN)]
    if mnemonic in (Mnemonic.SBB, Mnemonic.XOR, Mnemonic.SUB) and _same_registers(instruction):
        if mnemonic == Mnemonic.SBB:
            return [Move(to, StepKind.FLAGS)]
        return [Move(to, StepKind.CONST, value=0)]
    if mnemonic in (Mnemonic.NEG, Mnemonic.NOT):
        return [Move(to, StepKind.OPERATE, operator="neg" if mnemonic == Mnemonic.NEG else "not")]
    if mnemonic == Mnemonic.LEA:
        return _lea(instruction, to)
    if instruction.condition_code != ConditionCode.NONE:
        return [_conditional(instruction, to)]
    return _arithmetic(instruction, to)


def _from(instruction: Instruction, index: int, to: Operand) -> Move:
    value = x86.immediate(instruction, index)
    if value is not None:
        return Move(to, StepKind.CONST, value=value)
    source = _operand(instruction, index)
    return Move(to, StepKind.UNKNOWN if source is None else StepKind.COPY, source)


def _same_registers(instruction: Instruction) -> bool:
    both = instruction.op0_kind == OpKind.REGISTER == instruction.op1_kind
    return both and instruction.op0_register == instruction.op1_register


def _lea(instruction: Instruction, to: Operand) -> list[Move]:
    """`lea to, [r + n]` adds; what has two registers is left unknown."""
    memory = _memory(instruction)
    if memory is None or not memory.base or memory.index:
        return []
    return [Move(to, StepKind.OPERATE, source=memory.base, operator="add", value=memory.displacement)]


def _conditional(instruction: Instruction, to: Operand) -> Move:
    if instruction.op_count == 1:  # setcc
        return Move(to, StepKind.FLAGS)
    source = _operand(instruction, 1)
    return Move(to, StepKind.SELECT, source, condition=_CONDITIONS[instruction.condition_code])


def _arithmetic(instruction: Instruction, to: Operand) -> list[Move]:
    value = x86.immediate(instruction, 1) if instruction.op_count == 2 else None
    operator = x86.OPERATORS.get(instruction.mnemonic)
    if value is None or operator is None:
        return []
    if operator == "or" and value == -1:  # how -Os loads -EPERM
        return [Move(to, StepKind.CONST, value=-1)]
    if operator in ("shr", "sar") and x86.operand_bits(instruction, 0) == 32:
        operator += "32"
    return [Move(to, StepKind.OPERATE, operator=operator, value=value)]


def _operand(instruction: Instruction, index: int) -> Operand | None:
    kind = instruction.op_kind(index)
    if kind == OpKind.REGISTER:
        return x86.place_of_register(instruction.op_register(index)) or None
    return _memory(instruction) if kind == OpKind.MEMORY else None


def _memory(instruction: Instruction) -> Memory | None:
    if not any(instruction.op_kind(index) == OpKind.MEMORY for index in range(instruction.op_count)):
        return None
    segment = _SEGMENTS.get(instruction.segment_prefix, "")
    size = x86.memory_bytes(instruction)
    if instruction.is_ip_rel_memory_operand:
        return Memory("", "", 1, instruction.ip_rel_memory_address, size, segment)
    return Memory(
        x86.place_of_register(instruction.memory_base),
        x86.place_of_register(instruction.memory_index),
        instruction.memory_index_scale,
        x86.signed(instruction.memory_displacement, 64),
        size,
        segment,
    )
