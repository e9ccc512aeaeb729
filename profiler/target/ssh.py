"""A host reached by ssh. It needs Python 3.10 and perf; nothing is installed there, and nothing is left behind.

What runs there (profiler.record, loadgen) is sent into a temporary directory, which is removed at the end by a keeper
(ssh_keeper.py) that notices when this side is gone. Tracing needs root: the user is root, or sudo asks it nothing.
"""

from __future__ import annotations

import base64
import contextlib
import io
import itertools
import posixpath
import shlex
import tarfile
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from profiler import lab, process
from profiler.errors import InputError, MissingError, ProfilerError, TargetError, UsageError
from profiler.lab import archive, elf_note, image
from profiler.model import Kernel
from profiler.process import Completed, ProcessError
from profiler.target import local, ssh_connection
from profiler.target.checks import CAP_PERFMON, CAP_SYS_ADMIN, CAP_SYSLOG
from profiler.target.session import Session
from profiler.target.ssh_connection import BEGIN, BEGIN_LINE, Connection

ARCHITECTURE = "x86_64"
_COPY_SECONDS = 600.0
_END_SECONDS = 60.0  # for the keeper to end a command, before its ssh is given up
_OURS, _WORK = "/whyerrno/", "/work/"  # of the paths that files are asked for at


class SecureShell:
    def __init__(self, spec: str) -> None:
        self.spec = spec
        self._place = ssh_connection.parse(spec)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What the host says of itself; `facts` in ssh_keeper.py."""
        return ssh_connection.ask(self._place)

    @property
    def emulated(self) -> bool:
        """Where the host is a guest without KVM, as far as its processor's name says so."""
        return bool(self.facts["emulated"])

    def check(self) -> None:
        require_able(self.facts, self._place.destination)

    def kernel(self) -> Kernel | None:
        """The host's kernel, with what of it is on this machine: among the fetched ones, or where packages put it."""
        facts = self.facts
        build_id = elf_note.of_notes(base64.b64decode(facts["notes"]))
        for kernel in lab.list_cached():
            if build_id and kernel.build_id == build_id:
                return kernel
        version = local.package_version(facts["kernel_version"])
        return local.installed(facts["release"], build_id, facts["arch"], version)

    @contextlib.contextmanager
    def session(self, files: Mapping[str, Path], *, unchecked: bool = False) -> Iterator[Session]:
        """Raises MissingError, saying what to do, where the host lacks something (unless `unchecked`), TargetError
        where it is out of reach."""
        require_python(self.facts, self._place.destination)
        if not unchecked:
            self.check()
        for name in files:
            _below(name)
        with ssh_connection.connect(self._place, _packages()) as connection:
            session = SecureShellSession(connection)
            for name, path in files.items():
                session.put(path, session.path(name))
            yield session


