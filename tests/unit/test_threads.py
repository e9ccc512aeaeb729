"""The load's threads are found in /proc, and stand still while they are asked to."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from profiler.record import journal, threads

FAMILY = """
import os, threading, time
if os.fork() == 0:
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    print("ready", flush=True)
while True:
    time.sleep(0.01)
"""


@pytest.fixture(autouse=True)
def own_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(journal, "RUN", str(tmp_path / "run"))
    return tmp_path / "run" / f"{os.getpid()}.json"


@pytest.fixture
def family() -> Iterator[int]:
    """A process with one child, which has two threads."""
    process = subprocess.Popen([sys.executable, "-c", FAMILY], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    process.stdout.readline()
    yield process.pid
    os.killpg(process.pid, 9)
    process.wait()
    process.stdout.close()


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_a_process_has_its_own_threads_and_its_descendants(family: int) -> None:
    parent, child = threads.tree(family)
    assert parent == family
    assert threads.of(family)[:2] == [parent, child]
    assert len(threads.of(family)) == 3


def test_a_process_that_is_gone_has_no_threads() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert threads.of(process.pid) == threads.tree(process.pid) == []


def test_the_busiest_threads_come_first_and_idle_ones_not_at_all() -> None:
    stop = threading.Event()
    idle = threading.Thread(target=stop.wait, daemon=True)
    idle.start()
    deadline = time.process_time() + 0.3
    while time.process_time() < deadline:
        pass
    assert idle.native_id is not None
    mine = [idle.native_id, os.getpid(), 1 << 22]
    assert threads.busiest(mine, 4) == [os.getpid()]
    stop.set()
    idle.join()


def test_no_more_threads_than_asked_for_are_chosen(family: int) -> None:
    assert len(threads.busiest(threads.of(family), 2)) == 2


def test_all_processes_stand_still_on_record_until_they_go_on(family: int, own_journal: Path) -> None:
    with threads.Stopped(family) as stopped:
        assert [state(pid) for pid in threads.tree(family)] == ["T", "T"]
        notes = json.loads(own_journal.read_text())["notes"]
        assert notes == [["stopped", [[pid, journal.started(pid)] for pid in threads.tree(family)]]]
        stopped.go_on()
        assert eventually(lambda: all(state(pid) in "SR" for pid in threads.tree(family)))
        stopped.stop()
        stopped.stop()
        assert {state(pid) for pid in threads.tree(family)} == {"T"}
    assert eventually(lambda: all(state(pid) in "SR" for pid in threads.tree(family)))
    assert not own_journal.exists()


def test_what_ended_before_it_could_be_stopped_is_no_error() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    with threads.Stopped(process.pid):
        assert threads.tree(process.pid) == []
