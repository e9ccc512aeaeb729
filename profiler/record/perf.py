"""perf on the target: which one, which event, and one system-wide recording from start to whole file."""

import errno
import os
import signal
import struct

from profiler.errors import MissingError, RecordError
from profiler.record.spawn import Child, run, spawn, wait_readable

START_SECONDS = 60.0
STOP_SECONDS = 90.0
COMMAND_SECONDS = 30.0
BUFFER = "2M"  # per CPU: over one second of samples at 16 kHz
OLDEST = [5, 9]  # has --control, and its answers
_NEWER = "perf 5.9 or later is needed: install linux-perf (Debian) or linux-tools-generic (Ubuntu)"
DISK_FULL = os.strerror(errno.ENOSPC)
PARANOID = "/proc/sys/kernel/perf_event_paranoid"

# Flags that only save time, or events; an older perf without one of them records as well.
#   -N, --buildid-all   no copies into ~/.debug, and no second pass over the samples (2 s in an emulated guest)
#   --synth=task        no memory maps of every process on the machine; FORK and COMM of them remain
#   --no-bpf-event      no thread that perf waits a second for at its end
OPTIONAL = ("--no-buildid-cache", "--buildid-all", "--synth=task", "--no-bpf-event")


def environment() -> dict[str, str]:
    """The caller's environment, less everything that changes what perf does or prints."""
    return {**os.environ, "LC_ALL": "C", "PERF_CONFIG": "/dev/null", "DEBUGINFOD_URLS": "", "PERF_PAGER": "cat"}


def find_perf() -> str:
    """The absolute path of perf. Raises MissingError."""
    for folder in os.environ.get("PATH", os.defpath).split(":"):
        path = f"{folder}/perf"
        if folder.startswith("/") and os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    raise MissingError(
        "perf is not installed on the target", hint="install linux-perf (Debian) or linux-tools-generic (Ubuntu)"
    )


def perf_version(perf: str) -> str:
    """As "6.1.187". Raises MissingError where perf is too old, or a wrapper that finds no perf for this kernel."""
    status, output = run([perf, "--version"], env=environment())
    for line in output.splitlines():
        if line.startswith("perf version "):
            version = line.removeprefix("perf version ").strip()
            numbers = [int(part) for part in version.split(".")[:2] if part.isdecimal()]
            if numbers and numbers < OLDEST:
                raise MissingError(f"perf {version} is too old", hint=_NEWER)
            return version
    raise MissingError(
        f"{perf} does not work (exit status {status}: {output.strip()[:200]})",
        hint="install linux-perf (Debian) or linux-tools-$(uname -r) (Ubuntu)",
    )


def choose_event(perf: str, asked: str, scratch: str) -> str:
    """The event asked for, or of "auto" the best that delivers samples here: cycles:P, else cpu-clock.

    cycles:P asks for the highest precision the hardware has. perf falls back from cycles to cpu-clock without
    a word, and a virtual PMU may exist and never count, so a short trial shows what was really opened.
    """
    if asked != "auto":
        return asked
    if not _has_cpu_pmu():
        return "cpu-clock"
    trial = f"{scratch}/trial.data"
    try:
        argv = [perf, "record", "-F", "5000", "-e", "cycles:P", "-o", trial, "--", perf, "--version"]
        status, output = run(argv, env=environment())
        if status != 0 or " samples)" not in output:
            return "cpu-clock"
        return "cycles:P" if "cycles" in run([perf, "evlist", "-i", trial], env=environment())[1] else "cpu-clock"
    finally:
        for path in (trial, f"{trial}.old"):
            if os.path.exists(path):
                os.unlink(path)


def _has_cpu_pmu(root: str = "/sys/bus/event_source/devices") -> bool:
    names = os.listdir(root) if os.path.isdir(root) else []
    events = ("cpu-cycles", "cpu_cycles", "cycles")
    return any(os.path.exists(f"{root}/{name}/events/{event}") for name in names for event in events)


class PerfRecord:
    """`perf record -a`, from a start that is known to sample to a file that is known to be whole."""

    def __init__(self, perf: str, *, event: str, frequency: int, output: str) -> None:
        self.output = output
        self.argv = [perf, "record", "-a", "-F", str(frequency), "-e", event, "-g", "--kernel-callchains"]
        self.argv += [*OPTIONAL, "-m", BUFFER, "-o", output]
        self.dropped_flags: list[str] = []
        self._child: Child | None = None
        self._control: Control | None = None

    def start(self) -> None:
        """Returns when perf samples. Raises MissingError without the permission, RecordError otherwise."""
        while True:
            problem = self._try_start()
            if not problem:
                return
            self.end()
            if not self._drop_flag(problem):
                raise _start_error(problem)

    def alive(self) -> bool:
        return self._child is not None and self._child.running()

    @property
    def pid(self) -> int:
        return self._child.pid if self._child else 0

    def flush(self) -> None:
        """The file has every sample taken up to now, though its header does not say so yet. Raises RecordError."""
        self._ask_twice("enable")  # what is so already; a "ping" is known to perf 5.12 and later only

    def pause(self) -> None:
        """As `flush`, and no samples from now on."""
        self._ask_twice("disable")

    def resume(self) -> None:
        self._ask_twice("enable")

    def _ask_twice(self, word: str) -> None:
        """perf looks for a command after it has written what its buffers hold (__cmd_record in builtin-record.c), so
        between two answers it has written everything that came before the first."""
        assert self._child is not None, "a command before start()"
        assert self._control is not None
        for _ in range(2):
            if not self._control.ask(word, COMMAND_SECONDS):
                problem = " ".join(self._child.output.text().split())[-200:]
                raise RecordError(f"perf did not answer {word!r} while it recorded: {problem}")

    def stop(self) -> str:
        """SIGINT, wait, check the file; returns what perf printed. Raises RecordError where the data is not whole."""
        assert self._child is not None, "stop() without start()"
        child = self._child
        if child.running():
            child.send(signal.SIGINT)
        if not child.wait(STOP_SECONDS):
            child.end()
            raise RecordError(f"perf did not end within {STOP_SECONDS:g} s of SIGINT")
        text = child.output.text()
        if child.status not in (0, -signal.SIGINT, 128 + signal.SIGINT):
            raise _stop_error(child.status or 0, text)
        self.end()
        check_whole(self.output)
        return text

    def end(self) -> None:
        """Whatever state it is in: not running afterwards."""
        if self._child is not None:
            self._child.send(signal.SIGINT)
            self._child.end()
            self._child = None
        if self._control is not None:
            self._control.close()
            self._control = None

    def _try_start(self) -> str:
        """ "" when perf samples, else what it said."""
        self._control = Control()
        self._child = self._control.start(self.argv)
        if self._control.acknowledged(self._child, START_SECONDS):
            return ""
        return self._child.output.text().strip() or "perf record ended without a word"

    def _drop_flag(self, problem: str) -> bool:
        """Whether there is a flag to leave out that may cure `problem`."""
        for flag in OPTIONAL:
            name = flag.lstrip("-")
            if flag in self.argv and ("unknown option" in problem and f"`{name.split('=')[0]}" in problem):
                self.argv.remove(flag)
                self.dropped_flags.append(flag)
                return True
        if "-m" in self.argv and ("mapping pages" in problem or "perf_event_mlock_kb" in problem):
            place = self.argv.index("-m")
            del self.argv[place : place + 2]
            self.dropped_flags.append("-m")
            return True
        return False


