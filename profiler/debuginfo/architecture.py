"""What the graph builder needs to know of a machine's instructions; one implementation an architecture.

`cfg` knows blocks and edges, an Architecture knows instructions. What differs only in names and numbers is
data (`Conventions`); what takes a decoder is a method. `x86_flow` and `aarch64` implement it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from profiler.graph import Pointer, Step, Test


class Flow(enum.Enum):
    """Where control goes behind an instruction. Of a call or jump without a target, that is not known."""

    NEXT = "next"
    CALL = "call"
    JUMP = "jump"
    CONDITIONAL = "conditional jump"
    RETURN = "return"
    TRAP = "trap"  # a WARN, behind which the kernel goes on
    STOP = "stop"  # a BUG, behind which it does not


@dataclass(frozen=True, slots=True)
class Instruction:
    """`[address, end)`; `raw` is what the architecture's decoder made of it."""

    address: int
    end: int
    flow: Flow
    raw: Any
    target: int | None = None  # of a direct call or jump
    register: str = ""  # the place an indirect jump takes its target from


@dataclass(frozen=True, slots=True)
class Conventions:
    """The ABI, and the names that a kernel built for the architecture gives to what is patched or special."""

    return_place: str
    clobbers: tuple[str, ...]  # what a callee may change besides its results
    syscall_prefix: str  # of the functions that system calls enter
    returned_in: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # helpers' results, by prefix
    return_thunks: tuple[str, ...] = ()  # a jump there is a return
    indirect_thunks: tuple[str, ...] = ()  # prefixes: a call or jump there goes where a register says
    static_call: str = ""  # prefix of the trampolines of static calls
    tracing_calls: tuple[str, ...] = ()  # calls that are no-ops until ftrace patches them
    thunk_padding: int = 0  # bytes of padding before a function that a patched call may enter it through

    def results_of(self, callee: str) -> tuple[str, ...]:
        return next(
            (places for prefix, places in self.returned_in.items() if callee.startswith(prefix)), (self.return_place,)
        )


class Frame(Protocol):
    """What registers point to: the stack, from where it stood at function entry, and what the function was given."""

    def copy(self) -> Self: ...

    def meet(self, other: Self) -> bool:
        """Keeps what both agree on; whether that took something away."""

    def arguments(self, *, tail: bool) -> tuple[tuple[str, Pointer], ...]:
        """What a callee is given, as in `graph.Call.arguments`."""

    def advance(self, instruction: Any) -> None:
        """Moves past one instruction (`Instruction.raw`)."""


class Architecture(Protocol):
    """`raw` below is `Instruction.raw`; `frame` stands before the instruction."""

    @property
    def conventions(self) -> Conventions: ...

    @property
    def longest(self) -> int:
        """Bytes of the longest instruction."""

    def decode(self, code: bytes, address: int) -> Instruction | None:
        """The instruction at the start of `code`; None where there is none."""

    def frame(self) -> Frame:
        """As it stands at function entry."""

    def steps_of(self, raw: Any, frame: Any) -> Iterable[Step]: ...

    def taken_address(self, raw: Any, frame: Any) -> str:
        """The stack slot whose address the instruction computes, or ""."""

    def is_compare(self, raw: Any) -> bool: ...

    def sets_flags(self, raw: Any) -> bool: ...

    def tested_place(self, raw: Any, frame: Any) -> str:
        """What a comparison looks at, "" where that is not followed."""

    def tests_of(self, compare: Any | None, place: str, jump: Any) -> tuple[Test | None, Test | None]:
        """What a conditional jump being taken, and not being taken, says of a place."""

    def interrupts_after(self, raw: Any, off: bool) -> bool: ...

    def table(
        self,
        jump: Instruction,
        before: Callable[[int], Instruction | None],
        read: Callable[[int, int], bytes],
        frame: Any,
    ) -> Iterator[int]:
        """Targets of an indirect jump through a jump table, in the table's order; none where it is no such jump.

        `before` gives the decoded instruction that ends at an address. Where the table's end cannot be
        told the caller stops at the first target outside the function.
        """

    def fault_effects(self, word: int) -> tuple[tuple[str, int], ...]:
        """What the handler of a fault puts where, by the third word of an exception table's entry."""
