"""Refused beside the system call's own code: by a filter, by the table of calls, by a cgroup controller."""

from __future__ import annotations

import ctypes
import errno

from loadgen import seccomp
from loadgen.scenario import Call, scenario
from loadgen.setup import PAGE, Setup
from loadgen.structures import FileAttributes
from loadgen.syscalls import syscall_number

AT_FDCWD = -100
NEW_THREAD = 0x50F00  # CLONE_VM, FS, FILES, SIGHAND, THREAD, SYSVSEM, as in pthread_create()
STACK = 16 * PAGE


@scenario(
    "getppid-eperm",
    "EPERM",
    "A seccomp filter denies a call that cannot fail. The call's own code never runs, and the errno is a number in "
    "the filter, not in the kernel.",
)
def getppid_eperm(setup: Setup) -> Call:
    seccomp.deny(syscall_number("getppid"), errno.EPERM)
    return Call("getppid")


@scenario(
    "create-module-enosys",
    "ENOSYS",
    "A call that was removed in Linux 2.6. Its place in the table of system calls remains, and leads to a function "
    "that all such calls share.",
)
def create_module_enosys(setup: Setup) -> Call:
    return Call("create_module", "whyerrno", PAGE)


@scenario(
    "file-getattr-enosys",
    "ENOSYS",
    "A call that Linux has since 6.17: its number lies beyond the tables of an older kernel.",
    fails_before="6.17",
)
def file_getattr_enosys(setup: Setup) -> Call:
    attributes = FileAttributes()
    return Call("file_getattr", AT_FDCWD, "/", attributes, ctypes.sizeof(attributes), 0)


@scenario(
    "clone-eagain",
    "EAGAIN",
    "A new thread in a cgroup whose pids.max is reached. All of the thread was made and is unmade again; RLIMIT_NPROC "
    "and the system's own limits give the same errno earlier.",
    needs_root=True,
)
def clone_eagain(setup: Setup) -> Call:
    stack = setup.anonymous_memory(STACK)
    setup.pids_cgroup(pids_max="1")
    return Call("clone", NEW_THREAD, stack + STACK, None, None, 0)
