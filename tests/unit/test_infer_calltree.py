"""Callchains gathered into calling contexts, on a kernel assembled here."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.infer.calltree import (
    CallNode,
    Gathered,
    Symbols,
    counts_by_return_address,
    gather,
    gather_flat,
    graft,
    tail_jumps,
    unique_chains,
)
from tests.unit.toy_kernel import TEXT, ToyKernel

DISPATCHERS = {"do_syscall_64"}

KERNEL = ToyKernel("""
    do_syscall_64:
        nop
    .call:
        call __x64_sys_frob
        nop
    .exit:
        call exit_to_user_mode
        ret
    exit_to_user_mode:
        nop
        ret
    asm_sysvec_apic_timer_interrupt:
        nop
    .call:
        call tick
        ret
    tick:
        nop
        ret
    __x86_return_thunk:
        ret
    __x64_sys_frob:
        nop
    .call:
        call middle
        test eax, eax
        js .out
    .again:
        call inner
    .out:
        ret
    middle:
        nop
        test edi, edi
        je .slow
    .jump:
        jmp inner
    .slow:
        ret
    inner:
        nop
        nop
        ret
    .indirect:
        nop
    table:
        call [rdi]
        ret
    """)
AT, BEHIND = KERNEL.at, KERNEL.behind
ENTRY = AT["__x64_sys_frob"]
OUTER = (BEHIND("do_syscall_64.call"), AT["do_syscall_64"] - 1)


def symbols(kernel: ToyKernel = KERNEL) -> Symbols:
    return Symbols(kernel.owner_of, kernel.graph)


def gathered(*chains: tuple[int, ...], kernel: ToyKernel = KERNEL, entry: str = "__x64_sys_frob") -> Gathered:
    """The tree of chains given innermost first; each counts once."""
    return gather(sorted(Counter(chains).items()), kernel.at[entry], DISPATCHERS, symbols(kernel))


def within(*addresses: int) -> tuple[int, ...]:
    """A chain of the system call: innermost first, the dispatcher's return address added."""
    return (*addresses, BEHIND("do_syscall_64.call"))


def shape(node: CallNode) -> dict[str, object]:
    """The tree as nested names: own samples, then callees by name."""
    return {
        "own": sum(node.own.values()),
        **{child.name: shape(child) for child in sorted(node.children.values(), key=lambda c: c.name)},
    }


def test_samples_lie_in_the_function_and_the_context_they_were_taken_in() -> None:
    """The same function called from two places is two nodes."""
    found = gathered(
        within(ENTRY),
        within(AT["middle"], BEHIND("__x64_sys_frob.call")),
        within(AT["inner"], BEHIND("__x64_sys_frob.again")),
        within(AT["inner"] + 1, BEHIND("__x64_sys_frob.again")),
    )
    assert shape(found.root) == {"own": 1, "inner": {"own": 2}, "middle": {"own": 1}}
    assert (found.on_path, found.outside, found.unknown) == (4, 0, 0)
    assert found.root.total() == 4
    (inner,) = found.root.called_at(BEHIND("__x64_sys_frob.again"))
    assert inner.own == {AT["inner"]: 1, AT["inner"] + 1: 1}


def test_samples_in_callees_are_counted_by_the_return_address_of_their_call() -> None:
    found = gathered(
        within(AT["middle"], BEHIND("__x64_sys_frob.call")), within(AT["inner"], BEHIND("__x64_sys_frob.again"))
    )
    assert counts_by_return_address(found.root) == {
        BEHIND("__x64_sys_frob.call"): 1,
        BEHIND("__x64_sys_frob.again"): 1,
    }


def test_samples_of_other_work_lie_outside() -> None:
    found = gathered((AT["tick"],), (AT["do_syscall_64"],))
    assert (found.on_path, found.outside, found.unknown) == (0, 2, 0)
    assert found.root.total() == 0


