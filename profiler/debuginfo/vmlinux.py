"""A kernel image with symbols: functions, bytes, exception fixups and static branches by address.

Addresses are link addresses, as in the ELF file; the caller takes the KASLR offset off first.
Formats: System V ABI (gABI) chapter 4 for ELF, `include/asm/extable.h` and `include/linux/jump_label.h`
of the kernel for the two tables.
"""

from __future__ import annotations

import mmap
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

import numpy as np
from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from numpy.typing import NDArray

from profiler.debuginfo.functions import Function, FunctionTable, decode_name
from profiler.errors import InputError, MismatchError, MissingError

SHF_ALLOC, SHF_EXECINSTR, SHF_COMPRESSED = 0x2, 0x4, 0x800
SHT_NOBITS, SHT_NOTE = 8, 7
NT_GNU_BUILD_ID = 3
MACHINES = {"EM_X86_64": "x86_64", "EM_AARCH64": "aarch64"}  # as `uname -m` has them
LARGEST_READ = 64 << 20
_GIVE_A_WHOLE_ONE = "give the unpacked vmlinux of the kernel's -dbg package, whole"

SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"), ("size", "<u8")]
)  # Elf64_Sym, 24 bytes


@dataclass(frozen=True, slots=True)
class Section:
    """A section that occupies memory, or that holds symbols."""

    name: str
    kind: int  # sh_type
    flags: int
    address: int
    offset: int  # bytes into the file
    size: int
    link: int  # sh_link: for a symbol table, the index of its strings


@dataclass(frozen=True, slots=True)
class JumpEntry:
    """A static branch: a patchable no-op or jump, and the key that decides it."""

    address: int
    target: int
    key: int  # address of the struct static_key
    likely: bool  # DEFINE_STATIC_KEY_TRUE or likely: the sense of the branch at this place


