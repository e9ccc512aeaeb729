"""The function graph tracer in real guests: what calls went through, and everything in tracefs as it was."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from loadgen.build import loop_library
from profiler.debuginfo.trace_sites import chosen
from profiler.debuginfo.vmlinux import Vmlinux
from profiler.model import Kernel
from profiler.parse.function_graph import CallTree, calls, read
from profiler.target import Session, open_target
from tests.conftest import require
from tests.truth import load
from tests.vm.kernels import kernel_of

pytestmark = pytest.mark.vm

LOOP = "/whyerrno/loop.so"
ENTRY = "__x64_sys_bind"
BIND = {"syscall": "bind", "syscall_number": 49, "errno": "EADDRINUSE", "errno_number": 98}
CHDIR = {"syscall": "chdir", "syscall_number": 80, "errno": "ENOENT", "errno_number": 2}
# Two threads' worth of children that fail, one that comes and goes, and one that succeeds.
PROGRAM = "(while :; do cd /nonexistent; done) & (while :; do cd /; done) & while :; do (cd /nonexistent); done"
Orders = Callable[..., "Answered"]

# Everything in tracefs that a tracer could leave changed, as JSON.
STATE = """
import glob, json, os
root = "/sys/kernel/tracing"
if not os.path.isdir(root + "/instances"):
    os.system("mount -t tracefs nodev " + root)
names = ["current_tracer", "tracing_on", "set_ftrace_pid", "set_event_pid", "set_event", "set_graph_function",
         "set_ftrace_filter", "set_ftrace_notrace", "set_graph_notrace", "max_graph_depth", "tracing_thresh",
         "kprobe_events", "enabled_functions", "trace_clock", "trace_options"]
paths = [root + "/" + name for name in names] + glob.glob(root + "/options/*")
found = {path: open(path).read() for path in paths if os.path.exists(path)}
found["instances"] = os.listdir(root + "/instances")
found["journals"] = glob.glob("/run/whyerrno/*")
found["enabled"] = open("/proc/sys/kernel/ftrace_enabled").read()
found["size"] = int(open(root + "/buffer_size_kb").read().split()[-1].strip(")")) // 16  # a page more or less
print("STATE" + json.dumps(found))
"""


class Answered:
    """What a recorder said of its orders, and what they yielded."""

    def __init__(self, out: Path, lines: list[dict[str, Any]]) -> None:
        self.out = out
        self.said = [line for line in lines if "answered" in line]

    def report(self, number: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.out / f"graph-{number}.json").read_text())
        return found

    def trees(self, number: int = 0, entry: str = ENTRY) -> list[CallTree]:
        graph = read(self.out / f"graph-{number}.txt")
        assert graph.decode_errors == ()
        return calls(graph, entry)


@pytest.fixture(scope="module", params=["5.10", "7.3"])  # without function_graph in instances, and with
def kernel(request: pytest.FixtureRequest) -> Kernel:
    require(shutil.which("qemu-system-x86_64"), "no QEMU")
    return kernel_of(request.param)


@pytest.fixture(scope="module")
def session(kernel: Kernel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    files = {LOOP: loop_library(tmp_path_factory.mktemp("programs"))}
    with open_target(f"vm:{kernel.package_version}").session(files) as booted:
        yield booted


@pytest.fixture
def carry_out(session: Session, tmp_path: Path) -> Orders:
    """Has the recorder carry orders out on a load, without samples."""

    def run(*orders: dict[str, object], **fields: object) -> Answered:
        job = {"seconds": 0, "frequency": 1000, "kernel_text": False, "loop_library": session.path(LOOP)}
        job |= {"orders": list(orders), **(fields or {**BIND, "scenario": "bind-eaddrinuse"})}
        (tmp_path / "job.json").write_text(json.dumps(job))
        session.put(tmp_path / "job.json", f"{session.workdir}/job.json")
        remote = f"{session.workdir}/{tmp_path.name}"
        completed = session.run(
            [session.python, "-m", "profiler.record", f"{session.workdir}/job.json", remote], timeout=240
        )
        assert completed.exit_code == 0, completed.output
        session.get(remote, tmp_path / "out")
        lines = [json.loads(line) for line in completed.output.splitlines() if line.startswith("{")]
        return Answered(tmp_path / "out", lines)

    return run


def state(session: Session) -> dict[str, Any]:
    completed = session.run([session.python, "-c", STATE], timeout=60)
    line = next(line for line in completed.output.splitlines() if line.startswith("STATE"))
    found: dict[str, Any] = json.loads(line[5:])
    return found


def shell(session: Session, script: str) -> None:
    completed = session.run(["/bin/sh", "-c", script], timeout=120)
    assert completed.exit_code == 0, completed.output


def test_failing_and_succeeding_calls_are_traced_and_everything_is_put_back(
    kernel: Kernel, session: Session, carry_out: Orders
) -> None:
    """The function that the truth names is among those called, and results are told by value."""
    before = state(session)
    order = {"do": "graph", "function": ENTRY, "calls": 16}
    answered = carry_out(order, {**order, "variant": "succeeding"})
    assert [said["problem"] for said in answered.said] == ["", ""]
    assert state(session) == before
    failing, succeeding = answered.trees(0), answered.trees(1)
    assert len(failing) >= 16
    assert len(succeeding) >= 16
    assert {tree.result for tree in failing} == {-98}
    assert {tree.result for tree in succeeding} == {0}
    functions = {function for _, function in failing[0].functions()}
    truth = load("bind-eaddrinuse")[kernel.package_version]
    assert (truth.root or truth.sites[0]).function in functions
    assert answered.report()["lost"] == 0
    assert answered.report()["results_by"] == "sys_exit"


def test_only_the_functions_asked_for_are_traced(session: Session, carry_out: Orders) -> None:
    before = state(session)
    wanted = ["__sys_bind", "inet_bind", "inet_csk_get_port", "no_such_function"]
    answered = carry_out({"do": "graph", "function": ENTRY, "calls": 8, "functions": wanted})
    assert answered.said[0]["problem"] == ""
    assert answered.said[0]["seconds"] < 10
    assert state(session) == before
    tree = answered.trees()[0]
    assert {name for _, name in tree.functions()} == {ENTRY, "__sys_bind", "inet_bind", "inet_csk_get_port"}
    assert answered.report()["limited_to"] == sorted({ENTRY, *wanted} - {"no_such_function"})


def test_functions_are_found_by_their_places_in_the_image(kernel: Kernel, session: Session, carry_out: Orders) -> None:
    """In less time than by their names; and places that are another kernel's are not believed."""
    assert kernel.vmlinux is not None
    before = state(session)
    with Vmlinux(kernel.vmlinux) as vmlinux:
        functions, sites = chosen(vmlinux, [ENTRY, "__sys_bind", "inet_bind", "inet_csk_get_port", "no_such_function"])
    assert functions == sorted([ENTRY, "__sys_bind", "inet_bind", "inet_csk_get_port"])
    order = {"do": "graph", "function": ENTRY, "calls": 8, "functions": functions}
    answered = carry_out(order, {**order, "sites": sites}, {**order, "sites": [site + 1 for site in sites]})
    assert [said["problem"] for said in answered.said] == ["", "", ""]
    assert state(session) == before
    for number in range(3):
        assert answered.report(number)["limited_to"] == functions
        assert {name for _, name in answered.trees(number)[0].functions()} == set(functions)
    named, placed, _ = (answered.report(number)["seconds"]["on"] for number in range(3))
    assert placed < named / 2


