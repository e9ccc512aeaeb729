"""The code of loaded kernel modules: which one holds an address, its functions, bytes and lines.

A module is linked when the first address within it is asked for. Addresses are as everywhere those of the running
kernel less the KASLR offset, so that modules and vmlinux call each other as they do in memory.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path

from profiler.debuginfo.functions import NOT_CODE, base_name
from profiler.debuginfo.lines import Frame, Frames
from profiler.debuginfo.module_link import Resolve, link
from profiler.errors import InputError, MismatchError
from profiler.model import LoadedModule

FindFile = Callable[[LoadedModule], Path | None]
Relative = Callable[[str], str]
Symbol = tuple[str, int, int]  # name, start, end
_LONGEST = 64 << 10  # bytes of the last function that kallsyms knows, whose end it does not say


class ModuleCode:
    """One module. Without a file, functions are those of /proc/kallsyms, bytes those that ran, and lines there are
    none."""

    def __init__(self, loaded: LoadedModule, file: Path | None, resolve: Resolve, relative: Relative) -> None:
        """Raises MismatchError where the file is of another build than what was loaded."""
        self.loaded = loaded
        self.image = link(file, loaded.sections, resolve) if file is not None else None
        if self.image is not None and loaded.build_id and self.image.build_id != loaded.build_id:
            raise MismatchError(
                f"{file}: build id {self.image.build_id} is not that of the module that was loaded, {loaded.build_id}",
                hint="give the debug info of exactly the recorded kernel's package",
            )
        self._relative = relative

    @property
    def has_lines(self) -> bool:
        return self.image is not None and self.image.symcache is not None

    @property
    def is_patched(self) -> bool:
        """Whether `read` gives the code as it ran."""
        return bool(self.loaded.text)

    def function_at(self, address: int) -> Symbol | None:
        if self.image is not None:
            found = self.image.function_at(address)
            return (found.name, found.start, found.end) if found else None
        row = bisect_right(self._symbols, (address, "\U0010ffff")) - 1
        if row < 0:
            return None
        start, name = self._symbols[row]
        following = self._symbols[row + 1][0] if row + 1 < len(self._symbols) else start + _LONGEST
        end = min(following, self._end_of_text(start))
        return (name, start, end) if address < end else None

    def functions_named(self, name: str) -> list[Symbol]:
        if self.image is not None:
            return [(found.name, found.start, found.end) for found in self.image.functions_named(name)]
        found_at = (self.function_at(start) for start, symbol in self._symbols if symbol == name)
        return [symbol for symbol in found_at if symbol is not None]

    def read(self, address: int, size: int) -> bytes:
        """Raises InputError where the bytes are not known."""
        for start, text in self.loaded.text:
            if start <= address and address + size <= start + len(text):
                return text[address - start : address - start + size]
        if self.image is None:
            raise InputError(f"module {self.loaded.name}: no code at {address:#x}", hint="give its debug info")
        return self.image.read(address, size)

    def frames(self, address: int) -> Frames:
        """The inline chain, innermost first; a function without lines is one frame with file ""."""
        found = self.image.symcache.lookup(address - self.image.start) if self.image and self.has_lines else []
        if found and found[-1].full_path:
            at = [(base_name(match.symbol), self._relative(match.full_path), match.line) for match in found]
            return tuple(Frame(*place) for place in at)
        symbol = self.function_at(address)
        return (Frame(base_name(symbol[0]), "", 0),) if symbol else ()

    @cached_property
    def _symbols(self) -> list[tuple[int, str]]:
        first_of = {address: name for address, name in reversed(self.loaded.symbols) if not name.startswith(NOT_CODE)}
        return sorted(first_of.items())

    def _end_of_text(self, start: int) -> int:
        """A function without code is none."""
        return next((at + len(text) for at, text in self.loaded.text if at <= start < at + len(text)), start)


class Modules:
    """All modules of a recorded kernel. `file_of` finds the file with a module's debug info, `resolve` the address
    of a symbol of the kernel proper, `relative` the place in the kernel's tree of a file that debug info names."""

    def __init__(self, loaded: Iterable[LoadedModule], file_of: FindFile, resolve: Resolve, relative: Relative) -> None:
        self._file_of, self._resolve_in_kernel, self._relative = file_of, resolve, relative
        self._loaded = tuple(loaded)
        starts = [(address, module) for module in self._loaded for address in _places(module)]
        self._starts = sorted(starts, key=lambda start: start[0])
        self._codes: dict[str, ModuleCode] = {}

    def at(self, address: int) -> ModuleCode | None:
        """The module one of whose functions holds the address."""
        module = self._nearest(address)
        code = self._code(module) if module is not None else None
        return code if code is not None and code.function_at(address) is not None else None

    def name_at(self, address: int) -> str | None:
        """The module that an address lies in, be its code known or not: the one whose symbol comes next before it.

        /proc/kallsyms counts compiled BPF programs as a module, "bpf".
        """
        module = self._nearest(address)
        return module.name if module is not None else None

    def _nearest(self, address: int) -> LoadedModule | None:
        row = bisect_right(self._starts, address, key=lambda start: start[0]) - 1
        return self._starts[row][1] if row >= 0 else None

    def _code(self, module: LoadedModule) -> ModuleCode:
        if module.name not in self._codes:
            self._codes[module.name] = ModuleCode(module, self._file_of(module), self._resolve, self._relative)
        return self._codes[module.name]

    def _resolve(self, name: str) -> int | None:
        """Of the kernel proper, or of another module."""
        address = self._resolve_in_kernel(name)
        return self._exported.get(name) if address is None else address

    @cached_property
    def _exported(self) -> dict[str, int]:
        return {name: address for module in self._loaded for address, name in module.symbols}


def _places(module: LoadedModule) -> list[int]:
    return [*module.sections.values(), *(address for address, _ in module.symbols)]
