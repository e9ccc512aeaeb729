"""whyerrno scenarios: the loads that can be run."""

from __future__ import annotations

import shutil
import textwrap

import click

from profiler.cli.output import json_option, print_json
from profiler.cli.root import common_options


@click.command(
    epilog="""\b
Examples:
  whyerrno scenarios
  whyerrno scenarios --json
"""
)
@json_option
@common_options
def command(as_json: bool) -> int:
    """List the scenarios: ways to make one system call fail."""
    from loadgen.scenarios import SCENARIOS

    scenarios = sorted(SCENARIOS.values(), key=lambda scenario: scenario.name)
    if as_json:
        fields = ("name", "syscall", "errno", "summary")
        print_json([{field: getattr(scenario, field) for field in fields} for scenario in scenarios])
    else:
        width = max(len(scenario.name) for scenario in scenarios)
        for s in scenarios:
            click.echo(f"{s.name:{width}}  {s.syscall} {s.errno}")
            for line in textwrap.wrap(s.summary, min(shutil.get_terminal_size().columns, 100) - 4):
                click.echo(f"    {line}")
    return 0
