"""perf.data to samples, on recordings made by perf itself (tests/data/perf/README.md says how)."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest

from profiler.errors import InputError
from profiler.parse import perf_data, perf_script
from tests.perf_parity import assert_same_samples

DATA = Path(__file__).parent.parent / "data" / "perf"
TEXT_START = 0xFFFFFFFF81000000


def changed(tmp_path: Path, source: str, at: int, new: bytes) -> Path:
    """A copy of a recording with some bytes replaced."""
    content = bytearray((DATA / source).read_bytes())
    content[at : at + len(new)] = new
    path = tmp_path / "perf.data"
    path.write_bytes(content)
    return path


def cut(tmp_path: Path, source: str, length: int) -> Path:
    path = tmp_path / "perf.data"
    path.write_bytes((DATA / source).read_bytes()[:length])
    return path


def data_section(source: str) -> tuple[int, int]:
    return struct.unpack_from("<2Q", (DATA / source).read_bytes(), 40)


@pytest.mark.parametrize("name", ["callchains", "plain", "compressed", "events", "pipe", "threads"])
def test_samples_equal_those_of_perf_script(name: str) -> None:
    """Files, compressed files, pipes, directories: each sample has what perf script prints for it."""
    recording = perf_data.read(DATA / f"{name}.data")
    text = perf_script.read((DATA / f"{name}.script").read_bytes().splitlines(keepends=True))
    assert len(recording.samples.ip) > 50
    assert not recording.decode_errors
    assert not text.decode_errors
    assert_same_samples(recording, text)
    assert recording.parents == text.parents


def test_facts_of_the_header() -> None:
    """Kernel, perf, command and events are read from the header's features."""
    recording = perf_data.read(DATA / "callchains.data")
    assert recording.os_release == "6.1.0-56-cloud-amd64"
    assert recording.arch == "x86_64"
    assert recording.perf_version.startswith("6.1.")
    assert recording.command_line[1:4] == ("record", "-q", "-a")
    assert recording.events[0].name == "cpu-clock"
    assert recording.events[0].frequency == 199
    assert recording.events[0].precise == 0
    assert len(recording.kernel_build_id) == 40
    assert recording.kernel_map is not None
    assert recording.kernel_map.start == TEXT_START
    assert recording.kernel_map.name == "[kernel.kallsyms]_text"


def test_a_pipe_brings_the_same_facts() -> None:
    recording = perf_data.read(DATA / "pipe.data")
    assert [event.name for event in recording.events] == ["cpu-clock", "task-clock"]
    assert recording.os_release == "6.1.0-56-cloud-amd64"
    assert recording.command_line[-3:] == ("spin", "socket-einval", "0.4")


def test_chains_are_the_kernels_and_start_at_the_sampled_ip() -> None:
    """No markers, no user addresses; the first entry of each is the sample's ip."""
    samples = perf_data.read(DATA / "callchains.data").samples
    lengths = np.diff(samples.chain_start)
    assert (samples.chain >= TEXT_START).all()
    assert (samples.chain < 2**64 - 4095).all()
    assert (lengths[~samples.in_kernel] == 0).all()
    assert (lengths[samples.in_kernel] > 0).all()
    assert (samples.chain[samples.chain_start[:-1][lengths > 0]] == samples.ip[lengths > 0]).all()


def test_thread_names_are_kept_as_they_are() -> None:
    """Spaces, brackets, newlines, escape sequences, markup and invalid UTF-8 reach the caller unharmed."""
    recording = perf_data.read(DATA / "names.data")
    used = {recording.comms[i] for i in recording.samples.comm}
    expected = {"a b [001] c: d", "12/13 [000]", "x\ny", "\x1b[31mred", "\\xff\\xfe bad", "$(x);rm", "<b>&amp;"}
    assert used >= expected


def test_lost_samples_are_counted() -> None:
    """perf itself said `Processed 489 samples and lost 52.15%` of this file."""
    recording = perf_data.read(DATA / "lost.data")
    assert len(recording.samples.ip) + recording.lost == 489
    assert round(100 * recording.lost / 489, 2) == 52.15


def test_directory_of_kcore_is_read() -> None:
    recording = perf_data.read(DATA / "kcore.data")
    assert len(recording.samples.ip) > 0
    assert [event.name for event in recording.events] == ["cpu-clock", "dummy:u", "dummy:HG"]


def test_same_file_gives_the_same_columns_twice() -> None:
    first, second = (perf_data.read(DATA / "callchains.data") for _ in range(2))
    assert np.array_equal(first.samples.time, second.samples.time)
    assert np.array_equal(first.samples.comm, second.samples.comm)
    assert first.comms == second.comms


