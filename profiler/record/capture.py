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
from profiler.record.guardian import Guardian
from profiler.record.job import Job
from profiler.record.kernel_log import KernelLog
from profiler.record.load import Load, ProgramLoad, ScenarioLoad
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

TICK_SECONDS = 0.2
END_GRACE = 5.0  # seconds a load may overrun before it is told to end
RECORDING_STARTS, RECORDING_ENDS = 0.1, 0.85  # share of the progress bar


class Capture:
    """The state of one recording. `record` runs it; `close` leaves nothing running, whatever happened before."""

    def __init__(self, job: Job, out: str) -> None:
        self.job = job
        self.out = out
        self.warnings: list[str] = []
        self.phases: dict[str, float] = {}
        self._phase_started = time.monotonic()
        self._kernel_text = b""
        self._modules = modules.Loaded()
        self._load: Load | None = None
        self._perf: PerfRecord | None = None
        self._counter: ResultCounter | None = None
        self._guardian = Guardian()
        self._log = KernelLog()

    def record(self) -> None:
        """Raises MissingError, RecordError or UsageError. record.json is written last: without it nothing is whole."""
        kallsyms.check_shown()
        perf = find_perf()
        version = perf_version(perf)
        event = choose_event(perf, self.job.event, self.out)
        rate_before = self._check_rate()
        self._finish_phase("prepare", 0.03)
        load = self._prepare_load()
        recording = self._start_perf(perf, event)
        self._start_counting(perf, load)
        self._read_kernel_text()
        seconds = self._run(load, recording)
        result = self._stop(load, recording)
        self._check_lowered(rate_before)
        self._collect(result)
        self._write_facts(event, version, seconds, result)

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

    def _read_kernel_text(self) -> None:
        """While perf samples and before the load runs: the text as it is patched during the recording."""
        if not self.job.kernel_text:
            return
        try:
            addresses = kallsyms.text_addresses(kallsyms.read())
            self._kernel_text = kcore.read_text(addresses["_stext"], addresses["_etext"])
        except RecordError as error:
            self.warnings.append(f"the kernel's text is not recorded: {error}")
        self._modules.note(text=True)
        self._finish_phase("read the kernel's text", RECORDING_STARTS)

    def _run(self, load: Load, recording: PerfRecord) -> float:
        """Seconds from the release of the load to its end, or to the end of the time asked for."""
        load.release()
        started = time.monotonic()
        asked = self.job.seconds
        limit = asked + END_GRACE if self.job.scenario else asked
        while (elapsed := time.monotonic() - started) < limit and load.check():
            if not recording.alive():
                recording.stop()
                raise RecordError("perf ended before the load did")
            share = min(1.0, elapsed / asked)
            progress.report(RECORDING_STARTS + share * (RECORDING_ENDS - RECORDING_STARTS), "recording")
            time.sleep(min(TICK_SECONDS, limit - elapsed))
        elapsed = time.monotonic() - started
        self._finish_phase("record", RECORDING_ENDS)
        return elapsed

    def _stop(self, load: Load, recording: PerfRecord) -> dict[str, object]:
        """The load first, because on one CPU it would starve perf of the time to finish its file."""
        counts = self._counter.stop() if self._counter else None
        result = load.finish(grace=1.0)
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
        if self._kernel_text:
            kcore.compress(self._kernel_text, f"{self.out}/{KERNEL_TEXT}")
        self._modules.note(text=self.job.kernel_text)  # those that the load brought in
        self._modules.write(f"{self.out}/{MODULES}", f"{self.out}/{MODULES_TEXT}")
        lines = self._log.lines()
        if self._log.problem:
            self.warnings.append(self._log.problem)
        self._write(KERNEL_LOG, "".join(f"{line}\n" for line in lines))
        facts.copy_config(f"{self.out}/{CONFIG}", os.uname().release)
        self._finish_phase("collect", 0.98)

    def _write_facts(self, event: str, version: str, seconds: float, result: dict[str, object]) -> None:
        assert self._perf is not None
        addresses = kallsyms.text_addresses(kallsyms.read(f"{self.out}/{KALLSYMS}"))
        commands = [self._perf.argv]
        if self._counter is not None:
            commands.append(self._counter.argv(int(str(result["pid"]))))
        record = {
            **facts.machine(),
            "addresses": addresses,
            "event": event,
            "frequency": self.job.frequency,
            "seconds": round(seconds, 6),
            "commands": commands,
            "tool_versions": {"perf": version, "python": _python_version()},
            "phases": {name: round(length, 3) for name, length in self.phases.items()},
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
        with open(f"{self.out}/{name}", "w", encoding="utf-8") as file:
            file.write(text)


def _python_version() -> str:
    return ".".join(str(part) for part in sys.version_info[:3])
