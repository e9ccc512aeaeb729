"""What the PNGs share: themes, fonts, and text that matplotlib takes literally."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reports.page import write_whole

SANS = ["DejaVu Sans"]  # comes with matplotlib, so pictures are the same on every machine
MONO = ["DejaVu Sans Mono"]
DPI = 130


@dataclass(frozen=True, slots=True)
class Theme:
    background: str
    text: str
    muted: str
    grid: str
    bar: str
    whisker: str
    branch: str
    site: str
    branch_band: str
    site_band: str
    runs: tuple[str, ...]  # one a run, told apart by colour-blind readers too (Okabe and Ito)


LIGHT = Theme(
    background="#ffffff",
    text="#1b2027",
    muted="#5a6470",
    grid="#e3e6ea",
    bar="#f3a64b",
    whisker="#74400a",
    branch="#6a35a8",
    site="#b3261e",
    branch_band="#f3ecfb",
    site_band="#fdecea",
    runs=("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"),
)
DARK = Theme(
    background="#171b21",
    text="#e4e8ed",
    muted="#9ba6b2",
    grid="#2c333c",
    bar="#c57a2a",
    whisker="#ffd9a6",
    branch="#cdaeff",
    site="#ff9a90",
    branch_band="#2b2140",
    site_band="#3a1d1c",
    runs=("#56b4e9", "#e69f00", "#2fc79a", "#e39bc4", "#8f9bff", "#ff8b4d"),
)
THEMES = {"light": LIGHT, "dark": DARK}


@contextlib.contextmanager
def figure(path: Path, width: float, height: float, theme: Theme) -> Iterator[Any]:
    """A matplotlib Figure of `width` × `height` inches, written to `path` as PNG when the block ends well."""
    import matplotlib as mpl  # noqa: PLC0415  0.3 s
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    settings: Any = {"text.parse_math": False, "font.family": SANS, "font.size": 9.5, "text.color": theme.text}
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        made = Figure(figsize=(width, height), dpi=DPI, facecolor=theme.background)
        yield made
        content = io.BytesIO()
        canvas: Any = FigureCanvasAgg(made)
        canvas.print_png(content, metadata={"Software": "whyerrno"})
        write_whole(path, content.getvalue())


def plain_axes(axes: Any, theme: Theme) -> None:
    """No frame, vertical grid lines behind the bars, the first row on top."""
    axes.set_facecolor("none")
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="x", color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="both", length=0, colors=theme.muted)
    axes.invert_yaxis()


def heading(made: Any, theme: Theme, title: str, lines: list[str], *, left: float) -> None:
    """A title and smaller lines under it, at the top left; `left` in inches."""
    width, height = made.get_size_inches()
    made.text(left / width, 1 - 0.2 / height, title, va="top", size=13, weight="bold", color=theme.text)
    for number, line in enumerate(lines):
        made.text(left / width, 1 - (0.5 + 0.2 * number) / height, line, va="top", size=9, color=theme.muted)


def clip(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
