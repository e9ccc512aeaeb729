"""python3 -m profiler.record JOB.json OUT_DIR

Prints progress as JSON lines, and at the end {"done": true} or {"error": "...", "hint": "...", "kind":
"missing|record|usage"}. Exit codes as the command's: 0, 1 (record), 2 (usage), 5 (missing); 130 when interrupted.
"""

import errno
import os
import sys
import time

from profiler.errors import MissingError, ProfilerError, RecordError, UsageError
from profiler.record.progress import Interrupted, note_signals, say

INTERRUPTED = 130


def main(arguments: list[str]) -> int:
    started = time.monotonic()
    try:
        _record(arguments)
        say({"done": True, "seconds": round(time.monotonic() - started, 3)})
        return 0
    except ProfilerError as error:
        return _tell(error)
    except OSError as error:
        return _tell(_from_os_error(error))
    except Interrupted as reason:
        _tell(RecordError(f"interrupted: {reason}"))
        return INTERRUPTED


def _record(arguments: list[str]) -> None:
    if len(arguments) != 2:
        raise UsageError("usage: python3 -m profiler.record JOB.json OUT_DIR")
    from profiler.record import journal
    from profiler.record.capture import Capture
    from profiler.record.job import read_job

    job = read_job(arguments[0])
    out = os.path.abspath(arguments[1])
    os.makedirs(out, exist_ok=True)
    if os.listdir(out):
        raise UsageError(f"{arguments[1]} is not empty")
    left = journal.undo_leftovers()
    capture = Capture(job, out, orders=os.path.dirname(os.path.abspath(arguments[0])))
    capture.warnings += [f"left behind by a recorder that was killed, and not undone: {what}" for what in left]
    try:
        capture.record()
    finally:
        capture.close()
        journal.put_all_back()


def _from_os_error(error: OSError) -> RecordError:
    where = f" ({error.filename})" if error.filename else ""
    if error.errno == errno.ENOSPC:
        return RecordError(f"the disk is full{where}", hint="free space, or record fewer seconds")
    return RecordError(f"{error.strerror or error}{where}")


def _tell(error: ProfilerError) -> int:
    kinds = {MissingError: "missing", UsageError: "usage"}
    message = str(error.args[0]) if error.args else type(error).__name__
    try:
        say({"error": message, "hint": error.hint, "kind": kinds.get(type(error), "record")})
    except Interrupted:
        sys.stderr.write(f"{message}\n")
        # the reader is gone: keep Python from failing to flush once more at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return error.exit_code


if __name__ == "__main__":
    note_signals()
    sys.exit(main(sys.argv[1:]))
