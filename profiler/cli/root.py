"""The command group: every command is a module of this package, imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

import profiler
from profiler.cli.suggest import nearest

# Name of the command, and the module that holds it as `command`. The order is the order of the help.
COMMANDS = {
    "run": "profiler.cli.run",
    "explain": "profiler.cli.explain",
    "graph": "profiler.cli.graph",
    "report": "profiler.cli.report",
    "compare": "profiler.cli.compare",
    "campaign": "profiler.cli.campaign",
    "analyze": "profiler.cli.analyze",
    "import": "profiler.cli.import_",
    "scenarios": "profiler.cli.scenarios",
    "kernels": "profiler.cli.kernels",
    "doctor": "profiler.cli.doctor",
    "demo": "profiler.cli.demo",
    "completion": "profiler.cli.completion",
    "man": "profiler.cli.man",
}

EXIT_STATUS = """\b
Exit status:
  0    the error site was named
  1    error
  2    usage: wrong option, unknown name, output that exists
  3    inconclusive
  4    not reproduced: the call did not fail as expected
  5    something needed is missing (the message says which package has it)
  130  interrupted
"""


@dataclass
class Settings:
    """What holds for the whole invocation, wherever on the line it was given."""

    quiet: bool = False
    debug: bool = False


def _remember(name: str) -> Callable[[click.Context, click.Parameter, bool], bool]:
    def callback(context: click.Context, _parameter: click.Parameter, value: bool) -> bool:
        if value:
            setattr(context.ensure_object(Settings), name, True)
        return value

    return callback


def common_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command --quiet and --debug; both end up in Settings."""
    quiet = click.option(
        "-q",
        "--quiet",
        is_flag=True,
        expose_value=False,
        callback=_remember("quiet"),
        help="Say nothing while working: results, warnings and errors only.",
    )
    debug = click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        callback=_remember("debug"),
        help="Show the Python traceback of an error.",
    )
    return quiet(debug(function))


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is named or listed."""

    def list_commands(self, _context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[name]).command
        return command

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if arguments and arguments[0] not in COMMANDS and not arguments[0].startswith("-"):
            context.fail(f"no command {arguments[0]!r}{nearest(arguments[0], COMMANDS)}")
        return super().resolve_command(context, arguments)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  whyerrno doctor
  whyerrno run --scenario bind-eaddrinuse --target vm:6.1 -o runs/bind-6.1
  whyerrno run --syscall bind --errno EADDRINUSE --target vm:6.1 -o runs/mine -- ./repro 5
  whyerrno report runs/bind-6.1
  whyerrno compare runs/uring-5.10 runs/uring-7.3 -o compare/

"""
    + EXIT_STATUS,
)
@click.version_option(profiler.__version__, message="whyerrno %(version)s")
@common_options
def root() -> None:
    """Name the kernel source line and branch that made a system call fail.

    A load repeats the failing call on a stock kernel, perf samples it, and the samples are mapped onto the control
    flow of the kernel's functions: the site where the errno comes from, the branch that decided it, how sure that
    is, and why every other candidate is out.
    """
