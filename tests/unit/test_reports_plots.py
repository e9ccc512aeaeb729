"""The PNGs: written, right in size, the same every time, and nothing in them overlaps or leaves the picture."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from reports import canvas, plots
from tests.unit import sample_analysis as samples

ALL = [samples.named, samples.inconclusive, samples.not_reproduced, samples.bare, samples.hostile, samples.huge]


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_analysis_can_be_drawn(make: Any, theme: str, tmp_path: Path) -> None:
    """Both pictures of every kind of analysis are PNGs of a sensible size, and matplotlib has nothing to warn of."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.write_line_plot(make(), tmp_path / "l.png", theme=theme)
        plots.write_candidate_plot(make(), tmp_path / "c.png", theme=theme)
    for path in (tmp_path / "l.png", tmp_path / "c.png"):
        data = path.read_bytes()
        width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
        assert data.startswith(b"\x89PNG") and width == 1495 and 150 < height < 2000


def test_pictures_are_the_same_every_time(tmp_path: Path) -> None:
    """Equal analyses give equal bytes."""
    for name in ("one", "two"):
        plots.write_line_plot(samples.named(), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def texts(monkeypatch: pytest.MonkeyPatch, draw: Any) -> list[Any]:
    """The text objects of the picture that `draw` makes, with their extents in pixels."""
    kept: list[Any] = []
    whole = canvas.figure

    @contextlib.contextmanager
    def watched(*arguments: Any) -> Iterator[Any]:
        with whole(*arguments) as made:
            yield made
            drawn = FigureCanvasAgg(made)
            drawn.draw()
            renderer = drawn.get_renderer()
            for text in made.findobj(Text):
                if text.get_visible() and text.get_text().strip():
                    kept.append((text.get_text(), text.get_window_extent(renderer)))
            kept.append(("", made.bbox))

    monkeypatch.setattr(plots, "figure", watched)
    draw()
    return kept


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("draw", [plots.write_line_plot, plots.write_candidate_plot])
def test_no_text_overlaps_or_is_cut(make: Any, draw: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All text lies within the picture, and no two pieces of it cover each other."""
    *boxes, (_, bounds) = texts(monkeypatch, lambda: draw(make(), tmp_path / "p.png"))
    for number, (text, box) in enumerate(boxes):
        assert box.x0 >= bounds.x0 and box.x1 <= bounds.x1 + 1, text
        assert box.y0 >= bounds.y0 and box.y1 <= bounds.y1 + 1, text
        for other, second in boxes[number + 1 :]:
            across = min(box.x1, second.x1) - max(box.x0, second.x0)
            along = min(box.y1, second.y1) - max(box.y0, second.y0)
            assert across <= 1 or along <= 2.5, (text, other)


def test_both_marks_on_one_line_fit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Branch and error site on the hottest line: the longer note stays in the picture."""
    whole = samples.named()
    assert whole.error_site and whole.branch
    both = dataclasses.replace(whole, error_site=dataclasses.replace(whole.error_site, line=434))
    *boxes, (_, bounds) = texts(monkeypatch, lambda: plots.write_line_plot(both, tmp_path / "p.png"))
    (note,) = [box for text, box in boxes if text == "deciding branch, error set here"]
    assert note.x1 <= bounds.x1


def test_formulas_in_source_are_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A dollar sign in a source line does not start a formula."""
    boxes = texts(monkeypatch, lambda: plots.write_line_plot(samples.hostile(), tmp_path / "p.png"))
    assert any("$\\frac{1}{2}$" in text for text, _ in boxes)


def test_matplotlib_is_loaded_only_to_draw() -> None:
    """Importing the plots, the page and the terminal report loads neither matplotlib nor Pygments."""
    code = (
        "import sys, reports.plots, reports.html, reports.terminal, reports.compare, reports.campaign;"
        "print([m for m in ('matplotlib', 'pygments.lexers', 'numpy', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
