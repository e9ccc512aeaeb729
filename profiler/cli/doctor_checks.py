"""What doctor looks at. Every line is found out by trying, and nothing is left switched on or changed."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from profiler import lab, process
from profiler.errors import ProfilerError
from profiler.lab import qemu, store
from profiler.record.perf import choose_event
from profiler.target import checks

TRACEFS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
KEYRINGS = Path("/usr/share/keyrings")
DISK_BYTES = 4 << 30  # one kernel being fetched, its symbol cache, and a run
TRIAL_SECONDS = 60.0

Check = tuple[str, str, Callable[[], str]]  # name, needed for, what finds out

LOCAL, VM, BOTH = "local", "vm", "both"


@dataclass(frozen=True, slots=True)
class Finding:
    """`needed_for` says which targets cannot work where `ok` is false; "" where only something optional is lost."""

    name: str
    ok: bool
    says: str
    fix: str = ""
    needed_for: str = ""


def findings(checks: Sequence[Check]) -> Iterator[Finding]:
    """What each check found, made when it is asked for: some take seconds."""
    for name, needed_for, check in checks:
        try:
            yield Finding(name, True, check(), "", needed_for)
        except FaultError as fault:
            yield Finding(name, False, fault.says, fault.fix, needed_for)
        except ProfilerError as error:
            yield Finding(name, False, Exception.__str__(error), error.hint, needed_for)
        except OSError as error:
            yield Finding(name, False, f"{error.filename or ''}: {error.strerror}".lstrip(": "), "", needed_for)


class FaultError(Exception):
    """What a check found wrong, and what would mend it."""

    def __init__(self, says: str, fix: str = "") -> None:
        super().__init__(says)
        self.says = says
        self.fix = fix


def python() -> str:
    if sys.version_info < (3, 11):  # noqa: UP036  (doctor may be run from a tree that was never installed)
        raise FaultError(f"{platform.python_version()} is too old", "Python 3.11 or later")
    return platform.python_version()


def perf() -> str:
    return process.run(["perf", "version"], timeout=20).output.strip()


def permission() -> str:
    if error := checks.may_record():
        raise error
    return "root" if os.geteuid() == 0 else "CAP_PERFMON or perf_event_paranoid allow it"


def sampling() -> str:
    """Record for 0.2 s with the event that `run` would choose."""
    with tempfile.TemporaryDirectory(prefix="whyerrno-doctor-") as directory:
        event = choose_event(str(process.find("perf")), "auto", directory)
        argv = ["perf", "record", "-a", "-e", event, "-o", f"{directory}/perf.data", "--", "sleep", "0.2"]
        completed = process.run(argv, timeout=TRIAL_SECONDS, check=False, env={"PERF_CONFIG": os.devnull})
        if completed.exit_code:
            raise FaultError(f"perf cannot record {event} of the whole machine", "see the lines above")
    if event == "cpu-clock":
        return "cpu-clock (no PMU): samples land where interrupts come back on"
    return f"{event} (PMU)"


def symbols() -> str:
    if error := checks.sees_symbols():
        raise error
    with Path("/proc/kallsyms").open(encoding="ascii", errors="replace") as file:
        if int(file.readline().split()[0], 16) == 0:
            raise FaultError("/proc/kallsyms has zero addresses", "run as root, or: sudo sysctl kernel.kptr_restrict=0")
    return "/proc/kallsyms has addresses"


def tracefs() -> Path:
    """Where tracefs is mounted. Raises FaultError where it is not, or not for this user."""
    mounted = [path for path in TRACEFS if (path / "available_tracers").exists()]
    if mounted:
        return mounted[0]
    hidden = any(path.exists() and not os.access(path, os.X_OK) for path in TRACEFS)
    fix = "run as root" if hidden else "mount -t tracefs tracefs /sys/kernel/tracing"
    raise FaultError("not readable by this user" if hidden else "not mounted", fix)


def syscall_tracepoints() -> str:
    """A program of the user's own is counted by these."""
    path = tracefs() / "events/raw_syscalls/sys_exit"
    if not path.is_dir():
        raise FaultError("this kernel has none", "a kernel with CONFIG_FTRACE_SYSCALLS, or a vm: target")
    return "raw_syscalls"


