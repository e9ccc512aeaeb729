"""A Recording made of what perf alone recorded: perf.data, or the text of perf script or perf annotate."""

from __future__ import annotations

import errno as errno_names
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from profiler import kaslr, lab, pipeline, recording
from profiler.debuginfo.vmlinux import Vmlinux
from profiler.errors import InputError, MismatchError, MissingError
from profiler.model import MANIFEST_SCHEMA, Analysis, Kernel, LoadResult, Manifest, PerfRecording
from profiler.pipeline import Progress
from profiler.target.local import Local


def import_perf(
    data: Path,
    *,
    vmlinux: Path | None,
    source: Path | None,
    syscall: str,
    errno: str,
    out: Path,
    force: bool,
    salvage: bool = False,
    progress: Progress,
) -> Analysis:
    """Makes the Recording `out` of `data` and analyzes it; with no system call named, to a profile without a verdict.

    With `salvage` data that are cut short are taken as far as they are whole, and a warning says so.
    Raises InputError on data that is none of perf's, MissingError where the kernel's vmlinux is not known,
    MismatchError where it is another kernel's.
    """
    progress("reading samples", None)
    with recording.new_directory(out, force=force) as partial:
        name = recording.data_name(data)
        read = pipeline.read_samples(data, name, salvage=salvage)
        kernel = _kernel(read, vmlinux, source)
        manifest = _manifest(read, kernel, syscall, errno, kaslr_offset=_kaslr_offset(read, kernel, data))
        if data.is_dir():
            shutil.copytree(data, partial / name)
        else:
            shutil.copyfile(data, partial / name)
        recording.write_manifest(partial, manifest)
        recording.write_load(partial, LoadResult(0, 0.0, {}, 0, ""))
        return pipeline.analyze(partial, kernel=kernel, salvage=salvage, progress=progress)


def _kernel(read: PerfRecording, vmlinux: Path | None, source: Path | None) -> Kernel:
    if vmlinux is not None:
        return _given_kernel(read, vmlinux, source)
    if not read.kernel_build_id:
        raise MissingError("the data do not say which kernel they are of", hint="give its vmlinux with --vmlinux FILE")
    here = Local().kernel()
    for kernel in [*lab.list_cached(), *([here] if here else [])]:
        if kernel.build_id == read.kernel_build_id and kernel.vmlinux is not None:
            return replace(kernel, source=source or kernel.source)
    raise MissingError(
        f"no vmlinux of the recorded kernel ({read.os_release}, build id {read.kernel_build_id}) on this machine",
        hint="give it with --vmlinux FILE, or fetch it with `whyerrno kernels fetch`",
    )


def _given_kernel(read: PerfRecording, vmlinux: Path, source: Path | None) -> Kernel:
    """The kernel of a vmlinux, which must be the recorded one as far as the data say which that is."""
    with Vmlinux(vmlinux) as image:
        image.require_lines()
        if read.kernel_build_id:
            image.check_build_id(read.kernel_build_id)
        release = _release(image) or read.os_release
        if read.os_release and release != read.os_release:
            raise MismatchError(
                f"{vmlinux} is of Linux {release}, the data are of {read.os_release}",
                hint="give the vmlinux of exactly the recorded kernel",
            )
        known = next((kernel for kernel in lab.list_cached() if kernel.build_id == image.build_id), None)
        package = known.package_version if known else ""
        tree = source or (known.source if known else None)
        return Kernel(release, package, image.build_id, read.arch or "x86_64", vmlinux=vmlinux, source=tree)


def _release(image: Vmlinux) -> str:
    """As `uname -r` says it: the third word of the kernel's banner; "" where a vmlinux has none."""
    address = image.find_symbol("linux_banner")
    words = image.read(address, 80).split() if address is not None else []
    return words[2].decode("ascii", "replace") if words[:2] == [b"Linux", b"version"] else ""


def _manifest(read: PerfRecording, kernel: Kernel, syscall: str, errno: str, *, kaslr_offset: int) -> Manifest:
    times = read.samples.time
    event = read.events[0] if read.events else None
    seconds = float(np.ptp(times)) / 1e9 if len(times) else 0.0
    return Manifest(
        schema=MANIFEST_SCHEMA,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        syscall=syscall,
        errno=errno,
        errno_number=getattr(errno_names, errno) if errno else 0,
        scenario=None,
        program=[],
        target="import",
        release=kernel.release,
        package_version=kernel.package_version,
        build_id=kernel.build_id,
        arch=kernel.arch,
        kaslr_offset=kaslr_offset,
        event=event.name if event else "",
        frequency=event.frequency if event else 0,
        seconds=round(seconds, 6),
        lost=read.lost,
        throttled=read.throttled,
        commands=[list(read.command_line)] if read.command_line else [],
        tool_versions={"perf": read.perf_version} if read.perf_version else {},
        emulated=False,
        warnings=_warnings(read),
    )


def _warnings(read: PerfRecording) -> list[str]:
    warnings = [f"{len(read.decode_errors)} records could not be decoded"] if read.decode_errors else []
    if not read.kernel_build_id:
        warnings.append(
            "the data do not hold the kernel's build id: that the vmlinux is the recorded one is taken on trust"
        )
    return warnings


def _kaslr_offset(read: PerfRecording, kernel: Kernel, data: Path) -> int:
    """From the kernel's MMAP record, which has the loaded address of a symbol; without one, from the samples."""
    assert kernel.vmlinux is not None
    with Vmlinux(kernel.vmlinux) as image:
        mapped = kaslr.of_map(read, image, data)
        return kaslr.of_samples(read, image) if mapped is None else mapped


__all__ = ["InputError", "import_perf"]
