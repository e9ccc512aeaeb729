"""What each rung adds to a verdict: the ladder of an Analysis."""

from __future__ import annotations

from pathlib import Path

from profiler.acquire import Progress
from profiler.case import Case
from profiler.conclude.analysis import Concluded
from profiler.model import Analysis, ExecutionLog, PerfRecording, ProbeHits


def complete(
    directory: Path,
    case: Case,
    concluded: Concluded,
    used: frozenset[str],
    data: PerfRecording,
    execution: ExecutionLog | None,
    probes: list[ProbeHits],
    progress: Progress,
) -> Analysis:
    return concluded.analysis
