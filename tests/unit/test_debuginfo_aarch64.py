"""AArch64: what single instructions do to places, what a comparison tells, and graphs of small functions."""

from __future__ import annotations

import pytest

from profiler import graph as nouns
from profiler.debuginfo import aarch64, cfg
from profiler.debuginfo.aarch64_flow import AARCH64
from profiler.graph import Block, EdgeKind, Step, StepKind
from profiler.infer.slice import CallValue, Held, Origin, OriginKind, Slicer
from tests.unit.toy_aarch64 import EQ, GE, HI, HS, LE, LS, MI, NE, PL, TEXT, Line, ToyAArch64, word

CONST, COPY, OPERATE, FLAGS, SELECT, LOAD, UNKNOWN = StepKind
SP, ZR = 31, 31


def decode(*line: str | int) -> aarch64.Instruction:
    mnemonic, *operands = line
    found = aarch64.decode(word(str(mnemonic), *(int(operand) for operand in operands)), TEXT)
    assert found is not None
    return found


def steps(*line: str | int) -> list[tuple[str, StepKind, object]]:
    return [(step.place, step.kind, detail(step)) for step in aarch64.steps_of(decode(*line), aarch64.Frame())]


def detail(step: Step) -> object:
    return {
        CONST: step.value,
        COPY: step.source,
        OPERATE: (step.operator, step.value),
        FLAGS: step.choices,
        SELECT: step.source,
    }.get(step.kind)


@pytest.mark.parametrize(
    ("line", "effects"),
    [
        (("movn", 0, 21), [("x0", CONST, -22)]),
        (("movz", 19, 7), [("x19", CONST, 7)]),
        (("movk", 0, 0xFFFF, 16), [("x0", OPERATE, ("and", ~0xFFFF0000)), ("x0", OPERATE, ("or", 0xFFFF0000))]),
        (("mov", 0, 19), [("x0", COPY, "x19")]),
        (("mov", 0, ZR), [("x0", CONST, 0)]),
        (("add", 0, 1, 5), [("x0", COPY, "x1"), ("x0", OPERATE, ("add", 5))]),
        (("subs", 3, 3, 1), [("x3", COPY, "x3"), ("x3", OPERATE, ("sub", 1))]),
        (("neg", 0, 2), [("x0", COPY, "x2"), ("x0", OPERATE, ("neg", 0))]),
        (("mvn", 0, 2), [("x0", COPY, "x2"), ("x0", OPERATE, ("not", 0))]),
        (("mul", 0, 1, 2), [("x0", UNKNOWN, None)]),
        (("csinc", 0, ZR, ZR, NE), [("x0", FLAGS, (0, 1))]),  # cset w0, eq
        (("csinv", 0, ZR, ZR, NE), [("x0", FLAGS, (0, -1))]),  # csetm w0, eq
        (("ldr", 0, SP, 8), [("x0", COPY, "stack+8")]),
        (("ldrx", 9, 0, 16), [("x9", COPY, "[x0+0x10]")]),
        (("ldrx", 9, 20, 16), [("x9", LOAD, None)]),
        (("str", 2, SP, 4), [("stack+4", COPY, "x2")]),
        (("str", ZR, SP, 4), [("stack+4", CONST, 0)]),
        (("ldadd", 1, 2, 20), [("x1", UNKNOWN, None), ("x2", UNKNOWN, None)]),
        (("cmp", 0, 3), []),
        (("tst", 0, 0), []),
        (("nop",), []),
        (("paciasp",), [("x30", UNKNOWN, None)]),
    ],
)
def test_one_instruction(line: Line, effects: list[tuple[str, StepKind, object]]) -> None:
    assert steps(*line) == effects


@pytest.mark.parametrize(
    ("line", "second"),
    [
        (("csel", 0, 0, 1, EQ), []),
        (("csinc", 0, 0, 1, EQ), [("add", 1)]),
        (("csinv", 0, 0, 1, EQ), [("not", 0)]),
        (("csneg", 0, 0, 1, EQ), [("neg", 0)]),
    ],
)
def test_a_conditional_select_leaves_one_of_two_values(line: Line, second: list[tuple[str, int]]) -> None:
    first, *changes, last = steps(*line)
    assert first == (aarch64.OTHER_SIDE, COPY, "x1")
    assert [what for _, kind, what in changes if kind == OPERATE] == second
    assert last == ("x0", SELECT, aarch64.OTHER_SIDE)


def test_a_select_of_zero_and_of_another_register_copies_first() -> None:
    """`csel w0, w1, wzr`: the side where the condition does not hold is the constant 0."""
    assert steps("csel", 0, 1, ZR, EQ) == [
        (aarch64.OTHER_SIDE, CONST, 0),
        ("x0", COPY, "x1"),
        ("x0", SELECT, aarch64.OTHER_SIDE),
    ]


