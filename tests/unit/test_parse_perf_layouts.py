"""Records laid out as no perf at hand writes them, put together by hand."""

import struct
from pathlib import Path

import numpy as np
import pytest

from profiler.errors import InputError
from profiler.model import PerfRecording
from profiler.parse import perf_data
from profiler.parse import perf_format as fmt
from tests.unit.perf_bytes import IP_TID_TIME, KERNEL, USER, attr, record, words
from tests.unit.perf_bytes import perf_data as write

K = 0xFFFFFFFF81000000
CHAIN = IP_TID_TIME | fmt.SAMPLE_CALLCHAIN
MARK_KERNEL, MARK_USER = fmt.CONTEXT_KERNEL, 2**64 - 512


def task(pid: int, tid: int) -> int:
    return pid | tid << 32


def sample(ip: int, time: int, *rest: int, misc: int = KERNEL, tid: int = 7) -> bytes:
    return record(fmt.SAMPLE, words(ip, task(5, tid), time, *rest), misc)


def chains(recording: PerfRecording) -> list[list[int]]:
    s = recording.samples
    return [s.chain[s.chain_start[i] : s.chain_start[i + 1]].tolist() for i in range(len(s.ip))]


def test_chain_is_split_at_its_markers(tmp_path: Path) -> None:
    """Kernel then user, user alone, no marker at all, a guest's part in the middle, an impossible user address."""
    records = (
        sample(K + 1, 1, 5, MARK_KERNEL, K + 1, K + 2, MARK_USER, 0x1234)
        + sample(0x1234, 2, 2, MARK_USER, 0x1234, misc=USER)
        + sample(K + 3, 3, 2, K + 3, K + 4)
        + sample(0x99, 4, 2, 0x99, 0x98, misc=USER)
        + sample(K + 5, 5, 6, MARK_KERNEL, K + 5, 2**64 - 2048, 0x77, MARK_KERNEL, K + 6)
        + sample(K + 7, 6, 0)
        + sample(K + 8, 7, 5, MARK_KERNEL, K + 8, MARK_USER, 0x1234, 2**64 - 1)
    )
    recording = perf_data.read(write(tmp_path / "perf.data", [(attr(CHAIN), [1])], records))
    assert chains(recording) == [[K + 1, K + 2], [], [K + 3, K + 4], [], [K + 5, K + 6], [], [K + 8]]
    assert not recording.decode_errors


def test_precise_ip_replaces_the_place_of_the_interrupt(tmp_path: Path) -> None:
    """With PEBS the chain starts where the interrupt was taken, a little after the sampled ip."""
    records = sample(K + 1, 1, 3, MARK_KERNEL, K + 9, K + 20)
    recording = perf_data.read(write(tmp_path / "perf.data", [(attr(CHAIN), [1])], records))
    assert chains(recording) == [[K + 1, K + 20]]


@pytest.mark.parametrize("length", [4, 1000, 2**63])
def test_chain_longer_than_its_record_loses_the_chain_not_the_sample(tmp_path: Path, length: int) -> None:
    records = sample(K + 1, 1, length, MARK_KERNEL, K + 1, K + 2) + sample(K + 3, 2, 2, MARK_KERNEL, K + 3)
    recording = perf_data.read(write(tmp_path / "perf.data", [(attr(CHAIN), [1])], records))
    assert recording.samples.ip.tolist() == [K + 1, K + 3]
    assert chains(recording) == [[], [K + 3]]
    assert "longer than its sample" in recording.decode_errors[0].what


def test_sample_shorter_than_its_fields_is_a_decode_error(tmp_path: Path) -> None:
    records = record(fmt.SAMPLE, words(K), KERNEL) * 100 + sample(K + 3, 2)
    path = write(tmp_path / "perf.data", [(attr(IP_TID_TIME), [1])], records)
    recording = perf_data.read(path)
    assert recording.samples.ip.tolist() == [K + 3]
    assert len(recording.decode_errors) == 100
    assert "shorter" in recording.decode_errors[0].what


def test_many_decode_errors_are_kept_in_part_and_counted_in_full(tmp_path: Path) -> None:
    records = record(3000, b"") * 5000
    recording = perf_data.read(write(tmp_path / "perf.data", [(attr(IP_TID_TIME), [1])], records))
    assert len(recording.decode_errors) == 1001
    assert "4000 more" in recording.decode_errors[-1].what


