"""The places of functions among all that a kernel can trace: what set_ftrace_filter takes instead of a name.

The kernel sorts the addresses between __start_mcount_loc and __stop_mcount_loc by itself, and leaves out those that are
0 (functions that another one of the same name replaced) and those that it frees after boot. Modules come after. So the
place of a function is known from the image alone; looked up by name on a target it costs a walk through all of them.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from profiler.debuginfo.vmlinux import Vmlinux
from profiler.errors import InputError, MissingError, ProfilerError


def sites(vmlinux: Vmlinux) -> dict[str, list[int]]:
    """Name → places, from 1; several functions may have one name. {} where the image has no such table."""
    try:
        places = _addresses(vmlinux)
    except ProfilerError:
        return {}
    rows = vmlinux.functions.rows_of(places)
    found: dict[str, list[int]] = {}
    for place, row in enumerate(rows.tolist(), 1):
        if row >= 0:
            found.setdefault(vmlinux.functions.names[row], []).append(place)
    return found


def chosen(vmlinux: Vmlinux, names: Iterable[str]) -> tuple[list[str], list[int]]:
    """`functions` and `sites` of a graph order: those of `names`, the entry among them, that the kernel can trace."""
    known = sites(vmlinux)
    functions = sorted({name for name in names if name in known})
    return functions, sorted(place for name in functions for place in known[name])


def _addresses(vmlinux: Vmlinux) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    first, last = (vmlinux.symbol_address(f"__{word}_mcount_loc") for word in ("start", "stop"))
    if last <= first or (last - first) % 8:
        raise InputError("__start_mcount_loc to __stop_mcount_loc is no table of addresses")
    table = np.sort(np.frombuffer(vmlinux.read(first, last - first), "<u8"))
    begin, end = (vmlinux.symbol_address(f"__init_{word}") for word in ("begin", "end"))
    kept = table[(table > 0) & ((table < begin) | (table >= end))]
    if not len(kept):
        raise MissingError("the image's table of functions that can be traced is filled at boot")
    return kept
