"""The road from end to end: record, analyze, and both. Read top to bottom."""

from __future__ import annotations

import errno as errno_names
import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadgen.build import loop_library
from profiler import kaslr, lab, recording, tables
from profiler.conclude.analysis import Subject, conclude
from profiler.debuginfo.c_preprocessor import Config, read_config
from profiler.debuginfo.code import KernelCode, read_running_text
from profiler.debuginfo.lines import LineTable
from profiler.debuginfo.source import SourceTree
from profiler.debuginfo.vmlinux import Vmlinux
from profiler.errors import (
    InputError,
    MismatchError,
    MissingError,
    ProfilerError,
    RecordError,
    TargetError,
    UsageError,
)
from profiler.lab import programs
from profiler.model import MANIFEST_SCHEMA, Analysis, Kernel, KernelId, LoadResult, Manifest, PerfRecording
from profiler.parse import annotated_samples, perf_annotate, perf_data, perf_script
from profiler.syscalls import NUMBERS
from profiler.target import Session, Target, open_target
from profiler.target.local import Local

Progress = Callable[[str, float | None], None]

# What a guest may take for everything but the recording itself: set-up, collecting, under emulation on a busy machine.
_GRACE_SECONDS = 120.0
_LEAST_OF_ASKED = 0.5  # of the sampling rate, below which the user is told
_GUEST_LOOP, _GUEST_JOB, _GUEST_PROGRAM = "/whyerrno/loop.so", "/work/job.json", "/whyerrno/load"


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What to record. Either `scenario`, or `program` with the system call and errno it repeats."""

    target: str
    scenario: str | None
    syscall: str
    errno: str
    program: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)  # that the program needs on the target
    seconds: float = 10.0
    frequency: int = 8000
    event: str = "auto"


def diagnose(request: RunRequest, out: Path, *, force: bool = False, progress: Progress) -> Analysis:
    """Record and analyze. Raises MissingError before it records where the kernel has no debug info here."""
    recording.check_free(out, force=force)
    _check_program(request)
    target = open_target(request.target, progress=progress)
    target.check()
    require_debug_info(target.kernel(), request.target)
    return analyze(record(request, out, force=force, progress=progress), progress=progress)


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


def record(request: RunRequest, out: Path, *, force: bool = False, progress: Progress) -> Path:
    """Makes the Recording `out` and returns it.

    Raises UsageError when `out` exists, MissingError, TargetError or RecordError when it cannot be made;
    nothing appears under `out` then.
    """
    recording.check_free(out, force=force)
    _check_program(request)
    target = open_target(request.target, progress=progress)
    kernel = target.kernel()
    with recording.new_directory(out, force=force) as partial:
        progress("starting the target", None)
        _record_on(target, request, partial, progress)
        progress("checking the recording", None)
        if kernel is not None and kernel.config is not None and not (partial / recording.CONFIG).exists():
            shutil.copyfile(kernel.config, partial / recording.CONFIG)
        manifest = _manifest(request, partial, kernel, emulated=target.emulated)
        recording.write_manifest(partial, manifest)
        (partial / "record.json").unlink()
    return out


def _record_on(target: Target, request: RunRequest, partial: Path, progress: Progress) -> None:
    files: dict[str, Path] = {str(path): path.resolve() for path in request.files}
    files = {name if name.startswith("/") else f"/work/{name}": path for name, path in files.items()}
    if request.scenario:
        files[_GUEST_LOOP] = loop_library(lab.cache_directory())
    else:
        files[_GUEST_PROGRAM] = _program(request.program[0])
    with target.session(files) as session:
        local_job = partial / "job.json"
        local_job.write_text(json.dumps(_job(request, session)))
        session.put(local_job, "job.json")
        local_job.unlink()
        output = partial / "out"
        _run_recorder(session, request, progress)
        session.get("out", output)
        for file in output.iterdir():
            file.rename(partial / file.name)
        output.rmdir()
        if session.console is not None and session.console.is_file():
            (partial / recording.CONSOLE).write_bytes(session.console.read_bytes())


def _check_program(request: RunRequest) -> None:
    """Before anything is fetched or booted. Raises UsageError."""
    if not request.scenario:
        _program(request.program[0])


def _program(name: str) -> Path:
    found = shutil.which(name)
    if found is not None:
        programs.require_runnable(Path(found))
        return Path(found).resolve()
    if "/" not in name and Path(name).is_file():
        raise UsageError(f"{name} is not among the programs of PATH", hint=f"give its path: ./{name}")
    if Path(name).is_dir():
        raise UsageError(f"{name} is a directory, not a program", hint="give the path of a program, as in ./repro")
    if Path(name).exists():
        raise UsageError(f"{name} is not executable", hint=f"chmod +x {name}")
    raise UsageError(f"there is no program {name}", hint="give its path, as in ./repro")


def _job(request: RunRequest, session: Session) -> dict[str, Any]:
    program = [session.path(_GUEST_PROGRAM), *request.program[1:]] if request.program else []
    return {
        "syscall": request.syscall,
        "syscall_number": NUMBERS["x86_64"][request.syscall],
        "errno": request.errno,
        "errno_number": getattr(errno_names, request.errno),
        "scenario": request.scenario,
        "program": program,
        "seconds": request.seconds,
        "frequency": request.frequency,
        "event": request.event,
        "loop_library": session.path(_GUEST_LOOP) if request.scenario else None,
        "kernel_text": True,
    }


def _run_recorder(session: Session, request: RunRequest, progress: Progress) -> None:
    """Raises what the recorder says went wrong on the target."""
    last: dict[str, Any] = {}

    def on_line(line: str) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            return
        if isinstance(message, dict):
            if "progress" in message:
                progress(str(message.get("phase", "recording")), float(message["progress"]))
            else:
                last.update(message)

    argv = [session.python, "-m", "profiler.record", "job.json", "out"]
    done = session.run(argv, timeout=request.seconds + _GRACE_SECONDS, on_line=on_line, name="the recording")
    if "error" in last:
        kinds: dict[str, type[ProfilerError]] = {"missing": MissingError, "usage": UsageError}
        raise kinds.get(str(last.get("kind")), RecordError)(str(last["error"]), hint=str(last.get("hint", "")))
    if done.exit_code or not last.get("done"):
        tail = " ".join(done.output.split())[-300:]
        raise TargetError(f"the recorder ended with status {done.exit_code}: {tail}")


def _manifest(request: RunRequest, partial: Path, kernel: Kernel | None, *, emulated: bool) -> Manifest:
    facts = json.loads((partial / "record.json").read_text())
    data = perf_data.read(partial / recording.PERF_DATA)
    warnings = [str(warning) for warning in facts["warnings"]]
    if (partial / recording.CONFIG).exists():
        warnings = [warning for warning in warnings if "configuration was not found" not in warning]
    taken = len(data.samples.ip) / max(facts["seconds"], 0.001) / max(facts["cpus"], 1)
    if facts["cpus"] == 1 and taken < _LEAST_OF_ASKED * facts["frequency"]:
        warnings.append(f"{taken:.0f} samples a second were taken of the {facts['frequency']} asked for")
    if data.decode_errors:
        warnings.append(f"{len(data.decode_errors)} records of perf.data could not be decoded")
    if kernel is not None and kernel.build_id and facts["build_id"] not in ("", kernel.build_id):
        raise MismatchError(
            f"the kernel that ran has build id {facts['build_id']}, its files here {kernel.build_id}",
            hint="install the debug info of exactly the running kernel's package",
        )

    return Manifest(
        schema=MANIFEST_SCHEMA,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        syscall=request.syscall,
        errno=request.errno,
        errno_number=getattr(errno_names, request.errno),
        scenario=request.scenario,
        program=request.program,
        target=request.target,
        release=facts["release"],
        package_version=kernel.package_version if kernel else "",
        build_id=facts["build_id"] or (kernel.build_id if kernel else ""),
        arch=facts["arch"],
        kaslr_offset=_kaslr_offset(facts["addresses"], kernel),
        event=facts["event"],
        frequency=facts["frequency"],
        seconds=facts["seconds"],
        lost=data.lost,
        throttled=data.throttled,
        commands=facts["commands"],
        tool_versions=facts["tool_versions"],
        emulated=emulated,
        warnings=warnings,
    )


def _kaslr_offset(addresses: dict[str, int], kernel: Kernel | None) -> int:
    """Where the kernel was loaded, less where it was linked; 0 where there is no vmlinux to compare with."""
    if kernel is None or kernel.vmlinux is None:
        return 0
    with Vmlinux(kernel.vmlinux) as vmlinux:
        return addresses["_stext"] - vmlinux.symbol_address("_stext")


@dataclass(frozen=True, slots=True)
class Case:
    """All of a recording that a conclusion rests on, but for the evidence. What is concluded from more and more samples
    of one recording shares what is found out about the kernel's code."""

    subject: Subject
    code: KernelCode
    source: SourceTree | None
    config: Config | None

    def conclude(self, data: PerfRecording) -> Analysis:
        return conclude(self.subject, data, self.code, self.source, self.config)


