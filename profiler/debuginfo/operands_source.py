"""A condition of C source as a tree, and its value where the values of its parts are known.

Arithmetic is C's for the types of an LP64 machine: C11 6.3.1.8 (the usual conversions), 6.5.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import tree_sitter

from profiler.debuginfo.c_text import fold, parseable
from profiler.debuginfo.flow_builder import LANGUAGE
from profiler.debuginfo.flow_expressions import FALSE_WORDS, TRANSPARENT, TRUE_WORDS
from profiler.debuginfo.operands import signed

if TYPE_CHECKING:
    from tree_sitter import Node

RELATIONS = ("==", "!=", "<", ">", "<=", ">=")
OPPOSITE = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
FLIPPED = {"==": "==", "!=": "!=", "<": ">", ">": "<", "<=": ">=", ">=": "<="}
_NUMBER = re.compile(r"(-?)(0[xX][0-9a-fA-F]+|0[bB][01]+|\d+)([uUlL]*)$")
_HEAD = "int f(void){return "
_LONGEST = 2000  # characters; a longer condition is a macro's doing
_TYPES = {
    **dict.fromkeys(["int", "s32", "__s32", "int32_t", "pid_t"], (32, True)),
    **dict.fromkeys(["unsigned", "unsigned int", "u32", "__u32", "uint32_t", "gfp_t"], (32, False)),
    **dict.fromkeys(["long", "ssize_t", "s64", "__s64", "loff_t", "long long", "int64_t"], (64, True)),
    **dict.fromkeys(["unsigned long", "size_t", "u64", "__u64", "unsigned long long", "uint64_t"], (64, False)),
    **dict.fromkeys(["unsigned char", "u8", "__u8"], (8, False)),
    **dict.fromkeys(["unsigned short", "u16", "__u16"], (16, False)),
}
POINTER_BITS = 64


@dataclass(frozen=True, slots=True)
class Number:
    """A value and its type."""

    value: int
    bits: int = 32
    signed: bool = True

    @classmethod
    def of(cls, word: int, bits: int, is_signed: bool) -> Number:
        value = signed(word, bits) if is_signed else word & ((1 << bits) - 1)
        return cls(value, bits, is_signed)


@dataclass(frozen=True, slots=True)
class Expression:
    """kind: name (a variable or what is reached from it: `sk->sk_err`), number, call, unary, binary, cast,
    conditional, assign, other. `text` is the source's; `start` and `end` lie in the whole condition's."""

    kind: str
    text: str
    start: int
    end: int
    operator: str = ""  # of unary, binary; of a call the function, of a cast the type
    parts: tuple[Expression, ...] = ()

    def walk(self) -> Iterator[Expression]:
        yield self
        for part in self.parts:
            yield from part.walk()


@dataclass(frozen=True, slots=True)
class Atom:
    """An operand of && and ||, with whether it stands behind an odd number of `!`."""

    expression: Expression
    negated: bool


Lookup = Callable[[Expression], Number | None]


def parse(condition: str) -> Expression | None:
    """None where it is no expression of C's."""
    text = condition
    if found := re.fullmatch(r"switch\s*(\(.*\))", condition):
        text = " " * (len(condition) - len(found[1])) + found[1]
    if len(text) > _LONGEST:
        return None
    tree = tree_sitter.Parser(LANGUAGE).parse((_HEAD + parseable(text) + ";}").encode())
    body = tree.root_node.named_children
    if not body or tree.root_node.has_error:
        return None
    statement = body[0].named_children[-1].named_children[0]
    if statement.type != "return_statement" or len(statement.named_children) != 1:
        return None
    return _expression(statement.named_children[0], condition)


def _expression(node: Node, condition: str) -> Expression:
    while node.type == "parenthesized_expression" and len(node.named_children) == 1:
        node = node.named_children[0]
    start, end = node.start_byte - len(_HEAD), node.end_byte - len(_HEAD)
    text = fold(condition[start:end])
    kind, operator, parts = _taken_apart(node, condition)
    if kind == "call" and operator in TRANSPARENT and parts:
        return parts[0]
    return Expression(kind, text, start, end, operator, parts)


def _taken_apart(node: Node, condition: str) -> tuple[str, str, tuple[Expression, ...]]:
    field = node.child_by_field_name

    def inner(*names: str) -> tuple[Expression, ...]:
        return tuple(_expression(child, condition) for name in names if (child := field(name)) is not None)

    operator = field("operator")
    if node.type in ("identifier", "true", "false", "null"):
        return "name", "", ()
    if node.type in ("field_expression", "subscript_expression"):
        return "name", "", ()
    if node.type == "number_literal":
        return "number", "", ()
    if node.type == "binary_expression" and operator is not None:
        return "binary", operator.type, inner("left", "right")
    if node.type == "unary_expression" and operator is not None:
        return "unary", operator.type, inner("argument")
    if node.type == "pointer_expression" and operator is not None:
        return ("name" if operator.type == "*" else "other"), operator.type, inner("argument")
    if node.type == "cast_expression":
        return "cast", _text(field("type"), condition), inner("value")
    if node.type == "conditional_expression":
        return "conditional", "", inner("condition", "consequence", "alternative")
    if node.type == "assignment_expression" and operator is not None and operator.type == "=":
        return "assign", "", inner("left", "right")
    if node.type == "call_expression":
        arguments = field("arguments")
        given = tuple(_expression(child, condition) for child in arguments.named_children) if arguments else ()
        return "call", _text(field("function"), condition), given
    return "other", "", ()


