"""Memory that the kernel faults on."""

from __future__ import annotations

import ctypes

from loadgen.setup import PAGE, Setup
from profiler.errors import RecordError

PROT_NONE = 0


def before_forbidden(setup: Setup, content: bytes) -> int:
    """The address of a copy of `content` (at most a page) that ends where memory that nobody may touch begins."""
    start = setup.anonymous_memory(2 * PAGE)
    if ctypes.CDLL(None).mprotect(ctypes.c_void_p(start + PAGE), ctypes.c_size_t(PAGE), PROT_NONE):
        raise RecordError("the load could not protect a page of its memory")
    address = start + PAGE - len(content)
    ctypes.memmove(address, content, len(content))
    return address
