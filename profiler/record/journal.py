"""What the recorder has switched on and must switch off again, on record: written before it is done, struck out after.

Each recorder has one file, `PID.json`, in a directory that only its user may write. The file of a recorder that no
longer lives says what is left to undo; `undo_leftovers` does that. What hangs on a descriptor (perf's events, a private
mount) needs no note: it ends with the process. A note of something that was never done is undone harmlessly.

    {"pid": 812, "started": 40112, "notes": [
       ["instance", "whyerrno-812"],                 a tracing instance
       ["control", ["current_tracer", "nop\\n"]],    a file of tracefs at the top level, and what it held
       ["group", "whyerrno_812"],                    a group of kprobe_events
       ["setting", ["rcu_expedited", "0"]],          one of SETTINGS, and what it held
       ["stopped", [[901, 40233]]],                  processes that were sent SIGSTOP, with their start times
       ["processes", [901, 40233]]]}                 a process group that we started: its leader, and when that started
"""

import contextlib
import fcntl
import json
import os
import signal
import stat

from profiler.errors import ProfilerError, RecordError

RUN = "/run/whyerrno"
SETTINGS = {
    "rcu_expedited": "/sys/kernel/rcu_expedited",
    "kprobes-optimization": "/proc/sys/debug/kprobes-optimization",
    "ftrace_enabled": "/proc/sys/kernel/ftrace_enabled",
    "printk": "/proc/sys/kernel/printk",
}

_PF_EXITING = 0x4  # include/linux/sched.h: closing its descriptors, which takes long with many probes

_notes: dict[int, list[object]] = {}
_last = [0]


def note(kind: str, what: object) -> int:
    """Write down something about to be done. Returns the number to `forget` it by once it is undone."""
    if kind not in _UNDO:
        raise ValueError(f"there is no way to undo a {kind!r}")
    _last[0] += 1
    _notes[_last[0]] = [kind, what]
    _write()
    return _last[0]


def forget(number: int) -> None:
    """It is undone."""
    if _notes.pop(number, None) is not None:
        _write()


def change(setting: str, value: str) -> int | None:
    """Give one of SETTINGS a value, noted for `put_back`; None where it has that already or cannot be changed."""
    path = SETTINGS[setting]
    try:
        with open(path) as file:
            former = file.read().strip()
        if former == value:
            return None
        number = note("setting", [setting, former])
        with open(path, "w") as file:
            file.write(value)
    except OSError:
        return None
    return number


def put_back(number: int | None) -> None:
    """Undo what was noted under that number."""
    if number is not None and number in _notes:
        kind, what = _notes[number]
        _UNDO[str(kind)](what)
        forget(number)


class Changed:
    """Some of SETTINGS with other values, from `with` to its end; those that cannot be changed stay as they are."""

    def __init__(self, values: dict[str, str]) -> None:
        self._values = values
        self._numbers: list[int | None] = []

    def __enter__(self) -> "Changed":
        self._numbers = [change(name, value) for name, value in self._values.items()]
        return self

    def __exit__(self, *_: object) -> None:
        while self._numbers:
            put_back(self._numbers.pop())


def put_all_back() -> list[str]:
    """Undo whatever this process still has on record, the last first. Returns what could not be, and stays there."""
    problems = []
    for number in sorted(_notes, reverse=True):
        problem = _undo(_notes[number])
        if problem:
            problems.append(problem)
        else:
            forget(number)
    return problems


def undo_leftovers(ended: int = 0) -> list[str]:
    """Undo what recorders that no longer live have left behind. Returns what could not be undone, in words.

    `ended` is the number of a process known to be gone, though it may still be seen.
    """
    problems = []
    for directory in _directories():
        for name in sorted(os.listdir(directory)):
            if name.endswith(".json") and name[:-5].isdigit():
                problems += _undo_file(f"{directory}/{name}", ended)
    return problems