# ---- damage ----


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty file"),
        (b"PERF", "not a perf.data file"),
        (b"\x7fELF" + bytes(200), "not a perf.data file"),
        (b"PERFILE2" + bytes(4), "cut inside the file header"),
        (b"PERFILE2" + struct.pack("<Q", 104) + bytes(20), "cut inside the file header, at 36 of 104"),
        (b"PERFILE2" + struct.pack("<Q", 77) + bytes(200), "header of 77 bytes at offset 0x8"),
        (b"2ELIFREP" + bytes(200), "other byte order"),
        (b"PERFFILE" + bytes(200), "version 1"),
        (b"PERFILE2" + struct.pack("<Q", 16), "no event is described"),
    ],
)
def test_foreign_and_short_files_are_refused(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "perf.data"
    path.write_bytes(content)
    with pytest.raises(InputError, match=says):
        perf_data.read(path)


def test_missing_files_directories_and_pipes_are_refused(tmp_path: Path) -> None:
    """A FIFO must not make it wait for a writer."""
    with pytest.raises(InputError, match="cannot be read"):
        perf_data.read(tmp_path / "absent")
    with pytest.raises(InputError, match="cannot be read"):
        perf_data.read(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InputError, match="not a regular file"):
        perf_data.read(tmp_path / "fifo")


def test_file_cut_in_a_record_names_the_offset_and_salvage_reads_the_rest(tmp_path: Path) -> None:
    start, size = data_section("plain.data")
    path = cut(tmp_path, "plain.data", start + size - 11)
    with pytest.raises(InputError, match=rf"cut short: records should end at offset {start + size:#x}"):
        perf_data.read(path)
    whole = perf_data.read(DATA / "plain.data")
    salvaged = perf_data.read(path, salvage=True)
    assert len(salvaged.samples.ip) >= len(whole.samples.ip) - 1
    assert "the file ends at" in salvaged.decode_errors[0].what
    assert "bytes, but only" in salvaged.decode_errors[1].what


def test_file_cut_in_its_features_is_an_error_but_its_samples_are_salvaged(tmp_path: Path) -> None:
    start, size = data_section("plain.data")
    path = cut(tmp_path, "plain.data", start + size + 20)
    with pytest.raises(InputError, match="features at offset"):
        perf_data.read(path)
    assert len(perf_data.read(path, salvage=True).samples.ip) == len(perf_data.read(DATA / "plain.data").samples.ip)


def test_killed_recorder_is_named_and_its_samples_are_salvaged(tmp_path: Path) -> None:
    """perf writes the data size last; a file of a killed perf has 0 there and no features."""
    start, size = data_section("plain.data")
    path = tmp_path / "perf.data"
    content = bytearray((DATA / "plain.data").read_bytes()[: start + size])
    content[48:56] = bytes(8)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"data size is 0: perf record was killed"):
        perf_data.read(path)
    salvaged = perf_data.read(path, salvage=True)
    assert len(salvaged.samples.ip) == len(perf_data.read(DATA / "plain.data").samples.ip)
    assert salvaged.events[0].name == "cpu-clock"


@pytest.mark.parametrize("size", [0, 7])
def test_record_too_small_for_its_header_is_named(tmp_path: Path, size: int) -> None:
    """No endless loop on a size of 0."""
    start, _ = data_section("plain.data")
    path = changed(tmp_path, "plain.data", start + 6, struct.pack("<H", size))
    with pytest.raises(InputError, match=rf"offset {start:#x} \(.*\) has size {size}, below"):
        perf_data.read(path)


def test_record_past_the_end_is_named(tmp_path: Path) -> None:
    start, size = data_section("plain.data")
    path = changed(tmp_path, "plain.data", start + 6, struct.pack("<H", 0xFFF8))
    with pytest.raises(InputError, match=rf"offset {start:#x} \(.*\) has 65528 bytes, but only {size} are left"):
        perf_data.read(path)


def test_unknown_record_type_is_skipped_and_counted(tmp_path: Path) -> None:
    start, _ = data_section("plain.data")
    recording = perf_data.read(changed(tmp_path, "plain.data", start, struct.pack("<I", 3000)))
    assert [error.offset for error in recording.decode_errors] == [start]
    assert "unknown type 3000" in recording.decode_errors[0].what
    assert len(recording.samples.ip) == len(perf_data.read(DATA / "plain.data").samples.ip)


@pytest.mark.parametrize(
    ("at", "value", "says"),
    [
        (16, 0, "event attributes of 0 bytes"),
        (16, 1 << 40, "event attributes of 1099511627776 bytes"),
        (24, 1 << 62, "event attributes at offset 0x4000000000000000"),
        (32, 2**64 - 16, "run past the end"),
        (40, 1 << 63, "records begin at offset 0x8000000000000000"),
        (48, 2**64 - 1, "cut short"),
    ],
)
def test_sections_out_of_the_file_are_refused(tmp_path: Path, at: int, value: int, says: str) -> None:
    """Before anything is allocated by such a size."""
    with pytest.raises(InputError, match=says):
        perf_data.read(changed(tmp_path, "plain.data", at, struct.pack("<Q", value)))


def test_feature_with_a_huge_string_is_a_decode_error(tmp_path: Path) -> None:
    """The samples are still read."""
    start, size = data_section("plain.data")
    content = (DATA / "plain.data").read_bytes()
    bits = int.from_bytes(content[72:104], "little")
    place = sum(bits >> bit & 1 for bit in range(4))  # of feature 4, the os release
    (at,) = struct.unpack_from("<Q", content, start + size + 16 * place)
    recording = perf_data.read(changed(tmp_path, "plain.data", at, b"\xff\xff\xff\x7f"))
    assert recording.os_release == ""
    assert "feature 4 is malformed" in recording.decode_errors[0].what
    assert len(recording.samples.ip) > 0


def test_damaged_compression_is_an_error_and_salvage_keeps_what_came_before(tmp_path: Path) -> None:
    content = (DATA / "compressed.data").read_bytes()
    at = content.index(b"\x28\xb5\x2f\xfd")  # zstd's magic number
    path = changed(tmp_path, "compressed.data", at, b"\0\0\0\0")
    with pytest.raises(InputError, match="compressed records are damaged"):
        perf_data.read(path)
    assert any("compressed" in error.what for error in perf_data.read(path, salvage=True).decode_errors)


def test_directory_holds_regular_files_only(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes((DATA / "threads.data" / "data").read_bytes())
    os.mkfifo(tmp_path / "data.0")
    with pytest.raises(InputError, match=r"data\.0: not a regular file"):
        perf_data.read(tmp_path)


def test_perf_data_is_told_from_text() -> None:
    assert perf_data.is_perf_data(DATA / "plain.data")
    assert perf_data.is_perf_data(DATA / "threads.data")
    assert not perf_data.is_perf_data(DATA / "plain.script")
