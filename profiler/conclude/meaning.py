"""What the manual means by the errno: the entry that fits the branch that decided it, or all where none is sure to."""

from __future__ import annotations

import errno as errno_numbers
import re
from collections.abc import Sequence

from profiler.conclude.manual_entry import Branch
from profiler.evidence import MAN
from profiler.model import EvidenceNote, Meaning, RungState
from profiler.parse.man_page import ERRORS, ManPage, ManualEntry


def meaning(
    page: ManPage | None,
    errno: str,
    *,
    condition: str | None = None,
    function: str = "",
    file: str = "",
    chain: Sequence[str] = (),
) -> Meaning | None:
    """What the manual says of `errno`; None where there is no manual at all.

    condition  of the branch that decided, as the source has it
    function, file  where that is; without a function no entry is picked
    chain  the functions from the system call's entry to it

    `entry` is the one that fits, `others` the rest. Where none leads, `entry` is "" and `others` has them all. `says`
    is errno(3)'s general text. `page` is "errno(3)" where the system call's own page is not installed.
    """
    if page is None:
        return None
    names = names_of(errno)
    general = next((entry.text for entry in page.general if names & set(entry.errnos)), "")
    if not page.installed:
        return Meaning("errno(3)", documented=False, entry="", says=general)
    entries = page.of(names)
    if not entries:
        return Meaning(page.title, documented=False, entry="", says=general)
    best = Branch(page, condition or "", function, file, chain).fitting(entries) if function else None
    texts = [worded(entry, page) for entry in entries]
    entry = "" if best is None else texts.pop(best)
    return Meaning(page.title, documented=True, entry=entry, others=texts, says=general)


def note(meaning: Meaning | None, seconds: float, missing: str = "") -> EvidenceNote:
    """The rung in words; `missing` is why there is no manual, from `profiler.manual.advice`."""
    if meaning is None:
        says = f"no manual page in English is on this machine: {missing}" if missing else "no manual page is here"
        return EvidenceNote(MAN, says, 0, seconds, RungState.NOT_POSSIBLE)
    if meaning.page == "errno(3)":
        says = f"the page of the system call is not installed; errno(3) says: {meaning.says or 'nothing'}"
    elif not meaning.documented:
        says = f"{meaning.page} does not document the errno; errno(3) says: {meaning.says or 'nothing'}"
    elif meaning.entry:
        rest = len(meaning.others)
        says = f"{meaning.page}{f', the one of {rest + 1} entries that fits' if rest else ''}: {meaning.entry}"
    else:
        count = len(meaning.others)
        says = f"{meaning.page} has {count} entries, and the branch does not tell which is meant"
        if count == 1:
            says = f"{meaning.page} has one entry, which may be of another cause: {meaning.others[0]}"
    return EvidenceNote(MAN, says, 0, seconds)


def names_of(errno: str) -> set[str]:
    """All names of the number: EAGAIN and EWOULDBLOCK are one."""
    number = getattr(errno_numbers, errno, None)
    aliases = {name for name in dir(errno_numbers) if name.startswith("E") and getattr(errno_numbers, name) == number}
    return {errno} | (aliases if number is not None else set())


def worded(entry: ManualEntry, page: ManPage) -> str:
    """An entry's text with what it needs to stand alone: what it is of, and where else than in the errors it stands."""
    text = " ".join(entry.text.split())
    if re.search(r"\bspecific\b|\bonly\b|\bwith\b", entry.applies) and "general" not in entry.applies:
        text = f"{text} ({entry.applies.rstrip(':.')})"
    if entry.section != ERRORS:
        text = f"{text} (in {entry.section})"
    return text if entry.page == page.title else f"{text} ({entry.page})"
