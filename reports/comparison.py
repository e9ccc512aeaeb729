"""Two or more analyses side by side: what `compare` found, for every output to show."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from profiler.model import Analysis, Branch, Conclusion, ErrorSite
from reports import findings
from reports.alignment import normal
from reports.findings import LOST_IS_SEVERE, Notice
from reports.significance import Difference
from reports.visible import percent, prose, visible

PRESENT, INLINED, ABSENT = "present", "inlined", "absent"


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """`excluded` says why its samples are tested against no other run's; "" where they are."""

    label: str
    short: str  # the label's last path component, where those tell the runs apart
    analysis: Analysis
    excluded: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """One line of a function in one run."""

    line: int
    text: str | None
    samples: int
    share: float
    low: float
    high: float
    on_path: bool | None
    marks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AlignedLine:
    """`cells` and `differences` have an entry a run; None where the line does not exist, or was not tested."""

    cells: list[Cell | None]
    differences: list[Difference | None]

    @property
    def text(self) -> str | None:
        """The newest text of the line."""
        return next((cell.text for cell in reversed(self.cells) if cell and cell.text is not None), None)

    @property
    def marks(self) -> set[str]:
        return {mark for cell in self.cells if cell for mark in cell.marks}

    @property
    def peak(self) -> float:
        return max((cell.share for cell in self.cells if cell), default=0.0)

    @property
    def ran(self) -> bool:
        return any(cell.on_path for cell in self.cells if cell)

    @property
    def parts(self) -> bool:
        """Whether the path takes the line in some runs and leaves it in others."""
        return {True, False} <= {cell.on_path for cell in self.cells if cell}

    @property
    def differs(self) -> bool:
        return any(difference and difference.significant for difference in self.differences)


@dataclass(frozen=True, slots=True)
class ComparedFunction:
    """One function across the runs; every list has an entry a run."""

    name: str
    names: list[str]  # "" where it is not present
    files: list[str]
    presence: list[str]  # PRESENT, INLINED or ABSENT
    samples: list[int]
    lines: list[AlignedLine]  # empty where the source of a version was not at hand
    notes: list[str] = field(default_factory=list)
    decides: bool = False  # a verdict lies in it


@dataclass(frozen=True, slots=True)
class Comparison:
    runs: list[ComparedRun]
    summary: str  # how the verdicts agree, in words
    agree: bool | None  # None where a run named nothing
    notices: list[Notice]
    functions: list[ComparedFunction]
    tests: int  # for difference, over which the p-values are corrected

    @property
    def span(self) -> str:
        """`on 3 kernels`, or `in 3 runs` where some are of one kernel."""
        kernels = {(run.analysis.kernel.build_id, run.analysis.kernel.release) for run in self.runs}
        return f"on {len(kernels)} kernels" if len(kernels) == len(self.runs) else f"in {len(self.runs)} runs"


def compared_runs(analyses: list[tuple[str, Analysis]]) -> list[ComparedRun]:
    """Each run, and whether its samples may be held against the first sound run's."""
    runs: list[ComparedRun] = []
    reference: Analysis | None = None
    labels = [visible(label) for label, _ in analyses]
    for label, short, (_, analysis) in zip(labels, short_labels(labels), analyses, strict=True):
        excluded = _excluded(analysis, reference)
        if not excluded and reference is None:
            reference = analysis
        runs.append(ComparedRun(label, short, analysis, excluded))
    return runs


def short_labels(labels: list[str]) -> list[str]:
    """The labels' last path components from where they begin to differ: runs/uring-5.10 and runs/uring-7.3 give
    5.10 and 7.3."""
    tails = [label.rstrip("/").rpartition("/")[2] for label in labels]
    split = [re.split(r"(?<=[_: -])", tail) for tail in tails]
    same = 0
    while min(map(len, split)) > same + 1 and len({tuple(parts[: same + 1]) for parts in split}) == 1:
        same += 1
    shorts = ["".join(parts[same:]) for parts in split]
    return shorts if len(set(shorts)) == len(shorts) else labels


def _excluded(analysis: Analysis, reference: Analysis | None) -> str:
    if not analysis.samples.total:
        return "holds no samples"
    lost = findings.lost_share(analysis)
    if lost > LOST_IS_SEVERE:
        return f"lost {percent(lost)} of its samples, more than {percent(LOST_IS_SEVERE)}"
    ours = analysis.manifest
    theirs = reference.manifest if reference else None
    if ours is None or theirs is None:
        return ""
    if ours.emulated != theirs.emulated:
        return "was recorded under emulation, the other not" if ours.emulated else "was not emulated, the other was"
    if ours.event.partition(":")[0] != theirs.event.partition(":")[0]:
        return f"sampled {visible(ours.event)}, not {visible(theirs.event)}"
    return ""