class Control:
    """perf's --control descriptors: a command that is acknowledged proves that perf is up and its events are on.

    They stay open until perf has ended: perf 6.1 fails ("pollfd index mismatch") when they close before.
    """

    def __init__(self) -> None:
        self._child_reads, self._commands = os.pipe()
        self._acks, self._child_writes = os.pipe()
        self.child_ends = (self._child_reads, self._child_writes)
        self.argument = f"--control=fd:{self._child_reads},{self._child_writes}"
        self._open = {self._child_reads, self._commands, self._acks, self._child_writes}

    def start(self, argv: list[str]) -> Child:
        """`argv` of a perf, with --control added; "enable" already waits there for it to answer."""
        os.write(self._commands, b"enable\n")
        try:
            return spawn([*argv, self.argument], env=environment(), keep=self.child_ends)
        finally:
            self._close(*self.child_ends)

    def acknowledged(self, child: Child, seconds: float) -> bool:
        """Whether perf answered "enable" (a no-op on events that are on) within `seconds`, rather than ending.

        The descriptor for answers reads as ended when perf ends, so no time is spent waiting for a dead perf.
        """
        ready = wait_readable(self._acks, seconds)
        if ready and os.read(self._acks, 16).startswith(b"ack"):
            return True
        child.end(grace=0.2)
        return False

    def ask(self, word: str, seconds: float) -> bool:
        """Whether perf answered a command within `seconds`."""
        os.write(self._commands, f"{word}\n".encode())
        return wait_readable(self._acks, seconds) and os.read(self._acks, 16).startswith(b"ack")

    def close(self) -> None:
        self._close(*self._open)

    def _close(self, *fds: int) -> None:
        for fd in self._open.intersection(fds):
            os.close(fd)
            self._open.discard(fd)


def check_whole(path: str) -> None:
    """Raises RecordError unless `path` is a perf.data whose header says how long its data is, and has that much.

    The header (tools/perf/Documentation/perf.data-file-format.txt): magic "PERFILE2", then as 64-bit numbers the
    header's size, an attribute's size, and offset and size of attributes, data and event types. perf fills in
    the data's size at its end, so 0 is the mark of a perf that was killed.
    """
    try:
        with open(path, "rb") as file:
            header = file.read(104)
            length = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        raise RecordError("perf wrote no file") from None
    if len(header) < 104 or header[:8] != b"PERFILE2":
        raise RecordError(f"perf wrote a file without a header ({length} bytes)")
    start, size = struct.unpack_from("=QQ", header, 40)
    if size == 0 or start + size > length:
        if os.statvfs(path).f_bavail == 0:
            raise _disk_full_error()
        raise RecordError(f"perf.data is cut off: {size} bytes of data announced at {start}, {length} bytes in all")


def _start_error(problem: str) -> RecordError | MissingError:
    line = " ".join(problem.split())[:300]
    if "unknown option" in problem or "unrecognized" in problem:
        return MissingError(f"the target's perf is too old: {line}", hint=_NEWER)
    refused = ("limited", "Permission denied", "not permitted", "No permission", "EACCES", "EPERM")
    if any(word in problem for word in refused) and "paranoid" in problem:
        return MissingError(
            f"recording the whole machine is not permitted (kernel.perf_event_paranoid is {_paranoid()})",
            hint="run as root, give perf CAP_PERFMON, or set kernel.perf_event_paranoid to 0 or less",
        )
    if DISK_FULL in problem:
        return _disk_full_error()
    return RecordError(f"perf record could not start: {line}")


def _stop_error(status: int, text: str) -> RecordError:
    if DISK_FULL in text:
        return _disk_full_error()
    line = " ".join(text.split())[-300:]
    return RecordError(f"perf record failed with exit status {status}: {line}")


def _disk_full_error() -> RecordError:
    return RecordError("the disk is full: perf could not write its samples", hint="free space, or record fewer seconds")


def _paranoid() -> str:
    try:
        with open(PARANOID) as file:
            return file.read().strip()
    except OSError:
        return "unknown"
