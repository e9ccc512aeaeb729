"""From a tree of sampled calls to the origin of the errno and the branch that decided it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from profiler.infer.calltree import CallNode, Symbols, gather
from profiler.infer.decision import Decision
from profiler.infer.slice import Origin, OriginKind
from profiler.infer.verdict import Inference, Located, SolvedCall, candidates, decide, most_probable
from tests.unit.toy_kernel import ToyKernel

EINVAL, EPERM, EFAULT = 22, 1, 14


def solved(kernel: ToyKernel, samples: Mapping[str, int], errno: int = EINVAL, *, emulated: bool = False) -> SolvedCall:
    """`samples`: "label" or "label < call < outer call" → count; the outermost function is f."""
    chains = []
    for place, count in samples.items():
        inner, *calls = place.split(" < ")
        chains.append(((kernel.at[inner], *(kernel.behind(call) for call in calls)), count))
    tree = gather(sorted(chains), kernel.at["f"], set(), Symbols(kernel.owner_of, kernel.graph))
    assert tree.on_path == sum(samples.values())
    return Inference(kernel.graph, errno, emulated).solve(tree.root)


def found(kernel: ToyKernel, samples: Mapping[str, int], errno: int = EINVAL) -> Located:
    best = most_probable(candidates(solved(kernel, samples, errno)))
    assert best is not None
    return best


def decision(kernel: ToyKernel, samples: Mapping[str, int], errno: int = EINVAL) -> Decision | None:
    return decide(found(kernel, samples, errno))


TWO_SITES = ToyKernel("""
    f:
        test edi, edi
        js .first
    .middle:
        nop
        nop
        test esi, esi
        js .second
        nop
        nop
        xor eax, eax
        ret
    .first:
        mov eax, -22
        ret
    .second:
        mov eax, -22
        nop
        ret
""")


def test_the_site_whose_code_was_sampled_is_the_likeliest() -> None:
    best = found(TWO_SITES, {"f": 90, "f.middle": 80, "f.second": 70})
    assert best.origin == Origin(OriginKind.CONSTANT, TWO_SITES.at["f.second"])
    assert best.probability > 0.99


def test_the_last_jump_that_could_have_gone_elsewhere_decided() -> None:
    kernel = TWO_SITES
    branch = decision(kernel, {"f": 90, "f.middle": 80, "f.second": 70})
    assert branch is not None
    assert (branch.kind, branch.taken, branch.after) == ("jump", True, kernel.at["f.second"])
    assert branch.before == kernel.at["f.middle"]
    assert branch.address == kernel.graph(kernel.at["f"]).blocks[kernel.at["f.middle"]].last
    assert branch.probability == pytest.approx(1.0)


def test_probabilities_of_all_candidates_sum_to_one() -> None:
    places = candidates(solved(TWO_SITES, {"f": 90, "f.middle": 80, "f.second": 70}))
    assert len(places) == 2
    assert sum(place.probability for place in places) == pytest.approx(1.0)
    assert places[0].probability > places[1].probability


def test_samples_that_fit_two_sites_alike_leave_both() -> None:
    """Equal arms after one condition, neither of them sampled: neither may be named."""
    kernel = ToyKernel("f:\nnop\ntest edi, edi\njs .a\n.b:\nmov eax, -22\nret\n.a:\nmov eax, -22\nret")
    first, second = candidates(solved(kernel, {"f": 100}))
    assert first.probability == pytest.approx(second.probability)


def test_an_errno_that_no_code_returns_has_no_candidate() -> None:
    assert candidates(solved(TWO_SITES, {"f": 100}, errno=EPERM)) == []
    assert most_probable([]) is None


CALL_AT = ToyKernel("""
    f:
        push rbx
        mov ebx, edi
    .call:
        call g
    .tested:
        test eax, eax
        js .out
    .on:
        test ebx, ebx
        je .own
        xor eax, eax
        jmp .out
    .own:
        mov eax, -22
    .out:
        pop rbx
        ret
    g:
        test esi, esi
        je .bad
        nop
        nop
    .fine:
        xor eax, eax
        ret
    .bad:
        mov eax, -22
        ret
