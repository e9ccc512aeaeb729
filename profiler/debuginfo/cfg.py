"""The control-flow graph of one kernel function, found by following its jumps from the entry.

Following (rather than decoding from start to end) leaves padding and data alone, and takes in the
parts that the compiler put elsewhere (NAME.cold). A jump to another function's start is a tail call.
Code under no symbol (.fixup, the tails of alternatives) belongs to whoever jumps there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from profiler.debuginfo.architecture import Architecture, Flow, Frame, Instruction
from profiler.debuginfo.equalities import with_copies
from profiler.debuginfo.no_return import NO_RETURN
from profiler.debuginfo.x86_flow import X86_64
from profiler.errors import InputError
from profiler.graph import Block, Call, Edge, EdgeKind, FunctionGraph, Step, StepKind

_LONGEST_FUNCTION = 20_000  # instructions; the largest in a stock kernel have some 10,000
_BEHIND = {  # how control gets to the next instruction; after a jump, a return or a BUG it does not
    Flow.NEXT: EdgeKind.FALL,
    Flow.CALL: EdgeKind.AFTER_CALL,
    Flow.CONDITIONAL: EdgeKind.NOT_TAKEN,
    Flow.TRAP: EdgeKind.TRAP,
}
_LOCKED = ("_lock_irqsave", "_lock_irq")
_UNLOCKED = ("_unlock_irqrestore", "_unlock_irq")


@dataclass(frozen=True, slots=True)
class Text:
    """What the builder needs to know of the kernel's text. `read` gives the bytes at a link address;
    `symbol_at` the (name, start, end) of the function that holds an address."""

    read: Callable[[int, int], bytes]
    symbol_at: Callable[[int], tuple[str, int, int] | None]
    fixups: Mapping[int, int] = field(default_factory=dict)  # exception table: instruction → fixup
    keys: Mapping[int, int] = field(default_factory=dict)  # static keys: nop or jump → the other side
    # exception table: instruction → what the handler puts where (place, value)
    fault_effects: Mapping[int, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    warnings: Collection[int] | None = None  # traps behind which the kernel goes on; None: not known, all of them
    may_be_nops: Collection[int] = frozenset()  # what the kernel may replace as it boots, jumps by no-ops among them
    patched: bool = False  # the running kernel's text, whose static calls lead where they lead
    architecture: Architecture = X86_64


def build(text: Text, entry: int) -> FunctionGraph:
    """The graph of the function that starts at `entry`. Raises LookupError where no function is there."""
    symbol = text.symbol_at(entry)
    if symbol is None:
        raise LookupError(f"no function at {entry:#x}")
    return _Builder(text, symbol).graph()


Leader = tuple[int, Frame, bool]  # address, frame, interrupts off


class _Builder:
    def __init__(self, text: Text, symbol: tuple[str, int, int]) -> None:
        self.text = text
        self.machine = text.architecture
        self.names = text.architecture.conventions
        self.name, self.entry, self.end = symbol
        self.base_name = self.name.partition(".")[0]
        self.code: dict[int, bytes] = {}  # by the start of a symbol
        self.instructions: dict[int, Instruction] = {}
        self.by_end: dict[int, Instruction] = {}
        self.frames: dict[int, tuple[Frame, bool]] = {}  # leader → frame, interrupts off
        self.tables: dict[int, tuple[int, ...]] = {}  # indirect jump → targets
        self.following: dict[int, list[int]] = {}  # last instruction of a block → the leaders it leads to
        self.limits: set[int] = set()  # where symbols end that were read
        self.nameless: set[int] = set()  # instructions under no symbol
        self.undecoded: list[int] = []
        self.escaped: set[str] = set()

    def graph(self) -> FunctionGraph:
        self._explore()
        self._settle()
        leaders = sorted(self.frames)
        blocks = {leader: self._block(leader) for leader in leaders if leader in self.instructions}
        for block in [self._fault(address) for address in self.instructions if self._sets_on_fault(address)]:
            blocks[block.start] = block
        if self.entry not in blocks:
            blocks[self.entry] = self._undecoded_whole()
        return FunctionGraph(
            self.name,
            self.entry,
            dict(sorted(with_copies(blocks, self.entry).items())),
            tuple(dict.fromkeys(self.undecoded)),
            frozenset(self.escaped),
            return_place=self.names.return_place,
        )

    # ---- following the code ----

    def _explore(self) -> None:
        pending: list[Leader] = [(self.entry, self.machine.frame(), False)]
        while pending and len(self.instructions) < _LONGEST_FUNCTION:
            address, frame, off = pending.pop()
            if address in self.frames:
                continue
            self.frames[address] = (frame.copy(), off)
            pending += self._follow(address, frame.copy(), off)
        self.undecoded += [address for address, _, _ in pending if address not in self.instructions]

    def _follow(self, address: int, frame: Frame, off: bool) -> list[Leader]:
        """Decodes from a leader to the end of its run; the leaders it leads to."""
        while True:
            instruction = self._decode(address)
            if instruction is None:
                return []
            self.instructions[address] = instruction
            self.by_end[instruction.end] = instruction
            frame.advance(instruction.raw)
            off = self._interrupts(instruction, off)
            if self._ends_block(instruction):
                targets = self.following[address] = self._leads_to(instruction, frame)
                return [(target, frame.copy(), off) for target in targets]
            address = instruction.end
            if address in self.frames:
                return []

    def _settle(self) -> None:
        """Keeps, of what is known at the start of a block, what all ways into it agree on."""
        pending = list(self.frames)
        while pending:
            frame, targets = self._behind(pending.pop())
            pending += [target for target in targets if target in self.frames and self.frames[target][0].meet(frame)]

    def _behind(self, leader: int) -> tuple[Frame, list[int]]:
        """The frame at the end of a block, and the leaders it leads to."""
        frame, address = self.frames[leader][0].copy(), leader
        while (instruction := self.instructions.get(address)) is not None:
            frame.advance(instruction.raw)
            if address in self.following:
                return frame, self.following[address]
            address = instruction.end
            if address in self.frames:
                return frame, [address]
        return frame, []

    def _interrupts(self, instruction: Instruction, off: bool) -> bool:
        """Locking calls change what the instructions here do not show."""
        if instruction.flow == Flow.CALL and (name := self._callee_name(instruction)):
            if name.endswith(_LOCKED):
                return True
            if name.endswith(_UNLOCKED):
                return False
        return self.machine.interrupts_after(instruction.raw, off)

    def _decode(self, address: int) -> Instruction | None:
        if address in self.instructions:
            return self.instructions[address]
        code = self._code_at(address)
        instruction = self.machine.decode(code, address) if code else None
        if instruction is None:
            self.undecoded.append(address)
            return None
        if self.text.symbol_at(address) is None:
            self.nameless.add(address)
        return self._named(instruction)

    def _code_at(self, address: int) -> bytes:
        """Some bytes from an address on, not beyond its function; b"" where there is no code."""
        symbol = self.text.symbol_at(address)
        try:
            if symbol is None:
                return self._nameless_code_at(address)
            _, start, end = symbol
            if start not in self.code:
                self.code[start] = self.text.read(start, end - start)
                self.limits.add(end)
        except (InputError, LookupError):
            return b""
        return self.code[start][address - start : address - start + self.machine.longest]

    def _nameless_code_at(self, address: int) -> bytes:
        for size in range(self.machine.longest, 0, -1):  # the section may end there
            with contextlib.suppress(InputError, LookupError):
                return self.text.read(address, size)
        return b""

    # ---- what names say of an instruction ----

    def _named(self, instruction: Instruction) -> Instruction:
        """The instruction with the meaning that the kernel gives to the target's name or the bug table to a trap."""
        if instruction.flow == Flow.TRAP:
            goes_on = self.text.warnings is None or instruction.address in self.text.warnings
            return instruction if goes_on else replace(instruction, flow=Flow.STOP)
        if instruction.target is None or instruction.flow not in (Flow.CALL, Flow.JUMP, Flow.CONDITIONAL):
            return instruction
        name = self._callee_name(instruction)
        if instruction.flow == Flow.CALL and name in self.names.tracing_calls:
            return replace(instruction, flow=Flow.NEXT, target=None)
        if instruction.flow == Flow.JUMP and name in self.names.return_thunks:
            return replace(instruction, flow=Flow.RETURN, target=None)
        if name.startswith(self.names.indirect_thunks):
            return replace(instruction, target=None)
        return instruction

    def _callee_name(self, instruction: Instruction) -> str:
        symbol = self.text.symbol_at(instruction.target) if instruction.target is not None else None
        return symbol[0] if symbol else ""

    def _callee(self, instruction: Instruction) -> int | None:
        """Where a call or a jump out of the function goes; None where the text does not say."""
        target, name = instruction.target, self._callee_name(instruction)
        if target is None:
            return None
        if self.names.static_call and name.startswith(self.names.static_call):
            return self._static_callee(target) if self.text.patched else None
        if not name:  # a thunk made at run time: before its function, or one for this very call
            behind = self.text.symbol_at(target + self.names.thunk_padding)
            return behind[1] if behind and behind[1] == target + self.names.thunk_padding else None
        return target

    def _static_callee(self, trampoline: int) -> int | None:
        """The function that a static call's trampoline jumps to at present."""
        code = self._code_at(trampoline)
        jump = self.machine.decode(code, trampoline) if code else None
        return jump.target if jump is not None and jump.flow == Flow.JUMP else None

    def _inside(self, target: int | None) -> bool:
        if target is None:
            return False
        symbol = self.text.symbol_at(target)
        if symbol is None:
            return bool(self._code_at(target))
        name, start, _ = symbol
        # Jumps back from a cold part land in the middle of the function they left.
        return start == self.entry or start in self.code or self._is_part(name)

    def _runs_out(self, instruction: Instruction) -> bool:
        """Whether no code of this function follows: its end, or under no symbol the start of another one.

        What ends so in a call calls something that does not return; assembly runs on into its neighbour.
        """
        nameless = instruction.address in self.nameless
        if not nameless and instruction.end not in self.limits:
            return False
        if self.text.symbol_at(instruction.end) is None:
            return not nameless
        return not self._inside(instruction.end)

    def _is_part(self, name: str) -> bool:
        return ".cold" in name and name.partition(".")[0] == self.base_name

    # ---- edges ----

    def _ends_block(self, instruction: Instruction) -> bool:
        if instruction.flow != Flow.NEXT:
            return True
        at = instruction.address
        return at in self.text.fixups or at in self.text.keys or self._runs_out(instruction)

    def _leads_to(self, instruction: Instruction, frame: Frame) -> list[int]:
        targets = [edge.target for edge in self._edges(instruction, frame) if edge.kind != EdgeKind.FAULT]
        fixup = self.text.fixups.get(instruction.address)
        return targets if fixup is None else [*targets, fixup]

    def _edges(
        self, instruction: Instruction, frame: Frame, compare: Any | None = None, tested: str = ""
    ) -> list[Edge]:
        edges = list(self._flow_edges(instruction, frame, compare, tested))
        at = instruction.address
        if at in self.text.fixups:
            target = instruction.end - 1 if self._sets_on_fault(at) else self.text.fixups[at]
            edges.append(Edge(target, EdgeKind.FAULT))
        if at in self.text.keys:
            other = instruction.end if instruction.flow == Flow.JUMP else self.text.keys[at]
            if self._inside(other):
                edges.append(Edge(other, EdgeKind.KEY))
        elif at in self.text.may_be_nops and instruction.flow == Flow.JUMP:
            edges.append(Edge(instruction.end, EdgeKind.KEY))
        return edges

    def _flow_edges(self, instruction: Instruction, frame: Frame, compare: Any, tested: str) -> Iterator[Edge]:
        kind, test = _BEHIND.get(instruction.flow), None
        if instruction.flow == Flow.CONDITIONAL:
            taken, test = self.machine.tests_of(compare, tested, instruction.raw)
            if instruction.target is not None and self._inside(instruction.target):
                yield Edge(instruction.target, EdgeKind.TAKEN, taken)
        elif instruction.flow == Flow.JUMP:
            for target in self._targets(instruction, frame):
                yield Edge(target, EdgeKind.JUMP)
        elif instruction.flow == Flow.CALL and self._callee_name(instruction) in NO_RETURN:
            return
        if kind is not None and not self._runs_out(instruction):
            yield Edge(instruction.end, kind, test)

    def _targets(self, jump: Instruction, frame: Frame) -> tuple[int, ...]:
        """Where a jump leads within the function; of one through a jump table, each place once."""
        if jump.target is not None:
            return (jump.target,) if self._inside(jump.target) else ()
        if jump.address not in self.tables:
            self.tables[jump.address] = tuple(dict.fromkeys(self._table(jump, frame)))
        return self.tables[jump.address]

    def _table(self, jump: Instruction, frame: Frame) -> Iterator[int]:
        try:
            for target in self.machine.table(jump, self.by_end.get, self.text.read, frame):
                symbol = self.text.symbol_at(target)
                if symbol is None or not self._inside(target):
                    return
                yield target
        except (InputError, LookupError):  # beyond the table there may be nothing at all
            return

    # ---- faults whose handler sets a register ----

    def _sets_on_fault(self, address: int) -> bool:
        return address in self.text.fixups and bool(self.text.fault_effects.get(address))

    def _fault(self, address: int) -> Block:
        """A block without instructions between an access and its fixup: what the handler of the fault does.

        It stands on the access's last byte, where no instruction can begin, and is silent by its nature.
        """
        at, fixup = self.instructions[address].end - 1, self.text.fixups[address]
        steps = tuple(
            Step(address, place, StepKind.CONST, value=value) for place, value in self.text.fault_effects[address]
        )
        edges = (Edge(fixup, EdgeKind.JUMP),) if fixup in self.instructions else ()
        return Block(at, at, 0, address, steps, edges, interrupts_off=True)

    # ---- blocks ----

    def _block(self, leader: int) -> Block:
        frame, off = self.frames[leader]
        frame = frame.copy()
        machine = self.machine
        steps: list[Step] = []
        compare: Any | None = None
        tested = ""
        addresses: set[str] = set()
        address, count, started_off = leader, 0, off
        while True:
            instruction = self.instructions[address]
            raw = instruction.raw
            count += 1
            if self._ends_block(instruction):
                edges = self._edges(instruction, frame, compare, tested)
                break
            made = list(machine.steps_of(raw, frame))
            steps += made
            if any(step.place == tested for step in made):
                compare = None
            if slot := machine.taken_address(raw, frame):
                addresses.add(slot)
            frame.advance(raw)
            if machine.is_compare(raw):
                compare, tested = raw, machine.tested_place(raw, frame)
            elif machine.sets_flags(raw):
                compare = None
            address = instruction.end
            if address in self.frames or address not in self.instructions:
                edges = [Edge(address, EdgeKind.FALL)]
                break
        if instruction.flow == Flow.NEXT and self._ends_block(instruction):
            steps += machine.steps_of(instruction.raw, frame)
        self.escaped |= addresses
        faults = instruction.end - 1 if self._sets_on_fault(instruction.address) else None
        return Block(
            start=leader,
            end=instruction.end,
            instructions=count,
            last=instruction.address,
            steps=tuple(steps),
            edges=tuple(edge for edge in edges if edge.target in self.instructions or edge.target == faults),
            call=self._call(instruction, frame) or self._call_of_undecoded(instruction, edges),
            returns=instruction.flow == Flow.RETURN,
            interrupts_off=started_off,
            addresses_taken=frozenset(addresses),
        )

    def _call(self, instruction: Instruction, frame: Frame) -> Call | None:
        made = self._bare_call(instruction, frame)
        return replace(made, arguments=frame.arguments(tail=made.tail)) if made is not None else None

    def _call_of_undecoded(self, instruction: Instruction, edges: list[Edge]) -> Call | None:
        """What cannot be decoded may do and return anything, as a call of nobody knows what does."""
        if any(edge.target in self.undecoded for edge in edges):
            return Call(instruction.address, None, tail=True, results=(self.names.return_place,))
        return None

    def _undecoded_whole(self) -> Block:
        call = Call(self.entry, None, tail=True, results=(self.names.return_place,))
        return Block(self.entry, self.end, 1, self.entry, (), (), call)

    def _bare_call(self, instruction: Instruction, frame: Frame) -> Call | None:
        at, result = instruction.address, (self.names.return_place,)
        if instruction.flow == Flow.CALL:
            results = self.names.results_of(self._callee_name(instruction))
            return Call(at, self._callee(instruction), tail=False, results=results, clobbers=self.names.clobbers)
        if instruction.flow == Flow.JUMP and not self._targets(instruction, frame):
            return Call(at, self._callee(instruction), tail=True, results=result)
        if instruction.flow == Flow.CONDITIONAL and not self._inside(instruction.target):
            return Call(at, self._callee(instruction), tail=True, results=result)
        if instruction.flow == Flow.NEXT and self._runs_out(instruction) and self.text.symbol_at(instruction.end):
            return Call(at, instruction.end, tail=True, results=result)
        return None
