"""Unpack tar streams that others made: nothing lands outside the directory, and no device is created."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from profiler.errors import InputError


def inside(name: str) -> PurePosixPath:
    """A member's path relative to the root. Raises InputError for `..` and for absolute paths."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise InputError(f"the archive holds a path outside itself: {name!r}", hint="nothing of it is used")
    return path


def extract(
    stream: IO[bytes],
    into: Path,
    *,
    rename: Callable[[PurePosixPath], PurePosixPath | None] = lambda path: path,
    on_bytes: Callable[[int], None] | None = None,
) -> int:
    """Unpack an uncompressed tar stream into an existing directory and return the number of files.

    rename    a member's path → where it goes, or None to leave it out
    on_bytes  called with the bytes read so far, now and then

    Symbolic links that point out of the directory and everything that is no file, directory or link are
    left out; permissions are 0644 or 0755. Raises InputError on a damaged archive or a path outside.
    """
    count = 0
    place = _Placer(into.resolve())
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=1 << 20) as archive:
            for member in archive:
                if on_bytes is not None and count % 256 == 0:
                    on_bytes(archive.offset)
                target = rename(inside(member.name))
                if target is not None:
                    count += place.member(archive, member, target)
                archive.members = []  # type: ignore[attr-defined]  # it would keep them all in memory
    except (tarfile.TarError, FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise InputError(f"the archive is damaged: {error}") from error
    return count


class _Placer:
    """Puts members below one directory, never through a link that leads out of it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._checked: set[Path] = set()  # directories stay directories, so once is enough

    def member(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: PurePosixPath) -> int:
        """The number of files that came of it."""
        target = self._root / path
        if member.isdir():
            self._directory(target)
            return 0
        if not (member.isreg() or member.issym()):
            return 0
        self._directory(target.parent)
        if target.is_symlink() or target.is_file():
            target.unlink()
        if member.issym():
            return self._link(member.linkname, target)
        source = archive.extractfile(member)
        assert source is not None
        with target.open("xb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
        target.chmod(0o755 if member.mode & 0o100 else 0o644)
        return 1

    def _link(self, to: str, target: Path) -> int:
        destination = Path(os.path.normpath(target.parent / to))
        if Path(to).is_absolute() or not destination.is_relative_to(self._root):
            return 0
        target.symlink_to(to)
        return 1

    def _directory(self, path: Path) -> None:
        if path in self._checked:
            return
        path.mkdir(parents=True, exist_ok=True)
        if not path.resolve().is_relative_to(self._root):
            raise InputError(f"the archive leads out of itself through a link: {path}", hint="nothing of it is used")
        self._checked.add(path)


class Chunks:
    """A readable stream over an iterator of byte strings; all that tarfile needs of a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def read(self, size: int) -> bytes:
        while len(self._rest) < size:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            self._rest += chunk
        data, self._rest = self._rest[:size], self._rest[size:]
        return data
