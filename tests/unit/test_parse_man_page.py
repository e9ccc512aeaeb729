"""Manual pages, their source and what `man` prints of them, read into entries by errno."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from profiler.parse import man_page, roff
from profiler.parse.man_page import ManPage
from tests.unit.manual_pages import GENERAL, GRIP, PRINTED, TRANSLATED


def texts(page: ManPage, *errnos: str) -> list[str]:
    return [entry.text for entry in page.of(errnos)]


def test_entries_of_one_errno_are_told_apart() -> None:
    """Three items of EINVAL are three entries, in the page's order, without fonts and with their own lists."""
    assert texts(man_page.parse(GRIP, "grip"), "EINVAL") == [
        "flags has unknown bits.",
        "force is above the limit grip_max-or (GRIP_SOFT) negative.\nA second paragraph:\n* one 'case';\n* another.",
        "(since Linux 3.9) Both GRIP_HARD and GRIP_SOFT were given in flags.",
    ]


def test_an_entry_may_name_several_errnos() -> None:
    """`EAGAIN or EWOULDBLOCK`, and a second tag by .TQ, are one entry under each of the names."""
    page = man_page.parse(GRIP, "grip")
    assert (
        texts(page, "EAGAIN")
        == texts(page, "EWOULDBLOCK")
        == ["The handle is busy and GRIP_NOWAIT was given in flags."]
    )
    assert texts(page, "EMFILE") == texts(page, "ENFILE") == ["Too many handles."]


def test_entries_of_another_call_on_the_page_are_left_out() -> None:
    """What the page says of gripat() alone, in brackets or in a paragraph before, is not said of grip."""
    grip, gripat = man_page.parse(GRIP, "grip"), man_page.parse(GRIP, "gripat")
    assert texts(grip, "EBADF") == []
    assert texts(gripat, "EBADF") == ["(gripat()) dirfd is not a valid file descriptor."]
    assert texts(grip, "EACCES") == ["Search permission is denied."]
    assert texts(gripat, "EACCES") == ["Search permission is denied.", "The caller lacks the privileges."]


def test_a_heading_of_entries_is_kept_with_them() -> None:
    """The paragraph before an entry says of which sockets it is."""
    entry = man_page.parse(GRIP, "grip").of(["EACCES"])[0]
    assert entry.applies == "The following errors are specific to UNIX domain sockets:"


def test_pages_referred_to_are_named_for_the_call_they_are_of() -> None:
    """`the same errors as open(2)` is said of gripat alone; SEE ALSO refers to nothing."""
    assert man_page.parse(GRIP, "gripat").refers == ("open",)
    assert man_page.parse(GRIP, "grip").refers == ()


def test_an_errno_named_only_in_the_description_is_found_there() -> None:
    """A paragraph outside the errors counts, marked with its section, and EXAMPLES is no errno."""
    page = man_page.parse(GRIP, "grip")
    assert [(e.section, e.errnos) for e in page.of(["ENOTEMPTY"])] == [("DESCRIPTION", ("ENOTEMPTY",))]
    assert not page.of(["EXAMPLES"]) and not page.of(["SIGBUS"])


def test_the_synopsis_names_the_parameters() -> None:
    """The last word of each argument, once."""
    assert man_page.parse(GRIP, "grip").parameters == ("path", "force", "flags", "dirfd")


def test_the_kernels_names_of_calls_are_found_on_their_pages() -> None:
    """newfstatat is fstatat, rt_sigaction is sigaction, pread64 is pread."""
    assert man_page.own_name("newfstatat", ["stat", "fstatat"]) == "fstatat"
    assert man_page.own_name("rt_sigaction", ["sigaction"]) == "sigaction"
    assert man_page.own_name("pread64", ["pread", "pwrite"]) == "pread"
    assert man_page.own_name("pselect6", ["select", "pselect"]) == "pselect"
    assert man_page.own_name("bind", ["listen"]) == "bind"


def test_printed_pages_are_read_too() -> None:
    """Short and long tags, a word cut at a line's end, overstriking, a heading of entries, two paragraphs."""
    page = man_page.parse(PRINTED, "grip")
    assert (page.title, page.names) == ("grip(2)", ("grip", "gripat"))
    assert texts(page, "EBADF") == ["dirfd is not a valid file descriptor."]
    assert texts(page, "EWOULDBLOCK") == ["The handle is busy."]
    taken = page.of(["EADDRINUSE"])[0]
    assert (taken.text, taken.applies[-20:]) == ("Taken.\nTwice.", "UNIX domain sockets:")


def test_the_general_list_is_read() -> None:
    """errno(3) has its items below a sub-section of the description."""
    assert [(e.errnos, e.text) for e in man_page.parse_general(GENERAL)][-1] == (("EXDEV",), "A link across.")


def test_a_translated_page_is_known_by_its_headings() -> None:
    """No section NAME: the page is in another language."""
    assert man_page.is_english(GRIP) and man_page.is_english(PRINTED)
    assert not man_page.is_english(TRANSLATED)


def test_escapes_become_plain_text() -> None:
    """Fonts vanish, signs become ASCII, numbers of Unicode their character, unknown names nothing."""
    assert roff.plain(r"\fBa\fP\-b \(aqc\(aq \[u00E9] \*(lqd\*(rq \[xyz]\e \s-1e\s0") == "a-b 'c' é \"d\" \\ e"


@given(st.text(alphabet=st.sampled_from("ABEINVAL.\n '\"\\[]()fBTPSHRI* \x00"), max_size=400))
def test_no_text_makes_it_fail(text: str) -> None:
    """Whatever a file holds, it gives a page, most likely an empty one."""
    man_page.parse(text, "grip")
    man_page.parse(f".SH ERRORS\n{text}", "grip")
