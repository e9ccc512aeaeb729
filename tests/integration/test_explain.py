"""`whyerrno explain` as a user starts it, on the manual of this machine and on one of its own."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from profiler import lab, manual
from profiler.parse import man_page
from tests.command import assert_refused, whyerrno
from tests.conftest import require
from tests.unit.manual_pages import GENERAL, GRIP, TRANSLATED, install

ESCAPE = "\x1b"


@pytest.fixture(scope="module")
def _pages() -> None:
    require(manual.read("bind"), "no manual pages of system calls (package manpages-dev)")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A manual in which bind(2) is another page."""
    install(tmp_path, "bind", GRIP.replace("grip", "bind"))
    install(tmp_path, "errno", GENERAL, 3)
    return tmp_path


@pytest.mark.usefixtures("_pages")
def test_every_entry_of_the_errno_is_printed() -> None:
    """Three ways in which an open may find nothing, wrapped, without escape sequences where it is no terminal."""
    done = whyerrno("explain", "openat", "ENOENT")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n  - ") == 3 and "open(2)" in done.stdout and "errno(3)" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert ESCAPE not in done.stdout and done.stderr == ""


@pytest.mark.usefixtures("_pages")
def test_json_has_the_same_and_nothing_else() -> None:
    """The entries, the general meaning, and whether the page documents the errno."""
    said = json.loads(whyerrno("explain", "bind", "EACCES", "--json").stdout)
    assert (said["page"], said["documented"], said["number"], len(said["entries"])) == ("bind(2)", True, 13, 2)
    assert "UNIX domain" in said["entries"][1]["applies"]
    said = json.loads(whyerrno("explain", "getppid", "EPERM", "--json").stdout)
    assert (said["documented"], said["entries"]) == (False, []) and "permitted" in said["general"]


@pytest.mark.usefixtures("_pages")
def test_another_language_changes_nothing() -> None:
    """The English page is read under a German locale too, even with the German manual first on MANPATH."""
    german = {"LANG": "de_DE.UTF-8", "LC_ALL": "de_DE.UTF-8", "LANGUAGE": "de", "MANPATH": "/usr/share/man/de:"}
    assert whyerrno("explain", "bind", "EINVAL", **german).stdout == whyerrno("explain", "bind", "EINVAL").stdout


def test_an_absent_manual_names_the_package(tmp_path: Path) -> None:
    """Exit 5, one line and a hint."""
    nowhere = {"MANPATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    assert_refused(whyerrno("explain", "bind", "EACCES", **nowhere), 5, "bind(2)", "manpages-dev")


def test_a_translated_page_alone_is_no_page(tmp_path: Path) -> None:
    """A German page in the English one's place is not quoted."""
    install(tmp_path, "bind", TRANSLATED)
    nowhere = {"MANPATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    assert_refused(whyerrno("explain", "bind", "EINVAL", **nowhere), 5, "in English")


def test_only_the_page_of_the_call_may_be_absent(root: Path) -> None:
    """errno(3) stands in, and the output says so."""
    done = whyerrno("explain", "mseal", "EXDEV", MANPATH=str(root))
    assert done.returncode == 0
    assert "No page of mseal(2) is installed" in done.stdout and "A link across." in done.stdout


def test_an_undocumented_errno_is_flagged(root: Path) -> None:
    """The page is there, and does not name it."""
    assert "bind(2) does not document EXDEV" in whyerrno("explain", "bind", "EXDEV", MANPATH=str(root)).stdout


def test_hostile_text_of_a_page_does_not_reach_the_terminal(root: Path) -> None:
    """Escape sequences in a page are shown, not sent."""
    install(root, "bind", GRIP.replace("grip", "bind").replace("Too many handles.", "Too \x1b[2J many\u202e."))
    done = whyerrno("explain", "bind", "EMFILE", MANPATH=str(root))
    assert ESCAPE not in done.stdout and "Too \\x1b[2J many\\u202e." in done.stdout


def test_wrong_names_get_suggestions() -> None:
    """Exit 2 and the nearest names."""
    assert_refused(whyerrno("explain", "opnat", "ENOENT"), 2, "did you mean", "openat")
    assert_refused(whyerrno("explain", "openat", "ENONT"), 2, "did you mean", "ENOENT")
    assert_refused(whyerrno("explain", "openat", "ENOENT", "--kernel", "0.1"), 5, "kernels fetch 0.1")
    assert_refused(whyerrno("explain", "openat", "ENOENT", "--kernel", "6.1", "-t", "vm:6.1"), 2, "--target")


@pytest.mark.usefixtures("_pages")
def test_a_kernels_places_follow_the_manual() -> None:
    """With a kernel at hand: where the errno may come from, with the conditions."""
    require(lab.find("6.1"), "no kernel 6.1 in the cache")
    done = whyerrno("explain", "dup3", "EINVAL", "--kernel", "6.1")
    assert done.returncode == 0, done.stderr
    assert "oldfd was equal to newfd" in done.stdout and "oldfd == newfd" in done.stdout
    said = json.loads(whyerrno("explain", "dup3", "EINVAL", "--kernel", "6.1", "--json").stdout)
    assert any(one["site"]["function"] == "ksys_dup3" for one in said["candidates"])


@pytest.mark.usefixtures("_pages")
@pytest.mark.parametrize("name", ["bind", "clone", "fcntl", "keyctl", "mincore", "open", "unlink"])
def test_source_and_output_of_a_page_give_the_same_entries(name: str) -> None:
    """What `man` prints is read into what its source is read into: two readers that check each other."""
    require(shutil.which("man") and shutil.which("groff"), "man cannot format pages here (packages man-db, groff-base)")
    path = Path(f"/usr/share/man/man2/{name}.2.gz")
    require(path.is_file(), f"{path} is not here (package manpages-dev)")
    command = ["man", "-l", str(path)]
    plain = {"LC_ALL": "C.UTF-8", "MANWIDTH": "80", "PATH": "/usr/bin:/bin"}
    printed = subprocess.run(command, capture_output=True, text=True, env=plain, check=True).stdout
    source = man_page.parse(gzip.decompress(path.read_bytes()).decode(), name)
    output = man_page.parse(printed, name)
    assert [_words(entry) for entry in output.entries] == [_words(entry) for entry in source.entries]
    assert source.entries


def _words(entry: man_page.ManualEntry) -> tuple[tuple[str, ...], str]:
    """Without what formatting changes: spaces, quotes, dashes and bullets."""
    return entry.errnos, re.sub(r"[^\w.,;()]", "", entry.text) if entry.section == man_page.ERRORS else ""
