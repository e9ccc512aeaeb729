"""whyerrno doctor: what works on this machine, and what would make the rest work."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from profiler.cli.output import json_option, print_json
from profiler.cli.root import common_options

if TYPE_CHECKING:
    from profiler.cli.doctor_checks import Finding

MISSING = 5


@click.command(
    epilog="""\b
Examples:
  whyerrno doctor
  whyerrno doctor --json
"""
)
@json_option
@common_options
def command(as_json: bool) -> int:
    """Try everything that recording needs here, and say which package or sysctl would mend what fails.

    The exit status is 0 when the local or the vm: targets work, and 5 when neither does.
    """
    from profiler.cli import doctor_checks

    found = []
    for finding in doctor_checks.findings(doctor_checks.CHECKS):
        found.append(finding)
        if not as_json:
            print_finding(finding)
    usable = {target: works(target, found) for target in (doctor_checks.LOCAL, doctor_checks.VM)}
    if as_json:
        print_json({"targets": usable, "findings": [dataclasses.asdict(finding) for finding in found]})
    else:
        click.echo()
        for target, usable_here in usable.items():
            click.echo(f"{target} targets: {'usable' if usable_here else 'not usable'}")
    return 0 if any(usable.values()) else MISSING


def works(target: str, found: list[Finding]) -> bool:
    return all(finding.ok for finding in found if finding.needed_for in (target, "both"))


def print_finding(finding: Finding) -> None:
    state = "ok" if finding.ok else ("NO" if finding.needed_for else "no")
    click.echo(f"{state:4}{finding.name:25}{finding.says}")
    if finding.fix:
        click.echo(f"{'':29}{finding.fix}")
