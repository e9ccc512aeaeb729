"""The recorder on this machine, with its real perf: whole results, and nothing left running however it ends."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadgen.build import loop_library
from profiler.errors import ProfilerError
from profiler.parse import perf_data
from profiler.record import count, kallsyms, perf
from tests.conftest import require

ROOT = Path(__file__).parents[2]
JOB = {
    "syscall": "bind",
    "syscall_number": 49,
    "errno": "EADDRINUSE",
    "errno_number": 98,
    "scenario": None,
    "program": [],
    "seconds": 1.5,
    "frequency": 4000,
    "event": "auto",
    "kernel_text": False,
}
Start = Callable[..., "subprocess.Popen[str]"]


def recording_is_possible() -> bool:
    try:
        kallsyms.check_shown()
        perf.find_perf()
    except ProfilerError:
        return False
    return os.geteuid() == 0


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    require(recording_is_possible(), "needs perf, and root (or as much as root may do with perf)")
    processes: list[subprocess.Popen[str]] = []

    def recorder(out: Path, **change: object) -> subprocess.Popen[str]:
        (tmp_path / "job.json").write_text(json.dumps({**JOB, **change}))
        argv = [sys.executable, "-m", "profiler.record", str(tmp_path / "job.json"), str(out)]
        process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        processes.append(process)
        return process

    yield recorder
    for process in processes:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


@pytest.fixture(scope="session")
def loop(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(loop_library(tmp_path_factory.mktemp("loop")))


@pytest.fixture(scope="session")
def repro(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("repro") / "repro"
    subprocess.run(["cc", "-O2", "-o", path, ROOT / "tests" / "programs" / "repro_bind.c"], check=True)
    return str(path)


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def messages(process: "subprocess.Popen[str]") -> list[dict[str, Any]]:
    output, _ = process.communicate(timeout=120)
    return [json.loads(line) for line in output.splitlines()]


def running_with(word: str) -> list[str]:
    """Command lines, of all processes, that mention `word`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if word in line:
            found.append(line)
    return found


