"""Keeps a session on an ssh host. Sent there as text, it is run by the host's own Python with nothing of ours beside.

It has to run in Pythons that are too old for the recorder as well, to look for a newer one,
so no syntax and no module younger than Python 3.6.

    caller → here   this text, then {"bytes": N} and N bytes of a tar archive, with {"bytes": 0} nothing but the facts
                    are asked for; then lines: "alive" every few seconds, "end NUMBER" to end a command
    here → caller   \\x1efacts {...}, and with an archive \\x1eready DIRECTORY, \\x1egone at the end

All that the session needs lies in one directory: packages/, files/, work/ (where commands run) and runs/ (a file a
command, with /proc/PID/stat of its shell, and NUMBER.ended for one that is not to go on). When the caller hangs up, or
is silent for too long, the commands are ended and the directory is removed.
"""

import base64
import contextlib
import glob
import io
import json
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

PREFIX = "whyerrno-session-"
PLACES = ("/tmp", "/var/tmp", "/dev/shm", "/run")  # noqa: S108  (mkdtemp makes the directory, for its owner alone)
SILENCE_SECONDS = 120.0  # without a word from the caller, after which it is taken to be gone
GRACE_SECONDS = 30.0  # for commands that must undo what they switched on
YOUNG_SECONDS = 60.0
ENOUGH_BYTES = 256 << 20
OLDEST = (3, 10)
NEWER = ("python3.14", "python3.13", "python3.12", "python3.11", "python3.10")
SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


def main(source: str) -> None:
    os.environ["PATH"] = os.environ.get("PATH", os.defpath) + ":" + SBIN
    if sys.argv[1:] != ["chosen"]:
        become_able(source)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)
    asked = json.loads(read_line(None).decode())
    say("facts " + json.dumps(facts()))
    if not asked["bytes"]:
        return
    archive = read_exactly(asked["bytes"])
    remove_leftovers()
    directory = make_directory()
    try:
        unpack(archive, os.path.join(directory, "packages"))
        say("ready " + directory)
        keep(directory)
    except (SystemExit, BrokenPipeError):
        pass
    finally:
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        end_all(directory)
        shutil.rmtree(directory, ignore_errors=True)
        say("gone")


def become_able(source: str) -> None:
    """Go on as root where sudo asks nothing, and in a Python that is new enough where there is one."""
    python = sys.executable
    if sys.version_info[:2] < OLDEST:
        python = next(filter(None, map(shutil.which, NEWER)), python)
    command = [python, "-c", source, "chosen"]
    if os.geteuid() != 0 and sudo_says() == "":
        command = ["sudo", "-n", *command]
    if command[0] != sys.executable:
        os.execvp(command[0], command)  # noqa: S606


def sudo_says() -> str:
    """Why sudo does not make this user root; empty where it does."""
    if shutil.which("sudo") is None:
        return "there is no sudo"
    try:
        done = subprocess.run(
            ["sudo", "-n", "true"],  # noqa: S607
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=20,
        )
    except subprocess.TimeoutExpired:
        return "sudo does not answer"
    words = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return (words[-1] if words else "sudo refuses") if done.returncode else ""


def facts() -> "dict[str, object]":
    name = os.uname()
    root = os.geteuid() == 0
    return {
        "python": sys.executable,
        "version": list(sys.version_info[:3]),
        "able": sys.version_info[:2] >= OLDEST,
        "user": user(),
        "root": root,
        "sudo": root and "SUDO_UID" in os.environ,
        "sudo_says": "" if root else sudo_says(),
        "capabilities": status_field("CapEff"),
        "paranoid": sysctl("kernel/perf_event_paranoid"),
        "restrict": sysctl("kernel/kptr_restrict"),
        "release": name.release,
        "kernel_version": name.version,
        "arch": name.machine,
        "notes": base64.b64encode(read_file("/sys/kernel/notes")).decode(),
        "emulated": b"QEMU TCG" in read_file("/proc/cpuinfo"),
        "perf": shutil.which("perf") or "",
    }


def user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def sysctl(name: str) -> object:
    try:
        return int(read_file("/proc/sys/" + name))
    except ValueError:
        return None


def status_field(name: str) -> str:
    for line in read_file("/proc/self/status").decode("utf-8", "replace").splitlines():
        if line.startswith(name + ":"):
            return line.split()[1]
    return "0"


