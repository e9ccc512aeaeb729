"""What to record: the request, and what of it can be checked before anything runs."""

from __future__ import annotations

import errno as errno_names
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from loadgen.scenarios import SCENARIOS
from profiler import evidence
from profiler.errors import MissingError, UsageError
from profiler.evidence import EXACT
from profiler.lab import programs

Progress = Callable[[str, float | None], None]


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What to record. Either `scenario`, or `program` with the system call and errno it repeats."""

    target: str
    scenario: str | None
    syscall: str
    errno: str
    program: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)  # that the program needs on the target
    modules: list[str] = field(default_factory=list)  # that a guest loads first; a scenario names its own
    seconds: float = 10.0  # of sampling, at most
    frequency: int = 8000
    event: str = "auto"
    evidence: frozenset[str] = evidence.AUTO
    confidence: float = 0.95  # of a verdict that ends the recording early
    least_seconds: float = 2.0  # of sampling before the first look


def check(request: RunRequest) -> None:
    """Before anything is fetched or booted. Raises UsageError, and MissingError where the evidence cannot be had."""
    if not request.scenario and not is_there(request):
        program_file(request.program[0])
    if EXACT in request.evidence and (request.target == "local" or request.target.startswith("ssh:")):
        whose = "this machine itself" if request.target == "local" else "no guest of this machine"
        raise MissingError(
            f"exact evidence is an emulator's log, and the target is {whose}",
            hint="choose a guest, as in --target vm:6.1, or --evidence samples",
        )


def modules_for(request: RunRequest) -> list[str]:
    """Names of the modules that the load needs."""
    return [*request.modules, *(SCENARIOS[request.scenario].modules if request.scenario else ())]


def errno_number(name: str) -> int:
    number: int = getattr(errno_names, name)
    return number


def is_there(request: RunRequest) -> bool:
    """Whether the program is one of the target's own: on an ssh host a bare name is looked up there."""
    return request.target.startswith("ssh:") and "/" not in request.program[0]


def program_file(name: str) -> Path:
    found = shutil.which(name)
    if found is not None:
        programs.require_runnable(Path(found))
        return Path(found).resolve()
    if "/" not in name and Path(name).is_file():
        raise UsageError(f"{name} is not among the programs of PATH", hint=f"give its path: ./{name}")
    if Path(name).is_dir():
        raise UsageError(f"{name} is a directory, not a program", hint="give the path of a program, as in ./repro")
    if Path(name).exists():
        raise UsageError(f"{name} is not executable", hint=f"chmod +x {name}")
    raise UsageError(f"there is no program {name}", hint="give its path, as in ./repro")
