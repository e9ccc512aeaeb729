"""Exact replay of real kernels: what is captured is true and whole, and the guest is as before afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from iced_x86 import Decoder, Instruction

from loadgen.build import loop_library
from profiler import lab
from profiler.debuginfo.vmlinux import Vmlinux
from profiler.errors import MissingError, TargetError
from profiler.lab import guest, leftovers, qemu
from profiler.model import ExecutionLog
from profiler.parse import exec_log
from profiler.target import Session, open_target
from tests.conftest import require
from tests.vm.kernels import VERSIONS, kernel_of

pytestmark = pytest.mark.vm

LOOP = "/whyerrno/loop.so"
BIND, EADDRINUSE = 49, 98
CALLS = 5


def entry_of(version: str) -> int:
    vmlinux = kernel_of(version).vmlinux
    assert vmlinux is not None
    with Vmlinux(vmlinux) as opened:
        return opened.symbol_address("entry_SYSCALL_64")


@pytest.fixture(scope="module", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def session(version: str) -> Iterator[Session]:
    kernel_of(version)
    with open_target(f"vm:{version}").session({LOOP: loop_library(lab.cache_directory())}) as booted:
        require(booted.replays, "this machine's guests run under KVM")
        yield booted


class Load:
    """The scenario bind-eaddrinuse in a guest, and something done while it runs."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def run(self, *options: str) -> float:
        """Seconds of the host's time that it took."""
        argv = [self.session.python, "-m", "loadgen", "bind-eaddrinuse", "--loop", LOOP, "--no-wait"]
        started = time.monotonic()
        done = self.session.run([*argv, "--result", "load.json", *options], timeout=120, on_line=self.on_line)
        assert done.exit_code == 0, done.output
        return time.monotonic() - started

    def on_line(self, line: str) -> None:
        if line.startswith("ready"):
            time.sleep(1)  # it says so a moment before it loops, which is long on a busy machine
            self.meanwhile()

    def meanwhile(self) -> None:
        """Nothing; a subclass does something."""


class Captured(Load):
    log: ExecutionLog

    def __init__(self, session: Session, entry: int) -> None:
        super().__init__(session)
        self.entry = entry

    def meanwhile(self) -> None:
        with self.session.execution_log(seconds=60) as pieces:
            self.log = exec_log.read(pieces, entry=self.entry, number=BIND, calls=CALLS)


@pytest.fixture(scope="module")
def captured(session: Session, version: str) -> ExecutionLog:
    load = Captured(session, entry_of(version))
    load.run("--seconds", "12")  # longer than a busy machine takes to begin the capture
    return load.log


def starts(log: ExecutionLog, version: str) -> list[int]:
    return [int(at) for at in np.flatnonzero(log.address == entry_of(version))]


def test_whole_calls_are_captured_from_their_entry_to_their_errno(captured: ExecutionLog, version: str) -> None:
    assert captured.decode_errors == ()
    first = starts(captured, version)
    assert len(first) == CALLS
    assert captured.registers[first, 0].tolist() == [BIND] * CALLS
    last = [*(at - 1 for at in first[1:]), len(captured.address) - 1]
    assert captured.registers[last, 0].astype(np.int64).tolist() == [-EADDRINUSE] * CALLS


def test_every_row_is_of_the_kernel_and_calls_are_of_like_length(captured: ExecutionLog, version: str) -> None:
    assert int(captured.address.min()) >= 0xFFFFFFFF80000000
    lengths = np.diff([*starts(captured, version), len(captured.address)])
    assert 1000 < np.median(lengths) < 3000
    assert np.count_nonzero(lengths == np.median(lengths)) >= 3  # an interrupt may lengthen one


def test_registers_and_flags_explain_every_conditional_jump(captured: ExecutionLog, version: str) -> None:
    """Flags are evaluated lazily by the emulator, so this proves that the dump holds them as they are."""
    vmlinux = kernel_of(version).vmlinux
    assert vmlinux is not None
    with Vmlinux(vmlinux) as opened:
        begin, end = opened.text_range
        decoded = {
            address: Decoder(64, opened.read(address, 15), ip=address).decode()
            for address in np.unique(captured.address).tolist()
            if begin <= address < end
        }
    jumps = right = 0
    rows = zip(captured.address.tolist(), captured.flags.tolist(), captured.address[1:].tolist(), strict=False)
    for address, flags, goes_on in rows:
        instruction = decoded.get(address)
        if instruction is not None and instruction.condition_code and instruction.is_jcc_short_or_near:
            jumps += 1
            right += goes_on == expected_next(instruction, flags)
    assert jumps > 400
    assert right == jumps


