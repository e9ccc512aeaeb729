"""One function of a C file made ready by itself: of a file of 5,000 lines the other 4,950 need not be parsed.

The kernel's style is relied on: a definition's closing brace begins a line. Where a slice does not hold what was looked
for, the whole file is made ready instead.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from functools import cached_property

from profiler.debuginfo.c_functions import FunctionText, SourceFile
from profiler.debuginfo.c_preprocessor import Config, evaluate

CONDITIONAL = re.compile(r"^[ \t]*#[ \t]*(if|ifdef|ifndef|elif|else|endif)\b((?:[^\n]*\\\n)*[^\n]*)", re.MULTILINE)
COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)|//[^\n]*", re.DOTALL)
CLOSING = re.compile(r"^\}", re.MULTILINE)


class _Slice(SourceFile):
    """A piece of a file that begins at line `first`."""

    def __init__(self, lines: list[str], config: Config | None, first: int) -> None:
        super().__init__(lines, config)
        self._first = first

    def line_of(self, offset: int) -> int:
        return super().line_of(offset) + self._first - 1


class SlicedFile:
    """A file whose functions are taken out one by one, by the lines where an index says that they begin."""

    def __init__(self, text: str, config: Config | None) -> None:
        self._text, self._config = text, config

    def function(self, name: str, lines: list[int]) -> tuple[SourceFile, FunctionText] | None:
        """The definition that is compiled, with the text to parse it from; `lines` are where definitions begin."""
        for line in lines:
            if self._is_compiled(line):
                found = self._sliced(name, line)
                if found is not None:
                    return found
        if lines and not any(map(self._is_compiled, lines)):
            return None
        whole = self._whole.find(name, lines[0] if lines else 0)
        return (self._whole, whole) if whole is not None else None

    def _sliced(self, name: str, line: int) -> tuple[SourceFile, FunctionText] | None:
        start = self._starts[line - 1] if line <= len(self._starts) else len(self._text)
        end = CLOSING.search(self._text, start)
        if end is None:
            return None
        piece = self._text[start : end.end()]
        words = [match[1] for match in CONDITIONAL.finditer(piece)]
        if sum(word.startswith("if") for word in words) != words.count("endif"):
            return None  # a head or an end that lies within #if
        source = _Slice(piece.split("\n"), self._config, line)
        found = source.find(name, line)
        return (source, found) if found is not None else None

    @cached_property
    def _whole(self) -> SourceFile:
        return SourceFile(self._text.split("\n"), self._config)

    @cached_property
    def _starts(self) -> list[int]:
        return [0] + [match.end() for match in re.finditer("\n", self._text)]

    def _is_compiled(self, line: int) -> bool:
        """Whether no #if around the line is known to leave it out."""
        row = bisect_right(self._states, (line, True)) - 1
        return row < 0 or self._states[row][1]

    @cached_property
    def _states(self) -> list[tuple[int, bool]]:
        """(line, whether what follows it may be compiled), at each conditional directive."""
        states: list[tuple[int, bool]] = []
        stack: list[tuple[bool, bool]] = []  # (this arm may be compiled, an earlier or this arm surely is)
        for match in CONDITIONAL.finditer(self._text):
            word, rest = match[1], COMMENT.sub(" ", match[2]).strip()
            if word == "endif":
                stack = stack[:-1]
            elif word.startswith("if"):
                value = self._value(word, rest)
                stack.append((value is not False, value is True))
            elif stack:
                decided = stack[-1][1]
                value = self._value(word, rest)
                stack[-1] = (value is not False and not decided, decided or value is True)
            states.append((bisect_right(self._starts, match.start()), all(arm for arm, _ in stack)))
        return states

    def _value(self, word: str, rest: str) -> bool | None:
        if word == "else":
            return True
        if word in ("ifdef", "ifndef"):
            return evaluate(("!" if word == "ifndef" else "") + f"defined({rest})", self._config)
        return evaluate(rest, self._config)
