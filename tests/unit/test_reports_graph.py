"""Two call trees side by side in a terminal, and the places that they rule out."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from profiler.model import ErrorSite, GraphComparison, GraphLine, SourceCandidate
from reports import graph_rows, terminal_graph

BOTH, FAILS, SUCCEEDS = (True, True), (True, False), (False, True)


def line(depth: int, function: str, sides: tuple[bool, bool | None], **more: object) -> GraphLine:
    return GraphLine(depth, function, *sides, **more)  # type: ignore[arg-type]


# The example of the method.
LINES = [
    line(0, "__x64_sys_io_uring_setup", BOTH, failing_returned="-12", succeeding_returned="3"),
    line(1, "io_uring_setup", BOTH),
    line(2, "capable", BOTH),
    line(3, "ns_capable_common", BOTH),
    line(2, "free_uid", FAILS, diverges=True),
    line(2, "kmem_cache_alloc_trace", SUCCEEDS),
    line(3, "should_failslab", SUCCEEDS),
    line(2, "fd_install", SUCCEEDS),
]
COMPARISON = GraphComparison(3, 4, "what each call returned", LINES, "in io_uring_setup(), behind capable()")


def shown(comparison: GraphComparison, width: int = 80, **options: object) -> str:
    out = io.StringIO()
    terminal_graph.render(comparison, Console(file=out, width=width), **options)  # type: ignore[arg-type]
    return out.getvalue()


def sides(text: str) -> list[tuple[str, str]]:
    rows = [row.split(" │ ") for row in text.splitlines() if " │ " in row]
    return [(left.rstrip(), right.rstrip()) for left, right in rows]


def test_what_both_call_stands_in_one_row_and_what_differs_side_by_side() -> None:
    assert sides(shown(COMPARISON)) == [
        ("failing", "succeeding"),
        ("__x64_sys_io_uring_setup = -12", "__x64_sys_io_uring_setup = 3"),
        ("  io_uring_setup", "  io_uring_setup"),
        ("    capable", "    capable"),
        ("      ns_capable_common", "      ns_capable_common"),
        ("    free_uid", "    kmem_cache_alloc_trace"),
        ("", "      should_failslab"),
        ("", "    fd_install"),
    ]


def test_the_parting_is_marked_above_the_first_row_that_differs() -> None:
    """In words, so that it needs no colour."""
    text = shown(COMPARISON).splitlines()
    mark = next(index for index, row in enumerate(text) if "here they part" in row)
    assert "free_uid" in text[mark + 1]
    assert "They part in io_uring_setup(), behind capable()." in text


@pytest.mark.parametrize("width", [40, 80, 132])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    deep = [line(depth, "a_function_with_a_rather_long_name_" + str(depth), BOTH) for depth in range(40)]
    for comparison in (COMPARISON, GraphComparison(1, 1, "", deep)):
        assert all(len(row) <= width for row in shown(comparison, width, most=100).splitlines())


def test_deeper_calls_are_further_in_at_any_width() -> None:
    """A long name is cut short rather than moved out."""
    deep = [line(depth, "function_of_some_length", BOTH) for depth in range(15)]
    rows = sides(shown(GraphComparison(1, 1, "", deep), most=100))[1:]
    indents = [len(left) - len(left.lstrip()) for left, _ in rows]
    assert indents == list(range(15))


def test_no_colour_goes_where_no_terminal_is() -> None:
    assert "\x1b" not in shown(COMPARISON)


def test_names_cannot_reach_the_terminal_raw() -> None:
    odd = GraphComparison(1, 1, "\x1b[31m", [line(0, "bad\x1b[2J", BOTH, failing_returned="\x07")])
    assert "\x1b" not in shown(odd)
    assert "\x07" not in shown(odd)


def test_without_succeeding_calls_there_is_one_column() -> None:
    alone = [line(0, "f", (True, None)), line(1, "a", (True, None), note="20 times")]
    text = shown(GraphComparison(5, 0, "every call failed", alone))
    assert "│" not in text
    assert "5 failing calls; none that succeeded (every call failed)" in text
    assert text.splitlines()[-1].split() == ["a", "20", "times"]


def test_a_long_tree_is_shown_around_the_parting_and_the_rest_is_counted() -> None:
    """Of 300 functions called alike those beside the parting are shown, and the counts add up to all the others."""
    before = [line(2, f"before_{number}", BOTH) for number in range(300)]
    lines = [line(0, "entry", BOTH), line(1, "outer", BOTH), *before, line(2, "differs", FAILS, diverges=True)]
    found = graph_rows.rows(GraphComparison(1, 1, "", lines), 20)
    names = [row.failing.function for row in found if row.failing]
    assert len(found) == 20
    assert names[-2:] == ["before_299", "differs"]
    assert sum(row.failing.hidden for row in found if row.failing) + len(names) == len(lines)


def test_depth_limits_what_is_shown() -> None:
    assert "ns_capable_common" not in shown(COMPARISON, deepest=2)
    assert "capable +1" in shown(COMPARISON, deepest=2)


def test_nothing_recorded_is_said_and_nothing_drawn() -> None:
    assert (
        shown(GraphComparison(0, 0, "cannot be told", [])).strip()
        == "0 failing calls; none that succeeded (cannot be told)"
    )


def test_candidates_are_told_apart_by_whether_they_are_out() -> None:
    left = SourceCandidate(ErrorSite("f", "a.c", 3, ""), "!x", 2, ["f"])
    out = [
        SourceCandidate(ErrorSite(f"g{n}", "b.c", n, ""), None, 0, [], "graph", f"g{n}() was not called")
        for n in range(20)
    ]
    written = io.StringIO()
    terminal_graph.render_candidates([left, *out], Console(file=written, width=80), most=5, cut="three pointers")
    text = written.getvalue()
    assert "Still possible  1 place of 21" in text
    assert "Excluded  20 places of 21" in text
    assert "g4() was not called" in text
    assert "g5() was not called" not in text
    assert "and 15 more places, all with --json" in text
    assert "Not in the list: three pointers." in text
