"""Hits of probes: a real capture row by row, and records that are damaged, cut or foreign."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.errors import InputError
from profiler.model import LOGGED_REGISTERS
from profiler.parse import probe_hits

DATA = Path(__file__).parent.parent / "data" / "probes"
FACTS = (DATA / "bind.json").read_bytes()
RECORDS = (DATA / "bind.bin").read_bytes()
BIND = 0xFFFFFFFF81E63D60  # __sys_bind(fd, address, 16)
ENDBR, FENTRY, THIRD, MIDDLE = BIND, BIND + 4, BIND + 9, BIND + 10
SIZE = 184


def lost_record(count: int) -> bytes:
    return struct.pack("<IHHQQ", 2, 0, 24, 7, count)


def changed(records: bytes, at: int, new: bytes) -> bytes:
    return records[:at] + new + records[at + len(new) :]


def test_a_real_capture_gives_each_call_its_hits_in_the_order_of_execution() -> None:
    hits = probe_hits.read(FACTS, RECORDS)
    assert hits.decode_errors == ()
    assert [int(address) for address in hits.address] == [ENDBR, FENTRY, THIRD, BIND] * 3
    assert list(hits.is_return) == [False, False, False, True] * 3
    assert hits.lost == 0
    assert set(hits.thread) == {131}
    assert all(hits.time[1:] > hits.time[:-1])


def test_hits_of_two_probes_on_one_instruction_stand_in_the_order_of_their_addresses() -> None:
    """The kernel moves the probe on the endbr behind it, and runs the one attached last first."""
    first, second = (struct.unpack_from("<Q", RECORDS, place * SIZE + 8)[0] for place in (0, 1))
    ids = json.loads(FACTS)["ids"]
    probes = json.loads(FACTS)["probes"]
    assert [probes[ids[str(identity)]][0] for identity in (first, second)] == [FENTRY, ENDBR]
    only_these = b"".join(RECORDS[place * SIZE : (place + 1) * SIZE] for place in (0, 1, 4, 5, 8, 9))
    hits = probe_hits.read(FACTS, only_these)
    assert [int(address) for address in hits.address] == [ENDBR, FENTRY] * 3


def test_registers_are_those_of_the_call() -> None:
    hits = probe_hits.read(FACTS, RECORDS)
    registers = {name: [int(value) for value in hits.registers[:, n]] for n, name in enumerate(LOGGED_REGISTERS)}
    assert {registers["rdi"][row] for row in (0, 4, 8)} == {7}  # the socket
    assert {registers["rdx"][row] for row in (0, 4, 8)} == {16}  # the length of an IPv4 address
    assert {registers["rax"][row] for row in (3, 7, 11)} == {(1 << 32) - 98}  # -EADDRINUSE as an int
    assert registers["rsp"][3] == registers["rsp"][0] + 8  # the return address is gone from the stack
    assert {registers["r13"][row] for row in range(12)} == {49}
    assert all(flags & 2 and flags < 1 << 22 for flags in hits.flags)  # bit 1 is always set


def test_probes_are_told_as_attached_or_refused() -> None:
    hits = probe_hits.read(FACTS, RECORDS)
    assert hits.attached == {ENDBR, FENTRY, THIRD}
    assert hits.attached_returns == {BIND}
    assert hits.refused == {MIDDLE: "not at the beginning of an instruction"}


def test_the_facts_may_come_as_what_their_json_holds() -> None:
    assert len(probe_hits.read(json.loads(FACTS), RECORDS).address) == 12


def test_no_records_are_no_hits() -> None:
    hits = probe_hits.read(FACTS, b"")
    assert hits.registers.shape == (0, 16)
    assert hits.attached
    assert hits.decode_errors == ()


def test_probes_without_any_event_are_no_hits() -> None:
    facts = {"ids": {}, "probes": [[BIND, False, "no code lies there"]], "lost": 0}
    assert probe_hits.read(facts, b"").attached == frozenset()


def test_records_of_other_types_are_passed_over_and_losses_counted() -> None:
    throttle = struct.pack("<IHHQQQ", 5, 0, 32, 1, 2, 3)
    hits = probe_hits.read(FACTS, RECORDS[:SIZE] + lost_record(5) + throttle + RECORDS[SIZE:] + lost_record(2))
    assert len(hits.address) == 12
    assert hits.lost == 7
    assert hits.decode_errors == ()


def test_a_cut_in_a_record_is_named_and_what_stands_before_it_is_kept() -> None:
    hits = probe_hits.read(FACTS, RECORDS[:-3])
    assert len(hits.address) == 11
    assert [error.offset for error in hits.decode_errors] == [11 * SIZE]


@pytest.mark.parametrize("size", [0, 4, 12, 65528])
def test_a_record_of_an_impossible_size_ends_the_reading_at_once(size: int) -> None:
    hits = probe_hits.read(FACTS, changed(RECORDS, 2 * SIZE + 6, struct.pack("<H", size)))
    assert len(hits.address) == 2
    assert [error.offset for error in hits.decode_errors] == [2 * SIZE]


def test_a_hit_of_a_probe_that_is_not_listed_is_counted() -> None:
    hits = probe_hits.read(FACTS, changed(RECORDS, SIZE + 8, struct.pack("<Q", 999)))
    assert len(hits.address) == 11
    assert len(hits.decode_errors) == 1


def test_a_hit_without_registers_is_counted() -> None:
    hits = probe_hits.read(FACTS, changed(RECORDS, 32, struct.pack("<Q", 0)))
    assert len(hits.address) == 11
    assert [error.offset for error in hits.decode_errors] == [0]


@pytest.mark.parametrize(
    "facts",
    [
        b"",
        b"[]",
        b"{",
        b'{"ids": {}, "probes": []}',
        b'{"ids": {"1": 0}, "probes": [], "lost": 0}',
        b'{"ids": {"x": 0}, "probes": [[1, false, ""]], "lost": 0}',
        b'{"ids": {}, "probes": [[-1, false, ""]], "lost": 0}',
        b'{"ids": {}, "probes": [[1, false]], "lost": 0}',
        b'{"ids": [], "probes": [[1, false, ""]], "lost": 0}',
    ],
)
def test_facts_of_another_shape_are_refused(facts: bytes) -> None:
    with pytest.raises(InputError, match="not the facts of probes"):
        probe_hits.read(facts, RECORDS)


@given(st.binary(max_size=600))
def test_any_bytes_give_hits_or_decode_errors_but_no_crash(records: bytes) -> None:
    hits = probe_hits.read(FACTS, records)
    assert len(hits.address) == len(hits.registers) == len(hits.time)


@given(at=st.integers(0, len(RECORDS) - 8), word=st.binary(min_size=1, max_size=8))
def test_a_damaged_capture_gives_hits_or_decode_errors_but_no_crash(at: int, word: bytes) -> None:
    hits = probe_hits.read(FACTS, changed(RECORDS, at, word))
    assert len(hits.address) + len(hits.decode_errors) >= 1
