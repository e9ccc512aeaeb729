"""What the deciding condition compared: its parts, each with the value it had when the branch was taken.

`plan` says what is to be read, and where; `with_values` makes operands of what was read. Names are those of the debug
info, and of the machine's own comparison where that can only be one part of the condition. What was read has to
give the condition the value by which the branch was taken: otherwise nothing is said.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from profiler.conclude.operand_match import Match, match_switch, matches
from profiler.conclude.operand_words import error_in_words, holds_errors, holds_flags, in_words
from profiler.debuginfo.operands import WORD, Constant, Memory, Register, evaluate, fetch_argument, sources
from profiler.debuginfo.operands_constants import Constants
from profiler.debuginfo.operands_constants import Source as Headers
from profiler.debuginfo.operands_names import resolve
from profiler.debuginfo.operands_source import Expression, Number, atoms, compare, parse
from profiler.debuginfo.operands_source import evaluate as evaluate_source
from profiler.debuginfo.operands_x86 import Code as MachineCode
from profiler.debuginfo.operands_x86 import Comparison, comparison_at
from profiler.debuginfo.variable_types import Kind
from profiler.debuginfo.variables import Variable
from profiler.model import Branch, Operand, SourceLocation

Known = Callable[[Register | Memory], int | None]
_READABLE = (Kind.INTEGER, Kind.BOOLEAN, Kind.POINTER)
_LINES_OF_A_CONDITION = 4
_MOST_FETCHED = 24
_LOWEST, _HIGHEST = 0xFF00_0000_0000_0000, WORD - 4095  # the kernel's addresses, but for those that are errors


class Code(MachineCode, Protocol):
    """What is asked of a kernel's code; profiler.debuginfo.code.KernelCode."""

    def frames(self, address: int) -> tuple[SourceLocation, ...]: ...
    def variables(self, address: int, function: str, names: Collection[str]) -> Mapping[str, Variable]: ...
    def enumerators(self, address: int) -> Mapping[str, int]: ...


@dataclass(frozen=True, slots=True)
class Point:
    """Where a kprobe is to read: `fetch` by name, "v0" → "%ax:u64". `address` is that of the running kernel."""

    address: int
    fetch: dict[str, str]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be read at `address` (as linked), and what it is to be taken for."""

    branch: Branch
    address: int
    condition: Expression
    comparison: Comparison | None
    names: dict[str, Variable]
    matches: tuple[Match, ...]
    constants: Constants = field(repr=False)
    near: bool  # the jump lies on the condition's lines
    function_at: Callable[[int], tuple[str, int, int] | None] = field(repr=False)
    switch: bool = False

    def reads(self) -> list[Register | Memory]:
        """Everything, each once, in an order that does not change: what memory is reached from before it."""
        values = [variable.value for variable in self.names.values()]
        if self.comparison is not None:
            values += [self.comparison.left, self.comparison.right]
        return list(dict.fromkeys(source for value in values for source in sources(value)))

    def points(self, offset: int) -> list[Point]:
        """`offset`: of the running kernel's addresses from those at link time. [] where nothing can be fetched."""
        fetch = {}
        for index, source in enumerate(self.reads()[:_MOST_FETCHED]):
            argument = fetch_argument(source, offset)
            if argument is not None:
                fetch[f"v{index}"] = argument
        return [Point((self.address + offset) & WORD, fetch)] if fetch else []

    def known(self, fetched: Mapping[str, int | None]) -> Known:
        """What one hit of the point told. Behind a pointer out of the kernel a probe reads 0: that is no value."""
        by_source = {source: fetched.get(f"v{index}") for index, source in enumerate(self.reads())}

        def read(source: Register | Memory) -> int | None:
            if isinstance(source, Memory):
                address = evaluate(source.address, read)
                if address is None or not _LOWEST <= address <= _HIGHEST:
                    return None
            return by_source.get(source)

        return read


def plan(code: Code, branch: Branch, jump: int, headers: Headers | None = None) -> Plan | None:
    """`jump`: the link address of the deciding jump. None where the condition is not known, or nothing of it can be
    read."""
    condition = parse(branch.condition) if branch.condition else None
    if condition is None:
        return None
    try:
        comparison = comparison_at(code, jump)
    except LookupError:
        return None
    at = comparison.address if comparison is not None else jump
    constants = Constants(headers, branch.file, code.enumerators(at))
    words = frozenset(re.findall(r"[A-Za-z_]\w*", condition.text))
    names = _named(condition, code.variables(at, branch.function, words), constants)
    switch = (branch.condition or "").startswith("switch")
    fitting = _matches(condition, comparison, names, constants, switch=switch) if comparison is not None else ()
    if not names and not fitting:
        return None
    near = _is_near(branch, (*code.frames(jump), *code.frames(at)))
    return Plan(branch, at, condition, comparison, names, fitting, constants, near, code.function_at, switch)


