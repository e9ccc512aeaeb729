"""Control-flow graphs of small functions assembled here."""

from __future__ import annotations

import pytest

from profiler import graph
from profiler.debuginfo import cfg
from profiler.graph import Block, EdgeKind
from tests.unit.toy_kernel import ToyKernel


def blocks(kernel: ToyKernel, function: str = "f") -> dict[str, Block]:
    """Blocks by the label they begin at; those without one by their address."""
    names = {address: name.removeprefix(function) for name, address in kernel.at.items()}
    found = kernel.graph(kernel.at[function]).blocks
    return {names.get(start, hex(start)): block for start, block in found.items()}


def edges(kernel: ToyKernel, label: str, function: str = "f") -> list[tuple[str, EdgeKind]]:
    names = {address: name.removeprefix(function) for name, address in kernel.at.items()}
    return [(names[edge.target], edge.kind) for edge in blocks(kernel, function)[label].edges]


BRANCH = """
    f:
        test edi, edi
        js .negative
    .positive:
        mov eax, 1
    .out:
        ret
    .negative:
        mov eax, -22
        jmp .out
    .padding:
        int3
        int3
"""


def test_blocks_end_at_jumps_and_at_what_jumps_lead_to() -> None:
    kernel = ToyKernel(BRANCH)
    assert set(blocks(kernel)) == {"", ".positive", ".out", ".negative"}
    assert edges(kernel, "") == [(".negative", EdgeKind.TAKEN), (".positive", EdgeKind.NOT_TAKEN)]
    assert edges(kernel, ".positive") == [(".out", EdgeKind.FALL)]
    assert edges(kernel, ".negative") == [(".out", EdgeKind.JUMP)]
    assert edges(kernel, ".out") == []


def test_padding_behind_a_function_is_not_its_code() -> None:
    assert ".padding" not in blocks(ToyKernel(BRANCH))


def test_a_block_knows_its_extent_and_its_last_instruction() -> None:
    kernel = ToyKernel(BRANCH)
    found = blocks(kernel)
    assert (found[""].start, found[""].end) == (kernel.at["f"], kernel.at["f.positive"])
    assert kernel.next_ip[found[""].last] == found[""].end
    assert [found[label].instructions for label in ("", ".positive", ".out", ".negative")] == [2, 1, 1, 2]
    assert [label for label, block in found.items() if block.returns] == [".out"]


def test_a_jump_back_into_a_run_splits_it() -> None:
    """A loop's head is found only when its closing jump is met; no instruction may belong to two blocks then."""
    kernel = ToyKernel("""
        f:
            mov ecx, 3
        .again:
            sub ecx, 1
            jne .again
        .out:
            ret
    """)
    assert edges(kernel, "") == [(".again", EdgeKind.FALL)]
    assert edges(kernel, ".again") == [(".again", EdgeKind.TAKEN), (".out", EdgeKind.NOT_TAKEN)]
    held = [address for b in blocks(kernel).values() for address in range(b.start, b.end)]
    assert len(held) == len(set(held)) == kernel.functions[0][2] - kernel.functions[0][1]


def test_a_call_ends_its_block_and_names_its_callee() -> None:
    kernel = ToyKernel("f:\ncall g\n.behind:\nret\ng:\nret")
    call = blocks(kernel)[""].call
    assert call is not None
    assert (call.target, call.tail, call.results) == (kernel.at["g"], False, ("rax",))
    assert "rcx" in call.clobbers
    assert not {"rbx", "rax", "r12"} & set(call.clobbers)
    assert edges(kernel, "") == [(".behind", EdgeKind.AFTER_CALL)]


def test_the_no_op_that_tracing_patches_is_no_call() -> None:
    """Each function begins with `call __fentry__`, which is a no-op in a running kernel."""
    kernel = ToyKernel("f:\ncall __fentry__\nmov eax, -1\nret\n__fentry__:\nret")
    (block,) = blocks(kernel).values()
    assert block.call is None
    assert block.instructions == 3


@pytest.mark.parametrize("thunk", ["__x86_indirect_thunk_rax", "__x86_indirect_its_thunk_r11", "__SCT__might_resched"])
def test_a_call_through_a_thunk_has_no_known_callee(thunk: str) -> None:
    """Retpolines and static calls are calls of something else than the symbol says."""
    kernel = ToyKernel(f"f:\ncall {thunk}\njmp {thunk}\n{thunk}:\nret")
    first, second = sorted(blocks(kernel).values(), key=lambda block: block.start)
    assert first.call is not None
    assert second.call is not None
    assert (first.call.target, first.call.tail) == (None, False)
    assert (second.call.target, second.call.tail) == (None, True)


