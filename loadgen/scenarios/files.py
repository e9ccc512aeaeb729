"""Paths, open files, and operations on them."""

from __future__ import annotations

import ctypes
import os

from loadgen.scenario import Call, scenario
from loadgen.setup import PAGE, Setup

AT_FDCWD = -100
AT_REMOVEDIR = 0x200
RENAME_NOREPLACE = 1
TCGETS = 0x5401
NO_DESCRIPTOR = 1_000_000  # never opened here


@scenario(
    "openat-enoent",
    "ENOENT",
    "A directory on the path does not exist. The errno is decided in the path walk, many calls below openat.",
)
def openat_enoent(setup: Setup) -> Call:
    return Call("openat", AT_FDCWD, "/whyerrno-nonexistent/file", os.O_RDONLY, 0)


@scenario(
    "openat-eacces",
    "EACCES",
    "An ordinary user opens a file of mode 000. Mode bits, access lists, capabilities and security modules all say "
    "EACCES alike.",
)
def openat_eacces(setup: Setup) -> Call:
    setup.enter_directory()
    setup.file("closed", mode=0)
    setup.unprivileged()
    return Call("openat", AT_FDCWD, "closed", os.O_RDONLY, 0)


@scenario(
    "openat-emfile",
    "EMFILE",
    "The process holds as many descriptors as RLIMIT_NOFILE lets it. Refused before the path is even looked at.",
)
def openat_emfile(setup: Setup) -> Call:
    lowest_free = os.open("/", os.O_RDONLY)
    os.close(lowest_free)
    setup.limit("RLIMIT_NOFILE", lowest_free)
    return Call("openat", AT_FDCWD, "/", os.O_RDONLY, 0)


@scenario(
    "read-eisdir",
    "EISDIR",
    "read() of a directory: every file system points its directories' read operation at one function that says EISDIR.",
)
def read_eisdir(setup: Setup) -> Call:
    descriptor = setup.open(setup.directory(), os.O_RDONLY)
    return Call("read", descriptor, ctypes.create_string_buffer(16), 16)


@scenario(
    "write-ebadf",
    "EBADF",
    "The descriptor is open, but for reading only. EBADF says no more than for one that was never opened.",
)
def write_ebadf(setup: Setup) -> Call:
    return Call("write", setup.open(setup.file("read-only"), os.O_RDONLY), b"x", 1)


@scenario(
    "lseek-espipe",
    "ESPIPE",
    "A pipe has no position.",
)
def lseek_espipe(setup: Setup) -> Call:
    reading, _ = setup.pipe()
    return Call("lseek", reading, 0, os.SEEK_SET)


@scenario(
    "ioctl-enotty",
    "ENOTTY",
    "A terminal's request on a plain file. The errno is rewritten on the way up from one that user space never sees.",
)
def ioctl_enotty(setup: Setup) -> Call:
    return Call("ioctl", setup.open(setup.file("plain"), os.O_RDONLY), TCGETS, ctypes.create_string_buffer(64))


@scenario(
    "fcntl-ebadf",
    "EBADF",
    "A descriptor that was never opened. Decided in the descriptor table, before the command is looked at.",
)
def fcntl_ebadf(setup: Setup) -> Call:
    return Call("fcntl", NO_DESCRIPTOR, 1)  # F_GETFD


@scenario(
    "dup3-einval",
    "EINVAL",
    "Old and new descriptor are the same, which dup2 allows and dup3 does not.",
)
def dup3_einval(setup: Setup) -> Call:
    reading, _ = setup.pipe()
    return Call("dup3", reading, reading, 0)


@scenario(
    "pipe2-einval",
    "EINVAL",
    "A flag of open() that pipe2() does not take.",
)
def pipe2_einval(setup: Setup) -> Call:
    return Call("pipe2", (ctypes.c_int * 2)(), os.O_APPEND)


@scenario(
    "unlinkat-enotdir",
    "ENOTDIR",
    "AT_REMOVEDIR on a plain file. A file used as a directory on the path gives the same errno from elsewhere.",
)
def unlinkat_enotdir(setup: Setup) -> Call:
    return Call("unlinkat", AT_FDCWD, setup.file("plain"), AT_REMOVEDIR)


@scenario(
    "unlinkat-enotempty",
    "ENOTEMPTY",
    "AT_REMOVEDIR on a directory with a file in it. Only the file system can tell, so it decides.",
)
def unlinkat_enotempty(setup: Setup) -> Call:
    path = setup.subdirectory("full")
    setup.file("full/file")
    return Call("unlinkat", AT_FDCWD, path, AT_REMOVEDIR)


@scenario(
    "renameat2-eexist",
    "EEXIST",
    "RENAME_NOREPLACE onto a file that is there.",
)
def renameat2_eexist(setup: Setup) -> Call:
    return Call("renameat2", AT_FDCWD, setup.file("old"), AT_FDCWD, setup.file("new"), RENAME_NOREPLACE)


@scenario(
    "copy-file-range-einval",
    "EINVAL",
    "A copy within one file onto a range that overlaps the source. Refused far below the system call's own checks, "
    "which use EINVAL too.",
)
def copy_file_range_einval(setup: Setup) -> Call:
    descriptor = setup.open(setup.file("copied", bytes(4 * PAGE)), os.O_RDWR)
    return Call("copy_file_range", descriptor, ctypes.c_int64(0), descriptor, ctypes.c_int64(PAGE), 2 * PAGE, 0)


@scenario(
    "linkat-exdev",
    "EXDEV",
    "A hard link across two mounts. The errno is set before it is known whether it is needed, and leaves through a "
    "label that every other way out shares.",
)
def linkat_exdev(setup: Setup) -> Call:
    return Call("linkat", AT_FDCWD, "/proc/version", AT_FDCWD, f"{setup.directory()}/link", 0)


@scenario(
    "fgetxattr-enodata",
    "ENODATA",
    "A user attribute of a pipe, which can have none. An attribute that could be there and is not has the same errno.",
)
def fgetxattr_enodata(setup: Setup) -> Call:
    reading, _ = setup.pipe()
    return Call("fgetxattr", reading, "user.whyerrno", ctypes.create_string_buffer(16), 16)


@scenario(
    "write-einval",
    "EINVAL",
    "A letter where a file of /proc takes a number. Refused by the parser of numbers that the whole kernel shares, "
    "behind the file's own write function.",
)
def write_einval(setup: Setup) -> Call:
    return Call("write", setup.open("/proc/self/oom_score_adj", os.O_WRONLY), b"x", 1)
