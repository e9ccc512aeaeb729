"""Values as they can be had at an instruction: of a register, of memory reached from one, computed from such.

A kprobe fetches registers and memory (Documentation/trace/kprobetrace.rst, "Synopsis of kprobe_events"); what
it cannot compute is computed here. All numbers are words: unsigned, of 64 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

WORD = (1 << 64) - 1
_BYTES = (1, 2, 4, 8)
_DEEPEST = 4  # pointers followed one after the other


@dataclass(frozen=True, slots=True)
class Register:
    name: str  # the whole register: "rax"


@dataclass(frozen=True, slots=True)
class Constant:
    value: int


@dataclass(frozen=True, slots=True)
class Memory:
    address: Value
    size: int  # bytes
    segment: str = ""  # "gs" or "fs"


@dataclass(frozen=True, slots=True)
class Operation:
    """`operator` is one of _OPERATORS; "zero" and "sign" extend the low `right` bits of `left`."""

    operator: str
    left: Value
    right: Value


Value: TypeAlias = "Register | Constant | Memory | Operation"
Known = Callable[[Register | Memory], int | None]


def signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


_OPERATORS: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "shl": lambda a, b: a << min(b, 64),
    "shr": lambda a, b: a >> min(b, 64),
    "sar": lambda a, b: signed(a, 64) >> min(b, 64),
    "zero": lambda a, b: a & ((1 << b) - 1),
    "sign": signed,
}


def plus(value: Value, distance: int) -> Value:
    """The sum, with constants added up."""
    if isinstance(value, Constant):
        return Constant((value.value + distance) & WORD)
    base, before = without_distance(value)
    value, distance = base, before + distance
    return Operation("add", value, Constant(distance & WORD)) if distance else value


def without_distance(value: Value) -> tuple[Value, int]:
    """(what a constant is added to, the constant)"""
    if isinstance(value, Operation) and value.operator == "add":
        added = value.right
        if isinstance(added, Constant):
            return value.left, signed(added.value, 64)
    return value, 0


def evaluate(value: Value, known: Known) -> int | None:
    """The word, where all that it is made of is known."""
    if isinstance(value, Constant):
        return value.value & WORD
    if isinstance(value, Operation):
        left, right = evaluate(value.left, known), evaluate(value.right, known)
        if left is None or right is None:
            return None
        return _OPERATORS[value.operator](left, right) & WORD
    return known(value)


def sources(value: Value) -> Iterator[Register | Memory]:
    """What has to be read for it, the way to a place in memory before the place."""
    if isinstance(value, Operation):
        yield from sources(value.left)
        yield from sources(value.right)
    elif isinstance(value, Memory):
        yield from sources(value.address)
        yield value
    elif isinstance(value, Register):
        yield value


def fetch_argument(source: Register | Memory, offset: int = 0) -> str | None:
    """For a kprobe event, `%ax:u64` or `+16(%bx):u32`; None for what it cannot fetch.

    `offset`: of the running kernel's addresses from those at link time.
    """
    if isinstance(source, Register):
        return f"{_fetched_register(source.name)}:u64"
    if source.size not in _BYTES:
        return None
    text = _reference(source, offset, _DEEPEST)
    return f"{text}:u{source.size * 8}" if text else None


def _reference(memory: Memory, offset: int, depth: int) -> str | None:
    if memory.segment or not depth:
        return None
    address, distance = without_distance(memory.address)
    if isinstance(address, Constant):
        return f"@{(address.value + offset) & WORD:#x}"
    if isinstance(address, Register):
        return f"{distance:+d}({_fetched_register(address.name)})"
    if isinstance(address, Memory) and address.size == 8:
        inner = _reference(address, offset, depth - 1)
        return f"{distance:+d}({inner})" if inner else None
    return None


def _fetched_register(name: str) -> str:
    """rax → %ax, r8 → %r8 (arch/x86/kernel/ptrace.c, regoffset_table)."""
    return f"%{name[1:] if name[1:].isalpha() else name}"