def test_firmware_calls_may_change_what_their_convention_lets_them() -> None:
    assert {place for place, _, _ in steps("hvc")} == {f"x{n}" for n in range(18)}


def said_by(compare: Line | None, jump: Line) -> tuple[nouns.Test | None, nouns.Test | None]:
    made = decode(*compare) if compare else None
    place = aarch64.tested_place(made, aarch64.Frame()) if made else ""
    return aarch64.tests_of(made, place, decode(*jump))


@pytest.mark.parametrize(
    ("compare", "jump", "taken", "other"),
    [
        (("cmp", 0, 3), ("b.cond", EQ, 8), ("==", 3), ("!=", 3)),
        (("cmp", 0, 3), ("b.cond", LE, 8), ("<=", 3), (">", 3)),
        (("cmn", 0, 22), ("b.cond", NE, 8), ("!=", -22), ("==", -22)),
        (("cmn4096", 0), ("b.cond", HI, 8), ("error", -4096), ("not error", -4096)),
        (("cmn4096", 0), ("b.cond", LS, 8), ("not error", -4096), ("error", -4096)),
        (("cmn", 0, 4095), ("b.cond", HS, 8), ("error", -4095), ("not error", -4095)),
        (("tst", 0, 0), ("b.cond", MI, 8), ("<", 0), (">=", 0)),
        (("cmp", 0, 0), ("b.cond", PL, 8), (">=", 0), ("<", 0)),
        (("cmp", 0, 0), ("b.cond", GE, 8), (">=", 0), ("<", 0)),
        (None, ("cbz", 0, 8), ("==", 0), ("!=", 0)),
        (None, ("cbnz", 0, 8), ("!=", 0), ("==", 0)),
        (None, ("tbnz", 0, 31, 8), ("<", 0), (">=", 0)),
    ],
)
def test_what_a_conditional_jump_says(
    compare: Line | None, jump: Line, taken: tuple[str, int], other: tuple[str, int]
) -> None:
    assert said_by(compare, jump) == (nouns.Test("x0", *taken), nouns.Test("x0", *other))


@pytest.mark.parametrize(
    ("compare", "jump"),
    [
        (("cmp", 0, 3), ("b.cond", HI, 8)),
        (("tst", 0, 1), ("b.cond", EQ, 8)),
        (None, ("b.cond", EQ, 8)),
        (None, ("tbnz", 0, 3, 8)),
    ],
)
def test_other_conditions_say_nothing(compare: Line | None, jump: Line) -> None:
    assert said_by(compare, jump) == (None, None)


# ---- graphs ----


def blocks(program: ToyAArch64, function: str = "f") -> dict[str, Block]:
    names = {address: name for name, address in program.at.items()}
    found = cfg.build(program.text, program.at[function]).blocks
    return {names.get(start, hex(start)): block for start, block in found.items()}


BRANCHES = (
    ("f:",),
    ("paciasp",),
    ("stp_pre", 29, 30, SP, -32),
    ("cbz", 0, ".none"),
    (".call:",),
    ("bl", "g"),
    (".behind:",),
    ("tbnz", 0, 31, ".out"),
    (".fine:",),
    ("movz", 0, 0),
    (".out:",),
    ("ldp_post", 29, 30, SP, 32),
    ("autiasp",),
    ("ret",),
    (".none:",),
    ("movn", 0, 21),
    ("b", ".out"),
    ("g:",),
    ("ret",),
)


def test_blocks_edges_calls_and_returns() -> None:
    found = blocks(ToyAArch64(*BRANCHES))
    assert set(found) == {"f", ".call", ".behind", ".fine", ".out", ".none"}
    assert [label for label, block in found.items() if block.returns] == [".out"]
    call = found[".call"].call
    assert call is not None
    assert (call.results, call.tail) == (("x0",), False)
    assert "x1" in call.clobbers
    assert "x19" not in call.clobbers
    assert [edge.kind for edge in found["f"].edges] == [EdgeKind.TAKEN, EdgeKind.NOT_TAKEN]
    assert [edge.test for edge in found[".behind"].edges] == [nouns.Test("x0", "<", 0), nouns.Test("x0", ">=", 0)]


def test_the_errno_is_followed_to_the_constant_that_x0_gets() -> None:
    program = ToyAArch64(*BRANCHES)
    graph = cfg.build(program.text, program.at["f"])
    slicer = Slicer(graph, 22, lambda block: CallValue(-1.0, -1.0))
    (state,) = [state for state, _ in slicer.at_exit(graph.blocks[program.at[".out"]])]
    assert state == Held("x0")
    origins = [state for state, _ in slicer.through(graph.blocks[program.at[".none"]], state)]
    assert origins == [Origin(OriginKind.CONSTANT, program.at[".none"])]


