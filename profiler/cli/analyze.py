"""whyerrno analyze: conclude again from a recording alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from profiler import evidence as kinds
from profiler.cli.output import json_option, salvage_option
from profiler.cli.progress import show_progress
from profiler.cli.root import EXIT_STATUS, Settings, common_options
from profiler.cli.verdict import conclude
from profiler.model import Kernel, Manifest


@click.command(
    epilog="""\b
Examples:
  whyerrno analyze runs/bind-6.1
  whyerrno analyze runs/bind-6.1 --json --no-report
  whyerrno analyze runs/bind-6.1 --evidence samples
  whyerrno analyze runs/from-elsewhere --vmlinux ~/vmlinux --source ~/src/linux

"""
    + EXIT_STATUS
)
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--vmlinux",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The kernel recorded, with debug information, where it is not found by itself.",
)
@click.option(
    "--source",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Its source tree, same version.",
)
@click.option(
    "--evidence",
    metavar="RUNGS",
    default="auto",
    show_default=True,
    help="What of the recording to use: its samples, its exact log; auto uses all it holds.",
)
@salvage_option
@click.option("--report/--no-report", default=True, show_default=True, help="Write report.html and the PNGs.")
@json_option
@common_options
@click.pass_obj
def command(
    settings: Settings,
    *,
    run: Path,
    vmlinux: Path | None,
    source: Path | None,
    evidence: str,
    salvage: bool,
    report: bool,
    as_json: bool,
) -> int:
    """Analyze a recording again, offline, and replace its analysis.json.

    Needs the vmlinux that was recorded (matched by build id) among the fetched kernels, or given by --vmlinux.
    """
    from profiler import pipeline, recording

    given = given_kernel(recording.read_manifest(run), vmlinux, source) if vmlinux or source else None
    with show_progress(quiet=settings.quiet) as progress:
        analysis = pipeline.analyze(
            run, kernel=given, salvage=salvage, evidence=kinds.parse(evidence), progress=progress
        )
    return conclude(analysis, run, as_json=as_json, report=report)


def given_kernel(manifest: Manifest, vmlinux: Path | None, source: Path | None) -> Kernel:
    """The recorded kernel with the given parts in place of those that would be found."""
    from profiler import pipeline

    if vmlinux is None:
        return dataclasses.replace(pipeline.find_kernel(manifest), source=source)
    return Kernel(
        release=manifest.release,
        package_version=manifest.package_version,
        build_id=manifest.build_id,
        arch=manifest.arch,
        vmlinux=vmlinux,
        source=source,
    )
