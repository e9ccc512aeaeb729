"""The report in a terminal."""

from __future__ import annotations

import dataclasses
import io
import re

import pytest
from rich.console import Console

from profiler.model import Analysis, Effort
from reports import findings, terminal
from tests.unit import sample_analysis as samples


def shown(analysis: Analysis, width: int = 80, **options: object) -> str:
    out = io.StringIO()
    terminal.render(analysis, Console(file=out, width=width, **options))  # type: ignore[arg-type]
    return out.getvalue()


def test_verdict_comes_first() -> None:
    """The first lines name call, errno, function, branch and outcome."""
    head = "\n".join(shown(samples.named()).splitlines()[:8])
    for words in ("NAMED", "moor() fails with EADDRINUSE in berth_park()", "was true", "berth.c:434", "berth.c:433"):
        assert words in head


@pytest.mark.parametrize(
    "make",
    [samples.named, samples.climbed, samples.executed, samples.inconclusive, samples.not_reproduced, samples.bare],
)
@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_is_wider_than_the_terminal(make: object, width: int) -> None:
    """At any width, lines are cut or wrapped, never left to the terminal."""
    assert callable(make)
    assert all(len(line) <= width for line in shown(make(), width).splitlines())


def test_report_is_one_or_two_screens() -> None:
    """At 80 columns the report is at most 80 lines, however long the function is; with the whole ladder, 125."""
    assert len(shown(samples.named()).splitlines()) <= 80
    assert len(shown(samples.huge()).splitlines()) <= 100
    assert len(shown(samples.climbed()).splitlines()) <= 125


@pytest.mark.parametrize(
    ("effort", "says"),
    [
        (Effort(["samples"], 16204, 2.0, stopped_by="verdict"), "decided after 2.0 s and 16,204 samples; the method"),
        (Effort(["exact"], 0, 0.0, 8, 16384, "replay"), "decided after 8 logged calls (16,384 instructions); the"),
        (Effort(["samples", "exact"], 9, 10.0, 1, 7, "time"), "after 10.0 s (all that was asked for) and 9 samples,"),
        (Effort(["samples", "exact"], 9, 10.0, 1, 7, "verdict"), "9 samples, and 1 logged call (7 instructions); the"),
    ],
)
def test_what_the_verdict_took_is_said_against_the_fixed_time(effort: Effort, says: str) -> None:
    """Kinds of evidence, seconds, samples and calls, and the method's 30 s; nothing where it is not known."""
    text = " ".join(shown(dataclasses.replace(samples.named(), effort=effort), 200).split())
    assert says in text
    assert "the method records 30 s" in text
    assert "the method records" not in shown(samples.named())
    undecided = dataclasses.replace(samples.inconclusive(), effort=effort)
    assert f"not {findings.effort_sentence(undecided)[4:]}" in " ".join(shown(undecided, 200).split())


def test_the_kind_of_evidence_stands_at_the_top() -> None:
    """A log and samples are told apart before anything else is shown; without samples none are counted."""
    top = shown(samples.executed()).partition("From the system call")[0]
    assert re.search(r"evidence +instruction log\n", re.sub(r" +\n", "\n", top))
    assert "none taken" in top
    assert "translation block" not in top
    assert re.search(r"evidence +samples *\n", shown(samples.named()))


def test_walk_is_shown_line_by_line() -> None:
    """Executed and other lines bear different marks, branches say where they went on, what is folded is counted."""
    text = shown(samples.executed())
    assert "These lines were executed" in text
    assert re.search(r"426 ● +if \(!berth\) \{  → 433\n", text)
    assert re.search(r"428 ○ +if \(err\)\n", text)
    assert re.search(r"431   +\}\n", text)
    assert re.search(r"⋮ +4 lines, 2 of them not executed", text)
    assert "%" not in text.partition("error set here")[0].partition("went on")[2]
    assert "likeliest walk" in shown(samples.named())
    assert "These lines were executed" not in shown(samples.named())


def test_direction_is_never_cut_off() -> None:
    """Of a long line the code is cut, not where the branch went on; lines stay within the terminal."""
    whole = samples.executed()
    park = whole.functions[-1]
    lines = [dataclasses.replace(line, text=(line.text or "") + " /* tide */" * 9) for line in park.lines]
    long = dataclasses.replace(whole, functions=[dataclasses.replace(park, lines=lines)])
    for width in (40, 80):
        rows = shown(long, width).splitlines()
        assert any(row.endswith("→ 433") for row in rows)
        assert max(map(len, rows)) <= width


def test_source_around_branch_and_site_is_marked() -> None:
    """The error site and the branch carry their labels, the line numbers are right, far lines are left out."""
    text = shown(samples.named(), 130)
    assert re.search(r"▸ +433 .*err = -EADDRINUSE;  ← error set here", text)
    assert re.search(r"▸ +434 .*berth->shared\)\)  → 435  ← deciding branch", text)
    assert "43.9–46.3%" in text
    assert "⋮" in text
    assert "A slot beyond the quay never existed" not in text


def test_chain_shows_the_source_of_each_call() -> None:
    """A call is shown with the line that makes it."""
    assert re.search(r"└ berth_park  drivers/harbour/moor.c:182  err = h->ops->park", shown(samples.named(), 120))


def test_hostile_text_cannot_drive_the_terminal() -> None:
    """No control character but the line break comes out, and rich's markup is not interpreted."""
    text = shown(samples.hostile(), 300)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    assert "\\x1b[31mred" in text
    assert "[bold red]markup[/]" in text
    text.encode("utf-8")


def test_colour_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe gets no escape sequence, a terminal gets colour, a terminal with NO_COLOR gets none."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b" not in shown(samples.named())
    coloured = re.compile(r"\x1b\[[0-9;]*3[0-9]")
    assert coloured.search(shown(samples.named(), force_terminal=True))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not coloured.search(shown(samples.named(), force_terminal=True))


def test_ascii_terminal_gets_ascii() -> None:
    """With LANG=C and Python told so, no character outside ASCII is printed, and nothing raises."""
    raw = io.BytesIO()
    for make in (samples.named, samples.climbed, samples.hostile, samples.not_reproduced):
        with io.TextIOWrapper(raw, encoding="ascii", write_through=True) as file:
            terminal.render(make(), Console(file=file, width=100))
            written = raw.getvalue()
        raw = io.BytesIO()
        assert written and written.isascii()
        assert make is samples.hostile or b"\\u" not in written  # what is of our own has a plain form


def test_lost_samples_are_prominent() -> None:
    """Lost and throttled samples are cautions, straight after the verdict."""
    text = shown(samples.inconclusive())
    assert text.index("caution     212 samples lost") < text.index("From the system call")


def test_not_reproduced_shows_what_came_instead() -> None:
    """The counts per result are printed, most frequent first."""
    text = shown(samples.not_reproduced())
    assert re.search(r"EACCES +1,204,318", text)
    assert text.index("EACCES   ") < text.index("EINTR   ") < text.index("success   ")
    assert "Candidates" not in text
