"""perf.data files put together by hand, for what no perf at hand records."""

import struct
from collections.abc import Sequence
from pathlib import Path

from profiler.parse import perf_format as fmt

IP_TID_TIME = fmt.SAMPLE_IP | fmt.SAMPLE_TID | fmt.SAMPLE_TIME
SAMPLE_ID_ALL = 1 << fmt.ATTR_SAMPLE_ID_ALL_BIT
KERNEL, USER = 1, 2


def record(record_type: int, body: bytes, misc: int = 0) -> bytes:
    return struct.pack("<IHH", record_type, misc, 8 + len(body)) + body


def words(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}Q", *values)


def attr(sample_type: int, *, bits: int = SAMPLE_ID_ALL, read_format: int = 0, period: int = 1) -> bytes:
    """128 bytes: type software, config cpu-clock."""
    return struct.pack("<IIQQQQQ", 1, 128, 0, period, sample_type, read_format, bits) + bytes(80)


def perf_data(path: Path, attrs: Sequence[tuple[bytes, Sequence[int]]], records: bytes) -> Path:
    """A file of the given attributes, each with its ids, and no features."""
    at = fmt.FILE_HEADER_SIZE
    ids = b"".join(words(*numbers) for _, numbers in attrs)
    entries, ids_at = b"", at
    for raw, numbers in attrs:
        entries += raw + words(ids_at, 8 * len(numbers))
        ids_at += 8 * len(numbers)
    start = at + len(ids) + len(entries)
    header = b"PERFILE2" + words(104, 144, at + len(ids), len(entries), start, len(records), 0, 0, 0, 0, 0, 0)
    path.write_bytes(header + ids + entries + records)
    return path
