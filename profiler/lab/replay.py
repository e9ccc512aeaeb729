"""Exact replay: QEMU's execution log of an emulated guest, switched on while somebody reads it.

The log says which instruction ran and what every register held before it. It is text, about 1.2 KB an
instruction (some 60 to 200 MB a second), so it never touches a disk: QEMU writes into a FIFO, and what is not
read holds the guest up. Sources: QEMU's monitor manual (`log`, `logfile`, `one-insn-per-tb`), its QMP
specification (docs/interop/qmp-spec), and `qemu-system-x86_64 -d help`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from profiler.errors import MissingError, TargetError

# What the log is about: the kernel's image and modules; user code is left out.
ADDRESSES = "0xffffffff80000000+0x7fffffff"
# Time in the guest follows the instructions executed (4 ns each, near the speed of emulation), not the host's clock.
# Otherwise the guest, slowed down a thousandfold by the log, would do nothing but serve its timer.
INSTRUCTION_CLOCK = "shift=2"

_LOG = "exec,cpu,nochain"
# How QEMU is told to make each instruction a block of its own: since 8.1, and before.
_ONE_INSTRUCTION = ("one-insn-per-tb", "singlestep")
_ANSWER_SECONDS = 20.0
_PIPE_BYTES = 1 << 20
_SILENCE_SECONDS = 1.0
_WAKE_SECONDS = 5.0


class Monitor:
    """A client of QEMU's monitor protocol (QMP), for the human monitor's commands inside it.

    Raises TargetError where QEMU is gone, silent, or speaks something else.
    """

    def __init__(self, path: Path, *, timeout: float = _ANSWER_SECONDS) -> None:
        self._buffer = b""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(str(path))
            greeting = self._receive()
            if "QMP" not in greeting:
                raise TargetError(f"QEMU's monitor began with {str(greeting)[:60]} instead of its greeting")
            self._execute("qmp_capabilities")
        except OSError as error:
            self._socket.close()
            raise _unanswered(error) from error
        except BaseException:
            self._socket.close()
            raise
        self.version = _version(greeting)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def human(self, line: str) -> str:
        """What the human monitor answers to a command; most that succeed answer nothing."""
        try:
            return str(self._execute("human-monitor-command", {"command-line": line})).strip()
        except OSError as error:
            raise _unanswered(error) from error

    def wake(self) -> None:
        """Have QEMU's main loop go round once.

        With the instruction clock QEMU 7.2 now and then (once in some hundred commands on a busy machine) leaves an
        idle guest asleep past its next timer, until anything at all happens in the main loop. A mere connection
        happens in another thread.
        """
        self.human("info status")

    def _execute(self, command: str, arguments: dict[str, str] | None = None) -> Any:
        request = {"execute": command, "arguments": arguments or {}}
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        while True:
            answer = self._receive()
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                described = answer["error"]
                what = described.get("desc", described) if isinstance(described, dict) else described
                raise TargetError(f"QEMU's monitor refused {command}: {what}")
            # else an event, such as {"event": "RESUME", ...}

    def _receive(self) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            data = self._socket.recv(1 << 16)
            if not data:
                raise ConnectionResetError
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            raise TargetError(f"QEMU's monitor answered {line[:60]!r}, which is not of its protocol")
        return message


def _unanswered(error: OSError) -> TargetError:
    if isinstance(error, TimeoutError):
        return TargetError("QEMU's monitor does not answer", hint="the machine may be overloaded; try again")
    return TargetError("QEMU's monitor is gone", hint="QEMU ended, or was killed")


def _version(greeting: dict[str, Any]) -> str:
    # {"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "..."}, ...}}
    try:
        numbers = greeting["QMP"]["version"]["qemu"]
        return f"{numbers['major']}.{numbers['minor']}.{numbers['micro']}"
    except (KeyError, TypeError):
        return "of unknown version"


def wake(monitor_path: Path) -> None:
    """As `Monitor.wake`, of a QEMU that nobody else is talking to; whether it works does not matter."""
    with contextlib.suppress(TargetError), Monitor(monitor_path, timeout=_WAKE_SECONDS) as monitor:
        monitor.wake()


@contextlib.contextmanager
def execution_log(monitor_path: Path, fifo: Path, *, seconds: float) -> Iterator[Iterator[bytes]]:
    """The log from now on, in pieces cut anywhere, for at most `seconds`; off again when the block ends.

    The guest waits for the reader. Raises TargetError where QEMU fails, MissingError where it is unable.
    """
    with Monitor(monitor_path) as monitor, _fifo(fifo) as reader:
        _must(monitor, f"logfile {_quoted(fifo)}")
        try:
            _one_instruction_a_block(monitor)
            # Only now, and not before there is a reader, QEMU opens the FIFO.
            _must(monitor, f"log {_LOG}")
            yield reader.pieces(time.monotonic() + seconds, monitor.wake)
        except BaseException:
            # Whatever went wrong is what the user must hear, not that the monitor failed after it.
            with contextlib.suppress(TargetError):
                _off(monitor, reader)
            raise
        _off(monitor, reader)


def _off(monitor: Monitor, reader: _Reader) -> None:
    # Without a reader QEMU's writes fail at once (it ignores SIGPIPE), so nothing can hold it up any more.
    reader.close()
    _must(monitor, "log none")
    for command in _ONE_INSTRUCTION:
        monitor.human(f"{command} off")


def _one_instruction_a_block(monitor: Monitor) -> None:
    if all(monitor.human(f"{command} on") for command in _ONE_INSTRUCTION):
        raise MissingError(
            f"QEMU {monitor.version} cannot execute one instruction at a time",
            hint="install QEMU 7.2 or later, or use --evidence samples",
        )


def _must(monitor: Monitor, line: str) -> None:
    answer = monitor.human(line)
    if answer:
        raise TargetError(f"QEMU {monitor.version} refused `{line}`: {answer.splitlines()[0]}")


def _quoted(path: Path) -> str:
    # % begins a pattern in QEMU's file names, the rest is the human monitor's quoting.
    text = str(path)
    if "%" in text:
        raise TargetError(f"QEMU cannot write its log into {path}", hint="name a directory without % with TMPDIR")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


class _Reader:
    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def pieces(self, deadline: float, on_silence: Callable[[], None]) -> Iterator[bytes]:
        """Until the deadline, QEMU's end, or `close`."""
        while self._descriptor is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            if not select.select([self._descriptor], [], [], min(left, _SILENCE_SECONDS))[0]:
                on_silence()
                continue
            data = os.read(self._descriptor, _PIPE_BYTES)
            if not data:
                return
            yield data


@contextlib.contextmanager
def _fifo(path: Path) -> Iterator[_Reader]:
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        reader = _Reader(descriptor)
        try:
            with contextlib.suppress(OSError):  # above the user's limit: then it stays at 64 KiB
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            yield reader
        finally:
            reader.close()
    finally:
        path.unlink(missing_ok=True)
