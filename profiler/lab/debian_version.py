"""Order Debian package versions.

The rules: deb-version(7). Digits compare as numbers; in the rest letters come before other characters, and `~`
before everything, even before the end.
"""

from __future__ import annotations

import re

Key = tuple[int, tuple[object, ...], tuple[object, ...]]
_PIECES = re.compile(r"(\D*)(\d*)")


def key(version: str) -> Key:
    """A sort key: `sorted(versions, key=key)` puts the newest last."""
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "0")
    return int(epoch) if epoch.isdigit() else 0, _part(upstream), _part(revision)


def upstream(version: str) -> tuple[int, ...]:
    """The leading numbers of the upstream version: (6, 1, 192) of 6.1.192-2."""
    match = re.match(r"(?:\d+:)?(\d+(?:\.\d+)*)", version)
    return tuple(map(int, match[1].split("."))) if match else ()


def matches(version: str, wanted: str) -> bool:
    """Is "6.1.192-2" a "6.1"? Numbers are compared whole: it is no "6.19" and no "6.1.19"."""
    if version == wanted:
        return True
    numbers = tuple(wanted.split("."))
    return all(map(str.isdigit, numbers)) and tuple(map(str, upstream(version)))[: len(numbers)] == numbers


def _part(text: str) -> tuple[object, ...]:
    pieces: list[object] = []
    for letters, digits in _PIECES.findall(text):
        pieces += [(*map(_weight, letters), 0), int(digits or 0)]
    return tuple(pieces)


def _weight(character: str) -> int:
    if character == "~":
        return -1  # below the 0 that ends a piece
    return ord(character) if character.isalpha() else ord(character) + 256
