"""The road from end to end: record, analyze, and both. Read top to bottom; the recording half is in acquire."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from profiler import acquire, kaslr, lab, recording, tables
from profiler.acquire import Look, Progress, RunRequest
from profiler.conclude.analysis import Subject, conclude
from profiler.debuginfo.c_preprocessor import Config, read_config
from profiler.debuginfo.code import KernelCode, read_running_text
from profiler.debuginfo.lines import LineTable
from profiler.debuginfo.modules import Modules
from profiler.debuginfo.source import SourceTree
from profiler.debuginfo.vmlinux import Vmlinux
from profiler.errors import InputError, MissingError, ProfilerError, UsageError
from profiler.evidence import AUTO, EXACT, SAMPLES
from profiler.model import (
    LOGGED_REGISTERS,
    Analysis,
    Conclusion,
    Effort,
    ExecutionLog,
    Kernel,
    KernelId,
    LoadResult,
    Manifest,
    PerfRecording,
    Samples,
)
from profiler.parse import annotated_samples, perf_annotate, perf_data, perf_script
from profiler.parse import modules as loaded_modules
from profiler.syscalls import NUMBERS
from profiler.target import open_target
from profiler.target.local import installed

__all__ = ["Progress", "RunRequest", "analyze", "diagnose", "find_kernel", "open_case", "read_samples", "record"]


def diagnose(request: RunRequest, out: Path, *, force: bool = False, progress: Progress) -> Analysis:
    """Record until the verdict is decided, and analyze. Raises MissingError before it records where the kernel has no
    debug info here."""
    recording.check_free(out, force=force)
    acquire.check(request)
    target = open_target(request.target, progress=progress)
    target.check()
    acquire.evidence_for(request, target)
    kernel = target.kernel()
    require_debug_info(kernel, request.target)
    assert kernel is not None
    watch = _Watch(request, kernel, emulated=target.emulated)
    acquire.record_on(target, request, out, force=force, decided=watch.is_decided, progress=progress)
    case = watch.case_of(out) or open_case(out, kernel=kernel, progress=progress)
    return _analyze(out, case, AUTO, salvage=False, progress=progress)


def record(request: RunRequest, out: Path, *, force: bool = False, progress: Progress) -> Path:
    """Makes the Recording `out`, of all the time asked for, and returns it. Raises as `acquire.record_on`."""
    recording.check_free(out, force=force)
    acquire.check(request)
    return acquire.record_on(
        open_target(request.target, progress=progress), request, out, force=force, progress=progress
    )


def require_debug_info(kernel: Kernel | None, target: str) -> None:
    """Raises MissingError where a verdict would be out of reach."""
    if kernel is not None and kernel.vmlinux is not None:
        with Vmlinux(kernel.vmlinux) as vmlinux:
            vmlinux.require_lines()
        return
    release = kernel.release if kernel is not None else os.uname().release
    raise MissingError(
        f"no vmlinux with debug info for the kernel of {target}, {release}",
        hint=f"install it (Debian: linux-image-{release}-dbg, Ubuntu: linux-image-{release}-dbgsym)",
    )


class _Watch:
    """Concludes from a recording while it goes on, to see whether it can end."""

    def __init__(self, request: RunRequest, kernel: Kernel, *, emulated: bool) -> None:
        self._request = request
        self._kernel = kernel
        self._emulated = emulated
        self._case: Case | None = None
        self._code_digest = b""

    def case_of(self, directory: Path) -> Case | None:
        """The finished recording's case, with what the looks found out about the kernel's code; None where there was
        no look, or the code is not what it was then."""
        if self._case is None or self._code_digest != _code_digest(directory):
            return None
        subject = _subject(recording.read_manifest(directory), recording.read_load(directory))
        subject = replace(subject, kaslr_offset=self._case.subject.kaslr_offset)
        return replace(self._case, subject=subject, config=_config(directory, self._kernel))

    def is_decided(self, look: Look) -> bool:
        """False, too, where a look fails: if anything is wrong, the analysis of the whole recording says it."""
        try:
            if self._case is None:
                self._case = self._open(look)
                self._code_digest = _code_digest(look.directory)
            path = look.directory / recording.PERF_DATA
            data = read_samples(path, salvage=True) if path.exists() else _no_samples()
            analysis = self._case.conclude(data, look.execution)
        except ProfilerError:
            return False
        return analysis.conclusion is Conclusion.NAMED and analysis.confidence >= self._request.confidence

    def _open(self, look: Look) -> Case:
        request, kernel = self._request, self._kernel
        subject = Subject(
            syscall=request.syscall,
            errno=request.errno,
            errno_number=acquire.errno_number(request.errno),
            kernel=KernelId(kernel.release, kernel.package_version, kernel.build_id, kernel.arch),
            kaslr_offset=0,
            emulated=self._emulated,
            manifest=None,
            load=LoadResult(0, 0.0, {}, look.load_pid, ""),
        )
        return _case(look.directory, kernel, subject)


@dataclass(frozen=True, slots=True)
class Case:
    """All of a recording that a conclusion rests on, but for the evidence. What is concluded from more and more samples
    of one recording shares what is found out about the kernel's code."""

    subject: Subject
    code: KernelCode
    source: SourceTree | None
    config: Config | None

    def conclude(self, data: PerfRecording, execution: ExecutionLog | None = None) -> Analysis:
        return conclude(self.subject, data, self.code, self.source, self.config, execution=execution)


