"""What kprobes would see of calls that a toy machine made: of every row that it ran, those where a probe is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from profiler.conclude import exactly
from profiler.model import LOGGED_REGISTERS, ProbeHits
from tests.unit.toy_execution import FROB, ToyMachine
from tests.unit.toy_kernel import ToyKernel

EINVAL = 22
SYSCALL = "__x64_sys_frob"
_RSP = LOGGED_REGISTERS.index("rsp")
_Row = tuple[int, bool, tuple[int, ...], int, int]  # address, is a return's, registers, flags, time


def instructions(kernel: ToyKernel, functions: Iterable[str], but: Iterable[str] = ()) -> frozenset[int]:
    """The addresses of all instructions of `functions`, without those at the labels `but`."""
    names = set(functions)
    left_out = {kernel.at[label] for label in but}
    found = {address for address in kernel.next_ip if (held := kernel.function_at(address)) and held[0] in names}
    return frozenset(found - left_out)


def hits_of(
    machine: ToyMachine,
    attached: Iterable[int],
    *,
    returns: Iterable[int] = (),
    refused: Mapping[int, str] | None = None,
    offset: int = 0,
    thread: int = 100,
) -> ProbeHits:
    """`attached`, `returns`, `refused` are link addresses; the kernel ran `offset` above them."""
    probed, functions, refusals = frozenset(attached), frozenset(returns), dict(refused or {})
    probed -= refusals.keys()
    rows = list(_rows(machine, probed, functions))
    return ProbeHits(
        address=np.array([address + offset for address, *_ in rows], np.uint64),
        is_return=np.array([is_return for _, is_return, *_ in rows], np.bool_),
        registers=np.array([row[2] for row in rows], np.uint64).reshape(-1, len(LOGGED_REGISTERS)),
        flags=np.array([row[3] for row in rows], np.uint32),
        thread=np.full(len(rows), thread, np.int32),
        time=np.array([row[4] for row in rows], np.uint64),
        attached=frozenset(address + offset for address in probed),
        refused={address + offset: why for address, why in refusals.items()},
        lost=0,
        attached_returns=frozenset(address + offset for address in functions),
    )


def _rows(machine: ToyMachine, probed: frozenset[int], functions: frozenset[int]) -> Iterable[_Row]:
    waiting: list[tuple[int, int]] = []  # functions that have not returned: entry, address of the return address
    for time, (address, registers, flags) in enumerate(machine.rows):
        while waiting and registers[_RSP] == waiting[-1][1] + 8:
            yield waiting.pop()[0], True, registers, flags, time
        if address in functions:
            waiting.append((address, registers[_RSP]))
        if address in probed:
            yield address, False, registers, flags, time


def question(errno: int = EINVAL, offset: int = 0) -> exactly.Question:
    return exactly.Question("x86_64", FROB, errno, SYSCALL, offset)
