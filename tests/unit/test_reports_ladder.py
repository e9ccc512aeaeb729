"""The ladder in the terminal and on the page: rungs, values, the manual, the kernel log, the source's candidates."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from profiler.evidence import RUNGS
from profiler.model import (
    Analysis,
    Branch,
    Conclusion,
    EvidenceNote,
    GraphComparison,
    GraphLine,
    Meaning,
    Operand,
    RungState,
)
from reports import findings, html, ladder, terminal, walk
from tests.unit import sample_analysis as samples
from tests.unit.test_reports_html import Page

ROOT = Path(__file__).parents[2]


def shown(analysis: Analysis, width: int = 100) -> str:
    out = io.StringIO()
    terminal.render(analysis, Console(file=out, width=width))
    return re.sub(r" +\n", "\n", out.getvalue())


def page(analysis: Analysis) -> Page:
    return Page(html.report_page(analysis).decode())


def test_every_rung_has_a_name_and_the_order_is_the_ladder_s() -> None:
    assert tuple(ladder.WORDS) == RUNGS
    assert tuple(note.source for note in ladder.rungs(samples.climbed())) == RUNGS


def test_what_is_no_rung_of_the_ladder_comes_last_as_it_came() -> None:
    """The notes of earlier versions stay readable."""
    assert [note.source for note in ladder.rungs(samples.named())] == ["samples", "callchains", "return-value"]
    assert "callchains" in shown(samples.named())


def test_each_rung_says_what_it_found_excluded_took_and_cost() -> None:
    text = shown(samples.climbed())
    assert re.search(r"graph +32 failing and 32 succeeding calls part in berth_park\(\) +31 +0\.6 s +87%", text)
    assert re.search(r"man +moor\(2\) has two .* +0 +<0\.1 s +–", text)
    words = page(samples.climbed()).text
    assert re.search(r"function graph 32 failing and 32 succeeding calls part in berth_park\(\) 310\.6 s87%", words)


def test_a_rung_not_taken_says_why_and_has_no_figures() -> None:
    assert re.search(r"exact +not needed: the verdict was decided without it +– +– +–\n", shown(samples.climbed()))
    assert "instruction log not needed the verdict was decided without it" in page(samples.climbed()).text
    note = EvidenceNote("probes", "not among those asked for", 0, 0.0, RungState.NOT_ASKED)
    assert ladder.found(samples.named(), note) == "not asked"


def test_narrow_terminal_has_the_figures_below() -> None:
    """Where there is no room for columns nothing is left out."""
    text = shown(samples.climbed(), 50)
    assert re.search(
        r"graph +32 failing and 32 succeeding calls part\n +in berth_park\(\)\n +31 out, 0.6 s, load 87%", text
    )
    assert max(map(len, text.splitlines())) <= 50


@pytest.mark.parametrize(
    ("overhead", "says"), [(None, "–"), (0.0, "0%"), (-0.2, "0%"), (0.0004, "0%"), (0.123, "12%"), (0.9999, "100%")]
)
def test_overhead_is_a_percentage_or_nothing(overhead: float | None, says: str) -> None:
    """A load that was faster by chance was not slowed down."""
    assert ladder.slowed(EvidenceNote("graph", "", 0, 1.0, overhead=overhead)) == says


def test_rungs_that_disagree_are_a_caution_after_the_verdict() -> None:
    text = " ".join(shown(samples.climbed(), 300).split())
    assert "caution Two rungs disagree. Probes: the samples put 0.4% on berth_create()" in text
    assert "Disagrees: the samples put 0.4% on berth_create()" in page(samples.climbed()).text


def test_values_stand_with_the_condition_and_at_the_branch_s_line() -> None:
    text = shown(samples.climbed())
    assert re.search(r"values +0xffff888004c1e000 && !\(false && berth->shared\)\n", text)
    assert "berth->boat = 0xffff888004c1e000, boat_shares(b) = false" in text
    assert re.search(r"▸ +434 .*\n(.*deciding branch\n)? +↑ 0xffff888004c1e000 && !\(false", text)
    tags = page(samples.climbed()).tags
    classes = [attributes.get("class") for tag, attributes in tags if tag == "tr"]
    at = next(i for i, name in enumerate(classes) if name and "branch" in name.split())
    assert classes[at + 1] == "inl vals"


@pytest.mark.parametrize(
    ("values", "outcome", "ends"),
    [
        ("16 > 0", True, "in berth_park(): 16 > 0"),
        ("16 <= 0", False, "in berth_park(): 16 <= 0 was false"),
        ("", True, "in berth_park()"),
        ("x" * 25, True, "in berth_park()"),
    ],
)
def test_headline_has_the_values_where_they_are_short(values: str, outcome: bool, ends: str) -> None:
    whole = samples.named()
    assert whole.branch is not None
    branch = dataclasses.replace(whole.branch, values=values, outcome=outcome)
    assert findings.headline(dataclasses.replace(whole, branch=branch)).endswith(ends)


def test_without_values_nothing_is_said_of_them() -> None:
    """Analyses of earlier versions have none."""
    assert "values" not in shown(samples.named())
    assert not [a for _, a in page(samples.named()).tags if a.get("class") in ("values", "inl vals", "manual", "grave")]


@pytest.mark.parametrize(
    ("meaning", "says"),
    [
        (Meaning("bind(2)", True, "The address is in use."), "bind(2): The address is in use."),
        (
            Meaning("bind(2)", False, "", [], "Out of memory."),
            "ENOMEM is not documented in bind(2): errno(3) says: Out of memory.",
        ),
        (Meaning("errno(3)", False, "", [], "Out of memory."), "errno(3): Out of memory."),
        (
            Meaning("bind(2)", True, "", ["a", "b"]),
            "bind(2) has 2 entries of ENOMEM: which of them it is, is not known",
        ),
        (Meaning("nothing(2)", False, ""), "ENOMEM is not documented in nothing(2)"),
    ],
)
def test_the_manual_is_quoted_or_said_to_be_silent(meaning: Meaning, says: str) -> None:
    analysis = dataclasses.replace(samples.named(), errno="ENOMEM", meaning=meaning)
    assert re.search(rf"manual +{re.escape(says)}\n", shown(analysis, 200))
    assert says.partition(":")[0] in page(analysis).text
    assert all(entry in page(analysis).text for entry in meaning.others)


def test_errors_of_a_disk_come_before_the_verdict_and_other_lines_after_it() -> None:
    text, words = shown(samples.climbed()), page(samples.climbed()).text
    for each in (text, words):
        assert each.index("EXT4-fs error") < each.index("moor() returns EADDRINUSE") < each.index("apparmor=")
    assert text.index('apparmor="DENIED"') < text.index("perf: interrupt took too long")
    assert "… and 5 more, --json for all" in text
    assert "8 more lines that nothing suggests had a part in it" in words


def test_the_source_s_candidates_are_crossed_out_rung_by_rung() -> None:
    """What is left comes first, then what the later rungs ruled out; the rest is counted, and folded on the page."""
    tally = (
        "43 places in the source can return EADDRINUSE: 31 ruled out by function graph, 9 ruled out by samples, "
        "2 ruled out by probes, 1 left."
    )
    text, words = shown(samples.climbed(), 200), page(samples.climbed()).text
    assert tally in text and tally in words
    places = text.partition("Places in the source")[2]
    assert re.search(r"verdict +berth_park drivers/harbour/berth.c:433\n +berth->boat && ", places)
    assert re.findall(r"^(verdict|left|probes|samples|graph) ", places, re.MULTILINE) == [
        "verdict",
        *["probes"] * 2,
        *["samples"] * 2,
    ]
    assert "… and 38 more, --json for all" in places
    assert "35 more places" in words
    rows = [
        a.get("class") for tag, a in page(samples.climbed()).tags if tag == "tr" and a.get("class") in ("in", "out")
    ]
    assert rows.count("out") == 42


def test_trees_of_failing_and_succeeding_calls_stand_side_by_side() -> None:
    """Both columns, where they part, what is only in one, what was returned; what is left out is counted."""
    text, words = shown(samples.climbed()), page(samples.climbed()).text
    assert "32 failing calls and 31 succeeding calls, told apart by harbour_log()" in words
    assert "They part in berth_park(): only succeeding calls log" in words
    assert re.search(r"here they part ?berth_release ?harbour_log", words)
    assert "They part in berth_park(): only succeeding calls log." in text
    assert "+ and a number: so many calls below" in words
    tags = page(samples.climbed()).tags
    assert len([tag for tag, a in tags if (a.get("class") or "").startswith("d d")]) <= 2 * html.GRAPH_AT_MOST


def test_a_deep_tree_keeps_within_the_page() -> None:
    """Indentation ends at some depth, and so does the number of rows."""
    lines = [GraphLine(depth, f"f{depth}", True, None) for depth in range(500)]
    deep = dataclasses.replace(samples.named(), graph=GraphComparison(3, 0, "nothing", lines))
    classes = {a.get("class") for tag, a in page(deep).tags if tag == "span"}
    assert "d d24" in classes and "d d25" not in classes
    assert "succeeding" not in [word.strip() for word in page(deep).words]
    assert "Function graph" in shown(deep)


def test_the_verdict_s_place_is_shown_with_the_condition_that_decided() -> None:
    """A walk of the source alone may see another way to the same statement."""
    whole = samples.climbed()
    other = [dataclasses.replace(one, condition="tide > 3", condition_line=7) for one in whole.source_candidates]
    analysis = dataclasses.replace(whole, source_candidates=other)
    kept = next(one for one in other if not one.excluded_by)
    deciding = "berth->boat && !(boat_shares(b) && berth->shared)"
    assert ladder.condition(analysis, kept) == (deciding, "drivers/harbour/berth.c:434")
    assert ladder.condition(analysis, other[0]) == ("tide > 3", "line 7")
    assert re.search(r"verdict +berth_park .*\n +berth->boat", shown(analysis))


def test_many_candidates_do_not_make_the_page_grow_without_end() -> None:
    """Beyond some hundreds they are counted, not listed."""
    whole = samples.climbed()
    many = dataclasses.replace(whole, source_candidates=whole.source_candidates * 100)
    assert len(html.report_page(many)) < 1_500_000
    assert "and 4,000 more places, all in analysis.json" in page(many).text


def test_what_the_walk_rests_on_follows_the_rungs_that_were_taken() -> None:
    """A log that was not needed does not make lines executed; probes that named nothing did not see the walk."""
    assert "probes on the running kernel saw" in walk.words(samples.climbed()).sentence
    open_verdict = dataclasses.replace(samples.climbed(), conclusion=Conclusion.INCONCLUSIVE)
    assert "likeliest walk" in walk.words(open_verdict).sentence
    assert not walk.is_observed(samples.climbed())
    assert walk.is_observed(samples.executed())


def test_effort_names_every_kind_that_the_verdict_rests_on() -> None:
    assert findings.evidence_words(samples.climbed()) == "probes, samples and function graph"
    assert "2.0 s and 16,204 samples, 0.6 s of function graph, and 0.4 s of probes" in findings.effort_sentence(
        samples.climbed()
    )


def test_a_branch_that_only_jumped_may_have_values() -> None:
    branch = Branch("f", "a.c", 1, "f+0x1", None, None, values="3 of 4")
    assert findings.headline(dataclasses.replace(samples.named(), branch=branch)).endswith(": 3 of 4 decided")


def test_long_values_are_cut_at_the_terminal_s_edge_and_say_so() -> None:
    whole = samples.climbed()
    assert whole.branch is not None
    long = dataclasses.replace(whole, branch=dataclasses.replace(whole.branch, values="slot + " * 40 + "1 > 0"))
    rows = [row for row in shown(long, 80).splitlines() if "↑ slot" in row]
    assert len(rows) == 1
    assert len(rows[0]) == 80
    assert rows[0].endswith("…")


def test_the_manual_s_entry_is_not_printed_whole_twice() -> None:
    """It stands with the verdict; the rung has its beginning."""
    entry = (
        "the caller tried to lock more memory than the limit permitted, and was not privileged to do so (CAP_IPC_LOCK)"
    )
    note = EvidenceNote("man", f"mlock(2), the one of 4 entries that fits: {entry}", 0, 0.0)
    analysis = dataclasses.replace(samples.named(), evidence=[note], meaning=Meaning("mlock(2)", True, entry))
    assert shown(analysis, 300).count("not privileged") == 1
    assert page(analysis).text.count("not privileged") == 1
    assert "the one of 4 entries that fits: the caller tried to lock" in page(analysis).text


def test_hostile_text_in_every_rung_stays_text() -> None:
    """Log lines, manual entries, conditions and values come from elsewhere: no control character, no tag."""
    text = shown(samples.hostile(), 300)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    assert not [tag for tag, _ in page(samples.hostile()).tags if tag in ("script", "img", "svg/onload", "iframe")]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "sample_data").glob("*/analysis.json")), ids=lambda path: path.parent.name
)
def test_analyses_of_earlier_versions_still_render(path: Path) -> None:
    """Saved before there was a ladder: its notes are shown, and nothing is said of what was not looked at."""
    analysis = Analysis.from_json(json.loads(path.read_text()))
    text, words = shown(analysis), page(analysis).text
    for note in analysis.evidence:
        assert re.search(rf"^{note.source} +\S", text, re.MULTILINE)
    assert findings.headline(analysis) in words
    assert not any(heading in text for heading in ("Places in the source", "Kernel log", "Function graph", "manual "))


def test_an_operand_that_the_condition_shows_is_not_listed_again() -> None:
    branch = Branch("f", "f.c", 3, "", "g(x)", True, [], [Operand("g(x)", "1", 1)], "g(x) = 1")
    assert findings.operands(branch) == []
    assert findings.operands(dataclasses.replace(branch, values="")) == [("g(x)", "1")]
    both = [Operand("cur", "16", 16), Operand("limit", "0", 0)]
    assert findings.operands(dataclasses.replace(branch, operands=both)) == [("cur", "16"), ("limit", "0")]
