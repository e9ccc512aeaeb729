"""A relocatable ELF file as a kernel module is one, made by hand: sections, symbols, relocations."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

PROGBITS, SYMTAB, STRTAB, RELA, NOTE, NOBITS = 1, 2, 3, 4, 7, 8
ALLOC, EXEC = 2, 4
LOCAL_FUNC, GLOBAL_FUNC, GLOBAL_NOTYPE = 0x02, 0x12, 0x10
ABS64, PC32, PLT32, ABS32S = 1, 2, 4, 11
BUILD_ID = "35d4c0de" * 5


@dataclass
class Relocatable:
    """`sections` name → (kind, flags, content); `symbols` (name, info, section or "" for undefined, value, size);
    `relocations` section → [(offset, kind, symbol, addend)]."""

    sections: dict[str, tuple[int, int, bytes]]
    symbols: list[tuple[str, int, str, int, int]] = field(default_factory=list)
    relocations: dict[str, list[tuple[int, int, str, int]]] = field(default_factory=dict)
    machine: int = 62

    def write(self, path: Path) -> Path:
        path.write_bytes(self.content())
        return path

    def content(self) -> bytes:
        note = struct.pack("<III", 4, 20, 3) + b"GNU\0" + bytes.fromhex(BUILD_ID)
        parts = [("", 0, 0, b"", 0, 0), (".note.gnu.build-id", NOTE, ALLOC, note, 0, 0)]
        parts += [(name, kind, flags, content, 0, 0) for name, (kind, flags, content) in self.sections.items()]
        at = {name: index for index, (name, *_) in enumerate(parts)}
        symtab = len(parts) + len(self.relocations)
        for name, entries in self.relocations.items():
            parts.append((f".rela{name}", RELA, 0, self._entries(entries), symtab, at[name]))
        strings = b"\0" + b"".join(name.encode() + b"\0" for name, *_ in self.symbols)
        rows, offset = bytes(24), 1
        for name, info, section, value, size in self.symbols:
            rows += struct.pack("<IBBHQQ", offset, info, 0, at[section] if section else 0, value, size)
            offset += len(name) + 1
        parts += [(".symtab", SYMTAB, 0, rows, symtab + 1, 1), (".strtab", STRTAB, 0, strings, 0, 0)]
        return self._file(parts)

    def _entries(self, entries: list[tuple[int, int, str, int]]) -> bytes:
        index = {name: number for number, (name, *_) in enumerate(self.symbols, 1)}
        return b"".join(
            struct.pack("<QIIq", offset, kind, index[name], addend) for offset, kind, name, addend in entries
        )

    def _file(self, parts: list[tuple[str, int, int, bytes, int, int]]) -> bytes:
        names = b"".join(name.encode() + b"\0" for name, *_ in parts) + b".shstrtab\0"
        parts = [*parts, (".shstrtab", STRTAB, 0, names, 0, 0)]
        body, headers, offset = b"", b"", 0
        for name, kind, flags, content, link, info in parts:
            stored = b"" if kind == NOBITS else content
            headers += struct.pack(
                "<IIQQQQIIQQ", offset, kind, flags, 0, 64 + len(body), len(content), link, info, 1, 24 if link else 0
            )
            body += stored
            offset += len(name) + 1
        identity = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
        sizes = (64, 0, 0, 64, len(parts), len(parts) - 1)
        head = identity + struct.pack("<HHIQQQIHHHHHH", 1, self.machine, 1, 0, 0, 64 + len(body), 0, *sizes)
        return head + body + headers
