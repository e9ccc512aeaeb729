"""Machine places in source terms: chains, sites, annotated functions, and why candidates are out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from profiler.conclude import annotate, places, words
from profiler.conclude.sources import Sources
from profiler.infer.calltree import Symbols, gather
from profiler.infer.verdict import Inference, Located, candidates, decide
from profiler.model import Branch, ChainLink, SourceLocation
from tests.unit.toy_kernel import FILE, ToyKernel
from tests.unit.toy_recording import ToySource, addresses_of

KERNEL = ToyKernel("""
    __x64_sys_frob:
        nop             ; __do_sys_frob 21 < __se_sys_frob 20 < 20
    .call:
        call do_frob    ; helper 7 < __do_sys_frob 22 < __se_sys_frob 20 < 20
        ret             ; 20
    do_frob:
        test edi, edi   ; 3
        js .bad         ; inner 33 < 4
    .on:
        test esi, esi   ; 8
        js .other       ; 8
    .call:
        call leaf       ; 10
        ret             ; 11
    .other:
        mov eax, -22    ; 9
        ret             ; 11
    .bad:
        mov eax, -22    ; 5
        ret             ; 11
    leaf:
        nop             ; 40
        mov eax, -22    ; 41
        ret             ; 42
""")
SAMPLES = {
    "__x64_sys_frob": 50,
    "do_frob < __x64_sys_frob.call": 60,
    "do_frob.bad < __x64_sys_frob.call": 55,
}


def found(samples: Mapping[str, int]) -> list[Located]:
    chains = sorted((addresses_of(KERNEL, place), count) for place, count in samples.items())
    tree = gather(chains, KERNEL.at["__x64_sys_frob"], set(), Symbols(KERNEL.owner_of, KERNEL.graph))
    return candidates(Inference(KERNEL.graph, 22, False).solve(tree.root))


def test_the_chain_names_inlined_functions_but_not_the_calling_convention() -> None:
    """Each link says where it was called from; SYSCALL_DEFINE's wrappers stand for one function."""
    best = found(SAMPLES)[0]
    assert places.chain_of(KERNEL, best.calls, places.site_address(best)) == [
        ChainLink("__x64_sys_frob", FILE, 0, False, ""),
        ChainLink("helper", FILE, 22, True, ""),
        ChainLink("do_frob", FILE, 7, False, KERNEL.name(KERNEL.at["__x64_sys_frob.call"])),
    ]


def test_the_site_is_the_line_of_the_constant_and_the_branch_that_of_the_jump() -> None:
    best = found(SAMPLES)[0]
    site = places.machine_site(KERNEL, best)
    assert (site.function, site.line, site.address) == ("do_frob", 5, KERNEL.name(KERNEL.at["do_frob.bad"]))
    decision = decide(best)
    assert decision is not None
    branch = places.machine_branch(KERNEL, decision)
    assert (branch.function, branch.line, branch.inlined_from) == ("inner", 33, [SourceLocation("do_frob", FILE, 4)])
    assert (branch.condition, branch.outcome) == (None, None)


def test_the_site_of_a_silent_callee_is_the_call() -> None:
    silent = next(c for c in found(SAMPLES) if c.origin.address == KERNEL.at["do_frob.call"])
    assert places.machine_site(KERNEL, silent).line == 10


def test_code_without_lines_is_named_by_its_symbol() -> None:
    kernel = ToyKernel("f:\ntest edi, edi\njs .bad\nxor eax, eax\nret\n.bad:\nmov eax, -22\nret")
    tree = gather([((kernel.at["f"],), 60)], kernel.at["f"], set(), Symbols(kernel.owner_of, kernel.graph))
    best = candidates(Inference(kernel.graph, 22, False).solve(tree.root))[0]
    site = places.machine_site(kernel, best)
    assert (site.function, site.file, site.line) == ("f", "", 0)
    assert places.chain_of(kernel, best.calls, places.site_address(best)) == [ChainLink("f", "", 0, False, "")]


