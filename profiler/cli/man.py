"""whyerrno man: the manual page, made from the same texts as --help."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

import profiler
from profiler.cli.root import common_options

ENVIRONMENT = {
    "XDG_CACHE_HOME": "Fetched kernels, their symbol caches and the compiled load are kept in its whyerrno folder "
    "(default ~/.cache).",
    "MANPATH": "Where manual pages are looked for first, as man(1) has it.",
    "WHYERRNO_ACCEL": "tcg or kvm: how guests run, whatever a trial of KVM says.",
    "WHYERRNO_DEBIAN_MIRROR": "Address of the Debian mirror to fetch kernels from, in place of the one that apt uses "
    "(needed on Ubuntu, whose apt has no Debian archive).",
    "WHYERRNO_DEBIAN_MIRROR_SECURITY": "Likewise, of its security archive; may be left out.",
    "WHYERRNO_SSH_CONFIG": "A configuration file for ssh in place of the user's own, for ssh: targets (ssh -F).",
    "NO_COLOR": "Set to anything: no colours in the terminal.",
    "WHYERRNO_REQUIRE_ALL": "For the tests: 1 makes a test that cannot run fail, where it would be skipped.",
}

LADDER = {
    "man": "What the manual says of the errno for this call; needs nothing of the target.",
    "log": "The kernel log from the time of the failing calls: broken hardware or filesystems, denials of the load.",
    "source": "Every place in the source of the call's tree that can produce the errno, to be crossed out by the rest.",
    "graph": "The functions that failing calls went through, and where succeeding ones part from them, by the kernel's "
    "function graph tracer; needs root.",
    "samples": "perf's, of the load in its loop: the likeliest walk through every function that ran.",
    "probes": "kprobes on what samples leave in doubt, on returns, and on the deciding condition for its values; needs "
    "root.",
    "exact": "Every instruction of a few calls, logged by an emulated guest (vm: targets without KVM).",
}

FILES = {
    "RUN/manifest.json": "The facts of a recording; written last.",
    "RUN/perf.data, kallsyms, load.json, kernel.log": "What was captured on the target.",
    "RUN/analysis.json": "What was concluded; the same as --json prints.",
    "RUN/report.html, lines.png, candidates.png": "The report.",
}


@click.command(
    epilog="""\b
Examples:
  whyerrno man | man -l -
  whyerrno man > man/whyerrno.1
"""
)
@common_options
@click.pass_context
def command(context: click.Context) -> int:
    """Print this manual as a man page (roff)."""
    click.echo(manual_page(context.find_root().command), nl=False)
    return 0


def manual_page(root: click.Command) -> str:
    """The manual page of `root` and all its commands, in roff's man macros."""
    context = click.Context(root, info_name="whyerrno", **root.context_settings)
    lines = [
        f'.TH WHYERRNO 1 "" "whyerrno {profiler.__version__}" "User Commands"',
        ".SH NAME",
        r"whyerrno \- name the kernel source line and branch that made a system call fail",
        ".SH SYNOPSIS",
        ".B whyerrno",
        r"[\fIOPTIONS\fR] \fICOMMAND\fR [\fIARGS\fR]...",
        ".SH DESCRIPTION",
        *prose(root.help or ""),
        ".SH OPTIONS",
        *options(root, context),
        *definitions({"-h, --help": "Show the help of the command and exit; every command has it."}),
        ".SH COMMANDS",
        *commands(root, context),
        ".SH THE LADDER",
        escape(
            "The rungs that --evidence names, cheapest first. By itself `run` takes the next only while the verdict "
            "is open; the report says what each found, ruled out, took, and cost the load."
        ),
        *definitions(LADDER),
        ".SH ENVIRONMENT",
        *definitions(ENVIRONMENT),
        ".SH FILES",
        *definitions(FILES),
        *epilog(root.epilog or "", ".SH"),
        ".SH SEE ALSO",
        r".BR perf (1), strace (1), errno (3), qemu\-system\-x86_64 (1)",
    ]
    return "\n".join(lines) + "\n"


def commands(group: click.Command, parent: click.Context) -> Iterator[str]:
    """Every command below `group`, groups before their own commands."""
    assert isinstance(group, click.Group)
    for name in group.list_commands(parent):
        command = group.get_command(parent, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=parent)
        if isinstance(command, click.Group):
            yield from commands(command, context)
        else:
            yield from section(command, context)


def section(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f'.SS "{escape(context.command_path)}"'
    yield ".B " + escape(context.command_path)
    yield escape(" ".join(command.collect_usage_pieces(context)))
    yield ".PP"
    yield from prose(command.help or "")
    yield from options(command, context)
    yield from epilog(command.epilog or "", ".PP")


def options(command: click.Command, context: click.Context) -> Iterator[str]:
    for parameter in command.params:  # get_params() would add --help, which the page explains once
        record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
        if record is not None:
            yield from (".TP", rf"\fB{escape(record[0])}\fR", escape(record[1]))


def definitions(table: dict[str, str]) -> Iterator[str]:
    for term, text in table.items():
        yield from (".TP", rf"\fB{escape(term)}\fR", escape(text))


def prose(text: str) -> Iterator[str]:
    r"""Paragraphs of a help text; one marked by \b keeps its lines."""
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        if paragraph.startswith("\b"):
            yield from (".nf", *map(escape, paragraph.splitlines()[1:]), ".fi")
        else:
            yield escape(" ".join(paragraph.split()))
        yield ".PP"


def epilog(text: str, heading: str) -> Iterator[str]:
    """The marked paragraphs of an epilog: `Examples:` and `Exit status:`, each under `heading`."""
    for paragraph in text.split("\b\n"):
        title, _, body = paragraph.strip().partition("\n")
        if not body or (title.startswith("Exit status") and heading == ".PP"):
            continue  # one list of exit codes is enough for the page
        name = title.rstrip(":")
        yield from ([f".SH {name.upper()}"] if heading == ".SH" else [".PP", name + ":"])
        yield from (".PP", ".nf", *map(escape, body.splitlines()), ".fi")


def escape(text: str) -> str:
    r"""`text` as roff prints it: backslashes and hyphens kept, no control line by accident."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    return r"\&" + escaped if escaped.startswith((".", "'")) else escaped
