"""What a report says of an Analysis, whatever the output: the headline, the origin, the notices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from profiler.model import (
    Analysis,
    AnnotatedFunction,
    AnnotatedLine,
    Branch,
    Conclusion,
    ErrorSite,
    SampleCounts,
    SourceLocation,
)
from reports import ladder
from reports.visible import count, counted, percent, place, prose, visible

LOST_IS_SEVERE = 0.05  # above this share of lost samples no versions are compared
_SEEN = ("graph", "samples", "probes", "exact")
_VALUES_IN_HEADLINE = 24  # characters
_TELLING_SECONDS = 0.05
ERROR_SITE = "error-site"
BRANCH = "branch"
CALL = "call"

CONCLUSION_WORDS = {
    Conclusion.NAMED: "Named",
    Conclusion.INCONCLUSIVE: "Inconclusive",
    Conclusion.NOT_REPRODUCED: "Not reproduced",
}


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the reader must know before believing the rest."""

    severe: bool
    text: str


def headline(analysis: Analysis) -> str:
    """The verdict in one short line."""
    if not analysis.syscall or not analysis.errno:
        return "Samples per source line"
    call, errno = visible(analysis.syscall), visible(analysis.errno)
    if analysis.conclusion is Conclusion.NOT_REPRODUCED:
        return f"{call}() did not fail with {errno}"
    if analysis.conclusion is Conclusion.NAMED and analysis.error_site is not None:
        where = f"{call}() fails with {errno} in {visible(analysis.error_site.function)}()"
        values = branch_values(analysis.branch)
        if analysis.branch is None or not 0 < len(values) <= _VALUES_IN_HEADLINE:
            return where
        return f"{where}: {values}" + ("" if analysis.branch.outcome else f" {branch_words(analysis.branch)}")
    return f"{call}() fails with {errno}, and the place is not certain"


def kernel_name(analysis: Analysis) -> str:
    """`Linux 6.1.0-56-cloud-amd64 (6.1.192-2), x86_64`"""
    kernel = analysis.kernel
    package = f" ({visible(kernel.package_version)})" if kernel.package_version else ""
    arch = f", {visible(kernel.arch)}" if kernel.arch else ""
    return f"Linux {visible(kernel.release) or 'of unknown release'}{package}{arch}"


def branch_words(branch: Branch) -> str:
    """What the deciding branch did, without its condition: `was true`."""
    if branch.outcome is None:
        return "decided"
    return "was true" if branch.outcome else "was false"


def branch_sentence(branch: Branch) -> str:
    where = place(branch.file, branch.line)
    if branch.condition is None:
        return f"the conditional jump at {visible(branch.address) or where} decided"
    return f"{prose(branch.condition)} {branch_words(branch)}"


def branch_values(branch: Branch | None) -> str:
    """The condition with what was in it, `16 > 0`; "" where nothing was captured."""
    return prose(branch.values) if branch is not None else ""


def operands(branch: Branch) -> list[tuple[str, str]]:
    """(expression, value) of what was captured at the branch; nothing where that is one and the condition shows it."""
    if len(branch.operands) == 1 and branch_values(branch):
        return []
    return [(prose(operand.expression), prose(operand.value)) for operand in branch.operands]


def lost_share(analysis: Analysis) -> float:
    """Lost samples as a share of all that the kernel tried to write, 0 to 1."""
    counts = analysis.samples
    tried = counts.total + counts.lost
    return counts.lost / tried if tried > 0 else 0.0


def notices(analysis: Analysis) -> list[Notice]:
    """Drops first, then every warning once, in order."""
    found = [Notice(True, text) for text in ladder.disagreements(analysis)]
    counts = analysis.samples
    if counts.lost > 0:
        share = lost_share(analysis)
        text = f"{counted(counts.lost, 'sample')} lost ({percent(share)} of those taken): absence proves less."
        found.append(Notice(share > LOST_IS_SEVERE, text))
    if counts.throttled > 0:
        text = f"perf was throttled {counted(counts.throttled, 'time')}: fewer samples than the frequency asked for."
        found.append(Notice(True, text))
    if counts.unexplained > 0.01 * counts.on_path:  # a stray sample is the rule, not news
        share = counts.unexplained / (counts.on_path + counts.unexplained)
        text = f"{percent(share)} of the samples in the functions shown ({count(counts.unexplained)}) lie off the path."
        found.append(Notice(share > 0.05, text))
    if analysis.manifest is not None and analysis.manifest.emulated and counts.total:
        found.append(
            Notice(False, "Recorded under emulation: shares of samples are shares of emulated work, not of time.")
        )
    warnings = [*analysis.warnings, *(analysis.manifest.warnings if analysis.manifest else [])]
    return found + [Notice(False, prose(text)) for text in dict.fromkeys(warnings) if not _is_count(text, counts)]


def _is_count(warning: str, counts: SampleCounts) -> bool:
    """Whether a warning only repeats what the counts of lost and throttled samples have said already."""
    return (counts.lost > 0 and "samples were lost" in warning) or (
        counts.throttled > 0 and "throttled sampling" in warning
    )


