"""QEMU's execution log: real excerpts, whole calls out of many, and text that is damaged or cut."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.model import LOGGED_REGISTERS
from profiler.parse import exec_log

DATA = Path(__file__).parent.parent / "data" / "exec_log"
REAL = (DATA / "entry.txt").read_bytes()
TAKEN_BACK = (DATA / "taken_back.txt").read_bytes()
ENTRY = 0xFFFFFFFF81C00080
BIND, GETPID = 49, 39
OTHER = 0xFFFFFFFF81000000  # a row of its own for each number added


def record(address: int, rax: int = 0) -> bytes:
    """A record as QEMU 7.2 prints it: the real one of the excerpt, with another address and RAX."""
    head = REAL.index(b"Trace 0: 0x7f3e1865d980")
    text = REAL[head : REAL.index(b"Trace", head + 1)]
    assert text.count(b"ffffffff81c00080") == 2
    return text.replace(b"ffffffff81c00080", b"%016x" % address).replace(b"RAX=0000000000000031", b"RAX=%016x" % rax)


def call(number: int, rows: int = 3) -> bytes:
    return record(ENTRY, number) + b"".join(record(OTHER + row) for row in range(rows))


def addresses(text: bytes, *, number: int = BIND, calls: int = 9, most: int = 1000) -> list[int]:
    log = exec_log.read(text.splitlines(keepends=True), entry=ENTRY, number=number, calls=calls, most=most)
    assert log.decode_errors == ()
    return [int(address) for address in log.address]


def test_a_real_entry_is_read_with_every_register() -> None:
    log = exec_log.read([REAL], entry=ENTRY, number=BIND, calls=1)
    assert [hex(address) for address in log.address] == [
        "0xffffffff81c00080",
        "0xffffffff81c00083",
        "0xffffffff81c0008c",
        "0xffffffff81c000a0",
    ]
    first = dict(zip(LOGGED_REGISTERS, log.registers[0].tolist(), strict=True))
    assert first["rax"] == BIND
    assert first["rbx"] == 0x7C
    assert first["rcx"] == 0x7F93E5FDA223
    assert first["rdx"] == 16  # the length that was passed to bind
    shown = REAL[REAL.index(b"Trace 0: 0x7f3e1865d980") :].splitlines()[1:5]
    for field in b" ".join(shown).replace(b"R8 =", b"R8=").replace(b"R9 =", b"R9=").split():
        name, value = field.decode().split("=")
        assert first[name.lower()] == int(value, 16)
    assert log.flags.tolist() == [2, 2, 2, 2]
    assert [str(column.dtype) for column in (log.address, log.registers, log.flags)] == ["uint64", "uint64", "uint32"]
    assert log.registers.shape == (4, 16)
    assert log.decode_errors == ()


def test_an_instruction_that_was_taken_back_counts_once() -> None:
    text = record(ENTRY, BIND) + TAKEN_BACK
    assert addresses(text)[1:] == [0xFFFFFFFF8178189C, 0xFFFFFFFF8178189F, 0xFFFFFFFF817818A1]


def test_an_entry_that_was_taken_back_is_no_call() -> None:
    stopped = b"Stopped execution of TB chain before 0x7f3e1866fc80 [%016x] \n" % ENTRY
    text = call(BIND, 1) + record(ENTRY, BIND) + stopped + record(OTHER + 5) + call(BIND, 1) + call(BIND, 1)
    assert addresses(text, calls=2) == [ENTRY, OTHER, OTHER + 5, ENTRY, OTHER]
    assert addresses(record(ENTRY, BIND) + stopped + record(OTHER)) == []


def test_what_is_taken_back_must_be_what_came_last() -> None:
    stopped = b"Stopped execution of TB chain before 0x7f3e1866fc80 [%016x] \n" % (OTHER + 7)
    assert addresses(call(BIND, 2) + stopped) == [ENTRY, OTHER, OTHER + 1]


def test_what_comes_before_the_first_wanted_call_is_left_out() -> None:
    text = record(OTHER + 9) + call(GETPID) + call(BIND, 1) + call(GETPID, 1)
    assert addresses(text, calls=1) == [ENTRY, OTHER]


def test_other_calls_between_are_kept_and_not_counted() -> None:
    text = call(BIND, 1) + call(GETPID, 1) + call(BIND, 1) + call(BIND, 1)
    assert addresses(text, calls=2) == [ENTRY, OTHER] * 3


def test_nothing_is_read_past_the_calls_asked_for() -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield call(BIND)

    log = exec_log.read(endless(), entry=ENTRY, number=BIND, calls=5)
    assert len(log.address) == 5 * 4
    assert taken < 100


def test_the_instructions_are_bounded() -> None:
    assert len(addresses(call(BIND, 500), most=100)) == 100


@pytest.mark.parametrize(("rows", "taken"), [(150, 200), (500, 400)])
def test_with_a_whole_call_in_fewer_instructions_are_enough(rows: int, taken: int) -> None:
    text = call(BIND, rows) * 9
    log = exec_log.read([text], entry=ENTRY, number=BIND, calls=9, most=400, enough=200)
    assert len(log.address) == taken


def test_a_log_that_ends_early_gives_what_there_is() -> None:
    whole = call(BIND, 3)
    assert addresses(whole) == [ENTRY, OTHER, OTHER + 1, OTHER + 2]
    assert addresses(whole[:-700]) == [ENTRY, OTHER, OTHER + 1, OTHER + 2]  # the registers were in
    assert addresses(whole[:-1000]) == [ENTRY, OTHER, OTHER + 1]
    assert addresses(b"") == []


@pytest.mark.parametrize("size", [1, 7, 1000, 100_000])
def test_pieces_may_be_cut_anywhere(size: int) -> None:
    text = call(GETPID) + call(BIND) * 3 + TAKEN_BACK + call(BIND)
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    log = exec_log.read(pieces, entry=ENTRY, number=BIND, calls=9)
    assert log.address.tolist() == addresses(text)


def test_longer_logs_are_cut_into_records_at_every_piece() -> None:
    text = call(BIND, 50) * 20
    log = exec_log.read([text[:700_001], text[700_001:]], entry=ENTRY, number=BIND, calls=19)
    assert log.address.tolist() == [ENTRY, *range(OTHER, OTHER + 50)] * 19
    assert log.decode_errors == ()


@pytest.mark.parametrize(
    "line",
    [
        b"Trace 0: 0x7f3e1866fc80 [%016x] ",  # QEMU 4
        b"Trace 0: 0x7f3e1866fc80 [0000000000000000/%016x/18c0c2b0] bind",
        b"Trace 0: 0x7f3e1866fc80 [00000000/%016x/18c0c2b0/ff020201] ",  # a shorter base
        b"Trace 0: 0x7f3e1866fc80 [0000000000000000/%016x/000000000018c0c2b0/00000000/ff020201] bind",
    ],
)
def test_the_heads_of_other_versions_are_read(line: bytes) -> None:
    parts = record(ENTRY, BIND).split(b"\n", 1)
    assert addresses(line % ENTRY + b"\n" + parts[1]) == [ENTRY]


def test_a_malformed_record_is_counted_and_the_others_are_read() -> None:
    good = record(OTHER)
    bad = good.replace(b"RBX=0", b"RBX=g")
    log = exec_log.read([call(BIND, 1), bad, record(OTHER + 1), good], entry=ENTRY, number=BIND, calls=9)
    assert log.address.tolist() == [ENTRY, OTHER, OTHER + 1, OTHER]
    (error,) = log.decode_errors
    assert error.offset == len(call(BIND, 1))
    assert "Trace 0: 0x7f3e1865d980" in error.what


def test_a_record_cut_by_the_next_is_counted() -> None:
    log = exec_log.read(
        [call(BIND, 1), record(OTHER + 1)[:200], b"\n", record(OTHER)] * 2, entry=ENTRY, number=1, calls=9
    )
    assert len(log.decode_errors) == 2


def test_what_is_no_log_is_counted_and_takes_no_memory() -> None:
    tracemalloc.start()
    log = exec_log.read((bytes(1 << 20) for _ in range(30)), entry=ENTRY, number=BIND, calls=9)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(log.address) == 0
    assert log.decode_errors
    assert "no execution log" in log.decode_errors[0].what
    assert peak < 10 << 20


@settings(max_examples=150, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=5)), max_size=20),
    cut=st.integers(0, 10**6),
)
def test_damage_never_raises_nor_makes_rows(changes: list[tuple[int, bytes]], cut: int) -> None:
    text = bytearray(call(BIND) * 2 + TAKEN_BACK + call(BIND))
    whole = len(addresses(bytes(text)))
    for place, new in changes:
        at = place % len(text)
        text[at : at + len(new)] = new
    damaged = bytes(text[: cut % len(text)])
    log = exec_log.read([damaged], entry=ENTRY, number=BIND, calls=99)
    assert len(log.registers) == len(log.flags) == len(log.address) <= whole + 1  # or what was taken back stays
