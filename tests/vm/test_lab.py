"""Real kernels in QEMU: boots, commands, files in and out, and every way in which a guest can fail."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from profiler import lab
from profiler.errors import TargetError
from profiler.lab import guest, leftovers, qemu
from profiler.lab.channel import Channel
from profiler.model import Kernel
from profiler.target import Session, open_target
from tests.vm.kernels import VERSIONS, kernel_of

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    kernel_of("6.1")
    with open_target("vm:6.1").session(
        {"/work/bash": Path("/bin/bash"), "/work/tree": Path(__file__).parent}
    ) as booted:
        yield booted


@pytest.mark.parametrize("version", VERSIONS)
def test_a_kernel_boots_runs_python_and_perf_and_hands_its_recording_back(version: str, tmp_path: Path) -> None:
    kernel = kernel_of(version)
    with open_target(f"vm:{version}").session({}) as booted:
        released = booted.run(["uname", "-r"], timeout=60)
        assert released.output.strip() == kernel.release
        script = "import json, ctypes, loadgen, profiler.record, profiler.model; print('imported')"
        assert booted.run([booted.python, "-c", script], timeout=60).output == "imported\n"
        recorded = booted.run(
            ["perf", "record", "-q", "-a", "-e", "cpu-clock", "-o", "perf.data", "--", "sleep", "0.3"], timeout=120
        )
        assert recorded.exit_code == 0, recorded.output
        booted.get("perf.data", tmp_path / "perf.data")
    assert (tmp_path / "perf.data").read_bytes()[:8] == b"PERFILE2"


def test_the_kernel_in_the_guest_is_the_one_whose_debug_info_is_at_hand(session: Session) -> None:
    shown = session.run(["od", "-An", "-v", "-tx1", "/sys/kernel/notes"], timeout=60).output
    assert kernel_of("6.1").build_id in shown.replace(" ", "").replace("\n", "")


@pytest.mark.parametrize("version", VERSIONS)
def test_files_move_and_a_second_program_runs_while_the_first_one_runs(version: str, tmp_path: Path) -> None:
    (tmp_path / "sent").write_text("over the disk")
    answers = []

    def answer(line: str) -> None:
        booted.put(tmp_path / "sent", "sent")
        booted.get("sent", tmp_path / "got")
        answers.append((line, booted.run(["cat", "sent"], timeout=60).output, (tmp_path / "got").read_text()))

    kernel_of(version)
    with open_target(f"vm:{version}").session({}) as booted:
        loop = "for number in 1 2 3; do echo $number; sleep 0.1; done"
        assert booted.run(["sh", "-c", loop], timeout=60, on_line=answer).output == "1\n2\n3\n"
    assert answers == [(number, "over the disk", "over the disk") for number in "123"]


def test_addresses_are_those_of_vmlinux(session: Session) -> None:
    shown = session.run(["grep", "-w", "_text", "/proc/kallsyms"], timeout=60).output
    assert shown.split()[0] == "ffffffff81000000"


def test_output_comes_line_by_line_while_the_command_runs(session: Session) -> None:
    seen: list[tuple[float, str]] = []
    session.run(
        ["sh", "-c", "echo one; sleep 1; echo two >&2"],
        timeout=60,
        on_line=lambda t: seen.append((time.monotonic(), t)),
    )
    assert [text for _, text in seen] == ["one", "two"]
    assert seen[1][0] - seen[0][0] > 0.5


def test_exit_codes_signals_and_output_without_a_newline_come_back(session: Session) -> None:
    ended = session.run(["sh", "-c", "printf abc; exit 7"], timeout=60)
    assert (ended.exit_code, ended.output) == (7, "abc")
    assert session.run(["/work/bash", "-c", "kill -9 $$"], timeout=60).exit_code == -9


def test_an_argument_reaches_the_program_as_it_is(session: Session) -> None:
    odd = "a'b\"c $(reboot) ; \\ \n\t*"
    assert session.run(["printf", "%s", odd], timeout=60).output == odd


def test_a_command_longer_than_a_terminal_line_works(session: Session) -> None:
    long = "x" * 20_000
    assert session.run(["printf", "%s", long], timeout=60).output == long


def test_a_command_arrives_whole_while_orphans_end(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their end is told to the first process, here while a command is on its way, in pieces as on a busy machine."""
    send = Channel._send

    def send_in_pieces(self: Channel, data: bytes, deadline: float) -> None:
        for start in range(0, len(data), 16):
            send(self, data[start : start + 16], deadline)
            time.sleep(0.02)

    orphans = "(for number in $(seq 100); do (sleep 0.05 &); done) >/dev/null 2>&1 &"
    assert session.run(["sh", "-c", orphans], timeout=60).exit_code == 0
    monkeypatch.setattr(Channel, "_send", send_in_pieces)
    for number in range(5):
        assert session.run(["echo", str(number)], timeout=20).output == f"{number}\n"


def test_a_program_brings_its_libraries_and_a_directory_its_files(session: Session) -> None:
    assert session.run(["/work/bash", "-c", "echo $((6 * 7))"], timeout=60).output == "42\n"
    assert "test_lab.py" in session.run(["ls", "/work/tree"], timeout=60).output


