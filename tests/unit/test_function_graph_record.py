"""Orders for a function graph: what is refused, what is copied, and that whatever was set is put back."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from profiler.errors import MissingError, RecordError, UsageError
from profiler.record import function_graph, graph_tracing, journal, tracefs
from profiler.record.graph_tracing import Tracing
from profiler.record.orders import Place

CALL = "   1.000001 |   0)  python3-120   |   3.296 us    |  __x64_sys_bind();\n"
ENTRY = "__x64_sys_bind"
FILES = {
    "available_tracers": "function_graph function nop\n",
    "current_tracer": "nop\n",
    "tracing_on": "1\n",
    "buffer_size_kb": "1408\n",
    "set_event": "",
    "set_event_pid": "",
    "set_ftrace_pid": "",
    "set_ftrace_filter": "#### all functions enabled ####\n",
    "set_ftrace_notrace": "#### no functions disabled ####\n",
    "set_graph_function": "#### all functions enabled ####\n",
    "set_graph_notrace": "#### no functions disabled ####\n",
    "trace": "",
    "trace_options": "noprint-parent\n",
    "options/funcgraph-irqs": "1\n",
    "options/funcgraph-abstime": "0\n",
    "options/overwrite": "1\n",
    "events/raw_syscalls/sys_exit/enable": "0\n",
    "per_cpu/cpu0/stats": "entries: 0\noverrun: 0\ndropped events: 0\n",
    "instances/.keep": "",
}
# Emptied, the kernel says this of them; a plain file does not.
EMPTY = ("set_graph_function", "set_ftrace_filter")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Plain files where a kernel without function_graph in instances has its control files."""
    root = tmp_path / "tracing"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setattr(tracefs, "ROOTS", (str(root),))
    monkeypatch.setattr(tracefs, "FTRACE_ENABLED", str(tmp_path / "absent"))
    monkeypatch.setattr(journal, "RUN", str(tmp_path / "run"))
    monkeypatch.setattr(graph_tracing, "_instances_trace", [False])
    return root


def contents(root: Path) -> dict[str, str]:
    return {name: (root / name).read_text().strip() for name in FILES if name not in EMPTY}


@pytest.mark.parametrize(
    "order",
    [
        {},
        {"function": "rm -rf"},
        {"function": ENTRY, "calls": 0},
        {"function": ENTRY, "calls": True},
        {"function": ENTRY, "seconds": 1e9},
        {"function": ENTRY, "variant": "other"},
        {"function": ENTRY, "functions": "inet_bind"},
        {"function": ENTRY, "functions": ["a\nb"]},
        {"function": ENTRY, "sites": ["1"]},
    ],
)
def test_an_order_that_makes_no_sense_is_refused(order: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        function_graph.Asked(order)


def test_tracing_sets_what_it_needs_and_puts_everything_back(root: Path, tmp_path: Path) -> None:
    before = contents(root)
    tracing = Tracing(ENTRY, [], [], follow_children=False)
    tracing.begin([120, 121])
    assert (root / "current_tracer").read_text() == "function_graph"
    assert (root / "set_ftrace_pid").read_text() == "120 121"
    assert (root / "set_graph_function").read_text() == ENTRY
    assert (root / "options/funcgraph-irqs").read_text() == "0"
    assert (root / "tracing_on").read_text() == "0"
    assert (tmp_path / "run" / f"{os.getpid()}.json").is_file()
    assert (tracing.where, tracing.results_by, tracing.warnings) == ("top level", "sys_exit", [])
    tracing.end()
    assert contents(root) == before
    assert not (tmp_path / "run").exists()


def test_what_was_set_is_put_back_where_the_begin_fails(root: Path) -> None:
    before = contents(root)
    (root / "trace_options").unlink()
    tracing = Tracing(ENTRY, [], [], follow_children=False)
    with pytest.raises(MissingError):
        tracing.begin([120])
    tracing.end()
    (root / "trace_options").write_text(FILES["trace_options"])
    assert contents(root) == before


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("current_tracer", "irqsoff\n", "irqsoff in "),
        ("set_event", "sched:sched_switch\n", "sched:sched_switch"),
        ("set_graph_notrace", "vfs_read\n", "set_graph_notrace is set"),
        ("set_graph_function", "vfs_read\n", "set_graph_function is set"),
        ("per_cpu/cpu0/stats", "entries: 12\noverrun: 0\n", "holds somebody's records"),
    ],
)
def test_what_somebody_else_uses_is_named_and_left_alone(root: Path, name: str, text: str, says: str) -> None:
    (root / name).write_text(text)
    before = contents(root)
    tracing = Tracing(ENTRY, [], [], follow_children=False)
    with pytest.raises(RecordError, match=says) as told:
        tracing.begin([120])
    tracing.end()
    assert told.value.hint
    assert contents(root) == before
    assert (root / name).read_text() == text


