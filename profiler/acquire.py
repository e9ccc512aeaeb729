"""The recording half of the road: a target, the recorder on it, and evidence taken until the verdict is decided.

The recorder (profiler.record) samples, and says when there is something to look at; whoever asked for the recording
looks, and says whether that is enough. An emulated guest is asked for its execution log as well, while the load runs
on without samples.
"""

from __future__ import annotations

import contextlib
import errno as errno_names
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from loadgen.build import loop_library
from loadgen.scenarios import SCENARIOS
from profiler import evidence, lab, recording
from profiler.debuginfo.vmlinux import Vmlinux
from profiler.errors import MismatchError, MissingError, ProfilerError, RecordError, TargetError, UsageError
from profiler.evidence import EXACT, GRAPH, PROBES, RUNGS, SAMPLES
from profiler.lab import programs, qemu
from profiler.model import MANIFEST_SCHEMA, ExecutionLog, Kernel, Manifest
from profiler.parse import exec_log, perf_data
from profiler.syscalls import NUMBERS
from profiler.target import Session, Target

Progress = Callable[[str, float | None], None]

# What a guest may take for everything but the recording itself: set-up, collecting, under emulation on a busy machine.
_GRACE_SECONDS = 120.0
_LEAST_OF_ASKED = 0.5  # of the sampling rate, below which the user is told
_GUEST_LOOP, _GUEST_JOB, _GUEST_PROGRAM = "/whyerrno/loop.so", "/work/job.json", "/whyerrno/load"
_LOOK = "look"  # a directory for what there is to look at, until the whole is there
_LOOK_GROWTH = 1.5  # each look has half as many samples again as the one before
_REPLAY_SECONDS = 60.0  # that a log may take, and the load go on for it
_ORDERS_SECONDS = 90.0  # that all orders together may take, beyond the sampling
_ANSWERS = {"probes": ("json", "bin"), "operands": ("json",)}
_REPLAYED_CALLS = 8
_REPLAYED_INSTRUCTIONS = 500_000  # of whole calls: half a gigabyte of log, and ten seconds
_LONGEST_CALL = 2_000_000  # instructions; a call that frees memory before it gives up takes a million


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What to record. Either `scenario`, or `program` with the system call and errno it repeats."""

    target: str
    scenario: str | None
    syscall: str
    errno: str
    program: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)  # that the program needs on the target
    modules: list[str] = field(default_factory=list)  # that a guest loads first; a scenario names its own
    seconds: float = 10.0  # of sampling, at most
    frequency: int = 8000
    event: str = "auto"
    evidence: frozenset[str] = evidence.AUTO
    confidence: float = 0.95  # of a verdict that ends the recording early
    least_seconds: float = 2.0  # of sampling before the first look


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


def check(request: RunRequest) -> None:
    """Before anything is fetched or booted. Raises UsageError, and MissingError where the evidence cannot be had."""
    if not request.scenario and not _is_there(request):
        _program(request.program[0])
    if EXACT in request.evidence and (request.target == "local" or request.target.startswith("ssh:")):
        whose = "this machine itself" if request.target == "local" else "no guest of this machine"
        raise MissingError(
            f"exact evidence is an emulator's log, and the target is {whose}",
            hint="choose a guest, as in --target vm:6.1, or --evidence samples",
        )


def evidence_for(request: RunRequest, target: Target) -> frozenset[str]:
    """What to take on `target`. Raises MissingError where it cannot give what was asked for."""
    replays = target.emulated and target.spec.startswith("vm:")
    if request.evidence == evidence.AUTO:
        return frozenset(RUNGS) if replays else frozenset(RUNGS) - {EXACT}
    if EXACT in request.evidence and not replays:
        raise MissingError(
            f"exact evidence is an emulator's log, and the guest of {request.target} runs under KVM",
            hint=f"set {qemu.ACCELERATOR_VARIABLE}=tcg to have it emulated, or --evidence samples",
        )
    return request.evidence


def record_on(
    target: Target,
    request: RunRequest,
    out: Path,
    *,
    force: bool = False,
    steps: Steps | None = None,
    progress: Progress,
) -> Path:
    """Makes the Recording `out` and returns it. Without `steps` all of the time asked for is sampled.

    Raises UsageError when `out` exists, MissingError, TargetError or RecordError when it cannot be made;
    nothing appears under `out` then.
    """
    taken = evidence_for(request, target)
    kernel = target.kernel()
    with recording.new_directory(out, force=force) as partial:
        progress("starting the target", None)
        following = _Following(request, taken, partial, steps, progress)
        _record(target, following, partial)
        progress("checking the recording", None)
        if kernel is not None and kernel.config is not None and not (partial / recording.CONFIG).exists():
            shutil.copyfile(kernel.config, partial / recording.CONFIG)
        manifest = _manifest(request, partial, kernel, emulated=target.emulated)
        manifest = replace(
            manifest,
            warnings=[*manifest.warnings, *following.warnings],
            stopped_by=following.stopped_by,
            rungs=[rung for rung in RUNGS if rung in taken],
            orders=following.answered,
        )
        recording.write_manifest(partial, manifest)
        (partial / "record.json").unlink()
    return out


@contextlib.contextmanager
def session_for(target: Target, request: RunRequest, progress: Progress) -> Iterator[Session]:
    """The target held ready, with all that the load of `request` needs there."""
    files: dict[str, Path] = {str(path): path.resolve() for path in request.files}
    files = {name if name.startswith("/") else f"/work/{name}": path for name, path in files.items()}
    if request.scenario:
        files[_GUEST_LOOP] = loop_library(lab.cache_directory())
    elif not _is_there(request):
        files[_GUEST_PROGRAM] = _program(request.program[0])
    modules = _modules(target, request, progress)
    files |= {f"/modules/{name}.ko": path for name, path in modules}
    with target.session(files) as session:
        _load_modules(session, [name for name, _ in modules])
        yield session


def _record(target: Target, following: _Following, partial: Path) -> None:
    with session_for(target, following.request, following.told) as session:
        local_job = partial / "job.json"
        local_job.write_text(json.dumps(following.job(session)))
        session.put(local_job, "job.json")
        local_job.unlink()
        following.run(session)
        shutil.rmtree(partial / _LOOK, ignore_errors=True)
        session.get("out", partial / "out")
        for file in (partial / "out").iterdir():
            file.rename(partial / file.name)
        (partial / "out").rmdir()
        if session.console is not None and session.console.is_file():
            (partial / recording.CONSOLE).write_bytes(session.console.read_bytes())


def _modules(target: Target, request: RunRequest, progress: Progress) -> list[tuple[str, Path]]:
    """The modules that a guest is to load, in order. Elsewhere the load's set-up asks the system for them."""
    kernel = target.kernel()
    wanted = dict.fromkeys(modules_for(request))
    if not target.spec.startswith("vm:") or kernel is None:
        if request.modules:
            raise UsageError(
                "--module is for vm: targets", hint=f"on the machine itself: modprobe {request.modules[0]}"
            )
        return []
    return lab.loadable_modules(kernel, wanted, progress)


