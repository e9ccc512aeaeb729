"""Which operand of a machine comparison is which side of a condition in the source.

A condition and the jump made of it agree in what they compare with, and in whether they ask for equality or for an
order. `a < b` and its negation tell the sides apart by that alone; a constant is told by its value.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from profiler.debuginfo.operands import Constant, Memory, Operation, Value, signed
from profiler.debuginfo.operands_source import FLIPPED, RELATIONS, Atom, Expression, Number, without_casts
from profiler.debuginfo.operands_x86 import Comparison, Origin

_CONSTANT_NAME = re.compile(r"[A-Z][A-Z0-9_]*")
_SPLIT_OFF = re.compile(r"\.(?:part|constprop|isra|cold|llvm)\b.*")
_ERRORS_FROM = -4095  # IS_ERR_VALUE(): as unsigned numbers, the last of all
_INDIRECT = ("__x86_indirect", "__SCT__")

ConstantOf = Callable[[Expression], Number | None]


@dataclass(frozen=True, slots=True)
class Bound:
    """An expression that a machine operand is the value of. `sure`: it need not be confirmed by another source."""

    expression: Expression
    value: Value
    bits: int
    signed: bool | None
    sure: bool


@dataclass(frozen=True, slots=True)
class Match:
    """`same`: the operand of the condition, without the `!` before it, holds where the jump's relation does; None
    where only one of several values is told (a switch)."""

    atom: Atom
    bound: tuple[Bound, ...]
    same: bool | None


def matches(atom: Atom, comparison: Comparison, constant: ConstantOf) -> list[Match]:
    """[] where the comparison is not, or may not be, that of the condition's operand; two where either side may be
    either."""
    expression = without_casts(atom.expression)
    if expression.kind == "binary" and expression.operator in RELATIONS:
        return _related(atom, expression, comparison, constant)
    found = _simple(expression, comparison, constant)
    return [Match(atom, *found)] if found is not None else []


def _simple(expression: Expression, comparison: Comparison, constant: ConstantOf) -> _Found | None:
    if expression.kind == "assign":
        assigned, value = expression.parts
        return _truth(assigned, comparison, without_casts(value))
    if expression.kind == "call" and expression.operator in ("IS_ERR", "IS_ERR_VALUE") and expression.parts:
        return _with_constant(expression.parts[0], ">=", Number(_ERRORS_FROM, 64, False), comparison)
    if expression.kind == "binary" and expression.operator == "&":
        return _masked(expression, comparison, constant)
    return _truth(expression, comparison, expression)


def match_switch(expression: Expression, comparison: Comparison) -> Match | None:
    """The value of a switch is compared with one of its cases, or with the last of a table."""
    if not isinstance(comparison.right, Constant) or comparison.masked:
        return None
    plain = _bound(expression, comparison, comparison.left, comparison.left_origin, without_casts(expression))
    return Match(Atom(expression, negated=False), (plain,), None) if plain is not None else None


_Found = tuple[tuple[Bound, ...], bool]


def _truth(named: Expression, comparison: Comparison, value: Expression) -> _Found | None:
    """A value that is tested for not being zero."""
    return _with_constant(named, "!=", Number(0), comparison, value)


def _related(atom: Atom, expression: Expression, comparison: Comparison, constant: ConstantOf) -> list[Match]:
    left, right = expression.parts
    relation = expression.operator
    if _is_constant(left, constant) and not _is_constant(right, constant):
        left, right, relation = right, left, FLIPPED[relation]
    if _is_constant(right, constant):
        found = _with_constant(left, relation, constant(right), comparison)
        return [Match(atom, *found)] if found else []
    if comparison.masked or isinstance(comparison.right, Constant):
        return []
    ways = [_two_values(left, relation, right, comparison)]
    if relation in ("==", "!="):
        ways.append(_two_values(right, relation, left, comparison))
    return [Match(atom, *two) for two in ways if two is not None]


def _is_constant(expression: Expression, constant: ConstantOf) -> bool:
    plain = without_casts(expression)
    return constant(plain) is not None or (plain.kind == "name" and bool(_CONSTANT_NAME.fullmatch(plain.text)))


def _with_constant(
    named: Expression, relation: str, number: Number | None, comparison: Comparison, value: Expression | None = None
) -> _Found | None:
    """`number`: None for a constant that is not known: then the machine's is taken for it."""
    right = comparison.right
    if not isinstance(right, Constant) or comparison.masked:
        return None
    bits, is_signed = comparison.bits, comparison.signed
    kind, bound, sense = _threshold(comparison.relation, _as(right.value, bits, is_signed), is_signed)
    if number is None:
        wanted, _, same = _threshold(relation, 2, is_signed)
        if wanted != kind:
            return None
    else:
        if not -(1 << bits - 1) <= number.value < 1 << bits:
            return None
        wanted, at, same = _threshold(relation, _as(number.value, bits, is_signed), is_signed)
        if (wanted, at) != (kind, bound):
            return None
    found = _bound(named, comparison, comparison.left, comparison.left_origin, without_casts(value or named))
    return ((found,), same == sense) if found is not None else None


