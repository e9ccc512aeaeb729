"""Where a returned value comes from: tracked backwards through a block, one state at a time.

A state says where the value that will be returned is kept at a point of the program (`Held`), or, once
its origin has been met on the way back, what that origin is (`Origin`). Arithmetic met on the way is kept
with the place and applied when a constant is found, so that `sbb; and`, `neg`, `or` need no special case.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from profiler.graph import Block, Edge, FunctionGraph, Step, StepKind, Test
from profiler.infer.passing import BY_POINTERS, Names

RETURN_PLACE = "rax"  # of graphs made from source
_MOST_PENDING = 6  # operations kept with a place; the longest idiom of compilers has three


class OriginKind(enum.Enum):
    CONSTANT = "constant"
    FLAGS = "flags"  # arithmetic on flags, no jump: sbb, setcc
    CALL = "call"  # what a callee returned
    MEMORY = "memory"
    ARGUMENT = "argument"  # held by the caller already
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the errno entered. For a call, `address` is the start of the block that makes it.

    `place`: of a call, where the callee left the value, in the callee's terms, "" for what it returned; of
    memory, where it was read from, "" where that has no name.
    """

    kind: OriginKind
    address: int
    place: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """The value is in `place`, and `pending` operations (operator, operand) will be applied to it, in order.

    `read`: of memory that an instruction of the function will read, the instruction.
    """

    place: str
    pending: tuple[tuple[str, int], ...] = ()
    read: int = 0


@dataclass(frozen=True, slots=True)
class Other:
    """The walk returns something else than the errno."""


OTHER = Other()
State = Held | Origin | Other


@dataclass(frozen=True, slots=True)
class Priors:
    """Log-probabilities that a value of unseen origin is just the errno sought."""

    memory: float = -3.0
    elsewhere: float = -6.0  # memory was written by who is not seen to have its address
    unknown: float = -4.0
    argument: float = -4.0


