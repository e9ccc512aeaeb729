"""Which condition stands before a statement: the last one whose one side leads there and whose other does not.

`err = -EINVAL; if (!ok) goto out;` sets the value first and asks then: there the condition is the one behind the
statement that decides whether the value stays.
"""

from __future__ import annotations

from collections import deque

from profiler.debuginfo.source_flow import FlowNode, SourceFlow

Guard = tuple[str | None, int]  # the text of the condition, and its line; (None, 0) where nothing guards
NONE: Guard = (None, 0)
SHOWN = 4  # conditions, where several let one value stay


class Guards:
    """Of the statements of one function."""

    def __init__(self, flow: SourceFlow) -> None:
        self._flow = flow
        self._known: dict[tuple[int, str | None], Guard] = {}

    def of(self, node: FlowNode, target: str | None = None, uses: frozenset[int] | None = None) -> Guard:
        """`target`: the variable that the node sets; None for what returns the value itself. `uses`: the nodes that
        take its value; where there are none it is taken at the exit."""
        key = (node.index, target)
        if key not in self._known:
            behind = self._keeping(node, target, uses or frozenset([self._flow.exit])) if target is not None else []
            before = self._leading(node) if not behind else None
            found = behind or ([before] if before is not None else [])
            self._known[key] = self._said(found)
        return self._known[key]

    def _leading(self, node: FlowNode) -> tuple[FlowNode, str] | None:
        """The nearest condition or case before the node one of whose sides does not lead to it."""
        flow = self._flow
        seen, waiting = {node.index}, deque([node.index])
        while waiting:
            index = waiting.popleft()
            for edge in flow.reaching(index):
                if edge.source in seen:
                    continue
                source = flow.nodes[edge.source]
                if source.kind in ("condition", "switch") and not self._all_lead(source, node.index):
                    return source, edge.label or ""
                seen.add(edge.source)
                waiting.append(edge.source)
        return None

    def _all_lead(self, condition: FlowNode, wanted: int) -> bool:
        return all(self._reaches(edge.target, wanted, condition.index) for edge in self._flow.leaving(condition))

    def _reaches(self, start: int, wanted: int, without: int) -> bool:
        seen, waiting = {start, without}, [start]
        while waiting:
            index = waiting.pop()
            if index == wanted:
                return True
            for edge in self._flow.leaving(index):
                if edge.target not in seen:
                    seen.add(edge.target)
                    waiting.append(edge.target)
        return False

    def _keeping(self, node: FlowNode, target: str, uses: frozenset[int]) -> list[tuple[FlowNode, str]]:
        """The conditions behind the node one side of which goes to where the value is used, and the other does not,
        or not without asking further."""
        flow = self._flow
        kept = self._using(target, uses)
        found: list[tuple[FlowNode, str]] = []
        seen, waiting = {node.index}, deque([node.index])
        while waiting:
            index = waiting.popleft()
            if index in uses and index != node.index:
                continue
            out = [edge for edge in flow.leaving(index) if edge.target in kept]
            here = flow.nodes[index]
            if here.kind in ("condition", "switch") and len(flow.leaving(index)) > 1:
                straight = [edge for edge in out if self._is_straight(edge.target, uses)]
                if len(out) < len(flow.leaving(index)) or straight:
                    chosen = out[0] if len(out) == 1 else (straight or out)[0]
                    found.append((here, chosen.label or ""))
                out = [] if len(out) < 2 else [edge for edge in out if edge not in straight]
            for edge in out:
                if edge.target not in seen:
                    seen.add(edge.target)
                    waiting.append(edge.target)
        return found

    def _is_straight(self, index: int, uses: frozenset[int]) -> bool:
        """Whether nothing is asked from here to where the value is used."""
        seen = set()
        while index not in uses:
            out = self._flow.leaving(index)
            if len(out) != 1 or index in seen:
                return False
            seen.add(index)
            index = out[0].target
        return True

    def _using(self, target: str, uses: frozenset[int]) -> set[int]:
        """The nodes from which a use is reached with the variable as it is."""
        flow = self._flow
        setting = {n.index for n in flow.nodes if any("".join(a.target.split()) == target for a in n.assigns)}
        found, waiting = set(uses), list(uses)
        while waiting:
            for edge in flow.reaching(waiting.pop()):
                if edge.source not in found and edge.source not in setting:
                    found.add(edge.source)
                    waiting.append(edge.source)
        return found

    def _said(self, found: list[tuple[FlowNode, str]]) -> Guard:
        asking = [entry for entry in found if not _is_round(entry[0])] or found
        said = list(dict.fromkeys(_text(node, label) for node, label in asking))
        if not said:
            return NONE
        texts = [text for text, _ in said[:SHOWN]]
        if len(said) > SHOWN:
            texts.append(f"{len(said) - SHOWN} more")
        return " or ".join(texts), said[0][1]


def _is_round(node: FlowNode) -> bool:
    """Whether it asks for one more round of a loop; of a loop macro the statement is its name."""
    return node.whole is not None and node.whole.statement not in ("if", "?:", "&&", "||", "switch")


def _text(node: FlowNode, label: str) -> tuple[str, int]:
    if node.kind == "switch":
        return f"{node.text}, case {label}" if label else node.text, node.first_line
    if node.whole is not None:
        return node.whole.text, node.whole.first_line
    return node.text, node.first_line