def expected_next(instruction: Instruction, flags: int) -> int:
    carry, parity, zero, sign, overflow = (bool(flags >> bit & 1) for bit in (0, 2, 6, 7, 11))
    # In the order of the condition codes (Intel's manual, volume 1, appendix B); each second one is the opposite.
    conditions = (overflow, carry, zero, carry or zero, sign, parity, sign != overflow, zero or sign != overflow)
    number = instruction.condition_code - 1
    jumps = conditions[number // 2] ^ bool(number & 1)
    return int(instruction.near_branch_target if jumps else instruction.next_ip)


@pytest.fixture(scope="module")
def usual_seconds(session: Session) -> float:
    """The time that a fixed number of calls takes in a guest that was never replayed."""
    return Load(session).run("--calls", "20000")


def at_full_speed(session: Session, usual_seconds: float) -> bool:
    """A log still on would make it a hundred times slower; other work on this machine, a few times."""
    return min(Load(session).run("--calls", "20000") for _ in range(2)) < 5 * usual_seconds


def test_full_speed_is_back_and_the_fifo_gone(session: Session, usual_seconds: float, captured: ExecutionLog) -> None:
    assert len(captured.address)
    assert at_full_speed(session, usual_seconds)
    assert session.console is not None
    assert not [path for path in session.console.parent.iterdir() if path.is_fifo()]


class Failing(Load):
    def meanwhile(self) -> None:
        with self.session.execution_log(seconds=60) as pieces:
            next(pieces)
            raise ArithmeticError


class Idle(Load):
    """Holds the log open and reads none of it."""

    def meanwhile(self) -> None:
        with self.session.execution_log(seconds=60):
            time.sleep(1)


def test_a_reader_that_stops_reading_leaves_the_guest_usable(session: Session, usual_seconds: float) -> None:
    Idle(session).run("--seconds", "4")
    assert at_full_speed(session, usual_seconds)


def test_two_captures_of_one_load_work(session: Session, version: str) -> None:
    class Twice(Captured):
        def meanwhile(self) -> None:
            super().meanwhile()
            first = self.log
            super().meanwhile()
            assert len(first.address) and len(self.log.address)

    Twice(session, entry_of(version)).run("--seconds", "12")


def test_a_reader_that_fails_leaves_the_guest_usable(session: Session, usual_seconds: float) -> None:
    with session.execution_log(seconds=60) as pieces:  # of an idle guest
        next(pieces, b"")
    with pytest.raises(ArithmeticError), session.execution_log(seconds=60):
        raise ArithmeticError
    assert at_full_speed(session, usual_seconds)


def test_an_exception_amid_the_load_ends_the_session_soon_and_leaves_nothing() -> None:
    kernel_of("6.1")
    files = {LOOP: loop_library(lab.cache_directory())}
    directory = Path("/nowhere")
    with pytest.raises(ArithmeticError), open_target("vm:6.1").session(files) as booted:
        require(booted.replays, "this machine's guests run under KVM")
        assert booted.console is not None
        directory = booted.console.parent
        Failing(booted).run("--seconds", "60")
    assert not directory.exists()


def test_a_qemu_killed_meanwhile_is_told() -> None:
    kernel_of("6.1")
    with (
        pytest.raises(TargetError, match="QEMU was killed by signal 9 during exact replay"),
        open_target("vm:6.1").session({}) as booted,
    ):
        require(booted.replays, "this machine's guests run under KVM")
        assert booted.console is not None
        pid = int((booted.console.parent / "pid").read_text().split()[0])
        with booted.execution_log(seconds=60) as pieces:
            os.kill(pid, signal.SIGKILL)
            for _ in pieces:
                pass


def test_a_guest_not_made_for_it_refuses_and_says_what_to_do() -> None:
    with (
        guest.boot(kernel_of("6.1"), {}, lab.cache_directory()) as booted,
        pytest.raises(MissingError, match="under KVM") as caught,
        booted.execution_log(seconds=1),
    ):
        pytest.fail("must not begin")
    assert f"{qemu.ACCELERATOR_VARIABLE}=tcg" in caught.value.hint


def test_an_owner_killed_amid_a_capture_leaves_nothing_that_the_next_run_does_not_remove() -> None:
    kernel_of("6.1")
    script = (
        "import time; from profiler.target import open_target\n"
        "with open_target('vm:6.1').session({}) as s, s.execution_log(seconds=600) as pieces:\n"
        "    next(pieces); print(s.console.parent, flush=True); time.sleep(600)"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    directory = Path(owner.stdout.readline().strip())
    assert [path for path in directory.iterdir() if path.is_fifo()]
    pid = int((directory / "pid").read_text().split()[0])
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert directory in leftovers.remove()
    assert not directory.exists()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/exe").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}/exe").exists()
