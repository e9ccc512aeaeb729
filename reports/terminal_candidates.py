"""The places in a kernel's source that can produce an errno, as a list in a terminal: nearest to the entry first."""

from __future__ import annotations

from profiler.model import SourceCandidate, SourceList
from reports.terminal_text import Writer
from reports.visible import counted, place, prose, visible

_AT_MOST = 60  # places; --json has them all
_CALLS_SHOWN = 5  # of a longer way the first and the last ones


def render(listed: SourceList, errno: str, kernel: str, writer: Writer) -> None:
    """`kernel` as a person names it: "Linux 6.1.0-56-cloud-amd64"."""
    found = listed.candidates
    if not found:
        writer.paragraph((f"{kernel} has no place in this call's tree that sets {errno}", "bold"), _left_out(listed))
        return
    places = counted(len(found), "place")
    writer.paragraph((f"{places} in the source of {kernel} can produce {errno}", "bold"), ", the nearest first")
    for candidate in found[:_AT_MOST]:
        writer.blank()
        _place(candidate, writer)
    if len(found) > _AT_MOST:
        writer.blank()
        writer.paragraph(f"{len(found) - _AT_MOST} more, farther from the entry: --json lists them all.")
    if listed.cut:
        writer.blank()
        writer.paragraph(("Left out: ", "bold"), prose(listed.cut) + ".")


def _place(candidate: SourceCandidate, writer: Writer) -> None:
    site = candidate.site
    style = "dim" if candidate.excluded_by else "bold"
    writer.line((place(site.file, site.line), style), f"  {visible(site.function)}")
    if site.text:
        writer.line("    ", (visible(site.text), "red"))
    if candidate.condition:
        line = f"line {candidate.condition_line}: " if candidate.condition_line else ""
        writer.paragraph("decided by ", line, (prose(candidate.condition), "magenta"), indent=4)
    writer.paragraph((way(candidate), "dim"), indent=4)
    if candidate.excluded_by:
        writer.paragraph((f"out by {candidate.excluded_by}: {prose(candidate.reason)}", "dim"), indent=4)


def way(candidate: SourceCandidate) -> str:
    """The calls from the entry to the place: `__do_sys_bind > __sys_bind > ... > inet_csk_get_port`."""
    via = [visible(name) for name in candidate.via]
    if len(via) > _CALLS_SHOWN:
        via = [*via[:2], "...", *via[2 - _CALLS_SHOWN :]]
    return " > ".join(via)


def _left_out(listed: SourceList) -> str:
    return f". Left out: {prose(listed.cut)}." if listed.cut else "."
