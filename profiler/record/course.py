"""The course of a recording between the release of the load and its end: sampling, looks, replay.

At a look perf.data is made good so far and the host is told, so that it can see whether the verdict is decided.
During the replay the load runs on without samples, for an emulator to log what is executed.
"""

import os
import time

from profiler.errors import RecordError
from profiler.record import progress
from profiler.record.job import Job
from profiler.record.load import Load
from profiler.record.perf import PerfRecord

ENOUGH, REPLAYED = "enough", "replayed"  # the host's orders: files beside the job file

TICK_SECONDS = 0.2
BEGINS, ENDS = 0.1, 0.85  # share of the progress bar


class Course:
    """`run` follows it; `sampled` is how many seconds were sampled, whatever ended them."""

    def __init__(self, job: Job, load: Load, perf: PerfRecord | None, orders: str) -> None:
        self.sampled = 0.0
        self._job = job
        self._load = load
        self._perf = perf
        self._orders = orders
        self._looks = list(job.looks)

    def run(self) -> None:
        """Raises RecordError where perf ends before its time."""
        if self._perf is not None:
            self._perf.resume()
        self._load.release()
        self._sample(self._looks[0] if self._looks else self._job.seconds)
        if self._job.replay_seconds and self._goes_on():
            self._replay()
        self._sample(self._job.seconds)

    def _sample(self, until: float) -> None:
        if self._perf is None:
            return
        started = time.monotonic() - self.sampled
        while self.sampled < until and self._goes_on():
            share = min(1.0, self.sampled / self._job.seconds)
            progress.report(BEGINS + share * (ENDS - BEGINS), "recording")
            time.sleep(min(TICK_SECONDS, until - self.sampled))
            self.sampled = time.monotonic() - started
            self._look()

    def _look(self) -> None:
        assert self._perf is not None
        if not self._looks or self.sampled < self._looks[0]:
            return
        while self._looks and self.sampled >= self._looks[0]:
            del self._looks[0]
        self._perf.flush()
        progress.say({"sampled": round(self.sampled, 6)})

    def _replay(self) -> None:
        """Without the interrupts that sampling makes, which would be logged as well."""
        if self._perf is not None:
            self._perf.pause()
        progress.report(ENDS, "replay")
        progress.say({"replay": True})
        deadline = time.monotonic() + self._job.replay_seconds
        while time.monotonic() < deadline and self._goes_on() and not self._ordered(REPLAYED):
            time.sleep(TICK_SECONDS)
        if self._perf is not None:
            self._perf.resume()

    def _goes_on(self) -> bool:
        progress.check()
        if self._perf is not None and not self._perf.alive():
            self._perf.stop()
            raise RecordError("perf ended before the load did")
        return self._load.check() and not self._ordered(ENOUGH)

    def _ordered(self, name: str) -> bool:
        return os.path.exists(f"{self._orders}/{name}")
