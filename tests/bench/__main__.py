"""All benchmarks, one after another: `python -m tests.bench [NAME]...`, a NAME as in bench_NAME.py.

Each module bench_*.py has a main() that prints what it measured, as ratios where there is a peer to measure
against. One that cannot run here says why and does not keep the others from running.
"""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path

from profiler.errors import ProfilerError


def main(wanted: list[str]) -> int:
    """Run those named, or all; the number of benchmarks that could not run."""
    names = sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))
    unknown = sorted(set(wanted) - set(names))
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(names)}", file=sys.stderr)
        return 2
    failed = 0
    for name in wanted or names:
        print(f"== {name}", flush=True)
        started = time.monotonic()
        try:
            importlib.import_module(f"tests.bench.bench_{name}").main()
        except (ProfilerError, OSError) as error:
            failed += 1
            print(f"could not run: {error}")
        print(f"   ({time.monotonic() - started:.0f} s)\n", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
