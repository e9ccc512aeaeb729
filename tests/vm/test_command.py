"""The command from end to end on a real kernel: as a user types it, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from profiler import recording
from profiler.model import EXIT_CODES
from tests.vm.kernels import kernel_of

pytestmark = pytest.mark.vm

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "profiler.cli"]
SECONDS = "4"
CONCLUDED = set(EXIT_CODES.values()) - {4}  # which site is right is judged elsewhere; here it has to get that far


@pytest.fixture(scope="module", autouse=True)
def kernel() -> None:
    """A kernel to run on, fetched where it is not here."""
    kernel_of("6.1")


def whyerrno(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, env=environment, timeout=400, check=False
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run of a scenario, for the tests that read it."""
    directory = tmp_path_factory.mktemp("command") / "bind"
    done = whyerrno("run", "--scenario", "bind-eaddrinuse", "--target", "vm:6.1", "--seconds", SECONDS, "-o", directory)
    assert done.returncode in CONCLUDED, done.stderr
    assert "Traceback" not in done.stderr
    assert str(directory / "report.html") in done.stdout
    return directory


def test_a_run_leaves_recording_analysis_and_report(run: Path) -> None:
    """All files that README names are there, and the verdict is about the call that was asked for."""
    names = {path.name for path in run.iterdir()}
    assert names >= {"manifest.json", "perf.data", "kallsyms", "load.json", "kernel.log", "analysis.json"}
    assert names >= {"report.html", "lines.png", "candidates.png"}
    analysis = recording.read_analysis(run)
    assert (analysis.syscall, analysis.errno) == ("bind", "EADDRINUSE")
    assert analysis.samples.in_kernel > 100


def test_analyzing_again_says_the_same(run: Path) -> None:
    """From the recording alone, offline, the same verdict comes out, here as JSON."""
    before = json.loads((run / "analysis.json").read_text())
    done = whyerrno("analyze", run, "--json", "--no-report", "--quiet")
    assert done.returncode == EXIT_CODES[before["conclusion"]]
    assert done.stderr == ""
    after = json.loads(done.stdout)
    for key in ("conclusion", "error_site", "branch", "chain", "candidates", "samples", "functions"):
        assert after[key] == before[key]


def test_an_output_that_exists_is_kept(run: Path) -> None:
    """A second run into the same directory is refused before anything is booted."""
    before = (run / "manifest.json").read_bytes()
    started = time.monotonic()
    done = whyerrno("run", "--scenario", "openat-enoent", "--target", "vm:6.1", "-o", run)
    assert (done.returncode, time.monotonic() - started < 3) == (2, True)
    assert "--force" in done.stderr
    assert (run / "manifest.json").read_bytes() == before


def test_a_program_of_ones_own_is_a_load_too(tmp_path: Path) -> None:
    """`run --syscall bind --errno EADDRINUSE -- ./repro 60` goes into the guest and ends in a verdict."""
    program = tmp_path / "repro"
    subprocess.run(["cc", "-O2", "-o", program, ROOT / "tests/programs/repro_bind.c"], check=True)
    out = tmp_path / "mine"
    load = ("--syscall", "bind", "--errno", "EADDRINUSE", "--target", "vm:6.1", "--seconds", SECONDS)
    done = whyerrno("run", *load, "-o", out, "--no-report", "--", program, "60")
    assert done.returncode in CONCLUDED, done.stderr
    assert recording.read_load(out).results["EADDRINUSE"] > 1000
    assert recording.read_manifest(out).program == [str(program), "60"]


def test_a_call_that_fails_otherwise_is_not_reproduced(tmp_path: Path) -> None:
    """Asked for another errno than the program's call gives, the verdict is `not reproduced` and the code 4."""
    program = tmp_path / "repro"
    subprocess.run(["cc", "-O2", "-o", program, ROOT / "tests/programs/repro_bind.c"], check=True)
    load = ("--syscall", "bind", "--errno", "ENOMEM", "--target", "vm:6.1", "--seconds", "2")
    done = whyerrno("run", *load, "-o", tmp_path / "mine", "--no-report", "--json", "--", program, "60")
    assert done.returncode == 4, done.stderr
    assert json.loads(done.stdout)["conclusion"] == "not-reproduced"


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    """Interrupted while it records, a run ends its guest and removes what it made; the code is 130."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir()
    arguments = ["run", "--scenario", "openat-enoent", "--target", "vm:6.1", "--seconds", "60"]
    with subprocess.Popen(
        [*COMMAND, *arguments, "-o", str(tmp_path / "runs/one")],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=environment,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        phases = []
        for line in process.stderr:
            phases.append(line)
            if line.strip() == "whyerrno: record":
                break
        assert phases[-1].strip() == "whyerrno: record", phases
        os.killpg(process.pid, signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(60) == 130
    assert "interrupted" in rest
    assert "Traceback" not in rest
    assert list((tmp_path / "runs").iterdir()) == []
    assert list((tmp_path / "tmp").glob("whyerrno-*")) == []
