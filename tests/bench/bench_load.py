"""Call rate of the load against a bare loop around the same instruction, taken in turns in one run.

    python -m tests.bench.bench_load

The calls are the cheapest there are, where what is done besides weighs most. The load counts where another process
can follow it, as it does under record. Asked: at least 0.90.
"""

import ctypes
import subprocess
import tempfile
from pathlib import Path

from loadgen import loop
from loadgen.build import loop_library
from loadgen.scenarios import SCENARIOS
from loadgen.setup import Setup

ROUNDS = 40  # the best of them: what else runs on the machine only slows a round
SECONDS_EACH = 0.05
SCENARIO_NAMES = ("fcntl-ebadf", "dup3-einval", "bind-eaddrinuse", "openat-enoent")


def bare_library(directory: Path) -> ctypes.CDLL:
    built = directory / "bare_loop.so"
    source = Path(__file__).with_name("bare_loop.c")
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(built), str(source)], check=True)
    library = ctypes.CDLL(str(built))
    library.bare_loop.restype = ctypes.c_int64
    library.bare_loop.argtypes = [ctypes.c_int64, ctypes.POINTER(ctypes.c_int64), ctypes.c_uint64]
    return library


def measure(name: str, load: ctypes.CDLL, bare: ctypes.CDLL, counted: loop.Outcome) -> tuple[float, float]:
    """Calls a second of the load and of the bare loop: the best of the rounds, which take turns."""
    rates: tuple[list[float], list[float]] = ([], [])
    with Setup() as setup:
        call = SCENARIOS[name].prepare(setup)
        words = (ctypes.c_int64 * 6)(*call.words)
        calls = max(1000, loop.run(load, loop.plan(call, setup, SECONDS_EACH)).calls)
        for _ in range(ROUNDS):
            outcome = loop.run(load, loop.plan(call, setup, 60, calls_limit=calls), counted)
            rates[0].append(outcome.calls / outcome.elapsed_ns * 1e9)
            rates[1].append(calls / bare.bare_loop(call.number, words, calls) * 1e9)
    return max(rates[0]), max(rates[1])


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        load = loop.load_library(str(loop_library(Path(directory))))
        bare = bare_library(Path(directory))
        counted = loop.shared_outcome(str(Path(directory, "counter")))
        print(f"{'scenario':20} {'load':>12} {'bare loop':>12} {'ratio':>7}   (calls a second)")
        for name in SCENARIO_NAMES:
            ours, theirs = measure(name, load, bare, counted)
            print(f"{name:20} {ours:12,.0f} {theirs:12,.0f} {ours / theirs:7.3f}")


if __name__ == "__main__":
    main()