def modules_for(request: RunRequest) -> list[str]:
    """Names of the modules that the load needs."""
    return [*request.modules, *(SCENARIOS[request.scenario].modules if request.scenario else ())]


def _load_modules(session: Session, names: list[str]) -> None:
    for name in names:
        done = session.run(["insmod", f"/modules/{name}.ko"], timeout=_GRACE_SECONDS, name=f"loading {name}")
        if done.exit_code:
            raise TargetError(f"the guest cannot load the module {name}: {' '.join(done.output.split())[-200:]}")


def load_fields(request: RunRequest, session: Session) -> dict[str, Any]:
    """The fields of a job that say what the load is, and how it is sampled."""
    program = list(request.program)
    if program and not _is_there(request):
        program[0] = session.path(_GUEST_PROGRAM)
    return {
        "syscall": request.syscall,
        "syscall_number": NUMBERS["x86_64"][request.syscall],
        "errno": request.errno,
        "errno_number": errno_number(request.errno),
        "scenario": request.scenario,
        "program": program,
        "frequency": request.frequency,
        "event": request.event,
        "loop_library": session.path(_GUEST_LOOP) if request.scenario else None,
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


class _Following:
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
        goes_on = self._steps is not None and PROBES in self._taken
        return {
            **load_fields(request, session),
            "seconds": request.seconds if SAMPLES in self._taken else 0,
            "looks": _looks(request) if SAMPLES in self._taken and self._steps is not None else [],
            "orders": self._steps.orders() if self._steps is not None else [],
            "orders_seconds": _ORDERS_SECONDS if goes_on else 0,
            "replay_seconds": _REPLAY_SECONDS if EXACT in self._taken else 0,
            "kernel_text": True,
        }

    def run(self, session: Session) -> None:
        """Raises what the recorder says went wrong on the target."""
        seconds = self.request.seconds + _GRACE_SECONDS + (_REPLAY_SECONDS if EXACT in self._taken else 0)
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
        order.write_text(json.dumps(step))
        session.put(order, f"order-{self._ordered}.json")
        order.unlink()
        self._ordered += 1
        return True

    def _fetched(self, session: Session) -> Path:
        """A directory with what the recorder has written so far; of samples, what there is now."""
        directory = self._partial / _LOOK
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


def errno_number(name: str) -> int:
    number: int = getattr(errno_names, name)
    return number


def _looks(request: RunRequest) -> list[float]:
    """Seconds of sampling after which to look; the end of all is none of them."""
    found = []
    seconds = request.least_seconds
    while seconds < request.seconds:
        found.append(round(seconds, 3))
        seconds *= _LOOK_GROWTH
    return found


def _is_there(request: RunRequest) -> bool:
    """Whether the program is one of the target's own: on an ssh host a bare name is looked up there."""
    return request.target.startswith("ssh:") and "/" not in request.program[0]


def _program(name: str) -> Path:
    found = shutil.which(name)
    if found is not None:
        programs.require_runnable(Path(found))
        return Path(found).resolve()
    if "/" not in name and Path(name).is_file():
        raise UsageError(f"{name} is not among the programs of PATH", hint=f"give its path: ./{name}")
    if Path(name).is_dir():
        raise UsageError(f"{name} is a directory, not a program", hint="give the path of a program, as in ./repro")
    if Path(name).exists():
        raise UsageError(f"{name} is not executable", hint=f"chmod +x {name}")
    raise UsageError(f"there is no program {name}", hint="give its path, as in ./repro")


def _manifest(request: RunRequest, partial: Path, kernel: Kernel | None, *, emulated: bool) -> Manifest:
    facts = json.loads((partial / "record.json").read_text())
    if kernel is not None and kernel.build_id and facts["build_id"] not in ("", kernel.build_id):
        raise MismatchError(
            f"the kernel that ran has build id {facts['build_id']}, its files here {kernel.build_id}",
            hint="install the debug info of exactly the running kernel's package",
        )
    warnings = [str(warning) for warning in facts["warnings"]]
    if (partial / recording.CONFIG).exists():
        warnings = [warning for warning in warnings if "configuration was not found" not in warning]
    lost = throttled = 0
    if (partial / recording.PERF_DATA).exists():
        data = perf_data.read(partial / recording.PERF_DATA)
        lost, throttled = data.lost, data.throttled
        warnings += _warnings(facts, len(data.samples.ip), len(data.decode_errors))
    return Manifest(
        schema=MANIFEST_SCHEMA,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        syscall=request.syscall,
        errno=request.errno,
        errno_number=errno_number(request.errno),
        scenario=request.scenario,
        program=request.program,
        target=request.target,
        release=facts["release"],
        package_version=kernel.package_version if kernel else "",
        build_id=facts["build_id"] or (kernel.build_id if kernel else ""),
        arch=facts["arch"],
        kaslr_offset=_kaslr_offset(facts["addresses"], kernel),
        event=facts["event"],
        frequency=facts["frequency"],
        seconds=facts["seconds"],
        lost=lost,
        throttled=throttled,
        commands=facts["commands"],
        tool_versions=facts["tool_versions"],
        emulated=emulated,
        warnings=warnings,
        rates={str(rung): float(rate) for rung, rate in facts.get("rates", {}).items()},
    )


def _warnings(facts: dict[str, Any], samples: int, decode_errors: int) -> list[str]:
    warnings = []
    taken = samples / max(facts["seconds"], 0.001) / max(facts["cpus"], 1)
    if facts["cpus"] == 1 and taken < _LEAST_OF_ASKED * facts["frequency"]:
        warnings.append(f"{taken:.0f} samples a second were taken of the {facts['frequency']} asked for")
    if decode_errors:
        warnings.append(f"{decode_errors} records of perf.data could not be decoded")
    return warnings


def _kaslr_offset(addresses: dict[str, int], kernel: Kernel | None) -> int:
    """Where the kernel was loaded, less where it was linked; 0 where there is no vmlinux to compare with."""
    if kernel is None or kernel.vmlinux is None:
        return 0
    with Vmlinux(kernel.vmlinux) as vmlinux:
        return addresses["_stext"] - vmlinux.symbol_address("_stext")
