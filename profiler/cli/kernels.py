"""whyerrno kernels: what stock kernels are here, and fetching more."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from profiler.cli.output import json_option, print_columns, print_json
from profiler.cli.progress import Progress, show_progress
from profiler.cli.root import Settings, common_options
from profiler.errors import MissingError

if TYPE_CHECKING:
    from profiler.model import Kernel

PARTS = ("image", "vmlinux", "source", "modules", "config")


@click.group(
    epilog="""\b
Examples:
  whyerrno kernels list
  whyerrno kernels list --available
  whyerrno kernels fetch 6.12
  whyerrno kernels path 6.12 vmlinux
"""
)
def command() -> None:
    """Stock Debian kernels: image, debug information and source of exactly one package version."""


@command.command(
    "list",
    epilog="""\b
Examples:
  whyerrno kernels list
  whyerrno kernels list --available --json
""",
)
@click.option("--available", is_flag=True, help="Ask apt's mirror which versions could be fetched, too.")
@json_option
@common_options
@click.pass_obj
def list_kernels(settings: Settings, available: bool, as_json: bool) -> int:
    """List the kernels that were fetched."""
    from profiler import lab

    rows = [describe(kernel) for kernel in lab.list_cached()]
    if available:
        with show_progress(quiet=settings.quiet) as progress:
            rows += fetchable({row["package_version"] for row in rows}, progress)
    if as_json:
        print_json(rows)
    elif rows:
        header = ("version", "release", "package_version", "state")
        print_columns([name.upper() for name in header], [[row[name] for name in header] for row in rows])
    else:
        click.echo("no kernels fetched; `whyerrno kernels fetch 6.1` fetches one", err=True)
    return 0


@command.command(
    epilog="""\b
Examples:
  whyerrno kernels fetch 6.12
  whyerrno kernels fetch 5.10 6.1 6.12 7.3
  whyerrno kernels fetch 6.1 --module tun --module vsock
"""
)
@click.argument("versions", nargs=-1, required=True, metavar="VERSION...")
@click.option("--module", "modules", multiple=True, help="A kernel module whose debug info to fetch too; repeatable.")
@common_options
@click.pass_obj
def fetch(settings: Settings, versions: tuple[str, ...], modules: tuple[str, ...]) -> int:
    """Fetch stock Debian kernels into $XDG_CACHE_HOME/whyerrno, through apt, signatures checked.

    A VERSION is the first two numbers of a release. The newest package version that the mirror has whole is taken.
    About 500 MB are downloaded and 1.5 GB kept for each. Needs no root. Of modules only those named are kept, 0.5 to
    20 MB each; for a kernel that is here already some 300 MB are downloaded to get them.
    """
    from profiler import lab

    for version in versions:
        with show_progress(quiet=settings.quiet) as progress:
            here = lab.find(version) if modules else None  # theirs must be of the kernel that is here
            kernel = here or lab.fetch(version, progress)
            lab.fetch_modules(kernel, modules, progress)
        click.echo(f"{version}: {kernel.release}, package version {kernel.package_version}")
    return 0


@command.command(
    epilog="""\b
Examples:
  whyerrno kernels path 6.12
  addr2line -ie $(whyerrno kernels path 6.12 vmlinux) ffffffff81000000
"""
)
@click.argument("version")
@click.argument("part", type=click.Choice(PARTS), required=False)
@common_options
def path(version: str, part: str | None) -> int:
    """Print where a fetched kernel's PART lies; all parts when none is named."""

    kernel = find_kernel(version)
    if part is None:
        print_columns(("PART", "PATH"), [(name, str(getattr(kernel, name) or "-")) for name in PARTS])
        return 0
    found = getattr(kernel, part)
    if found is None:
        raise MissingError(f"kernel {version} has no {part}", hint=f"whyerrno kernels fetch {version}")
    click.echo(found)
    return 0


def describe(kernel: Kernel) -> dict[str, str]:
    return {
        "version": version_of(kernel.release),
        "release": kernel.release,
        "package_version": kernel.package_version,
        "build_id": kernel.build_id,
        "state": "fetched",
    }


def version_of(release: str) -> str:
    """`6.1` of `6.1.0-56-cloud-amd64`: what `vm:` and `kernels fetch` take."""
    return ".".join(re.findall(r"[0-9]+", release)[:2])


def find_kernel(kernel: str) -> Kernel:
    """A kernel by a path to it, or among those fetched. Raises MissingError where there is none."""
    from profiler import lab

    if Path(kernel).exists():
        return lab.from_path(Path(kernel))
    found = lab.find(kernel)
    if found is None:
        raise MissingError(f"kernel {kernel} is not here", hint=f"`whyerrno kernels fetch {kernel}` fetches it")
    return found


def fetchable(cached: set[str], progress: Progress) -> list[dict[str, str]]:
    """Those that apt's mirror has whole, less the `cached` package versions."""
    from profiler import lab

    return [
        {
            "version": version_of(k.release),
            "release": k.release,
            "package_version": k.package_version,
            "build_id": "",
            "state": f"in {k.suite}",
        }
        for k in lab.available(progress)
        if k.package_version not in cached
    ]
