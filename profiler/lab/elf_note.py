"""The GNU build id: from a kernel's vmlinux, and from the note bytes that a running kernel shows.

Notes: elf(5), "Notes (Nhdr)". A note is name size, description size and type (32 bits each), then name and
description, each padded to 4 bytes; the build id is type 3 of the name "GNU".
"""

from __future__ import annotations

import struct
from pathlib import Path

_BUILD_ID = 3
_NOTE_SEGMENT = 4  # PT_NOTE


def of_file(path: Path) -> str:
    """Build id of a little-endian 64-bit ELF file, in hex; "" where it has none or is something else."""
    with path.open("rb") as file:
        header = file.read(64)
        if len(header) < 64 or header[:6] != b"\x7fELF\x02\x01":
            return ""
        (table,) = struct.unpack_from("<Q", header, 32)  # e_phoff
        size, count = struct.unpack_from("<HH", header, 54)  # e_phentsize, e_phnum
        file.seek(table)
        segments = file.read(size * count)
        for at in range(0, len(segments) - 55, max(size, 56)):
            kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", segments, at)
            if kind == _NOTE_SEGMENT:
                file.seek(offset)
                if found := of_notes(file.read(min(length, 1 << 16))):
                    return found
    return ""


def of_running_kernel() -> str:
    """Build id of the kernel that runs this machine; "" where it cannot be read."""
    try:
        return of_notes(Path("/sys/kernel/notes").read_bytes())
    except OSError:
        return ""


def of_notes(data: bytes) -> str:
    at = 0
    while at + 12 <= len(data):
        name_size, size, kind = struct.unpack_from("<III", data, at)
        name = at + 12
        description = name + (name_size + 3 & ~3)
        end = description + size
        if end > len(data):
            return ""
        if kind == _BUILD_ID and data[name : name + name_size] == b"GNU\0":
            return data[description:end].hex()
        at = description + (size + 3 & ~3)
    return ""
