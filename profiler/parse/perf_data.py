"""perf.data to a PerfRecording: files, pipes, directories, compressed or not.

Reads what perf record writes on machines of little byte order, by numpy over the mapped file.
Nothing but regular files is opened, and nothing that a file names.
"""

from __future__ import annotations

import mmap
import stat
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from profiler.errors import InputError
from profiler.model import KernelMap, PerfRecording
from profiler.parse import perf_compressed
from profiler.parse import perf_format as fmt
from profiler.parse.faults import Faults
from profiler.parse.perf_attr import Attr, decode_attr_record
from profiler.parse.perf_events import Events
from profiler.parse.perf_header import Facts, FileHeader, apply_feature, name_events, note_build_id, read_header, text
from profiler.parse.perf_samples import SampleColumns
from profiler.parse.perf_tasks import Timeline
from profiler.parse.perf_walk import Batch, DamagedRecordError, Stream, batches

_ALL_CPUS = 0xFFFFFFFF  # the pid of the kernel's own mappings
_KERNEL_MAP = "[kernel.kallsyms]"


def is_perf_data(path: Path) -> bool:
    """Whether `path` starts like a perf.data file, of any version, or is a directory that holds one."""
    try:
        with (path / "data" if path.is_dir() else path).open("rb") as file:
            return file.read(8) in (fmt.MAGIC, fmt.MAGIC_SWAPPED, fmt.MAGIC_VERSION_1)
    except OSError:
        return False


def read(path: Path, *, salvage: bool = False) -> PerfRecording:
    """Read a perf.data file or directory.

    Samples are in the order of the file. `chain` is empty where no callchains were recorded, and for
    samples outside the kernel. `comm` is the thread's name at that moment, `:TID` where none is known.
    Lost counts what the kernel said it could not write.

    Raises InputError, naming offset and record type, on a file that is cut short, damaged, or no
    perf.data; with `salvage` what is whole up to there is returned, and `decode_errors` says what was not.
    """
    faults = Faults()
    main, parts = _files(path)
    data = _mapped(main)
    header = read_header(data, str(main), salvage=salvage, faults=faults)
    streams = [Stream(data, header.data_start, header.data_end, str(main), pipe=header.pipe)]
    for part in parts:
        content = _mapped(part)
        streams.append(Stream(content, 0, len(content), str(part)))
    reading = _Reading(header, str(main), faults, salvage=salvage)
    for bit, (offset, size) in header.features.items():
        apply_feature(reading.facts, bit, bytes(data[offset : offset + size]), offset, faults)
    reading.take(streams)
    return reading.finish()


def _files(path: Path) -> tuple[Path, list[Path]]:
    """The file with the header, and those with further records (perf record --threads)."""
    if not path.is_dir():
        return path, []
    parts = [part for part in path.glob("data.*") if part.name[5:].isdecimal()]
    return path / "data", sorted(parts, key=lambda part: int(part.name[5:]))


def _mapped(path: Path) -> memoryview:
    try:
        # Without waiting: opening a FIFO would otherwise block until somebody writes to it.
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path}: not a regular file")
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size == 0:
                return memoryview(b"")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