def started(pid: int) -> int:
    """When a process started, in clock ticks since boot: with its number, this names it. 0 where there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    ended = fields[0] in (b"Z", b"X", b"x") or int(fields[6]) & _PF_EXITING
    return 0 if ended else int(fields[19])  # state, flags and start are the 3rd, 9th and 22nd of proc(5)


# ---- undoing ----


def _undo_file(path: str, ended: int) -> list[str]:
    try:
        file = open(path, "r+b")  # noqa: SIM115
    except OSError:
        return []
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)  # another may be at it: wait, and find it empty
        try:
            left = json.loads(file.read() or b"{}")
            pid, notes = int(left["pid"]), list(left["notes"])
            if pid != ended and started(pid) == int(left["started"]):
                return []
        except (ValueError, KeyError, TypeError):
            left, notes = {}, []
        failed = [(note, problem) for note in reversed(notes) if (problem := _undo(note))]
        file.seek(0)
        file.truncate()
        if failed:  # the next may have better luck
            file.write(json.dumps({**left, "notes": [note for note, _ in reversed(failed)]}).encode())
        else:
            _remove(path)
    return [problem for _, problem in failed]


def _undo(note: object) -> str:
    """ "" or why it could not be undone."""
    try:
        kind, what = note if isinstance(note, list) else ("", None)
        _UNDO[kind](what)
    except (ProfilerError, OSError, ValueError, KeyError, TypeError) as error:
        return f"{note}: {error}"
    return ""


def _remove_instance(what: object) -> None:
    from profiler.record import tracefs

    name = str(what)
    if not name.startswith(tracefs.PREFIX) or "/" in name:
        raise ValueError("not an instance of ours")
    tracefs.remove_instance(name)


def _restore_control(what: object) -> None:
    from profiler.record import tracefs

    name, former = _pair(what)
    if ".." in name or ("/" in name and not name.startswith(("events/", "options/"))):
        raise ValueError("not a control file")
    tracefs.restore(name, former)


def _remove_group(what: object) -> None:
    from profiler.record import tracefs

    tracefs.remove_probes(str(what))


def _restore_setting(what: object) -> None:
    name, former = _pair(what)
    with open(SETTINGS[name], "w") as file:
        file.write(former)


def _resume(what: object) -> None:
    for pid, start in what if isinstance(what, list) else []:
        if started(int(pid)) == int(start):
            with contextlib.suppress(OSError):
                os.kill(int(pid), signal.SIGCONT)


def _end(what: object) -> None:
    group, start = what if isinstance(what, list) else (0, 0)
    if started(int(group)) == int(start) > 0:
        with contextlib.suppress(OSError):
            os.killpg(int(group), signal.SIGKILL)


def _pair(what: object) -> tuple[str, str]:
    if not isinstance(what, list) or len(what) != 2:
        raise ValueError("not a name and a value")
    return str(what[0]), str(what[1])


_UNDO = {
    "instance": _remove_instance,
    "control": _restore_control,
    "group": _remove_group,
    "setting": _restore_setting,
    "stopped": _resume,
    "processes": _end,
}

# ---- the files ----


def _write() -> None:
    """Whole or not at all: a reader never sees half of it."""
    pid = os.getpid()
    directory = _own_directory()
    path = f"{directory}/{pid}.json"
    if not _notes:
        _remove(path)
        return
    text = json.dumps({"pid": pid, "started": started(pid), "notes": list(_notes.values())})
    with open(f"{path}.new", "w") as file:
        file.write(text)
    os.replace(f"{path}.new", path)


def _remove(path: str) -> None:
    """The file, and the directory with its last one."""
    with contextlib.suppress(OSError):
        os.unlink(path)
    with contextlib.suppress(OSError):
        os.rmdir(os.path.dirname(path))


def _own_directory() -> str:
    """Raises RecordError where there is no place that only this user may write."""
    for directory in _places():
        with contextlib.suppress(FileExistsError, PermissionError, FileNotFoundError, OSError):
            os.mkdir(directory, 0o700)
        if _is_ours(directory):
            return directory
    raise RecordError(
        f"no directory for the journal: none of {', '.join(_places())} is ours alone",
        hint="remove what lies there under that name",
    )


def _directories() -> list[str]:
    return [directory for directory in _places() if _is_ours(directory)]


def _places() -> tuple[str, ...]:
    temporary = f"{os.environ.get('TMPDIR') or '/tmp'}/whyerrno-{os.geteuid()}"  # noqa: S108
    return (RUN, temporary)


def _is_ours(directory: str) -> bool:
    """A directory, no link, that nobody else may write: what a journal says is done with our rights."""
    try:
        found = os.lstat(directory)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
