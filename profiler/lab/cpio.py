"""Write cpio archives in the "newc" form that Linux unpacks as an initramfs.

The form: Documentation/driver-api/early-userspace/buffer-format.rst in the kernel tree. Archives may follow
one another, so a part that never changes can be written once. All files belong to root and carry no time.
"""

from __future__ import annotations

import shutil
import stat
from pathlib import Path
from typing import IO

_NAMES = 110  # length of a header; names and data begin at multiples of 4


class CpioWriter:
    """Adds entries to a binary stream; `close` writes the trailer. Parent directories are added as needed."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._directories: set[str] = {""}
        self._inode = 0

    def directory(self, name: str, mode: int = 0o755) -> None:
        name = name.strip("/")
        if name not in self._directories:
            self._parents(name)
            self._directories.add(name)
            self._entry(name, stat.S_IFDIR | mode, b"")

    def file(self, name: str, content: bytes, mode: int = 0o644) -> None:
        self._parents(name)
        self._entry(name, stat.S_IFREG | mode, content)

    def copy(self, name: str, source: Path) -> None:
        """A file of this machine, its execute permission kept."""
        self._parents(name)
        status = source.stat()
        mode = 0o755 if status.st_mode & 0o111 else 0o644
        self._header(name, stat.S_IFREG | mode, status.st_size)
        with source.open("rb") as data:
            shutil.copyfileobj(data, self._stream, 1 << 20)
        self._pad(status.st_size)

    def symlink(self, name: str, to: str) -> None:
        self._parents(name)
        self._entry(name, stat.S_IFLNK | 0o777, to.encode())

    def character_device(self, name: str, major: int, minor: int, mode: int = 0o666) -> None:
        self._parents(name)
        self._header(name, stat.S_IFCHR | mode, 0, device=(major, minor))

    def close(self) -> None:
        self._header("TRAILER!!!", 0, 0)
        self._stream.write(b"\0" * 512)  # the kernel skips zeros between archives

    def _parents(self, name: str) -> None:
        parent = name.strip("/").rpartition("/")[0]
        if parent:
            self.directory(parent)

    def _entry(self, name: str, mode: int, content: bytes) -> None:
        self._header(name, mode, len(content))
        self._stream.write(content)
        self._pad(len(content))

    def _header(self, name: str, mode: int, size: int, device: tuple[int, int] = (0, 0)) -> None:
        self._inode += 1
        encoded = name.strip("/").encode() + b"\0"
        # ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        fields = (self._inode, mode, 0, 0, 1, 0, size, 0, 0, *device, len(encoded), 0)
        self._stream.write(b"070701" + b"".join(b"%08X" % field for field in fields) + encoded)
        self._pad(_NAMES + len(encoded))

    def _pad(self, size: int) -> None:
        self._stream.write(b"\0" * (-size % 4))
