"""A function's place among all that can be traced, as the kernel counts after boot, is known from the image."""

from __future__ import annotations

from typing import cast

import numpy as np

from profiler.debuginfo.trace_sites import chosen, sites
from profiler.debuginfo.vmlinux import Vmlinux
from profiler.errors import MissingError

SYMBOLS = {"__start_mcount_loc": 0x9000, "__init_begin": 0x5000, "__init_end": 0x6000}
NAMES = {0x1000: "first", 0x1100: "twice", 0x1200: "twice", 0x5100: "freed", 0x7000: "last"}


class Functions:
    names = tuple(NAMES.values())

    def rows_of(
        self, addresses: np.ndarray[tuple[int], np.dtype[np.uint64]]
    ) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        starts = list(NAMES)
        return np.array([starts.index(at - 4) if at - 4 in NAMES else -1 for at in addresses.tolist()])


class Image:
    """As of 5.10: the table is not sorted, and begins with what is freed; as of 7.3: with holes."""

    functions = Functions()

    def __init__(self, table: list[int]) -> None:
        self._table = np.array(table, "<u8").tobytes()

    def symbol_address(self, name: str) -> int:
        if not self._table:
            raise MissingError(f"no {name}")
        return {**SYMBOLS, "__stop_mcount_loc": 0x9000 + len(self._table)}[name]

    def read(self, address: int, size: int) -> bytes:
        return self._table[address - 0x9000 :][:size]


def image(*table: int) -> Vmlinux:
    return cast(Vmlinux, Image(list(table)))


def test_places_are_counted_without_holes_and_what_is_freed() -> None:
    found = sites(image(0x5104, 0, 0x7004, 0x1004, 0, 0x1104, 0x1204, 0x3000))
    assert found == {"first": [1], "twice": [2, 3], "last": [5]}


def test_an_order_takes_all_places_of_a_name_and_no_name_that_cannot_be_traced() -> None:
    functions, places = chosen(image(0x1004, 0x1104, 0x1204, 0x7004), ["twice", "last", "freed", "absent"])
    assert functions == ["last", "twice"]
    assert places == [2, 3, 4]


def test_an_image_without_a_table_knows_no_places() -> None:
    assert sites(image()) == {}
    assert sites(image(0, 0)) == {}
