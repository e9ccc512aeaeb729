"""One recording on the target, from the set-up of the load to the last file: read `record` top to bottom.

Files in the output directory have the names that profiler.recording gives them (not imported: pathlib and
dataclasses are slow to import in an emulated guest; a test holds both together).
"""

import json
import os
import sys
import time

from profiler.errors import RecordError
from profiler.record import facts, kallsyms, kcore, modules, progress
from profiler.record.count import OTHER, ResultCounter
from profiler.record.course import BEGINS, ENDS, Course
from profiler.record.guardian import Guardian
from profiler.record.job import Job
from profiler.record.kernel_log import KernelLog
from profiler.record.load import Load, ProgramLoad, ScenarioLoad
from profiler.record.orders import Orders, Place
from profiler.record.perf import PerfRecord, choose_event, find_perf, perf_version

PERF_DATA = "perf.data"
KALLSYMS = "kallsyms"
LOAD = "load.json"
KERNEL_LOG = "kernel.log"
KERNEL_TEXT = "kernel_text"
MODULES = "modules.json"
MODULES_TEXT = "modules_text"
CONFIG = "config"
RECORD = "record.json"

SYSCALL_ENTRY = "entry_SYSCALL_64"
END_GRACE = 5.0  # seconds that a load may take to end


class Capture:
    """The state of one recording. `record` runs it; `close` leaves nothing running, whatever happened before."""

    def __init__(self, job: Job, out: str, orders: str) -> None:
        self.job = job
        self.out = out
        self.orders = orders  # the directory where the host's orders appear
        self.warnings: list[str] = []
        self.phases: dict[str, float] = {}
        self._phase_started = time.monotonic()
        self._modules = modules.Loaded()
        self._load: Load | None = None
        self._perf: PerfRecord | None = None
        self._counter: ResultCounter | None = None
        self._guardian = Guardian()
        self._log = KernelLog()

    def record(self) -> None:
        """Raises MissingError, RecordError or UsageError. record.json is written last: without it nothing is whole."""
        kallsyms.check_shown()
        job = self.job
        perf = find_perf() if job.seconds or job.program else ""
        version = perf_version(perf) if perf else ""
        event = choose_event(perf, job.event, self.out) if job.seconds else ""
        rate_before = self._check_rate() if job.seconds else 0
        self._finish_phase("prepare", 0.03)
        load = self._prepare_load()
        recording = self._start_perf(perf, event) if job.seconds else None
        self._start_counting(perf, load)
        self._read_kernel(load)
        self._log.load_begins(load.pid)
        course = Course(job, load, recording, Orders(Place(job, load, self.out), self.orders), self.orders)
        course.run()
        self._finish_phase("record", ENDS)
        result = self._stop(load, recording)
        self._check_lowered(rate_before)
        result["processes"] = sorted(course.processes)
        self._collect(result)
        self._write_facts(event, version, course.sampled, result)

    def close(self) -> None:
        for part in (self._load, self._perf, self._counter):
            if part is not None:
                part.end()
        self._log.close()
        self._guardian.release()

    # ---- the steps, in their order ----

    def _prepare_load(self) -> Load:
        job = self.job
        load: Load = ScenarioLoad(job, f"{self.out}/{LOAD}") if job.scenario else ProgramLoad(job)
        self._load = load
        load.prepare()
        self._guard(load.groups())
        self._finish_phase("set up the load", 0.05)
        return load

    def _start_perf(self, perf: str, event: str) -> PerfRecord:
        self._perf = PerfRecord(perf, event=event, frequency=self.job.frequency, output=f"{self.out}/{PERF_DATA}")
        self._perf.start()
        self._guard([self._perf.pid])
        self.warnings += [f"perf does without {flag}" for flag in self._perf.dropped_flags]
        self._finish_phase("start perf", 0.08)
        return self._perf

    def _start_counting(self, perf: str, load: Load) -> None:
        """Only for a program: a scenario's load counts by itself."""
        job = self.job
        if job.scenario:
            return
        self._counter = ResultCounter(
            perf,
            syscall_number=job.syscall_number,
            errno=job.errno,
            errno_number=job.errno_number,
            output=f"{self.out}/counts",
        )
        problem = self._counter.start(load.pid)
        if problem:
            self.warnings.append(f"the program's system calls are not counted: {problem}")
            self._counter = None
            return
        self._guard([self._counter.pid])
        self._finish_phase("start counting", 0.09)

    def _read_kernel(self, load: Load) -> None:
        """Before the load runs: symbols, and the text as perf's events have it patched, even while they pause."""
        if self._perf is not None:
            self._perf.pause()
        symbols = kallsyms.read()
        self._write_bytes(KALLSYMS, symbols)
        addresses = kallsyms.text_addresses(symbols)
        if self.job.kernel_text:
            self._read_text(addresses["_stext"], addresses["_etext"])
        entry = kallsyms.address_of(symbols, SYSCALL_ENTRY)
        progress.say({"load": load.pid, "syscall_entry": entry})
        self._finish_phase("read the kernel's text", BEGINS)

    def _read_text(self, start: int, end: int) -> None:
        try:
            kcore.compress(kcore.read_text(start, end), f"{self.out}/{KERNEL_TEXT}")
        except RecordError as error:
            self.warnings.append(f"the kernel's text is not recorded: {error}")
        self._modules.note(text=True)
        self._modules.write(f"{self.out}/{MODULES}", f"{self.out}/{MODULES_TEXT}")

    def _stop(self, load: Load, recording: PerfRecord | None) -> dict[str, object]:
        """The load first, because on one CPU it would starve perf of the time to finish its file."""
        counts = self._counter.stop() if self._counter else None
        result = load.finish(grace=END_GRACE)
        if recording is not None:
            self._warn_of(recording.stop())
        if counts is not None:
            result["results"] = counts
            result["calls"] = sum(counts.values())
        if OTHER in (counts or {}):
            self.warnings.append(f"{(counts or {})[OTHER]} calls failed with an errno that has no counter of its own")
        self._finish_phase("stop", 0.9)
        return result

    def _collect(self, result: dict[str, object]) -> None:
        kallsyms.copy(f"{self.out}/{KALLSYMS}")
        self._write(LOAD, json.dumps(result, indent=1) + "\n")
        self._modules.note(text=self.job.kernel_text)  # those that the load brought in
        self._modules.write(f"{self.out}/{MODULES}", f"{self.out}/{MODULES_TEXT}")
        lines = self._log.lines()
        if self._log.problem:
            self.warnings.append(self._log.problem)
        self._write(KERNEL_LOG, "".join(f"{line}\n" for line in lines))
        facts.copy_config(f"{self.out}/{CONFIG}", os.uname().release)
        self._finish_phase("collect", 0.98)

    def _write_facts(self, event: str, version: str, seconds: float, result: dict[str, object]) -> None:
        addresses = kallsyms.text_addresses(kallsyms.read(f"{self.out}/{KALLSYMS}"))
        commands = [self._perf.argv] if self._perf is not None else []
        if self._counter is not None:
            commands.append(self._counter.argv(int(str(result["pid"]))))
        record = {
            **facts.machine(),
            "addresses": addresses,
            "event": event,
            "frequency": self.job.frequency if event else 0,
            "seconds": round(seconds, 6),
            "commands": commands,
            "tool_versions": {**({"perf": version} if version else {}), "python": _python_version()},
            "phases": {name: round(length, 3) for name, length in self.phases.items()},
            "rates": self._load.rate.rates() if self._load else {},
            "warnings": self.warnings,
        }
        self._write(f".{RECORD}", json.dumps(record, indent=1) + "\n")
        os.rename(f"{self.out}/.{RECORD}", f"{self.out}/{RECORD}")

    # ---- small things ----

    def _check_rate(self) -> int:
        limit = facts.max_sample_rate()
        if 0 < limit < self.job.frequency:
            self.warnings.append(
                f"the kernel allows {limit} samples a second and CPU of the {self.job.frequency} asked for "
                "(kernel.perf_event_max_sample_rate)"
            )
        return limit

    def _check_lowered(self, before: int) -> None:
        after = facts.max_sample_rate()
        if 0 < after < before:
            self.warnings.append(
                f"the kernel lowered its limit from {before} to {after} samples a second and CPU while recording, "
                "because sampling took too long (kernel.perf_event_max_sample_rate)"
            )

    def _warn_of(self, printed: str) -> None:
        """perf's own words on losses and on a lowered frequency."""
        for line in printed.splitlines():
            if any(word in line.lower() for word in ("lost", "throttl", "warning")):
                self.warnings.append(f"perf: {line.strip()[:200]}")

    def _guard(self, groups: list[int]) -> None:
        for group in groups:
            self._guardian.guard(group)

    def _finish_phase(self, name: str, fraction: float) -> None:
        now = time.monotonic()
        self.phases[name] = self.phases.get(name, 0.0) + now - self._phase_started
        self._phase_started = now
        progress.report(fraction, name)

    def _write(self, name: str, text: str) -> None:
        self._write_bytes(name, text.encode())

    def _write_bytes(self, name: str, content: bytes) -> None:
        with open(f"{self.out}/{name}", "wb") as file:
            file.write(content)


def _python_version() -> str:
    return ".".join(str(part) for part in sys.version_info[:3])
