"""The functions of a symbol table: ranges, names, the pieces that a compiler makes of one."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

STT_NOTYPE, STT_FUNC = 0, 2

# inet_csk_get_port.cold, do_madvise.part.0, foo.isra.0.cold, bar.constprop.1, baz.llvm.123
PIECE = re.compile(r"(?:\.(?:cold|part|isra|constprop|llvm|lto_priv)(?:\.\d+)*)+$")
# padding before a function, a symbol of its own; no code
NOT_CODE = ("__pfx_", "__cfi_")
# AArch64 marks where code and data begin; the hypervisor's part of the kernel has all its symbols prefixed
MAPPING = re.compile(r"(?:__kvm_nvhe_)?\$[xd](?:\.\w+)?")
# what code that runs before the kernel is mapped calls functions by
SECOND_NAME = "__pi_"
# what the linker script puts between input sections, without size
LONGEST_UNSIZED = 4096  # the longest in a kernel are tables of entry stubs; beyond lies padding between sections
BOUNDARY = re.compile(r"_[se]text|_text|_[se]inittext|_edata|.*_(?:start|end|begin)")


@dataclass(frozen=True, slots=True, order=True)
class Function:
    """A range of text, [start, end), under one name."""

    start: int
    end: int
    name: str

    @property
    def base_name(self) -> str:
        """The name without what the compiler appends to a piece or clone of it."""
        return base_name(self.name)


def base_name(symbol: str) -> str:
    """`do_madvise.part.0.cold` → `do_madvise`."""
    return PIECE.sub("", symbol)


def decode_name(strings: bytes, offset: int) -> str:
    """The zero-terminated name at an offset of a string table; undecodable bytes become escapes."""
    end = strings.find(b"\0", offset)
    return strings[offset : end if end >= 0 else len(strings)].decode("utf-8", "backslashreplace")


class FunctionTable:
    """Functions by start address: `start` and `end` (uint64, one row a function, rising), `names`.

    One name an address range: of symbols that start together the longest is kept, then one typed as a
    function, then one without a second name's prefix, then that with the fewest leading underscores. The
    other names are still found by `named`.
    """

    def __init__(
        self, start: NDArray[np.uint64], end: NDArray[np.uint64], names: list[str], aliases: dict[str, list[int]]
    ) -> None:
        self.start = start
        self.end = end
        self.names = names
        self._aliases = aliases  # name → rows, for every name
        self._pieces: dict[str, list[int]] | None = None

    @classmethod
    def from_symbols(
        cls, symbols: NDArray[np.void], strings: bytes, executable: NDArray[np.bool_], section_ends: list[int]
    ) -> FunctionTable:
        """From the rows of .symtab, `executable[i]` saying whether section i is code.

        Assembly often has symbols without type or size. Those with a size count as functions; those
        without reach up to the next symbol, and count only outside every sized function.
        """
        kind = symbols["info"] & 0xF
        inside = symbols["section"].astype(np.int64)
        inside = np.where(inside < len(executable), inside, 0)
        wanted = executable[inside] & ((kind == STT_FUNC) | (kind == STT_NOTYPE)) & (symbols["name"] != 0)
        rows = symbols[wanted]
        names = [decode_name(strings, offset) for offset in rows["name"].tolist()]
        sized = (rows["size"] > 0).tolist()
        is_code = np.array([_is_code(name, has_size) for name, has_size in zip(names, sized, strict=True)], dtype=bool)
        ends = _ends(rows, section_ends)
        keep = is_code & (ends > rows["value"]) & ~_labels_inside(rows)
        return cls._from_rows(rows[keep], ends[keep], [name for name, kept in zip(names, keep, strict=True) if kept])

    @classmethod
    def _from_rows(cls, rows: NDArray[np.void], ends: NDArray[np.uint64], names: list[str]) -> FunctionTable:
        underscores = np.array([len(name) - len(name.lstrip("_")) for name in names], np.int64)
        is_function = (rows["info"] & 0xF) == STT_FUNC
        is_second = np.array([name.startswith(SECOND_NAME) for name in names], dtype=bool)
        order = np.lexsort((underscores, is_second, ~is_function, np.iinfo(np.uint64).max - ends, rows["value"]))
        start: list[int] = []
        end: list[int] = []
        kept: list[str] = []
        aliases: dict[str, list[int]] = {}
        values, limits = rows["value"].tolist(), ends.tolist()
        for index in order.tolist():
            if not start or values[index] != start[-1]:
                start.append(values[index])
                end.append(limits[index])
                kept.append(names[index])
            known = aliases.setdefault(names[index], [])
            if not known or known[-1] != len(start) - 1:
                known.append(len(start) - 1)
        return cls(np.array(start, np.uint64), np.array(end, np.uint64), kept, aliases)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, row: int) -> Function:
        return Function(int(self.start[row]), int(self.end[row]), self.names[row])

    @cached_property
    def _bounds(self) -> tuple[list[int], list[int]]:
        return self.start.tolist(), self.end.tolist()

    def rows_of(self, addresses: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The row of the function that holds each address, -1 where none does."""
        if not len(self):
            return np.full(len(addresses), -1, np.int64)
        row = np.searchsorted(self.start, addresses, side="right").astype(np.int64) - 1
        # A function may lie within another (assembly); three steps outwards are more than there are.
        for _ in range(3):
            missed = (row >= 0) & (addresses >= self.end[row])
            if not missed.any():
                return row
            enclosing = row[missed] - 1
            holds = (enclosing >= 0) & (addresses[missed] < self.end[enclosing])
            row[missed] = np.where(holds | (enclosing < 0), enclosing, row[missed] - 1)
        row[(row >= 0) & (addresses >= self.end[row])] = -1
        return row

    def at(self, address: int) -> Function | None:
        """As `rows_of`; one address alone is found much faster in lists."""
        start, end = self._bounds
        row = bisect_right(start, address) - 1
        for _ in range(3):  # outwards, as there
            if row < 0 or address < end[row]:
                break
            row -= 1
        return Function(start[row], end[row], self.names[row]) if row >= 0 and address < end[row] else None

    def named(self, name: str) -> list[Function]:
        """Functions of exactly this name, under this name even where the table prefers an alias."""
        return [Function(int(self.start[row]), int(self.end[row]), name) for row in self._aliases.get(name, [])]

    def pieces_of(self, name: str) -> list[Function]:
        """Functions whose name is `name` but for `.cold`, `.part.N`, `.isra.N`, `.constprop.N`; by address."""
        if self._pieces is None:
            self._pieces = {}
            for symbol, rows in self._aliases.items():
                if "." in symbol:
                    self._pieces.setdefault(base_name(symbol), []).extend(rows)
        return sorted(self.named(name) + [self[row] for row in self._pieces.get(name, [])])


