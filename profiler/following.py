"""The recorder on the target, followed while it runs: what it says is read, and what it is to do next put before it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from profiler import recording
from profiler.errors import MissingError, ProfilerError, RecordError, TargetError, UsageError
from profiler.evidence import EXACT, GRAPH, PROBES, RECORDED, SAMPLES
from profiler.model import ExecutionLog
from profiler.parse import exec_log
from profiler.request import Progress, RunRequest, errno_number, is_there
from profiler.syscalls import NUMBERS
from profiler.target import Session

# What a guest may take for everything but the recording itself: set-up, collecting, under emulation on a busy machine.
GRACE_SECONDS = 120.0
GUEST_LOOP, GUEST_PROGRAM = "/whyerrno/loop.so", "/whyerrno/load"
LOOK = "look"  # a directory for what there is to look at, until the whole is there
_LOOK_GROWTH = 1.5  # each look has half as many samples again as the one before
_REPLAY_SECONDS = 60.0  # that a log may take, and the load go on for it
_ORDERS_SECONDS = 90.0  # that all orders together may take, beyond the sampling
_ANSWERS = {"probes": ("json", "bin"), "operands": ("json",)}
_REPLAYED_CALLS = 8
_REPLAYED_INSTRUCTIONS = 500_000  # of whole calls: half a gigabyte of log, and ten seconds
_LONGEST_CALL = 2_000_000  # instructions; a call that frees memory before it gives up takes a million


@dataclass(frozen=True, slots=True)
class Answer:
    """What an order yielded; `problem` is why it yielded nothing."""

    word: str
    number: int
    problem: str
    directory: Path

    def file(self, ending: str) -> Path:
        return self.directory / f"{self.word}-{self.number}.{ending}"


@dataclass(frozen=True, slots=True)
class Look:
    """What there is of a recording while it goes on."""

    directory: Path  # perf.data so far (none without sampling), kallsyms, kernel_text
    load_pid: int
    execution: ExecutionLog | None
    answer: Answer | None = None  # where it is an order's that made this look


Step = dict[str, Any]  # an order to the recorder (profiler.record.orders), or ENOUGH
ENOUGH: Step = {"do": "enough"}


class Steps(Protocol):
    """Who says what to record next, given what there is."""

    def orders(self) -> list[Step]:
        """What to do before anything is sampled."""

    def next_step(self, look: Look) -> Step | None:
        """None: go on as before."""


def load_fields(request: RunRequest, session: Session) -> dict[str, Any]:
    """The fields of a job that say what the load is, and how it is sampled."""
    program = list(request.program)
    if program and not is_there(request):
        program[0] = session.path(GUEST_PROGRAM)
    return {
        "syscall": request.syscall,
        "syscall_number": NUMBERS["x86_64"][request.syscall],
        "errno": request.errno,
        "errno_number": errno_number(request.errno),
        "scenario": request.scenario,
        "program": program,
        "frequency": request.frequency,
        "event": request.event,
        "loop_library": session.path(GUEST_LOOP) if request.scenario else None,
    }


def run_recorder(
    session: Session, job: str, out: str, seconds: float, on_message: Callable[[dict[str, Any]], None]
) -> None:
    """Runs the recorder on the target, `job` and `out` being paths there, and hands on what it says.

    Raises what it says went wrong, TargetError where it ends without a word.
    """
    last: dict[str, Any] = {}

    def read(line: str) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            return
        if isinstance(message, dict):
            last.update({key: message[key] for key in ("error", "hint", "kind", "done") if key in message})
            on_message(message)

    argv = [session.python, "-m", "profiler.record", job, out]
    done = session.run(argv, timeout=seconds, on_line=read, name="the recording")
    if "error" in last:
        kinds: dict[str, type[ProfilerError]] = {"missing": MissingError, "usage": UsageError}
        raise kinds.get(str(last.get("kind")), RecordError)(str(last["error"]), hint=str(last.get("hint", "")))
    if done.exit_code or not last.get("done"):
        tail = " ".join(done.output.split())[-300:]
        raise TargetError(f"the recorder ended with status {done.exit_code}: {tail}")


class Following:
    """Follows the recorder on the target: passes its progress on, takes the execution log when the time for it has
    come, has what there is looked at, and tells the recorder what to do next."""

    def __init__(
        self, request: RunRequest, taken: frozenset[str], partial: Path, steps: Steps | None, progress: Progress
    ) -> None:
        self.request = request
        self.warnings: list[str] = []
        self.answered: list[dict[str, Any]] = []
        self.stopped_by = "time"
        self.told = progress
        self._taken = taken
        self._partial = partial
        self._steps = steps
        self._execution: ExecutionLog | None = None
        self._load: dict[str, Any] = {}  # {"load": 118, "syscall_entry": 18446744071572881408}
        self._ordered = 0
        self._waits_for_answer = False

    def job(self, session: Session) -> dict[str, Any]:
        request = self.request
        goes_on = self._steps is not None and (PROBES in self._taken or not self._taken & RECORDED)
        return {
            **load_fields(request, session),
            "seconds": request.seconds if SAMPLES in self._taken else 0,
            "looks": looks(request) if SAMPLES in self._taken and self._steps is not None else [],
            "orders": self._steps.orders() if self._steps is not None else [],
            "orders_seconds": _ORDERS_SECONDS if goes_on else 0,
            "replay_seconds": _REPLAY_SECONDS if EXACT in self._taken else 0,
            "kernel_text": True,
        }

    def run(self, session: Session) -> None:
        """Raises what the recorder says went wrong on the target."""
        seconds = self.request.seconds + GRACE_SECONDS + (_REPLAY_SECONDS if EXACT in self._taken else 0)
        seconds += _ORDERS_SECONDS if PROBES in self._taken else 0
        run_recorder(session, "job.json", "out", seconds, lambda message: self._read(message, session))

    def _read(self, message: dict[str, Any], session: Session) -> None:
        if "progress" in message:
            self.told(str(message.get("phase", "recording")), float(message["progress"]))
        elif "load" in message:
            self._load = message
        elif "answered" in message:
            self._note_answer(message, session)
        elif "replay" in message:
            self._replay(session)
        elif "sampled" in message:
            # Before the replay there is no need to look: it takes no longer than a look.
            if EXACT not in self._taken or self._execution is not None:
                self._look(session)
        elif "waiting" in message and not self._waits_for_answer and not self._look(session):
            self._word(session, "enough")

    def _note_answer(self, message: dict[str, Any], session: Session) -> None:
        self._waits_for_answer = False
        answer = {key: message[key] for key in ("do", "answered", "seconds", "problem", "hint")}
        self.answered.append(answer)
        if message["do"] != GRAPH:
            directory = self._fetched(session)
            made = Answer(str(message["do"]), int(message["answered"]), str(message["problem"]), directory)
            if not made.problem:
                for ending in _ANSWERS.get(made.word, ()):
                    session.get(f"out/{made.word}-{made.number}.{ending}", made.file(ending))
            self._look(session, made)

    def _replay(self, session: Session) -> None:
        try:
            log = self._log(session)
        except (MissingError, TargetError) as error:
            if EXACT in self.request.evidence:
                raise
            self.warnings.append(f"there is no execution log: {error}")
        else:
            if len(log.address):
                self._execution = log
                recording.write_execution_log(self._partial, log)
            else:
                self.warnings.append("there is no execution log: the load made no call while it was logged")
        if self._execution is None:
            self._taken -= {EXACT}
        if not {SAMPLES, PROBES} & self._taken:
            self.stopped_by = "replay"
            self._word(session, "enough")
        elif self._execution is not None:
            self._look(session)
        if self.stopped_by == "time":
            self._word(session, "replayed")

    def _log(self, session: Session) -> ExecutionLog:
        entry, number = self._load.get("syscall_entry"), NUMBERS["x86_64"][self.request.syscall]
        if entry is None:
            raise MissingError("the kernel has no entry_SYSCALL_64, where an execution log begins")
        with session.execution_log(seconds=_REPLAY_SECONDS / 2) as pieces:
            log = exec_log.read(
                pieces,
                entry=entry,
                number=number,
                calls=_REPLAYED_CALLS,
                most=_LONGEST_CALL,
                enough=_REPLAYED_INSTRUCTIONS,
            )
        if log.decode_errors:
            self.warnings.append(f"{len(log.decode_errors)} records of the execution log could not be decoded")
        return log

    def _look(self, session: Session, answer: Answer | None = None) -> bool:
        """Takes the next step, if there is one; whether there was."""
        if self._steps is None or self.stopped_by != "time" or self._waits_for_answer:
            return False
        directory = self._fetched(session)
        step = self._steps.next_step(Look(directory, int(self._load["load"]), self._execution, answer))
        if step is None:
            return False
        if step is ENOUGH:
            self.stopped_by = "verdict"
            self._word(session, "enough")
            return True
        self._waits_for_answer = True
        order = self._partial / "order.json"
        order.write_text(json.dumps(step) + "\n")
        session.put(order, f"order-{self._ordered}.json")
        order.unlink()
        self._ordered += 1
        return True

    def _fetched(self, session: Session) -> Path:
        """A directory with what the recorder has written so far; of samples, what there is now."""
        directory = self._partial / LOOK
        if not directory.is_dir():
            session.get("out", directory)
        elif SAMPLES in self._taken:
            samples = directory / recording.PERF_DATA
            samples.unlink(missing_ok=True)  # and not written over: it may still be mapped into memory
            session.get(f"out/{recording.PERF_DATA}", samples)
        return directory

    def _word(self, session: Session, word: str) -> None:
        order = self._partial / word
        order.touch()
        session.put(order, word)
        order.unlink()


def looks(request: RunRequest) -> list[float]:
    """Seconds of sampling after which to look; the end of all is none of them."""
    found = []
    seconds = request.least_seconds
    while seconds < request.seconds:
        found.append(round(seconds, 3))
        seconds *= _LOOK_GROWTH
    return found
