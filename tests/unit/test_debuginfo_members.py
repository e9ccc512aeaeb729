"""Places in memory as C expressions."""

from __future__ import annotations

from typing import Any

import drgn
import pytest
from drgn import Language, TypeMember, TypeParameter

from profiler.debuginfo.members import ARGUMENTS, Members

PROGRAM = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
CURRENT = 0x1FB80


def types() -> dict[str, Any]:
    """f(struct sock *sk, int flags, int *err, void *data) and g(struct pair by_value, struct sock *sk)."""
    p, c = PROGRAM, Language.C
    number = p.int_type("int", 4, True, "little", language=c)
    count = p.typedef_type(
        "atomic_t", p.struct_type(None, 4, (TypeMember(number, "counter", 0),), language=c), language=c
    )
    either = p.union_type(None, 8, (TypeMember(number, "sk_one", 0), TypeMember(number, "sk_other", 0)), language=c)
    errors = p.array_type(number, 4, language=c)
    peer = p.struct_type("peer", 8, (TypeMember(number, "first", 0), TypeMember(number, "error", 32)), language=c)
    sock = p.struct_type(
        "sock",
        48,
        (
            TypeMember(p.pointer_type(peer, 8, "little", language=c), "sk_peer", 0),
            TypeMember(count, "sk_drops", 64),
            TypeMember(either, None, 128),
            TypeMember(errors, "sk_errors", 192),
            TypeMember(number, "sk_err", 320),
        ),
        language=c,
    )
    at = {kind: p.pointer_type(kind, 8, "little", language=c) for kind in (sock, number, p.void_type(language=c))}
    to_sock, to_number, to_anything = at.values()
    parameters = [("sk", to_sock), ("flags", number), ("err", to_number), ("data", to_anything)]
    pair = p.struct_type("pair", 8, (TypeMember(number, "a", 0),), language=c)
    f = p.function_type(number, tuple(TypeParameter(kind, name) for name, kind in parameters), language=c)
    g = p.function_type(number, (TypeParameter(pair, "by_value"), TypeParameter(to_sock, "sk")), language=c)
    return {"f": f, "g": g, "current": to_sock}


TYPES = types()


def function_type(name: str) -> Any:
    if name not in TYPES:
        raise LookupError(name)
    return TYPES[name]


MEMBERS = Members(function_type, ARGUMENTS["x86_64"], {CURRENT: TYPES["current"]})


@pytest.mark.parametrize(
    ("place", "expression"),
    [
        ("[rdi+0x28]", "sk->sk_err"),
        ("[rdi+0x8]", "sk->sk_drops.counter"),
        ("[rdi+0x10]", "sk->sk_one"),  # of an anonymous union the first
        ("[rdi+0x1c]", "sk->sk_errors[1]"),
        ("[[rdi+0x0]+0x4]", "sk->sk_peer->error"),
        ("[rdx+0x0]", "*err"),
        ("rsi", "flags"),
        ("[[gs+0x1fb80]+0x28]", "current->sk_err"),
    ],
)
def test_a_place_is_said_in_c(place: str, expression: str) -> None:
    assert MEMBERS.expression("f", place) == expression


@pytest.mark.parametrize(
    ("function", "place"),
    [
        ("f", "[rdi+0x2a]"),  # in the middle of a member
        ("f", "[rdi+0x30]"),  # behind the structure
        ("f", "[rdx+0x4]"),  # behind what a pointer to a number points to
        ("f", "[rcx+0x8]"),  # of no type
        ("f", "[rsi+0x8]"),  # no pointer
        ("f", "[r9+0x8]"),  # no parameter
        ("f", "[gs+0x10]"),
        ("f", "[global+0x10]"),
        ("f", "stack-24"),
        ("g", "[rsi+0x28]"),  # behind a parameter that is passed in another way
        ("f.isra.0", "[rdi+0x28]"),  # a clone with other parameters
        ("unknown", "[rdi+0x28]"),
    ],
)
def test_of_what_the_types_do_not_tell_nothing_is_said(function: str, place: str) -> None:
    assert MEMBERS.expression(function, place) is None