def test_files_and_trees_go_in_and_out_unchanged(session: Session, tmp_path: Path) -> None:
    tree = tmp_path / "in"
    (tree / "deep").mkdir(parents=True)
    content = os.urandom(300_001)
    (tree / "deep/data").write_bytes(content)
    session.put(tree, "copied")
    session.run(["sh", "-c", "echo more >copied/more"], timeout=60)
    session.get("copied", tmp_path / "out")
    assert (tmp_path / "out/deep/data").read_bytes() == content
    assert (tmp_path / "out/more").read_text() == "more\n"
    with pytest.raises(TargetError, match="copying absent out of the guest failed"):
        session.get("absent", tmp_path / "absent")


def test_the_guest_has_what_scenarios_need(session: Session) -> None:
    shown = session.run(["cat", "/proc/mounts"], timeout=60).output
    for line in ("tmpfs /tmp ", "tmpfs /mnt ", "cgroup2 /sys/fs/cgroup ", "tracefs /sys/kernel/tracing "):
        assert line in shown
    assert "memory" in session.run(["cat", "/sys/fs/cgroup/cgroup.subtree_control"], timeout=60).output
    assert session.run(["ping", "-c", "1", "127.0.0.1"], timeout=60).exit_code == 0
    assert session.run(["id", "-u", "nobody"], timeout=60).output == "65534\n"


def boot(kernel: Kernel, **options: Any) -> AbstractContextManager[guest.Guest]:
    return guest.boot(kernel, {}, lab.cache_directory(), **options)


def test_a_panic_is_told_with_the_kernels_own_words() -> None:
    with pytest.raises(TargetError, match=r"panicked during sh: .*sysrq.*triggered"), boot(kernel_of("6.1")) as booted:
        booted.run(["sh", "-c", "echo c >/proc/sysrq-trigger"], timeout=60)


def test_a_hang_ends_with_the_deadline() -> None:
    started = time.monotonic()
    with pytest.raises(TargetError, match="did not finish sleep within 1 s"), boot(kernel_of("6.1")) as booted:
        started = time.monotonic()
        booted.run(["sleep", "600"], timeout=1)
    assert time.monotonic() - started < 20


def test_a_killed_guest_is_told_and_its_files_are_gone() -> None:
    with pytest.raises(TargetError, match="QEMU was killed by signal 9"), boot(kernel_of("6.1")) as booted:
        directory = booted.console.parent
        os.kill(int((directory / "pid").read_text().split()[0]), signal.SIGKILL)
        booted.run(["true"], timeout=60)
    assert not directory.exists()


def test_a_kernel_that_never_boots_ends_with_the_deadline(tmp_path: Path) -> None:
    kernel = kernel_of("6.1")
    assert kernel.image is not None
    broken = bytearray(kernel.image.read_bytes())
    broken[0x8000:] = bytes(len(broken) - 0x8000)
    (tmp_path / "image").write_bytes(broken)
    dead = dataclasses.replace(kernel, image=tmp_path / "image")
    with pytest.raises(TargetError, match=r"during boot|boot within"), boot(dead, boot_timeout=5):
        pass


def test_a_guest_whose_owner_is_killed_ends_and_the_next_run_removes_its_files() -> None:
    kernel_of("6.1")
    script = (
        "import time; from profiler.target import open_target\n"
        "with open_target('vm:6.1').session({}) as s: print(s.console.parent, flush=True); time.sleep(600)"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    directory = Path(owner.stdout.readline().strip())
    pid = int((directory / "pid").read_text().split()[0])
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert directory in leftovers.remove()
    assert not directory.exists()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/cmdline").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}/cmdline").exists() or Path(f"/proc/{pid}/cmdline").read_bytes() == b""


def test_ctrl_c_leaves_no_guest_and_no_file() -> None:
    kernel_of("6.1")
    script = (
        "from profiler.target import open_target\n"
        "with open_target('vm:6.1').session({}) as s:\n"
        "    print(s.console.parent, flush=True)\n"
        "    s.run(['sleep', '600'], timeout=600)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    directory = Path(owner.stdout.readline().strip())
    pid = int((directory / "pid").read_text().split()[0])
    time.sleep(0.3)
    owner.send_signal(signal.SIGINT)
    _, errors = owner.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    assert not directory.exists()
    assert not Path(f"/proc/{pid}").exists()


def test_the_guest_monitor_can_be_opened() -> None:
    with boot(kernel_of("6.1"), qmp=True) as booted, socket.socket(socket.AF_UNIX) as monitor:
        monitor.connect(str(booted.console.parent / "qmp"))
        assert b"QMP" in monitor.recv(4096)


def test_a_fetched_kernel_is_found_again_without_any_process(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = kernel_of("6.1")
    monkeypatch.setenv("PATH", "/nowhere")
    found = open_target("vm:6.1").kernel()
    assert found == kernel
    assert kernel.source is not None and (kernel.source / "fs/open.c").is_file()


def test_acceleration_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(qemu.ACCELERATOR_VARIABLE, "tcg")
    kernel_of("6.1")
    assert open_target("vm:6.1").emulated


def test_nothing_of_these_tests_is_left(session: Session) -> None:
    own = session.console.parent if session.console else None
    mine = [p for p in Path(tempfile.gettempdir()).glob(f"{leftovers.PREFIX}*") if p != own]
    abandoned = [p for p in mine if str(os.getpid()) in (p / "owner").read_text().split()[:1]]
    assert abandoned == []
