"""How fast the text of the function graph tracer is read, and in how much memory.

    python -m tests.bench.bench_function_graph [MEGABYTES]

Repeats a real trace to MEGABYTES (1000) on disk, for the time, and reads it part by part, beside `wc -l` on the same
file; then a trace every line of which returns another value, the slowest that there is:

    bind on 7.3: 1016 MB, 7,972,029 calls: 6.0 s of CPU, 171 MB/s (aim: at least 50); 9.6 s in all, 106 MB/s; ...
    memory: 17 MB more than before (aim: at most 200, whatever the length)
"""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from profiler.parse import function_graph

SAMPLE = Path(__file__).parents[1] / "data" / "function_graph" / "bind-7.3.txt"
WRITE = 1 << 24


def repeated(path: Path, text: bytes, size: int) -> None:
    block = text * max(1, WRITE // len(text))
    with path.open("wb") as file:
        while file.tell() < size:
            file.write(block)


def with_values(text: bytes, size: int) -> Iterator[bytes]:
    """Every exit and every leaf returns a value that none returned before."""
    ends = re.compile(rb"\(\);\n|\} /\* (\w+) \*/\n")
    written = number = 0
    while written < size:
        number += 1 << 20
        values = iter(range(number, number + (1 << 20)))

        def valued(match: re.Match[bytes], values: Iterator[int] = values) -> bytes:
            name = match[1]
            value = b"ret=0x%x */\n" % (next(values) * 7919)
            return b"} /* " + name + b" " + value if name else b"(); /* " + value

        block = ends.sub(valued, text * 20)
        written += len(block)
        yield block


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(what: str, path: Path) -> None:
    size = path.stat().st_size / 1e6
    began, used = time.perf_counter(), time.process_time()
    calls = sum(len(part.calls.opened) for part in function_graph.parts(path))
    seconds, cpu = time.perf_counter() - began, time.process_time() - used
    began = time.perf_counter()
    subprocess.run(["wc", "-l", str(path)], check=True, stdout=subprocess.DEVNULL)
    peer = time.perf_counter() - began
    print(
        f"{what}: {size:.0f} MB, {calls:,} calls: {cpu:.1f} s of CPU, {size / cpu:.0f} MB/s (aim: at least 50); "
        f"{seconds:.1f} s in all, {size / seconds:.0f} MB/s; wc -l: {peer:.2f} s, {seconds / peer:.0f} times as fast"
    )


def main(megabytes: float = 1000) -> None:
    text = SAMPLE.read_bytes()
    before = peak()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.txt"
        repeated(path, text, int(megabytes * 1e6))
        measure("bind on 7.3", path)
        print(f"memory: {peak() - before:.0f} MB more than before (aim: at most 200, whatever the length)")
        with path.open("wb") as file:
            for block in with_values(text, int(megabytes * 1e5)):
                file.write(block)
        measure("another value on every line", path)
        print(f"memory: {peak() - before:.0f} MB more than before (aim: at most 200, whatever the length)")


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
