"""The control flow of C functions, from their source text."""

from __future__ import annotations

import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.debuginfo.source_flow import FlowNode, SourceFlow, flow_of


def flow(source: str, name: str = "f", config: dict[str, str] | None = None) -> SourceFlow:
    found = flow_of(textwrap.dedent(source).split("\n"), name, config=config)
    assert found is not None
    return found


def body(statements: str, config: dict[str, str] | None = None) -> SourceFlow:
    """The flow of a function of these statements; the first of them is on line 3."""
    return flow("int f(struct device *dev)\n{\n" + textwrap.dedent(statements).strip("\n") + "\n}\n", config=config)


def node(graph: SourceFlow, text: str) -> FlowNode:
    (found,) = [n for n in graph.nodes[2:] if n.text == text and n.kind != "loop"]
    return found


def after(graph: SourceFlow, text: str) -> dict[bool | str | None, str]:
    """The text of what follows a node, by outcome or case label."""
    edges = graph.leaving(node(graph, text))
    return {edge.outcome if edge.label is None else edge.label: graph.nodes[edge.target].text for edge in edges}


def test_each_operand_of_a_condition_is_a_condition_with_short_circuit_edges() -> None:
    graph = body("""
        if (!dev->ready ||
            (flags & BUSY && !force))
            return -EBUSY;
        return 0;
    """)
    assert after(graph, "dev->ready") == {False: "return -EBUSY;", True: "flags & BUSY"}
    assert after(graph, "flags & BUSY") == {True: "force", False: "return 0;"}
    assert after(graph, "force") == {False: "return -EBUSY;", True: "return 0;"}
    busy = node(graph, "flags & BUSY")
    assert (busy.first_line, busy.last_line) == (4, 4)
    assert busy.whole is not None
    assert (busy.whole.first_line, busy.whole.last_line, busy.whole.statement) == (3, 4, "if")
    assert busy.whole.text == "!dev->ready || (flags & BUSY && !force)"


def test_a_ternary_return_becomes_a_condition_and_two_returns() -> None:
    graph = body("return copy(dev) ? -EFAULT : 0;")
    assert after(graph, "copy(dev)") == {True: "return -EFAULT", False: "return 0"}
    assert [n.returned.errnos for n in graph.returns() if n.returned] == [("EFAULT",), ()]


def test_a_ternary_assignment_becomes_an_assignment_for_each_value() -> None:
    graph = body("err = a ? b ? -EPERM : -EACCES : 0;\nreturn err;")
    assert after(graph, "a") == {True: "b", False: "err = 0"}
    assert after(graph, "b") == {True: "err = -EPERM", False: "err = -EACCES"}


def test_the_short_ternary_gives_the_condition_itself_where_it_holds() -> None:
    graph = body("return check(dev) ?: -EINVAL;")
    values = [n.returned.expression for n in graph.returns() if n.returned]
    assert values == ["check(dev)", "-EINVAL"]


def test_returning_a_conjunction_gives_one_return_for_true_and_one_for_false() -> None:
    graph = body("return a && b;")
    assert after(graph, "a") == {True: "b", False: "return 0"}
    assert after(graph, "b") == {True: "return 1", False: "return 0"}


def test_likely_and_warnings_are_looked_through() -> None:
    graph = body("if (unlikely(a || WARN_ON_ONCE(b)))\n    return -EIO;\nreturn 0;")
    assert after(graph, "a") == {True: "return -EIO;", False: "b"}


def test_assignments_within_conditions_belong_to_the_condition() -> None:
    graph = body("if ((err = start(dev)) < 0)\n    return err;\nreturn 0;")
    condition = node(graph, "(err = start(dev)) < 0")
    assert [(a.target, a.operator, a.value.calls) for a in condition.assigns] == [("err", "=", ("start",))]


def test_initialisers_are_statements_with_their_errno() -> None:
    graph = body("int n, ret = -ENOMEM,\n    *q = &x;\nreturn ret;")
    (assigned,) = node(graph, "ret = -ENOMEM").assigns
    assert (assigned.target, assigned.value.expression, assigned.value.errnos) == ("ret", "-ENOMEM", ("ENOMEM",))
    assert node(graph, "*q = &x").first_line == 4
    assert node(graph, "*q = &x").assigns[0].target == "q"


def test_a_variable_whose_address_is_passed_may_be_assigned() -> None:
    graph = body("p = get(dev, &err);\nreturn err;")
    assert ("err", "&") in [(a.target, a.operator) for a in node(graph, "p = get(dev, &err)").assigns]


def test_errnos_that_are_compared_with_are_told_from_those_that_are_values() -> None:
    graph = body("if (err == -EAGAIN)\n    err = -EBUSY;\nreturn ERR_PTR(-ENODEV);")
    assert node(graph, "err == -EAGAIN").compared == ("EAGAIN",)
    assert [(n.text, n.errnos) for n in graph.nodes if n.errnos] == [
        ("err = -EBUSY", ("EBUSY",)),
        ("return ERR_PTR(-ENODEV);", ("ENODEV",)),
    ]


