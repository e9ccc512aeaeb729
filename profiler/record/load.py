"""The load under record: one of loadgen's scenarios, or somebody's own program.

Both are prepared first (a process that exists, set up, and waits), released when perf samples, and ended
whole, with everything they started.
"""

import json
import os
import signal
import sys
import time

from profiler.errors import MissingError, ProfilerError, RecordError, UsageError
from profiler.record.job import Job
from profiler.record.rate import Rate
from profiler.record.spawn import Child, spawn, wait_readable

SETUP_SECONDS = 60.0
# Nothing is imported from the directory that the load runs in. Python 3.10, on an ssh host, has no such option.
_SAFE_PATH = ("-P",) if hasattr(sys.flags, "safe_path") else ()
OVERTIME = 60.0  # seconds a scenario runs on where the recorder does not end it
MEMORY_FLOOR_KB = 64 * 1024  # below this a small guest's perf and shell begin to fail


class ScenarioLoad:
    """`python3 -m loadgen`: counts its results itself, and stops by itself."""

    def __init__(self, job: Job, result: str) -> None:
        self._job = job
        self._result = result
        self._child: Child | None = None
        self._stdin = self._stdout = -1
        self.pid = 0
        self.rate = Rate()

    def prepare(self) -> None:
        """Returns when the failure is set up. Raises what loadgen said, as MissingError, UsageError or RecordError."""
        stdin, self._stdin = os.pipe()
        self._stdout, stdout = os.pipe()
        job, counter = self._job, f"{self._result}.counter"
        argv = [sys.executable, *(["-S"] if sys.flags.no_site else []), *_SAFE_PATH, "-m", "loadgen", job.scenario]
        argv += [
            "--seconds",
            f"{job.seconds + job.replay_seconds + job.orders_seconds + OVERTIME:g}",
            "--result",
            self._result,
        ]
        argv += ["--counter", counter, "--variant", job.variant]
        argv += ["--loop", job.loop_library] if job.loop_library else []
        try:
            self._child = spawn(argv, env=_environment(), stdin=stdin, stdout=stdout)
        finally:
            os.close(stdin)
            os.close(stdout)
        line = self._first_line()
        if not line.startswith("ready ") or not line[6:].strip().isdigit():
            self._child.wait(2.0)
            self._child.end()
            raise _load_error(self._child, f"the load did not get ready ({line.strip()[:100]!r})")
        self.pid = int(line[6:])
        self.rate = Rate(counter)
        os.unlink(counter)  # mapped on both sides: nothing is left, whoever dies

    def release(self) -> None:
        os.write(self._stdin, b"go\n")

    def check(self) -> bool:
        """Whether it still runs."""
        assert self._child is not None, "check() without prepare()"
        self._child.output.drain()
        return self._child.running()

    def finish(self, *, grace: float) -> dict[str, object]:
        """A LoadResult's fields. Raises RecordError where the load left none."""
        assert self._child is not None, "finish() without prepare()"
        in_time = self._child.running()
        if in_time:
            self._child.send(signal.SIGTERM)  # the loop sees it, and writes what it has
            self._child.wait(grace)
        self._child.end()
        try:
            with open(self._result, "rb") as file:
                result: dict[str, object] = json.load(file)
        except (OSError, ValueError):
            raise _load_error(self._child, "the load ended without a result") from None
        if in_time and result.get("stopped_by") == "signal":
            result["stopped_by"] = "time"
        return result

    def end(self) -> None:
        for fd in (self._stdin, self._stdout):
            if fd >= 0:
                os.close(fd)
        self._stdin = self._stdout = -1
        self.rate.close()
        if self._child is not None:
            self._child.end()

    def groups(self) -> list[int]:
        return [self._child.pid] if self._child else []

    def _first_line(self) -> str:
        assert self._child is not None
        text = b""
        while b"\n" not in text and wait_readable(self._stdout, SETUP_SECONDS):
            data = os.read(self._stdout, 4096)
            if not data:
                break
            text += data
        return text.decode("utf-8", "replace").partition("\n")[0]


