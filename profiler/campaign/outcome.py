"""How a run of a campaign ended, as saved in outcomes/NAME.json and results.json."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from profiler import recording
from profiler.campaign.plan import PlannedRun
from profiler.errors import InputError, ProfilerError, UsageError
from profiler.model import Analysis, ErrorSite, from_json

RESULTS_SCHEMA = 1
ERROR = "error"  # the run raised an error and said which
CRASHED = "crashed"  # its process died, or did not end in time


@dataclass(frozen=True, slots=True)
class Outcome:
    """`status` is a Conclusion's value, or ERROR or CRASHED; `message` says why, or the verdict's reason."""

    run: PlannedRun
    status: str
    message: str
    seconds: float  # wall clock, whole run
    release: str = ""  # of the kernel that ran
    package_version: str = ""
    confidence: float = 0.0
    error_site: ErrorSite | None = None
    evidence: list[str] = field(default_factory=list)  # that the verdict rests on: samples, exact

    @property
    def concluded(self) -> bool:
        return self.status not in (ERROR, CRASHED)


def of_analysis(run: PlannedRun, analysis: Analysis, seconds: float) -> Outcome:
    return Outcome(
        run=run,
        status=analysis.conclusion.value,
        message=analysis.reason,
        seconds=seconds,
        release=analysis.kernel.release,
        package_version=analysis.kernel.package_version,
        confidence=analysis.confidence,
        error_site=analysis.error_site,
        evidence=list(analysis.effort.evidence) if analysis.effort else [],
    )


def directory(campaign: Path, run: PlannedRun) -> Path:
    return campaign / "runs" / run.name


def save(campaign: Path, outcome: Outcome) -> None:
    recording.write_atomically(
        campaign / "outcomes" / f"{outcome.run.name}.json", json.dumps(dataclasses.asdict(outcome), indent=1) + "\n"
    )


def finished(campaign: Path, run: PlannedRun) -> Outcome | None:
    """The saved outcome of `run`, if it reached a conclusion, was asked for in the same way, and its recording and
    analysis are whole."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError, ProfilerError):
        data = json.loads((campaign / "outcomes" / f"{run.name}.json").read_bytes())
        saved: Outcome = from_json(Outcome, data)
        if saved.concluded and saved.run == run:
            recording.read_manifest(directory(campaign, run))
            recording.read_analysis(directory(campaign, run))
            return saved
    return None


def results(outcomes: list[Outcome]) -> dict[str, Any]:
    """The content of results.json. `directory` is relative to it."""
    rows = [dataclasses.asdict(o) | {"directory": f"runs/{o.run.name}" if o.concluded else None} for o in outcomes]
    return {"schema": RESULTS_SCHEMA, "runs": rows}


def write_results(campaign: Path, outcomes: list[Outcome]) -> None:
    recording.write_atomically(campaign / "results.json", json.dumps(results(outcomes), indent=1) + "\n")


def read_results(campaign: Path) -> list[Outcome]:
    """The outcomes of a campaign that ended. Raises UsageError where there is none, InputError on a damaged file."""
    path = campaign / "results.json"
    if not path.is_file():
        raise UsageError(f"{campaign} holds no results", hint="`whyerrno campaign run FILE -o DIRECTORY` makes them")
    try:
        data = json.loads(path.read_bytes())
        if data["schema"] > RESULTS_SCHEMA:
            raise InputError(
                f"{path}: schema {data['schema']} is newer than this whyerrno reads", hint="update whyerrno"
            )
        return [from_json(Outcome, row) for row in data["runs"]]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: not of the expected shape: {error}") from error
