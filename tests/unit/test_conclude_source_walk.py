"""The source statement and condition behind machine code whose debug lines mislead.

Each case is a few lines of C and the code a compiler makes of it, with the debug lines it would have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from profiler.conclude.source_walk import SourceVerdict, walk_source
from profiler.conclude.sources import Sources
from profiler.infer.calltree import Symbols, gather
from profiler.infer.verdict import Inference, Located, candidates, decide
from tests.unit.toy_kernel import FILE, ToyKernel
from tests.unit.toy_recording import ToySource, addresses_of


@dataclass
class Case:
    kernel: ToyKernel
    source: ToySource
    located: Located
    verdict: SourceVerdict | None

    @property
    def site(self) -> str:
        """The source text of the site."""
        assert self.verdict is not None
        assert self.verdict.site.file == FILE
        return self.source.lines[self.verdict.site.line - 1].strip()

    @property
    def condition(self) -> tuple[str, bool | None]:
        assert self.verdict is not None
        assert self.verdict.condition is not None
        return self.verdict.condition.text, self.verdict.outcome


def walked(source: str, assembly: str, samples: Mapping[str, int], errno: tuple[str, int] = ("EINVAL", 22)) -> Case:
    """The source's verdict on the machine's, for a system call whose entry is f."""
    kernel, text = ToyKernel(assembly), ToySource(source)
    chains = sorted((addresses_of(kernel, place), count) for place, count in samples.items())
    tree = gather(chains, kernel.at["f"], set(), Symbols(kernel.owner_of, kernel.graph))
    located = candidates(Inference(kernel.graph, errno[1], False).solve(tree.root))[0]
    flow = Sources(text, {}).flow
    return Case(kernel, text, located, walk_source(kernel, flow, located, decide(located), errno))


PLAIN = """
    int f(int a)
    {
        if (a < 0)
            return -EINVAL;
        work();
        return 0;
    }
"""


def test_a_return_under_a_condition_is_named_with_the_value_the_condition_had() -> None:
    case = walked(
        PLAIN,
        """
        f:
            test edi, edi   ; 3
            js .bad         ; 3
            nop             ; 5
            xor eax, eax    ; 6
            ret             ; 7
        .bad:
            mov eax, -22    ; 4
            ret             ; 7
        """,
        {"f": 100, "f.bad": 90},
    )
    assert (case.site, case.condition) == ("return -EINVAL;", ("a < 0", True))
    assert case.verdict is not None
    assert case.verdict.agrees
    assert case.verdict.probability > 0.99


MERGED = """
    int f(int option, int a, int b)
    {
        switch (option) {
        case 1:
            if (a)
                return -EINVAL;
            first();
            break;
        case 2:
            if (b)
                return -EINVAL;
            second();
            break;
        default:
            return -EINVAL;
        }
        return 0;
    }
"""
MERGED_CODE = """
    f:
        cmp edi, 1      ; 3
        je .one         ; 3
    .more:
        cmp edi, 2      ; 3
        jne .bad        ; 3
    .two:
        test edx, edx   ; 10
        jne .bad        ; 10
        nop             ; 12
        jmp .out        ; 13
    .one:
        test esi, esi   ; 5
        jne .bad        ; 5
        nop             ; 7
    .out:
        xor eax, eax    ; 17
        ret             ; 18
    .bad:
        mov eax, -22    ; 6
        ret             ; 18
"""


def test_of_equal_tails_that_were_merged_the_one_the_path_leads_to_is_named() -> None:
    """The constant's debug line is that of another case of the switch; the path tells which it was."""
    case = walked(MERGED, MERGED_CODE, {"f": 100, "f.more": 80, "f.two": 90, "f.bad": 100})
    assert case.verdict is not None
    assert case.verdict.site.line == 11
    assert case.condition == ("b", True)


def test_the_case_whose_debug_line_the_constant_has_is_named_where_it_ran() -> None:
    case = walked(MERGED, MERGED_CODE, {"f": 100, "f.one": 90, "f.bad": 100})
    assert case.verdict is not None
    assert case.verdict.site.line == 6
    assert case.condition == ("a", True)


def test_a_switch_that_matches_no_case_is_the_condition() -> None:
    """There is no outcome of a switch but the case; its head is what decided."""
    case = walked(MERGED, MERGED_CODE, {"f": 100, "f.more": 80, "f.bad": 100})
    assert case.verdict is not None
    assert case.verdict.site.line == 15
    assert case.verdict.condition is not None
    assert (case.verdict.condition.kind, case.verdict.outcome) == ("switch", None)


