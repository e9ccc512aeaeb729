"""The KASLR offset of a recording: where its kernel was loaded, less where its vmlinux is linked."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from profiler.debuginfo.vmlinux import Vmlinux
from profiler.errors import InputError, MismatchError
from profiler.model import PerfRecording

_IMAGE_AREA = 1 << 30  # KERNEL_IMAGE_SIZE of arch/x86/include/asm/page_64_types.h: all of it lies within
_LEAST_INSIDE = 0.5


def of_kallsyms(path: Path, vmlinux: Vmlinux) -> int | None:
    """By the recorded /proc/kallsyms; None where it has no `_stext`.

    Raises InputError where its addresses are hidden, MismatchError where they fit no loading of `vmlinux`.
    """
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:  # ffffffff81000000 T _stext
            fields = line.split()
            if len(fields) == 3 and fields[2] == "_stext":
                return checked(_address(fields[0], path) - vmlinux.symbol_address("_stext"), path, vmlinux)
    return None


def of_map(read: PerfRecording, vmlinux: Vmlinux, name: Path) -> int | None:
    """By perf's own record of the kernel's mapping, which has the loaded address of a symbol; None without one.

    Raises MismatchError where that fits no loading of `vmlinux`. `name` is the file it was read from.
    """
    if read.kernel_map is None or not read.kernel_map.pgoff:
        return None
    symbol = read.kernel_map.name.rpartition("]")[2] or "_text"
    return checked(read.kernel_map.pgoff - vmlinux.symbol_address(symbol), name, vmlinux)


def of_samples(read: PerfRecording, vmlinux: Vmlinux) -> int:
    """0, where nothing else says it and the samples agree. Raises MismatchError where they do not."""
    start, end = vmlinux.text_range
    addresses = read.samples.ip[read.samples.in_kernel]
    inside = (addresses >= np.uint64(start)) & (addresses < np.uint64(end))
    if len(addresses) and inside.mean() < _LEAST_INSIDE:
        raise MismatchError(
            f"{1 - inside.mean():.0%} of the kernel samples lie outside the text of {vmlinux.path}",
            hint="nothing in the data says where KASLR put the kernel: import a perf.data recorded by root",
        )
    return 0


def _address(digits: str, path: Path) -> int:
    try:
        address = int(digits, 16)
    except ValueError:
        raise InputError(f"{path}: {digits[:20]!r} is no address", hint="the file is damaged; record again") from None
    if not address:
        raise InputError(
            f"{path}: all addresses are zero, so samples cannot be placed",
            hint="record again as root, or with kernel.kptr_restrict=0 and kernel.perf_event_paranoid at most 1",
        )
    return address


def checked(offset: int, path: Path, vmlinux: Vmlinux) -> int:
    """`offset`, as `path` says it. Raises MismatchError where no kernel can be loaded there."""
    if not 0 <= offset < _IMAGE_AREA:
        raise MismatchError(
            f"{path}: the kernel cannot have been loaded {offset:#x} bytes from where {vmlinux.path} is linked",
            hint="one of the two is damaged or of another kernel; record again",
        )
    return offset
