"""The report in a terminal: the verdict, the calls, the source around the branch, the candidates.

Colour is rich's business: none when the output is no terminal or NO_COLOR is set.
"""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from profiler.model import Analysis, AnnotatedFunction, Branch, ChainLink, Conclusion
from reports import findings, terminal_graph, terminal_ladder, walk
from reports.excerpt import fold
from reports.highlight import token_rows
from reports.terminal_source import excerpt, source_line
from reports.terminal_text import TAB_WIDTH, Piece, Writer
from reports.visible import counted, percent, place, prose, visible, visible_source

_STYLES = {
    Conclusion.NAMED: "bold white on green4",
    Conclusion.INCONCLUSIVE: "bold black on dark_orange",
    Conclusion.NOT_REPRODUCED: "bold white on steel_blue",
}
_CANDIDATES_AT_MOST = 6


def render(analysis: Analysis, console: Console) -> None:
    """Print the report of `analysis` on `console`, one to two screens."""
    writer = Writer(console)
    terminal_ladder.grave_log(analysis, writer)
    _verdict(analysis, writer)
    _notices(analysis, writer)
    terminal_ladder.climbed(analysis, writer)
    if analysis.conclusion is Conclusion.NOT_REPRODUCED:
        _load(analysis, writer)
    else:
        _chain(analysis, writer)
        _origin(analysis, writer)
        _graph(analysis, writer)
        _candidates(analysis, writer)
        terminal_ladder.candidates(analysis, writer)
    terminal_ladder.other_log(analysis, writer)
    _next_steps(analysis, writer)


def _verdict(analysis: Analysis, writer: Writer) -> None:
    stamp = findings.CONCLUSION_WORDS[analysis.conclusion].upper()
    writer.paragraph((f" {stamp} ", _STYLES[analysis.conclusion]), " ", (findings.headline(analysis), "bold"))
    if analysis.reason:
        writer.paragraph(prose(analysis.reason))
    writer.blank()
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, pieces in _facts(analysis):
        grid.add_row(label, writer.text(*pieces))
    writer.table(grid)


def _facts(analysis: Analysis) -> list[tuple[str, list[Piece]]]:
    facts: list[tuple[str, list[Piece]]] = []
    if analysis.branch is not None:
        facts += [("branch", _branch(analysis.branch)), ("", _branch_place(analysis.branch))]
        facts += terminal_ladder.values(analysis.branch)
    site = analysis.error_site
    if site is not None:
        text = prose(site.text) if site.text else f"-{visible(analysis.errno)} at {visible(site.address)}"
        facts += [("error", [(text, "red")])]
        facts += [("", [place(site.file, site.line), (f" in {visible(site.function)}", "dim")])]
    if analysis.meaning is not None:
        facts += [("manual", terminal_ladder.manual(analysis.meaning, analysis.errno))]
    if analysis.conclusion is not Conclusion.NOT_REPRODUCED:
        facts += [("confidence", [(percent(analysis.confidence), "bold")])]
    facts += [("kernel", [findings.kernel_name(analysis)])]
    if rests_on := findings.evidence_words(analysis):
        facts += [("evidence", [(rests_on, "bold")])]
    if effort := findings.effort_sentence(analysis):
        facts += [("", [effort])]
    facts += [("samples", [findings.sample_sentence(analysis)])]
    return facts


def _branch(branch: Branch) -> list[Piece]:
    if branch.condition is None:
        return [(f"conditional jump at {visible(branch.address)}", "magenta")]
    return [(prose(branch.condition), "magenta"), (f"  {findings.branch_words(branch)}", "bold magenta")]


def _branch_place(branch: Branch) -> list[Piece]:
    outer = "".join(
        f", inlined into {visible(o.function)} at {place(o.file, o.line)}" for o in findings.outer_places(branch)
    )
    return [place(branch.file, branch.line), (f" in {visible(branch.function)}{outer}", "dim")]


def _notices(analysis: Analysis, writer: Writer) -> None:
    found = findings.notices(analysis)
    if found:
        writer.blank()
    for notice in found:
        label, style = ("caution", "bold dark_orange") if notice.severe else ("note", "dim")
        grid = Table.grid(padding=(0, 2))
        grid.add_column(width=10, no_wrap=True)
        grid.add_column(overflow="fold")
        grid.add_row(writer.text((label, style)), writer.text((notice.text, "bold" if notice.severe else "")))
        writer.table(grid)


