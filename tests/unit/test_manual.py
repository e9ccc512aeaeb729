"""The installed manual: which file is taken for a call, in which language, and what is said of one that is absent."""

from __future__ import annotations

import bz2
import lzma
from pathlib import Path

import pytest

from profiler import manual
from profiler.errors import MissingError
from tests.unit.manual_pages import GENERAL, GRIP, TRANSLATED, install


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A manual of its own, in place of the machine's."""
    monkeypatch.setattr(manual, "STANDARD", (tmp_path,))
    monkeypatch.setattr(manual, "_DPKG_CONFIGURATION", tmp_path / "dpkg.cfg.d")
    monkeypatch.setattr(manual, "_DOCUMENTATION", tmp_path / "doc")
    monkeypatch.delenv("MANPATH", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_a_page_comes_with_the_general_meanings(root: Path) -> None:
    """The page of the call and errno(3) are read together."""
    install(root, "grip", GRIP)
    install(root, "errno", GENERAL, 3)
    page = manual.require("grip")
    assert page.installed and page.title == "grip(2)" and page.of(["EINVAL"])
    assert page.general[0].text == "Try it again."


@pytest.mark.parametrize("pack", [("", bytes), (".xz", lzma.compress), (".bz2", bz2.compress)])
def test_every_packing_is_read(root: Path, pack: tuple[str, type]) -> None:
    """Pages lie about plain, or packed by gzip, xz or bzip2."""
    ending, packed = pack
    path = root / "man2" / f"grip.2{ending}"
    path.parent.mkdir()
    path.write_bytes(packed(GRIP.encode()))
    assert manual.require("grip").names == ("grip", "gripat")


def test_links_of_one_page_to_another_are_followed(root: Path) -> None:
    """`.so man2/grip.2` and a symbolic link lead to the page; a circle of links leads to nothing."""
    install(root, "grip", GRIP)
    install(root, "gripat", ".so man2/grip.2\n")
    (root / "man2/gripat2.2.gz").symlink_to("grip.2.gz")
    install(root, "loop", ".so man2/loop.2\n")
    install(root, "out", ".so ../../etc/passwd\n")
    assert manual.require("gripat").title == manual.require("gripat2").title == "grip(2)"
    assert manual.read("loop") is None and manual.read("out") is None


def test_pages_referred_to_are_read_with_it(root: Path) -> None:
    """Entries of open(2) are among those of a call with the same errors, under their own page's title."""
    install(root, "gripat", GRIP)
    install(root, "open", GRIP.replace("grip", "open").replace("handle", "file"))
    pages = {entry.page for entry in manual.require("gripat").of(["EAGAIN"])}
    assert pages == {"grip(2)", "open(2)"}


def test_a_translated_page_is_not_taken(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by a locale's folder on MANPATH, nor where it lies in the English one's place."""
    install(root, "grip", TRANSLATED, folder="de")
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    monkeypatch.setenv("MANPATH", str(root / "de"))
    assert manual.read("grip") is None
    install(root, "grip", GRIP)
    assert manual.require("grip").of(["EINVAL"])
    install(root, "grip", TRANSLATED)
    assert manual.read("grip") is None


def test_manpath_leads_to_other_pages(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folders come first; an empty part of it stands for the usual ones."""
    install(root / "mine", "grip", GRIP.replace("Too many handles", "Mine"))
    install(root, "grip", GRIP)
    install(root, "other", GRIP)
    monkeypatch.setenv("MANPATH", f"{root / 'mine'}:")
    assert manual.require("grip").of(["EMFILE"])[0].text == "Mine."
    assert manual.read("other") is not None
    monkeypatch.setenv("MANPATH", str(root / "mine"))
    assert manual.read("other") is None


def test_the_cache_has_pages_for_machines_without_a_manual(root: Path) -> None:
    """What scripts/setup.sh unpacked there is found."""
    install(root / "cache/whyerrno/manual/usr/share/man", "grip", GRIP)
    assert manual.read("grip") is not None


def test_an_absent_manual_names_the_package(root: Path) -> None:
    """Nothing installed: the package that holds the pages; of io_uring, the one that holds those."""
    with pytest.raises(MissingError) as raised:
        manual.require("bind")
    assert raised.value.hint == "apt install manpages-dev"
    assert manual.advice("io_uring_setup") == "apt install liburing-dev"


def test_only_the_calls_own_page_may_be_absent(root: Path) -> None:
    """errno(3) stands in, and a newer package is what may have the page."""
    install(root, "errno", GENERAL, 3)
    page = manual.require("mseal")
    assert not page.installed and page.general and not page.entries
    assert manual.advice("mseal") == "the installed manpages-dev has none; a newer one may"


def test_pages_that_dpkg_leaves_out_are_explained(root: Path) -> None:
    """The package is installed, and an image of a container excludes manuals: the line to remove is named."""
    (root / "doc/manpages-dev").mkdir(parents=True)
    (root / "dpkg.cfg.d").mkdir()
    assert manual.advice("bind") == "apt install manpages-dev"
    (root / "dpkg.cfg.d/docker").write_text("# smaller images\npath-exclude=/usr/share/man/*\n")
    assert "path-exclude" in manual.advice("bind") and "--reinstall manpages-dev" in manual.advice("bind")


def test_a_damaged_page_is_as_if_absent(root: Path) -> None:
    """A file that is cut short, or is no archive, does not stop anything."""
    path = install(root, "grip", GRIP)
    path.write_bytes(path.read_bytes()[:200])
    install(root, "torn", "")
    (root / "man2/torn.2.gz").write_bytes(b"no gzip")
    assert manual.read("grip") is None and manual.read("torn") is None
