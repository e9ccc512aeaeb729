"""An annotated function as rows of the HTML page: bars, marks, the walk, folds, within a budget of bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

from profiler.model import Analysis, AnnotatedFunction, AnnotatedLine, InlinedSamples
from reports import walk
from reports.excerpt import Stretch, fold
from reports.findings import BRANCH, ERROR_SITE, has_source, marks_of
from reports.highlight import highlight_part
from reports.visible import visible_source

_INLINED_AT_MOST = 6  # per line; the rest is summed up
_ROW_BYTES = 230  # markup of a row around its code, with a bar
_PLAIN_ROW_BYTES = 70
_TURN_BYTES = 150  # of a branch's direction
_COLOUR = 2  # times the bytes of a line that its colours usually take
_BLOCK_ROWS = 300  # that are shown or left out together


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
    rail: tuple[str, ...]  # "from", "over" or "to" of a branch that skips lines; the rail joins them in the gutter

    @property
    def classes(self) -> str:
        return " ".join(filter(None, (self.state, *self.marks, *(f"rail-{place}" for place in self.rail))))

    @property
    def runs_on(self) -> bool:
        """Whether the rail goes on below this row."""
        return "from" in self.rail or "over" in self.rail


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive rows, shown at once, folded, or (rows empty) left out to keep the page small."""

    first: int
    last: int
    size: int
    folded: bool
    samples: int
    says: str  # how many lines, and how many of them are off the path
    skipped: bool  # a branch went past all of it
    rows: list[Row] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FunctionView:
    function: AnnotatedFunction
    anchor: str
    blocks: list[Block]
    marks: tuple[str, ...]
    opened: bool
    has_source: bool
    tally: str  # `8 of 84 lines executed`
    is_sampled: bool
    present: frozenset[int]  # the lines that are on the page


def function_view(
    analysis: Analysis, function: AnnotatedFunction, *, anchor: str, opened: bool, budget: Budget
) -> FunctionView:
    marks = [marks_of(analysis, function, line) for line in function.lines]
    interesting = [_is_interesting(line, found) for line, found in zip(function.lines, marks, strict=True)]
    builder = _RowBuilder(analysis, function, marks, anchor)
    stretches = [piece for stretch in fold(interesting) for piece in stretch.pieces(_BLOCK_ROWS)]
    blocks = {stretch: builder.block(stretch, budget) for stretch in sorted(stretches, key=builder.importance)}
    return FunctionView(
        function=function,
        anchor=anchor,
        blocks=[blocks[stretch] for stretch in stretches],
        marks=tuple(mark for mark in (BRANCH, ERROR_SITE) if any(mark in found for found in marks)),
        opened=opened,
        has_source=has_source(function),
        tally=walk.tally(analysis, function),
        is_sampled=any(line.samples for line in function.lines),
        present=frozenset(row.line.line for block in blocks.values() for row in block.rows),
    )


def _is_interesting(line: AnnotatedLine, marks: Sequence[str]) -> bool:
    return bool(marks or line.samples or line.inlined or line.on_path)


def _rails(function: AnnotatedFunction) -> dict[int, tuple[str, ...]]:
    """By row, its place on the rails of the branches that skip lines; a row may end one and begin the next."""
    found: dict[int, tuple[str, ...]] = {}
    for start, stop in walk.skips(function.lines):
        places = ["from", *["over"] * (stop - start - 1), "to"]
        for row, place in enumerate(places, start):
            found[row] = (*found.get(row, ()), place)
    return found


class _RowBuilder:
    def __init__(
        self, analysis: Analysis, function: AnnotatedFunction, marks: list[tuple[str, ...]], anchor: str
    ) -> None:
        self._analysis = analysis
        self._function = function
        self._marks = marks
        self._anchor = anchor
        self._texts = [visible_source(line.text) if line.text is not None else None for line in function.lines]
        self._sources = [text or "" for text in self._texts]
        self._targets = {number for line in function.lines if line.on_path for number in line.goes_to}
        self._rails = _rails(function)
        self._scale = max((line.high for line in function.lines if line.samples), default=0.0) or 1.0

    def importance(self, stretch: Stretch) -> tuple[bool, bool, int]:
        """Sorts what must be on the page first: branch and error site, then what is not folded, then samples."""
        rows = range(stretch.start, stretch.stop)
        decided = any(BRANCH in self._marks[row] or ERROR_SITE in self._marks[row] for row in rows)
        return not decided, stretch.folded, -sum(self._function.lines[row].samples for row in rows)

    def block(self, stretch: Stretch, budget: Budget) -> Block:
        lines = self._function.lines[stretch.start : stretch.stop]
        rows: list[Row] = []
        if budget.take(sum(self._size(index, stretch) for index in range(stretch.start, stretch.stop))):
            rows = self._rows(stretch, budget)
        return Block(
            first=lines[0].line,
            last=lines[-1].line,
            size=len(lines),
            folded=stretch.folded,
            samples=sum(line.samples for line in lines),
            says=walk.folded(self._analysis, lines),
            skipped=all("over" in self._rails.get(row, ()) for row in range(stretch.start, stretch.stop)),
            rows=rows,
        )

    def _rows(self, stretch: Stretch, budget: Budget) -> list[Row]:
        codes = [escape(text) for text in self._sources[stretch.start : stretch.stop]]
        if not stretch.folded:
            coloured = highlight_part(self._sources, stretch.start, stretch.stop)
            # Colour takes more room than was reckoned with where a line is nothing but short tokens.
            codes = [
                colour if budget.take(max(0, len(colour) - _COLOUR * len(code))) else code
                for colour, code in zip(coloured, codes, strict=True)
            ]
        return [self._row(stretch.start + offset, code) for offset, code in enumerate(codes)]

    def _size(self, index: int, stretch: Stretch) -> int:
        """About how many bytes the row will take."""
        line, code = self._function.lines[index], len(escape(self._sources[index]).encode())
        if stretch.folded:
            return code + _PLAIN_ROW_BYTES
        return (
            _COLOUR * code
            + (_TURN_BYTES * len(line.goes_to))
            + (_ROW_BYTES if line.samples or self._marks[index] else _PLAIN_ROW_BYTES)
            + (180 * min(len(line.inlined), _INLINED_AT_MOST))
        )

    def _row(self, index: int, code: Markup) -> Row:
        line = self._function.lines[index]
        listed = sorted(line.inlined, key=lambda place: (-place.samples, place.file, place.line))
        marks = self._marks[index]
        return Row(
            line=line,
            code=code if self._texts[index] is not None else None,
            share=line.samples / max(self._function.samples, 1),
            bar=self._bar(line) if line.samples else None,
            state={True: "on", False: "off", None: ""}[line.on_path],
            marks=marks,
            anchor=f"{self._anchor}-{line.line}" if marks or line.line in self._targets else "",
            inlined=[(place, place.samples / max(self._function.samples, 1)) for place in listed[:_INLINED_AT_MOST]],
            inlined_more=sum(place.samples for place in listed[_INLINED_AT_MOST:]),
            rail=self._rails.get(index, ()),
        )

    def _bar(self, line: AnnotatedLine) -> Bar:
        share = line.samples / max(self._function.samples, 1)
        width, low, high = (100 * min(max(value / self._scale, 0), 1) for value in (share, line.low, line.high))
        return Bar(f"{width:.1f}", f"{low:.1f}", f"{high:.1f}")
