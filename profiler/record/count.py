"""Counting a system call's results in somebody else's program, without recording each.

`perf stat` counts the tracepoint raw_syscalls:sys_exit once per filter, in the program and all that it starts.
Counting ends with perf, so nothing stays switched on, whatever happens to the recorder. (A hist trigger
would give every errno apart, but Debian's 5.10 is built without them, and it costs the load more.)
"""

import os
import signal

from profiler.errors import RecordError
from profiler.record.perf import Control
from profiler.record.spawn import Child

TRACEPOINT = "raw_syscalls:sys_exit"
TRACING = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
START_SECONDS = 30.0

# Counted beside the errno that was asked for, because they are what a wrong set-up mostly gives.
USUAL = {"EPERM": 1, "ENOENT": 2, "EINTR": 4, "EBADF": 9, "EAGAIN": 11, "ENOMEM": 12, "EACCES": 13, "EINVAL": 22}
OTHER = "other"  # every errno that has no counter of its own


class ResultCounter:
    """Counts of one system call's results in one process tree, from `start` to `stop`."""

    def __init__(self, perf: str, *, syscall_number: int, errno: str, errno_number: int, output: str) -> None:
        self.output = output
        self.filters = result_filters(syscall_number, errno, errno_number)
        self._perf = perf
        self._errno = errno
        self._child: Child | None = None
        self._control: Control | None = None

    def argv(self, pid: int) -> list[str]:
        events = [word for text in self.filters.values() for word in ("-e", TRACEPOINT, "--filter", text)]
        return [self._perf, "stat", "-x", ",", "-o", self.output, "-p", str(pid), *events]

    def start(self, pid: int) -> str:
        """Attach to a process. Returns "", or why counting is not possible here."""
        if not tracepoint_present():
            return (
                f"the tracepoint {TRACEPOINT} is not there, or may not be read (root, and tracefs mounted, are needed)"
            )
        self._control = Control()
        self._child = self._control.start(self.argv(pid))
        if self._control.acknowledged(self._child, START_SECONDS):
            return ""
        problem = " ".join(self._child.output.text().split())[:200]
        self.end()
        return f"perf stat could not count: {problem}"

    def stop(self) -> dict[str, int]:
        """Results by errno name, "0" for success: these and the errno asked for always, others where they occurred."""
        assert self._child is not None, "stop() without start()"
        self._child.send(signal.SIGINT)
        ended = self._child.wait(START_SECONDS)
        self.end()
        if not ended:
            raise RecordError(f"perf stat did not end within {START_SECONDS:g} s of SIGINT")
        with open(self.output) as file:
            counts = parse_counts(file.read(), len(self.filters))
        os.unlink(self.output)
        return results_by_name(dict(zip(self.filters, counts, strict=True)), always=("0", self._errno))

    def end(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None
        if self._control is not None:
            self._control.close()
            self._control = None

    @property
    def pid(self) -> int:
        return self._child.pid if self._child else 0


def result_filters(syscall_number: int, errno: str, errno_number: int) -> dict[str, str]:
    """A tracepoint filter for each counter: all failures, success, the errno asked for, and the usual ones."""
    call = f"id=={syscall_number}"
    failed = f"{call} && ret<0 && ret>-4096"
    filters = {OTHER: failed, "0": f"{call} && ret>=0"}
    for name, number in {errno: errno_number, **USUAL}.items():
        filters[name] = f"{call} && ret==-{number}"
    return filters


def parse_counts(text: str, expected: int) -> list[int]:
    """Counts from `perf stat -x,`, one a line, in the order of the events.

        914000,,raw_syscalls:sys_exit,2003376818,100.00,,

    A counter that never ran reads "<not counted>" and is 0. Raises RecordError on another number of lines.
    """
    lines = [line for line in text.splitlines() if TRACEPOINT in line]
    fields = [line.split(",", 1)[0].strip() for line in lines]
    if len(fields) != expected or not all(field.isdigit() or field == "<not counted>" for field in fields):
        raise RecordError(f"perf stat's output is not as expected: {text.strip()[:200]!r}")
    return [int(field) if field.isdigit() else 0 for field in fields]


def results_by_name(counts: dict[str, int], always: tuple[str, ...]) -> dict[str, int]:
    """`counts` without zeros but `always`, and its total of failures replaced by those that no other counter saw."""
    named = sum(count for name, count in counts.items() if name not in (OTHER, "0"))
    rest = {**counts, OTHER: max(0, counts[OTHER] - named)}
    return {name: count for name, count in rest.items() if count or name in always}


def tracepoint_present() -> bool:
    return any(os.access(f"{root}/events/raw_syscalls/sys_exit/id", os.R_OK) for root in TRACING)