class _Reading:
    """What is known so far while the records of a recording pass by."""

    def __init__(self, header: FileHeader, name: str, faults: Faults, *, salvage: bool) -> None:
        self.facts = Facts()
        self._name = name
        self._pipe = header.pipe
        self._salvage = salvage
        self._faults = faults
        self._attrs: list[Attr] = []
        self._set_attrs(list(header.attrs))
        self._columns = SampleColumns(faults)
        self._timeline = Timeline()
        self._lost = 0
        self._lost_samples = 0
        self._throttled = 0
        self._kernel_map: KernelMap | None = None
        self._packed: list[bytes] = []
        self._ignored = np.zeros(256, np.bool_)
        self._ignored[list(fmt.RECORD_NAMES)] = True
        self._ignored[[*_READERS, fmt.COMM, fmt.FORK]] = False

    def take(self, streams: list[Stream]) -> None:
        """All records of the streams; then those that were packed in them, which are a stream each."""
        self._columns.reserve(sum(stream.end - stream.start for stream in streams))
        expanded = []
        for stream in streams:
            self._take_stream(stream)
            if self._packed:
                expanded.append(self._expand(stream.name))
        if expanded:
            self._columns.reserve(sum(stream.end for stream in expanded))
            for stream in expanded:
                self._take_stream(stream)
            if self._packed:
                raise InputError(f"{self._name}: compressed records inside compressed records")

    def _take_stream(self, stream: Stream) -> None:
        try:
            for batch in batches(stream):
                if batch.positions is not None:
                    self._other_records(stream, batch, batch.positions)
                if not self._events.distinguishable:
                    self._require_events(stream, batch)
                self._columns.add(stream, batch, self._events)
        except DamagedRecordError as error:
            if not self._salvage:
                raise
            self._faults.add(error.offset, error.args[0])

    def _expand(self, name: str) -> Stream:
        records, trouble = perf_compressed.expand(self._packed, name)
        self._packed = []
        if trouble and not self._salvage:
            raise InputError(f"{name}: {trouble}", hint="--salvage takes the records before it")
        if trouble:
            self._faults.add(len(records), f"{name}: {trouble}")
        return Stream(memoryview(records), 0, len(records), f"{name} (expanded)")

    def _require_events(self, stream: Stream, batch: Batch) -> None:
        """Samples can only be read when it is known how they are laid out."""
        samples = np.flatnonzero((batch.headers & np.uint64(0xFFFFFFFF)) == fmt.SAMPLE)
        if not len(samples):
            return
        position = batch.first + batch.size * int(samples[0])
        if batch.positions is not None:
            position = int(batch.positions[samples[0]])
        why = "its events cannot be told apart: samples carry no id" if self._attrs else "no event was described yet"
        raise InputError(f"{stream.name}: record at offset {stream.base + position:#x} (SAMPLE): {why}")

    def _other_records(self, stream: Stream, batch: Batch, positions: NDArray[np.int64]) -> None:
        types = batch.headers & np.uint64(0xFFFFFFFF)
        wanted = np.flatnonzero((types > 0xFF) | ~self._ignored[types & np.uint64(0xFF)])
        for row in wanted.tolist():
            record_type, position = int(types[row]), int(positions[row])
            record = stream.record(position)
            offset = stream.base + position
            try:
                if record_type in (fmt.COMM, fmt.FORK):
                    before = 0 if self._timed else int(np.count_nonzero(types[:row] == fmt.SAMPLE))
                    self._task(record_type, record, self._columns.count + before)
                elif record_type in _READERS:
                    _READERS[record_type](self, record, offset)
                else:
                    self._faults.add(offset, f"record of unknown type {record_type}, {len(record)} bytes, skipped")
            except (struct.error, ValueError, IndexError) as error:
                self._faults.add(offset, f"{fmt.record_name(record_type)}: malformed: {error}")

    # ---- records, each by its layout in include/uapi/linux/perf_event.h ----

    def _task(self, record_type: int, record: bytes, place: int) -> None:
        """COMM: pid, tid, name. FORK: pid, parent's pid, tid, parent's tid, time."""
        if record_type == fmt.COMM:
            (tid,) = struct.unpack_from("<i", record, 12)
            from_end, trailer = self._trailer(record)
            if len(record) < 16 + trailer:
                raise ValueError(f"{len(record)} bytes are too few for a name")
            if self._timed and from_end:
                (place,) = struct.unpack_from("<Q", record, len(record) - from_end)
            self._timeline.named(place, tid, text(record[16 : len(record) - trailer]))
            return
        pid, parent_pid, tid, parent_tid, time = struct.unpack_from("<4iQ", record, 8)
        self._timeline.forked(time if self._timed else place, pid, parent_pid, tid, parent_tid)

    def _mapping(self, record: bytes, _offset: int) -> None:
        (pid,) = struct.unpack_from("<I", record, 8)
        if pid != _ALL_CPUS or self._kernel_map is not None:
            return
        record_type, misc = struct.unpack_from("<IH", record)
        start, length, pgoff = struct.unpack_from("<3Q", record, 16)
        name = text(record[40 if record_type == fmt.MMAP else 72 :])
        if not name.startswith(_KERNEL_MAP):
            return
        self._kernel_map = KernelMap(start, length, pgoff, name)
        if record_type == fmt.MMAP2 and misc & fmt.MISC_MMAP_BUILD_ID:
            self.facts.kernel_build_id = record[44 : 44 + min(record[40], 20)].hex()

    def _lost_records(self, record: bytes, _offset: int) -> None:
        self._lost += struct.unpack_from("<Q", record, 16)[0]

    def _lost_sample_count(self, record: bytes, _offset: int) -> None:
        misc, lost = struct.unpack_from("<4xH2xQ", record)
        if not misc & fmt.MISC_LOST_BY_FILTER:
            self._lost_samples += lost

    def _throttle(self, _record: bytes, _offset: int) -> None:
        self._throttled += 1

    def _attribute(self, record: bytes, offset: int) -> None:
        if self._pipe:
            attr = decode_attr_record(record, where=f"{self._name}: offset {offset:#x}")
            self._set_attrs([*self._attrs, attr])

    def _build_id(self, record: bytes, _offset: int) -> None:
        note_build_id(self.facts, record)

    def _feature(self, record: bytes, offset: int) -> None:
        (bit,) = struct.unpack_from("<Q", record, 8)
        apply_feature(self.facts, bit, record[16:], offset, self._faults)

    def _event_update(self, record: bytes, _offset: int) -> None:
        kind, number = struct.unpack_from("<2Q", record, 8)
        if kind == fmt.EVENT_UPDATE_NAME:
            self.facts.event_names.append((text(record[24:]), (number,)))

    def _compressed(self, record: bytes, _offset: int) -> None:
        self._packed.append(perf_compressed.payload(record, struct.unpack_from("<I", record)[0]))

    # ---- the time of records that are no samples ----

    def _set_attrs(self, attrs: list[Attr]) -> None:
        self._attrs = attrs
        self._events = Events(attrs)
        self._trailers = [(attr.time_from_end(), attr.trailer_size()) for attr in attrs]
        self._timed = all(from_end is not None for from_end, _ in self._trailers)
        self._alike = len({attr.sample_type for attr in attrs}) == 1

    def _trailer(self, record: bytes) -> tuple[int | None, int]:
        """How far before a record's end its time lies, and how long its who, when and where is."""
        if self._alike or not self._attrs:
            return self._trailers[0] if self._attrs else (None, 0)
        (number,) = struct.unpack_from("<Q", record, len(record) - 8)  # of unlike events perf puts the id last
        return next((self._trailers[i] for i, attr in enumerate(self._attrs) if number in attr.ids), self._trailers[0])

    def finish(self) -> PerfRecording:
        if not self._attrs:
            raise InputError(
                f"{self._name}: no event is described in it", hint="perf record wrote no header; record again"
            )
        attrs = name_events(self._attrs, self.facts)
        columns = self._columns
        columns.set_fixed_periods([attr.fixed_period() for attr in attrs])
        columns.drop_impossible_cpus(self.facts.cpus)
        comm, names = self._timeline.comms(columns.tids(), columns.clock(timed=self._timed))
        return PerfRecording(
            samples=columns.finish(comm),
            events=tuple(attr.event() for attr in attrs),
            comms=names,
            parents=self._timeline.parents,
            # perf 6.1 and later also writes at its end how many samples each event lost, which are the same.
            lost=max(self._lost, self._lost_samples),
            throttled=self._throttled,
            kernel_map=self._kernel_map,
            kernel_build_id=self.facts.kernel_build_id,
            os_release=self.facts.os_release,
            arch=self.facts.arch,
            perf_version=self.facts.perf_version,
            command_line=self.facts.command_line,
            decode_errors=self._faults.errors(),
        )


_READERS: dict[int, Callable[[_Reading, bytes, int], None]] = {
    fmt.MMAP: _Reading._mapping,
    fmt.MMAP2: _Reading._mapping,
    fmt.LOST: _Reading._lost_records,
    fmt.LOST_SAMPLES: _Reading._lost_sample_count,
    fmt.THROTTLE: _Reading._throttle,
    fmt.HEADER_ATTR: _Reading._attribute,
    fmt.HEADER_BUILD_ID: _Reading._build_id,
    fmt.HEADER_FEATURE: _Reading._feature,
    fmt.EVENT_UPDATE: _Reading._event_update,
    fmt.COMPRESSED: _Reading._compressed,
    fmt.COMPRESSED2: _Reading._compressed,
}