def _named(condition: Expression, variables: Mapping[str, Variable], constants: Constants) -> dict[str, Variable]:
    found = {}
    for part in condition.walk():
        if part.kind != "name" or part.text in found:
            continue
        variable = resolve(part.text, variables, constants.body)
        if variable is not None and variable.typed.kind in _READABLE and 0 < variable.typed.size <= 8:
            found[part.text] = variable
    return found


def _matches(
    condition: Expression,
    comparison: Comparison,
    names: Mapping[str, Variable],
    constants: Constants,
    *,
    switch: bool,
) -> tuple[Match, ...]:
    def constant(expression: Expression) -> Number | None:
        return evaluate_source(
            expression, lambda e: constants.number(e.text) if e.kind == "name" and e.text not in names else None
        )

    if switch:
        found = match_switch(condition, comparison)
        return (found,) if found is not None else ()
    return tuple(found for atom in atoms(condition) for found in matches(atom, comparison, constant))


def _is_near(branch: Branch, frames: Iterable[SourceLocation]) -> bool:
    return any(
        frame.function == branch.function and abs(frame.line - branch.line) <= _LINES_OF_A_CONDITION for frame in frames
    )


# ---- what was read ----


@dataclass(frozen=True, slots=True)
class _Part:
    """An expression of the condition and its value. `boolean` and `pointer`: by its type."""

    expression: Expression
    number: Number
    boolean: bool = False
    pointer: bool = False


@dataclass(frozen=True, slots=True)
class _Reading:
    parts: tuple[_Part, ...]
    settled: bool  # what was read gives the condition its value


def with_values(planned: Plan, hits: Iterable[Known], offset: int = 0) -> Branch:
    """The branch with operands, as most of the hits that fit its outcome have them; as it was where none does.

    `offset`: as of `Plan.points`, to name functions that pointers lead to.
    """
    readings = [reading for hit in hits if (reading := _read(planned, hit)) is not None]
    if any(reading.settled for reading in readings):
        readings = [reading for reading in readings if reading.settled]
    if not readings:
        return planned.branch
    most = max(len(reading.parts) for reading in readings)  # what has no memory of the time tells less
    readings = [reading for reading in readings if len(reading.parts) == most]
    chosen, _ = max(Counter(reversed(readings)).items(), key=lambda counted: counted[1])
    words = {part.expression.text: _words(planned, part, offset) for part in chosen.parts}
    operands = [Operand(text, words[text], part.number.value) for text, part in zip(words, chosen.parts, strict=True)]
    return replace(planned.branch, operands=operands, values=_values(planned, words))


def _read(planned: Plan, known: Known) -> _Reading | None:
    """None where a hit tells nothing, or is of another decision."""
    numbers = _numbers(planned, known)
    told, truths = _by_machine(planned, known, numbers)

    def lookup(expression: Expression) -> Number | None:
        if (truth := truths.get(expression)) is not None:
            return Number(int(truth))
        if expression.text in told:
            return told[expression.text].number
        return _number_or_constant(planned, numbers, expression)

    outcome = planned.branch.outcome
    whole = None if planned.switch else evaluate_source(planned.condition, lookup)
    if outcome is not None and whole is not None and bool(whole.value) != outcome:
        return None
    settled = whole is not None and outcome is not None
    if not settled and not planned.near and not told:
        return None
    parts = tuple(_parts(planned, numbers, told))
    return _Reading(parts, settled or bool(told)) if parts else None


def _numbers(planned: Plan, known: Known) -> dict[str, Number]:
    """The variables, by name."""
    found = {}
    for name, variable in planned.names.items():
        word = evaluate(variable.value, known)
        if word is not None:
            found[name] = Number.of(word, 8 * variable.typed.size, variable.typed.signed)
    return found


def _number_or_constant(planned: Plan, numbers: Mapping[str, Number], expression: Expression) -> Number | None:
    if expression.kind != "name":
        return None
    found = numbers.get(expression.text)
    if found is not None or expression.text in planned.names:
        return found
    return planned.constants.number(expression.text)


def _by_machine(
    planned: Plan, known: Known, numbers: Mapping[str, Number]
) -> tuple[dict[str, _Part], dict[Expression, bool]]:
    """What the machine's comparison tells: values by the text they belong to, and the truth of parts of the
    condition. Nothing where more than one part may be meant."""
    fits = []
    for found in planned.matches:
        checked = _checked(planned, found, known, numbers)
        if checked is not None:
            fits.append((found, *checked))
    confirmed = [fit for fit in fits if fit[2]]
    chosen = confirmed or fits
    conditions = {found.atom.expression for found, _, _ in chosen}
    if not confirmed and (not planned.near or len(conditions) != 1):
        return {}, {}
    told = {part.expression.text: part for _, parts, _ in chosen for part in parts}
    truths: dict[Expression, bool] = {}
    if len(conditions) == 1 and chosen[0][0].same is not None and planned.comparison is not None:
        holds = _holds(planned.comparison, known)
        if holds is not None:
            truths[chosen[0][0].atom.expression] = holds == chosen[0][0].same
    return told, truths


