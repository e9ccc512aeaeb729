"""What goes wrong while a guest runs, end to end: `whyerrno run` as a user starts it.

Each ends with one line, a hint and an exit code, leaves no guest and no file of its own behind, and nothing under the
asked name but what was there before.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from profiler import recording
from profiler.model import LoadResult
from tests.command import (
    COMMAND,
    PYTHON,
    ROOT,
    Done,
    assert_refused,
    cached_kernel,
    content,
    environment,
    small_disk,
    whyerrno,
)
from tests.conftest import require

pytestmark = pytest.mark.vm

SCENARIO = ("run", "--scenario", "openat-enoent", "--target", "vm:6.1", "--no-report")
OWN = ("run", "--syscall", "bind", "--errno", "EADDRINUSE", "--target", "vm:6.1", "--no-report", "--seconds", "2")
RECORDING = "whyerrno: recording"  # the phase in which the load runs
# The command, but that a guest which says nothing is given up after 15 seconds, not after two minutes.
IMPATIENT = "import sys; from profiler import cli, following; following.GRACE_SECONDS = 15.0; sys.exit(cli.main())"


@pytest.fixture(scope="module", autouse=True)
def kernel() -> None:
    cached_kernel("6.1")


@pytest.fixture(scope="module")
def misbehaving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that does what its argument says."""
    require(shutil.which("cc"), "cc is not installed (package gcc)")
    program = tmp_path_factory.mktemp("program") / "misbehaving"
    subprocess.run(["cc", "-O2", "-o", program, ROOT / "tests/programs/misbehaving.c"], check=True)
    return program


@pytest.fixture
def temporary(tmp_path: Path) -> Iterator[Path]:
    """A TMPDIR for the command, which must be empty of the command's files in the end."""
    (tmp_path / "tmp").mkdir()
    yield tmp_path / "tmp"
    assert list((tmp_path / "tmp").glob("whyerrno-*")) == []


def qemu_of(temporary: Path) -> int:
    """The process id of the one guest."""
    (noted,) = temporary.glob("whyerrno-vm-*/pid")
    return int(noted.read_text().split()[0])


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@contextlib.contextmanager
def started(command: list[str], *arguments: str | Path, temporary: Path) -> Iterator[subprocess.Popen[str]]:
    """The command while its load runs; killed, and its guest with it, if the test does not end it."""
    with subprocess.Popen(
        [*command, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(TMPDIR=str(temporary)),
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        seen = []
        for line in process.stderr:
            seen.append(line)
            if line.rstrip() == RECORDING:
                break
        else:
            pytest.fail("".join(seen))
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str]) -> Done:
    output, errors = process.communicate(timeout=90)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def saved_run(directory: Path) -> dict[str, bytes]:
    """Any whole run in `directory`; its content."""
    shutil.copytree(ROOT / "sample_data/io-uring-setup-enomem-7.3", directory)
    return content(directory)


def test_a_killed_guest_is_told_and_force_has_replaced_nothing(tmp_path: Path, temporary: Path) -> None:
    """SIGKILL for QEMU, as of the kernel short of memory, while --force was to replace a run."""
    before = saved_run(tmp_path / "run")
    with started(COMMAND, *SCENARIO, "-o", tmp_path / "run", "--force", temporary=temporary) as process:
        os.kill(qemu_of(temporary), signal.SIGKILL)
        done = ended(process)
    assert_refused(done, 1, "QEMU was killed by signal 9 during the recording", "console is kept in")
    assert content(tmp_path / "run") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "tmp"]


def test_a_guest_that_hangs_is_given_up_at_the_deadline(tmp_path: Path, temporary: Path) -> None:
    """SIGSTOP for QEMU: it says nothing any more, and takes no orders."""
    command = [*PYTHON, "-c", IMPATIENT]
    with started(
        command, *SCENARIO, "--evidence", "samples", "--seconds", "1", "-o", tmp_path / "run", temporary=temporary
    ) as process:
        qemu = qemu_of(temporary)
        os.kill(qemu, signal.SIGSTOP)
        since = time.monotonic()
        done = ended(process)
    assert time.monotonic() - since < 40
    assert_refused(done, 1, "the guest did not finish the recording within 16 s", "console is kept in")
    assert not is_alive(qemu)
    assert [path.name for path in tmp_path.iterdir()] == ["tmp"]


