"""Processes on the target are started with the descriptors meant for them, and ended with all that they started."""

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from profiler.errors import RecordError
from profiler.record import progress, spawn
from profiler.record.guardian import Guardian, end_groups
from profiler.record.spawn import Child

ENVIRONMENT = {"PATH": os.defpath}
Start = Callable[..., Child]


@pytest.fixture
def start() -> Iterator[Start]:
    children: list[Child] = []

    def shell(script: str, **options: object) -> Child:
        child = spawn.spawn(["/bin/sh", "-c", script], env=ENVIRONMENT, **options)  # type: ignore[arg-type]
        children.append(child)
        return child

    yield shell
    for child in children:
        child.end(grace=0.1)


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def exists(pid: int) -> bool:
    """Whether a process runs; one that nobody has reaped yet does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_run_gives_status_and_both_outputs() -> None:
    argv = ["/bin/sh", "-c", "echo out; echo error >&2; exit 3"]
    assert spawn.run(argv, env=ENVIRONMENT) == (3, "out\nerror\n")


def test_run_gives_up_on_a_command_that_does_not_end() -> None:
    with pytest.raises(RecordError, match="did not end within"):
        spawn.run(["/bin/sleep", "60"], env=ENVIRONMENT, seconds=0.1)


def test_a_program_that_does_not_exist_is_named() -> None:
    with pytest.raises(RecordError, match="cannot start /nonexistent/program: No such file"):
        spawn.spawn(["/nonexistent/program"], env=ENVIRONMENT)


def test_death_by_a_signal_is_a_negative_status(start: Start) -> None:
    child = start("kill -SEGV $$")
    assert child.wait(10)
    assert child.status == -signal.SIGSEGV


def test_a_gated_child_does_nothing_before_its_gate_opens(start: Start) -> None:
    child = start("echo ran", gated=True)
    assert not child.wait(0.2)
    assert child.output.text() == ""
    child.open_gate()
    assert child.wait(10)
    assert child.output.text() == "ran\n"


def test_a_gated_child_whose_gate_never_opens_ends_without_running(start: Start) -> None:
    child = start("echo ran", gated=True)
    child.end()
    assert child.output.text() == ""


def test_a_gated_program_that_does_not_exist_is_named_when_the_gate_opens() -> None:
    child = spawn.spawn(["/nonexistent/program"], env=ENVIRONMENT, gated=True)
    with pytest.raises(RecordError, match="/nonexistent/program"):
        child.open_gate()
    child.end()


def test_ending_a_child_ends_what_it_started_too(start: Start) -> None:
    child = start("sleep 60 & echo $!; wait")
    assert eventually(lambda: child.output.text().endswith("\n"))
    grandchild = int(child.output.text())
    assert exists(grandchild)
    child.end(grace=0.2)
    assert eventually(lambda: not exists(grandchild))


def test_a_child_that_ignores_sigterm_is_killed(start: Start) -> None:
    child = start("trap '' TERM; echo deaf; while :; do sleep 1; done")
    assert eventually(lambda: child.output.text() == "deaf\n")
    child.end(grace=0.1)
    assert child.status == -signal.SIGKILL


def test_a_reaped_child_gets_no_signal_any_more(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number may be another process's by then."""
    child = start("exit 0")
    child.end()
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "killpg", lambda *words: sent.append(words))
    child.send(signal.SIGKILL)
    child.end()
    assert sent == []


def test_a_child_that_prints_much_is_drained_and_only_its_end_is_kept(start: Start) -> None:
    child = start("i=0; while [ $i -lt 20000 ]; do echo line $i of much output; i=$((i+1)); done; echo last")
    assert child.wait(30)
    assert child.output.last_line() == "last"
    assert len(child.output.text()) <= spawn.KEPT_OUTPUT


def test_a_guardian_ends_what_runs_when_the_recorder_is_killed() -> None:
    reading, writing = os.pipe()
    recorder = os.fork()
    if recorder == 0:
        guardian = Guardian()
        child = spawn.spawn(["/bin/sleep", "60"], env=ENVIRONMENT)
        guardian.guard(child.pid)
        os.write(writing, str(child.pid).encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(writing)
    sleeping = int(os.read(reading, 16))
    os.close(reading)
    os.waitpid(recorder, 0)
    assert eventually(lambda: not exists(sleeping))


def test_a_released_guardian_leaves_everything_alone(start: Start) -> None:
    child = start("sleep 60")
    guardian = Guardian()
    guardian.guard(child.pid)
    guardian.release()
    time.sleep(0.3)
    assert child.running()


def test_groups_that_ignore_sigint_are_killed(start: Start) -> None:
    child = start("trap '' INT; echo deaf; while :; do sleep 1; done")
    assert eventually(lambda: child.output.text() == "deaf\n")
    end_groups([child.pid], grace=0.1)
    assert child.wait(10)
    assert child.status == -signal.SIGKILL


def test_a_noted_signal_interrupts_where_the_recorder_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_noted_signals", [signal.SIGTERM])
    reading, writing = os.pipe()
    with pytest.raises(progress.Interrupted, match="signal 15"):
        spawn.wait_readable(reading, 60)
    os.close(reading)
    os.close(writing)


def test_the_death_of_the_caller_interrupts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_PARENT", os.getppid() + 1)
    with pytest.raises(progress.Interrupted, match="is gone"):
        progress.report(0.5, "recording")


def test_waiting_ends_when_the_other_side_closes() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    assert spawn.wait_readable(reading, 60)
    os.close(reading)