EARLY = """
    int f(int a, int b)
    {
        int err = -EINVAL;

        if (a)
            goto out;
        err = -ENOMEM;
        if (b)
            goto out;
        err = work();
    out:
        cleanup();
        return err;
    }
"""
EARLY_CODE = """
    f:
        test edi, edi   ; 5
        jne .first      ; 5
    .on:
        test esi, esi   ; 8
        jne .second     ; 8
        call work       ; 10
        mov ebx, eax    ; 10
    .out:
        call cleanup    ; 12
        mov eax, ebx    ; 13
        ret             ; 14
    .first:
        mov ebx, -22    ; 12
        jmp .out        ; 12
    .second:
        mov ebx, -12    ; 12
        jmp .out        ; 12
    work:
        xor eax, eax    ; 20
        ret             ; 20
    cleanup:
        ret             ; 21
"""


def test_an_early_initialiser_that_is_returned_late_is_the_site() -> None:
    """The compiler moves the constant to the exit; the statement that sets it is the initialiser."""
    case = walked(EARLY, EARLY_CODE, {"f": 100, "f.first": 80, "f.out": 80, "cleanup < f.out": 50})
    assert (case.site, case.condition) == ("int err = -EINVAL;", ("a", True))


def test_the_later_of_two_assignments_is_the_site_of_its_errno() -> None:
    samples = {"f": 100, "f.on": 90, "f.second": 80, "f.out": 80, "cleanup < f.out": 50}
    case = walked(EARLY, EARLY_CODE, samples, ("ENOMEM", 12))
    assert (case.site, case.condition) == ("err = -ENOMEM;", ("b", True))


def test_an_inlined_function_that_returns_the_errno_is_where_the_site_lies() -> None:
    """The caller's own `if (err)` decides nothing; the condition within the inlined function does."""
    case = walked(
        """
        static inline int check(int a)
        {
            if (a > 7)
                return -EINVAL;
            return 0;
        }

        int f(int a)
        {
            int err;

            err = check(a);
            if (err)
                return err;
            return work();
        }
        """,
        """
        f:
            cmp edi, 7      ; check 3 < 12
            jg .bad         ; check 3 < 12
            call work       ; 15
            ret             ; 16
        .bad:
            mov eax, -22    ; check 4 < 12
            ret             ; 16
        work:
            xor eax, eax    ; 20
            ret             ; 20
        """,
        {"f": 100, "f.bad": 90},
    )
    assert case.verdict is not None
    assert (case.verdict.site.function, case.site) == ("check", "return -EINVAL;")
    assert case.condition == ("a > 7", True)
    assert [(frame.function, frame.line) for frame in case.verdict.inlined_from] == [("f", 12)]


def test_an_inlined_predicate_is_an_operand_of_the_callers_condition() -> None:
    """The jump bears the predicate's line; the statement that it decides is the caller's."""
    case = walked(
        """
        static inline bool too_long(int a)
        {
            return a > 7;
        }

        int f(int a)
        {
            if (too_long(a))
                return -EINVAL;
            return 0;
        }
        """,
        """
        f:
            cmp edi, 7      ; too_long 3 < 8
            jg .bad         ; 8
            xor eax, eax    ; 10
            ret             ; 11
        .bad:
            mov eax, -22    ; 9
            ret             ; 11
        """,
        {"f": 100, "f.bad": 90},
    )
    assert (case.site, case.condition) == ("return -EINVAL;", ("too_long(a)", True))


def test_an_errno_found_in_a_loop_is_named_with_the_condition_in_the_loop() -> None:
    case = walked(
        """
        int f(struct list *list, int a)
        {
            int i;

            for (i = 0; i < list->count; i++) {
                if (list->item[i] == a)
                    return -EINVAL;
            }
            add(list, a);
            return 0;
        }
        """,
        """
        f:
            xor ecx, ecx        ; 5
        .head:
            cmp ecx, [rdi]      ; 5
            jge .add            ; 5
        .body:
            mov eax, [rdi+rcx*4] ; 6
            cmp eax, esi        ; 6
            je .bad             ; 6
        .next:
            add ecx, 1          ; 5
            jmp .head           ; 5
        .add:
            nop                 ; 9
            xor eax, eax        ; 10
            ret                 ; 11
        .bad:
            mov eax, -22        ; 7
            ret                 ; 11
        """,
        {"f": 30, "f.head": 300, "f.body": 300, "f.next": 250, "f.bad": 40},
    )
    assert (case.site, case.condition) == ("return -EINVAL;", ("list->item[i] == a", True))


THROUGH_POINTER = """
    int f(struct sock *sk, int a)
    {
        if (!sk)
            return -EBADF;
        return sk->ops->bind(sk, a);
    }

    int toy_bind(struct sock *sk, int a)
    {
        if (a & 1)
            return -EINVAL;
        return 0;
    }
"""


