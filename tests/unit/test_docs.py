"""What is documented is what there is."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import profiler
from profiler.cli.man import ENVIRONMENT, LADDER, manual_page
from profiler.cli.root import root
from profiler.evidence import RUNGS
from profiler.model import EXIT_CODES
from tests.conftest import require

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MANUAL = ROOT / "man/whyerrno.1"
SOURCES = [
    path
    for top in ("profiler", "loadgen", "reports", "tests", "scripts", ".ci")
    for path in sorted((ROOT / top).rglob("*"))
    if path.is_file() and (path.suffix in (".py", ".c", ".sh", ".h") or path.parent.name == ".ci")
]


def commands(group: click.Command, parent: click.Context) -> Iterator[tuple[str, click.Command]]:
    """Every command by its full name."""
    assert isinstance(group, click.Group)
    for name in group.list_commands(parent):
        command = group.get_command(parent, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=parent)
        if isinstance(command, click.Group):
            yield from commands(command, context)
        else:
            yield context.command_path, command


COMMANDS = dict(commands(root, click.Context(root, info_name="whyerrno")))


def test_the_installed_manual_is_the_one_the_help_texts_make() -> None:
    """`whyerrno man > man/whyerrno.1` would change nothing."""
    assert MANUAL.read_text(encoding="utf-8") == manual_page(root)


def test_the_manual_has_no_roff_errors() -> None:
    """groff formats the page without a warning."""
    require(shutil.which("groff"), "groff is not installed (package groff-base)")
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-rLL=80n", str(MANUAL)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_readme_shows_every_command(name: str) -> None:
    """README has each command as it is typed."""
    assert re.search(rf"^{re.escape(name)}\b", README, re.MULTILINE), f"README shows no `{name}`"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_documented(name: str) -> None:
    """Each option has a help text (which the manual repeats) and stands in README's section of its command."""
    for parameter in COMMANDS[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts} has no help text"
            longest = max(parameter.opts, key=len)
            assert f"`{longest}" in README, f"README does not explain {name} {longest}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_names_options_that_exist(name: str) -> None:
    """A line of README that calls a command uses only that command's options."""
    known = {option for parameter in COMMANDS[name].params for option in (*parameter.opts, *parameter.secondary_opts)}
    for line in re.findall(rf"^{re.escape(name)}\b(.*)$", README, re.MULTILINE):
        ours = re.split(r" -- | \| | > |#", line)[0]
        used = set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", ours))
        assert used <= known | {"--help"}, line


def test_every_environment_variable_is_documented() -> None:
    """Whatever of ours the sources read from the environment stands in the manual and in README."""
    pattern = re.compile(r"(?<![A-Z_])(?:WHYERRNO_[A-Z_]*[A-Z]|XDG_[A-Z_]*[A-Z])")
    read = {name for path in SOURCES for name in pattern.findall(path.read_text(encoding="utf-8"))}
    assert read <= ENVIRONMENT.keys()
    assert all(f"`{name}`" in README for name in ENVIRONMENT)


def test_every_rung_is_documented() -> None:
    """README's table and the manual have the rungs, in their order."""
    assert tuple(re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]+ \| [^|]+ \|$", README, re.MULTILINE)) == RUNGS
    assert tuple(LADDER) == RUNGS


def test_every_exit_code_is_documented() -> None:
    """README lists the codes of conclusions and of errors."""
    for code in {*EXIT_CODES.values(), 1, 2, 5, 130}:
        assert re.search(rf"^\| {code} \|", README, re.MULTILINE)


def test_the_changelog_has_this_version() -> None:
    """CHANGELOG.md begins with the version that the command prints."""
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == profiler.__version__


def test_no_mirror_is_named() -> None:
    """Where packages come from is the machine's own configuration: no address of a mirror or index is in the tree."""
    pattern = re.compile(r"https?://[\w.-]*(?:debian\.|ubuntu\.|pypi\.|pythonhosted|snapshot\.)")
    texts = [*SOURCES, ROOT / "README.md", ROOT / "requirements-ci.txt", ROOT / "pyproject.toml"]
    own = Path(__file__)
    assert [path for path in texts if path != own and pattern.search(path.read_text(encoding="utf-8"))] == []
