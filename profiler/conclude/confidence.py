"""How sure a verdict is, and what each kind of evidence is worth at most."""

from __future__ import annotations

from profiler.conclude.source_walk import SourceVerdict
from profiler.infer.decision import Decision, breaks
from profiler.infer.slice import OriginKind
from profiler.infer.verdict import Located

MOST_CONFIDENCE = 0.99  # what is not modelled is never less likely than one in a hundred

# The most that samples alone are worth by what the source says of them: its condition lies on the deciding jump's
# lines, or does not (32 of 33 were right), or nothing in it explains them (6 of 8); of 308 calls on four kernels
# (tests/bench/accuracy).
_IN_SOURCE = {True: MOST_CONFIDENCE, False: 0.94, None: 0.85}

# The most that what was seen as it ran is worth where the source's condition is not on the deciding jump's lines: the
# jump is right, the condition in the source was in 20 of 21 (tests/bench/accuracy).
_ELSEWHERE = 0.94

# What a value of unseen origin is worth: its place is shown, but not named.
_UNSEEN = (OriginKind.MEMORY, OriginKind.UNKNOWN, OriginKind.ARGUMENT, OriginKind.CALL)


def confidence_of(best: Located, decision: Decision | None, found: SourceVerdict | None) -> float:
    """How sure site and branch are, in machine code and in source.

    Halved where nothing was seen to decide, or where the origin is no constant; less so where the source still shows
    one, as in a member that was set and is read back.
    """
    undecided = 0.9 if best.is_executed else 0.5
    confidence = min(MOST_CONFIDENCE, best.probability * (decision.probability if decision is not None else undecided))
    if found is not None:
        confidence *= found.probability
    if decision is not None and decision.by_pointer and not best.is_executed:
        confidence *= 0.7
    if not best.is_executed:
        confidence = min(confidence, _IN_SOURCE[found.agrees if found is not None else None])
    elif found is not None and not found.agrees:
        confidence = min(confidence, _ELSEWHERE)
    if best.origin.kind in _UNSEEN and not best.is_executed:
        confidence *= 0.5 if found is None else 0.75
    if best.origin.kind == OriginKind.CALL and best.is_executed:
        confidence *= 0.5  # made in a function that no probe could be set on
    if best.is_executed and breaks(best.levels, decision):
        confidence *= 0.5  # decided, perhaps, where none was set
    return confidence