def _chain(analysis: Analysis, writer: Writer) -> None:
    if not analysis.chain:
        return
    writer.blank()
    writer.line(("From the system call to the origin", "bold"))
    for depth, link in enumerate(analysis.chain):
        stem = "" if depth == 0 else " " * min(2 * depth, 16) + "└ "
        last = depth == len(analysis.chain) - 1
        pieces: list[Piece] = [(stem, "dim"), (visible(link.function), "bold red" if last else "bold")]
        if link.inlined:
            pieces.append((" (inlined)", "dim"))
        if link.file and depth:
            pieces.append((f"  {place(link.file, link.line)}", "dim"))
            text = _call_text(analysis, link)
            pieces.append((f"  {text}" if text else "", "cyan"))
        writer.line(*pieces)


def _call_text(analysis: Analysis, link: ChainLink) -> str:
    """The source of the call, where one of the functions shown has it."""
    for function in analysis.functions:
        for line in function.lines if function.file == link.file else ():
            if line.line == link.line and line.text is not None:
                return prose(line.text)
    return ""


def _origin(analysis: Analysis, writer: Writer) -> None:
    index = findings.origin_index(analysis)
    if index is None:
        return
    function = analysis.functions[index]
    writer.blank()
    title: list[Piece] = [(visible(function.function), "bold"), (f"  {visible(function.file)}", "dim")]
    writer.line(*title, (f"  {counted(function.samples, 'sample')}" if function.samples else "", "dim"))
    if tally := walk.tally(analysis, function):
        words = walk.words(analysis)
        writer.paragraph((words.sentence, ""))
        writer.line((f"● {words.on} ({tally.partition(' line')[0]})  ○ {words.off}  → where a branch went on", "dim"))
    if not findings.has_source(function):
        writer.paragraph((f"source not at hand; to see it: {findings.source_advice(analysis)}", "italic"))
    _source(analysis, function, writer)


def _source(analysis: Analysis, function: AnnotatedFunction, writer: Writer) -> None:
    marks = [findings.marks_of(analysis, function, line) for line in function.lines]
    texts = [(visible_source(line.text) if line.text is not None else "") for line in function.lines]
    tokens = token_rows([text.expandtabs(TAB_WIDTH) for text in texts])
    for stretch in fold(excerpt(function, marks), context=0, shortest=3):
        if stretch.folded:
            says = walk.folded(analysis, function.lines[stretch.start : stretch.stop])
            writer.line((f"{'⋮':>7}   {says}", "dim"))
            continue
        for row in range(stretch.start, stretch.stop):
            values = findings.branch_values(analysis.branch) if findings.BRANCH in marks[row] else ""
            source_line(writer, function, row, marks[row], tokens[row], values)


def _graph(analysis: Analysis, writer: Writer) -> None:
    """In words: the trees themselves are on the page, and `whyerrno graph` shows them here."""
    if analysis.graph is None:
        return
    writer.blank()
    writer.line(("Function graph", "bold"))
    writer.paragraph(f"{terminal_graph.calls_sentence(analysis.graph)}.")
    if analysis.graph.divergence:
        writer.paragraph(f"They part {prose(analysis.graph.divergence)}.")


def _candidates(analysis: Analysis, writer: Writer) -> None:
    if not analysis.candidates:
        return
    writer.blank()
    writer.line(("Candidates", "bold"))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(overflow="fold", ratio=2)
    grid.add_column(overflow="fold", ratio=3)
    for candidate in analysis.candidates[:_CANDIDATES_AT_MOST]:
        site, kept = candidate.site, candidate.excluded_by is None
        where = writer.text(
            (visible(site.function), "bold" if kept else ""), (f" {place(site.file, site.line)}", "dim")
        )
        named = analysis.conclusion is Conclusion.NAMED
        why = ("the verdict" if named else "still possible") if kept else prose(candidate.excluded_by or "")
        row = writer.text((percent(candidate.probability), "bold" if kept else ""))
        grid.add_row(row, where, writer.text((why, "bold red" if kept else "")))
    writer.table(grid)
    left = len(analysis.candidates) - _CANDIDATES_AT_MOST
    if left > 0:
        writer.line((f"and {counted(left, 'more candidate')}, all in the HTML report", "dim"))


def _load(analysis: Analysis, writer: Writer) -> None:
    rows = findings.load_lines(analysis)
    if not rows:
        return
    writer.blank()
    writer.line(("What the calls returned instead", "bold"))
    for name, number, share in rows[:12]:
        writer.line(f"  {name:<18}", f"{number:>14,} {percent(share):>7} ", (writer.bar(share, 20), "steel_blue"))


def _next_steps(analysis: Analysis, writer: Writer) -> None:
    if not analysis.next_steps:
        return
    writer.blank()
    writer.line(("Next", "bold"))
    for number, step in enumerate(analysis.next_steps, 1):
        writer.paragraph(f"{number}. {prose(step)}", indent=1)
