"""One run of a campaign in a process of its own: whatever happens in it ends that run alone."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

from profiler.campaign.plan import PlannedRun
from profiler.errors import ProfilerError

Progress = Callable[[str, float | None], None]
# Does one run: writes a recording with its analysis into the directory, or raises. Must be importable by name.
Work = Callable[[PlannedRun, Path, Progress], None]


class Ended(BaseException):
    """SIGTERM, raised where the run stands so that it undoes what it switched on."""


def start(work: Work, run: PlannedRun, directory: Path, log: Path) -> tuple[Any, Connection]:
    """Start `work` in a fresh interpreter; the process, and the end its messages arrive at.

    Messages are ("progress", phase, fraction) and, where the run raised, ("error", message).
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_body, args=(work, run, directory, log, sender), name=run.name)
    process.start()
    sender.close()
    return process, receiver


def _body(work: Work, run: PlannedRun, directory: Path, log: Path, messages: Connection) -> None:
    _print_into(log)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches us too; the parent says when to end
    signal.signal(signal.SIGTERM, _end)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work(run, directory, lambda phase, fraction: _send(messages, ("progress", phase, fraction)))
    except Ended:
        sys.exit(143)
    except ProfilerError as error:
        traceback.print_exc()
        _send(messages, ("error", str(error)))
        sys.exit(error.exit_code)
    except Exception as error:
        traceback.print_exc()
        _send(messages, ("error", f"{type(error).__name__}: {error}"))
        sys.exit(1)


def _send(messages: Connection, message: tuple[Any, ...]) -> None:
    with contextlib.suppress(OSError):  # the parent is gone: _end_with_parent is about to tell us
        messages.send(message)


def _print_into(log: Path) -> None:
    """Point stdout and stderr, of this process and of what it starts, at `log`."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)


def _end(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once: a second one must not break off the undoing
    raise Ended


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
