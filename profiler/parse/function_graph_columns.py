"""Columns of equally wide text lines, read from many lines at once with numpy.

Two means: a `Layout` reads the fields that stand in the same place on every line; `Distinct` gives each different piece
of text a number, so that only the pieces that differ are looked at one by one.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]
    Integers = NDArray[np.int64]
    Words = NDArray[np.uint64]

Value = TypeVar("Value")

_SPACE, _ZERO, _NINE, _POINT = ord(" "), ord("0"), ord("9"), ord(".")
_SLOTS_BITS = 17
_SCALE = np.array([1000, 100, 10, 1])  # ns a unit, by the decimals of a number of microseconds
# The low n bytes of a word, for n from 0 to 8.
_LOW_BYTES = np.array([(1 << (8 * n)) - 1 for n in range(9)], np.uint64)


class Block:
    """Whole lines of text, with bytes after them that words may be read from."""

    def __init__(self, padded: bytes, length: int) -> None:
        self._bytes = padded
        self._buffer = np.frombuffer(padded, np.uint8)
        self.ends = np.flatnonzero(self._buffer[:length] == ord("\n"))
        self.starts = np.concatenate((np.zeros(1, np.int64), self.ends[:-1] + 1))

    def line(self, row: int) -> bytes:
        return self._bytes[self.starts[row] : self.ends[row]]

    def holds(self, text: bytes) -> bool:
        return text in self._bytes

    def text(self, start: int, length: int) -> bytes:
        return self._bytes[start : start + length]

    def characters(self, starts: Integers, width: int) -> NDArray[np.uint8]:
        """(width, n): the i-th byte of each line in row i."""
        rows = np.lib.stride_tricks.sliding_window_view(self._buffer, width)[starts]
        return np.ascontiguousarray(rows.T)

    @cached_property
    def words(self) -> Words:
        """The eight bytes from each place on, as one number."""
        return np.ndarray((len(self._buffer) - 7,), "<u8", self._bytes, strides=(1,))


class Spans(NamedTuple):
    """Where the columns lie, from the begin of a line: (first, end) each, (-1, -1) where there is none."""

    time: tuple[int, int]
    relative: tuple[int, int]
    cpu: tuple[int, int]
    thread: tuple[int, int]
    latency: tuple[int, int]
    duration: tuple[int, int]
    text: int


class Fields(NamedTuple):
    """What a layout reads of some lines; NONE (-1) where the column is not there. Only of those that are `ok`."""

    ok: Bools
    time: Integers  # ns
    cpu: Integers
    duration: Integers  # ns


class Layout:
    """Lines whose columns lie as `spans` says."""

    def __init__(self, spans: Spans) -> None:
        self.spans = spans

    def read(self, block: Block, rows: Integers) -> Fields:
        starts = block.starts[rows]
        spans = self.spans
        head = block.characters(starts, spans.text + 1)
        ok = block.ends[rows] - starts > spans.text
        time, duration, cpu = (np.full(len(rows), -1) for _ in range(3))
        if spans.time[0] >= 0:
            time = _time(head[slice(*spans.time)], ok)
        if spans.relative[0] >= 0:
            time = _relative(head[slice(*spans.relative)], ok)
        if spans.cpu[0] >= 0:
            cpu = _cpu(head[slice(*spans.cpu)], ok)
        for span in (spans.thread, spans.latency):
            if span[0] >= 0:
                _bar(head[slice(*span)], ok)
        if spans.duration[0] >= 0:
            duration = _duration(head[slice(*spans.duration)], ok)
        return Fields(ok, time, cpu, duration)


def _time(column: NDArray[np.uint8], ok: Bools) -> Integers:
    """`   86.123103 |  ` to nanoseconds."""
    whole, decimals, end = column[:-11], column[-10:-4], column[-4:]
    ok &= (column[-11] == _POINT) & (end[0] == _SPACE) & (end[1] == ord("|")) & (end[2] == _SPACE) & (end[3] == _SPACE)
    return _number(decimals, ok, _number(whole, ok)) * 1000


def _relative(column: NDArray[np.uint8], ok: Bools) -> Integers:
    """`     1203 us |  ` to nanoseconds."""
    ok &= (column[-6] == ord("u")) & (column[-5] == ord("s")) & (column[-3] == ord("|")) & (column[-7] == _SPACE)
    return _number(column[:-7], ok) * 1000


def _cpu(column: NDArray[np.uint8], ok: Bools) -> Integers:
    """` 0) `."""
    ok &= (column[-2] == ord(")")) & (column[-1] == _SPACE)
    return _number(column[:-2], ok)


def _bar(column: NDArray[np.uint8], ok: Bools) -> None:
    ok &= (column[-3] == _SPACE) & (column[-2] == ord("|")) & (column[-1] == _SPACE)


def _number(column: NDArray[np.uint8], ok: Bools, value: Integers | None = None) -> Integers:
    """Digits, with spaces before them where `value`, what stands to their left, is not given."""
    begun = np.full(len(ok), value is not None)
    value = np.zeros(len(ok), np.int64) if value is None else value
    for character in column:
        digit = (character >= _ZERO) & (character <= _NINE)
        ok &= digit | ((character == _SPACE) & ~begun)
        begun |= digit
        value = np.where(digit, value * 10 + character - _ZERO, value)
    ok &= begun
    return value


def _duration(column: NDArray[np.uint8], ok: Bools) -> Integers:
    """`+ 10.240 us   |  ` to nanoseconds; -1 where it is blank."""
    ok &= (column[-3] == ord("|")) & (column[-2] == _SPACE) & (column[-1] == _SPACE) & (column[1] == _SPACE)
    value = np.zeros(len(ok), np.int64)
    decimals = np.zeros(len(ok), np.int64)
    point, done = np.zeros(len(ok), np.bool_), np.zeros(len(ok), np.bool_)
    blank = column[2] == _SPACE
    fits = np.ones(len(ok), np.bool_)
    for place in range(2, len(column) - 5):
        character = column[place]
        digit = ~done & (character >= _ZERO) & (character <= _NINE)
        ends = ~done & (character == _SPACE)
        fits &= done | digit | ends | ((character == _POINT) & ~point)
        fits &= ~ends | ((column[place + 1] == ord("u")) & (column[place + 2] == ord("s")))
        value = np.where(digit, value * 10 + character - _ZERO, value)
        decimals += digit & point
        point |= ~done & (character == _POINT)
        done |= ends
    for character in column[3:-3]:
        blank &= character == _SPACE
    ok &= blank | (fits & done)
    return np.where(blank, -1, value * _SCALE[np.minimum(decimals, 3)])


class Tails(NamedTuple):
    """Texts that end with a value: `ret=-22 */`, ` = 0x1f */`."""

    length: Integers  # bytes from behind the `=` to the end; 0 where the text ends otherwise
    value: Integers  # as a C long


_TAIL = 24  # `=`, 20 digits, ` */`


def tails(block: Block, ends: Integers) -> Tails:
    """Of texts that end there."""
    fits = ends >= _TAIL
    columns = block.characters(np.where(fits, ends - _TAIL, 0), _TAIL)
    fits &= (columns[-3] == _SPACE) & (columns[-2] == ord("*")) & (columns[-1] == ord("/"))
    place = np.full(len(ends), -1)  # of the `=`
    spaced = np.zeros(len(ends), np.bool_)
    for at in range(_TAIL - 4, -1, -1):
        open_ = fits & (place < 0)
        character = columns[at]
        found = character == ord("=")
        place[open_ & found] = at
        spaces = (character == _SPACE) & ~spaced
        fits &= ~open_ | found | spaces | (~spaced & _IN_A_VALUE[character])
        spaced |= open_ & spaces
    fits &= (place >= 0) & (place < _TAIL - 4)
    return Tails(np.where(fits, _TAIL - 1 - place, 0), _values(columns, place))


def _values(columns: NDArray[np.uint8], place: Integers) -> Integers:
    """The number that stands behind the place, decimal, or hexadecimal behind 0x."""
    decimal, hexadecimal = (np.zeros(columns.shape[1], np.uint64) for _ in range(2))
    minus, is_hex = (np.zeros(columns.shape[1], np.bool_) for _ in range(2))
    for at in range(1, _TAIL - 3):
        character = columns[at]
        digit = _DIGIT[character]
        counts = (digit >= 0) & (place < at)
        digit = np.maximum(digit, 0).astype(np.uint64)
        decimal = np.where(counts, decimal * np.uint64(10) + digit, decimal)
        hexadecimal = np.where(counts, hexadecimal * np.uint64(16) + digit, hexadecimal)
        minus |= (character == ord("-")) & (place < at)
        is_hex |= (character == ord("x")) & (place < at)
    value = np.where(is_hex, hexadecimal, decimal).view(np.int64)
    return np.where(minus, -value, value)


_DIGIT = np.full(256, -1, np.int64)
_DIGIT[_ZERO : _NINE + 1] = range(10)
_DIGIT[ord("a") : ord("f") + 1] = range(10, 16)
_IN_A_VALUE = _DIGIT >= 0
_IN_A_VALUE[[ord("x"), ord("-")]] = True


class Distinct(Generic[Value]):
    """Numbers for pieces of text. `meaning` is asked once for each piece that is new; `values` holds its answers.

    Pieces are told apart by a 64-bit hash with a key drawn anew, so that no text can be made to collide.
    """

    def __init__(self, meaning: Callable[[bytes], Value], most: int) -> None:
        self.values: list[Value] = []
        self._meaning = meaning
        self._most = most
        self._key = np.uint64(secrets.randbits(64) | 1)
        self._numbers: dict[int, int] = {}
        self._slot_hash = np.zeros(1 << _SLOTS_BITS, np.uint64)
        self._slot_number = np.full(1 << _SLOTS_BITS, -1, np.int32)

    def of(self, block: Block, starts: Integers, lengths: Integers) -> NDArray[np.int32]:
        """The number of each piece."""
        hashes = self._hashes(block, starts, lengths)
        slots = (hashes >> np.uint64(64 - _SLOTS_BITS)).astype(np.int64)
        numbers = self._slot_number[slots]
        unknown = np.flatnonzero((self._slot_hash[slots] != hashes) | (numbers < 0))
        if len(unknown):
            new, first, which = np.unique(hashes[unknown], return_index=True, return_inverse=True)
            rows = unknown[first]
            pieces = zip(new.tolist(), starts[rows].tolist(), lengths[rows].tolist(), strict=True)
            found = np.array([self._number(block, *piece) for piece in pieces], np.int32)
            numbers[unknown] = found[which]
            self._slot_hash[slots[rows]] = new
            self._slot_number[slots[rows]] = found
        return numbers

    def trim(self) -> bool:
        """Forget all where there are too many: numbers given before have then no meaning any more."""
        if len(self.values) <= self._most:
            return False
        self.values.clear()
        self._numbers.clear()
        self._slot_number.fill(-1)
        return True

    def _number(self, block: Block, key: int, start: int, length: int) -> int:
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.values)
            self.values.append(self._meaning(block.text(start, length)))
        return number

    def _hashes(self, block: Block, starts: Integers, lengths: Integers) -> Words:
        hashes = (lengths.astype(np.uint64) + np.uint64(1)) * self._key
        rows: slice | Integers = slice(None)
        done = 0
        while True:
            left = lengths[rows] - done
            words = block.words[starts[rows] + done] & _LOW_BYTES[np.minimum(left, 8)]
            mixed = (hashes[rows] ^ words) * self._key
            hashes[rows] = mixed ^ (mixed >> np.uint64(29)) ^ (mixed << np.uint64(31))
            done += 8
            rows = np.flatnonzero(lengths > done)
            if not len(rows):
                return hashes
