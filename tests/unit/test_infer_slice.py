"""Where a returned value comes from, tracked backwards through code assembled here."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler import graph
from profiler.graph import Block, Edge, EdgeKind
from profiler.infer import slice as slicing
from profiler.infer.slice import OTHER, CallValue, Held, Origin, OriginKind, Slicer, State
from tests.unit.toy_kernel import ToyKernel

EINVAL, EPERM, EACCES, EFAULT = 22, 1, 13, 14
IN_CALLEE = CallValue(math.log(0.25), math.log(0.75))


def slicer(kernel: ToyKernel, errno: int = EINVAL, value: CallValue = IN_CALLEE) -> Slicer:
    return Slicer(kernel.graph(kernel.at["f"]), errno, lambda _: value)


def at_exit(kernel: ToyKernel, label: str = "f", errno: int = EINVAL) -> dict[State, float]:
    found = slicer(kernel, errno)
    return dict(found.at_exit(found.graph.blocks[kernel.at[label]]))


def through(kernel: ToyKernel, label: str, place: str, errno: int = EINVAL) -> dict[State, float]:
    found = slicer(kernel, errno)
    return dict(found.through(found.graph.blocks[kernel.at[label]], Held(place)))


def constant(address: int) -> Origin:
    return Origin(OriginKind.CONSTANT, address)


def test_the_constant_that_is_returned_is_the_origin() -> None:
    kernel = ToyKernel("f:\nmov ecx, 5\n.site:\nmov eax, -22\nmov edx, 1\nret")
    assert at_exit(kernel) == {constant(kernel.at["f.site"]): 0.0}


def test_another_constant_is_something_else() -> None:
    assert at_exit(ToyKernel("f:\nmov eax, -22\nxor eax, eax\nret")) == {OTHER: 0.0}


def test_a_value_that_the_block_does_not_set_is_held_before_it() -> None:
    assert at_exit(ToyKernel("f:\nmov ecx, -22\nret")) == {Held("rax"): 0.0}


def test_copies_are_followed_through_registers_and_stack_slots() -> None:
    kernel = ToyKernel("f:\n.site:\nmov ebx, -22\npush rbx\nxor ebx, ebx\npop rdx\nmovsxd rax, edx\nret")
    assert at_exit(kernel, "f.site") == {constant(kernel.at["f.site"]): 0.0}


@pytest.mark.parametrize(
    ("code", "errno"),
    [
        ("mov eax, 22\nneg eax", EINVAL),
        ("mov eax, 21\nnot eax", EINVAL),
        ("mov eax, -13\nand eax, -2", EFAULT),
        ("mov eax, 3\nlea eax, [rax+rax*4-37]", EINVAL),
        ("xor eax, eax\nsub eax, 13", EACCES),
        ("mov eax, -1\nxor eax, 12", EACCES),
    ],
)
def test_arithmetic_on_a_constant_is_carried_out(code: str, errno: int) -> None:
    """Operations met on the way back are applied to the constant, in the order of the program."""
    kernel = ToyKernel(f"f:\n{code}\nret")
    assert at_exit(kernel, errno=errno) == {constant(kernel.at["f"]): 0.0}


def test_arithmetic_on_flags_may_give_the_errno_or_something_else() -> None:
    """`cmp; sbb eax, eax; and eax, -22` returns -EINVAL or 0 without a jump."""
    kernel = ToyKernel("f:\ncmp edi, 3\n.site:\nsbb eax, eax\nand eax, -22\nret")
    assert at_exit(kernel) == {Origin(OriginKind.FLAGS, kernel.at["f.site"]): 0.0, OTHER: 0.0}


def test_arithmetic_on_flags_may_choose_between_two_errnos() -> None:
    """`sbb; and 12; sub 13`: -13 or -1 but never -22."""
    kernel = ToyKernel("f:\ncmp edi, 3\n.site:\nsbb eax, eax\nand eax, 12\nsub eax, 13\nret")
    site = Origin(OriginKind.FLAGS, kernel.at["f.site"])
    assert at_exit(kernel, errno=EPERM) == at_exit(kernel, errno=EACCES) == {site: 0.0, OTHER: 0.0}
    assert at_exit(kernel, errno=EINVAL) == {OTHER: 0.0}


def test_arithmetic_on_flags_that_always_gives_the_errno_gives_nothing_else() -> None:
    """-1 and 0, a bit cleared and all but it set: -1 both times."""
    kernel = ToyKernel("f:\ncmp edi, 3\n.site:\nsbb eax, eax\nand eax, 1\nor eax, -2\nor eax, 1\nret")
    assert at_exit(kernel, errno=EPERM) == {Origin(OriginKind.FLAGS, kernel.at["f.site"]): 0.0}


def test_a_conditional_move_may_take_either_value() -> None:
    kernel = ToyKernel("f:\n.zero:\nxor eax, eax\n.site:\nmov ecx, -22\ntest edi, edi\ncmove eax, ecx\nret")
    assert at_exit(kernel, "f") == {constant(kernel.at["f.site"]): 0.0, OTHER: 0.0}


def test_a_value_from_memory_is_the_errno_with_a_prior_only() -> None:
    kernel = ToyKernel("f:\n.site:\nmov eax, [rbx+8]\nret")
    assert at_exit(kernel) == {Origin(OriginKind.MEMORY, kernel.at["f.site"]): -3.0, OTHER: 0.0}


def test_a_value_from_memory_with_a_name_may_have_been_put_there_by_the_function() -> None:
    """The place is followed on; that somebody else wrote it keeps its prior."""
    kernel = ToyKernel("f:\nmov rbx, rdi\n.store:\nmov [rdi+8], -22\ncall g\n.site:\nmov eax, [rbx+8]\nret\ng:\nret")
    site, place = kernel.at["f.site"], "[rdi+0x8]"
    assert at_exit(kernel, "f.site") == {Held(place, read=site): 0.0, Origin(OriginKind.MEMORY, site, place): -6.0}
    found = slicer(kernel)
    before = dict(found.through(found.graph.blocks[kernel.at["f"]], Held(place, read=site)))
    assert before == {constant(kernel.at["f.store"]): 0.0}


def test_an_error_taken_out_of_a_structure_is_named() -> None:
    """As sock_error() does: exchange the member with zero, and negate."""
    kernel = ToyKernel("f:\nxor eax, eax\n.site:\nxchg [rdi+544], eax\nneg eax\nret")
    place = "[rdi+0x220]"
    origin = Origin(OriginKind.MEMORY, kernel.at["f.site"], place)
    assert at_exit(kernel) == {Held(place, (("neg", 0),), kernel.at["f.site"]): 0.0, origin: -6.0}


def test_a_value_that_is_not_followed_is_the_errno_with_a_smaller_prior() -> None:
    kernel = ToyKernel("f:\n.site:\nimul eax, edi\nret")
    assert at_exit(kernel) == {Origin(OriginKind.UNKNOWN, kernel.at["f.site"]): -4.0, OTHER: 0.0}


def test_what_a_callee_returns_is_as_likely_the_errno_as_the_callee_says() -> None:
    kernel = ToyKernel("f:\ncall g\n.behind:\nret\ng:\nret")
    origin = Origin(OriginKind.CALL, kernel.at["f"])
    assert through(kernel, "f", "rax") == {origin: IN_CALLEE.errno, OTHER: IN_CALLEE.other}


def test_a_tail_call_returns_what_its_callee_returns() -> None:
    kernel = ToyKernel("f:\nmov eax, -22\njmp g\ng:\nret")
    origin = Origin(OriginKind.CALL, kernel.at["f"])
    assert at_exit(kernel) == {origin: IN_CALLEE.errno, OTHER: IN_CALLEE.other}


def test_a_register_that_callees_keep_survives_a_call() -> None:
    kernel = ToyKernel("f:\n.site:\nmov ebx, -22\ncall g\n.behind:\nmov eax, ebx\nret\ng:\nret")
    assert at_exit(kernel, "f.behind") == {Held("rbx"): 0.0}
    assert through(kernel, "f.site", "rbx") == {constant(kernel.at["f.site"]): 0.0}


def test_a_register_that_callees_may_change_does_not_survive_a_call() -> None:
    kernel = ToyKernel("f:\n.site:\nmov ecx, -22\ncall g\nret\ng:\nret")
    found = through(kernel, "f.site", "rcx")
    assert constant(kernel.at["f.site"]) not in found
    assert {state.kind for state in found if isinstance(state, Origin)} == {OriginKind.UNKNOWN}


def test_a_variable_that_a_callee_was_given_may_have_been_written_by_it() -> None:
    """Both are possible: its old value survived, or the callee wrote the errno, as likely as is known of the callee."""
    kernel = ToyKernel("f:\npush rbx\n.site:\nmov [rsp], -22\nlea rdi, [rsp]\n.call:\ncall g\nret\ng:\nret")
    left = CallValue(-1.0, -2.0, ((Held("[rdi+0x0]"), -0.5),))
    found = replace(slicer(kernel), left_in=lambda _, place: left if place == "[rdi+0x0]" else None)
    assert dict(found.through(found.graph.blocks[kernel.at["f"]], Held("stack-8"))) == {
        Origin(OriginKind.CALL, kernel.at["f"], "[rdi+0x0]"): -1.0,
        OTHER: -2.0,
        constant(kernel.at["f.site"]): -0.5,
    }


def test_a_variable_whose_address_another_callee_had_is_hardly_written_by_this_one() -> None:
    kernel = ToyKernel(
        "f:\npush rbx\nlea rdi, [rsp]\ncall g\n.site:\nmov [rsp], -22\nxor edi, edi\ncall g\nret\ng:\nret"
    )
    found = through(kernel, "f.site", "stack-8")
    assert found[constant(kernel.at["f.site"])] == 0.0
    assert found[Origin(OriginKind.MEMORY, slicer(kernel).graph.blocks[kernel.at["f.site"]].last)] == -6.0


def test_an_argument_that_a_callee_just_returns_is_followed_in_its_caller() -> None:
    kernel = ToyKernel("f:\n.site:\nmov edi, -22\ncall g\nret\ng:\nret")
    found = replace(slicer(kernel), call_value=lambda _: CallValue(-9.0, -9.0, ((Held("rdi"), -0.1),)))
    before = dict(found.through(found.graph.blocks[kernel.at["f"]], Held("rax")))
    assert before[constant(kernel.at["f.site"])] == -0.1


def test_a_walk_is_asked_for_what_it_leaves_in_memory() -> None:
    """An out-parameter: `*err = -EINVAL` in a function that returns nothing."""
    kernel = ToyKernel("f:\n.site:\nmov [rcx], -22\nxor eax, eax\nret")
    found = replace(slicer(kernel), wanted="[rcx+0x0]")
    assert dict(found.at_exit(found.graph.blocks[kernel.at["f"]])) == {constant(kernel.at["f.site"]): 0.0}


def test_arithmetic_on_what_a_callee_returned_makes_its_origin_unknown() -> None:
    """`neg` of a callee's result: the callee's chance to return -errno says nothing of it."""
    kernel = ToyKernel("f:\ncall g\n.behind:\nneg eax\nret\ng:\nret")
    found = slicer(kernel)
    (state,) = at_exit(kernel, "f.behind")
    before = dict(found.through(found.graph.blocks[kernel.at["f"]], state))
    assert {s.kind for s in before if isinstance(s, Origin)} == {OriginKind.UNKNOWN}


def edge(relation: str, value: int = 0, place: str = "rax") -> Edge:
    return Edge(0, EdgeKind.TAKEN, graph.Test(place, relation, value))


@pytest.mark.parametrize(
    ("relation", "value", "allowed"),
    [
        ("<", 0, True),
        (">=", 0, False),
        ("==", 0, False),
        ("!=", 0, True),
        ("==", -22, True),
        ("==", -11, False),
        (">", -23, True),
        ("<=", -23, False),
        ("error", -4096, True),
        ("not error", -4096, False),
    ],
)
def test_an_edge_is_closed_to_the_errno_where_its_test_denies_it(relation: str, value: int, allowed: bool) -> None:
    """`test eax, eax; js` cannot be passed on its positive side with -22 in eax."""
    assert slicer(ToyKernel("f:\nret")).allows(edge(relation, value), Held("rax")) is allowed


def test_a_test_of_another_place_or_of_a_value_yet_to_be_changed_closes_nothing() -> None:
    found = slicer(ToyKernel("f:\nret"))
    assert found.allows(edge("==", 0, "rcx"), Held("rax"))
    assert found.allows(edge("==", 0), Held("rax", (("neg", 0),)))
    assert found.allows(edge("==", 0), OTHER)
    assert found.allows(Edge(0, EdgeKind.FALL), Held("rax"))


def walk(kernel: ToyKernel, *labels: str) -> list[Block]:
    blocks = kernel.graph(kernel.at["f"]).blocks
    return [blocks[kernel.at[label]] for label in labels]


RESOLVED = """
    f:
        mov ebx, -22
        test edi, edi
        je .b
    .a:
        call g
    .b:
        mov eax, ebx
        ret
    g:
        ret
