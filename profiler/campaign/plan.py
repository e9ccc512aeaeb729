"""The campaign file, and the runs it stands for.

scenarios = ["bind-eaddrinuse", "openat-enoent"]    # or "all"
targets = ["vm:5.10", "vm:6.1"]
repeats = 1          # the rest may be left out; these are the defaults
evidence = "auto"    # or rungs of the ladder: "man,source,samples"
confidence = 0.95    # of a verdict that ends a recording early
least_seconds = 2.0  # of sampling
seconds = 10.0       # of sampling, at most
frequency = 8000
event = "auto"
timeout = 900.0      # seconds for one whole run, boot and analysis included
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiler import evidence
from profiler.errors import InputError, UsageError

ALL = "all"
# What a run takes over from its campaign.
_SETTINGS = ("seconds", "frequency", "event", "timeout", "evidence", "confidence", "least_seconds")


@dataclass(frozen=True, slots=True)
class Campaign:
    scenarios: tuple[str, ...]
    targets: tuple[str, ...]
    repeats: int = 1
    seconds: float = 10.0
    frequency: int = 8000
    event: str = "auto"
    timeout: float = 900.0
    evidence: str = "auto"
    confidence: float = 0.95
    least_seconds: float = 2.0


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One run of a campaign: what to record, where, and which repeat it is (from 1)."""

    scenario: str
    target: str
    repeat: int
    seconds: float
    frequency: int
    event: str
    timeout: float
    evidence: str = "auto"
    confidence: float = 0.95
    least_seconds: float = 2.0

    @property
    def name(self) -> str:
        """`SCENARIO_TARGET_REPEAT`, fit for a file name."""
        return f"{self.scenario}_{re.sub(r'[^A-Za-z0-9.]+', '-', self.target).strip('-')}_{self.repeat}"


def read(path: Path, *, all_scenarios: Sequence[str]) -> Campaign:
    """The campaign in a TOML file. Raises InputError naming what is wrong in it."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        hint = "`whyerrno campaign run --help` shows what one looks like"
        raise InputError(f"{path}: not a TOML file: {error}", hint=hint) from error
    known = {field.name: field for field in dataclasses.fields(Campaign)}
    for key in table:
        if key not in known:
            raise InputError(f"{path}: no setting {key!r}", hint=f"known: {', '.join(known)}")
    if table.get("scenarios") == ALL:
        table["scenarios"] = sorted(all_scenarios)
    for key in ("scenarios", "targets"):
        table[key] = _names(path, key, table.get(key))
    for key in known.keys() & table.keys() - {"scenarios", "targets"}:
        table[key] = _setting(path, key, table[key], known[key].default)
    _check_evidence(path, table.get("evidence", "auto"))
    return Campaign(**table)


def _names(path: Path, key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
        example = 'scenarios = ["bind-eaddrinuse"]' if key == "scenarios" else 'targets = ["vm:6.1"]'
        raise InputError(f"{path}: {key} must be a list of names", hint=f"such as {example}")
    if len(set(value)) != len(value):
        raise InputError(f"{path}: {key} has a name twice", hint="`repeats` runs everything several times")
    return tuple(value)


def _setting(path: Path, key: str, value: Any, default: Any) -> Any:
    """`value` as the type of `default`; numbers must be above 0."""
    wanted = type(default)
    if wanted is float and type(value) is int:
        value = float(value)
    if type(value) is not wanted or (wanted is not str and value <= 0):
        kind = {int: "a whole number above 0", float: "a number above 0", str: "a string"}[wanted]
        raise InputError(f"{path}: {key} must be {kind}", hint=f"found {value!r}")
    return value


def _check_evidence(path: Path, text: str) -> None:
    try:
        evidence.parse(text)
    except UsageError as error:
        raise InputError(f"{path}: evidence: {error}", hint=error.hint) from error


def runs(campaign: Campaign) -> list[PlannedRun]:
    """Every run, targets changing fastest, so that parallel runs boot different kernels."""
    settings = {name: getattr(campaign, name) for name in _SETTINGS}
    planned = [
        PlannedRun(scenario, target, repeat, **settings)
        for repeat in range(1, campaign.repeats + 1)
        for scenario in campaign.scenarios
        for target in campaign.targets
    ]
    names: dict[str, PlannedRun] = {}
    for run in planned:
        other = names.setdefault(run.name, run)
        if other is not run:
            raise UsageError(f"targets {other.target!r} and {run.target!r} would share the name {run.name}")
    return planned
