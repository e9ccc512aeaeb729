"""From the syntax tree of a function body to its control flow.

Every builder takes the edges that lead to what it builds (`Exits`: pairs of a node and how it was left) and gives
back those that lead out of it. An empty list says that control does not come here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import tree_sitter
import tree_sitter_c

from profiler.debuginfo.c_functions import FunctionText, SourceFile
from profiler.debuginfo.c_preprocessor import evaluate, resolve
from profiler.debuginfo.c_text import parseable
from profiler.debuginfo.flow_facts import Facts, call_name, single_argument
from profiler.debuginfo.source_flow import FlowEdge, FlowNode, SourceFlow, Whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tree_sitter import Node

LANGUAGE = tree_sitter.Language(tree_sitter_c.language())
PREFIX = "void f()"  # makes a function definition of a body

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
NO_FACTS: dict[str, Any] = {"assigns": (), "errnos": (), "compared": (), "calls": ()}  # its parts have their own nodes
TRUE_WORDS, FALSE_WORDS = frozenset(["1", "true"]), frozenset(["0", "false"])
IGNORED = frozenset(
    ["comment", ";", "{", "}", "preproc_call", "preproc_def", "preproc_function_def", "type_definition"]
)
IGNORED |= frozenset(["preproc_include", "declaration_list", "struct_specifier", "enum_specifier", "union_specifier"])


def build_flow(source: SourceFile, function: FunctionText, asked: str) -> SourceFlow:
    """The flow of a function definition. RecursionError is not caught: no kernel function nests that deep."""
    masked = resolve(source.masked, source.config, keep_undecided=True)[function.start : function.end]
    text = PREFIX + parseable(masked)
    tree = tree_sitter.Parser(LANGUAGE).parse(text.encode())
    builder = _Builder(source, function, Facts(source.code, function.start - len(PREFIX)))
    definition = next((n for n in tree.root_node.named_children if n.type == "function_definition"), None)
    body = definition.child_by_field_name("body") if definition else None
    builder.build(body if body is not None else tree.root_node)
    return SourceFlow(
        function=asked,
        defined_as=function.name,
        first_line=function.first_line,
        last_line=function.last_line,
        nodes=tuple(builder.nodes),
        edges=tuple(dict.fromkeys(builder.edges)),
        parse_errors=_count_errors(tree.root_node),
    )


def _count_errors(root: Node) -> int:
    if not root.has_error:
        return 0
    own = int(root.is_error or root.is_missing)
    return own + sum(_count_errors(child) for child in root.children)


class _Builder:
    """Walks the statements of one function and adds nodes and edges."""

    def __init__(self, source: SourceFile, function: FunctionText, facts: Facts) -> None:
        self.source = source
        self.function = function
        self.facts = facts
        self.nodes: list[FlowNode] = []
        self.edges: list[FlowEdge] = []
        self.labels: dict[str, int] = {}
        self.jumps: list[tuple[Exit, str]] = []  # to labels that may come later
        self.breaks: list[Exits] = []
        self.continues: list[Exits] = []
        self.switches: list[tuple[int, list[bool]]] = []  # the switch node, and whether it has a default
        self.label_names: frozenset[str] = frozenset()

    def build(self, body: Node) -> None:
        function = self.function
        self.nodes.append(FlowNode(0, "entry", function.first_line, function.body_line, function.head))
        self.nodes.append(FlowNode(1, "exit", function.last_line, function.last_line, "}"))
        self.label_names = frozenset(self.facts.labels(body))
        self.connect(self.statement(body, [(0, None, None)]), 1)
        for left, label in self.jumps:
            if label in self.labels:
                self.connect([left], self.labels[label])

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
        self.nodes.append(FlowNode(index, kind, start_line, end_line, **fields))  # type: ignore[arg-type]
        self.connect(incoming, index)
        for name in self.facts.names(syntax) & self.label_names if kind in ("statement", "condition") else ():
            self.jumps.append(((index, None, name), name))
        return index

    def line(self, offset: int) -> int:
        return self.source.line_of(self.facts.base + offset)

    # ---- statements ----

    def statement(self, syntax: Node, incoming: Exits) -> Exits:
        build = STATEMENTS.get(syntax.type)
        if build is not None:
            return build(self, syntax, incoming)
        if syntax.type in IGNORED or syntax.is_missing or not syntax.is_named:
            return incoming
        return [(self.add("statement", syntax, self.inner(syntax, incoming)), None, None)]

    def sequence(self, children: list[Node], incoming: Exits) -> Exits:
        for child in children:
            incoming = self.statement(child, incoming)
        return incoming

    def block(self, syntax: Node, incoming: Exits) -> Exits:
        return self.sequence(syntax.named_children, incoming)

    def unread(self, syntax: Node, incoming: Exits) -> Exits:
        """What the grammar made no sense of: its statements, where it holds some, else one node for its text."""
        if any(child.type in STATEMENTS for child in syntax.named_children):
            return self.block(syntax, incoming)
        if len(self.facts.text(syntax)) < 3:
            return incoming
        return [(self.add("statement", syntax, incoming), None, None)]

    def expression_statement(self, syntax: Node, incoming: Exits) -> Exits:
        expressions = [child for child in syntax.named_children if child.type != "comment"]
        return self.effect(expressions[0], incoming) if expressions else incoming

    def effect(self, expression: Node, incoming: Exits) -> Exits:
        """An expression evaluated for what it does."""
        plain = _bare(expression)
        if plain.type == "comma_expression":
            return self.sequence_of_effects(plain, incoming)
        if plain.type == "conditional_expression":
            return self.conditional_effect(plain, incoming)
        if plain.type == "binary_expression" and _operator(plain) in ("&&", "||"):
            left, right = _operands(plain)
            true, false = self.condition(left, incoming, self.whole(left, _operator(plain)))
            entering, passing = (true, false) if _operator(plain) == "&&" else (false, true)
            return self.effect(right, entering) + passing
        if plain.type == "assignment_expression" and _operator(plain) == "=":
            left, right = _operands(plain)
            return self.assignment(plain, left, right, incoming)
        if plain.type == "compound_statement":  # ({ ... }) for its effect
            return self.statement(plain, incoming)
        index = self.add("statement", plain, self.inner(plain, incoming))
        return [] if call_name(plain, self.facts) in NO_RETURN else [(index, None, None)]

    def sequence_of_effects(self, comma: Node, incoming: Exits) -> Exits:
        left, right = _operands(comma)
        return self.effect(right, self.effect(left, incoming))

    def conditional_effect(self, conditional: Node, incoming: Exits) -> Exits:
        condition, consequence, alternative = _arms(conditional)
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

    def declaration(self, syntax: Node, incoming: Exits) -> Exits:
        """One node for each initialiser."""
        for declarator in syntax.named_children:
            if declarator.type == "init_declarator":
                name, value = declarator.child_by_field_name("declarator"), declarator.child_by_field_name("value")
                if name is not None and value is not None:
                    incoming = self.assignment(declarator, name, value, incoming)
        return incoming

    def return_statement(self, syntax: Node, incoming: Exits) -> Exits:
        expression = next((child for child in syntax.named_children if child.type != "comment"), None)
        if expression is None:
            self.connect([(self.add("return", syntax, incoming), None, None)], 1)
            return []
        values = list(self.values(expression, incoming))
        for leading, arm, constant in values:
            returned = self.facts.value(arm, constant)
            if len(values) == 1:
                index = self.add("return", syntax, leading, returned=returned)
            else:
                index = self.add("return", arm, leading, text=f"return {returned.expression}", returned=returned)
            self.connect([(index, None, None)], 1)
        return []

    def values(self, expression: Node, incoming: Exits) -> Iterator[tuple[Exits, Node, str | None]]:
        """(the edges that lead to it, the expression, its constant value) for each value an expression may have."""
        plain = _bare(expression)
        if plain.type == "conditional_expression":
            condition, consequence, alternative = _arms(plain)
            true, false = self.condition(condition, incoming, self.whole(condition, "?:"))
            yield from self.values(consequence or condition, true) if true else ()
            yield from self.values(alternative, false) if false else ()
        elif plain.type == "binary_expression" and _operator(plain) in ("&&", "||"):
            true, false = self.condition(plain, incoming, self.whole(plain, _operator(plain)))
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
        plain = _bare(expression)
        first, last = self.line(plain.start_byte), self.line(max(plain.end_byte - 1, plain.start_byte))
        return Whole(first, last, self.facts.text(plain), statement)

    def condition(self, expression: Node, incoming: Exits, whole: Whole) -> tuple[Exits, Exits]:
        """The edges left when the expression is true, and when it is false."""
        plain = _bare(expression)
        operator = _operator(plain)
        if plain.type == "unary_expression" and operator == "!":
            true, false = self.condition(plain.child_by_field_name("argument") or plain, incoming, whole)
            return false, true
        if plain.type == "binary_expression" and operator in ("&&", "||"):
            return self.short_circuit(plain, operator, incoming, whole)
        if plain.type == "conditional_expression":
            return self.conditional_condition(plain, incoming, whole)
        if plain.type == "comma_expression":
            left, right = _operands(plain)
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
        left, right = _operands(plain)
        left_true, left_false = self.condition(left, incoming, whole)
        if operator == "&&":
            true, false = self.condition(right, left_true, whole)
            return true, left_false + false
        true, false = self.condition(right, left_false, whole)
        return left_true + true, false

    def conditional_condition(self, plain: Node, incoming: Exits, whole: Whole) -> tuple[Exits, Exits]:
        condition, consequence, alternative = _arms(plain)
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

    def if_statement(self, syntax: Node, incoming: Exits) -> Exits:
        condition, consequence = syntax.child_by_field_name("condition"), syntax.child_by_field_name("consequence")
        if condition is None or consequence is None:
            return self.unread(syntax, incoming)
        word = self.facts.word_at(syntax.start_byte)
        if word != "if":  # scoped_guard(...) { }
            index = self.add("statement", syntax, incoming, last=condition, calls=(word,))
            passed: Exits = [(index, None, None)] if "cond" in word else []
            return self.statement(consequence, [(index, None, None)]) + passed
        true, false = self.condition(condition, incoming, self.whole(condition, "if"))
        after = self.statement(consequence, true)
        alternative = syntax.child_by_field_name("alternative")
        return after + (self.statement(alternative, false) if alternative is not None else false)

    # ---- loops and jumps ----

    @contextmanager
    def loop(self) -> Iterator[tuple[Exits, Exits]]:
        """The edges by which `break` and `continue` within leave."""
        self.breaks.append([])
        self.continues.append([])
        try:
            yield self.breaks[-1], self.continues[-1]
        finally:
            self.breaks.pop()
            self.continues.pop()

    def while_statement(self, syntax: Node, incoming: Exits) -> Exits:
        condition, body = syntax.child_by_field_name("condition"), syntax.child_by_field_name("body")
        if condition is None or body is None:
            return self.unread(syntax, incoming)
        head = self.add("loop", syntax, incoming, last=condition, **NO_FACTS)
        word = self.facts.word_at(syntax.start_byte)
        if word == "while":
            true, false = self.condition(condition, [(head, None, None)], self.whole(condition, "while"))
        else:
            text = self.facts.text_between(syntax.start_byte, condition.end_byte)
            lines = self.line(syntax.start_byte), self.line(condition.end_byte - 1)
            calls = (word, *self.facts.seen(condition).calls)
            whole = Whole(*lines, text, word)
            index = self.add("condition", syntax, [(head, None, None)], last=condition, whole=whole, calls=calls)
            true, false = [(index, True, None)], [(index, False, None)]
        with self.loop() as (breaks, continues):
            self.connect(self.statement(body, true) + continues, head)
        return false + breaks

    def do_statement(self, syntax: Node, incoming: Exits) -> Exits:
        condition, body = syntax.child_by_field_name("condition"), syntax.child_by_field_name("body")
        if condition is None or body is None:
            return self.unread(syntax, incoming)
        head = self.add("loop", syntax.children[0], incoming, text="do", **NO_FACTS)
        with self.loop() as (breaks, continues):
            after = self.statement(body, [(head, None, None)]) + continues
        true, false = self.condition(condition, after, self.whole(condition, "do"))
        self.connect(true, head)
        return false + breaks

    def for_statement(self, syntax: Node, incoming: Exits) -> Exits:
        field: Callable[[str], Node | None] = syntax.child_by_field_name
        first, condition, update, body = field("initializer"), field("condition"), field("update"), field("body")
        if body is None:
            return self.unread(syntax, incoming)
        if first is not None:
            is_declaration = first.type == "declaration"
            incoming = self.declaration(first, incoming) if is_declaration else self.effect(first, incoming)
        head = self.add("loop", syntax.children[0], incoming, text="for", **NO_FACTS)
        true: Exits = [(head, None, None)]
        false: Exits = []
        if condition is not None:
            true, false = self.condition(condition, true, self.whole(condition, "for"))
        with self.loop() as (breaks, continues):
            after = self.statement(body, true) + continues
        self.connect(self.effect(update, after) if update is not None else after, head)
        return false + breaks

    def break_statement(self, syntax: Node, incoming: Exits) -> Exits:
        index = self.add("break", syntax, incoming)
        if self.breaks:
            self.breaks[-1].append((index, None, None))
        return []

    def continue_statement(self, syntax: Node, incoming: Exits) -> Exits:
        index = self.add("continue", syntax, incoming)
        if self.continues:
            self.continues[-1].append((index, None, None))
        return []

    def goto_statement(self, syntax: Node, incoming: Exits) -> Exits:
        label = syntax.child_by_field_name("label")
        index = self.add("goto", syntax, incoming)
        if label is not None:
            self.jumps.append(((index, None, None), self.facts.text(label)))
        return []

    def labeled_statement(self, syntax: Node, incoming: Exits) -> Exits:
        label = syntax.child_by_field_name("label")
        if label is None:
            return self.unread(syntax, incoming)
        name = self.facts.text(label)
        index = self.labels[name] = self.add("label", label, incoming, text=f"{name}:", errnos=(), calls=())
        rest = [child for child in syntax.named_children if child != label]
        return self.sequence(rest, [(index, None, None)])

    def switch_statement(self, syntax: Node, incoming: Exits) -> Exits:
        condition, body = syntax.child_by_field_name("condition"), syntax.child_by_field_name("body")
        if condition is None or body is None:
            return self.unread(syntax, incoming)
        selector = self.inner(condition, incoming)
        text = f"switch {self.facts.text(condition)}"
        index = self.add("switch", syntax, selector, last=condition, text=text)
        has_default = [False]
        self.switches.append((index, has_default))
        self.breaks.append([])
        after = self.statement(body, [])
        breaks = self.breaks.pop()
        self.switches.pop()
        missed: Exits = [] if has_default[0] else [(index, None, "otherwise")]
        return after + breaks + missed

    def case_statement(self, syntax: Node, incoming: Exits) -> Exits:
        colon = next((child for child in syntax.children if child.type == ":"), None)
        if colon is None or not self.switches:
            return self.unread(syntax, incoming)
        switch, has_default = self.switches[-1]
        text = self.facts.text_between(syntax.start_byte, colon.start_byte)
        has_default[0] |= text == "default"
        label = text.removeprefix("case ")
        entering = [*incoming, (switch, None, label)]
        index = self.add("case", syntax, entering, last=colon, text=text, **NO_FACTS)
        rest = [child for child in syntax.named_children if child.start_byte > colon.start_byte]
        return self.sequence(rest, [(index, None, None)])

    def preprocessor(self, syntax: Node, incoming: Exits) -> Exits:
        """#if ... #else ...: either arm, where the configuration does not say which."""
        name = syntax.child_by_field_name("name") or syntax.child_by_field_name("condition")
        alternative = syntax.child_by_field_name("alternative")
        if name is None:  # #else
            return self.block(syntax, incoming)
        index = self.add("preprocessor", syntax, incoming, last=name, **NO_FACTS)
        left: Exits = [(index, None, None)]
        arm = [child for child in syntax.named_children if child not in (name, alternative)]
        after = self.sequence(arm, left)
        return after + (self.statement(alternative, left) if alternative is not None else left)