def test_goto_leads_to_its_label_forwards_and_back() -> None:
    graph = body("again:\nif (a)\n    goto out;\nif (b)\n    goto again;\nout:\nreturn 0;")
    assert after(graph, "goto out;") == {None: "out:"}
    assert after(graph, "goto again;") == {None: "again:"}


def test_a_macro_that_is_given_a_label_may_go_there() -> None:
    graph = body("unsafe_put_user(1, p, fault);\nreturn 0;\nfault:\nreturn -EFAULT;")
    assert after(graph, "unsafe_put_user(1, p, fault)") == {None: "return 0;", "fault": "fault:"}


def test_switch_has_an_edge_for_each_case_and_falls_through() -> None:
    graph = body("""
        switch (cmd) {
        case A:
        case 1 ... 3:
            x();
            fallthrough;
        case B:
            break;
        default:
            return -EINVAL;
        }
        return 0;
    """)
    edges = after(graph, "switch (cmd)")
    assert edges == {"A": "case A", "1 ... 3": "case 1 ... 3", "B": "case B", "default": "default"}
    assert after(graph, "case A") == {None: "case 1 ... 3"}
    assert after(graph, "fallthrough") == {None: "case B"}
    assert after(graph, "break;") == {None: "return 0;"}


def test_a_switch_without_default_may_match_nothing() -> None:
    graph = body("switch (cmd) {\ncase A:\n    return 1;\n}\nreturn 0;")
    assert after(graph, "switch (cmd)") == {"A": "case A", "otherwise": "return 0;"}


def test_loops_return_to_their_head_and_leave_by_condition_or_break() -> None:
    graph = body("""
        for (i = 0; i < n; i++) {
            if (skip(i))
                continue;
            if (stop(i))
                break;
        }
        do {
            step();
        } while (more());
        while (1)
            forever();
    """)
    assert after(graph, "i < n") == {True: "skip(i)", False: "do"}
    assert after(graph, "continue;") == {None: "i++"}
    assert after(graph, "i++") == {None: "for"}
    assert after(graph, "break;") == {None: "do"}
    assert after(graph, "more()") == {True: "do", False: "while (1)"}
    assert after(graph, "forever()") == {None: "while (1)"}
    assert graph.exit not in graph.reachable


def test_loop_macros_are_loops_with_or_without_braces() -> None:
    graph = body("""
        list_for_each_entry(p, &head, node)
            if (p == dev)
                return -EEXIST;
        xa_for_each(xa, index, p) {
            drop(p);
        }
        return 0;
    """)
    assert after(graph, "list_for_each_entry(p, &head, node)")[True] == "p == dev"
    assert node(graph, "list_for_each_entry(p, &head, node)").calls == ("list_for_each_entry",)
    assert after(graph, "xa_for_each(xa, index, p)") == {True: "drop(p)", False: "return 0;"}


def test_a_scoped_guard_runs_its_block_once() -> None:
    graph = body("scoped_guard(mutex, &lock) {\n    x();\n}\nreturn 0;")
    assert after(graph, "scoped_guard(mutex, &lock)") == {None: "x()"}
    assert after(graph, "x()") == {None: "return 0;"}


def test_statement_expressions_come_before_what_uses_them() -> None:
    graph = body("x = ({ if (a) return -EINTR; b(); });\nreturn x;")
    assert after(graph, "a") == {True: "return -EINTR;", False: "b()"}


def test_calls_that_do_not_come_back_end_the_path() -> None:
    graph = body('if (a)\n    panic("no");\nreturn 0;')
    assert graph.leaving(node(graph, 'panic("no")')) == []


SYSCALL = """
    SYSCALL_DEFINE2(frob, int, fd, struct frob_args __user *, args)
    {
        return do_frob(fd, args);
    }
    COMPAT_SYSCALL_DEFINE1(frob, int, fd)
    {
        return compat();
    }
"""


@pytest.mark.parametrize("symbol", ["__x64_sys_frob", "__se_sys_frob", "__do_sys_frob", "__arm64_sys_frob", "sys_frob"])
def test_a_system_call_is_found_by_any_of_its_symbols(symbol: str) -> None:
    graph = flow(SYSCALL, symbol)
    assert (graph.function, graph.defined_as, graph.first_line, graph.last_line) == (symbol, "__do_sys_frob", 2, 5)
    assert [n.text for n in graph.returns()] == ["return do_frob(fd, args);"]


def test_the_compat_system_call_is_another() -> None:
    assert [n.text for n in flow(SYSCALL, "__do_compat_sys_frob").returns()] == ["return compat();"]


