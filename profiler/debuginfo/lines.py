"""Addresses to inline chains of source lines.

C code is looked up in a symbol cache of the `symbolic` library, built once a kernel and mapped from then
on: 8 microseconds a look-up. It knows functions only, so assembly (entry code, copies to and from user
memory) is asked of drgn, which is opened when the first such address comes.

Seen in 51,000 addresses of four kernels: symbolic, drgn and LLVM agree on every frame of C code; see
tests/vm/test_debuginfo.py. symbolic's own `code_id` of a kernel is that of another note (Xen's stand first), so
the cache is named by the build id that `Vmlinux` reads.
"""

from __future__ import annotations

import os
import posixpath
import re
import tempfile
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from profiler.debuginfo.functions import base_name
from profiler.debuginfo.vmlinux import Vmlinux
from profiler.errors import InputError
from profiler.model import SourceLocation

Frame = SourceLocation
Frames = tuple[Frame, ...]

# A function and its file that every kernel has: what stands before it in a path is the tree's root.
LANDMARK, LANDMARK_FILE = "start_kernel", "init/main.c"
# AArch64: no-ops for ftrace, with which a function's symbol begins and its debug info does not
PATCHABLE_ENTRY = 8
# Where Debian builds: the packages' own folder, of which assembly keeps the full name.
DEBIAN_BUILD = re.compile(r"(?:/build/(?:reproducible-path/)?linux[^/]*/)?(?:debian/build/build_[^/]+/)?")


def default_cache() -> Path:
    """$XDG_CACHE_HOME/whyerrno/symcache"""
    base = os.environ.get("XDG_CACHE_HOME") or ""
    root = Path(base) if base.startswith("/") else Path.home() / ".cache"
    return root / "whyerrno" / "symcache"


class LineTable:
    """Inline chains of one kernel by link address, each remembered after the first look-up.

    Functions have the names of the source: without `.cold`, `.part.N` and the like.
    """

    def __init__(self, vmlinux: Vmlinux, symcache: Any) -> None:
        """Raises InputError where the cache does not fit the image."""
        self._vmlinux = vmlinux
        self._symcache = symcache
        self._known: dict[int, Frames] = {}
        self._files: dict[str, str] = {}
        # symbolic counts from where the image is loaded, which for a kernel is its _text
        self._base = vmlinux.symbol_address("_text")
        self._root = self._find_root()

    @classmethod
    def open(cls, vmlinux: Path | Vmlinux, build_id: str | None = None, cache_dir: Path | None = None) -> LineTable:
        """The line table of a vmlinux with DWARF; the first time for a kernel this takes 3 s and 750 MB of memory.

        Raises MismatchError where `build_id` is given and differs, MissingError without debug info,
        InputError on debug info that cannot be read.
        """
        image = vmlinux if isinstance(vmlinux, Vmlinux) else Vmlinux(vmlinux)
        image.require_lines()
        if build_id:
            image.check_build_id(build_id)
        return cls(image, _open_symcache(image, cache_dir or default_cache()))

    def frames(self, address: int) -> Frames:
        """The inline chain at an address, innermost first; the outer frames have the line of the call.

        () where no function is known there. A function without line information (static call
        trampolines, some assembly) is one frame with file "" and line 0; line 0 with a file
        stands for an instruction that the compiler ties to no line.
        """
        known = self._known.get(address)
        if known is None:
            known = self._known[address] = self._look_up(address)
        return known

    def _look_up(self, address: int) -> Frames:
        if address < self._base:
            return ()
        found = self._symcache.lookup(address - self._base)
        if _has_path(found):
            # symbolic prefers the symbol's name (NAME.cold, NAME.part.0) to that of the source function
            return tuple(Frame(base_name(match.symbol), self.relative(match.full_path), match.line) for match in found)
        function = self._vmlinux.function_at(address)
        if function is None:
            return ()
        if function.start <= address < function.start + PATCHABLE_ENTRY < function.end:
            found = self._symcache.lookup(function.start + PATCHABLE_ENTRY - self._base)
            if _has_path(found):
                return (Frame(base_name(found[-1].symbol), self.relative(found[-1].full_path), found[-1].line),)
        file, line = self._assembly.line_at(address)
        return (Frame(base_name(function.name), self.relative(file), line),)

    def files(self) -> set[str]:
        """The source files that the image's functions begin in; a quarter of a second for a kernel."""
        paths: set[str | None] = set()
        for start in self._vmlinux.functions.start.tolist():
            if start >= self._base:
                paths.update(match.full_path for match in self._symcache.lookup(start - self._base))
        return {self.relative(path) for path in paths if path}

    def relative(self, path: str | None) -> str:
        """A path of the debug info, from the root of the kernel's tree on."""
        if not path:
            return ""
        known = self._files.get(path)
        if known is None:
            known = self._files[path] = self._strip(posixpath.normpath(path))
        return known

    def _strip(self, path: str) -> str:
        if self._root and path.startswith(self._root):
            return path[len(self._root) :]
        return path[DEBIAN_BUILD.match(path).end() :]  # type: ignore[union-attr]  # the pattern matches ""

    def _find_root(self) -> str:
        start = self._vmlinux.symbol_address(LANDMARK) - self._base
        answers = [self._symcache.lookup(at) for at in (start, start + PATCHABLE_ENTRY)]
        landmark = next((found for found in answers if _has_path(found)), None)
        if not landmark or landmark[-1].symbol != LANDMARK:
            raise InputError(
                f"{self._vmlinux.path}: its debug info does not know {LANDMARK}",
                hint="the debug info is damaged or stripped; unpack the -dbg package again",
            )
        path = posixpath.normpath(landmark[-1].full_path)
        return path.removesuffix(LANDMARK_FILE) if path.endswith(LANDMARK_FILE) else ""

    @cached_property
    def _assembly(self) -> _AssemblyLines:
        return _AssemblyLines(self._vmlinux)


