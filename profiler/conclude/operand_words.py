"""Values as a person reads them: NULL, -ENOMEM, 0x80, 16."""

from __future__ import annotations

import errno
import re

from profiler.debuginfo.operands import signed
from profiler.debuginfo.operands_source import Expression

_LARGEST_ERRNO = 4095
_KERNEL_FROM = 0xFFFF_8000_0000_0000  # addresses of the kernel on x86-64
_RESULT = re.compile(r"(?:^|[>._])(?:err|error|ret|retval|rc|res|result|status)\w*(?:\[.*\])?$")
_BITS = re.compile(r"flags?\b|flg\b|mask\b|_mask|mode\b|prot\b|events?\b", re.IGNORECASE)
_SMALLEST_HEX = 10


def in_words(number: int, bits: int, *, pointer: bool = False, boolean: bool = False, flags: bool = False) -> str:
    """`number` as its type has it."""
    if boolean:
        return "true" if number else "false"
    word = number & ((1 << bits) - 1)
    if bits == 64 and (pointer or word >= _KERNEL_FROM):
        below = signed(word, 64)
        if -_LARGEST_ERRNO <= below < 0:
            return _error(below) if pointer else str(number if number < 0 else below)
        return hex(word) if word or not pointer else "NULL"
    if flags:
        return hex(word) if word >= _SMALLEST_HEX else str(word)
    return str(number)


def error_in_words(number: int, bits: int) -> str | None:
    """-ENOMEM for -12; None for what is no errno."""
    value = signed(number, bits)
    return _error(value) if -_LARGEST_ERRNO <= value < 0 else None


def _error(value: int) -> str:
    name = errno.errorcode.get(-value)
    return f"-{name}" if name else str(value)


def holds_errors(expression: Expression) -> bool:
    """Whether the source uses it for errors, by its name."""
    return expression.kind == "call" or bool(_RESULT.search(expression.text))


def holds_flags(expression: Expression, condition: Expression) -> bool:
    """Whether it is a set of bits: by its name, or because bits of it are asked for."""
    if _BITS.search(expression.text) or expression.operator == "&":
        return True
    return any(
        part.kind == "binary" and part.operator in ("&", "|", "^") and expression in part.parts
        for part in condition.walk()
    )
