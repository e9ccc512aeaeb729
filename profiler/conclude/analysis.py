"""conclude(): samples and code to an Analysis. The steps stand in their order."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from profiler import __version__
from profiler.conclude import annotate, exactly, modules, places, words
from profiler.conclude.confidence import confidence_of
from profiler.conclude.places import Source
from profiler.conclude.source_walk import SourceVerdict, walk_source
from profiler.conclude.sources import Sources, condition_text, whole_outcome
from profiler.debuginfo.c_preprocessor import Config
from profiler.debuginfo.code import architecture_of
from profiler.infer import calltree, verdict
from profiler.infer.decision import Decision
from profiler.infer.slice import OriginKind
from profiler.model import (
    ANALYSIS_SCHEMA,
    Analysis,
    Branch,
    Candidate,
    Conclusion,
    ErrorSite,
    EvidenceNote,
    ExecutionLog,
    KernelId,
    LoadResult,
    Manifest,
    PerfRecording,
    ProbeHits,
    SampleCounts,
)
from profiler.syscalls import NUMBERS

# System calls whose entry has another name than the call: (SYSCALL_DEFINE's name differs; arch/*/entry/syscalls).
ENTRY_NAMES = {
    "stat": "newstat",
    "fstat": "newfstat",
    "lstat": "newlstat",
    "newfstatat": "newfstatat",
    "uname": "newuname",
    "umount2": "umount",
    "sendfile": "sendfile64",
}
# Functions that call the entry function: they stand in the chain even where the entry left by a tail call.
DISPATCHERS = {"do_syscall_64", "x64_sys_call", "do_syscall_x64", "invoke_syscall", "__invoke_syscall"}
LEAST_OTHERS = 0.01  # share of calls that end in another way, from which on the user is told
LEAST_SAMPLES = 50  # below this no path is named
LEAST_CONFIDENCE = 0.8  # below this the verdict is inconclusive
_CANDIDATES_SHOWN = 25
_FUNCTIONS_PROFILED = 10


class KernelCode(exactly.RunningCode, modules.ModuleNames, Protocol):
    def histograms(self, addresses: NDArray[np.uint64]) -> Mapping[annotate.Key, annotate.Histogram]: ...

    def expression(self, entry: int, place: str) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Subject:
    """What is asked: which call, which errno, of which load, on which kernel."""

    syscall: str
    errno: str
    errno_number: int
    kernel: KernelId
    kaslr_offset: int
    emulated: bool
    manifest: Manifest | None
    load: LoadResult | None


def conclude(
    subject: Subject,
    data: PerfRecording,
    code: KernelCode,
    source: Source | None,
    config: Config | None = None,
    execution: ExecutionLog | None = None,
) -> Analysis:
    """The Analysis of one recording: of its samples, and of an execution log where there is one."""
    return concluded(subject, data, code, source, config, execution).analysis


def concluded(
    subject: Subject,
    data: PerfRecording,
    code: KernelCode,
    source: Source | None,
    config: Config | None = None,
    execution: ExecutionLog | None = None,
    probes: Sequence[ProbeHits] = (),
) -> Concluded:
    """From one recording: its samples, an execution log, and rounds of probes, as far as it has them."""
    with _collector_paused():
        case = _Case(subject, data, _rows_of_load(subject, data), code, source, config)
        return _conclude(case, execution, probes)


@dataclass(frozen=True, slots=True)
class Concluded:
    """`best` is the place that `analysis` names, or would name if it were sure; `weighed` all that may be it; `jump`
    the deciding jump's address."""

    analysis: Analysis
    best: verdict.Located | None = None
    jump: int | None = None
    weighed: Sequence[verdict.Located] = ()
    ran: Sequence[int] = ()  # functions with samples


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Graphs and walks live until the end: the garbage collector, which goes through them again and again as they
    grow, took 40% of the whole time and found nothing."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@dataclass(frozen=True, slots=True)
class _Case:
    """What is asked, and all there is to answer it with."""

    subject: Subject
    data: PerfRecording
    rows: NDArray[np.int64]  # of the samples that were taken in the load
    code: KernelCode
    source: Source | None
    config: Config | None

    def addresses(self) -> NDArray[np.uint64]:
        """Link addresses of the load's samples in the kernel."""
        kernel_rows = self.rows[self.data.samples.in_kernel[self.rows]]
        found: NDArray[np.uint64] = self.data.samples.ip[kernel_rows] - np.uint64(self.subject.kaslr_offset)
        return found


