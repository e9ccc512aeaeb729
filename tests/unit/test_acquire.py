"""From a target's recorder to a Recording, with a target that answers from memory; looks and replays on the way."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from profiler import acquire, evidence, recording
from profiler.errors import MismatchError, MissingError, ProfilerError, RecordError, TargetError, UsageError
from profiler.evidence import EXACT, PROBES, SAMPLES
from profiler.following import ENOUGH, Answer, Following, Look, Step, looks
from profiler.model import Kernel
from profiler.request import RunRequest, check
from profiler.target.session import Completed
from tests.unit.elf_image import FUNC, NOTYPE, TEXT, Image
from tests.unit.test_parse_exec_log import BIND, ENTRY, call
from tests.unit.toy_recording import LOAD

DATA = Path(__file__).parent.parent / "data" / "perf"
FACTS = {
    "release": "6.1.0-toy",
    "build_id": "ab" * 20,
    "arch": "x86_64",
    "addresses": {"_stext": TEXT + 0x200000},
    "event": "cpu-clock",
    "frequency": 199,
    "seconds": 1.0,
    "cpus": 2,
    "commands": [["perf", "record"]],
    "tool_versions": {"perf": "6.1"},
    "warnings": ["a warning of the recorder"],
}
DONE = ('{"phase": "recording", "progress": 0.5}', "noise", "3", '{"done": true}')


@dataclass
class FakeSession:
    """Prints `lines` when the recorder is run, and has its output ready."""

    lines: tuple[str, ...] = DONE
    exit_code: int = 0
    facts: dict[str, Any] = field(default_factory=lambda: dict(FACTS))
    console: Path | None = None
    workdir: str = "/work"
    python: str = "python3"
    files: Mapping[str, Path] = field(default_factory=dict)
    job: dict[str, Any] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)
    orders: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    log: bytes | ProfilerError = b""  # of execution, or why there is none
    replays: bool = True

    def path(self, guest_path: str) -> str:
        return guest_path

    def run(
        self, argv: list[str], *, timeout: float, on_line: Callable[[str], None] | None = None, name: str = ""
    ) -> Completed:
        self.ran = argv
        for line in self.lines:
            assert on_line is not None
            on_line(line)
        return Completed(self.exit_code, "\n".join(self.lines))

    @contextlib.contextmanager
    def execution_log(self, *, seconds: float) -> Iterator[Iterator[bytes]]:
        if isinstance(self.log, ProfilerError):
            raise self.log
        yield iter([self.log])

    def put(self, local: Path, remote: str) -> None:
        if remote == "job.json":
            self.job = json.loads(local.read_text())
        else:
            self.orders.append(remote)

    def get(self, remote: str, local: Path) -> None:
        self.fetched.append(remote)
        if remote.startswith(("out/probes-", "out/operands-")):
            return
        if remote == "out/perf.data":
            shutil.copyfile(DATA / "callchains.data", local)
            return
        local.mkdir()
        if self.job["seconds"] == 0:
            (local / "record.json").write_text(json.dumps(self.facts))
            recording.write_load(local, LOAD)
            return
        shutil.copyfile(DATA / "callchains.data", local / recording.PERF_DATA)
        (local / "record.json").write_text(json.dumps(self.facts))
        recording.write_load(local, LOAD)


@dataclass
class FakeTarget:
    opened: FakeSession
    spec: str = "vm:toy"
    emulated: bool = True

    def check(self) -> None:
        """Nothing is missing."""

    def kernel(self) -> Kernel | None:
        return None

    @contextlib.contextmanager
    def session(self, files: Mapping[str, Path]) -> Iterator[FakeSession]:
        self.opened.files = files
        yield self.opened


def request(**changes: Any) -> RunRequest:
    asked = {
        "target": "vm:toy",
        "scenario": None,
        "syscall": "bind",
        "errno": "EADDRINUSE",
        "program": ["sh", "-c", ":"],
    }
    return RunRequest(**{**asked, **changes})


def recorded(session: FakeSession, directory: Path, **changes: Any) -> list[tuple[str, float | None]]:
    """The progress that was told."""
    told: list[tuple[str, float | None]] = []
    asked = request(**changes)
    following = Following(
        asked, asked.evidence or frozenset({SAMPLES}), directory, None, lambda *step: told.append(step)
    )
    acquire._record(FakeTarget(session), following, directory)
    return told


def test_what_the_recorder_made_lies_in_the_recording(tmp_path: Path) -> None:
    session = FakeSession()
    assert recorded(session, tmp_path) == [("recording", 0.5)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["load.json", "perf.data", "record.json"]
    assert session.ran == ["python3", "-m", "profiler.record", "job.json", "out"]


def test_the_recorder_is_told_the_call_and_the_program(tmp_path: Path) -> None:
    session = FakeSession()
    recorded(session, tmp_path, program=["sh", "-x", "$(touch y)"], files=[tmp_path / "a.txt"], seconds=3.0)
    assert session.job["program"] == ["/whyerrno/load", "-x", "$(touch y)"]  # arguments, never a shell's text
    assert (session.job["syscall"], session.job["syscall_number"]) == ("bind", 49)
    assert (session.job["errno"], session.job["errno_number"]) == ("EADDRINUSE", 98)
    assert (session.job["seconds"], session.job["scenario"], session.job["loop_library"]) == (3.0, None, None)
    assert session.files["/whyerrno/load"] == Path(shutil.which("sh") or "").resolve()
    assert str(tmp_path / "a.txt") in session.files


@pytest.mark.parametrize(
    ("kind", "error"), [("missing", MissingError), ("usage", UsageError), ("record", RecordError), (None, RecordError)]
)
def test_what_went_wrong_on_the_target_is_raised_here(
    tmp_path: Path, kind: str | None, error: type[ProfilerError]
) -> None:
    line = json.dumps({"error": "perf is missing", "hint": "apt install linux-perf", "kind": kind})
    with pytest.raises(error, match="perf is missing") as caught:
        recorded(FakeSession((line,), 1), tmp_path)
    assert type(caught.value) is error
    assert caught.value.hint == "apt install linux-perf"


@pytest.mark.parametrize(("lines", "code"), [(("Segmentation fault",), 139), ((), 0), (DONE, 1)])
def test_a_recorder_that_ends_without_a_word_is_a_failure_of_the_target(
    tmp_path: Path, lines: tuple[str, ...], code: int
) -> None:
    with pytest.raises(TargetError, match=f"status {code}"):
        recorded(FakeSession(lines, code), tmp_path)


def made(tmp_path: Path, kernel: Kernel | None = None, **facts: Any) -> Any:
    session = FakeSession()
    session.facts.update(facts)
    recorded(session, tmp_path)
    return acquire._manifest(request(), tmp_path, kernel, emulated=True)


def toy_kernel(directory: Path, build_id: str = "ab" * 20) -> Kernel:
    symbols = [("_stext", TEXT, 0, NOTYPE), ("_etext", TEXT + 0x100, 0, NOTYPE), ("f", TEXT, 16, FUNC)]
    (directory / "vmlinux").write_bytes(Image(symbols=symbols).content())
    return Kernel("6.1.0-toy", "6.1.1-1", build_id, "x86_64", vmlinux=directory / "vmlinux")


def test_the_manifest_holds_what_the_recorder_found(tmp_path: Path) -> None:
    found = made(tmp_path)
    assert (found.syscall, found.errno_number, found.program) == ("bind", 98, ["sh", "-c", ":"])
    assert (found.release, found.build_id, found.event) == ("6.1.0-toy", "ab" * 20, "cpu-clock")
    assert found.warnings == ["a warning of the recorder"]
    assert found.kaslr_offset == 0  # no vmlinux to compare with
    recording.write_manifest(tmp_path, found)
    assert recording.read_manifest(tmp_path) == found


def test_the_offset_is_where_the_kernel_was_loaded_less_where_it_was_linked(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    found = made(tmp_path / "out", toy_kernel(tmp_path))
    assert found.kaslr_offset == 0x200000
    assert found.package_version == "6.1.1-1"


def test_another_kernel_than_the_one_whose_files_are_here_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(MismatchError, match="has build id abab"):
        made(tmp_path / "out", toy_kernel(tmp_path, "cd" * 20))


# ---- which evidence ----


def test_auto_takes_the_log_where_there_is_an_emulator_and_the_other_rungs_everywhere() -> None:
    asked = request(evidence=evidence.AUTO)
    assert acquire.evidence_for(asked, FakeTarget(FakeSession())) == set(evidence.RUNGS)
    assert acquire.evidence_for(asked, FakeTarget(FakeSession(), emulated=False)) == set(evidence.RUNGS) - {EXACT}


@pytest.mark.parametrize("text", ["exact", "samples,exact"])
def test_exact_evidence_is_refused_where_there_is_no_emulator(text: str) -> None:
    """With what to do about it, and for this machine itself before anything else."""
    asked = request(evidence=evidence.parse(text))
    with pytest.raises(MissingError, match="the guest of vm:toy runs under KVM") as caught:
        acquire.evidence_for(asked, FakeTarget(FakeSession(), emulated=False))
    assert "WHYERRNO_ACCEL=tcg" in caught.value.hint
    with pytest.raises(MissingError, match="the target is this machine itself") as caught:
        check(request(target="local", evidence=evidence.parse(text)))
    assert "--target vm:" in caught.value.hint
    check(request(target="local"))


@pytest.mark.parametrize("text", ["", "sample", "samples,", "auto,samples"])
def test_evidence_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no kind of evidence"):
        evidence.parse(text)


def test_looks_come_at_growing_distances_and_never_at_the_end() -> None:
    assert looks(request(least_seconds=2.0, seconds=10.0)) == [2.0, 3.0, 4.5, 6.75]
    assert looks(request(least_seconds=2.0, seconds=2.0)) == []
    assert looks(request(least_seconds=5.0, seconds=1.0)) == []


# ---- looks and replays, as the recorder announces them ----

STARTED, LOOK, REPLAY = f'{{"load": 118, "syscall_entry": {ENTRY}}}', '{"sampled": 2.0}', '{"replay": true}'
END = '{"done": true}'


@dataclass
class Judge:
    """Says the next step as told, look by look, and keeps what it was shown; True is enough, False nothing new."""

    answers: list[bool | Step]
    shown: list[tuple[int, bool, int]] = field(default_factory=list)  # pid, whether sampled, logged instructions
    answered: list[Answer] = field(default_factory=list)
    first: list[Step] = field(default_factory=list)

    def orders(self) -> list[Step]:
        return self.first

    def next_step(self, look: Look) -> Step | None:
        logged = len(look.execution.address) if look.execution is not None else 0
        self.shown.append((look.load_pid, (look.directory / recording.PERF_DATA).exists(), logged))
        self.answered += [look.answer] if look.answer is not None else []
        step = self.answers.pop(0)
        return step if isinstance(step, dict) else ENOUGH if step else None


def followed(session: FakeSession, directory: Path, judge: Judge | None, taken: set[str], **changes: Any) -> Following:
    following = Following(request(**changes), frozenset(taken), directory, judge, lambda *_: None)
    acquire._record(FakeTarget(session), following, directory)
    return following


def test_recording_ends_with_the_look_that_decides(tmp_path: Path) -> None:
    """What is looked at is fetched once, later only the samples; after the decision there is no more looking."""
    session, judge = FakeSession((STARTED, LOOK, LOOK, LOOK, END)), Judge([False, True])
    following = followed(session, tmp_path, judge, {SAMPLES})
    assert judge.shown == [(118, True, 0), (118, True, 0)]
    assert session.orders == ["enough"]
    assert following.stopped_by == "verdict"
    assert session.fetched == ["out", "out/perf.data", "out"]
    assert (session.job["looks"], session.job["replay_seconds"]) == ([2.0, 3.0, 4.5, 6.75], 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["load.json", "perf.data", "record.json"]


def test_a_verdict_that_is_never_decided_takes_all_the_time(tmp_path: Path) -> None:
    session, judge = FakeSession((STARTED, LOOK, LOOK, END)), Judge([False, False])
    assert followed(session, tmp_path, judge, {SAMPLES}).stopped_by == "time"
    assert session.orders == []


def test_with_samples_and_log_the_first_look_is_behind_both(tmp_path: Path) -> None:
    session = FakeSession((STARTED, LOOK, REPLAY, LOOK, END), log=call(BIND) + call(BIND) + call(1))
    judge = Judge([False, True])
    assert followed(session, tmp_path, judge, {SAMPLES, EXACT}).stopped_by == "verdict"
    assert judge.shown == [(118, True, 12), (118, True, 12)]
    assert session.orders == ["replayed", "enough"]
    log = recording.read_execution_log(tmp_path)
    assert log is not None
    assert len(log.address) == 12


def test_a_log_alone_is_recorded_without_a_look_and_without_samples(tmp_path: Path) -> None:
    session, judge = FakeSession((STARTED, REPLAY, END), log=call(BIND) + call(1)), Judge([])
    assert followed(session, tmp_path, judge, {EXACT}).stopped_by == "replay"
    assert session.orders == ["enough"]
    assert (session.job["seconds"], session.job["looks"]) == (0, [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["execution.npz", "load.json", "record.json"]
    session.facts.update(seconds=0, event="", frequency=0)
    (tmp_path / "record.json").write_text(json.dumps(session.facts))
    assert acquire._manifest(request(), tmp_path, None, emulated=True).warnings == ["a warning of the recorder"]


@pytest.mark.parametrize("log", [TargetError("QEMU's monitor is gone"), b"", call(1) + call(1)])
def test_with_auto_a_log_that_cannot_be_had_is_a_warning(tmp_path: Path, log: bytes | ProfilerError) -> None:
    session, judge = FakeSession((STARTED, LOOK, REPLAY, LOOK, END), log=log), Judge([True])
    following = followed(session, tmp_path, judge, {SAMPLES, EXACT})
    assert following.warnings[0].startswith("there is no execution log: ")
    assert session.orders == ["replayed", "enough"]
    assert judge.shown == [(118, True, 0)]


# ---- orders, as the recorder answers them ----

WAITING = '{"waiting": true}'


def answer(number: int, word: str, problem: str = "") -> str:
    return json.dumps({"answered": number, "do": word, "seconds": 0.5, "problem": problem, "hint": ""})


def test_a_step_is_ordered_and_its_answer_looked_at(tmp_path: Path) -> None:
    """While an answer is due no look is taken; what the order yielded is fetched before the look at it."""
    probe: Step = {"do": "probes", "probes": []}
    session = FakeSession((STARTED, LOOK, LOOK, answer(1, "probes"), END))
    judge = Judge([probe, True], first=[{"do": "graph", "function": "f"}])
    following = followed(session, tmp_path, judge, {SAMPLES, PROBES})
    assert session.job["orders"] == judge.first
    assert session.job["orders_seconds"] > 0
    assert session.orders == ["order-0.json", "enough"]
    assert [(one.word, one.number, one.problem) for one in judge.answered] == [("probes", 1, "")]
    assert {"out/probes-1.json", "out/probes-1.bin"} <= set(session.fetched)
    assert following.answered == [{"do": "probes", "answered": 1, "seconds": 0.5, "problem": "", "hint": ""}]
    assert following.stopped_by == "verdict"


def test_an_order_that_could_not_be_carried_out_yields_its_problem_alone(tmp_path: Path) -> None:
    session = FakeSession((STARTED, LOOK, answer(1, "probes", "no kprobes here"), WAITING, END))
    judge = Judge([{"do": "probes", "probes": []}, False, False])
    followed(session, tmp_path, judge, {SAMPLES, PROBES})
    assert judge.answered[0].problem == "no kprobes here"
    assert not any("probes" in name for name in session.fetched)
    assert session.orders == ["order-0.json", "enough"]


def test_a_recorder_that_waits_for_orders_is_told_when_there_are_none(tmp_path: Path) -> None:
    session, judge = FakeSession((STARTED, WAITING, END)), Judge([False])
    assert followed(session, tmp_path, judge, {PROBES}).stopped_by == "time"
    assert session.orders == ["enough"]


def test_a_log_that_was_asked_for_and_cannot_be_had_is_an_error(tmp_path: Path) -> None:
    session = FakeSession((STARTED, REPLAY, END), log=TargetError("QEMU's monitor is gone"))
    with pytest.raises(TargetError, match="monitor is gone"):
        followed(session, tmp_path, None, {EXACT}, evidence=frozenset({EXACT}))


def test_a_load_that_makes_no_call_while_it_is_logged_leaves_no_log(tmp_path: Path) -> None:
    """Its results may still say why, so the recording is made."""
    session = FakeSession((STARTED, REPLAY, END), log=call(1) + call(1))
    following = followed(session, tmp_path, None, {EXACT}, evidence=frozenset({EXACT}))
    assert following.warnings == ["there is no execution log: the load made no call while it was logged"]
    assert session.orders == ["enough"]
    assert recording.read_execution_log(tmp_path) is None
