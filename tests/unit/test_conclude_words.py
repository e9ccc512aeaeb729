"""The words of a verdict, and the whole condition that an operand belongs to."""

from __future__ import annotations

from collections import Counter

import pytest

from profiler.conclude import words
from profiler.conclude.places import down_to
from profiler.conclude.sources import Sources, condition_text, whole_outcome
from profiler.debuginfo.source_flow import FlowNode, Whole
from profiler.graph import FunctionGraph
from profiler.model import Branch, ChainLink, ErrorSite, LoadResult, SourceLocation
from tests.unit.toy_kernel import FILE
from tests.unit.toy_recording import ToySource

SITE = ErrorSite("do_frob", "fs/frob.c", 12, "do_frob+0x10", "return -EINVAL;")
BRANCH = Branch("do_frob", "fs/frob.c", 11, "do_frob+0x8", "a > b", True)


def branch(condition: str | None, outcome: bool | None) -> Branch:
    return Branch("do_frob", "fs/frob.c", 11, "do_frob+0x8", condition, outcome)


@pytest.mark.parametrize(
    ("decided", "ending"),
    [
        (branch("a > b", True), ": `a > b` at fs/frob.c:11 was true"),
        (branch("a > b", False), ": `a > b` at fs/frob.c:11 was false"),
        (branch("switch (cmd)", None), ": `switch (cmd)` at fs/frob.c:11 decided so"),
        (branch(None, None), ": the condition at fs/frob.c:11 decided so"),
        (None, ", whatever the arguments"),
    ],
)
def test_a_named_verdict_is_one_sentence(decided: Branch | None, ending: str) -> None:
    said = words.named("frob", "EINVAL", SITE, decided)
    assert said == f"frob() fails with EINVAL because do_frob() at fs/frob.c:12 returns it{ending}"


def test_samples_in_code_without_a_name_are_told_where_they_are_more_than_a_few() -> None:
    """One in a hundred of the call's samples; then the address says where to look."""
    few, many = Counter({0x10: 1}), Counter({0x10: 30, 0x20: 40})
    assert words.nameless(few, 1000) == words.nameless(Counter(), 0) == []
    (said,) = words.nameless(many, 1000)
    assert said.startswith("70 samples within the call lie in code of no known symbol, most of them at 0x20")


def test_functions_that_do_not_decode_are_named_once() -> None:
    broken, whole = FunctionGraph("frob", 0, {}, (0x30, 0x40)), FunctionGraph("insert", 0, {})
    assert words.undecoded([broken, whole, broken]) == [
        "frob() does not decode at 0x30: what it does from there on is not known"
    ]


def test_an_undecided_verdict_names_the_places_there_are() -> None:
    other = ErrorSite("insert", "fs/tree.c", 5, "insert+0x1")
    assert words.undecided("frob", "EINVAL", []) == "no place was found from which frob() could return EINVAL"
    assert "may return EINVAL from do_frob() at fs/frob.c:12, but" in words.undecided("frob", "EINVAL", [SITE])
    assert words.undecided("frob", "EINVAL", [SITE, other]).endswith(
        "where EINVAL comes from: do_frob() at fs/frob.c:12 or insert() at fs/tree.c:5"
    )


@pytest.mark.parametrize(
    ("results", "seen"),
    [
        ({"0": 5, "EPERM": 9}, "it succeeded"),
        ({"EPERM": 3, "EBUSY": 9, "EINVAL": 0}, "it failed with EBUSY"),
        ({"EINVAL": 0}, "it was not called"),
    ],
)
def test_what_happened_instead_is_told(results: dict[str, int], seen: str) -> None:
    load = LoadResult(10, 1.0, results, 1, "x")
    assert words.not_reproduced("frob", "EINVAL", load) == f"frob() did not fail with EINVAL: {seen}"


def operand(text: str, whole: str) -> FlowNode:
    return FlowNode(2, "condition", 1, 1, text, whole=Whole(1, 1, whole, "if"))


@pytest.mark.parametrize(
    ("text", "whole", "outcome", "expected"),
    [
        ("a", "a", True, True),
        ("a", "!a", True, False),
        ("a", "!!a", True, True),
        ("b", "a || b", True, True),
        ("b", "a && !b", True, False),
        ("a", "!(a && b)", False, True),
        ("b", "!(a && !(b))", True, True),
        ("b > 4", "a < 0 || b > 4", False, False),
        ("f(b)", "unlikely(!f(b))", False, True),
        ("b", "!f(a) || b", True, True),
        ("b", "(!a || c) && b", False, False),
        ("x", "y", True, True),
        ("a", "!a", None, None),
    ],
)
def test_the_operand_that_settled_a_condition_gives_it_its_value(
    text: str, whole: str, outcome: bool | None, expected: bool | None
) -> None:
    """But for each `!` in front of the operand, or of parentheses around it."""
    assert whole_outcome(operand(text, whole), outcome) is expected


def test_a_condition_is_shown_whole() -> None:
    assert condition_text(operand("b > 4", "a < 0 || b > 4")) == "a < 0 || b > 4"
    head = FlowNode(2, "switch", 1, 1, "switch (cmd)")
    assert condition_text(head) == "switch (cmd)"
    assert whole_outcome(head, None) is None


def test_source_is_prepared_once_a_file_and_function() -> None:
    class Counting(ToySource):
        reads = 0

        def text(self, file: str) -> list[str] | None:
            self.reads += 1
            return super().text(file)

    tree = Counting("int f(int a)\n{\n    return a;\n}\nint g(void)\n{\n    return 0;\n}")
    sources = Sources(tree, {})
    assert sources.flow("f", FILE, 2) is sources.flow("f", FILE, 3)
    assert sources.extent("f", FILE, 2) == (1, 4)
    assert sources.extent("g", FILE, 6) == (5, 8)
    assert sources.extent("h", FILE, 6) is None
    assert tree.reads == 1


def test_without_a_tree_there_is_no_text_and_no_flow() -> None:
    none = Sources(None)
    assert (none.text(FILE), none.flow("f", FILE, 1), none.extent("f", FILE, 1)) == (None, None, None)
    assert Sources(ToySource("")).text("") is None


def test_the_chain_goes_on_into_the_functions_inlined_where_the_branch_lies() -> None:
    links = [ChainLink("__x64_sys_frob", "fs/frob.c", 0, False, ""), ChainLink("do_frob", "fs/frob.c", 9, False, "e+1")]
    inlined = Branch(
        "deep", "b.h", 3, "x", None, None, [SourceLocation("mid", "a.h", 7), SourceLocation("do_frob", "fs/frob.c", 11)]
    )
    assert down_to(links, inlined) == [
        *links,
        ChainLink("mid", "fs/frob.c", 11, True, ""),
        ChainLink("deep", "a.h", 7, True, ""),
    ]
    assert down_to(links, BRANCH) == links
    assert down_to(links, None) == links
