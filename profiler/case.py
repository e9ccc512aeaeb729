"""What a conclusion rests on, opened: a recording's samples, and the kernel's code and source that they are of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from profiler import kaslr, lab, recording
from profiler.conclude.analysis import Concluded, Subject, concluded
from profiler.debuginfo.c_preprocessor import Config, read_config
from profiler.debuginfo.code import KernelCode, read_running_text
from profiler.debuginfo.lines import LineTable
from profiler.debuginfo.modules import Modules
from profiler.debuginfo.source import SourceTree
from profiler.debuginfo.vmlinux import Vmlinux
from profiler.errors import InputError, MissingError
from profiler.model import (
    ExecutionLog,
    Kernel,
    KernelId,
    LoadResult,
    Manifest,
    PerfRecording,
    ProbeHits,
    Samples,
)
from profiler.parse import annotated_samples, perf_annotate, perf_data, perf_script
from profiler.parse import modules as loaded_modules
from profiler.target.local import installed

Progress = Callable[[str, float | None], None]


@dataclass(frozen=True, slots=True)
class Case:
    """All of a recording that a conclusion rests on, but for the evidence. What is concluded from more and more samples
    of one recording shares what is found out about the kernel's code."""

    subject: Subject
    code: KernelCode
    source: SourceTree | None
    config: Config | None

    kernel: Kernel

    def conclude(
        self, data: PerfRecording, execution: ExecutionLog | None = None, probes: Sequence[ProbeHits] = ()
    ) -> Concluded:
        return concluded(self.subject, data, self.code, self.source, self.config, execution, probes)

    def of_finished(self, directory: Path, kernel: Kernel) -> Case:
        """The same code, as recorded in a directory that is whole by now."""
        subject = subject_of(recording.read_manifest(directory), recording.read_load(directory))
        subject = replace(subject, kaslr_offset=self.subject.kaslr_offset)
        return replace(self, subject=subject, config=_config(directory, kernel))


def open_case(directory: Path, *, kernel: Kernel | None = None, progress: Progress) -> Case:
    """Raises MissingError where the kernel's vmlinux is not here, MismatchError where it is another's."""
    manifest = recording.read_manifest(directory)
    load = recording.read_load(directory)
    kernel = kernel or find_kernel(manifest)
    progress("reading symbols", None)
    return case_of(directory, kernel, subject_of(manifest, load))


def case_of(directory: Path, kernel: Kernel, subject: Subject) -> Case:
    """`subject` may lack where the kernel was loaded. Raises as `open_case`."""
    vmlinux = _vmlinux(kernel, subject.kernel.build_id)
    subject = replace(subject, kaslr_offset=_loaded_at(directory, vmlinux, subject.manifest))
    code = _code(kernel, vmlinux, directory, subject.kaslr_offset)
    return Case(subject, code, _source(kernel), _config(directory, kernel), kernel)


def find_kernel(manifest: Manifest) -> Kernel:
    """The recorded kernel's files on this machine, by build id.

    Raises MissingError where they are not here.
    """
    for kernel in lab.list_cached():
        if kernel.build_id == manifest.build_id:
            return kernel
    if manifest.target == "local" or manifest.target.startswith("ssh:"):
        found = installed(manifest.release, manifest.build_id, manifest.arch, manifest.package_version)
        if found.build_id == manifest.build_id and found.vmlinux is not None:
            return found
    kind, _, rest = manifest.target.partition(":")
    if kind == "vm" and Path(rest).is_dir() and (built := lab.from_path(Path(rest))).build_id == manifest.build_id:
        return built
    hint = "give it with --vmlinux FILE"
    if manifest.package_version:
        hint = f"`whyerrno kernels fetch {manifest.package_version}`, or {hint}"
    raise MissingError(
        f"no vmlinux of {manifest.release} (build id {manifest.build_id[:12]}) on this machine", hint=hint
    )


