"""Corner cases of the inference, each of which once gave a wrong verdict."""

from __future__ import annotations

import pytest

from profiler.conclude.analysis import conclude
from profiler.conclude.sources import whole_outcome
from profiler.graph import StepKind
from profiler.infer import calltree, evidence, verdict
from profiler.infer.slice import Origin, OriginKind
from profiler.model import Conclusion
from tests.unit.test_conclude_source_walk import walked
from tests.unit.test_conclude_words import operand
from tests.unit.test_debuginfo_x86 import steps
from tests.unit.test_infer_calltree import gathered, shape
from tests.unit.test_infer_slice import at_exit, constant
from tests.unit.test_infer_verdict import candidates, solved
from tests.unit.toy_kernel import ToyKernel
from tests.unit.toy_recording import recorded, subject


def test_samples_of_another_system_call_are_not_on_the_path() -> None:
    kernel = ToyKernel("""
        do_syscall_64:
            call [rax]
            ret
        __x64_sys_frob:
            test edi, edi   ; 3
            js .bad         ; 3
            xor eax, eax    ; 5
            ret             ; 6
        .bad:
            mov eax, -22    ; 4
            ret             ; 6
        __x64_sys_other:
            nop
            ret
    """)
    found = conclude(subject(), recorded(kernel, {"__x64_sys_other < do_syscall_64": 1000}), kernel, None)
    assert found.samples.on_path == 0
    assert found.conclusion == Conclusion.INCONCLUSIVE


def test_a_place_that_was_overwritten_behind_the_comparison_is_not_told_of() -> None:
    kernel = ToyKernel("""
        f:
            call access_ok
            test al, al
            mov eax, -14
            je .out
            xor eax, eax
        .out:
            ret
        access_ok:
            xor eax, eax
            ret
    """)
    found = candidates(solved(kernel, {"f.out": 100, "access_ok < f": 50}, errno=14))
    assert [c.origin.kind for c in found] == [OriginKind.CONSTANT]


@pytest.mark.parametrize("due", [5, 20, 100, 1000])
def test_one_more_sample_never_lowers_the_odds(due: int) -> None:
    odds = [evidence.log_odds(count, due) for count in range(due + 3)]
    assert odds == sorted(odds)


def test_tail_calls_below_a_restored_tail_call_are_put_back_too() -> None:
    kernel = ToyKernel("""
        do_syscall_64:
            call [rax]
            ret
        __x64_sys_frob:
            nop
            jmp do_frob
        do_frob:
            nop
        .call:
            call middle
            ret
        middle:
            nop
            jmp leaf
        leaf:
            nop
            ret
    """)
    chain = (kernel.at["leaf"], kernel.behind("do_frob.call"), kernel.behind("do_syscall_64"))
    assert shape(gathered(chain, kernel=kernel).root) == {
        "own": 0,
        "do_frob": {"own": 0, "middle": {"own": 0, "leaf": {"own": 1}}},
    }


def test_a_function_interrupted_at_its_first_instruction_is_not_taken_for_the_one_before() -> None:
    kernel = ToyKernel("""
        do_syscall_64:
            call __x64_sys_frob
            ret
        asm_sysvec_x:
            call tick
            ret
        tick:
            nop
            ret
        __x64_sys_frob:
            call g
            ret
        before:
            nop
            ret
        g:
            nop
            ret
    """)
    chain = (
        kernel.at["tick"],
        kernel.behind("asm_sysvec_x"),
        kernel.at["g"],
        kernel.behind("__x64_sys_frob"),
        kernel.behind("do_syscall_64"),
    )
    assert shape(gathered(chain, kernel=kernel).root) == {"own": 0, "g": {"own": 1}}


def test_a_tail_jump_right_behind_a_call_is_told_from_the_call() -> None:
    kernel = ToyKernel("f:\ncall a\n.jump:\njmp b\na:\nret\nb:\nret")
    root = calltree.CallNode(kernel.at["f"], "f", None, None)
    root.child(kernel.behind("f"), kernel.at["a"], "a").own[kernel.at["a"]] = 5
    jumped = root.child(None, kernel.at["b"], "b")
    jumped.tail_from = kernel.at["f.jump"]
    jumped.own[kernel.at["b"]] = 7
    call = verdict.Inference(kernel.graph, 22, False).solve(root)
    assert dict(call.samples.in_callees) == {kernel.at["f"]: 5, kernel.at["f.jump"]: 7}


def test_a_slot_keeps_its_name_while_the_stack_pointer_moves() -> None:
    found = steps("push rbx", "sub rsp, 16", "mov [rsp+8], eax", "mov ecx, [rsp+8]", "add rsp, 16", "pop rbx")
    assert [f for f in found if f[0] != "rsp"] == [
        ("stack-8", StepKind.COPY, "rbx"),
        ("stack-16", StepKind.COPY, "rax"),
        ("rcx", StepKind.COPY, "stack-16"),
        ("rbx", StepKind.COPY, "stack-8"),
    ]


def test_a_local_variable_is_no_saved_register() -> None:
    """push rbx; sub rsp,8; [rsp+8] is the saved rbx, [rsp] another slot."""
    found = steps("push rbx", "sub rsp, 8", "mov [rsp], eax")
    assert found[-1][0] != "stack-8"


def test_shifts_are_those_of_the_register_shifted() -> None:
    kernel = ToyKernel("f:\ncmp edi, 3\n.site:\nsbb eax, eax\nshr eax, 31\nneg eax\nret")  # 0 or -1
    assert Origin(OriginKind.FLAGS, kernel.at["f.site"]) in at_exit(kernel, errno=1)


def test_or_with_minus_one_is_a_constant() -> None:
    kernel = ToyKernel("f:\n.site:\nor eax, -1\nret")
    assert at_exit(kernel, errno=1) == {constant(kernel.at["f.site"]): 0.0}


def test_a_synonym_of_the_errno_is_the_errno() -> None:
    case = walked(
        "int f(int a)\n{\n    if (a)\n        return -EWOULDBLOCK;\n    return 0;\n}\n",
        "f:\ntest edi, edi ; 3\njne .bad ; 3\nxor eax, eax ; 5\nret ; 6\n.bad:\nmov eax, -11 ; 4\nret ; 6",
        {"f": 100, "f.bad": 90},
        ("EAGAIN", 11),
    )
    assert case.verdict is not None
    assert case.condition == ("a", True)


def test_an_operand_is_not_found_within_another_name() -> None:
    assert whole_outcome(operand("b", "!b2 || b"), True) is True


def test_an_operand_is_not_found_where_another_call_has_the_same_text() -> None:
    assert whole_outcome(operand("a", "!aa && a"), False) is False
