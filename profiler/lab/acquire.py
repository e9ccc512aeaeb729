"""Fetch a stock Debian kernel into the cache: whole, checked, and once, however many runs ask for it."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from profiler.errors import MismatchError, MissingError
from profiler.lab import catalogue, debian_version, elf_note, store, unpack
from profiler.lab.apt import Apt, NotFoundError, Progress
from profiler.lab.catalogue import Available
from profiler.model import Kernel

_ROOM = "free some space, or set XDG_CACHE_HOME to a directory on another disk"
_PARTIAL = ".partial-"
_UNPACKED_BYTES = 2 << 30  # vmlinux (up to 0.7 GB), sources (0.6 GB), and what stands beside them for a while


def available(progress: Progress) -> list[Available]:
    """The kernels that the mirrors have whole, newest last.

    Raises MissingError where this machine's apt has no Debian archive, or none can be reached.
    """
    with _locked(progress):
        return catalogue.available(_apt(), progress)


def fetch(version: str, progress: Progress) -> Kernel:
    """The newest kernel of `version` ("6.1", "6.1.192-2") that the mirrors have whole, from now on in the cache.

    A package that is listed and gone leads to the next older kernel, which `progress` says. Raises MissingError
    when there is none, when the disk is too small or the mirror out of reach.
    """
    gone: dict[str, str] = {}
    with _locked(progress):
        apt = _apt()
        for newest_lists in (False, True):  # lists may be older than what they say is there
            for candidate in _candidates(apt, version, progress, newest_lists):
                if candidate.package_version in gone:
                    continue
                try:
                    return store.find(candidate.package_version) or _fetch(apt, candidate, progress)
                except NotFoundError as error:
                    gone[candidate.package_version] = str(error)
                    progress(f"{candidate.package_version} is not whole on the mirror; trying the next older", None)
    raise MissingError(
        f"no kernel {version} is whole on the mirror (image, debug info and source of one version)",
        hint="; ".join(gone.values()),
    )


@contextlib.contextmanager
def debug_package(kernel: Kernel, progress: Progress) -> Iterator[Path]:
    """The -dbg package of a fetched kernel, downloaded anew and gone at the end. Raises MissingError where the mirror
    has it no longer."""
    with _locked(progress):
        apt = _apt()
        apt.update(progress)
        directory = store.cache_directory() / "downloads" / f"{kernel.package_version}-dbg"
        files = apt.files([f"linux-image-{kernel.release}-dbg={kernel.package_version}"])
        try:
            apt.download(files, directory, progress, f"fetching debug info of Debian kernel {kernel.package_version}")
            yield directory / files[0].name
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def _candidates(apt: Apt, version: str, progress: Progress, force: bool) -> list[Available]:
    """Newest first. Raises MissingError, naming the versions that the mirror has, where there is none."""
    listed = catalogue.available(apt, progress, force=force)
    matching = [kernel for kernel in listed if debian_version.matches(kernel.package_version, version)]
    if not matching:
        series = sorted({debian_version.upstream(kernel.package_version)[:2] for kernel in listed})
        known = ", ".join(".".join(map(str, numbers)) for numbers in series)
        raise MissingError(f"the mirror has no kernel {version}", hint=f"it has {known}" if known else "")
    return matching[::-1]


def _fetch(apt: Apt, kernel: Available, progress: Progress) -> Kernel:
    files = apt.files(list(kernel.packages))
    directory = store.kernels_directory()
    directory.mkdir(parents=True, exist_ok=True)
    _require_space(sum(file.size for file in files), directory, kernel)
    downloads = directory.parent / "downloads" / kernel.package_version
    try:
        apt.download(files, downloads, progress, f"fetching Debian kernel {kernel.package_version}")
    except NotFoundError:  # there is nothing to go on with later
        shutil.rmtree(downloads, ignore_errors=True)
        raise
    staging = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=directory))
    try:
        staging.chmod(0o755)
        _unpack(kernel, downloads, staging, progress)
        shutil.rmtree(directory / kernel.package_version, ignore_errors=True)  # a damaged one
        staging.rename(directory / kernel.package_version)
    except OSError as error:
        raise MissingError(f"kernel {kernel.package_version} could not be unpacked: {error}", hint=_ROOM) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    shutil.rmtree(downloads, ignore_errors=True)
    return store.read(directory / kernel.package_version)


def _unpack(kernel: Available, downloads: Path, into: Path, progress: Progress) -> None:
    files = {path.name.partition("_")[0]: path for path in downloads.glob("*.deb")}
    names = [package.partition("=")[0] for package in kernel.packages]
    debug = f"linux-image-{kernel.release}-dbg"
    sources = next(name for name in names if name.startswith("linux-source-"))
    unpack.image_parts([files[name] for name in names if name not in (debug, sources)], into, progress)
    unpack.vmlinux(files[debug], into / "vmlinux", progress)
    unpack.source(files[sources], into / "source", progress)
    release = store.banner(into / "image").split()[0]
    if release != kernel.release:
        raise MismatchError(f"the package of {kernel.release} holds a kernel that calls itself {release}")
    build_id = elf_note.of_file(into / "vmlinux")
    store.write(into, Kernel(release, kernel.package_version, build_id, store.ARCH))


def _require_space(download: int, directory: Path, kernel: Available) -> None:
    needed, free = download + _UNPACKED_BYTES, shutil.disk_usage(directory).free
    if free < needed:
        raise MissingError(
            f"kernel {kernel.package_version} needs {needed / 1e9:.1f} GB in {directory}; {free / 1e9:.1f} GB are free",
            hint=_ROOM,
        )


def _apt() -> Apt:
    return Apt(store.cache_directory() / "apt")


@contextlib.contextmanager
def _locked(progress: Progress) -> Iterator[None]:
    """One run fetches at a time; the others wait. Staging directories found under the lock are a killed run's."""
    directory = store.cache_directory()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / "fetch.lock").open("w")
    except OSError as error:
        raise MissingError(f"the cache cannot be written: {error}", hint="set XDG_CACHE_HOME") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another run that fetches", None)
            fcntl.flock(lock, fcntl.LOCK_EX)
        for left in store.kernels_directory().glob(f"{_PARTIAL}*"):
            shutil.rmtree(left, ignore_errors=True)
        yield
