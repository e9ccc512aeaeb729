"""The course of a recording between the release of the load and its end: orders, sampling, looks, replay.

At a look perf.data is made good so far and the host is told, so that it can see whether the verdict is decided.
Orders are carried out when they come, those of the job before anything else. During the replay the load runs on without
samples, for an emulator to log what is executed.
"""

import os
import time

from profiler.errors import RecordError
from profiler.record import progress, threads
from profiler.record.job import Job
from profiler.record.load import Load
from profiler.record.orders import Orders
from profiler.record.perf import PerfRecord
from profiler.record.rate import WARM

ENOUGH, REPLAYED = "enough", "replayed"  # the host's orders: files beside the job file

TICK_SECONDS = 0.2
BEGIN_SECONDS = 0.05  # that the load takes to name itself
WARM_SECONDS, ALONE_SECONDS = 0.1, 0.2  # of the load alone, for its own rate; an emulator first translates its code
BEGINS, ENDS = 0.1, 0.85  # share of the progress bar


class Course:
    """`run` follows it; `sampled` is how many seconds were sampled, whatever ended them."""

    def __init__(self, job: Job, load: Load, perf: PerfRecord | None, orders: Orders, directory: str) -> None:
        """`directory`: where the host's words appear, as empty files."""
        self.sampled = 0.0
        self.processes: dict[int, None] = {}  # of the load, as far as they were seen
        self._job = job
        self._load = load
        self._perf = perf
        self._orders = orders
        self._directory = directory
        self._looks = list(job.looks)

    def run(self) -> None:
        """Raises RecordError where perf ends before its time."""
        self._resume()  # so that perf hears of the load's name and of the processes it begins with
        self._load.release()
        time.sleep(BEGIN_SECONDS)
        self._pause()
        self._load.rate.measure(WARM_SECONDS, WARM)
        self._load.rate.measure(ALONE_SECONDS)
        self._carry_out()
        self._resume()
        self._sample(self._looks[0] if self._looks else self._job.seconds)
        if self._job.replay_seconds and self._goes_on():
            self._replay()
        self._sample(self._job.seconds)
        self._wait()

    def _pause(self) -> None:
        if self._perf is not None:
            self._perf.pause()

    def _resume(self) -> None:
        """Samples from now on. Of processes that were made meanwhile perf has not heard: they are noted here."""
        self.processes.update(dict.fromkeys(threads.tree(self._load.pid)))
        if self._perf is not None:
            self._perf.resume()

    def _carry_out(self) -> None:
        while self._orders.waiting() and self._load.check():
            progress.report(BEGINS, "orders")
            self._orders.carry_out()

    def _wait(self) -> None:
        """For orders, when there is nothing else to do."""
        if not self._job.orders_seconds or not self._goes_on():
            return
        self._pause()
        progress.say({"waiting": True})
        deadline = time.monotonic() + self._job.orders_seconds
        while time.monotonic() < deadline and self._goes_on():
            self._carry_out()
            time.sleep(TICK_SECONDS / 4)

    def _sample(self, until: float) -> None:
        if self._perf is None:
            return
        started = time.monotonic() - self.sampled
        self._load.rate.begin("samples")
        while self.sampled < until and self._goes_on():
            share = min(1.0, self.sampled / self._job.seconds)
            progress.report(BEGINS + share * (ENDS - BEGINS), "recording")
            time.sleep(min(TICK_SECONDS, until - self.sampled))
            self.sampled = time.monotonic() - started
            self._look()
            if self._orders.waiting():
                self._load.rate.end("samples")
                self._pause()
                self._carry_out()
                self._resume()
                self._load.rate.begin("samples")
                started = time.monotonic() - self.sampled
        self._load.rate.end("samples")

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
        self._pause()
        progress.report(ENDS, "replay")
        progress.say({"replay": True})
        self._load.rate.begin("exact")
        deadline = time.monotonic() + self._job.replay_seconds
        while time.monotonic() < deadline and self._goes_on() and not self._ordered(REPLAYED):
            time.sleep(TICK_SECONDS)
        self._load.rate.end("exact")
        self._resume()

    def _goes_on(self) -> bool:
        progress.check()
        if self._perf is not None and not self._perf.alive():
            self._perf.stop()
            raise RecordError("perf ended before the load did")
        return self._load.check() and not self._ordered(ENOUGH)

    def _ordered(self, name: str) -> bool:
        return os.path.exists(f"{self._directory}/{name}")
