"""A function's lines in a terminal: which of them to show, and one of them with its marks."""

from __future__ import annotations

from collections.abc import Sequence

from profiler.model import AnnotatedFunction, AnnotatedLine
from reports.findings import BRANCH, CALL, ERROR_SITE
from reports.terminal_text import Piece, Writer
from reports.visible import interval, percent

_TOKENS = {"k": "magenta", "t": "cyan", "m": "yellow", "s": "green", "c": "bright_black", "p": "yellow", "b": "magenta"}
_MARKS = {BRANCH: ("deciding branch", "bold magenta"), ERROR_SITE: ("error set here", "bold red"), CALL: ("call", "")}
_ROWS_AT_MOST = 34
_CONTEXT = 4  # lines around the branch and the error site
_BAR = 6  # cells
_WIDE = 110  # from here on there is room for intervals


def excerpt(function: AnnotatedFunction, marks: Sequence[tuple[str, ...]]) -> list[bool]:
    """Which rows to show: those around the branch and the error site (or, where neither is here, around the five with
    most samples), and of the other rows on the path the nearest."""
    rows = range(len(marks))
    seeds = [row for row in rows if BRANCH in marks[row] or ERROR_SITE in marks[row]]
    if not seeds:
        hottest = sorted(rows, key=lambda row: -function.lines[row].samples)[:5]
        seeds = [row for row in hottest if function.lines[row].samples > 0]
    near = {row: min((abs(row - seed) for seed in seeds), default=row) for row in rows}
    around = [row for row in rows if seeds and near[row] <= _CONTEXT]
    walked = [row for row in rows if function.lines[row].on_path and row not in around]
    order = sorted(around, key=near.__getitem__) + sorted(walked, key=near.__getitem__)
    shown = set(order[:_ROWS_AT_MOST])
    return [row in shown for row in rows]


def source_line(
    writer: Writer,
    function: AnnotatedFunction,
    row: int,
    marks: tuple[str, ...],
    tokens: list[tuple[str, str]],
    below: str = "",
) -> None:
    """The line; `below` it, where its code begins, what else is to be said of it."""
    line = function.lines[row]
    style = _MARKS[marks[0]][1] if marks else ""
    pieces = [*_gutter(line, style, marked=bool(marks)), *_shares(writer, function, line)]
    off = line.on_path is False
    code: list[Piece] = [(text, "dim" if off else _TOKENS.get(letter, "")) for letter, text in tokens]
    turns = "".join(f" → {number}" for number in line.goes_to)
    labels = ", ".join(_MARKS[mark][0] for mark in marks)
    _at_the_end(writer, pieces, code, (turns and f" {turns}", "bold cyan"), labels, style)
    if below:
        said = writer.text((f"↑ {below}", style))
        indent = max(0, min(writer.text(*pieces).cell_len, writer.width - said.cell_len))
        said.truncate(writer.width - indent, overflow="crop" if writer.ascii_only else "ellipsis")
        writer.line(" " * indent, said)


def _gutter(line: AnnotatedLine, style: str, *, marked: bool) -> list[Piece]:
    ran: Piece = {True: ("●", "cyan"), False: ("○", "dim"), None: (" ", "")}[line.on_path]
    return [("▸" if marked else " ", style), (f"{line.line:>6} ", style or "dim"), ran, " "]


def _shares(writer: Writer, function: AnnotatedFunction, line: AnnotatedLine) -> list[Piece]:
    """Share and bar, where the function has samples at all; the interval where there is room."""
    most = max((other.samples for other in function.lines), default=0)
    if not most:
        return []
    share = percent(line.samples / max(function.samples, 1)) if line.samples else ""
    pieces: list[Piece] = [f"{share:>5} ", (writer.bar(line.samples / most, _BAR), "dark_orange"), " "]
    if writer.width >= _WIDE:
        pieces.append((f"{interval(line.low, line.high) if line.samples else '':>12}  ", "dim"))
    return pieces


def _at_the_end(writer: Writer, pieces: list[Piece], code: list[Piece], turns: Piece, label: str, style: str) -> None:
    """The line with where it went on, cutting the code rather than that; the label behind, or below it."""
    text = writer.text(*pieces, *code)
    after = writer.text(turns)
    text.truncate(max(writer.width - after.cell_len, 0), overflow="crop" if writer.ascii_only else "ellipsis")
    room = writer.width - text.cell_len - after.cell_len - len(label) - 5
    if not label or room >= 0:
        writer.line(text, after, (f"  ← {label}" if label else "", style))
        return
    writer.line(text, after)
    writer.line(" " * writer.text(*pieces).cell_len, (f"↑ {label}", style))
