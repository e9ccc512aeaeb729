"""The source statement and condition behind a machine-level verdict.

A compiler merges equal tails and moves constants, so the debug line of the instruction that loads the
errno often belongs to another statement. The path does not lie: here the function's source is walked
with the same machinery as its machine code (a statement is a block, a variable a place), weighed by
which lines the machine path ran through; the walk that returns the errno names statement and condition.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from profiler.conclude import annotate, places
from profiler.conclude.places import Code
from profiler.conclude.source_arguments import ByArguments, Given, given_to
from profiler.conclude.source_graph import block_id, node_id, source_graph
from profiler.debuginfo.functions import base_name
from profiler.debuginfo.source_flow import FlowNode, SourceFlow
from profiler.graph import Block, FunctionGraph
from profiler.infer.calltree import CallNode
from profiler.infer.decision import Decision
from profiler.infer.evidence import BlockSamples
from profiler.infer.slice import CallValue, OriginKind, Slicer
from profiler.infer.verdict import Located, SolvedCall, candidates, decide
from profiler.infer.walks import Weights, solve
from profiler.model import SourceLocation

# Log-odds of a statement having run whose lines the machine path ran through; none of whose lines it ran
# through though they have code; the first is the weaker, since loads are hoisted above their condition.
_RAN, _DID_NOT = 1.5, -2.5
_CALL_ON_CHAIN = 6.0
_LEAST = 1e-9
_OFF_THE_JUMP = 1e-4  # how much less likely a condition is that the machine's deciding jump has no line of
_CONSTANTS = (OriginKind.CONSTANT, OriginKind.FLAGS)
_SILENT = CallValue(-8.0, 0.0)

InlinePath = tuple[
    tuple[int, str], ...
]  # (line of the call, function inlined), outwards in; () for the function itself


FlowOf = Callable[[str, str, int], SourceFlow | None]  # function, file, a line in it
Solver = Callable[[str], SolvedCall | None]  # by the place asked for, "" for what is returned


@dataclass(frozen=True, slots=True)
class SourceVerdict:
    """A statement and a condition in the source, each with the function and file it lies in."""

    site: SourceLocation
    condition: FlowNode | None
    condition_at: SourceLocation | None
    outcome: bool | None
    inlined_from: tuple[SourceLocation, ...]
    probability: float  # among the statements of the source that could be meant
    seconds: float = 0.0  # that the walk took
    agrees: bool = True  # the condition lies on the lines of the machine's deciding jump

    def without_condition(self) -> SourceVerdict:
        """Where the deciding jump lies in a caller that is left out."""
        return replace(self, condition=None, condition_at=None, outcome=None, inlined_from=())


@dataclass(slots=True)
class _Instance:
    """A function as it stands in the machine code: itself, or inlined along a path of calls."""

    machine: int  # index into the chain of machine calls
    path: InlinePath
    function: str
    file: str
    near: int  # a line in it
    ran: set[int]
    present: set[int]
    inlined_at: tuple[SourceLocation, ...]  # the frames outwards


def walk_source(
    code: Code, flow_of: FlowOf, located: Located, decision: Decision | None, errno: tuple[str, int]
) -> SourceVerdict | None:
    """What the source says of a machine-level verdict. None where no source, or no walk in it, explains it.

    `errno`: name and number.
    """
    started = time.monotonic()
    walker = _Walker(code, flow_of, located, errno)
    jumped = code.frames(decision.address) if decision is not None else ()
    for depth in range(len(walker.instances)):  # a caller whose source does not explain it is left out
        above = decision is not None and decision.depth < depth
        decided = [verdict.without_condition() if above else verdict for verdict in walker.verdicts(depth)]
        best = _most_probable([_weighed(verdict, jumped) for verdict in decided])
        if best is not None:
            return replace(best, seconds=time.monotonic() - started)
    return None


def _weighed(verdict: SourceVerdict, jumped: tuple[SourceLocation, ...]) -> SourceVerdict:
    """The verdict with its weight lowered where its condition is not on the lines of the machine's deciding jump."""
    node, at = verdict.condition, verdict.condition_at
    if node is not None and at is not None:
        first, last = _lines_of(node)
        if any((f.function, f.file) == (at.function, at.file) and first <= f.line <= last for f in jumped):
            return verdict
    return replace(verdict, probability=verdict.probability * _OFF_THE_JUMP, agrees=False)


def _lines_of(node: FlowNode) -> tuple[int, int]:
    whole = node.whole
    return (whole.first_line, whole.last_line) if whole is not None else (node.first_line, node.last_line)


