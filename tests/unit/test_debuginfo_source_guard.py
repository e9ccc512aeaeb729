"""Which condition is said to stand before a statement."""

from __future__ import annotations

import textwrap

import pytest

from profiler.debuginfo.source_flow import flow_of
from profiler.debuginfo.source_guard import Guards


def guard(statements: str, errno: str = "EINVAL") -> tuple[str | None, int]:
    """Of the first statement that names the errno; the first statement is on line 3."""
    flow = flow_of(f"int f(int a, int b)\n{{\n{textwrap.dedent(statements).strip()}\n}}".split("\n"), "f")
    assert flow is not None
    node = next(node for node in flow.nodes if errno in node.errnos)
    target = node.assigns[0].target if node.assigns else None
    uses = frozenset(n.index for n in flow.nodes if n.returned is not None and n.returned.expression == target)
    return Guards(flow).of(node, target, uses)


@pytest.mark.parametrize(
    ("statements", "found"),
    [
        ("if (a) {\n if (b)\n  return -EINVAL;\n}\nreturn 0;", ("b", 4)),
        ("if (a || b)\n return -EINVAL;\nreturn 0;", ("a || b", 3)),
        ("if (a)\n return 0;\nreturn -EINVAL;", ("a", 3)),
        ("int err = -EINVAL;\nif (a)\n goto out;\nerr = g();\nout:\nreturn err;", ("a", 4)),
        ("int err = -EINVAL;\nif (a)\n goto out;\nif (b)\n goto out;\nerr = 0;\nout:\nreturn err;", ("a or b", 4)),
        ("int err;\nfor (;;) {\n err = -EINVAL;\n if (a)\n  break;\n}\nreturn err;", ("a", 6)),
        ("while (a) {\n if (b)\n  return -EINVAL;\n}\nreturn 0;", ("b", 4)),
        ("return -EINVAL;", (None, 0)),
    ],
)
def test_the_condition_is_the_last_one_that_could_have_led_elsewhere(
    statements: str, found: tuple[str | None, int]
) -> None:
    """Before what returns; behind what sets a value first and asks then."""
    assert guard(statements) == found
