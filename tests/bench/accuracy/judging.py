"""One verdict held against the truth, as a row of the results."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from tests import truth

CONFIDENT = 0.95
RIGHT, WRONG, INCONCLUSIVE = "right", "wrong", "inconclusive"
NOT_REPRODUCED, ERROR = "not reproduced", "error"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one analysis claims, judged. `verdict`: right (site and branch), wrong (either of them), inconclusive,
    not reproduced (rightly), error (there is no analysis)."""

    verdict: str
    site_right: bool
    branch_right: bool  # its outcome, too
    confidence: float
    claimed: str
    claims_place: bool  # a site is named, if only as the likeliest

    @property
    def sure(self) -> bool:
        return self.verdict in (RIGHT, WRONG) and self.confidence >= CONFIDENT

    @property
    def likeliest_right(self) -> bool:
        """Whether what is held the likeliest is right, named or not."""
        return self.site_right and self.branch_right


@dataclass(frozen=True, slots=True)
class Prefix:
    """The verdict that the samples of the first `seconds` alone give."""

    seconds: float
    samples: int  # in that time, within the call
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Row:
    """One recording under one kind of evidence."""

    recording: str
    scenario: str
    package_version: str
    evidence: str
    result: Verdict
    true: str
    samples: int  # within the call
    instructions: int  # of the execution log
    seconds: float  # of the analysis
    prefixes: list[Prefix] = field(default_factory=list)  # rising; for samples alone
    valued: bool = False  # an operand of the deciding condition is given with its value
    wall: float | None = None  # seconds from command to verdict, boot and analysis included, where it was run like that

    @property
    def verdict(self) -> str:
        return self.result.verdict

    @property
    def kernel(self) -> str:
        return ".".join(self.package_version.split(".")[:2])

    @property
    def order(self) -> tuple[Any, ...]:
        rank = ("samples", "exact", "default", "ladder").index(self.evidence)
        return rank, *map(int, self.kernel.split(".")), self.scenario, self.recording

    @property
    def decided(self) -> Prefix | None:
        """The shortest prefix at which the verdict is as sure as recording may stop at."""
        return next((prefix for prefix in self.prefixes if prefix.verdict.sure), None)

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "kernel": self.kernel}


def judge(true: truth.Truth, analysis: dict[str, Any]) -> Verdict:
    judgement = truth.judge(analysis, true)
    confidence = float(analysis["confidence"])
    site_right = judgement.site_right
    branch_right = judgement.branch_right and judgement.outcome_right is not False
    if not true.reproduced or analysis["conclusion"] == "not-reproduced":
        verdict = NOT_REPRODUCED if judgement.conclusion_right else WRONG
    elif analysis["conclusion"] == "inconclusive":
        verdict = INCONCLUSIVE
    else:
        verdict = RIGHT if site_right and branch_right else WRONG
    claims_place = analysis["error_site"] is not None
    return Verdict(verdict, site_right, branch_right, confidence, claim(analysis), claims_place)


def valued(analysis: dict[str, Any]) -> bool:
    return bool((analysis["branch"] or {}).get("operands"))


def failed(message: str) -> Verdict:
    """Where the analysis raised an error."""
    return Verdict(ERROR, site_right=False, branch_right=False, confidence=0.0, claimed=message, claims_place=False)


def claim(analysis: dict[str, Any]) -> str:
    """`conclusion: site / branch outcome`, or the reason where no place is named."""
    if analysis["error_site"] is None:
        return f"{analysis['conclusion']}: {analysis['reason']}"
    site, branch = analysis["error_site"], analysis["branch"]
    decided = f"{branch['function']}:{branch['line']} {branch['outcome']}" if branch else "no branch"
    return f"{analysis['conclusion']}: {site['function']}:{site['line']} / {decided}"


def expected(true: truth.Truth) -> str:
    """The same of the truth, with every place that may be named."""
    if not true.reproduced:
        return "not reproduced"
    sites = ", ".join(f"{site.function}:{_lines(site)}" for site in true.sites)
    branches = ", ".join(f"{b.place.function}:{_lines(b.place)} {b.outcome}" for b in true.branches)
    return f"{sites} / {branches}"


def _lines(place: truth.Place) -> str:
    return f"{place.line}" if place.line_end == place.line else f"{place.line}-{place.line_end}"
