"""The text of the function graph tracer: every form it prints, cut anywhere, and calls that belong together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.parse.function_graph import calls, parts, plain, read
from profiler.parse.function_graph_types import NONE, FunctionGraph

DATA = Path(__file__).parents[1] / "data" / "function_graph"

# 7.3, funcgraph-abstime and -proc and -tail on, raw_syscalls:sys_exit enabled
WHOLE = b"""\
# tracer: function_graph
#
#     TIME        CPU  TASK/PID         DURATION                  FUNCTION CALLS
#      |          |     |    |           |   |                     |   |   |   |
   86.123100 |   0)  python3-120   |               |  __x64_sys_mprotect() {
   86.123103 |   0)  python3-120   |   3.296 us    |    do_mprotect_pkey();
   86.123110 |   0)  python3-120   | + 10.240 us   |  } /* __x64_sys_mprotect */
   86.123114 |   0)  python3-120   |               |  /* sys_exit: NR 10 = -22 */
   86.123142 |   0)  python3-120   |               |  /* sys_exit: NR 49 = -9 */
   86.123164 |   0)  python3-120   |               |  __x64_sys_mprotect() {
   86.123167 |   0)  python3-120   | ! 103.296 us  |    do_mprotect_pkey();
   86.123274 |   0)  python3-120   | ! 110.240 us  |  } /* __x64_sys_mprotect */
   86.123278 |   0)  python3-120   |               |  /* sys_exit: NR 10 = 0 */
