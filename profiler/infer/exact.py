"""What an execution log says of a failing call: the errno's origin, and the walk through every function on the way.

Nothing is weighed here. The walks are handed on in the form that sampled ones have, so that the deciding
branch is asked for, and shown, in the same way.
"""

from __future__ import annotations

import functools
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from profiler.graph import Block, Control, FunctionGraph, StepKind
from profiler.infer import execution
from profiler.infer.calltree import CallNode, Symbols
from profiler.infer.dataflow import Cell, Followed, Location, Stop, follow
from profiler.infer.decision import Level, last_choice
from profiler.infer.execution import Decode, Frame, LoggedCall
from profiler.infer.slice import CallValue, Held, Origin, OriginKind, Slicer, State, signed32
from profiler.infer.walks import Node
from profiler.model import LOGGED_REGISTERS, ExecutionLog

_IN_MEMORY = "memory"  # the place of a value that is kept neither in a register nor in the function's own frame
_GENERATED = ("bpf_prog_", "bpf_trampoline_", "bpf_dispatcher_0x")  # code made while the kernel runs
_MOST_TESTS = 4  # of one value against the errno on its way
_MOST_PATHS = 8  # different paths of one log that are looked at; more are interrupted or preempted calls
_KINDS = {StepKind.CONST: OriginKind.CONSTANT, StepKind.FLAGS: OriginKind.FLAGS}


@dataclass(frozen=True, slots=True)
class Exact:
    """One failing call, as executed. `levels` runs along `chain`, the frames from the root to that of the origin."""

    root: CallNode
    chain: tuple[CallNode, ...]
    levels: tuple[Level, ...]
    origin: Origin
    writer: int | None  # the instruction that wrote the memory which the errno was read from
    results: Counter[int]  # what the logged calls returned
    calls: int  # that failed so on this path, or on others with the same origin
    instructions: int
    unseen: frozenset[int] = frozenset()  # functions that are not in the log, and may be where the errno came from
    through: frozenset[int] = frozenset()  # functions that the value went through


@dataclass(frozen=True, slots=True)
class Logged:
    """A log and the code that it is of. `unseen`: rows of calls whose callee is not in the log, with the callee's entry
    where it is known: a log made by probes has the instructions alone that were probed."""

    log: ExecutionLog
    decode: Decode
    symbols: Symbols
    graph_of: Callable[[int], FunctionGraph]
    unseen: Mapping[int, int | None] = field(default_factory=dict)
    known_frames: Callable[[LoggedCall], Frame] | None = None  # where they were found with the calls
    offset: int = 0  # of addresses in the running kernel, as registers have them, from those of the code

    def frames(self, call: LoggedCall) -> Frame:
        if self.known_frames is not None:
            return self.known_frames(call)
        return execution.frames(self.log, call, self.decode, self.symbols)

    def follow(self, rows: list[int], location: Location) -> Followed | None:
        return follow(self.log, rows, self.decode, location, self.unseen)


@dataclass(frozen=True, slots=True)
class Entry:
    """How to find a system call in a log: where the kernel is entered, the call's number, and its function."""

    kernel: int
    number: int
    function: int | None
    dispatchers: tuple[int, ...]  # functions that may refuse a call before its own is entered, the innermost first


def examine(logged: Logged, entry: Entry, errno: int) -> list[Exact]:
    """The origins of the calls that failed with `errno`, the most frequent first; none where the log holds no whole
    call that did, or the origin lies before it."""
    found = execution.calls(logged.log, logged.decode, logged.symbols, entry.kernel, entry.number)
    return origins(logged, found, errno, lambda frame: _root(frame, entry))


def origins(logged: Logged, found: list[LoggedCall], errno: int, root_of: Callable[[Frame], Frame]) -> list[Exact]:
    """As `examine`, of calls that were found already. `root_of`: the outermost frame to show, of one below it."""
    results = Counter(call.result for call in found)
    by_origin: dict[tuple[Origin, tuple[str, ...]], Exact] = {}
    for call, alike in execution.paths(logged.log, found, -errno)[:_MOST_PATHS]:
        path = _examine_one(logged, call, alike, results, errno, root_of)
        if path is not None:
            key = (path.origin, tuple(node.name for node in path.chain))
            before = by_origin.setdefault(key, path)
            if before is not path:
                by_origin[key] = replace(before, calls=before.calls + alike)
    return sorted(by_origin.values(), key=lambda path: -path.calls)


