"""System call numbers, as data by architecture (the kernel's syscall tables; x86-64: syscall_64.tbl)."""

from __future__ import annotations

import os

from profiler.errors import MissingError

NUMBERS: dict[str, dict[str, int]] = {
    "x86_64": {
        "read": 0,
        "write": 1,
        "close": 3,
        "poll": 7,
        "lseek": 8,
        "mmap": 9,
        "munmap": 11,
        "rt_sigaction": 13,
        "ioctl": 16,
        "readv": 19,
        "mremap": 25,
        "madvise": 28,
        "shmget": 29,
        "socket": 41,
        "connect": 42,
        "accept": 43,
        "sendto": 44,
        "recvfrom": 45,
        "sendmsg": 46,
        "shutdown": 48,
        "bind": 49,
        "getpeername": 52,
        "setsockopt": 54,
        "getsockopt": 55,
        "clone": 56,
        "wait4": 61,
        "kill": 62,
        "semop": 65,
        "msgrcv": 70,
        "fcntl": 72,
        "ptrace": 101,
        "getppid": 110,
        "capset": 126,
        "rt_sigqueueinfo": 129,
        "sched_setscheduler": 144,
        "mlock": 149,
        "munlock": 150,
        "prctl": 157,
        "mount": 165,
        "create_module": 174,
        "fgetxattr": 193,
        "futex": 202,
        "sched_setaffinity": 203,
        "epoll_wait": 232,
        "epoll_ctl": 233,
        "mq_timedsend": 242,
        "keyctl": 250,
        "inotify_add_watch": 254,
        "inotify_rm_watch": 255,
        "openat": 257,
        "mkdirat": 258,
        "unlinkat": 263,
        "linkat": 265,
        "unshare": 272,
        "timerfd_settime": 286,
        "accept4": 288,
        "dup3": 292,
        "pipe2": 293,
        "prlimit64": 302,
        "sendmmsg": 307,
        "setns": 308,
        "process_vm_readv": 310,
        "sched_setattr": 314,
        "renameat2": 316,
        "memfd_create": 319,
        "bpf": 321,
        "copy_file_range": 326,
        "io_uring_setup": 425,
        "io_uring_register": 427,
        "clone3": 435,
        "file_getattr": 468,
    },
}


def machine() -> str:
    return os.uname().machine


def syscall_number(name: str, arch: str | None = None) -> int:
    """Raises MissingError for an architecture that has no table yet, KeyError for a call no scenario uses."""
    arch = arch or machine()
    if arch not in NUMBERS:
        raise MissingError(f"the load does not know {arch}'s system call numbers", hint=f"known: {', '.join(NUMBERS)}")
    return NUMBERS[arch][name]
