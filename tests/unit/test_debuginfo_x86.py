"""What single instructions do to places, and what a comparison tells of them."""

from __future__ import annotations

import pytest

from profiler import graph
from profiler.debuginfo import x86
from profiler.graph import Step, StepKind
from tests.unit.toy_kernel import ToyKernel

CONST, COPY, OPERATE, FLAGS, SELECT, LOAD, UNKNOWN = StepKind


def steps(*instructions: str) -> list[tuple[str, StepKind, object]]:
    """(place, kind, what matters of the kind) of a function that ends behind the instructions."""
    kernel = ToyKernel("f:\n" + "\n".join([*instructions, "ret"]))
    return [(step.place, step.kind, detail(step)) for step in kernel.graph(kernel.at["f"]).blocks[kernel.at["f"]].steps]


def detail(step: Step) -> object:
    return {
        CONST: step.value,
        COPY: step.source,
        OPERATE: (step.operator, step.value),
        FLAGS: step.choices,
        SELECT: step.source,
    }.get(step.kind)


@pytest.mark.parametrize(
    ("instruction", "place", "kind", "what"),
    [
        ("mov eax, -22", "rax", CONST, -22),
        ("mov rax, -22", "rax", CONST, -22),
        ("mov r12d, -1", "r12", CONST, -1),
        ("xor ebx, ebx", "rbx", CONST, 0),
        ("mov eax, r13d", "rax", COPY, "r13"),
        ("movsxd rax, ecx", "rax", COPY, "rcx"),
        ("movzx eax, al", "rax", COPY, "rax"),
        ("cdqe", "rax", COPY, "rax"),
        ("mov eax, [rdi+16]", "rax", COPY, "[rdi+0x10]"),
        ("mov eax, [rbx+16]", "rax", LOAD, None),
        ("mov [rdx], -22", "[rdx+0x0]", CONST, -22),
        ("mov [rsi-4], eax", "[rsi-0x4]", COPY, "rax"),
        ("mov eax, [rsp+rcx*8]", "rax", LOAD, None),
        ("sbb eax, eax", "rax", FLAGS, (0, -1)),
        ("sete al", "rax", FLAGS, (0, 1)),
        ("cmove eax, ebx", "rax", SELECT, "rbx"),
        ("cmove eax, [rdi]", "rax", SELECT, "[rdi+0x0]"),
        ("cmove eax, [rbx]", "rax", SELECT, "memory"),
        ("and eax, -13", "rax", OPERATE, ("and", -13)),
        ("or eax, -2", "rax", OPERATE, ("or", -2)),
        ("add eax, -5", "rax", OPERATE, ("add", -5)),
        ("sub eax, 5", "rax", OPERATE, ("sub", 5)),
        ("shl eax, 2", "rax", OPERATE, ("shl", 2)),
        ("neg eax", "rax", OPERATE, ("neg", 0)),
        ("not eax", "rax", OPERATE, ("not", 0)),
        ("sbb eax, ecx", "rax", UNKNOWN, None),
        ("xor eax, ecx", "rax", UNKNOWN, None),
        ("add eax, ecx", "rax", UNKNOWN, None),
        ("imul eax, ecx", "rax", UNKNOWN, None),
        ("lea rax, [rbx+rcx]", "rax", UNKNOWN, None),
    ],
)
def test_an_instruction_becomes_one_step_on_one_place(
    instruction: str, place: str, kind: StepKind, what: object
) -> None:
    """The steps are those of the x86-64 manual, and a write that is not modelled makes its place unknown."""
    assert steps(instruction) == [(place, kind, what)]


@pytest.mark.parametrize("instruction", ["cmp eax, 5", "test eax, eax", "nop", "cli", "mov [rbx], eax"])
def test_an_instruction_that_writes_no_place_has_no_step(instruction: str) -> None:
    assert steps(instruction) == []


def test_an_instruction_with_two_results_makes_both_unknown() -> None:
    """`mul` writes rdx besides rax: none of the old values may be taken to survive."""
    assert sorted(steps("mul ecx")) == [("rax", UNKNOWN, None), ("rdx", UNKNOWN, None)]


OLD = "old value"


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("xchg rbx, rcx", [(OLD, COPY, "rbx"), ("rbx", COPY, "rcx"), ("rcx", COPY, OLD)]),
        ("xchg [rdi+8], eax", [(OLD, COPY, "[rdi+0x8]"), ("[rdi+0x8]", COPY, "rax"), ("rax", COPY, OLD)]),
        ("xchg [rbx], eax", [(OLD, LOAD, None), ("rax", COPY, OLD)]),
        ("xadd [rdi+8], eax", [(OLD, COPY, "[rdi+0x8]"), ("[rdi+0x8]", UNKNOWN, None), ("rax", COPY, OLD)]),
        ("cmpxchg [rdi+8], ecx", [(OLD, COPY, "[rdi+0x8]"), ("[rdi+0x8]", SELECT, "rcx"), ("rax", COPY, OLD)]),
    ],
)
def test_an_exchange_gives_back_what_memory_held(
    instruction: str, expected: list[tuple[str, StepKind, object]]
) -> None:
    """`cmpxchg` leaves the old value in rax whether it stored or not."""
    assert steps(instruction) == expected


