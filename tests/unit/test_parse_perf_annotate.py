"""perf annotate's text, as perf 6.1 printed it."""

from pathlib import Path

import pytest

from profiler.errors import InputError
from profiler.parse import perf_annotate

DATA = Path(__file__).parent.parent / "data" / "perf"


def read(name: str) -> perf_annotate.Annotation:
    return perf_annotate.read((DATA / name).read_text().splitlines(keepends=True))


def test_functions_addresses_percentages_and_lines() -> None:
    """Two functions in one text, each with its total, its instructions and their source."""
    annotation = read("annotate_lines.txt")
    assert annotation.totals == {"spin": 70, "twice": 24}
    assert not annotation.decode_errors
    by_address = {instruction.address: instruction for instruction in annotation.instructions}
    hottest = by_address[0x1140]
    assert hottest.function == "spin"
    assert hottest.percent == 52.86
    assert hottest.samples is None
    assert hottest.text == "add    %eax,%edx"
    assert hottest.location == "w.c:2"
    assert by_address[0x1139].source[-1].startswith("int spin(volatile int *p)")
    assert {i.function for i in annotation.instructions if i.address >= 0x1151} == {"twice"}


def test_percentages_of_each_function_add_up() -> None:
    annotation = read("annotate_lines.txt")
    for function in annotation.totals:
        shares = [i.percent for i in annotation.instructions if i.function == function]
        assert sum(share or 0 for share in shares) == pytest.approx(100, abs=0.05)


def test_counts_in_place_of_percentages() -> None:
    annotation = read("annotate_counts.txt")
    assert sum(i.samples or 0 for i in annotation.instructions) == annotation.totals["spin"] == 70
    assert {i.percent for i in annotation.instructions} == {None}


def test_shares_of_several_events_are_refused() -> None:
    text = [
        " Percent  |\tSource code & Disassembly of w for e (3 samples)",
        "   67.12   61.64 :   1140:   add    %eax,%edx",
    ]
    with pytest.raises(InputError, match="line 2: shares of several events"):
        perf_annotate.read(text)


def test_rubbish_is_counted_by_line_and_refused_when_nothing_else_is_there() -> None:
    with pytest.raises(InputError, match="no text of perf annotate"):
        perf_annotate.read(["rubbish"])
    lines = [*(DATA / "annotate_counts.txt").read_text().splitlines(), "rubbish"]
    errors = perf_annotate.read(lines).decode_errors
    assert [error.offset for error in errors] == [len(lines)]
