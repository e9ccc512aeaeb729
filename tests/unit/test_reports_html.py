"""The HTML report, read as text; tests/browser looks at it in a browser."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from profiler.model import Analysis
from reports import findings, html
from tests.unit import sample_analysis as samples

ALL = [
    samples.named,
    samples.climbed,
    samples.executed,
    samples.inconclusive,
    samples.not_reproduced,
    samples.bare,
    samples.hostile,
]


class Page(HTMLParser):
    """Tags, attributes, ids and text of a page."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(markup)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))


def page(analysis: Analysis) -> Page:
    return Page(html.report_page(analysis).decode())


def test_named_verdict_says_everything_in_the_first_section() -> None:
    """Call, errno, function, place, condition, outcome, confidence and kernel stand before the source."""
    text = page(samples.named()).text
    first = text[text.index("Named") : text.index("From the system call")]
    for words in (
        "moor() fails with EADDRINUSE in berth_park()",
        "berth->boat && !(boat_shares(b) && berth->shared)",
        "was true",
        "drivers/harbour/berth.c:434",
        "drivers/harbour/berth.c:433",
        "98.7%",
        "6.1.0-99-harbour-amd64",
    ):
        assert words in first


def test_the_kind_of_evidence_is_said_plainly() -> None:
    """A log says executed, samples say likeliest, at the top and beside the source; a mere profile says neither."""
    logged, sampled = page(samples.executed()).text, page(samples.named()).text
    assert "Rests oninstruction log" in logged
    assert "These lines were executed" in logged
    assert "Decided after 8 logged calls (16,384 instructions); the method records 30 s." in logged
    assert "11 of 20 lines executed" in logged
    assert "likeliest walk" not in logged
    assert "Rests onsamples" in sampled
    assert "This is the likeliest walk" in sampled
    assert "executed" not in sampled
    park = samples.park_function()
    unknown = dataclasses.replace(park, lines=[dataclasses.replace(line, on_path=None) for line in park.lines])
    profile = page(dataclasses.replace(samples.named(), functions=[unknown])).text
    assert "likeliest walk" not in profile


def test_directions_link_to_their_lines() -> None:
    """Each arrow leads to the line of its own function; a line that is not on the page is named without a link."""
    links = [a["href"] for tag, a in page(samples.named()).tags if tag == "a" and a.get("class") == "to"]
    assert links == ["#f2-424", "#f2-433", "#f2-435"]
    park = samples.park_function()
    beyond = [dataclasses.replace(line, goes_to=[9999] if line.goes_to else []) for line in park.lines]
    parsed = page(dataclasses.replace(samples.named(), functions=[dataclasses.replace(park, lines=beyond)]))
    assert "→ 9999" in parsed.text
    assert not [a for tag, a in parsed.tags if tag == "a" and a.get("class") == "to"]


def test_inconclusive_page_names_what_is_left_and_what_to_do() -> None:
    """Both contenders and the next steps come before the chain, and nothing claims to be the verdict."""
    text = page(samples.inconclusive()).text
    assert text.index("Could not be told apart") < text.index("What to do next") < text.index("From the system call")
    assert "the verdict" not in text.replace("Skip to the verdict", "")
    assert "212 samples lost (21% of those taken)" in text
    assert "throttled 3 times" in text


def test_not_reproduced_page_shows_what_the_calls_returned() -> None:
    """The counts per errno stand in the verdict, and no place is claimed."""
    text = page(samples.not_reproduced()).text
    assert "moor() did not fail with EADDRINUSE" in text
    assert "EACCES1,204,318" in text
    assert "Error set here" not in text


def test_missing_parts_are_said_to_be_missing() -> None:
    """Without source, manifest, load and kernel the page says so and how to get the source."""
    text = page(samples.bare()).text
    assert "The source text was not at hand" in text
    assert "conditional jump at berth_park+0xb1" in text
    assert "imported; no manifest came with it" in text
    assert "No lines are known for this function" in text


def test_source_advice_names_the_kernel_to_fetch() -> None:
    """For a guest the page gives the command that fetches the source."""
    without = dataclasses.replace(samples.bare(), manifest=samples.named().manifest)
    assert "whyerrno kernels fetch 6.1" in page(without).text


