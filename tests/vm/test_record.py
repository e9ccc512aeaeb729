"""The recorder in real guests: a scenario's load and somebody's own program, on every kernel version."""

import json
import shutil
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadgen.build import loop_library
from profiler.model import PerfRecording
from profiler.parse import perf_data
from profiler.target import Session, open_target
from tests.conftest import require
from tests.vm.kernels import VERSIONS, kernel_of

pytestmark = pytest.mark.vm

LOOP, REPRO = "/whyerrno/loop.so", "/whyerrno/repro"
BIND = {"syscall": "bind", "syscall_number": 49, "errno": "EADDRINUSE", "errno_number": 98}
CHDIR = {"syscall": "chdir", "syscall_number": 80, "errno": "EACCES", "errno_number": 13}
Record = Callable[..., Path]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("programs")
    source = Path(__file__).parents[1] / "programs" / "repro_bind.c"
    subprocess.run(["cc", "-O2", "-o", folder / "repro", source], check=True)
    return {LOOP: loop_library(folder), REPRO: folder / "repro"}


@pytest.fixture(scope="module", params=VERSIONS)
def session(request: pytest.FixtureRequest, files: dict[str, Path]) -> Iterator[Session]:
    require(shutil.which("qemu-system-x86_64"), "no QEMU")
    kernel_of(request.param)
    with open_target(f"vm:{request.param}").session(files) as booted:
        yield booted


@pytest.fixture
def record(session: Session, tmp_path: Path) -> Record:
    """Runs one job in the guest and brings its files here."""

    def run(**fields: object) -> Path:
        job = {"seconds": 2, "frequency": 8000, "loop_library": session.path(LOOP), **fields}
        (tmp_path / "job.json").write_text(json.dumps(job))
        session.put(tmp_path / "job.json", f"{session.workdir}/job.json")
        remote = f"{session.workdir}/{tmp_path.name}"
        argv = [session.python, "-m", "profiler.record", f"{session.workdir}/job.json", remote]
        completed = session.run(argv, timeout=180)
        assert completed.exit_code == 0, completed.output
        session.get(remote, tmp_path / "out")
        return tmp_path / "out"

    return run


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def in_load(recording: PerfRecording, pid: int) -> int:
    return int(np.count_nonzero((recording.samples.pid == pid) & recording.samples.in_kernel))


def test_a_scenario_gives_thousands_of_samples_and_the_kernels_own_text(record: Record) -> None:
    out = record(**BIND, scenario="bind-eaddrinuse", kernel_text=True)
    load, facts = read(out / "load.json"), read(out / "record.json")
    recording = perf_data.read(out / "perf.data")
    assert set(load["results"]) == {"EADDRINUSE"}
    assert in_load(recording, load["pid"]) > 1000
    assert recording.decode_errors == ()
    assert recording.kernel_build_id == facts["build_id"]
    assert recording.os_release == facts["release"]
    text = zlib.decompress((out / "kernel_text").read_bytes())
    assert len(text) == facts["addresses"]["_etext"] - facts["addresses"]["_stext"]
    assert "whyerrno-load" in recording.comms


def test_a_program_is_counted_while_it_is_sampled(record: Record, session: Session) -> None:
    out = record(**BIND, program=[session.path(REPRO), "60"], kernel_text=False)
    load, facts = read(out / "load.json"), read(out / "record.json")
    recording = perf_data.read(out / "perf.data")
    assert load["results"]["EADDRINUSE"] > 1000
    assert load["results"]["0"] == 1  # the bind that takes the port
    assert (load["comm"], load["stopped_by"]) == ("repro", "time")
    assert in_load(recording, load["pid"]) > 1000
    assert "repro" in recording.comms
    assert not [warning for warning in facts["warnings"] if "count" in warning]


def test_a_programs_children_are_counted_and_known_as_its_own(record: Record) -> None:
    """And another errno than the one asked for is told by its name."""
    script = "(while :; do cd /nonexistent 2>/dev/null; done) & wait"
    out = record(**CHDIR, program=["/bin/sh", "-c", script], kernel_text=False)
    load = read(out / "load.json")
    assert load["results"]["ENOENT"] > 100
    assert load["results"]["EACCES"] == 0
    recording = perf_data.read(out / "perf.data")
    children = [child for child, parent in recording.parents.items() if parent == load["pid"]]
    assert sum(in_load(recording, child) for child in children) > 100


def test_a_program_that_ends_at_once_is_told(record: Record) -> None:
    out = record(**BIND, program=["/bin/sh", "-c", "exit 3"], kernel_text=False, seconds=60)
    load = read(out / "load.json")
    assert load["stopped_by"] == "error"
    assert load["results"] == {"0": 0, "EADDRINUSE": 0}
