"""What recording on this machine needs. Each check returns None when all is well, else the MissingError to raise.

Nothing is changed: a sysctl that is in the way is named, with the command that would set it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from profiler.errors import MissingError

CAP_SYS_ADMIN = 21
CAP_SYSLOG = 34
CAP_PERFMON = 38


def perf_present() -> MissingError | None:
    if shutil.which("perf"):
        return None
    return MissingError(
        "perf is not on this machine", hint="install the package linux-perf (Ubuntu: linux-tools-generic)"
    )


def may_record() -> MissingError | None:
    """System-wide recording of the kernel needs root, CAP_PERFMON, or perf_event_paranoid at -1.

    Documentation/admin-guide/perf-security.rst: 0 and above keep an ordinary user from seeing all processors.
    """
    if has_capability(CAP_PERFMON) or has_capability(CAP_SYS_ADMIN):
        return None
    level = _sysctl("kernel/perf_event_paranoid")
    if level is not None and level < 0:
        return None
    return MissingError(
        f"this user may not record the whole machine (kernel.perf_event_paranoid is {level})",
        hint="run as root, or: sudo sysctl kernel.perf_event_paranoid=-1; a vm: target needs neither",
    )


def sees_symbols() -> MissingError | None:
    """Addresses in /proc/kallsyms are zero for users whom kptr_restrict, or at 0 perf_event_paranoid, keeps out.

    kallsyms_show_value() in kernel/ksyms_common.c: 2 hides them from everybody, 1 from users without CAP_SYSLOG,
    0 from the same users while perf_event_paranoid is above 1.
    """
    level, paranoid = _sysctl("kernel/kptr_restrict"), _sysctl("kernel/perf_event_paranoid") or 0
    trusted = has_capability(CAP_SYSLOG)
    if level is None or (level <= 1 and trusted) or (level <= 0 and paranoid <= 1):
        return None
    wrong = ["kernel.kptr_restrict=0"] if level > 0 else []
    wrong += ["kernel.perf_event_paranoid=1"] if paranoid > 1 and not trusted else []
    return MissingError(
        "kernel addresses are hidden from this user "
        f"(kernel.kptr_restrict is {level}, kernel.perf_event_paranoid {paranoid})",
        hint=f"{'run as root, or: ' if level <= 1 else ''}sudo sysctl {' '.join(wrong)}; a vm: target needs neither",
    )


ALL: dict[str, Callable[[], MissingError | None]] = {
    "perf is installed": perf_present,
    "this user may record the whole machine": may_record,
    "kernel addresses are visible": sees_symbols,
}


def require_all() -> None:
    """Raise the first MissingError that a check finds."""
    for check in ALL.values():
        if error := check():
            raise error


def has_capability(number: int) -> bool:
    """In the effective set of this process; bits as in linux/capability.h."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return os.geteuid() == 0


def _sysctl(name: str) -> int | None:
    try:
        return int(Path("/proc/sys", name).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
