"""The `whyerrno` command: one module a command; this one turns errors into a message and an exit code."""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from types import FrameType

import click

from profiler.cli.root import Settings, root
from profiler.errors import ProfilerError

INTERRUPTED = 130  # 128 + SIGINT, as shells report it
LONGEST_MESSAGE = 600
TERMINATED = 143  # 128 + SIGTERM


class _Terminated(BaseException):
    """SIGTERM or SIGHUP, raised where the program stands so that everything switched on is switched off."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (sys.argv's when not given) and return the exit code. Prints every error once."""
    settings = Settings()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _raise_terminated)
    return exit_code_of(lambda: _run(arguments, settings), settings)


def exit_code_of(command: Callable[[], int], settings: Settings) -> int:
    """What `command` returns, or the exit code of what it raised, with one message on stderr."""
    try:
        return command()
    except (KeyboardInterrupt, click.Abort):
        _say("interrupted")
        return INTERRUPTED
    except _Terminated:
        _say("terminated")
        return TERMINATED
    except BrokenPipeError:
        _discard_output()
        return 1
    except Exception as error:
        if settings.debug:
            traceback.print_exc()
        code = _report(error)
        try:
            sys.stdout.flush()
        except OSError:
            _discard_output()
        return code


def _run(arguments: Sequence[str] | None, settings: Settings) -> int:
    returned = root.main(arguments, prog_name="whyerrno", standalone_mode=False, obj=settings)
    sys.stdout.flush()
    return returned if isinstance(returned, int) else 0


def _report(error: Exception) -> int:
    """Print `error` in one line, with its hint on a second, and return its exit code."""
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, ProfilerError):
        _say(f"error: {Exception.__str__(error)}", hint=error.hint)
        return error.exit_code
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        _say(
            f"error: no space left to write {error.filename or 'the output'}",
            hint="free some space, or choose another -o; nothing half-written was kept under the asked name",
        )
        return 1
    if isinstance(error, OSError) and error.strerror:
        _say(f"error: {error.filename or 'operating system'}: {error.strerror}")
        return 1
    _say(f"error: unexpected {type(error).__name__}: {error}", hint="run again with --debug, and report what it prints")
    return 1


def _say(message: str, *, hint: str = "") -> None:
    click.echo(f"whyerrno: {_one_line(message)}", err=True)
    if hint:
        click.echo(f"  hint: {_one_line(hint)}", err=True)


def _one_line(text: str) -> str:
    """`text` without what could move a terminal's cursor: names in it may come from somebody's recording."""
    joined = " ".join(text.split())
    if len(joined) > LONGEST_MESSAGE:
        joined = joined[:LONGEST_MESSAGE] + " ..."
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in joined)


def _discard_output() -> None:
    """Point stdout at /dev/null, so that flushing it when Python exits does not fail again."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def _raise_terminated(_number: int, _frame: FrameType | None) -> None:
    raise _Terminated