class SecureShellSession:
    console: Path | None = None
    replays = False

    def __init__(self, connection: Connection) -> None:
        self.workdir = f"{connection.directory}/work"
        self.python = str(connection.facts["python"])
        self._connection = connection
        self._numbers = itertools.count(1)

    def path(self, guest_path: str) -> str:
        """Below the session's directory, whatever it would be in a guest."""
        return f"{self._connection.directory}/{_below(guest_path)}"

    def run(
        self, argv: list[str], *, timeout: float, on_line: Callable[[str], None] | None = None, name: str = ""
    ) -> Completed:
        number, what = next(self._numbers), name or argv[0]
        reader = _Reader(on_line)
        command = self._connection.command(self._script(number, argv))
        try:
            with self._connection.ended_after(timeout, number) as expired:
                done = process.run(
                    command, timeout=timeout + _END_SECONDS, check=False, on_line=reader.line, merge=True
                )
        except ProcessError:
            raise self._deadline_error(what, timeout) from None
        except BaseException:
            self._connection.end(number)
            raise
        if expired.is_set():
            raise self._deadline_error(what, timeout)
        if not reader.began or done.exit_code == 255:
            if self._connection.lost():
                raise self._connection.loss(what)
            if not reader.began:
                raise TargetError(f"{what} could not be started: {done.output.strip()[-200:]}")
        code = done.exit_code  # a shell reports a signal as 128 + its number
        output = done.output.partition(BEGIN_LINE.decode())[2]
        return Completed(128 - code if 128 < code <= 128 + 64 else code, output)

    def execution_log(self, *, seconds: float) -> contextlib.AbstractContextManager[Iterator[bytes]]:
        """Always raises MissingError: there is no emulator to ask."""
        raise MissingError(
            "exact replay needs a kernel in a virtual machine, not an ssh host's own",
            hint="choose a vm: target, or leave exact out of --evidence",
        )

    def put(self, local: Path, remote: str) -> None:
        """What is read there while it is put is the file of before, or the whole new one."""
        target = posixpath.join(self.workdir, remote)
        place, parent = shlex.quote(target), shlex.quote(posixpath.dirname(target))
        if local.is_dir():
            self._fed(f"mkdir -p {place} && tar -x -o -f - -C {place}", lambda pipe: _tar(local, pipe), local)
            return
        mode = "755" if local.stat().st_mode & 0o100 else "644"
        part = shlex.quote(f"{target}.{next(self._numbers)}.part")
        script = f"mkdir -p {parent} && cat >{part} && chmod {mode} {part} && mv -f {part} {place}"
        self._fed(script, lambda pipe: _copy(local, pipe), local)

    def get(self, remote: str, local: Path) -> None:
        path = posixpath.join(self.workdir, remote)
        source, parent, name = map(shlex.quote, (path, posixpath.dirname(path), posixpath.basename(path)))
        # tar says 1 of a file that was written to meanwhile
        script = (
            f"{BEGIN}; if [ -d {source} ]; then echo directory; tar -c -f - -C {source} . ; "
            f"elif [ -e {source} ]; then echo file; tar -c -f - -C {parent} -- {name}; "
            "else echo absent; fi; [ $? -le 1 ]"
        )
        for last in (False, True):  # a file that shrinks while tar reads it breaks the archive off
            kind = self._fetch(script, f"copying {remote} from the host", local, last=last)
            if kind == "absent":
                raise TargetError(f"{remote} was not made by the command that should have made it")
            if kind:
                return

    def _fetch(self, script: str, what: str, local: Path, *, last: bool) -> str:
        """What came: "file", "directory", "absent", or "" for something broken. Raises TargetError the `last` time."""
        kind, error = "", None
        try:
            with process.piped(self._connection.command(script)) as stream:
                ssh_connection.skip_to_begin(stream)
                kind = stream.readline().decode().strip()
                if kind in ("file", "directory"):
                    _unpack(stream, local, is_directory=kind == "directory")
        except (InputError, ProcessError) as caught:
            kind, error = "", caught
        if not kind and (last or self._connection.lost()):
            raise self._copy_error(what, error)
        return kind

    def _script(self, number: int, argv: list[str]) -> str:
        """For sh, whose line of /proc lets the keeper end its process group: the command with what it started. What the
        command leaves in the group ends with it. sh itself outlives the signal, to tell how the command ended."""
        there = self._connection.directory
        run = f"{there}/runs/{number}"
        note = f'read -r stat </proc/$$/stat && echo "$stat" >{run} && [ ! -e {run}.ended ]'
        environment = (
            f"export LC_ALL=C PYTHONPATH={there}/packages XDG_CACHE_HOME={there}/cache "
            'PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"'
        )
        command = f"{shlex.join(argv)} </dev/null; code=$?; kill -TERM 0; rm -f {run}; exit $code"
        return f"exec 2>&1; {BEGIN}; trap : TERM; cd {self.workdir} && {note} || exit 255; {environment}; {command}"

    def _deadline_error(self, what: str, timeout: float) -> TargetError:
        return TargetError(f"{what} did not end within {timeout:g} s", hint="it was stopped")

    def _fed(self, script: str, write: Callable[[IO[bytes]], None], local: Path) -> None:
        try:
            process.fed(self._connection.command(script), write, timeout=_COPY_SECONDS)
        except ProfilerError as error:
            raise self._copy_error(f"copying {local} to the host", error) from error

    def _copy_error(self, what: str, error: ProfilerError | None) -> TargetError:
        if self._connection.lost():
            return self._connection.loss(what)
        return TargetError(f"{what} failed: {error.args[0] if error else 'it ended early'}")