"""


def names(graph: FunctionGraph) -> list[str]:
    return [graph.names[number] for number in graph.calls.function.tolist()]


def lines(*texts: str) -> bytes:
    return "".join(f"{text}\n" for text in texts).encode()


def test_columns_hold_what_each_line_says() -> None:
    graph = read([WHOLE])
    columns = graph.calls
    assert names(graph) == ["__x64_sys_mprotect", "do_mprotect_pkey"] * 2
    assert columns.depth.tolist() == [0, 1, 0, 1]
    assert columns.parent.tolist() == [NONE, 0, NONE, 2]
    assert columns.start.tolist() == [86123100000, 86123103000, 86123164000, 86123167000]
    assert columns.duration.tolist() == [10240, 3296, 110240, 103296]
    assert columns.thread.tolist() == [120] * 4
    assert columns.cpu.tolist() == [0] * 4
    assert columns.complete.all()
    assert not columns.has_returned.any()
    assert WHOLE[columns.opened[1] :].startswith(b"   86.123103 |   0)  python3-120   |   3.296 us")
    assert WHOLE[columns.closed[0] :].startswith(b"   86.123110 |")
    assert graph.events.text == ("sys_exit: NR 10 = -22", "sys_exit: NR 49 = -9", "sys_exit: NR 10 = 0")
    assert graph.events.time.tolist() == [86123114000, 86123142000, 86123278000]
    assert graph.threads == {120: "python3"}
    assert graph.decode_errors == ()


def test_a_tree_has_the_result_that_the_event_after_it_tells() -> None:
    failing, succeeding = calls(read([WHOLE]), "__x64_sys_mprotect")
    assert (failing.result, failing.told_by, failing.thread, failing.duration) == (-22, "sys_exit", 120, 10240)
    assert succeeding.result == 0
    assert failing.functions() == ((0, "__x64_sys_mprotect"), (1, "do_mprotect_pkey"))


def test_an_event_of_a_later_call_is_not_taken_for_the_result() -> None:
    """Where the event of a call is missing, its result is not known, rather than wrong."""
    text = WHOLE.replace(b"   86.123114 |   0)  python3-120   |               |  /* sys_exit: NR 10 = -22 */\n", b"")
    text = text.replace(b"   86.123142 |   0)  python3-120   |               |  /* sys_exit: NR 49 = -9 */\n", b"")
    assert [tree.result for tree in calls(read([text]), "__x64_sys_mprotect")] == [None, 0]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("  0.123 us    |  ", 123),
        ("+ 10.240 us   |  ", 10240),
        ("! 110.240 us  |  ", 110240),
        ("# 1003.123 us |  ", 1003123),
        ("* 12345.12 us |  ", 12345120),
        ("@ 123456.1 us |  ", 123456100),
        ("$ 1234567 us  |  ", 1234567000),
        ("$ 123456789 us |  ", 123456789000),
    ],
)
def test_every_mark_and_width_of_a_duration_is_read(column: str, expected: int) -> None:
    graph = read([lines(" 1)   7.123 us    |  f();", *3 * [f" 1) {column}f();"])])
    assert graph.decode_errors == ()
    assert graph.calls.duration.tolist() == [7123] + [expected] * 3


# Made in guests, "@@@ " before each: the options of the tracer that were set, two threads, one that sleeps, and a read
# of trace_pipe with losses.
FORMS = [
    (kernel, *section.split("\n", 1))
    for kernel in ("5.10", "7.3")
    for section in (DATA / f"forms-{kernel}.txt").read_text().split("@@@ ")[1:]
]


@pytest.mark.parametrize(("kernel", "options", "text"), FORMS, ids=[f"{kernel}-{form}" for kernel, form, _ in FORMS])
def test_what_kernels_print_is_read_without_a_fault(kernel: str, options: str, text: str) -> None:
    """And from several lines at once as from each line alone."""
    data = text.replace("@@@\n", "").encode()
    graph = read([data])
    assert graph.decode_errors == ()
    assert len(graph.calls.opened) >= 20
    assert (graph.lost > 0) == options.startswith("pipe")
    singly = list(parts(data.splitlines(keepends=True), block=1))
    opened = np.concatenate([part.calls.opened for part in singly])
    order = np.argsort(opened)
    for name in ("depth", "cpu", "start", "duration", "complete", "closed"):
        column = np.concatenate([getattr(part.calls, name) for part in singly])
        assert np.array_equal(column[order], getattr(graph.calls, name)), name


def test_a_recorded_trace_gives_the_calls_that_were_made() -> None:
    """bind of a port that is taken, on 7.3: every call fails alike, but for interrupts."""
    trees = calls(read(DATA / "bind-7.3.txt"), "__x64_sys_bind")
    assert len(trees) == 20
    assert {(tree.result, tree.told_by) for tree in trees} == {(-98, "sys_exit")}
    assert len({tree.functions() for tree in trees if not tree.interrupted}) == 1
    assert (5, "inet_csk_get_port") in trees[0].functions()
    assert sum(tree.interrupted for tree in trees) <= 4  # one by a timer's, one because another thread ran


# The same two calls, with some of the columns: what the options funcgraph-abstime, -cpu, -proc and -duration print.
_TIME, _CPU, _TASK = "   86.123100 | ", "   0) ", " python3-120   | "


@pytest.mark.parametrize("duration", [True, False])
@pytest.mark.parametrize("task", [_TASK, ""])
@pytest.mark.parametrize("cpu", [" 3) ", ""])
@pytest.mark.parametrize("time", ["   86.123100 |  ", "  1234567 us |  ", ""])
@pytest.mark.parametrize("latency", [" d..1. | ", ""])
def test_any_combination_of_columns_is_read(time: str, cpu: str, task: str, latency: str, duration: bool) -> None:
    head = time + cpu + task + latency
    blank, took = ("              |  ", "  3.296 us    |  ") if duration else ("", "")
    graph = read(
        [lines(f"{head}{blank}a() {{", f"{head}{took}  b();", f"{head}{blank}  /* hello */", f"{head}{took}}}")]
    )
    assert graph.decode_errors == ()
    assert names(graph) == ["a", "b"]
    assert graph.calls.parent.tolist() == [NONE, 0]
    assert graph.calls.complete.all()
    assert graph.calls.duration.tolist() == [3296 if duration else NONE] * 2
    assert graph.events.text == ("hello",)
    assert set(graph.calls.cpu.tolist()) == {3 if cpu else NONE}
    assert set(graph.calls.thread.tolist()) == {120 if task else (-5 if cpu else -1)}
    starts = {"   86.123100 |  ": 86123100000, "  1234567 us |  ": 1234567000, "": NONE}
    assert set(graph.calls.start.tolist()) == {starts[time]}


@pytest.mark.parametrize(
    ("leaf", "end", "expected"),
    [
        ("b(); /* = -22 */", "} /* a = 0x0 */", (0, -22)),  # up to 6.13
        ("b(); /* ret=-22 */", "} /* a ret=0x0 */", (0, -22)),  # from 6.14
        ("b(); /* <-caller+0x12/0x40 ret=-22 */", "} /* a ret=0x1f */", (31, -22)),
        ("b(x=0x1, s=\"}\"); /* ret=0xffffffffffffffea */", "} /* a ret=18446744073709551594 */", (-22, -22)),
    ],
)  # fmt: skip
def test_return_values_are_read_in_every_form(leaf: str, end: str, expected: tuple[int, int]) -> None:
    for begin in ("a() {", "a(x=0x1, y=2) {", "a() { /* <-caller+0x12/0x40 */"):
        graph = read(
            [lines(f" 0)               |  {begin}", f" 0)   3.296 us    |    {leaf}", f" 0)   9.120 us    |  {end}")]
        )
        assert graph.decode_errors == ()
        assert names(graph) == ["a", "b"]
        assert graph.calls.has_returned.all()
        assert tuple(graph.calls.returned.tolist()) == expected
        (tree,) = calls(graph, "a")
        assert (tree.result, tree.told_by) == (expected[0], "retval")
        assert tree.nodes[1].returned == expected[1]


def test_interrupt_marks_dashes_and_overruns_are_no_calls_and_no_faults() -> None:
    graph = read(
        [
            lines(
                " 0)               |  a() {",
                " 0)   ==========> |",
                " 0)               |    sysvec_apic_timer_interrupt() {",
                " 0)   3.296 us    |      irq_enter_rcu();",
                " 0) + 13.296 us   |    } /* sysvec_apic_timer_interrupt */",
                " (Overruns: 0)",
                " 0)   <========== |",
                " 0) + 23.296 us   |  } /* a */",
                "##### CPU 1 buffer started ####",
                "",
            )
        ]
    )
    assert graph.decode_errors == ()
    (tree,) = calls(graph, "a")
    assert tree.interrupted
    assert [node.depth for node in tree.nodes] == [0, 1, 2]


def test_switches_say_whose_calls_they_are_where_no_line_does() -> None:
    """Two threads on two CPUs, one of which moves from one to the other within a call."""
    text = lines(
        " 0)               |  a() {",
        " 1)               |  a() {",
        " ------------------------------------------",
        " 0)   first-11    =>   second-12  ",
        " ------------------------------------------",
        "",
        " 0)   1.000 us    |  b();",
        " 1)   1.000 us    |    c();",
        " ------------------------------------------",
        " 1)   third-13    =>    first-11  ",
        " ------------------------------------------",
        "",
        " 1)   2.000 us    |    d();",
        " 1)   9.000 us    |  } /* a */",
    )
    for graph in (read([text]), read(text.splitlines(keepends=True))):
        assert graph.decode_errors == ()
        found = dict(zip(zip(names(graph), graph.calls.thread.tolist(), strict=True), range(5), strict=True))
        assert set(found) == {("a", 11), ("a", 13), ("b", 12), ("c", 13), ("d", 11)}
        assert graph.calls.parent[found["d", 11]] == found["a", 11]
        assert graph.calls.parent[found["c", 13]] == found["a", 13]
        assert graph.calls.complete[found["a", 11]]
        assert not graph.calls.complete[found["a", 13]]
        assert [tree.thread for tree in calls(graph, "a", whole=False)] == [11, 13]


def test_calls_of_several_cpus_that_interleave_are_kept_apart() -> None:
    text = lines(
        "    1.000001 |   0)     one-11     |               |  a() {",
        "    1.000002 |   1)     two-12     |               |  a() {",
        "    1.000003 |   0)     one-11     |   1.000 us    |    b();",
        "    1.000004 |   1)     two-12     |   1.000 us    |    c();",
        "    1.000005 |   1)     two-12     |   9.000 us    |  } /* a */",
        "    1.000006 |   1)     two-12     |               |  /* sys_exit: NR 1 = -5 */",
        "    1.000007 |   0)     one-11     |   9.000 us    |  } /* a */",
        "    1.000008 |   0)     one-11     |               |  /* sys_exit: NR 1 = 0 */",
    )
    one, two = calls(read([text]), "a")
    assert (one.functions(), one.result) == (((0, "a"), (1, "b")), 0)
    assert (two.functions(), two.result) == (((0, "a"), (1, "c")), -5)


def test_idle_tasks_of_several_cpus_are_not_one_thread() -> None:
    text = lines(
        " 0)    <idle>-0     |               |  a() {",
        " 1)    <idle>-0     |               |  b() {",
        " 0)    <idle>-0     |   9.000 us    |  } /* a */",
        " 1)    <idle>-0     |   9.000 us    |  } /* b */",
    )
    graph = read([text])
    assert graph.calls.complete.all()
    assert graph.calls.thread.tolist() == [0, 0]


def test_exits_without_an_entry_are_counted_and_make_no_call() -> None:
    text = lines(" 0)   1.000 us    |      c();", " 0)   9.000 us    |    } /* b */", " 0)   1.000 us    |    d();")
    graph = read([text])
    assert names(graph) == ["c", "d"]
    assert graph.calls.parent.tolist() == [NONE, NONE]
    assert graph.exits_without_entry == 1
    assert graph.decode_errors == ()


def test_an_exit_of_another_name_ends_nothing() -> None:
    graph = read([lines(" 0)               |  a() {", " 0)   9.000 us    |  } /* b */")])
    assert graph.calls.complete.tolist() == [False]
    assert graph.exits_without_entry == 1
    assert calls(graph, "a") == []


def test_a_loss_breaks_the_calls_on_its_cpu_and_no_others() -> None:
    text = lines(
        " 0)     one-11     |               |  a() {",
        " 1)     two-12     |               |  a() {",
        "CPU:1 [LOST 1234 EVENTS]",
        " 0)     one-11     |   9.000 us    |  } /* a */",
        " 1)     two-12     |   9.000 us    |  } /* a */",
    )
    for pieces in ([text], text.splitlines(keepends=True)):
        graph = read(pieces)
        assert graph.calls.complete.tolist() == [True, False]
        assert graph.lost == 1234
    assert read([b"CPU:0 [LOST EVENTS]\n"]).lost == 1


def test_names_may_hold_anything() -> None:
    """Modules, compiler's suffixes, raw addresses, a thread that is called ` | 9) ` and bytes that are no UTF-8."""
    text = (
        b" 0)    | 9) -120     |               |  ext4_map_blocks [ext4]() {\n"
        b" 0)    | 9) -120     |   1.000 us    |    f.isra.0.constprop.1();\n"
        b" 0)    | 9) -120     |   1.000 us    |    0xffffffffc0401234();\n"
        b" 0)    | 9) -120     |   1.000 us    |    \xff\xfe[unset]();\n"
        b" 0)    | 9) -120     |   9.000 us    |  } /* ext4_map_blocks [ext4] */\n"
    )
    graph = read([text])
    assert graph.decode_errors == ()
    assert graph.calls.thread.tolist() == [120] * 4
    assert graph.threads[120].strip() == "| 9)"
    assert names(graph)[1:] == ["f.isra.0.constprop.1", "0xffffffffc0401234", "\\xff\\xfe[unset]"]
    assert len(calls(graph, "ext4_map_blocks")) == 1
    assert plain("ext4_map_blocks [ext4]") == "ext4_map_blocks"


