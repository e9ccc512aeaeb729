"""Which kernels the mirrors have whole: image, debug info and source at exactly one package version."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from profiler.lab import debian_version
from profiler.lab.apt import Apt, PackageVersion, Progress

# linux-image-6.1.0-56-cloud-amd64; from 7 on the meta package's parts linux-binary-* and linux-modules-*.
# Not linux-image-6.12-cloud-amd64, which only depends on the newest.
_IMAGE = re.compile(r"^linux-(?:image|binary)-(\d+\.\d+\.\d\S*-cloud-amd64)$")
_SOURCE = re.compile(r"^linux-source-(\d+\.\d+)$")


@dataclass(frozen=True, slots=True)
class Available:
    """A kernel that can be fetched."""

    release: str  # uname -r
    package_version: str
    suite: str  # bookworm-security
    packages: tuple[str, ...]  # NAME=VERSION: image parts, debug info, source


def available(apt: Apt, progress: Progress, *, force: bool = False) -> list[Available]:
    """All that the mirrors have whole, newest last. Raises MissingError without any package list."""
    apt.update(progress, force=force)
    progress("reading package lists", None)
    names = [name for name in apt.names("linux-") if "cloud-amd64" in name or _SOURCE.match(name)]
    return whole(apt.versions(names))


def whole(packages: Iterable[PackageVersion]) -> list[Available]:
    """Those releases of which every needed package is listed at one version, newest last."""
    suites: dict[tuple[str, str], str] = {}
    for package in packages:
        suites.setdefault((package.name, package.version), package.suite)
    found = {}
    for (name, version), suite in suites.items():
        match = _IMAGE.match(name)
        if match and (needed := _needed(match[1], version, suites)):
            packages_of = tuple(f"{package}={version}" for package in needed)
            found[version] = Available(match[1], version, suite, packages_of)
    return [found[version] for version in sorted(found, key=debian_version.key)]


def _needed(release: str, version: str, listed: dict[tuple[str, str], str]) -> list[str] | None:
    """Names of the packages that make up a whole kernel, or None where one is not listed."""
    numbers = debian_version.upstream(version)
    source = ".".join(map(str, numbers[:2]))
    common = [f"linux-image-{release}-dbg", f"linux-source-{source}"]
    if (f"linux-binary-{release}", version) in listed:
        image = [f"linux-binary-{release}", f"linux-modules-{release}"]
        base = f"linux-base-{release}"  # the configuration
        image += [base] if (base, version) in listed else []
    else:
        image = [f"linux-image-{release}"]
    needed = [*image, *common]
    return needed if all((name, version) in listed for name in needed) else None
