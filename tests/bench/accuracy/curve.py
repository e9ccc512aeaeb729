"""Whether a confidence means what it says: the reliability curve."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiler.debuginfo.histogram import wilson_interval
from reports.canvas import THEMES, Theme, figure, heading
from tests.bench.accuracy.judging import Row

EDGES = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0)
MARKERS = {"samples": "o", "exact": "s", "default": "D", "ladder": "^"}


@dataclass(frozen=True, slots=True)
class Bin:
    """Verdicts of about one stated confidence."""

    stated: float  # their mean
    right: int
    count: int

    @property
    def observed(self) -> float:
        return self.right / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """Of the share that is right, at 95%."""
        return wilson_interval(self.right, self.count)


def bins(rows: list[Row]) -> list[Bin]:
    """All that name a place with a confidence, concluded or not; bins without any are left out."""
    stated = [row for row in rows if row.result.claims_place]
    found = []
    for low, high in itertools.pairwise(EDGES):
        alike = [r for r in stated if low <= r.result.confidence < high or r.result.confidence == high == 1.0]
        if alike:
            mean = sum(row.result.confidence for row in alike) / len(alike)
            found.append(Bin(mean, sum(row.result.likeliest_right for row in alike), len(alike)))
    return found


def draw(rows: list[Row], path: Path) -> None:
    """Stated confidence against the share that is right, by evidence, as a PNG; below, how many verdicts state it."""
    theme = THEMES["light"]
    width, height = 7.6, 8.0
    kinds = {
        kind: bins([row for row in rows if row.evidence == kind]) for kind in dict.fromkeys(r.evidence for r in rows)
    }
    with figure(path, width, height, theme) as made:
        subtitle = "the likeliest site and branch of each recording, named or not; whiskers are 95% intervals"
        heading(made, theme, "Stated confidence, and how often it was right", [subtitle], left=0.3)
        axes = made.add_axes((0.75 / width, 2.45 / height, (width - 1.1) / width, (height - 3.35) / height))
        below = made.add_axes((0.75 / width, 0.6 / height, (width - 1.1) / width, 1.45 / height), sharex=axes)
        for each in (axes, below):
            _plain(each, theme)
        axes.plot([0, 1], [0, 1], color=theme.muted, linewidth=1, linestyle=(0, (4, 3)), label="as it should be")
        axes.set_ylim(-0.04, 1.04)
        axes.set_ylabel("share that is right", color=theme.muted)
        axes.tick_params(labelbottom=False)
        for index, (evidence, found) in enumerate(kinds.items()):
            shift = index - (len(kinds) - 1) / 2
            _draw_series(axes, below, evidence, found, shift, len(kinds), theme.runs[index])
        axes.set_xlim(-0.02, 1.02)
        below.set_ylabel("verdicts", color=theme.muted)
        below.set_xlabel("stated confidence", color=theme.muted)
        axes.legend(loc="lower right", frameon=False, labelcolor=theme.text)


def _draw_series(
    axes: Any, below: Any, evidence: str, found: list[Bin], shift: float, series: int, colour: str
) -> None:
    stated = [one.stated + 0.006 * shift for one in found]
    low = [one.observed - one.interval[0] for one in found]
    high = [one.interval[1] - one.observed for one in found]
    count = sum(one.count for one in found)
    axes.errorbar(
        stated, [one.observed for one in found], yerr=[low, high], color=colour, marker=MARKERS[evidence],
        markersize=6, linewidth=1.4, elinewidth=1.1, capsize=3, label=f"{evidence} ({count} verdicts)",
    )  # fmt: skip
    bar = 0.016 / series
    places = [one.stated + bar * shift for one in found]
    below.bar(places, [one.count for one in found], width=bar * 0.9, color=colour)
    for place, one in zip(places, found, strict=True):
        at = {"xytext": (0, 2 + 9 * int(shift + (series - 1) / 2)), "textcoords": "offset points"}
        below.annotate(str(one.count), (place, one.count), **at, ha="center", size=7, color=colour)


def _plain(axes: Any, theme: Theme) -> None:
    axes.set_facecolor("none")
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.grid(color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="both", length=0, colors=theme.muted)
