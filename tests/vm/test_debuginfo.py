"""Debug information of real kernels: lines against other readers, source flow over whole folders of the source."""

from __future__ import annotations

import posixpath
import random
import shutil
import subprocess
from collections import Counter
from functools import cache

import drgn
import numpy as np
import pytest

from profiler.debuginfo.c_functions import SourceFile
from profiler.debuginfo.c_preprocessor import Config, read_config
from profiler.debuginfo.lines import DEBIAN_BUILD, Frames, LineTable
from profiler.debuginfo.source import SourceTree
from profiler.debuginfo.source_flow import FlowNode, SourceFlow, flow_in
from profiler.debuginfo.vmlinux import Vmlinux
from profiler.model import Kernel
from tests.conftest import require
from tests.vm.kernels import VERSIONS, kernel_of

ADDRESSES = 3000
pytestmark = pytest.mark.parametrize("version", VERSIONS)


def cached_kernel(version: str) -> tuple[Kernel, Vmlinux, SourceTree]:
    found = kernel_of(version)
    assert found.vmlinux is not None
    assert found.source is not None
    return found, Vmlinux(found.vmlinux), SourceTree(found.source)


def random_addresses(vmlinux: Vmlinux) -> list[int]:
    """Addresses within functions of the kernel's text that come from C."""
    chosen = random.Random(1)
    start, end = vmlinux.text_range
    functions = [f for f in map(vmlinux.functions.__getitem__, range(len(vmlinux.functions))) if start <= f.start < end]
    picked = chosen.choices(functions, k=ADDRESSES)
    return [chosen.randrange(function.start, function.end) for function in picked]


def places(frames: Frames) -> list[tuple[str, int]]:
    return [(frame.file, frame.line) for frame in frames]


def relative(path: str) -> str:
    normal = posixpath.normpath(path) if path else ""
    match = DEBIAN_BUILD.match(normal)
    assert match is not None
    return normal[match.end() :]


def test_the_image_is_the_packages_and_has_its_landmarks(version: str) -> None:
    found, vmlinux, tree = cached_kernel(version)
    vmlinux.check_build_id(found.build_id)
    tree.check_version(found.release, found.package_version)
    start, end = vmlinux.text_range
    assert all(vmlinux.function_at(address) for address in list(vmlinux.jump_table())[:500] if start <= address < end)
    assert len(vmlinux.exception_table()) > 300
    assert vmlinux.functions_named("__x64_sys_bind")
    rows = vmlinux.functions.rows_of(vmlinux.functions.start)
    assert np.array_equal(rows, np.arange(len(vmlinux.functions)))


def test_chains_are_those_of_drgn(version: str) -> None:
    """The same files and lines on every frame; symbolic loses the innermost one of very few chains (__tty_fasync)."""
    _, vmlinux, _ = cached_kernel(version)
    lines = LineTable.open(vmlinux)
    program = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    module = program.extra_module("vmlinux", create=True)
    module.address_ranges = [(vmlinux.symbol_address("_text"), vmlinux.symbol_address("_end"))]
    module.try_file(str(vmlinux.path), force=True)
    differing = []
    for address in random_addresses(vmlinux):
        ours = lines.frames(address)
        if ours and ours[-1].file.endswith(".rs"):
            continue  # drgn gives only the innermost frame of Rust
        try:
            theirs = [(relative(frame.filename), frame.line) for frame in program.source_location(address)]
        except LookupError:
            theirs = [("", 0)]
        if places(ours) != theirs:
            differing.append((hex(address), ours, theirs))
    print(f"\n{version}: {len(differing)} of {ADDRESSES} differ from drgn", *differing[:5], sep="\n  ")
    assert len(differing) <= ADDRESSES / 500


def test_chains_are_those_of_llvm(version: str) -> None:
    require(shutil.which("llvm-symbolizer"), "no llvm-symbolizer; apt install llvm")
    _, vmlinux, _ = cached_kernel(version)
    lines = LineTable.open(vmlinux)
    addresses = random_addresses(vmlinux)
    command = ["llvm-symbolizer", f"--obj={vmlinux.path}", "--no-demangle", "--output-style=LLVM"]
    wanted = "".join(f"{address:#x}\n" for address in addresses)
    printed = subprocess.run(command, input=wanted, capture_output=True, text=True, timeout=300, check=True).stdout
    answers = [_llvm_frames(answer) for answer in printed.strip().split("\n\n")]
    assert len(answers) == len(addresses)
    differing = []
    for address, theirs in zip(addresses, answers, strict=True):
        ours = lines.frames(address)
        if ours and ours[-1].file.endswith(".c") and places(ours) != theirs:
            differing.append((hex(address), ours, theirs))
    print(f"\n{version}: {len(differing)} of {ADDRESSES} differ from llvm", *differing[:5], sep="\n  ")
    assert len(differing) <= ADDRESSES / 500


