"""Counting a program's results: the filters given to perf, and what is made of its answer."""

import pytest

from profiler.errors import RecordError
from profiler.record.count import OTHER, parse_counts, result_filters, results_by_name

# perf stat 6.1.187 -x, -o FILE with three filters, on 5.10.0-32-cloud-amd64.
PRINTED = """\
# started on Mon Nov 23 10:46:33 2026

914001,,raw_syscalls:sys_exit,2003376818,100.00,,
914000,,raw_syscalls:sys_exit,2003376818,100.00,,
1,,raw_syscalls:sys_exit,2003376818,100.00,,
"""


def test_counts_come_in_the_order_of_the_events() -> None:
    assert parse_counts(PRINTED, 3) == [914001, 914000, 1]


def test_a_counter_that_never_ran_is_zero() -> None:
    assert parse_counts("<not counted>,,raw_syscalls:sys_exit,0,100.00,,\n", 1) == [0]


@pytest.mark.parametrize(
    "text", ["", PRINTED + "7,,raw_syscalls:sys_exit,1,100.00,,\n", PRINTED.replace("914000", "x")]
)
def test_another_number_of_counters_or_no_number_is_refused(text: str) -> None:
    with pytest.raises(RecordError, match="not as expected"):
        parse_counts(text, 3)


def test_the_errno_asked_for_is_counted_once_though_it_is_a_usual_one() -> None:
    filters = result_filters(425, "ENOMEM", 12)
    assert filters["ENOMEM"] == "id==425 && ret==-12"
    assert filters[OTHER] == "id==425 && ret<0 && ret>-4096"
    assert filters["0"] == "id==425 && ret>=0"
    assert list(filters).count("ENOMEM") == 1


def test_failures_that_no_counter_names_are_other() -> None:
    counts = {OTHER: 100, "0": 2, "EADDRINUSE": 90, "EINVAL": 4, "EPERM": 0}
    assert results_by_name(counts, ("0", "EADDRINUSE")) == {OTHER: 6, "0": 2, "EADDRINUSE": 90, "EINVAL": 4}


def test_a_program_that_never_made_the_call_counts_zero_rather_than_nothing() -> None:
    counts = {OTHER: 0, "0": 0, "EADDRINUSE": 0, "EPERM": 0}
    assert results_by_name(counts, ("0", "EADDRINUSE")) == {"0": 0, "EADDRINUSE": 0}