def origin_index(analysis: Analysis) -> int | None:
    """Which of `analysis.functions` the error comes from; None where there is none to show."""
    functions = analysis.functions
    if not functions:
        return None
    for wanted in (analysis.error_site, analysis.branch):
        for index in reversed(range(len(functions))):
            if wanted is not None and _holds(functions[index], wanted):
                return index
    return len(functions) - 1


def _holds(function: AnnotatedFunction, wanted: ErrorSite | Branch) -> bool:
    return function.function == wanted.function and (not wanted.file or function.file == wanted.file)


def marks_of(analysis: Analysis, function: AnnotatedFunction, line: AnnotatedLine) -> tuple[str, ...]:
    """The line's own marks and those that follow from the verdict: branch, error-site, call, in that order."""
    marks = set(line.marks)
    if _is_at(analysis.error_site, function, line):
        marks.add(ERROR_SITE)
    if _is_at(analysis.branch, function, line) or _inlined_at(analysis.branch, function, line):
        marks.add(BRANCH)
    return tuple(mark for mark in (BRANCH, ERROR_SITE, CALL) if mark in marks)


def _is_at(wanted: ErrorSite | Branch | None, function: AnnotatedFunction, line: AnnotatedLine) -> bool:
    return wanted is not None and line.line == wanted.line and _holds(function, wanted)


def _inlined_at(branch: Branch | None, function: AnnotatedFunction, line: AnnotatedLine) -> bool:
    """Whether the branch's code was inlined into this line."""
    here = (function.function, function.file, line.line)
    return branch is not None and any((o.function, o.file, o.line) == here for o in outer_places(branch))


def outer_places(branch: Branch) -> list[SourceLocation]:
    """What the branch's code was inlined into, outwards. A function that the compiler split (.part) is inlined into
    itself, which says nothing."""
    return [outer for outer in branch.inlined_from if outer.function != branch.function]


def has_source(function: AnnotatedFunction) -> bool:
    return any(line.text is not None for line in function.lines)


def source_advice(analysis: Analysis) -> str:
    """How to get the source text that is missing."""
    if analysis.manifest is not None and analysis.manifest.target.startswith("vm:"):
        version = visible(analysis.manifest.target.removeprefix("vm:"))
        return f"whyerrno kernels fetch {version}, then analyze this recording again"
    return "analyze again with the kernel source of exactly this build at hand"


def load_lines(analysis: Analysis) -> list[tuple[str, int, float]]:
    """(errno name or "success", count, share of the calls), most frequent first."""
    if analysis.load is None:
        return []
    calls = sum(analysis.load.results.values()) or 1
    ordered = sorted(analysis.load.results.items(), key=lambda item: (-item[1], item[0]))
    return [("success" if name == "0" else visible(name), number, number / calls) for name, number in ordered]


def evidence_kinds(analysis: Analysis) -> list[str]:
    """What the verdict rests on, of `Effort.evidence`: what was seen of the running kernel."""
    if analysis.effort is None:
        return ["samples"] if analysis.samples.total else []
    return [kind for kind in analysis.effort.evidence if kind in _SEEN] or analysis.effort.evidence


def evidence_words(analysis: Analysis) -> str:
    """`instruction log, probes and samples`"""
    return kinds_words(evidence_kinds(analysis))


def kinds_words(kinds: Sequence[str]) -> str:
    """The stronger evidence first, that is the rungs from the top of the ladder down."""
    words = [ladder.word(kind) for kind in reversed(ladder.ordered(kinds))]
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def effort_sentence(analysis: Analysis) -> str:
    """What the verdict took, against the method's fixed time; "" where it is not known.

    decided after 2.1 s and 4,312 samples, and 5 logged calls (16,384 instructions); the method records 30 s
    """
    effort = analysis.effort
    if effort is None:
        return ""
    parts = []
    if "samples" in effort.evidence:
        asked = " (all that was asked for)" if effort.stopped_by == "time" else ""
        parts.append(f"{effort.seconds:.1f} s{asked} and {counted(effort.samples, 'sample')}")
    if "exact" in effort.evidence:
        logged = counted(effort.instructions, "instruction")
        parts.append(f"{counted(effort.calls, 'logged call')} ({logged})")
    parts += [
        f"{note.seconds:.1f} s of {ladder.word(note.source)}"
        for note in ladder.rungs(analysis)
        if note.source in effort.evidence and note.source in ("graph", "probes") and note.seconds >= _TELLING_SECONDS
    ]
    if not parts:
        return ""
    lead = _EFFORT_WORDS[analysis.conclusion]
    took = ", and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
    return f"{lead} {took}; the method records {effort.fixed_seconds:.0f} s"


_EFFORT_WORDS = {
    Conclusion.NAMED: "decided after",
    Conclusion.INCONCLUSIVE: "not decided after",
    Conclusion.NOT_REPRODUCED: "ended after",
}


def sample_sentence(analysis: Analysis) -> str:
    counts = analysis.samples
    if not counts.total and "samples" not in evidence_kinds(analysis):
        return "none taken"
    return (
        f"{counted(counts.total, 'sample')}, {count(counts.in_load)} in the load, {count(counts.in_kernel)} of them in"
        f" the kernel; {count(counts.lost)} lost, {count(counts.throttled)} throttled"
    )
