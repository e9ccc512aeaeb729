"""The campaign file and the runs it stands for."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiler.campaign import plan
from profiler.errors import InputError, UsageError

EXAMPLE = Path(__file__).parents[2] / "examples/campaign.toml"


def read(tmp_path: Path, text: str) -> plan.Campaign:
    file = tmp_path / "campaign.toml"
    file.write_text(text, encoding="utf-8")
    return plan.read(file, all_scenarios=["b", "a"])


def test_every_scenario_meets_every_target_as_often_as_asked(tmp_path: Path) -> None:
    """Scenarios × targets × repeats, with the target changing fastest."""
    planned = plan.runs(read(tmp_path, 'scenarios = ["x", "y"]\ntargets = ["vm:6.1", "local"]\nrepeats = 2\n'))
    assert [(run.scenario, run.target, run.repeat) for run in planned] == [
        (scenario, target, repeat) for repeat in (1, 2) for scenario in ("x", "y") for target in ("vm:6.1", "local")
    ]


def test_all_stands_for_every_scenario(tmp_path: Path) -> None:
    """`scenarios = "all"` is the sorted list of those there are."""
    assert read(tmp_path, 'scenarios = "all"\ntargets = ["local"]\n').scenarios == ("a", "b")


def test_settings_reach_every_run(tmp_path: Path) -> None:
    """Seconds (a whole number will do), frequency, evidence and the rest of the file are those of its runs."""
    text = 'scenarios = "all"\ntargets = ["local"]\nseconds = 3\nfrequency = 99\nevent = "cycles"\ntimeout = 7.5\n'
    text += 'evidence = "exact"\nconfidence = 0.9\nleast_seconds = 1\n'
    for run in plan.runs(read(tmp_path, text)):
        assert (run.seconds, run.frequency, run.event, run.timeout) == (3.0, 99, "cycles", 7.5)
        assert (run.evidence, run.confidence, run.least_seconds) == ("exact", 0.9, 1.0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("scenarios = [", "not a TOML file"),
        ('scenarios = "some"\ntargets = ["local"]', "scenarios must be a list of names"),
        ('scenarios = ["x"]', "targets must be a list of names"),
        ('scenarios = []\ntargets = ["local"]', "scenarios must be a list of names"),
        ('scenarios = ["x", "x"]\ntargets = ["local"]', "scenarios has a name twice"),
        ('scenarios = ["x"]\ntargets = ["local"]\nrepeat = 2', "no setting 'repeat'"),
        ('scenarios = ["x"]\ntargets = ["local"]\nrepeats = 0', "repeats must be a whole number above 0"),
        ('scenarios = ["x"]\ntargets = ["local"]\nrepeats = true', "repeats must be a whole number above 0"),
        ('scenarios = ["x"]\ntargets = ["local"]\nseconds = "ten"', "seconds must be a number above 0"),
        ('scenarios = ["x"]\ntargets = ["local"]\nevent = 5', "event must be a string"),
        ('scenarios = ["x"]\ntargets = ["local"]\nevidence = "hearsay"', "'hearsay' is no kind of evidence"),
    ],
)
def test_a_wrong_file_is_refused_by_what_is_wrong_in_it(tmp_path: Path, text: str, says: str) -> None:
    """Every mistake names the file and the setting."""
    with pytest.raises(InputError, match=says) as caught:
        read(tmp_path, text)
    assert "campaign.toml" in str(caught.value)


def test_targets_that_would_share_a_directory_are_refused(tmp_path: Path) -> None:
    """Two targets whose names differ only in what a file name cannot hold do not overwrite each other."""
    with pytest.raises(UsageError, match="share the name"):
        plan.runs(read(tmp_path, 'scenarios = ["x"]\ntargets = ["vm:/a/b", "vm:/a-b"]\n'))


def test_the_example_has_eight_scenarios_and_four_kernels() -> None:
    """The file that README runs is a good one, of scenarios that exist."""
    from loadgen.scenarios import SCENARIOS  # noqa: PLC0415

    campaign = plan.read(EXAMPLE, all_scenarios=list(SCENARIOS))
    assert len(campaign.scenarios) == 8
    assert set(campaign.scenarios) <= SCENARIOS.keys()
    assert len(plan.runs(campaign)) == 32