def test_a_chain_with_an_address_of_no_symbol_is_counted_as_unknown() -> None:
    found = gathered(within(TEXT - 100), within(ENTRY, TEXT - 100))
    assert (found.on_path, found.outside, found.unknown) == (0, 0, 2)


FAULTING = ToyKernel(
    """
    __x64_sys_frob:
    .call:
        call get_user
        ret
    get_user:
        cmp rax, rdx
    .refuses:
        jae bad_get_user
    .load:
        mov edx, [rax]
        ret
    local_label:
        nop
    .goes_on:
        jmp bad_get_user
    bad_get_user:
        mov rax, -14
        ret
    """,
    fixups={"get_user.load": "local_label"},
)


def faulting(*names: str) -> CallNode:
    """The tree of samples in a kernel whose fixup of a fault bears no symbol, as __get_user_4()'s on 5.10."""
    at = FAULTING.at
    hidden = range(at["local_label"], at["bad_get_user"])
    known = Symbols(lambda address: None if address in hidden else FAULTING.owner_of(address), FAULTING.graph)
    chains = [((at[name], FAULTING.behind("__x64_sys_frob.call")), 1) for name in names]
    return gather(sorted(chains), at["__x64_sys_frob"], set(), known).root


def test_code_of_no_symbol_belongs_to_the_callee_whose_faults_lead_there() -> None:
    (found,) = faulting("local_label", "get_user").children.values()
    assert (found.name, found.own.total()) == ("get_user", 2)


@pytest.mark.parametrize(
    ("sampled", "jump"), [(["local_label"], "local_label.goes_on"), (["get_user"], "get_user.refuses"), ([], "")]
)
def test_of_two_jumps_to_a_function_that_which_was_certainly_taken_led_there(sampled: list[str], jump: str) -> None:
    """The one behind the fault where its code ran; else the first."""
    (found,) = faulting("bad_get_user", *sampled).children.values()
    (child,) = found.children.values()
    assert (found.name, child.name) == ("get_user", "bad_get_user")
    assert child.tail_from == FAULTING.at[jump or "get_user.refuses"]


def test_an_interrupt_on_top_belongs_to_what_it_interrupted() -> None:
    """Frames inwards of the interrupt's entry are dropped, and the interrupted instruction counts."""
    interrupt = (AT["tick"], BEHIND("asm_sysvec_apic_timer_interrupt.call"))
    found = gathered(within(*interrupt, AT["inner"] + 1, BEHIND("__x64_sys_frob.again")))
    (inner,) = found.root.called_at(BEHIND("__x64_sys_frob.again"))
    assert inner.own == {AT["inner"] + 1: 1}
    assert shape(found.root) == {"own": 0, "inner": {"own": 1}}


def test_a_thunk_at_the_top_counts_for_the_function_that_jumped() -> None:
    found = gathered(within(AT["__x86_return_thunk"], BEHIND("__x64_sys_frob.again")))
    assert found.root.own == {BEHIND("__x64_sys_frob.again"): 1}
    assert found.root.children == {}


def test_a_function_left_by_a_tail_call_is_put_back() -> None:
    """`middle` jumped to `inner`: the chain shows `inner` at a call site that calls `middle`."""
    found = gathered(within(AT["inner"], BEHIND("__x64_sys_frob.call")))
    assert shape(found.root) == {"own": 0, "middle": {"own": 0, "inner": {"own": 1}}}
    (middle,) = found.root.called_at(BEHIND("__x64_sys_frob.call"))
    (inner,) = middle.children.values()
    assert (inner.return_address, inner.tail_from) == (None, AT["middle.jump"])
    assert counts_by_return_address(middle) == {-AT["middle.jump"]: 1}


def test_a_tail_call_joins_the_samples_of_the_function_that_jumped() -> None:
    found = gathered(
        within(AT["middle"], BEHIND("__x64_sys_frob.call")), within(AT["inner"], BEHIND("__x64_sys_frob.call"))
    )
    assert shape(found.root) == {"own": 0, "middle": {"own": 1, "inner": {"own": 1}}}


