"""Names a user may have meant."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Mapping
from typing import TypeVar

from profiler.errors import UsageError

T = TypeVar("T")

ERRNO_NAMES: dict[str, int] = {name: number for number, name in errno.errorcode.items()} | {
    # Python's table has one name a number; the man pages use these too.
    "EWOULDBLOCK": errno.EWOULDBLOCK,
    "ENOTSUP": errno.ENOTSUP,
    "EOPNOTSUPP": errno.EOPNOTSUPP,
    "EDEADLOCK": errno.EDEADLK,
}


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean X?`, or nothing where no known name resembles `name`."""
    matches = difflib.get_close_matches(name.lower(), {k.lower(): k for k in known}, n=3, cutoff=0.5)
    spelled = {k.lower(): k for k in known}
    return f"; did you mean {' or '.join(spelled[match] for match in matches)}?" if matches else ""


def lookup(kind: str, name: str, table: Mapping[str, T], *, listed_by: str = "") -> T:
    """The entry of `name` in `table`. Raises UsageError that suggests the nearest names."""
    if name in table:
        return table[name]
    hint = nearest(name, table).removeprefix("; ")
    raise UsageError(f"no {kind} {name!r}", hint=hint or (f"`{listed_by}` lists them" if listed_by else ""))