def none_left(word: str, seconds: float = 15.0) -> list[str]:
    deadline = time.monotonic() + seconds
    while (left := running_with(word)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def wait_until_recording(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line).get("phase") == "recording":
            return
    raise AssertionError("the recorder ended before it recorded")


def test_a_scenario_is_recorded_whole(start: Start, loop: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = messages(start(out, scenario="bind-eaddrinuse", loop_library=loop))
    assert said[-1]["done"] is True
    assert sum(message.get("phase") == "recording" for message in said) >= 4
    progress = [message["progress"] for message in said if "progress" in message]
    assert progress == sorted(progress)
    load, record = read(out / "load.json"), read(out / "record.json")
    assert set(load["results"]) == {"EADDRINUSE"}
    assert load["calls"] > 1000
    assert load["stopped_by"] == "time"
    assert record["release"] == os.uname().release
    assert record["addresses"]["_stext"] < record["addresses"]["_etext"]
    assert (out / "kallsyms").stat().st_size > 100_000
    perf.check_whole(str(out / "perf.data"))


def test_samples_of_the_load_carry_kernel_callchains(start: Start, loop: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert messages(start(out, scenario="bind-eaddrinuse", loop_library=loop))[-1]["done"] is True
    argv = ["perf", "script", "-i", str(out / "perf.data"), "--comms", "whyerrno-load", "-F", "comm,ip,sym"]
    text = subprocess.run(argv, capture_output=True, text=True, check=True, env=perf.environment()).stdout
    chains = [chain for chain in text.split("\n\n") if "__sys_bind" in chain]
    assert len(chains) > 500
    assert sum("do_syscall_64" in chain for chain in chains) > 0.9 * len(chains)


def test_at_a_look_the_file_holds_what_was_sampled_and_enough_is_enough(
    start: Start, loop: str, tmp_path: Path
) -> None:
    """The file copied at the look, while perf goes on, is read by our parser up to its last whole record."""
    out = tmp_path / "out-look"
    began = time.monotonic()
    process = start(out, scenario="bind-eaddrinuse", loop_library=loop, seconds=120, looks=[1.0, 60.0])
    assert process.stdout is not None
    load = 0
    for line in process.stdout:
        message = json.loads(line)
        load = message.get("load", load)
        if "sampled" in message:
            break
    assert message["sampled"] == pytest.approx(1.0, abs=0.6)
    shutil.copyfile(out / "perf.data", tmp_path / "copy.data")
    early = perf_data.read(tmp_path / "copy.data", salvage=True)
    (tmp_path / "enough").touch()
    assert messages(process)[-1]["done"] is True
    assert time.monotonic() - began < 60
    whole = perf_data.read(out / "perf.data")
    assert 200 < np.count_nonzero(early.samples.pid == load) <= np.count_nonzero(whole.samples.pid == load)
    result, record = read(out / "load.json"), read(out / "record.json")
    assert (result["pid"], result["stopped_by"]) == (load, "time")
    assert 1.0 <= record["seconds"] < 30


def test_during_a_replay_the_load_runs_and_nothing_is_sampled(start: Start, loop: str, tmp_path: Path) -> None:
    out = tmp_path / "out-replay"
    process = start(out, scenario="bind-eaddrinuse", loop_library=loop, seconds=2, looks=[1.0], replay_seconds=60)
    assert process.stdout is not None
    while "replay" not in json.loads(process.stdout.readline()):
        pass
    before = (out / "perf.data").stat().st_size
    time.sleep(1.5)
    assert running_with("out-replay/load.json")
    assert (out / "perf.data").stat().st_size == before
    (tmp_path / "replayed").touch()
    assert messages(process)[-1]["done"] is True
    assert (out / "perf.data").stat().st_size > before
    assert read(out / "record.json")["seconds"] == pytest.approx(2.0, abs=0.8)


def test_a_recording_may_be_a_replay_alone(start: Start, loop: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = messages(start(out, scenario="bind-eaddrinuse", loop_library=loop, seconds=0, replay_seconds=1))
    assert {"replay": True} in said
    assert said[-1]["done"] is True
    assert not (out / "perf.data").exists()
    record = read(out / "record.json")
    assert (record["seconds"], record["commands"], record["event"]) == (0, [], "")
    assert read(out / "load.json")["calls"] > 1000


def test_a_program_is_recorded_and_its_results_counted_where_tracepoints_are(
    start: Start, repro: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert messages(start(out, program=[repro, "60"]))[-1]["done"] is True
    load, record = read(out / "load.json"), read(out / "record.json")
    assert (load["comm"], load["stopped_by"]) == ("repro", "time")
    assert load["seconds"] == pytest.approx(1.5, abs=1.0)
    if count.tracepoint_present():
        assert load["results"]["EADDRINUSE"] > 1000
        assert load["results"]["0"] == 1
        assert load["calls"] == sum(load["results"].values())
    else:
        assert load["results"] == {}
        assert any("not counted" in warning for warning in record["warnings"])


def test_a_program_that_ends_early_ends_the_recording(start: Start, tmp_path: Path) -> None:
    out = tmp_path / "out"
    began = time.monotonic()
    argv = ["/bin/sh", "-c", "echo bind: in use >&2; exit 7"]
    assert messages(start(out, program=argv, seconds=300))[-1]["done"] is True
    assert time.monotonic() - began < 120
    load = read(out / "load.json")
    assert load["stopped_by"] == "error"
    assert load["message"].endswith("exit status 7; it said: bind: in use")


def test_a_program_that_does_not_exist_is_named(start: Start, tmp_path: Path) -> None:
    process = start(tmp_path / "out", program=["/nonexistent/repro"])
    assert messages(process)[-1]["error"] == "cannot start /nonexistent/repro: No such file or directory"
    assert process.returncode == 1
    assert not (tmp_path / "out" / "record.json").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_perf_and_load_and_leaves_nothing_whole(
    start: Start, loop: str, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out-signal"
    process = start(out, scenario="bind-eaddrinuse", loop_library=loop, seconds=120)
    wait_until_recording(process)
    process.send_signal(number)
    assert "interrupted" in messages(process)[-1]["error"]
    assert process.returncode == 130
    assert running_with(str(out)) == []
    assert not (out / "record.json").exists()


@pytest.mark.parametrize("load", ["scenario", "program"])
def test_a_killed_recorder_leaves_nothing_running(start: Start, loop: str, tmp_path: Path, load: str) -> None:
    out = tmp_path / "out-killed"
    what = {"scenario": "bind-eaddrinuse"} if load == "scenario" else {"program": ["/bin/sleep", "98765.4"]}
    process = start(out, loop_library=loop, seconds=120, **what)
    wait_until_recording(process)
    assert running_with(str(out))
    process.kill()
    assert none_left(str(out)) == []
    assert none_left("98765.4") == []
    assert not (out / "record.json").exists()


def test_the_death_of_the_caller_ends_the_recording(start: Start, loop: str, tmp_path: Path) -> None:
    start(tmp_path / "unused", program=["/bin/true"]).wait()
    out = tmp_path / "out-orphan"
    (tmp_path / "orphan.json").write_text(
        json.dumps({**JOB, "scenario": "bind-eaddrinuse", "loop_library": loop, "seconds": 120})
    )
    command = f'"{sys.executable}" -m profiler.record {tmp_path}/orphan.json {out} > {tmp_path}/said; true'
    with subprocess.Popen(["/bin/sh", "-c", command], cwd=ROOT) as caller:
        deadline = time.monotonic() + 60
        said = tmp_path / "said"
        while not (said.exists() and '"recording"' in said.read_text()) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert running_with(str(out))
        caller.kill()
    assert none_left(str(out)) == []
    assert "is gone" in said.read_text()


def test_a_full_disk_is_reported_as_one(start: Start, loop: str, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], check=False).returncode == 0
    require(mounted, "needs the right to mount a small tmpfs")
    try:
        process = start(disk / "out", scenario="bind-eaddrinuse", loop_library=loop, seconds=20, frequency=20000)
        assert "disk is full" in messages(process)[-1]["error"]
        assert process.returncode == 1
        assert not (disk / "out" / "record.json").exists()
    finally:
        subprocess.run(["umount", disk], check=True)


def test_an_event_that_does_not_exist_is_an_error_in_perfs_words(start: Start, loop: str, tmp_path: Path) -> None:
    process = start(tmp_path / "out", scenario="bind-eaddrinuse", loop_library=loop, event="nonsense")
    told = messages(process)[-1]
    assert told["kind"] == "record"
    assert "nonsense" in told["error"]
