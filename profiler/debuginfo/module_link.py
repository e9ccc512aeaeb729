"""A kernel module put where it was loaded: its relocatable file turned into an image as a vmlinux is one.

Formats: System V ABI (gABI) chapter 4, and the x86-64 psABI for the relocations. What the kernel's own loader does is
in kernel/module/main.c and arch/x86/kernel/module.c; here only what code and its tables need is done.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from profiler.debuginfo.functions import decode_name
from profiler.debuginfo.vmlinux import SHF_ALLOC, SHF_EXECINSTR, SHT_NOBITS, SHT_NOTE, SYMBOL, Vmlinux
from profiler.errors import InputError, MissingError

SHT_SYMTAB, SHT_RELA = 2, 4
SHN_UNDEF, SHN_ABS, SHN_LORESERVE = 0, 0xFFF1, 0xFF00
STB_GLOBAL_NOTYPE = 0x10
EM_X86_64, ET_REL, ET_EXEC, PT_LOAD = 62, 1, 2, 1
SHF_COMPRESSED = 0x800
# R_X86_64_*: name → bytes written; the rest are for other kinds of files
_64, _PC32, _PLT32, _32, _32S, _PC64 = 1, 2, 4, 10, 11, 24
_WIDTH = {_64: 8, _PC64: 8, _PC32: 4, _PLT32: 4, _32: 4, _32S: 4}
_RELATIVE = (_PC32, _PLT32, _PC64)
# The tables that a vmlinux puts between two symbols are sections of their own in a module.
_TABLES = ("__ex_table", "__jump_table", "__bug_table")
_WHOLE = "unpack the module's debug info again"

_HEADER = np.dtype(
    [("name", "<u4"), ("kind", "<u4"), ("flags", "<u8"), ("address", "<u8"), ("offset", "<u8"), ("size", "<u8"),
     ("link", "<u4"), ("info", "<u4"), ("align", "<u8"), ("entry", "<u8")]
)  # fmt: skip  # Elf64_Shdr, 64 bytes
_RELA = np.dtype([("offset", "<u8"), ("kind", "<u4"), ("symbol", "<u4"), ("addend", "<i8")])  # Elf64_Rela

Resolve = Callable[[str], int | None]


class LinkedModule(Vmlinux):
    """A module at its addresses, with all that a vmlinux tells of its code.

    `symcache` has its lines, by distance from `start`; None where the file has no debug info.
    """

    symcache: Any = None

    @property
    def start(self) -> int:
        return min((start for start, _ in self.code_ranges), default=0)

    @property
    def code_ranges(self) -> list[tuple[int, int]]:
        """[start, end) of each section of code."""
        return [(s.address, s.address + s.size) for s in self._allocated if s.flags & SHF_EXECINSTR]


def link(path: Path, sections: Mapping[str, int], resolve: Resolve) -> LinkedModule:
    """The module's image with its sections at the given addresses, those not named being left out.

    `resolve` gives the address of a symbol that the module imports; one it does not know stays at 0, where no
    function is. Raises MissingError where there is no such file, InputError on one that is no x86-64 module.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise MissingError(f"{path}: no such file", hint="give the module with debug info") from None
    try:
        image = _Linker(path, data, sections).image(resolve)
    except (IndexError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: damaged module: {error}", hint=_WHOLE) from error
    with tempfile.NamedTemporaryFile(prefix="whyerrno-module-") as file:
        file.write(image)
        file.flush()
        linked = LinkedModule(Path(file.name))
        if linked.has_lines:
            linked.symcache = _symcache(path, file.name)
    linked.path = path
    return linked


def _symcache(path: Path, image: str) -> Any:
    """Built anew each time: 20 ms for a small module, 0.2 s for one of the largest."""
    from symbolic.debuginfo import Archive  # noqa: PLC0415  # only where a path leads through a module
    from symbolic.exceptions import SymbolicError  # noqa: PLC0415
    from symbolic.symcache import SymCache as Untyped  # noqa: PLC0415

    SymCache: Any = Untyped  # noqa: N806  # its methods have no annotations
    try:
        return SymCache.from_object(next(Archive.open(image).iter_objects()))
    except (SymbolicError, StopIteration) as error:
        raise InputError(f"{path}: its debug info cannot be read: {error}", hint=_WHOLE) from error


class _Linker:
    def __init__(self, path: Path, data: bytes, placed: Mapping[str, int]) -> None:
        self._path, self._data = path, data
        if data[:6] != b"\x7fELF\x02\x01" or len(data) < 64:
            raise InputError(f"{path}: not a 64-bit ELF file", hint=_WHOLE)
        if int.from_bytes(data[16:18], "little") != ET_REL or int.from_bytes(data[18:20], "little") != EM_X86_64:
            raise InputError(f"{path}: not a kernel module for x86-64", hint="only x86-64 modules are read")
        start, count = int.from_bytes(data[40:48], "little"), int.from_bytes(data[60:62], "little")
        self._headers = np.frombuffer(data, _HEADER, count, start).copy()
        self._name_table = int.from_bytes(data[62:64], "little")
        names = self._content(self._headers[self._name_table])
        self._names = [decode_name(names, int(offset)) for offset in self._headers["name"]]
        allocated = (self._headers["flags"] & SHF_ALLOC != 0).tolist()
        self._base = {  # of several sections of one name the last: sysfs has one file for them all
            index: placed[name] for name, index in self._by_name(allocated).items() if name in placed
        }
        self._debug = {  # what is compressed cannot be relocated
            index
            for index, name in enumerate(self._names)
            if name.startswith(".debug_") and not self._headers["flags"][index] & SHF_COMPRESSED
        }
        self._symtab = self._section_of_kind(SHT_SYMTAB)

    def image(self, resolve: Resolve) -> bytes:
        rows, strings = self._symbols()
        values = self._values(rows, strings, resolve)
        contents = {index: bytearray(self._content(self._headers[index])) for index in [*self._base, *self._debug]}
        for header in self._headers[self._headers["kind"] == SHT_RELA]:
            if int(header["info"]) in contents:
                base = self._base.get(int(header["info"]), 0)
                _relocate(contents[int(header["info"])], base, np.frombuffer(self._content(header), _RELA), values)
        return self._written(contents, *self._placed_symbols(rows, strings, values))

    def _symbols(self) -> tuple[NDArray[np.void], bytes]:
        header = self._headers[self._symtab]
        return np.frombuffer(self._content(header), SYMBOL), self._content(self._headers[int(header["link"])])

    def _values(self, rows: NDArray[np.void], strings: bytes, resolve: Resolve) -> NDArray[np.uint64]:
        """The address of each symbol; 0 for what is not placed or not known."""
        base = np.zeros(SHN_LORESERVE, np.uint64)
        for index, address in self._base.items():
            base[index] = address
        inside = np.minimum(rows["section"], SHN_LORESERVE - 1)
        values: NDArray[np.uint64] = np.where(base[inside] > 0, base[inside] + rows["value"], np.uint64(0))
        values[rows["section"] == SHN_ABS] = rows["value"][rows["section"] == SHN_ABS]
        for row in np.flatnonzero((rows["section"] == SHN_UNDEF) & (rows["name"] != 0)).tolist():
            values[row] = resolve(decode_name(strings, int(rows["name"][row]))) or 0
        return values

    def _placed_symbols(
        self, rows: NDArray[np.void], strings: bytes, values: NDArray[np.uint64]
    ) -> tuple[bytes, bytes]:
        """Symbol table and strings: what is placed, and the tables' bounds by the names that a vmlinux has for them."""
        defined = np.isin(rows["section"], list(self._base))
        placed = rows[defined].copy()
        placed["value"] = values[defined]
        bounds = []
        for index, base in self._base.items():
            if self._names[index] in _TABLES:
                size = int(self._headers["size"][index])
                for word, address in (("start", base), ("stop", base + size)):
                    bounds.append((len(strings), STB_GLOBAL_NOTYPE, 0, index, address, 0))
                    strings += f"__{word}_{self._names[index]}\0".encode()
        return placed.tobytes() + np.array(bounds, SYMBOL).tobytes(), strings

    def _written(self, contents: dict[int, bytearray], symbols: bytes, strings: bytes) -> bytes:
        """An ELF file with the same sections by number; those that are not placed are void."""
        headers = self._headers.copy()
        keep: dict[int, bytes | bytearray] = {**contents}
        for index in [*np.flatnonzero(headers["kind"] == SHT_NOTE).tolist(), self._name_table]:
            keep.setdefault(index, self._content(headers[index]))
        keep |= {self._symtab: symbols, int(headers["link"][self._symtab]): strings}
        whole = bytearray(self._data[:64])
        whole[16:18] = ET_EXEC.to_bytes(2, "little")
        for index in range(len(headers)):
            if index not in keep:
                for name in ("kind", "flags", "offset", "size"):
                    headers[name][index] = 0  # SHT_NULL
                continue
            headers["address"][index] = self._base.get(index, 0)
            headers["offset"][index] = len(whole)
            if headers["kind"][index] != SHT_NOBITS:
                headers["size"][index] = len(keep[index])
            whole += keep[index]
        whole[40:48] = len(whole).to_bytes(8, "little")
        whole += headers.tobytes()
        whole[32:40] = len(whole).to_bytes(8, "little")
        whole[54:58] = struct.pack("<HH", 56, 1)
        return bytes(whole) + self._program_header()

    def _program_header(self) -> bytes:
        """Of one segment, from the first code on: a symbol cache counts from there."""
        code = [address for index, address in self._base.items() if self._headers["flags"][index] & SHF_EXECINSTR]
        start, end = min(code, default=0), max(code, default=0)
        return struct.pack("<IIQQQQQQ", PT_LOAD, 5, 0, start, start, 0, end - start, 4096)

    def _by_name(self, wanted: list[bool]) -> dict[str, int]:
        return {name: index for index, name in enumerate(self._names) if wanted[index]}

    def _content(self, header: np.void) -> bytes:
        if header["kind"] == SHT_NOBITS:
            return b""
        start, size = int(header["offset"]), int(header["size"])
        if start + size > len(self._data):
            raise InputError(f"{self._path}: cut short", hint=_WHOLE)
        return self._data[start : start + size]

    def _section_of_kind(self, kind: int) -> int:
        found = np.flatnonzero(self._headers["kind"] == kind)
        if not len(found):
            raise MissingError(f"{self._path}: no symbol table", hint="give the unstripped module of the -dbg package")
        return int(found[0])


def _relocate(content: bytearray, base: int, entries: NDArray[np.void], values: NDArray[np.uint64]) -> None:
    """Writes what each entry asks for into its section, all of one width at once."""
    if not len(content):
        return
    relative = np.isin(entries["kind"], _RELATIVE)
    target = values[entries["symbol"]] + entries["addend"].astype(np.uint64)
    place = entries["offset"] + np.uint64(base)
    result = np.where(relative, target - place, target).astype("<u8")
    view = np.frombuffer(content, np.uint8)
    for width in (4, 8):
        wanted = np.isin(entries["kind"], [kind for kind, size in _WIDTH.items() if size == width])
        at = entries["offset"][wanted].astype(np.int64)
        if len(at) and int(at.max()) + width > len(content):
            raise ValueError(f"a relocation lies at {int(at.max())} of {len(content)} bytes")
        octets = np.ascontiguousarray(result[wanted]).view(np.uint8).reshape(-1, 8)[:, :width]
        view[at[:, None] + np.arange(width)] = octets
