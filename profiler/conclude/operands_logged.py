"""What was recorded of the point where operands are read, as hits for `operands.with_values`.

Probes with fetch arguments tell registers and memory; probes that settled the path tell registers; an execution log
tells registers at each time the point was passed, and memory where an instruction close by reads or writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from profiler.conclude.operands import Known, Plan
from profiler.debuginfo.operands import WORD, Memory, Register, evaluate
from profiler.errors import InputError
from profiler.graph import Executed, StepKind
from profiler.graph import Memory as MemoryOperand
from profiler.model import LOGGED_REGISTERS, ExecutionLog, ProbeHits

_COLUMN = {name: index for index, name in enumerate(LOGGED_REGISTERS)}
_FARTHEST = 400  # instructions looked at before and behind the point
_MOST_PASSES = 200


def fetched(planned: Plan, answer: Mapping[str, Any], offset: int) -> list[Known]:
    """`answer`: what operands-N.json holds (profiler.record.operands). Raises InputError where it is something else."""
    try:
        hits = [hit for hit in answer["hits"] if hit["address"] == (planned.address + offset) & WORD]
        return [planned.known(dict(hit["values"])) for hit in hits]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"not the values of operands: {type(error).__name__}: {error}", hint="record again") from error


def probed(planned: Plan, hits: ProbeHits, offset: int) -> list[Known]:
    """Registers alone."""
    here = (hits.address == np.uint64((planned.address + offset) & WORD)) & ~hits.is_return
    return [_registers_alone(hits.registers[row]) for row in np.flatnonzero(here)[-_MOST_PASSES:]]


def _registers_alone(row: NDArray[np.uint64]) -> Known:
    def known(source: Register | Memory) -> int | None:
        column = _COLUMN.get(source.name) if isinstance(source, Register) else None
        return int(row[column]) if column is not None else None

    return known


def passes(log: ExecutionLog, offset: int, address: int, decode: Callable[[int], Executed | None]) -> list[Known]:
    """One for each time that the instruction at an address, as linked, was about to be executed; the last ones of very
    many."""
    rows = np.flatnonzero(log.address == np.uint64((address + offset) & WORD))[-_MOST_PASSES:]
    return [_Pass(log, offset, int(row), decode) for row in rows]


class _Pass:
    def __init__(self, log: ExecutionLog, offset: int, row: int, decode: Callable[[int], Executed | None]) -> None:
        self._log, self._offset, self._row, self._decode = log, offset, row, decode
        self._cells: dict[tuple[int, int], int] | None = None

    def __call__(self, source: Register | Memory) -> int | None:
        if isinstance(source, Register):
            return int(self._log.registers[self._row, _COLUMN[source.name]]) if source.name in _COLUMN else None
        address = evaluate(source.address, self)
        if address is None or source.segment:
            return None
        return self._known_cells().get((address, source.size))

    def _known_cells(self) -> dict[tuple[int, int], int]:
        """By address and size in bytes, what memory held."""
        if self._cells is None:
            self._cells = {}
            self._look(range(self._row, min(self._row + _FARTHEST, len(self._log.address) - 1)), backwards=False)
            self._look(range(self._row - 1, max(self._row - _FARTHEST, -1), -1), backwards=True)
        return self._cells

    def _look(self, rows: range, *, backwards: bool) -> None:
        """What is read later was there unless it was written in between; what was read or written before likewise."""
        assert self._cells is not None
        written: list[tuple[int, int]] = []
        for row in rows:
            step = self._decode((int(self._log.address[row]) - self._offset) & WORD)
            for move in step.moves if step is not None else ():
                if isinstance(move.source, MemoryOperand) and isinstance(move.to, str) and move.kind == StepKind.COPY:
                    self._note(row, move.source, move.to, row + 1, written)
                if isinstance(move.to, MemoryOperand):
                    if backwards and move.kind == StepKind.COPY and isinstance(move.source, str):
                        self._note(row, move.to, move.source, row, written)
                    written.append((self._address(row, move.to), move.to.size))

    def _note(self, row: int, cell: MemoryOperand, register: str, told_at: int, written: list[tuple[int, int]]) -> None:
        at, size = self._address(row, cell), cell.size
        if cell.segment or register not in _COLUMN or any(at < w + n and w < at + size for w, n in written):
            return
        if self._cells is not None and told_at < len(self._log.address):
            word = int(self._log.registers[told_at, _COLUMN[register]]) & ((1 << 8 * size) - 1)
            self._cells.setdefault((at, size), word)

    def _address(self, row: int, cell: MemoryOperand) -> int:
        found = cell.displacement
        for name, factor in ((cell.base, 1), (cell.index, cell.scale)):
            found += int(self._log.registers[row, _COLUMN[name]]) * factor if name in _COLUMN else 0
        return found & WORD