def test_a_wide_store_wipes_out_every_word_it_covers() -> None:
    """A quadword stored at a structure's member overwrites the member behind it too."""
    assert steps("mov [rdi+8], rax") == [("[rdi+0x8]", COPY, "rax"), ("[rdi+0xc]", UNKNOWN, None)]


def test_memory_is_named_by_the_way_to_it() -> None:
    """Through copies, spills, arithmetic on pointers, and pointers that memory holds."""
    assert steps("mov rbx, rdi", "add rbx, 16", "mov eax, [rbx+4]")[-1] == ("rax", COPY, "[rdi+0x14]")
    assert steps("lea rbx, [rdi+8]", "mov rcx, [rbx+8]", "mov eax, [rcx+4]")[-1][2] == "[[rdi+0x10]+0x4]"
    assert steps("push rsi", "xor esi, esi", "mov rcx, [rsp]", "mov [rcx], -11")[-1] == ("[rsi+0x0]", CONST, -11)
    assert steps("lea rbx, [rsp-32]", "mov [rbx+4], -11")[-1] == ("stack-28", CONST, -11)


@pytest.mark.parametrize(
    "between",
    ["mov rdi, [rdi+rcx*8]", "add rdi, rcx", "mov edi, edi", "call g", "imul rdi, rcx", "mov rdi, [rbx]"],
)
def test_a_pointer_that_was_changed_leads_to_no_name(between: str) -> None:
    kernel = ToyKernel(f"f:\n{between}\n.after:\nmov eax, [rdi]\nret\ng:\nret")
    found = [step for block in kernel.graph(kernel.at["f"]).blocks.values() for step in block.steps]
    assert found[-1].kind == LOAD


def test_a_pointer_read_back_is_the_one_that_was_stored() -> None:
    """What is behind [rdi] before and after it is replaced are different places."""
    found = steps("mov rcx, [rdi]", "mov [rdi], rsi", "mov rdx, [rdi]", "mov [rcx], -5", "mov eax, [rdx]")
    assert found[-2] == ("[[rdi+0x0]+0x0]", CONST, -5)
    assert found[-1] == ("rax", COPY, "[rsi+0x0]")


def test_pointers_are_followed_to_a_depth_of_three() -> None:
    deep = ["mov rax, [rdi]", "mov rax, [rax]", "mov rax, [rax]", "mov rax, [rax]"]
    assert [what for _, _, what in steps(*deep)] == ["[rdi+0x0]", "[[rdi+0x0]+0x0]", "[[[rdi+0x0]+0x0]+0x0]", None]


def test_lea_is_arithmetic_on_one_register() -> None:
    """Compilers compute -22 + 5 * flag and the like by `lea`."""
    assert steps("lea eax, [rdx+rdx*4-22]") == [
        ("rax", COPY, "rdx"),
        ("rax", OPERATE, ("mul", 5)),
        ("rax", OPERATE, ("add", -22)),
    ]
    assert steps("lea eax, [rdi-12]")[1:] == [("rax", OPERATE, ("mul", 1)), ("rax", OPERATE, ("add", -12))]


def test_a_pushed_register_is_restored_from_its_own_slot() -> None:
    """A slot is named by its distance from the stack pointer at entry, whatever was pushed in between."""
    found = steps("push rbx", "push rcx", "mov [rsp], eax", "mov edx, [rsp+8]", "pop rcx", "pop rbx")
    assert found == [
        ("stack-8", COPY, "rbx"),
        ("stack-16", COPY, "rcx"),
        ("stack-16", COPY, "rax"),
        ("rdx", COPY, "stack-8"),
        ("rcx", COPY, "stack-16"),
        ("rbx", COPY, "stack-8"),
    ]


def test_a_slot_is_the_same_by_frame_pointer_and_by_stack_pointer() -> None:
    found = steps("push rbp", "mov rbp, rsp", "push rbx", "mov [rbp-8], eax", "mov ecx, [rsp]", "leave")
    assert ("stack-16", COPY, "rax") in found
    assert ("rcx", COPY, "stack-16") in found


def test_a_constant_is_stored_to_a_slot() -> None:
    assert steps("push rbx", "mov [rsp], -12")[-1] == ("stack-8", CONST, -12)


def test_arithmetic_on_a_slot_by_a_register_makes_it_unknown() -> None:
    assert steps("add [rsp-8], eax") == [("stack-8", UNKNOWN, None)]


def test_behind_a_changed_frame_pointer_its_slots_are_not_followed() -> None:
    """rbp is an ordinary register where it was not set from rsp; memory at it is then no slot."""
    assert steps("mov rbp, rax", "mov eax, [rbp-8]") == [("rbp", COPY, "rax"), ("rax", LOAD, None)]
    assert steps("mov rbp, rsp", "add rbp, 8", "mov eax, [rbp-16]")[-1] == ("rax", COPY, "stack-8")


