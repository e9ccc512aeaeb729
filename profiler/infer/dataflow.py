"""Where a value came from, followed backwards along executed instructions.

Every register is known at every row, so that every memory address is: a value is followed through the
stack, out-parameters and structures on it included, and the first instruction that did not copy it is its origin.
What is read from an object that outlives the call (a socket's pending error) has its origin in the reading.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from profiler.graph import Control, Executed, Memory, Move, Operand, StepKind
from profiler.model import LOGGED_REGISTERS, ExecutionLog

_COLUMN = {name: column for column, name in enumerate(LOGGED_REGISTERS)}
_WORD = (1 << 64) - 1
_THREAD_SIZE = 16 << 10
_CARRY, _PARITY, _ZERO, _SIGN, _OVERFLOW = 1, 1 << 2, 1 << 6, 1 << 7, 1 << 11


@dataclass(frozen=True, slots=True)
class Cell:
    """Bytes of memory; `segment` as of Memory."""

    address: int
    size: int
    segment: str = ""


Location = str | Cell


Pending = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Stop:
    """Before `row` was executed the value was in `location`, and `pending` operations were still to be applied."""

    row: int
    location: Location
    pending: Pending


@dataclass(frozen=True, slots=True)
class Followed:
    """The origin of a value: the row, and what its instruction did. `stops`: where the value was on its way, last in
    time first. `cell`: the memory that was read at `row`, and `written` the row that had written it, if any did."""

    row: int
    move: Move
    cell: Cell | None
    stops: tuple[Stop, ...]
    written: int | None = None
    unseen: tuple[int, ...] = ()  # rows of calls whose callee is not in the log, and may have set the value


_NOTHING_UNSEEN: Mapping[int, int | None] = {}


def follow(
    log: ExecutionLog,
    rows: list[int],
    decode: Callable[[int], Executed | None],
    location: Location,
    unseen: Mapping[int, int | None] = _NOTHING_UNSEEN,
) -> Followed | None:
    """The origin of what `location` holds before the last of `rows` is executed; None where it was there before.

    `unseen`: rows of calls whose callee is not in the log. What one of them may have set has its origin there.
    """
    pending: Pending = ()
    stops: list[Stop] = []
    read: Followed | None = None
    doubtful: list[int] = []  # calls that were not seen, passed since the value was read from memory
    for row, after in zip(reversed(rows[:-1]), reversed(rows[1:]), strict=True):
        executed = decode(int(log.address[row]))
        if row in unseen and _may_have_set(log, row, after, location, is_hole=_is_hole(executed, unseen[row])):
            return Followed(row, Move(str(location), StepKind.UNKNOWN), None, tuple(stops), unseen=(row,))
        doubtful += [row] if row in unseen else []
        if executed is not None and after != row + 1 and executed.control == Control.NEXT:
            set_to = _set_meanwhile(log, row, after, location)
            if set_to is not None:
                return Followed(row, set_to, None, tuple(stops))
            if _has_faulted(log, row, after, executed):
                continue
        move = _writes(log, row, executed, location) if executed is not None else _changed(log, row, after, location)
        if move is None:
            continue
        if read is not None and (ended := _ended_in_memory(log, row, move, read, stops, doubtful)) is not None:
            return ended
        source = _source(log, row, move, location)
        if source is None:
            return Followed(row, move, None, tuple(stops), unseen=_given_to(log, location, doubtful))
        if move.kind == StepKind.OPERATE:
            pending = ((move.operator, move.value), *pending)
        elif isinstance(source, Cell) and not isinstance(location, Cell):
            source, pending = _narrowed(log, row, move, source, pending)
            read = Followed(row, move, source, tuple(stops))
            doubtful = []
        elif isinstance(location, Cell) and isinstance(source, str):
            pending = _widened(log, row, move, location, pending)
        location = source
        stops.append(Stop(row, location, pending))
    if read is not None and isinstance(location, Cell):
        return replace(read, stops=tuple(stops), unseen=tuple(doubtful) if _on_stack(log, read.row, location) else ())
    return None


def _ended_in_memory(
    log: ExecutionLog, row: int, move: Move, read: Followed, stops: list[Stop], doubtful: list[int]
) -> Followed | None:
    """What was read from memory that `row` wrote, where that is the end: of another's memory, or of another value."""
    if read.cell is not None and not _on_stack(log, read.row, read.cell):
        return replace(read, written=row)
    if doubtful and not _is_as_read(log, row, move, read):
        return replace(read, stops=tuple(stops), unseen=tuple(doubtful))
    return None


