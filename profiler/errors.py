"""Every error that may reach a user: one root, a few children, each with its exit code.

Exit codes of the command: 0 named, 1 error, 2 usage, 3 inconclusive, 4 not reproduced,
5 something needed is missing. 3 and 4 are conclusions, not errors, and have no class here.
"""


class ProfilerError(Exception):
    """What went wrong, in one line, and what to do about it."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message} ({self.hint})" if self.hint else message


class UsageError(ProfilerError):
    """The request itself is wrong: an unknown scenario, an output directory that exists."""

    exit_code = 2


class MissingError(ProfilerError):
    """Something needed is not here: a program, a package, a permission, debug info."""

    exit_code = 5


class InputError(ProfilerError):
    """A file that cannot be read as what it should be; names the file and, where known, the offset."""


class MismatchError(ProfilerError):
    """Two things that must belong together do not: a vmlinux and a recording, a source tree and a kernel."""


class TargetError(ProfilerError):
    """The place where the kernel runs failed: a guest that hangs, panics or is killed, a host out of reach."""


class RecordError(ProfilerError):
    """Recording failed on the target: perf exited, the load died, the disk filled."""
