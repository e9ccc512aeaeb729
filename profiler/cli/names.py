"""Names given on the command line: checked with a suggestion, and completed by the shell."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from profiler.cli.suggest import ERRNO_NAMES, lookup
from profiler.syscalls import NUMBERS

if TYPE_CHECKING:
    from loadgen.scenario import Scenario

ARCH = "x86_64"  # of every target there is so far
TARGET_HELP = (
    "Where the kernel runs: local, vm:VERSION (a stock Debian kernel, e.g. vm:6.1), vm:PATH (a build tree) "
    "or ssh:[USER@]HOST."
)


def find_scenario(name: str) -> Scenario:
    """Raises UsageError that suggests the nearest names."""
    from loadgen.scenarios import SCENARIOS

    return lookup("scenario", name, SCENARIOS, listed_by="whyerrno scenarios")


def check_errno(name: str) -> str:
    lookup("errno", name.upper(), ERRNO_NAMES, listed_by="errno -l")
    return name.upper()


def check_syscall(name: str) -> str:
    """Raises UsageError on a name that no kernel known here has. `sys_bind` and `__x64_sys_bind` are taken too."""
    bare = name.removeprefix("__x64_").removeprefix("sys_")
    lookup("system call", bare, NUMBERS[ARCH], listed_by="man 2 syscalls")
    return bare


def default_output(what: str, target: str, *, now: datetime | None = None) -> Path:
    """`runs/WHAT-TARGET-TIME`, UTC; `target` as asked, a path by its last part."""
    kind, _, rest = target.partition(":")
    place = f"{kind}-{Path(rest).name}" if rest else kind
    stamp = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%S")
    return Path("runs") / f"{what}-{place}-{stamp}"


def complete_scenario(_context: click.Context, _parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    from loadgen.scenarios import SCENARIOS

    return [CompletionItem(s.name, help=s.summary) for s in SCENARIOS.values() if s.name.startswith(typed)]


def complete_target(_context: click.Context, _parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    from profiler.lab.store import list_cached
    from profiler.target.ssh_connection import configured_hosts

    if typed.startswith("ssh:"):
        user, at, _ = typed.removeprefix("ssh:").rpartition("@")
        known = [f"ssh:{user}{at}{host}" for host in configured_hosts()]
    else:
        cached = [f"vm:{'.'.join(kernel.release.split('.')[:2])}" for kernel in list_cached()]
        known = ["local", *dict.fromkeys(cached), "ssh:"]
    return [CompletionItem(name) for name in known if name.startswith(typed)]


def complete_syscall(_context: click.Context, _parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in sorted(NUMBERS[ARCH]) if name.startswith(typed)]


def complete_errno(_context: click.Context, _parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in sorted(ERRNO_NAMES) if name.startswith(typed.upper())]