class ProgramLoad:
    """Somebody's own program, expected to repeat the failing call by itself until it is ended."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._child: Child | None = None
        self._started = 0.0
        self._elapsed = 0.0
        self._comm = ""
        self._stopped_by = ""
        self.pid = 0
        self.rate = Rate()  # not known: perf's counts of its results are read at the end alone

    def prepare(self) -> None:
        """A process that waits just before the program's first instruction."""
        self._child = spawn(self._job.program, env=dict(os.environ), gated=True)
        self.pid = self._child.pid

    def release(self) -> None:
        """Raises RecordError where the program cannot be started."""
        assert self._child is not None, "release() without prepare()"
        self._started = time.monotonic()
        self._child.open_gate()
        self._comm = _comm_of(self.pid)

    def check(self) -> bool:
        """Whether it still runs. Short of memory it is ended: a tight loop can exhaust a small guest."""
        assert self._child is not None, "check() without prepare()"
        self._child.output.drain()
        self._comm = _comm_of(self.pid) or self._comm
        if self._child.running() and not 0 <= _available_memory_kb() < MEMORY_FLOOR_KB:
            return True
        if not self._stopped_by and self._child.running():
            self._stopped_by = "memory"
        self._elapsed = self._elapsed or time.monotonic() - self._started
        return False

    def finish(self, *, grace: float) -> dict[str, object]:
        """A LoadResult's fields, with no results: those are the counter's."""
        assert self._child is not None, "finish() without prepare()"
        ended_itself = not self._child.running()
        self._elapsed = self._elapsed or time.monotonic() - self._started
        self._child.end(grace)
        stopped_by, message = self._stopped_by, "ended for want of memory"
        if not stopped_by:
            stopped_by, message = _how_it_ended(self._child, self._elapsed) if ended_itself else ("time", "")
        fields: dict[str, object] = {"calls": 0, "seconds": round(self._elapsed, 6), "results": {}, "pid": self.pid}
        return {**fields, "comm": self._comm, "stopped_by": stopped_by, "message": message}

    def end(self) -> None:
        if self._child is not None:
            self._child.end(grace=0.2)

    def groups(self) -> list[int]:
        return [self._child.pid] if self._child else []


Load = ScenarioLoad | ProgramLoad


def _how_it_ended(child: Child, seconds: float) -> tuple[str, str]:
    status = child.status or 0
    last = child.output.last_line()[:200]
    said = f"; it said: {last}" if last else ""
    if status < 0:
        return "signal", f"the program was killed by signal {-status} after {seconds:.1f} s{said}"
    stopped_by = "error" if status else "exit"
    return stopped_by, f"the program ended by itself after {seconds:.1f} s with exit status {status}{said}"


def _load_error(child: Child, otherwise: str) -> ProfilerError:
    """loadgen's own message, last on its standard error, under the kind that its exit code stands for."""
    said = child.output.last_line().removeprefix("whyerrno-load: ")[:400]
    kinds: dict[int, type[ProfilerError]] = {MissingError.exit_code: MissingError, UsageError.exit_code: UsageError}
    kind = kinds.get(child.status or 0, RecordError)
    return kind(said or f"{otherwise}; exit status {child.status}")


def _environment() -> dict[str, str]:
    """The environment with this package's folder on PYTHONPATH, where loadgen lies too."""
    package_root = __file__.rsplit("/", 3)[0]
    path = os.environ.get("PYTHONPATH", "")
    return {**os.environ, "LC_ALL": "C", "PYTHONPATH": f"{package_root}:{path}" if path else package_root}


def _comm_of(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read().rstrip(b"\n").decode("utf-8", "replace")
    except OSError:
        return ""


def _available_memory_kb() -> int:
    """-1 where it is not known."""
    with open("/proc/meminfo", "rb") as file:
        for line in file:
            if line.startswith(b"MemAvailable:"):
                return int(line.split()[1])
    return -1
