"""Repeats the call of a scenario so that it succeeds: a few calls, a pause, a few calls.

There is no haste: whoever looks at successful calls wants some dozens of them, and what they leave for later (memory
that RCU frees, sockets that linger) shall not pile up.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Generator

from loadgen import loop
from loadgen.scenario import Call, Success
from loadgen.setup import Setup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctypes import CDLL

Prepare = Callable[[Setup], Call]

CALLS_A_TURN = 16
PAUSE_SECONDS = 0.005
_ENDS = ("memory", "error", "signal")  # of a turn, that end the whole


class Repetition:
    """The turns of one load. `first` is taken before anybody waits for it: what cannot succeed here says so then."""

    def __init__(self, library: CDLL, success: Success, prepare: Prepare) -> None:
        self._library = library
        self._success = success
        self._prepare = prepare
        self._ended = False

    def first(self) -> loop.Outcome:
        return self.run(1.0, 1)

    def run(self, seconds: float, calls_limit: int = 0, total: loop.Outcome | None = None) -> loop.Outcome:
        """Turns until `seconds` are over, `calls_limit` calls are made (0: no limit), or a signal says stop; counted in
        `total`, or a new Outcome."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        total = total or loop.Outcome()
        started = time.monotonic()
        total.stopped_by = loop.STOPPED_BY.index("time")
        turns = self._turns()
        try:
            for setup, call in turns:
                left = seconds - (time.monotonic() - started)
                most = min(self._calls_a_turn(), (calls_limit or 1 << 62) - total.calls)
                outcome = loop.run(self._library, loop.plan(call, setup, max(left, 0.0), most))
                add(total, outcome)
                if self._ended or loop.STOPPED_BY[outcome.stopped_by] in _ENDS:
                    total.stopped_by = outcome.stopped_by if not self._ended else loop.STOPPED_BY.index("signal")
                    break
                if calls_limit and total.calls >= calls_limit:
                    total.stopped_by = loop.STOPPED_BY.index("count")
                    break
                if time.monotonic() - started >= seconds:
                    break
                time.sleep(PAUSE_SECONDS)
        finally:
            turns.close()
        total.elapsed_ns = int((time.monotonic() - started) * 1e9)
        return total

    def _turns(self) -> Generator[tuple[Setup, Call]]:
        while True:
            with Setup() as setup:
                call = self._prepare(setup)
                while True:
                    yield setup, call
                    if self._success.anew:
                        break

    def _calls_a_turn(self) -> int:
        return 1 if self._success.anew else CALLS_A_TURN

    def _end(self, _number: int, _frame: object) -> None:
        self._ended = True


def add(total: loop.Outcome, outcome: loop.Outcome) -> None:
    total.calls += outcome.calls
    total.busy_ns += outcome.busy_ns
    total.successes += outcome.successes
    total.success_result = outcome.success_result
    total.pauses += outcome.pauses
    total.error = outcome.error
    if outcome.calls == outcome.successes:
        return  # the loop below takes a while under emulation
    for number in range(loop.ERRNOS):
        total.failures[number] += outcome.failures[number]