def _examine_one(
    logged: Logged,
    call: LoggedCall,
    alike: int,
    results: Counter[int],
    errno: int,
    root_of: Callable[[Frame], Frame],
) -> Exact | None:
    log = logged.log
    top = logged.frames(call)
    frame_of = {row: frame for frame in _all(top) for row in frame.rows}
    rows = call.rows.tolist()
    followed = logged.follow(rows, "rax")
    for _ in range(_MOST_TESTS):
        if followed is None or followed.row not in frame_of:
            return None
        root = root_of(frame_of[followed.row])
        whole = list(frame_of[followed.row].outwards())[::-1]
        whole = whole[whole.index(root) :]
        chain = _traceable(log, whole, logged.graph_of)
        if not chain:
            return None
        left_at = whole[len(chain)].call_row if len(chain) < len(whole) else None
        if left_at is None and followed.row in logged.unseen:
            left_at = followed.row
        levels = _levels(logged, rows, chain, followed, left_at, errno)
        tested = _tested(log, chain[-1], levels, followed, errno)
        earlier = _before(logged, rows, followed, tested) if tested is not None else None
        if earlier is None:
            break
        followed = earlier
    assert followed is not None
    nodes = execution.tree(log, root, logged.decode, set(chain))
    return Exact(
        nodes[root],
        tuple(nodes[frame] for frame in chain),
        levels,
        levels[-1].origin,
        int(log.address[followed.written]) if followed.written is not None else None,
        results,
        alike,
        len(call.rows),
        unseen=frozenset(entry for row in followed.unseen if (entry := logged.unseen.get(row)) is not None),
        through=frozenset(frame_of[stop.row].entry for stop in followed.stops if stop.row in frame_of),
    )


def _tested(
    log: ExecutionLog, frame: Frame, levels: tuple[Level, ...], followed: Followed, errno: int
) -> tuple[int, str] | None:
    """Where a constant came to be because a register was found equal to it, the row behind that test and the register.

    Compilers load a constant anew where they know a variable to equal it: that is no origin of it.
    """
    level, decision = levels[-1], last_choice(levels)
    if decision is None or decision.depth + 1 != len(levels) or level.origin.kind != OriginKind.CONSTANT:
        return None
    edges = level.graph.blocks[decision.before].edges
    test = next((edge.test for edge in edges if edge.target == decision.after), None)
    if test is None or test.relation != "==" or signed32(test.value) != -errno or test.place not in LOGGED_REGISTERS:
        return None
    rows = _block_rows(log, frame, level.graph)
    behind = [
        row
        for index, row in enumerate(rows)
        if index and row <= followed.row and level.walk[index - 1][0][0] == decision.before
    ]
    return (behind[-1], test.place) if behind else None


def _before(logged: Logged, rows: list[int], followed: Followed, tested: tuple[int, str]) -> Followed | None:
    """The value followed on from the register that was tested."""
    row, register = tested
    earlier = logged.follow(rows[: rows.index(row) + 1], register)
    if earlier is None:
        return None
    return replace(earlier, stops=(*followed.stops, Stop(followed.row, register, ()), *earlier.stops))


def _all(frame: Frame) -> list[Frame]:
    found, pending = [], [frame]
    while pending:
        found.append(pending.pop())
        pending += found[-1].children
    return found


def _traceable(log: ExecutionLog, frames: list[Frame], graph_of: Callable[[int], FunctionGraph]) -> list[Frame]:
    """The frames down to the last one whose code is known, and ran as it is known: a BPF program's is not."""
    for depth, frame in enumerate(frames):
        try:
            if frame.name.startswith(_GENERATED):
                return frames[:depth]
            if not _block_rows(log, frame, graph_of(frame.entry)):
                return frames[:depth]
        except LookupError:
            return frames[:depth]
    return frames


def _root(origin: Frame, entry: Entry) -> Frame:
    outwards = list(origin.outwards())
    for function in (entry.function, *entry.dispatchers):
        for frame in reversed(outwards):
            if frame.entry == function:
                return frame
    return outwards[-1]


