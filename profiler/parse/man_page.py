"""A manual page of section 2 or 3: which errnos it names, and what it says of each.

    .SH ERRORS
    .TP
    .B EINVAL
    .I addrlen
    is wrong, or
    .I addr
    is not a valid address for this socket's domain.
    .PP
    The following errors are specific to UNIX domain
    .RB ( AF_UNIX )
    sockets:
    .TP
    .B EACCES

Both the source and what `man` prints of it are read. One errno may have several entries; a paragraph between entries,
or a word in brackets, may say of which calls or sockets the entries after it are.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from profiler.parse import man_output, roff
from profiler.parse.roff import SECTION, SUBSECTION, TAG, Block

ERRORS = "ERRORS"
# The name that a page has of a system call which the kernel calls otherwise.
_PAGE_NAMES = {"newfstatat": "fstatat", "umount2": "umount", "prlimit64": "prlimit", "fadvise64": "posix_fadvise"}
_NAME = re.compile(r"\bE[A-Z0-9]{2,}\b")
_CONSTANT = re.compile(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]*\b|\b[A-Z][A-Z0-9]{7,}\b")
_CALL = re.compile(r"\b([a-z_][a-z0-9_]*)\(\)")
_REFERENCE = re.compile(r"\b([a-z_][a-z0-9_]*)\(2\)")
_SAME_ERRORS = re.compile(r"same errors that occur for (.+?) can also occur for (.+?)[.:]")
_OPPOSITES = {"read": "write", "write": "read", "send": "recv", "recv": "send"}


@dataclass(frozen=True, slots=True)
class ManualEntry:
    """One item of the errors of a page, or a paragraph elsewhere that names the errno."""

    errnos: tuple[str, ...]
    text: str  # paragraphs, separated by line breaks
    page: str  # "bind(2)"
    applies: str = ""  # what the page says of the entries it is among: "The following errors are specific to ..."
    calls: tuple[str, ...] = ()  # the only ones it is of; () for all of the page
    section: str = ERRORS


@dataclass(frozen=True, slots=True)
class ManPage:
    name: str  # of the system call it was read for
    title: str  # "bind(2)"; of another page that the call shares, that one's
    names: tuple[str, ...]  # the calls it documents
    entries: tuple[ManualEntry, ...]
    parameters: tuple[str, ...] = ()  # of the calls, as its synopsis names them
    constants: frozenset[str] = frozenset()  # that it names anywhere, as O_NONBLOCK
    refers: tuple[str, ...] = ()  # calls whose errors are of this one too
    general: tuple[ManualEntry, ...] = ()  # errno(3)'s
    installed: bool = True  # False where only errno(3) is

    def of(self, names: Iterable[str]) -> list[ManualEntry]:
        """The entries of an errno, by any of its names; those among the errors, else where else it is named."""
        wanted = set(names)
        found = [entry for entry in self.entries if wanted & set(entry.errnos)]
        return [entry for entry in found if entry.section == ERRORS] or found


def parse(text: str, call: str) -> ManPage:
    """The page of the system call `call`. Never fails: a text that is no page has no entries and no names."""
    blocks = list(man_output.blocks(text) if man_output.is_output(text) else roff.blocks(text))
    sections = _by_section(blocks)
    names = _names(sections)
    title = _title(text) or (f"{names[0]}(2)" if names else "")
    own = own_name(call, names)
    entries, refers = _errors(sections.get(ERRORS, []), title, names, own)
    listed = {name for entry in entries for name in entry.errnos}
    entries += [entry for entry in _mentions(sections, title) if not set(entry.errnos) <= listed]
    kept = tuple(entry for entry in entries if not entry.calls or own not in names or own in entry.calls)
    constants = frozenset(word for block in blocks for word in _CONSTANT.findall(block.text) if not _is_errno(word))
    return ManPage(call, title, names, tuple(kept), _parameters(sections), constants, tuple(refers))


def parse_general(text: str) -> tuple[ManualEntry, ...]:
    """The list of errno(3), whose items do not lie under a heading of errors."""
    blocks = man_output.blocks(text) if man_output.is_output(text) else roff.blocks(text)
    return tuple(_items(list(blocks), "errno(3)", (), "")[0])


def is_english(text: str) -> bool:
    """A translated page heads its sections in its own language: NOM, BEZEICHNUNG, 名前."""
    blocks = man_output.blocks(text) if man_output.is_output(text) else roff.blocks(text)
    return any(block.kind == SECTION and block.text == "NAME" for block in blocks)


def own_name(call: str, names: Sequence[str]) -> str:
    """What a page that documents `names` calls the kernel's `call`."""
    others = (_PAGE_NAMES.get(call, call), call.removeprefix("rt_"), re.sub(r"(?:64)?\d?$", "", call))
    return next((name for name in (call, *others) if name in names), call)


