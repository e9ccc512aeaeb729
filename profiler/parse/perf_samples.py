"""Samples as columns, filled batch by batch.

The columns are allocated for the most samples that the bytes at hand could hold. Memory that is never
written costs nothing, so nothing is copied to grow them, and no size stated in the file is trusted.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from profiler.model import Samples
from profiler.parse import perf_format as fmt
from profiler.parse.faults import Faults
from profiler.parse.perf_attr import Layout
from profiler.parse.perf_events import Events
from profiler.parse.perf_walk import Batch, Stream

_CHAIN_BLOCK = 8192  # samples whose chains are unfolded at a time, to stay in the cache

# A sample of a header and one field. perf itself always records more than this.
_SMALLEST_SAMPLE = 16

Words = NDArray[np.uint64]
Column = TypeVar("Column", bound=np.generic)


class SampleColumns:
    """The growing columns of `model.Samples`."""

    def __init__(self, faults: Faults) -> None:
        self.count = 0
        self._chain_count = 0
        self._faults = faults
        self._unsigned = {name: np.zeros(0, np.uint64) for name in ("ip", "time", "period")}
        self._signed = {name: np.zeros(0, np.int32) for name in ("pid", "tid", "cpu")}
        self._event = np.zeros(0, np.int16)
        self._in_kernel = np.zeros(0, np.bool_)
        self._chain_start = np.zeros(1, np.int64)
        self._chain = np.zeros(0, np.uint64)

    def reserve(self, record_bytes: int) -> None:
        """Room for the samples in that many more bytes of records."""
        most = self.count + record_bytes // _SMALLEST_SAMPLE
        self._unsigned = {name: _extended(column, self.count, most) for name, column in self._unsigned.items()}
        self._signed = {name: _extended(column, self.count, most) for name, column in self._signed.items()}
        self._event = _extended(self._event, self.count, most)
        self._in_kernel = _extended(self._in_kernel, self.count, most)
        self._chain_start = _extended(self._chain_start, self.count + 1, most + 1)
        self._chain = _extended(self._chain, self._chain_count, self._chain_count + record_bytes // 8)

    def add(self, stream: Stream, batch: Batch, events: Events) -> None:
        """The samples of a batch; its other records are passed over."""
        if batch.positions is None:
            self._add_run(stream, batch, events)
            return
        chosen = (batch.headers & np.uint64(0xFFFFFFFF)) == fmt.SAMPLE
        positions, headers = batch.positions[chosen], batch.headers[chosen]
        if not len(positions):
            return
        positions, headers = self._long_enough(stream, positions, headers, events.identity_words)
        if len(positions):
            self._add_by_layout(stream, positions, headers, events)

    def _add_run(self, stream: Stream, batch: Batch, events: Events) -> None:
        """Samples at a fixed stride need no gathering: a view with that stride is enough."""
        count, words = len(batch.headers), batch.size // 8
        if words >= events.identity_words:
            rows: Words = np.ndarray((count, words), "<u8", stream.data, batch.first, (batch.size, 8))
            event = events.of(rows)
            layout = events.shared_layout(event)
            if layout is not None and not layout.callchain and words >= layout.fewest_words:
                self._append(rows, batch.headers, event, layout)
                return
        positions = np.arange(count) * batch.size + batch.first
        self.add(stream, Batch(batch.headers, batch.first, positions=positions), events)

    def _add_by_layout(self, stream: Stream, positions: NDArray[np.int64], headers: Words, events: Events) -> None:
        event = events.of(_gather(stream, positions, events.identity_words))
        if isinstance(event, int):
            if event < 0:
                self._report(stream, positions, "sample of an event that the header does not list")
            else:
                self._add_alike(stream, positions, headers, event, events.layouts[event])
            return
        unknown = event < 0
        if unknown.any():
            self._report(stream, positions[unknown], "sample of an event that the header does not list")
            positions, headers, event = positions[~unknown], headers[~unknown], event[~unknown]
        if events.uniform:
            self._add_alike(stream, positions, headers, event, events.layouts[0])
            return
        # Samples of one event stay in file order; those of another follow after them within a batch.
        for number in np.unique(event):
            mine = event == number
            self._add_alike(stream, positions[mine], headers[mine], int(number), events.layouts[number])

    def _add_alike(
        self,
        stream: Stream,
        positions: NDArray[np.int64],
        headers: Words,
        event: NDArray[np.int16] | int,
        layout: Layout,
    ) -> None:
        """Samples of one layout."""
        sizes = headers >> np.uint64(48)
        short = sizes < 8 * layout.fewest_words
        if short.any():
            self._report(stream, positions[short], "sample shorter than its event's fields")
            positions, headers = positions[~short], headers[~short]
            event = event if isinstance(event, int) else event[~short]
        for start in range(0, len(positions), _CHAIN_BLOCK):
            part = slice(start, start + _CHAIN_BLOCK)
            rows = _gather(stream, positions[part], layout.fewest_words)
            self._append(rows, headers[part], event if isinstance(event, int) else event[part], layout)
            if layout.callchain:
                self._append_chains(stream, positions[part], headers[part], rows, layout)

    def _append(self, rows: Words, headers: Words, event: NDArray[np.int16] | int, layout: Layout) -> None:
        """The fields of one word, from `rows` (samples × words)."""
        into = slice(self.count, self.count + len(rows))
        halves = rows.view("<i4")
        self._take(self._unsigned["ip"], into, rows, layout.ip)
        self._take(self._unsigned["time"], into, rows, layout.time)
        self._take(self._unsigned["period"], into, rows, layout.period)
        self._take(self._signed["pid"], into, halves, _half(layout.task, 0))
        self._take(self._signed["tid"], into, halves, _half(layout.task, 1))
        self._take(self._signed["cpu"], into, halves, _half(layout.cpu, 0))
        if not isinstance(event, int) or event != 0:
            self._event[into] = event
        mode = (headers >> np.uint64(32)) & np.uint64(fmt.CPUMODE_MASK)
        np.equal(mode, fmt.CPUMODE_KERNEL, out=self._in_kernel[into])
        if self._chain_count:
            self._chain_start[into.start + 1 : into.stop + 1] = self._chain_count
        self.count = into.stop

    @staticmethod
    def _take(column: NDArray[np.generic], into: slice, rows: NDArray[np.generic], word: int | None) -> None:
        if word is not None:
            column[into] = rows[:, word]
        elif column.dtype == np.int32:
            column[into] = -1

    def _append_chains(
        self,
        stream: Stream,
        positions: NDArray[np.int64],
        headers: Words,
        rows: Words,
        layout: Layout,
    ) -> None:
        """Unfold the chains of the samples added last, and keep what is the kernel's."""
        first = self.count - len(rows)
        starts, lengths = self._chain_extents(stream, positions, headers, rows, layout)
        in_kernel = self._in_kernel[first : self.count]
        phase, words = _words(stream, positions)
        starts = (starts - phase) // 8
        entries = words[_ranges(starts, lengths)]
        kept, kept_lengths = kernel_part(entries, lengths, in_kernel)
        into = slice(self._chain_count, self._chain_count + len(kept))
        self._chain[into] = kept
        ends = into.start + np.cumsum(kept_lengths)
        self._chain_start[first + 1 : self.count + 1] = ends
        self._chain_count = into.stop
        # A precise event corrects the ip, not the chain's first entry, which is where the interrupt was.
        heads = (ends - kept_lengths)[in_kernel & (kept_lengths > 0)]
        self._chain[heads] = self._unsigned["ip"][first : self.count][in_kernel & (kept_lengths > 0)]

    def _chain_extents(
        self, stream: Stream, positions: NDArray[np.int64], headers: Words, rows: Words, layout: Layout
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where each chain's entries start, in bytes, and how many there are; none where they do not fit."""
        words = (headers >> np.uint64(51)).astype(np.int64)
        if layout.read_format is not None and layout.read_format & fmt.READ_GROUP:
            values = np.minimum(rows[:, layout.leading], 1 << 13).astype(np.int64)
            at = layout.leading + (layout.read_words() or 0) + values * layout.read_value_words()
            fits = at < words
            phase, all_words = _words(stream, positions)
            counts = all_words[(positions - phase) // 8 + np.where(fits, at, 0)]
        else:
            at = np.full(len(rows), layout.fewest_words - 1)
            fits = at < words
            counts = rows[:, layout.fewest_words - 1]
        fits &= counts <= np.maximum(words - at - 1, 0).astype(np.uint64)
        if not fits.all():
            self._report(stream, positions[~fits], "callchain longer than its sample; the sample is kept without it")
        return positions + 8 * (at + 1), np.where(fits, counts, 0).astype(np.int64)

    def _long_enough(
        self, stream: Stream, positions: NDArray[np.int64], headers: Words, words: int
    ) -> tuple[NDArray[np.int64], Words]:
        short = (headers >> np.uint64(51)) < words
        if not short.any():
            return positions, headers
        self._report(stream, positions[short], "sample shorter than its event's fields")
        return positions[~short], headers[~short]

    def _report(self, stream: Stream, positions: NDArray[np.int64], what: str) -> None:
        for position in positions.tolist():
            self._faults.add(stream.base + position, f"SAMPLE: {what}")

    def clock(self, *, timed: bool) -> NDArray[np.uint64]:
        """What orders samples against other records: their time, or their place in the file."""
        return self._unsigned["time"][: self.count] if timed else np.arange(self.count, dtype=np.uint64)

    def tids(self) -> NDArray[np.int32]:
        return self._signed["tid"][: self.count]

    def set_fixed_periods(self, periods: list[int | None]) -> None:
        """Give the samples of events that do not record it their constant period."""
        event = self._event[: self.count]
        for number, period in enumerate(periods):
            if period is not None:
                self._unsigned["period"][: self.count][event == number] = period

    def drop_impossible_cpus(self, cpus: int) -> None:
        """CPU numbers past the machine's own become -1, and a fault. `cpus` 0: not known."""
        cpu = self._signed["cpu"][: self.count]
        limit = cpus or 2**31
        if not len(cpu) or (cpu.min() >= -1 and cpu.max() < limit):
            return
        wrong = (cpu < -1) | (cpu >= limit)
        shown = np.unique(cpu[wrong])[:3].tolist()
        self._faults.add(0, f"SAMPLE: {int(wrong.sum())} samples of CPUs that the machine lacks, such as {shown}")
        cpu[wrong] = -1

    def finish(self, comm: NDArray[np.int32]) -> Samples:
        n = self.count
        unsigned, signed = self._unsigned, self._signed
        return Samples(
            ip=unsigned["ip"][:n],
            pid=signed["pid"][:n],
            tid=signed["tid"][:n],
            cpu=signed["cpu"][:n],
            time=unsigned["time"][:n],
            period=unsigned["period"][:n],
            event=self._event[:n],
            in_kernel=self._in_kernel[:n],
            comm=comm,
            chain_start=self._chain_start[: n + 1],
            chain=self._chain[: self._chain_count],
        )


def kernel_part(
    entries: Words, lengths: NDArray[np.int64], in_kernel: NDArray[np.bool_]
) -> tuple[Words, NDArray[np.int64]]:
    """Of chains laid end to end, the entries in kernel context, and how many each chain has of them.

    A marker says which context the entries after it belong to; those before the first marker belong
    to the context the sample itself was taken in.
    """
    marker = entries >= np.uint64(fmt.CONTEXT_FIRST)
    ends = np.cumsum(lengths)
    starts = ends - lengths
    filled = lengths > 0
    first = starts[filled]
    if np.count_nonzero(marker) == len(first) and bool((entries[first] == fmt.CONTEXT_KERNEL).all()):
        return entries[~marker], lengths - filled
    turns = marker.copy()
    turns[first] = True
    at = np.flatnonzero(turns)
    kernel = entries[at] == fmt.CONTEXT_KERNEL
    unmarked = ~marker[at]
    owner = np.searchsorted(ends, at[unmarked], side="right")
    kernel[unmarked] = in_kernel[owner]
    keep = np.repeat(kernel, np.diff(at, append=len(entries))) & ~marker
    total = np.concatenate(([0], np.cumsum(keep)))
    return entries[keep], total[ends] - total[starts]


def _extended(column: NDArray[Column], used: int, length: int) -> NDArray[Column]:
    longer: NDArray[Column] = np.zeros(length, column.dtype)
    longer[:used] = column[:used]
    return longer


def _half(word: int | None, which: int) -> int | None:
    return None if word is None else 2 * word + which


def _words(stream: Stream, positions: NDArray[np.int64]) -> tuple[int, Words]:
    """The stream as words that start where the positions' do (all are a multiple of 8 apart)."""
    phase = int(positions[0]) % 8 if len(positions) else 0
    count = (stream.end - phase) // 8
    return phase, np.ndarray((count,), "<u8", stream.data, phase)


def _gather(stream: Stream, positions: NDArray[np.int64], width: int) -> Words:
    """The first `width` words of each record, as rows; all records must have as many."""
    phase, words = _words(stream, positions)
    # Every word as the start of a row of the following ones: rows overlap, and are copied whole.
    rows: Words = np.ndarray((len(words) - width + 1, width), "<u8", stream.data, phase, (8, 8))
    return rows[(positions - phase) // 8]


def _ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """start, start + 1, ... of each range, end to end."""
    before = np.cumsum(lengths) - lengths
    indices: NDArray[np.int64] = np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))
    return indices