def _is_hole(executed: Executed | None, leads_to: int | None) -> bool:
    """Whether what is not in the log behind a row is of a function that is, and not all of a callee."""
    return leads_to is None and (executed is None or executed.control != Control.CALL)


def _may_have_set(log: ExecutionLog, row: int, after: int, location: Location, *, is_hole: bool) -> bool:
    """Whether code that is not in the log, between two rows, may have set a register; a callee leaves some alone."""
    if isinstance(location, Cell):
        return False
    column = _COLUMN[location]
    return is_hole or location in _CALLER_SAVED or bool(log.registers[row, column] != log.registers[after, column])


def _given_to(log: ExecutionLog, location: Location, calls: list[int]) -> tuple[int, ...]:
    """Those of `calls` that were given a pointer to a place, or to what it is a member of."""
    if not isinstance(location, Cell):
        return ()
    pointers = log.registers[np.array(calls, dtype=np.intp)][:, _ARGUMENTS]
    near = np.any(np.uint64(location.address) - pointers < _REACH, axis=1)
    return tuple(calls[index] for index in np.flatnonzero(near).tolist())


_ARGUMENTS = [_COLUMN[name] for name in ("rdi", "rsi", "rdx", "rcx", "r8", "r9")]
_REACH = 512  # bytes behind a pointer that is given away: a structure on the stack


# What a callee may leave changed (System V ABI for x86-64, figure 3.4).
_CALLER_SAVED = frozenset(("rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11"))


def _is_as_read(log: ExecutionLog, row: int, move: Move, read: Followed) -> bool:
    """Whether what was written at `row` is what was read later: else something else wrote it in between."""
    to = read.move.to
    if not isinstance(to, str) or read.cell is None or read.row + 1 >= len(log.address):
        return True
    mask = (1 << 8 * min(read.cell.size, 4)) - 1
    value = int(log.registers[read.row + 1, _COLUMN[to]]) & mask
    if move.kind == StepKind.CONST:
        return value == move.value & mask
    if move.kind == StepKind.COPY and isinstance(move.source, str):
        return value == int(log.registers[row, _COLUMN[move.source]]) & mask
    return True


def _changed(log: ExecutionLog, row: int, after: int, location: Location) -> Move | None:
    """Of an instruction that cannot be read (a BPF program's): whether it changed a register."""
    if isinstance(location, Cell) or log.registers[row, _COLUMN[location]] == log.registers[after, _COLUMN[location]]:
        return None
    return Move(location, StepKind.UNKNOWN)


def _on_stack(log: ExecutionLog, row: int, cell: Cell) -> bool:
    """Whether memory is of the stack that is in use at a row: THREAD_SIZE bytes, so aligned (page_64_types.h)."""
    rsp = int(log.registers[row, _COLUMN["rsp"]])
    return not cell.segment and cell.address // _THREAD_SIZE == rsp // _THREAD_SIZE


def _set_meanwhile(log: ExecutionLog, row: int, after: int, location: Location) -> Move | None:
    """What the handler of a fault at `row` put into a register, as the exception table may ask it to; the row behind
    it is the handler's first and has the registers as they were."""
    if isinstance(location, Cell):
        return None
    before, value = (int(log.registers[at, _COLUMN[location]]) for at in (row + 1, after))
    if before == value or location == "rsp":
        return None
    return Move(location, StepKind.CONST, value=value - (1 << 64) if value >> 63 else value)


def _has_faulted(log: ExecutionLog, row: int, after: int, executed: Executed) -> bool:
    """Whether the instruction, behind which something came in from outside, did nothing: it is executed again
    or its fixup instead of what follows it. One turn of a string instruction moves its registers on."""
    following = int(log.address[after])
    if following != executed.address:
        return following != executed.following
    changed = np.flatnonzero(log.registers[row] != log.registers[row + 1])
    return set(changed.tolist()) <= {_COLUMN["rsp"]}


