"""The kernel's tracing files: finding them, and reading and writing them with errors that say what to do.

`Instance` is tracing of our own, beside everybody else's. What the kernel has only once (kprobe_events, tracers that
cannot run in an instance) is used under our own name prefix, or borrowed with `Whole` where nobody else uses it.
Everything noted in profiler.record.journal before it is done.
"""

import contextlib
import errno
import os
import time

from profiler.errors import MissingError, ProfilerError, RecordError

PREFIX = "whyerrno"
ROOTS = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
LOCKDOWN = "/sys/kernel/security/lockdown"
FTRACE_ENABLED = "/proc/sys/kernel/ftrace_enabled"
SHARED = ("kprobe_events", "uprobe_events", "dynamic_events", "synthetic_events")  # truncating removes everybody's

# fsopen(2) and its kin, for a mount that no one else sees; the numbers are the same on every architecture.
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_FSCONFIG_CMD_CREATE = 6
_REMOVAL_SECONDS = 2.0

_private: list[str] = []  # the root of the mount that only this process has, once made


def find() -> str:
    """The root of tracefs, mounted for this process alone where it is not mounted.

    Raises MissingError where the kernel has none, or it may not be used.
    """
    denied = ""
    for root in ROOTS:
        try:
            if "instances" in os.listdir(root):
                return root
        except PermissionError:
            denied = root
        except OSError:
            continue
    if denied:
        raise MissingError(f"{denied} may not be read", hint=_permission_hint())
    if not _private:
        _private.append(_mount())
    return _private[0]


def read(path: str) -> str:
    """Raises MissingError where the file is not there or may not be read, RecordError otherwise."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.readall().decode("utf-8", "replace")
    except OSError as error:
        raise refusal(path, error, "read") from None


def write(path: str, text: str, *, add: bool = False) -> None:
    """Writes as `echo >` does, or with `add` as `echo >>`. Raises as `read` does.

    Lists (of functions, of threads) are taken a word at a time: what is left is written until all of it is.
    """
    if not add and os.path.basename(path) in SHARED:
        raise ValueError(f"truncating {path} would remove what is others'")
    try:
        fd = os.open(path, os.O_WRONLY | (os.O_APPEND if add else os.O_TRUNC))
        try:
            left = text.encode()
            while left and (taken := os.write(fd, left)):
                left = left[taken:]
        finally:
            os.close(fd)
    except OSError as error:
        raise refusal(path, error, "written") from None


class Instance:
    """A tracing instance of our own, from `with` to its end: `instances/whyerrno-PID`, or `...-PID-WORD`.

    Names of files are relative to it: `instance.write("current_tracer", "nop")`.
    """

    def __init__(self, word: str = "") -> None:
        self.name = f"{PREFIX}-{os.getpid()}" + (f"-{word}" if word else "")
        self.path = ""
        self._note = -1

    def __enter__(self) -> "Instance":
        from profiler.record import journal

        self.path = f"{find()}/instances/{self.name}"
        self._note = journal.note("instance", self.name)
        try:
            os.mkdir(self.path)
        except OSError as error:
            journal.forget(self._note)
            raise refusal(self.path, error, "made") from None
        return self

    def __exit__(self, *_: object) -> None:
        from profiler.record import journal

        remove_instance(self.name)
        journal.forget(self._note)

    def read(self, name: str) -> str:
        return read(f"{self.path}/{name}")

    def write(self, name: str, text: str, *, add: bool = False) -> None:
        write(f"{self.path}/{name}", text, add=add)


class Whole:
    """Tracing at the top level, borrowed from `with` to its end; every file written is put back, in reverse order.

    Raises RecordError on entry where somebody else's tracer is active there.
    """

    def __init__(self) -> None:
        self.path = ""
        self._written: list[tuple[str, str, int]] = []

    def __enter__(self) -> "Whole":
        self.path = find()
        check_unused(self.path)
        return self

    def __exit__(self, *_: object) -> None:
        from profiler.record import journal

        while self._written:
            name, former, note = self._written.pop()
            restore(name, former)
            journal.forget(note)

    def read(self, name: str) -> str:
        return read(f"{self.path}/{name}")

    def write(self, name: str, text: str, *, add: bool = False) -> None:
        """Also notes what the file held before, once."""
        from profiler.record import journal

        if name not in [written for written, _, _ in self._written]:
            former = self.read(name)
            self._written.append((name, former, journal.note("control", [name, former])))
        write(f"{self.path}/{name}", text, add=add)


def restore(name: str, former: str) -> None:
    """Put a control file at the top level back to what was read from it."""
    path = f"{find()}/{name}"
    with contextlib.suppress(ProfilerError):
        if read(path) == former:
            return
    words = former.split()
    if not words or former.startswith(("#", "no pid")):  # "#### all functions enabled ####", "no pid"
        write(path, "")
    elif name == "buffer_size_kb":
        # "7 (expanded: 1408)": by now it is expanded, and would stay at 7 for whoever uses it next
        write(path, words[-1].rstrip(")"))
    else:
        write(path, former)


def remove_instance(name: str) -> None:
    """Nothing where it is gone. Raises RecordError where it stays in use."""
    path = f"{find()}/instances/{name}"
    deadline = time.monotonic() + _REMOVAL_SECONDS
    while os.path.isdir(path):
        for file, text in (("tracing_on", "0"), ("events/enable", "0"), ("current_tracer", "nop")):
            with contextlib.suppress(ProfilerError):
                write(f"{path}/{file}", text)
        try:
            os.rmdir(path)
        except FileNotFoundError:
            return
        except OSError as error:
            if time.monotonic() >= deadline:
                raise refusal(path, error, "removed") from None
            time.sleep(0.02)


def remove_probes(group: str) -> None:
    """Take every kprobe of one of our groups out of kprobe_events, and no one else's."""
    if not group.startswith(PREFIX) or not group.isidentifier():
        raise ValueError(f"{group!r} is not a group of ours")
    root = find()
    path = f"{root}/kprobe_events"
    if not os.path.exists(path):
        return
    if os.path.exists(f"{root}/events/{group}/enable"):
        write(f"{root}/events/{group}/enable", "0")
    for line in read(path).splitlines():
        name = line.partition(" ")[0].partition(":")[2]  # p:whyerrno_812/p0 0xffffffff812a3b10 v0=%ax:s32
        if name.startswith(f"{group}/"):
            write(path, f"-:{name}\n", add=True)


