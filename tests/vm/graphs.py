"""Graphs of every so many functions of a real kernel, and what is wrong with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import cast

from iced_x86 import Mnemonic

from profiler.debuginfo.code import KernelCode, architecture_of
from profiler.debuginfo.functions import Function
from profiler.debuginfo.lines import LineTable
from profiler.debuginfo.vmlinux import Vmlinux
from profiler.graph import FunctionGraph

_PADDING = (Mnemonic.NOP, Mnemonic.INT3, "nop")


def code_of(path: Path) -> KernelCode:
    """The code of an image, without lines."""
    return KernelCode(Vmlinux(path), cast(LineTable, None))


def functions_of(code: KernelCode, every: int) -> Iterator[Function]:
    """Every so many functions of the kernel's text that begin in themselves: not the split-off parts."""
    start, end = code.vmlinux.text_range
    table = code.vmlinux.functions
    for row in range(0, len(table), every):
        function = table[row]
        if start <= function.start < end and ".cold" not in function.name:
            yield function


def sweep(code: KernelCode, every: int) -> Counter[str]:
    """Counts over the graphs: functions, blocks, bytes, bytes that no jump leads to, and what must not be."""
    counts: Counter[str] = Counter()
    for function in functions_of(code, every):
        graph = code.graph(function.start)
        counts.update(
            functions=1,
            blocks=len(graph.blocks),
            bytes=function.end - function.start,
            undecoded=len(graph.undecoded),
            unreached=unreached(code, function, graph),
            lost_edges=sum(edge.target not in graph.blocks for block in graph.blocks.values() for edge in block.edges),
            overlaps=overlaps(graph),
            out_of_text=sum(_leads_nowhere(code, graph)),
            calls_of_return_thunks=sum("return_thunk" in name for name in _callees(code, graph)),
        )
    return counts


def overlaps(graph: FunctionGraph) -> int:
    """Blocks that begin within another; those that stand for a fault have no instructions."""
    real = sorted((block.start, block.end) for block in graph.blocks.values() if block.instructions)
    return sum(following < end for (_, end), (following, _) in pairwise(real))


def unreached(code: KernelCode, function: Function, graph: FunctionGraph) -> int:
    """Bytes of the function, padding aside, that belong to no block."""
    left, position = 0, function.start
    for block in sorted(graph.blocks.values(), key=lambda block: block.start):
        if function.start <= block.start < function.end:
            if block.start > position:
                left += _content(code, position, block.start)
            position = max(position, block.end)
    return left + _content(code, position, function.end)


def _content(code: KernelCode, start: int, end: int) -> int:
    """Bytes in a gap that are neither no-ops nor what fills up behind a jump."""
    machine, content = architecture_of(code.vmlinux.machine), 0
    while start < end:
        instruction = machine.decode(code.read(start, min(machine.longest, end - start)), start)
        size = instruction.end - start if instruction is not None else 1
        if instruction is None or instruction.raw.mnemonic not in _PADDING:
            content += size
        start += size
    return content


def _leads_nowhere(code: KernelCode, graph: FunctionGraph) -> Iterator[bool]:
    """Of each direct call or jump out of the function, whether no function is there."""
    yield from (not name for name in _callees(code, graph))


def _callees(code: KernelCode, graph: FunctionGraph) -> Iterator[str]:
    for block in graph.blocks.values():
        if block.call is not None and block.call.target is not None:
            found = code.function_at(block.call.target)
            yield found[0] if found is not None else ""
