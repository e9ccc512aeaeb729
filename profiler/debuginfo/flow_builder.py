"""From the syntax tree of a function body to its control flow, statement by statement."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import tree_sitter
import tree_sitter_c

from profiler.debuginfo.c_functions import FunctionText, SourceFile
from profiler.debuginfo.c_text import parseable
from profiler.debuginfo.flow_expressions import Exits, Expressions
from profiler.debuginfo.flow_facts import Facts
from profiler.debuginfo.source_flow import FlowNode, SourceFlow, Whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tree_sitter import Node

LANGUAGE = tree_sitter.Language(tree_sitter_c.language())
PREFIX = "void f()"  # makes a function definition of a body

NO_FACTS: dict[str, Any] = {"assigns": (), "errnos": (), "compared": (), "calls": ()}  # its parts have their own nodes
IGNORED = frozenset(
    ["comment", ";", "{", "}", "preproc_call", "preproc_def", "preproc_function_def", "type_definition"]
)
IGNORED |= frozenset(["preproc_include", "declaration_list", "struct_specifier", "enum_specifier", "union_specifier"])


def build_flow(source: SourceFile, function: FunctionText, asked: str) -> SourceFlow:
    """The flow of a function definition. RecursionError is not caught: no kernel function nests that deep."""
    masked = source.compiled[function.start : function.end]
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


class _Builder(Expressions):
    """Walks the statements of one function and adds nodes and edges."""

    def __init__(self, source: SourceFile, function: FunctionText, facts: Facts) -> None:
        super().__init__(source, function, facts)
        self.labels: dict[str, int] = {}
        self.breaks: list[Exits] = []
        self.continues: list[Exits] = []
        self.switches: list[tuple[int, list[bool]]] = []  # the switch node, and whether it has a default

    def build(self, body: Node) -> None:
        function = self.function
        self.nodes.append(FlowNode(0, "entry", function.first_line, function.body_line, function.head))
        self.nodes.append(FlowNode(1, "exit", function.last_line, function.last_line, "}"))
        self.label_names = frozenset(self.facts.labels(body))
        self.connect(self.statement(body, [(0, None, None)]), 1)
        for left, label in self.jumps:
            if label in self.labels:
                self.connect([left], self.labels[label])

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
        left: Exits = []
        if incoming:  # between two cases of a switch there is nothing to choose
            left = [(self.add("preprocessor", syntax, incoming, last=name, **NO_FACTS), None, None)]
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
