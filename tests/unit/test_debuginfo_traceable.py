"""Which functions ftrace can trace, by how their code begins."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from profiler.debuginfo.traceable import traceable
from profiler.errors import InputError

HOOK = 0x9000
ENDBR = bytes.fromhex("f30f1efa")


def call(at: int, target: int) -> bytes:
    return b"\xe8" + int(target - at - 5).to_bytes(4, "little", signed=True)


CODE = {
    0x1000: call(0x1000, HOOK) + bytes(8),
    0x2000: ENDBR + call(0x2004, HOOK) + bytes(8),
    0x3000: call(0x3000, 0x1000) + bytes(8),  # calls, but another function
    0x4000: bytes.fromhex("554889e5") + bytes(8),  # notrace: push %rbp
    0xA000: call(0xA000, HOOK) + bytes(8),  # behind the hook: the distance is negative
}


def image(hook: int | None = HOOK) -> Any:
    def read(address: int, size: int) -> bytes:
        if address not in CODE:
            raise InputError("no such address")
        return CODE[address][:size]

    functions = SimpleNamespace(
        start=np.array([*CODE, 0xF000], np.uint64), names=["plain", "marked", "caller", "notrace", "behind", "gone"]
    )
    return SimpleNamespace(find_symbol=lambda _name: hook, functions=functions, read=read)


def test_functions_that_begin_with_the_hook_can_be_traced() -> None:
    """Also behind the mark for indirect branches; a call of something else is none, nor is code that is not there."""
    assert traceable(image()) == {"plain", "marked", "behind"}


def test_an_image_without_the_hook_claims_nothing() -> None:
    assert traceable(image(None)) == frozenset()