def _levels(
    logged: Logged, call_rows: list[int], chain: list[Frame], followed: Followed, left_at: int | None, errno: int
) -> tuple[Level, ...]:
    """`left_at`: the row of the call by which the last of `chain` left for code that is not known."""
    log, decode = logged.log, logged.decode
    places = _Places(followed)
    levels = []
    for depth, frame in enumerate(chain):
        graph = logged.graph_of(frame.entry)
        rows = _block_rows(log, frame, graph)
        is_last = depth + 1 == len(chain)
        deciding = (left_at or followed.row) if is_last else chain[depth + 1].call_row
        assert deciding is not None
        index = max((i for i, row in enumerate(rows) if row <= deciding), default=0)
        block = graph.blocks[int(log.address[rows[index]])]
        origin = _here(log, followed) if is_last and left_at is None else Origin(OriginKind.CALL, block.start)
        walk = _walk(log, frame, rows, origin, deciding, places)
        along = (*(state for _, state in walk[1:]), places.held(frame, frame.rows[-1] + 1))
        slicer = _KnownSlicer(
            graph,
            errno,
            _any_value,
            block=block,
            origin=origin,
            behind=along[index],
            at_end=places.held(frame, frame.rows[-1]),
            along=along,
            constant_at=functools.partial(_is_constant, logged, call_rows, frame, rows),
        )
        limit = len(walk) if is_last else index
        fault = _fault(log, decode, frame, graph, deciding) if is_last else _faulted(log, decode, deciding)
        chosen = None
        if not is_last and block.call is not None and block.call.target is None:
            chosen = _chosen(logged, call_rows, frame, rows[: index + 1], chain[depth + 1].entry, deciding)
        levels.append(Level(graph, slicer, origin, tuple(walk), limit, _certain, chosen, fault))
    return tuple(levels)


def _is_constant(logged: Logged, call_rows: list[int], frame: Frame, starts: list[int], index: int, place: str) -> bool:
    """Whether what `place` holds behind the block at `index` of the walk was set to a constant in this very execution
    of the function: then earlier branches alone decided what a test of it says."""
    if index + 1 >= len(starts) or not (place in LOGGED_REGISTERS or place.startswith("stack")):
        return False
    since, upto = bisect_left(call_rows, frame.rows[0]), bisect_left(call_rows, starts[index + 1])
    location = place if place in LOGGED_REGISTERS else Cell(frame.return_slot + int(place[len("stack") :]), 4)
    followed = logged.follow(call_rows[since : upto + 1], location)
    return followed is not None and followed.move.kind == StepKind.CONST and followed.row in frame.rows


def _chosen(
    logged: Logged, call_rows: list[int], frame: Frame, starts: list[int], callee: int, call_row: int
) -> Level | None:
    """The walk up to an indirect call, where the function itself set the pointer to a constant: its branches chose."""
    log, graph = logged.log, logged.graph_of(frame.entry)
    column = next(
        (c for c, value in enumerate(log.registers[call_row].tolist()) if value == callee + logged.offset), None
    )
    if column is None:
        return None
    since, upto = bisect_left(call_rows, frame.rows[0]), bisect_left(call_rows, call_row)
    followed = logged.follow(call_rows[since : upto + 1], LOGGED_REGISTERS[column])
    if followed is None or followed.move.kind != StepKind.CONST or followed.row not in frame.rows:
        return None
    origin, places = _here(log, followed), _Places(followed, LOGGED_REGISTERS[column])
    walk = _walk(log, frame, starts, origin, followed.row, places)
    index = max((i for i, row in enumerate(starts) if row <= followed.row), default=0)
    along = (*(state for _, state in walk[1:]), places.held(frame, call_row))
    slicer = _KnownSlicer(
        graph,
        -signed32(callee),
        _any_value,
        block=graph.blocks[walk[index][0][0]],
        origin=origin,
        behind=along[index],
        along=along,
    )
    return Level(graph, slicer, origin, tuple(walk), len(walk), _certain)


def _faulted(log: ExecutionLog, decode: Decode, row: int) -> int | None:
    """The instruction at the row that led on to another function, where it is no call or jump."""
    led = decode(int(log.address[row]))
    return led.address if led is not None and led.control == Control.NEXT else None


def _fault(log: ExecutionLog, decode: Decode, frame: Frame, graph: FunctionGraph, origin: int) -> int | None:
    """The access whose fault led to `origin`, code of the exception table's that is none of the function's own."""
    own = [(block.start, block.end) for block in graph.blocks.values()]
    before = [row for row in frame.rows if row <= origin]
    while before and not any(start <= int(log.address[before[-1]]) < end for start, end in own):
        if len(before) == 1:
            return None
        access = decode(int(log.address[before[-2]]))
        jumped = access is not None and int(log.address[before[-1]]) != access.following
        if access is not None and jumped and access.control == Control.NEXT:
            return access.address
        before.pop()
    return None