""")
FROM_G = {"f": 90, "f.tested": 80, "f.out": 85, "g < f.call": 100, "g.bad < f.call": 90}
FROM_F = {"f": 90, "f.tested": 80, "f.on": 85, "f.own": 70, "f.out": 85, "g < f.call": 100, "g.fine < f.call": 90}


def test_the_origin_is_followed_into_the_callee_that_returned_it() -> None:
    best = found(CALL_AT, FROM_G)
    assert [call.node.name for call in best.calls] == ["f", "g"]
    assert best.origin == Origin(OriginKind.CONSTANT, CALL_AT.at["g.bad"])
    branch = decide(best)
    assert branch is not None
    assert (best.calls[branch.depth].node.name, branch.after) == ("g", CALL_AT.at["g.bad"])


def test_a_callee_that_succeeded_is_not_the_origin() -> None:
    best = found(CALL_AT, FROM_F)
    assert [call.node.name for call in best.calls] == ["f"]
    assert best.origin == Origin(OriginKind.CONSTANT, CALL_AT.at["f.own"])


def test_a_test_of_the_returned_value_decides_nothing() -> None:
    """`ret = g(); if (ret) return ret;` had no choice: the decision lies where the errno was made."""
    kernel = ToyKernel("""
        f:
            test edi, edi
            je .zero
        .call:
            call g
        .tested:
            test eax, eax
            js .out
            xor eax, eax
        .out:
            ret
        .zero:
            xor eax, eax
            ret
        g:
            mov eax, -22
            ret
    """)
    branch = decision(kernel, {"f": 90, "f.call": 80, "f.tested": 90, "f.out": 80, "g < f.call": 90})
    assert branch is not None
    # g has no choice, and f's test of its result none either: the condition on calling g at all decided
    assert (branch.depth, branch.before, branch.taken) == (0, kernel.at["f"], False)


def test_a_walk_without_a_choice_has_no_decision() -> None:
    assert decision(ToyKernel("f:\nnop\nmov eax, -22\nret"), {"f": 100}) is None


def test_a_jump_whose_sides_return_the_same_decides_nothing() -> None:
    """A branch that only cleans up rejoins the walk with the same value."""
    kernel = ToyKernel("""
        f:
            push rbx
            mov ebx, -22
            test edi, edi
            js .failed
        .good:
            xor ebx, ebx
        .failed:
            test esi, esi
            je .out
        .clean:
            nop
        .out:
            mov eax, ebx
            pop rbx
            ret
    """)
    branch = decision(kernel, {"f": 90, "f.failed": 90, "f.clean": 90, "f.out": 90})
    assert branch is not None
    assert (branch.before, branch.taken, branch.after) == (kernel.at["f"], True, kernel.at["f.failed"])


def test_a_jump_on_a_known_constant_decides_nothing() -> None:
    """What the walk set itself could not have been otherwise."""
    kernel = ToyKernel("""
        f:
            test edi, edi
            js .bad
            xor eax, eax
            ret
        .bad:
            mov ecx, 1
            test ecx, ecx
            jne .out
        .never:
            xor eax, eax
            ret
        .out:
            mov eax, -22
            ret
    """)
    branch = decision(kernel, {"f": 90, "f.bad": 80, "f.out": 90})
    assert branch is not None
    assert branch.before == kernel.at["f"]


def test_a_conditional_move_may_decide() -> None:
    kernel = ToyKernel("f:\nxor eax, eax\n.site:\nmov ecx, -22\ntest edi, edi\n.move:\ncmove eax, ecx\nret")
    branch = decision(kernel, {"f": 100})
    assert branch is not None
    assert (branch.kind, branch.address, branch.taken, branch.after) == ("select", kernel.at["f.move"], None, None)


def test_arithmetic_on_flags_may_decide() -> None:
    kernel = ToyKernel("f:\ncmp edi, 3\n.site:\nsbb eax, eax\nand eax, -22\nret")
    best = found(kernel, {"f": 100})
    assert best.origin == Origin(OriginKind.FLAGS, kernel.at["f.site"])
    branch = decide(best)
    assert branch is not None
    assert (branch.kind, branch.address) == ("flags", kernel.at["f.site"])


def test_a_fault_decides() -> None:
    """Copying from a bad address leaves by the exception table, without a jump."""
    kernel = ToyKernel(
        "f:\ntest edi, edi\n.access:\nmov ecx, [rdi]\n.fine:\nxor eax, eax\nret\n.fixup:\nnop\nmov eax, -14\nret",
        fixups={"f.access": "f.fixup"},
    )
    branch = decision(kernel, {"f": 100, "f.fixup": 100}, EFAULT)
    assert branch is not None
    assert (branch.kind, branch.taken, branch.after) == ("fault", None, kernel.at["f.fixup"])


def test_a_conditional_tail_call_that_was_not_made_decided() -> None:
    kernel = ToyKernel("f:\ntest edi, edi\nje g\n.bad:\nmov eax, -22\nret\ng:\nxor eax, eax\nret")
    branch = decision(kernel, {"f": 100, "f.bad": 100})
    assert branch is not None
    assert (branch.before, branch.taken) == (kernel.at["f"], False)


def test_the_origin_is_followed_through_a_tail_call() -> None:
    kernel = ToyKernel("""
        f:
            nop
            jmp g
        g:
            test edi, edi
            js .bad
            xor eax, eax
            ret
        .bad:
            mov eax, -22
            ret
    """)
    root = CallNode(kernel.at["f"], "f", None, None)
    root.own[kernel.at["f"]] = 50
    child = root.child(None, kernel.at["g"], "g")
    child.tail_from = kernel.graph(kernel.at["f"]).blocks[kernel.at["f"]].last
    child.own.update({kernel.at["g"]: 50, kernel.at["g.bad"]: 50})
    best = candidates(Inference(kernel.graph, EINVAL, False).solve(root))[0]
    assert [call.node.name for call in best.calls] == ["f", "g"]
    assert best.origin.address == kernel.at["g.bad"]


def test_of_two_functions_called_through_a_pointer_the_more_sampled_one_counts() -> None:
    kernel = ToyKernel("""
        f:
            nop
        .call:
            call [rdi]
            nop
            ret
        one:
            nop
            mov eax, -1
            ret
        other:
            nop
            nop
            mov eax, -22
            ret
    """)
    best = found(kernel, {"f": 50, "one < f.call": 2, "other < f.call": 100})
    assert [call.node.name for call in best.calls] == ["f", "other"]


SILENT = ToyKernel("""
    f:
        test edi, edi
        js .via_g
        nop
    .via_h:
        call h
        ret
    .via_g:
        call g
        ret
    g:
        test esi, esi
        js .bad
        xor eax, eax
        ret
    .bad:
        mov eax, -22
        ret
    h:
        xor eax, eax
        ret
