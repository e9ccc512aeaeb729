"""The source tree, read below its root only."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from profiler.debuginfo.source import SourceTree
from profiler.errors import InputError, MismatchError, MissingError


@pytest.fixture
def tree(tmp_path: Path) -> SourceTree:
    root = tmp_path / "linux"
    (root / "net").mkdir(parents=True)
    (root / "Makefile").write_text("# licence\nVERSION = 6\nPATCHLEVEL = 1\nSUBLEVEL = 192\nEXTRAVERSION =\n")
    (root / "net" / "a.c").write_bytes(b"int a;\r\n  int b; \xff\n")
    (tmp_path / "secret").write_text("secret")
    return SourceTree(root)


def test_lines_are_given_whatever_their_encoding(tree: SourceTree) -> None:
    assert tree.text("net/a.c") == ["int a;", "  int b; \ufffd", ""]
    assert tree.line("net/a.c", 2) == "int b; \ufffd"
    assert tree.line("net/a.c", 9) is None


def test_nothing_outside_the_tree_is_read(tree: SourceTree, tmp_path: Path) -> None:
    (tree.root / "link").symlink_to(tmp_path / "secret")
    (tree.root / "loop").symlink_to(tree.root / "loop")
    os.mkfifo(tree.root / "fifo")
    for name in ("../secret", "net/../../secret", str(tmp_path / "secret"), "link", "loop", "fifo", "net", "", "a\0b"):
        assert tree.text(name) is None, name


def test_the_version_is_read_from_the_makefile(tree: SourceTree) -> None:
    assert tree.version() == "6.1.192"


@pytest.mark.parametrize(
    ("release", "package"),
    [("6.1.0-56-cloud-amd64", "6.1.192-2"), ("6.1.0-56-cloud-amd64", ""), ("6.1.192", ""), ("strange", "")],
)
def test_the_source_of_the_same_version_is_accepted(tree: SourceTree, release: str, package: str) -> None:
    tree.check_version(release, package)


@pytest.mark.parametrize(
    ("release", "package"), [("6.1.0-56-cloud-amd64", "6.1.190-1"), ("6.12.1", ""), ("6.1.191", "")]
)
def test_the_source_of_another_version_is_refused(tree: SourceTree, release: str, package: str) -> None:
    with pytest.raises(MismatchError, match=r"6\.1\.192"):
        tree.check_version(release, package)


def test_a_folder_that_is_no_kernel_tree_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a kernel source tree"):
        SourceTree(tmp_path).version()
    with pytest.raises(MissingError, match="no source tree"):
        SourceTree(tmp_path / "absent")
