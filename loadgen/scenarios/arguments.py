"""What the kernel copies from its caller: addresses that lead nowhere, lengths and names beyond measure."""

from __future__ import annotations

import os

from loadgen.scenario import Call, scenario, succeeds
from loadgen.setup import PAGE, Setup
from loadgen.structures import IoVector

AT_FDCWD = -100
AT_REMOVEDIR = 0x200
NOWHERE = 64  # an address in the first page, which no process may map
PATH_MAX = 4096
SIGNAL_SET = 8  # bytes
SIGUSR1 = 10


@scenario(
    "rt-sigaction-efault",
    "EFAULT",
    "A structure at an address that is not mapped: the copy faults, and the fault's handler finds the way out.",
)
def rt_sigaction_efault(setup: Setup) -> Call:
    return Call("rt_sigaction", SIGUSR1, NOWHERE, None, SIGNAL_SET)


@succeeds(rt_sigaction_efault)
def ask_for_an_action(setup: Setup) -> Call:
    return Call("rt_sigaction", SIGUSR1, None, None, SIGNAL_SET)


@scenario(
    "sched-setattr-efault",
    "EFAULT",
    "One number at an address that is not mapped. The errno is set in assembly, where the fault's handler returns to.",
)
def sched_setattr_efault(setup: Setup) -> Call:
    return Call("sched_setattr", 0, NOWHERE, 0)


@scenario(
    "readv-einval",
    "EINVAL",
    "Three buffers, the last with a negative length: found in the third turn of a loop.",
)
def readv_einval(setup: Setup) -> Call:
    reading, _ = setup.pipe()
    address = setup.anonymous_memory(PAGE)
    vectors = (IoVector * 3)(*[IoVector(address, length) for length in (16, 16, -1)])
    return Call("readv", reading, vectors, len(vectors))


@succeeds(readv_einval, anew=True)
def read_into_three_buffers(setup: Setup) -> Call:
    reading, writing = setup.pipe()
    os.write(writing, bytes(48))
    address = setup.anonymous_memory(PAGE)
    return Call("readv", reading, (IoVector * 3)(*[IoVector(address, 16)] * 3), 3)


@scenario(
    "mkdirat-enametoolong",
    "ENAMETOOLONG",
    "A path of more than 4096 bytes. Every call that takes a path comes here; a single name of more than 255 bytes "
    "is refused elsewhere.",
)
def mkdirat_enametoolong(setup: Setup) -> Call:
    return Call("mkdirat", AT_FDCWD, "/" + "a" * PATH_MAX, 0o755)


@succeeds(mkdirat_enametoolong)
def make_a_directory(setup: Setup) -> Call:
    path = f"{setup.directory()}/made"
    return Call("mkdirat", AT_FDCWD, path, 0o755, undo=Call("unlinkat", AT_FDCWD, path, AT_REMOVEDIR))