ENTRY_JUMPS = ToyKernel("""
    do_syscall_64:
        nop
    .call:
        call [rax]
        ret
    __x64_sys_frob:
        nop
        jmp __se_sys_frob
    __se_sys_frob:
        nop
        jmp do_frob
    do_frob:
        nop
    .call:
        call leaf
        ret
    leaf:
        nop
        ret
    """)


def test_an_entry_function_left_by_tail_calls_is_put_back() -> None:
    """Its callee then stands right behind the dispatcher, as if the dispatcher had called it."""
    at, behind = ENTRY_JUMPS.at, ENTRY_JUMPS.behind
    found = gathered((at["leaf"], behind("do_frob.call"), behind("do_syscall_64.call")), kernel=ENTRY_JUMPS)
    assert shape(found.root) == {"own": 0, "__se_sys_frob": {"own": 0, "do_frob": {"own": 0, "leaf": {"own": 1}}}}
    assert found.on_path == 1


def test_a_function_that_is_only_reached_through_a_pointer_stays_where_the_chain_has_it() -> None:
    kernel = ToyKernel("""
        do_syscall_64:
            call [rax]
            ret
        __x64_sys_frob:
        .call:
            call [rdi]
            ret
        one:
            nop
            ret
        other:
            nop
            nop
            ret
    """)
    at, behind = kernel.at, kernel.behind
    chains = [(at[name], behind("__x64_sys_frob.call"), behind("do_syscall_64")) for name in ("one", "other", "other")]
    assert shape(gathered(*chains, kernel=kernel).root) == {"own": 0, "one": {"own": 1}, "other": {"own": 2}}


def test_a_trampoline_reached_through_a_pointer_is_put_above_what_it_jumps_to() -> None:
    kernel = ToyKernel("""
        do_syscall_64:
            call [rax]
            ret
        __x64_sys_frob:
        .call:
            call [rdi]
            ret
        trampoline:
            nop
            jmp work
        work:
            test edi, edi
            je .out
            nop
        .out:
            ret
    """)
    at, behind = kernel.at, kernel.behind
    chains = [(at[name], behind("__x64_sys_frob.call"), behind("do_syscall_64")) for name in ("trampoline", "work")]
    assert shape(gathered(*chains, kernel=kernel).root) == {"own": 0, "trampoline": {"own": 1, "work": {"own": 1}}}


def test_tail_jumps_are_told_direct_ones_first() -> None:
    kernel = ToyKernel("f:\ntest edi, edi\nje .b\n.a:\njmp rax\n.b:\njmp g\ng:\nret")
    at = kernel.at
    assert tail_jumps(at["f"], symbols(kernel)) == [(at["f.b"], at["g"]), (at["f.a"], None)]
    assert tail_jumps(TEXT - 1, symbols(kernel)) == []


def test_recursion_makes_a_node_for_each_depth() -> None:
    kernel = ToyKernel("do_syscall_64:\ncall f\nret\nf:\nnop\n.call:\ncall f\nret")
    at, behind = kernel.at, kernel.behind
    chain = (at["f"], behind("f.call"), behind("f.call"), behind("do_syscall_64"))
    assert shape(gathered(chain, kernel=kernel, entry="f").root) == {"own": 0, "f": {"own": 0, "f": {"own": 1}}}


def test_gathering_is_the_same_in_any_order_of_the_chains() -> None:
    chains = [
        within(ENTRY),
        within(AT["inner"], BEHIND("__x64_sys_frob.call")),
        within(AT["inner"], BEHIND("__x64_sys_frob.again")),
        within(AT["middle"], BEHIND("__x64_sys_frob.call")),
    ]
    forwards = gather([(c, 1) for c in chains], ENTRY, DISPATCHERS, symbols())
    backwards = gather([(c, 1) for c in reversed(chains)], ENTRY, DISPATCHERS, symbols())
    assert shape(forwards.root) == shape(backwards.root)