def test_indirect_calls_and_jumps_have_no_known_callee() -> None:
    kernel = ToyKernel("f:\ncall [rdi+8]\njmp rax")
    found = sorted(blocks(kernel).values(), key=lambda block: block.start)
    assert [(b.call.target, b.call.tail) for b in found if b.call] == [(None, False), (None, True)]


def test_a_jump_to_another_function_is_a_tail_call() -> None:
    kernel = ToyKernel("f:\nmov edi, 1\njmp g\ng:\nret")
    (block,) = blocks(kernel).values()
    assert block.call is not None
    assert (block.call.address, block.call.target, block.call.tail) == (block.last, kernel.at["g"], True)
    assert block.edges == ()
    assert not block.returns


def test_a_conditional_jump_to_another_function_may_go_on() -> None:
    kernel = ToyKernel("f:\ntest edi, edi\nje g\n.on:\nret\ng:\nret")
    found = blocks(kernel)[""]
    assert found.call is not None
    assert (found.call.target, found.call.tail) == (kernel.at["g"], True)
    assert edges(kernel, "") == [(".on", EdgeKind.NOT_TAKEN)]


@pytest.mark.parametrize("thunk", ["__x86_return_thunk", "srso_alias_return_thunk", "its_return_thunk"])
def test_a_jump_to_a_return_thunk_is_a_return(thunk: str) -> None:
    kernel = ToyKernel(f"f:\njmp {thunk}\n{thunk}:\nret")
    (block,) = blocks(kernel).values()
    assert block.returns
    assert block.call is None


@pytest.mark.parametrize("callee", ["panic", "__stack_chk_fail", "do_exit"])
def test_nothing_follows_a_call_that_does_not_return(callee: str) -> None:
    kernel = ToyKernel(f"f:\ncall {callee}\n.never:\nret\n{callee}:\nret")
    assert set(blocks(kernel)) == {""}


def test_a_split_off_part_belongs_to_the_function() -> None:
    """Jumps lead into f.cold and back into the middle of f; another function's cold part is a tail call."""
    kernel = ToyKernel("""
        f:
            test edi, edi
            js f.cold
        .back:
            ret
        f.cold:
            mov eax, -5
            test esi, esi
            je g.cold
        .home:
            jmp f.back
        g.cold:
            ret
    """)
    found = kernel.graph(kernel.at["f"]).blocks
    cold = found[kernel.at["f.cold"]]
    home = found[kernel.at["f.cold.home"]]
    assert [edge.target for edge in home.edges] == [kernel.at["f.back"]]
    assert cold.call is not None
    assert cold.call.target == kernel.at["g.cold"]
    assert kernel.at["g.cold"] not in found


def test_a_function_that_was_cloned_jumps_into_the_cold_part_of_the_same_name() -> None:
    kernel = ToyKernel("f.part.0:\ntest edi, edi\njs f.part.0.cold\n.on:\nret\nf.part.0.cold:\njmp f.part.0.on")
    found = kernel.graph(kernel.at["f.part.0"])
    assert found.name == "f.part.0"
    assert kernel.at["f.part.0.cold"] in found.blocks


def test_an_access_that_may_fault_has_an_edge_to_its_fixup() -> None:
    """The exception table ends the block, so that what comes behind the access is not blamed for a fault."""
    kernel = ToyKernel(
        "f:\nmov ecx, 1\n.access:\nmov eax, [rdi]\n.behind:\nret\n.fixup:\nmov eax, -14\nret",
        fixups={"f.access": "f.fixup"},
    )
    assert edges(kernel, "") == [(".behind", EdgeKind.FALL), (".fixup", EdgeKind.FAULT)]
    assert [step.place for step in blocks(kernel)[""].steps] == ["rcx", "rax"]


def test_a_static_key_has_an_edge_to_its_other_side() -> None:
    kernel = ToyKernel("f:\n.key:\nnop\n.off:\nret\n.on:\nmov eax, -1\nret", keys={"f.key": "f.on"})
    assert edges(kernel, ".key") == [(".off", EdgeKind.FALL), (".on", EdgeKind.KEY)]


def test_a_trap_is_left_behind_it() -> None:
    """WARN() is a ud2, behind which the kernel goes on."""
    kernel = ToyKernel("f:\nud2\n.behind:\nret")
    assert edges(kernel, "") == [(".behind", EdgeKind.TRAP)]


