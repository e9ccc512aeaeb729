"""Which of the recorded calls failed, and which succeeded?

Where the trace says what each call returned there is nothing to find out. Where it does not, calls are told apart by
how they differ: those that went through much the same functions belong together, and of two such groups the one that
reaches `fd_install()` made a descriptor and succeeded; or the one whose share of the calls is that of the successes;
or, where nothing else is known, the one that got further, because a call that fails gives up early.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

from profiler.infer.graph_difference import Tree, TreeType

DESCRIPTOR_IS_MADE = ("fd_install", "__fd_install", "do_dup2", "receive_fd")  # in calls that return one
_ALIKE = 0.9  # of the functions of two calls in common: one group
_LEAST_SHARE = 0.02  # of the calls, below which a group is a detour
_MOST_GROUPS = 8
_MUCH_LONGER = 1.2  # times as many functions
_LARGEST_ERRNO = 4095


@dataclass(frozen=True, slots=True)
class Told(Generic[TreeType]):
    """The calls of each side. `how` says in words how they were told apart, or why they could not be."""

    failing: list[TreeType]
    succeeding: list[TreeType]
    how: str
    certain: bool = True  # by what the calls returned


def tell_apart(trees: Sequence[TreeType], errno: int, failures: float | None = None) -> Told[TreeType]:
    """`errno` is positive; `failures`: the share of the calls that failed, where it was counted."""
    known = [tree for tree in trees if tree.result is not None]
    if known and len(known) >= len(trees) / 2:
        failing = [tree for tree in known if tree.result == -errno]
        succeeding = [tree for tree in known if not is_error(tree.result)]
        return Told(failing, succeeding, "what each call returned")
    if failures is not None and failures >= 1:
        return Told(list(trees), [], "every call failed", certain=False)
    if failures is not None and failures <= 0:
        return Told([], list(trees), "no call failed", certain=False)
    groups = groups_of(trees)
    if len(groups) < 2:
        return Told([], [], "cannot be told: all calls went through the same functions", certain=False)
    return _by_descriptor(groups) or _by_share(groups, failures) or _by_length(groups)


def is_error(result: int | None) -> bool:
    return result is not None and -_LARGEST_ERRNO <= result < 0


def groups_of(trees: Sequence[TreeType]) -> list[list[TreeType]]:
    """Calls by the functions they went through, the largest group first; what is nearly alike is one group."""
    alike: dict[frozenset[str], list[TreeType]] = {}
    for tree in trees:
        alike.setdefault(functions_of(tree), []).append(tree)
    groups: list[tuple[frozenset[str], list[TreeType]]] = []
    for functions, members in sorted(alike.items(), key=lambda item: -len(item[1])):
        for seen, group in groups:
            if len(seen & functions) >= _ALIKE * len(seen | functions) and _decides_alike(seen, functions):
                group.extend(members)
                break
        else:
            groups.append((functions, list(members)))
    large = [group for _, group in groups if len(group) >= _LEAST_SHARE * len(trees)]
    return sorted(large, key=lambda group: -len(group))[:_MOST_GROUPS]


def functions_of(tree: Tree) -> frozenset[str]:
    return frozenset(node.function for node in tree.nodes)


def _decides_alike(one: frozenset[str], other: frozenset[str]) -> bool:
    return one.isdisjoint(DESCRIPTOR_IS_MADE) == other.isdisjoint(DESCRIPTOR_IS_MADE)


def _by_descriptor(groups: list[list[TreeType]]) -> Told[TreeType] | None:
    with_it = [not functions_of(group[0]).isdisjoint(DESCRIPTOR_IS_MADE) for group in groups]
    if all(with_it) or not any(with_it):
        return None
    name = next(name for name in DESCRIPTOR_IS_MADE if any(name in functions_of(group[0]) for group in groups))
    return Told(
        failing=[tree for group, made in zip(groups, with_it, strict=True) if not made for tree in group],
        succeeding=[tree for group, made in zip(groups, with_it, strict=True) if made for tree in group],
        how=f"only calls that succeed reach {name}()",
        certain=False,
    )


def _by_share(groups: list[list[TreeType]], failures: float | None) -> Told[TreeType] | None:
    """The groups that together have the share of the failures, where no other choice comes near it."""
    if failures is None:
        return None
    whole = sum(len(group) for group in groups)
    error = 3 * math.sqrt(failures * (1 - failures) / whole) + 1 / whole
    fitting = []
    for count in range(1, len(groups)):
        for chosen in itertools.combinations(range(len(groups)), count):
            share = sum(len(groups[index]) for index in chosen) / whole
            if abs(share - failures) <= error:
                fitting.append(chosen)
    if len(fitting) != 1:
        return None
    return Told(
        failing=[tree for index, group in enumerate(groups) if index in fitting[0] for tree in group],
        succeeding=[tree for index, group in enumerate(groups) if index not in fitting[0] for tree in group],
        how=f"{failures:.0%} of the calls failed, and so many went another way than the rest",
        certain=False,
    )


def _by_length(groups: list[list[TreeType]]) -> Told[TreeType]:
    """Of the two largest groups the longer one."""
    short, long = sorted(groups[:2], key=lambda group: len(functions_of(group[0])))
    if len(functions_of(long[0])) < _MUCH_LONGER * len(functions_of(short[0])):
        return Told([], [], "cannot be told: calls went two ways, and neither is much longer", certain=False)
    how = "calls that go through fewer functions are taken for the failing ones; what they returned is not known"
    return Told(short, long, how, certain=False)
