"""The calls within an expression's text: what is called, through what, with which arguments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from profiler.debuginfo.c_text import closing, fold

# the callee: a name, or the way to a member: sock->ops->bind, def->prep, ops[i].open
CALLEE = re.compile(r"((?:\(\*+)?[A-Za-z_][\w.\->\[\]]*?)\)?\s*\(")
MEMBERS = re.compile(r"->|\.")
# their value is that of their argument, or made of it
WRAPPERS = frozenset(
    ["PTR_ERR", "ERR_PTR", "ERR_CAST", "PTR_ERR_OR_ZERO", "likely", "unlikely", "WARN_ON", "WARN_ON_ONCE"]
)
WRAPPERS |= frozenset(["READ_ONCE", "READ_ONCE_NOCHECK", "data_race", "xchg", "cmpxchg", "array_index_nospec"])
WRAPPERS |= frozenset(["min", "max", "min_t", "max_t", "abs", "__builtin_expect"])
NOT_CALLS = frozenset(
    ["if", "while", "for", "switch", "return", "sizeof", "typeof", "__typeof__", "offsetof", "defined"]
)


@dataclass(frozen=True, slots=True)
class Called:
    """One call. `through` is the pointer whose member is called: ops in sock->ops->bind(...); "" for a plain name."""

    name: str
    through: str
    arguments: tuple[str, ...]
    depth: int  # of calls it is an argument of; wrappers not counted


def calls_in(text: str) -> list[Called]:
    """All calls of an expression, outer ones first."""
    return list(_calls(text, 0))


def _calls(text: str, depth: int) -> Iterator[Called]:
    at, inside_before = 0, ""
    while match := CALLEE.search(text, at):
        opening = match.end() - 1
        end = closing(text, opening)
        inside = text[opening + 1 : end - 1]
        parts = [_bare(part) for part in MEMBERS.split(match[1].lstrip("(*"))]
        name, through = parts[-1], parts[-2] if len(parts) > 1 else _through(text[at : match.start()], inside_before)
        wraps = name in WRAPPERS or name in NOT_CALLS or name.isupper()  # a macro's arguments are part of its value
        if name and name not in NOT_CALLS:
            yield Called(name, through, tuple(terms(inside)), depth)
        yield from _calls(inside, depth if wraps else depth + 1)
        at, inside_before = end, inside


def _through(between: str, inside: str) -> str:
    """READ_ONCE(sk->sk_prot)->setsockopt(...): what is called is a member of what the call before gives."""
    names = re.findall(r"\w+", inside)
    return names[-1] if names and re.fullmatch(r"\s*\)*\s*(?:->|\.)\s*", between) else ""


def _bare(part: str) -> str:
    return part.partition("[")[0].strip()


def constructor(name: str) -> str:
    """What include/linux/cleanup.h calls the function that makes a variable of a class."""
    return f"class_{name}_constructor"


def terms(text: str) -> list[str]:
    """What commas of the outermost level part."""
    found, depth, start = [], 0, 0
    for at, character in enumerate(text):
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == "," and depth == 0:
            found.append(fold(text[start:at]))
            start = at + 1
    last = fold(text[start:])
    return [*found, last] if last or found else []


def without_calls(text: str) -> str:
    """The expression with every call that is no wrapper taken out, arguments and all."""
    out, at = [], 0
    while match := CALLEE.search(text, at):
        opening = match.end() - 1
        end = closing(text, opening)
        name = MEMBERS.split(match[1].lstrip("(*"))[-1]
        out.append(text[at : match.start()])
        if name in WRAPPERS or name in NOT_CALLS:
            out.append(" (" + without_calls(text[opening + 1 : end - 1]) + ") ")
        at = end
    return "".join([*out, text[at:]])
