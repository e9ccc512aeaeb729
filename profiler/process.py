"""The one place on this machine that starts processes.

Argument lists only (never a shell), `LC_ALL=C` so that texts are the same everywhere, a deadline for each
process, and an own process group for each, so that ending one ends what it started too.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from profiler.errors import MissingError, ProfilerError

# Debian's and Ubuntu's names of the packages that hold the programs started here.
PACKAGES = {
    "apt-get": "apt",
    "/usr/lib/apt/apt-helper": "apt",
    "apt-cache": "apt",
    "apt-config": "apt",
    "busybox": "busybox-static",
    "cc": "gcc",
    "dpkg-deb": "dpkg",
    "ldd": "libc-bin",
    "perf": "linux-perf (Ubuntu: linux-tools-generic)",
    "qemu-system-x86_64": "qemu-system-x86",
    "ssh": "openssh-client",
    "xz": "xz-utils",
}
GRACE_SECONDS = 5.0


class ProcessError(ProfilerError):
    """A program that was started exited with an error or did not end in time."""


@dataclass(frozen=True, slots=True)
class Completed:
    """How a process ended. `exit_code` is negative for a signal; `output` holds what was asked for."""

    exit_code: int
    output: str
    errors: str = ""


def find(program: str) -> Path:
    """The path of a program. Raises MissingError naming the package that holds it."""
    found = shutil.which(program)
    if found is None and "/" not in program:  # an ordinary user's PATH often lacks sbin
        found = shutil.which(program, path="/usr/sbin:/sbin:/usr/local/sbin")
    if found is None:
        package = PACKAGES.get(program)
        hint = f"install the package {package}" if package else "check its path and that it is executable"
        raise MissingError(f"the program {program} is not on this machine", hint=hint)
    return Path(found)


def environment(**extra: str) -> dict[str, str]:
    """This process's environment with the texts of other programs pinned to C."""
    return {**os.environ, "LC_ALL": "C", "LANGUAGE": "C", **extra}


def run(
    argv: Sequence[str | Path],
    *,
    timeout: float,
    check: bool = True,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
    merge: bool = False,
) -> Completed:
    """Run a program to its end and return what it printed, decoded as UTF-8 (bad bytes escaped).

    timeout  seconds, after which the whole process group is ended and ProcessError raised
    check    raise ProcessError when the exit code is not 0
    env      added to the environment
    on_line  called with each line of output as it comes (without its newline), in this thread
    merge    standard error goes into `output`, in order

    Raises MissingError when the program is absent.
    """
    command = [str(find(str(argv[0]))), *map(str, argv[1:])]
    with _group(command, cwd=cwd, env=environment(**(env or {})), merge=merge) as process:
        completed = _collect(process, timeout, on_line)
        if completed is None:
            raise ProcessError(f"{argv[0]} did not end within {timeout:g} s", hint="it was stopped")
    if check and completed.exit_code:
        raise ProcessError(f"{argv[0]} failed: {_last_words(completed)}")
    return completed