def _writes(log: ExecutionLog, row: int, executed: Executed, location: Location) -> Move | None:
    for move in executed.moves:
        if move.counter and not log.registers[row, _COLUMN[move.counter]]:
            continue
        if isinstance(location, str):
            if move.to == location:
                return move
        elif isinstance(move.to, Memory) and _overlaps(cell_of(log, row, move.to), location):
            return move
    return None


def _overlaps(written: Cell, wanted: Cell) -> bool:
    return (
        written.segment == wanted.segment
        and written.address < wanted.address + wanted.size
        and wanted.address < written.address + written.size
    )


def _source(log: ExecutionLog, row: int, move: Move, location: Location) -> Location | None:
    """Where the value was before `move`; None where it came into being there."""
    if move.kind == StepKind.SELECT:
        moved = holds(move.condition, int(log.flags[row]))
        return _place(log, row, move.source, location) if moved and move.source is not None else location
    if move.kind == StepKind.COPY and move.source is not None:
        source = _place(log, row, move.source, location)
        if isinstance(location, Cell) and isinstance(move.to, Memory):
            into = location.address - cell_of(log, row, move.to).address
            if isinstance(source, Cell):  # of a wider copy the same bytes
                return Cell(source.address + into, location.size, source.segment)
            return source if into >= 0 else None
        return source
    if move.kind == StepKind.OPERATE:
        return _place(log, row, move.source, location) if move.source is not None else location
    return None


def _widened(log: ExecutionLog, row: int, move: Move, location: Cell, pending: Pending) -> Pending:
    """Of a register that was stored whole, the part that matters: two members of a structure are copied at once."""
    assert isinstance(move.to, Memory)
    into = location.address - cell_of(log, row, move.to).address
    return (("shr", 8 * into), *pending) if into else pending


def _narrowed(log: ExecutionLog, row: int, move: Move, cell: Cell, pending: Pending) -> tuple[Cell, Pending]:
    """Of memory that was loaded whole, the bytes that matter, where the rest is then shifted out."""
    if not pending or pending[0][0] not in ("shr", "sar") or not isinstance(move.source, Memory):
        return cell, pending
    shifted, rest = divmod(pending[0][1], 8)
    if rest or shifted >= move.source.size:
        return cell, pending
    return Cell(cell.address + shifted, min(4, move.source.size - shifted), cell.segment), pending[1:]


def _place(log: ExecutionLog, row: int, operand: Operand | None, location: Location) -> Location:
    if isinstance(operand, Memory):
        cell = cell_of(log, row, operand)
        size = min(cell.size, location.size) if isinstance(location, Cell) else min(cell.size, 4)
        return Cell(cell.address, size, cell.segment)  # an errno has 32 bits, whatever is copied with it
    assert operand is not None
    return operand


def cell_of(log: ExecutionLog, row: int, operand: Memory) -> Cell:
    """The memory that an operand means at a row."""
    address = operand.displacement
    for name, factor in ((operand.base, 1), (operand.index, operand.scale)):
        if name:
            address += int(log.registers[row, _COLUMN[name]]) * factor
    return Cell(address & _WORD, operand.size, operand.segment)


def holds(condition: str, flags: int) -> bool:
    """Whether the condition of a cmovCC or jCC holds (Intel SDM vol. 1, appendix B)."""
    carry, zero, sign = bool(flags & _CARRY), bool(flags & _ZERO), bool(flags & _SIGN)
    overflow, parity = bool(flags & _OVERFLOW), bool(flags & _PARITY)
    return {
        "o": overflow,
        "no": not overflow,
        "b": carry,
        "ae": not carry,
        "e": zero,
        "ne": not zero,
        "be": carry or zero,
        "a": not (carry or zero),
        "s": sign,
        "ns": not sign,
        "p": parity,
        "np": not parity,
        "l": sign != overflow,
        "ge": sign == overflow,
        "le": zero or sign != overflow,
        "g": not zero and sign == overflow,
    }[condition]
