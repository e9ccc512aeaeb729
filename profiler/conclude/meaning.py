"""What the manual means by the errno, given the branch that decided it: the entry that fits, or all where none leads.

A page often has several entries for one errno, and none says which line of the kernel it is of. What ties them are
words: constants and arguments that the condition names and the entry names too, what kernel words stand for in the
manual (`capable` for privilege), and constants that an entry requires while the condition says nothing of them. A word
counts the more, the fewer of the entries have it. The best entry is taken only where it leads clearly: a wrong
quotation from the manual would be believed.
"""

from __future__ import annotations

import errno as errno_numbers
import math
import re
from collections.abc import Iterable, Sequence

from profiler.evidence import MAN
from profiler.model import EvidenceNote, Meaning, RungState
from profiler.parse.man_page import ERRORS, ManPage, ManualEntry

CONSTANT, PARAMETER, WORD, CALLED = 4.0, 2.5, 1.0, 0.5
UNNAMED = 2.0  # what an entry loses where the condition names none of the constants that it requires
LEAST = 0.5  # score that an entry needs
LEAD, LEAD_SHARE = 0.8, 0.2  # by how much it leads the next: at least, and as a share of its own score
NEAR = 4  # calls from the entry of the system call, within which what decides is about its arguments

# Words of the kernel → the manual's.
_STANDS_FOR = {
    "capable": ("privileges", "capability", "permission", "superuser"),
    "may": ("privileges", "permission"),
    "permission": ("permission", "allowed", "access"),
    "conflict": ("use",),
    "dir": ("directory",),
    "empty": ("empty", "entry"),
    "fd": ("descriptor",),
    "fdget": ("descriptor",),
    "file": ("file", "descriptor"),
    "len": ("length", "long"),
    "negative": ("exist",),
    "positive": ("exist",),
    "timeo": ("nonblocking",),
    "rlimit": ("limit",),
    "rlim": ("limit",),
    "valid": ("valid", "recognized"),
    "cpu": ("processor",),
    "cpus": ("processor",),
}
# Functions on the way that say what is looked at.
_ON_THE_WAY = {"link_path_walk": ("component", "prefix")}
_STOP = frozenset(
    (
        *("the", "and", "for", "not", "are", "was", "were", "has", "have", "had", "with", "from", "that", "this"),
        *(
            "which",
            "can",
            "could",
            "one",
            "any",
            "all",
            "its",
            "sys",
            "x64",
            "arm64",
            "ret",
            "err",
            "error",
            "unlikely",
        ),
        *("likely", "int", "unsigned", "long", "const", "struct", "void", "char", "ssize", "size", "sizeof", "null"),
        *("true", "false", "get", "set", "put", "new", "old", "check", "ptr", "ctx", "kernel", "core", "flags", "user"),
    )
)
# What these say depends on what asks; the only entry there is may be of another caller.
_OF_MANY = ("EINVAL", "EBADF")


def meaning(
    page: ManPage | None,
    errno: str,
    *,
    condition: str | None = None,
    function: str = "",
    file: str = "",
    chain: Sequence[str] = (),
) -> Meaning | None:
    """What the manual says of `errno`; None where there is no manual at all.

    condition  of the branch that decided, as the source has it
    function, file  where that is; without a function no entry is picked
    chain  the functions from the system call's entry to it

    `entry` is the one that fits, `others` the rest. Where none leads, `entry` is "" and `others` has them all. `says`
    is errno(3)'s general text. `page` is "errno(3)" where the system call's own page is not installed.
    """
    if page is None:
        return None
    names = names_of(errno)
    general = next((entry.text for entry in page.general if names & set(entry.errnos)), "")
    if not page.installed:
        return Meaning("errno(3)", documented=False, entry="", says=general)
    entries = page.of(names)
    if not entries:
        return Meaning(page.title, documented=False, entry="", says=general)
    best = _fitting(page, entries, _Branch(page, condition or "", function, file, chain)) if function else None
    texts = [worded(entry, page) for entry in entries]
    entry = "" if best is None else texts.pop(best)
    return Meaning(page.title, documented=True, entry=entry, others=texts, says=general)