def test_lines_that_cannot_be_read_are_faults_with_their_offsets() -> None:
    text = WHOLE + b"what is this?\n" + WHOLE[: WHOLE.rindex(b"-12") - 20]
    graph = read([text])
    offsets = [error.offset for error in graph.decode_errors]
    assert offsets[0] == len(WHOLE)
    assert len(offsets) <= 2
    assert len(calls(graph, "__x64_sys_mprotect")) >= 3


def test_a_cut_event_does_not_tell_a_wrong_result() -> None:
    text = WHOLE[: WHOLE.index(b"-22 */") + 2]  # "sys_exit: NR 10 = -2"
    assert [tree.result for tree in calls(read([text]), "__x64_sys_mprotect")] == [None]


def test_a_line_of_no_end_is_one_fault() -> None:
    graph = read([WHOLE, b"x" * 300_000, b"\n", WHOLE])
    assert len(graph.decode_errors) == 1
    assert len(calls(graph, "__x64_sys_mprotect")) == 4


def test_parts_hold_whole_trees_with_their_results() -> None:
    """However small the blocks are, the parts together have what the whole has, and no tree is cut."""
    text = WHOLE * 50
    whole = calls(read([text]), "__x64_sys_mprotect")
    assert len(whole) == 100
    for block in (1, 100, 1000):
        found = [tree for part in parts([text[i : i + 37] for i in range(0, len(text), 37)], block=block)
                 for tree in calls(part, "__x64_sys_mprotect")]  # fmt: skip
        assert found == whole


