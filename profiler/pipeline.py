"""The road from end to end: record, analyze, and both. Read top to bottom; the recording half is in acquire."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from profiler import acquire, recording, tables
from profiler.case import Case, find_kernel, no_samples, open_case, read_samples
from profiler.conclude.analysis import Subject
from profiler.debuginfo.vmlinux import Vmlinux
from profiler.errors import MissingError, UsageError
from profiler.evidence import AUTO, DECIDING, EXACT, GRAPH, PROBES, RECORDED, RUNGS, SAMPLES
from profiler.ladder import Ladder
from profiler.model import LOGGED_REGISTERS, Analysis, Effort, ExecutionLog, Kernel, PerfRecording, ProbeHits
from profiler.parse import probe_hits
from profiler.request import Progress, RunRequest, check
from profiler.rungs import Recorded, complete
from profiler.syscalls import NUMBERS
from profiler.target import open_target

__all__ = ["Progress", "RunRequest", "analyze", "diagnose", "find_kernel", "open_case", "read_samples", "record"]


def diagnose(request: RunRequest, out: Path, *, force: bool = False, progress: Progress) -> Analysis:
    """Record until the verdict is decided, and analyze. Raises MissingError before it records where the kernel has no
    debug info here."""
    recording.check_free(out, force=force)
    check(request)
    target = open_target(request.target, progress=progress)
    target.check()
    taken = acquire.evidence_for(request, target)
    kernel = target.kernel()
    require_debug_info(kernel, request.target)
    assert kernel is not None
    ours = target.spec.startswith("vm:")
    ladder = Ladder(request, kernel, taken, emulated=target.emulated, ours=ours)
    acquire.record_on(target, request, out, force=force, steps=ladder, progress=progress)
    case = ladder.case_of(out) or open_case(out, kernel=kernel, progress=progress)
    return _analyze(out, case, AUTO, salvage=False, progress=progress)


def record(request: RunRequest, out: Path, *, force: bool = False, progress: Progress) -> Path:
    """Makes the Recording `out`, of all the time asked for, and returns it. Raises as `acquire.record_on`."""
    recording.check_free(out, force=force)
    check(request)
    return acquire.record_on(
        open_target(request.target, progress=progress), request, out, force=force, progress=progress
    )


def require_debug_info(kernel: Kernel | None, target: str) -> None:
    """Raises MissingError where a verdict would be out of reach."""
    if kernel is not None and kernel.vmlinux is not None:
        with Vmlinux(kernel.vmlinux) as vmlinux:
            vmlinux.require_lines()
        return
    release = kernel.release if kernel is not None else os.uname().release
    raise MissingError(
        f"no vmlinux with debug info for the kernel of {target}, {release}",
        hint=f"install it (Debian: linux-image-{release}-dbg, Ubuntu: linux-image-{release}-dbgsym)",
    )


def analyze(
    directory: Path,
    *,
    kernel: Kernel | None = None,
    salvage: bool = False,
    evidence: frozenset[str] = AUTO,
    progress: Progress,
) -> Analysis:
    """Concludes from the Recording `directory`, offline, and writes analysis.json into it.

    evidence  what of the recording to use; AUTO: all that it holds
    salvage   samples that are cut short are taken as far as they are whole, and a warning says so

    Raises MissingError where the kernel's vmlinux is not here, MismatchError where it is another's,
    InputError where the recording is damaged, UsageError where it does not hold the evidence asked for.
    """
    case = open_case(directory, kernel=kernel, progress=progress)
    return _analyze(directory, case, evidence, salvage=salvage, progress=progress)


def _analyze(directory: Path, case: Case, evidence: frozenset[str], *, salvage: bool, progress: Progress) -> Analysis:
    used = _evidence(directory, case.subject, evidence)
    progress("reading samples", None)
    data = read_samples(recording.samples_file(directory), salvage=salvage) if SAMPLES in used else no_samples()
    execution = recording.read_execution_log(directory) if EXACT in used else None
    probes = _rounds(directory) if PROBES in used else []
    progress("weighing paths", None)
    concluded = case.conclude(data, execution, probes)
    analysis = complete(case, concluded, Recorded(directory, used, data, execution, probes), progress)
    analysis = replace(analysis, effort=_effort(case.subject, used, data, execution))
    if salvage and data.decode_errors:
        analysis = replace(analysis, warnings=[*analysis.warnings, _salvaged(data)])
    recording.write_analysis(directory, analysis)
    tables.write_lines(directory, analysis)
    return analysis


def _rounds(directory: Path) -> list[ProbeHits]:
    """The rounds of probes, in their order."""
    found = sorted(directory.glob("probes-*.json"), key=lambda path: int(path.stem.partition("-")[2]))
    return [probe_hits.read(path.read_bytes(), path.with_suffix(".bin").read_bytes()) for path in found]


def _evidence(directory: Path, subject: Subject, asked: frozenset[str]) -> frozenset[str]:
    """What of `asked` to use. Where samples were taken and are not there, reading them will say so; where a log was
    to be taken and is not there, the load ended before it could be, and its results are all there is."""
    manifest = subject.manifest
    sampled = manifest is None or manifest.event != ""
    held = set()
    if (directory / recording.EXECUTION_LOG).exists():
        held.add(EXACT)
    held |= {rung for rung in (GRAPH, PROBES) if any(directory.glob(f"{rung}-*.json"))}
    if any((directory / name).exists() for name in recording.SAMPLES_FILES) or sampled:
        held.add(SAMPLES)
    missing = asked & RECORDED - held
    if missing:
        raise UsageError(
            f"{directory} holds no {' and no '.join(sorted(missing))} evidence",
            hint=f"it was recorded with --evidence {','.join(rung for rung in RUNGS if rung in held)}",
        )
    read_here = frozenset(RUNGS) - RECORDED
    if not asked:
        chosen = frozenset(manifest.rungs) if manifest is not None and manifest.rungs else frozenset(RUNGS)
        return (frozenset(held) | read_here) & (chosen | held)
    return asked


def _effort(
    subject: Subject, used: frozenset[str], data: PerfRecording, execution: ExecutionLog | None
) -> Effort | None:
    """None for an import, of which it is not known how long it took."""
    manifest = subject.manifest
    if manifest is None or manifest.target == "import":
        return None
    calls = 0
    if execution is not None and len(execution.address):
        rax = execution.registers[:, LOGGED_REGISTERS.index("rax")]
        entered = execution.address == execution.address[0]  # it begins with a call's first instruction
        calls = int(np.count_nonzero(entered & (rax == NUMBERS["x86_64"][subject.syscall])))
    return Effort(
        evidence=[rung for rung in DECIDING if rung in used],
        samples=len(data.samples.ip),
        seconds=manifest.seconds if SAMPLES in used else 0.0,
        calls=calls,
        instructions=len(execution.address) if execution is not None else 0,
        stopped_by=manifest.stopped_by,
    )


def _salvaged(data: PerfRecording) -> str:
    first = data.decode_errors[0]
    return f"the samples are not whole, and what was whole of them was taken: {first.what}"
