"""The order "graph": which functions some calls of the load went through, by the kernel's function_graph tracer.

    {"do": "graph", "function": "__x64_sys_bind", "calls": 32, "seconds": 1.0, "variant": "failing",
     "functions": ["__sys_bind", "inet_bind", ...], "sites": [20411, 20377, ...]}

    function   the entry function; its calls are wanted
    calls      so many whole ones, if that takes no longer than `seconds` of tracing
    variant    "succeeding": calls of the scenario's variant that succeeds, started for this where the load is not that;
               "failing" likewise; by default the load's, as it is
    functions  the only ones to be traced, if given: where 40,000 would be patched, that is quicker by seconds under
               emulation. What is not among them is not in the trace, whether it was called or not
    sites      the places of `functions` among all that can be traced, from 1, in any order, if known; else looked up

Yields graph-N.txt, the tracer's text, and graph-N.json, how it was made (`_report`). Tracing is in an instance of our
own where the kernel can (function_graph in instances came with Linux 6.10), else at the top level, if nobody uses that.
"""

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator

from profiler.errors import MissingError, UsageError
from profiler.record import journal, progress, threads, tracefs
from profiler.record.graph_tracing import Tracing
from profiler.record.load import ScenarioLoad
from profiler.record.orders import Place

FAILING, SUCCEEDING = "failing", "succeeding"
_VARIANTS = {"": "", FAILING: "failure", SUCCEEDING: "success"}  # as loadgen has them
MOST_CALLS, MOST_SECONDS = 100_000, 60.0
MOST_BYTES = 64 << 20  # of text
_FIRST_SLICE = 0.02  # seconds; a tight loop's 32 calls mostly fit
_LONGER, _LONGEST = 2.0, 10.0  # the next slice, where they do not: at least, and at most


class Asked:
    """An order that was checked. Raises UsageError on one that is wrong."""

    def __init__(self, order: dict[str, object]) -> None:
        self.function = _name(order.get("function"))
        self.calls = int(_number(order.get("calls", 32), 1, MOST_CALLS))
        self.seconds = _number(order.get("seconds", 1.0), 0.01, MOST_SECONDS)
        self.variant = str(order.get("variant", ""))
        self.functions = [_name(name) for name in _list(order.get("functions"))]
        self.sites = [int(_number(site, 1, 1 << 24)) for site in _list(order.get("sites"))]
        if self.variant not in ("", FAILING, SUCCEEDING):
            raise UsageError(f"there is no variant {self.variant!r} of a load to trace")


def carry_out(order: dict[str, object], number: int, place: Place) -> dict[str, object]:
    """Raises MissingError where the kernel cannot, or may not; RecordError where somebody else traces."""
    asked = Asked(order)
    tracefs.check_function_tracing()
    with _load_of(asked, number, place) as pid:
        tracing = Tracing(asked.function, asked.functions, asked.sites, follow_children=not place.job.scenario)
        slow = bool(place.job.scenario) and not asked.sites  # a program might notice that it stands
        started = time.monotonic()
        try:
            with _standing(pid, slow):
                tracing.begin(threads.of(pid))
            began = time.monotonic()
            taken = _Taken(tracing, asked, f"{place.out}/graph-{number}.txt", pid)
            stats = tracing.losses()
            ends = time.monotonic()
        finally:
            with _standing(pid, slow):
                tracing.end()
    seconds = {"on": began - started, "trace": ends - began, "traced": taken.seconds, "off": time.monotonic() - ends}
    report = _report(asked, order, tracing, taken, stats, seconds)
    with open(f"{place.out}/graph-{number}.json", "w") as file:
        json.dump(report, file, indent=1)
    return {name: report[name] for name in ("calls", "lost", "where", "entry", "warnings")}


