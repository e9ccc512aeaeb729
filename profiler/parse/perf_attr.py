"""perf_event_attr, and what it says about the layout of the records.

Each sample is a header word followed by the fields its event's `sample_type` asks for, in the
order given at PERF_RECORD_SAMPLE in `include/uapi/linux/perf_event.h`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from profiler.errors import InputError
from profiler.model import Event
from profiler.parse import perf_format as fmt

# Fields of one word each that stand before READ and CALLCHAIN, in file order.
_LEADING_FIELDS = (
    fmt.SAMPLE_IDENTIFIER,
    fmt.SAMPLE_IP,
    fmt.SAMPLE_TID,
    fmt.SAMPLE_TIME,
    fmt.SAMPLE_ADDR,
    fmt.SAMPLE_ID,
    fmt.SAMPLE_STREAM_ID,
    fmt.SAMPLE_CPU,
    fmt.SAMPLE_PERIOD,
)
# Fields of one word each at the end of every other record (sample_id_all), in file order.
_TRAILING_FIELDS = (
    fmt.SAMPLE_TID,
    fmt.SAMPLE_TIME,
    fmt.SAMPLE_ID,
    fmt.SAMPLE_STREAM_ID,
    fmt.SAMPLE_CPU,
    fmt.SAMPLE_IDENTIFIER,
)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the fields of a sample lie, in words from the record's start (0 is the header itself).

    None where the field is not recorded. `leading` counts the words up to READ and CALLCHAIN.
    """

    identity: int | None
    ip: int | None
    task: int | None
    time: int | None
    cpu: int | None
    period: int | None
    leading: int
    read_format: int | None
    callchain: bool

    @property
    def fewest_words(self) -> int:
        """Words of the shortest record that can hold what is asked for."""
        return self.leading + (self.read_words() or 0) + self.callchain

    def read_words(self) -> int | None:
        """Words that READ takes at least; for a group this is its count and times alone."""
        if self.read_format is None:
            return None
        times = bool(self.read_format & fmt.READ_TIME_ENABLED) + bool(self.read_format & fmt.READ_TIME_RUNNING)
        return 1 + times + (0 if self.read_format & fmt.READ_GROUP else self.read_value_words() - 1)

    def read_value_words(self) -> int:
        """Words of each value in READ."""
        read_format = self.read_format or 0
        return 1 + bool(read_format & fmt.READ_ID) + bool(read_format & fmt.READ_LOST)


@dataclass(frozen=True, slots=True)
class Attr:
    """The parts of perf_event_attr that reading needs, and the ids its samples carry."""

    type: int
    config: int
    period_or_frequency: int
    sample_type: int
    read_format: int
    by_frequency: bool
    precise: int
    sample_id_all: bool
    ids: tuple[int, ...]
    name: str = ""

    def layout(self) -> Layout:
        words: dict[int, int] = {}
        for field in _LEADING_FIELDS:
            if self.sample_type & field:
                words[field] = len(words) + 1
        return Layout(
            identity=words.get(fmt.SAMPLE_IDENTIFIER, words.get(fmt.SAMPLE_ID)),
            ip=words.get(fmt.SAMPLE_IP),
            task=words.get(fmt.SAMPLE_TID),
            time=words.get(fmt.SAMPLE_TIME),
            cpu=words.get(fmt.SAMPLE_CPU),
            period=words.get(fmt.SAMPLE_PERIOD),
            leading=len(words) + 1,
            read_format=self.read_format if self.sample_type & fmt.SAMPLE_READ else None,
            callchain=bool(self.sample_type & fmt.SAMPLE_CALLCHAIN),
        )

    def time_from_end(self) -> int | None:
        """How many bytes before the end of a record other than a sample its time lies."""
        if not self.sample_id_all or not self.sample_type & fmt.SAMPLE_TIME:
            return None
        first = _TRAILING_FIELDS.index(fmt.SAMPLE_TIME)
        return 8 * sum(bool(self.sample_type & field) for field in _TRAILING_FIELDS[first:])

    def trailer_size(self) -> int:
        """Bytes at the end of a record other than a sample that say who, when and where."""
        return 8 * sum(bool(self.sample_type & field) for field in _TRAILING_FIELDS) if self.sample_id_all else 0

    def fixed_period(self) -> int | None:
        """The period of every sample, where it was asked for and is not in the samples."""
        return None if self.by_frequency or self.sample_type & fmt.SAMPLE_PERIOD else self.period_or_frequency

    def event(self) -> Event:
        return Event(
            name=self.name or self._builtin_name(),
            frequency=self.period_or_frequency if self.by_frequency else 0,
            precise=self.precise,
        )

    def _builtin_name(self) -> str:
        names = {0: fmt.HARDWARE_EVENTS, 1: fmt.SOFTWARE_EVENTS}.get(self.type, ())
        number = self.config & 0xFFFFFFFF  # on hybrid CPUs the upper half is the PMU
        if number < len(names):
            return names[number]
        return f"event {self.type}:{self.config:#x}"


def decode_attr(raw: bytes, ids: tuple[int, ...], *, where: str, name: str = "") -> Attr:
    """`raw` is one perf_event_attr of any version, at least its first 64 bytes."""
    if len(raw) < fmt.SMALLEST_ATTR:
        raise InputError(f"{where}: event attribute of {len(raw)} bytes, at least {fmt.SMALLEST_ATTR} expected")
    kind, _size, config, period, sample_type, read_format, bits = struct.unpack_from("<IIQQQQQ", raw)
    return Attr(
        type=kind,
        config=config,
        period_or_frequency=period,
        sample_type=sample_type,
        read_format=read_format,
        by_frequency=bool(bits >> fmt.ATTR_FREQ_BIT & 1),
        precise=bits >> fmt.ATTR_PRECISE_SHIFT & 3,
        sample_id_all=bool(bits >> fmt.ATTR_SAMPLE_ID_ALL_BIT & 1),
        ids=ids,
        name=name,
    )


def decode_attr_record(record: bytes, *, where: str) -> Attr:
    """A HEADER_ATTR record of pipe mode: the attribute at its own stated size, then its ids."""
    size = struct.unpack_from("<I", record, 12)[0] if len(record) >= 16 else 0
    if not fmt.SMALLEST_ATTR <= size <= len(record) - fmt.RECORD_HEADER_SIZE:
        raise InputError(f"{where}: HEADER_ATTR record of {len(record)} bytes with an attribute size of {size}")
    count = (len(record) - fmt.RECORD_HEADER_SIZE - size) // 8
    ids = struct.unpack_from(f"<{count}Q", record, fmt.RECORD_HEADER_SIZE + size)
    return decode_attr(record[8:], ids, where=where)
