"""Comparison of runs: alignment, tests, refusals, and the three outputs."""

from __future__ import annotations

import dataclasses
import io
import json
import random
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from profiler.model import Analysis
from reports import compare
from reports.alignment import align, alike
from reports.comparison import ABSENT, INLINED, PRESENT, ComparedFunction, Comparison, short_labels
from tests.unit import sample_analysis as samples


def function(comparison: Comparison, name: str) -> ComparedFunction:
    return next(f for f in comparison.functions if name in f.names)


def line_pairs(function: ComparedFunction) -> dict[int | None, int | None]:
    """Line of the first run → line of the second."""
    return {a.line if a else None: b.line if b else None for a, b in (row.cells for row in function.lines)}


@given(st.lists(st.sampled_from("abc{}"), max_size=25), st.lists(st.sampled_from("abd{}"), max_size=25))
def test_alignment_keeps_every_line_once_and_in_order(old: list[str], new: list[str]) -> None:
    """Whatever changed, each side comes out whole and in order, and no pair is empty."""
    pairs = align(old, new)
    assert [i for i, _ in pairs if i is not None] == list(range(len(old)))
    assert [j for _, j in pairs if j is not None] == list(range(len(new)))
    assert (None, None) not in pairs


def test_edited_line_stays_the_same_line() -> None:
    """A condition that gained a term is aligned with what it was; a line of another kind is not."""
    old = ["\tif (a->b && c)", "\t\treturn -EIO;", "}"]
    new = ["\tlock(a);", "\tif (a->b && c && d)", "\t\treturn -EIO;", "}"]
    assert align(old, new) == [(None, 0), (0, 1), (1, 2), (2, 3)]
    assert align(["x = frobnicate(y);"], ["return 0;"]) == [(0, None), (None, 0)]


def test_indentation_does_not_matter_for_alignment() -> None:
    """A block that was indented further is the same block."""
    assert align(["if (x)", "\tgo();"], ["\t\tif (x)", "\t\t\tgo();"]) == [(0, 0), (1, 1)]


def test_alignment_of_thousands_of_lines_is_quick() -> None:
    """Two versions of 4,000 lines with many equal ones are aligned in seconds."""
    draw = random.Random(2)
    old = [f"\tstep_{draw.randrange(900)}(h);" if draw.random() < 0.7 else "\t}" for _ in range(4000)]
    new = [line for i, line in enumerate(old) if i % 97]
    begun = time.monotonic()
    assert sum(i is not None and j is not None for i, j in align(old, new)) > 3000
    assert time.monotonic() - begun < 10


def test_functions_are_aligned_across_a_move_to_another_file() -> None:
    """berth_park moved and lost a line: its lines are paired by text, and the move is told."""
    park = function(compare.compare(samples.versions()), "berth_park")
    pairs = line_pairs(park)
    assert (pairs[880], pairs[901], pairs[902], pairs[913]) == (412, 433, 434, 446)
    assert pairs[None] == 439
    assert any(note.startswith("Moved: drivers/harbour/harbour.c in runs/moor-5.10") for note in park.notes)


def test_renamed_function_is_recognized_by_its_text() -> None:
    """The entry under another name is one function, and the renaming is told."""
    entry = function(compare.compare(samples.versions()), "__x64_sys_moor")
    assert entry.names == ["__ia32_compat_moor", "__x64_sys_moor"]
    assert any(note.startswith("Renamed:") for note in entry.notes)


def test_inlined_function_is_not_counted_as_zero() -> None:
    """A function that was inlined in one version is said to be, and none of its lines is tested."""
    moor = function(compare.compare(samples.versions()), "__sys_moor")
    assert moor.presence == [INLINED, PRESENT]
    assert any("not as zero" in note for note in moor.notes)
    assert all(difference is None for line in moor.lines for difference in line.differences)


def test_absent_function_is_not_counted_as_zero() -> None:
    """A run without the function has no cell in any of its lines."""
    park = function(compare.compare(samples.many_versions()), "berth_park")
    assert park.presence == [PRESENT, PRESENT, PRESENT, ABSENT]
    assert all(line.cells[3] is None for line in park.lines)