def _here(log: ExecutionLog, followed: Followed) -> Origin:
    kind = OriginKind.MEMORY if followed.cell is not None else _KINDS.get(followed.move.kind, OriginKind.UNKNOWN)
    return Origin(kind, int(log.address[followed.row]))


def _any_value(_block: Block) -> CallValue:
    return CallValue(-1.0, -1.0)


def _certain(_index: int) -> float:
    return 1.0


def _block_rows(log: ExecutionLog, frame: Frame, graph: FunctionGraph) -> list[int]:
    """The frame's rows at which a block begins."""
    return [row for row in frame.rows if int(log.address[row]) in graph.blocks]


def _walk(
    log: ExecutionLog, frame: Frame, rows: list[int], origin: Origin, deciding: int, places: _Places
) -> list[Node]:
    walk: list[Node] = []
    seen: set[int] = set()
    for row in rows:
        start = int(log.address[row])
        state: State = origin if row <= deciding else places.held(frame, row)
        walk.append(((start, int(start in seen)), state))
        seen.add(start)
    return walk


class _Places:
    """Where the returned value was kept, by row."""

    def __init__(self, followed: Followed, last: str = "rax") -> None:
        self._last = last  # the register that it was found in
        stops = followed.stops[::-1]  # first in time first
        self._rows = [stop.row for stop in stops]
        self._locations: list[Location] = [stop.location for stop in stops]
        self._pending = [stop.pending for stop in stops]

    def held(self, frame: Frame, row: int) -> Held:
        """Its place just before `row` is executed, as the function of `frame` names it."""
        index = bisect_left(self._rows, row)
        if index == len(self._rows):
            return Held(self._last)
        return Held(_name(self._locations[index], frame), self._pending[index])


def _name(location: Location, frame: Frame) -> str:
    if isinstance(location, str):
        return location
    offset = location.address - frame.return_slot
    return f"stack{offset:+d}" if not location.segment and -(1 << 14) < offset < 0 else _IN_MEMORY


def _is_whole(block: Block, known: Block) -> bool:
    """Whether a block is the known one, and not its first steps alone."""
    return block.start == known.start and len(block.steps) == len(known.steps)


def _is_same(state: State, origin: Origin) -> bool:
    return isinstance(state, Origin) and (state.kind, state.address) == (origin.kind, origin.address)


@dataclass(frozen=True, slots=True)
class _KnownSlicer(Slicer):
    """A slicer that knows where one walk's value came from: out of `block`, behind which it was in `behind`."""

    block: Block | None = None
    origin: Origin | None = None
    behind: State | None = None
    at_end: State | None = None
    constant_at: Callable[[int, str], bool] | None = None
    along: tuple[State, ...] = ()  # where the value is behind each block of the walk

    def at_exit(self, block: Block) -> list[tuple[State, float]]:
        """What leaves the function in memory is not found in the register of results."""
        if isinstance(self.at_end, Held) and self.at_end.place == _IN_MEMORY:
            return [(self.at_end, 0.0)]
        return Slicer.at_exit(self, block)

    def through(self, block: Block, state: State) -> list[tuple[State, float]]:
        if self.block is not None and _is_whole(block, self.block) and state == self.behind and self.origin:
            return [(self.origin, 0.0)]
        return Slicer.through(self, block, state)

    def _finish(self, block: Block, index: int, before: list[Block], state: State) -> set[State]:
        """What the slicer finds in the same instruction is the origin, by whatever name."""
        found = Slicer._finish(self, block, index, before, state)
        return {self.origin if self.origin and _is_same(side, self.origin) else side for side in found}

    def constant_of(self, blocks: list[Block], place: str) -> int | None:
        """As in a walk that is only likely, and what was a constant when it ran; its value is of no matter then."""
        known = Slicer.constant_of(self, blocks, place)
        if known is None and self.constant_at is not None and self.constant_at(len(blocks) - 1, place):
            return 0
        return known

    def values_of(self, blocks: list[Block], place: str) -> set[State]:
        """Of the place that the value is in there: the origin, whatever way it took."""
        state = self.along[len(blocks) - 1] if len(blocks) <= len(self.along) else None
        if isinstance(state, Held) and state.place == place and self.origin is not None:
            return {self.origin}
        return Slicer.values_of(self, blocks, place)