class _Reader:
    """Passes lines on, once the script has begun: a login shell may print some of its own before."""

    def __init__(self, on_line: Callable[[str], None] | None) -> None:
        self.began = False
        self._on_line = on_line

    def line(self, line: str) -> None:
        if not self.began:
            self.began = f"{line}\n".endswith(BEGIN_LINE.decode())
        elif self._on_line is not None:
            self._on_line(line)


def require_python(facts: Mapping[str, Any], host: str) -> None:
    if not facts["able"]:
        version = ".".join(map(str, facts["version"]))
        raise MissingError(f"{host} has Python {version} only", hint="the recorder needs Python 3.10 or later there")
    if facts["arch"] != ARCHITECTURE:
        raise MissingError(f"{host} is an {facts['arch']} machine", hint=f"only {ARCHITECTURE} kernels can be studied")


def require_able(facts: Mapping[str, Any], host: str) -> None:
    """Raises MissingError for the first thing that recording there lacks."""
    require_python(facts, host)
    if not facts["perf"]:
        raise MissingError(
            f"perf is not on {host}", hint="install the package linux-perf there (Ubuntu: linux-tools-generic)"
        )
    if facts["root"]:
        return
    capabilities = int(facts["capabilities"], 16)
    hint = f"ssh:root@..., or let sudo ask {facts['user']} nothing (NOPASSWD)"
    paranoid, restrict = (99 if facts[name] is None else facts[name] for name in ("paranoid", "restrict"))
    if paranoid >= 0 and not capabilities & (1 << CAP_PERFMON | 1 << CAP_SYS_ADMIN):
        raise MissingError(f"{facts['user']} is not root on {host}, and {facts['sudo_says']}", hint=hint)
    if restrict > (capabilities >> CAP_SYSLOG & 1):
        raise MissingError(
            f"{facts['user']} is not root on {host}, and kernel addresses are hidden there "
            f"(kernel.kptr_restrict is {restrict})",
            hint=hint,
        )


def _below(guest_path: str) -> str:
    """Where below a session's directory a file goes that in a guest lies at an absolute path."""
    if ".." not in guest_path.split("/"):
        for prefix, folder in ((_WORK, "work"), (_OURS, "files")):
            if guest_path.startswith(prefix):
                return f"{folder}/{guest_path.removeprefix(prefix)}"
    raise UsageError(
        f"{guest_path} cannot be put there: on an ssh host nothing is written outside of a temporary directory",
        hint="name it relative to the directory you are in; the program finds it relative to its own",
    )


def _packages() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=6) as tar:
        for name, path in image.packages("."):
            if path.suffix == ".toml":  # of loadgen's truth, which the tests and benchmarks read
                continue
            tar.add(path, arcname=name, recursive=False, filter=_owned_by_root)
    return stream.getvalue()


def _tar(directory: Path, pipe: IO[bytes]) -> None:
    with tarfile.open(fileobj=pipe, mode="w|") as tar:
        tar.add(directory, arcname=".", filter=_owned_by_root)


def _copy(path: Path, pipe: IO[bytes]) -> None:
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            pipe.write(data)


def _unpack(stream: IO[bytes], local: Path, *, is_directory: bool) -> None:
    if is_directory:
        local.mkdir(parents=True, exist_ok=True)
        archive.extract(stream, local)
    else:
        local.parent.mkdir(parents=True, exist_ok=True)
        archive.extract(stream, local.parent, rename=lambda _: archive.inside(local.name))
    while stream.read(1 << 16):
        """The archive's padding: what is not read to its end is taken to be broken off."""


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member