def joined(page: ManPage, others: Sequence[ManPage]) -> ManPage:
    """`page` with what the pages it refers to say of errnos, each entry under its own page's title."""
    added = [entry for other in others for entry in other.entries if entry.section == ERRORS]
    seen = {entry.text for entry in page.entries}
    known = page.constants.union(*(other.constants for other in others))
    entries = page.entries + tuple(entry for entry in added if entry.text not in seen)
    return replace(page, entries=entries, constants=known)


def _by_section(blocks: Iterable[Block]) -> dict[str, list[Block]]:
    sections: dict[str, list[Block]] = {}
    current: list[Block] = []
    for block in blocks:
        if block.kind == SECTION:
            current = sections.setdefault(block.text.upper(), [])
        else:
            current.append(block)
    return sections


def _names(sections: dict[str, list[Block]]) -> tuple[str, ...]:
    """Of "open, openat, creat - open and possibly create a file"."""
    text = " ".join(block.text for block in sections.get("NAME", ()))
    head = re.split(r"\s[-\u2013\u2014\u2010]+\s", text, maxsplit=1)[0]
    return tuple(word for word in re.split(r"[,\s]+", head) if re.fullmatch(r"\w+", word))


def _title(text: str) -> str:
    source = re.search(r'^\.TH[ \t]+"?([\w.-]+)"?[ \t]+"?(\d\w*)', text, re.MULTILINE)
    printed = re.match(r"\s*([\w.-]+)\((\d\w*)\)", text)
    match = source or printed
    return f"{match[1].lower()}({match[2]})" if match else ""


def _parameters(sections: dict[str, list[Block]]) -> tuple[str, ...]:
    """The last word of every argument in the prototypes: `const struct sockaddr *addr` is addr."""
    text = " ".join(block.text for block in sections.get("SYNOPSIS", ()))
    found: dict[str, None] = {}
    for inside in re.findall(r"\w+\s*\(([^()]*(?:\[[^\]]*\])?[^()]*)\)\s*;", text):
        for argument in inside.split(","):
            match = re.search(r"(\w+)\s*(?:\[[^\]]*\])*\s*$", argument)
            if match and match[1] != "void":
                found.setdefault(match[1])
    return tuple(found)


@dataclass(slots=True)
class _Item:
    tag: str
    paragraphs: list[str] = field(default_factory=list)


def _errors(
    blocks: list[Block], title: str, names: tuple[str, ...], own: str
) -> tuple[list[ManualEntry], dict[str, None]]:
    """The entries of a section of errors, and the calls whose errors are of this one too."""
    entries, prose = _items(blocks, title, names, own)
    refers: dict[str, None] = {}
    for paragraph in prose:
        calls = set(_CALL.findall(paragraph)) & set(names)
        for sentence in re.split(r"(?<=[.:])\s+(?=[A-Z])", paragraph):
            found = _REFERENCE.findall(sentence)
            if (
                not found
                or (calls and own not in calls)
                or not re.search(r"(?i)\b(?:errors?|reasons|as for)\b", sentence)
            ):
                continue
            opposite = next((o for name, o in _OPPOSITES.items() if name in own and name in found), "")
            refers.update(dict.fromkeys(name for name in found if name not in (own, opposite)))
    return [_shared(entry, prose) for entry in entries], refers


