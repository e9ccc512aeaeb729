"""What each rung adds to a verdict: the ladder of an Analysis, in the order of profiler.evidence.RUNGS."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from profiler import explain, manual, recording
from profiler.case import Case
from profiler.conclude import graph_candidates, kernel_log, meaning, operands
from profiler.conclude.analysis import Concluded, entry_symbol
from profiler.conclude.crossing_out import Ran, cross_out, of_addresses
from profiler.conclude.operands_logged import passes, probed
from profiler.conclude.sources import Sources
from profiler.errors import ProfilerError
from profiler.evidence import EXACT, GRAPH, LOG, MAN, PROBES, RUNGS, SAMPLES, SOURCE
from profiler.graph_rung import Trace, ran_in, read_trace, tell
from profiler.infer import graph_difference
from profiler.model import (
    Analysis,
    Conclusion,
    EvidenceNote,
    ExecutionLog,
    GraphComparison,
    PerfRecording,
    ProbeHits,
    RungState,
    SourceCandidate,
)
from profiler.parse import kernel_log as log_text
from profiler.parse.function_graph import CallTree
from profiler.request import Progress


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a recording holds of what was asked for; `used` are the rungs that count."""

    directory: Path
    used: frozenset[str]
    data: PerfRecording
    execution: ExecutionLog | None
    probes: list[ProbeHits]


@dataclass(slots=True)
class _Ladder:
    """The rungs' notes as they come, and the verdict as they complete it."""

    analysis: Analysis
    notes: dict[str, EvidenceNote] = field(default_factory=dict)


def complete(case: Case, concluded: Concluded, recorded: Recorded, progress: Progress) -> Analysis:
    """The verdict with what the other rungs say, and the ladder."""
    analysis = concluded.analysis
    ladder = _Ladder(analysis, {note.source: note for note in analysis.evidence})
    if analysis.conclusion is Conclusion.NOT_REPRODUCED or not analysis.syscall or not analysis.errno:
        return analysis
    _compare_samples(ladder, case, recorded)
    _add_values(ladder, case, concluded, recorded)
    if MAN in recorded.used:
        _add_meaning(ladder)
    if LOG in recorded.used and (recorded.directory / recording.KERNEL_LOG).is_file():
        _add_log(ladder, recorded.directory)
    trace = _add_graph(ladder, recorded) if GRAPH in recorded.used else None
    if SOURCE in recorded.used:
        progress("looking through the source", None)
        _add_source(ladder, case, recorded, trace, _modules_of(case, concluded))
    return replace(ladder.analysis, evidence=_in_order(ladder, case, recorded))


def _compare_samples(ladder: _Ladder, case: Case, recorded: Recorded) -> None:
    """What samples alone say, beside what was seen as it ran."""
    exact = next((rung for rung in (EXACT, PROBES) if rung in ladder.notes), None)
    if exact is None or SAMPLES in ladder.notes or not len(recorded.data.samples.ip):
        return
    alone = case.conclude(recorded.data).analysis
    note = next((note for note in alone.evidence if note.source == SAMPLES), None)
    if note is None:
        note = EvidenceNote(SAMPLES, alone.reason, 0, 0.0)
    site, other = ladder.analysis.error_site, alone.error_site
    if other is not None and alone.conclusion is Conclusion.NAMED:
        place = f"{other.function} at {other.file}:{other.line}"
        note = replace(note, says=f"{note.says}; alone they name {place} ({alone.confidence:.2f})")
        if site is not None and (site.file, site.line) != (other.file, other.line):
            note = replace(note, disagrees=f"with {exact}, which names {site.function} at {site.file}:{site.line}")
    ladder.notes[SAMPLES] = note


def _add_values(ladder: _Ladder, case: Case, concluded: Concluded, recorded: Recorded) -> None:
    """The operands of the deciding condition, from whatever has registers where it was decided."""
    branch = ladder.analysis.branch
    if branch is None or concluded.jump is None:
        return
    try:
        planned = operands.plan(case.code, branch, concluded.jump, case.source)
    except (ProfilerError, LookupError):
        return
    if planned is None:
        return
    offset = case.subject.kaslr_offset
    known = []
    points = {point.address: point for point in planned.points(offset)}
    for path in sorted(recorded.directory.glob("operands-*.json")):
        hits = json.loads(path.read_text(encoding="utf-8")).get("hits", [])
        known += [planned.known(hit["values"]) for hit in hits if hit.get("address") in points]
    if recorded.execution is not None:
        known += passes(recorded.execution, offset, planned.address, case.code.executed)
    for hits in recorded.probes[-1:]:  # their registers alone: between them memory may have been written
        known += probed(planned, hits, offset)
    if known:
        ladder.analysis = replace(ladder.analysis, branch=operands.with_values(planned, known, offset))


