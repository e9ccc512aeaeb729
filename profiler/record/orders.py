"""What the host asks of the recorder while the load runs: files `order-0.json`, `order-1.json`, ... beside the job file.

    {"do": "graph", "function": "__x64_sys_bind", "calls": 32}
    {"do": "probes", "probes": [{"address": 18446744071579242496}], "seconds": 0.3}
    {"do": "operands", "points": [{"address": 18446744071579242510, "fetch": {"v0": "%ax:s32"}}]}

They are carried out in their order, each once, samples paused meanwhile. What an order yields lies in the output
directory as `WORD-NUMBER` with an ending, and {"answered": NUMBER, "do": WORD, "seconds": S, "problem": ""} is said; a
problem ends the order alone, not the recording.
"""

import importlib
import json
import os
import time
from typing import NamedTuple

from profiler.errors import ProfilerError
from profiler.record import progress
from profiler.record.job import Job
from profiler.record.load import Load

# The module of profiler.record that carries each out: `carry_out(order, number, place)` returns what to say besides.
_MODULES = {"graph": "function_graph", "probes": "probes", "operands": "operands"}


class Place(NamedTuple):
    """Where an order is carried out."""

    job: Job
    load: Load
    out: str  # the output directory


class Orders:
    """The orders not yet carried out."""

    def __init__(self, place: Place, directory: str) -> None:
        self._place = place
        self._directory = directory
        self._next = 0

    def waiting(self) -> bool:
        return os.path.exists(self._path())

    def carry_out(self) -> None:
        """Carries out the one that waits, and says how it went."""
        started = time.monotonic()
        number = self._next
        word, said, problem, hint = "", {}, "", ""
        try:
            with open(self._path(), "rb") as file:
                order = json.load(file)
            word = str(order["do"])
            module = importlib.import_module(f"profiler.record.{_MODULES[word]}")
            said = module.carry_out(order, number, self._place)
        except ProfilerError as error:
            problem, hint = str(error.args[0]) if error.args else type(error).__name__, error.hint
        except (OSError, ValueError, KeyError, TypeError) as error:
            problem = f"{type(error).__name__}: {error}"
        self._next += 1
        seconds = round(time.monotonic() - started, 3)
        progress.say({**said, "answered": number, "do": word, "seconds": seconds, "problem": problem, "hint": hint})

    def _path(self) -> str:
        return f"{self._directory}/order-{self._next}.json"
