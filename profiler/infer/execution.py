"""An execution log taken apart: the calls of one system call, the functions each of them went through.

A log is a plain sequence of instructions. Interrupts and faults are told by an instruction that does not
follow from the one before it and lies where the CPU enters the kernel from outside; they end with the `iret` that
takes control back, and what lies between is left out. Functions are told by calls and returns, a return being
matched with its call by the stack slot of the return address: retpolines and stack switches then need no special case.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from profiler.graph import Control, Executed
from profiler.infer.calltree import THUNKS, CallNode, Symbols
from profiler.model import LOGGED_REGISTERS, ExecutionLog

Decode = Callable[[int], Executed | None]
RAX, RSP = LOGGED_REGISTERS.index("rax"), LOGGED_REGISTERS.index("rsp")
# The functions that the interrupt descriptor table leads to (arch/x86/include/asm/idtentry.h).
_FROM_OUTSIDE = ("asm_", "irq_entries", "spurious_entries")
_ANYWHERE = (Control.RETURN, Control.INTERRUPT_RETURN, Control.SYSCALL_RETURN)


@dataclass(frozen=True, slots=True)
class LoggedCall:
    """One system call from its entry to its return; `rows` are those of the log, interrupts left out."""

    rows: NDArray[np.int64]
    result: int  # what it returned, signed


@dataclass(slots=True, eq=False)
class Frame:
    """One execution of one function."""

    entry: int
    name: str
    parent: Frame | None
    call_row: int | None  # of the call, or of the jump that made it a tail call
    tail: bool
    return_slot: int  # address of the return address on the stack
    rows: list[int] = field(default_factory=list)  # its own, without its callees'
    children: list[Frame] = field(default_factory=list)
    result: int | None = None  # rax at its return, as 64-bit two's complement

    def outwards(self) -> Iterable[Frame]:
        frame: Frame | None = self
        while frame is not None:
            yield frame
            frame = frame.parent


def calls(log: ExecutionLog, decode: Decode, symbols: Symbols, entry: int, number: int) -> list[LoggedCall]:
    """Every whole call of the system call `number` in the log; `entry`: where the kernel is entered by `syscall`."""
    unique, inverse = np.unique(log.address, return_inverse=True)
    steps = [decode(int(address)) for address in unique]
    breaks = _breaks(log.address, steps, inverse)
    breaks = breaks[np.array([_enters_from_outside(int(a), symbols) for a in log.address[breaks + 1]], dtype=bool)]
    breaks = np.union1d(breaks, _behind_what_goes_anywhere(unique, steps, inverse, symbols))
    returns = _rows_of(steps, inverse, Control.INTERRUPT_RETURN)
    leaves = _rows_of(steps, inverse, Control.SYSCALL_RETURN)
    entries = np.flatnonzero(log.address == entry)
    found: list[LoggedCall] = []
    if not len(entries):
        return found
    for start, end in zip(entries, [*entries[1:], len(log.address)], strict=True):
        if log.registers[start, RAX] == number:
            call = _one_call(log, int(start), int(end), breaks, returns, leaves)
            if call is not None:
                found.append(call)
    return found


def _breaks(address: NDArray[np.uint64], steps: list[Executed | None], inverse: NDArray[np.intp]) -> NDArray[np.int64]:
    """Rows behind which control was taken away: the next row does not follow from them."""
    following = np.array([step.following if step else 0 for step in steps], dtype=np.uint64)
    target = np.array([(step.target or 0) if step else 0 for step in steps], dtype=np.uint64)
    free = np.array([step is None or _goes_anywhere(step) for step in steps], dtype=bool)
    jumps = np.array([step is not None and step.control != Control.NEXT for step in steps], dtype=bool)
    now, after = inverse[:-1], address[1:]
    follows = (after == following[now]) & ~_always_jumps(steps)[now]
    arrives = jumps[now] & (after == target[now])
    again = after == address[:-1]  # one element of a string instruction, or a fault that was mended
    return np.flatnonzero(~(follows | arrives | free[now] | again))


def _enters_from_outside(address: int, symbols: Symbols) -> bool:
    """False where the text is not quite what ran (a static key was switched since): that is no interrupt."""
    found = symbols.function_at(address)
    return found is None or found[0].startswith(_FROM_OUTSIDE)


def _behind_what_goes_anywhere(
    unique: NDArray[np.uint64], steps: list[Executed | None], inverse: NDArray[np.intp], symbols: Symbols
) -> NDArray[np.int64]:
    """Rows behind which control was taken away though they may lead anywhere, returns say: told by where it went on,
    at the start of what no code of the kernel leads to like that."""
    free = np.array([step is None or _goes_anywhere(step) for step in steps], dtype=bool)
    handlers = np.array([_is_handler(int(address), symbols) for address in unique], dtype=bool)
    return np.flatnonzero(free[inverse[:-1]] & handlers[inverse[1:]])


def _is_handler(address: int, symbols: Symbols) -> bool:
    """Where a vector of the interrupt descriptor table leads to."""
    found = symbols.function_at(address)
    if found is None or not found[0].startswith(_FROM_OUTSIDE):
        return False
    return address == found[1] or not found[0].startswith("asm_")  # of one name is a whole array of entries


def _goes_anywhere(step: Executed) -> bool:
    return step.control in _ANYWHERE or (step.control in (Control.JUMP, Control.CALL) and step.target is None)


def _always_jumps(steps: list[Executed | None]) -> NDArray[np.bool_]:
    always = (Control.JUMP, Control.CALL)
    return np.array([s is not None and s.control in always and s.target != s.following for s in steps], dtype=bool)


def _rows_of(steps: list[Executed | None], inverse: NDArray[np.intp], control: Control) -> NDArray[np.int64]:
    wanted = np.array([step is not None and step.control == control for step in steps], dtype=bool)
    return np.flatnonzero(wanted[inverse])


def _one_call(
    log: ExecutionLog,
    start: int,
    end: int,
    breaks: NDArray[np.int64],
    returns: NDArray[np.int64],
    leaves: NDArray[np.int64],
) -> LoggedCall | None:
    """The call that starts at row `start`, if it ends before row `end`."""
    events = sorted(
        [(int(row), "break") for row in _between(breaks, start, end)]
        + [(int(row), "return") for row in _between(returns, start, end)]
        + [(int(row), "leave") for row in _between(leaves, start, end)],
        key=lambda event: (event[0], event[1] == "break"),  # what comes behind a return comes after it
    )
    kept: list[tuple[int, int]] = []
    depth, since = 0, start
    for row, event in events:
        if event == "break":
            if depth == 0:
                kept.append((since, row + 1))
            depth += 1
        elif event == "return" and depth:
            depth -= 1
            since = row + 1 if depth == 0 else since
        elif depth == 0:  # sysret, or iret where the return has to restore everything
            if event == "leave" and log.registers[row, RSP] != log.registers[start, RSP]:
                return None  # to another user's stack: a thread that was switched to within an interrupt
            kept.append((since, row + 1))
            rows = np.concatenate([np.arange(first, last) for first, last in kept])
            return LoggedCall(rows, _signed(int(log.registers[row, RAX])))
    return None


def _between(rows: NDArray[np.int64], start: int, end: int) -> NDArray[np.int64]:
    return rows[np.searchsorted(rows, start) : np.searchsorted(rows, end)]


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def paths(log: ExecutionLog, found: list[LoggedCall], result: int) -> list[tuple[LoggedCall, int]]:
    """The different paths of the calls that returned `result`: a call of each and how many took it, most first."""
    alike: dict[bytes, list[LoggedCall]] = {}
    for call in found:
        if call.result == result:
            alike.setdefault(_path(log, call), []).append(call)
    return sorted(((same[0], len(same)) for same in alike.values()), key=lambda path: -path[1])


def _path(log: ExecutionLog, call: LoggedCall) -> bytes:
    """The addresses, those of string instructions and mended faults once."""
    address = log.address[call.rows]
    path: bytes = address[np.concatenate([[True], address[1:] != address[:-1]])].tobytes()
    return path


def frames(log: ExecutionLog, call: LoggedCall, decode: Decode, symbols: Symbols) -> Frame:
    """The functions that a call went through; the outermost holds the kernel's entry."""
    return _FrameBuilder(log, decode, symbols).build(call.rows.tolist())


