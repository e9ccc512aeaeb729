"""Entries and exits of a function_graph trace put together to calls, with their callers.

Within one thread the depth says it all: an exit ends the last entry of its depth, if nothing shallower lies between;
a call's caller is the last entry that is shallower. Rows of several threads lie in between each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from profiler.parse.function_graph_lines import Kind, Lines, Tables, empty
from profiler.parse.function_graph_types import NONE, FunctionGraph, GraphCalls, GraphEvents

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]
    Integers = NDArray[np.int64]

# Rows of trees that have not ended which are kept for the next part; a longer tree is cut.
MOST_KEPT = 1 << 20
_IDLE = -(1 << 20)  # every CPU has a thread 0 of its own

_COLUMNS = ("kind", "depth", "cpu", "thread", "time", "duration", "name", "value", "has_value", "offset")


@dataclass(eq=False)
class _Rows:
    """Lines of calls or events, with the thread that each is of."""

    columns: dict[str, NDArray[Any]]
    stream: Integers
    texts: list[str]  # of events; of calls none

    def __len__(self) -> int:
        return len(self.stream)

    def only(self, chosen: Bools) -> _Rows:
        texts = [text for text, wanted in zip(self.texts, chosen.tolist(), strict=False) if wanted]
        return _Rows({name: column[chosen] for name, column in self.columns.items()}, self.stream[chosen], texts)


class _Links(NamedTuple):
    """Of rows sorted by stream: what belongs to what, by place."""

    above: Integers  # the last row before that is shallower
    parent: Integers  # the same, where that is an entry
    partner: Integers  # of an entry its exit, and of an exit its entry


class Matcher:
    """Lines in, block by block; parts of a FunctionGraph out, in which trees are whole."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._calls: list[_Rows] = []
        self._events: list[_Rows] = []
        self._kept = 0  # rows of calls that were looked at before
        self._waiting = 0  # and that were not
        self._current: dict[int, int] = {}  # CPU → thread, by switch lines
        self._losses: list[tuple[int, int]] = []  # (CPU, offset)
        self._lost = 0

    def add(self, lines: Lines) -> FunctionGraph | None:
        """None where nothing is ready."""
        self._note_losses(lines)
        stream = self._streams(lines)
        is_call = (lines.kind >= Kind.ENTRY) & (lines.kind <= Kind.EXIT)
        self._calls.append(_rows(lines, stream, is_call))
        self._events.append(_rows(lines, stream, lines.kind == Kind.EVENT))
        self._waiting += int(is_call.sum())
        # so that a long tree is not looked at again for every block
        return self._part(last=False) if self._waiting * 2 > self._kept else None

    def finish(self) -> FunctionGraph:
        if not self._calls:
            self.add(empty(0, np.zeros(0, np.int64)))
        return self._part(last=True)

    def _part(self, *, last: bool) -> FunctionGraph:
        pool, events = _join(self._calls), _join(self._events)
        order = np.argsort(pool.stream, kind="stable")
        links = _linked(pool, order, self._losses)
        keep = np.zeros(len(pool), np.bool_)
        if not last:
            keep = _unfinished(pool, order, links, events)
            if int(keep.sum()) > MOST_KEPT:
                keep[:] = False
        keep_events = _with_calls(pool, keep, events)
        part = self._graph(pool, order, links, keep, events.only(~keep_events), last=last)
        self._calls, self._events = [pool.only(keep)], [events.only(keep_events)]
        self._kept, self._waiting = int(keep.sum()), 0
        if self._kept:
            first = int(self._calls[0].columns["offset"][0])
            self._losses = [(cpu, offset) for cpu, offset in self._losses if offset > first]
        else:
            self._losses = []
        return part

    def _graph(
        self, pool: _Rows, order: Integers, links: _Links, keep: Bools, events: _Rows, *, last: bool
    ) -> FunctionGraph:
        partner, parent = _unsorted(links.partner, order), _unsorted(links.parent, order)
        kind = pool.columns["kind"]
        chosen = ~keep & (kind != Kind.EXIT)
        exits = (~keep & (kind == Kind.EXIT) & (partner == NONE)).sum()
        lost, self._lost = self._lost, 0
        return FunctionGraph(
            calls=_calls(pool, np.flatnonzero(chosen), parent, partner),
            events=GraphEvents(
                time=events.columns["time"].astype(np.int64),
                cpu=events.columns["cpu"].astype(np.int16),
                thread=_thread(events),
                offset=events.columns["offset"].astype(np.int64),
                text=tuple(events.texts),
            ),
            names=tuple(self._tables.names),
            threads=dict(self._tables.threads),
            lost=lost,
            exits_without_entry=int(exits),
            decode_errors=self._tables.faults.errors() if last else (),
        )

    def _note_losses(self, lines: Lines) -> None:
        for row in np.flatnonzero(lines.kind == Kind.LOST).tolist():
            self._losses.append((int(lines.cpu[row]), int(lines.offset[row])))
            self._lost += int(lines.duration[row])

    def _streams(self, lines: Lines) -> Integers:
        """The thread that each line is of: as printed, else as the last switch on its CPU says."""
        cpu = lines.cpu.astype(np.int64)
        stream = lines.thread.astype(np.int64)
        idle = (stream == 0) & (cpu >= 0)
        stream[idle] = _IDLE - cpu[idle]
        stream[lines.thread < 0] = -2 - cpu[lines.thread < 0]
        switches = np.flatnonzero(lines.kind == Kind.SWITCH)
        for number in np.unique(np.concatenate((cpu[lines.thread < 0], cpu[switches]))).tolist():
            if number >= 0:
                own = switches[cpu[switches] == number]
                self._follow(number, own, lines, stream)
        return stream

    def _follow(self, cpu: int, switches: Integers, lines: Lines, stream: Integers) -> None:
        """Threads of one CPU's lines that do not print theirs."""
        unknown = -2 - cpu
        if len(switches) and cpu not in self._current:
            # what ran before the first switch is what it switches from
            self._current[cpu] = int(lines.name[switches[0]])
            for rows in (*self._calls, *self._events):
                rows.stream[rows.stream == unknown] = _task(self._current[cpu], cpu)
        running = [_task(self._current[cpu], cpu) if cpu in self._current else unknown]
        running += [_task(int(thread), cpu) for thread in lines.thread[switches]]
        rows_here = np.flatnonzero((lines.cpu == cpu) & (lines.thread < 0))
        stream[rows_here] = np.array(running)[np.searchsorted(switches, rows_here)]
        if len(switches):
            self._current[cpu] = int(lines.thread[switches[-1]])


