"""Which instructions of a block are probed, and what is told of those between, held against a real CPU emulator."""

from __future__ import annotations

import numpy as np
import pytest

from profiler.graph import Executed
from profiler.infer import between
from profiler.model import LOGGED_REGISTERS, ExecutionLog
from tests.unit.test_infer_probed import DEEP_KERNEL, TRUE, WAYS, ran_deep, seen_of
from tests.unit.toy_execution import HEAP, ToyMachine, toy
from tests.unit.toy_kernel import ToyKernel
from tests.unit.toy_probes import SYSCALL

RSP, RAX = LOGGED_REGISTERS.index("rsp"), LOGGED_REGISTERS.index("rax")
STRAIGHT = """
    __x64_sys_frob:
        push rbx
        sub rsp, 16
        mov rbx, rdi
        mov rcx, rbx
        add rcx, 8
        mov rsi, [rcx]
        mov eax, -22
        mov rdx, [rdi]
        mov rsi, rdx
        add rsp, 16
        pop rbx
        ret
"""


def points_of(kernel: ToyKernel) -> set[int]:
    entries = [kernel.at[name] for name in kernel.at if "." not in name]
    return {at for entry in entries for block in kernel.graph(entry).blocks.values() for at in _points(kernel, block)}


def _points(kernel: ToyKernel, block: object) -> list[int]:
    return between.points(block, kernel.executed)  # type: ignore[arg-type]


def run_of(kernel: ToyKernel) -> tuple[ExecutionLog, list[Executed]]:
    """The function's rows of one call, and its instructions."""
    machine = ToyMachine(kernel)
    machine.write(HEAP, 7, 9)
    machine.call(rdi=HEAP)
    log = machine.log()
    graph = kernel.graph(kernel.at[SYSCALL])
    (block,) = graph.blocks.values()
    rows = np.flatnonzero((log.address >= block.start) & (log.address < block.end))
    steps = [step for row in rows if (step := kernel.executed(int(log.address[row]))) is not None]
    return ExecutionLog(log.address[rows], log.registers[rows], log.flags[rows]), steps


def test_every_register_that_is_told_holds_what_it_held() -> None:
    """Between the first instruction of a block and its return; what cannot be told is marked so."""
    log, steps = run_of(toy(STRAIGHT))
    told = between.registers(steps[:-1], log.registers[0], log.registers[-1])
    unknown = (told >> np.uint64(48)) == between.UNKNOWN >> 48
    assert (told == log.registers[1:-1])[~unknown].all()
    assert not unknown[:, RSP].any()
    assert 0 < unknown.sum() < 8  # rsi, between the two loads of it


def test_behind_a_call_only_what_callees_keep_is_taken_from_before() -> None:
    log, steps = run_of(toy(STRAIGHT))
    told = between.registers(steps[:3], log.registers[0], log.registers[3] + np.uint64(1), called=True)
    kept = [LOGGED_REGISTERS.index(name) for name in ("rbp", "r12", "r13", "r14", "r15")]
    assert (told[0, kept] == log.registers[0, kept]).all()
    assert told[0, RAX] == log.registers[3, RAX] + 1


@pytest.mark.parametrize("words", WAYS)
def test_with_only_the_points_of_each_block_probed_the_origin_is_that_of_an_execution_log(
    words: tuple[int, int],
) -> None:
    _, (path,) = seen_of(ran_deep(words), points_of(DEEP_KERNEL))
    assert path.origin == TRUE[words]


def test_fewer_instructions_are_probed_than_there_are() -> None:
    kernel = DEEP_KERNEL
    entries = [kernel.at[name] for name in kernel.at if "." not in name]
    whole = sum(block.instructions for entry in entries for block in kernel.graph(entry).blocks.values())
    assert len(points_of(kernel)) < 0.75 * whole
