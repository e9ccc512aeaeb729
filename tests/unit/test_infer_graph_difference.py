"""Call trees of failing and succeeding calls held side by side, told apart, and what was not called used as proof."""

from __future__ import annotations

import pytest

from profiler.graph import Block, Call, Edge, EdgeKind, FunctionGraph
from profiler.infer.graph_difference import compare
from profiler.infer.landmarks import Way, called_before, dominators, excluded, traced
from profiler.infer.telling_apart import tell_apart
from profiler.parse.function_graph_types import CallTree, GraphNode


def tree(text: str, result: int | None = None, *, interrupted: bool = False) -> CallTree:
    """A call by its indented functions; `name = -12` for what a function returned."""
    nodes = []
    for line in text.strip("\n").splitlines():
        name, _, value = line.strip().partition(" = ")
        depth = (len(line) - len(line.lstrip(" "))) // 2
        nodes.append(GraphNode(name, depth, 100, int(value) if value else None))
    return CallTree(1, 0, 100, result, "sys_exit" if result is not None else "", interrupted, tuple(nodes))


# The two calls of the method: io_uring_setup() as it succeeds and as it fails.
SUCCEEDS = """
__x64_sys_io_uring_setup
  io_uring_setup
    capable
      ns_capable_common
        security_capable
          cap_capable
    kmem_cache_alloc_trace
      _cond_resched
        rcu_all_qs
      should_failslab
      memcg_kmem_put_cache
    fd_install
      __fd_install
"""
FAILS = """
__x64_sys_io_uring_setup
  io_uring_setup
    capable
      ns_capable_common
        security_capable
          cap_capable
    free_uid
"""


def test_the_example_of_the_method_parts_where_it_says() -> None:
    """Behind capable(), the succeeding call allocates and the failing one gives the user back."""
    found = compare([tree(FAILS)] * 3, [tree(SUCCEEDS)] * 2, "by hand")
    assert found.divergence == (
        "in io_uring_setup(), behind capable(): the succeeding calls go on to kmem_cache_alloc_trace() and "
        "fd_install(), the failing ones call free_uid()"
    )
    assert found.parted_in == "io_uring_setup"
    assert (found.failing_calls, found.succeeding_calls) == (3, 2)
    sides = {line.function: (line.failing, line.succeeding) for line in found.lines}
    assert sides["cap_capable"] == (True, True)
    assert sides["free_uid"] == (True, False)
    assert sides["should_failslab"] == sides["fd_install"] == (False, True)
    assert [line.function for line in found.lines if line.diverges] == ["free_uid"]


def test_the_order_of_both_sides_is_kept() -> None:
    """Each side's own lines, read alone, are its own tree."""
    found = compare([tree(FAILS)], [tree(SUCCEEDS)], "")
    failing = [(line.depth, line.function) for line in found.lines if line.failing]
    succeeding = [(line.depth, line.function) for line in found.lines if line.succeeding]
    assert failing == list(tree(FAILS).functions())
    assert succeeding == list(tree(SUCCEEDS).functions())


def test_a_loop_is_folded_and_its_turns_are_counted() -> None:
    """Two functions that a loop calls 20 times are two lines, also where another call has fewer turns."""
    turns = "\n  lock\n    spin\n  unlock"
    found = compare([tree("f" + turns * 20), tree("f" + turns * 3)], [], "")
    assert [(line.function, line.note) for line in found.lines] == [
        ("f", ""),
        ("lock", "20 times"),
        ("spin", ""),
        ("unlock", "20 times"),
    ]


def test_a_detour_of_one_call_is_no_divergence() -> None:
    """What one call of twenty went through besides is told, and not taken for the difference."""
    usual, detour = tree("f\n  a\n  b"), tree("f\n  a\n    cond_resched\n  b")
    found = compare([usual] * 19 + [detour], [tree("f\n  a\n  b\n  c")] * 20, "")
    assert found.divergence == "in f(), behind b(): the succeeding calls go on to c(), the failing ones do not"
    assert [line.note for line in found.lines if line.function == "cond_resched"] == ["in 1 of 20 failing"]