def _text(node: Node | None, condition: str) -> str:
    return fold(condition[node.start_byte - len(_HEAD) : node.end_byte - len(_HEAD)]) if node is not None else ""


def atoms(expression: Expression, *, negated: bool = False) -> Iterator[Atom]:
    """The operands of its && and ||, in their order."""
    if expression.kind == "unary" and expression.operator == "!":
        yield from atoms(expression.parts[0], negated=not negated)
    elif expression.kind == "binary" and expression.operator in ("&&", "||"):
        for part in expression.parts:
            yield from atoms(part, negated=negated)
    else:
        yield Atom(expression, negated)


def without_casts(expression: Expression) -> Expression:
    while expression.kind == "cast" and expression.parts:
        expression = expression.parts[0]
    return expression


# ---- values ----


def number_of(text: str) -> Number | None:
    """Of a literal: C11 6.4.4.1."""
    found = _NUMBER.match(text)
    if found is None:
        return None
    digits, suffix = found[2], found[3].lower()
    octal = digits[0] == "0" and digits.isdigit() and len(digits) > 1
    value = int(digits, 8) if octal else int(digits, 0)
    wide = "l" in suffix or value >> 32 or (value >> 31 and digits.isdigit() and not octal and "u" not in suffix)
    bits = 64 if wide else 32
    is_signed = "u" not in suffix and not value >> (bits - 1)
    return Number.of(-value if found[1] else value, bits, is_signed)  # the grammar takes the sign with it


def evaluate(expression: Expression, lookup: Lookup) -> Number | None:
    """None where it depends on what is not known. `lookup` gives what names and calls stand for."""
    kind, parts = expression.kind, expression.parts
    if (found := lookup(expression)) is not None:
        return found
    if kind == "number":
        return number_of(expression.text)
    if kind == "name" and expression.text in (*TRUE_WORDS, *FALSE_WORDS, "NULL"):
        return Number(int(expression.text in TRUE_WORDS))
    if kind == "cast":
        inner = evaluate(parts[0], lookup) if parts else None
        return _converted(inner, expression.operator) if inner is not None else None
    if kind == "unary" and parts:
        return _unary(expression.operator, evaluate(parts[0], lookup))
    if kind == "assign":
        return evaluate(parts[1], lookup)
    if kind == "conditional" and len(parts) > 2:
        chosen = evaluate(parts[0], lookup)
        return None if chosen is None else evaluate(parts[1 if chosen.value else 2], lookup)
    if kind == "binary":
        left, right = evaluate(parts[0], lookup), evaluate(parts[1], lookup)
        if expression.operator in ("&&", "||"):
            return _short_circuit(expression.operator, left, right)
        return _binary(expression.operator, left, right) if left is not None and right is not None else None
    return None


def _converted(number: Number, to: str) -> Number:
    """A type that is not known here is taken to hold the value as it is."""
    bits, is_signed = _TYPES.get(to, (POINTER_BITS, False) if "*" in to else (number.bits, number.signed))
    return Number.of(number.value, bits, is_signed)


def _short_circuit(operator: str, left: Number | None, right: Number | None) -> Number | None:
    settles = operator == "||"
    if any(side is not None and bool(side.value) == settles for side in (left, right)):
        return Number(int(settles))
    return None if left is None or right is None else Number(int(not settles))


def _unary(operator: str, inner: Number | None) -> Number | None:
    if inner is None:
        return None
    if operator == "!":
        return Number(int(not inner.value))
    inner = _promoted(inner)
    if operator in ("-", "~", "+"):
        value = {"-": -inner.value, "~": ~inner.value, "+": inner.value}[operator]
        return Number.of(value, inner.bits, inner.signed)
    return None


def _promoted(number: Number) -> Number:
    return number if number.bits >= 32 else Number(number.value)


def _binary(operator: str, left: Number, right: Number) -> Number | None:
    left, right = _promoted(left), _promoted(right)
    if operator in ("<<", ">>"):
        by = right.value
        if not 0 <= by < left.bits:
            return None
        return Number.of(left.value << by if operator == "<<" else left.value >> by, left.bits, left.signed)
    bits = max(left.bits, right.bits)
    is_signed = not any(not side.signed and side.bits == bits for side in (left, right))
    a, b = Number.of(left.value, bits, is_signed).value, Number.of(right.value, bits, is_signed).value
    if operator in RELATIONS:
        return Number(int(compare(operator, a, b)))
    arithmetic: dict[str, Callable[[], int]] = {
        "+": lambda: a + b,
        "-": lambda: a - b,
        "*": lambda: a * b,
        "&": lambda: a & b,
        "|": lambda: a | b,
        "^": lambda: a ^ b,
    }
    if operator in ("/", "%") and b:
        quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        return Number.of(quotient if operator == "/" else a - b * quotient, bits, is_signed)
    return Number.of(arithmetic[operator](), bits, is_signed) if operator in arithmetic else None


def compare(relation: str, left: int, right: int) -> bool:
    return {
        "==": left == right,
        "!=": left != right,
        "<": left < right,
        ">": left > right,
        "<=": left <= right,
        ">=": left >= right,
    }[relation]