def test_a_tree_that_never_ends_does_not_hold_everything_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("profiler.parse.function_graph_match.MOST_KEPT", 1000)

    def endless() -> Iterator[bytes]:
        yield b" 0)               |  forever() {\n"
        for _ in range(200):
            yield b" 0)   1.000 us    |    b();\n" * 100

    sizes = [len(part.calls.opened) for part in parts(endless(), block=4096)]
    assert sum(sizes) == 20_001
    assert max(sizes) < 5000


def test_a_file_and_its_pieces_read_alike(tmp_path: Path) -> None:
    path = tmp_path / "graph.txt"
    path.write_bytes(WHOLE * 30)
    whole, pieces = read(path), read([WHOLE] * 30)
    assert np.array_equal(whole.calls.opened, pieces.calls.opened)
    assert whole.events.text == pieces.events.text


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_cuts_and_damage_anywhere_never_crash(data: st.DataObject) -> None:
    """Whatever is left is read, rows are consistent, and callers come before those they call."""
    text = bytearray(WHOLE * 3)
    for _ in range(data.draw(st.integers(0, 6))):
        first = data.draw(st.integers(0, len(text)))
        last = data.draw(st.integers(first, min(len(text), first + 200)))
        text[first:last] = data.draw(st.binary(max_size=20))
    piece = data.draw(st.integers(1, 400))
    graph = read([bytes(text[i : i + piece]) for i in range(0, len(text), piece)])
    columns = graph.calls
    assert len({len(getattr(columns, name)) for name in type(columns).__slots__}) == 1
    assert (columns.parent < np.arange(len(columns.parent))).all()
    assert (columns.closed[columns.complete] >= columns.opened[columns.complete]).all()
    calls(graph, "__x64_sys_mprotect", whole=False)


@given(st.lists(st.binary(max_size=60), max_size=30))
@settings(max_examples=100, deadline=None)
def test_anything_at_all_is_read_without_a_crash(pieces: list[bytes]) -> None:
    read(pieces)
