"""Which event a sample belongs to, where a recording has several."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from profiler.parse.perf_attr import Attr, Layout


class Events:
    """The events of a recording: told by the id each sample carries, and so how the sample is laid out."""

    def __init__(self, attrs: list[Attr]) -> None:
        self.layouts = [attr.layout() for attr in attrs]
        pairs = sorted((number, event) for event, attr in enumerate(attrs) for number in attr.ids)
        self._ids = np.array([number for number, _ in pairs], dtype=np.uint64)
        self._events = np.array([event for _, event in pairs], dtype=np.int16)
        self._by_id = dict(pairs)
        identities = {layout.identity for layout in self.layouts}
        self._identity = identities.pop() if len(identities) == 1 else None
        self.uniform = len(set(self.layouts)) == 1
        self.distinguishable = self._identity is not None or (self.uniform and len(attrs) > 0)

    def of(self, rows: NDArray[np.uint64]) -> NDArray[np.int16] | int:
        """One event for all rows where they share it, else one each; -1 where the id is not known."""
        if len(self.layouts) == 1 or self._identity is None or not len(self._ids):
            return 0
        ids = rows[:, self._identity]
        first = ids[0]
        if (ids == first).all():  # perf drains one CPU's buffer after the other
            return self._by_id.get(int(first), -1)
        return self._lookup(ids)

    def _lookup(self, ids: NDArray[np.uint64]) -> NDArray[np.int16]:
        place = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        return np.where(self._ids[place] == ids, self._events[place], np.int16(-1))

    def shared_layout(self, event: NDArray[np.int16] | int) -> Layout | None:
        """The layout of samples of `event` (as `of` returns it), where it is one and all are known."""
        if isinstance(event, int):
            return self.layouts[event] if event >= 0 else None
        return self.layouts[0] if self.uniform and bool((event >= 0).all()) else None

    @property
    def identity_words(self) -> int:
        """Words a sample must have for its event to be told."""
        return 1 if len(self.layouts) == 1 or self._identity is None else self._identity + 1