def _task(thread: int, cpu: int) -> int:
    return _IDLE - cpu if thread == 0 else thread


def _rows(lines: Lines, stream: Integers, chosen: Bools) -> _Rows:
    columns = {name: getattr(lines, name)[chosen] for name in _COLUMNS}
    texts = [lines.texts[row] for row in np.flatnonzero(chosen).tolist() if row in lines.texts]
    return _Rows(columns, stream[chosen], texts)


def _join(several: list[_Rows]) -> _Rows:
    if len(several) == 1:
        return several[0]
    columns = {name: np.concatenate([rows.columns[name] for rows in several]) for name in _COLUMNS}
    return _Rows(
        columns, np.concatenate([rows.stream for rows in several]), [t for rows in several for t in rows.texts]
    )


# ---- who calls whom ----


def _linked(pool: _Rows, order: Integers, losses: list[tuple[int, int]]) -> _Links:
    """Goes through the depths from the outermost on, all rows of one depth at once."""
    stream, depth = pool.stream[order], pool.columns["depth"][order].astype(np.int64)
    kind, name = pool.columns["kind"][order], pool.columns["name"][order]
    outer, parent, partner = (np.full(len(order), NONE) for _ in range(3))
    by_depth = np.argsort(depth, kind="stable")
    levels, first = np.unique(depth[by_depth], return_index=True)
    shallower = np.zeros(0, np.int64)  # places of all rows that are shallower, in order
    for here in np.split(by_depth, first[1:]) if len(levels) else []:
        above = _last_before(shallower, here)
        above[(above != NONE) & (stream[above] != stream[here])] = NONE
        outer[here] = above
        parent[here] = np.where((above != NONE) & (kind[above] == Kind.ENTRY), above, NONE)
        before = np.concatenate((np.full(1, NONE), here[:-1]))
        ends = (kind[here] == Kind.EXIT) & (before > above) & (kind[before] == Kind.ENTRY)
        ends &= (before != NONE) & (stream[before] == stream[here])
        ends &= (name[here] < 0) | (name[here] == name[before])
        partner[here[ends]], partner[before[ends]] = before[ends], here[ends]
        shallower = _merged(shallower, here)
    _break_at_losses(pool, order, partner, losses)
    return _Links(outer, parent, partner)


def _merged(left: Integers, right: Integers) -> Integers:
    """Two rising sequences as one."""
    both = np.concatenate((left, right))
    both.sort(kind="stable")  # finds the two runs
    return both


