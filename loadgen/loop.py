"""loop.c's structures, and the call into it."""

from __future__ import annotations

import ctypes
import errno as errno_names
import mmap
import os

from loadgen.scenario import Call
from loadgen.setup import Setup
from profiler.errors import RecordError

COMM = "whyerrno-load"
STOPPED_BY = ("time", "success", "memory", "error", "signal", "count")
ERRNOS = 4096
KERNEL_NAMES = {errno_names.EOPNOTSUPP: "EOPNOTSUPP"}  # not ENOTSUP, which Python calls the same number
NO_SYSCALL = -1
MEMORY_FLOOR = 96 << 20  # bytes that perf, the shell and the kernel need to go on


def memory_floor() -> int:
    """MEMORY_FLOOR, or a sixteenth of a smaller machine's memory."""
    return min(MEMORY_FLOOR, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 16)


class Plan(ctypes.Structure):
    _fields_ = [
        ("number", ctypes.c_int64),
        ("arguments", ctypes.c_int64 * 6),
        ("undo_number", ctypes.c_int64),
        ("undo_arguments", ctypes.c_int64 * 6),
        ("undo_result_position", ctypes.c_int64),
        ("duration_ns", ctypes.c_int64),
        ("calls_limit", ctypes.c_uint64),
        ("memory_floor", ctypes.c_uint64),
        ("enter_descriptor", ctypes.c_int64),
        ("leave_descriptor", ctypes.c_int64),
        ("meminfo_descriptor", ctypes.c_int64),
        ("comm", ctypes.c_char * 16),
    ]


class Outcome(ctypes.Structure):
    _fields_ = [
        ("calls", ctypes.c_uint64),
        ("busy_ns", ctypes.c_int64),
        ("successes", ctypes.c_uint64),
        ("success_result", ctypes.c_int64),
        ("elapsed_ns", ctypes.c_int64),
        ("pauses", ctypes.c_uint64),
        ("stopped_by", ctypes.c_int64),
        ("error", ctypes.c_int64),
        ("usual_failure", ctypes.c_int64),
        ("failures", ctypes.c_uint64 * ERRNOS),
    ]


def plan(call: Call, setup: Setup, seconds: float, calls_limit: int = 0, floor: int | None = None) -> Plan:
    undo = call.undo
    cgroup = setup.cgroup
    return Plan(
        number=call.number,
        arguments=(ctypes.c_int64 * 6)(*call.words),
        undo_number=undo.number if undo else NO_SYSCALL,
        undo_arguments=(ctypes.c_int64 * 6)(*(undo.words if undo else [])),
        undo_result_position=undo.result_position if undo else 0,
        duration_ns=int(seconds * 1e9),
        calls_limit=calls_limit,
        memory_floor=memory_floor() if floor is None else floor,
        enter_descriptor=cgroup.enter if cgroup else -1,
        leave_descriptor=cgroup.leave if cgroup else -1,
        meminfo_descriptor=setup.meminfo,
        comm=COMM.encode(),
    )


def load_library(path: str) -> ctypes.CDLL:
    """Raises RecordError where the file is no library for this machine."""
    try:
        library = ctypes.CDLL(os.path.abspath(path))  # pathlib is slow to import
        library.whyerrno_loop.argtypes = [ctypes.POINTER(Plan), ctypes.POINTER(Outcome)]
        library.whyerrno_loop.restype = None
    except (OSError, AttributeError) as error:
        raise RecordError(f"the load's library does not load: {error}", hint="let whyerrno build it anew") from error
    return library


def shared_outcome(path: str) -> Outcome:
    """An outcome that lies in a new file, so that another process can follow the counts while the loop runs.

    The loop writes there what it would write anyway. Raises RecordError where the file cannot be made.
    """
    size = ctypes.sizeof(Outcome)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)  # a full disk is told now, not by SIGBUS in the loop
            return Outcome.from_buffer(mmap.mmap(descriptor, size))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise RecordError(f"the live counter cannot be made: {error}") from error


def run(library: ctypes.CDLL, planned: Plan, outcome: Outcome | None = None) -> Outcome:
    """Runs the loop into `outcome`, or a new one."""
    outcome = outcome or Outcome()
    library.whyerrno_loop(ctypes.byref(planned), ctypes.byref(outcome))
    return outcome


def results(outcome: Outcome) -> dict[str, int]:
    """Errno name → count; "0" stands for success. A number stands for an errno that has no name."""
    counts = {"0": outcome.successes} if outcome.successes else {}
    for number, count in enumerate(outcome.failures):
        if count:
            counts[KERNEL_NAMES.get(number) or errno_names.errorcode.get(number, str(number))] = count
    return counts
