"""The command from end to end on a real kernel: as a user types it, in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
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
BOTH = """
#include <netinet/in.h>
#include <sys/socket.h>
int main(void)
{
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(4711)};
    int taken = socket(AF_INET, SOCK_STREAM, 0), late = socket(AF_INET, SOCK_STREAM, 0);
    bind(taken, (struct sockaddr *)&here, sizeof here);
    for (;;) {
        bind(late, (struct sockaddr *)&here, sizeof here);
        bind(-1, (struct sockaddr *)&here, sizeof here);
    }
}
"""
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


@pytest.mark.parametrize("kind", ["samples", "exact"])
def test_a_recording_of_both_kinds_is_analyzed_by_either(run: Path, kind: str, tmp_path: Path) -> None:
    """By default a guest under emulation gives both; the analysis says which it used and what they took."""
    assert json.loads((run / "analysis.json").read_text())["effort"]["evidence"] == ["samples", "exact"]
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    done = whyerrno("analyze", copy, "--evidence", kind, "--json", "--no-report", "--quiet")
    assert done.returncode in CONCLUDED, done.stderr
    effort = json.loads(done.stdout)["effort"]
    assert effort["evidence"] == [kind]
    assert (effort["samples"] > 1000, effort["instructions"] > 1000) == (kind == "samples", kind == "exact")
    assert effort["calls"] == (8 if kind == "exact" else 0)


@pytest.mark.parametrize("target", ["vm:6.1", "vm:7.3"])
def test_exact_evidence_alone_names_the_place(target: str, tmp_path: Path) -> None:
    """Without one sample: no perf.data, and a recording that is analyzed again all the same."""
    kernel_of(target.removeprefix("vm:"))
    run = ("run", "--scenario", "bind-eaddrinuse", "--target", target, "--evidence", "exact")
    done = whyerrno(*run, "-o", tmp_path / "run", "--no-report", "--json")
    assert done.returncode == 0, done.stderr
    analysis = json.loads(done.stdout)
    assert analysis["error_site"]["function"] == "inet_csk_get_port"
    assert analysis["samples"]["total"] == 0
    assert not (tmp_path / "run" / "perf.data").exists()
    assert whyerrno("analyze", tmp_path / "run", "--no-report").returncode == 0
    refused = whyerrno("analyze", tmp_path / "run", "--evidence", "samples")
    assert (refused.returncode, "holds no samples evidence" in refused.stderr) == (2, True)


def test_sampling_ends_when_the_verdict_is_decided(tmp_path: Path) -> None:
    """Long before the 120 s that it was given, and the manifest says why."""
    run = ("run", "--scenario", "openat-enoent", "--target", "vm:6.1", "--evidence", "samples", "--seconds", "120")
    done = whyerrno(*run, "--confidence", "0.8", "-o", tmp_path / "run", "--no-report", "--json")
    assert done.returncode in CONCLUDED, done.stderr
    manifest = recording.read_manifest(tmp_path / "run")
    assert manifest.stopped_by == "verdict"
    assert 2.0 <= manifest.seconds < 100


def test_exact_evidence_of_this_machine_is_refused_at_once(tmp_path: Path) -> None:
    """The message says where it can be had."""
    run = ("run", "--scenario", "openat-enoent", "--target", "local", "--evidence", "exact", "-o", tmp_path / "run")
    started = time.monotonic()
    done = whyerrno(*run)
    assert (done.returncode, time.monotonic() - started < 10) == (5, True)
    assert "--target vm:6.1" in done.stderr


def test_a_program_that_fails_in_two_ways_is_told_with_shares(tmp_path: Path) -> None:
    """A program whose calls end with EADDRINUSE and EBADF in turn: both are named, and how often."""
    source = tmp_path / "both.c"
    source.write_text(BOTH)
    subprocess.run(["cc", "-O2", "-o", tmp_path / "both", source], check=True)
    load = ("--syscall", "bind", "--errno", "EADDRINUSE", "--target", "vm:6.1", "--seconds", "2")
    done = whyerrno("run", *load, "-o", tmp_path / "mine", "--no-report", "--json", "--", tmp_path / "both")
    assert done.returncode in CONCLUDED, done.stderr
    (told,) = [w for w in json.loads(done.stdout)["warnings"] if "mixture" in w]
    assert "50% EADDRINUSE" in told
    assert "50% EBADF" in told


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


@pytest.mark.parametrize("kind", ["auto", "exact"])
def test_a_call_that_fails_otherwise_is_not_reproduced(kind: str, tmp_path: Path) -> None:
    """Asked for another errno than the program's call gives, the verdict is `not reproduced` and the code 4."""
    program = tmp_path / "repro"
    subprocess.run(["cc", "-O2", "-o", program, ROOT / "tests/programs/repro_bind.c"], check=True)
    load = ("--syscall", "bind", "--errno", "ENOMEM", "--target", "vm:6.1", "--seconds", "2", "--evidence", kind)
    done = whyerrno("run", *load, "-o", tmp_path / "mine", "--no-report", "--json", "--", program, "60")
    assert done.returncode == 4, done.stderr
    assert json.loads(done.stdout)["conclusion"] == "not-reproduced"


def test_a_load_that_ends_before_it_is_logged_is_told(tmp_path: Path) -> None:
    """A program that calls once and is gone leaves neither samples nor log, and no crash."""
    load = ("--syscall", "bind", "--errno", "EADDRINUSE", "--target", "vm:6.1", "--evidence", "exact")
    done = whyerrno("run", *load, "-o", tmp_path / "mine", "--no-report", "--json", "--", "/bin/true")
    assert done.returncode in {3, 4}, done.stderr
    analysis = json.loads(done.stdout)
    assert (analysis["samples"]["total"], analysis["effort"]["instructions"]) == (0, 0)


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    """Interrupted while it records, a run ends its guest and removes what it made; the code is 130."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir()
    arguments = ["run", "--scenario", "openat-enoent", "--target", "vm:6.1", "--seconds", "60", "--confidence", "1"]
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
            if line.strip() == "whyerrno: recording":
                break
        assert phases[-1].strip() == "whyerrno: recording", phases
        os.killpg(process.pid, signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(60) == 130
    assert "interrupted" in rest
    assert "Traceback" not in rest
    assert list((tmp_path / "runs").iterdir()) == []
    assert list((tmp_path / "tmp").glob("whyerrno-*")) == []