def open_case(directory: Path, *, kernel: Kernel | None = None, progress: Progress) -> Case:
    """Raises MissingError where the kernel's vmlinux is not here, MismatchError where it is another's."""
    manifest = recording.read_manifest(directory)
    load = recording.read_load(directory)
    kernel = kernel or find_kernel(manifest)
    progress("reading symbols", None)
    code = _code(kernel, manifest.build_id, directory / recording.KERNEL_TEXT)
    subject = _subject(manifest, load, _loaded_at(directory, code.vmlinux, manifest))
    return Case(subject, code, _source(kernel, manifest), _config(directory, kernel))


def analyze(directory: Path, *, kernel: Kernel | None = None, salvage: bool = False, progress: Progress) -> Analysis:
    """Concludes from the Recording `directory`, offline, and writes analysis.json into it.

    With `salvage` samples that are cut short are taken as far as they are whole, and a warning says so.
    Raises MissingError where the kernel's vmlinux is not here, MismatchError where it is another's,
    InputError where the recording is damaged.
    """
    case = open_case(directory, kernel=kernel, progress=progress)
    progress("reading samples", None)
    data = read_samples(recording.samples_file(directory), salvage=salvage)
    progress("weighing paths", None)
    analysis = case.conclude(data)
    if salvage and data.decode_errors:
        analysis = replace(analysis, warnings=[*analysis.warnings, _salvaged(data)])
    recording.write_analysis(directory, analysis)
    tables.write_lines(directory, analysis)
    return analysis


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