def test_blocks_with_interrupts_off_are_marked() -> None:
    """By cli and sti, and by the spinlocks that do it out of sight."""
    kernel = ToyKernel("""
        f:
            call _raw_spin_lock_irqsave
        .locked:
            test edi, edi
            je .unlock
        .inside:
            mov eax, 1
        .unlock:
            call _raw_spin_unlock_irqrestore
        .free:
            cli
            jmp .closed
        .closed:
            sti
            jmp .opened
        .opened:
            ret
        _raw_spin_lock_irqsave:
            ret
        _raw_spin_unlock_irqrestore:
            ret
    """)
    off = {label for label, block in blocks(kernel).items() if block.interrupts_off}
    assert off == {".locked", ".inside", ".unlock", ".closed"}


def test_slots_whose_address_is_taken_are_known() -> None:
    """A callee may write a variable whose address it was given."""
    kernel = ToyKernel("f:\npush rbx\nlea rdi, [rsp]\ncall g\n.behind:\nret\ng:\nret")
    assert kernel.graph(kernel.at["f"]).escaped == {"stack-8"}
    assert blocks(kernel)[""].addresses_taken == {"stack-8"}
    assert blocks(kernel)[".behind"].addresses_taken == frozenset()


def test_the_stack_is_followed_into_both_sides_of_a_jump() -> None:
    kernel = ToyKernel("f:\npush rbx\ntest edi, edi\nje .b\n.a:\nmov [rsp], eax\n.b:\nmov ecx, [rsp]\nret")
    found = blocks(kernel)
    assert found[".a"].steps[0].place == found[".b"].steps[0].source == "stack-8"


def test_put_user_returns_its_error_in_ecx() -> None:
    """arch/x86/lib/putuser.S has a calling convention of its own."""
    kernel = ToyKernel("f:\ncall __put_user_4\nret\n__put_user_4:\nret")
    call = blocks(kernel)[""].call
    assert call is not None
    assert call.results == ("rcx",)


def test_code_that_cannot_be_decoded_ends_the_exploration_there() -> None:
    """The address is told, and nothing is invented behind it."""
    code = b"\x85\xff\x78\x01\xc3\x06"  # test edi, edi; js +1; ret; (invalid)
    text = cfg.Text(lambda address, size: code[address : address + size], lambda address: ("f", 0, len(code)))
    found = cfg.build(text, 0)
    assert found.undecoded == (5,)
    assert set(found.blocks) == {0, 4}
    assert [edge.target for edge in found.blocks[0].edges] == [4]


def test_an_address_outside_every_function_is_refused() -> None:
    with pytest.raises(LookupError, match="no function at 0x10"):
        cfg.build(ToyKernel("f:\nret").text, 0x10)


def test_two_builds_of_one_function_are_equal() -> None:
    kernel = ToyKernel(BRANCH)
    assert cfg.build(kernel.text, kernel.at["f"]) == cfg.build(kernel.text, kernel.at["f"])


def test_any_address_within_a_function_gives_its_graph() -> None:
    kernel = ToyKernel(BRANCH)
    assert cfg.build(kernel.text, kernel.at["f.negative"]) == cfg.build(kernel.text, kernel.at["f"])


def pointers(kernel: ToyKernel, block: str) -> dict[str, graph.Pointer]:
    """What the call at the end of a block of f gives its callee."""
    call = blocks(kernel)[block].call
    assert call is not None
    return dict(call.arguments)


def test_a_call_tells_what_its_arguments_point_to() -> None:
    """Its own variables, what it was given itself, and where the callee's stack begins."""
    kernel = ToyKernel("f:\npush rbx\nlea rdx, [rsp]\nmov rsi, [rdi+8]\nxor edi, edi\ncall g\nret\ng:\nret")
    given = pointers(kernel, "")
    assert given["rdx"] == graph.Pointer("stack", -8)
    assert given["rsi"] == graph.Pointer("[rdi+0x8]", 0)
    assert given["stack"] == graph.Pointer("stack", -16)
    assert "rdi" not in given


def test_where_ways_into_a_block_disagree_nothing_is_known() -> None:
    """rdi is moved on one way alone; rsi is the same on both."""
    kernel = ToyKernel("f:\ntest eax, eax\nje .join\nadd rdi, 8\n.join:\ncall g\nret\ng:\nret")
    given = pointers(kernel, ".join")
    assert "rdi" not in given
    assert given["rsi"] == graph.Pointer("rsi", 0)


def test_a_pointer_that_a_loop_moves_on_is_unknown_in_the_loop() -> None:
    """At the loop's head the first visit knows it, the way back does not agree."""
    kernel = ToyKernel(
        "f:\nmov rbx, rdi\n.loop:\nmov rdi, rbx\ncall g\n.next:\nmov rbx, [rbx]\ntest eax, eax\njne .loop\nret\ng:\nret"
    )
    assert "rdi" not in pointers(kernel, ".loop")