Build = Callable[[_Builder, "Node", Exits], Exits]
STATEMENTS: dict[str, Build] = {
    "compound_statement": _Builder.block,
    "else_clause": _Builder.block,
    "attributed_statement": _Builder.block,
    "function_definition": _Builder.block,
    "ERROR": _Builder.unread,
    "expression_statement": _Builder.expression_statement,
    "declaration": _Builder.declaration,
    "return_statement": _Builder.return_statement,
    "if_statement": _Builder.if_statement,
    "while_statement": _Builder.while_statement,
    "do_statement": _Builder.do_statement,
    "for_statement": _Builder.for_statement,
    "break_statement": _Builder.break_statement,
    "continue_statement": _Builder.continue_statement,
    "goto_statement": _Builder.goto_statement,
    "labeled_statement": _Builder.labeled_statement,
    "switch_statement": _Builder.switch_statement,
    "case_statement": _Builder.case_statement,
    "preproc_ifdef": _Builder.preprocessor,
    "preproc_if": _Builder.preprocessor,
    "preproc_elif": _Builder.preprocessor,
    "preproc_elifdef": _Builder.preprocessor,
    "preproc_else": _Builder.preprocessor,
}


def _bare(expression: Node) -> Node:
    """Without the parentheses around it."""
    while expression.type in ("parenthesized_expression", "condition_clause"):
        inside = [child for child in expression.named_children if child.type != "comment"]
        if len(inside) != 1:
            break
        expression = inside[0]
    return expression


def _operator(expression: Node) -> str:
    operator = expression.child_by_field_name("operator")
    return operator.type if operator is not None else ""


def _operands(expression: Node) -> tuple[Node, Node]:
    left, right = expression.child_by_field_name("left"), expression.child_by_field_name("right")
    return left or expression.children[0], right or expression.children[-1]


def _arms(conditional: Node) -> tuple[Node, Node | None, Node]:
    """condition, consequence (absent in `a ?: b`), alternative"""
    field = conditional.child_by_field_name
    condition, alternative = field("condition"), field("alternative")
    return condition or conditional.children[0], field("consequence"), alternative or conditional.children[-1]