@dataclass(frozen=True, slots=True)
class CallValue:
    """What a callee returns: log-probability of the errno, and of anything else.

    `passed`: what the callee only passed on, places in its own terms as they were at its entry.
    """

    errno: float
    other: float
    passed: tuple[tuple[Held, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Slicer:
    """Tracks the value `-errno` backwards. `call_value` tells of the call that ends a block; `left_in` what it leaves
    in memory, named as in the callee, None where it does not touch it. `wanted`: the memory asked for at the exit."""

    graph: FunctionGraph
    errno: int
    call_value: Callable[[Block], CallValue]
    priors: Priors = Priors()
    left_in: Callable[[Block, str], CallValue | None] = lambda _block, _place: None
    wanted: str = ""
    names: Names = BY_POINTERS
    doubts: bool = True  # whether memory may have been written by someone who is not seen to

    @property
    def certain(self) -> Slicer:
        """Takes what it sees for all there is, as is right where one walk is compared with another."""
        return replace(self, doubts=False) if self.doubts else self

    def at_exit(self, block: Block) -> list[tuple[State, float]]:
        """States at the start of a block through which the function is left."""
        held = self.asked
        if block.call is None or not block.call.tail:
            return list(self._through_steps(block, held))
        return self._past_memory(block, held) if self.wanted else self._from_callee(block, held, "")

    def through(self, block: Block, state: State) -> list[tuple[State, float]]:
        """States at the start of `block` that end it in `state`, with log-factors."""
        if not isinstance(state, Held):
            return [(state, 0.0)]
        if block.call is not None and not block.call.tail:
            if state.place in block.call.results:
                return self._from_callee(block, state, "")
            if state.place in block.call.clobbers:
                return self._unseen(OriginKind.UNKNOWN, block.call.address, self.priors.unknown)
            return self._past_memory(block, state)
        return list(self._through_steps(block, state))

    def _past_memory(self, block: Block, state: Held) -> list[tuple[State, float]]:
        """Before a call whose callee may write the memory that holds the value."""
        assert block.call is not None
        names = self.names.in_callee(block.call, state.place)
        for name in names:
            if self.left_in(block, name) is not None:
                return self._from_callee(block, state, name)
        before = list(self._through_steps(block, state))
        if self.doubts and state.place in self.graph.escaped and not names:
            return before + self._unseen(OriginKind.MEMORY, block.call.address, self.priors.elsewhere)
        return before

    def _from_callee(self, block: Block, state: Held, place: str) -> list[tuple[State, float]]:
        """`place`: where the callee has it, "" for its return value."""
        value = self.left_in(block, place) if place else self.call_value(block)
        assert value is not None
        found: list[tuple[State, float]] = [(OTHER, value.other)]
        if state.pending and state.read:  # an error kept as a positive number, as in sk->sk_err
            found += [(Origin(OriginKind.MEMORY, state.read, state.place), self.priors.memory), (OTHER, 0.0)]
        elif state.pending:
            found += self._unseen(OriginKind.UNKNOWN, block.last, self.priors.unknown)
        else:
            found.append((Origin(OriginKind.CALL, block.start, place), value.errno))
        for held, weight in value.passed:
            before = self._given(block, held, place, state)
            if before is None:
                found.append((OTHER, weight))
            else:
                found += [(found, weight + factor) for found, factor in self._through_steps(block, before)]
        return found

    def _given(self, block: Block, held: Held, asked: str, state: Held) -> Held | None:
        """What a callee had at its entry, in the caller's terms."""
        assert block.call is not None
        if held == Held(asked):
            return state
        place = self.names.in_caller(block.call, held.place)
        pending = (*held.pending, *state.pending)
        if not place or len(pending) > _MOST_PENDING:
            return None
        return Held(place, pending)

    def _through_steps(self, block: Block, state: Held) -> Iterator[tuple[State, float]]:
        states: list[tuple[Held, float]] = [(state, 0.0)]
        for step in reversed(block.steps):
            following: list[tuple[Held, float]] = []
            for held, weight in states:
                if step.place != held.place:
                    following.append((held, weight))
                    continue
                for result, factor in self._through_step(step, held):
                    if isinstance(result, Held):
                        following.append((result, weight + factor))
                    else:
                        yield result, weight + factor
            states = following
        yield from states

    def _through_step(self, step: Step, held: Held) -> list[tuple[State, float]]:
        if step.kind == StepKind.COPY:
            moved_to = _moved(held, step)
            if not (moved_to.read and self.doubts):
                return [(moved_to, 0.0)]
            return [(moved_to, 0.0), (Origin(OriginKind.MEMORY, moved_to.read, moved_to.place), self.priors.elsewhere)]
        if step.kind == StepKind.SELECT:
            moved: list[tuple[State, float]] = (
                self._unseen(OriginKind.MEMORY, step.address, self.priors.memory)
                if step.source == "memory"
                else [(_moved(held, step), 0.0)]
            )
            return [(held, 0.0), *moved]
        if step.kind == StepKind.OPERATE and len(held.pending) < _MOST_PENDING:
            return [(replace(held, pending=((step.operator, step.value), *held.pending)), 0.0)]
        if step.kind == StepKind.CONST:
            found = self._is_errno(step.value, held)
            return [(Origin(OriginKind.CONSTANT, step.address) if found else OTHER, 0.0)]
        if step.kind == StepKind.FLAGS:
            return self._from_flags(step, held)
        if step.kind == StepKind.LOAD:
            return self._unseen(OriginKind.MEMORY, step.address, self.priors.memory)
        return self._unseen(OriginKind.UNKNOWN, step.address, self.priors.unknown)

    def _from_flags(self, step: Step, held: Held) -> list[tuple[State, float]]:
        outcomes = [self._is_errno(choice, held) for choice in step.choices]
        states: list[tuple[State, float]] = []
        if any(outcomes):
            states.append((Origin(OriginKind.FLAGS, step.address), 0.0))
        if not all(outcomes):
            states.append((OTHER, 0.0))
        return states

    def _is_errno(self, value: int, held: Held) -> bool:
        return signed32(apply(held.pending, value)) == -self.errno

    @staticmethod
    def _unseen(kind: OriginKind, address: int, weight: float) -> list[tuple[State, float]]:
        return [(Origin(kind, address), weight), (OTHER, 0.0)]

    def allows(self, edge: Edge, state: State) -> bool:
        """Whether an edge can be taken while the value, in `state` behind it, is the errno."""
        test = edge.test
        if test is None or not isinstance(state, Held) or state.place != test.place or state.pending:
            return True
        return holds(test, -self.errno)

    def resolve(self, blocks: list[Block], state: State) -> set[State]:
        """What a state behind the last of `blocks`, a walk given first to last, turns out to be at its start."""
        certain = self.certain
        states: set[State] = {state}
        for block in reversed(blocks):
            if not any(isinstance(state, Held) for state in states):
                break  # walks seen as they ran are thousands of blocks long
            states = {found for state in states for found, _ in certain.through(block, state)}
        return {self._before(s, blocks[0].start) if isinstance(s, Held) else s for s in states}

    def _before(self, held: Held, start: int) -> Origin:
        if held.read:
            return Origin(OriginKind.MEMORY, held.read, held.place)
        return Origin(OriginKind.ARGUMENT, start)

    @property
    def asked(self) -> Held:
        """The state at the exit."""
        return Held(self.wanted or self.graph.return_place)

    def at_entry(self, held: Held) -> Origin | None:
        """The origin of what was there before the function began; None of memory that it only left alone."""
        if held.read:
            return Origin(OriginKind.MEMORY, held.read, held.place)
        if held.place.startswith("[") or (self.wanted and held == self.asked):
            return None
        # An argument, or a register nobody set.
        return Origin(OriginKind.ARGUMENT, self.graph.entry)

    def prior_of(self, origin: Origin) -> float:
        """Log-probability that what was there before the function began is the errno."""
        return self.priors.memory if origin.kind == OriginKind.MEMORY else self.priors.argument

    def constant_of(self, blocks: list[Block], place: str) -> int | None:
        """The constant that `place` holds behind the steps of the last of `blocks`; None where it is not known to."""
        held = Held(place)
        for index in range(len(blocks) - 1, -1, -1):
            block = blocks[index]
            if index < len(blocks) - 1 and block.call is not None and not block.call.tail:
                given_away = held.place.startswith("[")
                given_away |= bool(self.names.in_callee(block.call, held.place))
                given_away |= any(held.place in earlier.addresses_taken for earlier in blocks[: index + 1])
                if given_away or held.place in (*block.call.results, *block.call.clobbers):
                    return None
            for step in reversed(block.steps):
                if step.place != held.place:
                    continue
                if step.kind == StepKind.CONST:
                    return signed32(apply(held.pending, step.value))
                if step.kind == StepKind.COPY:
                    held = replace(held, place=step.source)
                elif step.kind == StepKind.OPERATE and len(held.pending) < _MOST_PENDING:
                    held = replace(held, pending=((step.operator, step.value), *held.pending))
                else:
                    return None
        return None

    def values_of(self, blocks: list[Block], place: str) -> set[State]:
        """Where `place` got its value, behind the last of `blocks`; a call that ends that block aside."""
        states = {state for state, _ in self.certain._through_steps(blocks[-1], Held(place))}
        return {found for state in states for found in self.resolve(blocks[:-1], state)} if blocks[:-1] else states

    def choices(self, block: Block, behind: State | None, before: list[Block]) -> Iterator[tuple[Step, list[State]]]:
        """Steps of `block` that choose the value by the flags, last first: each with what its sides come to.

        `behind`: the state at the block's end, None at an exit; `before`: the walk up to the block.
        """
        held = self.asked if behind is None else behind
        if not isinstance(held, Held) or (block.call and not block.call.tail and held.place in block.call.results):
            return
        states: list[Held] = [held]
        for index in range(len(block.steps) - 1, -1, -1):
            step = block.steps[index]
            following: list[Held] = []
            for state in states:
                if step.place != state.place:
                    following.append(state)
                    continue
                sides = [side for side, _ in self.certain._through_step(step, state)]
                if step.kind in (StepKind.SELECT, StepKind.FLAGS):
                    yield step, [end for side in sides for end in self._finish(block, index, before, side)]
                following += [side for side in sides if isinstance(side, Held)]
            states = following

    def _finish(self, block: Block, index: int, before: list[Block], state: State) -> set[State]:
        """Resolves a state in the middle of a block: through its first `index` steps, then through `before`."""
        if not isinstance(state, Held):
            return {state}
        head = replace(block, steps=block.steps[:index], call=None)
        return self.resolve([*before, head], state)


def _moved(held: Held, step: Step) -> Held:
    """Behind a step that copied the value: where it came from."""
    return Held(step.source, held.pending, step.address if step.source.startswith("[") else 0)


def holds(test: Test, value: int) -> bool:
    """Whether `value` passes the test."""
    return {
        "==": value == test.value,
        "!=": value != test.value,
        "<": value < test.value,
        "<=": value <= test.value,
        ">": value > test.value,
        ">=": value >= test.value,
        "error": -4095 <= value < 0,
        "not error": not -4095 <= value < 0,
    }[test.relation]


def apply(pending: tuple[tuple[str, int], ...], value: int) -> int:
    """The value after the pending operations, in 64-bit two's complement."""
    mask = (1 << 64) - 1
    for operator, operand in pending:
        value = _OPERATIONS[operator](value & mask, operand & mask) & mask
    return value


_OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "shl": lambda a, b: a << (b & 63),
    "shr": lambda a, b: a >> (b & 63),
    "sar": lambda a, b: (a - (1 << 64) if a >> 63 else a) >> (b & 63),
    "shr32": lambda a, b: (a & 0xFFFFFFFF) >> (b & 31),
    "sar32": lambda a, b: signed32(a) >> (b & 31),
    "neg": lambda a, _: -a,
    "not": lambda a, _: ~a,
}


def signed32(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value
