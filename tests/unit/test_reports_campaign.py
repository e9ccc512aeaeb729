"""The index of a campaign."""

from __future__ import annotations

import dataclasses
import io
import re
from pathlib import Path

from rich.console import Console

from reports import campaign
from tests.unit.sample_analysis import HOSTILE, campaign_rows


def test_every_run_is_accounted_for(tmp_path: Path) -> None:
    """All 18 runs are on the page with their links, those without a conclusion too."""
    campaign.write_index(campaign_rows(), tmp_path / "index.html", title="First")
    page = (tmp_path / "index.html").read_text()
    assert page.count('<td data-label="run">') == 18
    assert 'href="./runs/moor-eaddrinuse-vm-5.10-1/report.html"' in page
    assert "The guest panicked." in page and "No end within 900 s." in page
    assert "13 of 14 verdicts held against the truth are right." in page


def test_repeats_that_ended_alike_are_one_entry() -> None:
    """Two equal verdicts are one spot of two; two different ones are two spots."""
    rows = campaign_rows()
    assert [spot.times for spot in campaign.spots(rows[:2])] == [2]
    assert [spot.row.status for spot in campaign.spots(rows[2:4])] == ["named", "inconclusive"]


def test_tally_counts_conclusions_first() -> None:
    """Every way to end is counted, failures last."""
    assert [(words, number) for words, _, number in campaign.tally(campaign_rows())] == [
        ("Named", 14), ("Inconclusive", 1), ("Not reproduced", 1), ("Crashed", 1), ("Error", 1),
    ]  # fmt: skip


def test_links_cannot_leave_the_page_s_directory_by_a_scheme(tmp_path: Path) -> None:
    """A report path that looks like a script address, or breaks out of the attribute, stays a relative path."""
    rows = [dataclasses.replace(campaign_rows()[0], report=bad, scenario=bad, reason=bad) for bad in HOSTILE]
    campaign.write_index(rows, tmp_path / "index.html", title=HOSTILE[0])
    page = (tmp_path / "index.html").read_text()
    links = re.findall(r'href="([^"]*)"', page)
    assert all(re.fullmatch(r"#main|data:,|\./[A-Za-z0-9%._~/-]*", link) for link in links)
    assert "<script" not in page and "<img" not in page


def test_terminal_table_has_a_row_a_scenario_and_the_failures() -> None:
    """Scenario by target, then the runs that ended without a conclusion and why."""
    out = io.StringIO()
    campaign.render(campaign_rows(), Console(file=out, width=100))
    text = out.getvalue()
    assert re.search(r"moor-eaddrinuse +berth_park:433 ×2 +berth_park:433 ×1", text)
    assert "berth_park:471 wrong ×1" in text
    assert "sail-eperm on vm:7.3, repeat 2: crashed No end within 900 s." in text
    assert "14 named, 1 inconclusive, 1 not reproduced, 1 crashed, 1 error" in text


def test_empty_campaign_is_a_page_too(tmp_path: Path) -> None:
    """No rows: a page and a table without rows, no error."""
    campaign.write_index([], tmp_path / "index.html")
    campaign.render([], Console(file=io.StringIO()))
    assert "0 runs of 0 scenarios" in (tmp_path / "index.html").read_text()
