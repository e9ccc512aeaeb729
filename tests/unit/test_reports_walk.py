"""The path as a walk through a function's lines."""

from __future__ import annotations

import dataclasses

from reports import walk
from tests.unit import sample_analysis as samples


def test_a_skip_goes_down_past_code_that_is_not_on_the_path() -> None:
    """A branch to the next code, one back, and one past lines that are on the path skip nothing."""
    (function,) = samples.long_walk().functions
    assert walk.skips(function.lines) == [(2, 4), (4, 46)]
    ran_within = [dataclasses.replace(line, on_path=True) if line.line == 20 else line for line in function.lines]
    assert walk.skips(ran_within) == [(2, 4)]


def test_lines_that_are_not_there_are_no_target() -> None:
    """A branch to a line outside what is shown has no rail."""
    (function,) = samples.long_walk().functions
    assert walk.skips(function.lines[:10]) == [(2, 4)]


def test_executed_is_said_of_a_log_alone() -> None:
    """The words follow from the note of a log; without one, the walk is the likeliest."""
    park = samples.park_function()
    assert walk.tally(samples.executed(), park) == "11 of 20 lines executed"
    assert walk.tally(samples.named(), park) == "11 of 20 lines on the likeliest walk"
    assert walk.folded(samples.executed(), park.lines[16:21]) == "5 lines, 3 of them not executed"
    assert walk.folded(samples.executed(), park.lines[16:19]) == "3 lines, all of them not executed"
    assert walk.folded(samples.executed(), park.lines[1:9]) == "8 lines"


def test_of_an_unknown_path_nothing_is_counted() -> None:
    """A function of which no path is known has no tally."""
    park = samples.park_function()
    unknown = dataclasses.replace(park, lines=[dataclasses.replace(line, on_path=None) for line in park.lines])
    assert walk.tally(samples.named(), unknown) == ""
