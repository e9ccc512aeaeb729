"""Recordings analyzed from each kind of evidence, several at once; what was concluded before is kept."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from profiler import pipeline, recording
from profiler.campaign import outcome, plan, runner
from profiler.errors import ProfilerError
from profiler.evidence import EXACT, SAMPLES
from profiler.model import Analysis, PerfRecording
from tests import truth
from tests.bench.accuracy import recordings
from tests.bench.accuracy.judging import Prefix, Row, expected, failed, judge, valued

FOLDER = "analyses"
DEFAULT = "default"  # whatever the recording holds
LADDER = "ladder"  # the rungs that its campaign asked for, as a user would run it: its own verdict is judged
EVIDENCE = (SAMPLES, EXACT, DEFAULT, LADDER)
PREFIX_SECONDS = (0.5, 1.0, 2.0, 5.0)  # and the whole
PREFIXES, SECONDS = "prefixes.json", "seconds.json"
_JUDGED = ("conclusion", "reason", "error_site", "branch", "confidence", "samples")


@dataclass(frozen=True, slots=True)
class Found:
    """A recording of a scenario whose truth is known, and the directory its analyses go to, below EVIDENCE/."""

    directory: Path
    out: Path  # analyses/
    name: str  # relative to out / EVIDENCE
    scenario: str
    package_version: str
    kinds: tuple[str, ...]  # of evidence that it was recorded for
    wall: float | None = None  # seconds from command to verdict, of a LADDER

    def analysis_in(self, evidence: str) -> Path:
        return self.out / evidence / self.name


def find(directories: Iterable[Path], out: Path, scenarios: list[str]) -> list[Found]:
    """Every whole recording in the directories; those of one kernel together."""
    found = []
    for top in directories:
        found_in = [path.parent for path in sorted(top.rglob(recording.MANIFEST))]
        whole = [directory for directory in found_in if FOLDER not in directory.relative_to(top).parts]
        kinds = _kinds(top, whole)
        walls = _walls(top) if LADDER in kinds else {}
        for directory in whole:
            manifest = recording.read_manifest(directory)
            scenario = manifest.scenario or ""
            if scenarios != [plan.ALL] and scenario not in scenarios:
                continue
            if not _has_truth(scenario, manifest.package_version):
                print(f"{directory}: no truth for {scenario or 'it'} on {manifest.package_version}", flush=True)
                continue
            name = str(Path(top.resolve().name) / directory.relative_to(top))
            place, version = directory.resolve(), manifest.package_version
            found.append(Found(place, out.resolve(), name, scenario, version, kinds, walls.get(directory.name)))
    return sorted(found, key=lambda one: (one.package_version, one.scenario, one.name))


def missing(directories: Iterable[Path], evidence: list[str], scenarios: list[str]) -> list[Row]:
    """Rows for the runs that a campaign planned and that left no recording: failures, too."""
    rows = []
    for top in directories:
        if not (top / runner.PLAN).is_file():
            continue
        for run in plan.runs(_planned(top / runner.PLAN)):
            wanted = scenarios == [plan.ALL] or run.scenario in scenarios
            if wanted and not (outcome.directory(top, run) / recording.MANIFEST).is_file():
                kernel = run.target.removeprefix("vm:")
                name = f"{top.resolve().name}/runs/{run.name}"
                rows += [
                    Row(name, run.scenario, kernel, kind, failed("there is no recording"), "", 0, 0, 0.0)
                    for kind in _kinds(top, [])
                    if kind in evidence
                ]
    return rows


def _planned(campaign: Path) -> plan.Campaign:
    settings = json.loads(campaign.read_text())
    return plan.Campaign(**settings | {key: tuple(settings[key]) for key in ("scenarios", "targets")})


def _kinds(top: Path, whole: list[Path]) -> tuple[str, ...]:
    """What the recordings of a directory are analyzed from. Where one holds an execution log, or should, to have none
    is a failure."""
    asked = _planned(top / runner.PLAN).evidence if (top / runner.PLAN).is_file() else ""
    if asked not in ("", "auto", recordings.IN_FULL, SAMPLES, EXACT):
        return (LADDER,)
    logged = EXACT in asked or any(_has_log(directory) for directory in whole)
    return (SAMPLES, EXACT, DEFAULT) if logged else (SAMPLES,)


def _walls(top: Path) -> dict[str, float]:
    """By the name of a run of the campaign, the seconds it took."""
    saved = [json.loads(path.read_bytes()) for path in (top / "outcomes").glob("*.json")]
    return {plan.PlannedRun(**one["run"]).name: float(one["seconds"]) for one in saved}


def _has_log(directory: Path) -> bool:
    return (directory / recording.EXECUTION_LOG).exists()


def _has_truth(scenario: str, package_version: str) -> bool:
    return scenario in truth.scenarios() and package_version in truth.load(scenario)


def conclude_all(found: list[Found], evidence: list[str], *, jobs: int, again: bool) -> Iterator[Row]:
    """Rows as they come. An analysis that raises is a row, too."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=jobs, mp_context=context) as pool:
        pending = [pool.submit(conclude, one, evidence, again=again) for one in found]
        try:
            for done in as_completed(pending):
                yield from done.result()
        finally:
            for one in pending:
                one.cancel()


def conclude(one: Found, evidence: list[str], *, again: bool) -> list[Row]:
    """The rows of one recording: one for each kind of evidence that it was recorded for."""
    return [_row(one, kind, again=again) for kind in one.kinds if kind in evidence]


