"""The text of the kernel's function_graph tracer to calls, events and trees.

      86.123100 |   0)  python3-120   |               |  __x64_sys_mprotect() {
      86.123103 |   0)  python3-120   |   3.296 us    |    do_mprotect_pkey();
      86.123110 |   0)  python3-120   | + 10.240 us   |  } /* __x64_sys_mprotect */
      86.123114 |   0)  python3-120   |               |  /* sys_exit: NR 10 = -22 */

Which columns there are is found out from the lines themselves; `function_graph_lines` reads lines,
`function_graph_match` puts entries and exits together. Formats: kernel/trace/trace_functions_graph.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from profiler.parse.function_graph_lines import Tables, blocks
from profiler.parse.function_graph_match import Matcher
from profiler.parse.function_graph_types import NONE, CallTree, FunctionGraph, GraphCalls, GraphEvents, GraphNode

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CallTree", "FunctionGraph", "GraphNode", "calls", "parts", "plain", "read"]

# Called at the begin of an interrupt, before the kernel counts itself as in one. What an interrupt calls from
# there on until it returns cannot be told from what the interrupted function calls.
INTERRUPT_BEGINS = frozenset({"irq_enter_rcu", "irq_enter", "__irq_enter_raw", "nmi_enter", "irqentry_enter"})
# Called where a thread gives up the CPU; of its own will if schedule() calls it.
SWITCH_BEGINS = frozenset({"rcu_note_context_switch", "finish_task_switch", "finish_task_switch.isra.0"})


def read(source: Path | Iterable[bytes]) -> FunctionGraph:
    """The whole trace at once. `source` is a file, or lines or pieces of one cut anywhere."""
    found = list(parts(source))
    return _join(found) if len(found) != 1 else found[0]


def parts(source: Path | Iterable[bytes], *, block: int = 1 << 20) -> Iterator[FunctionGraph]:
    """The trace bit by bit, in memory that does not grow with its length; at least one part.

    A tree lies whole in one part, with the sys_exit event that follows it, unless it has more than a million lines.
    Faults and losses are each in one part. `block` is in bytes.
    """
    tables = Tables()
    matcher = Matcher(tables)
    for lines in blocks(source, block, tables):
        part = matcher.add(lines)
        if part is not None:
            yield part
    yield matcher.finish()


def calls(graph: FunctionGraph, entry: str, *, whole: bool = True) -> list[CallTree]:
    """Every call of the function `entry` that is not within another; with `whole=False` those that do not end too."""
    columns = graph.calls
    wanted = [number for number, name in enumerate(graph.names) if plain(name) == entry]
    begins = np.flatnonzero(np.isin(columns.function, np.array(wanted, np.int32)))
    results = _Results(graph)
    trees = []
    end = NONE
    for first in begins.tolist():
        within = columns.opened[first] < end and _is_within(columns, first, wanted)
        if not within and (columns.complete[first] or not whole):
            trees.append(_tree(graph, first, results))
            end = max(end, int(columns.closed[first]))
    return trees


def plain(name: str) -> str:
    """A function's name without the module that it is of: "ext4_map [ext4]" is ext4_map."""
    return name.rpartition(" [")[0] if name.endswith("]") and " [" in name else name


def _is_within(columns: GraphCalls, row: int, functions: list[int]) -> bool:
    """Whether one of the functions is among the row's callers."""
    while (row := int(columns.parent[row])) != NONE:
        if columns.function[row] in functions:
            return True
    return False


def _tree(graph: FunctionGraph, first: int, results: _Results) -> CallTree:
    columns = graph.calls
    rows = _rows_of(columns, first)
    base = int(columns.depth[first])
    nodes = tuple(
        GraphNode(
            function=plain(graph.names[columns.function[row]]),
            depth=int(columns.depth[row]) - base,
            duration=int(columns.duration[row]),
            returned=int(columns.returned[row]) if columns.has_returned[row] else None,
        )
        for row in rows
    )
    result, told_by = results.of(first)
    return CallTree(
        thread=int(columns.thread[first]),
        start=int(columns.start[first]),
        duration=int(columns.duration[first]),
        result=result,
        told_by=told_by,
        interrupted=_is_interrupted(nodes),
        nodes=nodes,
    )


def _is_interrupted(nodes: tuple[GraphNode, ...]) -> bool:
    """By an interrupt, or by another thread that took the CPU at the end of one: __schedule itself is never traced."""
    callers: list[str] = []
    for node in nodes:
        del callers[node.depth :]
        if node.function in INTERRUPT_BEGINS:
            return True
        if node.function in SWITCH_BEGINS and callers and not callers[-1].startswith("schedule"):
            return True
        callers.append(node.function)
    return False


