"""How a caller's variables are named in its callee."""

from __future__ import annotations

import pytest

from profiler.conclude.source_arguments import ByArguments, given_to, parameter_place, parameters
from profiler.debuginfo.source_flow import flow_of
from profiler.graph import Call

CALL = Call(8, None, tail=False)


@pytest.mark.parametrize(
    ("head", "names"),
    [
        ("static int f(struct sock *sk, int flags, int *err)", ["sk", "flags", "err"]),
        ("int f(void (*done)(int, int), char name[16], unsigned long)", ["done", "name", "long"]),
        (
            "SYSCALL_DEFINE3(bind, int, fd, struct sockaddr __user *, umyaddr, int, addrlen)",
            ["fd", "umyaddr", "addrlen"],
        ),
        ("int f(void)", ["void"]),
        ("#define odd", []),
    ],
)
def test_parameters_are_told_by_the_head(head: str, names: list[str]) -> None:
    assert parameters(head) == names


@pytest.mark.parametrize(
    ("statement", "given"),
    [
        ("skb = take(sk, &err);", (("sk", "sk"), ("err", "&err"))),
        ("skb = sk->sk_prot->take(pick(sk, 1), &arg.err);", (("sk", "pick(sk, 1)"), ("err", "&arg.err"))),
        ("if (!udp_take(sk)) return 1;", (("sk", "sk"),)),
    ],
)
def test_arguments_are_put_to_the_parameters_of_the_callee(statement: str, given: tuple[tuple[str, str], ...]) -> None:
    """Calls within arguments, through pointers, and with too few arguments."""
    flow = flow_of(f"int f(void)\n{{\n{statement}\n}}".split("\n"), "f")
    assert flow is not None
    node = next(node for node in flow.nodes if node.calls)
    assert given_to("udp_take", "int udp_take(struct sock *sk, int *err)", node) == given


@pytest.mark.parametrize(
    ("argument", "outside", "inside"),
    [
        ("&err", "err", "*p"),
        ("& err", "err", "*p"),
        ("err", "*err", "*p"),
        ("&arg", "arg.err", "p->err"),
        ("arg", "arg->err", "p->err"),
        ("sk->sk_prot", "sk->sk_prot->h.err", "p->h.err"),
        ("&x->arg", "x->arg.err", "p->err"),
    ],
)
def test_caller_and_callee_name_the_same_variable(argument: str, outside: str, inside: str) -> None:
    names = ByArguments({8: (("p", argument),)})
    assert names.in_callee(CALL, outside) == [inside]
    assert names.in_caller(CALL, inside) == outside


def test_a_variable_that_was_not_given_has_no_name_in_the_callee() -> None:
    """Its value was, or another one's address, or the call is another one."""
    assert ByArguments({8: (("p", "err"), ("q", "&other"))}).in_callee(CALL, "err") == []
    assert ByArguments({6: (("p", "&err"),)}).in_callee(CALL, "err") == []


def test_a_parameter_is_what_the_call_set_it_to() -> None:
    assert ByArguments({8: (("p", "-EINVAL"),)}).in_caller(CALL, "p") == parameter_place("p", 8)


def test_the_callees_own_variables_mean_nothing_to_the_caller() -> None:
    assert ByArguments({8: (("p", "&err"),)}).in_caller(CALL, "ret") == ""
