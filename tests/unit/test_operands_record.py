"""Operands: fetch arguments are checked before the kernel sees them, its lines are read whatever they hold."""

import os
from collections.abc import Mapping
from types import SimpleNamespace
from typing import cast

import pytest

from profiler.errors import MissingError, ProfilerError, RecordError
from profiler.record import operands, tracefs
from profiler.record.operands import Parser, Point
from profiler.record.orders import Place

BIND = 0xFFFFFFFF81E63D60
PLACE = cast(Place, SimpleNamespace(load=SimpleNamespace(pid=os.getpid()), out="/nonexistent"))

# Printed by 7.3.4+deb13-cloud-amd64 for the definition of ENTRY, of a thread that calls itself "a [0] b: x-1".
ENTRY = Point(
    BIND,
    False,
    {
        "v0": "%di:s32",
        "v1": "%si:x64",
        "v2": "%dx:s32",
        "v3": "+0(%si):string",
        "v4": "$comm",
        "v5": "+0(%si):x8[4]",
        "v6": "+0(%sp):symbol",
        "v7": "+0(%di):string",
        "v8": "%dx:char",
        "v9": "+0(%di):u64",
    },
)
RETURN = Point(BIND, True, {"r": "$retval:s32"})
LINES = (
    "    a [0] b: x-1-132     [000] .....    22.997731: p0: (__sys_bind+0x4/0x110) v0=5 v1=0x7ffe75710070 v2=16"
    ' v3="\x02" v4="a [0] b: x-1" v5={0x2,0x0,0x1e,0x61} v6=arch_rethook_trampoline+0x0/0x60 v7=(fault)'
    " v8='\x10' v9=0\n"
    "    a [0] b: x-1-132     [000] .....    22.997758: p1: (__x64_sys_bind+0x18/0x20 <- __sys_bind) r=-98\n"
)
OLD = "    a [0] b: x-1-109     [000] d...    12.334923: p1: (__x64_sys_bind+0x16/0x20 <- __sys_bind) r=-98\n"  # 5.10


def parsed(text: str, most: int = 8) -> Parser:
    parser = Parser({0: ENTRY, 1: RETURN}, most)
    parser.feed(text)
    return parser


def test_every_kind_of_value_is_read_as_what_it_is() -> None:
    entry, on_return = parsed(LINES).hits
    assert entry == {
        "point": 0,
        "address": BIND,
        "thread": 132,
        "values": {
            "v0": 5,
            "v1": 0x7FFE75710070,
            "v2": 16,
            "v3": "\x02",
            "v4": "a [0] b: x-1",
            "v5": [2, 0, 0x1E, 0x61],
            "v6": "arch_rethook_trampoline+0x0/0x60",
            "v7": None,
            "v8": "\x10",
            "v9": 0,
        },
    }
    assert on_return == {"point": 1, "address": BIND, "thread": 132, "values": {"r": -98}}


def test_lines_of_an_older_kernel_are_read_too() -> None:
    assert [(hit["thread"], hit["values"]) for hit in parsed(OLD).hits] == [(109, {"r": -98})]


@pytest.mark.parametrize("cut", range(0, len(LINES), 17))
def test_text_may_be_cut_anywhere(cut: int) -> None:
    parser = Parser({0: ENTRY, 1: RETURN}, 8)
    parser.feed(LINES[:cut])
    parser.feed(LINES[cut:])
    assert parser.hits == parsed(LINES).hits


def test_a_text_among_the_values_cannot_pass_for_another_value() -> None:
    point = Point(BIND, False, {"v0": "+0(%si):string", "v1": "%dx:s32"})
    parser = Parser({0: point}, 8)
    parser.feed('  x-1 [000] d... 1.0: p0: (f+0x4/0x110) v0="a" v1=7 b" v1=16\n')
    assert parser.hits[0]["values"] == {"v0": 'a" v1=7 b', "v1": 16}


def test_each_point_has_no_more_hits_than_asked_for() -> None:
    parser = parsed(LINES * 5, most=2)
    assert [hit["point"] for hit in parser.hits] == [0, 1, 0, 1]
    assert parser.enough()
    assert not parsed(OLD * 5, most=2).enough()  # of one point there is none


def test_lines_of_others_are_passed_over_and_losses_counted() -> None:
    parser = parsed("\nCPU:0 [LOST 12 EVENTS]\n# tracer: nop\n" + LINES.replace("p0:", "p7:").replace("p1:", "x:"))
    assert parser.hits == []
    assert parser.lost == 12


