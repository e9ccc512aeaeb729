"""The results as text: on the terminal, and as Markdown for the README."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from tests.bench.accuracy.judging import CONFIDENT, ERROR, INCONCLUSIVE, NOT_REPRODUCED, RIGHT, WRONG, Row

COMMANDS = ("python -m tests.bench.accuracy run --out accuracy", "python -m tests.bench.accuracy table accuracy")
ALL = "all"


@dataclass(frozen=True, slots=True)
class Tally:
    """Verdicts of one kind of evidence on one kernel, or on all."""

    evidence: str
    kernel: str
    rows: tuple[Row, ...]

    def count(self, holds: Callable[[Row], bool]) -> int:
        return sum(holds(row) for row in self.rows)

    def of(self, verdict: str) -> int:
        return self.count(lambda row: row.verdict == verdict)

    @property
    def reproduced(self) -> int:
        """Recordings of a call that fails as said: what the shares are of."""
        return len(self.rows) - self.of(NOT_REPRODUCED)

    @property
    def named_sites(self) -> int:
        return self.count(lambda row: row.verdict in (RIGHT, WRONG) and row.result.site_right)

    @property
    def named_branches(self) -> int:
        return self.count(lambda row: row.verdict in (RIGHT, WRONG) and row.result.branch_right)

    @property
    def sure(self) -> int:
        return self.count(lambda row: row.result.sure)

    @property
    def surely_wrong(self) -> int:
        return self.count(lambda row: row.result.sure and row.verdict == WRONG)

    @property
    def valued(self) -> str:
        """Of the verdicts that name a place, those that give a value of the condition's."""
        named = self.of(RIGHT) + self.of(WRONG)
        count = self.count(lambda row: row.valued and row.verdict in (RIGHT, WRONG))
        return f"{count} of {named} ({count / named:.0%})" if named else "0"

    @property
    def wall(self) -> str:
        """Median and most of the seconds from command to verdict; "" where they are not of such runs."""
        taken = sorted(row.wall for row in self.rows if row.wall is not None)
        return f"{np.median(taken):.0f}, {taken[-1]:.0f}" if taken else ""

    def share(self, count: int) -> str:
        return f"{count} ({count / self.reproduced:.1%})" if self.reproduced else f"{count}"


def tallies(rows: list[Row]) -> list[Tally]:
    """By evidence: each kernel, then all of them."""
    found = []
    for evidence in dict.fromkeys(row.evidence for row in rows):
        alike = [row for row in rows if row.evidence == evidence]
        kernels = list(dict.fromkeys(row.kernel for row in alike))
        found += [Tally(evidence, kernel, tuple(row for row in alike if row.kernel == kernel)) for kernel in kernels]
        found.append(Tally(evidence, ALL, tuple(alike)))
    return found


HEADINGS = (
    *("evidence", "kernel", "calls", "right", "right site", "right branch"),
    *("inconclusive", "wrong", f"wrong at {CONFIDENT} and above", "rightly not reproduced", "error"),
    *("with values", "seconds to the verdict (median, most)"),
)


def cells(tally: Tally) -> list[str]:
    return [
        tally.evidence,
        tally.kernel,
        str(tally.reproduced),
        tally.share(tally.of(RIGHT)),
        tally.share(tally.named_sites),
        tally.share(tally.named_branches),
        tally.share(tally.of(INCONCLUSIVE)),
        tally.share(tally.of(WRONG)),
        f"{tally.surely_wrong} of {tally.sure}",
        str(tally.of(NOT_REPRODUCED)),
        str(tally.of(ERROR)),
        tally.valued,
        tally.wall,
    ]


def text(rows: list[Row]) -> str:
    table = [list(HEADINGS), *(cells(tally) for tally in tallies(rows))]
    return "\n".join([*_aligned(table), "", *_needed(rows), "", *_failing(rows)])


def _aligned(table: list[list[str]]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def _needed(rows: list[Row]) -> Iterable[str]:
    """What recording takes where it ends as soon as the verdict is sure."""
    for tally in tallies([row for row in rows if row.prefixes]):
        calls = [row for row in tally.rows if row.verdict != NOT_REPRODUCED]
        decided = [prefix for row in calls if (prefix := row.decided) is not None]
        wrong = sum(prefix.verdict.verdict == WRONG for prefix in decided)
        if decided:
            samples = np.quantile([prefix.samples for prefix in decided], [0.5, 0.9])
            seconds = np.quantile([prefix.seconds for prefix in decided], [0.5, 0.9], method="higher")
            yield (
                f"{tally.evidence}, {tally.kernel}: {len(decided)} of {len(calls)} decided at {CONFIDENT}, "
                f"half of them within {seconds[0]:.1f} s and {samples[0]:.0f} samples, "
                f"nine in ten within {seconds[1]:.1f} s and {samples[1]:.0f}; {wrong} of them wrong when they were"
            )

    for tally in tallies([row for row in rows if row.instructions]):
        logged = np.quantile([row.instructions for row in tally.rows], [0.5, 0.9])
        yield (
            f"{tally.evidence}, {tally.kernel}: at most {logged[0]:.0f} instructions logged in half of the runs, "
            f"{logged[1]:.0f} in nine of ten"
        )


def _failing(rows: list[Row]) -> Iterable[str]:
    for row in rows:
        result, head = row.result, f"{row.verdict:13s} {row.evidence:8s} {row.kernel:5s} {row.scenario}"
        if row.verdict == ERROR:
            yield f"{head}: {result.claimed}"
        elif row.verdict in (WRONG, INCONCLUSIVE):
            parts = f"site {_word(result.site_right)}, branch {_word(result.branch_right)}"
            yield f"{head} at {result.confidence} ({parts})"
            yield f"    {result.claimed}"
            yield f"    true: {row.true}"


def _word(right: bool) -> str:
    return RIGHT if right else WRONG


def markdown(rows: list[Row]) -> str:
    """The table alone, with the date and the commands that made it."""
    lines = [f"| {' | '.join(HEADINGS)} |", f"|{' --- |' * len(HEADINGS)}"]
    lines += [f"| {' | '.join(cells(tally))} |" for tally in tallies(rows)]
    made = f"Made on {datetime.now(UTC):%Y-%m-%d} by `{COMMANDS[0]}` and `{COMMANDS[1]}`."
    return "\n".join([*lines, "", made, ""])
