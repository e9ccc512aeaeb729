"""How fast recordings become arrays, against perf script on the same file.

    python -m tests.bench.bench_parse [SECONDS]

Records SECONDS (10) of cpu-clock at 49,999 Hz on all CPUs, once plain and once with kernel callchains,
needs the permission for that and about 500 MB for the time, and prints:

    plain: 1003311 samples in 56 MB: 0.051 s (0.047 s of CPU); perf script -F ip: 1.18 s; ratio 23.1 (aim: at least 20)
    ...

Wall-clock times are the best of five runs, so that other work on the machine weighs less.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from profiler.parse import kallsyms, perf_data

ENVIRONMENT = {**os.environ, "LC_ALL": "C", "PERF_CONFIG": "/dev/null"}
RUNS = 5
# One failing system call in a tight loop, which is what whyerrno records.
LOAD = """
import os, time
end = time.monotonic() + {seconds}
while time.monotonic() < end:
    for _ in range(1000):
        os.access("/nonexistent/file", 0)
"""


def record(path: Path, seconds: float, *options: str) -> None:
    sampling = ["-N", "-a", "-e", "cpu-clock", "-F", "49999", "-m", "1024"]
    command = ["perf", "record", "-q", *sampling, *options, "-o", str(path)]
    load = [sys.executable, "-c", LOAD.format(seconds=seconds)]
    subprocess.run([*command, "--", *load], env=ENVIRONMENT, check=True, stderr=subprocess.DEVNULL)


def best(work: Callable[[], object], usage: int) -> tuple[float, float]:
    """Wall-clock and CPU seconds, each the least of several runs. `usage`: whose CPU time, as in getrusage."""
    walls, cpus = [], []
    for _ in range(RUNS):
        start, before = time.perf_counter(), resource.getrusage(usage)
        work()
        walls.append(time.perf_counter() - start)
        after = resource.getrusage(usage)
        cpus.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(walls), min(cpus)


def print_addresses(path: Path) -> None:
    command = ["perf", "script", "-F", "ip", "-i", str(path)]
    subprocess.run(command, env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def plain(path: Path) -> None:
    """Samples of one size, against the time that perf needs to print their addresses alone."""
    samples = len(perf_data.read(path).samples.ip)
    wall, cpu = best(lambda: perf_data.read(path), resource.RUSAGE_SELF)
    perf_wall, perf_cpu = best(lambda: print_addresses(path), resource.RUSAGE_CHILDREN)
    print(
        f"plain: {samples} samples in {path.stat().st_size / 1e6:.0f} MB: {wall:.3f} s ({cpu:.3f} s of CPU); "
        f"perf script -F ip: {perf_wall:.2f} s ({perf_cpu:.2f} s of CPU); "
        f"ratio {perf_wall / wall:.1f}, of CPU time {perf_cpu / cpu:.1f} (aim: at least 20)"
    )


def chains(path: Path) -> None:
    recording = perf_data.read(path)
    samples, entries = len(recording.samples.ip), len(recording.samples.chain)
    del recording
    wall, cpu = best(lambda: perf_data.read(path), resource.RUSAGE_SELF)
    print(
        f"chains: {samples} samples, {entries} chain entries in {path.stat().st_size / 1e6:.0f} MB: {wall:.3f} s "
        f"({cpu:.3f} s of CPU); for a million samples {1e6 * wall / samples:.2f} s (aim: at most 1.5)"
    )
    print(f"memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB at most (aim: at most 1,500)")


def symbols() -> None:
    path = Path("/proc/kallsyms")
    count = len(kallsyms.read(path).names)
    wall, cpu = best(lambda: kallsyms.read(path), resource.RUSAGE_SELF)
    print(f"kallsyms: {count} symbols: {wall:.3f} s ({cpu:.3f} s of CPU, most of it the kernel's printing)")


def main(seconds: float = 10) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "perf.data"
        record(path, seconds)
        plain(path)
        record(path, seconds, "-g", "--kernel-callchains")
        chains(path)
    symbols()


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