def _checked(
    planned: Plan, found: Match, known: Known, numbers: Mapping[str, Number]
) -> tuple[list[_Part], bool] | None:
    """The values that a match gives, and whether the debug info says the same of one of them; None where it says
    another."""
    parts, confirmed, sure = [], False, True
    for bound in found.bound:
        word = evaluate(bound.value, known)
        other = evaluate_source(bound.expression, lambda e: _number_or_constant(planned, numbers, e))
        mask = (1 << bound.bits) - 1
        if word is not None and other is not None:
            if word & mask != other.value & mask:
                return None
            confirmed = True
        elif word is not None:
            sure = sure and (bound.sure or _are_equal(planned, known))
        if word is not None:
            number = other or Number.of(word, bound.bits, _is_signed(bound.signed, bound.bits))
            boolean = bound.bits == 8 and bound.expression.kind == "call"
            parts.append(_Part(bound.expression, number, boolean))
    return (parts, confirmed) if parts and (confirmed or sure) else None


def _is_signed(told: bool | None, bits: int) -> bool:
    """Where the comparison does not tell: narrower numbers and whole words are taken to have no sign."""
    return told if told is not None else bits == 32


def _are_equal(planned: Plan, known: Known) -> bool:
    if planned.comparison is None or isinstance(planned.comparison.right, Constant):
        return False
    left, right = (evaluate(v, known) for v in (planned.comparison.left, planned.comparison.right))
    return left is not None and left == right


def _holds(comparison: Comparison, known: Known) -> bool | None:
    left, right = evaluate(comparison.left, known), evaluate(comparison.right, known)
    if left is None or right is None:
        return None
    is_signed = bool(comparison.signed)
    a, b = (Number.of(word, comparison.bits, is_signed).value for word in (left, right))
    return compare(comparison.relation, a, b)


def _parts(planned: Plan, numbers: Mapping[str, Number], told: Mapping[str, _Part]) -> Iterable[_Part]:
    """In the order of the source, each once; of what a call is given no addresses."""
    seen: set[str] = set()
    for part, given in _compared(planned.condition, given=False):
        if part.text in seen:
            continue
        variable = planned.names.get(part.text) if part.kind == "name" else None
        if variable is not None and part.text in numbers:
            pointer = variable.typed.kind == Kind.POINTER
            if not (pointer and given):
                seen.add(part.text)
                yield _Part(part, numbers[part.text], variable.typed.kind == Kind.BOOLEAN, pointer)
        elif part.text in told and (part.kind == "call" or not any(inner.text in numbers for inner in part.parts)):
            seen.add(part.text)
            yield replace(told[part.text], expression=part)


def _compared(expression: Expression, *, given: bool) -> Iterable[tuple[Expression, bool]]:
    """All within an expression, but for what only its address is taken of; with whether it is given to a call."""
    yield expression, given
    if expression.kind == "other" or (expression.kind == "name" and expression.operator == "*"):
        return
    for part in expression.parts:
        yield from _compared(part, given=given or expression.kind == "call")


# ---- in words ----


def _words(planned: Plan, part: _Part, offset: int) -> str:
    number = part.number
    if part.pointer and (called := planned.function_at((number.value - offset) & WORD)) is not None:
        name, start, _ = called
        return name if start == (number.value - offset) & WORD else in_words(number.value, number.bits, pointer=True)
    if not part.boolean and not part.pointer and holds_errors(part.expression):
        error = error_in_words(number.value, number.bits)
        if error is not None:
            return error
    flags = holds_flags(part.expression, planned.condition)
    return in_words(number.value, number.bits, pointer=part.pointer, boolean=part.boolean, flags=flags)


def _values(planned: Plan, values: Mapping[str, str]) -> str:
    """The condition, with the value behind each part that it is known of."""
    condition, text = planned.condition, planned.branch.condition or ""
    words = {**values, **_constants_in_words(planned)}
    inserted: list[tuple[int, str]] = []
    for part, _ in _compared(condition, given=False):
        if part.text in words:
            inserted.append((part.end, f" ({words[part.text]})"))
            if part.kind not in ("name", "call"):
                inserted += [(part.start, "("), (part.end, ")")]
    made, at = "", condition.start
    for place, what in sorted(inserted, key=lambda one: (one[0], one[1] != ")")):
        made += text[at:place] + what
        at = place
    whole = text[condition.start : condition.end].strip()
    return f"{whole} = {words[whole]}" if whole in words else (made + text[at : condition.end]).strip()


def _constants_in_words(planned: Plan) -> dict[str, str]:
    """Of the names of constants that something is compared with."""
    found = {}
    for part in planned.condition.walk():
        if part.kind == "binary" and part.operator in ("==", "!=", "<", ">", "<=", ">="):
            for side in part.parts:
                number = planned.constants.number(side.text) if _is_constant(planned, side) else None
                if number is not None:
                    found[side.text] = str(number.value)
    return found


def _is_constant(planned: Plan, side: Expression) -> bool:
    return side.kind == "name" and side.text.isidentifier() and side.text.isupper() and side.text not in planned.names


__all__ = ["Code", "Known", "Plan", "Point", "plan", "with_values"]