def test_the_chain_is_followed_through_a_call_by_pointer() -> None:
    """The source says `ops->bind`, the samples which function that was."""
    case = walked(
        THROUGH_POINTER,
        """
        f:
            test edi, edi   ; 3
            je .none        ; 3
        .call:
            call [rax+8]    ; 5
            ret             ; 6
        .none:
            mov eax, -9     ; 4
            ret             ; 6
        toy_bind:
            test esi, esi   ; 10
            js .bad         ; 10
            xor eax, eax    ; 12
            ret             ; 13
        .bad:
            mov eax, -22    ; 11
            ret             ; 13
        """,
        {"f": 50, "f.call": 60, "toy_bind < f.call": 80, "toy_bind.bad < f.call": 70},
    )
    assert case.verdict is not None
    assert (case.verdict.site.function, case.site) == ("toy_bind", "return -EINVAL;")
    assert case.condition == ("a & 1", True)


def test_a_condition_of_two_operands_names_the_operand_that_settled_it() -> None:
    case = walked(
        """
        int f(int a, int b)
        {
            if (a < 0 ||
                b > 4)
                return -EINVAL;
            return 0;
        }
        """,
        """
        f:
            test edi, edi   ; 3
            js .bad         ; 3
        .second:
            cmp esi, 4      ; 4
            jg .bad         ; 4
            xor eax, eax    ; 6
            ret             ; 7
        .bad:
            mov eax, -22    ; 5
            ret             ; 7
        """,
        {"f": 100, "f.second": 90, "f.bad": 90},
    )
    assert case.condition == ("b > 4", True)


def test_the_wrappers_around_a_system_calls_body_are_passed_over() -> None:
    """SYSCALL_DEFINE's wrappers have the body inlined, and no statement of their own."""
    case = walked(
        """
        SYSCALL_DEFINE1(frob, int, a)
        {
            if (a == 3)
                return -EINVAL;
            return 0;
        }
        """,
        """
        f:
            cmp edi, 3      ; __do_sys_frob 3 < __se_sys_frob 1 < 1
            je .bad         ; __do_sys_frob 3 < __se_sys_frob 1 < 1
            xor eax, eax    ; __do_sys_frob 5 < __se_sys_frob 1 < 1
            ret             ; 1
        .bad:
            mov eax, -22    ; __do_sys_frob 4 < __se_sys_frob 1 < 1
            ret             ; 1
        """,
        {"f": 100, "f.bad": 90},
    )
    assert (case.site, case.condition) == ("return -EINVAL;", ("a == 3", True))


def test_an_error_pointer_is_followed_to_its_errno() -> None:
    case = walked(
        """
        int f(int a)
        {
            struct item *p = ERR_PTR(-EINVAL);

            if (!a)
                p = get();
            if (IS_ERR(p))
                return PTR_ERR(p);
            return 0;
        }
        """,
        """
        f:
            test edi, edi   ; 5
            jne .bad        ; 5
        .get:
            call get        ; 6
        .test:
            cmp rax, -4096  ; 7
            ja .out         ; 7
            xor eax, eax    ; 9
        .out:
            ret             ; 10
        .bad:
            mov rax, -22    ; 3
            jmp .test       ; 7
        get:
            mov rax, [rdi]  ; 20
            ret             ; 20
        """,
        {"f": 100, "f.bad": 90, "f.test": 80, "f.out": 80},
    )
    assert (case.site, case.condition) == ("struct item *p = ERR_PTR(-EINVAL);", ("a", True))


def test_a_condition_off_the_machines_deciding_jump_does_not_agree() -> None:
    """Source that cannot explain the jump's lines is still used, but is told from source that does."""
    case = walked(
        PLAIN,
        """
        f:
            test edi, edi   ; 5
            js .bad         ; 5
            xor eax, eax    ; 6
            ret             ; 7
        .bad:
            mov eax, -22    ; 4
            ret             ; 7
        """,
        {"f": 100, "f.bad": 90},
    )
    assert case.verdict is not None
    assert not case.verdict.agrees


def test_without_source_there_is_no_verdict_of_it() -> None:
    kernel = ToyKernel("f:\ntest edi, edi ; 3\njs .bad ; 3\nret ; 4\n.bad:\nmov eax, -22 ; 4\nret ; 5")
    tree = gather([((kernel.at["f"],), 100)], kernel.at["f"], set(), Symbols(kernel.owner_of, kernel.graph))
    located = candidates(Inference(kernel.graph, 22, False).solve(tree.root))[0]
    flow = Sources(None).flow
    assert walk_source(kernel, flow, located, decide(located), ("EINVAL", 22)) is None


def test_source_that_never_names_the_errno_has_no_verdict() -> None:
    """The errno came from a macro's body or a table: the debug lines have to do."""
    case = walked(
        "int f(int a)\n{\n    if (a)\n        return MACRO_ERROR;\n    return 0;\n}\n",
        "f:\ntest edi, edi ; 3\njne .bad ; 3\nxor eax, eax ; 5\nret ; 6\n.bad:\nmov eax, -22 ; 4\nret ; 6",
        {"f": 100, "f.bad": 90},
    )
    assert case.verdict is None