def test_calls_that_an_interrupt_came_into_are_left_out_where_several_others_are_there() -> None:
    disturbed = tree("f\n  irq_enter_rcu\n  tick", interrupted=True)
    found = compare([disturbed, *[tree("f\n  a")] * 3], [disturbed], "")
    assert (found.failing_calls, found.succeeding_calls) == (3, 1)
    assert {line.function for line in found.lines if line.failing} == {"f", "a"}
    assert {line.function for line in found.lines if line.succeeding} == {"f", "irq_enter_rcu", "tick"}


def test_one_call_that_no_interrupt_came_into_does_not_stand_for_all() -> None:
    disturbed = tree("f\n  b\n  irq_enter_rcu\n  tick", interrupted=True)
    found = compare([tree("f\n  a")], [*[disturbed] * 9, tree("f\n  b")], "")
    assert (found.failing_calls, found.succeeding_calls) == (1, 10)


def test_return_values_are_shown_for_each_side() -> None:
    found = compare([tree("f = -12\n  a = 0")], [tree("f = 3\n  a = 0")], "")
    assert [(line.failing_returned, line.succeeding_returned) for line in found.lines] == [("-12", "3"), ("0", "0")]


def test_equal_trees_are_said_to_be_equal() -> None:
    found = compare([tree("f\n  a")], [tree("f\n  a")], "")
    assert found.divergence.startswith("both call the same functions: f()")
    assert not found.parted_in


def test_without_succeeding_calls_there_is_a_tree_and_no_divergence() -> None:
    found = compare([tree("f\n  a")], [], "")
    assert [line.succeeding for line in found.lines] == [None, None]
    assert found.divergence == ""


def test_no_call_at_all_gives_no_line() -> None:
    assert compare([], [], "nothing").lines == []


# ---- telling them apart ----


def test_what_calls_returned_tells_them_apart() -> None:
    """Calls that fail with another errno belong to neither side."""
    trees = [tree("f", result) for result in (-12, -12, 5, -4, 0)]
    told = tell_apart(trees, 12)
    assert (len(told.failing), len(told.succeeding), told.certain) == (2, 2, True)
    assert told.how == "what each call returned"


def test_fd_install_tells_calls_that_make_descriptors_apart() -> None:
    told = tell_apart([tree(FAILS)] * 5 + [tree(SUCCEEDS)] * 30, 12)
    assert (len(told.failing), len(told.succeeding)) == (5, 30)
    assert told.how == "only calls that succeed reach fd_install()"


def test_the_counted_share_of_failures_tells_calls_apart() -> None:
    """Even where the failing calls are the longer ones."""
    long, short = tree("f\n  a\n  b\n  c\n  d"), tree("f\n  x")
    told = tell_apart([long] * 10 + [short] * 90, 1, failures=0.1)
    assert (len(told.failing), len(told.succeeding)) == (10, 90)
    assert told.how.startswith("10% of the calls failed")


def test_a_share_that_fits_both_ways_is_not_used() -> None:
    """At one half it cannot be said which half; the shorter ones are taken for the failing ones, and it is said."""
    told = tell_apart([tree("f\n  a\n  b\n  c\n  d")] * 50 + [tree("f\n  x")] * 50, 1, failures=0.5)
    assert len(told.failing[0].nodes) == 2
    assert "fewer functions" in told.how
    assert not told.certain


@pytest.mark.parametrize(
    ("trees", "why"),
    [
        ([tree("f\n  a")] * 9, "all calls went through the same functions"),
        ([tree("f\n  a\n  b")] * 5 + [tree("f\n  c\n  d")] * 4, "neither is much longer"),
    ],
)
def test_what_cannot_be_told_is_not_guessed(trees: list[CallTree], why: str) -> None:
    told = tell_apart(trees, 12)
    assert (told.failing, told.succeeding) == ([], [])
    assert told.how.startswith("cannot be told: ")
    assert why in told.how


@pytest.mark.parametrize(("failures", "sides"), [(1.0, (3, 0)), (0.0, (0, 3))])
def test_where_all_calls_ended_alike_there_is_nothing_to_tell(failures: float, sides: tuple[int, int]) -> None:
    told = tell_apart([tree("f\n  a"), tree("f"), tree("f\n  b")], 12, failures=failures)
    assert (len(told.failing), len(told.succeeding)) == sides