def test_annotations_types_as_arguments_and_assembly_do_not_disturb() -> None:
    graph = flow("""
        static __always_inline __printf(1, 2) int __init f(struct sock __user *sk) __must_hold(&lock)
        {
            struct item *p __free(kfree) = kmalloc(sizeof(struct item), GFP_KERNEL);
            typeof(*p) *q = container_of(p, struct item, list);
            unsigned long n = min_t(unsigned long, a, b);
            void __percpu *s = alloc_percpu(struct stats);
            static DEFINE_MUTEX(m);

            asm volatile("nop { " : "=r"(n) : [x] "r"(n));
            return (int __force)n;
        }
    """)
    assert graph.parse_errors == 0
    assert node(graph, "n = min_t(unsigned long, a, b)").calls == ("min_t",)


def test_brackets_in_strings_and_comments_do_not_count() -> None:
    graph = body("a(\"}{\"); // }\nb('{'); /* } */\nreturn 0;")
    assert [n.text for n in graph.nodes[2:]] == ['a("}{")', "b('{')", "return 0;"]


def test_the_configuration_chooses_the_arm_that_is_compiled() -> None:
    source = "#ifdef CONFIG_FAST\nreturn 1;\n#else\nreturn 2;\n#endif"
    assert [n.text for n in body(source, {"CONFIG_FAST": "y"}).returns()] == ["return 1;"]
    assert [n.text for n in body(source, {}).returns()] == ["return 2;"]


def test_both_arms_are_possible_where_nothing_decides() -> None:
    graph = body("#ifdef CONFIG_FAST\nx();\n#else\ny();\n#endif\nreturn 0;")
    (choice,) = [n for n in graph.nodes if n.kind == "preprocessor"]
    assert {graph.nodes[edge.target].text for edge in graph.leaving(choice)} == {"x()", "y()"}
    assert after(graph, "x()") == after(graph, "y()") == {None: "return 0;"}


def test_half_a_statement_in_an_arm_keeps_the_function_readable() -> None:
    graph = body("#ifdef CONFIG_FAST\nif (fast)\n    return 1;\nelse\n#endif\n    return 2;\n", {})
    assert graph.parse_errors == 0
    assert [n.text for n in graph.returns()] == ["return 2;"]


def test_a_condition_on_the_configuration_is_decided() -> None:
    source = "if (IS_ENABLED(CONFIG_FAST) && a)\n    return 1;\nreturn 2;"
    graph = body(source, {})
    assert [n.text for n in graph.returns() if n.index in graph.reachable] == ["return 2;"]


def test_of_two_definitions_the_one_near_the_line_is_taken() -> None:
    lines = ["int f(void)", "{", "\treturn 1;", "}", "", "int f(void)", "{", "\treturn 2;", "}"]
    for line, text in ((3, "return 1;"), (8, "return 2;")):
        found = flow_of(lines, "f", line)
        assert found is not None
        assert [n.text for n in found.returns()] == [text]


def test_a_function_that_the_file_only_declares_has_no_flow() -> None:
    assert flow_of(["int f(void);", "int g(void) { return f(); }"], "f") is None


def test_what_lies_at_a_line_is_found_narrowest_first() -> None:
    graph = body("x(a,\n  b ? 1 : 2);\nreturn 0;")
    assert [n.text for n in graph.nodes_at(3)] == ["x(a, b ? 1 : 2)"]
    assert graph.nodes_at(5)[0].text == "return 0;"


def test_characters_beyond_ascii_do_not_shift_anything() -> None:
    graph = body("/* größer als – */ a();\nreturn -EIO; /* ä */")
    assert [(n.text, n.first_line) for n in graph.nodes[2:]] == [("a()", 3), ("return -EIO;", 4)]


PIECES = (
    *["if", "while", "for", "do", "else", "switch", "case", "default", "return", "goto", "out:", "break;", "continue;"],
    *[
        "(",
        ")",
        "{",
        "}",
        ";",
        ",",
        "?",
        ":",
        "&&",
        "||",
        "!",
        "x",
        "=",
        "-EIO",
        "...",
        "({",
        "})",
        '"',
        "'",
        "/*",
        "*/",
    ],
    *["f(", "for_each_x(a, b)", "scoped_guard(m, l)", "#if", "#ifdef", "#else", "#endif", "typeof(", "asm(", "struct"],
)


@given(st.lists(st.sampled_from([*PIECES, "\n"]), max_size=40))
def test_no_text_makes_it_fail_and_lines_stay_within_the_function(pieces: list[str]) -> None:
    lines = ["int f(void)", "{", *" ".join(pieces).split("\n"), "}"]
    graph = flow_of(lines, "f")
    for found in graph.nodes if graph else ():
        assert graph is not None
        assert graph.first_line <= found.first_line <= found.last_line <= graph.last_line
