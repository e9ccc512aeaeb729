"""The verdict of an execution log, in the form that a sampled one has."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from profiler.conclude.places import Code
from profiler.graph import Executed
from profiler.infer import calltree, evidence, exact, verdict
from profiler.infer.verdict import Located, SolvedCall
from profiler.infer.walks import Walks
from profiler.model import EvidenceNote, ExecutionLog

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
    entry = exact.Entry(kernel, question.number, code.symbol(question.function), dispatchers)
    linked = ExecutionLog(log.address - np.uint64(question.offset), log.registers, log.flags)
    symbols = calltree.Symbols(code.owner_of, code.graph)
    paths = exact.examine(exact.Logged(linked, code.executed, symbols, code.graph), entry, question.errno)
    if not paths:
        return None
    for path in paths:
        calltree.graft(sampled, path.root)
    whole = sum(path.calls for path in paths)
    found = [_located(path, path.calls / whole) for path in paths]
    others = _others(found, paths[0], entry, question.errno, code)
    return Answer(tuple(paths), [*found, *others], time.monotonic() - started)


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
    found: list[Located], path: exact.Exact, entry: exact.Entry, errno: int, code: RunningCode
) -> list[Located]:
    if path.root.entry != entry.function:
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


def says(answer: Answer) -> EvidenceNote:
    path = answer.paths[0]
    text = (
        f"{sum(path.results.values())} whole calls were logged instruction by instruction, {path.calls} of them fail "
        f"on this path ({path.instructions} instructions in the kernel)"
    )
    return EvidenceNote("exact", text, len(answer.candidates) - len(answer.paths), round(answer.seconds, 3))
