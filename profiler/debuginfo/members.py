"""The C expression behind a place in memory: `sk->sk_err` for [rdi+0x220], by the types in the debug info.

A function's parameters lie in registers in their order, as far as they are integers and pointers; where one
before is passed in another way, nothing is said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from profiler.debuginfo.vmlinux import Vmlinux
from profiler.graph import pointer_to

ARGUMENTS = {
    "x86_64": ("rdi", "rsi", "rdx", "rcx", "r8", "r9"),
    "aarch64": ("x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7"),
}
# Per-CPU variables that hold the pointer to the current task, at their start.
_CURRENT = ("current_task", "pcpu_hot")
_DEEPEST = 16  # structures within structures

Typed = tuple[str, Any]  # an expression and its type, a drgn.Type


class Members:
    """`function_type` gives the drgn type of a function by name, and raises LookupError; `current` the addresses of
    pointers to the current task, and that pointer's type."""

    def __init__(
        self,
        function_type: Callable[[str], Any],
        arguments: tuple[str, ...],
        current: Mapping[int, Any] | None = None,
    ) -> None:
        self._function_type = function_type
        self._arguments = arguments
        self._current = current or {}

    def expression(self, function: str, place: str) -> str | None:
        """What the source may call a place of memory, as the function came by it; None where that cannot be told."""
        if "." in function:  # a clone: its parameters may be others
            return None
        found = self._value(function, place)
        return found[0] if found is not None else None

    def _value(self, function: str, place: str) -> Typed | None:
        """What the place, a register or memory, holds."""
        pointer = pointer_to(place)
        if pointer is None:
            return self._parameter(function, place)
        if pointer.base == "gs":
            kind = self._current.get(pointer.offset % (1 << 64))
            return ("current", kind) if kind is not None else None
        base = self._value(function, pointer.base)
        return _target(*base, pointer.offset) if base is not None else None

    def _parameter(self, function: str, register: str) -> Typed | None:
        if register not in self._arguments:
            return None
        try:
            parameters = self._function_type(function).parameters
        except LookupError:
            return None
        index = self._arguments.index(register)
        if index >= len(parameters) or not all(_is_in_register(p.type) for p in parameters[: index + 1]):
            return None
        parameter = parameters[index]
        return (parameter.name, parameter.type) if parameter.name else None


class KernelMembers:
    """Members of a kernel's types. The debug info is opened when first asked: 0.7 s."""

    def __init__(self, vmlinux: Vmlinux) -> None:
        self._vmlinux = vmlinux

    def expression(self, function: str, place: str) -> str | None:
        """See Members.expression."""
        return self._members.expression(function, place)

    @cached_property
    def _members(self) -> Members:
        from profiler.debuginfo.dwarf import open_program  # noqa: PLC0415  # drgn is dear to import

        program = open_program(self._vmlinux)
        addresses = [self._vmlinux.find_symbol(name) for name in _CURRENT]
        found = {address % (1 << 64): program.type("struct task_struct *") for address in addresses if address}
        return Members(lambda name: program.function(name).type_, ARGUMENTS[self._vmlinux.machine], found)


def _target(text: str, kind: Any, offset: int) -> Typed | None:
    """What lies `offset` bytes behind what a pointer points to."""
    from drgn import TypeKind  # noqa: PLC0415

    pointer = _bare(kind)
    if pointer.kind != TypeKind.POINTER:
        return None
    target = _bare(pointer.type)
    if target.kind not in (TypeKind.STRUCT, TypeKind.UNION):
        return (f"*{text}", target) if offset == 0 and target.kind != TypeKind.VOID else None
    found = _member(target, offset)
    return (f"{text}->{found[0]}", found[1]) if found is not None else None


def _member(kind: Any, offset: int) -> Typed | None:
    """The innermost member at an offset: its path from the structure, and its type."""
    from drgn import TypeKind, sizeof  # noqa: PLC0415

    path = ""
    for _ in range(_DEEPEST):
        kind = _bare(kind)
        if kind.kind == TypeKind.ARRAY and kind.length and sizeof(kind.type):
            path += f"[{offset // sizeof(kind.type)}]"
            kind, offset = kind.type, offset % sizeof(kind.type)
        elif kind.kind in (TypeKind.STRUCT, TypeKind.UNION):
            inner = next((m for m in kind.members or () if _holds(m, offset)), None)
            if inner is None:
                return None
            path += f".{inner.name}" if inner.name else ""
            kind, offset = inner.type, offset - inner.bit_offset // 8
        else:
            return (path.removeprefix("."), kind) if offset == 0 and path else None
    return None


def _holds(member: Any, offset: int) -> bool:
    from drgn import sizeof  # noqa: PLC0415

    if not _bare(member.type).is_complete():
        return False
    start = member.bit_offset // 8
    return bool(start <= offset < start + sizeof(member.type))


def _bare(kind: Any) -> Any:
    from drgn import TypeKind  # noqa: PLC0415

    while kind.kind == TypeKind.TYPEDEF:
        kind = kind.type
    return kind


def _is_in_register(kind: Any) -> bool:
    from drgn import TypeKind  # noqa: PLC0415

    return _bare(kind).kind in (TypeKind.INT, TypeKind.BOOL, TypeKind.ENUM, TypeKind.POINTER)
