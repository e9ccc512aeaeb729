"""The kinds of evidence a verdict may rest on, as asked for: auto, samples, exact, or samples,exact.

samples  perf's, of the load in its tight loop; on every target
exact    an emulator's log of every instruction of a few calls; on a vm: target without KVM
auto     what settles it fastest: both where there is an emulator, else samples
"""

from __future__ import annotations

from profiler.errors import UsageError

SAMPLES, EXACT = "samples", "exact"
AUTO: frozenset[str] = frozenset()
CHOICES = ("auto", SAMPLES, EXACT, f"{SAMPLES},{EXACT}")


def parse(text: str) -> frozenset[str]:
    """The kinds that are asked for; AUTO leaves the choice. Raises UsageError."""
    words = [word.strip() for word in text.split(",")]
    if words == ["auto"]:
        return AUTO
    for word in words:
        if word not in (SAMPLES, EXACT):
            raise UsageError(
                f"{word!r} is no kind of evidence", hint=f"there is {', '.join(CHOICES[:-1])}, {CHOICES[-1]}"
            )
    return frozenset(words)
