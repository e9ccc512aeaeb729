"""What a walk would have come to by an edge that it did not take."""

from __future__ import annotations

from profiler.graph import Edge, EdgeKind
from profiler.infer.detour import states_behind
from profiler.infer.slice import OTHER, CallValue, Held, Origin, OriginKind, Slicer, State
from profiler.infer.walks import Weights, solve
from tests.unit.toy_kernel import ToyKernel

EINVAL = 22


def behind(kernel: ToyKernel, site: str, at: str, target: str) -> set[State]:
    """States behind the edge from the block `at` to `target`, off the best walk that returns the constant at `site`."""
    graph = kernel.graph(kernel.at["f"])
    slicer = Slicer(graph, EINVAL, lambda _: CallValue(-1.0, -0.5))
    zeros = dict.fromkeys(graph.blocks, 0.0)
    walk = solve(graph, slicer, Weights(zeros, zeros)).best_walk(Origin(OriginKind.CONSTANT, kernel.at[site]))
    index = next(i for i, node in enumerate(walk) if node[0][0] == kernel.at[at])
    edge: Edge = next(e for e in graph.blocks[kernel.at[at]].edges if e.target == kernel.at[target])
    assert edge.target != walk[index + 1][0][0]
    return states_behind(slicer, edge, walk, index)


def test_a_detour_that_returns_success_comes_to_something_else() -> None:
    kernel = ToyKernel("f:\ntest edi, edi\njs .bad\n.good:\nxor eax, eax\nret\n.bad:\nmov eax, -22\nret")
    assert behind(kernel, "f.bad", "f", "f.good") == {OTHER}


CLEANING = ToyKernel("""
    f:
        test edi, edi
        js .bad
    .good:
        xor ebx, ebx
        jmp .exit
    .bad:
        mov ebx, -22
        test esi, esi
        je .exit
    .clean:
        nop
    .exit:
        mov eax, ebx
        ret
""")


def test_a_detour_that_only_cleans_up_brings_back_the_state_it_left_with() -> None:
    """The walk skips `.clean` or passes it: either way the value is still in rbx behind the jump."""
    other = "f.clean"
    assert behind(CLEANING, "f.bad", "f.bad", other) == {Held("rbx")}


def test_a_detour_that_rejoins_the_walk_with_another_value_comes_to_that() -> None:
    assert behind(CLEANING, "f.bad", "f", "f.good") == {OTHER}


def test_a_detour_round_a_loop_ends() -> None:
    kernel = ToyKernel("""
        f:
            test edi, edi
            js .bad
        .again:
            sub ecx, 1
            jne .again
        .done:
            xor eax, eax
            ret
        .bad:
            mov eax, -22
            ret
    """)
    assert behind(kernel, "f.bad", "f", "f.again") == {OTHER}


def test_faults_and_traps_on_a_detour_are_not_what_it_comes_to() -> None:
    """A cleaning detour that might fault does not make a decision of the jump to it."""
    kernel = ToyKernel(
        """
        f:
            mov ebx, -22
            test esi, esi
            je .exit
        .clean:
            mov ecx, [rdi]
        .exit:
            mov eax, ebx
            ret
        .fixup:
            mov ebx, -14
            jmp .exit
        """,
        fixups={"f.clean": "f.fixup"},
    )
    assert behind(kernel, "f", "f", "f.clean") == {Held("rbx")}


def test_an_edge_that_denies_the_value_comes_to_something_else() -> None:
    """`if (err) goto out;`: on the side where err is zero the errno is not returned."""
    kernel = ToyKernel("""
        f:
            mov ebx, -22
            test edi, edi
            je .test
        .call:
            mov ebx, eax
        .test:
            test ebx, ebx
            js .out
        .fine:
            nop
        .out:
            mov eax, ebx
            ret
    """)
    assert behind(kernel, "f", "f.test", "f.fine") == {OTHER}


def test_edges_of_kinds_that_are_unlikely_are_those_documented() -> None:
    """A detour may be asked for by such an edge all the same: its states are those behind it."""
    kernel = ToyKernel("f:\n.key:\nnop\n.off:\nmov eax, -22\nret\n.on:\nxor eax, eax\nret", keys={"f.key": "f.on"})
    graph = kernel.graph(kernel.at["f"])
    assert [e.kind for e in graph.blocks[kernel.at["f"]].edges] == [EdgeKind.FALL, EdgeKind.KEY]
    assert behind(kernel, "f.off", "f", "f.on") == {OTHER}
