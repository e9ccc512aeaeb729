"""Control-flow graphs over whole kernels: every sixtieth function of four for x86-64 and of one for arm64."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from profiler.debuginfo.code import KernelCode
from profiler.debuginfo.lines import LineTable
from profiler.debuginfo.source import SourceTree
from profiler.debuginfo.vmlinux import Vmlinux
from profiler.graph import EdgeKind, FunctionGraph
from profiler.infer.slice import CallValue, Held, Origin, OriginKind, Slicer, State
from tests.vm.arm64_kernel import arm64_vmlinux
from tests.vm.graphs import code_of, functions_of, sweep
from tests.vm.kernels import VERSIONS, kernel_of

EVERY = 60
ARM64 = "6.1"


def image_of(version: str) -> Path:
    if version == "arm64":
        return arm64_vmlinux(ARM64)[0]
    found = kernel_of(version).vmlinux
    assert found is not None
    return found


@pytest.mark.parametrize("version", [*VERSIONS, "arm64"])
def test_every_function_has_a_graph_without_holes(version: str) -> None:
    """All decodes, no edge is lost, no two blocks overlap; what no jump leads to is less than 1 byte in 500.

    The remainder is assembly that something else jumps into (entry code) and code that is there for alternatives.
    """
    counts = sweep(code_of(image_of(version)), EVERY)
    print(f"\n{version}:", dict(counts))
    assert counts["functions"] > 500
    assert counts["undecoded"] == counts["lost_edges"] == counts["overlaps"] == counts["out_of_text"] == 0
    assert counts["calls_of_return_thunks"] == 0
    assert counts["unreached"] < counts["bytes"] / 500


@pytest.mark.parametrize("version", [*VERSIONS, "arm64"])
def test_the_bug_table_tells_warnings_from_bugs(version: str) -> None:
    image = Vmlinux(image_of(version))
    warnings = image.warnings()
    assert warnings is not None
    assert len(warnings) > 1000
    placed = [image.function_at(address) is not None for address in sorted(warnings)[::20]]
    assert sum(placed) > 0.95 * len(placed)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_interpreters_table_of_bpf_instructions_is_followed(version: str) -> None:
    """A computed goto through a retpoline: the one jump table of a kernel that is built without them."""
    code = code_of(image_of(version))
    (function,) = code.vmlinux.functions_named("___bpf_prog_run")
    widest = max(len(block.edges) for block in code.graph(function.start).blocks.values())
    assert widest > 80


# ---- AArch64 ----


@cache
def arm64() -> tuple[KernelCode, SourceTree]:
    path, sibling = arm64_vmlinux(ARM64)
    assert sibling.source is not None
    image = Vmlinux(path)
    return KernelCode(image, LineTable.open(image)), SourceTree(sibling.source)


def constants_returned(graph: FunctionGraph, errno: int) -> set[int]:
    """Addresses of the instructions that load -errno into what some walk returns."""
    slicer = Slicer(graph, errno, lambda block: CallValue(-1.0, -1.0))
    before: dict[int, list[int]] = {}
    for start, block in graph.blocks.items():
        for edge in block.edges:
            before.setdefault(edge.target, []).append(start)
    found: set[int] = set()
    seen: set[tuple[int, State]] = set()
    pending: list[tuple[int, State]] = [
        (start, state) for start, block in graph.blocks.items() if block.returns for state, _ in slicer.at_exit(block)
    ]
    while pending:
        start, state = pending.pop()
        if (start, state) in seen:
            continue
        seen.add((start, state))
        if isinstance(state, Origin) and state.kind == OriginKind.CONSTANT:
            found.add(state.address)
        elif isinstance(state, Held):
            for source in before.get(start, []):
                pending += [(source, earlier) for earlier, _ in slicer.through(graph.blocks[source], state)]
    return found


def spells(code: KernelCode, source: SourceTree, address: int, name: str) -> bool:
    """Whether a source line of the instruction, in the function itself or around an inlined one, names the errno."""
    for frame in code.frames(address):
        text = source.text(frame.file) or []
        if 0 < frame.line <= len(text) and f"-{name}" in text[frame.line - 1]:
            return True
    return False


@pytest.mark.parametrize(
    ("function", "errno", "name", "sites"),
    [
        ("ksys_dup3", 22, "EINVAL", 1),
        ("copy_process", 22, "EINVAL", 1),
        ("do_renameat2", 22, "EINVAL", 4),
        ("__arm64_sys_timerfd_create", 22, "EINVAL", 1),
        ("__arm64_sys_setrlimit", 14, "EFAULT", 1),
    ],
)
def test_constants_that_reach_x0_stand_on_the_lines_of_the_returns(
    function: str, errno: int, name: str, sites: int
) -> None:
    code, source = arm64()
    (found, *_) = code.vmlinux.functions_named(function)
    addresses = constants_returned(code.graph(found.start), errno)
    assert len(addresses) == sites
    assert all(spells(code, source, address, name) for address in addresses)


def test_most_constants_stand_on_a_line_that_spells_the_errno() -> None:
    """Not all: compilers load a constant early, or merge the ends of functions. On x86-64 it is four of five too."""
    code, source = arm64()
    found = [
        spells(code, source, address, "EINVAL")
        for function in functions_of(code, 2 * EVERY)
        for address in constants_returned(code.graph(function.start), 22)
    ]
    print(f"\n{sum(found)} of {len(found)}")
    assert len(found) > 30
    assert sum(found) > 0.7 * len(found)


def test_the_switch_of_prctl_is_a_jump_table() -> None:
    code, _ = arm64()
    (function,) = code.vmlinux.functions_named("__arm64_sys_prctl")
    graph = code.graph(function.start)
    tables = [block for block in graph.blocks.values() if len(block.edges) > 10]
    assert tables
    assert all(edge.kind == EdgeKind.JUMP for block in tables for edge in block.edges)
