"""What `man` prints of a page, as the blocks that its source would give.

    ERRORS
           EACCES The address is protected, and the user is not the superuser.

           EADDRINUSE
                  The given address is already in use.

Sections begin at the left margin, paragraphs 7 columns in, what hangs under a tag 14; a short tag has the first words
of its text beside it. Bold and underline come as backspaces or escape sequences where the output was not for a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from profiler.parse.roff import SECTION, SUBSECTION, TAG, TEXT, Block

_OVERSTRUCK = re.compile(r".\x08")
_STYLED = re.compile(r"\x1b\[[0-9;]*m")
_TAG = re.compile(r"E[A-Z0-9]{2,}\b")
_HYPHENS = "\u2010\u00ad"
PARAGRAPH, HANGING = 7, 14


def is_output(text: str) -> bool:
    """Whether it is what `man` printed, not a page's source."""
    return not re.search(r"^[.'][ \t]*(?:TH|SH|Dd|so)\b", text, re.MULTILINE)


def blocks(text: str) -> Iterator[Block]:
    text = _STYLED.sub("", _OVERSTRUCK.sub("", text)).replace("\u2212", "-").replace("\u2019", "'")
    lines = text.expandtabs(8).splitlines()
    paragraph: list[str] = []
    hanging = False
    for line in [*lines, ""]:
        indent = len(line) - len(line.lstrip())
        heads = bool(line) and indent < PARAGRAPH
        tag = _tag_of(line) if indent == PARAGRAPH else ""
        if (not line.strip() or heads or tag) and paragraph:
            yield Block(TEXT, _joined(paragraph), hanging)
            paragraph = []
        if heads:
            yield Block(SECTION if indent == 0 else SUBSECTION, line.strip())
        elif tag:
            yield Block(TAG, tag)
            words = line[PARAGRAPH + len(tag) :].strip()
            hanging, paragraph = True, [words] if words else []
        elif line.strip():
            if not paragraph:
                hanging = indent > PARAGRAPH
            paragraph.append(line.strip())


def _tag_of(line: str) -> str:
    """EACCES, of a line that begins an item; nothing, of one that begins a paragraph."""
    words = line.strip()
    match = _TAG.match(words)
    if match is None:
        return ""
    rest = re.sub(r"\([^()]*(?:\(\)[^()]*)*\)|\b(?:or|and)\b|E[A-Z0-9]{2,}|[\s,/]", "", words)
    if not rest:
        return words
    beside = line[HANGING - 1 : HANGING] == " " and len(line[PARAGRAPH : HANGING - 1].split()) == 1
    return match[0] if beside else ""


def _joined(lines: list[str]) -> str:
    text = ""
    for line in lines:
        text = text[:-1] + line if text.endswith(tuple(_HYPHENS)) else f"{text} {line}"
    return " ".join(text.split())
