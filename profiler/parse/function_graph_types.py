"""What a function_graph trace holds: calls, events, and whole calls as trees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from profiler.model import DecodeError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NONE = -1  # in a column: not printed, or not known


@dataclass(frozen=True, slots=True, eq=False)
class GraphCalls:
    """Calls as columns, in the order in which they began in the text."""

    function: NDArray[np.int32]  # index into FunctionGraph.names
    depth: NDArray[np.int16]  # as indented, from 0
    cpu: NDArray[np.int16]  # NONE where not printed
    thread: NDArray[np.int32]  # thread id; where it is not known, -2 - cpu
    start: NDArray[np.int64]  # ns of the trace clock, to the microsecond; NONE where not printed
    duration: NDArray[np.int64]  # ns; NONE where not printed, or not complete
    parent: NDArray[
        np.int64
    ]  # row of the caller; NONE at the outermost, or where the caller's begin is not in the text
    returned: NDArray[np.int64]  # 0 where has_returned is False
    has_returned: NDArray[np.bool_]  # funcgraph-retval was on
    complete: NDArray[np.bool_]  # begin and end are both in the text
    opened: NDArray[np.int64]  # offset of the line in the text, bytes
    closed: NDArray[np.int64]  # likewise, of the line at its end; NONE where not complete


@dataclass(frozen=True, slots=True, eq=False)
class GraphEvents:
    """Events and trace_printk messages among the calls, in the order of the text."""

    time: NDArray[np.int64]  # as GraphCalls.start
    cpu: NDArray[np.int16]
    thread: NDArray[np.int32]
    offset: NDArray[np.int64]  # of the line in the text
    text: tuple[str, ...]  # "sys_exit: NR 10 = -22"


@dataclass(frozen=True, slots=True, eq=False)
class FunctionGraph:
    """A function_graph trace, or a part of one."""

    calls: GraphCalls
    events: GraphEvents
    names: tuple[str, ...]  # of functions, as printed: "ext4_map [ext4]" for one of a module
    threads: dict[int, str]  # thread id → name, at most seven characters, where printed
    lost: int = 0  # events that the text says were lost; where it does not say how many, 1
    exits_without_entry: int = 0  # the trace began inside, or the begin was lost
    decode_errors: tuple[DecodeError, ...] = ()  # by offset of the line


@dataclass(frozen=True, slots=True)
class GraphNode:
    """One call within a tree."""

    function: str
    depth: int  # 0 for the entry function itself
    duration: int  # ns; NONE where not known
    returned: int | None  # where funcgraph-retval was on


@dataclass(frozen=True, slots=True)
class CallTree:
    """One whole call of an entry function: what it called, in order."""

    thread: int
    start: int  # ns of the trace clock; NONE where not printed
    duration: int
    result: int | None  # what the system call returned, where the trace says
    told_by: str  # how `result` is known: "sys_exit", "retval", or ""
    interrupted: bool  # an interrupt's functions may be among the nodes
    nodes: tuple[GraphNode, ...]  # the entry function first

    def functions(self) -> tuple[tuple[int, str], ...]:
        """(depth, function) of each node: what makes two calls alike."""
        return tuple((node.depth, node.function) for node in self.nodes)