def _loaded_at(directory: Path, vmlinux: Vmlinux, manifest: Manifest) -> int:
    """The KASLR offset: by the recorded kallsyms where there is one, since no vmlinux may have been at hand then."""
    path = directory / recording.KALLSYMS
    found = kaslr.of_kallsyms(path, vmlinux) if path.is_file() else None
    return kaslr.checked(manifest.kaslr_offset, directory / recording.MANIFEST, vmlinux) if found is None else found


def _config(directory: Path, kernel: Kernel) -> Config | None:
    """The kernel's configuration, of the recording or beside the kernel's files."""
    for path in (directory / recording.CONFIG, kernel.config):
        if path is not None and path.is_file():
            return read_config(path.read_text(errors="replace"))
    return None


def _subject(manifest: Manifest, load: LoadResult, kaslr_offset: int) -> Subject:
    return Subject(
        syscall=manifest.syscall,
        errno=manifest.errno,
        errno_number=manifest.errno_number,
        kernel=KernelId(manifest.release, manifest.package_version, manifest.build_id, manifest.arch),
        kaslr_offset=kaslr_offset,
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
    if manifest.target == "local":
        found = Local().kernel()
        if found is not None and found.build_id == manifest.build_id and found.vmlinux is not None:
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


def _code(kernel: Kernel, build_id: str, text: Path) -> KernelCode:
    if kernel.vmlinux is None:
        raise MissingError(
            f"no vmlinux of {kernel.release} with debug info on this machine",
            hint=f"apt install linux-image-{kernel.release}-dbg, or --vmlinux FILE",
        )
    vmlinux = Vmlinux(kernel.vmlinux)
    if build_id:
        vmlinux.check_build_id(build_id)
    lines = LineTable.open(vmlinux, cache_dir=lab.cache_directory() / "symcache")
    return KernelCode(vmlinux, lines, read_running_text(text))


def _source(kernel: Kernel, manifest: Manifest | None) -> SourceTree | None:
    """The kernel's source tree, or None; a tree of another version is refused."""
    if kernel.source is None:
        return None
    tree = SourceTree(kernel.source)
    if kernel.release:
        tree.check_version(kernel.release, kernel.package_version)
    return tree
