"""The truth files are whole and well-formed, and the judging of an analysis by them is right."""

import pytest

from loadgen.scenarios import SCENARIOS
from tests import truth

ALL = [truth.load(name)[version] for name in truth.scenarios() for version in truth.PACKAGE_VERSIONS]
REPRODUCED = [entry for entry in ALL if entry.reproduced]


def named(entry: truth.Truth) -> str:
    return f"{entry.scenario}-{entry.package_version}"


def test_every_scenario_has_a_truth_file_and_every_truth_file_a_scenario() -> None:
    assert truth.scenarios() == sorted(SCENARIOS)


@pytest.mark.parametrize("name", truth.scenarios())
def test_a_truth_file_speaks_of_each_kernel_and_of_no_other(name: str) -> None:
    assert tuple(truth.load(name)) == truth.PACKAGE_VERSIONS


@pytest.mark.parametrize("entry", ALL, ids=named)
def test_the_truth_says_not_reproduced_exactly_where_the_scenario_says_that_it_succeeds(entry: truth.Truth) -> None:
    assert entry.reproduced == SCENARIOS[entry.scenario].fails_on(entry.package_version)


@pytest.mark.parametrize("entry", REPRODUCED, ids=named)
def test_places_are_possible_ones(entry: truth.Truth) -> None:
    """Files are relative, spans run forwards, and the deciding operand lies inside its condition."""
    for place in (*entry.sites, *(branch.place for branch in entry.branches), *([entry.root] if entry.root else [])):
        assert place.file.endswith((".c", ".h", ".S"))
        assert not place.file.startswith(("/", "."))
        assert 1 <= place.line <= place.line_end < place.line + 10
    for branch in entry.branches:
        assert branch.place.line <= branch.operand_line <= branch.place.line_end


@pytest.mark.parametrize("entry", REPRODUCED, ids=named)
def test_the_first_branch_is_the_decider_and_only_the_first(entry: truth.Truth) -> None:
    readings = [branch.reading for branch in entry.branches]
    assert readings[0] == "decider"
    assert set(readings[1:]) <= set(truth.READINGS) - {"decider"}
    assert ("root" in readings) <= (entry.root is not None)


@pytest.mark.parametrize("entry", REPRODUCED, ids=named)
def test_the_chain_runs_from_the_system_call_to_the_site(entry: truth.Truth) -> None:
    """From the code that enters it, where its own body is never run."""
    assert entry.chain[0] in (f"__do_sys_{SCENARIOS[entry.scenario].syscall}", "do_syscall_64", "entry_SYSCALL_64")
    assert entry.sites[0].function in (entry.chain[-1], "entry_SYSCALL_64")
    assert entry.branches[0].place.function in entry.chain


def analysis(entry: truth.Truth, **changes: object) -> dict[str, object]:
    """An analysis that says what the truth says, but for the changes."""
    site, branch = entry.sites[0], entry.branches[0]
    said = {
        "conclusion": "named",
        "error_site": {"function": site.function, "file": site.file, "line": site.line},
        "branch": {"file": branch.place.file, "line": branch.operand_line, "outcome": branch.outcome},
    }
    return said | changes


BIND = truth.load("bind-eaddrinuse")["6.1.192-2"]


def test_an_analysis_that_says_the_truth_is_judged_right() -> None:
    assert truth.judge(analysis(BIND), BIND) == truth.Judgement(True, True, True, "decider", True)


def test_a_neighbouring_line_is_wrong() -> None:
    site, branch = BIND.sites[0], BIND.branches[0].place
    judged = truth.judge(
        analysis(
            BIND,
            error_site={"file": site.file, "line": site.line + 1},
            branch={"file": branch.file, "line": branch.line_end + 1, "outcome": True},
        ),
        BIND,
    )
    assert (judged.site_right, judged.branch_right, judged.reading) == (False, False, None)


def test_the_right_line_of_another_file_is_wrong() -> None:
    assert not truth.judge(analysis(BIND, error_site={"file": "net/core/sock.c", "line": 508}), BIND).site_right


def test_the_other_side_of_the_right_branch_is_told_apart() -> None:
    place = BIND.branches[0].place
    judged = truth.judge(analysis(BIND, branch={"file": place.file, "line": place.line, "outcome": False}), BIND)
    assert (judged.branch_right, judged.outcome_right) == (True, False)


def test_a_branch_inside_the_predicate_is_right_and_says_so() -> None:
    place = BIND.branches[1].place
    judged = truth.judge(analysis(BIND, branch={"file": place.file, "line": place.line, "outcome": None}), BIND)
    assert (judged.branch_right, judged.reading, judged.outcome_right) == (True, "predicate", None)


def test_naming_nothing_is_not_right() -> None:
    judged = truth.judge(analysis(BIND, conclusion="inconclusive", error_site=None, branch=None), BIND)
    assert judged == truth.Judgement(True, False, False, None, None)


def test_not_reproduced_is_right_only_where_the_call_succeeds() -> None:
    silent = {"conclusion": "not-reproduced", "error_site": None, "branch": None}
    assert truth.judge(silent, truth.load("madvise-einval")["7.3.4-1~bpo13+1"]).conclusion_right
    assert not truth.judge(silent, BIND).conclusion_right
    assert not truth.judge(analysis(BIND), truth.load("madvise-einval")["7.3.4-1~bpo13+1"]).conclusion_right
