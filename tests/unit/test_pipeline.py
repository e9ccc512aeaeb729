"""From a target's recorder to a Recording, with a target that answers from memory."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from profiler import acquire, pipeline, recording
from profiler.errors import InputError, MismatchError, MissingError, ProfilerError, RecordError, TargetError, UsageError
from profiler.evidence import SAMPLES
from profiler.model import Kernel
from profiler.target.session import Completed
from tests.unit.elf_image import FUNC, NOTYPE, TEXT, Image
from tests.unit.toy_recording import LOAD, manifest

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

    def put(self, local: Path, remote: str) -> None:
        self.job = json.loads(local.read_text())

    def get(self, remote: str, local: Path) -> None:
        local.mkdir()
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


def request(**changes: Any) -> pipeline.RunRequest:
    asked = {
        "target": "vm:toy",
        "scenario": None,
        "syscall": "bind",
        "errno": "EADDRINUSE",
        "program": ["sh", "-c", ":"],
    }
    return pipeline.RunRequest(**{**asked, **changes})


def recorded(session: FakeSession, directory: Path, **changes: Any) -> list[tuple[str, float | None]]:
    """The progress that was told."""
    told: list[tuple[str, float | None]] = []
    asked = request(**changes)
    following = acquire._Following(
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


# ---- before anything runs ----


def test_an_existing_output_is_refused_before_the_target_is_opened(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="exists"):
        pipeline.record(request(target="no:such"), tmp_path / "out", progress=lambda *_: None)


@pytest.mark.parametrize(
    ("name", "message"), [("no-such-program-anywhere", "there is no program"), ("./dir", "is a directory")]
)
def test_a_program_that_cannot_run_is_refused_before_the_target_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dir").mkdir()
    with pytest.raises(UsageError, match=message):
        pipeline.record(request(target="no:such", program=[name]), tmp_path / "out", progress=lambda *_: None)
    assert not (tmp_path / "out").exists()


def test_a_kernel_without_debug_info_is_refused_before_recording(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no debug info"):
        pipeline.require_debug_info(toy_kernel(tmp_path), "vm:toy")
    with pytest.raises(MissingError, match="no vmlinux with debug info for the kernel of local"):
        pipeline.require_debug_info(None, "local")


# ---- the other half: what is read back ----


def test_a_kernel_that_is_not_here_is_named_with_what_to_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(MissingError, match=r"no vmlinux of 6\.1\.0-toy \(build id abababababab\)") as caught:
        pipeline.find_kernel(manifest(target="vm:toy"))
    assert "kernels fetch 6.1.1-1" in caught.value.hint
    with pytest.raises(MissingError):
        pipeline.find_kernel(manifest(target="import", package_version=""))


@pytest.mark.parametrize("name", ["perf.data", "perf.script", "perf.annotate"])
def test_samples_that_cannot_be_read_are_named_by_their_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PERFILE2 and no more" if name == "perf.data" else b"nothing of perf's\n")
    with pytest.raises(InputError, match=str(tmp_path / name)):
        pipeline.read_samples(tmp_path / name)