def check_unused(root: str) -> None:
    """Raises RecordError where somebody traces at the top level, naming the tracer."""
    tracer = read(f"{root}/current_tracer").strip()
    if tracer != "nop":
        raise RecordError(
            f"the tracer {tracer} is active in {root}, and not ours",
            hint="end whoever uses it, or: echo nop > current_tracer there",
        )


def check_function_tracing() -> None:
    """Raises MissingError where functions cannot be traced because the sysctl says so."""
    try:
        with open(FTRACE_ENABLED) as file:
            enabled = file.read().strip() != "0"
    except OSError:
        return  # the kernel has no function tracer; that is told when it is asked for
    if not enabled:
        raise MissingError("kernel.ftrace_enabled is 0: no function is traced", hint="sysctl kernel.ftrace_enabled=1")


def active_tracers(root: str) -> list[str]:
    """Every tracer but nop that is set, as "function_graph in instances/theirs"."""
    places = [""]
    with contextlib.suppress(OSError):
        places += [f"instances/{name}" for name in sorted(os.listdir(f"{root}/instances"))]
    found = []
    for place in places:
        with contextlib.suppress(ProfilerError):
            tracer = read(f"{root}/{place}/current_tracer").strip()
            if tracer != "nop":
                found.append(f"{tracer} in {place or root}")
    return found


def refusal(path: str, error: OSError, what: str) -> ProfilerError:
    """The error for a control file that could not be `what` ("read", "written", "made", "removed")."""
    says = f"{path} cannot be {what}: {os.strerror(error.errno or 0)}"
    if error.errno in (errno.EPERM, errno.EACCES):
        return MissingError(says, hint=_permission_hint())
    if error.errno == errno.EROFS:
        return MissingError(says, hint="tracefs is mounted read-only: mount -o remount,rw " + os.path.dirname(path))
    if error.errno in (errno.ENOENT, errno.ENODEV):
        return MissingError(says, hint="this kernel is built without it")
    if error.errno == errno.EBUSY:
        others = active_tracers(find())
        return RecordError(says, hint=f"in use: {', '.join(others)}" if others else "somebody else holds it open")
    return RecordError(says)


def lockdown() -> str:
    """The kernel's lockdown where it is on: "integrity" or "confidentiality"; else ""."""
    try:
        with open(LOCKDOWN) as file:
            text = file.read()
    except OSError:
        return ""
    chosen = text.partition("[")[2].partition("]")[0]  # none [integrity] confidentiality
    return "" if chosen == "none" else chosen


def _permission_hint() -> str:
    mode = lockdown()
    if mode:
        return f"the kernel is locked down ({mode}): boot without lockdown= and Secure Boot"
    return "run as root" if os.geteuid() else "root lacks the capability here: not from within a container"


def _mount() -> str:
    """A mount of tracefs that hangs on a descriptor: it has no place, and is gone with this process."""
    try:
        with open("/proc/filesystems") as file:
            known = "\ttracefs\n" in file.read()
    except OSError:
        known = True
    if not known:
        raise MissingError("this kernel has no tracefs", hint="a kernel with CONFIG_FTRACE is needed")
    import ctypes

    call = ctypes.CDLL(None, use_errno=True).syscall

    def checked(*arguments: object) -> int:
        got = int(call(*arguments))
        if got < 0:
            number = ctypes.get_errno()
            hint = _permission_hint() if number in (errno.EPERM, errno.EACCES) else f"mount -t tracefs nodev {ROOTS[0]}"
            raise MissingError(f"tracefs is not mounted, and cannot be: {os.strerror(number)}", hint=hint)
        return got

    context = checked(_FSOPEN, b"tracefs", 1)
    try:
        checked(_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)
        return f"/proc/self/fd/{checked(_FSMOUNT, context, 1, 0)}"
    finally:
        os.close(context)
