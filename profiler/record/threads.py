"""The threads of the load: of a process and all that it has started, as /proc tells; and stopping them for a moment."""

import contextlib
import os
import signal
import time

from profiler.record import journal

STOP_SECONDS = 0.5  # that a process may take to stop: it is done with its system call first


def of(pid: int) -> list[int]:
    """Thread ids of a process and its descendants, its own first; none where it is gone."""
    return [thread for process in tree(pid) for thread in _threads(process)]


def tree(pid: int) -> list[int]:
    """A process and its descendants, parents before children; those that ended meanwhile are left out."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = _stat(f"/proc/{name}/stat")
            if fields:
                children.setdefault(int(fields[1]), []).append(int(name))
    found = [pid] if os.path.exists(f"/proc/{pid}") else []
    for process in found:  # grows meanwhile
        found += sorted(children.get(process, []))
    return found


def busiest(threads: list[int], count: int) -> list[int]:
    """The threads that have had most CPU time, `count` at most, without those that are idle beside these."""
    spent = {thread: ticks for thread in threads if (ticks := _cpu_ticks(thread)) is not None}
    least = max(spent.values(), default=0) // 20
    return [thread for thread in sorted(spent, key=lambda thread: -spent[thread]) if spent[thread] >= least][:count]


class Stopped:
    """A process and its descendants, stopped by SIGSTOP; on record, so that they run again whatever happens."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._note: int | None = None

    def __enter__(self) -> "Stopped":
        self.stop()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on()

    def stop(self) -> None:
        """Nothing where they stand still already; those that cannot be stopped run on."""
        if self._note is not None:
            return
        processes = tree(self._pid)
        self._note = journal.note("stopped", [[process, journal.started(process)] for process in processes])
        for process in processes:
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGSTOP)
        deadline = time.monotonic() + STOP_SECONDS
        while not all(map(_stands_still, processes)) and time.monotonic() < deadline:
            time.sleep(0.002)

    def go_on(self) -> None:
        journal.put_back(self._note)
        self._note = None


def _stands_still(pid: int) -> bool:
    fields = _stat(f"/proc/{pid}/stat")
    return not fields or fields[0] in (b"T", b"t", b"Z", b"X")


def _threads(pid: int) -> list[int]:
    try:
        names = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    return sorted(int(name) for name in names)


def _cpu_ticks(thread: int) -> int | None:
    """In user and in kernel mode, in clock ticks; None where it ended. /proc/TID/stat sums up its whole process."""
    fields = _stat(f"/proc/{thread}/task/{thread}/stat")
    return int(fields[11]) + int(fields[12]) if fields and fields[0] not in (b"Z", b"X") else None


def _stat(path: str) -> list[bytes]:
    """The fields of proc(5)'s stat after the name in brackets: state, parent, ...; none where it is gone."""
    try:
        with open(path, "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []
