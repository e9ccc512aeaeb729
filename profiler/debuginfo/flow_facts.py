"""What a piece of syntax says: its text, the functions it calls, what it assigns, the errnos it names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from profiler.debuginfo.c_text import fold
from profiler.debuginfo.source_flow import ERRNO_NAMES, Assignment, Value

if TYPE_CHECKING:
    from tree_sitter import Node

COMPARISONS = frozenset(["==", "!=", "<", ">", "<=", ">="])
NAMES = frozenset(["identifier", "field_identifier", "type_identifier"])


@dataclass(frozen=True, slots=True)
class Seen:
    """What lies anywhere within a piece of syntax, ({ ... }) left out: that has nodes of its own."""

    assigns: tuple[Assignment, ...]
    errnos: tuple[str, ...]
    compared: tuple[str, ...]
    calls: tuple[str, ...]


class Facts:
    """`base` + a byte offset of the syntax tree = an offset into `code` (a file's text without comments)."""

    def __init__(self, code: str, base: int) -> None:
        self.code = code
        self.base = base

    def text(self, syntax: Node) -> str:
        return self.text_between(syntax.start_byte, syntax.end_byte)

    def text_between(self, start: int, end: int) -> str:
        return fold(self.code[self.base + start : self.base + end])

    def word_at(self, offset: int) -> str:
        """The word in the original text, where masking may have put another."""
        end = offset
        while self.code[self.base + end].isalnum() or self.code[self.base + end] == "_":
            end += 1
        return self.code[self.base + offset : self.base + end]

    def seen(self, syntax: Node) -> Seen:
        assigns: list[Assignment] = []
        errnos: list[str] = []
        compared: list[str] = []
        calls: list[str] = []
        for node, is_compared in _walk(syntax, compared=False):
            if node.type == "identifier":
                name = self.text(node)
                if name in ERRNO_NAMES:
                    (compared if is_compared else errnos).append(name)
            elif node.type == "call_expression":
                name = call_name(node, self) or ""
                if name:
                    calls.append(name)
                assigns.extend(self._by_address(node))
            else:
                assigns.extend(self._assignments(node))
        unique = (tuple(dict.fromkeys(names)) for names in (errnos, compared, calls))
        return Seen(tuple(assigns), *unique)

    def value(self, expression: Node, constant: str | None = None) -> Value:
        """`constant`: the number that stands for it, where `a && b` was taken apart."""
        if constant is not None:
            return Value(constant)
        seen = self.seen(expression)
        return Value(self.text(expression), seen.errnos, seen.calls)

    def assignment(self, target: Node, operator: str, value: Node, constant: str | None = None) -> Assignment:
        return Assignment(self.text(_declared(target)), operator, self.value(value, constant))

    def names(self, syntax: Node) -> set[str]:
        """Identifiers that are arguments of a call."""
        found: set[str] = set()
        for node, _ in _walk(syntax, compared=False):
            if node.type == "argument_list":
                found |= {self.text(child) for child in node.named_children if child.type == "identifier"}
        return found

    def labels(self, body: Node) -> Iterator[str]:
        waiting = [body]
        while waiting:
            node = waiting.pop()
            if node.type == "labeled_statement":
                label = node.child_by_field_name("label")
                if label is not None:
                    yield self.text(label)
            waiting.extend(node.named_children)

    def statement_expressions(self, expression: Node) -> Iterator[Node]:
        """The outermost ({ ... }) within an expression, in the order of the text."""
        if expression.type == "compound_statement":
            yield expression
            return
        for child in expression.named_children:
            yield from self.statement_expressions(child)

    def _assignments(self, node: Node) -> Iterator[Assignment]:
        field = node.child_by_field_name
        if node.type == "assignment_expression":
            target, value, operator = field("left"), field("right"), field("operator")
            if target is not None and value is not None and operator is not None:
                yield self.assignment(target, operator.type, value)
        elif node.type == "init_declarator":
            target, value = field("declarator"), field("value")
            if target is not None and value is not None:
                yield self.assignment(target, "=", value)
        elif node.type == "update_expression":
            target, operator = field("argument"), field("operator")
            if target is not None and operator is not None:
                yield Assignment(self.text(target), operator.type, Value(self.text(node)))

    def _by_address(self, call: Node) -> Iterator[Assignment]:
        """f(..., &variable, ...) may assign to it."""
        arguments = call.child_by_field_name("arguments")
        for argument in arguments.named_children if arguments is not None else ():
            inner = argument.child_by_field_name("argument") if argument.type == "pointer_expression" else None
            if inner is not None and inner.type == "identifier" and argument.children[0].type == "&":
                name = call_name(call, self)
                yield Assignment(self.text(inner), "&", Value(self.text(call), (), (name,) if name else ()))


def call_name(syntax: Node, facts: Facts) -> str | None:
    """The function or macro that a call names; the member for a call through a pointer (`sock->ops->bind`)."""
    if syntax.type != "call_expression":
        return None
    function = syntax.child_by_field_name("function")
    if function is None:
        return None
    if function.type == "field_expression":
        function = function.child_by_field_name("field")
    return facts.text(function) if function is not None and function.type in NAMES else None


def single_argument(call: Node) -> Node | None:
    """The first argument of a call, None where it has none."""
    arguments = call.child_by_field_name("arguments")
    return arguments.named_children[0] if arguments is not None and arguments.named_children else None


def _walk(syntax: Node, *, compared: bool) -> Iterator[tuple[Node, bool]]:
    """A node and all within it but ({ ... }), each with whether it is an operand of a comparison."""
    if syntax.type == "compound_statement":
        return
    yield syntax, compared
    operator = syntax.child_by_field_name("operator") if syntax.type == "binary_expression" else None
    within = compared or (operator is not None and operator.type in COMPARISONS)
    if syntax.type in ("call_expression", "assignment_expression", "conditional_expression"):
        within = False  # f(-EINVAL) == 0 compares what f gives
    for child in syntax.named_children:
        yield from _walk(child, compared=within)


def _declared(target: Node) -> Node:
    """The name within a declarator: `*head` → `head`."""
    while target.type in ("pointer_declarator", "array_declarator", "parenthesized_declarator", "function_declarator"):
        inner = target.child_by_field_name("declarator") or (
            target.named_children[0] if target.named_children else None
        )
        if inner is None:
            break
        target = inner
    return target
