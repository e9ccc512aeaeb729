"""The verdict of an execution log, in the form that a sampled one has."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from profiler.conclude.places import Code
from profiler.graph import Executed
from profiler.infer import calltree, evidence, exact, execution, probing, verdict
from profiler.infer.probed import Probed, put_together
from profiler.infer.verdict import Located, SolvedCall
from profiler.infer.walks import Walks
from profiler.model import EvidenceNote, ExecutionLog, ProbeHits

_KERNEL_ENTRIES = {"x86_64": "entry_SYSCALL_64"}  # where the `syscall` instruction leads
# What may refuse a call before its own function is entered (seccomp, unknown numbers), the innermost first.
_DISPATCHERS = ("x64_sys_call", "do_syscall_64")


class RunningCode(Code, Protocol):
    def symbol(self, name: str) -> int | None: ...
    def owner_of(self, address: int) -> tuple[str, int, int] | None: ...
    def executed(self, address: int) -> Executed | None: ...


@dataclass(frozen=True, slots=True)
class Question:
    """Which calls of the log are meant; addresses in the log are `offset` above those of the code."""

    arch: str
    number: int
    errno: int
    function: str  # the system call's entry function
    offset: int


@dataclass(frozen=True, slots=True)
class Answer:
    """The paths of the failing calls that end in different places, the most frequent first. `candidates`: these, and
    behind them every other place in the functions that ran, with a probability of zero."""

    paths: tuple[exact.Exact, ...]
    candidates: list[Located]
    seconds: float


def locate(log: ExecutionLog, question: Question, code: RunningCode, sampled: calltree.CallNode) -> Answer | None:
    """None where the log holds no whole call that failed so, or does not show where its errno came from.

    The samples of the tree `sampled` are shown with the path; they weigh nothing against it.
    """
    started = time.monotonic()
    kernel = code.symbol(_KERNEL_ENTRIES.get(question.arch, ""))
    if kernel is None:
        return None
    dispatchers = tuple(address for name in _DISPATCHERS if (address := code.symbol(name)) is not None)
    function = code.symbol(question.function)
    entry = exact.Entry(kernel, question.number, function, dispatchers)
    linked = ExecutionLog(log.address - np.uint64(question.offset), log.registers, log.flags)
    symbols = calltree.Symbols(code.owner_of, code.graph)
    logged = exact.Logged(linked, code.executed, symbols, code.graph, offset=question.offset)
    paths = exact.examine(logged, entry, question.errno)
    return _answer(paths, function, question.errno, code, sampled, started)


def _answer(
    paths: list[exact.Exact],
    function: int | None,
    errno: int,
    code: RunningCode,
    sampled: calltree.CallNode,
    started: float,
) -> Answer | None:
    if not paths:
        return None
    for path in paths:
        calltree.graft(sampled, path.root)
    whole = sum(path.calls for path in paths)
    found = [_located(path, path.calls / whole) for path in paths]
    others = _others(found, paths[0], function, errno, code)
    return Answer(tuple(paths), [*found, *others], time.monotonic() - started)


@dataclass(frozen=True, slots=True)
class Seen:
    """What one round of probes saw: its hits, addresses as linked, and the failing calls put together."""

    hits: ProbeHits
    probed: Probed
    paths: tuple[exact.Exact, ...]


def see(hits: ProbeHits, question: Question, code: RunningCode) -> Seen:
    """Of one round of probes. Raises LookupError where the kernel has no such system call."""
    function = code.symbol(question.function)
    if function is None:
        raise LookupError(question.function)
    offset = question.offset
    linked = replace(
        hits,
        address=hits.address - np.uint64(offset),
        attached=frozenset(address - offset for address in hits.attached),
        refused={address - offset: why for address, why in hits.refused.items()},
    )
    symbols = calltree.Symbols(code.owner_of, code.graph)
    found = put_together(linked, function, question.errno, code.executed, symbols, offset)
    logged = exact.Logged(found.log, code.executed, symbols, code.graph, found.unseen, found.frames_of, offset)
    return Seen(linked, found, tuple(exact.origins(logged, found.calls, question.errno, _outermost)))


def _outermost(frame: execution.Frame) -> execution.Frame:
    return list(frame.outwards())[-1]


def locate_probed(
    rounds: Sequence[ProbeHits], question: Question, code: RunningCode, sampled: calltree.CallNode
) -> Answer | None:
    """Of the last round of probes that shows where the errno came from; None where none does."""
    started = time.monotonic()
    function = code.symbol(question.function)
    for hits in reversed(rounds if function is not None else ()):
        answer = _answer(list(see(hits, question, code).paths), function, question.errno, code, sampled, started)
        if answer is not None:
            return answer
    return None


def _located(path: exact.Exact, share: float) -> Located:
    """The path as a candidate."""
    calls: list[SolvedCall] = []
    for node, level in zip(reversed(path.chain), reversed(path.levels), strict=True):
        samples = evidence.assign(level.graph, node.own, calltree.counts_by_return_address(node))
        walks = Walks(level.slicer, {}, {}, {}, (level.graph.entry, 0))
        callees = {level.origin.address: [calls[-1]]} if calls else {}
        calls.append(SolvedCall(node, level.graph, walks, samples, 0.0, callees))
    return Located(tuple(reversed(calls)), path.origin, share, path.levels)


def _others(
    found: list[Located], path: exact.Exact, function: int | None, errno: int, code: RunningCode
) -> list[Located]:
    if path.root.entry != function:
        return []  # what dispatches system calls returns nothing
    weighed = verdict.candidates(verdict.Inference(code.graph, errno, emulated=True).solve(path.root))
    known = {(located.calls[-1].node.entry, located.origin.address) for located in found}
    return [
        replace(other, probability=0.0)
        for other in weighed
        if (other.calls[-1].node.entry, other.origin.address) not in known
    ]


def other_outcomes(answer: Answer, code: Code) -> list[str]:
    """Warnings where the logged calls did not all end alike."""
    warnings = []
    if len(answer.paths) > 1:
        whole = sum(path.calls for path in answer.paths)
        shares = ", ".join(f"{path.calls / whole:.0%} at {code.name(path.origin.address)}" for path in answer.paths)
        warnings.append(f"the failing calls that were logged come from {len(answer.paths)} places: {shares}")
    results = answer.paths[0].results
    if len(results) > 1:
        spread = ", ".join(f"{result}: {count}" for result, count in results.most_common())
        warnings.append(f"the calls that were logged return different values ({spread})")
    return warnings


def probes_say(answer: Answer, rounds: Sequence[ProbeHits], errno: int, name: Callable[[int], str]) -> EvidenceNote:
    path, hits = answer.paths[0], rounds[-1]
    probes = len(set().union(*(one.attached for one in rounds)))
    text = (
        f"{probes} instructions were probed in {len(rounds)} round{'s' if len(rounds) > 1 else ''}, "
        f"{sum(path.results.values())} whole calls seen, {path.calls} of them fail on this path"
    )
    failing = probing.failing_functions(rounds[0], errno)
    if failing:
        deepest = name(failing[0]).removesuffix("+0x0")
        text += f"; of the functions whose return was probed the deepest to return the errno is {deepest}()"
    if hits.lost:
        text += f"; {hits.lost} hits were lost"
    return EvidenceNote("probes", text, len(answer.candidates) - len(answer.paths), round(answer.seconds, 3))


def unprobed(answer: Answer, code: Code) -> str:
    """Where the path ends, and why, of an answer that does not show where the errno came from."""
    path = answer.paths[0]
    callees = ", ".join(f"{code.name(entry).removesuffix('+0x0')}()" for entry in sorted(path.unseen))
    return f"in {path.chain[-1].name}() the errno comes from {callees or 'a call'}, which cannot be probed"


def says(answer: Answer) -> EvidenceNote:
    path = answer.paths[0]
    text = (
        f"{sum(path.results.values())} whole calls were logged instruction by instruction, {path.calls} of them fail "
        f"on this path ({path.instructions} instructions in the kernel)"
    )
    return EvidenceNote("exact", text, len(answer.candidates) - len(answer.paths), round(answer.seconds, 3))