def _conclude(case: _Case, execution: ExecutionLog | None, probes: Sequence[ProbeHits]) -> Concluded:
    subject, code = case.subject, case.code
    counts = _counts(case.data, case.rows)
    blank = _blank(subject, counts, _warnings(subject, counts))
    if not subject.syscall or not subject.errno:
        functions = annotate.profile(case.source, code.histograms(case.addresses()), _FUNCTIONS_PROFILED)
        steps = [words.NAME_THE_CALL]
        return Concluded(replace(blank, reason=words.PROFILE_ONLY, functions=functions, next_steps=steps))
    if subject.load is not None and _not_reproduced(subject.errno, subject.load):
        reason = words.not_reproduced(subject.syscall, subject.errno, subject.load)
        return Concluded(replace(blank, conclusion=Conclusion.NOT_REPRODUCED, reason=reason))
    gathered = _gather(case)
    left_out = words.nameless(gathered.nameless, gathered.on_path)
    blank = replace(blank, samples=replace(counts, on_path=gathered.on_path), warnings=[*blank.warnings, *left_out])
    seen = _seen(case, gathered.root, execution, probes)
    if seen is not None:
        answer, note = seen
        if answer.paths[0].origin.kind == OriginKind.CALL and gathered.on_path >= LEAST_SAMPLES:
            weighed = _weigh(case, blank, gathered)
            if weighed.analysis.conclusion is Conclusion.NAMED:
                return _with_note(weighed, replace(note, says=f"{note.says}; {exactly.unprobed(answer, code)}"))
        warnings = [*blank.warnings, *exactly.other_outcomes(answer, code)]
        return _assemble(replace(blank, warnings=warnings), case, answer.candidates, note)
    if execution is not None or probes:
        missing = words.NO_WHOLE_CALL if execution is not None else words.NO_WHOLE_CALL_PROBED
        blank = replace(blank, warnings=[*blank.warnings, missing])
    return _weigh(case, blank, gathered)


def _with_note(concluded: Concluded, note: EvidenceNote) -> Concluded:
    analysis = concluded.analysis
    return replace(concluded, analysis=replace(analysis, evidence=[*analysis.evidence, note]))


def _seen(
    case: _Case, sampled: calltree.CallNode, execution: ExecutionLog | None, probes: Sequence[ProbeHits]
) -> tuple[exactly.Answer, EvidenceNote] | None:
    """What was seen as it ran: an execution log has every instruction, probes those of some functions."""
    asked, code = question(case.subject, case.code), case.code
    answer = exactly.locate(execution, asked, code, sampled) if execution is not None else None
    if answer is not None:
        return answer, exactly.says(answer)
    answer = exactly.locate_probed(probes, asked, code, sampled) if probes else None
    if answer is not None:
        return answer, exactly.probes_say(answer, probes, case.subject.errno_number, code.name)
    return None


def _weigh(case: _Case, blank: Analysis, gathered: calltree.Gathered) -> Concluded:
    """What samples alone make likely."""
    started = time.monotonic()
    subject, code = case.subject, case.code
    unread = modules.unread(gathered.nameless, gathered.on_path, code)
    if unread:
        reason = modules.reason_unread(subject.syscall, subject.errno, unread)
        return Concluded(
            replace(blank, reason=reason, next_steps=modules.remedy(unread, subject.kernel, subject.manifest))
        )
    entry = entry_function(subject, code)
    if code.symbol(entry) is None:
        return Concluded(replace(blank, reason=words.no_entry(subject.syscall, entry, subject.kernel.release)))
    if not len(case.data.samples.ip) and _takes_no_samples(subject):
        return Concluded(replace(blank, reason=words.NOTHING_SEEN, next_steps=[words.SEE_WHAT_RUNS]))
    if gathered.on_path < LEAST_SAMPLES:
        steps = ["record longer (--seconds) or more often (--frequency)", "check that the program repeats the call"]
        return Concluded(replace(blank, reason=words.too_few(subject.syscall, gathered.on_path), next_steps=steps))
    inference = verdict.Inference(code.graph, subject.errno_number, subject.emulated)
    candidates = verdict.candidates(inference.solve(gathered.root))
    found = _assemble(blank, case, candidates, _sampled(blank.samples, candidates, time.monotonic() - started))
    return replace(found, ran=_functions_below(gathered.root))


def _takes_no_samples(subject: Subject) -> bool:
    return subject.manifest is not None and not subject.manifest.event


def _functions_below(root: calltree.CallNode) -> list[int]:
    found, pending = dict[int, None](), [root]
    while pending:
        node = pending.pop(0)
        found.setdefault(node.entry)
        pending += node.children.values()
    return list(found)


def question(subject: Subject, code: KernelCode | None = None) -> exactly.Question:
    """What is looked for in what was seen as it ran; with the kernel's code, in the function it has for the call."""
    arch = subject.kernel.arch
    return exactly.Question(
        arch=arch,
        number=NUMBERS.get(arch, {}).get(subject.syscall, -1),
        errno=subject.errno_number,
        function=entry_function(subject, code) if code is not None else entry_symbol(subject.syscall, arch),
        offset=subject.kaslr_offset,
    )