def _has_path(found: Any) -> bool:
    return bool(found and found[-1].full_path)


class _AssemblyLines:
    """Lines of code that belongs to no function of the DWARF."""

    def __init__(self, vmlinux: Vmlinux) -> None:
        from profiler.debuginfo.dwarf import open_program  # noqa: PLC0415  # for the few recordings that need it

        self._program = open_program(vmlinux)

    def line_at(self, address: int) -> tuple[str, int]:
        """("", 0) where nothing is known."""
        try:
            innermost = self._program.source_location(address)[0]
        except LookupError:
            return "", 0
        return innermost.filename, innermost.line


def _open_symcache(vmlinux: Vmlinux, cache_dir: Path) -> Any:
    from symbolic.debuginfo import Archive  # noqa: PLC0415  # only where lines are asked for
    from symbolic.exceptions import SymbolicError  # noqa: PLC0415
    from symbolic.symcache import SYMCACHE_LATEST_VERSION  # noqa: PLC0415
    from symbolic.symcache import SymCache as Untyped  # noqa: PLC0415

    SymCache: Any = Untyped  # noqa: N806  # its methods have no annotations
    path = cache_dir / f"{vmlinux.build_id}-{version('symbolic')}-v{SYMCACHE_LATEST_VERSION}.symcache"
    try:
        return SymCache.open(os.fspath(path))
    except (OSError, SymbolicError):
        pass  # not built yet, or damaged: it is built anew
    try:
        archive = Archive.open(os.fspath(vmlinux.path))
        built = SymCache.from_object(next(archive.iter_objects()))
    except (OSError, SymbolicError, StopIteration) as error:
        raise InputError(
            f"{vmlinux.path}: its debug info cannot be read: {error}",
            hint="unpack the -dbg package again",
        ) from error
    return SymCache.open(os.fspath(path)) if _save(built, path) else built


def _save(symcache: Any, path: Path) -> bool:
    """Whether the cache is on disk; a full or read-only one costs three seconds the next time, no more."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(prefix=f".{path.name}.", dir=path.parent, delete=False) as file:
            temporary = Path(file.name)
            try:
                symcache.dump_into(file)
                file.close()
                temporary.replace(path)
            except BaseException:
                temporary.unlink()
                raise
    except OSError:
        return False
    return True
