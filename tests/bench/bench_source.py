"""How often the true place is in the list of the source, how long the lists are, and how long they take.

    python -m tests.bench.bench_source [VERSION]...

Asked: the place of at least 90% of the scenarios; 5 s from nothing but an index, 1 s the second time (CPU time).
"""

from __future__ import annotations

import resource
import statistics
import sys
import time

from loadgen.scenarios import SCENARIOS
from profiler import explain, lab
from profiler.conclude.analysis import ENTRY_NAMES
from profiler.conclude.source_candidates import candidates
from profiler.errors import MissingError
from tests import truth
from tests.vm.kernels import VERSIONS


def main(*versions: str) -> None:
    print("| kernel | scenarios | place listed | places: median, most | rank: median, last | s: median, most | MB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    missed = [name for version in versions or VERSIONS for name in _of_kernel(version)]
    print("\n".join(f"missed: {name}" for name in missed))


def _of_kernel(version: str) -> list[str]:
    kernel = lab.find(version)
    if kernel is None:
        raise MissingError(f"kernel {version} is not cached", hint=f"whyerrno kernels fetch {version}")
    counts, ranks, seconds, missed = [], [], [], []
    explain.open_sources(kernel)
    for name in truth.scenarios():
        true = truth.load(name).get(kernel.package_version)
        if true is None or not true.reproduced:
            continue
        scenario = SCENARIOS[name]
        started = time.process_time()
        sources = explain.open_sources(kernel, scenario.modules)
        entry = ENTRY_NAMES.get(scenario.syscall, scenario.syscall)
        listed = candidates(sources, entry, scenario.errno).candidates
        seconds.append(time.process_time() - started)
        counts.append(len(listed))
        places = [{"file": candidate.site.file, "line": candidate.site.line} for candidate in listed]
        rank = next((row for row, place in enumerate(places, 1) if any(site.holds(place) for site in true.sites)), 0)
        ranks += [rank] if rank else []
        missed += [] if rank else [f"{name} on {version}"]
    print(
        f"| {version} | {len(counts)} | {len(ranks)} ({len(ranks) / len(counts):.1%}) "
        f"| {statistics.median(counts):g}, {max(counts)} | {statistics.median(ranks):g}, {max(ranks)} "
        f"| {statistics.median(seconds):.2f}, {max(seconds):.1f} "
        f"| {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} |",
        flush=True,
    )
    return missed


if __name__ == "__main__":
    main(*sys.argv[1:])
