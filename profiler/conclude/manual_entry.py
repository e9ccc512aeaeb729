"""Which of a page's entries of one errno is meant by the branch that decided, or none.

No entry says which line of the kernel it is of. What ties them are words: constants and arguments of the call that both
name, identifiers that the manual knows (`set_tid_size`), `capable()` for privilege, bits outside a mask for "unknown
bits". Without one of these nothing is picked; other words that both have (`valid`, `limit`) help to tell entries apart.
A word counts the more, the fewer of the entries have it. The best entry is taken only where it leads clearly, for a
wrong quotation from the manual would be believed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from profiler.parse.man_page import ERRORS, ManPage, ManualEntry

CONSTANT, STRONG, WEAK = 4.0, 2.5, 1.0
UNNAMED = 2.0  # what an entry loses for constants that it requires and the condition does not name, by their share
LEAST_NAMED = 1 / 3  # of the constants that an entry requires
LEAD, LEAD_SHARE = 0.8, 0.2  # by how much the best leads the next: at least, and as a share of its score
NEAREST = 3  # calls from the entry of the system call, within which the only entry there is will be meant
NEAR = 4  # calls from it, within which what decides is about the arguments
DEEP = 8  # calls from it, beyond which a word is chance

_UNKNOWN_BITS = "unknown bits"
_SAYS_UNKNOWN_BITS = re.compile(
    r"(?i)\b(?:unknown|invalid|unrecognized|undefined)\b[^.;]*\b(?:bits?|flags?)\b"
    r"|\bflags?\b[^.;]*\b(?:unknown|invalid|unrecognized|not valid|no valid)\b"
)
_OUTSIDE_MASK = re.compile(r"&\s*~\s*(?:\([^()]*\)\s*)?(?:\([^()]*\)|\w+)")
# Words of the kernel → the manual's.
_STANDS_FOR = {
    "conflict": ("use",),
    "cpu": ("processor",),
    "cpus": ("processor",),
    "dir": ("directory",),
    "fd": ("descriptor",),
    "len": ("length",),
    "negative": ("exist",),
    "positive": ("exist",),
    "rlim": ("limit",),
    "rlimit": ("limit",),
    "timeo": ("nonblocking",),
    "valid": ("valid", "recognized"),
}
_PRIVILEGE = ("privileges", "capability", "superuser")
_STOP = frozenset(
    (
        *(
            "about",
            "above",
            "access",
            "address",
            "also",
            "argument",
            "call",
            "caller",
            "case",
            "check",
            "child",
            "const",
        ),
        *("core", "ctx", "current", "data", "default", "does", "error", "exists", "file", "files", "first", "flag"),
        *(
            "flags",
            "from",
            "have",
            "inode",
            "into",
            "kernel",
            "last",
            "least",
            "likely",
            "list",
            "long",
            "mask",
            "mode",
        ),
        *("more", "name", "names", "need", "next", "node", "null", "number", "only", "open", "operation", "other"),
        *(
            "page",
            "pages",
            "path",
            "point",
            "process",
            "read",
            "same",
            "size",
            "specified",
            "state",
            "struct",
            "system",
        ),
        *("table", "task", "test", "than", "that", "then", "there", "this", "thread", "time", "true", "type", "types"),
        *("under", "unlikely", "unsigned", "upper", "user", "used", "value", "values", "void", "when", "which", "will"),
        *("with", "write"),
    )
)
_ANSWERS_INSTEAD = "__seccomp_filter"  # of the system call, with whatever errno the filter holds
# What these say depends on what asks; the only entry there is may be of another caller.
_OF_MANY = ("EINVAL", "EBADF")


class Branch:
    """What decided: a condition as the source has it, where, and the functions from the call's entry to it."""

    def __init__(self, page: ManPage, condition: str, function: str, file: str, chain: Sequence[str] = ()) -> None:
        self._file, self._function = file, function
        self._calls = len(chain)
        near = len(chain) <= NEAR or page.name in function
        operands = [part for part in condition.split("||") if part.strip()] or [""]
        self._operands = [_Said(part, page, near=near) for part in operands]
        self._near = near

    def fitting(self, entries: Sequence[ManualEntry]) -> int | None:
        """The index of the entry that is meant, or None."""
        if self._function == _ANSWERS_INSTEAD:
            return None
        if any(entry.section != ERRORS for entry in entries):
            return None  # a paragraph that names the errno somewhere says something of it, but not that it is this
        possible = [index for index, entry in enumerate(entries) if self._is_of_domain(entry)]
        heard = [_Entry(entry) for entry in entries]
        if len(entries) == 1:
            return 0 if possible and self._is_of_the_only(entries[0], heard[0]) else None
        if self._calls > DEEP:
            return None
        return self._leading([i for i in possible if self._may_be(heard[i])], heard)

    def _leading(self, possible: list[int], heard: list[_Entry]) -> int | None:
        scores = {i: sum(said.score(heard[i], heard) for said in self._operands) for i in possible}
        order = sorted(scores, key=lambda i: -scores[i])
        if not order or not any(said.speaks_for(heard[order[0]]) for said in self._operands):
            return None
        first, runner_up = order[0], scores[order[1]] if len(order) > 1 else 0.0
        if scores[first] - runner_up < max(LEAD, LEAD_SHARE * scores[first]):
            return None
        # Of `a || b` it is not known which one held: no operand may speak for another entry, or for none.
        for said in self._operands if len(self._operands) > 1 else ():
            most = max(said.score(heard[i], heard) for i in possible)
            if most <= 0 or said.score(heard[first], heard) < most:
                return None
        return first

    def _may_be(self, entry: _Entry) -> bool:
        """Whether an entry has all the constants that the condition names and the manual knows."""
        named = frozenset[str]().union(*(said.constants for said in self._operands))
        if not named:
            return True
        if not named <= entry.words:
            return False
        return len(named & entry.requires) >= LEAST_NAMED * len(entry.requires)

    def _is_of_domain(self, entry: ManualEntry) -> bool:
        """Whether an entry that is of one kind of socket is of the kind whose code decided."""
        about = f"{entry.applies} {entry.text[:40]}"
        if "UNIX domain" in about:
            return self._file.startswith("net/unix/") or not self._file.startswith("net/")
        return "Internet domain" not in about or self._file.startswith(("net/ipv4/", "net/ipv6/"))

    def _is_of_the_only(self, entry: ManualEntry, heard: _Entry) -> bool:
        """Whether the only entry there is may be quoted."""
        if not set(entry.errnos) & set(_OF_MANY):
            return True
        if self._file.startswith("lib/") or (not self._near and "EBADF" in entry.errnos):
            return False  # a descriptor that is an argument is looked up near the entry of the call
        return self._calls <= NEAREST or any(said.speaks_for(heard) for said in self._operands)


