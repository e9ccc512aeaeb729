"""This machine and its running kernel."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from profiler import process
from profiler.errors import MissingError, TargetError
from profiler.lab import elf_note, leftovers
from profiler.model import Kernel
from profiler.process import Completed
from profiler.target import checks
from profiler.target.session import Session

# Where distributions put a running kernel's debug info and sources; %s is its release.
_VMLINUX = (
    "/usr/lib/debug/boot/vmlinux-%s",
    "/usr/lib/debug/lib/modules/%s/vmlinux",
    "/usr/lib/debug/usr/lib/modules/%s/vmlinux",
    "/lib/modules/%s/build/vmlinux",
    "/lib/modules/%s/vmlinux",
    "/boot/vmlinux-%s",
)
_MODULE_DEBUG = ("/usr/lib/debug/lib/modules/%s", "/usr/lib/debug/usr/lib/modules/%s")
_SOURCE = ("/lib/modules/%s/source", "/lib/modules/%s/build", "/usr/src/linux-%s", "/usr/src/linux-source-%s")
_CONFIG = ("/boot/config-%s", "/lib/modules/%s/config", "/lib/modules/%s/build/.config")


class Local:
    spec = "local"
    emulated = False

    def check(self) -> None:
        checks.require_all()

    def kernel(self) -> Kernel | None:
        """The running kernel; its parts are None where they are not in the usual places.

        A vmlinux whose build id is not the running kernel's is not taken.
        """
        name = os.uname()
        build_id = elf_note.of_running_kernel()
        return installed(name.release, build_id, platform.machine(), package_version(name.version))

    @contextlib.contextmanager
    def session(self, files: Mapping[str, Path], *, unchecked: bool = False) -> Iterator[Session]:
        """Raises MissingError, saying what to do, where recording is not possible here (unless `unchecked`)."""
        if not unchecked:
            self.check()
        leftovers.remove()
        with leftovers.directory("local") as directory:
            yield LocalSession(directory, files)


def installed(release: str, build_id: str, arch: str, version: str) -> Kernel:
    """A kernel with what of it lies where this machine's packages put it; a vmlinux by its build id only."""
    return Kernel(
        release=release,
        package_version=version,
        build_id=build_id,
        arch=arch,
        vmlinux=next((p for p in _existing(_VMLINUX, release) if elf_note.of_file(p) == build_id != ""), None),
        source=next((p for p in _sources(release) if (p / "kernel/fork.c").is_file()), None),
        config=next(iter(_existing(_CONFIG, release)), None),
        module_debug=next(iter(_existing(_MODULE_DEBUG, release)), None),
    )


class LocalSession:
    console: Path | None = None
    replays = False

    def __init__(self, directory: Path, files: Mapping[str, Path]) -> None:
        self.workdir = str(directory)
        self.python = sys.executable
        self._files = {name: path.resolve() for name, path in files.items()}

    def path(self, guest_path: str) -> str:
        """A file that is on this machine already stays where it is."""
        return str(self._files.get(guest_path, guest_path))

    def run(
        self, argv: list[str], *, timeout: float, on_line: Callable[[str], None] | None = None, name: str = ""
    ) -> Completed:
        packages = str(Path(__file__).resolve().parent.parent.parent)
        pythonpath = os.pathsep.join(filter(None, (packages, os.environ.get("PYTHONPATH", ""))))
        try:
            return process.run(
                argv,
                timeout=timeout,
                check=False,
                cwd=Path(self.workdir),
                env={"PYTHONPATH": pythonpath},
                on_line=on_line,
                merge=True,
            )
        except process.ProcessError as error:
            raise TargetError(f"{name or argv[0]} did not end within {timeout:g} s", hint="it was stopped") from error

    def execution_log(self, *, seconds: float) -> contextlib.AbstractContextManager[Iterator[bytes]]:
        """Always raises MissingError: this machine's own kernel is not emulated."""
        raise MissingError(
            "exact replay needs a kernel in a virtual machine, not this machine's own",
            hint="choose a vm: target, or use --evidence samples",
        )

    def put(self, local: Path, remote: str) -> None:
        _copy(local, Path(self.workdir, remote))

    def get(self, remote: str, local: Path) -> None:
        source = Path(self.workdir, remote)
        if not source.exists():
            raise TargetError(f"{remote} was not made by the command that should have made it")
        _copy(source, local)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)


def _existing(patterns: tuple[str, ...], release: str) -> list[Path]:
    return [path for path in (Path(pattern % release) for pattern in patterns) if path.exists()]


def _sources(release: str) -> list[Path]:
    version = ".".join(release.split("-", maxsplit=1)[0].split(".")[:2])
    return [*_existing(_SOURCE, release), *_existing(_SOURCE, version)]


def package_version(kernel_version: str) -> str:
    """From uname's version, "" where it is not Debian's."""
    # #1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-16)
    words = kernel_version.split()
    return words[words.index("Debian") + 1] if "Debian" in words[:-1] else ""