def test_a_definition_names_address_and_arguments() -> None:
    assert Point(BIND, False, {"v0": "%di:s32"}).definition("whyerrno_1/p0") == (
        "p:whyerrno_1/p0 0xffffffff81e63d60 v0=%di:s32"
    )
    assert RETURN.definition("whyerrno_1/p0") == "r:whyerrno_1/p0 0xffffffff81e63d60 r=%ax:s32"


@pytest.mark.parametrize(
    "argument",
    [
        "%ax",
        "%r15:u64",
        "+16(%bx):u64",
        "-8(%sp):x32",
        "+0(+8(%di)):s8",
        "+u0(%si):ustring",
        "+0x10(%bx):b4@4/32",
        "@0xffffffff81000000:u8",
        "@jiffies+8:u32",
        "$stack2",
        "$retval:s64",
        "$comm",
        "\\-5:s32",
        "+0(%si):x8[4]",
    ],
)
def test_fetch_arguments_of_the_kernels_grammar_are_taken(argument: str) -> None:
    operands.check_fetch("v0", argument)


@pytest.mark.parametrize(
    "argument",
    [
        "",
        "%ax\n-:theirs/p0",
        "%ax;-:theirs/p0",
        "%ax v1=%bx",
        "%ax:s32\n",
        "%AX",
        "ax",
        "+16(%bx:u64",
        "16(%bx)",
        "%ax:s33",
        "%ax:string[9999]",
        "$(reboot)",
        "@/etc/passwd",
        "+0(" * 40 + "%ax" + ")" * 40,
    ],
)
def test_what_is_no_fetch_argument_is_refused(argument: str) -> None:
    with pytest.raises(RecordError, match="is no fetch argument"):
        operands.check_fetch("v0", argument)


@pytest.mark.parametrize("name", ["", "0", "v 0", "v0=%ax\n", "v" * 40])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(RecordError, match="is no fetch argument"):
        operands.check_fetch(name, "%ax")


@pytest.mark.parametrize(
    ("order", "says"),
    [
        ({}, "names 1 to"),
        ({"points": [7]}, "is no point"),
        ({"points": [{"address": 7, "fetch": {}}]}, "is no point"),
        ({"points": [{"address": BIND, "fetch": []}]}, "is no point"),
        ({"points": [{"address": BIND, "fetch": {"v0": 7}}]}, "is no point"),
        ({"points": [{"address": BIND, "fetch": {"v0": "x;y"}}]}, "no fetch argument"),
        ({"points": [{"address": BIND}], "seconds": -1}, "captured for up to"),
        ({"points": [{"address": BIND}], "hits": 0}, "captured 1 to"),
    ],
)
def test_an_order_of_another_shape_is_refused_before_anything_is_written(
    order: Mapping[str, object], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracefs, "find", lambda: pytest.fail("tracefs was looked for"))
    with pytest.raises(RecordError, match=says):
        operands.carry_out(order, 0, PLACE)


def test_a_kernel_without_kprobe_events_is_named(tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracefs, "find", lambda: os.fspath(tmp_path))
    with pytest.raises(MissingError, match="no kprobe_events") as told:
        operands.carry_out({"points": [{"address": BIND}]}, 0, PLACE)
    assert "CONFIG_KPROBE_EVENTS" in told.value.hint


class Kernel:
    """Takes definitions as a kernel does that has no register %zz."""

    def __init__(self) -> None:
        self.defined: list[str] = []
        self.log = ""

    def write(self, path: str, text: str, *, add: bool = False) -> None:
        line = text.rstrip("\n")
        if line.startswith("-:"):
            self.defined = [other for other in self.defined if line[2:] not in other]
        elif "%zz" in line:
            self.log += f"[   29.107443] trace_kprobe: error: Invalid register name\n  Command: {line}\n      ^\n"
            raise RecordError(f"{path} cannot be written: Invalid argument")
        else:
            self.defined.append(line)

    def read(self, path: str) -> str:
        if not path.endswith("/error_log"):
            raise ProfilerError(path)
        return self.log


def test_one_bad_argument_does_not_lose_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel()
    monkeypatch.setattr(tracefs, "write", kernel.write)
    monkeypatch.setattr(tracefs, "read", kernel.read)
    errors: list[dict[str, object]] = []
    group = operands.Group("whyerrno_1", "/tracing/kprobe_events")
    kept = group.define(3, Point(BIND, False, {"v0": "%di:s32", "v1": "%zz:u64", "v2": "%dx:s32"}), errors)
    assert kept is not None
    assert kernel.defined == ["p:whyerrno_1/p3 0xffffffff81e63d60 v0=%di:s32 v2=%dx:s32"]
    assert list(kept.fetch) == ["v0", "v2"]
    assert errors == [{"address": BIND, "name": "v1", "definition": "%zz:u64", "says": "Invalid register name"}]
