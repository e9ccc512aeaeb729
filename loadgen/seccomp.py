"""A seccomp filter that denies one system call, as container runtimes and sandboxes do."""

from __future__ import annotations

import ctypes
import os

from loadgen.structures import FilterInstruction, FilterProgram
from profiler.errors import MissingError

PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2
RET_ERRNO = 0x0005_0000
RET_ALLOW = 0x7FFF_0000
LOAD_NUMBER = FilterInstruction(0x20, 0, 0, 0)  # BPF_LD | BPF_W | BPF_ABS: seccomp_data.nr
JUMP_IF_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
RETURN = 0x06  # BPF_RET | BPF_K


def deny(number: int, errno_number: int) -> None:
    """Makes system call `number` fail with the errno in this process, for good: no filter can be taken off again.

    Raises MissingError where the kernel takes no filters.
    """
    instructions = (FilterInstruction * 4)(
        LOAD_NUMBER,
        FilterInstruction(JUMP_IF_EQUAL, 0, 1, number),
        FilterInstruction(RETURN, 0, 0, RET_ERRNO | errno_number),
        FilterInstruction(RETURN, 0, 0, RET_ALLOW),
    )
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)  # without it an ordinary user may not install a filter
    program = FilterProgram(len(instructions), instructions)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise MissingError(f"seccomp refuses the filter: {reason}", hint="the scenario needs CONFIG_SECCOMP_FILTER")
