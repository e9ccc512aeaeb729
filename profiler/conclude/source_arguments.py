"""What a function is called with, as the source writes it: how a caller's variable is named in its callee.

The caller's `err` is `*err` in a callee that was given `&err`; its `arg.err` is `arg->err` there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from profiler.debuginfo.functions import base_name
from profiler.debuginfo.source_flow import FlowNode
from profiler.graph import Call

Given = tuple[tuple[str, str], ...]  # (parameter, argument)

_NAME = re.compile(r"[A-Za-z_]\w*")
_OPENING, _CLOSING = "([{", ")]}"


def parameter_place(parameter: str, address: int) -> str:
    """The caller's place for what a parameter is set to by the call at `address`."""
    return f"{parameter} of call {address}"


def given_to(callee: str, head: str, node: FlowNode) -> Given:
    """The arguments that a statement calls `callee` with, by the parameters of its head."""
    name = base_name(callee)
    called = [name] if name in node.calls else [call for call in node.calls if name.endswith(call)] or list(node.calls)
    arguments = _in_parentheses(node.text, called[-1]) if called else []
    return tuple(zip(parameters(head), arguments, strict=False))


def parameters(head: str) -> list[str]:
    """Names of a function's parameters, by the text before its body."""
    name = next(iter(re.findall(r"([A-Za-z_]\w*)\s*\(", head)), "")
    terms = _in_parentheses(head, name) if name else []
    if name.startswith(("SYSCALL_DEFINE", "COMPAT_SYSCALL_DEFINE")):
        return [_last_name(term) for term in terms[2::2]]
    return [_last_name(term) for term in terms]


def _last_name(term: str) -> str:
    pointer_to_function = re.search(r"\(\s*\*\s*(\w+)", term)
    if pointer_to_function is not None:
        return pointer_to_function[1]
    names = _NAME.findall(term.partition("[")[0])
    return names[-1] if names else ""


def _in_parentheses(text: str, name: str) -> list[str]:
    """The terms between the parentheses behind a name, parted by the commas of the outermost level."""
    found = re.search(rf"\b{re.escape(name)}\s*\(", text)
    return [term.strip() for term in _terms(text[found.end() :])] if found is not None else []


def _terms(text: str) -> Iterator[str]:
    depth, start = 0, 0
    for at, character in enumerate(text):
        if character in _OPENING:
            depth += 1
        elif character in _CLOSING and depth:
            depth -= 1
        elif character == "," and not depth:
            yield text[start:at]
            start = at + 1
        elif character in _CLOSING:
            if text[start:at].strip():
                yield text[start:at]
            return


@dataclass(frozen=True, slots=True)
class ByArguments:
    """Names of the caller's memory in its callee and back; `given` by the start of the calling block."""

    given: Mapping[int, Given]

    def in_callee(self, call: Call, place: str) -> list[str]:
        """What a callee may call the caller's place; none where it was given no way to it."""
        return [
            name
            for parameter, argument in self.given.get(call.address, ())
            if (name := _within(parameter, argument.replace(" ", ""), place))
        ]

    def in_caller(self, call: Call, place: str) -> str:
        """What the callee's place is to the caller; "" for the callee's own variables."""
        for parameter, argument in self.given.get(call.address, ()):
            if place == parameter:
                return parameter_place(parameter, call.address)
            if found := _without(parameter, argument.replace(" ", ""), place):
                return found
        return ""


def _within(parameter: str, argument: str, place: str) -> str:
    target, arrow = (argument[1:], ".") if argument.startswith("&") else ("*" + argument, "->")
    if place == target:
        return "*" + parameter
    whole = target.removeprefix("*") + arrow
    return f"{parameter}->{place.removeprefix(whole)}" if place.startswith(whole) else ""


def _without(parameter: str, argument: str, place: str) -> str:
    target, arrow = (argument[1:], ".") if argument.startswith("&") else ("*" + argument, "->")
    if place == "*" + parameter:
        return target
    inside = parameter + "->"
    return target.removeprefix("*") + arrow + place.removeprefix(inside) if place.startswith(inside) else ""
