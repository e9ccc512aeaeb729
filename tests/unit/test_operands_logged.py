"""Operands from what was recorded: answers to an order, hits of probes, execution logs; and the frame's base."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from profiler.conclude import operands
from profiler.conclude.operands_logged import fetched, passes, probed
from profiler.debuginfo.operands import Constant, Memory, Operation, Register
from profiler.debuginfo.orc import Orc
from profiler.debuginfo.variables import Variable
from profiler.errors import InputError
from profiler.model import LOGGED_REGISTERS, Branch, ExecutionLog, ProbeHits
from tests.unit.test_operands import INT, Toy, function
from tests.unit.toy_kernel import FILE, TEXT

OFFSET = 0x1000000
RAX, RBX, RDI, RSI = (LOGGED_REGISTERS.index(name) for name in ("rax", "rbx", "rdi", "rsi"))
DATA = 0xFFFF888000001000


def planned(code: Toy, condition: str, outcome: bool) -> operands.Plan:
    plan = operands.plan(code, Branch("f", FILE, 3, "", condition, outcome), code.jump("f"))
    assert plan is not None
    return plan


def rows(*values: dict[int, int]) -> np.ndarray[tuple[int, int], np.dtype[np.uint64]]:
    found = np.zeros((len(values), len(LOGGED_REGISTERS)), np.uint64)
    for row, registers in enumerate(values):
        for column, value in registers.items():
            found[row, column] = value
    return found


def test_an_answer_gives_the_hits_of_its_own_point() -> None:
    plan = planned(Toy(function("cmp rax, rbx", "jb .bad")), "cur > limit", True)
    (point,) = plan.points(OFFSET)
    assert point.fetch == {"v0": "%ax:u64", "v1": "%bx:u64"}
    here = {"point": 0, "address": point.address, "values": {"v0": 0, "v1": 16}}
    elsewhere = {"point": 1, "address": point.address + 8, "values": {"v0": 3, "v1": 4}}
    hits = fetched(plan, {"hits": [here, elsewhere], "errors": []}, OFFSET)
    assert len(hits) == 1
    assert operands.with_values(plan, hits).values == "cur (16) > limit (0)"


@pytest.mark.parametrize("answer", [{}, {"hits": 1}, {"hits": [{"address": 0}, {"values": {}}]}])
def test_an_answer_of_another_shape_is_refused(answer: dict[str, object]) -> None:
    plan = planned(Toy(function("cmp rax, rbx", "jb .bad")), "cur > limit", True)
    with pytest.raises(InputError, match="not the values of operands"):
        fetched(plan, answer, OFFSET)


def test_probes_give_registers_and_no_memory() -> None:
    plan = planned(Toy(function("cmp rax, rbx", "jb .bad")), "cur > limit", True)
    address = np.array([plan.address + OFFSET] * 3, np.uint64)
    hits = ProbeHits(
        address=address,
        is_return=np.array([False, False, True]),
        registers=rows({RAX: 0, RBX: 16}, {RAX: 0, RBX: 17}, {RAX: 9, RBX: 9}),
        flags=np.zeros(3, np.uint32),
        thread=np.ones(3, np.int32),
        time=np.arange(3, dtype=np.uint64),
        attached=frozenset(),
        refused={},
        lost=0,
    )
    known = probed(plan, hits, OFFSET)
    assert [hit(Register("rbx")) for hit in known] == [16, 17]
    assert known[0](Memory(Register("rbx"), 4)) is None
    assert operands.with_values(plan, known).operands


def test_a_log_tells_memory_that_is_read_close_by_and_not_written_between() -> None:
    text = function("cmp rax, 7", "jne .bad", "mov rsi, [rdi+8]", "mov [rdi+8], rbx", "mov rsi, [rdi+8]")
    member = {"f": {"count": Variable(Memory(Operation("add", Register("rdi"), Constant(8)), 8), INT)}}
    code = Toy(text, member)
    start = code.kernel.at["f"]
    walked, at = [], start
    for _ in range(6):
        walked.append(at)
        step = code.kernel.executed(at)
        assert step is not None
        at = step.following
    registers = [{RAX: 7, RDI: DATA, RBX: 99}] * 3 + [{RDI: DATA, RSI: 5, RBX: 99}] * 2 + [{RDI: DATA, RSI: 99}]
    log = ExecutionLog(np.array(walked, np.uint64), rows(*registers), np.zeros(6, np.uint32))
    (known,) = passes(log, 0, start, code.kernel.executed)
    place = Memory(Operation("add", Register("rdi"), Constant(8)), 8)
    assert known(Register("rax")) == 7
    assert known(place) == 5
    assert known(Memory(Register("rdi"), 8)) is None


def test_the_unwind_table_tells_where_the_frame_begins() -> None:
    table = TEXT + 0x1000
    addresses = b"".join(struct.pack("<i", TEXT + at - (table + 4 * i)) for i, at in enumerate((0, 4, 8)))
    entries = b"".join(struct.pack("<hhBB", offset, 0, base, 0) for offset, base in ((8, 5), (16, 4), (0, 0)))
    orc = Orc(table, addresses, entries)
    assert orc.frame_address(TEXT + 3) == Operation("add", Register("rsp"), Constant(8))
    assert orc.frame_address(TEXT + 4) == Operation("add", Register("rbp"), Constant(16))
    assert orc.frame_address(TEXT + 9) is None
    assert orc.frame_address(TEXT - 1) is None