def test_real_difference_is_found_and_noise_is_not() -> None:
    """The condition that grew from 25% to 45% differs; the unchanged lines do not."""
    park = function(compare.compare(samples.versions()), "berth_park")
    differing = {cells[1].line for line in park.lines if line.differs and (cells := line.cells)[1]}
    assert differing == {425, 434, 443}


def test_run_against_itself_differs_nowhere() -> None:
    """The same analysis twice: same place, no line differs."""
    comparison = compare.compare([("a", samples.named()), ("b", samples.named())])
    assert comparison.agree is True
    assert not any(line.differs for f in comparison.functions for line in f.lines)
    assert comparison.tests > 0


def test_lossy_run_is_not_tested() -> None:
    """A run that lost more than 5% of its samples is shown, flagged, and held against nothing."""
    comparison = compare.compare(samples.many_versions())
    assert "lost 20% of its samples" in comparison.runs[2].excluded
    assert any(notice.severe and "runs/moor-6.12" in notice.text for notice in comparison.notices)
    assert all(line.differences[2] is None for f in comparison.functions for line in f.lines)


def test_emulated_and_real_runs_are_not_tested_against_each_other() -> None:
    """Samples of an emulated run land elsewhere, so a test would find differences that are none."""
    real = samples.named()
    assert real.manifest is not None
    real = dataclasses.replace(real, manifest=dataclasses.replace(real.manifest, emulated=False))
    comparison = compare.compare([("emulated", samples.named()), ("real", real)])
    assert comparison.tests == 0
    assert comparison.runs[1].excluded == "was not emulated, the other was"


def test_few_samples_are_not_tested() -> None:
    """A function with fewer than 30 samples in a run says so instead."""
    few = samples.named()
    park = dataclasses.replace(few.functions[-1], samples=12)
    few = dataclasses.replace(few, functions=[*few.functions[:-1], park])
    compared = function(compare.compare([("few", few), ("many", samples.named())]), "berth_park")
    assert all(d is None for line in compared.lines for d in line.differences)
    assert any("too few samples in it (12)" in note for note in compared.notes)


def test_missing_source_is_said_instead_of_guessed() -> None:
    """Without source text no lines are aligned."""
    compared = function(compare.compare([("a", samples.bare()), ("b", samples.named())]), "berth_park")
    assert compared.lines == []
    assert any("lines cannot be aligned" in note for note in compared.notes)


def shifted(analysis: Analysis, by: int) -> Analysis:
    """The same verdict some lines further down."""
    assert analysis.branch and analysis.error_site
    return dataclasses.replace(
        analysis,
        branch=dataclasses.replace(analysis.branch, line=analysis.branch.line + by),
        error_site=dataclasses.replace(analysis.error_site, line=analysis.error_site.line + by),
        functions=[*analysis.functions[:-1], samples.park_function(412 + by)],
    )


def test_same_place_on_other_lines_is_the_same_place() -> None:
    """Line numbers that moved do not make a different verdict, not even where a condition is unknown."""
    moved = shifted(samples.named(), 55)
    assert moved.branch is not None
    moved = dataclasses.replace(moved, branch=dataclasses.replace(moved.branch, condition=None))
    comparison = compare.compare([("a", samples.named()), ("b", moved)])
    assert comparison.agree is True
    assert comparison.summary.startswith("All runs fail at the same place: berth->boat")


def test_different_verdicts_are_told_apart() -> None:
    """Another function, an inconclusive run and one that did not fail each get their words."""
    other = samples.named()
    assert other.error_site and other.branch
    other = dataclasses.replace(
        other,
        error_site=dataclasses.replace(other.error_site, function="fleet_admit"),
        branch=dataclasses.replace(other.branch, function="fleet_admit"),
    )
    different = compare.compare([("a", samples.named()), ("b", other)])
    assert different.agree is False
    assert different.summary.startswith("The place differs: a:")
    unsure = compare.compare([("a", samples.inconclusive()), ("b", samples.not_reproduced())])
    assert unsure.agree is None
    assert unsure.summary == "No run named a place. a is inconclusive. b did not fail with EADDRINUSE."


