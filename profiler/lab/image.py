"""The guest's initramfs: cpio archives one after another, uncompressed (unpacking is slow when emulated).

common   busybox, perf, this Python and their libraries, /init; cached by what it is made of
session  our packages, the kernel's modules, the caller's files
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import py_compile
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from profiler import process
from profiler.errors import MissingError, UsageError
from profiler.lab import leftovers, modules, programs
from profiler.lab.cpio import CpioWriter
from profiler.model import Kernel

INIT = Path(__file__).with_name("init.sh")
PACKAGES = "/whyerrno"  # PYTHONPATH in a guest
WORKDIR = "/work"
_EMPTY_DIRECTORIES = (
    "dev", "proc", "sys", "run", "root", "mnt", "tmp", "etc", "var", "usr/bin", "usr/lib", "usr/lib64",
    WORKDIR.strip("/"), "modules",
)  # fmt: skip
_LINKS = {"bin": "usr/bin", "sbin": "usr/bin", "usr/sbin": "bin", "lib": "usr/lib", "lib64": "usr/lib64"}
_TEXTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1 localhost\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
# Of `profiler`, only what runs on a target; all of `loadgen`.
_PROFILER_PARTS = ("__init__.py", "errors.py", "model.py", "record")


def write(image: Path, kernel: Kernel, files: Mapping[str, Path], cache: Path) -> None:
    """Write the whole initramfs for one session.

    files  guest path (absolute) → file or directory of this machine; the libraries of programs and the
           interpreters of scripts among them are added

    Raises MissingError when busybox, perf or a library is absent, UsageError for a file that cannot be read.
    """
    common = _common(cache)
    with image.open("wb") as stream:
        with common.open("rb") as cached:
            os.sendfile(stream.fileno(), cached.fileno(), 0, common.stat().st_size)
        stream.seek(0, os.SEEK_END)
        archive = CpioWriter(stream)
        _add_packages(archive)
        order = []
        for name, content in modules.in_load_order(kernel.modules):
            archive.file(f"modules/{name}", content)
            order.append(name)
        archive.file("modules/order", "".join(f"{name}\n" for name in order).encode())
        _add_files(archive, files)
        archive.close()


def _common(cache: Path) -> Path:
    """The cached common part, made first where it is not there yet."""
    contents = _common_contents()
    searched = os.environ.get("LD_LIBRARY_PATH", "")
    key = hashlib.sha256(f"{sys.version}\0{searched}".encode() + INIT.read_bytes() + Path(__file__).read_bytes())
    for name, path in sorted(contents.items()):
        status = path.stat()
        key.update(f"{name}\0{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    directory = cache / "guest"
    directory.mkdir(parents=True, exist_ok=True)
    final = directory / f"common-{key.hexdigest()[:16]}.cpio"
    if final.exists():
        os.utime(final)
        return final
    descriptor, partial = tempfile.mkstemp(prefix=".common-", dir=directory)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            _write_common(CpioWriter(stream), contents)
        Path(partial).replace(final)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
    _drop_old(directory, keep=final)
    return final


def _drop_old(directory: Path, keep: Path, count: int = 3) -> None:
    """Keep the few that were used last: other Pythons and perfs of this machine."""
    images = sorted(directory.glob("common-*.cpio"), key=lambda path: path.stat().st_mtime, reverse=True)
    partial = [path for path in directory.glob(".common-*") if time.time() - path.stat().st_mtime > 3600]
    for path in [*images[count:], *partial]:
        if path != keep:
            path.unlink(missing_ok=True)


def _common_contents() -> dict[str, Path]:
    """Guest path → file of this machine; `.py` files stand for their compiled form."""
    busybox = process.find("busybox").resolve()
    perf = programs.perf()
    python = programs.python()
    contents = {
        "/usr/bin/busybox": busybox,
        "/usr/bin/perf": perf,
        programs.guest_path(str(python)): python,
        "/init": INIT,
    }
    extensions = []
    for path, _ in programs.python_modules():
        contents[programs.guest_path(str(path))] = path
        if path.suffix == ".so":
            extensions.append(path)
    found = programs.libraries([busybox, perf, python]) | programs.libraries(extensions, required=False)
    contents |= {programs.guest_path(str(library)): library for library in found}
    if Path("/etc/ld.so.cache").exists():  # libraries outside the loader's own directories
        contents["/etc/ld.so.cache"] = Path("/etc/ld.so.cache")
    return contents


def _write_common(archive: CpioWriter, contents: dict[str, Path]) -> None:
    for name in _EMPTY_DIRECTORIES:
        archive.directory(name, 0o1777 if name in ("tmp", "mnt") else 0o755)
    for name, to in _LINKS.items():
        archive.symlink(name, to)
    for name, text in _TEXTS.items():
        archive.file(name, text.encode())
    archive.file("etc/library-path", os.environ.get("LD_LIBRARY_PATH", "").encode())
    archive.character_device("dev/console", 5, 1, 0o600)  # the kernel opens it before /dev is mounted
    archive.character_device("dev/null", 1, 3)
    with leftovers.directory("compile") as scratch:
        for name, path in sorted(contents.items()):
            if path.suffix == ".py":
                # in the source's place, which a module of the standard library does without
                _add_compiled(archive, name, path, scratch, f"{name}c")
            elif name == "/init":
                archive.file("init", path.read_bytes(), 0o755)
            else:
                archive.copy(name, path)
    for applet in _applets(contents["/usr/bin/busybox"]):
        if f"/usr/bin/{applet}" not in contents:
            archive.symlink(f"usr/bin/{applet}", "busybox")
    for name in ("python3", "python"):
        if f"/usr/bin/{name}" not in contents:
            archive.symlink(f"usr/bin/{name}", programs.guest_path(str(programs.python())))
    _add_stdlib_directories(archive)
    archive.close()


def _applets(busybox: Path) -> list[str]:
    listed = process.run([busybox, "--list"], timeout=30).output.split()
    return [name for name in listed if name not in ("busybox", "python3", "python", "perf")]


def _add_stdlib_directories(archive: CpioWriter) -> None:
    """Python finds its prefix by these landmarks even where it brings no file into them."""
    for name in ("stdlib", "platstdlib"):
        archive.directory(programs.guest_path(str(Path(sysconfig.get_path(name)).resolve() / "lib-dynload")))


def _add_compiled(archive: CpioWriter, name: str, source: Path, scratch: Path, compiled: str) -> None:
    """The compiled form, never checked against its source: an emulated processor takes seconds to compile."""
    target = scratch / "module.pyc"
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    try:
        py_compile.compile(str(source), str(target), name, doraise=True, invalidation_mode=unchecked, quiet=2)
    except py_compile.PyCompileError:
        return  # a template, not a module
    archive.copy(compiled, target)


def packages(root: str) -> Iterator[tuple[str, Path]]:
    """What of our own runs on a target, to lie below `root` there: path on the target, and file of this machine.

    Raises MissingError where half of it is not installed.
    """
    profiler = Path(__file__).resolve().parent.parent
    loadgen = importlib.util.find_spec("loadgen")  # not imported: it is the guest that runs it
    if loadgen is None or loadgen.origin is None:
        raise MissingError("the package loadgen is not installed beside profiler", hint="install whyerrno again")
    for part in _PROFILER_PARTS:
        yield from _tree(f"{root}/profiler/{part}", profiler / part)
    yield from _tree(f"{root}/loadgen", Path(loadgen.origin).parent)


def _add_packages(archive: CpioWriter) -> None:
    with leftovers.directory("compile") as scratch:
        for name, path in packages(PACKAGES):
            archive.copy(name, path)  # the source too: a traceback in the guest quotes it
            if path.suffix == ".py":
                cached = importlib.util.cache_from_source(name)
                _add_compiled(archive, name, path, scratch, cached)


def _add_files(archive: CpioWriter, files: Mapping[str, Path]) -> None:
    needed: dict[str, Path] = {}
    for name, path in files.items():
        if not name.startswith("/") or ".." in Path(name).parts:
            raise UsageError(f"{name} is not an absolute path in a guest")
        if not path.exists():
            raise UsageError(f"{path} does not exist", hint="it was to be copied into the guest")
        if path.is_file():
            needed |= programs.needed_by(path)
    for name, path in sorted(needed.items()):
        archive.copy(name, path)
    for name, path in files.items():
        if path.is_dir():
            archive.directory(programs.guest_path(name))
        for inner, file in _tree(programs.guest_path(name), path):
            archive.copy(inner, file)


def _tree(name: str, path: Path) -> Iterator[tuple[str, Path]]:
    """Guest path and file for a file, or for all in a directory; caches and what is no regular file are left out."""
    if path.is_file():
        yield name, path
        return
    for child in sorted(path.iterdir()):
        if child.name != "__pycache__" and (child.is_file() or child.is_dir()):
            yield from _tree(f"{name}/{child.name}", child)