class _FrameBuilder:
    def __init__(self, log: ExecutionLog, decode: Decode, symbols: Symbols) -> None:
        self.address = log.address.tolist()
        self.rsp = log.registers[:, RSP].tolist()
        self.rax = log.registers[:, RAX].tolist()
        self.decode, self.symbols = decode, symbols

    def build(self, rows: list[int]) -> Frame:
        name, entry = self._function(self.address[rows[0]])
        root = top = Frame(entry, name, None, None, tail=False, return_slot=-1)
        previous: Executed | None = None
        for before, row in zip([rows[0], *rows], rows, strict=False):
            name, entry = self._function(self.address[row])
            if previous is not None:
                top = self._enter(top, previous, before, row, name, entry)
            elif row != before:
                top = self._out_of_unread(top, row)
            if not name.startswith(THUNKS) and (name or not top.name):  # fixups may lie under no symbol
                top.rows.append(row)
            previous = self.decode(self.address[row])
        return root

    def _out_of_unread(self, top: Frame, row: int) -> Frame:
        """The frame that `row` lies in, behind code that cannot be read (a BPF program's): the one that called it,
        where it goes on behind its call."""
        for frame in top.outwards():
            made = self.decode(self.address[frame.call_row]) if frame.call_row is not None else None
            if made is not None and made.following == self.address[row] and frame.parent is not None:
                return frame.parent
        return top

    def _function(self, address: int) -> tuple[str, int]:
        found = self.symbols.function_at(address)
        return (found[0], found[1]) if found else ("", address)

    def _enter(self, top: Frame, previous: Executed, before: int, row: int, name: str, entry: int) -> Frame:
        """The frame that `row` lies in, given the row before it."""
        if previous.control == Control.CALL and self.address[row] != previous.following:
            if self._function(self.address[before])[0].startswith(THUNKS):  # a retpoline calls for the sake of its ret
                return top
            frame = Frame(entry, name, top, before, tail=False, return_slot=self.rsp[row])
            top.children.append(frame)
            return frame
        if previous.control == Control.RETURN or self._is_patched_return(previous, row):
            top = self._leave(top, self.rsp[before], before)
        if entry == top.entry or self.address[row] != entry or name.startswith(THUNKS):
            return top
        if top.name.startswith(THUNKS):  # the call went through it to here
            top.name, top.entry = name, entry
            return top
        if top.parent is None or not name:
            return top
        frame = Frame(entry, name, top, top.rows[-1] if top.rows else before, tail=True, return_slot=top.return_slot)
        top.children.append(frame)
        return frame

    def _is_patched_return(self, previous: Executed, row: int) -> bool:
        """Whether the jump to a return thunk, as the image has it, was a plain return when it ran."""
        if previous.control != Control.JUMP or previous.target in (None, self.address[row]):
            return False
        return self._function(previous.target or 0)[0].startswith("__x86_return_thunk")

    def _leave(self, top: Frame, slot: int, row: int) -> Frame:
        """The frame that a return from `slot` goes back to; `top` itself where no call is known that it would end."""
        ended = next((frame for frame in top.outwards() if frame.return_slot == slot), None)
        if ended is None or ended.parent is None:
            return top
        while ended.tail and ended.parent.parent is not None:
            ended = ended.parent
        for frame in top.outwards():
            frame.result = self.rax[row]
            if frame is ended:
                break
        return ended.parent or top


