"""The nouns of machine code, free of any architecture: blocks, edges, and what a block does to values.

`debuginfo` decodes a function into these, `infer` reasons over them. Addresses are link addresses.
A *place* is where a value can be kept: a register by its full name ("rax"), a stack slot by its distance
from the stack pointer at function entry ("stack-24"), or memory by the way to it from what the function was
given: "[rdi+0x220]" is where the first argument points to, and "[[rdi+0x18]+0x50]" is reached through a
pointer kept at [rdi+0x18].
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class StepKind(enum.Enum):
    CONST = "const"  # place := value
    COPY = "copy"  # place := source
    OPERATE = "operate"  # place := operator(place, value)
    FLAGS = "flags"  # place := one of `choices`, by the flags
    SELECT = "select"  # place := source or itself, by the flags (cmov)
    LOAD = "load"  # place := memory that is not a stack slot
    UNKNOWN = "unknown"  # place := something not followed


_DEEPEST = 3  # pointers followed one after the other; what lies deeper has no name


@dataclass(frozen=True, slots=True)
class Pointer:
    """An address, as far as one function can tell it from others: a base, and the distance from there.

    The base is "stack" (the stack pointer at entry), a register (its value at entry), "global", "gs" (per CPU), or
    a place (the pointer kept there).
    """

    base: str
    offset: int

    def plus(self, distance: int) -> Pointer:
        return Pointer(self.base, self.offset + distance)

    @property
    def place(self) -> str:
        """The place that it points to; "" where it lies too deep."""
        if self.base == "stack":
            return f"stack{self.offset:+d}"
        return f"[{self.base}{self.offset:+#x}]" if self.base.count("[") < _DEEPEST else ""


def is_slot(place: str) -> bool:
    """Whether a place lies on the function's own stack."""
    return place.startswith("stack") and place[6:].isdigit()


def is_memory(place: str) -> bool:
    return place.startswith("[") or is_slot(place)


def pointer_to(place: str) -> Pointer | None:
    """The address of a place; None for a register."""
    if is_slot(place):
        return Pointer("stack", int(place.removeprefix("stack")))
    if not place.startswith("["):
        return None
    inner = place[1:-1]
    sign = max(inner.rfind("+"), inner.rfind("-"))
    return Pointer(inner[:sign], int(inner[sign:], 0))


@dataclass(frozen=True, slots=True)
class Step:
    """One effect of one instruction on one place."""

    address: int
    place: str
    kind: StepKind
    source: str = ""
    value: int = 0
    operator: str = ""
    choices: tuple[int, ...] = ()


class EdgeKind(enum.Enum):
    FALL = "fall"  # no jump: the next block is only a jump's target from elsewhere
    TAKEN = "taken"
    NOT_TAKEN = "not taken"
    JUMP = "jump"
    AFTER_CALL = "after call"
    FAULT = "fault"  # to the exception table's fixup
    KEY = "key"  # a static key's other side, where the running text is not at hand
    TRAP = "trap"  # past a ud2 (WARN returns behind it)


@dataclass(frozen=True, slots=True)
class Test:
    """What is known of `place` when an edge is taken: its value `relation` `value`, both signed.

    relation is one of == != < <= > >= and "error" / "not error" (an unsigned comparison with -4095).
    """

    place: str
    relation: str
    value: int


@dataclass(frozen=True, slots=True)
class Edge:
    target: int
    kind: EdgeKind
    test: Test | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """A call at the end of a block, or a jump that leaves the function (tail)."""

    address: int
    target: int | None  # None: indirect
    tail: bool
    results: tuple[str, ...] = ("rax",)  # places that hold what the callee returns
    clobbers: tuple[str, ...] = ()  # places that it may have changed besides
    # What argument registers point to, in the caller's terms; of "stack", the callee's stack pointer at its entry.
    arguments: tuple[tuple[str, Pointer], ...] = ()


@dataclass(frozen=True, slots=True)
class Block:
    """A straight run of instructions; `[start, end)`."""

    start: int
    end: int
    instructions: int
    last: int  # address of the last instruction: the jump, call or return
    steps: tuple[Step, ...]
    edges: tuple[Edge, ...]
    call: Call | None = None
    returns: bool = False
    interrupts_off: bool = False
    addresses_taken: frozenset[str] = frozenset()  # stack slots whose address is computed here


@dataclass(frozen=True, slots=True)
class FunctionGraph:
    """The control-flow graph of one function, its split-off parts (NAME.cold) included."""

    name: str
    entry: int
    blocks: dict[int, Block]
    undecoded: tuple[int, ...] = field(default=())  # addresses where decoding had to stop
    escaped: frozenset[str] = field(default=frozenset())  # stack slots whose address is taken: callees may write them
    return_place: str = "rax"  # where the function leaves what it returns


# ---- instructions as an execution log shows them: concrete, one after the other ----


class Control(enum.Enum):
    """Where control goes behind an instruction."""

    NEXT = "next"
    CONDITIONAL = "conditional"
    JUMP = "jump"
    CALL = "call"
    RETURN = "return"
    INTERRUPT_RETURN = "interrupt return"
    SYSCALL_RETURN = "system call return"


@dataclass(frozen=True, slots=True)
class Memory:
    """A memory operand: base + index * scale + displacement, registers by full name, "" for none."""

    base: str
    index: str
    scale: int
    displacement: int
    size: int = 8  # bytes
    segment: str = ""  # "gs" or "fs": its base is not in the log, so these addresses are told apart from all others


Operand = str | Memory  # a register by full name, or memory


@dataclass(frozen=True, slots=True)
class Move:
    """One effect of one executed instruction on one operand; `kind` as of a Step (LOAD is a COPY from memory)."""

    to: Operand
    kind: StepKind
    source: Operand | None = None
    value: int = 0
    operator: str = ""
    condition: str = ""  # of a SELECT: the condition's suffix, as in cmovCC
    counter: str = ""  # the register that counts repetitions: at zero nothing is done


@dataclass(frozen=True, slots=True)
class Executed:
    """What one instruction does when it is executed. `target`: of a direct call or jump; `through`: what an indirect
    one takes its target from. `condition`: of a conditional jump, by which flags it is taken ("ne"); "" of others.
    `stack`: bytes by which it moves the stack pointer, a call with its return; None where that is not fixed. `width`:
    bits of the register that its moves set, all from operands of that width; 0 where it is not so."""

    address: int
    following: int
    control: Control
    target: int | None
    moves: tuple[Move, ...]
    through: Operand | None = None
    condition: str = ""
    stack: int | None = 0
    width: int = 0
