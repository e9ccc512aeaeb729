"""The recorder's kernel.log, or the text of `dmesg`, as records.

    <4>[   12.345678] whyerrno-load[812]: segfault at 0 ip ...
    <5>[   12.400000][  T812] audit: type=1326 audit(1700000000.123:45): ... pid=812 comm="whyerrno-load" ...
    whyerrno: the load begins, its threads are 812 813

The number in front is 8 times the facility, 0 for the kernel alone, plus the level. Anybody with the permission may
write to the log: what is not printable becomes an escape, and a line is cut at a length that no message of the kernel
has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

LONGEST = 1000
DEFAULT_LEVEL = 6  # where none is given, as dmesg's own text does
_RECORD = re.compile(
    r"(?:<(?P<level>\d{1,6})>)?\[\s*(?P<seconds>\d{1,12}\.\d{1,9})\](?:\[\s*(?P<by>[TC]\d{1,10})\])? ?(?P<text>.*)",
    re.S,
)
_REMARK = "whyerrno: "
_BEGINS = re.compile(r"the load begins, its threads are ([\d ]+)")


@dataclass(frozen=True, slots=True)
class Record:
    seconds: float  # since boot
    level: int  # 0 (emergency) to 7 (debug)
    text: str
    from_kernel: bool = True  # False of what a process wrote into the log
    thread: int = 0  # that logged it, where the kernel says so


@dataclass(frozen=True, slots=True)
class LoadBegins:
    """What comes after may be the doing of the calls."""

    threads: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Lost:
    """Records are missing here."""

    what: str


def read(lines: Iterable[str]) -> Iterator[Record | LoadBegins | Lost]:
    """What each line is. A line in no form of the log continues the record before it, and is left out."""
    for line in lines:
        match = _RECORD.match(line)
        if match is not None:
            by = match["by"] or ""
            thread = int(by[1:]) if by.startswith("T") else 0
            priority = int(match["level"] or DEFAULT_LEVEL)
            yield Record(float(match["seconds"]), priority & 7, printable(match["text"]), priority < 8, thread)
        elif line.startswith(_REMARK):
            begins = _BEGINS.match(line, len(_REMARK))
            yield LoadBegins(tuple(map(int, begins[1].split()))) if begins else Lost(printable(line[len(_REMARK) :]))


def printable(text: str) -> str:
    """`text` on one line: /dev/kmsg's own escapes of line breaks become spaces, other signs that could move a cursor
    escapes."""
    text = " ".join(text[:LONGEST].replace("\\x0a", " ").split())
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)
