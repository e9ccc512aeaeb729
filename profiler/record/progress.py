"""What the recorder says while it works: one JSON object a line on standard output."""

import json
import os
import sys


class Interrupted(Exception):  # noqa: N818
    """A signal, or the death of the process that started the recorder: undo everything and end."""


class Progress:
    """Prints {"progress": 0..1, "phase": "..."}; also notices that nobody listens any more."""

    def __init__(self) -> None:
        self._parent = os.getppid()

    def report(self, fraction: float, phase: str) -> None:
        """Raises Interrupted when the reader or the parent process is gone."""
        if os.getppid() != self._parent:
            raise Interrupted("the process that started the recorder is gone")
        say({"progress": round(fraction, 3), "phase": phase})


def say(message: dict[str, object]) -> None:
    try:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise Interrupted("nobody reads the recorder's output any more") from None
