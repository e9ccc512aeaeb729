"""Which rung comes next while a recording goes on: what has been recorded is looked at, and decides.

Samples are weighed first. What runs exactly, by an emulator's log or by probes, then confirms them or names another
place; at last the values of the deciding condition are read.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from profiler import recording
from profiler.case import Case, case_of, no_samples, read_samples
from profiler.conclude import annotate, exactly, operands
from profiler.conclude.analysis import Concluded, Subject, question
from profiler.debuginfo import trace_sites
from profiler.debuginfo.vmlinux import Vmlinux
from profiler.errors import ProfilerError
from profiler.evidence import GRAPH, PROBES
from profiler.explain import source_half
from profiler.following import ENOUGH, Answer, Look, Step
from profiler.infer import between
from profiler.infer.probing import Planner, Round
from profiler.model import Conclusion, Kernel, KernelId, LoadResult, ProbeHits
from profiler.parse import probe_hits
from profiler.request import RunRequest, errno_number, modules_for

_GRAPH_CALLS, _GRAPH_SECONDS = 16, 1.0
_MOST_ROUNDS = 10
_PROBED_SECONDS, _PROBED_ROWS = 0.5, 12_000
_OPERAND_SECONDS, _OPERAND_HITS = 0.5, 8
_LIKELY = 0.02  # probability of a place, from which on its functions are probed
_MOST_LIKELY = 4


@dataclass(slots=True)
class _Probing:
    """The rounds of probes so far."""

    asked: list[Round] = field(default_factory=list)
    hits: list[ProbeHits] = field(default_factory=list)
    is_over: bool = False


class Ladder:
    """Follows one recording of `request`; `taken` are the rungs it may take."""

    def __init__(
        self, request: RunRequest, kernel: Kernel, taken: frozenset[str], *, emulated: bool, ours: bool
    ) -> None:
        self._request = request
        self._kernel = kernel
        self._taken = taken
        self._emulated = emulated
        self._ours = ours  # a guest of our own, where settings may be changed
        self._case: Case | None = None
        self._code_digest = b""
        self._probing = _Probing(is_over=PROBES not in taken)
        self._has_values = False

    def orders(self) -> list[dict[str, Any]]:
        """What is to be done before anything is sampled."""
        if GRAPH not in self._taken:
            return []
        entry = question(self._subject(0)).function
        order = {"do": "graph", "function": entry, "calls": _GRAPH_CALLS, "seconds": _GRAPH_SECONDS}
        return [{**order, **traced}] if (traced := self._functions_to_trace(entry)) is not None else []

    def _functions_to_trace(self, entry: str) -> Step | None:
        """Those that lead to places which can produce the errno; all, where the source is not at hand. To trace all
        functions of a kernel takes seconds of patching in an emulated guest. None where the kernel has no `entry`."""
        try:
            request = self._request
            modules = modules_for(request)
            listed = source_half(self._kernel, request.syscall, request.errno, modules=modules)
            assert self._kernel.vmlinux is not None
            with Vmlinux(self._kernel.vmlinux) as vmlinux:
                names = {name for found in listed.candidates for name in (found.site.function, *found.via)}
                functions, sites = trace_sites.chosen(vmlinux, {entry, *names})
        except ProfilerError:
            return {}
        return {"functions": functions, "sites": sites} if entry in functions else None

    def case_of(self, directory: Path) -> Case | None:
        """The finished recording's case, with what the looks found out about the kernel's code; None where there was
        no look, or the code is not what it was then."""
        if self._case is None or self._code_digest != _code_digest(directory):
            return None
        return self._case.of_finished(directory, self._kernel)

    def next_step(self, look: Look) -> Step | None:
        """None: go on as before. If anything is wrong with what was recorded, the analysis of the whole says it."""
        try:
            return self._next_step(look)
        except (ProfilerError, LookupError):
            self._probing.is_over = True
            return None

    def _next_step(self, look: Look) -> Step | None:
        if look.answer is not None and look.answer.word == "operands":
            return ENOUGH  # they are asked for when all else is decided
        case = self._opened(look)
        if look.answer is not None and look.answer.word == PROBES:
            step = self._after_probes(case, look.answer)
            if step is not None:
                return step
        path = look.directory / recording.PERF_DATA
        data = read_samples(path, salvage=True) if path.exists() else no_samples()
        concluded = case.conclude(data, look.execution, self._probing.hits)
        if not self._is_sure(concluded, look):
            return None if self._probing.is_over else self._first_probes(case, concluded)
        return self._values(case, concluded) or ENOUGH

    def _is_sure(self, concluded: Concluded, look: Look) -> bool:
        """Samples alone are not, where what runs can be seen exactly in less time than they took. Of what was seen so,
        more of the same makes nobody surer."""
        analysis = concluded.analysis
        executed = concluded.best is not None and concluded.best.is_executed
        if analysis.conclusion is not Conclusion.NAMED:
            return False
        if analysis.confidence < self._request.confidence and not executed:
            return False
        return self._probing.is_over or look.execution is not None

    # ---- probes ----

    def _first_probes(self, case: Case, concluded: Concluded) -> Step | None:
        root = case.code.symbol(question(case.subject, case.code).function)
        if root is None:
            self._probing.is_over = True
            return None
        likely: dict[int, set[int]] = {root: set()}
        for located in list(concluded.weighed)[:_MOST_LIKELY]:
            if located.probability >= _LIKELY:
                for call, walked in annotate.walked_blocks(located):
                    sampled = {start for start, count in call.samples.own.items() if count}
                    likely.setdefault(call.node.entry, set()).update(walked | sampled)
        return self._order(case, self._planner(case).first(likely, concluded.ran))

    def _after_probes(self, case: Case, answer: Answer) -> Step | None:
        """The next round, or None when there is none."""
        probing = self._probing
        if answer.problem:
            probing.is_over = True
            return None
        hits = probe_hits.read(answer.file("json").read_bytes(), answer.file("bin").read_bytes())
        probing.hits.append(hits)
        asked = question(case.subject, case.code)
        seen = exactly.see(hits, asked, case.code)
        path = seen.paths[0] if seen.paths else None
        following = self._planner(case).next(probing.asked[-1], seen.hits, seen.probed, path, asked.errno)
        if following is None or len(probing.asked) >= _MOST_ROUNDS:
            probing.is_over = True
            return None
        return self._order(case, following)

    def _planner(self, case: Case) -> Planner:
        code = case.code

        def function_of(address: int) -> int | None:
            found = code.owner_of(address)
            return found[1] if found is not None else None

        return Planner(code.graph, function_of, lambda block: between.points(block, code.executed))

    def _order(self, case: Case, wanted: Round) -> Step:
        self._probing.asked.append(wanted)
        offset = case.subject.kaslr_offset
        probes = [{"address": address + offset, "return": False} for address in sorted(wanted.instructions)]
        probes += [{"address": address + offset, "return": True} for address in sorted(wanted.returns)]
        return {
            **{"do": "probes", "probes": probes, "seconds": _PROBED_SECONDS, "rows": _PROBED_ROWS},
            "ours": self._ours,
        }

    # ---- the values of the deciding condition ----

    def _values(self, case: Case, concluded: Concluded) -> Step | None:
        branch = concluded.analysis.branch
        if self._has_values or PROBES not in self._taken or branch is None or concluded.jump is None:
            return None
        self._has_values = True
        planned = operands.plan(case.code, branch, concluded.jump, case.source)
        points = planned.points(case.subject.kaslr_offset) if planned is not None else []
        if not points:
            return None
        return {
            **{"do": "operands", "points": [asdict(point) for point in points]},
            **{"seconds": _OPERAND_SECONDS, "hits": _OPERAND_HITS, "ours": self._ours},
        }

    # ---- the case ----

    def _opened(self, look: Look) -> Case:
        if self._case is None:
            self._case = case_of(look.directory, self._kernel, self._subject(look.load_pid))
            self._code_digest = _code_digest(look.directory)
        return self._case

    def _subject(self, load_pid: int) -> Subject:
        request, kernel = self._request, self._kernel
        return Subject(
            syscall=request.syscall,
            errno=request.errno,
            errno_number=errno_number(request.errno),
            kernel=KernelId(kernel.release, kernel.package_version, kernel.build_id, kernel.arch),
            kaslr_offset=0,
            emulated=self._emulated,
            manifest=None,
            load=LoadResult(0, 0.0, {}, load_pid, ""),
        )


def _code_digest(directory: Path) -> bytes:
    """Of what was recorded of the code that ran."""
    digest = hashlib.sha256()
    for name in (recording.KERNEL_TEXT, recording.MODULES, recording.MODULES_TEXT):
        path = directory / name
        digest.update(hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b"none")
    return digest.digest()
