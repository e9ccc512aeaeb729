"""/proc/kallsyms: the symbols of a running kernel and its modules."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from profiler.errors import InputError, MissingError

_NEWLINE, _SPACE = ord("\n"), ord(" ")
# The value of each hexadecimal digit; 0x80 for any other byte.
_DIGITS = np.full(256, 0x80, np.uint8)
_DIGITS[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)
_DIGITS[np.frombuffer(b"ABCDEF", np.uint8)] = np.arange(10, 16)


@dataclass(frozen=True, eq=False)
class Kallsyms:
    """Symbols by rising address; of several at one address, in the order of the file.

    `kinds` are the letters of nm(1): t and T are code. `modules` has "" for the kernel itself.
    """

    addresses: NDArray[np.uint64]
    kinds: str
    names: tuple[str, ...]
    modules: tuple[str, ...]

    def find(self, addresses: NDArray[np.uint64]) -> NDArray[np.int64]:
        """For each address the index of the last symbol that starts at or before it, of those at one address
        the first of code; -1 before all symbols. A symbol is taken to reach up to the next one.
        """
        last = np.searchsorted(self.addresses, addresses, side="right") - 1
        return np.where(last < 0, -1, self._chosen[last])

    def address_of(self, name: str, module: str = "") -> int | None:
        """The address of the first symbol of that name; None where there is none. Static names may occur several
        times: see `addresses_of`."""
        found = self.addresses_of(name, module)
        return found[0] if found else None

    def addresses_of(self, name: str, module: str = "") -> list[int]:
        """Of every symbol of that name in the kernel (or the module), by rising address."""
        return [int(self.addresses[i]) for i in self._by_name.get(name, ()) if self.modules[i] == module]

    @cached_property
    def _by_name(self) -> dict[str, list[int]]:
        index: dict[str, list[int]] = {}
        for i, name in enumerate(self.names):
            index.setdefault(name, []).append(i)
        return index

    @cached_property
    def _chosen(self) -> NDArray[np.int64]:
        """For each symbol the index of the one to name its address by: the first of code there, else the first."""
        kinds = np.frombuffer(self.kinds.encode("latin-1"), np.uint8)
        code = (kinds | 0x20 == ord("t")) | (kinds | 0x20 == ord("w"))
        starts = np.concatenate(([True], self.addresses[1:] != self.addresses[:-1]))
        group = np.cumsum(starts) - 1
        first = np.flatnonzero(starts)
        coded = np.flatnonzero(code)[::-1]
        first[group[coded]] = coded  # assigned last to first, so that the first of each stays
        chosen: NDArray[np.int64] = first[group]
        return chosen


def read(path: Path) -> Kallsyms:
    """Raises InputError where the file is no kallsyms, MissingError where the kernel hid the addresses."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return parse(data, str(path))


def parse(data: bytes, name: str) -> Kallsyms:
    """`data` is the whole text; `name` is for messages."""
    if not data.strip():
        raise InputError(f"{name}: empty", hint="record again as root: /proc/kallsyms could not be read")
    if not data.endswith(b"\n"):
        raise InputError(f"{name}: cut inside its last line", hint="record again")
    addresses = _addresses(data, name)
    if not addresses.any():
        raise MissingError(
            f"{name}: all addresses are zero: the kernel hides them",
            hint="record as root with `sysctl kernel.kptr_restrict=0` (or 1)",
        )
    # ffffffff81234560 T __x64_sys_bind
    # ffffffffc0001000 t nft_do_chain	[nf_tables]
    fields = data.decode("utf-8", "backslashreplace").split("\n")[:-1]
    tails = [line.split(" ", 2) for line in fields]
    order = np.argsort(addresses, kind="stable")
    kinds = "".join([tail[1] for tail in tails])
    symbols = [tail[2] for tail in tails]
    if len(kinds) != len(addresses):
        raise InputError(f"{name}: a symbol's kind is not one letter")
    sorted_names = [symbols[i] for i in order.tolist()]
    split = [symbol.partition("\t") for symbol in sorted_names]
    return Kallsyms(
        addresses=addresses[order],
        kinds="".join([kinds[i] for i in order.tolist()]),
        names=tuple([part[0] for part in split]),
        modules=tuple([part[2].strip("[]") for part in split]),
    )


def _addresses(data: bytes, name: str) -> NDArray[np.uint64]:
    """The hexadecimal number at the start of each line, all lines at once: column after column."""
    text = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(text == _NEWLINE)
    starts = np.concatenate(([0], ends[:-1] + 1))
    width = data.find(b" ")  # 16 on 64-bit kernels, 8 on others
    if not 1 <= width <= 16:
        raise InputError(f"{name}: line 1 is no symbol: {data[:60]!r}")
    fits = ends - starts > width + 3
    digits = _DIGITS[text[np.where(fits, starts, 0)[:, None] + np.arange(width)]]
    # An address, a space, a letter, a space, at least one character of a name
    spaces = (text[np.where(fits, starts + width, 0)] == _SPACE) & (
        text[np.where(fits, starts + width + 2, 0)] == _SPACE
    )
    wrong = np.flatnonzero(~fits | ~spaces | (digits & 0x80).any(axis=1))
    if len(wrong):
        line = int(wrong[0])
        shown = data[starts[line] : ends[line]][:60]
        raise InputError(f"{name}: line {line + 1} is no symbol: {shown!r}")
    addresses = np.zeros(len(starts), np.uint64)
    for column in range(width):
        addresses = addresses << np.uint64(4) | digits[:, column]
    return addresses