@pytest.mark.parametrize("make", ALL)
def test_only_known_tags_and_attributes_come_out(make: object) -> None:
    """Nothing that a trace holds becomes a tag, a handler, a script, an address or a style."""
    assert callable(make)
    parsed = page(make())
    allowed_links = re.compile(r"#[a-z]*[0-9-]*\Z|#main\Z|data:,\Z")
    for tag, attributes in parsed.tags:
        assert tag not in {"script", "img", "iframe", "object", "embed", "base", "form"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name != "style"
            if name in {"href", "src"}:
                assert allowed_links.match(value or ""), value


def test_hostile_text_is_all_there() -> None:
    """The attack strings are shown, spelled out, not dropped."""
    text = page(samples.hostile()).text
    assert "<script>document.title='owned'</script>" in text
    assert "\\x1b[31mred" in text
    assert "\\u202egnirts" in text
    assert "{{ 7 * 7 }}" in text


def test_policy_allows_the_style_sheet_and_nothing_else() -> None:
    """The policy forbids scripts, frames and requests, and comes before anything that it governs."""
    markup = html.report_page(samples.named()).decode()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', markup)
    assert policy is not None
    assert "default-src &#39;none&#39;" in policy[1]
    assert "unsafe" not in policy[1]
    assert policy.start() < markup.index("<style>")


@pytest.mark.parametrize("make", ALL)
def test_same_analysis_gives_the_same_bytes(make: object, tmp_path: Path) -> None:
    """A page depends on its analysis alone, also after that went through JSON."""
    assert callable(make)
    first, second = tmp_path / "a.html", tmp_path / "b.html"
    html.write_report(make(), first)
    html.write_report(Analysis.from_json(make().to_json()), second)
    assert first.read_bytes() == second.read_bytes()


def test_ids_are_unique_and_links_lead_somewhere() -> None:
    """Every link on the page has a target, and no id occurs twice."""
    parsed = page(samples.named())
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [a["href"][1:] for tag, a in parsed.tags if tag == "a" and a["href"]]
    assert targets and set(targets) <= set(ids)


def test_origin_is_open_and_comes_first() -> None:
    """Of the functions only the origin is open, and it comes before its callers."""
    functions = [a for tag, a in page(samples.named()).tags if tag == "details" and a.get("class") == "fn"]
    assert [(a["id"], "open" in a) for a in functions] == [("f2", True), ("f0", False), ("f1", False)]


def test_huge_functions_stay_within_the_page_limit() -> None:
    """Four functions of 6,000 lines make a page of at most 1.5 MB that still holds the origin whole."""
    markup = html.report_page(samples.huge())
    assert len(markup) <= 1_500_000
    text = Page(markup.decode()).text
    assert "left out to keep this page small" in text
    assert "err = -EADDRINUSE;" in text


def test_a_hundred_thousand_candidates_stay_within_the_page_limit() -> None:
    """The likeliest are shown, the rest counted."""
    whole = samples.named()
    many = dataclasses.replace(whole, candidates=whole.candidates * 25_000)
    markup = html.report_page(many)
    assert len(markup) <= 1_500_000
    assert "99,940 more candidates" in Page(markup.decode()).text


def test_failed_write_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the new page cannot be put in place, the old one is whole and nothing is left beside it."""
    target = tmp_path / "report.html"
    target.write_text("old")

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        html.write_report(samples.named(), target)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert target.read_text() == "old"


def test_plots_are_put_into_the_page(tmp_path: Path) -> None:
    """A PNG given to the page is part of it, with its title as the alternative text."""
    picture = tmp_path / "p.png"
    picture.write_bytes(b"\x89PNG")
    markup = html.report_page(samples.named(), plots=[html.Plot("samples <per> line", picture, picture)]).decode()
    assert 'src="data:image/png;base64,iVBORw==" alt="samples &lt;per&gt; line"' in markup


def test_marks_follow_from_the_verdict_alone() -> None:
    """An analysis whose lines carry no marks still has its branch and its error site marked."""
    whole = samples.named()
    park = whole.functions[-1]
    bare = dataclasses.replace(park, lines=[dataclasses.replace(line, marks=[]) for line in park.lines])
    plain = dataclasses.replace(whole, functions=[*whole.functions[:-1], bare])
    marks = {line.line: findings.marks_of(plain, bare, line) for line in bare.lines}
    assert {line: found for line, found in marks.items() if found} == {433: ("error-site",), 434: ("branch",)}


def test_branch_inlined_from_elsewhere_says_where() -> None:
    """A branch in inlined code names the functions that it was inlined into."""
    whole = samples.named()
    assert whole.branch is not None
    outer = [samples.SourceLocation("__sys_moor", "drivers/harbour/moor.c", 182)]
    inner = dataclasses.replace(whole, branch=dataclasses.replace(whole.branch, inlined_from=outer))
    assert "inlined into __sys_moor at drivers/harbour/moor.c:182" in page(inner).text


def test_origin_longer_than_a_page_still_shows_the_decision() -> None:
    """Of an origin of 12,000 lines, all sampled, the lines around branch and error site are shown."""
    text = "\n".join(f"\tx[{i}] = <{i}>;" for i in range(12_000))
    long = samples.annotate("berth_park", "drivers/harbour/berth.c", 1, text, dict.fromkeys(range(1, 12_001), 5))
    whole = samples.named()
    assert whole.error_site and whole.branch
    moved = dataclasses.replace(
        whole,
        error_site=dataclasses.replace(whole.error_site, line=9001),
        branch=dataclasses.replace(whole.branch, line=9003),
        functions=[*whole.functions[:2], long],
    )
    markup = html.report_page(moved)
    text = Page(markup.decode()).text
    assert len(markup) <= 1_500_000
    assert "x[9000] = <9000>;" in text and "x[9002] = <9002>;" in text


def test_lines_of_many_tokens_stay_within_the_page_limit() -> None:
    """Source made to blow up under highlighting costs its colours, not the limit."""
    text = "\n".join(["0 " * 200] * 3000)
    dense = samples.annotate("dense", "a.c", 1, text, dict.fromkeys(range(1, 3001), 1))
    markup = html.report_page(dataclasses.replace(samples.named(), functions=[dense, samples.park_function()]))
    assert len(markup) <= 1_500_000


def test_function_inlined_into_itself_is_one_branch() -> None:
    """A function that the compiler split in two has its branch marked once, and is not said to be in itself."""
    whole = samples.named()
    assert whole.branch is not None
    outer = [samples.SourceLocation("berth_park", "drivers/harbour/berth.c", 412)]
    split = dataclasses.replace(whole, branch=dataclasses.replace(whole.branch, inlined_from=outer))
    assert "inlined into" not in page(split).text.split("From the system call")[0]
    assert findings.marks_of(split, split.functions[-1], split.functions[-1].lines[0]) == ()


def test_lost_samples_are_told_once() -> None:
    """A warning that repeats the count of lost or throttled samples is not shown beside it."""
    whole = samples.inconclusive()
    told = dataclasses.replace(whole, warnings=["212 samples were lost (21.0%)", "the guest was slow"])
    assert [notice.text for notice in findings.notices(told)][-1] == "the guest was slow"
    assert sum("lost" in notice.text for notice in findings.notices(told)) == 1
