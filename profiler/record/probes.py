"""Kprobes on chosen instructions, and on returns of functions, in the load's threads, for a fraction of a second.

    {"do": "probes", "probes": [{"address": 18446744071579242496, "return": false}], "seconds": 0.3, "rows": 20000,
     "ours": true}

Every hit is recorded with all registers, in the order of execution. The load stands still while probes are put on and
taken off, for that takes the kernel several times longer beside it. `ours` says that this is a guest of the tool's own,
where settings may be changed that make it quicker still.

Leaves `probes-N.bin`, perf's records thread after thread, and `probes-N.json`:

    {"ids": {"812": 0}, "probes": [[18446744071579242496, false, ""]], "lost": 0, "threads": [901], "seconds": 0.21}

where `ids` leads from a record's identifier to an entry of `probes`, whose text says why the kernel refused it. What is
lost came after a thread's last record: a full ring takes no more.
"""

import errno
import json
import os
import resource
import time
from collections.abc import Mapping

from profiler.errors import MissingError, RecordError
from profiler.record import journal, perf_event, progress, threads, tracefs
from profiler.record.orders import Place

MOST_SECONDS = 30.0
MOST_PROBES = 4000
MOST_THREADS = 4
RING_BYTES = 8 << 20  # of all rings together
MANY = 50  # events whose closing takes seconds while RCU is not expedited
POLL_SECONDS = 0.01
SPARE_DESCRIPTORS = 64

_REFUSALS = {
    errno.EINVAL: "the kernel does not let this instruction be probed",
    errno.EILSEQ: "not at the beginning of an instruction",
    errno.ENOENT: "no code lies there",
    errno.ENOTSUP: "the kernel cannot probe this instruction",
}


