"""What the recorder reads of a kernel: symbols, text, log, build id."""

import struct
import zlib
from pathlib import Path

import pytest

from profiler.errors import MissingError, RecordError
from profiler.record import facts, kallsyms, kcore
from profiler.record.kernel_log import KernelLog, format_record

KALLSYMS = b"""\
ffffffff81000000 T srso_alias_untrain_ret
ffffffff81000000 T _stext
ffffffff81000000 T _text
ffffffff812a0000 t not_a__stext
ffffffff822098c8 T _etext
"""


def test_addresses_of_the_text_are_found() -> None:
    assert kallsyms.text_addresses(KALLSYMS) == {
        "_text": 0xFFFFFFFF81000000,
        "_stext": 0xFFFFFFFF81000000,
        "_etext": 0xFFFFFFFF822098C8,
    }


def test_a_symbol_on_the_first_line_is_found() -> None:
    text = b"ffffffff81000000 T _text\nffffffff81000040 T _stext\nffffffff81e01ef2 T _etext\n"
    assert kallsyms.text_addresses(text)["_text"] == 0xFFFFFFFF81000000


def test_a_kallsyms_without_the_end_of_the_text_is_refused() -> None:
    with pytest.raises(RecordError, match="_etext"):
        kallsyms.text_addresses(KALLSYMS.replace(b"_etext", b"_ext"))


def test_zero_addresses_are_refused_with_the_sysctl_to_set(tmp_path: Path) -> None:
    path = tmp_path / "kallsyms"
    path.write_bytes(b"0000000000000000 T _stext\n0000000000000000 T _text\n")
    with pytest.raises(MissingError) as caught:
        kallsyms.check_shown(str(path))
    assert "kptr_restrict" in caught.value.hint


def test_zero_addresses_of_the_first_symbols_alone_are_accepted(tmp_path: Path) -> None:
    """Per-CPU symbols at zero stand first on many kernels."""
    path = tmp_path / "kallsyms"
    path.write_bytes(b"0000000000000000 A fixed_percpu_data\nffffffff81000000 T _text\n\n")
    kallsyms.check_shown(str(path))


def core_file(segments: list[tuple[int, bytes]]) -> bytes:
    """An ELF core file with one PT_LOAD for each address and content, after a PT_NOTE."""
    count = len(segments) + 1
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header += struct.pack("=HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56, count, 0, 0, 0)
    table = struct.pack("=IIQQQQQQ", 4, 0, 0, 0, 0, 0, 0, 0)
    place = 64 + 56 * count
    for address, content in segments:
        table += struct.pack("=IIQQQQQQ", 1, 7, place, address, 0, len(content), len(content), 4096)
        place += len(content)
    return header + table + b"".join(content for _, content in segments)


def test_text_is_read_from_the_range_that_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "kcore"
    path.write_bytes(core_file([(0xFFFFFFFFC0000000, b"module"), (0xFFFFFFFF81000000, b"0123456789")]))
    assert kcore.read_text(0xFFFFFFFF81000002, 0xFFFFFFFF81000006, str(path)) == b"2345"


def test_text_outside_every_range_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "kcore"
    path.write_bytes(core_file([(0xFFFFFFFF81000000, b"0123456789")]))
    with pytest.raises(RecordError, match="no range"):
        kcore.read_text(0xFFFFFFFF81000006, 0xFFFFFFFF81000010, str(path))


@pytest.mark.parametrize(("start", "end"), [(8, 8), (9, 8), (0, 1 << 40)])
def test_an_absurd_length_of_text_is_refused_before_reading(start: int, end: int) -> None:
    with pytest.raises(RecordError, match="bytes long"):
        kcore.read_text(start, end, "/dev/null")


def test_a_kcore_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "kcore"
    path.write_bytes(core_file([(0xFFFFFFFF81000000, b"0123456789")])[:-3])
    with pytest.raises(RecordError, match="7 of 10"):
        kcore.read_text(0xFFFFFFFF81000000, 0xFFFFFFFF8100000A, str(path))


@pytest.mark.parametrize("content", [b"", b"not an ELF file" * 10])
def test_a_foreign_kcore_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "kcore"
    path.write_bytes(content)
    with pytest.raises(RecordError, match="ELF"):
        kcore.read_text(0, 8, str(path))


def test_compressed_text_is_one_zlib_stream(tmp_path: Path) -> None:
    kcore.compress(b"text" * 1000, str(tmp_path / "kernel_text"))
    assert zlib.decompress((tmp_path / "kernel_text").read_bytes()) == b"text" * 1000


def test_a_log_record_becomes_the_line_that_dmesg_prints() -> None:
    record = b"6,339,5140900,-;NET: Registered PF_INET6 protocol family\n SUBSYSTEM=net\n"
    assert format_record(record) == "<6>[    5.140900] NET: Registered PF_INET6 protocol family"


def test_a_log_record_keeps_its_facility() -> None:
    """The kernel's own is 0, and nobody else may write with that."""
    assert format_record(b"30,12,1000001,c;systemd: ready; go") == "<30>[    1.000001] systemd: ready; go"


def test_a_log_record_says_who_logged_it() -> None:
    """Where the kernel was built to say that; as dmesg prints it, before the text."""
    assert format_record(b"6,12,1000001,-,caller=T812;ready") == "<6>[    1.000001][  T812] ready"


def test_a_log_record_without_fields_is_kept_as_it_is() -> None:
    assert format_record(b"gibberish\xff") == "gibberish�"


def test_an_absent_kernel_log_is_a_problem_to_report_and_no_error() -> None:
    log = KernelLog("/nonexistent/kmsg")
    assert "No such file" in log.problem
    assert log.lines() == []


# /sys/kernel/notes of a Linux 6.18: a Xen note, the GNU build-id, a build salt.
NOTES = (
    struct.pack("=III", 4, 4, 6) + b"Xen\0" + bytes.fromhex("6c696e75")
    + struct.pack("=III", 4, 20, 3) + b"GNU\0" + bytes.fromhex("48dc540c8b76393804ca8088dbfa7d42911a9444")
    + struct.pack("=III", 6, 1, 0x100) + b"Linux\0\0\0" + b"\0\0\0\0"
)  # fmt: skip


def test_the_build_id_is_found_among_the_notes() -> None:
    assert facts.find_build_id(NOTES) == "48dc540c8b76393804ca8088dbfa7d42911a9444"


def test_notes_without_a_build_id_give_none() -> None:
    assert facts.find_build_id(NOTES[:20]) == ""


def test_a_note_past_the_end_is_refused() -> None:
    with pytest.raises(RecordError, match="past the end"):
        facts.find_build_id(NOTES[:40])


def test_an_unknown_sample_rate_limit_is_zero() -> None:
    assert facts.max_sample_rate("/nonexistent") == 0