def test_the_children_of_a_program_are_traced_and_told_apart_by_result(session: Session, carry_out: Orders) -> None:
    """Those too that start and end meanwhile."""
    before = state(session)
    entry = "__x64_sys_chdir"
    order = {"do": "graph", "function": entry, "calls": 400, "seconds": 2.0}
    answered = carry_out(order, **CHDIR, program=["/bin/sh", "-c", PROGRAM + " 2>/dev/null"])
    assert answered.said[0]["problem"] == ""
    assert state(session) == before
    trees = answered.trees(entry=entry)
    results = {tree.result for tree in trees if tree.told_by}
    assert {0, -2} <= results
    assert len({tree.thread for tree in trees}) >= 3


def test_another_tracer_is_named_and_left_alone(session: Session, carry_out: Orders) -> None:
    tracing = "/sys/kernel/tracing"
    shell(session, f"cd {tracing} && echo 1 > tracing_on && echo schedule_timeout > set_ftrace_filter")
    shell(session, f"cd {tracing} && echo function > current_tracer")
    try:
        before = state(session)
        answered = carry_out({"do": "graph", "function": ENTRY})
        assert "another tracer is active, and was left alone: function in " in answered.said[0]["problem"]
        assert "nop" in answered.said[0]["hint"]
        assert state(session) == before
    finally:
        shell(session, f"cd {tracing} && echo nop > current_tracer && echo > set_ftrace_filter")


def test_a_kernel_told_not_to_trace_functions_is_not_made_to(session: Session, carry_out: Orders) -> None:
    """7.3 does not let itself be told: there the case cannot arise."""
    shell(session, "echo 0 > /proc/sys/kernel/ftrace_enabled || true")
    if state(session)["enabled"] != "0\n":
        return
    try:
        before = state(session)
        answered = carry_out({"do": "graph", "function": ENTRY})
        assert "ftrace_enabled" in answered.said[0]["problem"]
        assert answered.said[0]["hint"] == "sysctl kernel.ftrace_enabled=1"
        assert state(session) == before
    finally:
        shell(session, "echo 1 > /proc/sys/kernel/ftrace_enabled")


def test_an_entry_that_cannot_be_traced_is_said_and_its_caller_taken(session: Session, carry_out: Orders) -> None:
    before = state(session)
    answered = carry_out({"do": "graph", "function": "__x64_sys_no_such_call", "calls": 4, "seconds": 0.1})
    assert state(session) == before
    said = answered.said[0]
    assert said["problem"] == ""
    assert any("__x64_sys_no_such_call" in warning for warning in said["warnings"])
    text = (answered.out / "graph-0.txt").read_text()
    assert f" {ENTRY}() {{" in text
