"""Statement-level control flow of a C function, as its source text has it.

`flow_of(lines, "do_mlock", 600)` parses one function with tree-sitter and gives a graph of plain data. Operands of
`&&`, `||`, `!` and `?:` are conditions of their own, so that each has its lines and its outcome; a
`return x ? -EPERM : 0;` becomes a condition and two returns. Macros are not expanded: loop macros
(`list_for_each_entry`) are loops, and a macro that is given a label as argument may go there; a macro that
returns is not seen to.
"""

from __future__ import annotations

import errno as errno_numbers
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from profiler.debuginfo.c_functions import SourceFile
from profiler.debuginfo.c_preprocessor import Config

# include/linux/errno.h: codes that stay within the kernel
KERNEL_ERRNOS = (
    "ERESTARTSYS ERESTARTNOINTR ERESTARTNOHAND ENOIOCTLCMD ERESTART_RESTARTBLOCK EPROBE_DEFER EOPENSTALE ENOPARAM "
    "EBADHANDLE ENOTSYNC EBADCOOKIE ENOTSUPP ETOOSMALL ESERVERFAULT EBADTYPE EJUKEBOX EIOCBQUEUED ERECALLCONFLICT "
    "ENOGRACE EFSCORRUPTED EFSBADCRC EWOULDBLOCK EDEADLOCK"
)
# of two names for one number (EOPNOTSUPP, ENOTSUP) errorcode has one
ERRNO_NAMES = frozenset(name for name in dir(errno_numbers) if name[0] == "E") | frozenset(KERNEL_ERRNOS.split())


@dataclass(frozen=True, slots=True)
class Value:
    """An expression: what it names and calls."""

    expression: str
    errnos: tuple[str, ...] = ()  # literal in it, such as ENOMEM, but not those it compares with
    calls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Assignment:
    """`target operator value`: `=` (also of an initialiser), `|=`, `++`; `&` where a call takes its address."""

    target: str
    operator: str
    value: Value


@dataclass(frozen=True, slots=True)
class Whole:
    """The controlling expression that a condition is an operand of."""

    first_line: int
    last_line: int
    text: str
    statement: str  # if, while, for, do, ?:, &&


@dataclass(frozen=True, slots=True)
class FlowNode:
    """A statement, or an operand of a condition. Lines count from 1 and include both ends.

    kind: entry, exit, statement, condition, loop (the head of a loop, where its rounds meet), switch, case, label,
    goto, break, continue, return, preprocessor (an #if that the configuration does not decide).
    """

    index: int
    kind: str
    first_line: int
    last_line: int
    text: str  # source text without comments, white space folded
    assigns: tuple[Assignment, ...] = ()
    returned: Value | None = None  # for a return with a value
    errnos: tuple[str, ...] = ()  # literal anywhere in it, but not those it compares with
    compared: tuple[str, ...] = ()  # errno names that it compares with
    calls: tuple[str, ...] = ()  # functions and macros called anywhere in it, in the order of the text
    whole: Whole | None = None  # for a condition


@dataclass(frozen=True, slots=True)
class FlowEdge:
    """`outcome`: the value of the condition it leaves; `label`: the case it takes, "otherwise" where none fits."""

    source: int
    target: int
    outcome: bool | None = None
    label: str | None = None


@dataclass(frozen=True)
class SourceFlow:
    """The control flow of one function. Node 0 is the entry, node 1 the exit."""

    function: str  # the name it was asked for
    defined_as: str  # the name of the definition
    first_line: int  # of the head
    last_line: int  # of the closing brace
    nodes: tuple[FlowNode, ...]
    edges: tuple[FlowEdge, ...]
    parse_errors: int  # places that the grammar could not make sense of; their statements may be missing
    entry: int = field(default=0, init=False)
    exit: int = field(default=1, init=False)

    @cached_property
    def _leaving(self) -> list[list[FlowEdge]]:
        by: list[list[FlowEdge]] = [[] for _ in self.nodes]
        for edge in self.edges:
            by[edge.source].append(edge)
        return by

    @cached_property
    def _reaching(self) -> list[list[FlowEdge]]:
        by: list[list[FlowEdge]] = [[] for _ in self.nodes]
        for edge in self.edges:
            by[edge.target].append(edge)
        return by

    def leaving(self, node: FlowNode | int) -> list[FlowEdge]:
        """The edges out of a node."""
        return self._leaving[node if isinstance(node, int) else node.index]

    def reaching(self, node: FlowNode | int) -> list[FlowEdge]:
        """The edges into a node."""
        return self._reaching[node if isinstance(node, int) else node.index]

    @cached_property
    def reachable(self) -> frozenset[int]:
        """The nodes that some path from the entry reaches; the rest is dead code or was misread."""
        seen, waiting = {self.entry}, [self.entry]
        while waiting:
            for edge in self.leaving(waiting.pop()):
                if edge.target not in seen:
                    seen.add(edge.target)
                    waiting.append(edge.target)
        return frozenset(seen)

    def nodes_at(self, line: int) -> list[FlowNode]:
        """The nodes whose lines include a line, those with the fewest lines first; entry and exit left out."""
        found = [n for n in self.nodes[2:] if n.first_line <= line <= n.last_line]
        return sorted(found, key=lambda n: (n.last_line - n.first_line, n.index))

    def returns(self) -> Iterator[FlowNode]:
        return (node for node in self.nodes if node.kind == "return")


def flow_of(
    text_lines: list[str], function_name: str, near_line: int = 0, config: Config | None = None
) -> SourceFlow | None:
    """The control flow of a function of a file; None where the file does not define it.

    `function_name` may be any symbol of a system call (`__x64_sys_bind`, `__do_sys_bind`) or of a function without
    `.part.N` and the like. `near_line` tells definitions of one name apart. For several functions of a file, keep a
    `SourceFile` and call `flow_in`.
    """
    return flow_in(SourceFile(text_lines, config), function_name, near_line)


def flow_in(source: SourceFile, function_name: str, near_line: int = 0) -> SourceFlow | None:
    """As `flow_of`, on a file that was prepared once."""
    from profiler.debuginfo.flow_builder import build_flow  # noqa: PLC0415  # it imports the nouns above

    function = source.find(function_name, near_line)
    return build_flow(source, function, function_name) if function else None


# one number under two names
SYNONYMS = {
    "EAGAIN": {"EWOULDBLOCK"},
    "EWOULDBLOCK": {"EAGAIN"},
    "EDEADLK": {"EDEADLOCK"},
    "EDEADLOCK": {"EDEADLK"},
    "EOPNOTSUPP": {"ENOTSUP"},
}
