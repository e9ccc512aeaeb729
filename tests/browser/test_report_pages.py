"""The pages as a browser shows them: nothing runs, nothing is fetched, all of it fits and can be read."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reports import campaign, compare, html, plots
from tests.unit import sample_analysis as samples

PAGES: dict[str, Callable[[Path], None]] = {
    "named": lambda path: html.write_report(samples.named(), path),
    "climbed": lambda path: html.write_report(samples.climbed(), path),
    "executed": lambda path: html.write_report(samples.executed(), path),
    "long-walk": lambda path: html.write_report(samples.long_walk(), path),
    "inconclusive": lambda path: html.write_report(samples.inconclusive(), path),
    "not-reproduced": lambda path: html.write_report(samples.not_reproduced(), path),
    "bare": lambda path: html.write_report(samples.bare(), path),
    "hostile": lambda path: html.write_report(samples.hostile(), path),
    "comparison": lambda path: compare.write_html(compare.compare(samples.versions()), path),
    "comparison-of-evidence": lambda path: compare.write_html(
        compare.compare([("logged", samples.executed()), ("sampled", samples.named())]), path
    ),
    "big-comparison": lambda path: compare.write_html(compare.compare(samples.many_versions()), path),
    "hostile-comparison": lambda path: compare.write_html(
        compare.compare([("".join(samples.HOSTILE), samples.hostile()), ("b", samples.named())]), path
    ),
    "campaign": lambda path: campaign.write_index(campaign_rows(), path, title="First"),
}

# Every visible text on the page, against the colour that is behind it: WCAG 2's contrast, worst first.
CONTRAST = """() => {
  const channel = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const style = getComputedStyle(at);
      const [r, g, b, a = 1] = parse(style.backgroundColor);
      if (a > 0 && style.backgroundImage === 'none') return [r, g, b];
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, element = node.parentElement;
    if (!node.textContent.trim() || !element.checkVisibility({visibilityProperty: true})) continue;
    const a = light(parse(getComputedStyle(element).color)), b = light(behind(element));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    found.push([ratio, node.textContent.trim().slice(0, 40), element.className]);
  }
  return found.sort((one, other) => one[0] - other[0]).slice(0, 5);
}"""

OVERFLOW = """() => {
  const wide = document.documentElement.clientWidth, guilty = [];
  for (const element of document.body.querySelectorAll('*'))
    if (!element.closest('.scroll, .sr, .skip, thead, svg') && element.getBoundingClientRect().right > wide + 0.5)
      guilty.push(element.tagName + '.' + element.className);
  return [document.documentElement.scrollWidth - wide, guilty.slice(0, 5)];
}"""


def campaign_rows() -> list[Any]:
    return samples.campaign_rows()


@pytest.fixture(params=list(PAGES))
def page_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "page.html"
    PAGES[request.param](path)
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_fetched_run_or_complained_of(open_page: Any, page_file: Path, scheme: str) -> None:
    """One request, for the file itself; no console message, dialog or error; the title is not the attackers'."""
    opened = open_page(page_file, scheme=scheme)
    opened.page.evaluate("() => document.querySelectorAll('details').forEach(d => d.open = true)")
    opened.page.wait_for_timeout(100)
    assert opened.complaints == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [page_file.as_uri()]
    assert opened.page.title() not in {"owned", "1", "2", "3", "title"}
    assert opened.page.evaluate("() => document.querySelectorAll('script, img, iframe').length") == 0


