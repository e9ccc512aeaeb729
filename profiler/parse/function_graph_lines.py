"""Lines of function_graph text to columns, a block of lines at a time.

A line has columns, of which any may be missing, and then what was called:

      86.123103 |   0)  python3-120   |   3.296 us    |    do_mprotect_pkey();
    time        cpu    thread           duration       depth, and text

In one trace they are nearly always equally wide. So a place is found out for each from one line by a pattern (`_LINE`),
and read from all lines of the block at once that have their separators in the same places (`_Layout`); lines that
fit no layout are read by the pattern, one by one. The texts repeat: each that differs is looked at once (`_Texts`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from profiler.parse.faults import Faults
from profiler.parse.function_graph_columns import Block, Distinct, Fields, Layout, Spans, tails

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Integers = NDArray[np.int64]

_LONGEST_LINE = 1 << 16
_LONGEST_TEXT = 1 << 12  # of those read all at once
_PAD = bytes(256)  # fields are read past the end of the last line
_MOST_TEXTS = 1 << 19  # that are remembered at once
_MOST_THREADS = 1 << 14
_MOST_LAYOUTS = 16
_SHOWN = 80  # characters of a line in a fault


class Kind(IntEnum):
    NOTHING = 0  # a heading, an empty line, a line that could not be read
    ENTRY = 1  # f() {
    LEAF = 2  # f();
    EXIT = 3  # }
    EVENT = 4  # /* sys_exit: NR 10 = -22 */
    SWITCH = 5  # 0)  a-1 => b-2: thread is 2 and name is 1
    LOST = 6  # CPU:1 [LOST 1234 EVENTS]: duration is 1234


# Everything up to the text. The name of a thread may hold anything, up to seven bytes; name and number are centred.
#    86.123103 |   0)  python3-120   |   3.296 us    |    do_mprotect_pkey();
#        1203 us |   1)    <idle>-0    | d..2. | + 24.416 us   |    } /* hrtimer_start_range_ns */
#  1) ! 216.236 us  |  }
_LINE = re.compile(
    rb"(?P<time> {0,5}\d{1,9}\.\d{6} \|  )?"
    rb"(?P<relative> {0,9}\d{1,15} us \|  )?"
    rb"(?P<cpu> {1,5}\d{1,5}\) )?"
    rb"(?P<thread>(?=.{14}) {0,6}.{0,7}-\d{1,10} {0,7} \| )?"
    rb"(?P<latency> [^|\s][^|]{2,9} \| )?"
    rb"(?P<duration>(?:[ +!#*@$] \d{1,15}(?:\.\d{1,3})? us {1,8}| {14})\|  )?"
    rb"(?P<text>.*)",
    re.DOTALL,
)
#  ------------------------------------------
#  0)    a.out-812   =>  ksoftir-15
_SWITCH = re.compile(rb" *(\d+)\) +(.{0,15}?-\d+) +=> +(.{0,15}?-\d+) *", re.DOTALL)
# CPU:1 [LOST 1234 EVENTS]
_LOST = re.compile(rb"CPU:(\d+) \[LOST (?:(\d+) )?EVENTS\]")
#    |   0)   ==========> |     (an interrupt; what it calls is nested as if the interrupted function called it)
_INTERRUPT = re.compile(rb".*(?:==========>|<==========)(?: +\|)? *", re.DOTALL)
#   (Overruns: 0), dashes around a switch, "##### CPU 1 buffer started ####", and the headings
_NO_RECORD = re.compile(rb"\s*|#.*| *-{10,} *| *\(Overruns: \d+\)", re.DOTALL)

#   python3-120
_THREAD = re.compile(rb" *(?P<name>.*)-(?P<number>\d{1,10}) *", re.DOTALL)

# do_mprotect_pkey() {
# do_one(a=0x1, b=2) { /* <-do_all+0x12/0x40 */
_ENTRY = re.compile(rb"(?P<name>[^({}|]+)\(.*\) \{(?: /\* ?<-.*\*/)?", re.DOTALL)
# do_mprotect_pkey();
# do_one(); /* = -22 */
# do_one(a=0x1); /* <-do_all ret=0xffff */
_LEAF = re.compile(rb"(?P<name>[^({}|]+)\(.*\);(?: /\*(?: <-.*?)?(?: (?:ret)?= ?(?P<value>[-\w]+))? ?\*/)?", re.DOTALL)
# } /* do_one ret=-22 */
# } /* do_one = 0x0 */
# }
_EXIT = re.compile(rb"\}(?: /\* (?P<name>.+?)(?: (?:ret)?= ?(?P<value>-?\d+|0x[0-9a-f]+))? \*/)?\s*", re.DOTALL)
_VALUE = re.compile(rb"-?(?:0|[1-9]\d{0,19})|0x[0-9a-f]{1,16}")
_NUMBER = re.compile(rb"(\d+)(?:\.(\d{1,3}))? us")

# What stands before a value that a function returned, in a leaf; the second up to 6.13.
_VALUE_MARKS = (b"ret=", b"/* = ")
_BAD_THREAD = -2
_MOST_TASKS = 1 << 30
_MOST_CPUS = 1 << 14
_DEEPEST = 1 << 14


@dataclass(eq=False)
class Lines:
    """A block's lines, one row each."""

    kind: NDArray[np.int8]
    depth: NDArray[np.int16]
    cpu: NDArray[np.int16]
    thread: NDArray[np.int32]  # -1 where not printed
    time: NDArray[np.int64]
    duration: NDArray[np.int64]
    name: NDArray[np.int32]  # of the function; -1 at an exit that does not say
    value: NDArray[np.int64]  # returned
    has_value: NDArray[np.bool_]
    offset: NDArray[np.int64]  # in the whole text
    texts: dict[int, str] = field(default_factory=dict)  # row → text, of EVENT


