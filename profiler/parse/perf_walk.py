"""From record to record through a stream of perf records, thousands at a time.

Each record starts with its type and its size, so a position is only known once its predecessor is.
Two ways around that, both proven by induction from a position that is known:

- records of one size and type in a row (samples without callchains): every header at that stride
  is compared with the first;
- otherwise the words of a block that look like a header are picked by one mask, and a candidate is
  accepted when its predecessor, accepted before it, ends exactly where it starts.

Where neither gets ahead, one record is taken by itself and checked, which also is where a damaged
record is found and named.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from profiler.errors import InputError
from profiler.parse import perf_format as fmt

# A run's records are decoded while still in the CPU's cache: 4,096 of 56 bytes are 224 KiB.
_RUN_RECORDS = 4096
_SHORTEST_RUN = 64
_LONG_RUN = 2048
_FIRST_BLOCK = 4096  # bytes; doubles as long as blocks go well
_LARGEST_BLOCK = 1 << 19

_TYPE_AND_SIZE = 0xFFFF_0000_FFFF_FFFF
# A header word has a type below 256 and a size that is a multiple of 8; most other words (addresses,
# times, ids) have not.
_NOT_IN_HEADER = 0x0007_0000_FFFF_FF00
_SMALLEST_HEADER = fmt.RECORD_HEADER_SIZE << 48


class DamagedRecordError(InputError):
    """A record that cannot be stepped over. `offset` is into the file."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message, hint="--salvage takes the records before it")
        self.offset = offset


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """Bytes `start` to `end` of `data` are records; `base` is the file offset of data[0]."""

    data: memoryview
    start: int
    end: int
    name: str
    base: int = 0
    pipe: bool = False  # HEADER_TRACING_DATA is then followed by the data itself

    def record(self, position: int) -> bytes:
        size = self.data[position + 6] | self.data[position + 7] << 8
        return bytes(self.data[position : position + size])


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Records that are whole and follow each other.

    `positions` holds the start of each in the stream's data; for a run of samples of one size it is
    None, and they start at `first` and every `size` bytes after it.
    """

    headers: NDArray[np.uint64]
    first: int
    size: int = 0
    positions: NDArray[np.int64] | None = None


def batches(stream: Stream) -> Iterator[Batch]:
    """All records of a stream, in order. Raises DamagedRecordError at the first that is not whole."""
    position, block = stream.start, _FIRST_BLOCK
    while position < stream.end:
        run = _run(stream, position)
        if run is not None:
            yield run
            position += run.size * len(run.headers)
            if len(run.headers) >= _LONG_RUN:  # more runs are likely: after what broke it, look for the next soon
                block = _FIRST_BLOCK
            continue
        chain, following = _chain(stream, position, block)
        if chain is None:
            chain, following = _single(stream, position)
            block = _FIRST_BLOCK
        else:
            block = min(2 * block, _LARGEST_BLOCK)
        yield chain
        position = following


def _run(stream: Stream, position: int) -> Batch | None:
    """Samples of one size in a row, from `position` on, where there are enough of them."""
    if stream.end - position < fmt.RECORD_HEADER_SIZE:
        return None
    record_type, _misc, size = struct.unpack_from("<IHH", stream.data, position)
    if record_type != fmt.SAMPLE or size < fmt.RECORD_HEADER_SIZE or size % 8:
        return None
    count = min((stream.end - position) // size, _RUN_RECORDS)
    probe = position + (_SHORTEST_RUN - 1) * size
    if count < _SHORTEST_RUN or struct.unpack_from("<IHH", stream.data, probe)[::2] != (record_type, size):
        return None
    headers: NDArray[np.uint64] = np.ndarray((count,), "<u8", stream.data, position, (size,))
    same = (headers & np.uint64(_TYPE_AND_SIZE)) == np.uint64(record_type | size << 48)
    if not same.all():
        count = int(same.argmin())
    if count < _SHORTEST_RUN:
        return None
    return Batch(headers=headers[:count], first=position, size=size)


def _chain(stream: Stream, position: int, block: int) -> tuple[Batch | None, int]:
    """The records that follow each other from `position` on, within a block; and where the next starts."""
    count = (min(position + block, stream.end) - position) // 8
    if count == 0:
        return None, position
    words: NDArray[np.uint64] = np.ndarray((count,), "<u8", stream.data, position)
    looks_right = (words & np.uint64(_NOT_IN_HEADER)) == 0
    looks_right &= words >= np.uint64(_SMALLEST_HEADER)
    index = np.flatnonzero(looks_right)
    headers = words[index]
    types = headers & np.uint64(0xFF)
    # A payload outside the record follows these two, so they are left to the careful step.
    plain = (types != 0) & (types != fmt.AUXTRACE) & (types != fmt.HEADER_TRACING_DATA)
    if not plain.all():
        index, headers = index[plain], headers[plain]
    if not index.size or index[0] != 0:
        return None, position
    ends = index + (headers >> np.uint64(51)).astype(np.int64)
    accepted = _linked(index, ends)
    if position + 8 * int(ends[accepted[-1]]) > stream.end:  # cut short: the careful step will say so
        accepted = accepted[:-1]
        if not accepted.size:
            return None, position
    following = position + 8 * int(ends[accepted[-1]])
    positions = index[accepted] * 8 + position
    return Batch(headers=headers[accepted], first=position, positions=positions), following


def _linked(index: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which candidates are records: the first, and each that starts where an accepted one ends."""
    breaks = np.flatnonzero(ends[:-1] != index[1:])
    if not breaks.size:
        return np.arange(len(index))
    pieces = []
    at = 0
    while True:
        upcoming = int(np.searchsorted(breaks, at))
        last = int(breaks[upcoming]) if upcoming < len(breaks) else len(index) - 1
        pieces.append(np.arange(at, last + 1))
        at = int(np.searchsorted(index, ends[last]))
        if at >= len(index) or index[at] != ends[last]:
            return np.concatenate(pieces)


def _single(stream: Stream, position: int) -> tuple[Batch, int]:
    """One record, checked; and where the next starts."""
    left = stream.end - position
    offset = stream.base + position
    if left < fmt.RECORD_HEADER_SIZE:
        raise DamagedRecordError(f"{stream.name}: cut inside a record header at offset {offset:#x}", offset)
    (header,) = struct.unpack_from("<Q", stream.data, position)
    record_type, size = header & 0xFFFFFFFF, header >> 48
    named = f"{stream.name}: record at offset {offset:#x} ({fmt.record_name(record_type)})"
    if size < fmt.RECORD_HEADER_SIZE:
        raise DamagedRecordError(f"{named} has size {size}, below the {fmt.RECORD_HEADER_SIZE} of its header", offset)
    whole = size + _payload_after(stream, record_type, position, size)
    if whole > left:
        raise DamagedRecordError(f"{named} has {whole} bytes, but only {left} are left: cut short or damaged", offset)
    headers = np.array([header], dtype=np.uint64)
    return Batch(headers=headers, first=position, positions=np.array([position])), position + whole


def _payload_after(stream: Stream, record_type: int, position: int, size: int) -> int:
    """Bytes that belong to a record but are not counted in its 16-bit size."""
    if record_type == fmt.AUXTRACE and size >= 16 and position + 16 <= stream.end:
        return int(struct.unpack_from("<Q", stream.data, position + 8)[0])
    if record_type == fmt.HEADER_TRACING_DATA and stream.pipe and size >= 12 and position + 12 <= stream.end:
        return int(struct.unpack_from("<I", stream.data, position + 8)[0]) + 7 & ~7
    return 0