def _is_code(name: str, has_size: bool) -> bool:
    if name.startswith(NOT_CODE) or MAPPING.fullmatch(name):
        return False
    return has_size or not BOUNDARY.fullmatch(name)


def _ends(rows: NDArray[np.void], section_ends: list[int]) -> NDArray[np.uint64]:
    """Where each symbol ends: by its size, else at the next symbol or the end of its section."""
    boundaries = np.unique(np.concatenate([rows["value"], np.array(section_ends, np.uint64)]))
    following = np.searchsorted(boundaries, rows["value"], side="right")
    following = np.minimum(following, len(boundaries) - 1)
    reach = np.minimum(boundaries[following], rows["value"] + LONGEST_UNSIZED)
    ends: NDArray[np.uint64] = np.where(rows["size"] > 0, rows["value"] + rows["size"], reach).astype(np.uint64)
    return ends


def _labels_inside(rows: NDArray[np.void]) -> NDArray[np.bool_]:
    """Which unsized symbols lie within a sized function: labels, not functions."""
    sized = rows[rows["size"] > 0]
    sized = sized[np.argsort(sized["value"])]
    if not len(sized):
        return np.zeros(len(rows), dtype=bool)
    reach = np.maximum.accumulate(sized["value"] + sized["size"])
    before = np.searchsorted(sized["value"], rows["value"], side="right") - 1
    covered = (before >= 0) & (rows["value"] < reach[np.maximum(before, 0)])
    return np.asarray((rows["size"] == 0) & covered, dtype=bool)