@pytest.mark.parametrize("group", [False, True])
def test_chain_is_found_behind_counter_values(tmp_path: Path, group: bool) -> None:
    """PERF_SAMPLE_READ stands before the chain, and for groups its length is in the sample."""
    read_format = fmt.READ_ID | fmt.READ_LOST | fmt.READ_TIME_ENABLED | (fmt.READ_GROUP if group else 0)
    values = (2, 111, 10, 1, 0, 20, 2, 0) if group else (10, 111, 1, 0)
    records = sample(K + 1, 1, *values, 3, MARK_KERNEL, K + 1, K + 2)
    path = write(tmp_path / "perf.data", [(attr(CHAIN | fmt.SAMPLE_READ, read_format=read_format), [1])], records)
    assert chains(perf_data.read(path)) == [[K + 1, K + 2]]


def test_events_of_different_layout_are_told_apart_by_their_identifier(tmp_path: Path) -> None:
    one = fmt.SAMPLE_IDENTIFIER | IP_TID_TIME
    two = one | fmt.SAMPLE_CPU | fmt.SAMPLE_PERIOD
    first = record(fmt.SAMPLE, words(11, K + 1, task(5, 7), 100), KERNEL)
    second = record(fmt.SAMPLE, words(22, K + 2, task(5, 8), 200, 3, 4000), USER)
    unknown = record(fmt.SAMPLE, words(33, K + 3, task(5, 8), 300), USER)
    path = write(
        tmp_path / "perf.data", [(attr(one, period=77), [11]), (attr(two), [21, 22])], (first + second) * 3 + unknown
    )
    recording = perf_data.read(path)
    s = recording.samples
    order = np.argsort(s.event, kind="stable")
    assert s.event[order].tolist() == [0, 0, 0, 1, 1, 1]
    assert s.ip[order].tolist() == [K + 1] * 3 + [K + 2] * 3
    assert s.cpu[order].tolist() == [-1] * 3 + [3] * 3
    assert s.period[order].tolist() == [77] * 3 + [4000] * 3
    assert s.in_kernel[order].tolist() == [True] * 3 + [False] * 3
    assert ["does not list" in error.what for error in recording.decode_errors] == [True]


def test_events_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    attrs = [(attr(IP_TID_TIME), [1]), (attr(IP_TID_TIME | fmt.SAMPLE_ID), [2])]
    path = write(tmp_path / "perf.data", attrs, sample(K, 1))
    with pytest.raises(InputError, match=r"\(SAMPLE\): its events cannot be told apart"):
        perf_data.read(path)


def test_names_follow_threads_over_time(tmp_path: Path) -> None:
    """fork takes the parent's name over, exec changes it, samples before any name are called :TID; the order of
    the records in the file does not matter, their times do."""

    def comm(tid: int, name: bytes, time: int) -> bytes:
        return record(fmt.COMM, struct.pack("<2i", 5, tid) + name.ljust(16, b"\0") + words(task(5, tid), time))

    fork = record(fmt.FORK, struct.pack("<4iQ", 9, 5, 9, 7, 50) + words(task(5, 7), 50))
    samples = b"".join(
        sample(K, time, tid=tid)
        for time, tid in ((5, 7), (20, 7), (60, 9), (100, 9), (110, 9), (70, 7), (1, 0), (1, 8))
    )
    records = comm(7, b"shell", 10) + samples + comm(9, b"program", 100) + fork
    recording = perf_data.read(write(tmp_path / "perf.data", [(attr(IP_TID_TIME), [1])], records))
    names = [recording.comms[i] for i in recording.samples.comm]
    assert names == [":7", "shell", "shell", "program", "program", "shell", "swapper", ":8"]
    assert recording.parents == {9: 5}


def test_without_times_the_order_of_the_file_decides(tmp_path: Path) -> None:
    def comm(name: bytes) -> bytes:
        return record(fmt.COMM, struct.pack("<2i", 5, 7) + name.ljust(8, b"\0"))

    hit = record(fmt.SAMPLE, words(K, task(5, 7)), KERNEL)
    records = hit + comm(b"one") + hit + comm(b"two") + hit * 2
    path = write(tmp_path / "perf.data", [(attr(fmt.SAMPLE_IP | fmt.SAMPLE_TID, bits=0), [1])], records)
    recording = perf_data.read(path)
    assert [recording.comms[i] for i in recording.samples.comm] == [":7", "one", "two", "two"]
    assert recording.samples.time.tolist() == [0, 0, 0, 0]


