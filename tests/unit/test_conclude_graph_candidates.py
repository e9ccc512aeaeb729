"""Places in the source crossed out by what the traced calls did not call."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import pytest

from profiler.conclude.graph_candidates import cross_out
from profiler.debuginfo.source_flow import SourceFlow, flow_of
from profiler.graph import Block, Call, Edge, EdgeKind, FunctionGraph
from profiler.infer.landmarks import Traced
from profiler.model import ErrorSite, SourceCandidate, SourceLocation

FILE = "harbour/moor.c"
SOURCE = """
static int berth_find(int length)
{
	return depth_sound(length);
}

int moor(int length, int flags)
{
	int err = -ENOMEM;

	if (flags)
		return -EINVAL;
	if (!ropes_take(length))
		goto out;
	if (!berth_find(length))
		return -ENOSPC;
	if (length > 9)
		return -E2BIG;
	return 0;
out:
	return err;
}
""".splitlines()
FLAGS, TAKEN, NO_BERTH, TOO_LONG, LENGTH = 12, 13, 16, 18, 17


@dataclass(frozen=True)
class Function:
    name: str
    start: int


@dataclass
class Symbols:
    functions: list[Function]

    def functions_named(self, name: str) -> list[Function]:
        return [one for one in self.functions if one.name == name]

    def pieces_of(self, name: str) -> list[Function]:
        return [one for one in self.functions if one.name.partition(".")[0] == name]


@dataclass
class Code:
    """moor() at 0x1000: flags are tested, ropes_take() and depth_sound() (by way of the inlined berth_find()) called,
    the length tested; 0x10 bytes a block."""

    vmlinux: Symbols = field(
        default_factory=lambda: Symbols(
            [
                Function("moor", 0x1000),
                Function("ropes_take", 0x2000),
                Function("depth_sound", 0x3000),
                Function("anchor", 0x4000),
                Function("buoy", 0x5000),
            ]
        )
    )

    def graph(self, entry: int) -> FunctionGraph:
        if entry != 0x1000:
            return FunctionGraph("leaf", entry, {entry: block(entry)})
        blocks = [
            block(0x1000, 0x1010, 0x1060),
            block(0x1010, 0x1020, calls=0x2000),
            block(0x1020, 0x1030, 0x1060),
            block(0x1030, 0x1040, calls=0x3000),
            block(0x1040, 0x1050, 0x1060),
            block(0x1050, 0x1060),
            block(0x1060),
        ]
        return FunctionGraph("moor", entry, {each.start: each for each in blocks})

    def frames(self, address: int) -> tuple[SourceLocation, ...]:
        lines = {0x1000: 11, 0x1010: TAKEN, 0x1020: TAKEN, 0x1030: 15, 0x1040: 15, 0x1050: LENGTH, 0x1060: 21}
        here = SourceLocation("moor", FILE, lines.get(address & ~0xF, 0))
        if address & ~0xF == 0x1030:
            return SourceLocation("berth_find", FILE, 4), here
        if address >= 0x2000:
            found = self.function_at(address)
            return (SourceLocation(found[0], "harbour/rope.c", 3),) if found else ()
        return (here,)

    def function_at(self, address: int) -> tuple[str, int, int] | None:
        for one in reversed(self.vmlinux.functions):
            if address >= one.start:
                return one.name, one.start, one.start + 0x100
        return None

    def instructions_of(self, of: Block) -> list[int]:
        return [of.start, of.last]


def block(start: int, *targets: int, calls: int | None = None) -> Block:
    call = Call(start + 8, calls, tail=False) if calls is not None else None
    edges = tuple(Edge(target, EdgeKind.FALL) for target in targets)
    return Block(start, start + 0x10, 2, start + 8, (), edges, call, returns=not targets)


def flow(function: str, file: str, line: int) -> SourceFlow | None:
    return flow_of(SOURCE, function, line) if file == FILE else None


def candidate(line: int, function: str = "moor", file: str = FILE, via: tuple[str, ...] = ()) -> SourceCandidate:
    return SourceCandidate(ErrorSite(function, file, line, ""), None, 0, [*(via or ("moor",)), function])


ALL = frozenset({"moor", "ropes_take", "depth_sound", "anchor"})


def ran(*callees: str, traceable: frozenset[str] = ALL, complete: bool = True) -> Traced:
    return Traced(frozenset({("", "moor"), *(("moor", callee) for callee in callees)}), traceable, complete)


def why(one: SourceCandidate, traced: Traced) -> str:
    return cross_out([one], traced, Code(), flow)[0].reason


@pytest.mark.parametrize("line", [FLAGS, TAKEN])
def test_what_lies_before_the_last_call_that_was_made_stays(line: int) -> None:
    """Where ropes_take() was called and nothing after it, its failure and the places before it are possible."""
    assert why(candidate(line), ran("ropes_take")) == ""


def test_what_lies_behind_a_call_that_was_not_made_is_out() -> None:
    """Whether that call is the function's own or that of a function inlined into it."""
    assert why(candidate(NO_BERTH), ran("ropes_take")) == ("moor() calls depth_sound() on the way there, and did not")
    assert why(candidate(TOO_LONG), ran("ropes_take")) == "moor() calls depth_sound() on the way there, and did not"
    assert why(candidate(TOO_LONG), ran()).startswith("moor() calls ")


