"""A Recording made of what perf alone recorded: perf.data, or the text of perf script or perf annotate."""

from __future__ import annotations

import errno as errno_names
import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from profiler import lab, pipeline, recording
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
    progress: Progress,
) -> Analysis:
    """Makes the Recording `out` of `data` and analyzes it; with no system call named, to a profile without a verdict.

    Raises InputError on data that is none of perf's, MissingError where the kernel's vmlinux is not known,
    MismatchError where it is another kernel's.
    """
    progress("reading samples", None)
    with recording.new_directory(out, force=force) as partial:
        copy = partial / recording.data_name(data)
        if data.is_dir():
            shutil.copytree(data, copy)
        else:
            shutil.copyfile(data, copy)
        read = pipeline.read_samples(partial)
        kernel = _kernel(read, vmlinux, source)
        recording.write_manifest(partial, _manifest(read, kernel, syscall, errno))
        recording.write_load(partial, LoadResult(0, 0.0, {}, 0, ""))
        return pipeline.analyze(partial, kernel=kernel, progress=progress)


def _kernel(read: PerfRecording, vmlinux: Path | None, source: Path | None) -> Kernel:
    if vmlinux is not None:
        with Vmlinux(vmlinux) as image:
            if read.kernel_build_id:
                image.check_build_id(read.kernel_build_id)
            known = next((kernel for kernel in lab.list_cached() if kernel.build_id == image.build_id), None)
            release, package = (known.release, known.package_version) if known else (read.os_release, "")
            tree = source or (known.source if known else None)
            return Kernel(release, package, image.build_id, read.arch or "x86_64", vmlinux=vmlinux, source=tree)
    if not read.kernel_build_id:
        raise MissingError("the data does not say which kernel it is of", hint="give its vmlinux with --vmlinux FILE")
    here = Local().kernel()
    for kernel in [*lab.list_cached(), *([here] if here else [])]:
        if kernel.build_id == read.kernel_build_id and kernel.vmlinux is not None:
            return kernel
    raise MissingError(
        f"no vmlinux with build id {read.kernel_build_id} on this machine",
        hint="give it with --vmlinux FILE, or fetch it with `whyerrno kernels fetch`",
    )


def _manifest(read: PerfRecording, kernel: Kernel, syscall: str, errno: str) -> Manifest:
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
        kaslr_offset=_kaslr_offset(read, kernel),
        event=event.name if event else "",
        frequency=event.frequency if event else 0,
        seconds=round(seconds, 6),
        lost=read.lost,
        throttled=read.throttled,
        commands=[list(read.command_line)] if read.command_line else [],
        tool_versions={"perf": read.perf_version} if read.perf_version else {},
        emulated=False,
        warnings=[f"{len(read.decode_errors)} records could not be decoded"] if read.decode_errors else [],
    )


def _kaslr_offset(read: PerfRecording, kernel: Kernel) -> int:
    """From the kernel's MMAP record, which has the loaded address of a symbol; without one, from the samples."""
    assert kernel.vmlinux is not None
    with Vmlinux(kernel.vmlinux) as image:
        if read.kernel_map is not None:
            symbol = read.kernel_map.name.rpartition("]")[2] or "_text"
            return read.kernel_map.pgoff - image.symbol_address(symbol)
        start, end = image.text_range
        addresses = read.samples.ip[read.samples.in_kernel]
        inside = (addresses >= np.uint64(start)) & (addresses < np.uint64(end))
        if len(addresses) and inside.mean() < 0.5:
            raise MismatchError(
                f"{1 - inside.mean():.0%} of the kernel samples lie outside the text of {kernel.vmlinux}",
                hint="the text does not say where KASLR put the kernel: import the perf.data itself",
            )
        return 0


__all__ = ["InputError", "import_perf"]
