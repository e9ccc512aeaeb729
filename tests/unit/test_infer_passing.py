"""Memory that two functions know by different names."""

from __future__ import annotations

import pytest

from profiler.graph import Call, Pointer, is_memory, pointer_to
from profiler.infer.passing import in_callee, in_caller

# f(&variable, sk->member) with sk in the caller's rdi; the caller's stack pointer stood at -64
CALL = Call(
    0,
    1,
    tail=False,
    arguments=(
        ("rdi", Pointer("[rdi+0x18]", 0)),
        ("rsi", Pointer("stack", -36)),
        ("rdx", Pointer("rdi", 16)),
        ("stack", Pointer("stack", -72)),
    ),
)


@pytest.mark.parametrize(
    ("outside", "inside"),
    [
        ("stack-36", "[rsi+0x0]"),
        ("stack-32", "[rsi+0x4]"),  # a member of a structure on the caller's stack
        ("[rdi+0x14]", "[rdx+0x4]"),
        ("[[rdi+0x18]+0x220]", "[rdi+0x220]"),
        ("[[[rdi+0x18]+0x8]+0x4]", "[[rdi+0x8]+0x4]"),
    ],
)
def test_caller_and_callee_name_the_same_memory(outside: str, inside: str) -> None:
    """Both ways."""
    assert in_callee(CALL, outside) == [inside]
    assert in_caller(CALL, inside) == outside


@pytest.mark.parametrize("place", ["stack-40", "[rdi+0x0]", "[rcx+0x8]", "rax"])
def test_what_the_callee_was_given_no_way_to_has_no_name_there(place: str) -> None:
    """In front of an address that was given away, behind another register, or in none."""
    assert in_callee(CALL, place) == []


def test_a_register_left_over_may_be_taken_for_an_argument() -> None:
    """inet_accept() passes its third argument on as second one; the callee takes but two, and writes by the second."""
    call = Call(0, 1, tail=False, arguments=(("rsi", Pointer("rdx", 0)), ("rdx", Pointer("rdx", 0))))
    assert in_callee(call, "[rdx+0x4]") == ["[rsi+0x4]", "[rdx+0x4]"]


def test_the_callees_own_names_mean_nothing_to_the_caller() -> None:
    assert in_caller(CALL, "[rcx+0x8]") == ""
    assert in_caller(CALL, "[[r8+0x8]+0x4]") == ""


def test_registers_and_global_memory_are_the_same_for_both() -> None:
    assert in_caller(CALL, "rsi") == "rsi"
    assert in_caller(CALL, "[gs+0x1fb80]") == "[gs+0x1fb80]"


def test_an_argument_on_the_stack_is_a_slot_of_the_caller() -> None:
    """The return address is the callee's slot 0, the first argument on the stack lies behind it."""
    assert in_caller(CALL, "stack+8") == "stack-64"


@pytest.mark.parametrize("place", ["stack-36", "stack+8", "[rdi+0x1c4]", "[[rdi-0x8]+0x10]", "[gs+0x1fb80]"])
def test_a_place_is_read_as_it_is_written(place: str) -> None:
    pointer = pointer_to(place)
    assert pointer is not None
    assert pointer.place == place


@pytest.mark.parametrize("name", ["rax", "stack", "stack_size", "stack->error", ""])
def test_registers_and_variables_of_the_source_are_no_memory(name: str) -> None:
    """Source is walked with the same machinery, and a C variable may be called anything."""
    assert not is_memory(name)
    assert pointer_to(name) is None
