"""Which registers and places hold which pointers, followed forwards through a function.

Knows no instructions: an architecture's frame says what each does, in these terms. What is not known to
be a pointer is None. Memory that was not written is taken to hold, all through the function, the one
pointer that it held at entry; so a pointer that another function changes in between keeps its name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from profiler.graph import Pointer


@dataclass(slots=True)
class Pointers:
    """`known`: registers and places that differ from what they hold unwritten."""

    known: dict[str, Pointer | None] = field(default_factory=dict)

    def copy(self) -> Pointers:
        return Pointers(dict(self.known))

    def __getitem__(self, place: str) -> Pointer | None:
        """What a register or place holds, as far as it is a pointer to something with a name."""
        if place in self.known:
            return self.known[place]
        return unwritten(place)

    def __setitem__(self, place: str, pointer: Pointer | None) -> None:
        if place:
            self.known[place] = pointer

    def forget(self, places: Iterable[str]) -> None:
        for place in places:
            self.known[place] = None

    def meet(self, other: Pointers) -> bool:
        """Keeps what both agree on; whether that took something away."""
        changed = False
        for place in self.known.keys() | other.known.keys():
            pointer = self[place]
            if pointer is not None and pointer != other[place]:
                self.known[place] = None
                changed = True
        return changed


def unwritten(place: str) -> Pointer | None:
    """What memory holds before it is written: a pointer of its own. Of a register or a stack slot nothing is known."""
    return Pointer(place, 0) if place.startswith("[") else None
