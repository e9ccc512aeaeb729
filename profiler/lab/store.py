"""Kernels on this machine: the cache of fetched ones, and unpacked packages or build trees anywhere.

A cached kernel is a directory that appears only when it is whole:

    kernels/PACKAGE-VERSION/kernel.json    release, package_version, build_id, arch
                            image          bzImage
                            vmlinux        with DWARF
                            config
                            modules/       lib/modules/RELEASE, the files the guest needs
                            source/        the kernel tree, Debian's patches applied
                            debug/         modules with DWARF, those that were asked for
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path

from profiler.errors import MismatchError, MissingError, UsageError
from profiler.lab import debian_version, elf_note
from profiler.model import Kernel

ARCH = "x86_64"
MODULE_DEBUG = "debug"


def cache_directory() -> Path:
    """$XDG_CACHE_HOME/whyerrno, or ~/.cache/whyerrno."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(root) if root.startswith("/") else Path.home() / ".cache"  # the specification: absolute or ignored
    return base / "whyerrno"


def kernels_directory() -> Path:
    return cache_directory() / "kernels"


def list_cached() -> list[Kernel]:
    """The fetched kernels, oldest version first. One that was damaged since is as if it were not there."""
    kernels = []
    for path in kernels_directory().glob("*/kernel.json"):
        with contextlib.suppress(MissingError):
            kernels.append(read(path.parent))
    return sorted(kernels, key=lambda kernel: debian_version.key(kernel.package_version))


def find(version: str) -> Kernel | None:
    """The newest cached kernel of a version like "6.1" or "6.1.192-2", or None."""
    matching = [kernel for kernel in list_cached() if debian_version.matches(kernel.package_version, version)]
    return matching[-1] if matching else None


def read(directory: Path) -> Kernel:
    """A kernel of the cache. Raises MissingError where the directory was damaged since."""
    try:
        facts = json.loads((directory / "kernel.json").read_bytes())
        names = ("image", "vmlinux", "source", "modules", "config")
        parts = {name: directory / name for name in names if (directory / name).exists()}
        if not {"image", "vmlinux", "source"} <= parts.keys():
            raise ValueError("parts are gone")
        parts["module_debug"] = directory / MODULE_DEBUG
        return Kernel(facts["release"], facts["package_version"], facts["build_id"], facts["arch"], **parts)
    except (OSError, ValueError, KeyError) as error:
        raise MissingError(
            f"the cached kernel {directory} is damaged: {error}", hint=f"rm -r {directory}, and fetch it again"
        ) from None


def write(directory: Path, kernel: Kernel) -> None:
    facts = {name: getattr(kernel, name) for name in ("release", "package_version", "build_id", "arch")}
    (directory / "kernel.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def from_path(path: Path) -> Kernel:
    """A kernel build tree, or a directory into which kernel packages were unpacked.

    A build tree has arch/x86/boot/bzImage and vmlinux beside the sources. An unpacked package has boot/vmlinuz-*
    or [usr/]lib/modules/*/vmlinuz, debug info below usr/lib/debug, and the sources, where there are any, in
    usr/src/linux-source-*, src or ../src.

    Raises UsageError where there is no such directory, MissingError where it holds no kernel image, MismatchError
    where image and vmlinux are of different kernels.
    """
    root = path.expanduser().resolve()
    if not root.is_dir():
        raise UsageError(f"{path} is not a directory", hint="vm:PATH names a kernel build tree or an unpacked package")
    if (root / "kernel.json").is_file():
        return read(root)
    kernel = _build_tree(root) if (root / "arch/x86/boot").is_dir() else _unpacked(root)
    if kernel is None:
        raise MissingError(
            f"{path} holds no kernel image",
            hint="a build tree has arch/x86/boot/bzImage, an unpacked package boot/vmlinuz-*",
        )
    return kernel


def _build_tree(root: Path) -> Kernel | None:
    image = root / "arch/x86/boot/bzImage"
    if not image.is_file():
        return None
    vmlinux = _existing(root / "vmlinux")
    return Kernel(
        release=_release(image),
        package_version="",
        build_id=elf_note.of_file(vmlinux) if vmlinux else "",
        arch=ARCH,
        image=image,
        vmlinux=vmlinux,
        source=root,
        modules=root,
        config=_existing(root / ".config"),
        module_debug=root,
    )


def _unpacked(root: Path) -> Kernel | None:
    images = _glob(root, "boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz", "lib/modules/*/vmlinuz")
    if not images:
        return None
    image = images[-1]
    release = _release(image)
    vmlinux = _first(root, f"usr/lib/debug/boot/vmlinux-{release}", f"usr/lib/debug/**/{release}/vmlinux", "vmlinux")
    sources = [p for p in (*_glob(root, "usr/src/linux-source-*", "src", "source"), root.parent / "src") if _is_tree(p)]
    return Kernel(
        release=release,
        package_version=_package_version(image),
        build_id=elf_note.of_file(vmlinux) if vmlinux else "",
        arch=ARCH,
        image=image,
        vmlinux=vmlinux,
        source=sources[0] if sources else None,
        modules=_first(root, f"usr/lib/modules/{release}", f"lib/modules/{release}"),
        config=_first(root, f"boot/config-{release}", f"usr/lib/modules/{release}/config"),
        module_debug=_existing(root / "usr/lib/debug"),
    )


def _is_tree(path: Path) -> bool:
    return (path / "kernel/fork.c").is_file()


def _glob(root: Path, *patterns: str) -> list[Path]:
    return [path for pattern in patterns for path in sorted(root.glob(pattern))]


def _first(root: Path, *patterns: str) -> Path | None:
    return next(iter(_glob(root, *patterns)), None)


def _existing(path: Path) -> Path | None:
    return path if path.exists() else None


def banner(image: Path) -> str:
    """The version line inside a bzImage: "6.1.0-56-cloud-amd64 (debian-kernel@...) #1 SMP ... Debian 6.1.192-2 (...)".

    Documentation/arch/x86/boot.rst: the word at 0x20E, plus 0x200, is where it lies; "HdrS" at 0x202 says so.
    """
    with image.open("rb") as file:
        head = file.read(1 << 16)
    if head[0x202:0x206] != b"HdrS":
        raise MismatchError(f"{image} is not an x86 bzImage")
    start = int.from_bytes(head[0x20E:0x210], "little") + 0x200
    return head[start : head.index(b"\0", start)].decode("utf-8", "replace")


def _release(image: Path) -> str:
    return banner(image).split()[0]


def _package_version(image: Path) -> str:
    # #1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-05)
    match = re.search(r" Debian (\S+) \(", banner(image))
    return match[1] if match else ""
