"""System V IPC objects, which outlive the process that made them: their keys say which load they belong to."""

from __future__ import annotations

import ctypes
import os

from profiler.errors import RecordError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from loadgen.setup import Setup

KEY = 0x1E5 << 22  # the process number, below 2**22 (proc(5), pid_max), fills the rest
IPC_CREAT_EXCL_OURS = 0o1000 | 0o2000 | 0o600
IPC_RMID = 0


def semaphores(setup: Setup, count: int) -> int:
    """A set of semaphores at 0, removed at the end."""
    libc = ctypes.CDLL(None, use_errno=True)
    made = _made(libc.semget(_key(), count, IPC_CREAT_EXCL_OURS))
    setup.at_end(lambda: libc.semctl(made, 0, IPC_RMID))
    return made


def message_queue(setup: Setup) -> int:
    """An empty message queue, removed at the end."""
    libc = ctypes.CDLL(None, use_errno=True)
    made = _made(libc.msgget(_key(), IPC_CREAT_EXCL_OURS))
    setup.at_end(lambda: libc.msgctl(made, IPC_RMID, None))
    return made


def remove_leftovers() -> None:
    """Removes this user's objects of loads whose process is gone."""
    libc = ctypes.CDLL(None)
    for identifier in _left("sem"):
        libc.semctl(identifier, 0, IPC_RMID)
    for identifier in _left("msg"):
        libc.msgctl(identifier, IPC_RMID, None)


def _key() -> int:
    return KEY | os.getpid()


def _made(identifier: int) -> int:
    if identifier < 0:
        raise RecordError(f"the load could not set up System V IPC: {os.strerror(ctypes.get_errno())}")
    return identifier


def _left(kind: str) -> list[int]:
    try:
        with open(f"/proc/sysvipc/{kind}", encoding="ascii") as table:
            titles, *rows = (line.split() for line in table)
    except (OSError, ValueError):
        return []  # a kernel without System V IPC
    owner = titles.index("uid")  # the key and the identifier come first
    return [int(row[1]) for row in rows if int(row[owner]) == os.geteuid() and _is_left(int(row[0]))]


def _is_left(key: int) -> bool:
    return key & ~0x3FFFFF == KEY and not os.path.exists(f"/proc/{key & 0x3FFFFF}")
