"""From Debian's kernel packages, what a session and an analysis need: image, modules, config, vmlinux, sources."""

from __future__ import annotations

import contextlib
import lzma
import re
import shutil
import tarfile
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, cast

from profiler import process
from profiler.errors import InputError
from profiler.lab import archive, modules
from profiler.lab.apt import Progress

_VMLINUX = re.compile(r"^usr/lib/debug/(boot/vmlinux-[^/]+|.*/vmlinux)$")
_SOURCE_TARBALL = re.compile(r"^usr/src/linux-source-[\d.]+\.tar\.(xz|zst)$")
# What compiled code's lines come from, for the cloud flavour of x86_64. The rest of the tree is two thirds of it.
_CODE = {".c", ".h", ".S", ".inc", ".def", ".lds", ".tbl"}
_TOP = {
    "arch", "block", "certs", "crypto", "drivers", "fs", "include", "init", "io_uring", "ipc", "kernel", "lib", "mm",
    "net", "rust", "scripts", "security", "usr", "virt",
}  # fmt: skip
_UNUSED = ("drivers/gpu/drm/amd/", "drivers/gpu/drm/nouveau/", "drivers/gpu/drm/i915/", "drivers/staging/")


def image_parts(packages: list[Path], into: Path, progress: Progress) -> None:
    """`image`, `config` and `modules/` (only those that a guest loads) from the image's packages."""
    staging = into / "unpacked"
    staging.mkdir()
    for package in packages:
        progress("unpacking the kernel image", None)
        with process.piped(["dpkg-deb", "--fsys-tarfile", package]) as stream:
            archive.extract(stream, staging, rename=_image_part)
    images = [*staging.glob("boot/vmlinuz-*"), *staging.glob("usr/lib/modules/*/vmlinuz")]
    if not images:
        raise InputError(f"{packages[0].name} holds no kernel image")
    images[0].rename(into / "image")
    for config in [*staging.glob("boot/config-*"), *staging.glob("usr/lib/modules/*/config")][:1]:
        config.rename(into / "config")
    (into / "modules").mkdir()
    for name, content in modules.in_load_order(staging):
        (into / "modules" / name).write_bytes(content)
    shutil.rmtree(staging)


def vmlinux(package: Path, target: Path, progress: Progress) -> None:
    """The kernel with its debug info, out of a -dbg package; the modules' debug info stays packed."""
    progress("unpacking debug info", 0.0)
    with _member(package, _VMLINUX) as (content, member):
        done = 0
        with target.open("xb") as file:
            while chunk := content.read(1 << 22):
                file.write(chunk)
                done += len(chunk)
                progress("unpacking debug info", done / member.size)


def module_debug(package: Path, names: Collection[str], into: Path, progress: Progress) -> None:
    """The modules of these names out of a -dbg package, with their debug info; names that it lacks come to nothing."""
    wanted = {name.replace("-", "_") for name in names}
    found: set[str] = set()

    def part(path: PurePosixPath) -> PurePosixPath | None:
        stem = path.stem.replace("-", "_")
        if path.suffix != ".ko" or stem not in wanted:
            return None
        found.add(stem)
        progress(f"unpacking debug info of {path.name}", len(found) / len(wanted))
        return PurePosixPath(path.name)

    progress("looking for the modules' debug info", 0.0)
    with process.piped(["dpkg-deb", "--fsys-tarfile", package]) as stream:
        archive.extract(stream, into, rename=part)


def source(package: Path, into: Path, progress: Progress) -> None:
    """The kernel tree of a linux-source package, Debian's patches applied: the parts that lines may come from."""
    progress("unpacking sources", 0.0)
    with _member(package, _SOURCE_TARBALL) as (content, member):
        into.mkdir()
        packed = _Counted(content, member.size, progress)
        archive.extract(_decompressed(packed, member.name), into, rename=_tree_part)


@contextlib.contextmanager
def _member(package: Path, name: re.Pattern[str]) -> Iterator[tuple[IO[bytes], tarfile.TarInfo]]:
    """The first regular file of a package whose path matches; what comes after it is not unpacked."""
    with (
        process.piped(["dpkg-deb", "--fsys-tarfile", package]) as stream,
        tarfile.open(fileobj=stream, mode="r|", bufsize=1 << 20) as tar,
    ):
        for member in tar:
            if member.isreg() and name.match(member.name.removeprefix("./")):
                yield cast(IO[bytes], tar.extractfile(member)), member
                return
        raise InputError(f"{package.name} holds no file that matches {name.pattern}")


def _image_part(path: PurePosixPath) -> PurePosixPath | None:
    name = str(path)
    if name.startswith(("boot/vmlinuz-", "boot/config-")) or path.name in ("vmlinuz", "config"):
        return path
    return path if ".ko" in path.name else None


def _tree_part(path: PurePosixPath) -> PurePosixPath | None:
    """Its place in the tree (without the tarball's top directory), or None for what is left out."""
    parts = path.parts[1:]
    if not parts:
        return None
    inner = PurePosixPath(*parts)
    if len(parts) == 1:
        return inner if parts[0] in ("Makefile", "COPYING", "Kbuild", "Kconfig") else None
    if parts[0] not in _TOP or (parts[0] == "arch" and parts[1] != "x86") or str(inner).startswith(_UNUSED):
        return None
    return inner if inner.suffix in _CODE else None


class _Counted:
    """Passes reads on and reports how much of the packed file has gone through."""

    def __init__(self, stream: IO[bytes], size: int, progress: Progress) -> None:
        self._stream, self._size, self._progress, self._done = stream, size, progress, 0

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        if self._done >> 22 != (self._done + len(data)) >> 22:
            self._progress("unpacking sources", min(self._done / self._size, 1.0))
        self._done += len(data)
        return data


def _decompressed(packed: _Counted, name: str) -> IO[bytes]:
    if name.endswith(".zst"):
        import zstandard  # noqa: PLC0415 - only a newer source package needs it

        return cast(IO[bytes], zstandard.ZstdDecompressor().stream_reader(cast(IO[bytes], packed)))
    return cast(IO[bytes], archive.Chunks(_xz(packed)))


def _xz(packed: _Counted) -> Iterator[bytes]:
    decoder = lzma.LZMADecompressor()
    while data := packed.read(1 << 18):
        yield decoder.decompress(data)
    if not decoder.eof:
        raise InputError("the source tarball is cut short")
