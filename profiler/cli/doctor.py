"""whyerrno doctor: what works on this machine, and what would make the rest work."""

from __future__ import annotations

import dataclasses
import os
import shutil
import textwrap
from typing import TYPE_CHECKING

import click

from profiler.cli.names import complete_target
from profiler.cli.output import json_option, print_json
from profiler.cli.root import common_options
from profiler.evidence import DECIDING

if TYPE_CHECKING:
    from profiler.cli.doctor_checks import Finding
    from profiler.cli.doctor_rungs import Rung

MISSING = 5
NAME_WIDTH = 25
WIDEST = 100
NARROWEST = 60


@click.command(
    epilog="""\b
Examples:
  whyerrno doctor
  whyerrno doctor vm:6.1
  whyerrno doctor ssh:root@host
  whyerrno doctor --json
"""
)
@json_option
@common_options
@click.argument("target", required=False, shell_complete=complete_target)
def command(target: str | None, as_json: bool) -> int:
    """Try everything that recording needs here, and say which package or sysctl would mend what fails.

    Then every rung of the ladder is tried on this machine's own kernel, or, without the rest, on the one of TARGET:
    local, vm:VERSION, vm:PATH or ssh:[USER@]HOST. Whatever that switches on is switched off again.

    The exit status is 0 when the local or the vm: targets work, or on TARGET a rung that names a branch; else 5.
    """
    from profiler.cli import doctor_checks

    found = []
    if target is None:
        for finding in doctor_checks.findings(doctor_checks.CHECKS):
            found.append(finding)
            if not as_json:
                print_finding(finding)
        if not as_json:
            click.echo()
    tried = try_rungs(target or "local", as_json=as_json)
    usable = {name: works(name, found) for name in (doctor_checks.LOCAL, doctor_checks.VM)} if target is None else {}
    if as_json:
        rungs = [dataclasses.asdict(rung) for rung in tried]
        print_json({"targets": usable, "findings": [dataclasses.asdict(finding) for finding in found], "rungs": rungs})
    elif target is None:
        click.echo()
        for name, usable_here in usable.items():
            click.echo(f"{name} targets: {'usable' if usable_here else 'not usable'}")
    decides = any(rung.ok for rung in tried if rung.name in DECIDING)
    return 0 if (decides if target else any(usable.values())) else MISSING


def try_rungs(target: str, *, as_json: bool) -> list[Rung]:
    """All of them; on a terminal each is shown as soon as it is known."""
    from profiler.cli import doctor_rungs

    tried: list[Rung] = []
    for rung in doctor_rungs.rungs(target):
        if not tried and not as_json:
            click.echo(f"Rungs of the ladder, on {target}:")
        tried.append(rung)
        if not as_json:
            print_line("ok" if rung.ok else "no", rung.name, rung.says, rung.fix)
    return tried


def works(target: str, found: list[Finding]) -> bool:
    return all(finding.ok for finding in found if finding.needed_for in (target, "both"))


def print_finding(finding: Finding) -> None:
    state = "ok" if finding.ok else ("NO" if finding.needed_for else "no")
    print_line(state, finding.name, finding.says, finding.fix)


def print_line(state: str, name: str, says: str, fix: str) -> None:
    """Aligned, and folded where the terminal ends; what to do on lines of its own."""
    colour = {"ok": "green", "NO": "red", "no": "yellow"}[state]
    margin = " " * (4 + NAME_WIDTH)
    width = max(NARROWEST, min(WIDEST, shutil.get_terminal_size().columns)) - len(margin)
    lines = [*fold(says, width), *fold(fix, width, mark="-> ")]
    click.echo(f"{styled(state.ljust(4), colour)}{name:{NAME_WIDTH}}{lines[0]}")
    for line in lines[1:]:
        click.echo(f"{margin}{line}")


def fold(text: str, width: int, *, mark: str = "") -> list[str]:
    """Lines of at most `width` columns where words allow it, the first behind the mark and the others below it."""
    return textwrap.wrap(
        text,
        width,
        initial_indent=mark,
        subsequent_indent=" " * len(mark),
        break_long_words=False,
        break_on_hyphens=False,
    )


def styled(text: str, colour: str) -> str:
    """click leaves colours out where stdout is no terminal, but knows nothing of NO_COLOR (no-color.org)."""
    return text if os.environ.get("NO_COLOR") else click.style(text, fg=colour)