def _rows_of(columns: GraphCalls, first: int) -> list[int]:
    """The row and all below it, in order. Rows of other threads and CPUs may lie between."""
    inside = {first}
    end = columns.closed[first]
    last = len(columns.opened) if end == NONE else int(np.searchsorted(columns.opened, end))
    for row, parent in enumerate(columns.parent[first + 1 : last].tolist(), first + 1):
        if parent in inside:
            inside.add(row)
    return sorted(inside)


class _Results:
    """What the system calls returned, by the sys_exit event after each or by the tracer's own retval."""

    # sys_exit: NR 10 = -22          (raw_syscalls:sys_exit)
    # sys_mprotect -> 0xffffffffffffffea   (syscalls:sys_exit_mprotect)
    _EXIT = re.compile(r"sys_exit: NR -?\d+ = (-?\d+)$|sys_\w+ -> (0x[0-9a-f]+)$")

    def __init__(self, graph: FunctionGraph) -> None:
        self._calls = graph.calls
        found: dict[int, tuple[list[int], list[int]]] = {}
        events = graph.events
        for thread, offset, text in zip(events.thread.tolist(), events.offset.tolist(), events.text, strict=True):
            match = self._EXIT.match(text)
            if match is not None:
                offsets, values = found.setdefault(thread, ([], []))
                offsets.append(offset)
                values.append(int(match[1]) if match[1] else signed(int(match[2], 16)))
        self._exits = {thread: (np.array(offsets), values) for thread, (offsets, values) in found.items()}
        self._begins: dict[tuple[int, int], NDArray[np.int64]] = {}

    def of(self, row: int) -> tuple[int | None, str]:
        """The result of the call in that row, and how it is known."""
        columns = self._calls
        thread, closed = int(columns.thread[row]), int(columns.closed[row])
        if closed != NONE and thread in self._exits:
            offsets, values = self._exits[thread]
            place = int(np.searchsorted(offsets, closed))
            if place < len(values) and not self._another_between(row, closed, int(offsets[place])):
                return values[place], "sys_exit"
        if columns.has_returned[row]:
            return int(columns.returned[row]), "retval"
        return None, ""

    def _another_between(self, row: int, closed: int, offset: int) -> bool:
        """Whether the same function was entered again before the event, which then is not this call's."""
        thread, function = int(self._calls.thread[row]), int(self._calls.function[row])
        if (thread, function) not in self._begins:
            same = (self._calls.thread == thread) & (self._calls.function == function)
            self._begins[thread, function] = self._calls.opened[same]
        begins = self._begins[thread, function]
        place = int(np.searchsorted(begins, closed))
        return place < len(begins) and int(begins[place]) < offset


def signed(value: int) -> int:
    """A 64-bit register as the number that it is in C's long."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def _join(found: list[FunctionGraph]) -> FunctionGraph:
    bases = np.cumsum([0, *(len(part.calls.opened) for part in found)])
    columns = {name: np.concatenate([getattr(part.calls, name) for part in found]) for name in GraphCalls.__slots__}
    parents = [
        np.where(part.calls.parent >= 0, part.calls.parent + base, NONE)
        for part, base in zip(found, bases, strict=False)
    ]
    columns["parent"] = np.concatenate(parents)
    events = {
        name: np.concatenate([getattr(part.events, name) for part in found])
        for name in ("time", "cpu", "thread", "offset")
    }
    order = np.argsort(columns["opened"], kind="stable")
    place = np.empty(len(order) + 1, np.int64)
    place[order] = np.arange(len(order))
    place[-1] = NONE
    columns = {name: column[order] for name, column in columns.items()}
    columns["parent"] = place[columns["parent"]]
    sequence = np.argsort(events["offset"], kind="stable")
    texts = [text for part in found for text in part.events.text]
    return FunctionGraph(
        calls=GraphCalls(**columns),
        events=GraphEvents(
            **{name: column[sequence] for name, column in events.items()},
            text=tuple(texts[number] for number in sequence.tolist()),
        ),
        names=found[-1].names,
        threads=found[-1].threads,
        lost=sum(part.lost for part in found),
        exits_without_entry=sum(part.exits_without_entry for part in found),
        decode_errors=tuple(error for part in found for error in part.decode_errors),
    )
