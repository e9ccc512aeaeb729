"""The source rung: every place that can produce an errno, for a kernel whose parts lie on this machine."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path

from profiler import lab
from profiler.conclude import source_candidates
from profiler.conclude.analysis import ENTRY_NAMES
from profiler.conclude.kernel_sources import KernelSources
from profiler.debuginfo.c_preprocessor import read_config
from profiler.debuginfo.lines import LineTable
from profiler.debuginfo.source import SourceTree
from profiler.debuginfo.source_index import FORMAT, SourceIndex
from profiler.debuginfo.vmlinux import Vmlinux
from profiler.errors import MissingError
from profiler.model import Kernel, SourceList

# Where the code of system calls lies; what is read where no debug info says which files were compiled.
CORE = ("block", "crypto", "fs", "init", "io_uring", "ipc", "kernel", "lib", "mm", "net", "security", "virt")
ARCHES = {"x86_64": "arch/x86", "aarch64": "arch/arm64"}
_SOURCE_FILE = re.compile(rb"[\w./+,-]*/[\w+,-]+\.c\0")


def source_half(
    kernel: Kernel, syscall: str, errno: str, *, modules: Collection[str] = (), ran: Collection[str] | None = None
) -> SourceList:
    """Every place in the call tree of `syscall` that can produce `errno`, those nearest to the entry first.

    `modules`: names of kernel modules whose functions count too. `ran`: functions that ran, where that is known.
    The first time for a kernel its sources are indexed, which takes some seconds.
    Raises MissingError where the kernel has no source tree here, MismatchError where it is another version's.
    """
    sources = open_sources(kernel, modules)
    return source_candidates.candidates(sources, ENTRY_NAMES.get(syscall, syscall), errno, ran=ran)


def open_sources(kernel: Kernel, modules: Collection[str] = ()) -> KernelSources:
    """The kernel's source tree with its index. Raises as `source_half`."""
    if kernel.source is None:
        raise MissingError(
            f"no source tree of {kernel.release or 'this kernel'} on this machine",
            hint="name a fetched kernel, such as `--kernel 6.1`, or a build tree",
        )
    tree = SourceTree(kernel.source)
    if kernel.release:
        tree.check_version(kernel.release, kernel.package_version)
    config = None
    if kernel.config is not None and kernel.config.is_file():
        config = read_config(kernel.config.read_text(encoding="utf-8", errors="replace"))
    index = SourceIndex.open(_cache_file(kernel), tree, lambda: _built_files(kernel, tree))
    paths = [lab.find_module(kernel, name) for name in modules]
    asked = {file for path in paths if path is not None for file in _files_of_module(path, tree)}
    index.add(asked)
    return KernelSources(tree, index, config, asked)


def _cache_file(kernel: Kernel) -> Path | None:
    name = kernel.build_id or kernel.package_version
    return lab.cache_directory() / "sources" / f"{name}-{FORMAT}.sqlite" if name else None


def _built_files(kernel: Kernel, tree: SourceTree) -> set[str]:
    """The C files that the kernel image was made of, by its debug info; else all of the folders of system calls."""
    if kernel.vmlinux is not None and kernel.vmlinux.is_file():
        with Vmlinux(kernel.vmlinux) as image:
            lines = LineTable.open(image, cache_dir=lab.cache_directory() / "symcache")
            return {file for file in lines.files() if file.endswith(".c")}
    folders = [*CORE, ARCHES.get(kernel.arch, f"arch/{kernel.arch}")]
    return {file for folder in folders for file in tree.sources(folder)}


def _files_of_module(path: Path, tree: SourceTree) -> Iterator[str]:
    """The C files that a module's debug info names."""
    for match in set(_SOURCE_FILE.findall(path.read_bytes())):
        parts = match[:-1].decode("utf-8", "replace").split("/")
        # /build/linux-6.1.192/drivers/net/tun.c: the longest tail that the tree has
        tails = ("/".join(parts[start:]) for start in range(len(parts) - 1))
        yield from (tail for tail in [next((tail for tail in tails if tail and tree.holds(tail)), "")] if tail)
