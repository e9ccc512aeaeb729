"""In real guests: the operands of conditions whose values are known, since the scenarios choose them."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from loadgen.build import loop_library
from loadgen.scenarios import SCENARIOS
from profiler import lab
from profiler.conclude import operands
from profiler.conclude.sources import Sources, condition_text
from profiler.debuginfo.code import KernelCode
from profiler.debuginfo.lines import LineTable
from profiler.debuginfo.source import SourceTree
from profiler.debuginfo.vmlinux import Vmlinux
from profiler.model import Branch, Kernel
from profiler.request import errno_number
from profiler.syscalls import NUMBERS
from profiler.target import Session, open_target
from tests import truth
from tests.conftest import require
from tests.vm.kernels import VERSIONS, kernel_of

pytestmark = pytest.mark.vm

LOOP = "/whyerrno/loop.so"


@dataclass(frozen=True)
class Case:
    """A kernel's code and source, and a guest that runs it."""

    kernel: Kernel
    code: KernelCode
    source: SourceTree
    session: Session


@pytest.fixture(scope="module", params=VERSIONS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    require(shutil.which("qemu-system-x86_64"), "no QEMU")
    kernel = kernel_of(request.param)
    assert kernel.vmlinux is not None
    require(kernel.source, "no kernel source here")
    assert kernel.source is not None
    image = Vmlinux(kernel.vmlinux)
    code = KernelCode(image, LineTable.open(image, cache_dir=lab.cache_directory() / "symcache"))
    files = {LOOP: loop_library(tmp_path_factory.mktemp("loop"))}
    with open_target(f"vm:{request.param}").session(files) as session:
        yield Case(kernel, code, SourceTree(kernel.source), session)


def plans(case: Case, scenario: str) -> list[operands.Plan]:
    """For each conditional jump on the lines of the true condition."""
    true = truth.load(scenario)[case.kernel.package_version].branches[0]
    place = true.place
    flow = Sources(case.source).flow(place.function, place.file, place.line)
    assert flow is not None
    node = next(n for n in flow.nodes if n.kind == "condition" and place.line <= n.first_line <= place.line_end)
    branch = Branch(place.function, place.file, place.line, "", condition_text(node), true.outcome)
    found = []
    for owner in case.code.vmlinux.functions_named(place.function):
        for block in case.code.graph(owner.start).blocks.values():
            lines = {f.line for f in case.code.frames(block.last) if f.function == place.function}
            if len(block.edges) > 1 and any(place.line <= line <= place.line_end for line in lines):
                planned = operands.plan(case.code, branch, block.last, case.source)
                found += [planned] if planned is not None else []
    return found


def captured(case: Case, tmp_path: Path, scenario: str) -> list[Branch]:
    """With the values that probes in the guest read."""
    planned = plans(case, scenario)
    points = [(plan, point) for plan in planned for point in plan.points(0)]
    what = SCENARIOS[scenario]
    order = {
        "do": "operands",
        "points": [{"address": p.address, "fetch": p.fetch} for _, p in points],
        "seconds": 3,
        "hits": 8,
        "ours": True,
    }
    job = {
        "syscall": what.syscall,
        "syscall_number": NUMBERS["x86_64"][what.syscall],
        "errno": what.errno,
        "errno_number": errno_number(what.errno),
        "scenario": scenario,
        "seconds": 0,
        "frequency": 8000,
        "loop_library": case.session.path(LOOP),
        "kernel_text": False,
        "orders": [order],
    }
    (tmp_path / "job.json").write_text(json.dumps(job))
    case.session.put(tmp_path / "job.json", f"{case.session.workdir}/job.json")
    remote = f"{case.session.workdir}/{tmp_path.name}"
    argv = [case.session.python, "-m", "profiler.record", f"{case.session.workdir}/job.json", remote]
    completed = case.session.run(argv, timeout=180)
    assert completed.exit_code == 0, completed.output
    case.session.get(remote, tmp_path / "out")
    found = json.loads((tmp_path / "out" / "operands-0.json").read_text())
    assert not found["errors"]
    return [
        operands.with_values(plan, [plan.known(hit["values"]) for hit in found["hits"] if hit["point"] == index])
        for index, (plan, _) in enumerate(points)
    ]


@pytest.mark.parametrize(
    ("scenario", "expected"),
    [
        ("prlimit64-einval", {"new_rlim->rlim_cur": "64", "new_rlim->rlim_max": "32"}),  # in memory behind a pointer
        ("futex-eagain", {"uval": "1"}),  # on the stack
        ("socket-eafnosupport", {"family": "255"}),  # in a register
        ("accept4-einval", {"sk->sk_state": "7"}),  # a macro stands for the member; TCP_CLOSE
        ("write-ebadf", {}),  # flags, whose other bits differ from version to version
    ],
)
def test_probes_read_what_the_condition_compared(
    case: Case, tmp_path: Path, scenario: str, expected: dict[str, str]
) -> None:
    branches = [branch for branch in captured(case, tmp_path, scenario) if branch.operands]
    assert branches
    for branch in branches:
        values = {operand.expression: operand.value for operand in branch.operands}
        assert {name: values[name] for name in expected} == expected
        assert all(f"{name} ({value})" in branch.values for name, value in values.items())
        if scenario == "write-ebadf":
            mode = next(o.number for o in branch.operands if o.expression == "file->f_mode")
            assert mode is not None
            assert mode & 3 == 1  # FMODE_READ without FMODE_WRITE