def test_a_condition_whose_load_was_hoisted_did_not_decide() -> None:
    """Its line ran, before the condition that stands above it; the machine's deciding jump is the other's."""
    case = walked(
        """
        int f(int a, int *b)
        {
            if (a < 0)
                return -EINVAL;
            if (*b)
                return -EINVAL;
            return 0;
        }
        """,
        """
        f:
            mov ecx, [rsi]  ; 5
            test edi, edi   ; 3
            js .bad         ; 3
        .second:
            test ecx, ecx   ; 5
            jne .bad        ; 5
            xor eax, eax    ; 7
            ret             ; 8
        .bad:
            mov eax, -22    ; 8
            ret             ; 8
        """,
        {"f": 100, "f.bad": 90},
    )
    assert (case.condition, case.verdict is not None and case.verdict.site.line) == (("a < 0", True), 4)


def test_where_the_deciding_jump_has_no_line_the_lines_that_ran_tell() -> None:
    """Of two alike conditions, the one behind the statement that ran."""
    source = """
        int f(int mode, int a)
        {
            if (mode) {
                first();
                if (a < 0)
                    return -EINVAL;
            } else {
                second();
                if (a > 9)
                    return -EINVAL;
            }
            return 0;
        }
    """
    assembly = """
        f:
            test edi, edi   ; 3
            je .else        ; 3
            nop             ; 4
            test esi, esi   ; 0
            js .bad         ; 0
            jmp .out        ; 12
        .else:
            nop             ; 8
            cmp esi, 9      ; 0
            jg .bad         ; 0
        .out:
            xor eax, eax    ; 12
            ret             ; 13
        .bad:
            mov eax, -22    ; 13
            ret             ; 13
    """
    case = walked(source, assembly, {"f": 100, "f.else": 80, "f.bad": 90})
    assert (case.condition, case.verdict is not None and case.verdict.site.line) == (("a > 9", True), 10)


OUT_PARAMETER = """
    static void *take(int queue, struct arg *arg, int *err)
    {
        int error = -EINVAL;
        if (queue)
            return more(queue);
        error = -EAGAIN;
        if (arg->wait)
            error = -EINVAL;
        *err = error;
        return NULL;
    }
    int f(int queue, struct arg *arg)
    {
        int err = -EINVAL;
        void *found = take(queue, arg, &err);
        if (!found)
            return err;
        return 0;
    }
"""
OUT_PARAMETER_CODE = """
    f:
        sub rsp, 16         ; 14
        mov [rsp+4], -22    ; 14
        lea rdx, [rsp+4]    ; 15
    .call:
        call take           ; 15
    .behind:
        test rax, rax       ; 16
        jne .found          ; 16
    .none:
        mov eax, [rsp+4]    ; 17
        add rsp, 16         ; 17
        ret                 ; 17
    .found:
        xor eax, eax        ; 18
        add rsp, 16         ; 18
        ret                 ; 18
    take:
        test edi, edi       ; 4
        jne .next           ; 4
    .empty:
        mov eax, -22        ; 8
        cmp [rsi+8], 0      ; 7
        jne .store          ; 7
    .no_wait:
        mov eax, -11        ; 6
    .store:
        mov [rdx], eax      ; 9
        xor eax, eax        ; 10
        ret                 ; 10
    .next:
        call more           ; 5
        ret                 ; 5
    more:
        ret                 ; 1
"""


def test_an_errno_that_a_callee_left_in_a_variable_of_its_caller_is_found_in_the_callee() -> None:
    """`*err = error` in take(), reached through `&err` in f(), by what ran in take()."""
    ran = {"f": 50, "f.none": 50, "take < f.call": 60, "take.empty < f.call": 60, "take.store < f.call": 60}
    case = walked(OUT_PARAMETER, OUT_PARAMETER_CODE, ran)
    assert [call.node.name for call in case.located.calls] == ["f", "take"]
    assert (case.site, case.condition) == ("error = -EINVAL;", ("arg->wait", True))


def test_a_variable_that_the_callee_left_alone_keeps_what_its_caller_put_in() -> None:
    """take() found something: the errno is the caller's own."""
    source = OUT_PARAMETER.replace("if (!found)", "if (found)")
    code = OUT_PARAMETER_CODE.replace("jne .found", "je .found")
    ran = {"f": 50, "f.none": 50, "take < f.call": 60, "take.next < f.call": 60, "more < take.next < f.call": 60}
    case = walked(source, code, ran)
    assert [call.node.name for call in case.located.calls] == ["f"]
    assert case.site == "int err = -EINVAL;"