def test_a_kernel_without_the_tracer_is_told_so(root: Path) -> None:
    (root / "available_tracers").write_text("function nop\n")
    with pytest.raises(MissingError, match="no function_graph tracer") as told:
        Tracing(ENTRY, [], [], follow_children=False).begin([120])
    assert "CONFIG_FUNCTION_GRAPH_TRACER" in told.value.hint


def test_a_load_that_has_ended_is_told(root: Path) -> None:
    with pytest.raises(RecordError, match="ended"):
        Tracing(ENTRY, [], [], follow_children=False).begin([])


class Fake:
    """Traces `calls_a_second`, as text."""

    entry = ENTRY

    def __init__(self, path: Path, calls_a_second: float) -> None:
        self.path = str(path)
        self.slices: list[float] = []
        self._calls_a_second = calls_a_second

    def losses(self) -> dict[str, dict[str, int]]:
        return {}

    def trace_for(self, seconds: float) -> float:
        self.slices.append(seconds)
        (Path(self.path) / "trace").write_text("# tracer\n" + CALL * int(seconds * self._calls_a_second))
        return seconds


def taken(fake: Fake, path: Path, **order: object) -> function_graph._Taken:
    asked = function_graph.Asked({"function": ENTRY, **order})
    return function_graph._Taken(cast(Tracing, fake), asked, str(path / "graph-0.txt"), os.getpid())


def test_no_more_is_copied_than_the_calls_asked_for(tmp_path: Path) -> None:
    fake = Fake(tmp_path, 1_000_000)
    result = taken(fake, tmp_path, calls=32)
    text = (tmp_path / "graph-0.txt").read_text()
    assert 32 < result.calls < 500
    assert text.count(ENTRY) == result.calls
    assert text.endswith("\n")
    assert len(text) == result.bytes
    assert len(fake.slices) == 1


def test_a_slow_load_is_traced_again_for_longer_until_the_time_is_over(tmp_path: Path) -> None:
    fake = Fake(tmp_path, 100)
    result = taken(fake, tmp_path, calls=8, seconds=5)
    assert result.calls > 8
    assert len(fake.slices) <= 4
    assert fake.slices == sorted(fake.slices)
    fake = Fake(tmp_path, 0)
    result = taken(fake, tmp_path, calls=8, seconds=0.5)
    assert result.calls == 0
    assert sum(fake.slices) == pytest.approx(0.5)
    assert not result.cut


def test_a_text_without_end_is_cut_and_that_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function_graph, "MOST_BYTES", 1 << 16)
    result = taken(Fake(tmp_path, 1_000_000), tmp_path, calls=50_000)
    assert result.cut
    assert result.bytes < 1 << 18


def test_a_program_of_ones_own_has_no_variant_that_succeeds(root: Path, tmp_path: Path) -> None:
    place = SimpleNamespace(job=SimpleNamespace(variant="failure", scenario=""), load=SimpleNamespace(pid=1), out="")
    with pytest.raises(MissingError, match="no variant"):
        function_graph.carry_out({"function": ENTRY, "variant": "succeeding"}, 0, cast(Place, place))
