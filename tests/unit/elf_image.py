"""Small ELF images for tests, written byte by byte."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

TEXT = 0xFFFFFFFF81000000
FUNC, NOTYPE, OBJECT = 2, 0, 1


@dataclass
class Image:
    """A 64-bit image with .text at TEXT, an exception table, notes and symbols (name, value, size, type, section)."""

    text: bytes = b"\x90" * 256
    notes: bytes = b""
    ex_table: bytes = b""
    jump_table: bytes = b""
    symbols: list[tuple[str, int, int, int]] = field(default_factory=list)
    machine: int = 62
    debug: bool = False
    altinstructions: bytes = b""

    def sections(self) -> list[tuple[str, int, int, int, bytes, int]]:
        """(name, type, flags, address, contents, link)"""
        strings = b"\0"
        table = bytes(24)
        for name, value, size, kind in self.symbols:
            section = 1 if value >= TEXT and value < TEXT + 0x1000 else 2
            table += struct.pack("<IBBHQQ", len(strings), 0x10 | kind, 0, section, value, size)
            strings += name.encode() + b"\0"
        found = [
            ("", 0, 0, 0, b"", 0),
            (".text", 1, 6, TEXT, self.text, 0),
            ("__ex_table", 1, 2, TEXT + 0x2000, self.ex_table, 0),
            ("__jump_table", 1, 2, TEXT + 0x3000, self.jump_table, 0),
            (".notes", 7, 2, TEXT + 0x4000, self.notes, 0),
            (".bss", 8, 2, TEXT + 0x5000, b"\0" * 64, 0),
        ]
        if self.altinstructions:
            found.append((".altinstructions", 1, 2, TEXT + 0x6000, self.altinstructions, 0))
        if self.debug:
            found.append((".debug_line", 1, 0, 0, b"lines", 0))
        if self.symbols:
            found += [(".symtab", 2, 0, 0, table, len(found) + 1), (".strtab", 3, 0, 0, strings, 0)]
        return [*found, (".shstrtab", 3, 0, 0, b"", 0)]

    def content(self) -> bytes:
        sections = self.sections()
        names = b"\0".join(name.encode() for name, *_ in sections) + b"\0"
        offset, body, headers, name_at = 64, b"", b"", 0
        for name, kind, flags, address, contents, link in sections:
            data = names if name == ".shstrtab" else contents
            stored = b"" if kind == 8 else data
            entry = 24 if kind == 2 else 0
            headers += struct.pack("<IIQQQQIIQQ", name_at, kind, flags, address, offset, len(data), link, 0, 1, entry)
            body += stored
            offset += len(stored)
            name_at += len(name) + 1
        ident = b"\x7fELF\x02\x01\x01" + bytes(9)
        count = len(sections)
        header = ident + struct.pack(
            "<HHIQQQIHHHHHH", 2, self.machine, 1, TEXT, 0, offset, 0, 64, 0, 0, 64, count, count - 1
        )
        return header + body + headers


def note(owner: bytes, kind: int, description: bytes) -> bytes:
    def pad(data: bytes) -> bytes:
        return data + bytes(-len(data) % 4)

    return struct.pack("<III", len(owner), len(description), kind) + pad(owner) + pad(description)