def _vmlinux(kernel: Kernel, build_id: str) -> Vmlinux:
    if kernel.vmlinux is None:
        raise MissingError(
            f"no vmlinux of {kernel.release} with debug info on this machine",
            hint=f"apt install linux-image-{kernel.release}-dbg, or --vmlinux FILE",
        )
    vmlinux = Vmlinux(kernel.vmlinux)
    if build_id:
        vmlinux.check_build_id(build_id)
    return vmlinux


def _code(kernel: Kernel, vmlinux: Vmlinux, directory: Path, kaslr_offset: int) -> KernelCode:
    lines = LineTable.open(vmlinux, cache_dir=lab.cache_directory() / "symcache")
    facts, text, symbols = (directory / n for n in (recording.MODULES, recording.MODULES_TEXT, recording.KALLSYMS))
    loaded = loaded_modules.read(facts, text, symbols, kaslr_offset)
    modules = Modules(loaded, lambda module: lab.find_module(kernel, module.name), vmlinux.find_symbol, lines.relative)
    return KernelCode(vmlinux, lines, read_running_text(directory / recording.KERNEL_TEXT), modules)


def _source(kernel: Kernel) -> SourceTree | None:
    """The kernel's source tree, or None; a tree of another version is refused."""
    if kernel.source is None:
        return None
    tree = SourceTree(kernel.source)
    if kernel.release:
        tree.check_version(kernel.release, kernel.package_version)
    return tree


def _config(directory: Path, kernel: Kernel) -> Config | None:
    """The kernel's configuration, of the recording or beside the kernel's files."""
    for path in (directory / recording.CONFIG, kernel.config):
        if path is not None and path.is_file():
            return read_config(path.read_text(errors="replace"))
    return None


def subject_of(manifest: Manifest, load: LoadResult) -> Subject:
    return Subject(
        syscall=manifest.syscall,
        errno=manifest.errno,
        errno_number=manifest.errno_number,
        kernel=KernelId(manifest.release, manifest.package_version, manifest.build_id, manifest.arch),
        kaslr_offset=0,
        emulated=manifest.emulated,
        manifest=manifest,
        load=load,
    )


def read_samples(path: Path, kind: str = "", *, salvage: bool = False) -> PerfRecording:
    """The samples of a file of perf's, of the format that a Recording calls `kind` (by default its own name).

    Raises InputError naming the file.
    """
    kind = kind or path.name
    if kind == recording.PERF_DATA:
        return perf_data.read(path, salvage=salvage)
    try:
        with path.open("rb") as lines:
            return perf_script.read(lines) if kind == recording.PERF_SCRIPT else _read_annotate(lines)
    except InputError as error:
        raise InputError(f"{path}: {error.args[0]}", hint=error.hint) from error


def _read_annotate(lines: Iterable[bytes]) -> PerfRecording:
    return annotated_samples.samples_of(perf_annotate.read(lines))


def _loaded_at(directory: Path, vmlinux: Vmlinux, manifest: Manifest | None) -> int:
    """The KASLR offset: by the recorded kallsyms where there is one, since no vmlinux may have been at hand then."""
    path = directory / recording.KALLSYMS
    found = kaslr.of_kallsyms(path, vmlinux) if path.is_file() else None
    if found is not None or manifest is None:
        return found or 0
    return kaslr.checked(manifest.kaslr_offset, directory / recording.MANIFEST, vmlinux)


def no_samples() -> PerfRecording:
    """Of a recording that has none."""
    none = {name: np.zeros(0, dtype) for name, dtype in _COLUMNS.items()}
    samples = Samples(**none, chain_start=np.zeros(1, np.int64))
    return PerfRecording(samples, events=(), comms=(), parents={}, lost=0, throttled=0)


_COLUMNS: dict[str, type[np.generic]] = {
    **{"ip": np.uint64, "time": np.uint64, "period": np.uint64, "chain": np.uint64},
    **{"pid": np.int32, "tid": np.int32, "cpu": np.int32, "comm": np.int32},
    **{"event": np.int16, "in_kernel": np.bool_},
}
