"""The functions on the path, line by line: samples, intervals, what ran."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from profiler.conclude.places import Code, Source
from profiler.conclude.sources import Sources
from profiler.graph import EdgeKind
from profiler.infer.verdict import Located, SolvedCall
from profiler.model import AnnotatedFunction, AnnotatedLine, Branch, ErrorSite, InlinedSamples

_CONTEXT_LINES = 4  # shown around code whose function's extent is not known
Key = tuple[str, str]  # function, file


class LineCount(Protocol):
    @property
    def samples(self) -> int: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def inlined(self) -> list[InlinedSamples]: ...


class Histogram(Protocol):
    @property
    def samples(self) -> int: ...
    @property
    def lines(self) -> Mapping[int, LineCount]: ...


def annotate(
    code: Code,
    sources: Sources,
    located: Located,
    histograms: Mapping[Key, Histogram],
    site: ErrorSite | None,
    branch: Branch | None,
) -> list[AnnotatedFunction]:
    """The functions of the chain from the entry to the origin, and those inlined where the branch and the site lie."""
    ran, present = lines_of_calls(code, located)
    directions = _directions(code, located)
    wanted = _wanted(code, located, site, branch)
    functions = []
    for key, inlined in wanted.items():
        lines_present = present.get(key, set())
        extent = sources.extent(*key, min(lines_present, default=0))
        lines = _lines(sources, key, histograms.get(key), ran.get(key, set()), lines_present, extent)
        turned = [_turn(line, directions.get((*key, line.line), [])) for line in lines]
        marked = [_mark(line, key, site, branch) for line in turned]
        samples = histograms[key].samples if key in histograms else 0
        functions.append(AnnotatedFunction(key[0], key[1], samples, marked, inlined))
    return functions


def profile(source: Source | None, histograms: Mapping[Key, Histogram], most: int) -> list[AnnotatedFunction]:
    """The source functions with the most samples, nothing being known of a path."""
    ranked = sorted(histograms, key=lambda key: (-histograms[key].samples, key))[:most]
    return [
        AnnotatedFunction(
            *key, histograms[key].samples, _lines(source, key, histograms[key], set(), set(), None), inlined=False
        )
        for key in ranked
    ]


def lines_of_calls(code: Code, located: Located) -> tuple[dict[Key, set[int]], dict[Key, set[int]]]:
    """For each source function: the lines that ran on the likeliest walks, and all that have code."""
    ran: dict[Key, set[int]] = {}
    present: dict[Key, set[int]] = {}
    for call, walked in walked_blocks(located):
        for start, block in call.graph.blocks.items():
            for address in range(block.start, block.end):
                for frame in code.frames(address):
                    key = (frame.function, frame.file)
                    present.setdefault(key, set()).add(frame.line)
                    if start in walked:
                        ran.setdefault(key, set()).add(frame.line)
    return ran, present


def walked_blocks(located: Located) -> list[tuple[SolvedCall, set[int]]]:
    """Each call of the chain with the starts of the blocks on its likeliest walk."""
    return [
        (call, {node[0][0] for node in level.walk}) for call, level in zip(located.calls, located.levels, strict=True)
    ]


def _directions(code: Code, located: Located) -> dict[tuple[str, str, int], list[int]]:
    """(function, file, line) of each conditional jump on the walks → the lines of that function it went on to."""
    found: dict[tuple[str, str, int], list[int]] = {}
    for level in located.levels:
        for (position, _), (following, _) in itertools.pairwise(level.walk):
            block = level.graph.blocks[position[0]]
            if not any(edge.kind in (EdgeKind.TAKEN, EdgeKind.NOT_TAKEN) for edge in block.edges):
                continue
            frames, after = code.frames(block.last), code.frames(following[0])
            if not frames:
                continue
            depth = len(after) - len(frames)  # of the jump's own function behind it, where more is inlined
            here = after[depth] if 0 <= depth < len(after) else None
            if here is not None and (here.function, here.file) == (frames[0].function, frames[0].file):
                lines = found.setdefault((here.function, here.file, frames[0].line), [])
                if here.line != frames[0].line and here.line not in lines:
                    lines.append(here.line)
    return found


def _turn(line: AnnotatedLine, goes_to: list[int]) -> AnnotatedLine:
    return replace(line, goes_to=goes_to) if goes_to and line.on_path else line


def _wanted(code: Code, located: Located, site: ErrorSite | None, branch: Branch | None) -> dict[Key, bool]:
    """Source functions to show, in calling order, with whether each is inlined."""
    wanted: dict[Key, bool] = {}
    for call in located.calls:
        frames = code.frames(call.node.entry)
        if frames:
            wanted.setdefault((frames[-1].function, frames[-1].file), False)
    for place in (branch, site):
        if place is not None and place.file:
            wanted.setdefault((place.function, place.file), True)
    return wanted


def _lines(
    source: Source | Sources | None,
    key: Key,
    histogram: Histogram | None,
    ran: set[int],
    present: set[int],
    extent: tuple[int, int] | None,
) -> list[AnnotatedLine]:
    text = source.text(key[1]) if source is not None else None
    counted = histogram.lines if histogram is not None else {}
    known = sorted(line for line in present | set(counted) if line > 0)
    if extent is not None:
        numbers = range(extent[0], extent[1] + 1)
    elif known:
        numbers = range(max(1, known[0] - _CONTEXT_LINES), known[-1] + _CONTEXT_LINES + 1)
    else:
        return []
    return [
        _line(number, _text(text, number), counted.get(number), number in ran if number in present else None)
        for number in numbers
        if text is None or number <= len(text)
    ]


def _text(text: list[str] | None, number: int) -> str | None:
    return text[number - 1] if text is not None and number <= len(text) else None


def _line(number: int, text: str | None, count: LineCount | None, on_path: bool | None) -> AnnotatedLine:
    if count is None:
        return AnnotatedLine(number, text, 0, 0.0, 0.0, on_path)
    return AnnotatedLine(number, text, count.samples, count.low, count.high, on_path, inlined=list(count.inlined))


def _mark(line: AnnotatedLine, key: Key, site: ErrorSite | None, branch: Branch | None) -> AnnotatedLine:
    if branch is not None and (branch.function, branch.file) == key and branch.line == line.line:
        line.marks.append("branch")
    if site is not None and (site.function, site.file) == key and site.line == line.line:
        line.marks.append("error-site")
    return line
