"""Hits of instruction probes put together to calls, as far as possible as an execution log has them.

Probes are set on some functions alone, and some instructions refuse them. What lies between two hits is found by
following the code: straight on to the next hit, into a function that was called, or back behind the call that
led out. A call whose callee has no hits is noted: what it returned was made where nobody looked.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from profiler.graph import Control, Executed, Memory, Step, StepKind
from profiler.infer import between
from profiler.infer.calltree import THUNKS, Symbols
from profiler.infer.dataflow import holds
from profiler.infer.execution import RAX, RSP, Decode, Frame, LoggedCall
from profiler.infer.slice import signed32
from profiler.model import LOGGED_REGISTERS, ExecutionLog, ProbeHits

_MOST_REFUSED = 16  # instructions in a row that no probe could be set on
_MOST_UNPROBED = 40  # that none was set on: blocks are longer
_MOST_CALLS = 48
# The thunks of __x86_indirect_thunk_array, RETPOLINE_THUNK_SIZE apart (arch/x86/include/asm/nospec-branch.h).
_BY_ENCODING = (
    *("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
)
_THUNK_BYTES = 32
_WORD = (1 << 64) - 1
_NOT_SEEN = 0  # where a call goes on that was not seen itself


@dataclass(frozen=True, slots=True)
class Probed:
    """`log`: the hits, and between them the instructions that had no probe, with the registers as they were behind
    them. `unseen`: rows of calls, or of jumps to other functions, whose callee has no hits: its entry, where it is
    known. `passed`: functions without hits that called others with hits."""

    log: ExecutionLog
    calls: list[LoggedCall]
    frames: dict[int, Frame]  # by the first row of a call
    unseen: dict[int, int | None]
    passed: frozenset[int]

    def frames_of(self, call: LoggedCall) -> Frame:
        return self.frames[int(call.rows[0])]


@dataclass(slots=True)
class _Rows:
    address: list[int] = field(default_factory=list)
    hit: list[int] = field(default_factory=list)  # whose registers they have, but for those that are told
    told: dict[int, NDArray[np.uint64]] = field(default_factory=dict)  # row → registers


def put_together(hits: ProbeHits, root: int, errno: int, decode: Decode, symbols: Symbols, offset: int = 0) -> Probed:
    """The calls of the function at `root`; addresses of hits are those of the code, pointers in registers `offset`
    above them. A call that leaves by a jump to where no probe is counts as failed with `errno`: what it returned is not
    seen."""
    rows, calls = _Rows(), []
    frames: dict[int, Frame] = {}
    unseen: dict[int, int | None] = {}
    passed: set[int] = set()
    for of_call in _calls(hits, root):
        builder = _Builder(hits, rows, decode, symbols, unseen, passed, offset, errno)
        first = len(rows.address)
        top = builder.build(of_call)
        result = builder.result()
        if result is not None:
            calls.append(LoggedCall(np.arange(first, len(rows.address)), result))
            frames[first] = top
    chosen = np.array(rows.hit, dtype=np.intp)
    registers = hits.registers[chosen]
    for row, told in rows.told.items():
        registers[row] = told
    log = ExecutionLog(np.array(rows.address, dtype=np.uint64), registers, hits.flags[chosen])
    return Probed(log, calls, frames, unseen, frozenset(passed))


def _calls(hits: ProbeHits, root: int) -> list[list[int]]:
    """Rows of the hits of each call, the first at the function's entry."""
    found: list[list[int]] = []
    for thread in np.unique(hits.thread).tolist():
        rows = np.flatnonzero((hits.thread == thread) & ~hits.is_return)
        starts = np.flatnonzero(hits.address[rows] == root).tolist()
        found += [rows[start:end].tolist() for start, end in itertools.pairwise([*starts, len(rows)])]
        if len(found) >= _MOST_CALLS:
            break
    return found[:_MOST_CALLS]


@dataclass(slots=True)
class _Open:
    """A call that is not over: where it goes on, and the frame that made it. `passed`: the function without hits that
    it called, where that called the one with hits."""

    following: int
    frame: Frame
    passed: int | None = None


