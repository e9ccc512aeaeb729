"""Things a campaign's run can do, importable by the processes that the campaign's tests start."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from pathlib import Path

from profiler import recording
from profiler.campaign.plan import PlannedRun
from profiler.campaign.worker import Progress
from profiler.errors import TargetError
from tests.unit import sample_analysis


def work(run: PlannedRun, directory: Path, progress: Progress) -> None:
    """Do what the scenario's name says."""
    progress("working", 0.5)
    print("a line for the log", flush=True)
    BEHAVIOURS[run.scenario](run, directory)


def conclude(run: PlannedRun, directory: Path) -> None:
    analysis = sample_analysis.named()
    assert analysis.manifest is not None
    manifest = dataclasses.replace(analysis.manifest, scenario=run.scenario, target=run.target)
    with recording.new_directory(directory, force=True) as partial:
        recording.write_manifest(partial, manifest)
        recording.write_analysis(partial, analysis)


def fail(_run: PlannedRun, _directory: Path) -> None:
    raise TargetError("the guest panicked", hint="see its console")


def surprise(_run: PlannedRun, _directory: Path) -> None:
    raise ZeroDivisionError("division by zero")


def die(_run: PlannedRun, _directory: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def vanish(_run: PlannedRun, _directory: Path) -> None:
    os._exit(7)


def forget(_run: PlannedRun, _directory: Path) -> None:
    """End well without having written anything."""


def hang(_run: PlannedRun, directory: Path) -> None:
    """Wait, and undo what was switched on when told to end."""
    switched_on = directory.parent / f"{directory.name}.on"
    switched_on.touch()
    try:
        time.sleep(60)
    finally:
        switched_on.unlink()


BEHAVIOURS = {
    "conclude": conclude,
    "fail": fail,
    "surprise": surprise,
    "die": die,
    "vanish": vanish,
    "forget": forget,
    "hang": hang,
}
