"""Kernel modules with their debug info: found on this machine, or unpacked from the -dbg package, few of a thousand.

All of a Debian kernel's are 1.2 to 1.6 GB unpacked, one is 0.5 to 20 MB; so those asked for are unpacked, and kept
beside the kernel's other parts as debug/NAME.ko. They are whole modules, which a guest can load as well.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path

from profiler.errors import MissingError, UsageError
from profiler.lab import acquire, modules, store, unpack
from profiler.lab.apt import Progress
from profiler.model import Kernel

_NAME = re.compile(r"[\w-]+")
_FILES = ("*.ko", "*.ko.debug")


def find(kernel: Kernel, name: str) -> Path | None:
    """The file with a module's debug info, where it is on this machine. `-` and `_` are the same in a name."""
    if kernel.module_debug is None or not kernel.module_debug.is_dir():
        return None
    same = f"{name.replace('-', '_')}".replace("_", "[-_]")
    return next((path for kind in _FILES for path in kernel.module_debug.rglob(kind.replace("*", same))), None)


def loadable(kernel: Kernel, names: Collection[str], progress: Progress) -> list[tuple[str, Path]]:
    """Names and files of modules and all they depend on, in the order to load them in; fetched where they are not here.

    What every guest loads is left out. Raises MissingError where a module is not to be had.
    """
    loaded = {Path(name).stem for name, _ in modules.in_load_order(kernel.modules)}
    order: list[tuple[str, Path]] = []
    wanted = [name.replace("-", "_") for name in names]
    while wanted:
        fetch(kernel, wanted, progress)
        found = [(name, path) for name in wanted if (path := find(kernel, name)) is not None]
        order = [*found, *(entry for entry in order if entry not in found)]
        wanted = sorted({needed for _, path in found for needed in modules.depends(path)} - loaded)
    return order


def fetch(kernel: Kernel, names: Collection[str], progress: Progress) -> None:
    """Has the debug info of modules beside a fetched kernel; those that are there already are left alone.

    Raises MissingError where the kernel is none of Debian's, or its package is gone or has no such module, UsageError
    on what is no module's name.
    """
    missing = [name for name in names if find(kernel, name) is None]
    for name in missing:
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} is not the name of a kernel module", hint="names are as lsmod shows them")
    if not missing:
        return
    directory = store.kernels_directory() / kernel.package_version
    if not kernel.package_version or kernel.module_debug != directory / store.MODULE_DEBUG:
        raise MissingError(
            f"no debug info of the module {missing[0]} of {kernel.release}",
            hint=f"expected {missing[0]}.ko below {kernel.module_debug or 'the kernel that vm:PATH names'}",
        )
    with acquire.debug_package(kernel, progress) as package, tempfile.TemporaryDirectory(dir=directory) as staging:
        unpack.module_debug(package, missing, Path(staging), progress)
        (directory / store.MODULE_DEBUG).mkdir(exist_ok=True)
        unpacked = {path.stem.replace("-", "_"): path for path in Path(staging).iterdir()}
        for name in missing:
            path = unpacked.get(name.replace("-", "_"))
            if path is None:
                raise MissingError(f"kernel {kernel.package_version} has no module {name}", hint="is it built in?")
            shutil.move(path, directory / store.MODULE_DEBUG / path.name)
