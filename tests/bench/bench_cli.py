"""Start of the command, and one whole run on an emulated kernel from command to verdict.

    python -m tests.bench.bench_cli

Asked: `whyerrno --help` at most 0.3 s; a vm: run with the kernel cached at most 45 s on two cores.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from profiler import lab

ROUNDS = 7
VERSION = "6.1"
COMMAND = [sys.executable, "-m", "profiler.cli"]
ROOT = Path(__file__).parents[2]


def seconds(argv: list[str]) -> float:
    started = time.perf_counter()
    code = subprocess.run(argv, cwd=ROOT, stdout=subprocess.DEVNULL, check=False).returncode
    if code not in (0, 3):  # an inconclusive run takes as long
        raise OSError(f"{' '.join(argv)} ended with exit code {code}")
    return time.perf_counter() - started


def help_text() -> None:
    helped = statistics.median(seconds([*COMMAND, "--help"]) for _ in range(ROUNDS))
    bare = statistics.median(seconds([sys.executable, "-c", "import click"]) for _ in range(ROUNDS))
    print(f"whyerrno --help         {helped:6.3f} s   at most 0.3; {helped / bare:.1f} × `import click` alone")


def whole_run() -> None:
    if lab.find(VERSION) is None:
        print(f"whole run               not measured: `whyerrno kernels fetch {VERSION}` first")
        return
    with tempfile.TemporaryDirectory() as directory:
        run = [*COMMAND, "run", "--scenario", "bind-eaddrinuse", "--target", f"vm:{VERSION}", "--quiet"]
        took = seconds([*run, "-o", f"{directory}/run"])
        print(f"whole run, vm:{VERSION}       {took:6.1f} s   at most 45, of which 10 s recording")
        took = seconds([*COMMAND, "analyze", f"{directory}/run", "--quiet", "--no-report"])
        print(f"its analysis again      {took:6.1f} s")
        took = seconds([*COMMAND, "report", f"{directory}/run"])
        page = Path(directory, "run", "report.html").stat().st_size
        print(f"its report again        {took:6.1f} s   page {page / 1e6:.2f} MB, at most 1.5; four PNGs drawn")
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    print(f"largest process         {most:6.2f} GB")


def main() -> None:
    help_text()
    whole_run()


if __name__ == "__main__":
    main()
