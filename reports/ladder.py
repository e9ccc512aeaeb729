"""The ladder as a report shows it: what each rung found, ruled out and cost, and which candidates it crossed out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from profiler.model import Analysis, EvidenceNote, LogLine, Meaning, RungState, SourceCandidate
from reports.visible import count, counted, percent, place, prose, visible

# The rungs, the cheapest first, as they are called where they are read.
WORDS = {
    "man": "man page",
    "log": "kernel log",
    "source": "source text",
    "graph": "function graph",
    "samples": "samples",
    "probes": "probes",
    "exact": "instruction log",
}
_GRAVE = ("hardware", "filesystem", "kernel")  # that alone may be why a call fails
GENERAL = "errno(3)"  # what Meaning.says is from
_ENTRY_AT_MOST = 60  # characters
NOTHING = "–"  # of a rung not taken, or of what was not measured
_ORDER = {name: place for place, name in enumerate(WORDS)}


def word(source: str) -> str:
    return visible(WORDS.get(source, source))


def ordered(sources: Sequence[str]) -> list[str]:
    """In the order of the ladder; what is no rung of it comes last."""
    return sorted(sources, key=lambda source: _ORDER.get(source, len(_ORDER)))


def rungs(analysis: Analysis) -> list[EvidenceNote]:
    """In the order of the ladder; what is no rung of it comes last, as it came."""
    return sorted(analysis.evidence, key=lambda note: _ORDER.get(note.source, len(_ORDER)))


def taken_words(analysis: Analysis) -> str:
    """`5 of 7 rungs taken`"""
    taken = sum(map(is_taken, analysis.evidence))
    whole = counted(len(analysis.evidence), "rung")
    return f"{taken} of {whole} taken" if taken < len(analysis.evidence) else f"{whole} taken"


def is_taken(note: EvidenceNote) -> bool:
    return note.state is RungState.TAKEN


def says(analysis: Analysis, note: EvidenceNote) -> str:
    """What the rung found, or why it was not taken. Of the entry, which stands with the verdict, the beginning."""
    text = prose(note.says)
    if note.state is RungState.NOT_ASKED:
        return ""
    entry = prose(analysis.meaning.entry) if note.source == "man" and analysis.meaning else ""
    return text.replace(entry, visible(entry, _ENTRY_AT_MOST)) if entry else text


def found(analysis: Analysis, note: EvidenceNote) -> str:
    """As `says`, with whether it was taken."""
    text = says(analysis, note)
    if is_taken(note):
        return text
    return f"{note.state.value}: {text}" if text else note.state.value


def excluded(note: EvidenceNote) -> str:
    """How many candidates it ruled out."""
    return count(note.excluded) if is_taken(note) else NOTHING


def took(note: EvidenceNote) -> str:
    """`2.6 s`; of what is instant `<0.1 s`."""
    if not is_taken(note):
        return NOTHING
    return f"{note.seconds:.1f} s" if note.seconds >= 0.05 else "<0.1 s"


def slowed(note: EvidenceNote) -> str:
    """By how much the load called more slowly meanwhile."""
    if not is_taken(note) or note.overhead is None:
        return NOTHING
    return percent(max(0.0, round(note.overhead, 3)))


def disagreements(analysis: Analysis) -> list[str]:
    """`Two rungs disagree. Probes: ...`, once each."""
    said = [(note, prose(note.disagrees)) for note in rungs(analysis) if note.disagrees]
    return list(dict.fromkeys(f"Two rungs disagree. {word(note.source).capitalize()}: {text}" for note, text in said))


# ---- the manual ----


def manual(meaning: Meaning, errno: str) -> tuple[str, str]:
    """Who says it, and what: `bind(2)`, `The given address is already in use.`; the words may be missing."""
    page, name = visible(meaning.page), visible(errno)
    if meaning.entry:
        return page, prose(meaning.entry)
    if meaning.documented and len(meaning.others) == 1:
        return f"{page}, perhaps of another cause", prose(meaning.others[0])
    if meaning.documented and meaning.others:
        return f"{page} has {len(meaning.others)} entries of {name}", "which of them it is, is not known"
    if meaning.documented or meaning.page == GENERAL:
        return page, prose(meaning.says)
    says = prose(meaning.says)
    return f"{name} is not documented in {page}", f"{GENERAL} says: {says}" if says else ""


# ---- the kernel log ----


def grave_lines(analysis: Analysis) -> list[LogLine]:
    """Errors of hardware and filesystems: they come before the verdict."""
    return [line for line in analysis.kernel_log if line.kind in _GRAVE]


def grave_kinds(analysis: Analysis) -> str:
    """`hardware and filesystem`"""
    return " and ".join(dict.fromkeys(visible(line.kind) for line in grave_lines(analysis)))


def other_lines(analysis: Analysis) -> list[LogLine]:
    return [line for line in analysis.kernel_log if line.kind not in _GRAVE]


def stamped(line: LogLine) -> str:
    """As dmesg has it: `[   12.345678] EXT4-fs error ...`"""
    return f"[{line.seconds:12.6f}] {prose(line.text)}"


# ---- the candidates of the source ----


def sorted_candidates(analysis: Analysis) -> list[SourceCandidate]:
    """Those that are left, then the others by the rung that ruled them out, the latest rung first: what took most to
    rule out is most like the verdict. Within a rung their own order, by distance from the entry."""
    last = len(_ORDER)
    return sorted(
        analysis.source_candidates,
        key=lambda one: -_ORDER.get(one.excluded_by, last) if one.excluded_by else -last - 1,
    )


def remaining(analysis: Analysis) -> list[SourceCandidate]:
    """The verdict's own first."""
    left = [one for one in analysis.source_candidates if not one.excluded_by]
    return sorted(left, key=lambda one: not is_verdict(analysis, one))


def is_verdict(analysis: Analysis, one: SourceCandidate) -> bool:
    site = analysis.error_site
    return site is not None and not one.excluded_by and (site.file, site.line) == (one.site.file, one.site.line)


def condition(analysis: Analysis, one: SourceCandidate) -> tuple[str, str]:
    """What guards the place, and where; of the verdict's own what decided: a place may have several ways to it."""
    branch = analysis.branch
    if branch is not None and branch.condition and is_verdict(analysis, one):
        return prose(branch.condition), place(branch.file, branch.line)
    return prose(one.condition or ""), f"line {one.condition_line}" if one.condition_line else ""


def tally(analysis: Analysis) -> str:
    """`43 places in the source can return ENOMEM: 12 out by function graph, 30 by samples, 1 left.`"""
    by = Counter(one.excluded_by for one in analysis.source_candidates if one.excluded_by)
    ruled = [
        f"{count(by[source])} ruled out by {word(source)}"
        for source in sorted(by, key=lambda s: _ORDER.get(s, len(_ORDER)))
    ]
    left = len(analysis.source_candidates) - sum(by.values())
    places = counted(len(analysis.source_candidates), "place")
    return f"{places} in the source can return {visible(analysis.errno)}: {', '.join([*ruled, f'{count(left)} left'])}."


def way(candidate: SourceCandidate) -> str:
    """`__sys_bind → inet_bind`, the middle of a long way left out."""
    names = [visible(name) for name in candidate.via]
    return " → ".join(names if len(names) <= 5 else [*names[:2], "…", *names[-2:]])
