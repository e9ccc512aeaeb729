"""The ladder in a terminal: rungs, values at the branch, the manual, the kernel log, the candidates of the source."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from profiler.model import Analysis, Branch, Conclusion, EvidenceNote, LogLine, Meaning, SourceCandidate
from reports import findings, ladder
from reports.terminal_text import Piece, Writer
from reports.visible import place, prose, visible

_WIDE = 72  # from here on the figures of a rung have columns of their own
_LEFT_AT_MOST, _OUT_AT_MOST = 5, 4
_GRAVE_AT_MOST, _LOG_AT_MOST = 5, 4
_SAYS_AT_MOST = 240  # characters
_RUNG_WIDTH = 7  # of the longest name
_STAMP = "black on dark_orange"

Facts = list[tuple[str, list[Piece]]]


def values(branch: Branch) -> Facts:
    """What was in the condition, and its operands one by one."""
    facts: Facts = []
    if said := findings.branch_values(branch):
        facts.append(("values", [(said, "bold magenta")]))
    operands = findings.operands(branch)
    if operands:
        listed = ", ".join(f"{expression} = {value}" for expression, value in operands)
        facts.append(("" if facts else "values", [(listed, "" if not facts else "dim")]))
    return facts


def manual(meaning: Meaning, errno: str) -> list[Piece]:
    who, says = ladder.manual(meaning, errno)
    return [(who, "bold"), f": {says}" if says else ""]


def climbed(analysis: Analysis, writer: Writer) -> None:
    """Each rung with what it found, ruled out, took, and cost the load."""
    notes = ladder.rungs(analysis)
    if not notes:
        return
    writer.blank()
    writer.line(("The ladder", "bold"))
    wide = writer.width >= _WIDE
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold", ratio=1)
    if wide:
        for _ in range(3):
            grid.add_column(justify="right", no_wrap=True)
        grid.add_row("", "", *(writer.text((head, "dim")) for head in ("out", "took", "slower")))
    for note in notes:
        _rung(analysis, note, grid, writer, wide=wide)
    writer.table(grid)


def _rung(analysis: Analysis, note: EvidenceNote, grid: Table, writer: Writer, *, wide: bool) -> None:
    taken = ladder.is_taken(note)
    style = "" if taken else "dim"
    name = writer.text((visible(note.source, 12), "bold" if taken else "dim"))
    says = writer.text((visible(ladder.found(analysis, note), _SAYS_AT_MOST), style))
    figures = (ladder.excluded(note), ladder.took(note), ladder.slowed(note))
    if wide:
        grid.add_row(name, says, *(writer.text((f, style)) for f in figures))
        return
    grid.add_row(name, says)
    if taken:
        out, took, slower = figures
        cost = "" if slower == ladder.NOTHING else f", load {slower} slower"
        grid.add_row("", writer.text((f"{out} out, {took}{cost}", "dim")))


def grave_log(analysis: Analysis, writer: Writer) -> None:
    """Errors of hardware or a filesystem, above everything else."""
    lines = ladder.grave_lines(analysis)
    if not lines:
        return
    writer.paragraph(
        (" KERNEL LOG ", _STAMP), (f" {ladder.grave_kinds(analysis)} errors while the calls failed", "bold")
    )
    _log_lines(lines, _GRAVE_AT_MOST, writer)
    writer.blank()


def other_log(analysis: Analysis, writer: Writer) -> None:
    lines = ladder.other_lines(analysis)
    if not lines:
        return
    writer.blank()
    writer.line(("Kernel log meanwhile", "bold"))
    # Those that may say why the call failed, before what merely happened at the time.
    _log_lines(sorted(lines, key=lambda line: line.kind == "other"), _LOG_AT_MOST, writer)


def _log_lines(lines: list[LogLine], at_most: int, writer: Writer) -> None:
    for line in lines[:at_most]:
        kind = "" if line.kind == "other" else f"  ({visible(line.kind)})"
        writer.paragraph(ladder.stamped(line), (kind, "dim"), indent=1)
    _more(len(lines) - at_most, writer)


def _more(left: int, writer: Writer) -> None:
    if left > 0:
        writer.line((f" … and {left:,} more, --json for all", "dim"))


def candidates(analysis: Analysis, writer: Writer) -> None:
    """The places in the source that can return the errno: what is left, then what was crossed out, rung by rung."""
    if not analysis.source_candidates:
        return
    writer.blank()
    writer.line(("Places in the source", "bold"))
    writer.paragraph((ladder.tally(analysis), ""))
    left, named = ladder.remaining(analysis), analysis.conclusion is Conclusion.NAMED
    out = [one for one in ladder.sorted_candidates(analysis) if one.excluded_by]
    kept, crossed = Table.grid(padding=(0, 2)), Table.grid(padding=(0, 2))
    for grid, ratios in ((kept, (1,)), (crossed, (3, 2))):
        grid.add_column(no_wrap=True, min_width=_RUNG_WIDTH)
        for ratio in ratios:
            grid.add_column(overflow="fold", ratio=ratio)
    for one in left[:_LEFT_AT_MOST]:
        word = ("verdict", "bold red") if named and ladder.is_verdict(analysis, one) else ("left", "bold")
        kept.add_row(writer.text(word), _left(analysis, one, writer))
    for one in out[:_OUT_AT_MOST]:
        crossed.add_row(*_crossed_out(one, writer))
    for grid in (kept, crossed):
        if grid.row_count:
            writer.table(grid)
    _more(max(0, len(left) - _LEFT_AT_MOST) + max(0, len(out) - _OUT_AT_MOST), writer)


def _left(analysis: Analysis, one: SourceCandidate, writer: Writer) -> Text:
    reason = (f"\n{prose(one.reason)}" if one.reason else "", "")
    said, _ = ladder.condition(analysis, one)
    condition = (f"\n{said}" if said else "", "magenta")
    return writer.text((visible(one.site.function), "bold"), _where(one), condition, reason)


def _crossed_out(one: SourceCandidate, writer: Writer) -> list[Text]:
    site = writer.text((visible(one.site.function), "strike dim"), _where(one))
    return [writer.text((visible(one.excluded_by, 12), "dim")), site, writer.text((prose(one.reason), "dim"))]


def _where(one: SourceCandidate) -> Piece:
    return f" {place(one.site.file, one.site.line)}", "dim"
