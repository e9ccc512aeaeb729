"""The list of places in the source, in a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from profiler.model import ErrorSite, SourceCandidate, SourceList
from reports.terminal_candidates import render, way
from reports.terminal_text import Writer


def candidate(number: int = 1, via: list[str] | None = None, out: str = "") -> SourceCandidate:
    site = ErrorSite(f"f{number}", "net/ipv4/a.c", 10 * number, "", "err = -EINVAL;")
    return SourceCandidate(site, "!sk || [red]x[/red]", 9, via or ["__do_sys_bind", f"f{number}"], out, out and "why")


def printed(listed: SourceList, width: int = 80) -> list[str]:
    stream = io.StringIO()
    render(listed, "EINVAL", "Linux 6.1", Writer(Console(file=stream, width=width, color_system=None)))
    return stream.getvalue().split("\n")


def test_each_place_has_its_line_statement_condition_and_calls_within_80_columns() -> None:
    lines = printed(SourceList([candidate(), candidate(2, out="graph")], "9 calls were not followed"))
    text = "\n".join(lines)
    for piece in (
        "2 places in the source of Linux 6.1 can produce EINVAL",
        "net/ipv4/a.c:10  f1",
        "    err = -EINVAL;",
        "    decided by line 9: !sk || [red]x[/red]",
        "    __do_sys_bind > f1",
        "    out by graph: why",
        "Left out: 9 calls were not followed.",
    ):
        assert piece in text
    assert max(map(len, lines)) <= 80


def test_a_long_list_says_how_many_more_there_are_and_an_empty_one_that_there_is_none() -> None:
    assert "10 more, farther from the entry" in "\n".join(printed(SourceList([candidate(n) for n in range(70)])))
    assert "has no place in this call's tree that sets EINVAL." in " ".join(printed(SourceList([])))


def test_a_long_way_has_its_middle_left_out() -> None:
    assert way(candidate(via=list("abcdefgh"))) == "a > b > ... > f > g > h"
    assert way(candidate(via=list("abcde"))) == "a > b > c > d > e"