def _row(one: Found, kind: str, *, again: bool) -> Row:
    true = truth.load(one.scenario)[one.package_version]
    result, samples, instructions, seconds, has_value = failed(""), 0, 0, 0.0, False
    prefixes: list[Prefix] = []
    try:
        analysis, seconds = _analysis(one, kind, again=again)
        result, samples = judge(true, analysis), int(analysis["samples"]["on_path"])
        has_value = valued(analysis)
        instructions = int((analysis.get("effort") or {}).get("instructions", 0))
        if kind == SAMPLES:
            cuts = _prefixes(one, again=again)
            prefixes = [Prefix(cut["seconds"], cut["samples"]["on_path"], judge(true, cut)) for cut in cuts]
            prefixes.append(Prefix(float(analysis["manifest"]["seconds"]), samples, result))
    except Exception as error:  # a fault of the tool in one analysis is one of the results
        result = failed(str(error) if isinstance(error, ProfilerError) else f"{type(error).__name__}: {error}")
    return Row(
        recording=one.name,
        scenario=one.scenario,
        package_version=one.package_version,
        evidence=kind,
        result=result,
        true=expected(true),
        samples=samples,
        instructions=instructions,
        seconds=seconds,
        prefixes=prefixes,
        valued=has_value,
        wall=one.wall,
    )


def _analysis(one: Found, kind: str, *, again: bool) -> tuple[dict[str, Any], float]:
    """The analysis as JSON, kept or made now, with the seconds it took."""
    directory = one.analysis_in(kind)
    kept = directory / recording.ANALYSIS
    if kind == LADDER and not again and not kept.is_file():
        return json.loads((one.directory / recording.ANALYSIS).read_text()), 0.0
    if again or not kept.is_file() or not (directory / SECONDS).is_file():
        _link(one.directory, directory)
        started = time.monotonic()
        if kind in (DEFAULT, LADDER) or (kind == EXACT and _did_not_fail(one.directory)):
            pipeline.analyze(directory, progress=_silent)
        else:
            pipeline.analyze(directory, evidence=frozenset({kind}), progress=_silent)
        (directory / SECONDS).write_text(json.dumps(time.monotonic() - started))
    return json.loads(kept.read_text()), float(json.loads((directory / SECONDS).read_text()))


def _did_not_fail(directory: Path) -> bool:
    """Of a call that does not fail as said the load's counts tell, and nothing is logged."""
    results = recording.read_load(directory).results
    return bool(results) and not results.get(recording.read_manifest(directory).errno)


def _link(directory: Path, into: Path) -> None:
    """What was recorded, without what was concluded from it: analyses are written beside the links."""
    into.mkdir(parents=True, exist_ok=True)
    for file in into.iterdir():
        file.unlink()
    for file in directory.iterdir():
        if file.name != recording.ANALYSIS and file.suffix not in (".parquet", ".png", ".html"):
            (into / file.name).symlink_to(file)


def _prefixes(one: Found, *, again: bool) -> list[dict[str, Any]]:
    """What each prefix of the samples gives, of the analysis what is judged; one look at the code serves all."""
    path = one.analysis_in(SAMPLES) / PREFIXES
    if again or not path.is_file():
        case = pipeline.open_case(one.directory, progress=_silent)
        data = pipeline.read_samples(recording.samples_file(one.directory))
        elapsed = since_load(data, recording.read_load(one.directory).pid)
        lasting = [seconds for seconds in PREFIX_SECONDS if len(elapsed) and seconds < elapsed.max()]
        made = [_judged(case.conclude(cut(data, elapsed < seconds)).analysis, seconds) for seconds in lasting]
        path.write_text(json.dumps(made, indent=1) + "\n")
    found: list[dict[str, Any]] = json.loads(path.read_text())
    return found


def _judged(analysis: Analysis, seconds: float) -> dict[str, Any]:
    data = analysis.to_json()
    return {"seconds": seconds} | {key: data[key] for key in _JUDGED}


def since_load(data: PerfRecording, pid: int) -> NDArray[np.float64]:
    """Seconds of each sample since the first in the load's process; perf begins with a few of its own start.

    Samples of several CPUs need not be in the order of time.
    """
    times = data.samples.time.astype(np.int64)
    of_load = times[data.samples.pid == pid]
    first = (of_load if len(of_load) else times).min(initial=np.iinfo(np.int64).max)
    since: NDArray[np.float64] = (times - first) / 1e9
    return since


def cut(data: PerfRecording, kept_rows: NDArray[np.bool_]) -> PerfRecording:
    """Some of the samples alone."""
    samples = data.samples
    rows = np.flatnonzero(kept_rows)
    lengths = np.diff(samples.chain_start)[rows]
    start = np.concatenate([[0], np.cumsum(lengths)])
    at = np.repeat(samples.chain_start[rows] - start[:-1], lengths) + np.arange(start[-1])
    columns = {field.name: getattr(samples, field.name) for field in dataclasses.fields(samples)}
    kept = {name: column[rows] for name, column in columns.items() if name not in ("chain", "chain_start")}
    return dataclasses.replace(
        data, samples=dataclasses.replace(samples, **kept, chain_start=start, chain=samples.chain[at])
    )


def _silent(_phase: str, _fraction: float | None) -> None:
    pass