def _last_before(places: Integers, rows: Integers) -> Integers:
    """For each row the last of `places` that lies before it, or NONE."""
    if not len(places):
        return np.full(len(rows), NONE)
    at = np.searchsorted(places, rows) - 1
    return np.where(at >= 0, places[np.maximum(at, 0)], NONE)


def _break_at_losses(pool: _Rows, order: Integers, partner: Integers, losses: list[tuple[int, int]]) -> None:
    """A call within which its CPU lost events does not have the end that it seems to have."""
    if not losses:
        return
    offset, cpu = pool.columns["offset"][order], pool.columns["cpu"][order]
    begins = np.flatnonzero((partner != NONE) & (pool.columns["kind"][order] == Kind.ENTRY))
    ends = partner[begins]
    broken = np.zeros(len(begins), np.bool_)
    for number in {cpu for cpu, _ in losses}:
        where = np.array([at for one, at in losses if one == number], np.int64)
        inside = np.searchsorted(where, offset[begins]) != np.searchsorted(where, offset[ends])
        broken |= inside & ((cpu[begins] == number) | (cpu[ends] == number) | (cpu[begins] < 0))
    partner[ends[broken]] = NONE
    partner[begins[broken]] = NONE


def _unfinished(pool: _Rows, order: Integers, links: _Links, events: _Rows) -> Bools:
    """The rows of each thread's last tree where it has not ended, or where the event with its result may follow."""
    keep = np.zeros(len(pool), np.bool_)
    stream, kind = pool.stream[order], pool.columns["kind"][order]
    bounds = np.flatnonzero(np.diff(stream, append=NONE * (1 << 40)))
    last_event: dict[int, int] = dict(zip(events.stream.tolist(), events.columns["offset"].tolist(), strict=True))
    for end in bounds.tolist():
        root = _root_of_last(int(end), kind, links)
        ended = kind[root] == Kind.LEAF or (kind[root] == Kind.ENTRY and links.partner[root] != NONE)
        offset = int(pool.columns["offset"][order[end]])
        if kind[root] == Kind.EXIT or (ended and last_event.get(int(stream[end]), -1) > offset):
            continue
        keep[order[root : end + 1]] = True
    return keep


def _root_of_last(last: int, kind: NDArray[np.int8], links: _Links) -> int:
    """The outermost entry around a row that has not ended; else the begin of the tree that ends there."""
    root = last
    if kind[root] == Kind.EXIT and links.partner[root] != NONE:
        root = int(links.partner[root])
    row = root
    while (row := int(links.above[row])) != NONE:
        if kind[row] == Kind.ENTRY and links.partner[row] == NONE:
            root = row
    return root


def _with_calls(pool: _Rows, keep: Bools, events: _Rows) -> Bools:
    """Events of threads of which calls are kept, from the first of these calls on."""
    kept = np.flatnonzero(keep)[::-1]
    first = dict(zip(pool.stream[kept].tolist(), pool.columns["offset"][kept].tolist(), strict=True))
    pairs = zip(events.stream.tolist(), events.columns["offset"].tolist(), strict=True)
    return np.array([offset > first.get(stream, offset) for stream, offset in pairs], np.bool_)


# ---- the result ----


def _unsorted(places: Integers, order: Integers) -> Integers:
    """Places among the sorted rows, as row numbers, by row number."""
    rows = np.full(len(order), NONE)
    rows[order] = np.where(places != NONE, order[places], NONE) if len(order) else places
    return rows


def _calls(pool: _Rows, rows: Integers, parent: Integers, partner: Integers) -> GraphCalls:
    columns = pool.columns
    number = np.full(len(pool) + 1, NONE)  # row of the pool → row of the result; the last for NONE
    number[rows] = np.arange(len(rows))
    leaf = columns["kind"][rows] == Kind.LEAF
    end = np.where(leaf, rows, partner[rows])
    complete = end != NONE

    def at_end(name: str, otherwise: int) -> Integers:
        return np.where(complete, columns[name][end], otherwise)

    return GraphCalls(
        function=columns["name"][rows].astype(np.int32),
        depth=columns["depth"][rows].astype(np.int16),
        cpu=columns["cpu"][rows].astype(np.int16),
        thread=_thread(pool)[rows],
        start=columns["time"][rows].astype(np.int64),
        duration=at_end("duration", NONE),
        parent=number[parent[rows]],
        returned=at_end("value", 0),
        has_returned=at_end("has_value", 0).astype(np.bool_),
        complete=complete,
        opened=columns["offset"][rows].astype(np.int64),
        closed=at_end("offset", NONE),
    )


def _thread(rows: _Rows) -> NDArray[np.int32]:
    return np.where(rows.stream <= _IDLE, 0, rows.stream).astype(np.int32)
