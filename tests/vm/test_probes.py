"""Probes, operands and their undoing in real guests, on the oldest and the newest kernel."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import iced_x86
import numpy as np
import pytest

from loadgen.build import loop_library
from profiler.debuginfo.vmlinux import Vmlinux
from profiler.model import LOGGED_REGISTERS, ProbeHits
from profiler.parse import probe_hits
from profiler.target import Session, open_target
from tests.conftest import require
from tests.vm.kernels import kernel_of

pytestmark = pytest.mark.vm

LOOP, REPRO = "/whyerrno/loop.so", "/whyerrno/repro"
STATE, KILLED = "/whyerrno/tracing_state.py", "/whyerrno/killed_recorder.py"
BIND = {"syscall": "bind", "syscall_number": 49, "errno": "EADDRINUSE", "errno_number": 98}
FUNCTION = "__sys_bind"  # (fd, address, length): called for itself on every kernel
TIMES, SECONDS, SEED = 20, 1.5, 4

THREADS = """
import socket, threading, time
ends = time.monotonic() + 5
def fail(until):
    taken, other = socket.socket(), socket.socket()
    taken.bind(("127.0.0.1", 0))
    while time.monotonic() < until:
        try:
            other.bind(taken.getsockname())
        except OSError:
            time.sleep(0.001)
