"""whyerrno explain: what an errno of a system call means, by the manual and by a kernel's source."""

from __future__ import annotations

import dataclasses
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from profiler.cli.names import (
    TARGET_HELP,
    check_errno,
    check_syscall,
    complete_errno,
    complete_syscall,
    complete_target,
)
from profiler.cli.output import json_option, print_json
from profiler.cli.progress import show_progress
from profiler.cli.root import Settings, common_options
from profiler.cli.suggest import ERRNO_NAMES
from profiler.errors import MissingError, UsageError
from reports.visible import prose

if TYPE_CHECKING:
    from profiler.model import Kernel, SourceList
    from profiler.parse.man_page import ManPage, ManualEntry
    from reports.terminal_text import Writer


@click.command(
    epilog="""\b
Examples:
  whyerrno explain bind EADDRINUSE
  whyerrno explain openat ENOENT --json
  whyerrno explain io_uring_setup ENOMEM --kernel 6.1
"""
)
@click.argument("syscall", shell_complete=complete_syscall)
@click.argument("errno", shell_complete=complete_errno)
@click.option(
    "--kernel",
    metavar="VERSION|PATH",
    help="Also list the places in this kernel's source that can return the errno: a fetched one, or a build tree.",
)
@click.option("-t", "--target", shell_complete=complete_target, help=f"Likewise, of a target's kernel. {TARGET_HELP}")
@click.option("--module", "modules", multiple=True, help="A kernel module whose source counts too; repeatable.")
@json_option
@common_options
@click.pass_obj
def command(
    settings: Settings,
    *,
    syscall: str,
    errno: str,
    kernel: str | None,
    target: str | None,
    modules: tuple[str, ...],
    as_json: bool,
) -> int:
    """Say what ERRNO means when SYSCALL returns it: every entry of the installed manual page, and errno(3)'s words.

    An errno that the page does not document is marked as such. With a kernel, every place in the system call's call
    tree that can return it follows, those nearest to the entry first, each with the condition that guards it.
    """
    from profiler import manual

    if kernel and target:
        raise UsageError("a kernel is named by --kernel or by --target, not by both", hint="leave one of them out")
    call, name = check_syscall(syscall), check_errno(errno)
    page = manual.read(call)
    if page is None and not (kernel or target):
        manual.require(call)
    places = _places(settings, call, name, kernel, target, modules) if kernel or target else None
    if as_json:
        print_json(_as_json(call, name, page, places))
    else:
        _print(call, name, page, places)
    return 0


def _places(
    settings: Settings, call: str, errno: str, kernel: str | None, target: str | None, modules: tuple[str, ...]
) -> tuple[Kernel, SourceList]:
    from profiler.explain import source_half

    with show_progress(quiet=settings.quiet) as progress:
        if target:
            from profiler.target import open_target

            found = open_target(target, progress=progress).kernel()
            if found is None:
                raise MissingError(f"the source of the kernel of {target} is not known", hint="name one with --kernel")
        else:
            found = _kernel(kernel or "")
        progress("reading the source", None)
        return found, source_half(found, call, errno, modules=modules)


def _kernel(named: str) -> Kernel:
    from profiler import lab

    if Path(named).is_dir():
        return lab.from_path(Path(named))
    found = lab.find(named)
    if found is None:
        raise MissingError(f"no kernel {named!r} on this machine", hint=f"`whyerrno kernels fetch {named}`")
    return found


# ---- what is printed ----


def _as_json(call: str, errno: str, page: ManPage | None, places: tuple[Kernel, SourceList] | None) -> dict[str, Any]:
    from profiler import manual
    from profiler.conclude.meaning import meaning, names_of

    found = meaning(page, errno)
    entries = page.of(names_of(errno)) if page else []
    said: dict[str, Any] = {
        "syscall": call,
        "errno": errno,
        "number": ERRNO_NAMES[errno],
        "page": found.page if found else "",
        "documented": bool(found and found.documented),
        "entries": [dataclasses.asdict(entry) for entry in entries],
        "general": found.says if found else "",
        "missing": "" if page and page.installed else manual.advice(call),
    }
    if places is not None:
        kernel, listed = places
        said["kernel"] = {name: getattr(kernel, name) for name in ("release", "package_version", "build_id", "arch")}
        said |= dataclasses.asdict(listed)
    return said


def _print(call: str, errno: str, page: ManPage | None, places: tuple[Kernel, SourceList] | None) -> None:
    from rich.console import Console

    from reports.terminal_text import Writer

    console = Console()
    console.width = min(console.width, 100)  # prose is hard to read in longer lines
    writer = Writer(console)
    number = ERRNO_NAMES[errno]
    writer.line((f"{call}() and {errno}", "bold"), f" ({number}, {os.strerror(number)})")
    writer.blank()
    _manual(call, errno, page, writer)
    if places is not None:
        from reports.terminal_candidates import render

        kernel, listed = places
        writer.blank()
        render(listed, errno, f"Linux {kernel.release}", writer)


def _manual(call: str, errno: str, page: ManPage | None, writer: Writer) -> None:
    from profiler import manual
    from profiler.conclude.meaning import meaning, names_of

    found = meaning(page, errno)
    if page is None or found is None:
        writer.paragraph(("The manual is not on this machine", "bold"), f": {manual.advice(call)}")
        return
    entries = page.of(names_of(errno))
    if not page.installed:
        writer.paragraph((f"No page of {call}(2) is installed", "bold"), f": {manual.advice(call)}.")
    elif not entries:
        writer.paragraph((f"{page.title} does not document {errno}", "bold"), " for this call.")
    under: list[str] = []
    for entry in entries:
        under = _under(entry, under, writer)
        _entry(entry, writer, bullet=len(entries) > 1)
    if found.says:
        writer.blank()
        writer.line(("errno(3)", "bold"))
        _wrapped(found.says.split("\n"), writer, bullet=False)


def _under(entry: ManualEntry, before: list[str], writer: Writer) -> list[str]:
    """Says which page and which part of it the entry is from, where that is not said yet. Returns both."""
    from profiler.parse.man_page import ERRORS

    part = entry.applies if entry.section == ERRORS else f"in {entry.section.capitalize()}:"
    if before and before != [entry.page, part]:
        writer.blank()
    if before[:1] != [entry.page]:
        writer.line((entry.page, "bold"))
    if part and before != [entry.page, part]:
        _wrapped([part], writer, bullet=False)
    return [entry.page, part]


def _entry(entry: ManualEntry, writer: Writer, *, bullet: bool) -> None:
    _wrapped(entry.text.split("\n"), writer, bullet=bullet)


def _wrapped(paragraphs: Sequence[str], writer: Writer, *, bullet: bool) -> None:
    """Paragraphs, indented; what hangs under a bullet, be it ours or the page's own, stands under its text."""
    for index, paragraph in enumerate(paragraphs):
        text = f"- {paragraph}" if bullet and index == 0 else paragraph
        indent = "    " if bullet and index else "  "
        hanging = indent + ("  " if text.startswith(("- ", "* ")) else "")
        for line in textwrap.wrap(
            prose(text), writer.width, initial_indent=indent, subsequent_indent=hanging, break_on_hyphens=False
        ):
            writer.line(line)
