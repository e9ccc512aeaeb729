"""The client of QEMU's monitor and the execution log it switches, against a monitor that does as QEMU does."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from profiler.errors import MissingError, TargetError
from profiler.lab import replay

# QEMU 7.2's, as recorded
GREETING = (
    b'{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian 1:7.2"}, '
    b'"capabilities": ["oob"]}}\r\n'
)
EVENT = b'{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "RESUME"}\r\n'
UNKNOWN = "unknown command: 'one-insn-per-tb'\r\nType 'help' to see valid commands\r\n"


class FakeQemu:
    """Answers one client; while its log is on it writes `log` into the log file, over and over."""

    def __init__(self, path: Path, *, greeting: bytes = GREETING, log: bytes = b"Trace 0: x\n" * 1000) -> None:
        self.path = path
        self.commands: list[str] = []
        self.answers = {"one-insn-per-tb": UNKNOWN}  # by the command's first word; others answer nothing
        self.answered = 10_000  # how many human commands, before it falls silent
        self.ends_at = ""  # closes the connection at this command
        self.log_file = ""
        self.writes_failed = 0
        self._greeting = greeting
        self._log = log
        self._logging = False
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen(1)
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def close(self) -> None:
        self._logging = False
        self._server.close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def _serve(self) -> None:
        try:
            client, _ = self._server.accept()
        except OSError:
            return
        with client, client.makefile("rb") as requests:
            client.sendall(self._greeting)
            for request in requests:
                message = json.loads(request)
                if message["execute"] == "qmp_capabilities":
                    client.sendall(EVENT + b'{"return": {}}\r\n')
                    continue
                line = message["arguments"]["command-line"]
                self.commands.append(line)
                if line == self.ends_at:
                    client.shutdown(socket.SHUT_RDWR)
                    return
                if len(self.commands) <= self.answered:
                    answer = json.dumps({"return": self._human(line)}).encode()
                    client.sendall(EVENT + answer[:7])  # not all at once
                    client.sendall(answer[7:] + b"\r\n")

    def _human(self, line: str) -> str:
        word = line.split(maxsplit=1)[0]
        if word == "logfile":
            self.log_file = re.sub(r"\\(.)", r"\1", line.removeprefix("logfile ")[1:-1])
        elif line == "log none":
            self._logging = False
        elif word == "log" and word not in self.answers:
            self._logging = True
            descriptor = os.open(self.log_file, os.O_WRONLY)  # as QEMU does it: waits for a reader
            self._threads.append(threading.Thread(target=self._write, args=(descriptor,)))
            self._threads[-1].start()
        return self.answers.get(word, "")

    def _write(self, descriptor: int) -> None:
        while self._logging:
            try:
                os.write(descriptor, self._log)
            except BrokenPipeError:
                self.writes_failed += 1
                time.sleep(0.001)
        os.close(descriptor)


@pytest.fixture
def qemu(tmp_path: Path) -> Iterator[FakeQemu]:
    fake = FakeQemu(tmp_path / "qmp")
    yield fake
    fake.close()


def switched_off(qemu: FakeQemu) -> bool:
    return qemu.commands[-3:] == ["log none", "one-insn-per-tb off", "singlestep off"]


def test_the_log_is_switched_on_read_and_switched_off(qemu: FakeQemu, tmp_path: Path) -> None:
    with replay.execution_log(qemu.path, tmp_path / "fifo", seconds=20) as pieces:
        assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)
        text = next(pieces) + next(pieces)
    assert text.startswith(b"Trace 0: x\nTrace")
    assert qemu.commands[:4] == [
        f'logfile "{tmp_path}/fifo"',
        "one-insn-per-tb on",
        "singlestep on",
        "log exec,cpu,nochain",
    ]
    assert switched_off(qemu)
    assert next(pieces, b"none") == b"none"
    assert not (tmp_path / "fifo").exists()


def test_a_newer_qemu_needs_no_singlestep(qemu: FakeQemu, tmp_path: Path) -> None:
    qemu.answers = {"singlestep": "unknown command: 'singlestep'\r\n"}
    with replay.execution_log(qemu.path, tmp_path / "fifo", seconds=20) as pieces:
        assert next(pieces)
    assert switched_off(qemu)


def test_a_qemu_that_knows_neither_is_named_as_too_old_and_nothing_stays_on(qemu: FakeQemu, tmp_path: Path) -> None:
    qemu.answers["singlestep"] = "unknown command: 'singlestep'\r\n"
    with (
        pytest.raises(MissingError, match=r"QEMU 7\.2\.22 cannot execute one instruction at a time") as caught,
        replay.execution_log(qemu.path, tmp_path / "fifo", seconds=20),
    ):
        pytest.fail("must not begin")
    assert "--evidence samples" in caught.value.hint
    assert switched_off(qemu)
    assert "log exec,cpu,nochain" not in qemu.commands
    assert not (tmp_path / "fifo").exists()


def test_what_qemu_refuses_is_told(qemu: FakeQemu, tmp_path: Path) -> None:
    qemu.answers["log"] = "Log items (comma separated):\r\n"
    with (
        pytest.raises(TargetError, match=r"QEMU 7\.2\.22 refused `log exec,cpu,nochain`: Log items"),
        replay.execution_log(qemu.path, tmp_path / "fifo", seconds=20),
    ):
        pytest.fail("must not begin")


def test_the_log_ends_at_its_deadline(qemu: FakeQemu, tmp_path: Path) -> None:
    start = time.monotonic()
    with replay.execution_log(qemu.path, tmp_path / "fifo", seconds=0.2) as pieces:
        for _ in pieces:
            pass
    assert 0.2 <= time.monotonic() - start < 5
    assert switched_off(qemu)


def test_a_log_that_says_nothing_ends_at_its_deadline_too(tmp_path: Path) -> None:
    silent = FakeQemu(tmp_path / "qmp", log=b"")
    with replay.execution_log(silent.path, tmp_path / "fifo", seconds=0.2) as pieces:
        assert list(pieces) == []
    silent.close()
    assert switched_off(silent)


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, GeneratorExit])
def test_an_exception_in_the_reader_comes_through_and_the_log_is_off(
    qemu: FakeQemu, tmp_path: Path, failure: type[BaseException]
) -> None:
    with pytest.raises(failure), replay.execution_log(qemu.path, tmp_path / "fifo", seconds=20) as pieces:
        next(pieces)
        raise failure
    assert switched_off(qemu)
    assert not (tmp_path / "fifo").exists()


def test_a_reader_that_never_reads_holds_nothing_up_once_it_is_gone(qemu: FakeQemu, tmp_path: Path) -> None:
    with replay.execution_log(qemu.path, tmp_path / "fifo", seconds=20):
        time.sleep(0.2)  # the FIFO is full by now
        assert qemu.writes_failed == 0
    assert switched_off(qemu)


def test_the_readers_own_exception_is_told_rather_than_qemus_end(qemu: FakeQemu, tmp_path: Path) -> None:
    qemu.ends_at = "log none"
    with pytest.raises(RuntimeError), replay.execution_log(qemu.path, tmp_path / "fifo", seconds=20):
        raise RuntimeError


def test_a_qemu_that_ends_meanwhile_is_a_target_error(qemu: FakeQemu, tmp_path: Path) -> None:
    qemu.ends_at = "log none"
    with (
        pytest.raises(TargetError, match="QEMU's monitor is gone"),
        replay.execution_log(qemu.path, tmp_path / "fifo", seconds=20),
    ):
        pass
    assert not (tmp_path / "fifo").exists()


def test_a_silent_monitor_is_a_target_error(qemu: FakeQemu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    qemu.answered = 0
    with (
        replay.Monitor(qemu.path, timeout=0.2) as monitor,
        pytest.raises(TargetError, match="QEMU's monitor does not answer"),
    ):
        monitor.human("log none")


@pytest.mark.parametrize(
    ("greeting", "said"),
    [
        (b"SSH-2.0-x\r\n", "answered b'SSH-2.0-x"),
        (b"[1]\r\n", "not of its protocol"),
        (b'{"VNC": 1}\r\n', "instead of its greeting"),
        (b'{"error": {"class": "GenericError", "desc": "x"}}\r\n', "instead of its greeting"),
    ],
)
def test_what_is_not_qemus_monitor_is_told(tmp_path: Path, greeting: bytes, said: str) -> None:
    other = FakeQemu(tmp_path / "qmp", greeting=greeting)
    with pytest.raises(TargetError, match=said):
        replay.Monitor(other.path)
    other.close()


def test_an_unknown_version_does_not_matter(tmp_path: Path) -> None:
    other = FakeQemu(tmp_path / "qmp", greeting=b'{"QMP": {}}\r\n')
    with replay.Monitor(other.path) as monitor:
        assert monitor.version == "of unknown version"
        assert monitor.human("log none") == ""
    other.close()


def test_no_monitor_at_all_is_a_target_error(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="QEMU's monitor is gone"):
        replay.Monitor(tmp_path / "absent")


def test_the_log_file_may_lie_under_any_name_but_a_pattern(qemu: FakeQemu, tmp_path: Path) -> None:
    odd = tmp_path / 'a "b" \\c'
    odd.mkdir()
    with replay.execution_log(qemu.path, odd / "fifo", seconds=20) as pieces:
        assert next(pieces)
    assert qemu.log_file == str(odd / "fifo")


def test_a_percent_sign_is_refused_with_a_remedy(qemu: FakeQemu, tmp_path: Path) -> None:
    (tmp_path / "50%d").mkdir()
    with (
        pytest.raises(TargetError, match="TMPDIR"),
        replay.execution_log(qemu.path, tmp_path / "50%d" / "fifo", seconds=20),
    ):
        pytest.fail("must not begin")
