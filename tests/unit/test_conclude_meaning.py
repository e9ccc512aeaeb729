"""Which of a page's entries fits the branch that decided, and when none is picked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from profiler.conclude.meaning import meaning, names_of, note
from profiler.model import Meaning, RungState
from profiler.parse import man_page
from profiler.parse.man_page import ManPage
from tests.unit.manual_pages import GENERAL, GRIP

PAGE = replace(man_page.parse(GRIP, "gripat"), general=man_page.parse_general(GENERAL))
NEAR = {"function": "do_gripat", "file": "fs/grip.c", "chain": ["__x64_sys_gripat", "do_gripat"]}
DEEP = ["__x64_sys_gripat", "a", "b", "c", "d", "e", "f"]


def of(errno: str, condition: str | None, page: ManPage = PAGE, **changes: object) -> Meaning:
    found = meaning(page, errno, condition=condition, **(NEAR | changes))  # type: ignore[arg-type]
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("condition", "begins"),
    [
        ("flags & ~GRIP_ALL_FLAGS", "flags has unknown bits"),
        ("force > sysctl_grip_max", "force is above the limit"),
        ("(flags & (GRIP_HARD | GRIP_SOFT)) == (GRIP_HARD | GRIP_SOFT)", "(since Linux 3.9) Both GRIP_HARD"),
    ],
)
def test_the_entry_that_shares_words_with_the_condition_is_picked(condition: str, begins: str) -> None:
    """Constants, parameters and what `& ~` stands for lead to the entry; the others are kept beside it."""
    found = of("EINVAL", condition)
    assert found.entry.startswith(begins)
    assert len(found.others) == 2 and found.entry not in found.others


@pytest.mark.parametrize(
    "condition",
    [
        "",
        "rv == 0",
        "(flags & ~GRIP_ALL_FLAGS) || force > sysctl_grip_max",  # either may have held
        "(flags & ~GRIP_ALL_FLAGS) || !handle->ops",
        "!grip_valid(above)",  # common words
        "handle->force > 3",  # a member, not the argument
        "(flags & GRIP_SOFT) && !(flags & GRIP_NOWAIT)",  # no entry has both
        "path",
    ],
)
def test_no_entry_is_picked_where_the_words_do_not_separate(condition: str) -> None:
    """Nothing shared, and two operands of which either may have held: all entries are given, none is chosen."""
    found = of("EINVAL", condition)
    assert found.documented and found.entry == "" and len(found.others) == 3


def test_far_from_the_call_an_argument_is_another() -> None:
    """`force` eight calls below is some other function's, and a mask is some other's too."""
    assert of("EINVAL", "force > 3", function="deep", chain=DEEP).entry == ""
    assert of("EINVAL", "flags & ~DEEP_FLAGS", function="deep", chain=DEEP).entry == ""


def test_constants_behind_a_mask_are_not_named() -> None:
    """`flags & ~(GRIP_HARD | GRIP_SOFT)` is about all other bits."""
    assert of("EINVAL", "flags & ~(GRIP_HARD | GRIP_SOFT)").entry == "flags has unknown bits."


def test_an_entry_of_another_kind_of_socket_is_out() -> None:
    """By the file; what remains needs words of its own all the same (`capable` is the manual's privilege)."""
    found = of("EACCES", "!capable(CAP_SYS_ADMIN)", file="net/ipv4/grip.c")
    assert found.entry == "The caller lacks the privileges."
    assert of("EACCES", "!x", file="net/ipv4/grip.c").entry == ""


def test_the_only_entry_is_picked() -> None:
    """A page that says one thing of the errno says it whatever the branch."""
    assert of("EAGAIN", "x").entry.startswith("The handle is busy")
    assert of("EWOULDBLOCK", None).entry.startswith("The handle is busy")


def test_the_only_entry_is_not_picked_where_another_cause_is_likely() -> None:
    """EBADF decided far from the arguments, and EINVAL in a library's function, are about something else."""
    assert of("EBADF", "fd < 0").entry.startswith("(gripat()) dirfd")
    deep = of("EBADF", "fd < 0", function="scm_copy", chain=DEEP)
    assert (deep.entry, deep.others) == ("", ["(gripat()) dirfd is not a valid file descriptor."])
    one = replace(PAGE, entries=tuple(e for e in PAGE.entries if "unknown" in e.text))
    assert of("EINVAL", "flags & ~ALL", one).entry
    assert of("EINVAL", "rv == 0", one, function="_kstrtoull", file="lib/kstrtox.c", chain=DEEP).entry == ""


def test_a_filter_means_nothing_that_the_page_says() -> None:
    """Where seccomp answered in place of the system call, its errno has another reason."""
    assert of("EAGAIN", "action", function="__seccomp_filter", file="kernel/seccomp.c").entry == ""


def test_an_errno_that_the_page_lacks_is_flagged() -> None:
    """Not documented, and errno(3)'s words instead."""
    assert of("EXDEV", "a != b") == Meaning("grip(2)", documented=False, entry="", says="A link across.")


def test_a_mention_in_the_description_is_shown_but_not_picked() -> None:
    """It documents the errno, and says with which section it is from."""
    found = of("ENOTEMPTY", "hot")
    assert found.documented and found.entry == "" and found.others[0].endswith("(in DESCRIPTION)")


def test_errno_3_stands_in_for_an_absent_page() -> None:
    """The page named is then errno(3), and without any manual there is no meaning."""
    alone = ManPage("mseal", "", (), (), general=PAGE.general, installed=False)
    assert of("EXDEV", None, alone) == Meaning("errno(3)", documented=False, entry="", says="A link across.")
    assert meaning(None, "EXDEV") is None


def test_an_entry_says_what_it_is_of() -> None:
    """Outside its page an entry needs the heading it stood under."""
    assert of("EACCES", "x").others[0] == (
        "Search permission is denied. (The following errors are specific to UNIX domain sockets)"
    )


def test_numbers_with_two_names() -> None:
    """EAGAIN is EWOULDBLOCK, EDEADLK is EDEADLOCK; an unknown name is only itself."""
    assert names_of("EWOULDBLOCK") == {"EAGAIN", "EWOULDBLOCK"}
    assert names_of("EDEADLK") == {"EDEADLK", "EDEADLOCK"}
    assert names_of("ERESTARTSYS") == {"ERESTARTSYS"}


def test_the_rung_says_what_it_found() -> None:
    """Picked, of several, undocumented, absent: each in words, and absence as not possible."""
    assert note(of("EINVAL", "flags & ~ALL"), 0.1).says == (
        "grip(2), the one of 3 entries that fits: flags has unknown bits."
    )
    assert "3 entries" in note(of("EINVAL", ""), 0.1).says
    assert note(of("EXDEV", ""), 0.1).says == "grip(2) does not document the errno; errno(3) says: A link across."
    absent = note(None, 0.0, "apt install manpages-dev")
    assert absent.state is RungState.NOT_POSSIBLE and absent.says.endswith("apt install manpages-dev")