def test_values_are_followed_through_the_stack_however_it_moves() -> None:
    program = ToyAArch64(
        ("f:",), ("stp_pre", 29, 30, SP, -32), ("strx", 1, SP, 16), ("subx", SP, SP, 16), ("ldrx", 0, SP, 32), ("ret",)
    )
    made = [(step.place, step.source) for step in blocks(program)["f"].steps if step.kind == COPY]
    assert ("stack-16", "x1") in made
    assert ("x0", "stack-16") in made


def test_slots_whose_address_is_taken_are_known() -> None:
    program = ToyAArch64(
        ("f:",),
        ("stp_pre", 29, 30, SP, -32),
        ("addx", 29, SP, 0),
        ("addx", 0, SP, 24),
        ("bl", "g"),
        ("ret",),
        ("g:",),
        ("ret",),
    )
    assert cfg.build(program.text, program.at["f"]).escaped == {"stack-8"}


def test_a_jump_to_another_function_is_a_tail_call_and_through_a_register_an_unknown_one() -> None:
    direct, indirect = (ToyAArch64(("f:",), line, ("g:",), ("ret",)) for line in (("b", "g"), ("br", 3)))
    (block,) = blocks(direct).values()
    assert block.call is not None
    assert (block.call.target, block.call.tail) == (direct.at["g"], True)
    (block,) = blocks(indirect).values()
    assert block.call is not None
    assert (block.call.target, block.call.tail) == (None, True)


def test_a_jump_table_of_distances_is_followed() -> None:
    """Three entries of a byte, that count instructions from the label behind the jump."""
    program = ToyAArch64(
        ("f:",),
        ("cmp", 0, 2),
        ("b.cond", HI, ".default"),
        ("adr", 1, ".table"),
        ("ldrb_table", 0, 1, 0),
        ("adr", 1, ".base"),
        ("add_entry", 0, 1, 0),
        ("br", 0),
        (".base:",),
        ("movz", 0, 1),
        ("ret",),
        (".second:",),
        ("movz", 0, 2),
        ("ret",),
        (".default:",),
        ("movn", 0, 21),
        ("ret",),
        (".table:",),
        ("bytes", 0x00000200),
    )
    found = blocks(program)
    (jump,) = [block for block in found.values() if len(block.edges) > 1 and block.edges[0].kind == EdgeKind.JUMP]
    assert [edge.target for edge in jump.edges] == [program.at[".base"], program.at[".second"]]
    assert jump.call is None


def test_a_fault_puts_minus_efault_into_the_register_that_its_table_names() -> None:
    """Kind 2, the error into x0, zero into x3; a block of its own, without instructions, does it."""
    program = ToyAArch64(
        ("f:",),
        ("movz", 0, 0),
        (".access:",),
        ("ldr", 3, 20, 0),
        (".behind:",),
        ("ret",),
        fixups={".access": ".behind"},
        words={".access": 2 | 0 << 16 | 3 << 21},
    )
    graph = cfg.build(program.text, program.at["f"])
    (fault,) = [block for block in graph.blocks.values() if block.instructions == 0]
    assert [(step.place, step.value) for step in fault.steps] == [("x0", -14), ("x3", 0)]
    assert [edge.target for edge in fault.edges] == [program.at[".behind"]]
    (before,) = [block for block in graph.blocks.values() if any(edge.target == fault.start for edge in block.edges)]
    assert [edge.kind for edge in before.edges] == [EdgeKind.FALL, EdgeKind.FAULT]


@pytest.mark.parametrize("word_of_entry", [1, 4, 2 | 31 << 16 | 31 << 21])
def test_other_kinds_of_fault_set_nothing(word_of_entry: int) -> None:
    assert AARCH64.fault_effects(word_of_entry) == ()


def test_a_warning_goes_on_and_a_bug_does_not() -> None:
    program = ToyAArch64(("f:",), (".warn:",), ("brk", 0x800), (".bug:",), ("brk", 0x800), (".never:",), ("ret",))
    text = cfg.Text(program.read, program.function_at, warnings={program.at[".warn"]}, architecture=AARCH64)
    assert set(cfg.build(text, program.at["f"]).blocks) == {program.at[".warn"], program.at[".bug"]}


def test_blocks_with_interrupts_masked_are_marked() -> None:
    program = ToyAArch64(
        ("f:",), ("irqs_off",), ("b", ".off"), (".off:",), ("irqs_restored",), ("b", ".on"), (".on:",), ("ret",)
    )
    assert {label for label, block in blocks(program).items() if block.interrupts_off} == {".off"}


def test_a_word_that_is_no_instruction_ends_the_walk_there() -> None:
    program = ToyAArch64(("f:",), ("cbz", 0, ".bad"), ("ret",), (".bad:",), ("bytes", 0x00000000))
    graph = cfg.build(program.text, program.at["f"])
    assert graph.undecoded == (program.at[".bad"],)
    assert len(graph.blocks) == 2
