"""The function graph rung alone: record failing calls and succeeding ones, hold them side by side, cross places out.

Where a scenario has a variant that succeeds it is recorded apart, in the same session of the target. A program of
somebody's own may succeed by itself now and then; its calls are then told apart.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from loadgen.scenarios import SCENARIOS
from profiler import acquire, lab, recording
from profiler.conclude import graph_candidates
from profiler.conclude.analysis import entry_symbol
from profiler.conclude.sources import Sources
from profiler.debuginfo.c_preprocessor import read_config
from profiler.debuginfo.code import KernelCode
from profiler.debuginfo.lines import LineTable
from profiler.debuginfo.source import SourceTree
from profiler.debuginfo.traceable import traceable
from profiler.debuginfo.vmlinux import Vmlinux
from profiler.errors import MissingError, RecordError
from profiler.explain import source_half
from profiler.following import load_fields, run_recorder
from profiler.infer import graph_difference, landmarks, telling_apart
from profiler.model import GraphComparison, Kernel, LoadResult, SourceCandidate
from profiler.parse import function_graph
from profiler.parse.function_graph_types import CallTree
from profiler.request import Progress, RunRequest, check, errno_number, modules_for
from profiler.target import Session, open_target

ARCH = "x86_64"  # of every target there is so far
FAILING, SUCCEEDING = "failing", "succeeding"
RESULT = "graph.json"
_SECONDS = 600.0  # that all of it may take, under emulation on a busy machine
_TRACING = {FAILING: 1.0, SUCCEEDING: 3.0}  # seconds of tracing, at most; calls that succeed are paced


@dataclass(frozen=True, slots=True)
class GraphRequest:
    """`run`: the load, its target, the call and errno. `calls`: so many of each side."""

    run: RunRequest
    calls: int = 32


@dataclass(frozen=True, slots=True)
class GraphResult:
    """The rung's answer. `cut`: what the list of candidates leaves out."""

    syscall: str
    errno: str
    release: str
    target: str
    comparison: GraphComparison
    candidates: list[SourceCandidate] = field(default_factory=list)
    cut: str = ""
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def graph(request: GraphRequest, out: Path, *, progress: Progress) -> GraphResult:
    """Records into the directory `out`, which exists and is empty, and concludes; the answer is also kept there.

    Raises MissingError where the target has no function graph tracer, RecordError where another tracer is active or no
    call was recorded, TargetError, UsageError.
    """
    run = request.run
    check(run)
    target = open_target(run.target, progress=progress)
    target.check()
    progress("starting the target", None)
    with acquire.session_for(target, run, progress) as session:
        problems = _record(session, request, out, progress)
    progress("comparing the calls", None)
    result = conclude(request, out, target.kernel(), problems, progress)
    (out / RESULT).write_text(json.dumps(result.to_json(), indent=1) + "\n", encoding="utf-8")
    return result


# ---- recording ----


def orders(request: GraphRequest) -> list[dict[str, Any]]:
    """What to ask of the recorder: failing calls, then succeeding ones where the scenario knows how."""
    run = request.run
    entry = entry_symbol(run.syscall, ARCH)
    order = {"do": "graph", "function": entry, "calls": request.calls}
    succeeds = bool(run.scenario) and SCENARIOS[str(run.scenario)].success is not None
    return [{**order, "variant": side, "seconds": _TRACING[side]} for side in (FAILING, SUCCEEDING)[: 1 + succeeds]]


def _record(session: Session, request: GraphRequest, out: Path, progress: Progress) -> list[str]:
    """What went wrong with the succeeding calls, which one can do without. Raises what went wrong with the failing."""
    job = {**load_fields(request.run, session), "seconds": 0, "kernel_text": False, "orders": orders(request)}
    local = out / "job.json"
    local.write_text(json.dumps(job), encoding="utf-8")
    session.put(local, "job.json")
    local.unlink()
    answers: dict[int, dict[str, Any]] = {}

    def note(message: dict[str, Any]) -> None:
        if "progress" in message:
            progress(str(message.get("phase", "recording")), float(message["progress"]))
        elif "answered" in message:
            answers[int(message["answered"])] = message

    run_recorder(session, "job.json", "out", _SECONDS, note)
    first = answers.get(0, {"problem": "the load ended before its calls could be traced"})
    if first["problem"]:
        kind = MissingError if first.get("kind") == "missing" else RecordError
        raise kind(str(first["problem"]), hint=str(first.get("hint", "")))
    session.get("out", out / "out")
    for file in (out / "out").iterdir():
        file.rename(out / file.name)
    (out / "out").rmdir()
    return [
        f"no succeeding calls: {answer['problem']}"
        for number, answer in answers.items()
        if number and answer["problem"]
    ]


# ---- concluding ----


@dataclass(frozen=True, slots=True)
class Trace:
    """One side's trace. `lost`: events that its text says are missing. `report`: how it was made, by the recorder."""

    trees: list[CallTree]
    lost: int
    report: dict[str, Any]

    @property
    def complete(self) -> bool:
        """Whether what is not in a whole call was not called: every function was traced, and nothing lost within.

        A full buffer keeps what came first, and drops the rest: as long as all of it came from one CPU, a call
        that is there to its end has no hole.
        """
        buffers = self.report.get("buffers", {}).values()
        one_buffer = sum(1 for buffer in buffers if buffer.get("entries")) <= 1
        overwritten = any(buffer.get("overrun") for buffer in buffers)
        return not self.lost and not overwritten and (one_buffer or not self.report.get("lost"))


