"""Recording on this machine with its real perf, looked at while it goes on."""

import os
import time
from pathlib import Path

import numpy as np

from profiler import acquire, recording
from profiler.errors import ProfilerError
from profiler.evidence import SAMPLES
from profiler.following import ENOUGH, Look, Step
from profiler.parse import perf_data
from profiler.record import kallsyms, perf
from profiler.request import RunRequest
from profiler.target.local import Local
from tests.conftest import require


def recording_is_possible() -> bool:
    try:
        kallsyms.check_shown()
        perf.find_perf()
    except ProfilerError:
        return False
    return os.geteuid() == 0


class TwoLooks:
    """Counts the load's samples at each look, and has enough at the second."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def orders(self) -> list[Step]:
        return []

    def next_step(self, look: Look) -> Step | None:
        data = perf_data.read(look.directory / recording.PERF_DATA, salvage=True)
        self.seen.append(int(np.count_nonzero(data.samples.pid == look.load_pid)))
        return ENOUGH if len(self.seen) == 2 else None


def test_a_recording_ends_with_the_second_look_where_that_decides(tmp_path: Path) -> None:
    """Each look shows more samples of the load than the one before; the whole recording has most."""
    require(recording_is_possible(), "needs perf, and root (or as much as root may do with perf)")
    steps = TwoLooks()
    scenario = {"scenario": "bind-eaddrinuse", "syscall": "bind", "errno": "EADDRINUSE"}
    request = RunRequest(
        target="local", **scenario, seconds=120.0, least_seconds=0.5, event="cpu-clock", evidence=frozenset({SAMPLES})
    )
    began = time.monotonic()
    out = acquire.record_on(Local(), request, tmp_path / "run", steps=steps, progress=lambda *_: None)
    assert time.monotonic() - began < 60
    manifest = recording.read_manifest(out)
    assert (manifest.stopped_by, manifest.seconds < 60) == ("verdict", True)
    assert recording.read_load(out).stopped_by == "time"
    whole = perf_data.read(out / recording.PERF_DATA).samples.pid
    assert 0 < steps.seen[0] < steps.seen[1] <= np.count_nonzero(whole == recording.read_load(out).pid)
    assert not (out / "look").exists()
