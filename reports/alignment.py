"""Lines of one function in several versions, aligned by their text."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence

Pair = tuple[int | None, int | None]

_ALIKE = 0.7  # difflib ratio from which an edited line counts as the same line
_BLOCK_AT_MOST = 40  # lines; larger rewritten blocks are not searched for edited lines
_POPULAR_FROM = 2000  # lines; from here difflib does not anchor on frequent ones (braces), which keeps it fast


def normal(line: str) -> str:
    """The line without what does not matter: indentation and spacing."""
    return " ".join(line.split())


def align(old: Sequence[str], new: Sequence[str]) -> list[Pair]:
    """Index pairs that cover both sequences in order; None stands for "not in this version"."""
    left, right = [normal(line) for line in old], [normal(line) for line in new]
    pairs: list[Pair] = []
    matcher = difflib.SequenceMatcher(None, left, right, autojunk=max(len(left), len(right)) > _POPULAR_FROM)
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        if tag == "equal":
            pairs += zip(range(i1, i2), range(j1, j2), strict=True)
        else:
            pairs += _edited(left, right, range(i1, i2), range(j1, j2))
    return pairs


def _edited(left: list[str], right: list[str], olds: range, news: range) -> list[Pair]:
    """A block that differs: the pairing in order with the greatest likeness, counting alike lines only."""
    likeness = _likeness(left, right, olds, news)
    pairs: list[Pair] = []
    i = j = 0
    while i < len(olds) or j < len(news):
        if (
            i < len(olds)
            and j < len(news)
            and likeness[i][j]
            == _score(left, right, olds[i], news[j]) + (likeness[i + 1][j + 1])
            > max(likeness[i + 1][j], likeness[i][j + 1])
        ):
            pairs.append((olds[i], news[j]))
            i, j = i + 1, j + 1
        elif j == len(news) or (i < len(olds) and likeness[i + 1][j] >= likeness[i][j + 1]):
            pairs.append((olds[i], None))
            i += 1
        else:
            pairs.append((None, news[j]))
            j += 1
    return pairs


def _likeness(left: list[str], right: list[str], olds: range, news: range) -> list[list[float]]:
    """Entry [i][j]: the best total likeness of olds[i:] against news[j:]."""
    table = [[0.0] * (len(news) + 1) for _ in range(len(olds) + 1)]
    if max(len(olds), len(news)) > _BLOCK_AT_MOST:
        return table
    for i in reversed(range(len(olds))):
        for j in reversed(range(len(news))):
            paired = _score(left, right, olds[i], news[j]) + table[i + 1][j + 1]
            table[i][j] = max(paired, table[i + 1][j], table[i][j + 1])
    return table


def _score(left: list[str], right: list[str], i: int, j: int) -> float:
    a, b = left[i], right[j]
    if not a or not b or 2 * min(len(a), len(b)) < _ALIKE * (len(a) + len(b)):
        return 0.0
    ratio = difflib.SequenceMatcher(None, a, b, autojunk=False).ratio()
    return ratio if ratio >= _ALIKE else 0.0


def alike(one: Sequence[str], other: Sequence[str]) -> float:
    """How much text two functions share, 0 to 1: the Dice coefficient of their lines, trivial ones left out."""
    a, b = (Counter(line for line in map(normal, lines) if len(line) > 3) for lines in (one, other))
    total = sum(a.values()) + sum(b.values())
    return 2 * sum((a & b).values()) / total if total else 0.0
