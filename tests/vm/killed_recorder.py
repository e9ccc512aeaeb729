"""Runs in a guest: kills a recorder at random moments, and each time compares tracing with what it was before.

Every other time its guardian is killed with it, so that all is left to the next start.

    python3 killed_recorder.py JOB.json OUT_DIR TIMES SECONDS SEED

prints, as JSON lines, for each time the moment (four times in five since it began with its orders), what it was doing,
and what differs after the next start.
"""

import contextlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import tracing_state

from profiler.record import __main__ as recorder
from profiler.record import capture, function_graph, journal, operands, probes, progress  # noqa: F401

LOAD_SECONDS = 8.0  # that a load may take to end


def start(job: str, out: str) -> tuple[int, int]:
    """A recorder that is forked, not executed: its imports are the slow part of it here. Its pid and its output."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        os.dup2(writing, 1)
        sys.stdout = os.fdopen(1, "w")
        progress._PARENT = os.getppid()
        progress.note_signals()
        os._exit(recorder.main([job, out]))
    os.close(writing)
    return pid, reading


def guardians(recorder_pid: int) -> list[int]:
    """Of the recorder's children, those that are forked as it is, and run no program of their own."""
    own = tracing_state.read("/proc/self/cmdline")
    found = []
    for pid in filter(str.isdigit, tracing_state.names("/proc")):
        with contextlib.suppress(OSError):
            parent = int(tracing_state.read(f"/proc/{pid}/stat").rpartition(")")[2].split()[1])
            if parent == recorder_pid and tracing_state.read(f"/proc/{pid}/cmdline") == own:
                found.append(int(pid))
    return found


def job_of(path: str, number: int) -> str:
    """The job with its orders turned, so that each is the first in its turn."""
    job = json.loads(tracing_state.read(path))
    turned = number % len(job["orders"])
    job["orders"] = job["orders"][turned:] + job["orders"][:turned]
    Path(f"{path}.turned").write_text(json.dumps(job), encoding="utf-8")
    return f"{path}.turned"


def wait_for_orders(output: int) -> bytes:
    """What the recorder says until it begins with its orders, or ends."""
    said = b""
    while b'"phase": "orders"' not in said and (more := os.read(output, 4096)):
        said += more
    return said


def doing(said: bytes) -> str:
    """What the recorder did last: its phase, and the order that it carried out."""
    lines = [json.loads(line) for line in said.split(b"\n")[:-1] if line.startswith(b"{")]
    phases = [line["phase"] for line in lines if "phase" in line]
    done = [line["do"] for line in lines if "answered" in line]
    return f"{phases[-1] if phases else 'start'}, done: {' '.join(done)}"


def what_differs(before: dict[str, object]) -> dict[str, list[object]]:
    deadline = time.monotonic() + LOAD_SECONDS
    while tracing_state.loads() and time.monotonic() < deadline:
        time.sleep(0.02)
    after = tracing_state.state()
    return {
        name: [before.get(name), after.get(name)] for name in {*before, *after} if before.get(name) != after.get(name)
    }


def main(job: str, out: str, times: int, seconds: float, seed: int) -> None:
    chance = random.Random(seed)
    before = tracing_state.state()
    for number in range(times):
        given = job_of(job, number)
        first = json.loads(tracing_state.read(given))["orders"][0]["do"]
        pid, output = start(given, f"{out}/{number}")
        said = b"" if number % 5 == 4 else wait_for_orders(output)
        moment = chance.uniform(0, seconds)
        time.sleep(moment)
        alone = number % 2 == 0
        for victim in [pid, *([] if alone else guardians(pid))]:
            with contextlib.suppress(ProcessLookupError):  # a child may have ended since it was listed
                os.kill(victim, signal.SIGKILL)
        os.waitpid(pid, 0)
        problems = journal.undo_leftovers()
        differs = what_differs(before)
        said += os.read(output, 1 << 16)
        os.close(output)
        when = {"moment": round(moment, 2), "first": first, "doing": doing(said), "alone": alone}
        print(json.dumps({**when, "problems": problems, "differs": differs}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
