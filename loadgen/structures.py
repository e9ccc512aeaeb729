"""The kernel structures that scenarios pass, by the layouts of the uapi headers and the man pages."""

from __future__ import annotations

import ctypes


def _fields(text: str, kind: type) -> list[tuple[str, type]]:
    return [(name, kind) for name in text.split()]


class SockaddrIn(ctypes.Structure):
    """ip(7). Port and address are big-endian."""

    _fields_ = [
        ("family", ctypes.c_uint16),
        ("port", ctypes.c_uint8 * 2),
        ("address", ctypes.c_uint8 * 4),
        ("zero", ctypes.c_uint8 * 8),
    ]

    @classmethod
    def loopback(cls, port: int) -> SockaddrIn:
        return cls(2, (ctypes.c_uint8 * 2)(*port.to_bytes(2, "big")), (ctypes.c_uint8 * 4)(127, 0, 0, 1))


class SockaddrUn(ctypes.Structure):
    """unix(7)."""

    _fields_ = [("family", ctypes.c_uint16), ("path", ctypes.c_char * 108)]


class SockaddrVm(ctypes.Structure):
    """vsock(7)."""

    _fields_ = [
        *_fields("family reserved", ctypes.c_uint16),
        *_fields("port cid", ctypes.c_uint32),
        ("zero", ctypes.c_uint8 * 4),
    ]


class IoUringParams(ctypes.Structure):
    """io_uring_setup(2); the two offset tables at its end are the kernel's to fill."""

    _fields_ = [
        *_fields("sq_entries cq_entries flags sq_thread_cpu sq_thread_idle features wq_fd", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32 * 3),
        ("offsets", ctypes.c_uint64 * 10),
    ]


class ITimerSpec(ctypes.Structure):
    """timerfd_settime(2): the interval, then the first expiry."""

    _fields_ = _fields("interval_seconds interval_nanoseconds value_seconds value_nanoseconds", ctypes.c_int64)


class EpollEvent(ctypes.Structure):
    """epoll_ctl(2); packed on x86-64 alone, where a wrong `data` here would harm nothing."""

    _pack_ = 1
    _fields_ = [("events", ctypes.c_uint32), ("data", ctypes.c_uint64)]


class CloneArguments(ctypes.Structure):
    """clone3(2), the first published size of the structure, which every kernel takes."""

    _fields_ = _fields("flags pidfd child_tid parent_tid exit_signal stack stack_size tls", ctypes.c_uint64)


class BpfMapAttributes(ctypes.Structure):
    """bpf(2), BPF_MAP_CREATE."""

    _fields_ = _fields("map_type key_size value_size max_entries map_flags", ctypes.c_uint32)


class SchedulingParameter(ctypes.Structure):
    """sched_setscheduler(2)."""

    _fields_ = _fields("priority", ctypes.c_int)


class CapabilityHeader(ctypes.Structure):
    """capset(2)."""

    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class CapabilityData(ctypes.Structure):
    """capset(2), of version 3: the low, then the high halves of the three sets."""

    _fields_ = _fields(
        "effective permitted inheritable high_effective high_permitted high_inheritable", ctypes.c_uint32
    )


class IoVector(ctypes.Structure):
    """readv(2)."""

    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class ResourceLimit(ctypes.Structure):
    """prlimit(2)."""

    _fields_ = _fields("soft hard", ctypes.c_uint64)


class FilterInstruction(ctypes.Structure):
    """One instruction of classic BPF, `struct sock_filter` (linux/filter.h)."""

    _fields_ = [
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("operand", ctypes.c_uint32),
    ]


class FilterProgram(ctypes.Structure):
    """seccomp(2)."""

    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(FilterInstruction))]


class FileAttributes(ctypes.Structure):
    """file_getattr(2), its first published size (linux/fs.h)."""

    _fields_ = [
        ("xflags", ctypes.c_uint64),
        *_fields("extent_size extents project_id cow_extent_size", ctypes.c_uint32),
    ]
