"""The rungs of the ladder, each a kind of evidence that a verdict may rest on, the cheapest first.

man      what the manual says of the errno; needs nothing of the target
log      the kernel log from the time of the failing calls
source   the places in the source that can return the errno; read where the source is at hand
graph    the functions that the failing calls went through, by the function graph tracer
samples  perf's, of the load in its tight loop
probes   return probes, instruction probes and the values of operands, by kprobes
exact    an emulator's log of every instruction of a few calls; on a vm: target without KVM

`auto` takes what the target has, and the dearer ones only where the verdict is still open.
"""

from __future__ import annotations

from collections.abc import Mapping

from profiler.errors import UsageError

MAN, LOG, SOURCE, GRAPH, SAMPLES, PROBES, EXACT = "man", "log", "source", "graph", "samples", "probes", "exact"
RUNGS = (MAN, LOG, SOURCE, GRAPH, SAMPLES, PROBES, EXACT)
DECIDING = (SAMPLES, PROBES, EXACT)  # each names a branch by itself
RECORDED = frozenset((GRAPH, SAMPLES, PROBES, EXACT))  # what only the running kernel gives
AUTO: frozenset[str] = frozenset()


def overhead(rates: Mapping[str, float], rung: str) -> float | None:
    """The share of its rate that the load lost under a rung, by `Manifest.rates`; None where that was not measured."""
    alone, under = rates.get("none"), rates.get(rung)
    return 1 - under / alone if alone and under is not None else None


def parse(text: str) -> frozenset[str]:
    """The rungs that are asked for; AUTO leaves the choice. Raises UsageError."""
    words = [word.strip() for word in text.split(",")]
    if words == ["auto"]:
        return AUTO
    for word in words:
        if word not in RUNGS:
            raise UsageError(f"{word!r} is no kind of evidence", hint=f"there is auto, or any of {','.join(RUNGS)}")
    return frozenset(words)