class Vmlinux:
    """A vmlinux for x86-64 or AArch64, mapped into memory.

    Raises InputError on a file that is not a 64-bit little-endian ELF image for one of them or is cut short,
    MissingError where there is no such file or it has no symbol table.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._map = _map_file(self.path)
        try:
            self.machine, self._sections = _sections(self.path, self._map)
        except BaseException:
            self._map.close()
            raise
        self._allocated = sorted((s for s in self._sections if s.flags & SHF_ALLOC and s.size), key=_by_address)
        self._starts = [s.address for s in self._allocated]

    def close(self) -> None:
        self._map.close()

    def __enter__(self) -> Vmlinux:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    # ---- identity ----

    @cached_property
    def build_id(self) -> str:
        """Hex digits of the GNU build-id note. Raises MissingError where there is none."""
        for section in self._sections:
            if section.kind == SHT_NOTE:
                found = _gnu_build_id(self._bytes(section))
                if found:
                    return found
        raise MissingError(
            f"{self.path}: no build id", hint="link the kernel with --build-id, the default since 2.6.24"
        )

    def check_build_id(self, expected: str) -> None:
        """Raises MismatchError unless this is the image with build id `expected` (hex)."""
        if self.build_id != expected.lower():
            raise MismatchError(
                f"{self.path}: build id {self.build_id} is not {expected}",
                hint="this vmlinux is of another kernel than the one recorded; give the one of exactly that package",
            )

    @property
    def has_lines(self) -> bool:
        """Whether there is DWARF line information."""
        return any(s.name in (".debug_line", ".zdebug_line") and s.size for s in self._sections)

    def require_lines(self) -> None:
        """Raises MissingError on an image without debug info."""
        if not self.has_lines:
            raise MissingError(
                f"{self.path}: no debug info", hint="install the kernel's -dbg package, or build with CONFIG_DEBUG_INFO"
            )

    # ---- bytes ----

    def read(self, address: int, size: int) -> bytes:
        """The bytes at a link address, all within one section that has contents.

        Raises InputError where the range is not in the file or is larger than 64 MiB.
        """
        if 0 <= size <= LARGEST_READ:
            section = self._section_of(address)
            if section is not None and section.kind != SHT_NOBITS and address + size <= section.address + section.size:
                offset = section.offset + address - section.address
                return bytes(self._map[offset : offset + size])
        raise InputError(f"{self.path}: holds no {size} bytes at {address:#x}")

    @cached_property
    def text_range(self) -> tuple[int, int]:
        """From `_stext` up to `_etext`: the kernel's own text without that of its initialisation."""
        return self.symbol_address("_stext"), self.symbol_address("_etext")

    def section(self, name: str) -> tuple[int, bytes] | None:
        """The address and the contents of a section that occupies memory; None where there is none of that name."""
        found = next((s for s in self._allocated if s.name == name and s.kind != SHT_NOBITS), None)
        return (found.address, self._bytes(found)) if found is not None else None

    def file_ranges(self, names: frozenset[str]) -> dict[str, tuple[int, int]]:
        """Where the contents of sections lie in `mapped`, and how many bytes they have, by name; compressed ones and
        those that are not there are left out."""
        return {
            s.name: (s.offset, s.size)
            for s in self._sections
            if s.name in names and s.size and not s.flags & SHF_COMPRESSED
        }

    @property
    def mapped(self) -> mmap.mmap:
        """The whole file."""
        return self._map

    # ---- symbols ----

    @cached_property
    def functions(self) -> FunctionTable:
        """Every function with its range, by start address. See `FunctionTable`."""
        executable = np.zeros(len(self._sections), dtype=bool)
        for index, section in enumerate(self._sections):
            executable[index] = bool(section.flags & SHF_ALLOC and section.flags & SHF_EXECINSTR)
        symbols, strings = self._symbols
        ends = {s.address + s.size for s in self._allocated if s.flags & SHF_EXECINSTR}
        return FunctionTable.from_symbols(symbols, strings, executable, sorted(ends))

    def function_at(self, address: int) -> Function | None:
        """The innermost function whose range holds an address."""
        return self.functions.at(address)

    def functions_named(self, name: str) -> list[Function]:
        """All functions of this name: static functions of different files may share one."""
        return self.functions.named(name)

    def pieces_of(self, name: str) -> list[Function]:
        """The functions of this name and what the compiler split off or cloned from it: `.cold`, `.part.0`, ..."""
        return self.functions.pieces_of(name)

    def symbol_address(self, name: str) -> int:
        """The address of any symbol. Raises MissingError where there is none of that name."""
        address = self.find_symbol(name)
        if address is None:
            raise MissingError(f"{self.path}: no symbol {name}", hint="is this the vmlinux of a whole kernel?")
        return address

    def find_symbol(self, name: str) -> int | None:
        """The address of any symbol, None where there is none of that name."""
        return self._symbol_addresses.get(name)

    @cached_property
    def _symbol_addresses(self) -> dict[str, int]:
        symbols, strings = self._symbols
        defined = symbols[(symbols["section"] != 0) & (symbols["name"] != 0) & ((symbols["info"] & 0xF) < 3)]
        return {
            decode_name(strings, offset): value
            for offset, value in zip(defined["name"].tolist(), defined["value"].tolist(), strict=True)
        }

    @cached_property
    def _symbols(self) -> tuple[NDArray[np.void], bytes]:
        for section in self._sections:
            if section.name == ".symtab" and section.size >= SYMBOL.itemsize and section.link < len(self._sections):
                data = self._bytes(section)
                count = len(data) // SYMBOL.itemsize
                return np.frombuffer(data, SYMBOL, count), self._bytes(self._sections[section.link])
        raise MissingError(f"{self.path}: no symbol table", hint="give the unstripped vmlinux of the -dbg package")

    # ---- tables ----

    def exception_table(self) -> dict[int, int]:
        """Address of each instruction that may fault on user memory → address where it goes on then.

        Entries are 12 bytes: instruction and fixup, each relative to its own field, and a third word.
        """
        start, words = self._relative_table("__start___ex_table", "__stop___ex_table", 3)
        at = start + 12 * np.arange(len(words), dtype=np.int64)
        return dict(zip(_unsigned(at + words[:, 0]), _unsigned(at + 4 + words[:, 1]), strict=True))

    def fault_words(self) -> dict[int, int]:
        """By the address of each instruction that may fault, what the handler does besides: a word of the architecture.

        {} up to Linux 5.15, where the exception table's third word says where the handler is.
        """
        start, words = self._relative_table("__start___ex_table", "__stop___ex_table", 3)
        at = start + 12 * np.arange(len(words), dtype=np.int64)
        third = words[:, 2]
        if np.isin((at + 8 + third).astype(np.uint64), self.functions.start).all():
            return {}
        return dict(zip(_unsigned(at + words[:, 0]), third.tolist(), strict=True))

    def warnings(self) -> frozenset[int] | None:
        """Addresses of the traps of WARN(), behind which the kernel goes on; of others (BUG()) it does not.

        None where the image has no bug table. An entry begins with the trap's address, relative to itself, and
        ends with flags, bit 0 of which means WARN(); between them are file and line, and the format in newer
        kernels, so that it has 12 or 16 bytes: that many with which every entry leads to code.
        """
        for words in (3, 4):
            start, table = self._relative_table("__start___bug_table", "__stop___bug_table", words)
            traps = start + 4 * words * np.arange(len(table), dtype=np.int64) + table[:, 0]
            if len(table) and all(self._is_code(address) for address in _unsigned(traps)):
                return frozenset(_unsigned(traps[(table[:, -1] >> 16 & 1) == 1]))
        return None

    def alternatives(self) -> frozenset[int]:
        """AArch64: addresses of the code that the kernel may replace as it boots, by what the processor can do.

        Entries are 12 bytes and begin with the code's address, relative to itself (include/asm/alternative.h).
        """
        section = next((s for s in self._allocated if s.name == ".altinstructions"), None)
        if section is None or self.machine != "aarch64":
            return frozenset()
        words = np.frombuffer(self._bytes(section), "<i4", section.size // 12 * 3).reshape(-1, 3)
        starts = np.uint64(section.address).astype(np.int64) + 12 * np.arange(len(words), dtype=np.int64)
        return frozenset(_unsigned(starts + words[:, 0]))

    def _is_code(self, address: int) -> bool:
        section = self._section_of(address)
        return section is not None and bool(section.flags & SHF_EXECINSTR)

    def jump_table(self) -> dict[int, JumpEntry]:
        """Static branches by the address of their instruction.

        Entries are 16 bytes: code and target (relative, 32 bits) and the key (relative, 64 bits, bit 0
        the sense of the branch, bit 1 set for code of initialisation).
        """
        start, words = self._relative_table("__start___jump_table", "__stop___jump_table", 4)
        at = start + 16 * np.arange(len(words), dtype=np.int64)
        # .view needs the two words of a key side by side in memory
        keys = np.ascontiguousarray(words[:, 2:]).astype("<i4").view("<i8")[:, 0] if len(words) else at
        entries = zip(
            _unsigned(at + words[:, 0]),
            _unsigned(at + 4 + words[:, 1]),
            _unsigned(at + 8 + (keys & ~3)),
            (keys & 1).tolist(),
            strict=True,
        )
        return {code: JumpEntry(code, target, key, bool(sense)) for code, target, key, sense in entries}

    def _relative_table(self, first: str, last: str, words: int) -> tuple[np.int64, NDArray[np.int64]]:
        """The start address (signed) and the 32-bit words of a table between two symbols, one row an entry."""
        start, stop = self.find_symbol(first), self.find_symbol(last)
        if start is None or stop is None or stop <= start:
            return np.int64(0), np.zeros((0, words), np.int64)
        data = self.read(start, (stop - start) // (4 * words) * 4 * words)
        signed = np.uint64(start).astype(np.int64)
        return signed, np.frombuffer(data, "<i4").reshape(-1, words).astype(np.int64)

    def _section_of(self, address: int) -> Section | None:
        index = bisect_right(self._starts, address) - 1
        if index < 0:
            return None
        section = self._allocated[index]
        return section if address < section.address + section.size else None

    def _bytes(self, section: Section) -> bytes:
        return bytes(self._map[section.offset : section.offset + section.size])


def _by_address(section: Section) -> int:
    return section.address


def _unsigned(values: NDArray[np.int64]) -> list[int]:
    result: list[int] = values.astype(np.uint64).tolist()
    return result


def _map_file(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise MissingError(f"{path}: no such file", hint="give a vmlinux with debug info") from None
    except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        raise InputError(f"{path}: cannot be read: {error}", hint=_GIVE_A_WHOLE_ONE) from error


def _sections(path: Path, data: mmap.mmap) -> tuple[str, list[Section]]:
    if data[:4] != b"\x7fELF":
        what = "a compressed kernel image" if data[:2] in (b"MZ", b"\x1f\x8b") else "not an ELF file"
        raise InputError(
            f"{path}: {what}", hint="give the vmlinux of the kernel's -dbg package, not vmlinuz or bzImage"
        )
    try:
        elf: Any = ELFFile(cast(IO[bytes], data))
        machine = MACHINES.get(elf["e_machine"])
        if elf.elfclass != 64 or not elf.little_endian or machine is None:
            raise InputError(
                f"{path}: built for {elf.get_machine_arch()}", hint="only x86-64 and AArch64 kernels are read"
            )
        sections = [_section(section) for section in elf.iter_sections()]
    except (ELFError, ValueError, KeyError, AttributeError, TypeError, UnicodeDecodeError, OverflowError) as error:
        raise InputError(f"{path}: damaged ELF file: {error}", hint=_GIVE_A_WHOLE_ONE) from error
    for section in sections:
        if section.kind != SHT_NOBITS and section.offset + section.size > len(data):
            raise InputError(
                f"{path}: section {section.name} ends at {section.offset + section.size}, the file at {len(data)}",
                hint="the file is cut short; unpack it again",
            )
    return machine, sections


SECTION_KINDS = {"SHT_NULL": 0, "SHT_NOBITS": SHT_NOBITS, "SHT_NOTE": SHT_NOTE}


def _section(section: Any) -> Section:
    header = section.header
    return Section(
        name=section.name,
        kind=SECTION_KINDS.get(header["sh_type"], -1),
        flags=header["sh_flags"],
        address=header["sh_addr"],
        offset=header["sh_offset"],
        size=0 if header["sh_type"] == "SHT_NULL" else header["sh_size"],
        link=header["sh_link"],
    )


def _gnu_build_id(notes: bytes) -> str | None:
    """Walks notes: three words (name size, description size, type), then both, each padded to 4 bytes."""
    at = 0
    while at + 12 <= len(notes):
        name_size, size, kind = (int.from_bytes(notes[at + i : at + i + 4], "little") for i in (0, 4, 8))
        name = at + 12
        description = name + (name_size + 3 & ~3)
        # other owners use type 3 too (Xen's notes stand first in a kernel's)
        if kind == NT_GNU_BUILD_ID and notes[name : name + name_size] == b"GNU\0":
            return notes[description : description + size].hex()
        at = description + (size + 3 & ~3)
    return None
