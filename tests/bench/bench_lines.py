"""Time from samples to a histogram of every source function, and of what it rests on.

    python -m tests.bench.bench_lines [VERSION]

Asked: all samples of a run (here 2 million, spread over 20,000 addresses) to histograms in at most 2 s and 1.5 GB.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from profiler import lab
from profiler.debuginfo.c_functions import SourceFile
from profiler.debuginfo.histogram import histograms
from profiler.debuginfo.lines import LineTable
from profiler.debuginfo.source import SourceTree
from profiler.debuginfo.source_flow import flow_in
from profiler.debuginfo.vmlinux import Vmlinux
from profiler.errors import MissingError

SAMPLES = 2_000_000
ADDRESSES = 20_000
T = TypeVar("T")


def timed(what: str, work: Callable[[], T]) -> T:
    began = time.perf_counter()
    result = work()
    print(f"{what:58} {time.perf_counter() - began:8.3f} s")
    return result


def main(version: str = "6.1") -> None:
    kernel = lab.find(version)
    if kernel is None or kernel.vmlinux is None or kernel.source is None:
        raise MissingError(f"no {version} kernel in the cache", hint=f"whyerrno kernels fetch {version}")
    path = kernel.vmlinux
    vmlinux = timed("open vmlinux", lambda: Vmlinux(path))
    functions = timed("its functions", lambda: vmlinux.functions)
    with tempfile.TemporaryDirectory() as cache:
        timed("line table, built", lambda: LineTable.open(vmlinux, cache_dir=Path(cache)))
        lines = timed("line table, from the cache", lambda: LineTable.open(vmlinux, cache_dir=Path(cache)))
        chosen = np.random.default_rng(1)
        start, end = vmlinux.text_range
        distinct = chosen.integers(start, end, ADDRESSES, dtype=np.uint64)
        samples = chosen.choice(distinct[functions.rows_of(distinct) >= 0], SAMPLES)
        timed(f"{SAMPLES:,} samples to functions", lambda: functions.rows_of(samples))
        timed(f"{SAMPLES:,} samples to histograms", lambda: histograms(samples, lines))
        timed("the same again", lambda: histograms(samples, lines))
    tree = SourceTree(kernel.source)
    source = timed("prepare mm/mmap.c", lambda: SourceFile(tree.text("mm/mmap.c") or []))
    timed("flow of do_mmap, the first of the file", lambda: flow_in(source, "do_mmap"))
    timed("flow of do_mmap again", lambda: flow_in(source, "do_mmap"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{'largest resident memory':58} {peak:8.2f} GB")


if __name__ == "__main__":
    main(*sys.argv[1:])