def note(meaning: Meaning | None, seconds: float, missing: str = "") -> EvidenceNote:
    """The rung in words; `missing` is why there is no manual, from `profiler.manual.advice`."""
    if meaning is None:
        says = f"no manual page in English is on this machine: {missing}" if missing else "no manual page is here"
        return EvidenceNote(MAN, says, 0, seconds, RungState.NOT_POSSIBLE)
    if meaning.page == "errno(3)":
        says = f"the page of the system call is not installed; errno(3) says: {meaning.says or 'nothing'}"
    elif not meaning.documented:
        says = f"{meaning.page} does not document the errno; errno(3) says: {meaning.says or 'nothing'}"
    elif meaning.entry:
        rest = len(meaning.others)
        says = f"{meaning.page}: {meaning.entry}" + (f" (of {rest + 1} entries, the one that fits)" if rest else "")
    else:
        count = len(meaning.others)
        says = f"{meaning.page} has {count} entries, and the branch does not tell which is meant"
        if count == 1:
            says = f"{meaning.page} has one entry, which may be of another cause: {meaning.others[0]}"
    return EvidenceNote(MAN, says, 0, seconds)


def names_of(errno: str) -> set[str]:
    """All names of the number: EAGAIN and EWOULDBLOCK are one."""
    number = getattr(errno_numbers, errno, None)
    aliases = {name for name in dir(errno_numbers) if name.startswith("E") and getattr(errno_numbers, name) == number}
    return {errno} | (aliases if number is not None else set())


def worded(entry: ManualEntry, page: ManPage) -> str:
    """An entry's text with what it needs to stand alone: what it is of, and where else than in the errors it stands."""
    text = " ".join(entry.text.split())
    if re.search(r"\bspecific\b|\bonly\b|\bwith\b", entry.applies) and "general" not in entry.applies:
        text = f"{text} ({entry.applies.rstrip(':.')})"
    if entry.section != ERRORS:
        text = f"{text} (in {entry.section})"
    return text if entry.page == page.title else f"{text} ({entry.page})"


def _fitting(page: ManPage, entries: Sequence[ManualEntry], branch: _Branch) -> int | None:
    """The index of the entry that leads, or None."""
    if any(entry.section != ERRORS for entry in entries):
        return None  # a paragraph that names the errno somewhere says something of it, but not that it is this
    heard = [_Said(entry) for entry in entries]
    possible = [i for i, entry in enumerate(entries) if branch.is_of_domain(entry)]
    if len(entries) == 1 and possible:
        return 0 if branch.is_of_the_only(entries[0], heard[0]) else None
    scores = {i: branch.score(heard[i], heard) for i in possible}
    order = sorted(scores, key=lambda i: -scores[i])
    if not order or scores[order[0]] < LEAST:
        return None
    first = order[0]
    runner_up = scores[order[1]] if len(order) > 1 else 0.0
    if scores[first] - runner_up < max(LEAD, LEAD_SHARE * scores[first]):
        return None
    by_condition = {i: branch.score(heard[i], heard, name=False) for i in possible}
    if any(by_condition[first] - by_condition[i] < LEAD / 2 for i in possible if i != first):
        return None  # the function's name alone has many meanings
    return first if branch.every_operand_agrees(heard[first], [heard[i] for i in possible]) else None


class _Said:
    """The words of an entry."""

    def __init__(self, entry: ManualEntry) -> None:
        text = re.sub(r"/(?:proc|sys)/\S+|\b[a-z_0-9]+\(\d\)", " ", entry.text)  # names of files, other pages
        words = re.findall(r"[A-Za-z_][A-Za-z_0-9]*|\d+", text)
        constants = {word for word in words if _is_constant(word)}
        others = [word for word in words if word not in constants]
        self.words = frozenset(constants | {_bare(word) for word in others} | set(_stems(others)))
        self.requires = constants - set(re.findall(r"([A-Z][A-Z0-9]*_[A-Z0-9_]*) (?:is|was) not\b", text))


