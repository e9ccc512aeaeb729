"""The line numbers of the truth files hold in the kernel sources that are cached."""

import re
from functools import cache
from pathlib import Path

import pytest

from profiler.lab import list_cached
from tests import truth
from tests.conftest import require
from tests.vm.kernels import VERSIONS, kernel_of

SAME = {"EAGAIN": "E(AGAIN|WOULDBLOCK)"}
CONDITION = re.compile(r"\b(if|while|switch)\b|for_each|while_each|\?|&&|\|\||[=!<>]=|\breturn !")
INSTRUCTION = re.compile(r"\b(j\w+|mov\w*)\s")  # one that jumps, or that may fault


@cache
def source_trees() -> dict[str, Path]:
    """By package version, those that the truth files speak of."""
    for version in VERSIONS:
        kernel_of(version)
    cached = {kernel.package_version: kernel.source for kernel in list_cached()}
    return {version: tree for version in truth.PACKAGE_VERSIONS if (tree := cached.get(version)) is not None}


@cache
def lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8", errors="replace").splitlines()


def span(tree: Path, place: truth.Place) -> str:
    return "\n".join(lines(tree / place.file)[place.line - 1 : place.line_end])


def defined_above(tree: Path, place: truth.Place) -> bool:
    """Whether the definition that the place lies in is that of the function it names."""
    call = place.function.removeprefix("__do_sys_")
    start = re.compile(rf"(?:\w.*\b)?{place.function}\(|SYSCALL_DEFINE\d\({call}[,)]")
    if place.file.endswith(".S"):
        start = re.compile(rf"SYM_\w+_START\w*\({place.function}\)|{place.function}:")
    for above in reversed(lines(tree / place.file)[: place.line]):
        if above.startswith("}"):
            return False
        if start.match(above):
            return True
    return False


@pytest.mark.vm
@pytest.mark.parametrize("scenario", truth.scenarios())
def test_the_named_lines_are_an_errno_and_a_condition_in_the_named_functions(scenario: str) -> None:
    require(source_trees(), "no kernel that the truth files speak of is cached; `whyerrno kernels fetch` gets one")
    errno = scenario.rpartition("-")[2].upper()
    for version, tree in source_trees().items():
        entry = truth.load(scenario)[version]
        for site in entry.sites:
            assert site.reads or re.search(rf"-{SAME.get(errno, errno)}\b", span(tree, site)), (version, site)
            assert defined_above(tree, site), (version, site)
        if entry.root and entry.sites[0].reads:  # whoever put it there spells it
            assert re.search(rf"\b{errno}\b", span(tree, entry.root)), (version, entry.root)
        for branch in entry.branches:
            condition = INSTRUCTION if branch.place.file.endswith(".S") else CONDITION
            assert condition.search(span(tree, branch.place)), (version, branch)
            assert defined_above(tree, branch.place), (version, branch)
