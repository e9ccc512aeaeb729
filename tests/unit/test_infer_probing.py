"""Rounds of probes on a toy kernel, run by a real CPU emulator: they end where an execution log says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest

from profiler.conclude import exactly
from profiler.infer import between
from profiler.infer.decision import breaks, last_choice
from profiler.infer.exact import Exact
from profiler.infer.probing import MOST_RETURNS, Planner, Round, failing_functions
from profiler.infer.slice import OriginKind
from profiler.model import ProbeHits
from tests.unit.test_infer_exact import examined
from tests.unit.test_infer_execution import FAULT
from tests.unit.toy_execution import HEAP, NOT_MAPPED, ToyMachine, toy
from tests.unit.toy_kernel import ToyKernel
from tests.unit.toy_probes import EINVAL, SYSCALL, hits_of, instructions, question

EFAULT = 14
_MOST = 10


def planner(kernel: ToyKernel) -> Planner:
    def function_of(address: int) -> int | None:
        found = kernel.owner_of(address)
        return found[1] if found is not None else None

    return Planner(kernel.graph, function_of, lambda block: between.points(block, kernel.executed))


@dataclass
class Rounds:
    """Rounds until there is nothing more to see, of a call that fails with `errno`."""

    kernel: ToyKernel
    words: tuple[int, ...] = ()
    errno: int = EINVAL
    refused: frozenset[int] = frozenset()
    registers: dict[str, int] = field(default_factory=dict)
    asked: list[Round] = field(default_factory=list)
    seen: list[exactly.Seen] = field(default_factory=list)

    def machine(self) -> ToyMachine:
        machine = ToyMachine(self.kernel)
        machine.write(HEAP, *self.words)
        assert machine.call(**{"rdi": HEAP, **self.registers}) == -self.errno
        return machine

    def run(self, first: Round | None = None) -> Rounds:
        plan = planner(self.kernel)
        wanted: Round | None = first or plan.first({self.kernel.at[SYSCALL]: set()})
        while wanted is not None:
            assert len(self.asked) < _MOST
            self.asked.append(wanted)
            self.seen.append(self._probed(wanted))
            last = self.seen[-1]
            path = last.paths[0] if last.paths else None
            wanted = plan.next(wanted, last.hits, last.probed, path, self.errno)
        return self

    def _probed(self, wanted: Round) -> exactly.Seen:
        refused = dict.fromkeys(self.refused & wanted.instructions, "EINVAL")
        hits = hits_of(self.machine(), wanted.instructions, returns=wanted.returns, refused=refused)
        return exactly.see(hits, question(self.errno), self.kernel)

    @property
    def path(self) -> Exact:
        (path,) = self.seen[-1].paths
        return path

    @property
    def true(self) -> Exact:
        (path,) = examined(self.kernel, self.machine(), self.errno)
        return path

    def functions(self, index: int) -> set[str]:
        """Those with probes in a round."""
        found = (self.kernel.function_at(address) for address in self.asked[index].instructions)
        return {held[0] for held in found if held is not None}


CHAIN = """
    __x64_sys_frob:
        push rbx
        call outer
        test eax, eax
        cdqe
        pop rbx
        ret
    outer:
        push rbx
        mov rbx, rdi
        call prepare
        test eax, eax
        jne .out
        mov rdi, rbx
        call inner
    .out:
        pop rbx
        ret
    prepare:
        xor eax, eax
        ret
    inner:
        cmp [rdi], 3
        jne .bad
        xor eax, eax
        ret
    .bad:
        mov eax, -22
        ret
"""
OUT_PARAMETER = """
    __x64_sys_frob:
        sub rsp, 24
        mov [rsp+8], 0
        mov rsi, rdi
        lea rdi, [rsp+8]
        call outer
        mov eax, [rsp+8]
        cdqe
        add rsp, 24
        ret
    outer:
        nop
        call fill
        nop
        ret
    fill:
        cmp [rsi], 3
        jne .bad
        ret
    .bad:
        mov [rdi], -22
        ret
"""
TAIL = """
    __x64_sys_frob:
        test rdi, rdi
        je .fine
        jmp handler
    .fine:
        xor eax, eax
        ret
    handler:
        cmp [rdi], 3
        jne other
        xor eax, eax
        ret
    other:
        nop
        mov rax, -22
        ret
"""
KEPT = """
    __x64_sys_frob:
        push r12
        mov r12d, -22
        cmp [rdi], 9
        je .out
        call check
        test eax, eax
        jne .out
        xor r12d, r12d
    .out:
        mov eax, r12d
        cdqe
        pop r12
        ret
    check:
        mov eax, [rdi+8]
        ret
"""
MADE_AGAIN = """
    __x64_sys_frob:
        call outer
        cdqe
        ret
    outer:
        call inner
        test eax, eax
        je .fine
        mov eax, -22
    .fine:
        ret
    inner:
        mov eax, -22
        ret
