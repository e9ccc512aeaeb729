"""Candidates crossed out by what ran."""

from __future__ import annotations

from profiler.conclude.crossing_out import Ran, cross_out, of_addresses
from profiler.model import ErrorSite, SourceCandidate, SourceLocation

VIA = ["__do_sys_bind", "inet_bind", "get_port"]
SITE = ErrorSite("get_port", "net/port.c", 30, "", "return -EADDRINUSE;")


def candidate(line: int = 30, condition_line: int = 29, via: list[str] = VIA) -> SourceCandidate:
    return SourceCandidate(ErrorSite(via[-1], "net/port.c", line, "", None), "x", condition_line, via)


def crossed(one: SourceCandidate, ran: Ran, site: ErrorSite | None = None, lines: set[int] | None = None) -> str:
    code = {("net/port.c", line) for line in lines or ()}
    (told,) = cross_out([one], {"exact": ran}, site, has_code=lambda name: name != "inlined", lines_of_code=code)
    assert bool(told.excluded_by) == bool(told.reason)
    assert told.excluded_by in ("", "exact")
    return told.reason


def test_a_place_in_a_function_that_was_not_called_is_out() -> None:
    ran = Ran(frozenset(["inet_bind"]))
    assert crossed(candidate(), ran) == "get_port() was not called"
    assert crossed(candidate(via=["__do_sys_bind", "inet_bind"]), ran) == ""
    assert crossed(candidate(via=["__do_sys_bind", "get_port", "inlined"]), ran) == "get_port() was not called"


def test_a_place_in_a_function_that_ran_stays_though_the_listed_way_to_it_did_not_run() -> None:
    """The list has the shortest way; there may be others."""
    assert crossed(candidate(via=["__do_sys_bind", "other_way", "inet_bind"]), Ran(frozenset(["inet_bind"]))) == ""
    assert crossed(candidate(via=["__do_sys_bind", "other", "inlined"]), Ran(frozenset(["inlined"]))) == ""


def test_absence_proves_nothing_where_evidence_misses_some_or_a_function_has_no_code_of_its_own() -> None:
    assert crossed(candidate(), Ran(frozenset(["inet_bind"]), complete=False)) == ""
    assert crossed(candidate(via=["__do_sys_bind", "inlined"]), Ran(frozenset())) == ""


def test_a_line_that_has_code_and_did_not_run_is_out_and_one_whose_condition_did_not_stays() -> None:
    """Of conditions compilers move too much: in 5 of 20 logged calls that of the true place had not run."""
    ran = Ran(frozenset(VIA), frozenset([("net/port.c", 28)]))
    assert crossed(candidate(), ran, lines={28, 29, 30}) == "line 30 did not run"
    assert crossed(candidate(), ran, lines={28, 29}) == ""
    assert crossed(candidate(), Ran(frozenset(VIA)), lines={29, 30}) == ""


def test_the_place_that_the_verdict_names_is_left_in() -> None:
    assert crossed(candidate(), Ran(frozenset()), site=SITE) == ""


def test_the_first_rung_that_knows_is_named_and_an_earlier_one_stays() -> None:
    rungs = {"samples": Ran(frozenset(), complete=False), "graph": Ran(frozenset()), "exact": Ran(frozenset())}
    (told,) = cross_out([candidate()], rungs, None, has_code=lambda name: True)
    assert told.excluded_by == "graph"
    (same,) = cross_out([told], {"exact": Ran(frozenset())}, None, has_code=lambda name: True)
    assert same == told


def test_functions_that_were_inlined_ran_with_their_instructions() -> None:
    class Code:
        def frames(self, address: int) -> tuple[SourceLocation, ...]:
            return (SourceLocation("inner", "a.h", address), SourceLocation("outer", "b.c", 7))

    ran = of_addresses(Code(), [1, 2], complete=True)
    assert ran.functions == {"inner", "outer"}
    assert ran.lines == {("a.h", 1), ("a.h", 2), ("b.c", 7)}
