"""What a scenario is: a name, the system call and errno it is about, and how to set the failure up.

Plain classes rather than dataclasses: importing `dataclasses` takes longer than the rest of the load
under emulation.
"""

from __future__ import annotations

import ctypes
import errno as errno_names
from collections.abc import Callable

from loadgen.syscalls import syscall_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from loadgen.setup import Setup

RESULT = object()  # in an undo call: stands for what the successful call returned
NOTHING_TO_UNDO = "getppid"  # a call that changes nothing, in place of an undo call


class Call:
    """A system call by name with its arguments.

    bytes and str are passed as the address of a NUL-terminated copy, ctypes objects by their address,
    None as NULL. The call keeps all of them alive. A call with `undo` may succeed: what it made is then
    undone and the loop goes on.
    """

    def __init__(self, syscall: str, *arguments: object, undo: Call | None = None) -> None:
        self.number = syscall_number(syscall)
        self.result_position = -1
        self.undo = undo
        self._alive: list[object] = []
        self.words = [self._word(position, argument) for position, argument in enumerate(arguments)]
        self.words += [0] * (6 - len(self.words))

    def _word(self, position: int, argument: object) -> int:
        if argument is None:
            return 0
        if argument is RESULT:
            self.result_position = position
            return 0
        if isinstance(argument, int):
            return ctypes.c_int64(argument).value
        if isinstance(argument, str):
            argument = argument.encode()
        if isinstance(argument, bytes):
            argument = ctypes.create_string_buffer(argument)
        self._alive.append(argument)
        return ctypes.addressof(argument)  # type: ignore[arg-type]


class Success:
    """How the system call of a scenario succeeds: as like the failing call as can be, and undone each time.

    `prepare` sets it up once and returns a call that bears repeating, with its `undo` where it leaves something behind.
    `anew`: it does not bear it, and is set up again, and its set-up undone, for every single call.
    """

    def __init__(self, prepare: Callable[[Setup], Call], *, anew: bool) -> None:
        self.prepare = prepare
        self.anew = anew

    def call(self, setup: Setup) -> Call:
        call = self.prepare(setup)
        call.undo = call.undo or Call(NOTHING_TO_UNDO)
        return call


class Scenario:
    """How to make one system call fail, and, in `success`, the same call succeed where that is as easily had.

    `fails_since` and `fails_before` are kernel versions such as "6.3": the call fails as said on kernels from
    the first and up to, not including, the second. Elsewhere the run ends as not reproduced. `modules` names the
    kernel modules that a guest is to have loaded; the set-up asks for them again (`Setup.module`), for other targets.
    """

    def __init__(
        self,
        name: str,
        syscall: str,
        errno: str,
        summary: str,
        prepare: Callable[[Setup], Call],
        *,
        needs_root: bool = False,
        fails_since: str | None = None,
        fails_before: str | None = None,
        seconds: float = 5.0,
        modules: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.syscall = syscall
        self.errno = errno
        self.summary = summary
        self.prepare = prepare
        self.needs_root = needs_root
        self.fails_since = fails_since
        self.fails_before = fails_before
        self.seconds = seconds
        self.modules = modules
        self.success: Success | None = None

    @property
    def errno_number(self) -> int:
        number: int = getattr(errno_names, self.errno)
        return number

    def syscall_number(self, arch: str | None = None) -> int:
        return syscall_number(self.syscall, arch)

    def fails_on(self, release: str) -> bool:
        """Whether the call fails as said on a kernel release such as "6.1.0-56-cloud-amd64"."""
        version = _version(release)
        if self.fails_since is not None and version < _version(self.fails_since):
            return False
        return self.fails_before is None or version < _version(self.fails_before)

    def to_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "syscall": self.syscall,
            "syscall_number": self.syscall_number(),
            "errno": self.errno,
            "errno_number": self.errno_number,
            "summary": self.summary,
            "needs_root": self.needs_root,
            "fails_since": self.fails_since,
            "fails_before": self.fails_before,
            "seconds": self.seconds,
            "modules": list(self.modules),
            "succeeds": self.success is not None,
        }


def _version(release: str) -> tuple[int, int]:
    major, minor = release.replace("-", ".").split(".")[:2]
    return int(major), int("".join(c for c in minor if c.isdigit()))


def scenario(
    name: str,
    errno: str,
    summary: str,
    *,
    syscall: str = "",
    needs_root: bool = False,
    fails_since: str | None = None,
    fails_before: str | None = None,
    seconds: float = 5.0,
    modules: tuple[str, ...] = (),
) -> Callable[[Callable[[Setup], Call]], Scenario]:
    """Makes a Scenario of the function below it.

    The system call is the name without its last, errno part, unless it is said: one call can give the same
    errno in more than one way, and the names then say the way between the two.
    """
    named = name.rpartition("-")[0].replace("-", "_")

    def declare(prepare: Callable[[Setup], Call]) -> Scenario:
        return Scenario(
            name,
            syscall or named,
            errno,
            summary,
            prepare,
            needs_root=needs_root,
            fails_since=fails_since,
            fails_before=fails_before,
            seconds=seconds,
            modules=modules,
        )

    return declare


def succeeds(failing: Scenario, *, anew: bool = False) -> Callable[[Callable[[Setup], Call]], Callable[[Setup], Call]]:
    """Declares of a scenario how its call succeeds, by the function below it; `anew` as of Success."""

    def declare(prepare: Callable[[Setup], Call]) -> Callable[[Setup], Call]:
        failing.success = Success(prepare, anew=anew)
        return prepare

    return declare