@contextlib.contextmanager
def started(
    argv: Sequence[str | Path],
    *,
    log: Path,
    pass_fds: Sequence[int] = (),
    cwd: Path | None = None,
    talks: bool = False,
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs beside us and is ended, with its process group, when the block ends.

    It is killed by the kernel, too, when the thread that started it dies, so a SIGKILL leaves nothing running.
    What it prints goes into `log`; of one that `talks` only its standard error does, and the rest are pipes.
    """
    command = [str(find(str(argv[0]))), *map(str, argv[1:])]
    if shutil.which("setpriv"):  # util-linux; a preexec_fn would not be safe beside threads
        command = ["setpriv", "--pdeathsig", "KILL", "--", *command]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
            stdout=subprocess.PIPE if talks else output,
            stderr=output,
            start_new_session=True,
            pass_fds=tuple(pass_fds),
            cwd=cwd,
            env=environment(),
        )
    try:
        yield process
    finally:
        end_group(process, grace=1.0)


class Conversation:
    """A running program that is written to and answers in lines. Writing is safe from several threads."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._writing = threading.Lock()
        self._rest = b""

    def send(self, data: bytes) -> bool:
        """Whether it was there to be written to."""
        assert self._process.stdin is not None
        try:
            with self._writing:
                self._process.stdin.write(data)
                self._process.stdin.flush()
        except (OSError, ValueError):  # it ended; it was hung up
            return False
        return True

    def line(self, seconds: float) -> bytes | None:
        """The next line without its newline, None when there is no more; raises TimeoutError after `seconds`."""
        assert self._process.stdout is not None
        descriptor, deadline = self._process.stdout.fileno(), time.monotonic() + seconds
        while b"\n" not in self._rest:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                raise TimeoutError
            data = os.read(descriptor, 1 << 16)
            if not data:
                return None
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def ended(self, seconds: float = 0.0) -> bool:
        """Whether the program has ended, or does within `seconds`."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=seconds)
        return self._process.returncode is not None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        return self._process.returncode

    def hang_up(self) -> None:
        """It reads the end of its input from now on."""
        assert self._process.stdin is not None
        with self._writing, contextlib.suppress(OSError):
            self._process.stdin.close()


@contextlib.contextmanager
def conversation(argv: Sequence[str | Path], *, log: Path) -> Iterator[Conversation]:
    """A program as `started`, to talk with; its standard error goes into `log`."""
    with started(argv, log=log, talks=True) as process:
        talking = Conversation(process)
        try:
            yield talking
        finally:
            talking.hang_up()


def fed(argv: Sequence[str | Path], write: Callable[[IO[bytes]], None], *, timeout: float) -> None:
    """Run a program whose input `write` writes. Raises ProcessError where it fails or does not end in time."""
    command = [str(find(str(argv[0]))), *map(str, argv[1:])]
    with _group(command, cwd=None, env=environment(), merge=True, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        alarm = threading.Timer(timeout, end_group, (process,), {"grace": GRACE_SECONDS})
        alarm.daemon = True
        alarm.start()
        try:
            with contextlib.suppress(BrokenPipeError), process.stdin as stream:
                write(stream)
            output = process.stdout.read() if process.stdout is not None else b""
            process.wait()
        finally:
            alarm.cancel()
    if process.returncode:
        raise ProcessError(f"{argv[0]} failed: {_last_words(Completed(process.returncode, _text(output)))}")


@contextlib.contextmanager
def piped(argv: Sequence[str | Path]) -> Iterator[IO[bytes]]:
    """A program's output as a binary stream. One that is not read to its end ends with the block.

    Raises ProcessError when a program that was read to its end failed.
    """
    command = [str(find(str(argv[0]))), *map(str, argv[1:])]
    with _group(command, cwd=None, env=environment(), merge=False) as process:
        assert process.stdout is not None
        errors: list[bytes] = []
        drain = threading.Thread(target=_drain, args=(process.stderr, errors), daemon=True)
        drain.start()
        yield process.stdout
        if process.stdout.read(1) == b"" and process.wait():
            drain.join(GRACE_SECONDS)
            raise ProcessError(f"{argv[0]} failed: {_last_words(Completed(process.returncode, '', _decoded(errors)))}")


@contextlib.contextmanager
def _group(
    command: list[str], *, cwd: Path | None, env: dict[str, str], merge: bool, stdin: int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if merge else subprocess.PIPE,
        start_new_session=True,
        cwd=cwd,
        env=env,
    )
    try:
        yield process
    finally:
        end_group(process, grace=GRACE_SECONDS)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _collect(
    process: subprocess.Popen[bytes], timeout: float, on_line: Callable[[str], None] | None
) -> Completed | None:
    """Read both pipes to their ends; None when the deadline came first."""
    assert process.stdout is not None
    errors: list[bytes] = []
    drain = threading.Thread(target=_drain, args=(process.stderr, errors), daemon=True)
    drain.start()
    expired = threading.Event()
    alarm = threading.Timer(timeout, _expire, (process, expired))
    alarm.daemon = True
    alarm.start()
    output: list[bytes] = []
    try:
        for line in process.stdout:
            output.append(line)
            if on_line is not None:
                on_line(_text(line).rstrip("\n"))
        process.wait()
        drain.join(GRACE_SECONDS)
    finally:
        alarm.cancel()
    if expired.is_set():
        return None
    return Completed(process.returncode, _decoded(output), _decoded(errors))


def _drain(pipe: IO[bytes] | None, into: list[bytes]) -> None:
    if pipe is not None:
        with contextlib.suppress(ValueError, OSError):  # closed under us after a deadline
            into.extend(pipe)


def _expire(process: subprocess.Popen[bytes], expired: threading.Event) -> None:
    expired.set()
    end_group(process, grace=GRACE_SECONDS)


def end_group(process: subprocess.Popen[Any], *, grace: float) -> None:
    """SIGTERM to the whole group, SIGKILL to what is left after `grace` seconds.

    The grace is for programs that must undo what they switched on. A group outlives its leader, so
    it is signalled even where the leader has ended.
    """
    if _signal_group(process.pid, signal.SIGTERM):
        deadline = time.monotonic() + grace
        while time.monotonic() < deadline:
            process.poll()
            if not _signal_group(process.pid, 0):
                break
            time.sleep(0.01)
        _signal_group(process.pid, signal.SIGKILL)
    process.wait()


def _signal_group(group: int, number: int) -> bool:
    """False when nobody is left in the group."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _last_words(completed: Completed) -> str:
    lines = [line.strip() for line in (completed.errors or completed.output).splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {completed.exit_code}"


def _decoded(parts: list[bytes]) -> str:
    return _text(b"".join(parts))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
