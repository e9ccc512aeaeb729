"""The options that name a load and where it runs, alike for every command that takes one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from profiler.cli.names import TARGET_HELP, complete_errno, complete_syscall, complete_target


def the_call_and_where(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command --syscall, --errno and --target."""
    syscall = click.option(
        "--syscall", metavar="NAME", shell_complete=complete_syscall, help="The call that PROGRAM repeats."
    )
    errno = click.option("--errno", metavar="NAME", shell_complete=complete_errno, help="The errno it fails with.")
    target = click.option(
        "-t", "--target", default="local", show_default=True, shell_complete=complete_target, help=TARGET_HELP
    )
    return syscall(errno(target(function)))


def what_the_program_needs(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command --file and --module."""
    files = click.option(
        "--file",
        "files",
        multiple=True,
        type=click.Path(exists=True, path_type=Path),
        help="A file that PROGRAM needs on the target; repeatable.",
    )
    modules = click.option(
        "--module",
        "modules",
        multiple=True,
        metavar="NAME",
        help="A kernel module that the guest is to load first, with those it needs; repeatable.",
    )
    return files(modules(function))
