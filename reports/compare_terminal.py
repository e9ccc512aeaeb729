"""A comparison in the terminal: the verdicts side by side, and what changed in the deciding function."""

from __future__ import annotations

from rich.console import Console

from profiler.model import Conclusion
from reports import findings
from reports.comparison import AlignedLine, ComparedFunction, ComparedRun, Comparison
from reports.findings import BRANCH, ERROR_SITE
from reports.terminal_text import Piece, Writer
from reports.visible import counted, percent, place, prose, visible, visible_source

_LINES_AT_MOST = 18
_COLOURS = {
    Conclusion.NAMED: "bold green",
    Conclusion.INCONCLUSIVE: "bold dark_orange",
    Conclusion.NOT_REPRODUCED: "bold steel_blue",
}


def render(comparison: Comparison, console: Console) -> None:
    writer = Writer(console)
    first = comparison.runs[0].analysis
    writer.paragraph((f"{visible(first.syscall)}() and {visible(first.errno)}, {len(comparison.runs)} runs", "bold"))
    writer.paragraph(comparison.summary)
    for run in comparison.runs:
        _run(run, writer)
    if comparison.notices:
        writer.blank()
    for notice in comparison.notices:
        label: Piece = ("caution  ", "bold dark_orange") if notice.severe else ("note  ", "dim")
        writer.paragraph(label, notice.text)
    for function in comparison.functions:
        if function.decides:
            _function(function, comparison, writer)


def _run(run: ComparedRun, writer: Writer) -> None:
    analysis = run.analysis
    writer.blank()
    sure = "" if analysis.conclusion is Conclusion.NOT_REPRODUCED else f" {percent(analysis.confidence)} sure"
    by = findings.evidence_words(analysis)
    words = findings.CONCLUSION_WORDS[analysis.conclusion].lower()
    writer.line(
        (run.label, "bold"), "  ", (words, _COLOURS[analysis.conclusion]), sure, (f", by {by}" if by else "", "dim")
    )
    writer.line((f"  {findings.kernel_name(analysis)}", "dim"))
    branch, site = analysis.branch, analysis.error_site
    if branch is not None:
        writer.paragraph((findings.branch_sentence(branch), "magenta"), indent=2)
        if values := findings.branch_values(branch):
            writer.paragraph((f"with {values}", "bold magenta"), indent=2)
        writer.line((f"  {place(branch.file, branch.line)} in {visible(branch.function)}", "dim"))
    if site is not None:
        text = prose(site.text) if site.text else visible(site.address)
        writer.line("  ", (text, "red"), (f"  {place(site.file, site.line)} in {visible(site.function)}", "dim"))
    if branch is None and site is None:
        writer.paragraph(prose(analysis.reason), indent=2)


def _function(function: ComparedFunction, comparison: Comparison, writer: Writer) -> None:
    writer.blank()
    writer.line(
        (visible(function.name), "bold"), ("  share of its samples per line" if any(function.samples) else "", "dim")
    )
    for note in function.notes:
        writer.paragraph((note, "italic"))
    wanted = [
        line
        for line in function.lines
        if line.marks & {BRANCH, ERROR_SITE} or line.differs or line.peak > 0.02 or line.parts
    ]
    if not wanted:
        return
    numbered = len(comparison.runs) * 16 + 30 <= writer.width
    width = 16 if numbered else 9
    writer.line(*[(f"{_tail(run.short, width - 2):>{width - 1}} ", "dim") for run in comparison.runs])
    for line in wanted[:_LINES_AT_MOST]:
        writer.line(*_pieces(line, numbered), " ", _code(line))
    left = len(wanted) - _LINES_AT_MOST
    writer.line(("● on the path  ○ not on it" + ("  * differs significantly" if comparison.tests else ""), "dim"))
    if left > 0:
        writer.line((f"{counted(left, 'more line')} in the HTML page", "dim"))


def _tail(label: str, width: int) -> str:
    return label if len(label) <= width else "…" + label[-(width - 1) :]


def _pieces(line: AlignedLine, numbered: bool) -> list[Piece]:
    """Line number, whether it is on the path, and share of each run; a star where the share differs."""
    pieces: list[Piece] = []
    for cell, difference in zip(line.cells, line.differences, strict=True):
        if cell is None:
            pieces.append((f"{'—':>{15 if numbered else 8}} ", "dim"))
            continue
        star = "*" if difference is not None and difference.significant else " "
        ran: Piece = {True: ("●", "cyan"), False: ("○", "dim"), None: (" ", "")}[cell.on_path]
        pieces += [(f"{cell.line:>7}" if numbered else "", "dim"), " " if numbered else "", ran]
        pieces.append((f"{percent(cell.share) if cell.samples else '·':>6}{star} ", "bold" if star == "*" else ""))
    return pieces


def _code(line: AlignedLine) -> Piece:
    style = "bold magenta" if BRANCH in line.marks else "bold red" if ERROR_SITE in line.marks else ""
    return visible_source(line.text or "").replace("\t", "  "), style
