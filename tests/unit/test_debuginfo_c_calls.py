"""The calls within an expression, and one function of a file by itself."""

from __future__ import annotations

import pytest

from profiler.debuginfo.c_calls import calls_in, terms, without_calls
from profiler.debuginfo.c_slice import SlicedFile


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("f(a, g(b))", [("f", "", 0), ("g", "", 1)]),
        ("PTR_ERR(open(path))", [("PTR_ERR", "", 0), ("open", "", 0)]),
        ("sock->ops->bind(sock, addr)", [("bind", "ops", 0)]),
        ("READ_ONCE(sk->sk_prot)->setsockopt(sk)", [("READ_ONCE", "", 0), ("setsockopt", "sk_prot", 0)]),
        ("ops[i].prep(req)", [("prep", "ops", 0)]),
        ("(*fn)(x)", [("fn", "", 0)]),
        ("FD_ADD(flags, do_open(path))", [("FD_ADD", "", 0), ("do_open", "", 0)]),
        ("sizeof(x) + a", []),
    ],
)
def test_calls_are_told_with_what_they_go_through_and_whether_they_give_the_value(
    text: str, found: list[tuple[str, str, int]]
) -> None:
    assert [(call.name, call.through, call.depth) for call in calls_in(text)] == found


def test_arguments_part_at_the_commas_of_the_outermost_level() -> None:
    assert terms("a, f(b, c), { d, e }") == ["a", "f(b, c)", "{ d, e }"]
    assert terms("") == []


def test_what_is_left_without_calls_is_what_a_value_may_be_a_copy_of() -> None:
    assert without_calls("PTR_ERR(dentry) ?: look(name)").split() == ["(dentry)", "?:"]


FILE = """
#ifdef CONFIG_A
int f(void)
{
        return 1;
}
#else
int f(void)
{
        return 2;
}
#endif
int g(
#ifdef CONFIG_A
        int a)
#else
        int b)
#endif
{
        return 3;
}
"""


@pytest.mark.parametrize(("config", "line"), [({"CONFIG_A": "y"}, 3), ({}, 8)])
def test_of_two_definitions_the_compiled_one_is_taken_with_the_lines_of_the_file(
    config: dict[str, str], line: int
) -> None:
    found = SlicedFile(FILE, config).function("f", [3, 8])
    assert found is not None
    source, function = found
    assert (function.first_line, function.last_line) == (line, line + 3)
    assert source.line_of(function.start) == line + 1


def test_a_function_whose_head_holds_directives_is_taken_from_the_whole_file() -> None:
    found = SlicedFile(FILE, {}).function("g", [13])
    assert found is not None
    assert found[1].first_line == 13


def test_a_function_that_is_not_compiled_or_not_there_is_none() -> None:
    assert SlicedFile(FILE, {}).function("f", [3]) is None
    assert SlicedFile(FILE, {}).function("h", [400]) is None