class _Builder:
    """One call: its rows, appended to `rows`, and its frames."""

    def __init__(
        self,
        hits: ProbeHits,
        rows: _Rows,
        decode: Decode,
        symbols: Symbols,
        unseen: dict[int, int | None],
        passed: set[int],
        offset: int,
        errno: int,
    ) -> None:
        self.offset, self.errno = offset, errno
        self.address = hits.address
        self.attached = hits.attached
        self.registers = hits.registers
        self.flags = hits.flags
        self.refused = hits.refused
        self.rows, self.decode, self.symbols = rows, decode, symbols
        self.unseen, self.passed = unseen, passed
        self.stack: list[_Open] = []
        self.top = Frame(0, "", None, None, tail=False, return_slot=-1)
        self.is_over = False

    def build(self, hits: list[int]) -> Frame:
        first = hits[0]
        name, entry = self._function(int(self.address[first]))
        root = self.top = Frame(entry, name, None, None, tail=False, return_slot=self._rsp(first))
        self._emit(int(self.address[first]), first)
        for before, hit in itertools.pairwise(hits):
            self._go_on(before, hit)
            if self.is_over:
                break
        return root

    def result(self) -> int | None:
        """What the call returned; None where it is not whole."""
        row = len(self.rows.address) - 1
        hit, last = self.rows.hit[row], self.decode(self.rows.address[row])
        if last is not None and self._returns(last) and self._returns_to_unseen_end(hit):
            return -self.errno
        frame: Frame | None = self.top
        while frame is not None and frame.tail:
            frame = frame.parent
        if last is None or frame is None or frame.parent is not None or self._rsp(hit) != frame.return_slot:
            return None
        if self._returns(last):
            value = int(self.registers[hit, RAX])
            return value - (1 << 64) if value >> 63 else value
        at = self.rows.address[row]
        if last.control == Control.JUMP or (last.control == Control.CONDITIONAL and self._leaves(last, hit, at)):
            target = self.unseen[row] = self._target(last, hit)
            self.rows.address.append(target or 0)  # where the value is found again, for it to be followed from
            self.rows.hit.append(hit)
            return -self.errno
        return None

    def _returns_to_unseen_end(self, hit: int) -> bool:
        """Whether the errno is returned to a function that refuses probes and goes on in place of the outermost one:
        it hands the errno on, as far as can be known."""
        if len(self.stack) != 1 or self.stack[0].following != _NOT_SEEN or not self._hands_on(self.stack[0].passed):
            return False
        return self._rsp(hit) == self.top.return_slot and signed32(int(self.registers[hit, RAX])) == -self.errno

    def _hands_on(self, passed: int | None) -> bool:
        """Whether a function without hits, given that it returns the errno which its callee returned, has it from
        there: it refuses probes, so that no further round sees more, and its own code does not have that errno (that of
        __do_sys_bpf() has EPERM, as what it asks for a capability does)."""
        if passed is None or passed not in self.refused:
            return False
        try:
            blocks = self.symbols.graph(passed).blocks.values()
        except LookupError:
            return False
        return not any(self._makes_errno(step) for block in blocks for step in block.steps)

    def _makes_errno(self, step: Step) -> bool:
        return step.kind == StepKind.FLAGS or (step.kind == StepKind.CONST and signed32(step.value) == -self.errno)

    def _go_on(self, before: int, hit: int) -> None:
        """From one hit to the next."""
        step, goal = self.decode(int(self.address[before])), int(self.address[hit])
        if step is not None and step.control == Control.CALL:
            return self._over_call(step, before, hit)
        if step is not None and (self._returns(step) or self._leaves(step, before, goal)):
            return self._leave(step, before, hit)
        way = self._way(step, before)
        gap = self._straight(way, goal) if way is not None else None
        calling = self._to_call(way) if way is not None and gap is None else None
        if calling and self._calls(calling[-1], before, hit):
            return self._through_call(calling, hit)
        if gap is None and self._function(goal)[1] != self.top.entry:
            return self._elsewhere(before, hit)
        repeats = step is not None and goal == step.address and any(move.counter for move in step.moves)
        if gap is None and not repeats:  # through code without probes
            self.unseen.setdefault(len(self.rows.address) - 1, None)
        return self._emit_all(gap or [], goal, hit)

    def _way(self, step: Executed | None, hit: int) -> int | None:
        """Where control goes from an instruction that neither calls nor returns; None where that is not known."""
        if step is None:
            return None
        if step.control == Control.CONDITIONAL:
            if not step.condition:
                return None
            return step.target if holds(step.condition, int(self.flags[hit])) else step.following
        return step.target if step.control == Control.JUMP else step.following

    def _leaves(self, step: Executed, before: int, goal: int) -> bool:
        """Whether a jump leads out of its function."""
        if step.control == Control.NEXT:
            return False
        to = self._way(step, before)
        return self._function(goal if to is None else to)[1] != self.top.entry

    def _over_call(self, step: Executed, before: int, hit: int) -> None:
        goal = int(self.address[hit])
        gap = self._straight(step.following, goal)
        target = self._target(step, before)
        if gap is not None:
            self.unseen[len(self.rows.address) - 1] = target
            return self._emit_all(gap, goal, hit)
        return self._enter(step.following, target, hit)

    def _calls(self, call: int, before: int, hit: int) -> bool:
        """Whether a call that has no probe leads to a hit: into a function, or behind it once that has returned."""
        step, goal = self.decode(call), int(self.address[hit])
        if step is None or self._straight(step.following, goal) is not None:
            return step is not None
        return goal == self._function(goal)[1] and self._rsp(hit) < self._rsp(before)

    def _through_call(self, calling: list[int], hit: int) -> None:
        """By a call that has no probe, and what leads up to it: static calls refuse them."""
        step = self.decode(calling[-1])
        assert step is not None
        for address in calling:
            self._emit(address, hit)
        return self._over_call(step, hit, hit)

    def _enter(self, following: int, target: int | None, hit: int) -> None:
        """A function that was called, perhaps by one without hits; `target`: the one that the call names."""
        goal = int(self.address[hit])
        name, entry = self._function(goal)
        passed = target if target != entry else None
        gap = self._straight(entry, goal)
        if passed is not None:
            self.passed.add(passed)
        if passed is not None or gap is None:  # a function that was seen from its middle on may have done anything
            self.unseen[len(self.rows.address) - 1] = passed or entry
        frame = Frame(entry, name, self.top, len(self.rows.address) - 1, tail=False, return_slot=self._rsp(hit))
        self.top.children.append(frame)
        self.stack.append(_Open(following, self.top, passed))
        self.top = frame
        return self._emit_all(gap or [], goal, hit)

    def _leave(self, step: Executed, before: int, hit: int) -> None:
        """Out of a function by its return, or by a jump to another's beginning."""
        goal, returns = int(self.address[hit]), self._returns(step)
        row = len(self.rows.address) - 1
        entry = self._function(goal)[1]
        if not returns and goal == entry and self._rsp(hit) == self.top.return_slot:
            return self._replace_top(hit)
        for index in range(len(self.stack) - 1, -1, -1):
            gap = self._straight(self.stack[index].following, goal)
            if gap is not None:
                opened = self.stack[index]
                if not returns:
                    self.unseen[row] = self._target(step, before)
                elif opened.passed is not None and not self._is_handed_on(opened.passed, before, hit):
                    self.unseen[row] = opened.passed
                self._end(self.stack[index].frame, before)
                del self.stack[index:]
                return self._emit_all(gap, goal, hit)
        if returns and self.stack and goal == entry:  # the next function that one without hits calls
            opened = self.stack.pop()
            self._end(opened.frame, before)
            return self._enter(opened.following, opened.passed, hit)
        if not returns and goal == entry and self._rsp(hit) < self.top.return_slot:  # the one jumped to calls it
            return self._enter(_NOT_SEEN, self._target(step, before), hit)
        return self._elsewhere(before, hit)

    def _replace_top(self, hit: int) -> None:
        """By a function that goes on in place of the one that led to it, and returns for it."""
        name, entry = self._function(int(self.address[hit]))
        row = len(self.rows.address) - 1
        frame = Frame(entry, name, self.top, row, tail=True, return_slot=self.top.return_slot)
        self.top.children.append(frame)
        self.top = frame
        self._emit(entry, hit)

    def _is_handed_on(self, passed: int, before: int, hit: int) -> bool:
        """Whether a function without hits returned what the one returned that it called, as far as can be known."""
        same = self.registers[before, RAX] == self.registers[hit, RAX]
        return bool(same) and self._hands_on(passed)

    def _elsewhere(self, before: int, hit: int) -> None:
        """To where nothing that was seen leads: into a function that code without probes calls, or back out of one."""
        goal = int(self.address[hit])
        name, entry = self._function(goal)
        if not name:  # the fixup of a fault, under no symbol
            return self._emit(goal, hit)
        if goal == entry and self._rsp(hit) < self._rsp(before):
            return self._enter(_NOT_SEEN, None, hit)
        if goal == entry and self._rsp(hit) == self._rsp(before) == self.top.return_slot:  # perhaps a fault's fixup
            self.unseen.setdefault(len(self.rows.address) - 1, None)
            return self._replace_top(hit)
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index].frame.entry == entry:
                self.unseen.setdefault(len(self.rows.address) - 1, None)
                self._end(self.stack[index].frame, before)
                del self.stack[index:]
                return self._emit(goal, hit)
        self.is_over = True
        return None

    def _end(self, outer: Frame, before: int) -> None:
        """The frames within `outer` have returned."""
        frame: Frame | None = self.top
        while frame is not None and frame is not outer:
            frame.result = int(self.registers[before, RAX])
            frame = frame.parent
        self.top = outer

    def _straight(self, way: int, goal: int, most: int = _MOST_UNPROBED) -> list[int] | None:
        """The instructions from `way` to just before `goal`, none with a probe; None where no way leads there so, or
        another may."""
        found: list[int] = []
        while way != goal:
            step = self.decode(way)
            if step is None or way in self.attached or len(found) >= most:
                return None
            found.append(way)
            if step.control == Control.CONDITIONAL and step.target is not None:
                rest = self._one_side(step.following, step.target, goal, most - len(found))
                return [*found, *rest] if rest is not None else None
            if step.control == Control.NEXT:
                way = step.following
            elif step.control == Control.JUMP and step.target is not None:
                way = step.target
            else:
                return None
        return found

    def _one_side(self, one: int, other: int, goal: int, most: int) -> list[int] | None:
        """The way to `goal` behind a branch without a probe, where the other side would have led to a hit."""
        for side, left in ((one, other), (other, one)):
            found = self._straight(side, goal, most)
            if found is not None:
                return found if self._would_be_seen(left, goal, most) else None
        return None

    def _would_be_seen(self, way: int, goal: int, most: int) -> bool:
        """Whether whatever goes on at `way` comes to a probe other than that at `goal` before anything else."""
        for _ in range(most):
            if way == goal:
                return False
            if way in self.attached:
                return True
            step = self.decode(way)
            if step is None or step.control not in (Control.NEXT, Control.JUMP):
                return False
            following = step.following if step.control == Control.NEXT else step.target
            if following is None:
                return False
            way = following
        return False

    def _to_call(self, way: int) -> list[int] | None:
        """The instructions from `way` to the next call, none with a probe, the call included; None where there is no
        such way."""
        found: list[int] = []
        while len(found) < _MOST_REFUSED:
            step = self.decode(way)
            if step is None or way in self.attached or step.control not in (Control.NEXT, Control.JUMP, Control.CALL):
                return None
            found.append(way)
            if step.control == Control.CALL:
                return found
            if step.control == Control.JUMP and step.target is None:
                return None
            way = step.following if step.control == Control.NEXT else step.target or 0
        return None

    def _target(self, step: Executed, hit: int) -> int | None:
        """The entry of the function that a call or jump leads to; None where its pointer lies in memory."""
        if step.target is None:
            through = step.through
            if through is None or isinstance(through, Memory):
                return None
            return self._pointer(hit, through)
        name, start = self._function(step.target)
        if not name.startswith(THUNKS):
            return step.target
        register = name.rpartition("_")[2]  # __x86_indirect_thunk_rax, or __x86_indirect_thunk_array for all of them
        if register == "array":
            register = _BY_ENCODING[(step.target - start) // _THUNK_BYTES % len(_BY_ENCODING)]
        return self._pointer(hit, register) if register in LOGGED_REGISTERS else None

    def _pointer(self, hit: int, register: str) -> int:
        return int(self.registers[hit, LOGGED_REGISTERS.index(register)]) - self.offset

    def _returns(self, step: Executed) -> bool:
        if step.control == Control.RETURN:
            return True
        target = step.target if step.control == Control.JUMP else None
        return target is not None and self._function(target)[0].startswith("__x86_return_thunk")

    def _emit_all(self, gap: list[int], goal: int, hit: int) -> None:
        """What had no probe between the last row and a hit, with registers as they can be told, and the hit."""
        if gap:
            self._tell(gap, hit)
        for address in gap:
            self._emit(address, hit)
        self._emit(goal, hit)

    def _tell(self, gap: list[int], hit: int) -> None:
        row = len(self.rows.address)
        before = self.rows.hit[-1]
        steps = [self.decode(address) for address in (int(self.address[before]), *gap)]
        known = [step for step in steps if step is not None]
        if len(known) < len(steps) or self.rows.address[-1] != int(self.address[before]):
            return
        first = known[0]
        # behind a call or a return more happened than the steps say: the registers that a callee keeps are known
        called = first.control in (Control.CALL, Control.RETURN) or self._returns(first)
        told = between.registers(known, self.registers[before], self.registers[hit], called=called)
        if called:
            told[:, RSP] = self._told_stack(known[1:], hit)
        self.rows.told.update(zip(range(row, row + len(gap)), told, strict=True))

    def _told_stack(self, steps: list[Executed], hit: int) -> list[int]:
        """The stack pointer before each of some steps, from where it is behind them."""
        found: list[int] = []
        pointer = self._rsp(hit)
        for step in reversed(steps):
            pointer -= step.stack or 0
            found.append(pointer & _WORD)
        return found[::-1]

    def _emit(self, address: int, hit: int) -> None:
        self.top.rows.append(len(self.rows.address))
        self.rows.address.append(address)
        self.rows.hit.append(hit)

    def _rsp(self, hit: int) -> int:
        return int(self.registers[hit, RSP])

    def _function(self, address: int) -> tuple[str, int]:
        found = self.symbols.function_at(address)
        return (found[0], found[1]) if found else ("", address)
