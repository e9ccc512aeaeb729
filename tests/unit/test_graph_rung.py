"""The function graph rung: what it asks of the recorder, and what it concludes from what that leaves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from profiler.cli import main
from profiler.errors import RecordError
from profiler.graph_rung import GraphRequest, Trace, conclude, orders, read_trace
from profiler.request import RunRequest

DATA = Path(__file__).parents[1] / "data" / "function_graph" / "bind-7.3.txt"  # 20 calls that fail with EADDRINUSE
ENTRY = "__x64_sys_bind"


def request(scenario: str | None = "bind-eaddrinuse", calls: int = 32) -> GraphRequest:
    return GraphRequest(RunRequest("vm:7.3", scenario, "bind", "EADDRINUSE", [] if scenario else ["./repro"]), calls)


def recorded(
    directory: Path, *, report: dict[str, object] | None = None, results: dict[str, int] | None = None
) -> Path:
    """A directory as the recorder leaves it, with one trace."""
    shutil.copyfile(DATA, directory / "graph-0.txt")
    (directory / "graph-0.json").write_text(json.dumps(report or {"buffers": {}, "lost": 0, "warnings": []}))
    load = {"calls": 9, "seconds": 1.0, "results": results or {"EADDRINUSE": 9}, "pid": 7, "comm": "x"}
    (directory / "load.json").write_text(json.dumps(load))
    return directory


def succeeding_too(directory: Path) -> Path:
    """And a second trace, of calls that succeeded and went on to one more function."""
    text = DATA.read_text().replace("= -98", "= 0").replace("inet_bind()", "inet_bind_well()")
    (directory / "graph-1.txt").write_text(text)
    (directory / "graph-1.json").write_text(json.dumps({"buffers": {}, "lost": 0, "warnings": []}))
    return directory


def quiet(_phase: str, _fraction: float | None) -> None:
    pass


def test_a_scenario_that_can_succeed_is_traced_both_ways() -> None:
    both = orders(request(calls=5))
    assert [(order["do"], order["function"], order["calls"], order["variant"]) for order in both] == [
        ("graph", ENTRY, 5, "failing"),
        ("graph", ENTRY, 5, "succeeding"),
    ]


def test_a_program_of_ones_own_is_traced_once() -> None:
    assert [order["variant"] for order in orders(request(None))] == ["failing"]


def test_calls_are_compared_without_the_kernel_s_files(tmp_path: Path) -> None:
    """The trees need nothing but the traces; no place in the source is listed then."""
    result = conclude(request(calls=6), succeeding_too(recorded(tmp_path)), None, [], quiet)
    assert (result.comparison.failing_calls, result.comparison.succeeding_calls) == (6, 6)
    assert result.comparison.told_by == "what each call returned"
    assert result.comparison.lines[0].function == ENTRY
    assert (result.candidates, result.warnings) == ([], [])


def test_without_succeeding_calls_the_reason_is_passed_on(tmp_path: Path) -> None:
    result = conclude(request(), recorded(tmp_path), None, ["no succeeding calls: io_uring is off here"], quiet)
    assert result.comparison.succeeding_calls == 0
    assert result.warnings == ["no succeeding calls: io_uring is off here"]


def test_a_trace_without_the_call_is_refused_with_what_the_recorder_said(tmp_path: Path) -> None:
    recorded(tmp_path, report={"warnings": ["no call of __x64_sys_bind within 1.00 s"]})
    (tmp_path / "graph-0.txt").write_text("# tracer: function_graph\n")
    with pytest.raises(RecordError, match=r"no whole call of __x64_sys_bind \(no call of"):
        conclude(request(), tmp_path, None, [], quiet)


def test_calls_that_all_failed_otherwise_are_said(tmp_path: Path) -> None:
    other = GraphRequest(RunRequest("vm:7.3", None, "bind", "EINVAL", ["./repro"]))
    result = conclude(other, recorded(tmp_path, results={"EADDRINUSE": 9}), None, [], quiet)
    assert result.warnings == ["no call that failed with EINVAL is in the trace"]


def test_no_trace_is_none(tmp_path: Path) -> None:
    assert read_trace(tmp_path, 0, ENTRY) is None


@pytest.mark.parametrize(
    ("buffers", "lost", "complete"),
    [
        ({"cpu0": {"entries": 9, "overrun": 0, "dropped events": 0}}, 0, True),
        ({"cpu0": {"entries": 9, "overrun": 0, "dropped events": 70}}, 70, True),
        ({"cpu0": {"entries": 9, "overrun": 70, "dropped events": 0}}, 70, False),
        ({"cpu0": {"entries": 9, "dropped events": 70}, "cpu1": {"entries": 3}}, 70, False),
        ({"cpu0": {"entries": 9}, "cpu1": {"entries": 3}}, 0, True),
    ],
)
def test_whether_absence_proves_something(buffers: dict[str, dict[str, int]], lost: int, complete: bool) -> None:
    """What came first is kept whole where one buffer got full; not where it was overwritten, or others went on."""
    assert Trace([], 0, {"buffers": buffers, "lost": lost}).complete is complete
    assert not Trace([], 1, {"buffers": buffers, "lost": lost}).complete


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["graph"], "nothing to run"),
        (["graph", "bind-eaddrinus"], "bind-eaddrinuse"),
        (["graph", "--syscall", "bind", "--", "./repro"], "needs --syscall and --errno"),
        (["graph", "--syscall", "bind", "--errno", "EADDRINUSE"], "nothing to run"),
    ],
)
def test_a_load_that_is_not_well_said_is_refused(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert says in capsys.readouterr().err


def test_output_that_holds_something_is_refused_before_anything_is_booted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").write_text("precious")
    assert main(["graph", "bind-eaddrinuse", "--target", "vm:6.1", "-o", str(tmp_path)]) == 2
    assert "exists" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
