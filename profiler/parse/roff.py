r"""The source of a manual page, man(7) macros, as blocks of plain text.

    .TP
    .BR EAGAIN " or " EWOULDBLOCK

is a `TAG` block "EAGAIN or EWOULDBLOCK"; what hangs under it are `TEXT` blocks with `hanging` set. Formats:
man(7), groff_man(7), groff_char(7). What a page may do with strings, conditions and registers is left out: pages of
section 2 do not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

SECTION, SUBSECTION, TAG, TEXT = "section", "subsection", "tag", "text"


class Block(NamedTuple):
    kind: str
    text: str
    hanging: bool = False  # under a tag
    continues: bool = False  # one more tag of the same item (.TQ)


_SPECIAL = {
    **{"-": "-", "em": "-", "en": "-", "hy": "-", "mi": "-", "bu": "*", "aq": "'", "oq": "'", "cq": "'", "dq": '"'},
    **{"lq": '"', "rq": '"', "ti": "~", "ha": "^", "rs": "\\", "ga": "`", "at": "@", "sh": "#", "bv": "|", "ba": "|"},
    **{
        "co": "(C)",
        "->": "->",
        "<-": "<-",
        "<=": "<=",
        ">=": ">=",
        "!=": "!=",
        "mu": "x",
        "+-": "+/-",
        "de": " degrees",
    },
    **{"lB": "[", "rB": "]", "lC": "{", "rC": "}", "sl": "/", "ul": "_", "Do": "$", "Po": "GBP", "Eu": "EUR"},
}
# \fB \f[B] \f(CW, \s-1, \m[red], \*(lq, \(em, \[em], \e and the rest: one escape sequence.
_ESCAPE = re.compile(
    r"\\(?:f(?:\[(?P<font>[^\]]*)\]|\(..|.)|s[-+]?\d|[mM](?:\[[^\]]*\]|\(..|.)"
    r"|\*(?:\[(?P<string>[^\]]*)\]|\((?P<string2>..)|.)|\[(?P<long>[^\]]*)\]|\((?P<two>..)|[hvwN]'[^']*'|(?P<one>.))"
)
_ONE = {
    "-": "-",
    "e": "\\",
    "E": "\\",
    "\\": "\\",
    " ": " ",
    "~": " ",
    "0": " ",
    "'": "'",
    "`": "`",
    "t": "\t",
    ".": ".",
}
_ARGUMENT = re.compile(r'"((?:[^"]|"")*)"?|((?:\\ |\S)+)')
_COMMENT = re.compile(r'\\["#].*')
_ALTERNATING = ("BR", "RB", "BI", "IB", "IR", "RI")
_FONTS = ("B", "I", "SM", "SB", "R")
_BREAKS = ("br", "sp", "PD", "nf", "fi", "EX", "EE", "YS")
_PARAGRAPHS = ("PP", "LP", "P")


def plain(text: str) -> str:
    """`text` without escape sequences."""
    return _ESCAPE.sub(_unescape, text)


def _unescape(match: re.Match[str]) -> str:
    name = match["long"] or match["two"] or match["string"] or match["string2"]
    if name is not None:
        if re.fullmatch(r"u[0-9A-F]{4,6}", name) and int(name[1:], 16) < 0x110000:
            return chr(int(name[1:], 16))
        return _SPECIAL.get(name, "")
    return _ONE.get(match["one"] or "", "")


def arguments(text: str) -> list[str]:
    """Those of a macro: separated by spaces, quoted where they hold any."""
    return [(quoted.replace('""', '"') if bare == "" else bare) for quoted, bare in _ARGUMENT.findall(text)]


def lines_of(source: str) -> Iterator[str]:
    """Lines without comments, without definitions of macros, and without tables."""
    until = ""
    for line in source.replace("\\\n", "").splitlines():
        if until:
            until = "" if line.strip() == until else until
            continue
        if re.match(r"[.'][ \t]*\\[\"#]|'\\\"", line):
            continue
        bare = _COMMENT.sub("", line).rstrip() if '\\"' in line or "\\#" in line else line.rstrip()
        word = _macro(bare)[0]
        if word in ("ig", "de", "de1", "am"):
            until = ".."
        elif word == "TS":
            until = ".TE"
        else:
            yield bare


def _macro(line: str) -> tuple[str, str]:
    match = re.match(r"[.'][ \t]*([A-Za-z]{1,3}\d?)(?:[ \t]+(.*))?$", line)
    return (match[1], match[2] or "") if match else ("", "")


def blocks(source: str) -> Iterator[Block]:
    """The page from its first section on."""
    yield from _Reader().read(lines_of(source))


class _Reader:
    """The paragraph being filled, and whether it hangs under a tag."""

    def __init__(self) -> None:
        self._words: list[str] = []
        self._hanging = False
        self._depth = 0  # of .RS
        self._awaits = ""  # the macro whose argument is the next line: TP, TQ, SH, SS, B, ...

    def read(self, lines: Iterable[str]) -> Iterator[Block]:
        for line in lines:
            word, rest = _macro(line)
            if self._awaits and (not word or word in _FONTS or word in _ALTERNATING or word == "MR"):
                text = _inline(word, rest) if word else plain(line)
                if text.strip():
                    yield from self._finish(text.strip())
            elif not word:
                self._take(line)
            else:
                yield from self._obey(word, rest)
        yield from self._end()

    def _take(self, line: str) -> None:
        if line.startswith((".", "'")):  # a request that is none of ours
            return
        self._words.append(plain(line) if line.strip() else "\n")

    def _obey(self, word: str, rest: str) -> Iterator[Block]:
        if word in _FONTS or word in _ALTERNATING or word in ("MR", "UR", "MT", "OP"):
            if not rest and word in _FONTS:
                return
            self._words.append(_inline(word, rest))
        elif word in ("SH", "SS", "TP", "TQ"):
            yield from self._begin(word, rest)
        elif word == "IP":
            yield from self._indented(rest)
        elif word in _PARAGRAPHS:
            yield from self._end()
            self._hanging = self._depth > 0 and self._hanging
        elif word in ("RS", "RE"):
            yield from self._end()
            self._depth = self._depth + 1 if word == "RS" else max(0, self._depth - 1)
        elif word in _BREAKS:
            yield from self._end()
        elif word == "UE" and rest:
            self._words.append(plain(rest))

    def _begin(self, word: str, rest: str) -> Iterator[Block]:
        yield from self._end()
        self._awaits = word
        if word in ("SH", "SS"):
            self._hanging, self._depth = False, 0
            if rest:
                yield from self._finish(" ".join(plain(argument) for argument in arguments(rest)))

    def _finish(self, text: str) -> Iterator[Block]:
        """`text` is what the macro before was waiting for."""
        word, self._awaits = self._awaits, ""
        if word in ("SH", "SS"):
            yield Block(SECTION if word == "SH" else SUBSECTION, text)
        elif self._depth and self._hanging:
            self._words.append(f"{text}:")  # an item within an item
        else:
            self._hanging = True
            yield Block(TAG, text, continues=word == "TQ")

    def _indented(self, rest: str) -> Iterator[Block]:
        yield from self._end()
        given = arguments(rest)
        tag = plain(given[0]).strip() if given else ""
        if tag and not self._hanging and re.match(r"E[A-Z]", tag):
            self._hanging = True
            yield Block(TAG, tag)
        elif tag:
            self._words.append(tag)

    def _end(self) -> Iterator[Block]:
        text = " ".join("".join(f"{word} " for word in self._words).split())
        self._words.clear()
        if text:
            yield Block(TEXT, text, hanging=self._hanging)


def _inline(word: str, rest: str) -> str:
    given = [plain(argument) for argument in arguments(rest)]
    if word == "MR" and len(given) > 1:
        return f"{given[0]}({given[1]})" + "".join(given[2:])
    return ("" if word in _ALTERNATING else " ").join(given)
