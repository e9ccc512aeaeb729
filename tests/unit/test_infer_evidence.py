"""Samples as log-odds of blocks."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.graph import Block, Call, Edge, EdgeKind, FunctionGraph
from profiler.infer.evidence import BlockSamples, assign, combined, executed, log_odds, rate, unsampled, weights
from profiler.infer.walks import Weights


def block(start: int, length: int, *targets: int, call: bool = False, tail: bool = False, off: bool = False) -> Block:
    """`length` instructions of one byte each."""
    made = Call(start + length - 1, 0x9000, tail) if call or tail else None
    edges = tuple(Edge(target, EdgeKind.JUMP) for target in targets)
    end = start + length
    return Block(start, end, length, end - 1, (), edges, made, returns=not targets and not tail, interrupts_off=off)


def function(*blocks: Block) -> FunctionGraph:
    return FunctionGraph("f", blocks[0].start, {b.start: b for b in blocks})


def counted(own: dict[int, int], in_callees: dict[int, int] | None = None) -> BlockSamples:
    return BlockSamples(own, in_callees or {}, 0)


TWO = function(block(0x1000, 8, 0x1010, call=True), block(0x1010, 4))


def test_samples_go_to_the_block_that_holds_their_address() -> None:
    """Addresses between and outside the blocks are counted as stray, and lost to nobody."""
    found = assign(TWO, {0x1000: 3, 0x1007: 2, 0x1008: 1, 0x1013: 4, 0x1014: 1, 0xFFF: 5}, {})
    assert (dict(found.own), found.stray) == ({0x1000: 5, 0x1010: 4}, 7)


def test_samples_in_a_callee_go_to_the_block_that_called_it() -> None:
    """A return address is that of the first instruction behind the call, which may be another block's."""
    gapless = function(block(0x1000, 8, 0x1008, call=True), block(0x1008, 4))
    assert dict(assign(gapless, {}, {0x1008: 6}).in_callees) == {0x1000: 6}


def test_samples_in_a_callee_jumped_to_go_to_the_block_that_jumped() -> None:
    jumping = function(block(0x1000, 4, 0x1004), block(0x1004, 3, tail=True))
    assert dict(assign(jumping, {}, {0x1006: 6}).in_callees) == {0x1004: 6}


def test_silence_speaks_against_a_block_the_more_the_longer_it_is() -> None:
    odds = [log_odds(0, due) for due in (1.0, 5.0, 20.0, 100.0, 1000.0)]
    assert odds == sorted(odds, reverse=True)
    assert odds[0] < 0
    assert odds[-1] < -3


def test_samples_speak_for_a_block() -> None:
    for due in (0.1, 1.0, 10.0):
        assert log_odds(int(due) + 1, due) > 4


def test_a_few_samples_where_many_are_due_are_a_rare_detours() -> None:
    """Preemption leaves three samples in a block where a thousand are due: less than silence, but against it."""
    assert log_odds(0, 1000.0) < log_odds(3, 1000.0) < 0


def test_no_number_of_samples_is_certain() -> None:
    """Log-odds are bounded, so that one block cannot outweigh all others."""
    assert -12.0 <= log_odds(0, 1e12) < 0
    assert log_odds(10**9, 1.0) == 12.0


def test_where_nothing_is_due_silence_says_nothing() -> None:
    assert log_odds(0, 0.0) == 0.0


@settings(derandomize=True, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 10**6))
def test_log_odds_are_bounded_and_finite(count: int, due: float) -> None:
    assert -12.0 <= log_odds(count, due) <= 12.0


@settings(derandomize=True, deadline=None)
@given(st.integers(0, 200), st.integers(1, 50))
def test_more_samples_at_or_above_the_due_are_never_less(count: int, due: int) -> None:
    """And the same below the due."""
    more, less = log_odds(due + count + 1, due), log_odds(due + count, due)
    assert more >= less
    if count + 1 < due:
        assert log_odds(count + 1, due) >= log_odds(count, due)


