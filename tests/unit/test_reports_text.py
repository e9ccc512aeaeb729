"""Text from traces on its way into a report: neutralised, highlighted, folded."""

from __future__ import annotations

import dataclasses
import itertools

from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from reports import excerpt, findings, highlight
from reports.visible import command_line, counted, interval, percent, place, prose, visible, visible_source
from tests.unit import sample_analysis as samples
from tests.unit.sample_analysis import HOSTILE


@given(st.text())
def test_visible_text_is_printable(text: str) -> None:
    """Whatever a trace holds, what is shown has no control, direction or line-break character, and encodes."""
    shown = visible(text)
    assert shown.isprintable()
    shown.encode("utf-8")
    assert all(part.isprintable() for part in visible_source(text).split("\t"))
    assert prose(text).isprintable()


def test_visible_shows_what_was_there() -> None:
    """An escape sequence is spelled out rather than dropped."""
    assert visible("\x1b[31mred\u202e\ud800") == "\\x1b[31mred\\u202e\\ud800"
    assert visible("naïve_函数") == "naïve_函数"


def test_long_names_are_cut() -> None:
    """A name of a megabyte becomes a line."""
    assert len(visible("x" * 1_000_000)) == 161
    assert len(visible_source("\t".join(["y" * 1000] * 1000))) < 2000


def test_numbers_are_not_rounded_into_certainty() -> None:
    """99.99% is not shown as 100%, nor a trace of probability as 0%."""
    assert [percent(p) for p in (0, 0.0001, 0.012, 0.45, 0.987, 0.9999, 1)] == [
        "0%", "<0.1%", "1.2%", "45%", "98.7%", ">99.9%", "100%",
    ]  # fmt: skip
    assert interval(0.031, 0.0625) == "3.1–6.2%"
    assert (counted(1, "sample"), counted(2000, "sample")) == ("1 sample", "2,000 samples")


def test_places_and_commands_are_spelled_as_typed() -> None:
    """A file without a line, no file at all, and arguments that a shell would expand."""
    assert (place("a.c", 3), place("a.c", 0), place("", 3)) == ("a.c:3", "a.c", "place unknown")
    assert command_line(["echo", "$(id)", "a b"]) == "echo '$(id)' 'a b'"


@given(st.lists(st.text(alphabet=st.characters(exclude_characters="\n")), max_size=12))
def test_highlighting_loses_nothing(lines: list[str]) -> None:
    """Without its tags, each highlighted line is the line, escaped; no other tag comes out."""
    rendered = highlight.highlight(lines)
    assert len(rendered) == len(lines)
    for markup, line in zip(rendered, lines, strict=True):
        bare = str(markup).replace("</i>", "")
        for letter in "pscktmfb":
            bare = bare.replace(f"<i class={letter}>", "")
        assert Markup(bare).unescape() == line
        assert "<" not in bare


def test_comment_over_several_lines_keeps_its_colour() -> None:
    """Lines are lexed together, so the second line of a comment is a comment."""
    first, second = highlight.highlight(["\tx = 1; /* if", " * else */"])
    assert "<i class=c>/* if</i>" in first
    assert second == "<i class=c> * else */</i>"


def test_hostile_lines_are_escaped_in_both_ways() -> None:
    """Highlighted or, beyond the limit, plain: markup in source is text."""
    short = highlight.highlight(list(HOSTILE[:2]))
    long = highlight.highlight([HOSTILE[0]] * (highlight.LINES_AT_MOST + 1))
    assert all("<script" not in line and "<img" not in line for line in [*short, *long[:3]])


@given(st.lists(st.booleans(), max_size=60), st.integers(0, 5), st.integers(1, 12))
def test_folding_covers_every_row_once(interesting: list[bool], context: int, shortest: int) -> None:
    """The stretches follow each other without gap, alternate, and fold no interesting row."""
    stretches = excerpt.fold(interesting, context=context, shortest=shortest)
    rows = [row for stretch in stretches for row in range(stretch.start, stretch.stop)]
    assert rows == list(range(len(interesting)))
    for stretch in stretches:
        if stretch.folded:
            assert not any(interesting[stretch.start : stretch.stop])
            assert len(stretch) >= shortest
    assert all(a.folded != b.folded for a, b in itertools.pairwise(stretches))


def test_a_profile_without_a_named_call_is_headed_as_what_it_is() -> None:
    """An import may name neither system call nor errno: no sentence is made of empty names."""
    analysis = dataclasses.replace(samples.inconclusive(), syscall="", errno="")
    assert findings.headline(analysis) == "Samples per source line"