"""
LOOP = """
    __x64_sys_frob:
        push rbx
        push r12
        mov rbx, rdi
        mov r12d, 4
    .next:
        mov rdi, rbx
        call check
        test eax, eax
        js .out
        lea rbx, [rbx+8]
        sub r12d, 1
        jne .next
        xor eax, eax
    .out:
        cdqe
        pop r12
        pop rbx
        ret
    check:
        cmp [rdi], 7
        je .bad
        xor eax, eax
        ret
    .bad:
        mov eax, -22
        ret
"""
TOYS: dict[str, tuple[str, tuple[int, ...]]] = {
    "a callee's callee": (CHAIN, (5,)),
    "an out-parameter that a callee's callee writes": (OUT_PARAMETER, (5,)),
    "tail calls": (TAIL, (5,)),
    "an errno set early": (KEPT, (0, 5)),
    "an errno made anew of a callee's": (MADE_AGAIN, ()),
    "the third turn of a loop": (LOOP, (1, 2, 7, 4)),
}


@pytest.mark.parametrize("toy_kernel", TOYS)
def test_from_nothing_but_the_entry_rounds_end_at_the_origin_of_an_execution_log(toy_kernel: str) -> None:
    body, words = TOYS[toy_kernel]
    found = Rounds(toy(body), words).run()
    assert found.path.origin == found.true.origin
    assert [node.name for node in found.path.chain] == [
        node.name for node in found.true.chain if node.name not in ("entry_SYSCALL_64", "do_syscall_64")
    ]
    assert found.path.origin.kind == OriginKind.CONSTANT


def test_a_fixup_in_another_function_is_looked_into() -> None:
    body = (
        """
        __x64_sys_frob:
            call get_user
            test eax, eax
            cdqe
            ret
        get_user:
            nop
        .load:
            mov rdx, [rsi]
            xor eax, eax
            ret
        bad_get_user:
            nop
            mov eax, -14
            ret
        """
        + FAULT
    )
    kernel = toy(body, fixups={"get_user.load": "bad_get_user"})
    found = Rounds(kernel, errno=EFAULT, registers={"rsi": NOT_MAPPED}).run()
    assert found.path.origin == found.true.origin
    assert kernel.name(found.path.origin.address).startswith("bad_get_user")


def test_a_function_behind_a_pointer_is_looked_into() -> None:
    body = """
        __x64_sys_frob:
            mov rax, rsi
            call rax
            cdqe
            ret
        handler:
            nop
            mov eax, -22
            ret
    """
    kernel = toy(body)
    found = Rounds(kernel, registers={"rsi": kernel.at["handler"]}).run()
    assert found.path.origin == found.true.origin
    assert [node.name for node in found.path.chain] == [SYSCALL, "handler"]


def test_a_value_of_an_object_ends_in_its_reading_when_nothing_more_is_to_be_seen() -> None:
    kernel = toy("__x64_sys_frob:\nmov eax, [rdi+8]\nneg eax\ncdqe\nret")
    found = Rounds(kernel, (0, EINVAL)).run()
    assert found.path.origin == found.true.origin
    assert found.path.origin.kind == OriginKind.MEMORY


def test_the_round_behind_the_last_leaves_out_what_the_value_did_not_go_through() -> None:
    found = Rounds(toy(CHAIN), (5,)).run()
    assert "inner" in found.functions(-1)
    assert "prepare" not in found.functions(-1)


def test_where_everything_is_seen_at_once_there_is_no_second_round() -> None:
    kernel = toy(KEPT)
    found = Rounds(kernel, (9, 0)).run(Round(instructions(kernel, [SYSCALL, "check"])))
    assert len(found.asked) == 1
    assert found.path.origin == found.true.origin


SHARED_END = """
    __x64_sys_frob:
        cmp [rdi], 9
        je .bad
        cmp [rdi+8], 1
        je .fine
    .middle:
        nop
        cmp [rdi+16], 3
    .decides:
        je .fine
    .bad:
        mov rax, -22
        ret
    .fine:
        xor eax, eax
        ret
