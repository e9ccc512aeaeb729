"""One running guest: boot it, run commands in it, move files in and out, and leave nothing behind."""

from __future__ import annotations

import contextlib
import platform
import posixpath
import shlex
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from profiler import process
from profiler.errors import MissingError, TargetError
from profiler.lab import archive, image, leftovers, programs, qemu, replay, store
from profiler.lab.channel import LONGEST_SCRIPT, Channel, ChannelClosed, ChannelSilent
from profiler.model import Kernel
from profiler.process import Completed

BOOT_SECONDS = 180.0  # an emulated guest needs 3; the rest is for machines that do much else
DISK_BYTES = 4 << 30  # sparse: takes only what is written
_DISK = "/dev/vda"
_COPY_SECONDS = 300.0
_CONSOLE_LINES = 2
CONSOLES = "consoles"  # in the cache: those of guests that failed
_CONSOLES_KEPT = 20


class Guest:
    """A booted guest. Made by `boot`; once a deadline has passed or the guest has ended, it is of no more use."""

    def __init__(
        self, directory: Path, channel: Channel, side: Channel, running: subprocess.Popen[bytes], replays: bool
    ) -> None:
        self.console = directory / "console.log"
        self.workdir = image.WORKDIR
        self.python = "/usr/bin/python3"
        self.release = ""
        self.replays = replays
        self._replaying = False
        self._disk = directory / "disk"
        self._qemu_log = directory / "qemu.log"
        self._channel = channel
        self._side = side  # for what is wanted while a command runs on the other
        self._process = running

    def wait_ready(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        with self._explained("boot", timeout):
            self.release = self._channel.wait_ready(deadline, self._check)

    def path(self, guest_path: str) -> str:
        """Files passed to `boot` lie where they were asked for."""
        return guest_path

    def run(
        self, argv: list[str], *, timeout: float, on_line: Callable[[str], None] | None = None, name: str = ""
    ) -> Completed:
        """Run a program in the working directory; standard error comes with the output. Errors call it `name`.

        From within `on_line` one more may be run, and files be moved.

        Raises TargetError when the guest panics, is killed, or the deadline (seconds) passes.
        """
        return self._script(f"cd {self.workdir} && exec {shlex.join(argv)}", name or argv[0], timeout, on_line)

    def put(self, local: Path, remote: str) -> None:
        """Copy a file or a directory into the guest. Libraries of programs do not follow; see `files` of `boot`."""
        with self._disk.open("r+b") as disk:
            with tarfile.open(fileobj=disk, mode="w|") as tar:
                tar.add(local, arcname=self._absolute(remote).strip("/"), filter=_owned_by_root)
            size = disk.tell()
        # head: busybox's tar would read the disk to its very end
        script = f"blockdev --flushbufs {_DISK} && head -c {size} {_DISK} | tar -x -f - -C /"
        self._must(script, f"copying {local} into the guest")

    def get(self, remote: str, local: Path) -> None:
        """Copy a file, or a directory with all in it, out of the guest. A directory is merged into `local`."""
        source = shlex.quote(self._absolute(remote))
        script = (
            f"if [ -d {source} ]; then tar -c -f {_DISK} -C {source} . ; echo directory; "
            f'else tar -c -f {_DISK} -C "$(dirname {source})" "$(basename {source})"; echo file; fi && sync'
        )
        kind = self._must(f"[ -b {_DISK} ] && [ -e {source} ] && {{ {script}; }}", f"copying {remote} out of the guest")
        with self._disk.open("rb") as disk:
            if kind.split()[-1:] == ["directory"]:
                local.mkdir(parents=True, exist_ok=True)
                archive.extract(disk, local)
            else:
                local.parent.mkdir(parents=True, exist_ok=True)
                name = local.name
                archive.extract(disk, local.parent, rename=lambda _: archive.inside(name))

    @contextlib.contextmanager
    def execution_log(self, *, seconds: float) -> Iterator[Iterator[bytes]]:
        """What the guest's kernel executes from now on, as `replay.execution_log` yields it.

        Raises MissingError where the guest is not emulated, TargetError when QEMU fails.
        """
        if not self.replays:
            raise MissingError(
                "exact replay needs an emulated guest, and this one runs under KVM",
                hint=f"set {qemu.ACCELERATOR_VARIABLE}=tcg, or use --evidence samples",
            )
        directory = self.console.parent
        self._replaying = True
        try:
            with replay.execution_log(directory / "qmp", directory / "execution.log", seconds=seconds) as pieces:
                yield pieces
        except TargetError:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=0.5)
                raise TargetError(self._ended("exact replay"), hint=self._last_words()) from None
            raise
        finally:
            self._replaying = False

    def _absolute(self, remote: str) -> str:
        return posixpath.join(self.workdir, remote)

    def _script(
        self, script: str, what: str, timeout: float, on_line: Callable[[str], None] | None = None
    ) -> Completed:
        if len(script) > LONGEST_SCRIPT:
            script = self._put_script(script)

        def pass_on(line: bytes) -> None:
            if on_line is not None:
                on_line(_text(line).rstrip("\r\n"))

        with self._explained(what, timeout):
            deadline = time.monotonic() + timeout
            channel = self._side if self._channel.busy else self._channel
            if not channel.ready:
                channel.wait_ready(deadline, self._check)
            code, output = channel.run(script, deadline, self._check, pass_on)
        # A shell reports a signal as 128 + its number.
        return Completed(128 - code if 128 < code <= 128 + 64 else code, _text(output))

    def _put_script(self, script: str) -> str:
        path = self._disk.with_name("script")
        path.write_text(script, encoding="utf-8")
        self.put(path, "/run/long-script")
        return "exec sh /run/long-script"

    def _must(self, script: str, what: str) -> str:
        completed = self._script(script, what, _COPY_SECONDS)
        if completed.exit_code:
            last = completed.output.strip().splitlines()[-1:] or [f"exit code {completed.exit_code}"]
            free = shutil.disk_usage(self._disk.parent).free
            hint = f"{free >> 20} MiB are free for it on this machine" if free < DISK_BYTES else ""
            raise TargetError(f"{what} failed: {last[0]}", hint=hint)
        return completed.output

    def _check(self) -> None:
        if self._process.poll() is not None:
            raise ChannelClosed
        if self.replays and not self._replaying:  # its monitor takes one client at a time
            replay.wake(self.console.parent / "qmp")

    @contextlib.contextmanager
    def _explained(self, what: str, timeout: float) -> Iterator[None]:
        """What the channel saw, in the user's terms, with the console's last words."""
        try:
            yield
        except ChannelClosed:
            self._process.wait(timeout=10)
            raise TargetError(self._ended(what), hint=self._last_words()) from None
        except ChannelSilent:
            raise TargetError(
                f"the guest did not finish {what} within {timeout:g} s", hint=self._last_words()
            ) from None

    def _ended(self, what: str) -> str:
        panics = [line for line in self._console_lines() if "Kernel panic" in line]
        if panics:
            return f"the guest panicked during {what}: {panics[0]}"
        code = self._process.returncode
        if code < 0:
            return f"QEMU was killed by signal {-code} during {what}"
        return f"QEMU ended with exit code {code} during {what}"

    def _console_lines(self) -> list[str]:
        text = self.console.read_text("utf-8", "replace") if self.console.exists() else ""
        return [line.strip() for line in text.splitlines() if line.strip()]

    def _last_words(self) -> str:
        log = self._qemu_log.read_text("utf-8", "replace").split("\n") if self._qemu_log.exists() else []
        lines = [line for line in log if line.strip()][-1:] + self._console_lines()[-_CONSOLE_LINES:]
        return "last console lines: " + " | ".join(lines) if lines else "the console is empty"


