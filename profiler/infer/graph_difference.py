"""Call trees of failing and of succeeding calls, merged and held side by side: where do they part?

All trees of both sides go into one merged tree, in the order of the calls, each node with how many failing and how many
succeeding calls went through it. Where a function is in all of one side and in none of the other, they have parted.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from profiler.model import GraphComparison, GraphLine

_LONGEST_REPEAT = 6  # callees in a row that a loop calls again and again
_SEVERAL = 3  # calls: what one or two have in common may be chance
_ALWAYS, _NEVER = 0.9, 0.1  # shares of calls: the rest took a detour, or was interrupted


class Node(Protocol):
    """One call within a tree."""

    @property
    def function(self) -> str: ...
    @property
    def depth(self) -> int: ...  # 0 for the entry function itself
    @property
    def returned(self) -> int | None: ...


class Tree(Protocol):
    """A system call and the calls it made, in their order; profiler.parse.function_graph.CallTree."""

    @property
    def result(self) -> int | None: ...
    @property
    def interrupted(self) -> bool: ...  # functions of an interrupt may be among the nodes
    @property
    def nodes(self) -> Sequence[Node]: ...  # the entry function first


TreeType = TypeVar("TreeType", bound=Tree)


@dataclass(slots=True)
class Merged:
    """A function in the merged tree: in how many calls of each side it was called here, and what it returned there."""

    function: str
    failing: int = 0
    succeeding: int = 0
    callees: list[Merged] = field(default_factory=list)
    repeated: int = 1  # how often in a row, at most
    returned_failing: Counter[int] = field(default_factory=Counter)
    returned_succeeding: Counter[int] = field(default_factory=Counter)

    def walk(self, depth: int = 0) -> Iterator[tuple[int, Merged]]:
        yield depth, self
        for callee in self.callees:
            yield from callee.walk(depth + 1)


@dataclass(frozen=True, slots=True)
class _Shape:
    """A tree with its loops folded: what can be equal between two calls."""

    function: str
    returned: int | None
    callees: tuple[tuple[_Shape, int], ...]  # each with how often it is repeated in a row


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where the sides part: within `function`, behind a callee of both (None at its beginning)."""

    function: str
    behind: Merged | None
    only_failing: tuple[str, ...]  # functions that are called from there by one side alone, in order
    only_succeeding: tuple[str, ...]
    first: Merged  # the first that differs


def compare(failing: Sequence[TreeType], succeeding: Sequence[TreeType], told_by: str) -> GraphComparison:
    """Both sides in one tree, marked where they part. Trees of one entry function."""
    failing, succeeding = undisturbed(failing), undisturbed(succeeding)
    root = merge(failing, succeeding)
    counts = (len(failing), len(succeeding))
    if root is None:
        return GraphComparison(*counts, told_by, lines=[])
    found = divergences(root, *counts) if failing and succeeding else []
    lines = [_line(depth, node, counts, found) for depth, node in root.walk()]
    parted_in = found[0].function if found else ""
    return GraphComparison(*counts, told_by, lines, in_words(found, root, counts), parted_in)


def merge(failing: Iterable[Tree], succeeding: Iterable[Tree]) -> Merged | None:
    """None without any tree. Calls of one shape are merged once, the commonest first, so that the order is theirs."""
    root: Merged | None = None
    for side, trees in (("failing", failing), ("succeeding", succeeding)):
        shapes = Counter(shape_of(tree) for tree in trees)
        for shape, count in shapes.most_common():
            root = root or Merged(shape.function)
            _add(root, shape, count, side, 1)
    return root


def undisturbed(trees: Sequence[TreeType]) -> list[TreeType]:
    """Those that no interrupt came into, if they are several; else all. Under emulation most calls are interrupted."""
    found = [tree for tree in trees if not tree.interrupted]
    return found if len(found) >= min(_SEVERAL, len(trees)) else list(trees)


def shape_of(tree: Tree) -> _Shape:
    shape, _ = _shape_at(tree.nodes, 0)
    return shape


def _shape_at(nodes: Sequence[Node], at: int) -> tuple[_Shape, int]:
    """The shape of what begins there, and where the next begins."""
    node, callees, at = nodes[at], [], at + 1
    while at < len(nodes) and nodes[at].depth > node.depth:
        callee, at = _shape_at(nodes, at)
        callees.append(callee)
    return _Shape(node.function, node.returned, tuple(_folded(callees))), at


def _folded(callees: list[_Shape]) -> Iterator[tuple[_Shape, int]]:
    """Callees with the turns of a loop taken together: a b a b a b becomes a b, each three times."""
    at = 0
    while at < len(callees):
        length, times = _repeat_at(callees, at)
        for shape in callees[at : at + length]:
            yield shape, times
        at += length * times


def _repeat_at(callees: list[_Shape], at: int) -> tuple[int, int]:
    """The length of what is repeated from there on, the shortest first, and how often."""
    for length in range(1, _LONGEST_REPEAT + 1):
        times = 1
        while callees[at : at + length] == callees[at + times * length : at + (times + 1) * length] and (
            at + (times + 1) * length <= len(callees)
        ):
            times += 1
        if times > 1:
            return length, times
    return 1, 1


def _add(node: Merged, shape: _Shape, count: int, side: str, times: int) -> None:
    setattr(node, side, getattr(node, side) + count)
    node.repeated = max(node.repeated, times)
    if shape.returned is not None:
        (node.returned_failing if side == "failing" else node.returned_succeeding)[shape.returned] += count
    _align(node, [callee for callee, _ in shape.callees], shape, count, side)