def _add_meaning(ladder: _Ladder) -> None:
    started = time.monotonic()
    analysis = ladder.analysis
    branch = analysis.branch if analysis.conclusion is Conclusion.NAMED else None
    found = meaning.meaning(
        manual.read(analysis.syscall),
        analysis.errno,
        condition=branch.condition if branch is not None else None,
        function=branch.function if branch is not None else "",
        file=branch.file if branch is not None else "",
        chain=[link.function for link in analysis.chain],
    )
    missing = manual.advice(analysis.syscall) if found is None else ""
    ladder.analysis = replace(analysis, meaning=found)
    ladder.notes[MAN] = meaning.note(found, round(time.monotonic() - started, 3), missing)


def _add_log(ladder: _Ladder, directory: Path) -> None:
    started = time.monotonic()
    analysis = ladder.analysis
    with (directory / recording.KERNEL_LOG).open(encoding="utf-8", errors="replace") as text:
        load = analysis.load
        lines = kernel_log.read(
            log_text.read(text), pid=load.pid if load is not None else 0, comm=load.comm if load is not None else ""
        )
    before = kernel_log.before_verdict(lines)
    reason = f"{before} {analysis.reason}" if before else analysis.reason
    ladder.analysis = replace(analysis, kernel_log=lines, reason=reason)
    problem = kernel_log.unread(analysis.warnings)
    ladder.notes[LOG] = kernel_log.note(lines, round(time.monotonic() - started, 3), problem)


@dataclass(frozen=True, slots=True)
class _Traced:
    trace: Trace
    failing: list[CallTree]


def _add_graph(ladder: _Ladder, recorded: Recorded) -> _Traced | None:
    """The functions of the failing calls, side by side with those of succeeding ones where the load has some."""
    started = time.monotonic()
    analysis = ladder.analysis
    try:
        trace = read_trace(recorded.directory, 0, entry_symbol(analysis.syscall, analysis.kernel.arch))
    except ProfilerError as error:
        ladder.notes[GRAPH] = EvidenceNote(GRAPH, str(error), 0, 0.0, RungState.NOT_POSSIBLE)
        return None
    if trace is None or not trace.trees:
        return None
    told = tell(analysis.errno, trace, analysis.load)
    if not told.failing:
        ladder.notes[GRAPH] = EvidenceNote(GRAPH, "no call that failed so is in the trace", 0, 0.0)
        return None
    comparison = graph_difference.compare(told.failing, told.succeeding, told.how)
    ladder.analysis = replace(analysis, graph=comparison)
    seconds = round(time.monotonic() - started, 3)
    ladder.notes[GRAPH] = EvidenceNote(GRAPH, _graph_says(comparison, trace), 0, seconds)
    return _Traced(trace, list(told.failing))


def _graph_says(comparison: GraphComparison, trace: Trace) -> str:
    functions = len({line.function for line in comparison.lines if line.failing})
    says = f"{comparison.failing_calls} failing calls went through {functions} functions"
    if comparison.divergence:
        says += f"; {comparison.divergence}"
    return says if trace.complete else f"{says}; events were lost, so that what is absent may have been called"


def _add_source(ladder: _Ladder, case: Case, recorded: Recorded, traced: _Traced | None, modules: set[str]) -> None:
    """Every place in the source that can return the errno, crossed out rung by rung."""
    started = time.monotonic()
    analysis = ladder.analysis
    try:
        listed = explain.source_half(case.kernel, analysis.syscall, analysis.errno, modules=modules)
    except ProfilerError as error:
        ladder.notes.setdefault(SOURCE, EvidenceNote(SOURCE, f"{error} ({error.hint})", 0, 0.0, RungState.NOT_POSSIBLE))
        return
    found = listed.candidates
    if traced is not None:
        found = _without_what_graph_excludes(found, case, traced)
    found = _without_what_did_not_run(found, case, recorded, analysis)
    excluded = {rung: sum(candidate.excluded_by == rung for candidate in found) for rung in RUNGS}
    for rung, count in excluded.items():
        if rung in ladder.notes and count:
            ladder.notes[rung] = replace(ladder.notes[rung], excluded=count)
    walked = ladder.notes.get(SOURCE)
    says = f"{len(found)} places in the source can return {analysis.errno}"
    says += f", other rungs cross out {sum(excluded.values())} of them" if any(excluded.values()) else ""
    says += f"; {listed.cut}" if listed.cut else ""
    says += f"; {walked.says}" if walked is not None else ""
    ladder.notes[SOURCE] = EvidenceNote(SOURCE, says, 0, round(time.monotonic() - started, 3))
    ladder.analysis = replace(analysis, source_candidates=found)


