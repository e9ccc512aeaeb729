"""One ssh connection for a session: the system's ssh, the keeper at its other end, and what ssh's refusals mean.

The host's own configuration of ssh holds (~/.ssh/config, or the file that WHYERRNO_SSH_CONFIG names). Nothing is asked
for: a key that needs a passphrase must be in the agent, and a host's key must be known.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from profiler import process
from profiler.errors import MissingError, ProfilerError, TargetError, UsageError
from profiler.lab import leftovers
from profiler.process import Conversation

CONFIG_VARIABLE = "WHYERRNO_SSH_CONFIG"
CONNECT_SECONDS = 30  # until the other end answers
FACTS_SECONDS = 90.0  # for the login and a first start of Python there
CLOSE_SECONDS = 60.0  # for the keeper to end what still runs
ALIVE_SECONDS = 10.0
LONGEST_SOCKET = 85  # of a path: struct sockaddr_un has 108, and ssh appends 17 while it makes it

_SPEC = re.compile(r"^ssh:(?P<place>(?:(?P<user>[^@/\s]+)@)?(?P<host>[^@/\s]+))$")
_URI = re.compile(
    r"^ssh://(?P<place>(?:(?P<user>[^@/\s]+)@)?(?P<host>[^@/\s:]+|\[[0-9a-fA-F:.]+\]))(?::(?P<port>\d{1,5}))?/?$"
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where ssh connects to: HOST or USER@HOST, as in its own configuration, and a port other than that names."""

    destination: str
    port: int | None = None


def parse(spec: str) -> Place:
    """ssh:[USER@]HOST or ssh://[USER@]HOST[:PORT]. Raises UsageError."""
    match = _SPEC.match(spec) or _URI.match(spec)
    if match is None:
        hint = "as in ssh:root@host, where host may be a name of ~/.ssh/config, or ssh://root@host:2222"
        raise UsageError(f"{spec!r} names no ssh host", hint=hint)
    if any((match[part] or "").startswith("-") for part in ("user", "host")):
        raise UsageError(f"target {spec}: a name that begins with - would be an option to ssh")
    port = match.groupdict().get("port")
    return Place(match["place"].replace("[", "").replace("]", ""), int(port) if port else None)


@dataclass(frozen=True, slots=True)
class Connection:
    """An open one. `directory` is the session's on the host; `sudo` says whether commands go through it."""

    place: Place
    talk: Conversation
    facts: dict[str, Any]
    directory: str
    control: Path
    log: Path

    def command(self, script: str) -> list[str]:
        """The argument list that runs a line for sh there, as root where it may be.

        What ssh is given the other end's login shell reads, whichever that is; hence one quoted word for sh.
        """
        words = ["exec", *(["sudo", "-n"] if self.facts["sudo"] else []), "sh", "-c"]
        # A client whose master is gone would connect anew, to a host where the session has ended
        options = [*_OPTIONS, "-o", "LogLevel=ERROR", "-o", "ControlMaster=no", "-o", "ProxyCommand=false"]
        return ["ssh", *_config(), *options, "-S", str(self.control), "--", self.place.destination,
                f"{' '.join(words)} {shlex.quote(script)}"]  # fmt: skip

    def lost(self) -> bool:
        """Whether the connection has ended, as that of a command that failed just now may have."""
        return self.talk.ended(1.0)

    def loss(self, during: str) -> TargetError:
        last = last_words(self.log)
        hint = f"{f'ssh said: {last}; ' if last else ''}what ran there was ended, and nothing was left"
        return TargetError(f"the connection to {self.place.destination} was lost during {during}", hint=hint)

    def end(self, number: int) -> None:
        """End one of the session's commands."""
        self.talk.send(f"end {number}\n".encode())

    @contextlib.contextmanager
    def ended_after(self, seconds: float, number: int) -> Iterator[threading.Event]:
        """Within the block a command is ended when its time is up, and the event set. To end its ssh would not do: the
        master holds that one's output until the command has ended there."""
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            self.end(number)

        alarm = threading.Timer(seconds, expire)
        alarm.daemon = True
        alarm.start()
        try:
            yield expired
        finally:
            alarm.cancel()


_OPTIONS = [
    "-T",
    "-o",
    "BatchMode=yes",
    "-o",
    "ForwardX11=no",
    "-o",
    "ForwardAgent=no",
    "-o",
    "ClearAllForwardings=yes",
]


def _config() -> list[str]:
    file = os.environ.get(CONFIG_VARIABLE, "")
    if file and not Path(file).is_file():
        raise UsageError(f"{CONFIG_VARIABLE}={file} is no file", hint="it names a configuration file for ssh")
    return ["-F", file] if file else []


def configured_hosts() -> list[str]:
    """The hosts that ssh's configuration gives a name, in its order; patterns are left out."""
    file = Path(os.environ.get(CONFIG_VARIABLE) or "~/.ssh/config").expanduser()
    try:
        lines = file.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
    words = [line.replace("=", " ", 1).split() for line in lines]
    names = [name for line in words if line and line[0].lower() == "host" for name in line[1:]]
    return list(dict.fromkeys(name for name in names if not set(name) & set("*?!")))