def _llvm_frames(answer: str) -> list[tuple[str, int]]:
    """function and place on lines that take turns; a place is /build/net/socket.c:1863:9"""
    frames = []
    for place in answer.strip().split("\n")[1::2]:
        file, line, _ = place.rsplit(":", 2)
        frames.append((relative(file).replace("??", ""), int(line)))
    return frames


@cache
def sweep(version: str, folder: str) -> Counter[str]:
    """What the flows of all functions of a folder's C files are like."""
    found, _, tree = cached_kernel(version)
    config: Config | None = read_config(found.config.read_text()) if found.config else None
    counts: Counter[str] = Counter()
    for path in sorted((tree.root / folder).glob("*.c")):
        source = SourceFile(tree.text(str(path.relative_to(tree.root))) or [], config)
        for function in source.functions:
            graph = flow_in(source, function.name, function.first_line)
            assert graph is not None
            counts.update(faults(graph))
            counts["functions"] += 1
    return counts


def faults(graph: SourceFlow) -> list[str]:
    found = []
    if graph.parse_errors:
        found.append("not parsed whole")
    if graph.exit not in graph.reachable:
        found.append("never returns")
    if any(n.index not in graph.reachable for n in graph.nodes if n.index != graph.exit):
        found.append("with dead code")
    assert all(graph.first_line <= n.first_line <= n.last_line <= graph.last_line for n in graph.nodes)
    assert all(n.whole and {e.outcome for e in graph.leaving(n)} >= {True, False} for n in graph.nodes if _decides(n))
    return found


def _decides(node: FlowNode) -> bool:
    return node.kind == "condition" and node.whole is not None and node.whole.statement != "?:"


@pytest.mark.parametrize("folder", ["fs", "mm", "kernel", "net/ipv4"])
def test_functions_of_whole_folders_have_a_sound_flow(version: str, folder: str) -> None:
    """At most 1.5% are not parsed whole, never return (panic and the like), or hold code that no path reaches."""
    counts = sweep(version, folder)
    print(f"\n{version} {folder}: {dict(counts)}")
    assert counts["functions"] > 500
    assert counts["not parsed whole"] <= 0.015 * counts["functions"]
    assert counts["never returns"] <= 0.015 * counts["functions"]
    assert counts["with dead code"] <= 0.03 * counts["functions"]


NAMED = [
    ("net/ipv4/tcp_ipv4.c", "tcp_v4_connect", "EAFNOSUPPORT"),
    ("net/ipv4/af_inet.c", "__inet_bind", "EADDRNOTAVAIL"),
    ("fs/eventpoll.c", "do_epoll_ctl", "EBADF"),
    ("fs/timerfd.c", "do_timerfd_settime", "EINVAL"),
    ("fs/fcntl.c", "__x64_sys_fcntl", "EBADF"),
    ("fs/read_write.c", "vfs_copy_file_range", "EINVAL"),
    ("fs/namespace.c", "path_mount", "EPERM"),
    ("fs/namei.c", "path_openat", "EINVAL"),
    ("mm/mmap.c", "do_mmap", "ENOMEM"),
    ("mm/mlock.c", "do_mlock", "ENOMEM"),
    ("mm/madvise.c", "do_madvise", "EINVAL"),
    ("kernel/fork.c", "copy_process", "EINVAL"),
    ("kernel/sys.c", "__se_sys_prctl", "EINVAL"),
    ("io_uring/io_uring.c", "io_uring_create", "ENOMEM"),
    ("security/keys/keyctl.c", "__x64_sys_keyctl", "EINVAL"),
]


def test_well_known_functions_name_their_errnos(version: str) -> None:
    """Each is found under its symbol, parsed whole, and names its errno in a statement that a path reaches."""
    _, _, tree = cached_kernel(version)
    for file, name, errno in NAMED:
        lines = tree.text(file)
        graph = flow_in(SourceFile(lines), name) if lines else None
        if version == "5.10" and graph is None:  # of another name or file in this version
            continue
        assert graph is not None, name
        assert graph.parse_errors == 0, name
        assert any(errno in node.errnos for node in graph.nodes if node.index in graph.reachable), name
