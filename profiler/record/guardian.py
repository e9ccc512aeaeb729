"""A second process that ends what the recorder started when the recorder is killed outright.

A signal that can be caught is dealt with by the recorder itself. SIGKILL is not, so a forked guardian holds the reading
end of a pipe whose only writer is the recorder: when that end closes, the recorder is gone, and every process group
still on the list is ended (perf by SIGINT, so that it lets go of its events in order), and what stands in the
recorder's journal is undone. The groups stand in the journal too, for the next recorder, should the guardian be killed
as well.
"""

import contextlib
import os
import signal
import time

from profiler.errors import ProfilerError
from profiler.record import journal


class Guardian:
    """Started before everything it guards; `guard` a process group when it starts, `release` all at the end."""

    def __init__(self) -> None:
        self._notes: list[int] = []
        reading, self._writing = os.pipe()
        recorder = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            _watch(reading, recorder)
        os.close(reading)

    def guard(self, group: int) -> None:
        os.write(self._writing, f"{group}\n".encode())
        with contextlib.suppress(ProfilerError, OSError):  # without a place for a journal, the guardian must do
            self._notes.append(journal.note("processes", [group, journal.started(group)]))

    def release(self) -> None:
        """Nothing is running any more: let the guardian end without doing anything."""
        if self._writing >= 0:
            os.write(self._writing, b"done\n")
            os.close(self._writing)
            os.waitpid(self._pid, 0)
            self._writing = -1
        while self._notes:
            journal.forget(self._notes.pop())


def _watch(reading: int, recorder: int) -> None:
    """Never returns. Keeps no descriptor but `reading`, so that nobody waits for the guardian's copies to close."""
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        os.dup2(reading, 3)
        os.closerange(4, 1024)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        lines = b""
        while data := os.read(3, 4096):
            lines += data
        words = lines.split()
        if b"done" not in words:
            end_groups([int(word) for word in words])
            journal.undo_leftovers(ended=recorder)
    finally:
        os._exit(0)


def end_groups(groups: list[int], *, grace: float = 3.0) -> None:
    """SIGINT to each group, SIGKILL to those that are still there after `grace` seconds."""
    for group in groups:
        _send(group, signal.SIGINT)
        _send(group, signal.SIGCONT)  # a load may have been stopped while probes are put on
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline and any(_send(group, 0) for group in groups):
        time.sleep(0.05)
    for group in groups:
        _send(group, signal.SIGKILL)


def _send(group: int, number: int) -> bool:
    try:
        os.killpg(group, number)
    except OSError:
        return False
    return True