class _Entry:
    """The words of an entry."""

    def __init__(self, entry: ManualEntry) -> None:
        text = re.sub(r"/(?:proc|sys)/\S*/|\b[a-z_0-9]+\(\d\)", " ", entry.text)  # where files lie, other pages
        words = re.findall(r"[A-Za-z_][A-Za-z_0-9]*|\d+", text)
        constants = {word for word in words if _is_constant(word)}
        others = [word for word in words if word not in constants]
        self.requires = constants - set(re.findall(r"([A-Z][A-Z0-9]*_[A-Z0-9_]*) (?:is|was) not\b", text))
        unknown = {_UNKNOWN_BITS} if _SAYS_UNKNOWN_BITS.search(entry.text) and not self.requires else set()
        self.words = frozenset(constants | {_bare(word) for word in others} | set(_stems(others)) | unknown)


class _Said:
    """What one operand of the condition says, as words with their weights."""

    def __init__(self, condition: str, page: ManPage, *, near: bool) -> None:
        self.strong: dict[str, float] = {}
        self.weak: dict[str, float] = {}
        own = set(_stems(re.split(r"_+", page.name)))
        if near and _OUTSIDE_MASK.search(condition):
            self.strong[_UNKNOWN_BITS] = STRONG
        condition = _OUTSIDE_MASK.sub(" ", condition)  # what a mask leaves out is what is known
        found = list(re.finditer(r"(?P<of>\.|->)?\b(?P<name>[A-Za-z_]\w*|\d+)\b(?=(?P<has>\s*(?:\.|->))?)", condition))
        names = [match["name"] for match in found]
        self.constants = frozenset(n for n in names if n in page.constants and not n.startswith("CAP_"))
        parameters = {_bare(parameter): parameter for parameter in page.parameters}
        for match in found:
            name, alone = match["name"], not match["of"] and not match["has"]
            if name in self.constants:
                continue
            if near and alone and _bare(name) in parameters:
                self.strong[_bare(name)] = STRONG
                continue
            if "_" in name.strip("_") and len(_bare(name)) > 5:
                self.strong[_bare(name)] = STRONG
            if name.startswith("CAP_") or "capable" in name:
                self.strong |= dict.fromkeys([name, *_stems(_PRIVILEGE)], STRONG)
            weak = [*_kernel_words(name), *([name] if name.isdigit() and self.strong else [])]
            if near and any(name == parameter.split("_")[0] for parameter in parameters.values()):
                weak.append(name)  # `new` of new_value
            self.weak |= dict.fromkeys((stem for stem in _stems(weak) if stem not in own), WEAK)

    def score(self, entry: _Entry, of_all: Sequence[_Entry]) -> float:
        weights = self.weak | self.strong | dict.fromkeys(self.constants, CONSTANT)
        shared = sum(
            weight * math.log2((len(of_all) + 1) / (sum(word in other.words for other in of_all) + 0.5))
            for word, weight in weights.items()
            if word in entry.words
        )
        unnamed = len(entry.requires - self.constants) / len(entry.requires) if entry.requires else 0.0
        return shared - (UNNAMED * unnamed if self.constants else 0.0)

    def speaks_for(self, entry: _Entry) -> bool:
        """Whether it shares more than common words with an entry."""
        return bool((self.strong.keys() | self.constants) & entry.words)


def _kernel_words(name: str) -> list[str]:
    """Those of an identifier, and what they stand for."""
    parts = [part for part in re.split(r"_+", name.lower()) if part]
    words = [part for part in parts if len(part) > 3 and part not in _STOP]
    return words + [word for part in parts for word in _STANDS_FOR.get(part, ())]


def _is_constant(word: str) -> bool:
    """O_NONBLOCK and EPOLLEXCLUSIVE, but not FIFO."""
    return word.isupper() and ("_" in word or len(word) > 7)


def _bare(word: str) -> str:
    return word.lower().replace("_", "")


def _stems(words: Iterable[str]) -> list[str]:
    """Enough of each that listen and listening, valid and invalid, directory and directories meet."""
    return [_stem(part) for word in words for part in re.split(r"_+", word.lower()) if part]


def _stem(word: str) -> str:
    for prefix in ("in", "un", "non"):
        if word.startswith(prefix) and len(word) - len(prefix) >= 5 and not word.startswith("inter"):
            word = word.removeprefix(prefix)
            break
    for ending in ("ing", "ies", "ied", "ent", "ed", "es", "s", "y", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word.removesuffix(ending)
    return word
