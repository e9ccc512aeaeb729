"""Where the kernel under study runs.

    target = open_target("vm:6.1", progress=print)         # local, vm:VERSION, vm:PATH, ssh:[USER@]HOST
    with target.session({"/work/job.json": Path("job.json")}) as session:
        completed = session.run([session.python, "-m", "profiler.record", session.path("/work/job.json"), "out"],
                                timeout=120, on_line=print)
        session.get("out", Path("result"))                 # relative to session.workdir, or absolute

In a guest a command is root's, `session.workdir` is /work and PYTHONPATH leads to `profiler.record` and `loadgen`.
/tmp, /dev/shm and /mnt are three file systems (tmpfs) apart from the root's. cgroup v2 is at /sys/fs/cgroup with
its controllers enabled, the loopback interface is up, users root and nobody exist, busybox's programs are in
/usr/bin, and there is no modprobe.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from pathlib import Path

from profiler import lab
from profiler.errors import UsageError
from profiler.target import ssh_connection
from profiler.target.local import Local
from profiler.target.session import Session, Target
from profiler.target.ssh import SecureShell
from profiler.target.vm import VirtualMachine

__all__ = ["Session", "Target", "check_spec", "open_target"]

_VERSION = re.compile(r"^\d[\w.+~:-]*$")  # of a package, or how it begins
Progress = Callable[[str, float | None], None]  # what is being done, and how much of it (0 to 1) where known


def _quiet(phase: str, fraction: float | None) -> None:
    """Report nothing."""


def open_target(spec: str, *, progress: Progress = _quiet) -> Target:
    """The target that a specification names. A `vm:VERSION` that is not here is fetched.

    Raises UsageError for an unknown specification, MissingError where a kernel cannot be had.
    """
    check_spec(spec)
    if spec == "local":
        return Local()
    if spec.startswith("ssh:"):
        return SecureShell(spec)
    rest = spec.removeprefix("vm:")
    if _names_version(rest):
        return VirtualMachine(spec, lab.find(rest) or lab.fetch(rest, progress))
    return VirtualMachine(spec, lab.from_path(Path(rest)))


def check_spec(spec: str) -> None:
    """Raises UsageError unless `spec` has the form of a target and a path in it is a directory."""
    if spec.startswith("ssh:"):
        ssh_connection.parse(spec)
        return
    rest = spec.removeprefix("vm:") if spec.startswith("vm:") else ""
    if spec != "local" and not rest:
        hint = f"{_nearest(spec)}targets are local, vm:VERSION, vm:PATH and ssh:[USER@]HOST"
        raise UsageError(f"there is no target {spec!r}", hint=hint)
    if rest and not _names_version(rest) and not Path(rest).expanduser().is_dir():
        hint = "vm:VERSION names a stock kernel, as in vm:6.1, vm:PATH a kernel build tree or an unpacked package"
        raise UsageError(f"target {spec}: {rest} is neither a version nor a directory", hint=hint)


def _names_version(rest: str) -> bool:
    return _VERSION.match(rest) is not None and not Path(rest).is_dir()


def _nearest(spec: str) -> str:
    if spec in ("vm", "vm:"):
        return "a version is missing, as in vm:6.1; "
    known = ["local", *(f"vm:{kernel.release.split('-')[0].rpartition('.')[0]}" for kernel in lab.list_cached())]
    close = difflib.get_close_matches(spec, known, n=1, cutoff=0.4)
    return f"did you mean {close[0]}? " if close else ""
