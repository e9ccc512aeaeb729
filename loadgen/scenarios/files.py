"""Paths, open files, and operations on them."""

from __future__ import annotations

import ctypes
import os

from loadgen.scenario import RESULT, Call, scenario, succeeds
from loadgen.setup import PAGE, Setup

AT_FDCWD = -100
AT_REMOVEDIR = 0x200
RENAME_NOREPLACE = 1
TCGETS = 0x5401
FIONREAD = 0x541B
A_FREE_NUMBER = 200  # for a descriptor
NO_DESCRIPTOR = 1_000_000  # never opened here


@scenario(
    "openat-enoent",
    "ENOENT",
    "A directory on the path does not exist. The errno is decided in the path walk, many calls below openat.",
)
def openat_enoent(setup: Setup) -> Call:
    return Call("openat", AT_FDCWD, "/whyerrno-nonexistent/file", os.O_RDONLY, 0)


@succeeds(openat_enoent)
def open_a_file(setup: Setup) -> Call:
    setup.subdirectory("there")
    return Call("openat", AT_FDCWD, setup.file("there/file"), os.O_RDONLY, 0, undo=Call("close", RESULT))


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


@succeeds(openat_eacces)
def open_what_may_be_read(setup: Setup) -> Call:
    setup.enter_directory()
    setup.file("open")
    setup.unprivileged()
    return Call("openat", AT_FDCWD, "open", os.O_RDONLY, 0, undo=Call("close", RESULT))


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


@succeeds(openat_emfile)
def open_one_more(setup: Setup) -> Call:
    return Call("openat", AT_FDCWD, "/", os.O_RDONLY, 0, undo=Call("close", RESULT))


@scenario(
    "read-eisdir",
    "EISDIR",
    "read() of a directory: every file system points its directories' read operation at one function that says EISDIR.",
)
def read_eisdir(setup: Setup) -> Call:
    descriptor = setup.open(setup.directory(), os.O_RDONLY)
    return Call("read", descriptor, ctypes.create_string_buffer(16), 16)


@succeeds(read_eisdir)
def read_a_file(setup: Setup) -> Call:
    descriptor = setup.open(setup.file("plain", b"content"), os.O_RDONLY)
    rewind = Call("lseek", descriptor, 0, os.SEEK_SET)
    return Call("read", descriptor, ctypes.create_string_buffer(16), 16, undo=rewind)


@scenario(
    "write-ebadf",
    "EBADF",
    "The descriptor is open, but for reading only. EBADF says no more than for one that was never opened.",
)
def write_ebadf(setup: Setup) -> Call:
    return Call("write", setup.open(setup.file("read-only"), os.O_RDONLY), b"x", 1)


@succeeds(write_ebadf)
def write_where_one_may(setup: Setup) -> Call:
    descriptor = setup.open(setup.file("writable"), os.O_RDWR)
    return Call("write", descriptor, b"x", 1, undo=Call("lseek", descriptor, 0, os.SEEK_SET))


@scenario(
    "lseek-espipe",
    "ESPIPE",
    "A pipe has no position.",
)
def lseek_espipe(setup: Setup) -> Call:
    reading, _ = setup.pipe()
    return Call("lseek", reading, 0, os.SEEK_SET)


@succeeds(lseek_espipe)
def seek_in_a_file(setup: Setup) -> Call:
    return Call("lseek", setup.open(setup.file("plain"), os.O_RDONLY), 0, os.SEEK_SET)


@scenario(
    "ioctl-enotty",
    "ENOTTY",
    "A terminal's request on a plain file. The errno is rewritten on the way up from one that user space never sees.",
)
def ioctl_enotty(setup: Setup) -> Call:
    return Call("ioctl", setup.open(setup.file("plain"), os.O_RDONLY), TCGETS, ctypes.create_string_buffer(64))


@succeeds(ioctl_enotty)
def ask_what_a_file_answers(setup: Setup) -> Call:
    return Call("ioctl", setup.open(setup.file("plain"), os.O_RDONLY), FIONREAD, ctypes.c_int())


@scenario(
    "fcntl-ebadf",
    "EBADF",
    "A descriptor that was never opened. Decided in the descriptor table, before the command is looked at.",
)
def fcntl_ebadf(setup: Setup) -> Call:
    return Call("fcntl", NO_DESCRIPTOR, 1)  # F_GETFD


@succeeds(fcntl_ebadf)
def ask_for_the_flags(setup: Setup) -> Call:
    reading, _ = setup.pipe()
    return Call("fcntl", reading, 1)  # F_GETFD


@scenario(
    "dup3-einval",
    "EINVAL",
    "Old and new descriptor are the same, which dup2 allows and dup3 does not.",
)
def dup3_einval(setup: Setup) -> Call:
    reading, _ = setup.pipe()
    return Call("dup3", reading, reading, 0)


