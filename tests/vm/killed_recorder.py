"""Runs in a guest: kills a recorder at random moments, and each time compares tracing with what it was before.

    python3 killed_recorder.py JOB.json OUT_DIR TIMES SECONDS SEED

prints, as JSON lines, for each time the moment, the phase that it fell into, and what differs after the next start.
"""

import json
import os
import random
import signal
import sys
import time

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


def last_phase(output: bytes) -> str:
    lines = [json.loads(line) for line in output.split(b"\n")[:-1] if line.startswith(b"{")]
    orders = sum("answered" in line for line in lines)
    phases = [line["phase"] for line in lines if "phase" in line]
    return f"{phases[-1] if phases else 'start'}, {orders} orders done"


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
        moment = chance.uniform(0, seconds)
        pid, output = start(job, f"{out}/{number}")
        time.sleep(moment)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        problems = journal.undo_leftovers()
        differs = what_differs(before)
        phase = last_phase(os.read(output, 1 << 16))
        os.close(output)
        said = {"moment": round(moment, 2), "phase": phase, "problems": problems, "differs": differs}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