def carry_out(order: Mapping[str, object], number: int, place: Place) -> dict[str, object]:
    """Returns {"hits": N, "refused": N}, and the seconds that it took to put the probes on, to run, to take them off.

    Raises MissingError where probes are not possible, RecordError.
    """
    wanted, seconds, rows = _read(order)
    kind = perf_event.kprobe_type()
    load = place.load.pid
    chosen = threads.busiest(threads.of(load), MOST_THREADS)
    if not chosen:
        raise RecordError("the load has ended: there is nothing to probe")
    _allow_descriptors(len(wanted) * len(chosen))
    events = Events(kind, wanted, chosen)
    began = time.monotonic()
    with journal.Changed(quick_settings(order, len(wanted) * len(chosen))), threads.Stopped(load) as stopped:
        try:
            ring_size = perf_event.ring_size(RING_BYTES // len(chosen))
            events.open(ring_size)
            perf_event.enable_all()
            on = time.monotonic() - began
            stopped.go_on()
            took = _let_run(events, place, seconds, min(rows, ring_size * 9 // 10 // perf_event.RECORD_BYTES))
            stopped.stop()
            perf_event.disable_all()
            said = events.write(f"{place.out}/probes-{number}", took)
        finally:
            ends = time.monotonic()
            events.close()
    return {**said, "on": round(on, 3), "run": round(took, 3), "off": round(time.monotonic() - ends, 3)}


class Events:
    """The events of every probe in every thread, and where the kernel puts their records."""

    def __init__(self, kind: int, wanted: list[tuple[int, bool]], chosen: list[int]) -> None:
        self._kind = kind
        self._wanted = wanted
        self._threads = chosen
        self._refused: dict[int, str] = {}  # by the probe's place in `wanted`
        self._ids: dict[int, int] = {}
        self._descriptors: list[int] = []
        self._rings: list[perf_event.Ring] = []

    def open(self, ring_size: int) -> None:
        """Raises MissingError where this process may not probe at all."""
        for thread in self._threads:
            ring: perf_event.Ring | None = None
            for place in range(len(self._wanted)):
                progress.check()
                fd = self._open_one(place, thread) if place not in self._refused else -1
                if fd < 0:
                    continue
                if ring is None:
                    ring = perf_event.Ring(fd, ring_size)
                    self._rings.append(ring)
                else:
                    ring.take(fd)
                self._ids[perf_event.identity(fd)] = place

    def rows(self) -> int:
        return max((ring.filled() for ring in self._rings), default=0) // perf_event.RECORD_BYTES

    def write(self, path: str, seconds: float) -> dict[str, object]:
        """Both files."""
        hits = 0
        with open(f"{path}.bin", "wb") as file:
            for ring in self._rings:
                content = ring.content()
                hits += len(content) // perf_event.RECORD_BYTES
                file.write(content)
        lost = sum(perf_event.count(fd) for fd in self._descriptors) - hits
        facts = {
            "ids": {str(identity): place for identity, place in self._ids.items()},
            "probes": [[*probe, self._refused.get(place, "")] for place, probe in enumerate(self._wanted)],
            "lost": max(0, lost),
            "threads": self._threads,
            "seconds": round(seconds, 6),
        }
        with open(f"{path}.json", "w") as text:
            json.dump(facts, text)
        return {"hits": hits, "refused": len(self._refused)}

    def close(self) -> None:
        for ring in self._rings:
            ring.close()
        while self._descriptors:
            os.close(self._descriptors.pop())

    def _open_one(self, place: int, thread: int) -> int:
        """-1 where the kernel refuses the probe, or the thread has ended."""
        address, on_return = self._wanted[place]
        try:
            fd = perf_event.open_probe(self._kind, address, on_return=on_return, thread=thread)
        except OSError as error:
            if error.errno in (errno.EPERM, errno.EACCES):
                raise tracefs.refusal("a kprobe", error, "made") from None
            if error.errno == errno.ENOSYS:
                raise MissingError(
                    "perf_event_open is not to be had here", hint="not from within a container"
                ) from None
            if error.errno != errno.ESRCH:
                self._refused[place] = _REFUSALS.get(error.errno or 0, os.strerror(error.errno or 0))
            return -1
        self._descriptors.append(fd)
        return fd


def _let_run(events: Events, place: Place, seconds: float, rows: int) -> float:
    """Until there are enough rows, the time is over, or the load has ended. Returns the seconds that it ran."""
    started = time.monotonic()
    while (passed := time.monotonic() - started) < seconds and events.rows() < rows and place.load.check():
        progress.check()
        time.sleep(min(POLL_SECONDS, seconds - passed))
    return time.monotonic() - started


def quick_settings(order: Mapping[str, object], events: int) -> dict[str, str]:
    """A probe that was optimized into a jump takes far longer to put on and take off, and gains little here."""
    if order.get("ours"):
        return {"kprobes-optimization": "0", "rcu_expedited": "1"}
    return {"rcu_expedited": "1"} if events > MANY else {}


def _allow_descriptors(more: int) -> None:
    """Raises MissingError where so many files cannot be open at once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = more + SPARE_DESCRIPTORS
    if soft >= needed:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, max(hard, needed)))
    except (OSError, ValueError):
        hint = f"run as root, or raise the limit: ulimit -n {needed}"
        raise MissingError(f"{more} probes need more open files than the {hard} allowed", hint=hint) from None


def _read(order: Mapping[str, object]) -> tuple[list[tuple[int, bool]], float, int]:
    """Probes, seconds, rows. Raises RecordError on an order of another shape."""
    probes, seconds, rows = order.get("probes"), order.get("seconds", 0.3), order.get("rows", 20000)
    if not isinstance(probes, list) or not 0 < len(probes) <= MOST_PROBES:
        raise RecordError(f"an order for probes names 1 to {MOST_PROBES} of them")
    wanted = []
    for probe in probes:
        address = probe.get("address") if isinstance(probe, dict) else None
        if not isinstance(address, int) or not 1 << 63 <= address < 1 << 64:
            raise RecordError(f"{probe!r} is no probe: it has no kernel address")
        wanted.append((address, bool(probe.get("return"))))
    if not isinstance(seconds, int | float) or not 0 < seconds <= MOST_SECONDS:
        raise RecordError(f"probes stay for up to {MOST_SECONDS:g} s, not {seconds!r}")
    if not isinstance(rows, int) or rows <= 0:
        raise RecordError(f"{rows!r} is no number of rows")
    return list(dict.fromkeys(wanted)), float(seconds), rows
