"""The kernel's source as the conclusion reads it: text and control flow, each file prepared once."""

from __future__ import annotations

import re

from profiler.conclude.places import Source
from profiler.debuginfo.c_functions import SourceFile
from profiler.debuginfo.c_preprocessor import Config
from profiler.debuginfo.source_flow import FlowNode, SourceFlow, flow_in


class Sources:
    """`tree` is None where no source is at hand: then there is no text and no flow."""

    def __init__(self, tree: Source | None, config: Config | None = None) -> None:
        self._tree, self._config = tree, config
        self._files: dict[str, SourceFile | None] = {}
        self._flows: dict[tuple[str, str], SourceFlow | None] = {}

    def text(self, file: str) -> list[str] | None:
        return self._tree.text(file) if self._tree is not None and file else None

    def flow(self, function: str, file: str, near_line: int) -> SourceFlow | None:
        """The control flow of a function; None where the source or the definition is not found."""
        key = (function, file)
        if key not in self._flows:
            source = self._file(file)
            self._flows[key] = flow_in(source, function, near_line) if source is not None else None
        return self._flows[key]

    def extent(self, function: str, file: str, near_line: int) -> tuple[int, int] | None:
        """First and last line of a function's definition."""
        flow = self.flow(function, file, near_line)
        return (flow.first_line, flow.last_line) if flow is not None else None

    def _file(self, file: str) -> SourceFile | None:
        if file not in self._files:
            text = self.text(file)
            self._files[file] = SourceFile(text, self._config) if text is not None else None
        return self._files[file]


def condition_text(node: FlowNode) -> str:
    """The whole controlling expression that an operand belongs to; of a switch its head."""
    return node.whole.text if node.whole is not None else node.text


def whole_outcome(node: FlowNode, outcome: bool | None) -> bool | None:
    """The value of the whole condition, when `node`, an operand of it, had the value that settled it.

    An operand that settles `a && b` or `a || b` gives its own value to the whole, but for the `!` before it.
    """
    if outcome is None or node.whole is None:
        return outcome
    found = re.search(rf"(?<!\w){re.escape(node.text)}(?!\w)", node.whole.text)
    return outcome != (_negations(node.whole.text[: found.start()]) % 2 == 1) if found else outcome


def _negations(before: str) -> int:
    """How many `!` apply to what follows: those right before it, and those before its open parentheses."""
    count = depth = 0
    adjacent = True
    for character in reversed(before):
        if character == ")":
            depth += 1
            adjacent = False
        elif character == "(":
            depth -= 1
            adjacent = adjacent or depth < 0
            if depth < 0:
                depth, adjacent = 0, True
        elif character == "!":
            count += adjacent and depth == 0
        elif not character.isspace():
            adjacent = False
    return count
