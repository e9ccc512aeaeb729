"""python3 -m profiler.record.doctor

Tries the rungs that need something of the target, each for a moment, and undoes what that switched on. A line of JSON
for each: {"rung": "graph", "ok": true, "says": "...", "fix": ""}.
"""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable

from profiler.errors import MissingError, ProfilerError, RecordError
from profiler.record import graph_tracing, journal, kallsyms, kernel_log, operands, perf, perf_event, tracefs
from profiler.record.progress import Interrupted, note_signals, say

# Of a system call that takes no time, changes nothing, and has no second name (as one without arguments has).
FUNCTION = "__x64_sys_getsid"
CALLS = 3
FREQUENCY = 1000


def log() -> str:
    """/dev/kmsg is opened as the recorder does."""
    reader = kernel_log.KernelLog()
    reader.close()
    if reader.problem:
        raise MissingError(reader.problem, hint="run as root, or: sysctl kernel.dmesg_restrict=0")
    return f"{kernel_log.PATH} opens"


def graph() -> str:
    """The function graph of three calls of this very process."""
    tracefs.check_function_tracing()
    tracing = graph_tracing.Tracing(FUNCTION, [FUNCTION], [], follow_children=False)
    try:
        tracing.begin([os.getpid()])
        tracefs.write(f"{tracing.path}/trace", "")
        tracefs.write(f"{tracing.path}/tracing_on", "1")
        for _ in range(CALLS):
            os.getsid(0)
        tracefs.write(f"{tracing.path}/tracing_on", "0")
        traced = tracefs.read(f"{tracing.path}/trace").count(f"{FUNCTION}(")
        where = (
            "in an instance of its own" if tracing.where == "instance" else "at the top level, for want of instances"
        )
    finally:
        tracing.end()
    if traced < CALLS:
        raise RecordError(f"function_graph runs, but traced {traced} of {CALLS} calls", hint="is the buffer too small?")
    return f"function_graph traced {CALLS} calls, {where}"


def samples() -> str:
    """perf records the whole machine for a moment, with the event that `run` would choose."""
    kallsyms.check_shown()
    program = perf.find_perf()
    version = perf.perf_version(program)
    directory = tempfile.mkdtemp(prefix="whyerrno-doctor-")
    try:
        event = perf.choose_event(program, "auto", directory)
        recording = perf.PerfRecord(program, event=event, frequency=FREQUENCY, output=f"{directory}/perf.data")
        try:
            recording.start()
            time.sleep(0.2)
            recording.stop()
        finally:
            recording.end()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    quality = "no PMU: samples land where interrupts come back on" if event == "cpu-clock" else "PMU"
    return f"perf {version} records {event} ({quality})"


def probes() -> str:
    """A probe of perf's counts three calls of this process; a definition for operands' values is taken, and removed."""
    address = kallsyms.address_of(kallsyms.read(), FUNCTION)
    if not address:
        raise MissingError(f"/proc/kallsyms has no address of {FUNCTION}", hint="run as root on an x86-64 kernel")
    _count_calls(address)
    refused: list[dict[str, object]] = []
    with operands.Group(f"{tracefs.PREFIX}_{os.getpid()}", operands.events_file()) as group:
        group.define(0, operands.Point(address, False, {"v0": "%ax:s64"}), refused)
    if refused:
        raise RecordError(f"kprobe_events refuses a definition: {refused[0]['says']}")
    return f"a kprobe counted {CALLS} calls, kprobe_events took a definition"


def _count_calls(address: int) -> None:
    kind = perf_event.kprobe_type()
    try:
        fd = perf_event.open_probe(kind, address, on_return=False, thread=os.getpid())
    except OSError as error:
        raise tracefs.refusal(f"a kprobe on {FUNCTION}", error, "made") from None
    try:
        perf_event.enable_all()
        for _ in range(CALLS):
            os.getsid(0)
        perf_event.disable_all()
        counted = perf_event.count(fd)
    finally:
        os.close(fd)
    if counted < CALLS:
        raise RecordError(f"a kprobe on {FUNCTION} counted {counted} of {CALLS} calls")


TRIALS: dict[str, Callable[[], str]] = {"log": log, "graph": graph, "samples": samples, "probes": probes}


def tried(trial: Callable[[], str]) -> dict[str, object]:
    """What came of one, whatever it raises."""
    started = time.monotonic()
    ok, fix = False, ""
    try:
        says = trial()
        ok = True
    except ProfilerError as error:
        says, fix = str(error.args[0]), error.hint
    except OSError as error:
        says = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
    return {"ok": ok, "says": says, "fix": fix, "seconds": round(time.monotonic() - started, 3)}


def main() -> int:
    try:
        journal.undo_leftovers()
    except ProfilerError as error:
        sys.stderr.write(f"{error}\n")
    try:
        for rung, trial in TRIALS.items():
            say({"rung": rung, **tried(trial)})
    except Interrupted:
        return 130
    finally:
        journal.put_all_back()
    return 0


if __name__ == "__main__":
    note_signals()
    sys.exit(main())