def _modules_of(case: Case, concluded: Concluded) -> set[str]:
    """The modules that functions of the chain are of."""
    calls = concluded.best.calls if concluded.best is not None else ()
    found = [case.code.module_at(call.node.entry) for call in calls]
    return {module.loaded.name for module in found if module is not None}


def _without_what_graph_excludes(found: list[SourceCandidate], case: Case, traced: _Traced) -> list[SourceCandidate]:
    ran = ran_in(traced.trace, traced.failing, case.code.vmlinux)
    flow = Sources(case.source, case.config).flow
    return graph_candidates.cross_out(found, ran, case.code, flow)


def _without_what_did_not_run(
    found: list[SourceCandidate], case: Case, recorded: Recorded, analysis: Analysis
) -> list[SourceCandidate]:
    """By what was seen as it ran: of probes, in the functions alone that were probed."""
    site = analysis.error_site if analysis.conclusion is Conclusion.NAMED else None
    code, offset = case.code, case.subject.kaslr_offset
    if recorded.execution is not None:
        addresses = np.unique(recorded.execution.address - np.uint64(offset)).tolist()
        ran = of_addresses(code, addresses, complete=True)
        found = cross_out(found, {EXACT: ran}, site, has_code=lambda name: code.symbol(name) is not None)
    elif recorded.probes:
        hits = recorded.probes[-1]
        probed = of_addresses(code, (address - offset for address in hits.attached), complete=True)
        addresses = np.unique(hits.address[~hits.is_return] - np.uint64(offset)).tolist()
        ran = of_addresses(code, addresses, complete=True)
        found = cross_out(
            found,
            {PROBES: Ran(ran.functions, ran.lines)},
            site,
            has_code=lambda name: name in probed.functions,
            lines_of_code=probed.lines or frozenset(),
        )
    else:
        found = cross_out(found, {}, site, has_code=lambda _: False)
    return found


def _in_order(ladder: _Ladder, case: Case, recorded: Recorded) -> list[EvidenceNote]:
    """Every rung with its state, what it took on the target, and what it cost the load."""
    manifest = case.subject.manifest
    rates = manifest.rates if manifest is not None else {}
    base = rates.get("none", 0.0)
    found = [note for source, note in ladder.notes.items() if source not in RUNGS]
    for rung in RUNGS:
        note = ladder.notes.get(rung) or _not_taken(rung, case, recorded)
        if rung in rates and base > 0:
            note = replace(note, overhead=round(max(0.0, 1 - rates[rung] / base), 4))
        seconds = _seconds_recorded(rung, case, recorded)
        found.append(replace(note, seconds=round(note.seconds + seconds, 3)))
    return found


def _seconds_recorded(rung: str, case: Case, recorded: Recorded) -> float:
    manifest = case.subject.manifest
    if manifest is None or rung not in recorded.used:
        return 0.0
    if rung == SAMPLES:
        return manifest.seconds
    words = {GRAPH: ("graph",), PROBES: ("probes", "operands")}.get(rung, ())
    return sum(float(order["seconds"]) for order in manifest.orders if order["do"] in words)


def _not_taken(rung: str, case: Case, recorded: Recorded) -> EvidenceNote:
    manifest = case.subject.manifest
    problems = [order for order in (manifest.orders if manifest is not None else []) if order["do"] == rung]
    problem = next((order for order in problems if order["problem"]), None)
    if problem is not None:
        hint = f" ({problem['hint']})" if problem.get("hint") else ""
        return EvidenceNote(rung, f"{problem['problem']}{hint}", 0, 0.0, RungState.NOT_POSSIBLE)
    if manifest is not None and manifest.rungs and rung not in manifest.rungs:
        return EvidenceNote(rung, "not among those asked for", 0, 0.0, RungState.NOT_ASKED)
    if rung == EXACT and manifest is not None and not manifest.emulated:
        return EvidenceNote(rung, "the target is no emulated guest", 0, 0.0, RungState.NOT_POSSIBLE)
    if rung in recorded.used:
        return EvidenceNote(rung, "it told nothing of these calls", 0, 0.0)
    return EvidenceNote(rung, "the verdict was decided without it", 0, 0.0, RungState.NOT_NEEDED)