def read_trace(directory: Path, number: int, entry: str) -> Trace | None:
    """The trace of order `number`; None where there is none. Raises InputError on one that is damaged."""
    path = directory / f"graph-{number}.txt"
    report = directory / f"graph-{number}.json"
    if not path.is_file() or not report.is_file():
        return None
    trees: list[CallTree] = []
    lost = 0
    for part in function_graph.parts(path):
        trees += function_graph.calls(part, entry)
        lost += part.lost
    made = json.loads(report.read_text(encoding="utf-8"))
    return Trace(trees, lost, made)


def conclude(
    request: GraphRequest, directory: Path, kernel: Kernel | None, problems: Sequence[str], progress: Progress
) -> GraphResult:
    """From what was recorded. Raises RecordError where the trace has no whole call."""
    run = request.run
    entry = entry_symbol(run.syscall, ARCH)
    failing, succeeding = read_trace(directory, 0, entry), read_trace(directory, 1, entry)
    if failing is None or not failing.trees:
        raise _nothing_recorded(entry, failing)
    told = tell(run.errno, failing, recording.read_load(directory), succeeding)
    comparison = graph_difference.compare(
        graph_difference.undisturbed(told.failing)[: request.calls],
        graph_difference.undisturbed(told.succeeding)[: request.calls],
        told.how,
    )
    warnings = [*problems, *_warnings(run, failing, told)]
    if succeeding is not None:
        warnings += _warnings_of(succeeding)
    result = GraphResult(run.syscall, run.errno, "", run.target, comparison, warnings=warnings)
    if kernel is None:
        return result
    result = replace(result, release=kernel.release)
    if not told.failing:
        return result
    progress("looking through the source", None)
    try:
        return _crossed_out(result, kernel, modules_for(run), failing, told.failing)
    except MissingError as error:
        return replace(result, warnings=[*warnings, f"no places in the source are crossed out: {error}"])


def tell(
    errno: str, failing: Trace, load: LoadResult | None, succeeding: Trace | None = None
) -> telling_apart.Told[CallTree]:
    """Which calls are of which side. The scenario's successes come from a trace of their own."""
    results = load.results if load is not None else {}
    counted = sum(results.values())
    share = results.get(errno, 0) / counted if counted else None
    told = telling_apart.tell_apart(failing.trees, errno_number(errno), share)
    if succeeding is None:
        return told
    others = telling_apart.tell_apart(succeeding.trees, errno_number(errno), 0.0)
    return replace(told, succeeding=others.succeeding)


def ran_in(trace: Trace, failing: Sequence[CallTree], vmlinux: Vmlinux) -> landmarks.Traced:
    """What the failing calls of a trace called, and what it would have shown if they had."""
    limited_to = frozenset(trace.report.get("limited_to", []))
    known = traceable(vmlinux)
    return landmarks.traced(failing, known & limited_to if limited_to else known, complete=trace.complete)


def _crossed_out(
    result: GraphResult, kernel: Kernel, modules: Sequence[str], trace: Trace, failing: list[CallTree]
) -> GraphResult:
    """Raises MissingError where the kernel's source or vmlinux is not at hand."""
    listed = source_half(kernel, result.syscall, result.errno, modules=modules)
    if kernel.vmlinux is None or kernel.source is None:
        raise MissingError(f"no vmlinux of {kernel.release} on this machine")
    vmlinux = Vmlinux(kernel.vmlinux)
    code = KernelCode(vmlinux, LineTable.open(vmlinux, cache_dir=lab.cache_directory() / "symcache"))
    config = (
        read_config(kernel.config.read_text(errors="replace")) if kernel.config and kernel.config.is_file() else None
    )
    candidates = graph_candidates.cross_out(
        listed.candidates, ran_in(trace, failing, vmlinux), code, Sources(SourceTree(kernel.source), config).flow
    )
    return replace(result, candidates=candidates, cut=listed.cut)


def _nothing_recorded(entry: str, trace: Trace | None) -> RecordError:
    said = " ".join(str(warning) for warning in trace.report.get("warnings", [])) if trace else ""
    return RecordError(
        f"the trace has no whole call of {entry}{f' ({said})' if said else ''}",
        hint="a call that a seccomp filter refuses, or that this kernel does not have, never comes there",
    )


def _warnings(run: RunRequest, failing: Trace, told: telling_apart.Told[CallTree]) -> list[str]:
    warnings = _warnings_of(failing)
    if not told.failing:
        warnings.append(f"no call that failed with {run.errno} is in the trace")
    return warnings


def _warnings_of(trace: Trace) -> list[str]:
    warnings = [str(warning) for warning in trace.report.get("warnings", [])]
    if not trace.complete:
        warnings.append("events of the trace were lost, so that what is absent may have been called: no place is out")
    return warnings
