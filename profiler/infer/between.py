"""Which instructions of a block are probed, and the registers at those that are not.

Of a block it is enough to probe the first instruction and those whose effect cannot be told from the registers there
and at the next probe: what the flags choose, where control leaves, and memory reached through what was just loaded.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from profiler.graph import Block, Control, EdgeKind, Executed, Memory, Move, StepKind
from profiler.infer.execution import RSP, Decode
from profiler.model import LOGGED_REGISTERS

_COLUMN = {name: column for column, name in enumerate(LOGGED_REGISTERS)}
_WORD = (1 << 64) - 1
# Of a register that is not known: an address that no memory has, so that nothing seems to be read or written there.
UNKNOWN = 0x0BAD_0000_0BAD_0000
_WIDTHS = (32, 64)  # narrower results leave the rest of the register as it was
_BY_FLAGS = (StepKind.SELECT, StepKind.FLAGS)
_LEADS_AWAY = (EdgeKind.FAULT, EdgeKind.TRAP)
_OPERATORS = {
    "add": lambda before, value: before + value,
    "sub": lambda before, value: before - value,
    "and": lambda before, value: before & value,
    "or": lambda before, value: before | value,
    "xor": lambda before, value: before ^ value,
}

State = list[int | None]


def points(block: Block, decode: Decode) -> list[int]:
    """The addresses of a block to probe, in their order."""
    found, address = [], block.start
    loaded: set[str] = set()
    leads_away = block.call is not None or block.returns or any(edge.kind in _LEADS_AWAY for edge in block.edges)
    while address < block.end:
        step = decode(address)
        away = address == block.last and (leads_away or (step is not None and _is_indirect(step)))
        if address == block.start or away or step is None or _needs_probe(step, loaded):
            found.append(address)
            loaded.clear()
        if step is None:
            break
        loaded |= {move.to for move in step.moves if isinstance(move.to, str) and not _is_told(step, move)}
        address = step.following
    return found


def _is_indirect(step: Executed) -> bool:
    return step.control != Control.NEXT and step.target is None


def _needs_probe(step: Executed, loaded: set[str]) -> bool:
    if step.stack is None or any(move.kind in _BY_FLAGS or move.counter for move in step.moves):
        return True
    operands = [operand for move in step.moves for operand in (move.to, move.source) if isinstance(operand, Memory)]
    return any({operand.base, operand.index} & loaded for operand in operands)


def _is_told(step: Executed, move: Move) -> bool:
    """Whether what a register holds afterwards follows from the registers before."""
    if step.width not in _WIDTHS:
        return False
    if move.kind == StepKind.OPERATE:
        return move.operator in _OPERATORS
    return move.kind == StepKind.CONST or (move.kind == StepKind.COPY and isinstance(move.source, str))


def registers(
    steps: Sequence[Executed], first: NDArray[np.uint64], last: NDArray[np.uint64], *, called: bool = False
) -> NDArray[np.uint64]:
    """(n - 1, 16) of the state before each of `steps` but the first, in the order of LOGGED_REGISTERS.

    `first` is the state before the first of them, `last` that behind the last. `called`: the first is a call whose
    callee was not seen, so that what it may have changed is known from `last` alone.
    """
    rows: list[State] = []
    state: State = first.tolist()
    for index, step in enumerate(steps):
        state = _behind(step, state) if index or not called else _kept(state)
        rows.append(state)
    behind: State = last.tolist()
    for index in range(len(steps) - 1, 0, -1):  # a register that nothing sets any more has its last value already
        written = {move.to for move in steps[index].moves if isinstance(move.to, str)}
        behind = [None if name in written else value for name, value in zip(LOGGED_REGISTERS, behind, strict=True)]
        behind[RSP] = None
        rows[index - 1] = [
            value if value is not None else later for value, later in zip(rows[index - 1], behind, strict=True)
        ]
    filled = [[UNKNOWN + column if value is None else value for column, value in enumerate(row)] for row in rows[:-1]]
    return np.array(filled, dtype=np.uint64).reshape(-1, len(LOGGED_REGISTERS))


def _kept(state: State) -> State:
    """What a callee has to leave as it was (System V ABI for x86-64)."""
    kept = {_COLUMN[name] for name in ("rbx", "rbp", "rsp", "r12", "r13", "r14", "r15")}
    return [value if column in kept else None for column, value in enumerate(state)]


def _behind(step: Executed, state: State) -> State:
    after = list(state)
    for move in step.moves:
        if isinstance(move.to, str) and move.to in _COLUMN:
            after[_COLUMN[move.to]] = _set_to(step, move, state)
    pointer = state[RSP]
    after[RSP] = (pointer + step.stack) & _WORD if pointer is not None and step.stack is not None else None
    return after


def _set_to(step: Executed, move: Move, state: State) -> int | None:
    if not _is_told(step, move):
        return None
    mask = (1 << step.width) - 1  # 32 bits clear the upper half
    if move.kind == StepKind.CONST:
        return move.value & mask
    source = move.source if isinstance(move.source, str) else move.to
    before = state[_COLUMN[source]] if source in _COLUMN else None
    if before is None:
        return None
    value = before if move.kind == StepKind.COPY else _OPERATORS[move.operator](before, move.value)
    return value & mask
