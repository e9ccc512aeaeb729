"""perf_event_open(2) for kprobes: an event per probe and thread, their records in one ring for each thread.

An event hangs on its descriptor, so a probe is gone with the recorder, even by SIGKILL. Each hit of a probe is a record
of its own, with all registers, in the order of execution. See include/uapi/linux/perf_event.h for all that is laid out
here, and arch/x86/include/uapi/asm/perf_regs.h for the numbers of the registers.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import struct

from profiler.errors import MissingError
from profiler.record import tracefs

PMU = "/sys/bus/event_source/devices/kprobe/type"

# By machine: the system call's number, and a mask of the sixteen general registers, the ip and the flags.
MACHINES = {"x86_64": (298, 0x00FF03FF)}

_SAMPLE_TID, _SAMPLE_TIME, _SAMPLE_IDENTIFIER, _SAMPLE_REGS_INTR = 1 << 1, 1 << 2, 1 << 16, 1 << 18
_ATTRIBUTE_SIZE = 112  # PERF_ATTR_SIZE_VER5, since Linux 4.1
_DISABLED = 1 << 0
_FLAG_FD_CLOEXEC = 8
_IOC_SET_OUTPUT, _IOC_ID = 0x2405, 0x80082407
_PR_TASK_PERF_EVENTS_DISABLE, _PR_TASK_PERF_EVENTS_ENABLE = 31, 32
_DATA_HEAD = 1024  # in the ring's first page

RECORD_BYTES = 184  # of a hit: header, identifier, thread, time, ABI and 18 registers


def kprobe_type() -> int:
    """The number of the kernel's PMU for kprobes. Raises MissingError where there is none."""
    machine = os.uname().machine
    if machine not in MACHINES:
        raise MissingError(f"no instruction is probed on {machine}", hint="probes work on x86_64")
    try:
        with open(PMU) as file:
            return int(file.read())
    except FileNotFoundError:
        raise MissingError(
            "this kernel has no kprobes for perf",
            hint="a kernel with CONFIG_KPROBE_EVENTS and CONFIG_PERF_EVENTS is needed, as in --target vm:VERSION",
        ) from None
    except OSError as error:
        raise tracefs.refusal(PMU, error, "read") from None


def open_probe(kind: int, address: int, *, on_return: bool, thread: int) -> int:
    """The descriptor of a disabled event. Raises OSError as the kernel refuses it."""
    number, registers = MACHINES[os.uname().machine]
    sample = _SAMPLE_TID | _SAMPLE_TIME | _SAMPLE_IDENTIFIER | _SAMPLE_REGS_INTR
    head = struct.pack("=IIQQQQQ", kind, _ATTRIBUTE_SIZE, int(on_return), 1, sample, 0, _DISABLED)
    tail = struct.pack("=IIQQQQIiQ", 0, 0, 0, address, 0, 0, 0, 0, registers)  # config2 is the address
    attribute = ctypes.create_string_buffer((head + tail).ljust(_ATTRIBUTE_SIZE, b"\0"), _ATTRIBUTE_SIZE)
    fd = int(_libc().syscall(number, attribute, thread, -1, -1, ctypes.c_ulong(_FLAG_FD_CLOEXEC)))
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return fd


def identity(fd: int) -> int:
    """The number that stands in an event's records."""
    return int(struct.unpack("=Q", fcntl.ioctl(fd, _IOC_ID, bytes(8)))[0])


def count(fd: int) -> int:
    """How often an event was hit, recorded or not."""
    return int(struct.unpack("=Q", os.read(fd, 8))[0])


def enable_all() -> None:
    """Every event that this process has opened."""
    _libc().prctl(_PR_TASK_PERF_EVENTS_ENABLE, 0, 0, 0, 0)


def disable_all() -> None:
    _libc().prctl(_PR_TASK_PERF_EVENTS_DISABLE, 0, 0, 0, 0)


class Ring:
    """The records of one thread's events. It never overwrites: when it is full, hits are only counted."""

    def __init__(self, first: int, size: int) -> None:
        """`first` is an event's descriptor; `size` bytes, a power of two of pages. Raises MissingError, OSError."""
        self._fd = first
        try:
            self._map = mmap.mmap(first, mmap.PAGESIZE + size)
        except OSError as error:
            if error.errno == errno.EPERM:
                hint = "run as root, or raise kernel.perf_event_mlock_kb"
                raise MissingError("perf's buffer cannot be had: more than may be locked", hint=hint) from None
            raise

    def take(self, fd: int) -> None:
        """Let another event of the same thread write here too. Raises OSError."""
        fcntl.ioctl(fd, _IOC_SET_OUTPUT, self._fd)

    def filled(self) -> int:
        """Bytes written; always whole records."""
        return int(struct.unpack_from("=Q", self._map, _DATA_HEAD)[0])

    def content(self) -> bytes:
        return self._map[mmap.PAGESIZE : mmap.PAGESIZE + self.filled()]

    def close(self) -> None:
        self._map.close()


def ring_size(most: int) -> int:
    """Bytes of the largest ring within `most`: pages by a power of two."""
    size = mmap.PAGESIZE
    while size * 2 <= most:
        size *= 2
    return size


def _libc() -> ctypes.CDLL:
    if not _LOADED:
        _LOADED.append(ctypes.CDLL(None, use_errno=True))
    return _LOADED[0]


_LOADED: list[ctypes.CDLL] = []
