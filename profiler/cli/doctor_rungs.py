"""What doctor finds out of each rung of the ladder, for one target: every line by trying, and all of it undone."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from profiler import evidence, manual, process
from profiler.cli.doctor_checks import FaultError
from profiler.debuginfo.source import SourceTree
from profiler.debuginfo.vmlinux import Vmlinux
from profiler.errors import MissingError, ProfilerError, TargetError
from profiler.lab import qemu
from profiler.target import Session, Target, open_target
from profiler.target.local import Local
from profiler.target.ssh import SecureShell

CALL = "bind"  # any call with a page of its own
TRIAL_SECONDS = 180.0  # for all that is tried on the target, emulated, on a busy machine
LOG_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Rung:
    """What was found out about one: whether it works, what says so, and what would make it work."""

    name: str
    ok: bool
    says: str
    fix: str = ""


@dataclass(slots=True)
class Trials:
    """What the target said of the rungs that need it."""

    found: dict[str, Rung] = field(default_factory=dict)
    problem: Rung | None = None  # instead, where there is no session


def rungs(spec: str) -> Iterator[Rung]:
    """Every rung of the ladder in its order. Raises UsageError for a specification that names no target, TargetError
    and MissingError for a host out of reach."""
    target = open_target(spec)
    target.kernel()
    yield _tried(evidence.MAN, _man)
    trials = Trials()
    exact = Rung(evidence.EXACT, False, "")
    try:
        with _session(target) as session:
            trials.found = _on_target(session)
            exact = _tried(evidence.EXACT, lambda: _exact(target, session))
    except ProfilerError as error:
        trials.problem = Rung("", False, Exception.__str__(error), error.hint)
        exact = _tried(evidence.EXACT, lambda: _exact(target, None))
    for name in evidence.RUNGS[1:-1]:
        if name == evidence.SOURCE:
            yield _tried(name, lambda: _source(target))
        else:
            said = trials.found.get(name) or trials.problem or Rung("", False, "the target said nothing of it")
            yield Rung(name, said.ok, said.says, said.fix)
    yield exact


def _tried(name: str, trial: object) -> Rung:
    assert callable(trial)
    try:
        return Rung(name, True, str(trial()))
    except FaultError as fault:
        return Rung(name, False, fault.says, fault.fix)
    except ProfilerError as error:
        return Rung(name, False, Exception.__str__(error), error.hint)
    except OSError as error:
        return Rung(name, False, f"{error.filename or ''}: {error.strerror}".lstrip(": "))


def _session(target: Target) -> contextlib.AbstractContextManager[Session]:
    """Also where recording is not possible: what is possible is to be found out."""
    if isinstance(target, Local | SecureShell):
        return target.session({}, unchecked=True)
    return target.session({})


def _on_target(session: Session) -> dict[str, Rung]:
    """What profiler.record.doctor prints there.

    {"rung": "log", "ok": true, "says": "/dev/kmsg opens", "fix": "", "seconds": 0.006}
    """
    done = session.run([session.python, "-m", "profiler.record.doctor"], timeout=TRIAL_SECONDS, name="the trial")
    found = {}
    for line in done.output.splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            said = json.loads(line)
            found[said["rung"]] = Rung(said["rung"], bool(said["ok"]), str(said["says"]), str(said["fix"]))
    if done.exit_code:
        tail = " ".join(done.output.split())[-200:]
        raise TargetError(f"the trial ended with status {done.exit_code}: {tail}")
    return found


def _man() -> str:
    page = manual.require(CALL)
    if not page.installed:
        raise FaultError(f"errno(3) is here, {CALL}(2) is not", manual.advice(CALL))
    return f"{CALL}(2) and the other pages can be read"


def _source(target: Target) -> str:
    """The debug information is opened and its build id compared, the source's version too."""
    kernel = target.kernel()
    if kernel is None:
        raise MissingError("the target's kernel is not known")
    fetch = f"whyerrno kernels fetch {kernel.package_version}" if kernel.package_version else ""
    if kernel.vmlinux is None:
        fix = fetch or f"put vmlinux of exactly this build into /usr/lib/debug/boot/vmlinux-{kernel.release}"
        raise FaultError(f"no debug information of {kernel.release} is on this machine", fix)
    with Vmlinux(kernel.vmlinux) as vmlinux:
        if kernel.build_id:
            vmlinux.check_build_id(kernel.build_id)
    if kernel.source is None:
        raise FaultError(f"no source of {kernel.release} is on this machine", fetch or "put it into /usr/src")
    SourceTree(kernel.source).check_version(kernel.release, kernel.package_version)
    return f"debug information and source of {kernel.package_version or kernel.release}"


def _exact(target: Target, session: Session | None) -> str:
    """A moment of the execution log is taken."""
    if not target.spec.startswith("vm:"):
        process.find(qemu.PROGRAM)
        raise FaultError("this kernel is not in a guest of this machine", "choose one, as in --target vm:6.1")
    if not target.emulated:
        raise FaultError("the guest runs under KVM", f"{qemu.ACCELERATOR_VARIABLE}=tcg has it emulated")
    if session is None:
        raise FaultError("there is no guest", "see the other rungs")
    with session.execution_log(seconds=LOG_SECONDS) as pieces:
        taken = len(next(pieces, b""))
    if not taken:
        raise FaultError("QEMU's execution log stays empty")
    return "QEMU emulates the guest, and logs what it executes"