def test_slots_of_a_realigned_stack_are_none_of_the_frame_before() -> None:
    found = steps("mov [rsp-8], eax", "and rsp, -16", "mov [rsp-8], ecx")
    slots = [place for place, kind, _ in found if kind == COPY]
    assert len(set(slots)) == 2


def told(compare: str, jump: str) -> tuple[graph.Test | None, graph.Test | None]:
    """What the jump, taken and not taken, tells."""
    kernel = ToyKernel(f"f:\n{compare}\n{jump} .out\nnop\n.out:\nret")
    (taken, other) = kernel.graph(kernel.at["f"]).blocks[kernel.at["f"]].edges
    return taken.test, other.test


@pytest.mark.parametrize(
    ("compare", "jump", "taken", "other"),
    [
        ("test eax, eax", "je", ("rax", "==", 0), ("rax", "!=", 0)),
        ("test eax, eax", "jne", ("rax", "!=", 0), ("rax", "==", 0)),
        ("test eax, eax", "js", ("rax", "<", 0), ("rax", ">=", 0)),
        ("test eax, eax", "jns", ("rax", ">=", 0), ("rax", "<", 0)),
        ("test eax, eax", "jg", ("rax", ">", 0), ("rax", "<=", 0)),
        ("test eax, eax", "jle", ("rax", "<=", 0), ("rax", ">", 0)),
        ("cmp ebx, -11", "je", ("rbx", "==", -11), ("rbx", "!=", -11)),
        ("cmp ebx, 3", "jl", ("rbx", "<", 3), ("rbx", ">=", 3)),
        ("cmp ebx, 3", "jge", ("rbx", ">=", 3), ("rbx", "<", 3)),
        ("cmp rax, -4096", "ja", ("rax", "error", -4096), ("rax", "not error", -4096)),
        ("cmp rax, -4096", "jbe", ("rax", "not error", -4096), ("rax", "error", -4096)),
        ("test al, al", "je", ("rax", "==", 0), ("rax", "!=", 0)),
        ("cmp [rsp-8], 0", "jne", ("stack-8", "!=", 0), ("stack-8", "==", 0)),
        ("cmp [rdi+8], 0", "jne", ("[rdi+0x8]", "!=", 0), ("[rdi+0x8]", "==", 0)),
        ("neg r15d", "jne", ("r15", "!=", 0), ("r15", "==", 0)),
        ("and edx, 64", "je", ("rdx", "==", 0), ("rdx", "!=", 0)),
    ],
)
def test_a_jump_tells_of_the_place_compared(
    compare: str, jump: str, taken: tuple[str, str, int], other: tuple[str, str, int]
) -> None:
    """Both sides of the jump say what holds of the place there."""
    assert told(compare, jump) == (graph.Test(*taken), graph.Test(*other))


@pytest.mark.parametrize(
    ("compare", "jump"),
    [
        ("test eax, ecx", "je"),  # some bits of one in another
        ("cmp eax, ecx", "je"),  # two unknown values
        ("cmp ebx, 3", "ja"),  # unsigned, and not the bound of IS_ERR
        ("cmp ebx, 3", "js"),  # the sign of a difference that may overflow
        ("cmp al, 5", "je"),  # the lowest byte of the value alone
        ("test al, al", "js"),
        ("cmp [rbx], 0", "je"),  # no place that is followed
        ("test eax, eax", "jp"),
        ("neg eax", "js"),  # of the smallest number the sign stays
    ],
)
def test_a_comparison_that_does_not_settle_the_value_tells_nothing(compare: str, jump: str) -> None:
    assert told(compare, jump) == (None, None)


def test_flags_of_later_arithmetic_are_not_the_comparisons() -> None:
    """`cmp` followed by `add` leaves the flags of the `add`; a `mov` between does not disturb."""
    assert told("cmp eax, 3\nadd ecx, 1", "je") == (None, None)
    assert told("cmp eax, 3\nmov ecx, ebx", "je") == (graph.Test("rax", "==", 3), graph.Test("rax", "!=", 3))


def test_names_of_registers_are_those_of_the_whole_register() -> None:
    kernel = ToyKernel("f:\nmov r9d, -1\nmov cl, dl\nret")
    instructions = list(x86.decode(kernel.bytes, 0))
    assert [x86.place_of_register(i.op0_register) for i in instructions[:2]] == ["r9", "rcx"]


def test_decoding_ends_with_the_first_invalid_byte() -> None:
    """nop; 06 (push es, invalid in 64-bit mode); nop"""
    found = list(x86.decode(b"\x90\x06\x90", 0x1000))
    assert [i.ip for i in found] == [0x1000, 0x1001]
    assert found[-1].is_invalid


@pytest.mark.parametrize(
    ("value", "bits", "expected"), [(0xFF, 8, -1), (0x7F, 8, 127), (1 << 63, 64, -(1 << 63)), (-5, 32, -5)]
)
def test_numbers_are_taken_as_twos_complement(value: int, bits: int, expected: int) -> None:
    assert x86.signed(value, bits) == expected
