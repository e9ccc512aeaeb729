"""Runs a campaign's runs, several at once, and accounts for every one."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any, Protocol

from profiler import recording
from profiler.campaign import outcome, worker
from profiler.campaign.outcome import CRASHED, ERROR, Outcome
from profiler.campaign.plan import Campaign, PlannedRun
from profiler.errors import ProfilerError, UsageError

END_SECONDS = 30.0  # for a run that is told to end, to stop its guest and remove its files
PLAN = "campaign.json"


class Watcher(Protocol):
    """Is told what happens; all in the caller's thread."""

    def started(self, run: PlannedRun) -> None: ...
    def progress(self, run: PlannedRun, phase: str, fraction: float | None) -> None: ...
    def ended(self, outcome: Outcome, *, kept: bool) -> None: ...


@dataclass(slots=True)
class _Active:
    run: PlannedRun
    process: Any  # multiprocessing's spawn process
    messages: connection.Connection
    started: float
    error: str = ""
    late: bool = False


@contextlib.contextmanager
def opened(directory: Path, campaign: Campaign) -> Iterator[None]:
    """The campaign's directory, made or taken up again, locked against a second campaign in it.

    Raises UsageError where the directory holds something else or a campaign is running in it.
    """
    if directory.exists() and any(directory.iterdir()) and not (directory / PLAN).is_file():
        raise UsageError(f"{directory} exists and is no campaign", hint="choose another -o")
    for part in ("runs", "outcomes", "logs"):
        (directory / part).mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"a campaign is running in {directory}", hint="wait for it, or choose another -o"
            ) from None
        recording.write_atomically(directory / PLAN, json.dumps(dataclasses.asdict(campaign), indent=1) + "\n")
        yield


def run_all(
    planned: Sequence[PlannedRun],
    directory: Path,
    work: worker.Work,
    *,
    jobs: int,
    watcher: Watcher,
    again: bool = False,
) -> list[Outcome]:
    """Do every planned run, `jobs` at once, skipping the finished ones unless `again`; outcomes in planned order.

    Each outcome is saved as it comes. On KeyboardInterrupt (or any other error here) the runs that are going on
    are told to end, waited for, and the error goes on.
    """
    outcomes: dict[PlannedRun, Outcome] = {}
    waiting: list[PlannedRun] = []
    for run in planned:
        kept = None if again else outcome.finished(directory, run)
        if kept is None:
            waiting.append(run)
        else:
            outcomes[run] = kept
            watcher.ended(kept, kept=True)
    for ended in _run_waiting(waiting, directory, work, jobs, watcher):
        outcomes[ended.run] = ended
        outcome.save(directory, ended)
        watcher.ended(ended, kept=False)
    return [outcomes[run] for run in planned]


def _run_waiting(
    waiting: list[PlannedRun], directory: Path, work: worker.Work, jobs: int, watcher: Watcher
) -> Iterator[Outcome]:
    active: list[_Active] = []
    try:
        while waiting or active:
            while waiting and len(active) < jobs:
                active.append(_start(waiting.pop(0), directory, work))
                watcher.started(active[-1].run)
            for one in _wait(active, watcher):
                active.remove(one)
                yield _outcome(one, directory)
    finally:
        _end(active)


def _start(run: PlannedRun, directory: Path, work: worker.Work) -> _Active:
    (directory / "outcomes" / f"{run.name}.json").unlink(missing_ok=True)
    log = directory / "logs" / f"{run.name}.log"
    process, messages = worker.start(work, run, outcome.directory(directory, run), log)
    return _Active(run, process, messages, time.monotonic())


def _wait(active: list[_Active], watcher: Watcher) -> list[_Active]:
    """Pass on messages until something ended or a second went by; those that ended, by themselves or out of time."""
    heard = [one.messages for one in active if not one.messages.closed]
    connection.wait([one.process.sentinel for one in active] + heard, timeout=1.0)
    for one in active:
        if time.monotonic() - one.started > one.run.timeout:
            one.late = True
            _end([one])
    # Looked at before the messages: after the end none can come.
    ended = [one for one in active if one.process.exitcode is not None]
    for one in active:
        _drain(one, watcher)
    return ended


def _drain(one: _Active, watcher: Watcher) -> None:
    try:
        while not one.messages.closed and one.messages.poll():
            match one.messages.recv():
                case ("progress", phase, fraction):
                    watcher.progress(one.run, phase, fraction)
                case ("error", message):
                    one.error = message
    except (EOFError, OSError):  # the other end is closed
        one.messages.close()


def _outcome(one: _Active, directory: Path) -> Outcome:
    seconds = time.monotonic() - one.started
    one.messages.close()
    code = one.process.exitcode
    if code == 0:
        try:
            analysis = recording.read_analysis(outcome.directory(directory, one.run))
        except ProfilerError as error:
            return Outcome(one.run, ERROR, str(error), seconds)
        return outcome.of_analysis(one.run, analysis, seconds)
    if one.error and not one.late:
        return Outcome(one.run, ERROR, one.error, seconds)
    how = f"did not end within {one.run.timeout:g} s" if one.late else _how_it_died(code)
    return Outcome(one.run, CRASHED, f"{how}; see logs/{one.run.name}.log", seconds)


def _how_it_died(code: int) -> str:
    return f"its process was killed by {signal.Signals(-code).name}" if code < 0 else f"its process exited with {code}"


def _end(active: list[_Active]) -> None:
    """SIGTERM to all, SIGKILL to those that do not end in time."""
    for one in active:
        one.process.terminate()
    deadline = time.monotonic() + END_SECONDS
    try:
        for one in active:
            one.process.join(max(0.0, deadline - time.monotonic()))
    finally:
        for one in active:
            if one.process.exitcode is None:
                one.process.kill()
                one.process.join()
