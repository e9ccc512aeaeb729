"""The truth files of the scenarios, and the judging of an analysis by them; loadgen/truth/README.md has the format."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).parent.parent / "loadgen" / "truth"
PACKAGE_VERSIONS = ("5.10.223-1", "5.10.251-5", "6.1.192-2", "6.12.117-1", "7.3.4-1~bpo13+1")
READINGS = ("decider", "alternative", "predicate", "root")


@dataclass(frozen=True, slots=True)
class Place:
    """A statement in the kernel's source; `file` is relative to the kernel tree, lines count from 1.

    `reads` says where the statement takes the errno from, if it does not spell it.
    """

    function: str
    file: str
    line: int
    line_end: int
    reads: str = ""

    def holds(self, claimed: dict[str, Any] | None) -> bool:
        """Whether a place of an analysis (its `file` and `line`) lies in this one."""
        return claimed is not None and claimed["file"] == self.file and self.line <= claimed["line"] <= self.line_end


@dataclass(frozen=True, slots=True)
class TrueBranch:
    """One defensible answer to what decided; the first of a version is the one that the definition gives."""

    place: Place
    operand_line: int
    outcome: bool | None  # of the condition as written; None for a switch
    reading: str
    about: str


@dataclass(frozen=True, slots=True)
class Truth:
    """What the source of one package version says of one scenario."""

    scenario: str
    package_version: str
    reproduced: bool
    sites: tuple[Place, ...]  # empty where not reproduced
    branches: tuple[TrueBranch, ...]
    chain: tuple[str, ...]
    root: Place | None
    note: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """`reading` and `outcome_right` are None where no true branch was claimed, or no outcome can be compared."""

    conclusion_right: bool  # not-reproduced if and only if it is so
    site_right: bool
    branch_right: bool
    reading: str | None
    outcome_right: bool | None


def scenarios() -> list[str]:
    return sorted(path.stem for path in DIRECTORY.glob("*.toml"))


def load(scenario: str) -> dict[str, Truth]:
    """The truth of a scenario by package version. Raises KeyError or ValueError on a malformed file."""
    data = tomllib.loads((DIRECTORY / f"{scenario}.toml").read_text(encoding="utf-8"))
    if data["scenario"] != scenario:
        raise ValueError(f"{scenario}.toml is about {data['scenario']}")
    return {version: _truth(scenario, version, entry) for version, entry in data["versions"].items()}


def judge(analysis: dict[str, Any], truth: Truth) -> Judgement:
    """Compares the JSON form of an analysis with the truth.

    `inconclusive` is neither right nor wrong about the conclusion of a call that fails as said: it counts as a right
    conclusion, with a site and branch that are right only if they are named and right.
    """
    not_reproduced = analysis["conclusion"] == "not-reproduced"
    site, branch = analysis.get("error_site"), analysis.get("branch")
    claimed = next((true for true in truth.branches if true.place.holds(branch)), None)
    return Judgement(
        conclusion_right=not_reproduced != truth.reproduced,
        site_right=any(true.holds(site) for true in truth.sites),
        branch_right=claimed is not None,
        reading=claimed.reading if claimed else None,
        outcome_right=_outcome_right(branch, claimed),
    )


def _outcome_right(branch: dict[str, Any] | None, claimed: TrueBranch | None) -> bool | None:
    if branch is None or claimed is None or claimed.outcome is None or branch.get("outcome") is None:
        return None
    right: bool = branch["outcome"] == claimed.outcome
    return right


def _truth(scenario: str, version: str, entry: dict[str, Any]) -> Truth:
    reproduced = not entry.get("not_reproduced", False)
    sites = [entry["site"], *entry.get("site_also", [])] if reproduced else []
    return Truth(
        scenario=scenario,
        package_version=version,
        reproduced=reproduced,
        sites=tuple(map(_place, sites)),
        branches=tuple(map(_branch, entry["branch"])) if reproduced else (),
        chain=tuple(entry["chain"]) if reproduced else (),
        root=_place(entry["root"]) if "root" in entry else None,
        note=entry.get("note", ""),
    )


def _place(table: dict[str, Any]) -> Place:
    end = table.get("line_end", table["line"])
    return Place(table["function"], table["file"], table["line"], end, table.get("reads", ""))


def _branch(table: dict[str, Any]) -> TrueBranch:
    return TrueBranch(
        place=_place(table),
        operand_line=table["operand_line"],
        outcome=table.get("outcome"),
        reading=table.get("reading", "decider"),
        about=table.get("about", ""),
    )
