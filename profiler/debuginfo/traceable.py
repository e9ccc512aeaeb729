"""Which functions ftrace can trace: those that the compiler began with a call of `__fentry__` (gcc's -mfentry)."""

from __future__ import annotations

import numpy as np

from profiler.debuginfo.vmlinux import Vmlinux
from profiler.errors import InputError

HOOK = "__fentry__"
_ENDBR64 = b"\xf3\x0f\x1e\xfa"
_CALL, _CALL_LENGTH = 0xE8, 5


def traceable(vmlinux: Vmlinux) -> frozenset[str]:
    """By the image's own code. Empty where it has no such calls: another architecture, or another way of hooking."""
    hook = vmlinux.find_symbol(HOOK)
    if hook is None:
        return frozenset()
    functions = vmlinux.functions
    return frozenset(
        name
        for start, name in zip(functions.start.tolist(), functions.names, strict=True)
        if _calls(vmlinux, start, hook)
    )


def _calls(vmlinux: Vmlinux, start: int, hook: int) -> bool:
    try:
        code = vmlinux.read(start, len(_ENDBR64) + _CALL_LENGTH)
    except InputError:
        return False
    at = len(_ENDBR64) if code.startswith(_ENDBR64) else 0
    call = code[at : at + _CALL_LENGTH]
    distance = int(np.frombuffer(call[1:], "<i4")[0])
    return call[0] == _CALL and start + at + _CALL_LENGTH + distance == hook
