"""An annotated function as rows of the HTML page: bars, marks, folds, within a budget of bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

from profiler.model import Analysis, AnnotatedFunction, AnnotatedLine, InlinedSamples
from reports.excerpt import Stretch, fold
from reports.findings import BRANCH, ERROR_SITE, has_source, marks_of
from reports.highlight import highlight
from reports.visible import visible_source

_INLINED_AT_MOST = 6  # per line; the rest is summed up
_ROW_BYTES = 230  # markup of a row around its code, with a bar
_PLAIN_ROW_BYTES = 70


@dataclass(slots=True)
class Budget:
    """What may still go onto the page, in bytes."""

    left: int

    def take(self, size: int) -> bool:
        if size > self.left:
            return False
        self.left -= size
        return True


@dataclass(frozen=True, slots=True)
class Bar:
    """Horizontal positions from 0 to 100."""

    width: str
    low: str
    high: str


@dataclass(frozen=True, slots=True)
class Row:
    line: AnnotatedLine
    code: Markup | None  # None where the source was not at hand
    share: float
    bar: Bar | None
    state: str  # "on" the path, "off" it, "" unknown
    marks: tuple[str, ...]
    anchor: str
    inlined: list[tuple[InlinedSamples, float]]  # with the share of the function's samples
    inlined_more: int  # samples of inlined places that are not listed

    @property
    def classes(self) -> str:
        return " ".join(filter(None, (self.state, *self.marks)))


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive rows, shown at once, folded, or (rows empty) left out to keep the page small."""

    first: int
    last: int
    size: int
    folded: bool
    samples: int
    rows: list[Row] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FunctionView:
    function: AnnotatedFunction
    anchor: str
    blocks: list[Block]
    marks: tuple[str, ...]
    opened: bool
    has_source: bool


def function_view(
    analysis: Analysis, function: AnnotatedFunction, *, anchor: str, opened: bool, budget: Budget
) -> FunctionView:
    marks = [marks_of(analysis, function, line) for line in function.lines]
    interesting = [_is_interesting(line, found) for line, found in zip(function.lines, marks, strict=True)]
    builder = _RowBuilder(analysis, function, marks, anchor)
    blocks = [builder.block(stretch, budget) for stretch in fold(interesting)]
    return FunctionView(
        function=function,
        anchor=anchor,
        blocks=blocks,
        marks=tuple(mark for mark in (BRANCH, ERROR_SITE) if any(mark in found for found in marks)),
        opened=opened,
        has_source=has_source(function),
    )


def _is_interesting(line: AnnotatedLine, marks: Sequence[str]) -> bool:
    return bool(marks or line.samples or line.inlined or line.on_path)


class _RowBuilder:
    def __init__(
        self, analysis: Analysis, function: AnnotatedFunction, marks: list[tuple[str, ...]], anchor: str
    ) -> None:
        self._function = function
        self._marks = marks
        self._anchor = anchor
        self._texts = [visible_source(line.text) if line.text is not None else None for line in function.lines]
        self._coloured = highlight([text or "" for text in self._texts])
        self._scale = max((line.high for line in function.lines if line.samples), default=0.0) or 1.0

    def block(self, stretch: Stretch, budget: Budget) -> Block:
        lines = self._function.lines[stretch.start : stretch.stop]
        rows = [self._row(index, plain=stretch.folded) for index in range(stretch.start, stretch.stop)]
        fits = budget.take(sum(_size(row) for row in rows))
        return Block(
            first=lines[0].line,
            last=lines[-1].line,
            size=len(lines),
            folded=stretch.folded,
            samples=sum(line.samples for line in lines),
            rows=rows if fits else [],
        )

    def _row(self, index: int, *, plain: bool) -> Row:
        line = self._function.lines[index]
        text = self._texts[index]
        listed = sorted(line.inlined, key=lambda place: (-place.samples, place.file, place.line))
        code = None if text is None else escape(text) if plain else self._coloured[index]
        marks = self._marks[index]
        return Row(
            line=line,
            code=code,
            share=line.samples / max(self._function.samples, 1),
            bar=self._bar(line) if line.samples else None,
            state={True: "on", False: "off", None: ""}[line.on_path],
            marks=marks,
            anchor=f"{self._anchor}-{line.line}" if marks else "",
            inlined=[(place, place.samples / max(self._function.samples, 1)) for place in listed[:_INLINED_AT_MOST]],
            inlined_more=sum(place.samples for place in listed[_INLINED_AT_MOST:]),
        )

    def _bar(self, line: AnnotatedLine) -> Bar:
        share = line.samples / max(self._function.samples, 1)
        width, low, high = (100 * min(max(value / self._scale, 0), 1) for value in (share, line.low, line.high))
        return Bar(f"{width:.1f}", f"{low:.1f}", f"{high:.1f}")


def _size(row: Row) -> int:
    code = len(row.code.encode()) if row.code is not None else 0
    return code + (_ROW_BYTES if row.bar or row.marks else _PLAIN_ROW_BYTES) + 180 * len(row.inlined)