@pytest.mark.parametrize("width", [360, 768, 1280, 2200])
def test_page_does_not_overflow_sideways(open_page: Any, page_file: Path, width: int) -> None:
    """At any width, with everything unfolded, nothing sticks out to the right."""
    page = open_page(page_file, width=width).page
    page.evaluate("() => document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate(OVERFLOW) == [0, []]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_contrast(open_page: Any, page_file: Path, scheme: str) -> None:
    """Each text stands out from what is behind it by 4.5 to 1 or more, in light and dark."""
    page = open_page(page_file, scheme=scheme).page
    page.evaluate("() => document.querySelectorAll('details').forEach(d => d.open = true)")
    worst = page.evaluate(CONTRAST)
    assert worst[0][0] >= 4.5, worst


def test_dark_and_light_differ(open_page: Any, page_file: Path) -> None:
    """The page follows the reader's preference."""
    colour = "() => getComputedStyle(document.body).backgroundColor"
    backgrounds = {scheme: open_page(page_file, scheme=scheme).page.evaluate(colour) for scheme in ("light", "dark")}
    assert backgrounds["light"] != backgrounds["dark"]


def test_functions_open_and_close_by_keyboard(open_page: Any, tmp_path: Path) -> None:
    """Tab reaches every function's heading, Enter opens and closes it, and the focus can be seen."""
    html.write_report(samples.named(), tmp_path / "page.html")
    page = open_page(tmp_path / "page.html").page
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement.closest('#f0') !== null"):
            break
    assert page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle") == "solid"
    states = []
    for key in ("Enter", "Space"):
        page.keyboard.press(key)
        states.append(page.evaluate("() => document.querySelector('#f0').open"))
    assert states == [True, False]


def test_verdict_links_to_the_marked_lines(open_page: Any, tmp_path: Path) -> None:
    """Following the branch's link brings its line into view; a link into a closed function opens it."""
    html.write_report(samples.named(), tmp_path / "page.html")
    page = open_page(tmp_path / "page.html").page
    page.click(".place.branch a")
    assert page.evaluate(
        "() => { const r = document.querySelector('tr.branch').getBoundingClientRect();"
        " return r.top >= 0 && r.bottom <= innerHeight }"
    )
    page.click(".chain a >> nth=0")
    assert page.evaluate("() => location.hash") == "#f0"


def test_verdict_is_seen_without_scrolling(open_page: Any, tmp_path: Path) -> None:
    """At 1280 × 900 the headline, branch, site and evidence are on the first screen; on a phone the headline is."""
    html.write_report(samples.executed(), tmp_path / "page.html")
    seen = "selector => document.querySelector(selector).getBoundingClientRect().bottom <= innerHeight"
    for width, selectors in (
        (1280, ("h1", ".place.branch", ".place.site", ".key", ".effort")),
        (360, ("h1", ".place.branch")),
    ):
        page = open_page(tmp_path / "page.html", width=width).page
        assert all(page.evaluate(seen, selector) for selector in selectors)


def test_hostile_names_are_shown_as_text(open_page: Any, tmp_path: Path) -> None:
    """What an attacker wrote is there to read, letter for letter, and left to right."""
    html.write_report(samples.hostile(), tmp_path / "page.html")
    page = open_page(tmp_path / "page.html").page
    assert "<script>document.title='owned'</script>" in page.inner_text(".reason")
    assert "\\u202egnirts desrever" in page.inner_text(".reason")


def test_printed_page_shows_every_function(open_page: Any, tmp_path: Path) -> None:
    """In print, closed functions are laid out too: there is nothing to click on paper."""
    html.write_report(samples.named(), tmp_path / "page.html")
    page = open_page(tmp_path / "page.html").page
    shown = "() => document.querySelector('#f0 .body').checkVisibility()"
    assert page.evaluate(shown) is False
    page.emulate_media(media="print")
    assert page.evaluate(shown) is True


def test_long_function_unfolds(open_page: Any, tmp_path: Path) -> None:
    """A folded stretch is closed at first and shows its lines when opened."""
    html.write_report(samples.huge(2000, 1), tmp_path / "page.html")
    page = open_page(tmp_path / "page.html").page
    fold = page.locator("#f0 details.fold").first
    page.locator("#f0 > summary").click()
    assert not fold.locator("table").is_visible()
    fold.locator("summary").click()
    assert fold.locator("table").is_visible()


def test_pictures_in_the_page_follow_the_theme(open_page: Any, tmp_path: Path) -> None:
    """Of an embedded picture's two variants the one that fits the theme is shown, from the page itself."""
    for theme in ("light", "dark"):
        plots.write_line_plot(samples.named(), tmp_path / f"{theme}.png", theme=theme)
    plot = html.Plot("Samples per line", tmp_path / "light.png", tmp_path / "dark.png")
    html.write_report(samples.named(), tmp_path / "page.html", plots=[plot])
    sources = set()
    for scheme in ("light", "dark"):
        opened = open_page(tmp_path / "page.html", scheme=scheme)
        sources.add(opened.page.evaluate("() => document.querySelector('figure img').currentSrc"))
        assert opened.page.evaluate("() => document.querySelector('figure img').naturalWidth") == 1495
        assert opened.complaints == []
    assert len(sources) == 2


# Of each line of the open function: its number, the sign in its gutter, and whether the rail passes it.
GUTTER = """() => [...document.querySelectorAll('details.fn[open] tr:has(td.n)')].map(row => {
  const cell = row.querySelector('td.w');
  return [row.querySelector('td.n').textContent, getComputedStyle(cell, '::before').content[1],
          getComputedStyle(cell, '::after').content !== 'none'];
})"""
RAIL = """() => [...document.querySelectorAll(
  'details.fn[open] :is(:is(.rail-from, .rail-over, .rail-to) > .w, details.rail-over > summary)'
)].filter(e => e.checkVisibility()).map(e => {
  const style = getComputedStyle(e, '::after'), box = e.getBoundingClientRect();
  return [Math.round(box.left + parseFloat(style.left) + parseFloat(getComputedStyle(e).borderLeftWidth)),
          parseFloat(style.borderLeftWidth), box.top, box.bottom];
})"""


@pytest.mark.parametrize("media", ["screen", "print"])
def test_what_ran_is_told_by_shape(open_page: Any, tmp_path: Path, media: str) -> None:
    """A full circle, an empty one, or none: no colour is needed to tell what ran, on paper neither."""
    html.write_report(samples.executed(), tmp_path / "page.html")
    page = open_page(tmp_path / "page.html").page
    page.emulate_media(media=media)
    signs = {number: sign for number, sign, _ in page.evaluate(GUTTER)}
    assert [signs[number] for number in ("421", "422", "423", "433", "437", "442")] == ["●", "○", "o", "●", "○", "o"]


@pytest.mark.parametrize("width", [360, 1280])
def test_rail_runs_from_the_branch_past_what_it_skips(open_page: Any, tmp_path: Path, width: int) -> None:
    """From a branch to the line it went on to the rail is one straight line, through folds too, and nowhere else."""
    html.write_report(samples.long_walk(), tmp_path / "page.html")
    page = open_page(tmp_path / "page.html", width=width).page
    railed = {number for number, _, rail in page.evaluate(GUTTER) if rail}
    assert railed == {str(number) for number in range(3, 48)}
    pieces = page.evaluate(RAIL)
    assert len({left for left, *_ in pieces}) == 1
    assert {thick for _, thick, *_ in pieces} == {2}
    ordered = sorted((top, bottom) for *_, top, bottom in pieces)
    assert all(abs(one[1] - other[0]) < 1.5 for one, other in itertools.pairwise(ordered))


def test_direction_leads_to_the_line(open_page: Any, tmp_path: Path) -> None:
    """The arrow behind a branch is a link that brings the line it names into view, and its name says what it means."""
    html.write_report(samples.long_walk(), tmp_path / "page.html")
    page = open_page(tmp_path / "page.html", width=360).page
    page.get_by_role("link", name="→ 47").click()
    assert page.evaluate("() => document.querySelector('tr:target td.n').textContent") == "47"
    assert page.evaluate("() => document.querySelector('tr:target').getBoundingClientRect().bottom <= innerHeight")
    assert page.locator("a.to >> nth=0").get_attribute("title") == "the path went on at line 5"


def test_no_room_is_kept_for_samples_that_were_not_taken(open_page: Any, tmp_path: Path) -> None:
    """With an instruction log alone the source stands right beside the line numbers."""
    left = "() => document.querySelector('details.fn[open] td.c').getBoundingClientRect().left"
    html.write_report(samples.executed(), tmp_path / "logged.html")
    html.write_report(samples.named(), tmp_path / "sampled.html")
    logged, sampled = (open_page(tmp_path / f"{name}.html").page.evaluate(left) for name in ("logged", "sampled"))
    assert sampled - logged > 200


def test_paper_says_what_is_folded(open_page: Any, tmp_path: Path) -> None:
    """In print a folded stretch stays folded, and its heading, which counts it, is there to read."""
    html.write_report(samples.long_walk(), tmp_path / "page.html")
    page = open_page(tmp_path / "page.html").page
    page.emulate_media(media="print")
    fold = page.locator("details.fold").first
    assert "35 lines, all of them off the likeliest walk, skipped: 9 to 43" in fold.inner_text()
    assert fold.locator("summary").is_visible()
    assert not fold.locator("table").is_visible()
