"""The kernel's source tree, read only below its root."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path

from profiler.errors import InputError, MismatchError, MissingError

LARGEST_FILE = 16 << 20  # the largest source file that code comes from is below 2 MiB

# VERSION = 6
MAKEFILE_FIELD = re.compile(r"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION)[ \t]*=[ \t]*(\S*)", re.MULTILINE)
# 6.1.0-56-cloud-amd64, 7.3.4+deb13-cloud-amd64, 6.12.117, 6.13-rc4
VERSION_NUMBER = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")


class SourceTree:
    """Source files by the names that debug info gives them, such as `net/socket.c`.

    Raises MissingError where `root` is no directory.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise MissingError(f"{root}: no source tree", hint="unpack the kernel's linux-source package there")
        self.root = root.resolve()
        self._texts: dict[str, list[str] | None] = {}

    def text(self, file: str) -> list[str] | None:
        """The lines of a file (element 0 is line 1), None where the tree has no such regular file.

        Names that lead out of the tree, by `..`, from `/` or through a symbolic link, are answered with None.
        """
        if file not in self._texts:
            self._texts[file] = self._read(file)
        return self._texts[file]

    def line(self, file: str, line: int) -> str | None:
        """One line without the white space around it."""
        lines = self.text(file)
        return lines[line - 1].strip() if lines is not None and 0 < line <= len(lines) else None

    def holds(self, file: str) -> bool:
        """Whether the tree has a regular file of that name."""
        path = self._inside(file)
        return path is not None and path.is_file()

    def content(self, file: str) -> str | None:
        """The text of a file, not kept; None as for `text`."""
        known = self._texts.get(file)
        lines = known if known is not None else self._read(file)
        return "\n".join(lines) if lines is not None else None

    def headers(self, folder: str, *, below: bool) -> list[str]:
        """The headers of a folder, with those `below` it; sorted, symbolic links left out."""
        return self._named(folder, "*.h", below=below)

    def sources(self, folder: str) -> list[str]:
        """All C files below a folder, as `headers`."""
        return self._named(folder, "*.c", below=True)

    def _named(self, folder: str, pattern: str, *, below: bool) -> list[str]:
        root = self._inside(folder)
        if root is None or not root.is_dir():
            return []
        found = root.rglob(pattern) if below else root.glob(pattern)
        return sorted(str(path.relative_to(self.root)) for path in found if path.is_file() and not path.is_symlink())

    @cached_property
    def _version_fields(self) -> dict[str, str]:
        makefile = self.text("Makefile")
        fields = dict(MAKEFILE_FIELD.findall("\n".join(makefile[:20]))) if makefile else {}
        if not {"VERSION", "PATCHLEVEL"} <= fields.keys():
            raise InputError(
                f"{self.root}: not a kernel source tree", hint="its Makefile should begin with VERSION and PATCHLEVEL"
            )
        return fields

    def version(self) -> str:
        """ "6.1.192", from the tree's Makefile. Raises InputError on a folder that is no kernel tree."""
        fields = self._version_fields
        numbers = [fields.get(name) or "0" for name in ("VERSION", "PATCHLEVEL", "SUBLEVEL")]
        return ".".join(numbers) + fields.get("EXTRAVERSION", "")

    def check_version(self, release: str, package_version: str = "") -> None:
        """Raises MismatchError unless this is the source of a kernel.

        The package version (6.1.192-2) decides where there is one: Debian's releases up to 6.1 carry
        0 as third number whatever the source is.
        """
        wanted = VERSION_NUMBER.match(package_version) or VERSION_NUMBER.match(release)
        if wanted is None:
            return
        here = VERSION_NUMBER.match(self.version())
        known = wanted.group(3) is not None and (bool(package_version) or wanted.group(3) != "0")
        count = 3 if known else 2
        if here is None or [int(n or 0) for n in here.groups()[:count]] != [int(n) for n in wanted.groups()[:count]]:
            raise MismatchError(
                f"{self.root}: source of Linux {self.version()}, the kernel is {package_version or release}",
                hint="lines would be wrong; give the source of exactly that version",
            )

    def _read(self, file: str) -> list[str] | None:
        path = self._inside(file)
        try:
            # regular files only: opening a FIFO would wait for a writer
            if path is None or not path.is_file() or path.stat().st_size > LARGEST_FILE:
                return None
            content = path.read_bytes()
        except OSError:
            return None
        return content.decode("utf-8", "replace").replace("\r\n", "\n").split("\n")

    def _inside(self, file: str) -> Path | None:
        if not file or "\0" in file or file.startswith("/") or ".." in file.split("/"):
            return None
        try:
            path = (self.root / file).resolve(strict=True)
        except (OSError, RuntimeError):
            return None
        return path if path.is_relative_to(self.root) else None