def test_a_guest_that_panics_is_told_in_the_kernels_words(tmp_path: Path, temporary: Path, misbehaving: Path) -> None:
    """The console with all of the panic outlives the guest, where the hint says."""
    done = whyerrno(*OWN, "-o", tmp_path / "run", "--", misbehaving, "panic", TMPDIR=str(temporary))
    assert_refused(done, 1, "panicked during the recording", "Kernel panic", "sysrq triggered crash")
    kept = Path(done.stderr.rpartition("console is kept in ")[2].strip())
    assert "Call Trace" in kept.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["tmp"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_the_run_that_was_there(number: signal.Signals, tmp_path: Path, temporary: Path) -> None:
    """Ctrl-C (to the whole group, as a terminal sends it) and SIGTERM: no guest, no file, no half run."""
    before = saved_run(tmp_path / "run")
    with started(COMMAND, *SCENARIO, "-o", tmp_path / "run", "--force", temporary=temporary) as process:
        qemu = qemu_of(temporary)
        os.killpg(process.pid, number)
        done = ended(process)
    assert done.returncode == 128 + number
    said = [line for line in done.stderr.splitlines() if line in ("whyerrno: interrupted", "whyerrno: terminated")]
    assert len(said) == 1 and "Traceback" not in done.stderr and done.stdout == ""
    assert not is_alive(qemu)
    assert content(tmp_path / "run") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "tmp"]


def test_a_killed_command_leaves_nothing_that_looks_whole(tmp_path: Path, temporary: Path) -> None:
    """SIGKILL for the command: the guest dies with it, and the next run removes the files of both."""
    with started(COMMAND, *SCENARIO, "-o", tmp_path / "run", temporary=temporary) as process:
        qemu = qemu_of(temporary)
        process.kill()
        process.communicate(timeout=30)
    deadline = time.monotonic() + 10
    while is_alive(qemu) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(qemu)
    assert not (tmp_path / "run").exists()
    (left,) = tmp_path.glob(".run.partial-*")
    assert not (left / "manifest.json").exists()
    os.utime(left, (0, 0))  # as if some time had gone by
    done = whyerrno(*SCENARIO, "--seconds", "1", "-q", "-o", tmp_path / "run", TMPDIR=str(temporary))
    assert done.returncode in (0, 3), done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "tmp"]


@pytest.mark.parametrize(
    ("does", "stopped_by", "says"),
    [
        ("nothing", "exit", "it was not called"),
        ("succeed", "time", "it succeeded"),
        ("abort", "signal", "killed by signal 6"),
    ],
)
def test_a_program_that_does_not_fail_as_said_is_not_reproduced(
    does: str, stopped_by: str, says: str, tmp_path: Path, temporary: Path, misbehaving: Path
) -> None:
    """It exits at once, its call succeeds, it crashes: exit code 4, and the run says what it did instead."""
    done = whyerrno(*OWN, "-q", "-o", tmp_path / "run", "--", misbehaving, does, TMPDIR=str(temporary))
    assert done.returncode == 4, done.stderr
    assert done.stderr == ""
    assert "NOT REPRODUCED" in done.stdout and says in done.stdout
    load: LoadResult = recording.read_load(tmp_path / "run")
    assert (load.stopped_by, load.results["EADDRINUSE"]) == (stopped_by, 0)


def test_a_perf_that_is_too_old_is_told(tmp_path: Path, temporary: Path) -> None:
    """perf goes into the guest from this machine; one of before 5.9 lacks what recording needs."""
    require(shutil.which("cc"), "cc is not installed (package gcc)")
    (tmp_path / "bin").mkdir()
    source = '#include <stdio.h>\nint main(void) { puts("perf version 3.16.7"); return 0; }\n'
    compiler = ["cc", "-x", "c", "-o", tmp_path / "bin/perf", "-"]
    subprocess.run(compiler, input=source, text=True, check=True)
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    done = whyerrno(*SCENARIO, "-o", tmp_path / "run", TMPDIR=str(temporary), PATH=path)
    assert_refused(done, 5, "perf 3.16.7 is too old", "linux-perf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "tmp"]


def test_a_disk_too_small_for_the_guest_is_told_before_it_boots(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "4m") as disk:
        done = whyerrno(*SCENARIO, "-o", tmp_path / "run", TMPDIR=str(disk))
        assert_refused(done, 1, f"image could not be made in {disk}: No space left on device", "TMPDIR")
        assert list(disk.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


def test_a_disk_too_small_for_the_recording_is_told(tmp_path: Path, temporary: Path) -> None:
    """The guest has recorded, and its files do not fit where the run was to be."""
    with small_disk(tmp_path / "small", "2m") as disk:
        done = whyerrno(*SCENARIO, "--seconds", "1", "-o", disk / "run", TMPDIR=str(temporary))
        assert_refused(done, 1, "no space left", "free some space")
        assert list(disk.iterdir()) == []
