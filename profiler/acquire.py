"""The recording half of the road: a target, the recorder on it, and evidence taken until the verdict is decided.

The recorder (profiler.record) samples, and says when there is something to look at; whoever asked for the recording
looks, and says whether that is enough. An emulated guest is asked for its execution log as well, while the load runs
on without samples.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadgen.build import loop_library
from profiler import evidence, lab, recording
from profiler.debuginfo.vmlinux import Vmlinux
from profiler.errors import MismatchError, MissingError, TargetError, UsageError
from profiler.evidence import EXACT, RUNGS
from profiler.following import GRACE_SECONDS, GUEST_LOOP, GUEST_PROGRAM, LOOK, Following, Steps
from profiler.lab import qemu
from profiler.model import MANIFEST_SCHEMA, Kernel, Manifest
from profiler.parse import perf_data
from profiler.request import Progress, RunRequest, errno_number, is_there, modules_for, program_file
from profiler.target import Session, Target

_LEAST_OF_ASKED = 0.5  # of the sampling rate, below which the user is told


def evidence_for(request: RunRequest, target: Target) -> frozenset[str]:
    """What to take on `target`. Raises MissingError where it cannot give what was asked for."""
    replays = target.emulated and target.spec.startswith("vm:")
    if request.evidence == evidence.AUTO:
        return frozenset(RUNGS) if replays else frozenset(RUNGS) - {EXACT}
    if EXACT in request.evidence and not replays:
        raise MissingError(
            f"exact evidence is an emulator's log, and the guest of {request.target} runs under KVM",
            hint=f"set {qemu.ACCELERATOR_VARIABLE}=tcg to have it emulated, or --evidence samples",
        )
    return request.evidence


def record_on(
    target: Target,
    request: RunRequest,
    out: Path,
    *,
    force: bool = False,
    steps: Steps | None = None,
    progress: Progress,
) -> Path:
    """Makes the Recording `out` and returns it. Without `steps` all of the time asked for is sampled.

    Raises UsageError when `out` exists, MissingError, TargetError or RecordError when it cannot be made;
    nothing appears under `out` then.
    """
    taken = evidence_for(request, target)
    kernel = target.kernel()
    with recording.new_directory(out, force=force) as partial:
        progress("starting the target", None)
        following = Following(request, taken, partial, steps, progress)
        _record(target, following, partial)
        progress("checking the recording", None)
        if kernel is not None and kernel.config is not None and not (partial / recording.CONFIG).exists():
            shutil.copyfile(kernel.config, partial / recording.CONFIG)
        manifest = _manifest(request, partial, kernel, emulated=target.emulated)
        manifest = replace(
            manifest,
            warnings=[*manifest.warnings, *following.warnings],
            stopped_by=following.stopped_by,
            rungs=[rung for rung in RUNGS if rung in taken],
            orders=following.answered,
        )
        recording.write_manifest(partial, manifest)
        (partial / "record.json").unlink()
    return out


@contextlib.contextmanager
def session_for(target: Target, request: RunRequest, progress: Progress) -> Iterator[Session]:
    """The target held ready, with all that the load of `request` needs there."""
    files: dict[str, Path] = {str(path): path.resolve() for path in request.files}
    files = {name if name.startswith("/") else f"/work/{name}": path for name, path in files.items()}
    if request.scenario:
        files[GUEST_LOOP] = loop_library(lab.cache_directory())
    elif not is_there(request):
        files[GUEST_PROGRAM] = program_file(request.program[0])
    modules = _modules(target, request, progress)
    files |= {f"/modules/{name}.ko": path for name, path in modules}
    with target.session(files) as session:
        _load_modules(session, [name for name, _ in modules])
        yield session


def _record(target: Target, following: Following, partial: Path) -> None:
    with session_for(target, following.request, following.told) as session:
        local_job = partial / "job.json"
        local_job.write_text(json.dumps(following.job(session)))
        session.put(local_job, "job.json")
        local_job.unlink()
        following.run(session)
        shutil.rmtree(partial / LOOK, ignore_errors=True)
        session.get("out", partial / "out")
        for file in (partial / "out").iterdir():
            file.rename(partial / file.name)
        (partial / "out").rmdir()
        if session.console is not None and session.console.is_file():
            (partial / recording.CONSOLE).write_bytes(session.console.read_bytes())


def _modules(target: Target, request: RunRequest, progress: Progress) -> list[tuple[str, Path]]:
    """The modules that a guest is to load, in order. Elsewhere the load's set-up asks the system for them."""
    kernel = target.kernel()
    wanted = dict.fromkeys(modules_for(request))
    if not target.spec.startswith("vm:") or kernel is None:
        if request.modules:
            raise UsageError(
                "--module is for vm: targets", hint=f"on the machine itself: modprobe {request.modules[0]}"
            )
        return []
    return lab.loadable_modules(kernel, wanted, progress)


def _load_modules(session: Session, names: list[str]) -> None:
    for name in names:
        done = session.run(["insmod", f"/modules/{name}.ko"], timeout=GRACE_SECONDS, name=f"loading {name}")
        if done.exit_code:
            raise TargetError(f"the guest cannot load the module {name}: {' '.join(done.output.split())[-200:]}")


def _manifest(request: RunRequest, partial: Path, kernel: Kernel | None, *, emulated: bool) -> Manifest:
    facts = json.loads((partial / "record.json").read_text())
    if kernel is not None and kernel.build_id and facts["build_id"] not in ("", kernel.build_id):
        raise MismatchError(
            f"the kernel that ran has build id {facts['build_id']}, its files here {kernel.build_id}",
            hint="install the debug info of exactly the running kernel's package",
        )
    warnings = [str(warning) for warning in facts["warnings"]]
    if (partial / recording.CONFIG).exists():
        warnings = [warning for warning in warnings if "configuration was not found" not in warning]
    lost = throttled = 0
    if (partial / recording.PERF_DATA).exists():
        data = perf_data.read(partial / recording.PERF_DATA)
        lost, throttled = data.lost, data.throttled
        warnings += _warnings(facts, len(data.samples.ip), len(data.decode_errors))
    return Manifest(
        schema=MANIFEST_SCHEMA,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        syscall=request.syscall,
        errno=request.errno,
        errno_number=errno_number(request.errno),
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
        lost=lost,
        throttled=throttled,
        commands=facts["commands"],
        tool_versions=facts["tool_versions"],
        emulated=emulated,
        warnings=warnings,
        rates={str(rung): float(rate) for rung, rate in facts.get("rates", {}).items()},
    )


def _warnings(facts: dict[str, Any], samples: int, decode_errors: int) -> list[str]:
    warnings = []
    taken = samples / max(facts["seconds"], 0.001) / max(facts["cpus"], 1)
    if facts["cpus"] == 1 and taken < _LEAST_OF_ASKED * facts["frequency"]:
        warnings.append(f"{taken:.0f} samples a second were taken of the {facts['frequency']} asked for")
    if decode_errors:
        warnings.append(f"{decode_errors} records of perf.data could not be decoded")
    return warnings


def _kaslr_offset(addresses: dict[str, int], kernel: Kernel | None) -> int:
    """Where the kernel was loaded, less where it was linked; 0 where there is no vmlinux to compare with."""
    if kernel is None or kernel.vmlinux is None:
        return 0
    with Vmlinux(kernel.vmlinux) as vmlinux:
        return addresses["_stext"] - vmlinux.symbol_address("_stext")
