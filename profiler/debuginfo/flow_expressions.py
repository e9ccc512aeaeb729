"""From expressions to control flow: `&&`, `||`, `!` and `?:` taken apart.

Every builder takes the edges that lead to what it builds (`Exits`: how which node was left) and gives back those that
lead out of it. An empty list says that control does not come here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from profiler.debuginfo.c_functions import FunctionText, SourceFile
from profiler.debuginfo.c_preprocessor import evaluate
from profiler.debuginfo.flow_facts import Facts, call_name, single_argument
from profiler.debuginfo.source_flow import FlowEdge, FlowNode, Whole

if TYPE_CHECKING:
    from tree_sitter import Node

Exit = tuple[int, bool | None, str | None]  # a node, and the outcome or case by which it was left
Exits = list[Exit]

# if (unlikely(a || b)): the macro's value is that of its argument
TRANSPARENT = frozenset(
    [
        "likely",
        "unlikely",
        "WARN_ON",
        "WARN_ON_ONCE",
        "BUG_ON",
        "VM_BUG_ON",
        "__builtin_expect",
        "data_race",
        "READ_ONCE",
    ]
)
NO_RETURN = frozenset(["BUG", "panic", "do_exit", "do_group_exit", "make_task_dead", "unreachable", "kthread_exit"])
TRUE_WORDS, FALSE_WORDS = frozenset(["1", "true"]), frozenset(["0", "false"])


class Expressions(ABC):
    """The nodes and edges of one function, and what adds those of its expressions."""

    def __init__(self, source: SourceFile, function: FunctionText, facts: Facts) -> None:
        self.source = source
        self.function = function
        self.facts = facts
        self.nodes: list[FlowNode] = []
        self.edges: list[FlowEdge] = []
        self.jumps: list[tuple[Exit, str]] = []  # to labels that may come later
        self.label_names: frozenset[str] = frozenset()

    @abstractmethod
    def block(self, syntax: Node, incoming: Exits) -> Exits:
        """The statements of a `{ ... }`, one after another."""

    # ---- nodes and edges ----

    def connect(self, exits: Exits, target: int) -> None:
        self.edges.extend(FlowEdge(source, target, outcome, label) for source, outcome, label in exits)

    def add(self, kind: str, syntax: Node, incoming: Exits, *, last: Node | None = None, **more: Any) -> int:
        """A node for the text from the start of `syntax` to the end of it (or of `last`)."""
        index = len(self.nodes)
        end = last or syntax
        start_line, end_line = self.line(syntax.start_byte), self.line(max(end.end_byte - 1, syntax.start_byte))
        seen = self.facts.seen(syntax if last is None else last)
        fields: dict[str, Any] = {
            "text": self.facts.text_between(syntax.start_byte, end.end_byte),
            "assigns": seen.assigns,
            "errnos": seen.errnos,
            "compared": seen.compared,
            "calls": seen.calls,
        }
        fields.update(more)
        self.nodes.append(FlowNode(index, kind, start_line, end_line, **fields))
        self.connect(incoming, index)
        for name in self.facts.names(syntax) & self.label_names if kind in ("statement", "condition") else ():
            self.jumps.append(((index, None, name), name))
        return index

    def line(self, offset: int) -> int:
        return self.source.line_of(self.facts.base + offset)

    # ---- values and effects ----

    def effect(self, expression: Node, incoming: Exits) -> Exits:
        """An expression evaluated for what it does."""
        plain = bare(expression)
        if plain.type == "comma_expression":
            return self.sequence_of_effects(plain, incoming)
        if plain.type == "conditional_expression":
            return self.conditional_effect(plain, incoming)
        if plain.type == "binary_expression" and operator_of(plain) in ("&&", "||"):
            left, right = operands(plain)
            true, false = self.condition(left, incoming, self.whole(left, operator_of(plain)))
            entering, passing = (true, false) if operator_of(plain) == "&&" else (false, true)
            return self.effect(right, entering) + passing
        if plain.type == "assignment_expression" and operator_of(plain) == "=":
            left, right = operands(plain)
            return self.assignment(plain, left, right, incoming)
        if plain.type == "compound_statement":  # ({ ... }) for its effect
            return self.block(plain, incoming)
        index = self.add("statement", plain, self.inner(plain, incoming))
        return [] if call_name(plain, self.facts) in NO_RETURN else [(index, None, None)]

    def sequence_of_effects(self, comma: Node, incoming: Exits) -> Exits:
        left, right = operands(comma)
        return self.effect(right, self.effect(left, incoming))

    def conditional_effect(self, conditional: Node, incoming: Exits) -> Exits:
        condition, consequence, alternative = arms(conditional)
        true, false = self.condition(condition, incoming, self.whole(condition, "?:"))
        return (self.effect(consequence, true) if consequence else true) + self.effect(alternative, false)

    def assignment(self, syntax: Node, target: Node, value: Node, incoming: Exits) -> Exits:
        """One node for each value that the right side may have."""
        values = list(self.values(value, incoming))
        if len(values) == 1:
            return [(self.add("statement", syntax, values[0][0]), None, None)]
        exits: Exits = []
        for leading, arm, constant in values:
            assigned = self.facts.assignment(target, "=", arm, constant)
            text = f"{assigned.target} = {assigned.value.expression}"
            index = self.add("statement", arm, leading, text=text, assigns=(assigned, *self.facts.seen(arm).assigns))
            exits.append((index, None, None))
        return exits

    def values(self, expression: Node, incoming: Exits) -> Iterator[tuple[Exits, Node, str | None]]:
        """(the edges that lead to it, the expression, its constant value) for each value an expression may have."""
        plain = bare(expression)
        if plain.type == "conditional_expression":
            condition, consequence, alternative = arms(plain)
            true, false = self.condition(condition, incoming, self.whole(condition, "?:"))
            yield from self.values(consequence or condition, true) if true else ()
            yield from self.values(alternative, false) if false else ()
        elif plain.type == "binary_expression" and operator_of(plain) in ("&&", "||"):
            true, false = self.condition(plain, incoming, self.whole(plain, operator_of(plain)))
            yield from ((exits, plain, number) for exits, number in ((true, "1"), (false, "0")) if exits)
        else:
            yield self.inner(expression, incoming), expression, None

    def inner(self, expression: Node, incoming: Exits) -> Exits:
        """The statements within ({ ... }) that an expression holds, before the expression itself."""
        for compound in self.facts.statement_expressions(expression):
            incoming = self.block(compound, incoming)
        return incoming

    # ---- conditions ----

    def whole(self, expression: Node, statement: str) -> Whole:
        plain = bare(expression)
        first, last = self.line(plain.start_byte), self.line(max(plain.end_byte - 1, plain.start_byte))
        return Whole(first, last, self.facts.text(plain), statement)

    def condition(self, expression: Node, incoming: Exits, whole: Whole) -> tuple[Exits, Exits]:
        """The edges left when the expression is true, and when it is false."""
        plain = bare(expression)
        operator = operator_of(plain)
        if plain.type == "unary_expression" and operator == "!":
            true, false = self.condition(plain.child_by_field_name("argument") or plain, incoming, whole)
            return false, true
        if plain.type == "binary_expression" and operator in ("&&", "||"):
            return self.short_circuit(plain, operator, incoming, whole)
        if plain.type == "conditional_expression":
            return self.conditional_condition(plain, incoming, whole)
        if plain.type == "comma_expression":
            left, right = operands(plain)
            return self.condition(right, self.effect(left, incoming), whole)
        name = call_name(plain, self.facts)
        argument = single_argument(plain) if name in TRANSPARENT else None
        if argument is not None:
            return self.condition(argument, incoming, whole)
        constant = self.constant(plain, name)
        if constant is not None:
            return (incoming, []) if constant else ([], incoming)
        index = self.add("condition", plain, self.inner(plain, incoming), whole=whole)
        return [(index, True, None)], [(index, False, None)]

    def short_circuit(self, plain: Node, operator: str, incoming: Exits, whole: Whole) -> tuple[Exits, Exits]:
        left, right = operands(plain)
        left_true, left_false = self.condition(left, incoming, whole)
        if operator == "&&":
            true, false = self.condition(right, left_true, whole)
            return true, left_false + false
        true, false = self.condition(right, left_false, whole)
        return left_true + true, false

    def conditional_condition(self, plain: Node, incoming: Exits, whole: Whole) -> tuple[Exits, Exits]:
        condition, consequence, alternative = arms(plain)
        true, false = self.condition(condition, incoming, whole)
        one, other = self.condition(consequence, true, whole) if consequence else (true, [])
        last_one, last_other = self.condition(alternative, false, whole)
        return one + last_one, other + last_other

    def constant(self, plain: Node, name: str | None) -> bool | None:
        """The value of a condition that no run changes."""
        text = self.facts.text(plain)
        if text in TRUE_WORDS or text in FALSE_WORDS:
            return text in TRUE_WORDS
        if name and name.startswith("IS_"):
            return evaluate(text, self.source.config)
        return None


def bare(expression: Node) -> Node:
    """Without the parentheses around it."""
    while expression.type in ("parenthesized_expression", "condition_clause"):
        inside = [child for child in expression.named_children if child.type != "comment"]
        if len(inside) != 1:
            break
        expression = inside[0]
    return expression


def operator_of(expression: Node) -> str:
    operator = expression.child_by_field_name("operator")
    return operator.type if operator is not None else ""


def operands(expression: Node) -> tuple[Node, Node]:
    left, right = expression.child_by_field_name("left"), expression.child_by_field_name("right")
    return left or expression.children[0], right or expression.children[-1]


def arms(conditional: Node) -> tuple[Node, Node | None, Node]:
    """condition, consequence (absent in `a ?: b`), alternative"""
    field = conditional.child_by_field_name
    condition, alternative = field("condition"), field("alternative")
    return condition or conditional.children[0], field("consequence"), alternative or conditional.children[-1]