def test_thread_ids_out_of_range_keep_their_samples(tmp_path: Path) -> None:
    records = sample(K, 1, tid=0x7FFFFFFF) + sample(K, 2, tid=0x80000000) + sample(K, 3, tid=0xFFFFFFFF)
    recording = perf_data.read(write(tmp_path / "perf.data", [(attr(IP_TID_TIME), [1])], records))
    assert recording.samples.tid.tolist() == [2**31 - 1, -(2**31), -1]
    assert [recording.comms[i] for i in recording.samples.comm] == [":2147483647", ":-2147483648", ":-1"]


def test_cpus_out_of_range_are_reported_and_kept_out(tmp_path: Path) -> None:
    records = sample(K, 1, 0x80000000) + sample(K, 2, 1)
    recording = perf_data.read(write(tmp_path / "perf.data", [(attr(IP_TID_TIME | fmt.SAMPLE_CPU), [1])], records))
    assert recording.samples.cpu.tolist() == [-1, 1]
    assert "1 samples of CPUs" in recording.decode_errors[0].what


def test_times_out_of_order_drop_nothing(tmp_path: Path) -> None:
    times = [5, 3, 9, 1, 2**64 - 1, 0]
    records = b"".join(sample(K + i, time) for i, time in enumerate(times))
    recording = perf_data.read(write(tmp_path / "perf.data", [(attr(IP_TID_TIME), [1])], records))
    assert recording.samples.time.tolist() == times


def test_throttling_and_both_kinds_of_loss_are_counted(tmp_path: Path) -> None:
    """What a BPF filter drops is no loss, and LOST_SAMPLES repeats what LOST said."""
    tail = words(task(5, 7), 9)
    records = (
        record(fmt.THROTTLE, words(1, 1, 1) + tail) * 2
        + record(6, words(1, 1, 1) + tail)
        + record(fmt.LOST, words(1, 30) + tail)
        + record(fmt.LOST_SAMPLES, words(20) + tail)
        + record(fmt.LOST_SAMPLES, words(15) + tail)
        + record(fmt.LOST_SAMPLES, words(500) + tail, misc=fmt.MISC_LOST_BY_FILTER)
    )
    recording = perf_data.read(write(tmp_path / "perf.data", [(attr(IP_TID_TIME), [1])], records))
    assert (recording.throttled, recording.lost) == (2, 35)


def test_bytes_behind_auxtrace_records_are_stepped_over(tmp_path: Path) -> None:
    """They are trace data that may look like anything, even like records."""
    trace = sample(0xBAD, 1) * 3
    auxtrace = record(fmt.AUXTRACE, words(len(trace), 0, 0, 0, 0)) + trace
    path = write(tmp_path / "perf.data", [(attr(IP_TID_TIME), [1])], auxtrace + sample(K, 1))
    assert perf_data.read(path).samples.ip.tolist() == [K]


def test_auxtrace_past_the_end_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "perf.data", [(attr(IP_TID_TIME), [1])], record(fmt.AUXTRACE, words(2**63, 0, 0, 0, 0)))
    with pytest.raises(InputError, match=r"\(AUXTRACE\) has .* cut short"):
        perf_data.read(path)


def test_words_that_look_like_headers_inside_records_are_not_taken_for_records(tmp_path: Path) -> None:
    """The pid and tid of these samples read as a header of a SAMPLE of 32 bytes."""
    lookalike = 9 | 32 << 48
    records = b"".join(record(fmt.SAMPLE, words(K + i, lookalike, i, *([0] * (i % 3))), KERNEL) for i in range(3000))
    recording = perf_data.read(write(tmp_path / "perf.data", [(attr(IP_TID_TIME), [1])], records))
    assert recording.samples.time.tolist() == list(range(3000))


def test_runs_and_mixed_records_give_every_sample_once(tmp_path: Path) -> None:
    """Runs of one size longer and shorter than the reader's blocks, broken by records of odd sizes."""
    generator = np.random.default_rng(1)
    pieces, count = [], 0
    for _ in range(60):
        for _ in range(int(generator.integers(1, 400))):
            pieces.append(sample(K, count))
            count += 1
        pieces.append(record(68, b"") if generator.random() < 0.5 else record(80, words(200) + b"abc"))
    recording = perf_data.read(write(tmp_path / "perf.data", [(attr(IP_TID_TIME), [1])], b"".join(pieces)))
    assert recording.samples.time.tolist() == list(range(count))
    assert not recording.decode_errors