def test_what_lies_behind_calls_that_were_made_stays() -> None:
    assert why(candidate(TOO_LONG), ran("ropes_take", "depth_sound")) == ""


def test_an_assignment_before_all_calls_stays() -> None:
    """`int err = -ENOMEM` at the top: where a compiler puts the constant proves nothing."""
    assert why(candidate(9), ran("ropes_take")) == ""


def test_a_function_that_ran_nowhere_is_out() -> None:
    assert why(candidate(5, "anchor", "harbour/anchor.c"), ran("ropes_take")) == "anchor() was not called"


def test_what_is_part_of_a_function_that_ran_nowhere_is_out() -> None:
    """A function that is inlined into its caller has no code of its own that could be traced."""
    inlined = candidate(5, "fluke", "harbour/anchor.c", via=("moor", "anchor"))
    assert why(inlined, ran("ropes_take")) == "anchor(), which fluke() is part of, was not called"


@pytest.mark.parametrize(
    "traced",
    [
        ran("ropes_take", complete=False),
        ran("ropes_take", traceable=frozenset({"moor", "ropes_take"})),
        ran("ropes_take", traceable=ALL - {"moor"}),
    ],
)
def test_nothing_is_out_where_the_trace_would_not_show_it(traced: Traced) -> None:
    """Events were lost; the callee cannot be traced; or its caller cannot, so that callees seem to be another's."""
    assert why(candidate(TOO_LONG), traced) == ""


def test_a_function_that_cannot_be_traced_stays() -> None:
    assert why(candidate(5, "buoy", "harbour/buoy.c", via=("buoy",)), ran()) == ""


def test_what_is_out_already_keeps_its_reason() -> None:
    out = dataclasses.replace(candidate(TOO_LONG), excluded_by="samples", reason="said before")
    assert cross_out([out], ran("ropes_take"), Code(), flow) == [out]


def test_without_the_source_of_a_function_its_places_stay() -> None:
    assert cross_out([candidate(TOO_LONG)], ran(), Code(), lambda *_: None)[0].reason == ""


def test_a_header_s_function_stays_where_unknown_code_ran() -> None:
    """A module's function may have had it inlined."""
    known = ran("ropes_take")
    unknown = dataclasses.replace(known, called=known.called | {("moor", "function_of_a_module")})
    header = candidate(5, "anchor", "include/anchor.h")
    assert why(header, known) == "anchor() was not called"
    assert why(header, unknown) == ""
