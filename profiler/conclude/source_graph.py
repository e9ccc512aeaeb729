"""The control flow of a function's source as a graph of blocks, so that the same walks lead through it.

A statement is a block, a variable a place. Places are as C writes them: `err`, `*err`, `arg->err`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from profiler.conclude.source_arguments import Given, parameter_place
from profiler.debuginfo.source_flow import SYNONYMS, Assignment, FlowEdge, FlowNode, SourceFlow, Value
from profiler.graph import Block, Call, Edge, EdgeKind, FunctionGraph, Step, StepKind, Test
from profiler.infer.slice import RETURN_PLACE


def block_id(index: int) -> int:
    return 2 * index


def node_id(block: int) -> int:
    return block // 2


def source_graph(
    flow: SourceFlow, calling: Mapping[int, Given], errno: tuple[str, int], *, others_write: bool
) -> FunctionGraph:
    """Each node becomes a block, one that calls into the chain becomes two: up to the call, and behind it.

    `calling`: by block, what the functions on the chain are given. `errno`: name and number. `others_write`: whether
    functions off the chain may have written variables whose address they are given.
    """
    out: dict[int, list[FlowEdge]] = defaultdict(list)
    for edge in flow.edges:
        out[edge.source].append(edge)
    blocks: dict[int, Block] = {}
    for index, node in enumerate(flow.nodes):
        start = block_id(index)
        called = start in calling
        edges = tuple(_edges(node, out[index]))
        steps = tuple(_steps(node, start, errno, called=called, others_write=others_write))
        last = Block(start, start + 1, 1, start, steps, edges, returns=node.kind in ("return", "exit"))
        if called:
            call = Call(start, None, tail=False, results=(_result_place(node),))
            behind = replace(last, start=start + 1, end=start + 2, last=start)
            blocks[start + 1] = behind
            given = tuple(_given(calling[start], start, errno))
            last = replace(last, steps=given, edges=(Edge(start + 1, EdgeKind.AFTER_CALL),), call=call, returns=False)
        blocks[start] = last
    return FunctionGraph(flow.function, block_id(flow.entry), blocks)


def _given(given: Given, address: int, errno: tuple[str, int]) -> Iterable[Step]:
    """What the callee's parameters are set to."""
    for parameter, argument in given:
        errnos = tuple(re.findall(r"\bE[A-Z0-9]{3,}\b", argument))
        yield _value(parameter_place(parameter, address), Value(argument, errnos), address, errno)


def _result_place(node: FlowNode) -> str:
    """The variable that takes what a call in the node returns, or the return value itself."""
    if node.returned is not None and node.returned.calls:
        return RETURN_PLACE
    return next((_variable(a) for a in node.assigns if a.operator == "=" and a.value.calls), "")


def _edges(node: FlowNode, out: list[FlowEdge]) -> Iterable[Edge]:
    tests = _tests(node)
    if node.kind == "return":
        return
    for edge in out:
        kind = {True: EdgeKind.TAKEN, False: EdgeKind.NOT_TAKEN, None: EdgeKind.JUMP}[edge.outcome]
        if node.kind == "switch":
            kind = EdgeKind.TAKEN
        yield Edge(block_id(edge.target), kind, tests.get(edge.outcome))


_COMPARED = re.compile(r"([A-Za-z_]\w*)\s*(==|!=|<=|>=|<|>)\s*(-?\d+|NULL)")
# retry_estale(error, flags): it tests the variable, what for is not known
_PREDICATE = re.compile(r"[A-Za-z_]\w*\(\s*([A-Za-z_]\w*)\s*(?:,.*)?\)")
_NO_VALUE = 1 << 40  # that no variable has: such a test holds on both sides
_OPPOSITE = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}


def _tests(node: FlowNode) -> dict[bool | None, Test]:
    """What the outcome of a simple condition says of a variable: `ret`, `ret < 0`, `IS_ERR(p)`, `(err = f())`."""
    if node.kind != "condition":
        return {}
    text = _unwrapped(node.text)
    assigned = next((a.target for a in node.assigns), None)
    if assigned is not None:
        text = assigned if re.fullmatch(r"[A-Za-z_]\w*\s*=[^=].*", text) else text
    if re.fullmatch(r"[A-Za-z_]\w*", text):
        return {True: Test(text, "!=", 0), False: Test(text, "==", 0)}
    if found := re.fullmatch(r"IS_ERR(?:_VALUE|_OR_NULL)?\(\s*([A-Za-z_]\w*)\s*\)", text):
        return {True: Test(found[1], "error", 0), False: Test(found[1], "not error", 0)}
    if found := _COMPARED.fullmatch(text):
        value = 0 if found[3] == "NULL" else int(found[3])
        return {True: Test(found[1], found[2], value), False: Test(found[1], _OPPOSITE[found[2]], value)}
    if found := _PREDICATE.fullmatch(text):
        return dict.fromkeys((True, False), Test(found[1], "!=", _NO_VALUE))
    return {}


def _unwrapped(text: str) -> str:
    while found := re.fullmatch(r"(?:likely|unlikely|WARN_ON|WARN_ON_ONCE)?\s*\((.*)\)", text.strip()):
        if not _balanced(found[1]):
            break
        text = found[1]
    return text.strip()


def _balanced(text: str) -> bool:
    depth = 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if depth < 0:
            return False
    return depth == 0


# a variable or a member (`wo->notask_error`), as it is or turned between pointer and number
_COPY = re.compile(r"(?:PTR_ERR(?:_OR_ZERO)?|ERR_PTR|ERR_CAST)?\(*(?:\([\w\s*]+\))?\s*(\*?[A-Za-z_][\w>.-]*)\s*\)*")
_NUMBER = re.compile(r"-?(?:0x[0-9a-fA-F]+|\d+)[uUlL]*|NULL|true|false")


def _steps(node: FlowNode, address: int, errno: tuple[str, int], *, called: bool, others_write: bool) -> Iterable[Step]:
    for assignment in node.assigns:
        if assignment.operator == "&" and not others_write:
            continue
        if not (called and assignment.value.calls):  # the result of a call on the chain is told by the block's call
            yield _assignment(assignment, address, errno)
    if node.returned is not None and not (called and node.returned.calls):
        yield _value(RETURN_PLACE, node.returned, address, errno)


def _assignment(assignment: Assignment, address: int, errno: tuple[str, int]) -> Step:
    if assignment.operator == "=":
        return _value(_variable(assignment), assignment.value, address, errno)
    return Step(address, assignment.target, StepKind.UNKNOWN)


def _variable(assignment: Assignment) -> str:
    """Its target, as it is written where it is read."""
    return "".join(assignment.target.split())


def _value(place: str, value: Value, address: int, errno: tuple[str, int]) -> Step:
    name, number = errno
    names = {name} | SYNONYMS.get(name, set())
    expression = value.expression.strip()
    if value.errnos:
        if "?" in expression:
            choices = (-number, 0) if names & set(value.errnos) else (0,)
            return Step(address, place, StepKind.FLAGS, choices=choices)
        return Step(address, place, StepKind.CONST, value=-number if names & set(value.errnos) else 0)
    if _NUMBER.fullmatch(expression):
        return Step(address, place, StepKind.CONST, value=0)
    wrapped = expression.startswith(("PTR_ERR", "ERR_PTR", "ERR_CAST"))
    if (wrapped or not value.calls) and (found := _COPY.fullmatch(expression)):
        return Step(address, place, StepKind.COPY, source=found[1])
    return Step(address, place, StepKind.UNKNOWN)