def test_rare_detours_form_no_group_of_their_own() -> None:
    """One call in a hundred that was rescheduled is neither side."""
    odd = tree("f\n  schedule\n    pick\n    switch\n    finish")
    told = tell_apart([tree(FAILS)] * 60 + [tree(SUCCEEDS)] * 60 + [odd], 12)
    assert (len(told.failing), len(told.succeeding)) == (60, 60)


# ---- landmarks ----

NAMES = frozenset(
    {"io_uring_setup", "capable", "kmem_cache_alloc_trace", "free_uid", "io_ring_ctx_alloc", "alloc_file"}
)


def test_a_landmark_that_was_not_called_excludes_what_lies_behind_it() -> None:
    """The conclusion of the method: kmem_cache_alloc_trace() would have been called before the second return."""
    ran = traced([tree(FAILS)], NAMES, complete=True)
    way = Way(["io_uring_setup"], ["capable", "kmem_cache_alloc_trace"])
    assert excluded(way, ran) == (
        "io_uring_setup() always calls kmem_cache_alloc_trace() on the way there, and did not"
    )
    assert excluded(Way(["io_uring_setup"], ["capable"]), ran) == ""


def test_a_function_that_was_not_called_excludes_what_it_holds() -> None:
    ran = traced([tree(FAILS)], NAMES, complete=True)
    assert excluded(Way(["io_uring_setup", "alloc_file"], []), ran) == "alloc_file() was not called"


def test_one_call_that_came_there_is_enough_to_exclude_nothing() -> None:
    ran = traced([tree(FAILS), tree(SUCCEEDS)], NAMES, complete=True)
    assert excluded(Way(["io_uring_setup"], ["kmem_cache_alloc_trace"]), ran) == ""


def test_a_landmark_called_by_somebody_else_is_none() -> None:
    """That some callee called the same function proves nothing of the function itself."""
    ran = traced([tree("io_uring_setup\n  capable\n    free_uid")], NAMES, complete=True)
    assert excluded(Way(["io_uring_setup"], ["free_uid"]), ran) != ""
    assert excluded(Way(["capable"], ["free_uid"]), ran) == ""


@pytest.mark.parametrize(("traceable", "complete"), [(NAMES, False), (frozenset({"capable"}), True)])
def test_absence_proves_nothing_where_the_trace_would_not_have_shown_it(
    traceable: frozenset[str], complete: bool
) -> None:
    """Neither in a trace that lost events nor of functions that the tracer does not know."""
    ran = traced([tree(FAILS)], traceable, complete=complete)
    assert excluded(Way(["io_uring_setup", "alloc_file"], ["kmem_cache_alloc_trace"]), ran) == ""


def block(start: int, *targets: int, calls: int | None = None, indirect: bool = False) -> Block:
    call = Call(start + 4, calls, tail=False) if calls is not None or indirect else None
    edges = tuple(Edge(target, EdgeKind.FALL) for target in targets)
    return Block(start, start + 8, 2, start + 4, (), edges, call, returns=not targets)


def test_calls_on_every_walk_are_found_in_their_order() -> None:
    """Around a loop and past a branch: 0 → 8 ⇄ 16, 8 → 24 | 32 → 40."""
    graph = FunctionGraph(
        "f",
        0,
        {
            0: block(0, 8, calls=1000),
            8: block(8, 16, 24, 32, calls=2000),
            16: block(16, 8, calls=3000),
            24: block(24, 40, calls=4000),
            32: block(32, 40, indirect=True),
            40: block(40, calls=5000),
        },
    )
    assert called_before(graph, 44) == [1000, 2000]
    assert called_before(graph, 17) == [1000, 2000]
    assert called_before(graph, 0) == []
    assert called_before(graph, 12) == [1000]
    assert called_before(graph, 99) == []
    assert dominators(graph)[40] == {0, 8, 40}


def test_a_block_that_cannot_be_reached_dominates_nothing() -> None:
    graph = FunctionGraph("f", 0, {0: block(0, 16), 8: block(8, 16, calls=1), 16: block(16)})
    assert dominators(graph)[16] == {0, 16}
    assert called_before(graph, 8) == []
