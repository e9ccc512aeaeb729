"""x86-64 as an Architecture: where control goes, its names, its jump tables and the effects of its faults.

What instructions do to values is in `x86`. Sources of the names: arch/x86/lib/retpoline.S for the thunks,
arch/x86/include/asm/static_call.h, arch/x86/include/asm/extable_fixup_types.h for the third word of the
exception table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any

import iced_x86
from iced_x86 import ConditionCode, FlowControl, Mnemonic, OpKind, Register

from profiler.debuginfo import x86
from profiler.debuginfo.architecture import Conventions, Flow, Instruction
from profiler.graph import Step, Test

CONVENTIONS = Conventions(
    return_place=x86.RETURN_PLACE,
    clobbers=x86.CALL_CLOBBERS,
    syscall_prefix="__x64_sys_",
    returned_in={prefix + "_": places for prefix, places in x86.RESULTS_OF.items()},
    return_thunks=(
        "__x86_return_thunk",
        "srso_return_thunk",
        "srso_alias_return_thunk",
        "retbleed_return_thunk",
        "its_return_thunk",
        "call_depth_return_thunk",
    ),
    indirect_thunks=(
        "__x86_indirect_thunk_",
        "__x86_indirect_call_thunk_",
        "__x86_indirect_jump_thunk_",
        "__x86_indirect_its_thunk_",
    ),
    static_call="__SCT__",
    tracing_calls=("__fentry__", "mcount"),
    thunk_padding=16,
)
_FLOWS = {
    FlowControl.UNCONDITIONAL_BRANCH: Flow.JUMP,
    FlowControl.INDIRECT_BRANCH: Flow.JUMP,
    FlowControl.CONDITIONAL_BRANCH: Flow.CONDITIONAL,
    FlowControl.CALL: Flow.CALL,
    FlowControl.INDIRECT_CALL: Flow.CALL,
    FlowControl.RETURN: Flow.RETURN,
    FlowControl.EXCEPTION: Flow.TRAP,
}
_DIRECT = (OpKind.NEAR_BRANCH64, OpKind.NEAR_BRANCH32, OpKind.NEAR_BRANCH16)
_ABOVE = {ConditionCode.A: 1, ConditionCode.AE: 0}  # ja over `cmp x, n`: n + 1 entries
_BOUND_WITHIN = 16  # instructions from a jump back to the comparison that bounds its table
_LARGEST_TABLE = 1024
# The third word of an exception table's entry: its kind, a register as instructions number them, flags, a value.
_SETS_REGISTER, _WRITE_MSR, _READ_MSR = 17, 10, 11
_EIO = 5
_NUMBERED = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
_CLEARED = ((1, "rax"), (2, "rdx"))


class X86:
    conventions = CONVENTIONS
    longest = 15

    def decode(self, code: bytes, address: int) -> Instruction | None:
        raw = next(x86.decode(code[: self.longest], address), None)
        if raw is None or raw.is_invalid:
            return None
        flow = Flow.TRAP if x86.is_trap(raw) else _FLOWS.get(raw.flow_control, Flow.NEXT)
        direct = raw.op_count > 0 and raw.op0_kind in _DIRECT
        if flow == Flow.CALL and not direct and raw.flow_control == FlowControl.CALL:
            flow = Flow.NEXT  # vmcall and its like, which iced counts among the calls
        register = ""
        if raw.flow_control == FlowControl.INDIRECT_BRANCH and raw.op0_kind == OpKind.REGISTER:
            register = x86.place_of_register(raw.op0_register)
        return Instruction(address, raw.next_ip, flow, raw, raw.near_branch_target if direct else None, register)

    def frame(self) -> x86.Frame:
        return x86.Frame()

    def steps_of(self, raw: iced_x86.Instruction, frame: x86.Frame) -> Iterable[Step]:
        return x86.steps_of(raw, frame)

    def taken_address(self, raw: iced_x86.Instruction, frame: x86.Frame) -> str:
        return x86.taken_address(raw, frame)

    def is_compare(self, raw: iced_x86.Instruction) -> bool:
        return x86.is_compare(raw)

    def sets_flags(self, raw: iced_x86.Instruction) -> bool:
        return x86.sets_flags(raw)

    def tested_place(self, raw: iced_x86.Instruction, frame: x86.Frame) -> str:
        return x86.tested_place(raw, frame)

    def tests_of(
        self, compare: iced_x86.Instruction | None, place: str, jump: iced_x86.Instruction
    ) -> tuple[Test | None, Test | None]:
        return x86.tests_of(compare, place, jump)

    def interrupts_after(self, raw: iced_x86.Instruction, off: bool) -> bool:
        return x86.interrupts_after(raw, off)

    def table(
        self,
        jump: Instruction,
        before: Callable[[int], Instruction | None],
        read: Callable[[int, int], bytes],
        frame: x86.Frame,
    ) -> Iterator[int]:
        """Tables of 8-byte addresses: `jmp *table(,%rax,8)`, or loaded so into the register that is jumped to."""
        preceding = list(_preceding(jump, before))
        start = _table_address(jump, preceding)
        if start is None:
            return
        for index in range(_entries(preceding)):
            yield int.from_bytes(read(start + 8 * index, 8), "little")

    def fault_effects(self, word: int) -> tuple[tuple[str, int], ...]:
        kind, register, flags, value = word & 0xFF, word >> 8 & 0xF, word >> 12 & 0xF, x86.signed(word >> 16, 16)
        if kind == _SETS_REGISTER:
            return ((_NUMBERED[register], value), *((place, 0) for bit, place in _CLEARED if flags & bit))
        if kind in (_WRITE_MSR, _READ_MSR):
            return ((_NUMBERED[register], -_EIO),)
        return tuple((place, 0) for bit, place in _CLEARED if flags & bit)


def _preceding(jump: Instruction, before: Callable[[int], Instruction | None]) -> Iterator[Instruction]:
    """Backwards from the jump, as far as instructions follow one another without a gap."""
    found = before(jump.address)
    for _ in range(_BOUND_WITHIN):
        if found is None:
            return
        yield found
        found = before(found.address)


def _table_address(jump: Instruction, preceding: list[Instruction]) -> int | None:
    """Of the jump itself, or of the load that gives the register it jumps to; a retpoline's register is not told."""
    if not jump.register and jump.raw.op0_kind == OpKind.MEMORY:
        return _indexed(jump.raw)
    for instruction in preceding:
        raw = instruction.raw
        if raw.op_count and raw.op0_kind == OpKind.REGISTER:
            if jump.register and x86.place_of_register(raw.op0_register) != jump.register:
                continue
            return _indexed(raw) if raw.mnemonic == Mnemonic.MOV else None
    return None


def _indexed(raw: Any) -> int | None:
    """The table's address in `table(,%index,8)`."""
    if OpKind.MEMORY not in (raw.op0_kind, raw.op_kind(raw.op_count - 1)):
        return None
    plain = raw.memory_base == Register.NONE != raw.memory_index and raw.memory_index_scale == 8
    return raw.memory_displacement if plain and raw.memory_displacement >> 63 else None


def _entries(preceding: list[Instruction]) -> int:
    """How many entries the comparison before the jump lets through."""
    for behind, instruction in pairwise(preceding):
        if behind.flow == Flow.CONDITIONAL and behind.raw.condition_code in _ABOVE:
            bound = x86.immediate(instruction.raw, 1) if instruction.raw.mnemonic == Mnemonic.CMP else None
            if bound is not None and 0 <= bound < _LARGEST_TABLE:
                return bound + _ABOVE[behind.raw.condition_code]
    return _LARGEST_TABLE


X86_64 = X86()
