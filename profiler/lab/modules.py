"""Which kernel modules a guest must load for its virtio disk, and in which order.

Kernels differ in what is built in, and newer ones compress their modules. A package carries no modules.dep
(depmod writes that on installation), so the order comes from each module's own `depends=` record.
"""

from __future__ import annotations

import gzip
import lzma
import re
from collections.abc import Iterator
from pathlib import Path

WANTED = ("virtio_pci", "virtio_blk")
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")
_SUFFIX = re.compile(r"\.ko(\.(xz|gz|zst))?$")


def depends(path: Path) -> list[str]:
    """The modules that a module's file says it needs, with `_` in their names."""
    match = _DEPENDS.search(_content(path))
    return [name.replace("-", "_") for name in match[1].decode().split(",") if name] if match else []


def in_load_order(directory: Path | None) -> Iterator[tuple[str, bytes]]:
    """File name and content of each module to load, dependencies first. What is built in is left out."""
    if directory is None:
        return
    index = {_name(path): path for path in sorted(directory.rglob("*.ko*")) if _SUFFIX.search(path.name)}
    done: set[str] = set()
    for wanted in WANTED:
        yield from _with_dependencies(wanted, index, done)


def _with_dependencies(name: str, index: dict[str, Path], done: set[str]) -> Iterator[tuple[str, bytes]]:
    if name in done or name not in index:
        return
    done.add(name)
    for needed in depends(index[name]):
        yield from _with_dependencies(needed, index, done)
    yield f"{name}.ko", _content(index[name])


def _name(path: Path) -> str:
    return _SUFFIX.sub("", path.name).replace("-", "_")


def _content(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".gz":
        return gzip.decompress(data)
    if path.suffix == ".zst":
        import zstandard  # noqa: PLC0415 - seldom needed, and slow to import

        with zstandard.ZstdDecompressor().stream_reader(data) as stream:
            return stream.read()
    return data