@succeeds(dup3_einval)
def make_a_duplicate(setup: Setup) -> Call:
    reading, _ = setup.pipe()
    return Call("dup3", reading, A_FREE_NUMBER, 0, undo=Call("close", RESULT))


@scenario(
    "pipe2-einval",
    "EINVAL",
    "A flag of open() that pipe2() does not take.",
)
def pipe2_einval(setup: Setup) -> Call:
    return Call("pipe2", (ctypes.c_int * 2)(), os.O_APPEND)


@succeeds(pipe2_einval, anew=True)
def make_a_pipe(setup: Setup) -> Call:
    ends = (ctypes.c_int * 2)(-1, -1)

    def close() -> None:
        for end in ends:
            if end >= 0:
                os.close(end)

    setup.at_end(close)
    return Call("pipe2", ends, os.O_CLOEXEC)


@scenario(
    "unlinkat-enotdir",
    "ENOTDIR",
    "AT_REMOVEDIR on a plain file. A file used as a directory on the path gives the same errno from elsewhere.",
)
def unlinkat_enotdir(setup: Setup) -> Call:
    return Call("unlinkat", AT_FDCWD, setup.file("plain"), AT_REMOVEDIR)


@succeeds(unlinkat_enotdir)
def remove_a_directory(setup: Setup) -> Call:
    path = setup.subdirectory("directory")
    return Call("unlinkat", AT_FDCWD, path, AT_REMOVEDIR, undo=Call("mkdirat", AT_FDCWD, path, 0o755))


@scenario(
    "unlinkat-enotempty",
    "ENOTEMPTY",
    "AT_REMOVEDIR on a directory with a file in it. Only the file system can tell, so it decides.",
)
def unlinkat_enotempty(setup: Setup) -> Call:
    path = setup.subdirectory("full")
    setup.file("full/file")
    return Call("unlinkat", AT_FDCWD, path, AT_REMOVEDIR)


@succeeds(unlinkat_enotempty)
def remove_an_empty_directory(setup: Setup) -> Call:
    path = setup.subdirectory("empty")
    return Call("unlinkat", AT_FDCWD, path, AT_REMOVEDIR, undo=Call("mkdirat", AT_FDCWD, path, 0o755))


@scenario(
    "renameat2-eexist",
    "EEXIST",
    "RENAME_NOREPLACE onto a file that is there.",
)
def renameat2_eexist(setup: Setup) -> Call:
    return Call("renameat2", AT_FDCWD, setup.file("old"), AT_FDCWD, setup.file("new"), RENAME_NOREPLACE)


@succeeds(renameat2_eexist)
def rename_to_a_free_name(setup: Setup) -> Call:
    old, new = setup.file("old"), f"{setup.directory()}/new"
    back = Call("renameat2", AT_FDCWD, new, AT_FDCWD, old, RENAME_NOREPLACE)
    return Call("renameat2", AT_FDCWD, old, AT_FDCWD, new, RENAME_NOREPLACE, undo=back)


@scenario(
    "copy-file-range-einval",
    "EINVAL",
    "A copy within one file onto a range that overlaps the source. Refused far below the system call's own checks, "
    "which use EINVAL too.",
)
def copy_file_range_einval(setup: Setup) -> Call:
    descriptor = setup.open(setup.file("copied", bytes(4 * PAGE)), os.O_RDWR)
    return Call("copy_file_range", descriptor, ctypes.c_int64(0), descriptor, ctypes.c_int64(PAGE), 2 * PAGE, 0)


@succeeds(copy_file_range_einval, anew=True)
def copy_without_overlap(setup: Setup) -> Call:
    descriptor = setup.open(setup.file("copied", bytes(4 * PAGE)), os.O_RDWR)
    return Call("copy_file_range", descriptor, ctypes.c_int64(0), descriptor, ctypes.c_int64(2 * PAGE), PAGE, 0)


@scenario(
    "linkat-exdev",
    "EXDEV",
    "A hard link across two mounts. The errno is set before it is known whether it is needed, and leaves through a "
    "label that every other way out shares.",
)
def linkat_exdev(setup: Setup) -> Call:
    return Call("linkat", AT_FDCWD, "/proc/version", AT_FDCWD, f"{setup.directory()}/link", 0)


@succeeds(linkat_exdev)
def link_within_a_directory(setup: Setup) -> Call:
    link = f"{setup.directory()}/link"
    remove = Call("unlinkat", AT_FDCWD, link, 0)
    return Call("linkat", AT_FDCWD, setup.file("linked"), AT_FDCWD, link, 0, undo=remove)


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


@succeeds(write_einval)
def write_a_number(setup: Setup) -> Call:
    descriptor = setup.open("/proc/self/oom_score_adj", os.O_RDWR)
    present = os.pread(descriptor, 16, 0).strip()
    return Call("write", descriptor, present, len(present))
