"""The report of one run: a single HTML page that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from profiler.model import Analysis, Candidate, Conclusion
from reports import findings, graph_rows, ladder, terminal_graph, walk
from reports.annotated import Budget, FunctionView, function_view
from reports.page import render, write_whole

PAGE_BYTES = 1_100_000  # for annotated source; the rest of a page stays well below 400 kB
CANDIDATES_AT_MOST = 60
SOURCE_FIRST, SOURCE_AT_MOST = 8, 300  # candidates of the source: seen at once, and on the page at all
GRAPH_AT_MOST = 70  # rows of the two trees
_FUNCTIONS_AT_MOST = 60


@dataclass(frozen=True, slots=True)
class Plot:
    """A PNG to put into the page, with what it shows in words; `dark` is used where the reader prefers dark pages."""

    title: str
    light: Path
    dark: Path | None = None


def write_report(analysis: Analysis, path: Path, *, plots: Sequence[Plot] = ()) -> None:
    """Write the page to `path`. Equal analyses give equal bytes. Raises OSError."""
    write_whole(path, report_page(analysis, plots=plots))


def report_page(analysis: Analysis, *, plots: Sequence[Plot] = ()) -> bytes:
    """The page as UTF-8, at most about 1.5 MB with all the source that fits."""
    origin, others = _functions(analysis)
    shown = analysis.candidates[:CANDIDATES_AT_MOST]
    return render(
        "report.html",
        analysis=analysis,
        findings=findings,
        ladder=ladder,
        **_graph(analysis),
        source_left=ladder.remaining(analysis),
        source_out=[one for one in ladder.sorted_candidates(analysis) if one.excluded_by],
        source_at_most=(SOURCE_FIRST, SOURCE_AT_MOST),
        named=analysis.conclusion is Conclusion.NAMED,
        not_reproduced=analysis.conclusion is Conclusion.NOT_REPRODUCED,
        origin=origin,
        others=others,
        anchors=_anchors([view for view in (origin, *others) if view is not None]),
        branch_anchor=_mark_anchor(origin, others, findings.BRANCH),
        site_anchor=_mark_anchor(origin, others, findings.ERROR_SITE),
        branch_values=findings.branch_values(analysis.branch),
        walk=walk.words(analysis),
        moved=walk.MOVED,
        walked=any(walk.is_known(function) for function in analysis.functions),
        sampled=any(function.samples for function in analysis.functions),
        candidates=shown,
        contenders=_contenders(analysis),
        candidates_left=len(analysis.candidates) - len(shown),
        plots=[(plot.title, _data_uri(plot.light), _data_uri(plot.dark) if plot.dark else None) for plot in plots],
    )


def _graph(analysis: Analysis) -> dict[str, object]:
    """The two trees, whether something is left out of them, and what they are of."""
    if analysis.graph is None:
        return {"graph_rows": [], "graph_cut": False, "graph_sentence": ""}
    rows = graph_rows.rows(analysis.graph, GRAPH_AT_MOST)
    cut = any(cell is not None and cell.hidden for row in rows for cell in (row.failing, row.succeeding))
    return {"graph_rows": rows, "graph_cut": cut, "graph_sentence": terminal_graph.calls_sentence(analysis.graph)}


def _functions(analysis: Analysis) -> tuple[FunctionView | None, list[FunctionView]]:
    """The origin, and the others from syscall entry on. The origin draws on the budget first, then its callers."""
    index = findings.origin_index(analysis)
    if index is None:
        return None, []
    budget = Budget(PAGE_BYTES)
    order = [index, *(i for i in reversed(range(len(analysis.functions))) if i != index)][:_FUNCTIONS_AT_MOST]
    views = {
        i: function_view(analysis, analysis.functions[i], anchor=f"f{i}", opened=i == index, budget=budget)
        for i in order
    }
    return views[index], [views[i] for i in sorted(views) if i != index]


def _anchors(views: Sequence[FunctionView]) -> dict[str, str]:
    """Where on the page each function is, by name; the first of a name counts."""
    found: dict[str, str] = {}
    for view in views:
        found.setdefault(view.function.function, view.anchor)
    return found


def _mark_anchor(origin: FunctionView | None, others: Sequence[FunctionView], mark: str) -> str:
    """The anchor of the first row with `mark`, the origin's first; "" where it is not on the page."""
    for view in (origin, *others):
        for block in view.blocks if view else ():
            for row in block.rows:
                if mark in row.marks:
                    return row.anchor
    return ""


def _contenders(analysis: Analysis) -> list[Candidate]:
    """Those that an inconclusive verdict could not separate, likeliest first."""
    left = [candidate for candidate in analysis.candidates if candidate.excluded_by is None]
    return sorted(left, key=lambda candidate: -candidate.probability)[:6]


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
