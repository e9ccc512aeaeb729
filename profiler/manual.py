"""The installed manual: finds the page of a system call and reads it, offline.

A page is looked for below $MANPATH where that is set, else below /usr/local/share/man and /usr/share/man, and at last
in the `manual` folder of whyerrno's cache, where scripts/setup.sh unpacks the package on machines whose dpkg leaves
manuals out. The pages in English alone are taken, whatever the locale: their words are what a branch is compared with.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

from profiler.errors import MissingError
from profiler.lab.store import cache_directory
from profiler.parse import man_page
from profiler.parse.man_page import ManPage

STANDARD = (Path("/usr/local/share/man"), Path("/usr/share/man"))
PACKAGE = "manpages-dev"
LARGEST = 16 << 20  # bytes of a page, unpacked; the largest of man-pages has 0.2 MB
MOST_LINKS = 4  # of `.so`, one page to the next
_OPENERS: dict[str, Callable[[Path], object]] = {
    "": lambda path: path.open("rb"),
    ".gz": gzip.open,
    ".xz": lzma.open,
    ".bz2": bz2.open,
}
# Packages of Debian that hold the pages which manpages-dev lacks.
_ELSEWHERE = {"io_uring": "liburing-dev", "key": "libkeyutils-dev"}
_DPKG_CONFIGURATION = Path("/etc/dpkg/dpkg.cfg.d")
_DOCUMENTATION = Path("/usr/share/doc")


def read(call: str) -> ManPage | None:
    """What the manual has of a system call: its page with those that it refers to, and errno(3).

    None where there is neither. `installed` is False where only errno(3) is here.
    """
    general = _text("errno", 3)
    entries = man_page.parse_general(general) if general else ()
    page = _page(call)
    if page is None:
        return ManPage(call, "", (), (), general=entries, installed=False) if entries else None
    others = [other for name in page.refers if (other := _page(name)) is not None]
    return replace(man_page.joined(page, others), general=entries)


def require(call: str) -> ManPage:
    """As `read`. Raises MissingError that says which package has the page, or why it is absent all the same."""
    page = read(call)
    if page is None:
        raise MissingError(f"no manual page of {call}(2) in English is on this machine", hint=advice(call))
    return page


def advice(call: str) -> str:
    """What to do about a page that is not here."""
    if _pages_left_out():
        return (
            f"the package {PACKAGE} is installed without its pages: a path-exclude in {_DPKG_CONFIGURATION} leaves out "
            f"/usr/share/man; remove that line, and `apt-get install --reinstall {PACKAGE}`"
        )
    package = next((package for prefix, package in _ELSEWHERE.items() if call.startswith(prefix)), PACKAGE)
    if package == PACKAGE and _text("errno", 3):
        return f"the installed {PACKAGE} has none; a newer one may"
    return f"apt install {package}"


def _page(call: str) -> ManPage | None:
    text = _text(call, 2)
    return man_page.parse(text, call) if text else None


def _text(name: str, section: int) -> str:
    """The page's text, "" where there is none."""
    for root in _roots():
        for path in _candidates(root, name, section):
            text = _follow(path, root)
            if text and man_page.is_english(text):
                return text
    return ""


def _roots() -> Iterator[Path]:
    """Folders that hold man2. A locale's own folder on the path (/usr/share/man/de) stands for the one above it."""
    path = os.environ.get("MANPATH", "")
    roots: list[Path] = []
    for part in path.split(":"):
        root = Path(part)
        if not part:  # an empty part stands for what holds without MANPATH
            roots += STANDARD
        elif root.is_absolute():
            roots.append(root.parent if re.fullmatch(r"[a-z]{2,3}(?:_[A-Z]{2})?(?:[.@].*)?", root.name) else root)
    yield from dict.fromkeys([*roots, cache_directory() / "manual/usr/share/man"])


def _candidates(root: Path, name: str, section: int) -> Iterator[Path]:
    for folder in (root, root / "en"):
        for ending in _OPENERS:
            path = folder / f"man{section}" / f"{name}.{section}{ending}"
            if path.is_file():
                yield path


def _follow(path: Path, root: Path, links: int = MOST_LINKS) -> str:
    """The text, of the page that a `.so man2/open.2` names where that is all there is."""
    text = _unpacked(path)
    link = re.match(r"(?:[.']\\\".*\n|\s*\n)*\.so[ \t]+(\S+)\s*\Z", text)
    if link is None:
        return text
    if links == 0 or ".." in Path(link[1]).parts or link[1].startswith("/"):
        return ""
    for base in (root, path.parent):
        for ending in _OPENERS:
            target = base / f"{link[1]}{ending}"
            if target.is_file():
                return _follow(target, root, links - 1)
    return ""


def _unpacked(path: Path) -> str:
    """Up to LARGEST bytes; "" of a file that cannot be read."""
    opener = _OPENERS.get(path.suffix, _OPENERS[""])
    try:
        with cast(BinaryIO, opener(path)) as file:
            return file.read(LARGEST).decode("utf-8", "replace")
    except (OSError, EOFError, lzma.LZMAError, ValueError):
        return ""


def _pages_left_out() -> bool:
    """Whether the package is installed and dpkg was told to leave manuals out, as images of containers do."""
    if not (_DOCUMENTATION / PACKAGE).is_dir():
        return False
    return any(_excludes_manuals(path) for path in _files_of(_DPKG_CONFIGURATION))


def _files_of(folder: Path) -> Sequence[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else ()


def _excludes_manuals(path: Path) -> bool:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return bool(re.search(r"^\s*path-exclude[ =]\"?/usr/share/(?:man|\*)", text, re.MULTILINE))