def empty(rows: int, offset: NDArray[np.int64]) -> Lines:
    """Rows of NOTHING at these offsets."""
    return Lines(
        kind=np.zeros(rows, np.int8),
        depth=np.zeros(rows, np.int16),
        cpu=np.full(rows, -1, np.int16),
        thread=np.full(rows, -1, np.int32),
        time=np.full(rows, -1, np.int64),
        duration=np.full(rows, -1, np.int64),
        name=np.full(rows, -1, np.int32),
        value=np.zeros(rows, np.int64),
        has_value=np.zeros(rows, np.bool_),
        offset=offset,
    )


@dataclass
class Tables:
    """What grows from block to block."""

    names: dict[str, int] = field(default_factory=dict)
    threads: dict[int, str] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)


def blocks(source: Path | Iterable[bytes], size: int, tables: Tables) -> Iterator[Lines]:
    """Lines in blocks of about `size` bytes. A last line without an end is read as far as it goes."""
    reader = _Reader(tables)
    offset, rest = 0, b""
    skipping = False  # within a line that is too long
    for piece in _pieces(source, size):
        data = rest + piece
        cut = data.rfind(b"\n") + 1
        if skipping and cut:
            skipped = data.find(b"\n") + 1
            offset, data, cut, skipping = offset + skipped, data[skipped:], cut - skipped, False
        if cut:
            yield reader.read(data[:cut], offset)
        offset, rest = offset + cut, data[cut:]
        if len(rest) > _LONGEST_LINE:
            if not skipping:
                tables.faults.add(offset, f"line of over {_LONGEST_LINE} bytes")
            offset, rest, skipping = offset + len(rest), b"", True
    if rest and not skipping:
        yield reader.read(rest + b"\n", offset)


def _pieces(source: Path | Iterable[bytes], size: int) -> Iterator[bytes]:
    if isinstance(source, Path):
        with source.open("rb", buffering=0) as file:
            while data := file.read(size):
                yield data
        return
    kept: list[bytes] = []
    length = 0
    for piece in source:
        kept.append(bytes(piece))
        length += len(piece)
        if length >= size:
            yield b"".join(kept)
            kept, length = [], 0
    if kept:
        yield b"".join(kept)


class _Text(NamedTuple):
    """What a text says, its indentation included."""

    kind: Kind
    depth: int = 0
    name: int = -1
    value: int = 0
    has_value: bool = False
    event: str = ""


_TEXT_COLUMNS = np.dtype([("kind", "i1"), ("depth", "i2"), ("name", "i4"), ("value", "i8"), ("has_value", "?")])


