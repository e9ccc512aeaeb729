"""A campaign accounts for every run, whatever a run does."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from profiler import recording
from profiler.campaign import outcome, runner
from profiler.campaign.outcome import CRASHED, ERROR, Outcome
from profiler.campaign.plan import Campaign, PlannedRun, runs
from profiler.errors import InputError, UsageError
from tests.unit.campaign_work import work


class Heard:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.ended_names: list[str] = []
        self.kept: list[str] = []
        self.phases: set[str] = set()

    def started(self, run: PlannedRun) -> None:
        pass

    def progress(self, run: PlannedRun, phase: str, fraction: float | None) -> None:
        self.phases.add(f"{run.scenario} {phase} {fraction}")

    def ended(self, outcome: Outcome, *, kept: bool) -> None:
        (self.kept if kept else self.ended_names).append(outcome.run.scenario)


class Interrupting(Heard):
    """Ctrl-C as soon as every hanging run has switched something on."""

    def __init__(self, directory: Path, wanted: int) -> None:
        super().__init__()
        self.directory = directory
        self.wanted = wanted

    def progress(self, run: PlannedRun, phase: str, fraction: float | None) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if len(list(self.directory.glob("runs/*.on"))) == self.wanted:
                raise KeyboardInterrupt
            time.sleep(0.05)


def plan(*scenarios: str, seconds: float = 1.0, timeout: float = 60.0) -> Campaign:
    return Campaign(scenarios=scenarios, targets=("local",), seconds=seconds, timeout=timeout)


def run(directory: Path, campaign: Campaign, watcher: Heard, *, jobs: int = 2, again: bool = False) -> list[Outcome]:
    with runner.opened(directory, campaign):
        return runner.run_all(runs(campaign), directory, work, jobs=jobs, watcher=watcher, again=again)


def statuses(outcomes: Sequence[Outcome]) -> dict[str, str]:
    return {o.run.scenario: o.status for o in outcomes}


def test_failures_and_crashes_end_alone(tmp_path: Path) -> None:
    """Runs that raise, are killed, exit, or write nothing are reported each by its cause, and the others conclude."""
    heard = Heard()
    outcomes = run(tmp_path / "c", plan("fail", "die", "conclude", "vanish", "surprise", "forget"), heard)
    assert statuses(outcomes) == {
        "fail": ERROR,
        "die": CRASHED,
        "conclude": "named",
        "vanish": CRASHED,
        "surprise": ERROR,
        "forget": ERROR,
    }
    message = {o.run.scenario: o.message for o in outcomes}
    assert message["fail"] == "the guest panicked (see its console)"
    assert "SIGKILL" in message["die"]
    assert "exited with 7" in message["vanish"]
    assert "ZeroDivisionError" in message["surprise"]
    assert sorted(heard.ended_names) == sorted(message)
    assert "conclude working 0.5" in heard.phases


def test_what_a_run_prints_is_kept_in_its_log(tmp_path: Path) -> None:
    """Output and traceback of a failed run are in logs/NAME.log, and not on the campaign's own terminal."""
    run(tmp_path / "c", plan("surprise"), Heard())
    log = (tmp_path / "c/logs/surprise_local_1.log").read_text(encoding="utf-8")
    assert "a line for the log" in log
    assert "Traceback" in log


def test_finished_runs_are_kept_and_failed_ones_tried_again(tmp_path: Path) -> None:
    """The same campaign started again does only what reached no conclusion."""
    run(tmp_path / "c", plan("conclude", "fail"), Heard())
    heard = Heard()
    outcomes = run(tmp_path / "c", plan("conclude", "fail"), heard)
    assert (heard.kept, heard.ended_names) == (["conclude"], ["fail"])
    assert statuses(outcomes) == {"conclude": "named", "fail": ERROR}


def test_a_changed_request_or_a_lost_analysis_is_run_again(tmp_path: Path) -> None:
    """A run counts as finished only for the same settings and while its analysis is there."""
    run(tmp_path / "c", plan("conclude"), Heard())
    changed = Heard()
    run(tmp_path / "c", plan("conclude", seconds=2.0), changed)
    assert changed.ended_names == ["conclude"]
    (tmp_path / "c/runs/conclude_local_1" / recording.ANALYSIS).unlink()
    lost = Heard()
    run(tmp_path / "c", plan("conclude", seconds=2.0), lost)
    assert lost.ended_names == ["conclude"]


def test_again_runs_finished_runs_too(tmp_path: Path) -> None:
    """--force leaves nothing out."""
    run(tmp_path / "c", plan("conclude"), Heard())
    heard = Heard()
    run(tmp_path / "c", plan("conclude"), heard, again=True)
    assert heard.ended_names == ["conclude"]


def test_a_run_that_hangs_is_ended_in_time_and_cleans_up(tmp_path: Path) -> None:
    """Past its timeout a run is told to end, undoes what it switched on, and counts as crashed."""
    outcomes = run(tmp_path / "c", plan("hang", timeout=4.0), Heard())
    assert statuses(outcomes) == {"hang": CRASHED}
    assert "did not end within 4 s" in outcomes[0].message
    assert not list((tmp_path / "c/runs").glob("*.on"))


def test_an_interrupt_ends_every_run_and_lets_it_clean_up(tmp_path: Path) -> None:
    """Ctrl-C leaves no process and nothing switched on."""
    directory = tmp_path / "c"
    campaign = Campaign(scenarios=("hang",), targets=("local", "vm:6.1"))
    with pytest.raises(KeyboardInterrupt):
        run(directory, campaign, Interrupting(directory, wanted=2))
    assert not list(directory.glob("runs/*.on"))


def test_two_campaigns_in_one_directory_are_refused(tmp_path: Path) -> None:
    """The second says that the first is running; a directory of something else is left alone."""
    with runner.opened(tmp_path / "c", plan("conclude")), pytest.raises(UsageError, match="is running"):
        runner.opened(tmp_path / "c", plan("conclude")).__enter__()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.tex").touch()
    with pytest.raises(UsageError, match="is no campaign"):
        runner.opened(tmp_path / "other", plan("conclude")).__enter__()


def test_results_are_read_back_as_written(tmp_path: Path) -> None:
    """results.json holds every outcome; a newer schema and a damaged file are refused."""
    outcomes = run(tmp_path / "c", plan("conclude", "fail"), Heard())
    outcome.write_results(tmp_path / "c", outcomes)
    assert outcome.read_results(tmp_path / "c") == outcomes
    rows = json.loads((tmp_path / "c/results.json").read_text())["runs"]
    assert [row["directory"] for row in rows] == ["runs/conclude_local_1", None]
    (tmp_path / "c/results.json").write_text('{"schema": 99, "runs": []}')
    with pytest.raises(InputError, match="newer"):
        outcome.read_results(tmp_path / "c")
    (tmp_path / "c/results.json").write_text("[]")
    with pytest.raises(InputError, match="shape"):
        outcome.read_results(tmp_path / "c")
