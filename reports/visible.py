"""Text from traces, made safe to show, and numbers as people read them.

Thread names, symbols, paths and source lines come from elsewhere and may hold anything: escape
sequences, line breaks, characters that reverse the direction of what follows. Here they turn into
printable text that shows what was there.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

NAME_LIMIT = 160  # longer than any kernel symbol (KSYM_NAME_LEN is 512, real ones stay below 100)
LINE_LIMIT = 400
PROSE_LIMIT = 2000


def visible(text: str, limit: int = NAME_LIMIT) -> str:
    """`text` with what is not printable as backslash escapes; at most `limit` characters of it, then an ellipsis."""
    clipped = text if len(text) <= limit else text[:limit] + "…"
    if clipped.isprintable():
        return clipped
    return "".join(char if char.isprintable() else _escape(char) for char in clipped)


def visible_source(text: str) -> str:
    """A source line: as `visible`, its tabs kept and trailing space dropped."""
    stripped = text.rstrip()
    return "\t".join(visible(part, LINE_LIMIT) for part in stripped[: 4 * LINE_LIMIT].split("\t"))


def prose(text: str) -> str:
    """A sentence: line breaks become spaces."""
    return visible(" ".join(text.split()), PROSE_LIMIT)


def _escape(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def place(file: str, line: int) -> str:
    """`file:line`, or as much of it as is known."""
    if not file:
        return "place unknown"
    return f"{visible(file)}:{line}" if line > 0 else visible(file)


def command_line(arguments: Sequence[str]) -> str:
    """An argument list as it would be typed into a shell."""
    return visible(shlex.join(arguments), PROSE_LIMIT)


def count(number: int) -> str:
    return f"{number:,}"


def counted(number: int, noun: str) -> str:
    """`1 sample`, `2 samples`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def percent(share: float) -> str:
    """A share from 0 to 1 as a percentage, precise where it is small, and never 100% or 0% by rounding alone."""
    value = 100 * share
    if value <= 0:
        return "0%"
    if value < 0.1:
        return "<0.1%"
    if value >= 99.95:
        return "100%" if share >= 1 else ">99.9%"
    return f"{value:.1f}%" if value < 10 or value > 95 else f"{value:.0f}%"


def interval(low: float, high: float) -> str:
    """A 95% interval of shares, as percentages."""
    return f"{100 * low:.1f}–{100 * high:.1f}%"
