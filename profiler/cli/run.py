"""whyerrno run: record a failing call, analyze it, report."""

from __future__ import annotations

from pathlib import Path

import click

from profiler import evidence as kinds
from profiler.cli.load_options import the_call_and_where, what_the_program_needs
from profiler.cli.names import (
    check_errno,
    check_syscall,
    complete_scenario,
    default_output,
    find_scenario,
)
from profiler.cli.output import json_option
from profiler.cli.progress import show_progress
from profiler.cli.root import EXIT_STATUS, Settings, common_options
from profiler.cli.verdict import conclude
from profiler.errors import UsageError


@click.command(
    epilog="""\b
Examples:
  whyerrno run --scenario bind-eaddrinuse --target vm:6.1 -o runs/bind-6.1
  whyerrno run --scenario io-uring-setup-enomem --target vm:7.3
  whyerrno run --syscall bind --errno EADDRINUSE --target vm:6.1 -o runs/mine -- ./repro 5
  whyerrno run --scenario openat-enoent --target vm:6.1 --json --no-report
  whyerrno run --scenario openat-enoent --target vm:6.1 --evidence exact

"""
    + EXIT_STATUS
)
@click.option("--scenario", metavar="NAME", shell_complete=complete_scenario, help="A load of the project's own.")
@the_call_and_where
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Directory of the run.  [default: runs/SCENARIO-TARGET-TIME]",
)
@click.option(
    "--evidence",
    metavar="RUNGS",
    default="auto",
    show_default=True,
    help="Rungs of the ladder to climb, as in man,source,samples; auto takes the dear ones only where they are needed.",
)
@click.option(
    "--confidence",
    type=click.FloatRange(0.5, 1.0),
    default=0.95,
    show_default=True,
    help="Of a verdict that ends the recording before its time; 1 ends none.",
)
@click.option(
    "--least-seconds",
    type=click.FloatRange(0.1, 3600),
    default=2.0,
    show_default=True,
    help="How long to sample before the first look at the verdict.",
)
@click.option(
    "--seconds", type=click.FloatRange(0.1, 3600), default=10.0, show_default=True, help="How long to sample at most."
)
@click.option(
    "--frequency",
    type=click.IntRange(1, 100_000),
    default=8000,
    show_default=True,
    help="Samples a second and CPU to ask perf for.",
)
@click.option(
    "--event",
    default="auto",
    show_default=True,
    help="perf event; auto takes cycles with the best precision there is, else cpu-clock.",
)
@what_the_program_needs
@click.option("--force", is_flag=True, help="Replace the output directory if it exists.")
@click.option("--report/--no-report", default=True, show_default=True, help="Write report.html and the PNGs.")
@json_option
@common_options
@click.argument("program", nargs=-1, type=click.UNPROCESSED, metavar="[-- PROGRAM [ARGS]...]")
@click.pass_obj
def command(
    settings: Settings,
    *,
    scenario: str | None,
    syscall: str | None,
    errno: str | None,
    target: str,
    output: Path | None,
    evidence: str,
    confidence: float,
    least_seconds: float,
    seconds: float,
    frequency: int,
    event: str,
    files: tuple[Path, ...],
    modules: tuple[str, ...],
    force: bool,
    report: bool,
    as_json: bool,
    program: tuple[str, ...],
) -> int:
    """Make a system call fail on a kernel, sample it, and name the line that made it fail.

    The load is a scenario of the project (`whyerrno scenarios`), or a PROGRAM of your own that repeats the failing
    call by itself; into a guest goes the program with its shared libraries and every --file.

    Recording ends as soon as a look at what there is shows a verdict of the --confidence asked for: after
    --least-seconds at the earliest, after --seconds at the latest.
    """
    what, syscall, errno = check_load(scenario, syscall, errno, program)
    from profiler import pipeline

    request = pipeline.RunRequest(
        target=target,
        scenario=scenario,
        program=list(program),
        files=list(files),
        modules=list(modules),
        syscall=syscall,
        errno=errno,
        seconds=seconds,
        frequency=frequency,
        event=event,
        evidence=kinds.parse(evidence),
        confidence=confidence,
        least_seconds=least_seconds,
    )
    directory = output or default_output(what, target)
    with show_progress(quiet=settings.quiet) as progress:
        analysis = pipeline.diagnose(request, directory, force=force, progress=progress)
    return conclude(analysis, directory, as_json=as_json, report=report)


def check_load(
    scenario: str | None, syscall: str | None, errno: str | None, program: tuple[str, ...]
) -> tuple[str, str, str]:
    """What to call the run, its system call and its errno. Raises UsageError where the load is not well said."""
    if scenario:
        if syscall or errno or program:
            raise UsageError("--scenario goes without --syscall, --errno and PROGRAM", hint="a scenario has its own")
        found = find_scenario(scenario)
        return scenario, found.syscall, found.errno
    if not program:
        raise UsageError(
            "nothing to run",
            hint="--scenario NAME (`whyerrno scenarios` lists them), or --syscall NAME --errno NAME -- PROGRAM ARGS",
        )
    if not syscall or not errno:
        raise UsageError("a program needs --syscall and --errno", hint="the call it repeats and how that fails")
    return Path(program[0]).name, check_syscall(syscall), check_errno(errno)
