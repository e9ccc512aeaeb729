"""What every target offers: one protocol for the target, one for a session on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from profiler.model import Kernel
from profiler.process import Completed


class Session(Protocol):
    """A place on the target to work in, and the target itself held ready, while the `with` block lasts.

    workdir  an existing, empty directory on the target; gone with the session
    python   the Python interpreter there, with `profiler.record` and `loadgen` importable
    console  the guest's console so far (a file of this machine, gone with the session); None without a guest
    """

    @property
    def workdir(self) -> str: ...

    @property
    def python(self) -> str: ...

    @property
    def console(self) -> Path | None: ...

    def path(self, guest_path: str) -> str:
        """Where a file passed to `session(files=...)` lies on this target."""

    def run(
        self, argv: list[str], *, timeout: float, on_line: Callable[[str], None] | None = None, name: str = ""
    ) -> Completed:
        """Run a program in `workdir` with no input; standard error comes with the output, line by line to `on_line`.

        name  what errors call it; by default its first argument

        From within `on_line`, while the program runs, one more may be run, and files be moved.

        Raises TargetError when the deadline (seconds) passes or the target fails; an exit code other than 0
        is returned.
        """

    @property
    def replays(self) -> bool:
        """Whether `execution_log` is to be had: in an emulated guest."""

    def execution_log(self, *, seconds: float) -> AbstractContextManager[Iterator[bytes]]:
        """What the kernel executes inside the block, for at most `seconds`, as text of QEMU's execution log.

        It comes in pieces cut anywhere, for `profiler.parse.exec_log`; the target is slowed down a thousandfold
        and waits for the reader. May be entered from `on_line` while `run` lasts. Full speed is back when the
        block ends.

        Raises MissingError where the target is not emulated, TargetError where the emulator fails.
        """

    def put(self, local: Path, remote: str) -> None:
        """Copy a file or directory of this machine to a path on the target."""

    def get(self, remote: str, local: Path) -> None:
        """Copy a file, or a directory with all in it, from the target."""


class Target(Protocol):
    spec: str  # as asked: "local", "vm:6.1"

    @property
    def emulated(self) -> bool:
        """Under TCG: samples land on the heads of translation blocks."""

    def check(self) -> None:
        """Raises MissingError, saying what to do, where the target lacks a program or a permission."""

    def kernel(self) -> Kernel | None:
        """The kernel that runs there, with what of it lies on this machine."""

    def session(self, files: Mapping[str, Path]) -> AbstractContextManager[Session]:
        """files  path on the target → file or directory of this machine; a program's shared libraries and a
        script's interpreter go along."""