"""


def test_a_walk_with_a_hole_is_looked_into_though_the_errnos_origin_was_seen() -> None:
    """As of __set_cpus_allowed_ptr_locked() on 6.12, where three conditions lead to one errno: the samples named the
    wrong one of them, and the first round had no probes where the true one lies."""
    kernel = toy(SHARED_END)
    at = kernel.at
    guessed = planner(kernel).first({at[SYSCALL]: {at[SYSCALL], at["__x64_sys_frob.bad"]}})
    found = Rounds(kernel, (5, 5, 5)).run(guessed)
    assert found.seen[0].paths[0].origin == found.true.origin
    assert breaks(found.seen[0].paths[0].levels, last_choice(found.seen[0].paths[0].levels))
    decision = last_choice(found.path.levels)
    assert decision is not None
    assert decision.address == at["__x64_sys_frob.decides"]
    assert breaks(found.path.levels, decision) == []


def test_a_hole_that_refuses_probes_stays_one() -> None:
    kernel = toy(SHARED_END)
    at = kernel.at
    middle, bad, fine = (at[f"__x64_sys_frob.{label}"] for label in ("middle", "bad", "fine"))
    refused = {*range(middle, bad), *range(fine, fine + 8)}
    found = Rounds(kernel, (5, 5, 5), refused=frozenset(refused)).run()
    assert [depth for depth, _ in breaks(found.path.levels, last_choice(found.path.levels))] == [0]


def test_instructions_that_refuse_probes_are_asked_for_but_once() -> None:
    kernel = toy(CHAIN)
    inner = frozenset(address for address in instructions(kernel, ["inner"]))
    found = Rounds(kernel, (5,), refused=inner).run()
    assert found.path.origin.kind == OriginKind.CALL
    assert found.path.unseen == {kernel.at["inner"]}


# ---- the first round ----

BRANCHES = """
    __x64_sys_frob:
        test esi, esi
    .jumps:
        je .rare
        call outer
    .back:
        cdqe
        ret
    .rare:
        nop
        mov eax, -22
        jmp .back
    outer:
        xor eax, eax
        ret
"""


def names(kernel: ToyKernel, addresses: Iterable[int]) -> set[str]:
    return {kernel.name(address) for address in addresses}


def test_first_come_the_likely_blocks_and_the_beginnings_of_what_follows_them() -> None:
    kernel = toy(BRANCHES)
    entry = kernel.at[SYSCALL]
    wanted = planner(kernel).first({entry: {entry}})
    rare = kernel.at["__x64_sys_frob.rare"]
    behind = kernel.behind("__x64_sys_frob.jumps")
    points = between.points(kernel.graph(entry).blocks[entry], kernel.executed)
    assert wanted.instructions == {*points, rare, behind}


def test_of_a_function_without_likely_blocks_the_beginning_is_probed() -> None:
    kernel = toy(BRANCHES)
    wanted = planner(kernel).first({kernel.at[SYSCALL]: {kernel.at[SYSCALL]}, kernel.at["outer"]: set()})
    assert instructions(kernel, ["outer"]) <= wanted.instructions


def test_returns_are_probed_of_as_many_functions_as_there_is_room_for() -> None:
    kernel = toy(BRANCHES)
    wanted = planner(kernel).first({kernel.at[SYSCALL]: set()}, range(3 * MOST_RETURNS))
    assert wanted.returns == frozenset(range(MOST_RETURNS))


def test_the_deepest_function_to_return_the_errno_is_told_first_and_looked_into() -> None:
    """It was not among those probed: its return alone."""
    kernel = toy(CHAIN)
    returns = frozenset(kernel.at[name] for name in ("outer", "prepare", "inner"))
    found = Rounds(kernel, (5,)).run(Round(instructions(kernel, [SYSCALL]), returns))
    hits: ProbeHits = found.seen[0].hits
    assert failing_functions(hits, EINVAL) == [kernel.at["inner"], kernel.at["outer"]]
    assert {"outer", "inner"} <= found.functions(1)
    assert found.path.origin == found.true.origin


def test_a_function_that_returned_the_errno_is_kept_until_the_way_out_of_it_is_seen() -> None:
    """As copy_process() on 7.3, too long for the first round: left out of each second one, it took eight."""
    kernel = toy("""
        __x64_sys_frob:
            call copy
            cdqe
            ret
        copy:
            nop
            cmp [rdi], 9
            je .out
        .middle:
            nop
            mov eax, -22
            ret
        .out:
            xor eax, eax
            ret
    """)
    at = kernel.at
    begun = instructions(kernel, [SYSCALL]) | {at["copy"]}
    found = Rounds(kernel, (5,)).run(Round(frozenset(begun), frozenset({at["copy"]})))
    assert found.seen[0].paths[0].origin.kind == OriginKind.CALL
    assert {at["copy"], at["copy.middle"]} <= found.asked[1].instructions
    assert found.asked[1].returns == {at["copy"]}
    assert found.path.origin == found.true.origin
    assert len(found.asked) == 2


def test_an_error_pointer_is_a_failure_too() -> None:
    kernel = toy("""
        __x64_sys_frob:
            call make
            ret
        make:
            mov rax, -22
            ret
    """)
    machine = Rounds(kernel).machine()
    hits = hits_of(machine, (), returns=[kernel.at["make"]])
    assert failing_functions(hits, EINVAL) == [kernel.at["make"]]
    assert failing_functions(hits, EFAULT) == []
