"""QEMU's execution log, as `log exec,cpu,nochain` prints it with one instruction a block.

    Trace 0: 0x7f7a0c4000c0 [0000000000000000/ffffffff810f0f47/18c0c290/ff000201] symbol
    RAX=0000000000000001 RBX=000000000000000b RCX=000000000000b9c6 RDX=0000000000000568
    RSI=... RDI=... RBP=... RSP=...
    R8 =... R9 =... R10=... R11=...
    R12=... R13=... R14=... R15=...
    RIP=ffffffff810f0f47 RFL=00000046 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=0
    (15 more lines: segments, control registers, ...)

The second number in brackets is the instruction's address (the first is the code segment's base, and what
follows differs between versions of QEMU). The registers are those before the instruction. A block that was
announced and then not run is taken back:

    Stopped execution of TB chain before 0x7f7a0c4000c0 [ffffffff810f0f47]
"""

from __future__ import annotations

import re
from binascii import unhexlify
from collections.abc import Iterable, Iterator

import numpy as np

from profiler.model import DecodeError, ExecutionLog

_LINES = (
    ("RAX", "RBX", "RCX", "RDX"),
    ("RSI", "RDI", "RBP", "RSP"),
    ("R8 ", "R9 ", "R10", "R11"),
    ("R12", "R13", "R14", "R15"),
)  # the order of LOGGED_REGISTERS
_HEX = "([0-9a-f]{16})"
_REGISTERS = r"\n".join(" ".join(f"{name}={_HEX}" for name in names) for names in _LINES)
# Trace 0: 0x7f7a0c4000c0 [0000000000000000/ffffffff810f0f47/18c0c290/ff000201] symbol
_TRACE = rf"Trace [^\n\[]*\[(?:[0-9a-f]+/)?{_HEX}[/\]][^\n]*\n"
# Stopped execution of TB chain before 0x7f7a0c4000c0 [ffffffff810f0f47] symbol
_STOPPED = rf"Stopped execution of TB chain before [^\n\[]*\[{_HEX}\]"
_RECORD = re.compile(
    rf"^(?:{_TRACE}{_REGISTERS}\nRIP=[0-9a-f]{{16}} RFL=([0-9a-f]{{8}}) |{_STOPPED})".encode(), re.MULTILINE
)
_HEAD = re.compile(rb"^(?:Trace|Stopped) [^\n]*", re.MULTILINE)
_ADDRESS, _RAX, _FLAGS, _TAKEN_BACK = 1, 2, 18, 19  # groups of _RECORD
_ROW = np.dtype([("address", ">u8"), ("registers", ">u8", 16), ("flags", ">u4")])
_PIECE = 1 << 18


def read(
    lines: Iterable[bytes],
    *,
    entry: int,
    number: int,
    calls: int,
    most: int = 2_000_000,
    enough: int | None = None,
) -> ExecutionLog:
    """The instructions of `calls` whole calls, from the first one's entry on.

    lines   the log: lines, or pieces cut anywhere
    entry   where every system call enters the kernel (entry_SYSCALL_64), as loaded
    number  of the system call; a call is whole when the kernel is next entered by one, of whatever number
    most    instructions, after which it ends too
    enough  instructions after which it ends too where one whole call is in; by default as `most`

    No more is taken from `lines` than needed. Where the log ends first, the last call may be cut short.
    Malformed records are counted in the result's `decode_errors`.
    """
    enough = most if enough is None else min(enough, most)
    rows = _Rows(b"%016x" % entry, number, calls, most * _ROW.itemsize, enough * _ROW.itemsize)
    errors: list[DecodeError] = []
    for record in _records(lines, errors):
        if rows.add(record):
            break
    table = np.frombuffer(bytes(rows.data), _ROW)
    return ExecutionLog(
        address=table["address"].astype(np.uint64),
        registers=table["registers"].astype(np.uint64),
        flags=table["flags"].astype(np.uint32),
        decode_errors=tuple(errors),
    )


class _Rows:
    """Rows as they are stored, from the first wanted call on."""

    def __init__(self, entry: bytes, number: int, calls: int, most: int, enough: int) -> None:
        self.data = bytearray()
        self._entry = entry
        self._number = number
        self._calls = calls
        self._most = most
        self._enough = enough
        self._has_whole_call = False
        self._in_call = False

    def add(self, record: re.Match[bytes]) -> bool:
        """Whether this was the last that is needed."""
        address = record[_ADDRESS]
        if address is None:
            self._take_back(record[_TAKEN_BACK])
            return False
        if address == self._entry:
            self._calls -= self._in_call
            self._has_whole_call = self._has_whole_call or self._in_call
            self._in_call = int(record[_RAX], 16) & 0xFFFFFFFF == self._number
            if self._calls <= 0:
                return True
        if self._in_call or self.data:
            self.data += unhexlify(b"".join(record.groups()[:_FLAGS]))
        return len(self.data) >= (self._enough if self._has_whole_call else self._most)

    def _take_back(self, address: bytes) -> None:
        last = self.data[-_ROW.itemsize :]
        if last[:8] == unhexlify(address):
            del self.data[-_ROW.itemsize :]
            if address == self._entry:
                self._in_call = False


def _records(lines: Iterable[bytes], errors: list[DecodeError]) -> Iterator[re.Match[bytes]]:
    offset = 0
    waiting: list[bytes] = []
    size = 0
    for piece in lines:
        waiting.append(piece)
        size += len(piece)
        if size >= _PIECE:
            text = b"".join(waiting)
            end = _last_head(text) or size  # the last record may go on in the next piece
            yield from _whole(text[:end], offset, errors)
            offset += end
            waiting = [text[end:]]
            size -= end
    text = b"".join(waiting)
    end = _last_head(text)
    yield from _whole(text[:end], offset, errors)
    yield from _RECORD.finditer(text[end:])  # perhaps cut short, which is no error


def _last_head(text: bytes) -> int:
    return max(text.rfind(b"\nTrace "), text.rfind(b"\nStopped ")) + 1


def _whole(text: bytes, offset: int, errors: list[DecodeError]) -> Iterator[re.Match[bytes]]:
    good = list(_RECORD.finditer(text))
    heads = text.count(b"\nTrace ") + text.count(b"\nStopped ") + text.startswith((b"Trace ", b"Stopped "))
    if heads != len(good):
        starts = {record.start() for record in good}
        for head in _HEAD.finditer(text):
            if head.start() not in starts:
                what = f"no registers as expected after {head[0][:80].decode('ascii', 'replace')!r}"
                errors.append(DecodeError(offset + head.start(), what))
    elif not heads and text:
        errors.append(DecodeError(offset, f"{len(text)} bytes that are no execution log"))
    yield from good
