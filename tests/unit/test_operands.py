"""Conditions of C taken apart and evaluated, what a jump compares, and values as a person reads them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pytest

from profiler.conclude import operands
from profiler.conclude.operand_words import error_in_words, in_words
from profiler.debuginfo.operands import Constant, Memory, Operation, Register, fetch_argument, sources
from profiler.debuginfo.operands_constants import Constants
from profiler.debuginfo.operands_source import Number, atoms, evaluate, parse
from profiler.debuginfo.operands_x86 import Comparison, comparison_at
from profiler.debuginfo.variable_types import Kind, Typed
from profiler.debuginfo.variables import Variable
from profiler.graph import FunctionGraph
from profiler.model import Branch, SourceLocation
from tests.unit.toy_kernel import FILE, ToyKernel

INT = Typed(Kind.INTEGER, 4, True, "int", None)
LONG = Typed(Kind.INTEGER, 8, True, "long", None)
POINTER = Typed(Kind.POINTER, 8, False, "", None)


class Toy:
    """A toy kernel that knows variables, by function."""

    def __init__(self, text: str, variables: Mapping[str, Mapping[str, Variable]] | None = None) -> None:
        self.kernel = ToyKernel(text)
        self._variables = variables or {}

    machine = "x86_64"

    def read(self, address: int, size: int) -> bytes:
        return self.kernel.read(address, size)

    def function_at(self, address: int) -> tuple[str, int, int] | None:
        return self.kernel.function_at(address)

    owner_of = function_at

    def graph(self, entry: int) -> FunctionGraph:
        return self.kernel.graph(entry)

    def frames(self, address: int) -> tuple[SourceLocation, ...]:
        return self.kernel.frames(address)

    def variables(self, _: int, function: str, names: Collection[str]) -> Mapping[str, Variable]:
        return self._variables.get(function, {})

    def enumerators(self, _: int) -> Mapping[str, int]:
        return {"LISTEN": 10}

    def jump(self, function: str) -> int:
        """The first conditional jump."""
        blocks = self.graph(self.kernel.at[function]).blocks.values()
        return min(block.last for block in blocks if len(block.edges) > 1)


def values(code: Toy, condition: str, outcome: bool | None, **registers: int) -> tuple[dict[str, str], str]:
    """The operands of the first jump of f(), whose condition stands in line 3, and the condition with them."""
    branch = Branch("f", FILE, 3, "", condition, outcome)
    plan = operands.plan(code, branch, code.jump("f"))
    if plan is None:
        return {}, ""

    def known(source: Register | Memory) -> int | None:
        return registers.get(source.name) if isinstance(source, Register) else None

    found = operands.with_values(plan, [known])
    return {operand.expression: operand.value for operand in found.operands}, found.values


def function(*instructions: str) -> str:
    return (
        "f:\n"
        + "\n".join(f"    {i} ; 3" for i in instructions)
        + "\n    ret ; 4\n.bad:\n    mov eax, -22 ; 4\n    ret ; 4"
    )


# ---- the source ----


@pytest.mark.parametrize(
    ("condition", "value"),
    [
        ("a + 1 > b", 1),
        ("a == 5 && b != 3", 0),
        ("a == 5 || unknown()", 1),
        ("a != 5 && unknown()", 0),
        ("a == 5 && unknown()", None),
        ("!(a & 4)", 0),
        ("a < -1", 0),
        ("u < -1", 1),  # -1 becomes the largest unsigned number: C11 6.3.1.8
        ("(long)u < -1", 0),
        ("~u == 0xfffffff8", 1),
        ("a >> 1 == 2 ? 1 : 0", 1),
        ("-7 / 2 == -3 && -7 % 2 == -1", 1),
        ("unlikely(a == 5)", 1),
        ("010 == 8 && 0x10 == 16 && 1UL << 40 != 0", 1),
    ],
)
def test_a_condition_has_the_value_that_c_gives_it(condition: str, value: int | None) -> None:
    numbers = {"a": Number(5), "b": Number(3), "u": Number(7, 32, False)}
    expression = parse(condition)
    assert expression is not None
    found = evaluate(expression, lambda e: numbers.get(e.text))
    assert (found.value if found is not None else None) == value


def test_the_operands_of_a_condition_are_told_with_their_negations() -> None:
    expression = parse("!(a || !sk->sk_err) && likely(f(x) > 2)")
    assert expression is not None
    found = [(atom.expression.text, atom.negated) for atom in atoms(expression)]
    assert found == [("a", True), ("sk->sk_err", False), ("f(x) > 2", False)]


def test_what_is_no_expression_is_not_taken_apart() -> None:
    assert parse("if (a") is None
    assert parse("") is None


class Headers:
    def __init__(self, **files: str) -> None:
        self._files = {name.replace("__", "/") + ".h": text for name, text in files.items()}

    def text(self, file: str) -> list[str] | None:
        return self._files[file].split("\n") if file in self._files else None


def test_a_macro_is_found_through_the_headers_that_are_included() -> None:
    headers = Headers(
        fs__a="#include <linux/b.h>\n#define MINE (THEIRS | 0x2) /* both */",
        include__linux__b="#include <asm/c.h>\n#define THEIRS \\\n 010\n#define CALL(x) x\n#define alias one.two",
        include__uapi__asm_generic__c="#define TWICE 1\n#define TWICE 2",
    )
    constants = Constants(headers, "fs/a.h", {"LISTEN": 10})
    assert constants.number("MINE") == Number(10)
    assert constants.number("LISTEN") == Number(10)
    assert constants.number("EAGAIN") == Number(11)
    assert constants.number("CALL") is None
    assert constants.body("alias") == "one.two"
    assert constants.number("NOWHERE") is None


# ---- the machine ----


def compared(*instructions: str) -> Comparison | None:
    code = Toy(function(*instructions))
    return comparison_at(code, code.jump("f"))


@pytest.mark.parametrize(
    ("instructions", "left", "relation", "right", "signed"),
    [
        (["cmp eax, 7", "je .bad"], Operation("zero", Register("rax"), Constant(32)), "==", Constant(7), None),
        (["cmp rax, rbx", "jg .bad"], Register("rax"), ">", Register("rbx"), True),
        (["cmp rax, rbx", "jb .bad"], Register("rax"), "<", Register("rbx"), False),
        (["test rdi, rdi", "js .bad"], Register("rdi"), "<", Constant(0), True),
        (["test rdi, rdi", "jne .bad"], Register("rdi"), "!=", Constant(0), None),
    ],
)
def test_a_jump_compares_what_the_last_instruction_that_set_flags_compared(
    instructions: list[str], left: Any, relation: str, right: Any, signed: bool | None
) -> None:
    found = compared(*instructions)
    assert found is not None
    assert (found.left, found.relation, found.right, found.signed) == (left, relation, right, signed)


def test_a_comparison_before_another_jump_is_read_at_the_later_one() -> None:
    code = Toy(function("cmp rax, 7", "ja .bad", "je .bad"))
    blocks = code.graph(code.kernel.at["f"]).blocks.values()
    second = max(block.last for block in blocks if len(block.edges) > 1)
    found = comparison_at(code, second)
    assert found is not None
    assert (found.relation, found.address) == ("==", second)


def test_flags_that_a_call_left_tell_nothing() -> None:
    code = Toy(function("cmp eax, 7", "call g", "je .bad") + "\ng:\n    ret ; 9")
    blocks = code.graph(code.kernel.at["f"]).blocks.values()
    jump = next(block.last for block in blocks if len(block.edges) > 1)
    assert comparison_at(code, jump) is None


def test_code_of_another_architecture_is_not_read_as_if_it_were_x86() -> None:
    code = Toy(function("cmp rax, rbx", "jb .bad"))
    code.machine = "aarch64"
    assert comparison_at(code, code.jump("f")) is None
    assert operands.plan(code, Branch("f", FILE, 3, "", "cur > limit", True), code.jump("f")) is None


# ---- both together ----


def test_an_order_tells_the_two_sides_apart_without_any_names() -> None:
    code = Toy(function("cmp rax, rbx", "jb .bad"))
    found = values(code, "cur > limit", True, rax=0, rbx=16)
    assert found == ({"cur": "16", "limit": "0"}, "cur (16) > limit (0)")
    assert values(code, "limit < cur", True, rax=0, rbx=16)[0] == {"limit": "0", "cur": "16"}


def test_inequality_does_not_tell_the_sides_apart_but_a_name_of_one_does() -> None:
    text = function("cmp rax, rbx", "jne .bad")
    assert values(Toy(text), "one != other", True, rax=1, rbx=2)[0] == {}
    named = {"f": {"other": Variable(Register("rax"), LONG)}}
    assert values(Toy(text, named), "one != other", True, rax=1, rbx=2)[0] == {"other": "1", "one": "2"}


def test_values_that_give_the_condition_another_outcome_are_not_said() -> None:
    code = Toy(function("cmp rax, rbx", "jb .bad"))
    assert values(code, "cur > limit", True, rax=16, rbx=0) == ({}, "")
    assert values(code, "cur > limit", False, rax=16, rbx=0)[0] == {"cur": "0", "limit": "16"}


def test_a_constant_of_another_value_is_another_comparison() -> None:
    code = Toy(function("cmp eax, 7", "jne .bad"))
    assert values(code, "state != 7", True, rax=3)[0] == {"state": "3"}
    assert values(code, "state != LISTEN", True, rax=3)[0] == {}
    assert values(code, "state != 7 || other != 7", True, rax=3)[0] == {}  # whose is it?


def test_a_number_computed_in_the_register_is_not_taken_for_the_variable() -> None:
    code = Toy(function("sub eax, 5", "cmp eax, 7", "ja .bad"))
    assert values(code, "kind > LAST", True, rax=94)[0] == {}


def test_the_result_of_a_call_is_told_only_of_that_function() -> None:
    text = function("call g", "test eax, eax", "je .bad") + "\ng:\n    ret ; 9"
    assert values(Toy(text), "!g(x)", True, rax=0)[0] == {"g(x)": "0"}
    assert values(Toy(text), "!h(x)", True, rax=0)[0] == {}


@pytest.mark.parametrize(("condition", "said"), [("g(x)", "g(x) = 1"), ("g(x) && y", "g(x) (1) && y")])
def test_a_condition_that_is_one_operand_is_said_to_have_its_value(condition: str, said: str) -> None:
    text = function("call g", "test eax, eax", "jne .bad") + "\ng:\n    ret ; 9"
    assert values(Toy(text), condition, True, rax=1)[1] == said


def test_flags_are_shown_in_hexadecimal_and_pointers_as_null() -> None:
    named = {"f": {"flags": Variable(Register("rdi"), INT), "p": Variable(Register("rsi"), POINTER)}}
    code = Toy(function("cmp eax, 7", "jne .bad"), named)
    assert values(code, "!p || flags & 0x800", True, rdi=0x800, rsi=0)[0] == {"p": "NULL", "flags": "0x800"}


def test_most_hits_decide_and_those_of_other_decisions_do_not_count() -> None:
    code = Toy(function("cmp rax, rbx", "jb .bad"))
    plan = operands.plan(code, Branch("f", FILE, 3, "", "cur > limit", True), code.jump("f"))
    assert plan is not None
    hits = [
        plan.known(dict(zip(names(plan), pair, strict=True))) for pair in ((9, 1), (9, 2), (0, 16), (1, 7), (0, 16))
    ]
    assert operands.with_values(plan, hits).values == "cur (16) > limit (0)"
    assert operands.with_values(plan, []).operands == []


def test_the_hits_that_tell_most_decide() -> None:
    member = Memory(Register("rdi"), 4)
    code = Toy(function("cmp rax, rbx", "jb .bad"), {"f": {"step": Variable(member, INT)}})
    plan = operands.plan(code, Branch("f", FILE, 3, "", "cur > limit && step", True), code.jump("f"))
    assert plan is not None

    def hit(step: int | None) -> operands.Known:
        registers = {"rax": 16, "rbx": 20, "rdi": 0}
        return lambda source: registers[source.name] if isinstance(source, Register) else step

    found = operands.with_values(plan, [hit(None), hit(None), hit(1)])
    assert found.values == "cur (20) > limit (16) && step (1)"


def names(plan: operands.Plan) -> list[str]:
    return list(plan.points(0)[0].fetch)


def test_nothing_is_taken_from_behind_a_pointer_that_leads_nowhere() -> None:
    """A probe reads 0 there."""
    member = Memory(Operation("add", Register("rdi"), Constant(8)), 4)
    code = Toy(function("cmp eax, 7", "jne .bad"), {"f": {"count": Variable(member, INT)}})
    plan = operands.plan(code, Branch("f", FILE, 3, "", "!count", True), code.jump("f"))
    assert plan is not None
    fetch = plan.points(0)[0].fetch
    name = next(key for key, argument in fetch.items() if argument == "+8(%di):u32")
    base = next(key for key, argument in fetch.items() if argument == "%di:u64")
    assert operands.with_values(plan, [plan.known({name: 0, base: 0})]).operands == []
    there = operands.with_values(plan, [plan.known({name: 0, base: 0xFFFF888000001000})])
    assert there.values == "!count (0)"


# ---- to kprobes, and to people ----


@pytest.mark.parametrize(
    ("source", "argument"),
    [
        (Register("rax"), "%ax:u64"),
        (Register("r12"), "%r12:u64"),
        (Memory(Register("rbx"), 1), "+0(%bx):u8"),
        (Memory(Operation("add", Register("rsp"), Constant(-8 & (1 << 64) - 1)), 4), "-8(%sp):u32"),
        (Memory(Operation("add", Memory(Register("rdi"), 8), Constant(16)), 8), "+16(+0(%di)):u64"),
        (Memory(Constant(0x1000), 4), "@0x3000:u32"),
        (Memory(Operation("add", Register("rax"), Register("rbx")), 8), None),  # no index in a fetch argument
        (Memory(Register("rax"), 8, "gs"), None),
        (Memory(Register("rax"), 16), None),
    ],
)
def test_a_place_as_a_fetch_argument(source: Register | Memory, argument: str | None) -> None:
    assert fetch_argument(source, 0x2000) == argument


def test_the_way_to_a_place_is_read_before_the_place() -> None:
    inner = Memory(Register("rdi"), 8)
    outer = Memory(Operation("add", inner, Constant(16)), 4)
    assert list(sources(outer)) == [Register("rdi"), inner, outer]


@pytest.mark.parametrize(
    ("number", "bits", "how", "words"),
    [
        (16, 64, {}, "16"),
        (-5, 32, {}, "-5"),
        (0x800, 32, {"flags": True}, "0x800"),
        (2, 32, {"flags": True}, "2"),
        (0, 64, {"pointer": True}, "NULL"),
        (0xFFFF888000001000, 64, {"pointer": True}, "0xffff888000001000"),
        ((1 << 64) - 12, 64, {"pointer": True}, "-ENOMEM"),
        (0, 8, {"boolean": True}, "false"),
        (1, 8, {"boolean": True}, "true"),
    ],
)
def test_a_value_as_a_person_reads_it(number: int, bits: int, how: dict[str, bool], words: str) -> None:
    assert in_words(number, bits, **how) == words


def test_an_error_is_named_and_other_numbers_are_none() -> None:
    assert error_in_words(-12, 32) == "-ENOMEM"
    assert error_in_words((1 << 32) - 12, 32) == "-ENOMEM"
    assert error_in_words(12, 32) is None
    assert error_in_words(-5000, 32) is None