def test_each_candidate_that_is_out_has_its_own_reason() -> None:
    """By what was sampled: nothing of it, too little of a callee, or code that ran and led elsewhere."""
    samples = {**SAMPLES, "do_frob.on < __x64_sys_frob.call": 3}
    best, *others = found(samples)
    reasons = {places.machine_site(KERNEL, other).line: words.excluded_by(KERNEL, other, best) for other in others}
    assert set(reasons) == {9, 10}
    assert reasons[9].startswith("never sampled, ")
    assert reasons[10] == "leaf() has 0 samples from this call, and its return value is not the one returned"


def test_a_log_says_whether_a_callee_was_called() -> None:
    """Where the call was logged, a callee is out by that, not by a count of samples that nobody took."""
    best, *others = found({**SAMPLES, "do_frob.on < __x64_sys_frob.call": 3})
    out = next(other for other in others if places.machine_site(KERNEL, other).line == 10)
    out.calls[-1].node.executed = Counter()
    assert words.excluded_by(KERNEL, out, best) == "leaf() was not called in the call that was logged"
    out.calls[-1].node.executed = Counter({out.origin.address: 1})
    said = words.excluded_by(KERNEL, out, best)
    assert said == "leaf() was called in the call that was logged, but the value returned is not its"


def test_code_that_ran_beside_the_path_is_said_to_have_run() -> None:
    best, *others = found({**SAMPLES, "do_frob.other < __x64_sys_frob.call": 1})
    out = next(other for other in others if places.machine_site(KERNEL, other).line == 9)
    assert words.excluded_by(KERNEL, out, best).startswith("its code ran (1 samples), but")


def test_places_are_told_once_each() -> None:
    located = found(SAMPLES)
    assert [site.line for site in words.places(KERNEL, located * 2, 0.0)] == [
        places.machine_site(KERNEL, one).line for one in located
    ]
    assert [site.line for site in words.places(KERNEL, located, 0.5)] == [5]


SOURCE = ToySource("\n".join(f"line {number}" for number in range(1, 60)))


def test_lines_on_the_path_are_told_from_lines_with_code_and_lines_without() -> None:
    best = found(SAMPLES)[0]
    addresses = np.array([KERNEL.at["do_frob"]] * 6 + [KERNEL.at["do_frob.bad"]] * 2, np.uint64)
    branch = Branch("inner", FILE, 33, "x", None, None, [SourceLocation("do_frob", FILE, 4)])
    site = places.machine_site(KERNEL, best)
    shown = annotate.annotate(KERNEL, Sources(SOURCE), best, KERNEL.histograms(addresses), site, branch)
    by_name = {function.function: function for function in shown}
    assert list(by_name) == ["__x64_sys_frob", "do_frob", "inner"]
    assert [by_name[name].inlined for name in by_name] == [False, False, True]
    lines = {line.line: line for line in by_name["do_frob"].lines}
    assert {number: line.on_path for number, line in lines.items() if line.on_path is not None} == {
        **{3: True, 4: True, 5: True, 11: True},
        **{8: False, 9: False, 10: False},
    }
    assert lines[6].on_path is None
    assert (lines[3].samples, lines[5].samples, lines[5].marks) == (6, 2, ["error-site"])
    assert lines[3].text == "line 3"
    assert [line.marks for line in by_name["inner"].lines if line.line == 33] == [["branch"]]


def test_without_source_lines_are_shown_by_number() -> None:
    best = found(SAMPLES)[0]
    shown = annotate.annotate(KERNEL, Sources(None), best, {}, None, None)
    assert {line.text for function in shown for line in function.lines} == {None}


def test_a_profile_shows_the_functions_with_the_most_samples_first() -> None:
    at = KERNEL.at
    addresses = np.array([at["leaf"]] * 5 + [at["do_frob"]] * 9 + [at["__x64_sys_frob"]], np.uint64)
    shown = annotate.profile(SOURCE, KERNEL.histograms(addresses), 2)
    assert [(function.function, function.samples) for function in shown] == [("do_frob", 9), ("leaf", 5)]
    assert all(line.on_path is None for function in shown for line in function.lines)
    (hot,) = [line for line in shown[0].lines if line.samples]
    assert (hot.line, hot.samples, hot.text) == (3, 9, "line 3")