def test_a_callee_without_samples_is_less_likely_the_more_blocks_it_must_run_through() -> None:
    found = [unsampled(blocks, 10.0) for blocks in (1, 2, 10, 100)]
    assert found == sorted(found, reverse=True)
    assert unsampled(5, 0.0) == 0.0


def test_exposure_is_counted_in_instructions_but_under_emulation_in_jumps() -> None:
    """A timer is noticed at the head of a translation block only, however long that is."""
    long_and_short = function(block(0x1000, 100, 0x1100), block(0x1100, 2))
    real = weights(long_and_short, counted({}), False, 1.0)
    assert real.reached[0x1000] < real.reached[0x1100] < 0
    emulated = weights(long_and_short, counted({}), True, 1.0)
    assert emulated.reached[0x1000] == emulated.reached[0x1100] < 0


def test_under_emulation_a_block_that_is_fallen_into_is_not_blamed_for_silence() -> None:
    found = weights(TWO, counted({}), True, 50.0)
    assert (found.reached[0x1010] < 0, found.fallen_into[0x1010]) == (True, 0.0)
    assert weights(TWO, counted({}), False, 50.0).fallen_into[0x1010] < 0


def test_with_interrupts_off_silence_says_nothing_but_samples_do() -> None:
    """A timer interrupt is taken where they come back on."""
    closed = function(block(0x1000, 8, 0x1010, off=True), block(0x1010, 4))
    assert weights(closed, counted({}), False, 50.0).reached[0x1000] == 0.0
    assert weights(closed, counted({0x1000: 400}), False, 50.0).reached[0x1000] > 0


def test_samples_in_a_callee_prove_the_call() -> None:
    """The block that made it has none itself, and still ran."""
    silent = weights(TWO, counted({0x1010: 100}), False, 10.0)
    called = weights(TWO, counted({0x1010: 100}, {0x1000: 500}), False, 10.0)
    assert silent.reached[0x1000] < 0 < called.reached[0x1000]


def test_the_rate_is_that_of_the_least_sampled_blocks_of_the_path() -> None:
    """Blocks of one path differ a hundredfold under emulation, and the shortest must not be lost."""
    path = function(*(block(0x1000 + 16 * i, 1, 0x1010 + 16 * i) for i in range(8)), block(0x1080, 1))
    own = {0x1000 + 16 * i: count for i, count in enumerate([10, 12, 15, 40, 80, 200, 400, 700])}
    assert rate(path, counted(own), True) == 15


def test_the_rate_leaves_out_blocks_of_rare_detours() -> None:
    path = function(*(block(0x1000 + 16 * i, 1, 0x1010 + 16 * i) for i in range(8)), block(0x1080, 1))
    own = {0x1000: 1, 0x1010: 2, 0x1020: 1, 0x1030: 1000, 0x1040: 1100}
    assert rate(path, counted(own), True) == 1000


def test_the_rate_is_per_instruction_and_zero_without_samples() -> None:
    assert rate(TWO, counted({0x1000: 80}), False) == 10.0
    assert rate(TWO, counted({0x1000: 80}), True) == 80.0
    assert rate(TWO, counted({}), False) == 0.0


def test_an_execution_log_says_of_every_block_whether_it_ran() -> None:
    """However often; and says more than any number of samples."""
    graph = function(block(0, 4), block(4, 4), block(8, 4))
    found = executed(graph, {0: 1, 8: 1000})
    assert found.reached == found.fallen_into
    assert found.reached[0] == found.reached[8] > 0 > found.reached[4]
    sampled = weights(graph, BlockSamples({4: 10**9}, {}, 0), False, 1e6)
    both = combined(found, sampled)
    assert both.reached[0] > 0 > both.reached[4]


def test_log_odds_of_several_sources_add_up() -> None:
    first, second = Weights({0: 1.5, 4: -2.0}, {0: 0.5, 4: 0.0}), Weights({0: -0.5, 4: -1.0}, {0: 0.25, 4: 3.0})
    assert combined(first, second) == Weights({0: 1.0, 4: -3.0}, {0: 0.75, 4: 3.0})
    assert combined(first) == first
