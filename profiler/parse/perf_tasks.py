"""Who was running: thread names and parents over time, from COMM and FORK records."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1 << 16  # samples at a time, to stay in the cache
_PLAUSIBLE_TIDS = 1 << 22  # the kernel's PID_MAX_LIMIT


@dataclass(slots=True)
class Timeline:
    """COMM and FORK records; `clock` is a time in ns, or a place in the file where there are no times."""

    parents: dict[int, int] = field(default_factory=dict)
    _changes: list[tuple[int, int, int, int | str]] = field(default_factory=list)  # clock, order, tid, name or parent

    def named(self, clock: int, tid: int, name: str) -> None:
        self._changes.append((clock, len(self._changes), tid, name))

    def forked(self, clock: int, pid: int, parent_pid: int, tid: int, parent_tid: int) -> None:
        if pid != parent_pid:  # otherwise only a thread was added
            self.parents[pid] = parent_pid
        self._changes.append((clock, len(self._changes), tid, parent_tid))

    def comms(self, tids: NDArray[np.int32], clock: NDArray[np.uint64]) -> tuple[NDArray[np.int32], tuple[str, ...]]:
        """For each sample the index of its thread's name at that moment, and the names.

        A thread takes over its parent's name when it is forked. Where no name is known it is
        called `:TID`, as perf does, and thread 0 `swapper`.
        """
        names = _Names()
        history = self._history(names)
        threads, length, slot = _slots(tids)
        last_name = np.zeros(length, np.int32)
        last_change = np.zeros(length, np.uint64)
        for tid, place in threads.items():
            if tid in history:
                last_change[place], last_name[place] = history[tid][-1]
            else:
                last_name[place] = names.unknown(tid)
        comm = np.empty(len(tids), np.int32)
        early = []
        for start in range(0, len(tids), _BLOCK):
            part = slice(start, start + _BLOCK)
            place_of = slot[part].astype(np.intp)
            comm[part] = last_name[place_of]
            early.append(np.flatnonzero(clock[part] < last_change[place_of]) + start)
        earlier = np.concatenate(early) if early else np.zeros(0, np.int64)
        if len(earlier):
            named = _name_earlier(tids[earlier], clock[earlier], history)
            for tid in np.unique(tids[earlier[named < 0]]).tolist():
                named[(named < 0) & (tids[earlier] == tid)] = names.unknown(tid)
            comm[earlier] = named
        return comm, names.all()

    def _history(self, names: _Names) -> dict[int, list[tuple[int, int]]]:
        """Of each thread, when it got which name."""
        history: dict[int, list[tuple[int, int]]] = {0: [(0, names.number("swapper"))]}
        for clock, _, tid, change in sorted(self._changes, key=lambda item: item[:2]):
            if isinstance(change, str):
                name = names.number(change)
            elif change in history:
                name = history[change][-1][1]
            else:
                continue
            history.setdefault(tid, []).append((clock, name))
        return history


class _Names:
    """Names by number, each once."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        return self._numbers.setdefault(name, len(self._numbers))

    def unknown(self, tid: int) -> int:
        return self.number(f":{tid}")

    def all(self) -> tuple[str, ...]:
        return tuple(self._numbers)


def _slots(tids: NDArray[np.int32]) -> tuple[dict[int, int], int, NDArray[np.integer]]:
    """Of each thread that occurs its place in a table, the table's length, and the place for each sample."""
    if not len(tids) or tids.min() < -1 or tids.max() >= _PLAUSIBLE_TIDS:
        present, slot = np.unique(tids, return_inverse=True)
        return {tid: place for place, tid in enumerate(present.tolist())}, len(present), slot
    # The thread ids serve as places themselves; -1 is the last, one beyond the greatest.
    occurs = np.zeros(int(tids.max()) + 2, np.bool_)
    occurs[tids[0]] = True
    occurs[tids[1:][tids[1:] != tids[:-1]]] = True  # most samples are of the same thread as the one before
    threads = {place: place for place in np.flatnonzero(occurs[:-1]).tolist()}
    if occurs[-1]:
        threads[-1] = len(occurs) - 1
    return threads, len(occurs), tids


def _name_earlier(
    tids: NDArray[np.int32],
    clock: NDArray[np.uint64],
    history: dict[int, list[tuple[int, int]]],
) -> NDArray[np.int32]:
    """Names of samples taken before their thread's last change: by the last change before each; -1 where none was."""
    changes = [(tid, at, name) for tid in np.unique(tids).tolist() for at, name in ((0, -1), *history[tid])]
    tid_column = np.concatenate([np.array([change[0] for change in changes], np.int32), tids])
    clock_column = np.concatenate([np.array([change[1] for change in changes], np.uint64), clock])
    is_sample = np.arange(len(tid_column)) >= len(changes)
    order = np.lexsort((is_sample, clock_column, tid_column))  # a change comes before a sample of its moment
    latest = np.maximum.accumulate(np.where(is_sample[order], -1, np.arange(len(order))))
    chosen = is_sample[order]
    named = np.empty(len(tids), np.int32)
    named[order[chosen] - len(changes)] = np.array([change[2] for change in changes], np.int32)[order[latest[chosen]]]
    return named