class _Taken:
    """Tracing switched on for a while, and again for longer where that was too short; its text copied to a file.

    Each time the buffer is emptied before: a call that began in one slice and ended in the next would have a gap.
    """

    def __init__(self, tracing: Tracing, asked: Asked, path: str, pid: int) -> None:
        self.seconds = 0.0  # of tracing
        self.calls = 0  # in the file, that began
        self.bytes = 0
        self.cut = False  # the file ends before the calls asked for were reached
        slice_seconds = min(_FIRST_SLICE, asked.seconds)
        while True:
            progress.check()
            took = tracing.trace_for(slice_seconds)
            self.seconds += took
            self._copy(tracing.path + "/trace", path, tracing.entry or asked.function, asked.calls)
            left = asked.seconds - self.seconds
            full = any(cpu.get("dropped events", 0) for cpu in tracing.losses().values())  # longer gives no more then
            if self.calls > asked.calls or self.cut or full or left <= 0 or not threads.of(pid):
                return
            longer = 1.5 * (asked.calls + 1) / self.calls if self.calls else _LONGEST
            slice_seconds = min(left, took * min(max(longer, _LONGER), _LONGEST))

    def _copy(self, source: str, path: str, function: str, enough: int) -> None:
        """Whole lines, up to the begin of one call more than is wanted: reading costs more than tracing."""
        wanted = f" {function}(".encode()
        self.calls = self.bytes = 0
        rest = b""
        with open(source, "rb", buffering=0) as trace, open(path, "wb") as file:
            while self.calls <= enough and self.bytes < MOST_BYTES:
                progress.check()
                data = trace.read(1 << 14)
                lines, newline, rest = (rest + data).rpartition(b"\n")
                file.write(lines + newline)
                self.bytes += len(lines) + len(newline)
                self.calls += lines.count(wanted)
                if not data:
                    return
        self.cut = self.calls <= enough


@contextlib.contextmanager
def _load_of(asked: Asked, number: int, place: Place) -> Iterator[int]:
    """The process to trace: the load's, or a second one's, whose calls succeed, while the first stands still."""
    wanted = _VARIANTS[asked.variant]
    if wanted in ("", place.job.variant):
        yield place.load.pid
        return
    if not place.job.scenario:
        raise MissingError(
            "a program of one's own has no variant whose call succeeds",
            hint="its own succeeding calls are in the trace of the failing ones, if it has any",
        )
    job = type(place.job).__new__(type(place.job))
    job.__dict__.update(place.job.__dict__, variant=wanted)
    result = f"{place.out}/graph-{number}.load"
    with _standing(place.load.pid, True):
        second = ScenarioLoad(job, result)
        try:
            second.prepare()
            second.release()
            yield second.pid
            second.finish(grace=2.0)
        finally:
            second.end()
            for name in (result, f"{result}.counter"):
                with contextlib.suppress(OSError):
                    os.unlink(name)


@contextlib.contextmanager
def _standing(pid: int, wanted: bool) -> Iterator[None]:
    """Stops a process and its descendants meanwhile, so that it takes no time from what is being done."""
    if not wanted:
        yield
        return
    found = [[process, journal.started(process)] for process in threads.tree(pid)]
    note = journal.note("stopped", found)
    try:
        for process, _ in found:
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGSTOP)
        yield
    finally:
        journal.put_back(note)


def _report(
    asked: Asked,
    order: dict[str, object],
    tracing: Tracing,
    taken: _Taken,
    stats: dict[str, dict[str, int]],
    seconds: dict[str, float],
) -> dict[str, object]:
    """What graph-N.json holds; seconds and counts."""
    overrun = sum(cpu.get("overrun", 0) for cpu in stats.values())
    dropped = sum(cpu.get("dropped events", 0) for cpu in stats.values())
    warnings = list(tracing.warnings)
    if overrun or dropped:
        warnings.append(f"the trace buffer was full: {overrun + dropped} events are not in it")
    if not taken.calls:
        warnings.append(f"no call of {tracing.entry or asked.function} within {taken.seconds:.2f} s")
    if taken.cut:
        warnings.append(f"the text was cut after {taken.bytes} bytes")
    return {
        "asked": order,
        "variant": asked.variant,  # "" for the load as it is
        "entry": tracing.entry,  # the function whose calls stand in the trace; "" for all of the load's
        "calls": taken.calls,  # that began
        "where": tracing.where,  # "instance" or "top level"
        "limited_to": tracing.limited_to,  # the functions that alone were traced; [] for all
        "results_by": tracing.results_by,  # how a call's result can be told: "sys_exit", "retval" or ""
        "threads": tracing.threads,
        "options": tracing.options,  # as trace_options lists them
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
        "bytes": taken.bytes,
        "buffers": stats,
        "lost": overrun + dropped,
        "warnings": warnings,
    }


def _name(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) < 256 or not set(value) <= _NAME_CHARACTERS:
        raise UsageError(f"{value!r} is not the name of a function")
    return value


_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.")


def _list(value: object) -> list[object]:
    if value is not None and not isinstance(value, list):
        raise UsageError(f"{value!r} is not a list")
    return list(value or [])


def _number(value: object, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise UsageError(f"{value!r} is not a number from {least:g} to {most:g}")
    return value
