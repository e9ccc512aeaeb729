"""The numbers of an Analysis as a table: lines.parquet, for pandas and its kin."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd

from profiler import recording
from profiler.model import Analysis

LINES = "lines.parquet"


def write_lines(directory: Path, analysis: Analysis) -> None:
    """One row for each source line shown: function, file, line, samples, low, high (95% interval of the share of
    the function's samples), on_path (null where not known), marks (comma-separated)."""
    rows = [
        (f.function, f.file, line.line, line.samples, line.low, line.high, line.on_path, ",".join(line.marks))
        for f in analysis.functions
        for line in f.lines
    ]
    columns = ["function", "file", "line", "samples", "low", "high", "on_path", "marks"]
    frame = pd.DataFrame(rows, columns=columns).astype({"on_path": "boolean"})
    content = io.BytesIO()
    frame.to_parquet(content, index=False)
    recording.write_atomically(directory / LINES, content.getvalue())
