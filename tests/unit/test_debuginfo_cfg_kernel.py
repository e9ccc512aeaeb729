"""What a kernel's build makes of its code, and how graphs take it: tables, patches, nameless code, BUG() and faults."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from profiler.debuginfo import cfg
from profiler.debuginfo.x86_flow import X86_64
from profiler.errors import InputError
from profiler.graph import EdgeKind, FunctionGraph
from tests.unit.toy_kernel import TEXT, ToyKernel

TABLE = TEXT + 0x1000


def machine_code(code: bytes, *, data: bytes = b"", symbols: tuple[tuple[str, int, int], ...] = ()) -> cfg.Text:
    """One function `f`, or `symbols` as (name, offset, end); `data` lies at TABLE."""
    named = [(name, TEXT + start, TEXT + end) for name, start, end in symbols or (("f", 0, len(code)),)]

    def read(address: int, size: int) -> bytes:
        for start, content in ((TEXT, code), (TABLE, data)):
            if start <= address and address + size <= start + len(content):
                return content[address - start : address - start + size]
        raise InputError(f"nothing at {address:#x}")

    def symbol_at(address: int) -> tuple[str, int, int] | None:
        return next((found for found in named if found[1] <= address < found[2]), None)

    return cfg.Text(read, symbol_at)


def offsets(graph: FunctionGraph) -> set[int]:
    return {start - TEXT for start in graph.blocks}


SWITCH = (
    b"\x83\xff\x02"  # cmp edi, 2
    b"\x77\x0e"  # ja default
    b"\x89\xf8"  # mov eax, edi
    + b"\xff\x24\xc5"  # jmp *table(,%rax,8)
    + struct.pack("<i", TABLE - (1 << 64))
    + b"\xb0\x01\xc3"  # 14: mov al, 1; ret
    b"\xb0\x02\xc3"  # 17: mov al, 2; ret
    b"\x90"
    b"\x31\xc0\xc3"  # 21: default: xor eax, eax; ret
)
SWITCH = SWITCH[:4] + bytes([21 - 5]) + SWITCH[5:]
ENTRIES = struct.pack("<4Q", TEXT + 14, TEXT + 17, TEXT + 14, TEXT + 21)


def test_a_jump_table_has_as_many_entries_as_the_comparison_lets_through() -> None:
    graph = cfg.build(machine_code(SWITCH, data=ENTRIES), TEXT)
    assert [edge.target - TEXT for edge in graph.blocks[TEXT + 5].edges] == [14, 17]
    assert graph.blocks[TEXT + 5].call is None
    assert offsets(graph) == {0, 5, 14, 17, 21}


def test_a_table_whose_length_is_not_told_ends_where_it_leads_out_of_the_function() -> None:
    unbounded = b"\x90" * 5 + SWITCH[5:]
    data = ENTRIES[:16] + struct.pack("<2Q", TEXT + 0x500, TEXT + 21)
    graph = cfg.build(machine_code(unbounded, data=data), TEXT)
    (jump,) = [block for block in graph.blocks.values() if len(block.edges) > 1]
    assert [edge.target - TEXT for edge in jump.edges] == [14, 17]


def test_a_table_may_be_loaded_into_a_register_first_and_jumped_to_through_a_retpoline() -> None:
    load = b"\x48\x8b\x04\xc5" + struct.pack("<i", TABLE - (1 << 64))  # mov rax, table(,%rax,8)
    plain = load + b"\xff\xe0" + b"\xc3" * 4  # jmp *rax
    thunk = load + b"\xe9" + struct.pack("<i", 3) + b"\xc3" * 3 + b"\xff\xe0"
    entries = struct.pack("<2Q", TEXT + 10, TEXT + 11)
    assert offsets(cfg.build(machine_code(plain, data=entries), TEXT)) == {0, 10, 11}
    symbols = (("f", 0, 16), ("__x86_indirect_thunk_rax", 16, 18))
    entries = struct.pack("<2Q", TEXT + 13, TEXT + 15)
    assert offsets(cfg.build(machine_code(thunk, data=entries, symbols=symbols), TEXT)) == {0, 13, 15}


def test_a_jump_through_memory_that_is_no_table_is_a_tail_call() -> None:
    (block,) = cfg.build(machine_code(b"\xff\x67\x08"), TEXT).blocks.values()  # jmp *8(%rdi)
    assert block.call is not None
    assert (block.call.target, block.call.tail) == (None, True)


def test_code_under_no_symbol_belongs_to_who_jumps_there() -> None:
    """Fixups up to Linux 5.15, and the tails of alternatives, lie in sections without symbols."""
    code = b"\xeb\x02\xc3\xcc" + b"\x31\xc0" + b"\xeb\xfa"  # jmp 4; ret; int3; 4: xor eax, eax; jmp 2
    graph = cfg.build(machine_code(code, symbols=(("f", 0, 3),)), TEXT)
    assert offsets(graph) == {0, 2, 4}
    assert graph.undecoded == ()


def test_nameless_code_ends_where_another_function_begins() -> None:
    code = b"\xeb\x01\xc3" + b"\x90" + b"\xc3"  # f: jmp 3; ret    3: nop    4: g: ret
    graph = cfg.build(machine_code(code, symbols=(("f", 0, 3), ("g", 4, 5))), TEXT)
    call = graph.blocks[TEXT + 3].call
    assert call is not None
    assert (call.target, call.tail) == (TEXT + 4, True)
    assert offsets(graph) == {0, 3}


def test_a_jump_to_where_no_code_is_leaves_the_function() -> None:
    graph = cfg.build(machine_code(b"\xe9\x00\x00\x10\x00"), TEXT)
    call = graph.blocks[TEXT].call
    assert call is not None
    assert (call.target, call.tail) == (None, True)


def test_a_call_at_the_end_of_a_function_does_not_return() -> None:
    """Whatever its name: the compiler put nothing behind it, and what follows is another function."""
    kernel = ToyKernel("f:\ntest edi, edi\nje .die\nret\n.die:\ncall g\nh:\nret\ng:\nret")
    graph = kernel.graph(kernel.at["f"])
    assert graph.blocks[kernel.at["f.die"]].edges == ()
    assert kernel.at["h"] not in graph.blocks


def test_assembly_that_runs_on_into_its_neighbour_calls_it() -> None:
    kernel = ToyKernel("f:\nmov eax, 1\ng:\nret")
    (block,) = kernel.graph(kernel.at["f"]).blocks.values()
    assert block.call is not None
    assert (block.call.target, block.call.tail) == (kernel.at["g"], True)


def test_behind_a_warning_the_kernel_goes_on_and_behind_a_bug_it_does_not() -> None:
    kernel = ToyKernel("f:\n.warn:\nud2\n.bug:\nud2\n.never:\nret")
    text = replace(kernel.text, warnings={kernel.at["f.warn"]})
    graph = cfg.build(text, kernel.at["f"])
    assert set(graph.blocks) == {kernel.at["f.warn"], kernel.at["f.bug"]}
    assert graph.blocks[kernel.at["f.bug"]].edges == ()


def test_the_other_side_of_a_static_key_that_is_a_jump_is_behind_it() -> None:
    kernel = ToyKernel("f:\n.key:\njmp .off\n.on:\nmov eax, -1\n.off:\nret", keys={"f.key": "f.off"})
    edges = kernel.graph(kernel.at["f"]).blocks[kernel.at["f.key"]].edges
    assert [(edge.target, edge.kind) for edge in edges] == [
        (kernel.at["f.off"], EdgeKind.JUMP),
        (kernel.at["f.on"], EdgeKind.KEY),
    ]


def test_a_jump_that_may_become_a_no_op_has_both_sides() -> None:
    kernel = ToyKernel("f:\njmp .off\n.on:\nmov eax, -1\n.off:\nret")
    text = replace(kernel.text, may_be_nops={kernel.at["f"]})
    assert kernel.at["f.on"] in cfg.build(text, kernel.at["f"]).blocks
    assert kernel.at["f.on"] not in cfg.build(kernel.text, kernel.at["f"]).blocks


STATIC_CALL = "f:\ncall __SCT__hook\nret\n__SCT__hook:\njmp target\ntarget:\nret"


@pytest.mark.parametrize("patched", [True, False])
def test_a_static_call_leads_where_the_running_kernels_trampoline_does(patched: bool) -> None:
    """In the image it may lead elsewhere by the time that the kernel runs."""
    kernel = ToyKernel(STATIC_CALL)
    call = cfg.build(replace(kernel.text, patched=patched), kernel.at["f"]).blocks[kernel.at["f"]].call
    assert call is not None
    assert call.target == (kernel.at["target"] if patched else None)


def test_a_call_into_the_padding_before_a_function_calls_the_function() -> None:
    """Call depth tracking counts there, in what was padding."""
    code = b"\xe8\x01\x00\x00\x00\xc3" + b"\x90" * 16 + b"\xc3"
    call = cfg.build(machine_code(code, symbols=(("f", 0, 6), ("g", 22, 23))), TEXT).blocks[TEXT].call
    assert call is not None
    assert (call.target, call.tail) == (TEXT + 22, False)


def test_a_call_of_the_hypervisor_is_no_call() -> None:
    (block,) = cfg.build(machine_code(b"\x0f\x01\xc1\xc3"), TEXT).blocks.values()  # vmcall; ret
    assert block.call is None
    assert block.returns


EFAULT_IN_CX, ZERO_AND_NO_AX, EIO_IN_AX, NOTHING = -14 << 16 | 1 << 8 | 17, 1 << 12 | 3, 11, 3


@pytest.mark.parametrize(
    ("word", "effects"),
    [
        (EFAULT_IN_CX, (("rcx", -14),)),
        (ZERO_AND_NO_AX, (("rax", 0),)),
        (EIO_IN_AX, (("rax", -5),)),
        (NOTHING, ()),
    ],
)
def test_what_a_faults_handler_sets(word: int, effects: tuple[tuple[str, int], ...]) -> None:
    assert X86_64.fault_effects(word) == effects


def test_a_fault_that_sets_a_register_is_a_block_of_its_own_between_access_and_fixup() -> None:
    """It has no instructions, so samples neither fall into it nor speak against it."""
    kernel = ToyKernel("f:\n.access:\nmov eax, [rdi]\n.behind:\nret", fixups={"f.access": "f.behind"})
    access, behind = kernel.at["f.access"], kernel.at["f.behind"]
    text = replace(kernel.text, fault_effects={access: (("rax", -14),)})
    blocks = cfg.build(text, access).blocks
    fault = blocks[behind - 1]
    assert (fault.start, fault.end, fault.instructions, fault.interrupts_off) == (behind - 1, behind - 1, 0, True)
    assert [(step.place, step.value) for step in fault.steps] == [("rax", -14)]
    assert [(edge.target, edge.kind) for edge in blocks[access].edges] == [
        (behind, EdgeKind.FALL),
        (behind - 1, EdgeKind.FAULT),
    ]
    assert [edge.target for edge in fault.edges] == [behind]


def test_a_function_that_cannot_be_read_is_one_block_that_does_what_nobody_knows() -> None:
    text = replace(machine_code(b""), symbol_at=lambda address: ("f", TEXT, TEXT + 8))
    graph = cfg.build(text, TEXT)
    assert graph.undecoded == (TEXT,)
    (block,) = graph.blocks.values()
    assert (block.start, block.end, block.edges) == (TEXT, TEXT + 8, ())
    assert block.call is not None
    assert (block.call.target, block.call.tail) == (None, True)


@pytest.mark.parametrize("code", [b"\x85\xff\x78\x01\xc3\x06", b"\x85\xff\x78\x02\x90\x06\xc3"])
def test_a_way_into_what_does_not_decode_leaves_the_function_there(code: bytes) -> None:
    """test edi, edi; js: to the invalid byte, or over it."""
    graph = cfg.build(machine_code(code), TEXT)
    assert graph.undecoded == (TEXT + 5,)
    assert [(b.call.target, b.call.tail) for b in graph.blocks.values() if b.call] == [(None, True)]
    assert any(block.returns for block in graph.blocks.values())