def read_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def make_directory() -> str:
    """A new one, where programs may be run and, if there is such a place, a recording has room."""
    places = [place for place in PLACES if os.access(place, os.W_OK | os.X_OK) and not noexec(place)]
    if not places:
        raise SystemExit(f"no directory of {', '.join(PLACES)} can be written to and run from")
    roomy = [place for place in places if free(place) >= ENOUGH_BYTES]
    directory = tempfile.mkdtemp(prefix=PREFIX, dir=roomy[0] if roomy else max(places, key=free))
    with open(os.path.join(directory, "owner"), "w") as file:
        file.write(f"{os.getpid()} {started_at(os.getpid())}\n")
    for name in ("packages", "files", "work", "runs"):
        os.mkdir(os.path.join(directory, name))
    return directory


def unpack(archive: bytes, into: str) -> None:
    """By the system's tar where there is one: Python's own takes seconds for it in an emulated guest."""
    command = ["tar", "-x", "-z", "-f", "-", "-C", into]
    with contextlib.suppress(OSError):
        if subprocess.run(command, input=archive, stderr=subprocess.DEVNULL, check=False).returncode == 0:
            return
    import tarfile  # noqa: PLC0415

    with tarfile.open(fileobj=io.BytesIO(archive)) as packages:
        packages.extractall(into)  # noqa: S202  (the caller made it just now)


def noexec(place: str) -> bool:
    return bool(os.statvfs(place).f_flag & os.ST_NOEXEC)


def free(place: str) -> int:
    room = os.statvfs(place)
    return room.f_bavail * room.f_frsize


def remove_leftovers() -> None:
    """What this user's sessions left whose keeper was killed."""
    for place in PLACES:
        for directory in glob.glob(os.path.join(place, PREFIX + "*")):
            try:
                mine = os.lstat(directory).st_uid == os.geteuid() and not os.path.islink(directory)
                if mine and abandoned(directory):
                    end_all(directory)
                    shutil.rmtree(directory, ignore_errors=True)
            except OSError:
                continue


def abandoned(directory: str) -> bool:
    words = read_file(os.path.join(directory, "owner")).split()
    if len(words) != 2:  # being made at this moment, or its maker was killed before it wrote its name
        return time.time() - os.stat(directory).st_mtime > YOUNG_SECONDS
    return started_at(int(words[0])) != int(words[1])


def started_at(pid: int) -> int:
    """Clock ticks after boot (field 22 of proc(5) stat); -1 where there is no such process."""
    return start_in(read_file(f"/proc/{pid}/stat"))


def start_in(stat: bytes) -> int:
    fields = stat.rpartition(b")")[2].split()
    return int(fields[19]) if len(fields) > 19 else -1


def keep(directory: str) -> None:
    """Returns when the caller hangs up, or is silent for too long."""
    while True:
        line = read_line(SILENCE_SECONDS)
        words = line.split()
        if not line:
            return
        if words[:1] == [b"end"] and len(words) == 2 and words[1].isdigit():
            number = words[1].decode()
            with open(os.path.join(directory, "runs", number + ".ended"), "w"):
                pass  # for a command that has not come as far as its own file
            end(groups_of(directory, [number]))


def end_all(directory: str) -> None:
    end(groups_of(directory, os.listdir(os.path.join(directory, "runs"))))


def groups_of(directory: str, numbers: "list[str]") -> "set[int]":
    """The process groups of commands that still run."""
    groups = set()
    for number in numbers:
        stat = read_file(os.path.join(directory, "runs", number))
        pid = stat.split(b" ", 1)[0]
        if pid.isdigit() and started_at(int(pid)) == start_in(stat) != -1:
            try:
                groups.add(os.getpgid(int(pid)))
            except ProcessLookupError:
                continue
    return groups - {os.getpgid(0)}


def end(groups: "set[int]") -> None:
    """SIGTERM, so that they undo what they switched on, SIGKILL to what is left after a while."""
    deadline = time.monotonic() + GRACE_SECONDS
    left = {group for group in groups if send(group, signal.SIGTERM)}
    while left and time.monotonic() < deadline:
        time.sleep(0.02)
        left = {group for group in left if send(group, 0)}
    for group in left:
        send(group, signal.SIGKILL)


def send(group: int, number: int) -> bool:
    try:
        os.killpg(group, number)
    except OSError:
        return False
    return True


def say(words: str) -> None:
    with contextlib.suppress(OSError):
        os.write(1, f"\x1e{words}\n".encode())


def read_line(seconds: "float | None") -> bytes:
    """Empty at the end of input, and after so many seconds of silence. Byte by byte: what follows may be an archive."""
    line = b""
    while not line.endswith(b"\n"):
        if not select.select([0], [], [], seconds)[0]:
            return b""
        data = os.read(0, 1)
        if not data:
            return b""
        line += data
    return line


def read_exactly(size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = os.read(0, min(size - len(data), 1 << 16))
        if not more:
            raise SystemExit(1)
        data += more
    return data


def leave(number: int, frame: object) -> None:
    raise SystemExit(128 + number)