def _items(blocks: list[Block], title: str, names: tuple[str, ...], own: str) -> tuple[list[ManualEntry], list[str]]:
    """Every item whose tag is an errno, and the paragraphs between them."""
    entries: list[ManualEntry] = []
    prose: list[str] = []
    applies = ""
    item: _Item | None = None

    def close() -> None:
        if item is not None:
            entries.extend(_entry(item, applies, title, names))

    for block in blocks:
        if block.kind == TAG:
            if block.continues and item is not None and not item.paragraphs:
                item.tag += f", {block.text}"
                continue
            close()
            item = _Item(block.text)
        elif block.hanging and block.kind == roff.TEXT:
            if item is not None:
                item.paragraphs.append(block.text)
        else:
            close()
            item = None
            prose.append(block.text)
            inline = _NAME.match(block.text)
            if inline and _is_errno(inline[0]):  # "EAGAIN kernel is temporarily out of resources."
                item = _Item(inline[0], [block.text[inline.end() :].strip()])
            else:
                applies = block.text if block.kind == SUBSECTION or _introduces(block.text) else applies
    close()
    return entries, prose


def _is_errno(word: str) -> bool:
    return hasattr(errno, word) or word.startswith("ERESTART")


def _introduces(paragraph: str) -> bool:
    """Whether what follows is said to be of something."""
    return paragraph.rstrip().endswith(":") or bool(re.search(r"\b(?:following|listed below)\b", paragraph))


def _entry(item: _Item, applies: str, title: str, names: tuple[str, ...]) -> list[ManualEntry]:
    match = re.match(r"E[A-Z0-9]{2,}(?:(?:\s*[,/]\s*(?:or\s+|and\s+)?|\s+or\s+|\s+and\s+)E[A-Z0-9]{2,})*", item.tag)
    if match is None or not item.paragraphs:
        return []
    errnos = tuple(_NAME.findall(match[0]))
    remark = " ".join(item.tag[match.end() :].split())
    text = "\n".join(item.paragraphs)
    bracket = re.match(r"\((?:[^()]|\(\))*\)", remark or text)
    calls = [name for name in _CALL.findall(bracket[0] if bracket else "") if name in names]
    introduced = re.split(r"(?<=\.)\s+(?=[A-Z])", applies)[-1]
    of_calls = [name for name in _CALL.findall(introduced) if name in names]
    text = f"{remark} {text}" if remark else text
    return [ManualEntry(errnos, text, title, "" if of_calls else applies, tuple(calls or of_calls))]


def _shared(entry: ManualEntry, prose: list[str]) -> ManualEntry:
    """With the calls for which "the same errors can also occur"."""
    more: list[str] = []
    for match in (m for paragraph in prose for m in _SAME_ERRORS.finditer(paragraph)):
        if set(entry.calls) & set(_CALL.findall(match[1])):
            more += _CALL.findall(f"{match[2]} ")
    return replace(entry, calls=(*entry.calls, *more)) if more else entry


def _mentions(sections: dict[str, list[Block]], title: str) -> list[ManualEntry]:
    """Paragraphs outside the errors that name an errno."""
    found = []
    for section, blocks in sections.items():
        if section in ("NAME", "SYNOPSIS", "EXAMPLES", "EXAMPLE", "SEE ALSO", "BUGS"):
            continue
        for block in blocks:
            names = (
                tuple(dict.fromkeys(filter(_is_errno, _NAME.findall(block.text)))) if block.kind == roff.TEXT else ()
            )
            names = tuple(name for name in names if section != ERRORS or not block.hanging)
            if names:
                found.append(ManualEntry(names, block.text, title, section=section))
    return found