def _most_probable(verdicts: list[SourceVerdict]) -> SourceVerdict | None:
    """The weightiest, with its share of the whole as probability."""
    whole = sum(verdict.probability for verdict in verdicts)
    best = max(verdicts, key=lambda verdict: verdict.probability, default=None)
    return replace(best, probability=best.probability / whole) if best is not None else None


class _Walker:
    def __init__(self, code: Code, flow_of: FlowOf, located: Located, errno: tuple[str, int]) -> None:
        self.code = code
        self.flow_of = flow_of
        self.located = located
        self.errno_name, self.errno = errno
        self.instances = [
            _instances(code, call, walked, index)
            for index, (call, walked) in enumerate(annotate.walked_blocks(located))
        ]
        self.calls_at = self._chain_calls()
        self.solved: dict[int, tuple[_Instance, dict[int, FlowNode]]] = {}
        self.known: dict[tuple[int, InlinePath, str], SolvedCall | None] = {}

    def _chain_calls(self) -> dict[tuple[int, InlinePath], tuple[int, int]]:
        """(machine call, inline path) → (line, index of the machine call made there), along the chain."""
        found = {}
        calls = self.located.calls
        for index in range(len(calls) - 1):
            frames = self.code.frames(places.call_address(calls[index], calls[index + 1]))
            if frames:
                found[index, _path(frames)] = (frames[0].line, index + 1)
        return found

    def verdicts(self, depth: int) -> list[SourceVerdict]:
        """What the walks of the source say, from the machine call at `depth` of the chain inwards."""
        root = self.solve_machine(depth)
        if root is None:
            return []
        return [
            self.verdict(candidate, decide(candidate))
            for candidate in candidates(root)
            if candidate.probability > _LEAST and self.explains(candidate)
        ]

    def solve_machine(self, index: int, wanted: str = "") -> SolvedCall | None:
        found = self.instances[index]
        # SYSCALL_DEFINE makes wrappers around the body that it is followed by: only the innermost has code of its own.
        body = next((i for i in found.values() if i.function.startswith("__do_sys_")), found.get(()))
        if body is None or (body.function.startswith(places.WRAPPERS) and index + 1 < len(self.instances)):
            return self.solve_machine(index + 1, wanted) if index + 1 < len(self.instances) else None
        return self._solve(body, wanted)

    def _solve(self, instance: _Instance, wanted: str) -> SolvedCall | None:
        """The walks through an instance, by what they return, or leave in `wanted`, a place in its own terms."""
        _, following = self.calls_at.get((instance.machine, instance.path), (0, 0))
        if following and base_name(self.located.calls[following].node.name) == instance.function:
            return self.solve_machine(following, wanted)  # partial inlining: the rest is a function of its own
        key = instance.machine, instance.path, wanted
        if key not in self.known:
            flow = self.flow_of(instance.function, instance.file, instance.near)
            self.known[key] = self._solve_flow(instance, flow, wanted) if flow is not None else None
        return self.known[key]

    def _solve_flow(self, instance: _Instance, flow: SourceFlow, wanted: str) -> SolvedCall:
        nodes = {node.index: node for node in flow.nodes}
        solvers = dict(self._callees(instance, nodes))
        callees = {start: [callee] for start, solver in solvers.items() if (callee := solver(""))}
        given = {start: self._given(nodes[node_id(start)], callee) for start, (callee,) in callees.items()}
        # Where the machine code has a constant, it was not written by a function that is not on the chain to it.
        others_write = self.located.origin.kind not in _CONSTANTS
        graph = source_graph(flow, given, (self.errno_name, self.errno), others_write=others_write)
        writers: dict[tuple[int, str], SolvedCall] = {}

        def left_in(block: Block, place: str) -> CallValue | None:
            writer = solvers[block.start](place)
            if writer is None or max(writer.walks.log_errno, writer.walks.log_other) == -math.inf:
                return None
            writers[block.start, place] = writer
            return writer.value()

        slicer = Slicer(
            graph,
            self.errno,
            lambda block: self._value(callees.get(block.start)),
            left_in=left_in,
            wanted=wanted,
            names=ByArguments(given),
        )
        walks = solve(graph, slicer, self._weights(instance, graph, nodes, callees))
        solved = SolvedCall(CallNode(0, instance.function, None, None), graph, walks, BlockSamples({}, {}, 0), 0.0)
        solved.callees, solved.writers = callees, writers
        self.solved[id(solved)] = (instance, nodes)
        return solved

    def _given(self, node: FlowNode, callee: SolvedCall) -> Given:
        instance, nodes = self.solved[id(callee)]
        return given_to(instance.function, nodes[0].text, node)

    @staticmethod
    def _value(callees: list[SolvedCall] | None) -> CallValue:
        return callees[0].value() if callees else _SILENT

    def _callees(self, instance: _Instance, nodes: dict[int, FlowNode]) -> Iterable[tuple[int, Solver]]:
        """Calls to functions that are on the chain, or inlined here and ran: (block, what solves the callee)."""
        line, following = self.calls_at.get((instance.machine, instance.path), (0, 0))
        calling = _calling_node(nodes, line, self.located.calls[following].node.name) if following else None
        for node in nodes.values():
            if node is calling:
                yield block_id(node.index), functools.partial(self.solve_machine, following)
            elif (inner := self._inlined_callee(instance, node)) is not None:
                yield block_id(node.index), functools.partial(self._solve, inner)

    def _inlined_callee(self, instance: _Instance, node: FlowNode) -> _Instance | None:
        for name in node.calls:
            for line in range(node.first_line, node.last_line + 1):
                inner = self.instances[instance.machine].get((*instance.path, (line, name)))
                if inner is not None and inner.ran:
                    return inner
        return None

    def _weights(
        self,
        instance: _Instance,
        graph: FunctionGraph,
        nodes: dict[int, FlowNode],
        callees: dict[int, list[SolvedCall]],
    ) -> Weights:
        weights = dict.fromkeys(graph.blocks, 0.0)
        for index, node in nodes.items():
            lines = set(range(node.first_line, node.last_line + 1))
            block = block_id(index)
            if lines & instance.ran:
                weights[block] = _RAN
            elif lines & instance.present:
                weights[block] = _DID_NOT
            if block in callees:
                weights[block] += _CALL_ON_CHAIN
        return Weights(weights, weights)

    def explains(self, candidate: Located) -> bool:
        """Whether the errno comes, in the source too, from the function that the machine's verdict names."""
        constant = candidate.origin.kind in _CONSTANTS
        return constant and self.solved[id(candidate.calls[-1])][0].machine == len(self.instances) - 1

    def verdict(self, found: Located, decision: Decision | None) -> SourceVerdict:
        instance, nodes = self.solved[id(found.calls[-1])]
        site_node = nodes[node_id(found.origin.address)]
        site = SourceLocation(instance.function, instance.file, site_node.first_line)
        if decision is None:
            return SourceVerdict(site, None, None, None, (), found.probability)
        at, at_nodes = self.solved[id(found.calls[decision.depth])]
        node = at_nodes[node_id(decision.address)]
        place = SourceLocation(at.function, at.file, node.first_line)
        probability = found.probability * decision.probability
        taken = None if decision.taken is None or node.kind != "condition" else decision.taken
        return SourceVerdict(site, node, place, taken, at.inlined_at, probability)