@contextlib.contextmanager
def boot(
    kernel: Kernel,
    files: Mapping[str, Path],
    cache: Path,
    *,
    accelerator: str = "tcg",
    append: str = "",
    memory: int = 2048,
    qmp: bool = False,
    replays: bool = False,
    extra: tuple[str, ...] = (),
    boot_timeout: float = BOOT_SECONDS,
) -> Iterator[Guest]:
    """A guest running `kernel`, gone with all its files when the block ends.

    files   guest path → file or directory of this machine
    append  more words for the kernel command line
    memory  MiB
    qmp     QEMU listens for its monitor protocol on `qmp` in the guest's directory (beside `console`)
    replays the guest is for `Guest.execution_log` too, and its clock counts instructions; tcg only
    extra   more arguments for QEMU

    Raises MissingError without QEMU or an image, TargetError when the guest does not come up.
    """
    if platform.machine() != store.ARCH:
        raise MissingError(f"vm targets need an {store.ARCH} machine, this is {platform.machine()}")
    if kernel.image is None:
        raise MissingError(f"{kernel.release} has no bootable image", hint="a vm target needs a bzImage")
    require_programs()
    leftovers.remove()
    ours, theirs = socket.socketpair()
    side, their_side = socket.socketpair()
    with leftovers.directory("vm") as directory, ours, theirs, side, their_side:
        _prepare(directory, kernel, files, cache)
        machine = qemu.Machine(
            kernel.image,
            accelerator,
            directory / "console.log",
            initrd=directory / "initrd",
            disk=directory / "disk",
            channel=theirs,
            side_channel=their_side,
            memory=memory,
            append=append,
            qmp=directory / "qmp" if qmp or replays else None,
            replays=replays,
            extra=extra,
        )
        passed = [theirs.fileno(), their_side.fileno()]
        with process.started(machine.command(), log=directory / "qemu.log", pass_fds=passed) as running:
            leftovers.note_process(directory, running.pid)
            theirs.close()  # now only QEMU holds those ends, so its death closes the channels
            their_side.close()
            guest = Guest(directory, Channel(ours), Channel(side), running, replays)
            with _console_kept(guest, cache / CONSOLES):
                guest.wait_ready(boot_timeout)
                (directory / "initrd").unlink()
                yield guest


@contextlib.contextmanager
def _console_kept(guest: Guest, into: Path) -> Iterator[None]:
    """Where a guest fails its console outlives it, and the error says where; those of the last failures are kept."""
    try:
        yield
    except TargetError as error:
        with contextlib.suppress(OSError):
            into.mkdir(parents=True, exist_ok=True)
            kept = into / f"{guest.console.parent.name}.log"
            shutil.copyfile(guest.console, kept)
            error.hint = f"{error.hint}; the whole console is kept in {kept}".removeprefix("; ")
            for old in sorted(into.glob("*.log"), key=lambda path: path.stat().st_mtime)[:-_CONSOLES_KEPT]:
                old.unlink()
        raise


def require_programs() -> None:
    """Raises MissingError where QEMU, or a program that goes into the guest, is not on this machine."""
    process.find(qemu.PROGRAM)
    process.find("busybox")
    programs.perf()


def _prepare(directory: Path, kernel: Kernel, files: Mapping[str, Path], cache: Path) -> None:
    try:
        image.write(directory / "initrd", kernel, files, cache)
        with (directory / "disk").open("wb") as disk:
            disk.truncate(DISK_BYTES)
    except OSError as error:
        raise TargetError(
            f"the guest's image could not be made in {directory.parent}: {error.strerror or error}",
            hint="free some space there, or name another place with TMPDIR",
        ) from error


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
