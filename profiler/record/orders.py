"""What is asked of the recorder while the load runs: by the job file, then by files `order-0.json`, `order-1.json`, ...
that the host puts beside it, each a line of JSON.

    {"do": "graph", "function": "__x64_sys_bind", "calls": 32}
    {"do": "probes", "probes": [{"address": 18446744071579242496}], "seconds": 0.3}
    {"do": "operands", "points": [{"address": 18446744071579242510, "fetch": {"v0": "%ax:s32"}}]}

They are carried out in their order, each once, samples paused meanwhile. What an order yields lies in the output
directory as `WORD-NUMBER` with an ending, and {"answered": NUMBER, "do": WORD, "seconds": S, "problem": ""} is said; a
problem ends the order alone, not the recording.
"""

import json
import time

from profiler.errors import MissingError, ProfilerError
from profiler.record import progress
from profiler.record.job import Job
from profiler.record.load import Load

# The module of profiler.record that carries each out: `carry_out(order, number, place)` returns what to say besides.
_MODULES = {"graph": "function_graph", "probes": "probes", "operands": "operands"}
_RUNGS = {"graph": "graph", "probes": "probes", "operands": "probes"}  # whose cost to the load each is


class Place:
    """Where an order is carried out; `out` is the output directory."""

    def __init__(self, job: Job, load: Load, out: str) -> None:
        self.job = job
        self.load = load
        self.out = out


class Orders:
    """The orders not yet carried out. They are numbered as they come, those of the job first."""

    def __init__(self, place: Place, directory: str) -> None:
        self._place = place
        self._directory = directory
        self._given = list(place.job.orders)
        self._files = 0
        self._number = 0

    def waiting(self) -> bool:
        return bool(self._given) or self._has_come()

    def carry_out(self) -> None:
        """Carries out the one that waits, and says how it went."""
        started = time.monotonic()
        number = self._number
        word, said, problem, hint, kind = "", {}, "", "", ""
        try:
            order = self._take()
            word = str(order["do"])
            module = __import__(
                f"profiler.record.{_MODULES[word]}", fromlist=["carry_out"]
            )  # importlib is slow to load
            self._place.load.rate.begin(_RUNGS[word])
            said = module.carry_out(order, number, self._place)
        except ProfilerError as error:
            problem, hint = str(error.args[0]) if error.args else type(error).__name__, error.hint
            kind = "missing" if isinstance(error, MissingError) else "record"
        except (OSError, ValueError, KeyError, TypeError) as error:
            problem = f"{type(error).__name__}: {error}"
        self._place.load.rate.end(_RUNGS.get(word, ""))
        self._number += 1
        seconds = round(time.monotonic() - started, 3)
        answer = {"answered": number, "do": word, "seconds": seconds, "problem": problem, "hint": hint, "kind": kind}
        progress.say({**said, **answer})

    def _take(self) -> dict[str, object]:
        if self._given:
            return self._given.pop(0)
        path = self._path()
        self._files += 1
        with open(path, "rb") as file:
            order: dict[str, object] = json.load(file)
        return order

    def _has_come(self) -> bool:
        """A file is there before all of it is: an order is complete with the newline that ends it."""
        try:
            with open(self._path(), "rb") as file:
                return file.read().endswith(b"\n")
        except FileNotFoundError:
            return False

    def _path(self) -> str:
        return f"{self._directory}/order-{self._files}.json"