def _calling_node(nodes: dict[int, FlowNode], line: int, callee: str) -> FlowNode | None:
    """The statement that calls `callee` on or near `line`: by the name called (of a member, its end), else by line.

    The line alone does not do: an indirect call may bear the line of the condition before it.
    """
    name = base_name(callee)
    calling = [node for node in nodes.values() if node.calls]

    def rank(node: FlowNode) -> tuple[bool, bool, int]:
        named = name in node.calls
        ends_so = any(name.endswith(called) for called in node.calls)
        distance = max(node.first_line - line, line - node.last_line, 0)
        return (not named, not (ends_so or distance == 0), distance)

    return min(calling, key=rank, default=None)


def _path(frames: tuple[SourceLocation, ...]) -> InlinePath:
    """The inline path of an address: outwards in."""
    return tuple((frames[depth + 1].line, frames[depth].function) for depth in range(len(frames) - 2, -1, -1))


def _instances(code: Code, call: SolvedCall, walked: set[int], index: int) -> dict[InlinePath, _Instance]:
    """Every function instance in a machine function, with the lines that ran and the lines that have code."""
    found: dict[InlinePath, _Instance] = {}
    for start, block in call.graph.blocks.items():
        for address in range(block.start, block.end):
            frames = code.frames(address)
            path = _path(frames)
            for depth in range(len(frames)):
                key = path[: len(frames) - 1 - depth]
                frame = frames[depth]
                instance = found.get(key)
                if instance is None:
                    outer = tuple(frames[depth + 1 :])
                    instance = _Instance(index, key, frame.function, frame.file, frame.line, set(), set(), outer)
                    found[key] = instance
                instance.present.add(frame.line)
                if start in walked:
                    instance.ran.add(frame.line)
    return found
