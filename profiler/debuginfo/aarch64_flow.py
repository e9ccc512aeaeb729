"""AArch64 as an Architecture: where control goes, its names, its jump tables and the effects of its faults.

What instructions do to values is in `aarch64`. Source of the exception table's third word:
arch/arm64/include/asm/asm-extable.h, since Linux 5.16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from profiler.debuginfo import aarch64
from profiler.debuginfo.architecture import Conventions, Flow, Instruction
from profiler.graph import Step, Test

CONVENTIONS = Conventions(
    return_place=aarch64.RETURN_PLACE,
    clobbers=aarch64.CALL_CLOBBERS,
    syscall_prefix="__arm64_sys_",
    tracing_calls=("_mcount", "ftrace_caller", "ftrace_regs_caller"),
)
_FLOWS = {
    "bl": Flow.CALL,
    "blr": Flow.CALL,
    "br": Flow.JUMP,
    "cbz": Flow.CONDITIONAL,
    "cbnz": Flow.CONDITIONAL,
    "tbz": Flow.CONDITIONAL,
    "tbnz": Flow.CONDITIONAL,
    "ret": Flow.RETURN,
    "retaa": Flow.RETURN,
    "retab": Flow.RETURN,
    "eret": Flow.RETURN,
    "brk": Flow.TRAP,
}
_DIRECT = ("b", "bl", "cbz", "cbnz", "tbz", "tbnz")
_ABOVE = {"hi": 1, "hs": 0}  # b.hi over `cmp x, n`: n + 1 entries
_BOUND_WITHIN = 24  # instructions from a jump back to the comparison that bounds its table
_LARGEST_TABLE = 1024
# The exception table's third word: its kind in the lower half; in the upper a register that gets -EFAULT and one that
# gets 0, five bits each. The kind of user accesses became 2 in Linux 5.19, 3 are now those of the kernel.
_SETS_REGISTERS = (2, 3)
_EFAULT = 14
_NONE = 31
_WORD = (1 << 64) - 1


class AArch64:
    conventions = CONVENTIONS
    longest = 4

    def decode(self, code: bytes, address: int) -> Instruction | None:
        raw = aarch64.decode(code, address)
        if raw is None:
            return None
        to = raw.operands[-1].immediate if raw.mnemonic in _DIRECT else None
        target = to & _WORD if to is not None else None
        flow = _FLOWS.get(raw.mnemonic, Flow.NEXT)
        if raw.mnemonic == "b":
            flow = Flow.CONDITIONAL if raw.condition else Flow.JUMP
        register = raw.operands[0].register if raw.mnemonic == "br" else ""
        return Instruction(address, address + 4, flow, raw, target, register)

    def frame(self) -> aarch64.Frame:
        return aarch64.Frame()

    def steps_of(self, raw: aarch64.Instruction, frame: aarch64.Frame) -> Iterable[Step]:
        return aarch64.steps_of(raw, frame)

    def taken_address(self, raw: aarch64.Instruction, frame: aarch64.Frame) -> str:
        return aarch64.taken_address(raw, frame)

    def is_compare(self, raw: aarch64.Instruction) -> bool:
        return aarch64.is_compare(raw)

    def sets_flags(self, raw: aarch64.Instruction) -> bool:
        return raw.sets_flags

    def tested_place(self, raw: aarch64.Instruction, frame: aarch64.Frame) -> str:
        return aarch64.tested_place(raw, frame)

    def tests_of(
        self, compare: aarch64.Instruction | None, place: str, jump: aarch64.Instruction
    ) -> tuple[Test | None, Test | None]:
        return aarch64.tests_of(compare, place, jump)

    def interrupts_after(self, raw: aarch64.Instruction, off: bool) -> bool:
        """By the mask bits of DAIF; writing them whole is taken to restore them on."""
        if raw.mnemonic != "msr" or not raw.text.lower().startswith("daif"):
            return off
        return raw.text.lower().startswith("daifset")

    def table(
        self,
        jump: Instruction,
        before: Callable[[int], Instruction | None],
        read: Callable[[int, int], bytes],
        frame: aarch64.Frame,
    ) -> Iterator[int]:
        """Tables of distances, in instructions, from the code at a label; the frame has followed them to the jump."""
        found = frame.jumps.get(jump.register)
        if found is None:
            return
        entry, base = found
        for index in range(_entries(jump, before)):
            data = read(entry.table + entry.size * index, entry.size)
            yield base + 4 * int.from_bytes(data, "little", signed=entry.signed)

    def fault_effects(self, word: int) -> tuple[tuple[str, int], ...]:
        kind, failed, cleared = word & 0xFFFF, word >> 16 & 31, word >> 21 & 31
        if kind not in _SETS_REGISTERS:
            return ()
        effects = ((failed, -_EFAULT), (cleared, 0))
        return tuple((f"x{register}", value) for register, value in effects if register != _NONE)


def _entries(jump: Instruction, before: Callable[[int], Instruction | None]) -> int:
    """How many entries the comparison before the jump lets through."""
    branch: Instruction | None = None
    found = before(jump.address)
    for _ in range(_BOUND_WITHIN):
        if found is None:
            break
        if branch is not None and found.raw.mnemonic == "cmp":
            bound = found.raw.operands[1].immediate
            return bound + _ABOVE[branch.raw.condition] if bound is not None else _LARGEST_TABLE
        if found.flow == Flow.CONDITIONAL and found.raw.condition in _ABOVE:
            branch = found
        found = before(found.address)
    return _LARGEST_TABLE


AARCH64 = AArch64()