def find(root: Frame, entry: int) -> Frame | None:
    """The first frame, outermost first, of the function at `entry`."""
    pending = [root]
    while pending:
        frame = pending.pop(0)
        if frame.entry == entry:
            return frame
        pending += frame.children
    return None


def tree(log: ExecutionLog, root: Frame, decode: Decode, prefer: set[Frame]) -> dict[Frame, CallNode]:
    """The calling contexts below a frame, that of `root` first, each with the addresses executed in one of its
    executions: that in `prefer` where there is one, else the last."""
    address = log.address
    nodes = {root: CallNode(root.entry, root.name, None, None)}
    pending = [root]
    while pending:
        frame = pending.pop()
        node = nodes[frame]
        node.executed = Counter(address[frame.rows].tolist())
        node.returned = frame.result
        chosen: dict[tuple[int | None, int], Frame] = {}
        for child in frame.children:
            key = (_return_address(child, address, decode), child.entry)
            if chosen.get(key) not in prefer:
                chosen[key] = child
        for (return_address, entry), child in chosen.items():
            below = node.child(return_address, entry, child.name)
            below.tail_from = int(address[child.call_row]) if child.tail and child.call_row is not None else None
            nodes[child] = below
            pending.append(child)
    return nodes


def _return_address(frame: Frame, address: NDArray[np.uint64], decode: Decode) -> int | None:
    if frame.tail or frame.call_row is None:
        return None
    made = decode(int(address[frame.call_row]))
    return made.following if made is not None else None
