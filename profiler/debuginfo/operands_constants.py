"""Named constants of the kernel's source: object-like macros, found through the headers that a file includes."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Mapping
from typing import Protocol

from profiler.debuginfo.c_text import without_comments
from profiler.debuginfo.operands_source import Expression, Number, evaluate, parse

# #define O_NONBLOCK 00004000   (continued lines joined before)
_DEFINITION = r"^[ \t]*#[ \t]*define[ \t]+{}(?![\w(])[ \t]*(.*)$"
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+[<"]([^>"\n]+)[>"]', re.MULTILINE)
_CONTINUED = re.compile(r"\\\n")
_ROOTS = ("include", "arch/x86/include", "include/uapi", "arch/x86/include/uapi")
_MOST_FILES = 1500
_DEEPEST = 8  # macros that stand for macros
_NAME = re.compile(r"[A-Za-z_]\w*")
_BIT = ("BIT", "_BITUL", "BIT_ULL", "_BITULL")


class Source(Protocol):
    """profiler.debuginfo.source.SourceTree"""

    def text(self, file: str) -> list[str] | None: ...


class Constants:
    """What the names in one file stand for. `enumerators` are known besides."""

    def __init__(self, source: Source | None, file: str, enumerators: Mapping[str, int]) -> None:
        self._source = source
        self._file = file
        self._enumerators = enumerators
        self._bodies: dict[str, str | None] = {}
        self._texts: list[str] = []
        self._pending = [file]
        self._seen = {file}

    def number(self, name: str, depth: int = _DEEPEST) -> Number | None:
        """None for what is no constant, or not found; where a header defines it twice, the first counts, if both
        say the same."""
        if name in self._enumerators:
            return Number(self._enumerators[name])
        if not name.isupper():  # most likely a variable: to find that no header defines it takes half a second
            return None
        body = self.body(name)
        if body is None:
            code = getattr(errno, name, None) if name.startswith("E") else None
            return Number(code) if isinstance(code, int) else None
        expression = parse(body) if body and depth else None
        return evaluate(expression, lambda inner: self._inner(inner, depth - 1)) if expression is not None else None

    def _inner(self, expression: Expression, depth: int) -> Number | None:
        if expression.kind == "call" and expression.operator in _BIT and len(expression.parts) == 1:
            by = evaluate(expression.parts[0], lambda inner: self._inner(inner, depth))
            return Number.of(1 << by.value, 64, False) if by is not None and 0 <= by.value < 64 else None
        plain = expression.kind == "name" and _NAME.fullmatch(expression.text)
        return self.number(expression.text, depth) if plain else None

    def body(self, name: str) -> str | None:
        """What a macro without parameters stands for, as text; None where there is none, or there are several."""
        if name not in self._bodies:
            self._bodies[name] = self._find(name)
        return self._bodies[name]

    def _find(self, name: str) -> str | None:
        if not _NAME.fullmatch(name):
            return None
        definition = re.compile(_DEFINITION.format(name), re.MULTILINE)
        for text in self._reached():
            if name in text:
                found = {" ".join(without_comments(body).split()) for body in definition.findall(text)}
                if found:
                    return found.pop() if len(found) == 1 else None
        return None

    def _reached(self) -> Iterator[str]:
        """The text of the file and of what it includes, the nearest first; read as far as it is asked for."""
        at = 0
        while at < len(self._texts) or self._read_on():
            yield self._texts[at]
            at += 1

    def _read_on(self) -> bool:
        """Reads one file more, if there is one."""
        while self._pending and len(self._texts) < _MOST_FILES and self._source is not None:
            file = self._pending.pop(0)
            lines = self._source.text(file)
            if lines is None:
                continue
            text = _CONTINUED.sub(" ", "\n".join(lines))
            self._texts.append(text)
            for included in _INCLUDE.findall(text):
                new = [path for path in _places(included, file) if path not in self._seen]
                self._seen.update(new)
                self._pending += new
            return True
        return False


def _places(included: str, file: str) -> list[str]:
    """Where an included file may lie. Headers of asm/ that an architecture lacks are generated: they include those of
    asm-generic/."""
    names = [included, included.replace("asm/", "asm-generic/", 1)] if included.startswith("asm/") else [included]
    found = [f"{root}/{name}" for name in names for root in _ROOTS]
    return [f"{file.rpartition('/')[0]}/{included}", *found] if ".." not in included else []