def _master(place: Place, control: Path, keeper: bytes) -> list[str]:
    """The connection's own process, which runs the keeper. Read byte by byte, its text leaves the rest of the input."""
    bootstrap = f'import os;s=b"".join(os.read(0,1) for _ in range({len(keeper)})).decode();exec(s);main(s)'
    alive = ["-o", f"ConnectTimeout={CONNECT_SECONDS}", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"]
    port = [] if place.port is None else ["-p", str(place.port)]
    master = ["-o", "ControlMaster=yes", "-o", "ControlPersist=no", "-S", str(control)]
    argv = ["ssh", *_config(), *_OPTIONS, *alive, *port, *master, "--", place.destination]
    return [*argv, f"exec python3 -c {shlex.quote(bootstrap)}"]


@contextlib.contextmanager
def _called(place: Place, archive: bytes) -> Iterator[tuple[Conversation, dict[str, Any], Path]]:
    """The keeper at work, what it says of the host, and the connection's directory here."""
    keeper = Path(__file__).with_name("ssh_keeper.py").read_bytes()
    with leftovers.directory("ssh") as directory:
        if len(str(directory / "control")) > LONGEST_SOCKET:
            raise TargetError(f"ssh can make no socket in {directory}", hint="name a shorter directory with TMPDIR")
        log = directory / "log"
        with process.conversation(_master(place, directory / "control", keeper), log=log) as talk:
            leftovers.note_process(directory, talk.pid)
            talk.send(keeper + json.dumps({"bytes": len(archive)}).encode() + b"\n")
            facts = json.loads(_answer(talk, "facts", place, log))
            yield talk, facts, directory


def ask(place: Place) -> dict[str, Any]:
    """What the keeper says of the host (`facts` in ssh_keeper.py). Raises as `connect` does."""
    with _called(place, b"") as (_, facts, _):
        return facts


@contextlib.contextmanager
def connect(place: Place, archive: bytes) -> Iterator[Connection]:
    """A connection with a session's directory at its other end, both gone when the block ends.

    archive  a tar archive (gzip) of what is to lie in the directory's `packages`

    Raises MissingError where ssh, a key or Python is missing, TargetError where the host is out of reach.
    """
    leftovers.remove()
    with _called(place, archive) as (talk, facts, directory):
        talk.send(archive)
        there = _answer(talk, "ready", place, directory / "log")
        over = threading.Event()
        beat = threading.Thread(target=_stay_alive, args=(talk, over), daemon=True)
        beat.start()
        try:
            yield Connection(place, talk, facts, there, directory / "control", directory / "log")
        finally:
            over.set()
            beat.join()
            talk.hang_up()
            talk.ended(CLOSE_SECONDS)


def _stay_alive(talk: Conversation, over: threading.Event) -> None:
    while not over.wait(ALIVE_SECONDS):
        if not talk.send(b"alive\n"):
            return


def _answer(talk: Conversation, word: str, place: Place, log: Path) -> str:
    """What follows `word` in the keeper's line. A login shell may print lines of its own before it."""
    mark = f"\x1e{word} ".encode()
    while True:
        try:
            line = talk.line(FACTS_SECONDS)
        except TimeoutError:
            raise TargetError(
                f"{place.destination} did not answer within {FACTS_SECONDS:g} s", hint=f"is `{_by_hand(place)}` quick?"
            ) from None
        if line is None:
            talk.ended(5.0)
            raise refusal(place, talk.exit_code, log.read_text("utf-8", "replace"))
        _, found, rest = line.partition(mark)
        if found:
            return rest.decode()


def skip_to_begin(stream: IO[bytes]) -> None:
    """Past what a login shell printed, to the line that a script begins with."""
    for line in stream:
        if line.endswith(BEGIN_LINE):
            return


BEGIN = "printf '\\036begin\\n'"
BEGIN_LINE = b"\x1ebegin\n"


def last_words(log: Path) -> str:
    lines = _lines(log.read_text("utf-8", "replace")) if log.exists() else []
    return lines[-1] if lines else ""


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip().strip("@")]


def _by_hand(place: Place) -> str:
    port = "" if place.port is None else f"-p {place.port} "
    config = f"-F {shlex.quote(os.environ[CONFIG_VARIABLE])} " if os.environ.get(CONFIG_VARIABLE) else ""
    return f"ssh {config}{port}{place.destination} true"


def refusal(place: Place, exit_code: int | None, text: str) -> ProfilerError:
    """Why there is no session, by ssh's exit code (its own failures are 255) and what it printed."""
    lines = _lines(text)
    last = lines[-1] if lines else f"ssh ended with exit code {exit_code}"
    host, by_hand = place.destination, _by_hand(place)
    if exit_code == 127 or "python3: not found" in text or "python3: command not found" in text:
        return MissingError(
            f"there is no python3 on {host}", hint="install Python 3.10 or later there; nothing else of ours"
        )
    if exit_code != 255:
        return TargetError(f"the session on {host} could not begin: {last}", hint=f"does `{by_hand}` work?")
    # Warning: Identification file ... not accessible; Permission denied (publickey,password).
    if "Permission denied" in text:
        said = next(line for line in lines if "Permission denied" in line)
        hint = f"whyerrno types no password: put a key there (ssh-copy-id {host}), or into the agent (ssh-add)"
        return MissingError(f"{host} accepts none of this user's keys ({said})", hint=hint)
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in text:
        hint = "find out why before anything else; ssh-keygen -R HOST forgets the old key"
        return TargetError(f"the key of {host} is another than the one known here", hint=hint)
    if "Host key verification failed" in text:
        return TargetError(f"the key of {host} is not known here", hint=f"compare and accept it once: {by_hand}")
    # ssh: connect to host 127.0.0.1 port 1: Connection refused
    said = next((line for line in lines if line.startswith("ssh: ")), last).removeprefix("ssh: ")
    return TargetError(f"{host} is out of reach: {said}", hint=f"does `{by_hand}` work?")
