"""Evidence per block, as log-odds of its having run in every call against its not having run.

Samples are the source here; the result is plain numbers per block, and any other source that yields
such numbers (probe hits, an execution log) is added to them.

Model: in a block that runs in every call, samples are gamma-Poisson (negative binomial) with a mean
proportional to its exposure; in one that does not, they are the few of rare detours (preemption,
first calls, skid). Exposure is counted in instructions; under emulation a timer is noticed only at the
head of a translation block, so that every block reached by a jump or call has the same.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from profiler.graph import Block, FunctionGraph
from profiler.infer.walks import Weights

# Shape of the gamma: 0.7 was measured on emulated guests (spread of samples over the translation blocks of
# one path), where blocks of one path differ tenfold in samples.
SHAPE = 0.7
_RARE_SHARE = 0.003  # of the calls, taking a detour
_FEW = 0.01  # of the most samples that a block has: below, a block is left out when the rate is estimated
_STRAY = 0.05  # samples expected in a block that never runs
_STRONGEST = 12.0  # log-odds; no number of samples says more
_CERTAIN = 60.0  # log-odds: more than any number of samples, and still finite


@dataclass(frozen=True, slots=True)
class BlockSamples:
    """Samples of one function in one calling context, by block start."""

    own: Mapping[int, int]
    in_callees: Mapping[int, int]  # made from the call that ends the block
    stray: int  # at addresses that no block holds


def assign(graph: FunctionGraph, own: Mapping[int, int], in_callees: Mapping[int, int]) -> BlockSamples:
    """Samples by address, and by return address (or tail jump) for those in callees, to blocks.

    `in_callees` as calltree.counts_by_return_address gives it: tail jumps are negative.
    """
    starts = sorted(graph.blocks)
    by_block: Counter[int] = Counter()
    calls: Counter[int] = Counter()
    stray = 0
    for address, count in own.items():
        block = _holding(graph, starts, address)
        if block is None:
            stray += count
        else:
            by_block[block.start] += count
    for address, count in in_callees.items():
        # A return address is the first one behind its call; a tail jump (negative) lies in its block.
        block = _holding(graph, starts, -address if address < 0 else address - 1)
        if block is not None:
            calls[block.start] += count
    return BlockSamples(by_block, calls, stray)


def _holding(graph: FunctionGraph, starts: list[int], address: int) -> Block | None:
    index = bisect_right(starts, address) - 1
    if index < 0:
        return None
    block = graph.blocks[starts[index]]
    return block if address < block.end else None


def exposure(block: Block, emulated: bool) -> float:
    return 1.0 if emulated else float(block.instructions)


def rate(graph: FunctionGraph, samples: BlockSamples, emulated: bool) -> float:
    """Samples per unit of exposure due in a block that runs in every call.

    The lower quartile over the sampled blocks, those of rare detours left out: blocks of one path differ a
    hundredfold under emulation, where a sample's chance grows with the time that the block before took
    (io_uring_setup on 6.1: 4 to 674), and a path must not lose for its shortest blocks.
    """
    counts = [(count, exposure(graph.blocks[start], emulated)) for start, count in samples.own.items() if count]
    least = _FEW * max((count for count, _ in counts), default=0)
    found = sorted(count / length for count, length in counts if count >= least)
    return found[len(found) // 4] if found else 0.0


def weights(graph: FunctionGraph, samples: BlockSamples, emulated: bool, per_exposure: float) -> Weights:
    """Log-odds for each block of the graph. `per_exposure`: expected samples, from `rate`."""
    reached: dict[int, float] = {}
    fallen: dict[int, float] = {}
    for start, block in graph.blocks.items():
        if samples.in_callees.get(start):
            count = samples.own.get(start, 0) + samples.in_callees[start]
        else:
            count = samples.own.get(start, 0)
        expected = per_exposure * exposure(block, emulated)
        odds = log_odds(count, expected)
        if count == 0 and block.interrupts_off:
            odds = 0.0  # no timer interrupt can be taken here, so silence says nothing
        reached[start] = odds
        fallen[start] = max(0.0, odds) if emulated else odds
    return Weights(reached, fallen)


def executed(graph: FunctionGraph, times: Mapping[int, int]) -> Weights:
    """Log-odds from an execution log: `times` each address was executed in one call."""
    odds = {start: _CERTAIN if times.get(start) else -_CERTAIN for start in graph.blocks}
    return Weights(odds, odds)


def combined(*sources: Weights) -> Weights:
    """Evidence of several sources for the blocks of one function: log-odds add up."""
    return Weights(
        {start: sum(weights.reached[start] for weights in sources) for start in sources[0].reached},
        {start: sum(weights.fallen_into[start] for weights in sources) for start in sources[0].fallen_into},
    )


def log_odds(count: int, expected: float) -> float:
    """Log-odds of `count` samples where `expected` are due, against a block that does not run in every call."""
    if expected <= 0 and count == 0:
        return 0.0
    due = max(expected, 0.5)
    enough = 4.0 + math.log1p(count)
    if count >= due:
        return min(_STRONGEST, enough)
    ran = _log_negative_binomial(count, due)
    rare = _log_negative_binomial(count, _RARE_SHARE * due + _STRAY)
    return max(-_STRONGEST, min(_STRONGEST, enough, ran - rare))


def unsampled(blocks: int, per_exposure: float) -> float:
    """Log-odds of a callee that must run through at least `blocks` blocks and shows no sample at all.

    One gamma-distributed rate for the whole callee: its blocks are neighbours and share their luck.
    """
    return -SHAPE * math.log1p(per_exposure * blocks / SHAPE)


def _log_negative_binomial(count: int, mean: float) -> float:
    p = SHAPE / (SHAPE + mean)
    return (
        math.lgamma(count + SHAPE)
        - math.lgamma(SHAPE)
        - math.lgamma(count + 1)
        + SHAPE * math.log(p)
        + count * math.log1p(-p)
    )
