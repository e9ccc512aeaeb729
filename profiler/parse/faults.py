"""Malformed records, counted as they are met."""

from __future__ import annotations

from profiler.model import DecodeError

# A damaged file can hold millions; the first of them tell the story, the count tells the extent.
_KEPT = 1000


class Faults:
    """Collects DecodeErrors up to a limit and counts the rest."""

    def __init__(self) -> None:
        self._kept: list[DecodeError] = []
        self._left_out = 0
        self._last_offset = 0

    def add(self, offset: int, what: str) -> None:
        if len(self._kept) < _KEPT:
            self._kept.append(DecodeError(offset, what))
        else:
            self._left_out += 1
            self._last_offset = offset

    def errors(self) -> tuple[DecodeError, ...]:
        """In the order met; where some were left out, a last entry says how many."""
        if not self._left_out:
            return tuple(self._kept)
        return (*self._kept, DecodeError(self._last_offset, f"and {self._left_out} more such records up to here"))