""")


def test_a_callee_without_samples_can_return_what_its_code_has() -> None:
    """Of two silent callees the one with the errno among its constants is the likelier origin."""
    places = candidates(solved(SILENT, {"f": 2}))
    by_block = {place.origin.address: place.probability for place in places if place.origin.kind == OriginKind.CALL}
    assert by_block[SILENT.at["f.via_g"]] > 0.99
    assert by_block.get(SILENT.at["f.via_h"], 0.0) < 0.01


def test_a_silent_callee_is_the_less_likely_the_more_it_must_run_through() -> None:
    """Of two silent callees that can return the errno, the one that would have had to be sampled more often."""
    kernel = ToyKernel("""
        f:
            nop
            test edi, edi
            js .via_long
        .via_short:
            call short
            ret
        .via_long:
            call long
            ret
        short:
            test esi, esi
            js .bad
        .bad:
            mov eax, -22
            ret
        long:
            test esi, esi
            js .two
        .two:
            jmp .three
        .three:
            jmp .four
        .four:
            jmp .bad
        .bad:
            mov eax, -22
            ret
    """)
    origin = {name: Origin(OriginKind.CALL, kernel.at[f"f.via_{name}"]) for name in ("short", "long")}
    ratios = []
    for count in (30, 3000):
        by_origin = {place.origin: place.probability for place in candidates(solved(kernel, {"f": count}))}
        ratios.append(by_origin[origin["long"]] / by_origin[origin["short"]])
    assert 1 > ratios[0] > ratios[1]


def test_emulated_samples_land_on_heads_of_translation_blocks() -> None:
    """A block that is only fallen into has none, and the walk through it is still the likeliest."""
    kernel = ToyKernel("""
        f:
            test edi, edi
            je .skip
        .taken:
            test esi, esi
            js .site
        .skip:
            nop
            nop
            nop
        .merge:
            xor eax, eax
            ret
        .site:
            mov eax, -22
            ret
        .late:
            jmp .merge
    """)
    best = candidates(solved(kernel, {"f": 100, "f.taken": 100, "f.site": 100}, emulated=True))[0]
    assert best.origin.address == kernel.at["f.site"]
    assert best.probability == pytest.approx(1.0)


def test_a_function_that_never_returns_can_still_be_solved() -> None:
    kernel = ToyKernel("f:\n.again:\nnop\njmp .again")
    assert candidates(solved(kernel, {"f": 100})) == []


def test_the_same_samples_give_the_same_answer() -> None:
    first, second = (
        [(place.origin, place.probability) for place in candidates(solved(CALL_AT, FROM_G))] for _ in range(2)
    )
    assert first == second


PENDING_ERROR = """
    f:
        cmp [rdi+544], 0
        jne .taken
    .none:
        xor eax, eax
        ret
    .taken:
        xor ecx, ecx
    .site:
        xchg [rdi+544], ecx
        neg ecx
        mov ebx, ecx
        jne .failed
    .aborted:
        mov ebx, -103
    .failed:
        test esi, esi
        je .out
    .cleanup:
        nop
    .out:
        mov eax, ebx
        ret
"""


def test_a_socket_s_pending_error_is_decided_by_there_being_one() -> None:
    """`return sock_error(sk) ?: -ECONNABORTED`: the jumps behind test the very value, or only clean up."""
    kernel = ToyKernel(PENDING_ERROR)
    best = found(kernel, {"f": 100, "f.taken": 80, "f.failed": 80, "f.out": 80}, errno=111)
    assert best.origin == Origin(OriginKind.MEMORY, kernel.at["f.site"], "[rdi+0x220]")
    decided = decide(best)
    assert decided is not None
    assert (decided.before, decided.taken) == (kernel.at["f"], True)