def kprobes() -> str:
    path = tracefs() / "kprobe_events"
    if not os.access(path, os.W_OK):
        raise FaultError(f"{path} is absent or not writable", "run as root, on a kernel with CONFIG_KPROBE_EVENTS")
    return str(path)


def function_graph() -> str:
    tracers = (tracefs() / "available_tracers").read_text(encoding="ascii").split()
    if "function_graph" not in tracers:
        raise FaultError("this kernel has none", "a kernel with CONFIG_FUNCTION_GRAPH_TRACER, or a vm: target")
    return "available"


def compiler() -> str:
    """Compile and link a shared object, as the load is."""
    with tempfile.TemporaryDirectory(prefix="whyerrno-doctor-") as directory:
        source = Path(directory, "trial.c")
        source.write_text("#include <errno.h>\nint trial(void) { return errno; }\n", encoding="ascii")
        argv = ["cc", "-shared", "-fPIC", "-o", f"{directory}/trial.so", str(source)]
        if process.run(argv, timeout=TRIAL_SECONDS, check=False).exit_code:
            raise FaultError("cc cannot build a shared object", "install the packages gcc and libc6-dev")
    return process.run(["cc", "--version"], timeout=20).output.splitlines()[0]


def emulator() -> str:
    return process.run([qemu.PROGRAM, "--version"], timeout=20).output.splitlines()[0]


def busybox() -> str:
    return process.run(["busybox"], timeout=20, check=False).output.splitlines()[0]


def kvm() -> str:
    """Boot a kernel with it: the device alone says little."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        raise FaultError("/dev/kvm is not usable by this user; guests are emulated (TCG)", "join the group kvm, if any")
    kernels = [kernel.image for kernel in lab.list_cached() if kernel.image]
    if not kernels:
        raise FaultError("not tried: no kernel is fetched yet", "whyerrno kernels fetch 6.1")
    if qemu.accelerator(kernels[-1], store.cache_directory()) != "kvm":
        raise FaultError("/dev/kvm is there, but a stock kernel does not boot with it; guests are emulated (TCG)")
    return "a stock kernel boots with it"


def packages() -> str:
    """What fetching a kernel needs: apt, dpkg-deb, and Debian's keys."""
    for program in ("apt-get", "dpkg-deb"):
        process.find(program)
    if not list(KEYRINGS.glob("debian-archive-keyring.*")):
        raise FaultError("Debian's archive keys are absent", "install the package debian-archive-keyring")
    return "apt and Debian's archive keys"


def disk() -> str:
    directory = store.cache_directory()
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < DISK_BYTES:
        raise FaultError(
            f"{free >> 20} MiB free in {existing}", "free some, or set XDG_CACHE_HOME to another file system"
        )
    return f"{free >> 30} GiB free in {existing}"


def kernels() -> str:
    cached = lab.list_cached()
    if not cached:
        raise FaultError("none fetched", "whyerrno kernels fetch 6.1")
    return ", ".join(kernel.package_version for kernel in cached)


CHECKS: tuple[Check, ...] = (
    ("python", BOTH, python),
    ("compiler", BOTH, compiler),
    ("perf", BOTH, perf),
    ("permission to record", LOCAL, permission),
    ("sampling", LOCAL, sampling),
    ("kernel symbols", LOCAL, symbols),
    ("system call tracepoints", "", syscall_tracepoints),
    ("kprobes", "", kprobes),
    ("function graph tracer", "", function_graph),
    ("qemu", VM, emulator),
    ("busybox", VM, busybox),
    ("kvm", "", kvm),
    ("package archive", "", packages),
    ("disk space", "", disk),
    ("kernels", "", kernels),
)