def notices(runs: list[ComparedRun]) -> list[Notice]:
    found = [_not_tested(run) for run in runs if run.excluded]
    calls = {(run.analysis.syscall, run.analysis.errno) for run in runs}
    if len(calls) > 1:
        found.append(Notice(True, "The runs are of different failures; only their functions in common compare."))
    for run in runs:
        if run.analysis.manifest is None:
            found.append(Notice(False, f"{run.label} is an import: how it was recorded is not known."))
        found += [
            Notice(notice.severe, f"{run.label}: {notice.text}")
            for notice in findings.notices(run.analysis)
            if notice.severe and not run.excluded
        ]
    return found


def _not_tested(run: ComparedRun) -> Notice:
    if not run.analysis.samples.total:
        return Notice(False, f"{run.label} {run.excluded}: what is compared of it is its path.")
    return Notice(True, f"{run.label} {run.excluded}: its samples are not compared with the other runs'.")


def summary(runs: list[ComparedRun], functions: list[ComparedFunction]) -> tuple[str, bool | None]:
    """How the verdicts agree, in a sentence or two, and as a yes or no."""
    named = [run for run in runs if run.analysis.conclusion is Conclusion.NAMED and run.analysis.error_site]
    others = "".join(f" {_other(run)}" for run in runs if run not in named)
    if not named:
        return f"No run named a place.{others}", None
    if len(named) == 1:
        return f"Only {named[0].label} named a place: {_spot(named[0].analysis)}.{others}", None
    who = "All runs" if len(named) == len(runs) else f"{len(named)} of {len(runs)} runs"
    text, same = _agreement(who, named, [_key(run, runs.index(run), functions) for run in named])
    return text + others, same if len(named) == len(runs) else None


def _agreement(who: str, named: list[ComparedRun], keys: list[VerdictKey]) -> tuple[str, bool]:
    spot = max((_spot(run.analysis) for run in named), key=len)  # the one with a condition, where only some have it
    if len(set(keys)) == 1:
        if len({normal(c) for run in named if (c := _condition(run.analysis))}) > 1:
            return f"{who} fail at the same place, though it reads differently: {_each(named)}.", True
        return f"{who} fail at the same place: {spot}.", True
    if len({(key.function, key.branch) for key in keys}) == 1:
        return f"{who} fail by the same branch, but the errno is set at different lines: {spot}.", False
    if len({key.function for key in keys}) == 1:
        return f"{who} fail in {visible(keys[0].function)}(), but not by the same branch: {_each(named)}.", False
    return f"The place differs: {_each(named)}.", False


def _other(run: ComparedRun) -> str:
    if run.analysis.conclusion is Conclusion.NOT_REPRODUCED:
        return f"{run.label} did not fail with {visible(run.analysis.errno)}."
    return f"{run.label} is inconclusive."


@dataclass(frozen=True, slots=True)
class VerdictKey:
    """What makes two verdicts the same; never the line number, which changes from version to version.

    `branch` and `site` are the aligned line ("f0 l17"), or the source text where none was aligned.
    """

    function: str  # as the newest version calls it
    branch: str
    site: str


def _key(run: ComparedRun, index: int, functions: list[ComparedFunction]) -> VerdictKey:
    branch, site = run.analysis.branch, run.analysis.error_site
    own = site.function if site else ""
    function = next((f.name for f in functions if f.names[index] == own), own)
    return VerdictKey(
        function.partition(".")[0],
        _aligned_place(branch, index, functions) or normal(_condition(run.analysis)),
        _aligned_place(site, index, functions) or normal((site.text if site else None) or ""),
    )


def _aligned_place(place: Branch | ErrorSite | None, index: int, functions: list[ComparedFunction]) -> str:
    for number, function in enumerate(functions):
        if place is None or function.names[index] != place.function:
            continue
        for row, line in enumerate(function.lines):
            cell = line.cells[index]
            if cell is not None and cell.line == place.line:
                return f"f{number} l{row}"
    return ""


def _condition(analysis: Analysis) -> str:
    return (analysis.branch.condition if analysis.branch else None) or ""


def _spot(analysis: Analysis) -> str:
    where: ErrorSite | Branch | None = analysis.branch or analysis.error_site
    function = visible(where.function) if where else "unknown"
    if analysis.branch is None or analysis.branch.condition is None:
        return f"{function}()"
    return f"{prose(analysis.branch.condition)} in {function}() {findings.branch_words(analysis.branch)}"


def _each(runs: list[ComparedRun]) -> str:
    """Every place once, with the runs that have it."""
    labels: dict[str, list[str]] = {}
    for run in runs:
        labels.setdefault(_spot(run.analysis), []).append(run.label)
    return "; ".join(f"{together(found)}: {spot}" for spot, found in labels.items())


def together(labels: list[str]) -> str:
    """`a, b and c`"""
    return ", ".join(labels[:-1]) + " and " + labels[-1] if len(labels) > 1 else labels[0]
