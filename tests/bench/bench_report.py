"""How long a report takes and how big it is: `python -m tests.bench.bench_report [RUN ...]`.

Without arguments, on made-up analyses, the largest with four functions of 6,000 lines; with run
directories, on their analyses. The limits are those of the project: 1.5 MB and 2 s a page.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from profiler.model import Analysis
from reports import compare, html, plots, terminal
from tests.unit import sample_analysis as samples

PAGE_BYTES, PAGE_SECONDS = 1.5e6, 2.0


def seconds(work: Callable[[], object]) -> float:
    """The best of three, after one to warm up."""
    times = []
    for _ in range(4):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return min(times[1:])


def measure(name: str, analysis: Analysis, directory: Path) -> bool:
    """Print a row; whether the page keeps its limits."""
    page, picture = directory / "report.html", directory / "plot.png"
    first = time.perf_counter()
    html.write_report(analysis, page)
    first = time.perf_counter() - first
    again = seconds(lambda: html.write_report(analysis, page))
    drawn = seconds(lambda: plots.write_line_plot(analysis, picture))
    printed = seconds(lambda: terminal.render(analysis, Console(file=io.StringIO(), width=80)))
    size = page.stat().st_size
    lines = sum(len(function.lines) for function in analysis.functions)
    print(f"{name:<28} {lines:>7} {size / 1e3:>8.0f} {first:>9.2f} {again:>9.2f} {drawn:>9.2f} {printed:>9.2f}")
    return size <= PAGE_BYTES and first <= PAGE_SECONDS


def main(runs: Sequence[str] = ()) -> int:
    analyses = [(run, Analysis.from_json(json.loads((Path(run) / "analysis.json").read_bytes()))) for run in runs]
    made_up = [("named", samples.named()), ("4 × 6,000 lines", samples.huge()), ("hostile", samples.hostile())]
    print(f"{'analysis':<28} {'lines':>7} {'page kB':>8} {'first s':>9} {'page s':>9} {'plot s':>9} {'term. s':>9}")
    with tempfile.TemporaryDirectory() as scratch:
        kept = [measure(name[-28:], analysis, Path(scratch)) for name, analysis in analyses or made_up]
        pair = [("one", samples.huge(3000, 3)), ("two", samples.huge(3100, 3))]
        took = seconds(lambda: compare.write_html(compare.compare(pair), Path(scratch) / "compare.html"))
        size = (Path(scratch) / "compare.html").stat().st_size
    print(f"comparison of 2 × 9,000 lines: {took:.2f} s, {size / 1e3:.0f} kB")
    print("every page within 1.5 MB and 2 s" if all(kept) else "OVER the limit of 1.5 MB or 2 s")
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
