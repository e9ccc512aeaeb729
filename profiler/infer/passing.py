"""One place of memory, named by a caller and by its callee."""

from __future__ import annotations

from typing import Protocol

from profiler.graph import Call, Pointer, pointer_to

# How far behind an address that is given away a callee is taken to reach, in bytes: the size of a large structure.
_REACH = 4096


def in_callee(call: Call, place: str) -> list[str]:
    """The names by which a callee may know the caller's place, the nearest to what it was given first.

    Several, since a register that is not an argument of this callee may still hold what it held before.
    """
    pointer = pointer_to(place)
    if pointer is None:
        return []
    ways = [
        (pointer.offset - given.offset, register)
        for register, given in call.arguments
        if register != "stack" and given.base == pointer.base and 0 <= pointer.offset - given.offset < _REACH
    ]
    if ways:
        nearest = min(ways)[0]
        return [Pointer(register, distance).place for distance, register in ways if distance == nearest]
    return [name for base in in_callee(call, pointer.base) if (name := Pointer(base, pointer.offset).place)]


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


class Names(Protocol):
    """How functions name each other's memory."""

    def in_callee(self, call: Call, place: str) -> list[str]: ...

    def in_caller(self, call: Call, place: str) -> str: ...


class ByPointers:
    """In machine code: by the addresses that a call gives away."""

    def in_callee(self, call: Call, place: str) -> list[str]:
        return in_callee(call, place)

    def in_caller(self, call: Call, place: str) -> str:
        return in_caller(call, place)


BY_POINTERS = ByPointers()