def test_labels_are_shortened_to_what_differs() -> None:
    """Columns are headed by the part of the directories that differs."""
    assert short_labels(["runs/uring-5.10", "runs/uring-7.3/"]) == ["5.10", "7.3"]
    assert short_labels(["a/x", "b/x"]) == ["a/x", "b/x"]
    assert short_labels(["same", "same"]) == ["same", "same"]


@pytest.mark.parametrize("make", [samples.versions, samples.many_versions])
@pytest.mark.parametrize("width", [50, 80, 160])
def test_terminal_comparison_fits(make: object, width: int) -> None:
    """Every verdict is there, and no line is wider than the terminal."""
    assert callable(make)
    out = io.StringIO()
    compare.render(compare.compare(make()), Console(file=out, width=width))
    assert all(len(line) <= width for line in out.getvalue().splitlines())
    assert all(label in out.getvalue() for label, _ in make())


def test_pages_and_pictures_are_the_same_every_time(tmp_path: Path) -> None:
    """Equal comparisons give equal bytes, as HTML and as PNG."""
    for name in ("one", "two"):
        comparison = compare.compare(samples.many_versions())
        compare.write_html(comparison, tmp_path / f"{name}.html")
        compare.write_png(comparison, tmp_path / f"{name}.png", theme="dark")
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_hostile_names_come_out_as_text(tmp_path: Path) -> None:
    """Labels, functions and source of a comparison are escaped, on the page and in the terminal."""
    bad = "".join(samples.HOSTILE)
    comparison = compare.compare([(bad, samples.hostile()), ("b" + bad, samples.hostile())])
    compare.write_html(comparison, tmp_path / "c.html")
    compare.write_png(comparison, tmp_path / "c.png")
    page = (tmp_path / "c.html").read_text()
    assert "<script" not in page and "<img" not in page and "<svg/onload" not in page
    out = io.StringIO()
    compare.render(comparison, Console(file=out, width=90))
    assert not set(out.getvalue()) & {"\x1b", "\x07", "\r", "\u202e"}


def test_big_comparisons_stay_within_the_page_limit(tmp_path: Path) -> None:
    """Functions of thousands of lines on both sides make at most 1.5 MB."""
    comparison = compare.compare([("a", samples.huge(3000, 3)), ("b", samples.huge(3100, 3))])
    compare.write_html(comparison, tmp_path / "c.html")
    assert (tmp_path / "c.html").stat().st_size <= 1_500_000


def test_one_run_is_no_comparison() -> None:
    """Fewer than two runs is the caller's mistake."""
    with pytest.raises(ValueError, match="two runs"):
        compare.compare(samples.versions()[:1])


def test_comparison_has_a_json_form() -> None:
    """A comparison is plain data."""
    assert json.loads(json.dumps(dataclasses.asdict(compare.compare(samples.versions()))))["agree"] is True


def test_edited_condition_on_the_same_line_is_the_same_place() -> None:
    """The condition gained a term between the versions: one place, and the change is told."""
    comparison = compare.compare(samples.versions())
    assert comparison.agree is True
    assert "though it reads differently: runs/moor-5.10: berth->boat && !boat_shares(b)" in comparison.summary


def test_likeness_ignores_trivial_lines() -> None:
    """Braces and blank lines in common make no two functions alike."""
    assert alike(["{", "\ta = b + c;", "}"], ["{", "\treturn x->y;", "}"]) == 0
    assert alike([], []) == 0


def test_values_and_rungs_of_each_run_are_shown(tmp_path: Path) -> None:
    """The condition's values stand below it, in the terminal too; the page has each run's ladder, folded."""
    compared = compare.compare([("climbed", samples.climbed()), ("before", samples.older())])
    out = io.StringIO()
    compare.render(compared, Console(file=out, width=120))
    assert "  with 0xffff888004c1e000 && !(false && berth->shared)\n" in re.sub(r" +\n", "\n", out.getvalue())
    compare.write_html(compared, tmp_path / "compare.html")
    page = (tmp_path / "compare.html").read_text()
    assert "<summary>6 of 7 rungs taken</summary>" in page
    assert "<b>instruction log</b>: not needed: the verdict was decided without it" in page
    assert "The kernel logged filesystem errors meanwhile." in page
