"""What the recorder says while it works: one JSON object a line on standard output; and when it must stop.

A signal only leaves a note. `check`, called where the recorder waits, turns the note into an exception: so none is
raised between starting a process and remembering it, nor while everything is being undone.
"""

import json
import os
import signal
import sys

_PARENT = os.getppid()
_noted_signals: list[int] = []


class Interrupted(Exception):  # noqa: N818
    """A signal, or the death of the process that started the recorder: undo everything and end."""


def note_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda got, _: _noted_signals.append(got))


def check() -> None:
    """Raises Interrupted when the recorder shall not go on."""
    if _noted_signals:
        raise Interrupted(f"signal {_noted_signals[0]}")
    if os.getppid() != _PARENT:
        raise Interrupted("the process that started the recorder is gone")


def report(fraction: float, phase: str) -> None:
    """Prints {"progress": 0..1, "phase": "..."}. Raises Interrupted as `check` does."""
    check()
    say({"progress": round(fraction, 3), "phase": phase})


def say(message: dict[str, object]) -> None:
    try:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise Interrupted("nobody reads the recorder's output any more") from None
