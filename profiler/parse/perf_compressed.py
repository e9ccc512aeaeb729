"""Records that perf record -z packed: zstd, one continuous stream spread over COMPRESSED records."""

from __future__ import annotations

import io
import struct

import zstandard

from profiler.errors import InputError
from profiler.parse import perf_format as fmt

# perf reaches ratios of 5 to 30. A file that claims far more is a bomb.
_LARGEST_RATIO = 300
_ALWAYS_ALLOWED = 64 << 20
_STEP = 1 << 20


def payload(record: bytes, record_type: int) -> bytes:
    """The compressed bytes of one record. Raises ValueError where it states more than it has."""
    if record_type == fmt.COMPRESSED:
        return record[8:]
    if len(record) < 16:
        raise ValueError(f"record of {len(record)} bytes")
    (size,) = struct.unpack_from("<Q", record, 8)
    if size > len(record) - 16:
        raise ValueError(f"states {size} compressed bytes, holds {len(record) - 16}")
    return record[16 : 16 + size]


def expand(payloads: list[bytes], name: str) -> tuple[bytearray, str]:
    """All that the payloads hold, and why it ends early ("" when it does not).

    Raises InputError when it grows beyond what a recording can be.
    """
    packed = b"".join(payloads)
    most = max(_ALWAYS_ALLOWED, _LARGEST_RATIO * len(packed))
    records = bytearray()
    reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(
        io.BytesIO(packed), read_across_frames=True
    )
    try:
        while piece := reader.read(_STEP):
            records += piece
            if len(records) > most:
                raise InputError(f"{name}: compressed records expand to more than {_LARGEST_RATIO} times their size")
    except zstandard.ZstdError as error:
        return records, f"compressed records are damaged after {len(records)} expanded bytes: {error}"
    return records, ""
