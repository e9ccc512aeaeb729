"""How fast the load calls, without and under each rung: what the evidence costs it.

A scenario's loop counts in a file mapped into memory (loadgen's `--counter`), so that following it costs the load
nothing. A program of somebody's own has no such file, and its rate is not known.
"""

import mmap
import os
import struct
import time

from profiler.errors import RecordError

NONE = "none"  # in place of a rung: the load alone
WARM = "warm"  # alone too, but not yet at its speed
_FIELDS = struct.Struct("=Qq")  # calls and busy_ns, the first two of loop.c's struct outcome
_LEAST_CALLS, _LEAST_NS = 20, 5_000_000  # below these a rate is chance


class Rate:
    """Calls a second by rung: whatever lies between `begin` and `end`, however often, counts towards it."""

    def __init__(self, path: str = "") -> None:
        """`path` is the loop's counter; "" for a load that has none. Raises RecordError on one that cannot be read."""
        self._map: mmap.mmap | None = None
        self._begun: dict[str, tuple[int, int]] = {}
        self._total: dict[str, tuple[int, int]] = {}
        if path:
            self._map = _mapped(path)

    def count(self) -> tuple[int, int]:
        """Calls up to the loop's last whole batch of some 2 ms, and the nanoseconds they took: what the loop waited
        for memory is left out."""
        if self._map is None:
            return 0, 0
        calls, busy_ns = _FIELDS.unpack_from(self._map)
        return calls, busy_ns

    def begin(self, rung: str) -> None:
        self._begun[rung] = self.count()

    def end(self, rung: str) -> None:
        """Does nothing where it has not begun."""
        begun = self._begun.pop(rung, None)
        if begun is None:
            return
        now, before = self.count(), self._total.get(rung, (0, 0))
        self._total[rung] = (before[0] + now[0] - begun[0], before[1] + now[1] - begun[1])

    def measure(self, seconds: float, rung: str = NONE) -> None:
        """Waits, and counts that towards `rung`. Returns at once where nothing can be measured."""
        if self._map is None:
            return
        self.begin(rung)
        time.sleep(seconds)
        self.end(rung)

    def rates(self) -> dict[str, float]:
        """Calls a second of every rung under which there were enough of them to say."""
        return {
            rung: round(calls / busy_ns * 1e9, 1)
            for rung, (calls, busy_ns) in self._total.items()
            if rung != WARM and calls >= _LEAST_CALLS and busy_ns >= _LEAST_NS
        }

    def close(self) -> None:
        if self._map is not None:
            self._map.close()
            self._map = None


def _mapped(path: str) -> mmap.mmap:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            return mmap.mmap(descriptor, _FIELDS.size, prot=mmap.PROT_READ)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        raise RecordError(f"the load's counter cannot be read: {error}") from error