def _rows_of_load(subject: Subject, data: PerfRecording) -> NDArray[np.int64]:
    """Indices of the samples taken in the load's processes; all of them where the load is not known."""
    if subject.load is None or subject.load.pid <= 0:
        return np.arange(len(data.samples.ip))
    pids = {subject.load.pid, *subject.load.processes}
    grown = True
    while grown:
        children = {child for child, parent in data.parents.items() if parent in pids} - pids
        pids |= children
        grown = bool(children)
    return np.flatnonzero(np.isin(data.samples.pid, sorted(pids)))


def _counts(data: PerfRecording, rows: NDArray[np.int64]) -> SampleCounts:
    return SampleCounts(
        total=len(data.samples.ip),
        in_load=len(rows),
        in_kernel=int(data.samples.in_kernel[rows].sum()),
        lost=data.lost,
        throttled=data.throttled,
    )


def _warnings(subject: Subject, counts: SampleCounts) -> list[str]:
    warnings = list(subject.manifest.warnings) if subject.manifest else []
    if counts.lost:
        share = counts.lost / (counts.lost + counts.total)
        warnings.append(f"{counts.lost} samples were lost ({share:.1%})")
    if counts.throttled:
        warnings.append(f"the kernel throttled sampling {counts.throttled} times: fewer samples than asked for")
    results = subject.load.results if subject.load else {}
    if 0 < results.get(subject.errno, 0) < (1 - LEAST_OTHERS) * sum(results.values()):
        warnings.append(words.mixture(subject.errno, results))
    if subject.load is not None and subject.load.stopped_by not in ("time", "") and subject.load.message:
        warnings.append(f"the load stopped by itself: {subject.load.message}")
    return warnings


def _not_reproduced(errno: str, load: LoadResult) -> bool:
    return bool(load.results) and not load.results.get(errno)


def _blank(subject: Subject, counts: SampleCounts, warnings: list[str]) -> Analysis:
    return Analysis(
        schema=ANALYSIS_SCHEMA,
        tool_version=__version__,
        syscall=subject.syscall,
        errno=subject.errno,
        errno_number=subject.errno_number,
        kernel=subject.kernel,
        conclusion=Conclusion.INCONCLUSIVE,
        reason="",
        error_site=None,
        branch=None,
        confidence=0.0,
        chain=[],
        candidates=[],
        evidence=[],
        samples=counts,
        functions=[],
        manifest=subject.manifest,
        load=subject.load,
        warnings=warnings,
    )


def entry_function(subject: Subject, code: KernelCode) -> str:
    """The system call's function; of a call that this kernel does not have the one that dispatches to all of them,
    where there is one (arch/x86/entry/syscall_64.c)."""
    entry = entry_symbol(subject.syscall, subject.kernel.arch)
    if code.symbol(entry) is None and code.symbol(_DISPATCHER) is not None:
        return _DISPATCHER
    return entry


_DISPATCHER = "x64_sys_call"


def entry_symbol(syscall: str, arch: str) -> str:
    """`__x64_sys_bind`"""
    return architecture_of(arch or "x86_64").conventions.syscall_prefix + ENTRY_NAMES.get(syscall, syscall)


def _gather(case: _Case) -> calltree.Gathered:
    samples, code, offset = case.data.samples, case.code, case.subject.kaslr_offset
    kernel_rows = case.rows[samples.in_kernel[case.rows]]
    chain = samples.chain - np.uint64(offset) if offset else samples.chain
    chains = calltree.unique_chains(samples.chain_start, chain, kernel_rows)
    function = entry_function(case.subject, code)
    entry = code.symbol(function)
    if entry is None or code.function_at(entry) is None:
        return calltree.Gathered(calltree.CallNode(0, "", None, None), 0, len(kernel_rows), 0)
    symbols = calltree.Symbols(code.owner_of, code.graph)
    if not any(len(chain) > 1 for chain, _ in chains):
        addresses, counts = np.unique(case.addresses(), return_counts=True)
        return calltree.gather_flat(dict(zip(addresses.tolist(), counts.tolist(), strict=True)), entry, symbols)
    return calltree.gather(chains, entry, DISPATCHERS - {function}, symbols)