class _Branch:
    """What the branch has to say, as words with their weights."""

    def __init__(self, page: ManPage, condition: str, function: str, file: str, chain: Sequence[str]) -> None:
        self._of_call = set(re.split(r"_+", page.name))
        self._file = file
        self._far = len(chain) > NEAR and page.name not in function
        self._parameters = {_bare(parameter): parameter for parameter in page.parameters}
        self._condition = self._words_of(condition)
        on_the_way = [word for name in chain for word in _ON_THE_WAY.get(name, ())]
        self._certain = dict.fromkeys(_stems(on_the_way), WORD) | self._condition
        named = [word for word in _stems(_kernel_words(function)) if word not in self._of_call]
        self._weights = dict.fromkeys(named, WORD) | self._certain
        operands = [part for part in re.split(r"\|\|", condition) if part.strip()]
        self._operands = [self._words_of(part) for part in operands] if len(operands) > 1 else []

    def score(self, said: _Said, of_all: Sequence[_Said], *, name: bool = True) -> float:
        """`name`: with the words of the function's name."""
        unnamed = len(said.requires - self._condition.keys()) / len(said.requires) if said.requires else 0.0
        return _shared(self._weights if name else self._certain, said, of_all) - UNNAMED * unnamed

    def every_operand_agrees(self, first: _Said, of_all: Sequence[_Said]) -> bool:
        """Of `a || b` it is not known which one held: no operand may speak for another entry more than for this."""
        return all(
            _shared(operand, first, of_all) >= max(_shared(operand, said, of_all) for said in of_all)
            for operand in self._operands
        )

    def is_of_domain(self, entry: ManualEntry) -> bool:
        """Whether an entry that is of one kind of socket is of the kind whose code decided."""
        about = f"{entry.applies} {entry.text[:40]}"
        if "UNIX domain" in about:
            return self._file.startswith("net/unix/") or not self._file.startswith("net/")
        return "Internet domain" not in about or self._file.startswith(("net/ipv4/", "net/ipv6/"))

    def is_of_the_only(self, entry: ManualEntry, said: _Said) -> bool:
        """Whether the only entry there is may be quoted."""
        if not set(entry.errnos) & set(_OF_MANY):
            return True
        if self._file.startswith("lib/") or (self._far and "EBADF" in entry.errnos):
            return False  # a descriptor that is an argument is looked up near the entry of the call
        return not self._far or _shared(self._condition, said, [said]) > 0

    def _words_of(self, condition: str) -> dict[str, float]:
        weights: dict[str, float] = {}
        for name in re.findall(r"[A-Za-z_][A-Za-z_0-9]*|\b\d+\b", condition):
            if _is_constant(name):
                weights[name] = CONSTANT
                if name.startswith("CAP_"):
                    weights.update(dict.fromkeys(_stems(_STANDS_FOR["capable"]), WORD))
            elif not self._far and _bare(name) in self._parameters:
                weights[_bare(name)] = PARAMETER
                continue
            elif name.isdigit():
                weights[name] = WORD
            # A function's own name says less of what it is asked for here than the words that stand for something.
            called = CALLED if re.search(rf"\b{name}\s*\(", condition) else WORD
            for part in _kernel_words(name):
                if part not in self._of_call:
                    weight = called if part in name.lower() and part not in _STANDS_FOR else WORD
                    weights.setdefault(_stem(part), weight)
            if not self._far and any(name == p.split("_")[0] for p in self._parameters.values()):
                weights[name] = WORD  # `new` of new_value
        if re.search(r"&\s*~", condition):  # a bit outside those that are known
            weights |= dict.fromkeys(_stems(("unknown", "valid", "recognized")), WORD)
        if re.search(r"copy_(?:from|to)_user|get_user|put_user|access_ok", condition):
            weights |= dict.fromkeys(_stems(("points", "address", "accessible")), WORD)
        return weights


def _shared(weights: dict[str, float], said: _Said, of_all: Sequence[_Said]) -> float:
    """What the words count that the entry has, rare ones more than those that many of the entries have."""
    return sum(
        weight * math.log2((len(of_all) + 1) / (sum(word in other.words for other in of_all) + 0.5))
        for word, weight in weights.items()
        if word in said.words
    )


def _kernel_words(name: str) -> list[str]:
    """Those of an identifier, and what they stand for."""
    parts = [part for part in re.split(r"_+", name.lower()) if part]
    words = [part for part in parts if len(part) > 2 and part not in _STOP]
    return words + [word for part in parts for word in _STANDS_FOR.get(part, ())]


def _is_constant(word: str) -> bool:
    return "_" in word and word.isupper()


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
