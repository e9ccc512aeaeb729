"""The command as a user starts it, in a process of its own, and what every answer to bad input must be like."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from profiler import lab
from profiler.errors import ProfilerError
from profiler.model import Kernel
from tests.conftest import require

ROOT = Path(__file__).parents[1]
PYTHON = [sys.executable]
COMMAND = [*PYTHON, "-m", "profiler.cli"]
LONGEST_MESSAGE = 700

Done = subprocess.CompletedProcess[str]


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80", **changes}


def whyerrno(*arguments: str | Path, timeout: float = 300, cwd: Path | None = None, **variables: str) -> Done:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(**variables),
        cwd=cwd,
        timeout=timeout,
        check=False,
    )


def assert_refused(done: Done, code: int, *says: str) -> None:
    """One line with what is wrong, one with what to do, the exit code, no verdict and no traceback."""
    lines = [line for line in done.stderr.splitlines() if not is_progress(line)]
    assert done.returncode == code, done.stderr
    assert len(lines) == 2, done.stderr
    assert lines[0].startswith("whyerrno: error: ")
    assert lines[1].startswith("  hint: ")
    assert all(len(line) < LONGEST_MESSAGE for line in lines)
    assert "Traceback" not in done.stderr and "unexpected" not in done.stderr
    assert done.stdout == ""
    for text in says:
        assert text in done.stderr


def is_progress(line: str) -> bool:
    return line.startswith("whyerrno: ") and not line.startswith(("whyerrno: error: ", "whyerrno: interrupted"))


def content(directory: Path) -> dict[str, bytes]:
    """Everything below a directory, hidden files included."""
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def cached_kernel(version: str) -> Kernel:
    """A kernel of the cache, or one fetched now."""
    try:
        return lab.find(version) or lab.fetch(version, lambda phase, fraction: None)
    except ProfilerError as error:
        require(False, f"kernel {version} cannot be had here: {error}")
        raise


@contextlib.contextmanager
def small_disk(at: Path, size: str) -> Iterator[Path]:
    """A file system of `size` (as mount takes it) on the directory `at`."""
    require(os.geteuid() == 0 and shutil.which("mount"), "a small file system can be mounted by root alone")
    at.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", at], capture_output=True, text=True, check=False
    )
    require(mounted.returncode == 0, f"tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield at
    finally:
        subprocess.run(["umount", at], check=True)


def fill(disk: Path, leave: int = 0) -> None:
    """Fill a disk up to `leave` bytes."""
    free = shutil.disk_usage(disk).free - leave
    with contextlib.suppress(OSError), (disk / "filling").open("wb") as file:
        file.write(bytes(max(0, free)))
