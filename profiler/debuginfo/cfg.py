"""The control-flow graph of one kernel function, found by following its jumps from the entry.

Following (rather than decoding from start to end) leaves padding and data alone, and takes in the
parts that the compiler put elsewhere (NAME.cold). A jump to another function's start is a tail call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from iced_x86 import FlowControl, Instruction, OpKind

from profiler.debuginfo import x86
from profiler.graph import Block, Call, Edge, EdgeKind, FunctionGraph, Step

_LONGEST_FUNCTION = 20_000  # instructions; the largest in a stock kernel have some 10,000
_RETURN_THUNKS = (
    "__x86_return_thunk",
    "srso_return_thunk",
    "srso_alias_return_thunk",
    "retbleed_return_thunk",
    "its_return_thunk",
)
_CALL_THUNKS = (
    "__x86_indirect_thunk_",
    "__x86_indirect_call_thunk_",
    "__x86_indirect_jump_thunk_",
    "__x86_indirect_its_thunk_",
    "__SCT__",
)
_NOPS_UNTIL_PATCHED = ("__fentry__", "mcount")
NO_RETURN = frozenset(
    (
        "__stack_chk_fail",
        "panic",
        "nmi_panic",
        "do_exit",
        "make_task_dead",
        "do_group_exit",
        "__fortify_panic",
        "fortify_panic",
        "rewind_stack_and_make_dead",
        "rewind_stack_do_exit",
        "__ubsan_handle_builtin_unreachable",
    )
)


@dataclass(frozen=True, slots=True)
class Text:
    """What the builder needs to know of the kernel's text. `read` gives the bytes at a link address;
    `symbol_at` the (name, start, end) of the function that holds an address."""

    read: Callable[[int, int], bytes]
    symbol_at: Callable[[int], tuple[str, int, int] | None]
    fixups: Mapping[int, int] = field(default_factory=dict)  # exception table: instruction → fixup
    keys: Mapping[int, int] = field(default_factory=dict)  # static keys: nop or jump → the other side


@dataclass(slots=True)
class _Run:
    """Instructions from one leader on, up to the first that ends a block."""

    instructions: list[Instruction]
    frame: x86.Frame
    interrupts_off: bool


def build(text: Text, entry: int) -> FunctionGraph:
    """The graph of the function that starts at `entry`. Raises LookupError where no function is there."""
    symbol = text.symbol_at(entry)
    if symbol is None:
        raise LookupError(f"no function at {entry:#x}")
    return _Builder(text, symbol).graph()


class _Builder:
    def __init__(self, text: Text, symbol: tuple[str, int, int]) -> None:
        self.text = text
        self.name, self.entry, _ = symbol
        self.base_name = self.name.split(".")[0]
        self.code: dict[int, bytes] = {}  # by the start of a symbol
        self.instructions: dict[int, Instruction] = {}
        self.frames: dict[int, tuple[x86.Frame, bool]] = {}  # leader → frame, interrupts off
        self.undecoded: list[int] = []
        self.escaped: set[str] = set()

    def graph(self) -> FunctionGraph:
        self._explore()
        leaders = sorted(self.frames)
        blocks = {leader: self._block(leader) for leader in leaders if leader in self.instructions}
        return FunctionGraph(self.name, self.entry, blocks, tuple(self.undecoded), frozenset(self.escaped))

    def _explore(self) -> None:
        pending = [(self.entry, x86.Frame(), False)]
        while pending and len(self.instructions) < _LONGEST_FUNCTION:
            address, frame, off = pending.pop()
            if address in self.frames:
                continue
            self.frames[address] = (frame.copy(), off)
            pending += self._follow(address, frame.copy(), off)

    def _follow(self, address: int, frame: x86.Frame, off: bool) -> list[tuple[int, x86.Frame, bool]]:
        """Decodes from a leader to the end of its run; the leaders it leads to."""
        while True:
            instruction = self._decode(address)
            if instruction is None:
                return []
            self.instructions[address] = instruction
            frame.advance(instruction)
            off = self._interrupts(instruction, off)
            if self._ends_block(instruction):
                return [(edge.target, frame.copy(), off) for edge in self._edges(instruction)]
            address = instruction.next_ip
            if address in self.frames:
                return []

    def _interrupts(self, instruction: Instruction, off: bool) -> bool:
        """Locking calls change what the instructions here do not show."""
        if instruction.flow_control == FlowControl.CALL and (name := self._callee_name(instruction)):
            if name.endswith(("_lock_irqsave", "_lock_irq")):
                return True
            if name.endswith(("_unlock_irqrestore", "_unlock_irq")):
                return False
        return x86.interrupts_after(instruction, off)

    def _decode(self, address: int) -> Instruction | None:
        if address in self.instructions:
            return self.instructions[address]
        symbol = self.text.symbol_at(address)
        if symbol is None:
            self.undecoded.append(address)
            return None
        _, start, end = symbol
        if start not in self.code:
            self.code[start] = self.text.read(start, end - start)
        code = self.code[start]
        instruction = next(x86.decode(code[address - start : address - start + 16], address), None)
        if instruction is None or instruction.is_invalid:
            self.undecoded.append(address)
            return None
        return instruction

    def _ends_block(self, instruction: Instruction) -> bool:
        if instruction.flow_control == FlowControl.NEXT:
            return instruction.ip in self.text.fixups or instruction.ip in self.text.keys
        if instruction.flow_control == FlowControl.CALL:
            return self._callee_name(instruction) not in _NOPS_UNTIL_PATCHED
        return True

    def _callee_name(self, instruction: Instruction) -> str:
        if instruction.op0_kind not in (OpKind.NEAR_BRANCH64,):
            return ""
        symbol = self.text.symbol_at(instruction.near_branch_target)
        return symbol[0] if symbol else ""

    def _inside(self, target: int) -> bool:
        symbol = self.text.symbol_at(target)
        if symbol is None:
            return False
        name, start, _ = symbol
        return (
            start == self.entry
            or (name.split(".")[0] == self.base_name and ".cold" in name)
            or self._parent_of_cold(start)
        )

    def _parent_of_cold(self, start: int) -> bool:
        """Jumps back from a cold part land in the middle of the function they left."""
        return start in self.code

    def _edges(self, instruction: Instruction, compare: Instruction | None = None, tested: str = "") -> list[Edge]:
        flow, following = instruction.flow_control, instruction.next_ip
        edges: list[Edge] = []
        if flow == FlowControl.CONDITIONAL_BRANCH:
            taken, other = x86.tests_of(compare, tested, instruction)
            if self._inside(instruction.near_branch_target):
                edges.append(Edge(instruction.near_branch_target, EdgeKind.TAKEN, taken))
            edges.append(Edge(following, EdgeKind.NOT_TAKEN, other))
        elif flow == FlowControl.UNCONDITIONAL_BRANCH:
            if self._inside(instruction.near_branch_target):
                edges.append(Edge(instruction.near_branch_target, EdgeKind.JUMP))
        elif flow in (FlowControl.CALL, FlowControl.INDIRECT_CALL):
            if self._callee_name(instruction) not in NO_RETURN:
                edges.append(Edge(following, EdgeKind.AFTER_CALL))
        elif flow == FlowControl.EXCEPTION or x86.is_trap(instruction):
            edges.append(Edge(following, EdgeKind.TRAP))
        elif flow == FlowControl.NEXT:
            edges.append(Edge(following, EdgeKind.FALL))
        if instruction.ip in self.text.fixups and self._inside(self.text.fixups[instruction.ip]):
            edges.append(Edge(self.text.fixups[instruction.ip], EdgeKind.FAULT))
        if instruction.ip in self.text.keys and self._inside(self.text.keys[instruction.ip]):
            edges.append(Edge(self.text.keys[instruction.ip], EdgeKind.KEY))
        return edges

    def _block(self, leader: int) -> Block:
        frame, off = self.frames[leader]
        frame = frame.copy()
        steps: list[Step] = []
        compare: Instruction | None = None
        tested: str = ""
        addresses: set[str] = set()
        address, count, started_off = leader, 0, off
        while True:
            instruction = self.instructions[address]
            count += 1
            if self._ends_block(instruction):
                edges = self._edges(instruction, compare, tested)
                break
            made = list(x86.steps_of(instruction, frame))
            steps += made
            if any(step.place == tested for step in made):
                compare = None
            if slot := x86.taken_address(instruction, frame):
                addresses.add(slot)
            frame.advance(instruction)
            if x86.is_compare(instruction):
                compare, tested = instruction, x86.tested_place(instruction, frame)
            elif x86.sets_flags(instruction):
                compare = None
            address = instruction.next_ip
            if address in self.frames or address not in self.instructions:
                edges = [Edge(address, EdgeKind.FALL)] if address in self.instructions else []
                break
        if instruction.flow_control == FlowControl.NEXT and self._ends_block(instruction):
            steps += x86.steps_of(instruction, frame)
        self.escaped |= addresses
        return Block(
            start=leader,
            end=instruction.next_ip,
            instructions=count,
            last=instruction.ip,
            steps=tuple(steps),
            edges=tuple(edge for edge in edges if edge.target in self.instructions),
            call=self._call(instruction),
            returns=self._returns(instruction),
            interrupts_off=started_off,
            addresses_taken=frozenset(addresses),
        )

    def _returns(self, instruction: Instruction) -> bool:
        if instruction.flow_control == FlowControl.RETURN:
            return True
        return (
            instruction.flow_control == FlowControl.UNCONDITIONAL_BRANCH
            and self._callee_name(instruction) in _RETURN_THUNKS
        )

    def _call(self, instruction: Instruction) -> Call | None:
        flow, name = instruction.flow_control, self._callee_name(instruction)
        if flow == FlowControl.INDIRECT_CALL:
            return Call(instruction.ip, None, tail=False, clobbers=x86.CALL_CLOBBERS)
        if flow == FlowControl.INDIRECT_BRANCH:
            return Call(instruction.ip, None, tail=True)
        if flow == FlowControl.CALL and name not in _NOPS_UNTIL_PATCHED:
            target = None if name.startswith(_CALL_THUNKS) else instruction.near_branch_target
            results = x86.RESULTS_OF.get(name.rsplit("_", 1)[0], (x86.RETURN_PLACE,))
            return Call(instruction.ip, target, tail=False, results=results, clobbers=x86.CALL_CLOBBERS)
        jumps_out = flow in (FlowControl.UNCONDITIONAL_BRANCH, FlowControl.CONDITIONAL_BRANCH)
        if jumps_out and not self._inside(instruction.near_branch_target) and not self._returns(instruction):
            target = None if name.startswith(_CALL_THUNKS) else instruction.near_branch_target
            return Call(instruction.ip, target, tail=True)
        return None
