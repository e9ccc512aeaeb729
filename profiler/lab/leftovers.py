"""Working directories: each names its owner, so that the next run can remove what a SIGKILL left."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PREFIX = "whyerrno-"
KINDS = ("vm", "kvm", "local", "compile", "ssh")
_YOUNG_SECONDS = 60.0


@contextlib.contextmanager
def directory(kind: str) -> Iterator[Path]:
    """A new directory for one of KINDS that bears the owner's process id and start time, removed in the end."""
    path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{kind}-"))
    try:
        (path / "owner").write_text(f"{os.getpid()} {_started_at(os.getpid())}\n", encoding="ascii")
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def note_process(path: Path, pid: int) -> None:
    """Note the guest's own process in its directory."""
    (path / "pid").write_text(f"{pid} {_started_at(pid)}\n", encoding="ascii")


def remove() -> list[Path]:
    """Remove what dead owners of this user left, their guests included, and return those directories."""
    removed = []
    root = Path(tempfile.gettempdir())
    for path in (path for kind in KINDS for path in root.glob(f"{PREFIX}{kind}-*")):
        with contextlib.suppress(OSError):
            if path.stat().st_uid == os.getuid() and not path.is_symlink() and _is_abandoned(path):
                _end(path)
                shutil.rmtree(path, ignore_errors=True)
                removed.append(path)
    return removed


def _is_abandoned(path: Path) -> bool:
    owner = _noted(path / "owner")
    if owner is None:  # being made at this moment, or its maker died before it wrote its name
        return time.time() - path.stat().st_mtime > _YOUNG_SECONDS
    return _started_at(owner[0]) != owner[1]


def _end(path: Path) -> None:
    guest = _noted(path / "pid")
    if guest is not None and _started_at(guest[0]) == guest[1]:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(guest[0], signal.SIGKILL)


def _noted(path: Path) -> tuple[int, int] | None:
    try:
        pid, started = path.read_text(encoding="ascii").split()
        return int(pid), int(started)
    except (OSError, ValueError):
        return None


def _started_at(pid: int) -> int:
    """Clock ticks after boot at which a process started (field 22 of proc(5) stat); -1 where there is none.

    A process id alone may have been given to another process since.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return -1
    return int(stat.rpartition(")")[2].split()[19])