# ---- without callchains ----


def test_flat_samples_are_placed_where_direct_calls_lead() -> None:
    found = gather_flat({ENTRY: 5, AT["middle"]: 3, AT["inner"]: 2, AT["tick"]: 7}, ENTRY, symbols())
    # nothing tells from which of its call sites `inner` was sampled
    assert shape(found.root) == {"own": 5, "inner": {"own": 2}, "middle": {"own": 3, "inner": {"own": 2}}}
    assert (found.on_path, found.outside, found.unknown) == (10, 7, 0)


def test_flat_samples_behind_a_function_without_samples_stay_outside() -> None:
    """What is reached through a function that never showed cannot be told from other work."""
    found = gather_flat({AT["exit_to_user_mode"]: 7}, ENTRY, symbols())
    assert (found.on_path, found.outside) == (0, 7)


def test_flat_samples_without_a_symbol_are_counted_apart() -> None:
    found = gather_flat({ENTRY: 5, 0x10: 3}, ENTRY, symbols())
    assert (found.on_path, found.outside, found.unknown) == (5, 0, 3)


def test_flat_samples_of_functions_that_call_each_other_end() -> None:
    kernel = ToyKernel("f:\ncall g\nret\ng:\ncall f\ncall g\nret")
    found = gather_flat({kernel.at["f"]: 1, kernel.at["g"]: 1}, kernel.at["f"], symbols(kernel))
    assert (found.on_path, found.outside) == (2, 0)


# ---- distinct chains ----

CHAINS = st.lists(st.lists(st.integers(0, 2**64 - 1) | st.integers(1, 3), max_size=4), max_size=30)


@settings(derandomize=True, deadline=None)
@given(CHAINS, st.data())
def test_distinct_chains_are_counted_like_one_by_one(chains: list[list[int]], data: st.DataObject) -> None:
    """Chains of the chosen samples, those without a chain left out, in a fixed order."""
    rows = sorted(data.draw(st.sets(st.sampled_from(range(len(chains)))))) if chains else []
    start = np.cumsum([0, *(len(chain) for chain in chains)])
    flat = np.array([address for chain in chains for address in chain], np.uint64)
    found = unique_chains(start, flat, np.array(rows, np.int64))
    assert found == sorted(Counter(tuple(chains[row]) for row in rows if chains[row]).items())


@pytest.mark.parametrize(("first", "second"), [((1, 2), (2, 1)), ((1,), (1, 1)), ((0,), (0, 0)), ((5, 0), (0, 5))])
def test_chains_of_the_same_addresses_in_another_order_are_told_apart(
    first: tuple[int, ...], second: tuple[int, ...]
) -> None:
    start = np.cumsum([0, len(first), len(second)])
    found = unique_chains(start, np.array([*first, *second], np.uint64), np.arange(2))
    assert found == sorted([(first, 1), (second, 1)])


def test_samples_are_grafted_onto_the_same_contexts_of_another_tree() -> None:
    """And only onto those: the tree of an execution log says which calls were made."""
    sampled = CallNode(1, "f", None, None, own=Counter({10: 4}))
    sampled.child(11, 2, "g").own[20] = 3
    sampled.child(12, 2, "g").own[20] = 50  # the same function, called from elsewhere
    sampled.child(11, 3, "h").own[30] = 60
    executed = CallNode(1, "f", None, None)
    below = executed.child(11, 2, "g")
    graft(sampled, executed)
    assert executed.own == Counter({10: 4})
    assert below.own == Counter({20: 3})
    assert executed.total() == 7
    assert executed.children == {(11, 2): below}


def test_samples_of_another_function_are_not_grafted() -> None:
    sampled, executed = CallNode(1, "f", None, None, own=Counter({10: 4})), CallNode(2, "g", None, None)
    graft(sampled, executed)
    assert executed.total() == 0