def _as(value: int, bits: int, is_signed: bool | None) -> int:
    return signed(value, bits) if is_signed else value & ((1 << bits) - 1)


def _threshold(relation: str, value: int, is_signed: bool | None) -> tuple[str, int, bool]:
    """Relations with a constant as one of two, `==` and `>=`, or the negation (False) of it."""
    if relation in ("==", "!="):
        return "==", value, relation == "=="
    at, sense = (value + 1 if relation in (">", "<=") else value), relation in (">", ">=")
    if is_signed is False and at == 1:  # at least one, of numbers without a sign: not zero
        return "==", 0, not sense
    return ">=", at, sense


def _two_values(left: Expression, relation: str, right: Expression, comparison: Comparison) -> _Found | None:
    """Neither side is a constant. Equality does not tell them apart: then neither is sure."""
    machine = comparison.relation
    if (relation in ("==", "!=")) != (machine in ("==", "!=")):
        return None
    sides = [(comparison.left, comparison.left_origin), (comparison.right, comparison.right_origin)]
    ordered = relation not in ("==", "!=")
    if ordered and (relation in (">", "<=")) != (machine in (">", "<=")):
        machine = FLIPPED[machine]
        sides.reverse()
    bounds = [
        _bound(side, comparison, value, origin, without_casts(side), sure=ordered)
        for side, (value, origin) in zip((left, right), sides, strict=True)
    ]
    known = tuple(bound for bound in bounds if bound is not None)
    return (known, relation == machine) if known else None


def _masked(expression: Expression, comparison: Comparison, constant: ConstantOf) -> _Found | None:
    """`flags & MASK`: the bits as they were tested, moved to where the mask has them."""
    number = constant(expression.parts[1])
    operand, mask, same = comparison.left, 0, comparison.relation == "!="
    if comparison.masked and isinstance(operand, Operation) and comparison.relation in ("==", "!="):
        if not isinstance(operand.right, Constant):
            return None
        mask = operand.right.value
    elif comparison.right == Constant(0) and comparison.signed and comparison.relation in ("<", ">="):
        mask, same = 1 << comparison.bits - 1, comparison.relation == "<"
        operand = Operation("and", operand, Constant(mask))
    else:
        return None
    shift = _shift_between(mask, number, comparison.bits)
    if shift is None:
        return None
    value = Operation("shl", operand, Constant(shift)) if shift else operand
    sure = comparison.left_origin.kind != "computed"
    return (Bound(expression, value, max(comparison.bits + shift, 32), False, sure),), same


def _shift_between(mask: int, number: Number | None, bits: int) -> int | None:
    """How far the tested bits are to be moved: the compiler tests the byte of a mask that has bits in it."""
    if number is None:
        return None
    wanted = number.value & ((1 << max(number.bits, bits)) - 1)
    if wanted & ((1 << bits) - 1) == mask and (not wanted >> bits or number.value < 0):
        return 0
    return next((by for by in range(8, 64, 8) if mask << by == wanted), None)


def _bound(
    named: Expression, comparison: Comparison, value: Value, origin: Origin, source: Expression, *, sure: bool = True
) -> Bound | None:
    """`source`: where the value comes from, by the source: a call's has to come from that function."""
    if source.kind == "call":
        if origin.kind != "call" or not _is_callee(source.operator, origin.callee):
            return None
    elif source.kind == "name":
        telling = comparison.right != Constant(0) and origin.kind == "call"  # x = f(); if (x >= limit)
        sure = sure and (telling or origin.kind in ("memory", "unknown") or isinstance(value, Memory))
    else:
        sure = False
    return Bound(without_casts(named), value, comparison.bits, comparison.signed, sure)


def _is_callee(name: str, callee: str) -> bool:
    """Whether a call in the source may be that call in the code."""
    if "->" in name or "." in name:
        return not callee or callee.startswith(_INDIRECT)
    return _SPLIT_OFF.sub("", callee).strip("_") == name.strip("_")
