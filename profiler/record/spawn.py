"""Starting processes on the target, each in its own session, and ending them whole.

Done with fork and exec, because importing `subprocess` takes over half a second in an emulated guest.
Every child leads a session of its own, so that a Ctrl-C reaches only the recorder, which then
ends the children in order, and so that a whole process group can be ended at once.
"""

import os
import select
import signal
import time

from profiler.errors import RecordError
from profiler.record import progress

POLL_SECONDS = 0.01
KEPT_OUTPUT = 8192  # bytes of a process's output kept for messages
PIPE_BYTES = 1 << 20


class Output:
    """The reading end of a pipe that a child writes to; keeps the last few kilobytes."""

    def __init__(self) -> None:
        self.fd, self.child_end = os.pipe()
        os.set_blocking(self.fd, False)
        self._kept = b""

    def drain(self) -> bytes:
        """Everything that waits in the pipe, at most one pipe full; never blocks."""
        got = b""
        while self.fd >= 0 and len(got) < PIPE_BYTES:
            try:
                data = os.read(self.fd, 65536)
            except BlockingIOError:
                break
            if not data:
                self.close()
            got += data
        self._kept = (self._kept + got)[-KEPT_OUTPUT:]
        return got

    def text(self) -> str:
        self.drain()
        return self._kept.decode("utf-8", "replace")

    def last_line(self) -> str:
        lines = [line.strip() for line in self.text().splitlines() if line.strip()]
        return lines[-1] if lines else ""

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Child:
    """A process of ours. `status` is None while it runs, then as of os.waitstatus_to_exitcode."""

    def __init__(self, pid: int, argv: list[str], output: Output, gate: int, exec_error: int) -> None:
        self.pid = pid
        self.argv = argv
        self.output = output
        self.status: int | None = None
        self._reaped = False
        self._gate = gate
        self._exec_error = exec_error

    def running(self) -> bool:
        """Leaves an ended process unreaped, so that its group's number stays ours until `end`."""
        if self.status is None:
            info = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if info is not None:
                self.status = info.si_status if info.si_code == os.CLD_EXITED else -info.si_status
        return self.status is None

    def wait(self, seconds: float) -> bool:
        """Whether the process ended within `seconds`; its output is drained meanwhile."""
        deadline = time.monotonic() + seconds
        while self.running():
            self.output.drain()
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def open_gate(self) -> None:
        """Let a gated child exec its program. Raises RecordError when the exec fails."""
        os.write(self._gate, b"g")
        self._close_gate()
        self._check_exec()

    def send(self, number: int) -> None:
        """A signal to the whole process group; nothing once it was reaped, for its number may be another's by then."""
        if self._reaped:
            return
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return

    def end(self, grace: float = 1.0) -> None:
        """SIGTERM to the group, SIGKILL to what is left of it after `grace` seconds, and reap."""
        if self._reaped:
            return
        self._close_gate()
        if self.running():
            self.send(signal.SIGTERM)
            self.wait(grace)
        self.send(signal.SIGKILL)
        self.wait(5.0)
        self.output.drain()
        self.output.close()
        if self.status is not None:
            os.waitpid(self.pid, 0)
            self._reaped = True

    def _close_gate(self) -> None:
        if self._gate >= 0:
            os.close(self._gate)
            self._gate = -1

    def _check_exec(self) -> None:
        number = os.read(self._exec_error, 16)  # ends when exec closes the other side
        os.close(self._exec_error)
        if number:
            raise RecordError(f"cannot start {self.argv[0]}: {os.strerror(int(number))}")


def spawn(
    argv: list[str],
    *,
    env: dict[str, str],
    stdin: int = -1,
    stdout: int = -1,
    keep: tuple[int, ...] = (),
    gated: bool = False,
) -> Child:
    """Start `argv` in a new session. stdout goes to `stdout`, or with stderr to the child's `output`.

    `keep` are descriptors that stay open in the child. A gated child waits before its exec until `open_gate`.
    Raises RecordError where the program cannot be started.
    """
    output = Output()
    gate, gate_opener = os.pipe() if gated else (-1, -1)
    exec_error, exec_error_writer = os.pipe()
    for fd in keep:
        os.set_inheritable(fd, True)
    pid = os.fork()
    if pid == 0:
        _become(argv, env, (stdin, stdout, output.child_end), (gate, gate_opener), exec_error_writer)
    for fd in (output.child_end, gate, exec_error_writer):
        if fd >= 0:
            os.close(fd)
    child = Child(pid, argv, output, gate_opener, exec_error)
    if not gated:
        try:
            child._check_exec()
        except RecordError:
            child.end()
            raise
    return child


def _become(
    argv: list[str],
    env: dict[str, str],
    streams: tuple[int, int, int],
    gate: tuple[int, int],
    exec_error_writer: int,
) -> None:
    """In the forked child: wire the descriptors, wait at the gate, exec. Never returns."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        stdin, stdout, stderr = streams
        os.dup2(stdin if stdin >= 0 else os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(stdout if stdout >= 0 else stderr, 1)
        os.dup2(stderr, 2)
        if gate[0] >= 0:
            os.close(gate[1])
            if not os.read(gate[0], 1):  # the recorder died
                os._exit(127)
        os.execvpe(argv[0], argv, env)  # noqa: S606
    except OSError as error:
        os.write(exec_error_writer, str(error.errno).encode())
    finally:
        os._exit(127)


def run(argv: list[str], *, env: dict[str, str], seconds: float = 30.0) -> tuple[int, str]:
    """Exit status and output of a short command. Raises RecordError when it does not end in time."""
    child = spawn(argv, env=env)
    try:
        if not child.wait(seconds):
            raise RecordError(f"{argv[0]} did not end within {seconds:g} s")
        return child.status or 0, child.output.text()
    finally:
        child.end()


def wait_readable(fd: int, seconds: float) -> bool:
    """Whether `fd` can be read, or has ended, within `seconds`. Raises Interrupted as progress.check does."""
    deadline = time.monotonic() + seconds
    while True:
        progress.check()
        if select.select([fd], [], [], 0.2)[0]:
            return True
        if time.monotonic() >= deadline:
            return False