def _assemble(blank: Analysis, case: _Case, candidates: list[verdict.Located], evidence: EvidenceNote) -> Concluded:
    subject, code = case.subject, case.code
    best = verdict.most_probable(candidates)
    if best is None:
        steps = ["check that the system call and errno are the ones the program shows (strace)"]
        return Concluded(replace(blank, reason=words.undecided(subject.syscall, subject.errno, []), next_steps=steps))
    decision = verdict.decide(best)
    sources = Sources(case.source, case.config)
    found = walk_source(code, sources.flow, best, decision, (subject.errno, subject.errno_number))
    site, branch = _in_source(code, best, decision, found, sources)
    confidence = confidence_of(best, decision, found)
    if branch is not None and branch.file.endswith(".S") and decision is not None and decision.kind != "fault":
        confidence *= 0.5  # what the entry code leaves in memory others may overwrite: they decide, by not doing so
    bare = modules.without_lines(best, decision, code)
    is_named = confidence >= LEAST_CONFIDENCE and not bare
    steps = modules.remedy(bare, subject.kernel, subject.manifest) if bare else words.longer(subject.manifest)
    if bare:
        reason = modules.reason_without_lines(subject.syscall, subject.errno, bare, site.address)
    elif is_named:
        reason = words.named(subject.syscall, subject.errno, site, branch)
    else:
        reason = words.undecided(subject.syscall, subject.errno, words.places(code, candidates, 0.05))
    if best.origin.kind == OriginKind.MEMORY and best.origin.place:
        reason += words.read_from(code.expression(best.calls[-1].node.entry, best.origin.place))
    analysis = replace(
        blank,
        conclusion=Conclusion.NAMED if is_named else Conclusion.INCONCLUSIVE,
        reason=reason,
        error_site=site,
        branch=branch,
        confidence=round(confidence, 4),
        chain=places.down_to(places.chain_of(code, best.calls, places.site_address(best)), branch),
        candidates=_candidates(code, candidates, best, site, branch),
        evidence=[evidence, *_source_evidence(found)],
        samples=replace(blank.samples, unexplained=_unexplained(best)),
        warnings=[*blank.warnings, *words.undecoded(call.graph for call in best.calls)],
        functions=annotate.annotate(code, sources, best, code.histograms(case.addresses()), site, branch),
        next_steps=[] if is_named else steps,
    )
    return Concluded(analysis, best, decision.address if decision is not None else None, candidates)


def _in_source(
    code: KernelCode,
    best: verdict.Located,
    decision: Decision | None,
    found: SourceVerdict | None,
    sources: Sources,
) -> tuple[ErrorSite, Branch | None]:
    """The site and the branch by the source's own walk, else by the debug lines of their instructions."""
    site = places.machine_site(code, best)
    branch = places.machine_branch(code, decision) if decision is not None else None
    if found is not None:
        site = replace(site, function=found.site.function, file=found.site.file, line=found.site.line)
        # A choice between pointers is none to the source's walk: the call that uses them is one statement.
        chosen = decision is not None and decision.kind == "pointer"
        if found.condition is not None and found.condition_at is not None and not chosen:
            at, node = found.condition_at, found.condition
            branch = Branch(
                function=at.function,
                file=at.file,
                line=at.line,
                address=branch.address if branch is not None else site.address,
                condition=condition_text(node),
                outcome=whole_outcome(node, found.outcome),
                inlined_from=list(found.inlined_from),
            )
    text = sources.text(site.file)
    if text is not None and 0 < site.line <= len(text):
        site = replace(site, text=text[site.line - 1].strip())
    return site, branch


def _unexplained(best: verdict.Located) -> int:
    """Samples in the functions of the chain that lie off the likeliest walk: detours, or a mixture of outcomes."""
    return sum(
        count
        for call, walked in annotate.walked_blocks(best)
        for start, count in call.samples.own.items()
        if start not in walked
    )


def _candidates(
    code: KernelCode,
    candidates: list[verdict.Located],
    best: verdict.Located,
    site: ErrorSite,
    branch: Branch | None,
) -> list[Candidate]:
    shown = []
    for candidate in candidates[:_CANDIDATES_SHOWN]:
        if candidate is best:
            shown.append(Candidate(site, branch, candidate.probability, None))
        else:
            reason = words.excluded_by(code, candidate, best)
            shown.append(Candidate(places.machine_site(code, candidate), None, candidate.probability, reason))
    return shown


def _source_evidence(found: SourceVerdict | None) -> list[EvidenceNote]:
    if found is None:
        return []
    agrees = "its condition is on a line of the deciding jump" if found.agrees else "no line of the deciding jump fits"
    says = f"the source was walked along the lines that ran: {found.site.file}:{found.site.line}; {agrees}"
    return [EvidenceNote("source", says, 0, round(found.seconds, 3))]


def _sampled(samples: SampleCounts, candidates: list[verdict.Located], seconds: float) -> EvidenceNote:
    excluded = sum(candidate.probability < 0.01 for candidate in candidates)
    says = (
        f"{samples.on_path} samples within the call, weighed over every walk that returns the errno: "
        f"{len(candidates)} places could return it, {excluded} of them have less than 1%"
    )
    return EvidenceNote("samples", says, excluded, round(seconds, 3))