"""


def test_a_state_is_resolved_along_one_walk() -> None:
    kernel = ToyKernel(RESOLVED)
    blocks = walk(kernel, "f", "f.a")
    assert slicer(kernel).resolve(blocks, Held("rbx")) == {constant(kernel.at["f"])}
    assert slicer(kernel).resolve(blocks, OTHER) == {OTHER}


def test_a_state_that_nothing_set_is_an_argument() -> None:
    kernel = ToyKernel(RESOLVED)
    assert slicer(kernel).resolve(walk(kernel, "f", "f.a"), Held("r12")) == {
        Origin(OriginKind.ARGUMENT, kernel.at["f"])
    }


def test_a_constant_is_known_along_a_walk_unless_something_came_between() -> None:
    kernel = ToyKernel(RESOLVED)
    found = slicer(kernel)
    assert found.constant_of(walk(kernel, "f", "f.a", "f.b"), "rax") == -22
    assert found.constant_of(walk(kernel, "f", "f.a", "f.b"), "rcx") is None  # the call may have changed it
    assert found.constant_of(walk(kernel, "f", "f.b"), "rdi") is None  # an argument


def test_a_constant_is_not_known_of_a_variable_given_away() -> None:
    kernel = ToyKernel("f:\npush rbx\nmov [rsp], 0\nlea rdi, [rsp]\ncall g\n.on:\nmov eax, [rsp]\nret\ng:\nret")
    assert slicer(kernel).constant_of(walk(kernel, "f", "f.on"), "rax") is None
    assert slicer(kernel).constant_of(walk(kernel, "f"), "stack-8") == 0


def test_choices_are_told_with_what_either_side_comes_to() -> None:
    kernel = ToyKernel("f:\n.a:\nmov eax, -22\nxor ecx, ecx\ntest edi, edi\n.cmov:\ncmove eax, ecx\nret")
    (block,) = walk(kernel, "f")
    ((step, sides),) = slicer(kernel).choices(block, None, [])
    assert step.address == kernel.at["f.cmov"]
    assert set(sides) == {constant(kernel.at["f.a"]), OTHER}


def test_a_choice_of_another_value_is_none() -> None:
    """A conditional move of a register that is not returned decides nothing."""
    kernel = ToyKernel("f:\ntest edi, edi\ncmove ecx, edx\nmov eax, -22\nret")
    assert list(slicer(kernel).choices(*walk(kernel, "f"), None, [])) == []


PENDING = st.lists(
    st.tuples(st.sampled_from(["and", "or", "xor", "add", "sub", "neg", "not"]), st.integers(-(2**31), 2**31 - 1)),
    max_size=6,
)


@settings(derandomize=True, deadline=None)
@given(PENDING, st.integers(-(2**31), 2**31 - 1))
def test_arithmetic_is_that_of_32_bits(pending: list[tuple[str, int]], value: int) -> None:
    """What is computed in 64 bits has the lower 32 bits that the machine's 32-bit instructions leave."""
    expected = value
    for operator, operand in pending:
        expected = {
            "and": expected & operand,
            "or": expected | operand,
            "xor": expected ^ operand,
            "add": expected + operand,
            "sub": expected - operand,
            "neg": -expected,
            "not": ~expected,
        }[operator]
        expected = (expected + 2**31) % 2**32 - 2**31
    assert slicing.signed32(slicing.apply(tuple(pending), value)) == expected


def test_an_error_that_a_callee_put_into_a_structure_with_the_other_sign_is_read_from_there() -> None:
    """What tcp_reset() leaves in sk->sk_err is positive: sock_error() makes the errno of it, and is the site."""
    kernel = ToyKernel("f:\n.call:\ncall g\n.site:\nret\ng:\nret")
    place, read = "[rdi+0x220]", kernel.at["f.site"]
    state = Held(place, (("neg", 0),), read)
    left = CallValue(-1.0, -2.0, ((Held(place), -0.5),))
    found = replace(slicer(kernel), left_in=lambda _block, name: left if name == place else None)
    assert dict(found.through(found.graph.blocks[kernel.at["f"]], state)) == {
        Origin(OriginKind.MEMORY, read, place): -3.0,
        OTHER: 0.0,
        state: -0.5,
    }
