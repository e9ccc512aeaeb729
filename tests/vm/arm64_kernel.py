"""Debian's kernel for arm64, of the version whose source is cached for x86-64: its vmlinux, fetched once."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from profiler.errors import ProfilerError
from profiler.lab import store, unpack
from profiler.lab.apt import Apt
from profiler.model import Kernel
from tests.conftest import require
from tests.vm.kernels import kernel_of


def _silent(phase: str, fraction: float | None) -> None:
    pass


@cache
def arm64_vmlinux(version: str) -> tuple[Path, Kernel]:
    """The image with symbols and lines, and the x86-64 kernel of the same package version, for the source tree.

    The test is skipped where it can neither be found in the cache nor fetched.
    """
    sibling = kernel_of(version)
    directory = store.cache_directory() / "arm64"
    path = directory / f"vmlinux-{sibling.package_version}"
    if not path.is_file():
        try:
            _fetch(sibling, directory, path)
        except ProfilerError as error:
            require(False, f"the arm64 kernel {sibling.package_version} cannot be had here: {error}")
            raise
    return path, sibling


def _fetch(sibling: Kernel, directory: Path, path: Path) -> None:
    apt = Apt(directory / "apt", "arm64")
    directory.mkdir(parents=True, exist_ok=True)
    apt.update(_silent)
    name = f"linux-image-{sibling.release.replace('amd64', 'arm64')}-dbg"
    (package,) = apt.files([f"{name}={sibling.package_version}"])
    apt.download([package], directory, _silent, "fetching")
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    unpack.vmlinux(directory / package.name, partial, _silent)
    partial.rename(path)
    (directory / package.name).unlink()