def open_case(directory: Path, *, kernel: Kernel | None = None, progress: Progress) -> Case:
    """Raises MissingError where the kernel's vmlinux is not here, MismatchError where it is another's."""
    manifest = recording.read_manifest(directory)
    load = recording.read_load(directory)
    kernel = kernel or find_kernel(manifest)
    progress("reading symbols", None)
    return _case(directory, kernel, _subject(manifest, load))


def _case(directory: Path, kernel: Kernel, subject: Subject) -> Case:
    vmlinux = _vmlinux(kernel, subject.kernel.build_id)
    subject = replace(subject, kaslr_offset=_loaded_at(directory, vmlinux, subject.manifest))
    code = _code(kernel, vmlinux, directory, subject.kaslr_offset)
    return Case(subject, code, _source(kernel), _config(directory, kernel))


def analyze(
    directory: Path,
    *,
    kernel: Kernel | None = None,
    salvage: bool = False,
    evidence: frozenset[str] = AUTO,
    progress: Progress,
) -> Analysis:
    """Concludes from the Recording `directory`, offline, and writes analysis.json into it.

    evidence  what of the recording to use; AUTO: all that it holds
    salvage   samples that are cut short are taken as far as they are whole, and a warning says so

    Raises MissingError where the kernel's vmlinux is not here, MismatchError where it is another's,
    InputError where the recording is damaged, UsageError where it does not hold the evidence asked for.
    """
    case = open_case(directory, kernel=kernel, progress=progress)
    return _analyze(directory, case, evidence, salvage=salvage, progress=progress)


def _analyze(directory: Path, case: Case, evidence: frozenset[str], *, salvage: bool, progress: Progress) -> Analysis:
    manifest = case.subject.manifest
    used = _evidence(directory, evidence, sampled=manifest is None or manifest.event != "")
    progress("reading samples", None)
    data = read_samples(recording.samples_file(directory), salvage=salvage) if SAMPLES in used else _no_samples()
    execution = recording.read_execution_log(directory) if EXACT in used else None
    progress("weighing paths", None)
    analysis = replace(case.conclude(data, execution), effort=_effort(case.subject, used, data, execution))
    if salvage and data.decode_errors:
        analysis = replace(analysis, warnings=[*analysis.warnings, _salvaged(data)])
    recording.write_analysis(directory, analysis)
    tables.write_lines(directory, analysis)
    return analysis


def _code_digest(directory: Path) -> bytes:
    """Of what was recorded of the code that ran."""
    digest = hashlib.sha256()
    for name in (recording.KERNEL_TEXT, recording.MODULES, recording.MODULES_TEXT):
        path = directory / name
        digest.update(hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b"none")
    return digest.digest()


def _evidence(directory: Path, asked: frozenset[str], *, sampled: bool = True) -> frozenset[str]:
    """What of `asked` to use. Where samples were taken and are not there, reading them will say so; where a log was
    to be taken and is not there, the load ended before it could be, and its results are all there is."""
    held = set()
    if (directory / recording.EXECUTION_LOG).exists() or not sampled:
        held.add(EXACT)
    if any((directory / name).exists() for name in recording.SAMPLES_FILES) or not held:
        held.add(SAMPLES)
    if asked - held:
        raise UsageError(
            f"{directory} holds no {' and no '.join(sorted(asked - held))} evidence",
            hint=f"it was recorded with --evidence {','.join(sorted(held, reverse=True))}",
        )
    return asked or frozenset(held)


def _effort(
    subject: Subject, used: frozenset[str], data: PerfRecording, execution: ExecutionLog | None
) -> Effort | None:
    """None for an import, of which it is not known how long it took."""
    manifest = subject.manifest
    if manifest is None or manifest.target == "import":
        return None
    calls = 0
    if execution is not None and len(execution.address):
        rax = execution.registers[:, LOGGED_REGISTERS.index("rax")]
        entered = execution.address == execution.address[0]  # it begins with a call's first instruction
        calls = int(np.count_nonzero(entered & (rax == NUMBERS["x86_64"][subject.syscall])))
    return Effort(
        evidence=sorted(used, reverse=True),
        samples=len(data.samples.ip),
        seconds=manifest.seconds if SAMPLES in used else 0.0,
        calls=calls,
        instructions=len(execution.address) if execution is not None else 0,
        stopped_by=manifest.stopped_by,
    )


def _no_samples() -> PerfRecording:
    """Of a recording that has none."""
    none = {name: np.zeros(0, dtype) for name, dtype in _COLUMNS.items()}
    samples = Samples(**none, chain_start=np.zeros(1, np.int64))
    return PerfRecording(samples, events=(), comms=(), parents={}, lost=0, throttled=0)


_COLUMNS: dict[str, type[np.generic]] = {
    **{"ip": np.uint64, "time": np.uint64, "period": np.uint64, "chain": np.uint64},
    **{"pid": np.int32, "tid": np.int32, "cpu": np.int32, "comm": np.int32},
    **{"event": np.int16, "in_kernel": np.bool_},
}


def _salvaged(data: PerfRecording) -> str:
    first = data.decode_errors[0]
    return f"the samples are not whole, and what was whole of them was taken: {first.what}"


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


def _config(directory: Path, kernel: Kernel) -> Config | None:
    """The kernel's configuration, of the recording or beside the kernel's files."""
    for path in (directory / recording.CONFIG, kernel.config):
        if path is not None and path.is_file():
            return read_config(path.read_text(errors="replace"))
    return None


def _subject(manifest: Manifest, load: LoadResult) -> Subject:
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
