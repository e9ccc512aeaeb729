"""C source to highlighted HTML, a line at a time, by Pygments.

Only a handful of token classes are kept, each one letter, so that long functions stay small.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup, escape

LONGEST_COMMENT = 80  # lines to look back for the start of a comment
LINES_AT_MOST = 6000  # beyond this a function is shown without colours; the lexer takes about 40 µs a line

_LETTERS = {
    "Comment.Preproc": "p",
    "Comment.PreprocFile": "s",
    "Comment": "c",
    "Keyword.Type": "t",
    "Keyword": "k",
    "Literal.Number": "m",
    "Literal.String": "s",
    "Name.Function": "f",
    "Name.Label": "b",
}


def highlight(lines: Sequence[str]) -> list[Markup]:
    """One piece of escaped markup a line, whatever the lines hold; none of them may contain a line break.

    The lines are lexed together, so that comments over several lines keep their colour.
    """
    return [_markup(row) for row in token_rows(lines)]


def highlight_part(lines: Sequence[str], start: int, stop: int) -> list[Markup]:
    """As `highlight`, of the lines from `start` to `stop` alone, a comment that is open there taken into account."""
    first = start
    while first > max(0, start - LONGEST_COMMENT):
        first -= 1
        opened, closed = lines[first].rfind("/*"), lines[first].rfind("*/")
        if opened > closed:
            return highlight(lines[first:stop])[start - first :]
        if closed >= 0:
            break
    return highlight(lines[start:stop])


def token_rows(lines: Sequence[str]) -> list[list[tuple[str, str]]]:
    """(class letter or "", text) pieces of each line; joined, a row's texts are the line."""
    if len(lines) <= LINES_AT_MOST:
        rows = _rows(_tokens("\n".join(lines)))
        if ["".join(text for _, text in row) for row in rows] == list(lines):
            return rows
    return [[("", line)] for line in lines]  # too long, or the lexer changed something: no colours


def _tokens(text: str) -> list[tuple[str, str]]:
    """(class letter or "", text) of each token."""
    from pygments.lexers.c_cpp import CLexer  # noqa: PLC0415  slow to import

    letters: dict[Any, str] = {}
    found = []
    for token, piece in CLexer(stripnl=False, ensurenl=False).get_tokens(text):
        if token not in letters:
            letters[token] = _letter(".".join(token))
        found.append((letters[token], piece))
    return found


def _letter(name: str) -> str:
    while name:
        if name in _LETTERS:
            return _LETTERS[name]
        name = name.rpartition(".")[0]
    return ""


def _rows(tokens: list[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    """The tokens split at line breaks; neighbours of one class are joined."""
    rows: list[list[tuple[str, str]]] = [[]]
    for letter, text in tokens:
        for number, part in enumerate(text.split("\n")):
            if number:
                rows.append([])
            if part and rows[-1] and rows[-1][-1][0] == letter:
                rows[-1][-1] = (letter, rows[-1][-1][1] + part)
            elif part:
                rows[-1].append((letter, part))
    return rows


def _markup(row: list[tuple[str, str]]) -> Markup:
    pieces = [f"<i class={letter}>{escape(text)}</i>" if letter else str(escape(text)) for letter, text in row]
    return Markup("".join(pieces))  # noqa: S704  each piece is escaped; Markup.format would take four times as long