def _align(node: Merged, callees: list[_Shape], shape: _Shape, count: int, side: str) -> None:
    """Puts the callees of one more call to those that are there, order kept, by function name."""
    here, new = [callee.function for callee in node.callees], [callee.function for callee in callees]
    matcher = difflib.SequenceMatcher(None, here, new, autojunk=False)
    merged: list[Merged] = []
    for tag, start, end, new_start, new_end in matcher.get_opcodes():
        merged += node.callees[start:end]
        if tag == "equal":
            for offset in range(end - start):
                at = new_start + offset
                _add(node.callees[start + offset], callees[at], count, side, shape.callees[at][1])
            continue
        for at in range(new_start, new_end):
            added = Merged(callees[at].function)
            _add(added, callees[at], count, side, shape.callees[at][1])
            merged.append(added)
    node.callees = merged


# ---- where they part ----


def divergences(root: Merged, failing: int, succeeding: int) -> list[Divergence]:
    """Where all calls of one side go through a function and none of the other, in the order of the calls.

    The last is the outermost: it says how the call ends. What made it end so happened in the function that both went
    through right before; where they part within that, and so on inwards, comes before.
    """
    found: list[Divergence] = []
    within: Merged | None = root
    while within is not None:
        one = _outermost(within, failing, succeeding)
        if one is None:
            break
        found.insert(0, one)
        within = one.behind
    return found


def _outermost(root: Merged, failing: int, succeeding: int) -> Divergence | None:
    """The one with the fewest calls around it, the first of those."""
    level = [root]
    while level:
        for parent in level:
            for index, callee in enumerate(parent.callees):
                if _side(callee, failing, succeeding):
                    return _divergence_at(parent, index, failing, succeeding)
        level = [callee for parent in level for callee in parent.callees if callee.failing and callee.succeeding]
    return None


def _side(node: Merged, failing: int, succeeding: int) -> str:
    """The side that alone calls it; "" for both, or where neither does so always."""
    shares = node.failing / max(failing, 1), node.succeeding / max(succeeding, 1)
    if shares[0] >= _ALWAYS and shares[1] <= _NEVER:
        return "failing"
    return "succeeding" if shares[1] >= _ALWAYS and shares[0] <= _NEVER else ""


def _divergence_at(parent: Merged, index: int, failing: int, succeeding: int) -> Divergence:
    """Up to where both sides come together again. What only some calls of a side go through is left out."""
    common = [i for i in range(index) if parent.callees[i].failing and parent.callees[i].succeeding]
    only: dict[str, list[str]] = {"failing": [], "succeeding": []}
    for callee in parent.callees[index:]:
        if callee.failing >= _ALWAYS * failing and callee.succeeding >= _ALWAYS * succeeding:
            break
        if side := _side(callee, failing, succeeding):
            only[side].append(callee.function)
    return Divergence(
        parent.function,
        parent.callees[common[-1]] if common else None,
        tuple(only["failing"]),
        tuple(only["succeeding"]),
        parent.callees[index],
    )


def in_words(found: Sequence[Divergence], root: Merged, counts: tuple[int, int]) -> str:
    if not all(counts):
        return ""
    if not found:
        return (
            f"both call the same functions: {root.function}() decides without calling anything, "
            "or in functions that were inlined"
        )
    # What lies between the innermost and the outermost only hands on what came of it.
    return "; and so ".join(_one_in_words(one) for one in found[:: max(1, len(found) - 1)])


def _one_in_words(found: Divergence) -> str:
    where = f"in {found.function}()" + (f", behind {found.behind.function}()" if found.behind is not None else "")
    says = []
    if found.only_succeeding:
        says.append(f"the succeeding calls go on to {_listed(found.only_succeeding)}")
    if found.only_failing:
        says.append(f"the failing ones call {_listed(found.only_failing)}")
    else:
        says.append("the failing ones do not")
    if not found.only_succeeding:
        says.append("the succeeding ones do not")
    return f"{where}: {', '.join(says)}"


def _listed(names: Sequence[str]) -> str:
    shown = [f"{name}()" for name in dict.fromkeys(names)]
    if len(shown) > 2:
        return f"{shown[0]} and {len(shown) - 1} more"
    return " and ".join(shown)


def _line(depth: int, node: Merged, counts: tuple[int, int], found: Sequence[Divergence]) -> GraphLine:
    return GraphLine(
        depth=depth,
        function=node.function,
        failing=node.failing > 0,
        succeeding=node.succeeding > 0 if counts[1] else None,
        diverges=any(node is one.first for one in found),
        note=_note(node, counts),
        failing_returned=_values(node.returned_failing),
        succeeding_returned=_values(node.returned_succeeding),
    )


def _note(node: Merged, counts: tuple[int, int]) -> str:
    notes = []
    if node.repeated > 1:
        notes.append(f"{node.repeated} times")
    for name, here, whole in (("failing", node.failing, counts[0]), ("succeeding", node.succeeding, counts[1])):
        if 0 < here < whole:
            notes.append(f"in {here} of {whole} {name}")
    return "; ".join(notes)


def _values(returned: Counter[int]) -> str:
    shown = [
        str(value) if -4096 < value < 4096 else f"{value & (1 << 64) - 1:#x}" for value, _ in returned.most_common(2)
    ]
    return " or ".join(shown) + (" ..." if len(returned) > 2 else "")
