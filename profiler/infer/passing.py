"""One place of memory, named by a caller and by its callee."""

from __future__ import annotations

from profiler.graph import Call, Pointer, pointer_to

# How far behind an address that is given away a callee is taken to reach, in bytes: the size of a large structure.
_REACH = 4096


def in_callee(call: Call, place: str) -> str:
    """The caller's place as the callee names it; "" where it was given no way to it that is known."""
    pointer = pointer_to(place)
    if pointer is None:
        return ""
    ways = [
        (pointer.offset - given.offset, register)
        for register, given in call.arguments
        if register != "stack" and given.base == pointer.base and 0 <= pointer.offset - given.offset < _REACH
    ]
    if ways:
        distance, register = min(ways)
        return Pointer(register, distance).place
    base = in_callee(call, pointer.base)
    return Pointer(base, pointer.offset).place if base else ""


def in_caller(call: Call, place: str) -> str:
    """The callee's place as the caller names it; "" where the caller has no name for it."""
    pointer = pointer_to(place)
    if pointer is None:
        return place
    given = dict(call.arguments).get(pointer.base)
    if given is not None:
        return given.plus(pointer.offset).place
    if not pointer.base.startswith("["):
        return place if pointer.base in ("global", "gs") else ""
    base = in_caller(call, pointer.base)
    return Pointer(base, pointer.offset).place if base else ""