class _Reader:
    """Blocks to Lines; what one block taught serves the next."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._layouts: dict[Spans, Layout] = {}
        self._texts = Distinct(self._said, _MOST_TEXTS)
        self._text_columns = np.zeros(0, _TEXT_COLUMNS)
        self._threads = Distinct(self._thread, _MOST_THREADS)

    def read(self, data: bytes, offset: int) -> Lines:
        """`data` ends with a newline."""
        block = Block(data + _PAD, len(data))
        lines = empty(len(block.ends), block.starts + offset)
        left = np.arange(len(block.ends))
        for layout in self._layouts.values():
            left = self._read_by(layout, block, left, lines)
        while len(left):
            left, found = self._until_new_layout(block, left, lines)
            if found is not None:
                left = self._read_by(found, block, left, lines)
        if self._texts.trim():
            self._text_columns = self._text_columns[:0]
        self._threads.trim()
        return lines

    # ---- many lines at once ----

    def _read_by(self, layout: Layout, block: Block, rows: Integers, lines: Lines) -> Integers:
        """Fills in the rows that have this layout. Returns the others."""
        if not len(rows):
            return rows
        fields = layout.read(block, rows)
        lengths = block.ends[rows] - block.starts[rows] - layout.spans.text
        chosen = np.flatnonzero(fields.ok & (lengths <= _LONGEST_TEXT))
        starts = block.starts[rows[chosen]]
        numbers, said = self._texts_at(block, starts + layout.spans.text, lengths[chosen])
        threads = self._threads_at(layout, block, starts)
        good = (said["kind"] != Kind.NOTHING) & (threads != _BAD_THREAD)
        chosen = chosen[good]
        _fill(lines, rows[chosen], Fields(*(column[chosen] for column in fields)), said[good], threads[good])
        is_event = said["kind"][good] == Kind.EVENT
        for row, number in zip(rows[chosen[is_event]].tolist(), numbers[good][is_event].tolist(), strict=True):
            lines.texts[row] = self._texts.values[number].event
        others = np.ones(len(rows), np.bool_)
        others[chosen] = False
        return rows[others]

    def _texts_at(
        self, block: Block, starts: Integers, lengths: Integers
    ) -> tuple[NDArray[np.int32], NDArray[np.void]]:
        """What each text is by number, and what it says. Values returned, which differ most, are read apart."""
        if not any(block.holds(mark) for mark in _VALUE_MARKS):
            numbers = self._texts.of(block, starts, lengths)
            return numbers, self._columns_of_texts()[numbers]
        tail = tails(block, starts + lengths)
        numbers = self._texts.of(block, starts, lengths - tail.length)
        apart = tail.length > 0
        again = np.flatnonzero(apart & (self._columns_of_texts()["kind"][numbers] == Kind.EVENT))
        numbers[again] = self._texts.of(block, starts[again], lengths[again])
        apart[again] = False
        said = self._columns_of_texts()[numbers]
        said["value"][apart] = tail.value[apart]
        return numbers, said

    def _threads_at(self, layout: Layout, block: Block, starts: Integers) -> Integers:
        first, end = layout.spans.thread
        if first < 0:
            return np.full(len(starts), -1)
        lengths = np.full(len(starts), end - first - len(" | "))
        numbers = self._threads.of(block, starts + first, lengths)
        return np.array(self._threads.values or [0], np.int64)[numbers]

    def _columns_of_texts(self) -> NDArray[np.void]:
        known = len(self._text_columns)
        if known < len(self._texts.values):
            new = np.array([text[:-1] for text in self._texts.values[known:]], _TEXT_COLUMNS)
            self._text_columns = np.concatenate((self._text_columns, new))
        return self._text_columns

    # ---- one line ----

    def _until_new_layout(self, block: Block, rows: Integers, lines: Lines) -> tuple[Integers, Layout | None]:
        """Reads row by row up to one with a layout not seen before. Returns the rows left, and that layout."""
        for place, row in enumerate(rows.tolist()):
            spans = self._by_pattern(block.line(row), row, lines)
            if spans is not None and spans not in self._layouts and len(self._layouts) < _MOST_LAYOUTS:
                layout = self._layouts[spans] = Layout(spans)
                return rows[place + 1 :], layout
        return rows[:0], None

    def _by_pattern(self, line: bytes, row: int, lines: Lines) -> Spans | None:
        """Fills in the row. Returns where its columns lie, if it is a record of the tracer."""
        match = _LINE.fullmatch(line)
        assert match is not None, "_LINE fits anything"
        said = self._said(match["text"])
        thread = self._thread(match["thread"][: -len(b" | ")]) if match["thread"] else -1
        if said.kind == Kind.NOTHING or thread == _BAD_THREAD:
            self._other(line, row, lines)
            return None
        for name, value in zip(("kind", "depth", "name", "value", "has_value"), said, strict=False):
            getattr(lines, name)[row] = value
        lines.thread[row] = thread
        lines.time[row] = _nanoseconds(match["time"] or b"") if match["time"] else _relative(match["relative"])
        lines.cpu[row] = min(int(match["cpu"].strip(b" )")), _MOST_CPUS) if match["cpu"] else -1
        lines.duration[row] = _microseconds(match["duration"])
        if said.kind == Kind.EVENT:
            lines.texts[row] = said.event
        return Spans(
            time=match.span("time"),
            relative=match.span("relative"),
            cpu=match.span("cpu"),
            thread=match.span("thread"),
            latency=match.span("latency"),
            duration=match.span("duration"),
            text=match.start("text"),
        )

    def _other(self, line: bytes, row: int, lines: Lines) -> None:
        """A line that is no call and no event."""
        if _NO_RECORD.fullmatch(line) or _INTERRUPT.fullmatch(line):
            return
        lost, switch = _LOST.fullmatch(line), _SWITCH.fullmatch(line)
        if lost is not None:
            lines.kind[row] = Kind.LOST
            lines.cpu[row] = min(int(lost[1][:6]), _MOST_CPUS)
            lines.duration[row] = int((lost[2] or b"1")[:18])
        elif switch is not None:
            lines.kind[row] = Kind.SWITCH
            lines.cpu[row] = min(int(switch[1][:6]), _MOST_CPUS)
            lines.name[row] = self._thread(switch[2])
            lines.thread[row] = self._thread(switch[3])
        else:
            self._tables.faults.add(int(lines.offset[row]), f"not a line of function_graph: {line[:_SHOWN]!r}")

    def _thread(self, text: bytes) -> int:
        """The number in `  python3-120   `, whose name is noted."""
        match = _THREAD.fullmatch(text)
        number = int(match["number"]) if match is not None else _BAD_THREAD
        if match is None or number >= _MOST_TASKS:
            return _BAD_THREAD
        self._tables.threads[number] = _decoded(match["name"])
        return number

    def _said(self, text: bytes) -> _Text:
        """Of a text that ends with `=` the value is read apart."""
        if text.endswith(b"="):
            text += b"0 */"
        bare = text.lstrip(b" ")
        depth = min((len(text) - len(bare)) // 2, _DEEPEST)
        for kind, pattern in ((Kind.LEAF, _LEAF), (Kind.ENTRY, _ENTRY), (Kind.EXIT, _EXIT)):
            match = pattern.fullmatch(bare)
            if match is not None:
                found = match.groupdict()
                name, value = found["name"], found.get("value")
                has_value = value is not None and _VALUE.fullmatch(value) is not None
                number = self._name(name) if name is not None else -1
                return _Text(kind, depth, number, _signed(value) if has_value and value else 0, has_value)
        if bare.startswith(b"/* "):
            # the end of a message with a newline in it stands on another line
            event = _decoded(bare[3:-3]) if bare.endswith(b" */") else _decoded(bare[3:]) + "…"
            return _Text(Kind.EVENT, depth, event=event)
        return _Text(Kind.NOTHING)

    def _name(self, name: bytes) -> int:
        return self._tables.names.setdefault(_decoded(name), len(self._tables.names))


def _fill(lines: Lines, rows: Integers, fields: Fields, said: NDArray[np.void], threads: Integers) -> None:
    for name in ("kind", "depth", "name", "value", "has_value"):
        getattr(lines, name)[rows] = said[name]
    lines.thread[rows] = threads
    lines.time[rows] = fields.time
    lines.cpu[rows] = np.minimum(fields.cpu, _MOST_CPUS)
    lines.duration[rows] = fields.duration


def _nanoseconds(column: bytes) -> int:
    """`   86.123103 |  `."""
    seconds, _, decimals = column.rstrip(b" |").strip().partition(b".")
    return int(seconds) * 10**9 + int(decimals) * 1000


def _relative(column: bytes | None) -> int:
    """`     1203 us |  `."""
    return int(column.split()[0]) * 1000 if column else -1


def _microseconds(column: bytes | None) -> int:
    """`+ 10.240 us   |  ` in nanoseconds; -1 where it is blank."""
    number = _NUMBER.search(column) if column else None
    if number is None:
        return -1
    return int(number[1]) * 1000 + int((number[2] or b"").ljust(3, b"0"))


def _signed(value: bytes) -> int:
    """-22, 0x0 or 0xffffffffffffffea as a C long."""
    number = int(value, 0) & ((1 << 64) - 1)
    return number - (1 << 64) if number >> 63 else number


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
