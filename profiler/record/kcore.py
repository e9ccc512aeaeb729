"""The running kernel's text, as patched for this machine, out of /proc/kcore.

/proc/kcore is an ELF core file of the kernel's address space (fs/proc/kcore.c): a 64-bit ELF header, then one
PT_LOAD program header for each range of kernel addresses.
"""

import struct
import zlib

from profiler.errors import RecordError

PATH = "/proc/kcore"
PT_LOAD = 1
LARGEST_TEXT = 256 << 20  # bytes; a sane bound on _etext - _stext


def read_text(start: int, end: int, path: str = PATH) -> bytes:
    """The bytes of kernel addresses `start` to `end`. Raises RecordError where they cannot be had."""
    if not 0 < end - start <= LARGEST_TEXT:
        raise RecordError(f"the kernel's text cannot be {end - start} bytes long")
    try:
        with open(path, "rb") as file:
            offset = _file_offset(file.read(64 + 56 * 512), start, end)
            file.seek(offset)
            text = file.read(end - start)
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}") from error
    if len(text) != end - start:
        raise RecordError(f"{path} gave {len(text)} of {end - start} bytes of the kernel's text")
    return text


def compress(text: bytes, path: str) -> None:
    with open(path, "wb") as file:
        file.write(zlib.compress(text, 1))  # level 1: under emulation 1 s, and the higher ones much longer


def _file_offset(head: bytes, start: int, end: int) -> int:
    if len(head) < 64 or head[:5] != b"\x7fELF\x02":
        raise RecordError(f"{PATH} is not a 64-bit ELF file")
    (headers,) = struct.unpack_from("=Q", head, 32)
    size, count = struct.unpack_from("=HH", head, 54)
    for index in range(count):
        place = headers + index * size
        if place + 56 > len(head):
            break
        kind, _, offset, address, _, length = struct.unpack_from("=IIQQQQ", head, place)
        if kind == PT_LOAD and address <= start and end <= address + length:
            return int(offset + start - address)
    raise RecordError(f"{PATH} has no range that holds the kernel's text")