threading.Thread(target=fail, args=(ends,)).start()
fail(ends + 60)
"""

Answers = list[dict[str, Any]]
Record = Callable[..., tuple[Path, Answers]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    here = Path(__file__).parent
    found = {LOOP: loop_library(tmp_path_factory.mktemp("programs"))}
    return found | {STATE: here / "tracing_state.py", KILLED: here / "killed_recorder.py"}


@pytest.fixture(scope="module", params=["5.10", "7.3"])
def guest(request: pytest.FixtureRequest, files: dict[str, Path]) -> Iterator[tuple[str, Session]]:
    require(shutil.which("qemu-system-x86_64"), "no QEMU")
    kernel_of(request.param)
    with open_target(f"vm:{request.param}").session(files) as session:
        yield request.param, session


@pytest.fixture
def session(guest: tuple[str, Session]) -> Session:
    return guest[1]


@pytest.fixture
def record(session: Session, tmp_path: Path) -> Record:
    """Runs one job in the guest; its files, and what was answered to its orders."""

    def run(*orders: dict[str, object], **fields: object) -> tuple[Path, Answers]:
        given = {"scenario": "bind-eaddrinuse"} if "program" not in fields else {}
        job = {**BIND, **given, "seconds": 0, "frequency": 8000, "loop_library": session.path(LOOP)}
        write_job(session, tmp_path / "job.json", {**job, "kernel_text": False, "orders": orders, **fields})
        remote = f"{session.workdir}/{tmp_path.name}"
        argv = [session.python, "-m", "profiler.record", f"{session.workdir}/job.json", remote]
        completed = session.run(argv, timeout=120)
        assert completed.exit_code == 0, completed.output
        session.get(remote, tmp_path / "out")
        said = [json.loads(line) for line in completed.output.splitlines() if line.startswith("{")]
        return tmp_path / "out", [line for line in said if "answered" in line]

    return run


@pytest.fixture
def unchanged(session: Session) -> Iterator[None]:
    """All that a recorder may switch on is after the test as it was before."""
    before = tracing_state(session)
    yield
    assert tracing_state(session) == before


def write_job(session: Session, local: Path, job: dict[str, object]) -> None:
    local.write_text(json.dumps(job))
    session.put(local, f"{session.workdir}/job.json")


def tracing_state(session: Session) -> dict[str, Any]:
    completed = session.run([session.python, session.path(STATE)], timeout=60)
    found: dict[str, Any] = json.loads(completed.output)
    return found


def address_of(session: Session, function: str) -> int:
    completed = session.run(["grep", f" {function}$", "/proc/kallsyms"], timeout=60)
    return int(completed.output.split()[0], 16)


def instructions(version: str, start: int) -> dict[int, iced_x86.Instruction]:
    """Those of FUNCTION by their addresses in the guest."""
    path = kernel_of(version).vmlinux
    assert path is not None
    with Vmlinux(path) as vmlinux:
        (function,) = vmlinux.functions_named(FUNCTION)
        code = vmlinux.read(function.start, function.end - function.start)
    return {instruction.ip: instruction for instruction in iced_x86.Decoder(64, code, ip=start)}


def successors(code: dict[int, iced_x86.Instruction], address: int) -> set[int]:
    """Where execution may go on within the function; 0 for its end. A call comes back."""
    instruction = code[address]
    flow = iced_x86.FlowControl
    if instruction.flow_control == flow.RETURN:
        return {0}
    if instruction.flow_control in (flow.UNCONDITIONAL_BRANCH, flow.INDIRECT_BRANCH):
        target = instruction.near_branch_target
        return {target if target in code else 0}
    on = {instruction.next_ip} if instruction.next_ip in code else {0}
    if instruction.flow_control == flow.CONDITIONAL_BRANCH:
        on.add(instruction.near_branch_target)
    return on


def next_hits(code: dict[int, iced_x86.Instruction], address: int, refused: set[int]) -> set[int]:
    """As `successors`, through instructions that had no probe; such may be jumps that the kernel patches."""
    found: set[int] = set()
    passed: set[int] = set()
    ahead = successors(code, address)
    while ahead:
        place = ahead.pop()
        if place not in refused:
            found.add(place)
        elif place not in passed:
            passed.add(place)
            ahead |= successors(code, place) | {code[place].next_ip}
    return found


def read_hits(out: Path, number: int) -> ProbeHits:
    return probe_hits.read((out / f"probes-{number}.json").read_bytes(), (out / f"probes-{number}.bin").read_bytes())


def column(hits: ProbeHits, name: str, rows: np.ndarray[Any, Any]) -> set[int]:
    return {int(value) for value in hits.registers[rows, LOGGED_REGISTERS.index(name)]}


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("ours", [True, False])
def test_every_instruction_is_hit_in_order_with_the_registers_of_the_call(
    guest: tuple[str, Session], record: Record, ours: bool
) -> None:
    version, session = guest
    start = address_of(session, FUNCTION)
    code = instructions(version, start)
    probes = [{"address": start, "return": True}, *({"address": address} for address in code)]
    out, (answer,) = record({"do": "probes", "probes": probes, "seconds": 0.5, "rows": 2000, "ours": ours})
    assert answer["problem"] == ""
    hits = read_hits(out, 0)
    assert len(hits.address) == answer["hits"] > 500
    assert (hits.lost, hits.decode_errors) == (0, ())
    assert hits.attached | set(hits.refused) == set(code)
    assert len(hits.refused) < len(code) / 10

    entries = np.flatnonzero((hits.address == start) & ~hits.is_return)
    returns = np.flatnonzero(hits.is_return)
    assert len(entries) > 10
    assert column(hits, "rdx", entries) == {16}
    assert len(column(hits, "rdi", entries)) == 1
    assert {value & 0xFFFFFFFF for value in column(hits, "rax", returns)} == {(1 << 32) - 98}
    assert np.all(hits.time[1:] >= hits.time[:-1])
    refused = set(hits.refused)
    for row in range(len(hits.address) - 1):
        here, then = int(hits.address[row]), int(hits.address[row + 1])
        if hits.is_return[row]:
            assert then == start
        elif hits.is_return[row + 1]:
            assert 0 in next_hits(code, here, refused)
        else:
            assert then in next_hits(code, here, refused), f"{here - start:#x} then {then - start:#x}"


@pytest.mark.usefixtures("unchanged")
def test_what_the_kernel_refuses_is_told_and_the_rest_attached(record: Record, session: Session) -> None:
    start, blacklisted = address_of(session, FUNCTION), address_of(session, "exc_int3")
    probes = [{"address": address} for address in (start, start + 1, blacklisted)]
    out, (answer,) = record({"do": "probes", "probes": probes, "seconds": 0.2, "rows": 50, "ours": True})
    assert answer["refused"] == 2
    hits = read_hits(out, 0)
    assert set(hits.refused) == {start + 1, blacklisted}
    assert all(hits.refused.values())
    assert set(hits.address) == {start}


@pytest.mark.usefixtures("unchanged")
def test_a_thread_may_end_while_it_is_probed(record: Record, session: Session) -> None:
    start = address_of(session, FUNCTION)
    order = {"do": "probes", "probes": [{"address": start}], "seconds": 4.0, "rows": 20000, "ours": True}
    out, answers = record(order, order, program=[session.python, "-c", THREADS])
    assert [answer["problem"] for answer in answers] == ["", ""]
    hits = read_hits(out, 1)
    threads = json.loads((out / "probes-1.json").read_text())["threads"]
    assert len(threads) == 2
    assert set(hits.thread) == set(threads)
    last = {int(thread): int(hits.time[hits.thread == thread].max()) for thread in set(hits.thread)}
    assert abs(last[threads[0]] - last[threads[1]]) > 1e8  # one ended long before the other


@pytest.mark.usefixtures("unchanged")
def test_operands_are_fetched_and_what_is_refused_is_told_in_the_kernels_words(
    record: Record, session: Session
) -> None:
    start = address_of(session, FUNCTION)
    entry = {"fd": "%di:s32", "length": "%dx:s32", "wrong": "%zz:u64", "family": "+u0(%si):u16", "name": "$comm"}
    points = [
        {"address": start, "fetch": entry},
        {"address": start, "return": True, "fetch": {"result": "$retval:s32"}},
        {"address": start + 1, "fetch": {"fd": "%di"}},
    ]
    out, (answer,) = record({"do": "operands", "points": points, "seconds": 0.5, "hits": 5, "ours": True})
    assert (answer["problem"], answer["hits"], answer["refused"]) == ("", 10, 2)
    got = json.loads((out / "operands-0.json").read_text())
    assert [hit["point"] for hit in got["hits"]] == [0, 1] * 5
    for hit in got["hits"][::2]:
        expected = {"fd": hit["values"]["fd"], "length": 16, "family": 2, "name": "whyerrno-load"}
        assert hit["values"] == expected
    assert {json.dumps(hit["values"]) for hit in got["hits"][1::2]} == {'{"result": -98}'}
    assert [(error["name"], error["says"]) for error in got["errors"]] == [
        ("wrong", "Invalid register name"),
        ("", "Probe point is not an instruction boundary"),
    ]


@pytest.mark.usefixtures("unchanged")
def test_probes_and_instances_of_others_are_left_alone(record: Record, session: Session) -> None:
    make = (
        "cd /sys/kernel/tracing; mkdir instances/theirs; echo 'p:theirs/q vfs_fsync' >>kprobe_events; cat kprobe_events"
    )
    theirs = session.run(["sh", "-c", make], timeout=60).output
    point = {"address": address_of(session, FUNCTION), "fetch": {"fd": "%di"}}
    _, (answer,) = record({"do": "operands", "points": [point], "ours": True})
    assert answer["problem"] == ""
    look = "cd /sys/kernel/tracing; ls instances; cat kprobe_events; rmdir instances/theirs; "
    look += "echo '-:theirs/q' >>kprobe_events"
    assert session.run(["sh", "-c", look], timeout=60).output == f"theirs\n{theirs}"


def test_a_recorder_killed_at_any_moment_leaves_tracing_as_it_was_after_the_next_start(
    guest: tuple[str, Session], tmp_path: Path
) -> None:
    version, session = guest
    start = address_of(session, FUNCTION)
    code = instructions(version, start)
    orders = [
        {"do": "graph", "function": "__x64_sys_bind", "calls": 8, "functions": ["__x64_sys_bind", FUNCTION]},
        {"do": "probes", "probes": [{"address": address} for address in code], "rows": 2000, "ours": True},
        {"do": "operands", "points": [{"address": start, "fetch": {"fd": "%di:s32"}}], "ours": True},
    ]
    job = {**BIND, "scenario": "bind-eaddrinuse", "seconds": 0, "frequency": 8000, "kernel_text": False}
    write_job(session, tmp_path / "job.json", {**job, "loop_library": session.path(LOOP), "orders": orders * 5})
    where = f"{session.workdir}/killed"
    argv = [session.path(KILLED), f"{session.workdir}/job.json", where, str(TIMES), str(SECONDS), str(SEED)]
    completed = session.run([session.python, *argv], timeout=400)
    assert completed.exit_code == 0, completed.output
    times = [json.loads(line) for line in completed.output.splitlines() if line.startswith("{")]
    assert len(times) == TIMES
    assert [time for time in times if time["problems"] or time["differs"]] == []
    assert len({(time["first"], time["doing"]) for time in times}) > 3  # they fell into several phases
