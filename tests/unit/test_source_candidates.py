"""Every place in a call tree that can produce an errno, on small trees in the kernel's style."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from profiler.conclude import source_candidates
from profiler.conclude.source_candidates import candidates
from profiler.model import SourceCandidate
from tests.unit.toy_source import sources

ENTRY = """
SYSCALL_DEFINE2(tie, int, fd, int, flags)
{
        return do_tie(fd, flags);
}
"""


def found(
    root: Path, body: str, errno: str = "EINVAL", config: dict[str, str] | None = None, **more: str
) -> list[SourceCandidate]:
    """What the system call `tie` may fail with, where net/tie.c has this text behind its entry."""
    files = {"net/tie.c": ENTRY + dedent(body), **{name.replace("__", "/") + ".c": text for name, text in more.items()}}
    return candidates(sources(root, files, config), "tie", errno).candidates


def places(listed: list[SourceCandidate]) -> list[tuple[str, str | None, str | None]]:
    return [(c.site.function, c.site.text, c.condition) for c in listed]


@pytest.mark.parametrize(
    ("statements", "text", "condition"),
    [
        ("if (fd < 0)\n return -EINVAL;\nreturn 0;", "return -EINVAL;", "fd < 0"),
        ("int err;\nerr = -EINVAL;\nif (fd < 0)\n goto out;\nerr = 0;\nout:\nreturn err;", "err = -EINVAL;", "fd < 0"),
        ("int err = -EINVAL;\nif (fd > 0)\n err = 0;\nreturn err;", "int err = -EINVAL;", "fd > 0"),
        ("return fd ? 0 : -EINVAL;", "return fd ? 0 : -EINVAL;", "fd"),
        ("switch (fd) {\ncase 1:\n return -EINVAL;\n}\nreturn 0;", "return -EINVAL;", "switch (fd), case 1"),
        (
            "int err, ret;\nif (fd)\n err = -EINVAL;\nelse\n err = 0;\nret = err;\nreturn ret;",
            "err = -EINVAL;",
            "fd",
        ),
        ("if (fd)\n return NOT_SO;\nreturn 0;", "return NOT_SO;", "fd"),
        ("return -EINVAL;", "return -EINVAL;", None),
    ],
)
def test_a_place_is_found_in_whatever_form_it_sets_the_errno(
    tmp_path: Path, statements: str, text: str, condition: str | None
) -> None:
    """Returns, variables set earlier, initialisers, arms of ?:, cases, copies, macros; each with what guards it."""
    body = f"\n#define NOT_SO (-EINVAL)\nstatic int do_tie(int fd, int flags)\n{{\n{statements}\n}}\n"
    assert places(found(tmp_path, body)) == [("do_tie", text, condition)]


def test_an_errno_that_is_compared_with_or_belongs_to_another_is_no_place(tmp_path: Path) -> None:
    body = """
    static int do_tie(int fd, int flags)
    {
            int err = look(fd);
            if (err == -EINVAL)
                    return -EPERM;
            check(-EINVAL);
            return 0;
    }
    """
    assert found(tmp_path, body) == []


def test_callees_are_followed_where_their_result_is_returned_and_only_there(tmp_path: Path) -> None:
    body = """
    static int quiet(int fd)
    {
            return -EINVAL;
    }
    static int loud(int fd)
    {
            if (fd)
                    return -EINVAL;
            return 0;
    }
    static int do_tie(int fd, int flags)
    {
            int err;
            quiet(fd);
            err = loud(fd);
            if (err)
                    return err;
            return 0;
    }
    """
    (only,) = found(tmp_path, body)
    assert only.site.function == "loud"
    assert only.via == ["__do_sys_tie", "do_tie", "loud"]


def test_an_error_pointer_is_followed_through_its_wrappers_and_as_an_argument(tmp_path: Path) -> None:
    body = """
    static struct name *get_name(int fd)
    {
            if (fd == 9)
                    return ERR_PTR(-EINVAL);
            return NULL;
    }
    static struct node *make(struct name *name)
    {
            if (IS_ERR(name))
                    return ERR_CAST(name);
            return NULL;
    }
    static int do_tie(int fd, int flags)
    {
            struct node *node = make(get_name(fd));
            if (IS_ERR(node))
                    return PTR_ERR(node);
            return 0;
    }
    """
    assert places(found(tmp_path, body)) == [("get_name", "return ERR_PTR(-EINVAL);", "fd == 9")]


def test_an_errno_handed_out_through_a_parameter_or_a_member_is_found(tmp_path: Path) -> None:
    body = """
    static void by_pointer(int fd, int *err)
    {
            if (fd)
                    *err = -EINVAL;
    }
    static void by_member(int fd, struct arg *arg)
    {
            int error = -EINVAL;
            if (fd > 1)
                    arg->err = error;
    }
    static int do_tie(int fd, int flags)
    {
            int err = 0;
            struct arg arg;
            by_pointer(fd, &err);
            if (err)
                    return err;
            by_member(fd, &arg);
            return arg.err;
    }
    """
    assert {(c.site.function, c.site.text) for c in found(tmp_path, body)} == {
        ("by_pointer", "*err = -EINVAL;"),
        ("by_member", "int error = -EINVAL;"),
    }


OPS = dedent("""
    struct sock_kind { int (*tie)(int fd); };
    struct other_kind { int (*tie)(int fd); };
    static int inet_tie(int fd)
    {
            return -EINVAL;
    }
    static int other_tie(int fd)
    {
            return -EINVAL;
    }
    static const struct sock_kind inet_kind = {
            .tie = inet_tie,
    };
    static const struct other_kind other = {
            .tie = other_tie,
    };
    static int do_tie(int fd, int flags)
    {
            const struct sock_kind *kind = find(fd);
            return kind->tie(fd);
    }
""")


def test_a_function_pointer_leads_to_what_its_struct_type_is_initialised_with(tmp_path: Path) -> None:
    assert [c.site.function for c in found(tmp_path, OPS)] == ["inet_tie"]


def test_the_type_of_a_pointer_that_is_a_member_is_known_by_its_declaration(tmp_path: Path) -> None:
    body = OPS.replace("const struct sock_kind *kind = find(fd);", "").replace("kind->tie", "sock->kind->tie")
    body += "\nstruct sock {\n        const struct sock_kind *kind;\n};\n"
    assert [c.site.function for c in found(tmp_path, body)] == ["inet_tie"]


def test_only_functions_that_ran_are_pointed_to_where_that_is_known(tmp_path: Path) -> None:
    tree = sources(tmp_path, {"net/tie.c": ENTRY + OPS})
    assert [c.site.function for c in candidates(tree, "tie", "EINVAL", ran={"inet_tie"}).candidates] == ["inet_tie"]
    assert candidates(tree, "tie", "EINVAL", ran={"something"}).candidates == []


@pytest.mark.parametrize(("config", "functions"), [({"CONFIG_TIES": "y"}, ["check_tie"]), ({}, [])])
def test_what_the_configuration_leaves_out_is_no_place(
    tmp_path: Path, config: dict[str, str], functions: list[str]
) -> None:
    """The header's empty function stands for the real one where that is not compiled."""
    header = """
    #ifdef CONFIG_TIES
    int check_tie(int fd);
    #else
    static inline int check_tie(int fd)
    {
            return 0;
    }
    #endif
    """
    real = """
    #ifdef CONFIG_TIES
    int check_tie(int fd)
    {
            return -EINVAL;
    }
    #endif
    """
    files = {"include/linux/tie.h": header, "security/tie.c": real}
    files["net/tie.c"] = ENTRY + "\nint do_tie(int fd, int flags)\n{\n        return check_tie(fd);\n}\n"
    listed = candidates(sources(tmp_path, files, config), "tie", "EINVAL").candidates
    assert [c.site.function for c in listed] == functions


def test_hooks_of_security_modules_are_followed_by_their_name(tmp_path: Path) -> None:
    body = """
    static int strict_tie(int fd)
    {
            return -EPERM;
    }
    static struct security_hook_list hooks[] = {
            LSM_HOOK_INIT(tie, strict_tie),
    };
    int do_tie(int fd, int flags)
    {
            return call_int_hook(tie, 0, fd);
    }
    """
    assert [c.site.function for c in found(tmp_path, body, "EPERM")] == ["strict_tie"]


def test_an_errno_read_from_memory_may_be_any(tmp_path: Path) -> None:
    body = """
    static int do_tie(int fd, int flags)
    {
            int err = xchg(&last, 0);
            return -err;
    }
    """
    for errno in ("EINVAL", "ECONNREFUSED"):
        assert [c.site.text for c in found(tmp_path, body, errno)] == ["return -err;"]


def test_nearer_places_come_first_and_one_place_is_listed_once(tmp_path: Path) -> None:
    body = """
    static int deep(int fd)
    {
            return -EINVAL;
    }
    static int middle(int fd)
    {
            return deep(fd);
    }
    static int do_tie(int fd, int flags)
    {
            int err = middle(fd);
            if (!err)
                    err = deep(fd);
            if (fd == 3)
                    return -EINVAL;
            return err;
    }
    """
    listed = found(tmp_path, body)
    assert [c.site.function for c in listed] == ["do_tie", "deep"]
    assert listed[1].via == ["__do_sys_tie", "do_tie", "deep"]


def test_recursion_ends(tmp_path: Path) -> None:
    body = """
    static int do_tie(int fd, int flags)
    {
            if (fd)
                    return do_tie(fd - 1, flags);
            return -EINVAL;
    }
    """
    assert len(found(tmp_path, body)) == 1


def test_what_is_left_out_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Places beyond the most, targets of a pointer that may lead to many functions, calls deeper than followed."""
    monkeypatch.setattr(source_candidates, "MOST_TARGETS", 1)
    body = OPS.replace("struct other_kind other", "struct sock_kind other")
    body = body.replace("return kind->tie(fd);", "if (fd)\n return -EINVAL;\n return kind->tie(fd);")
    listed = candidates(sources(tmp_path, {"net/tie.c": ENTRY + body}), "tie", "EINVAL", most=1)
    assert len(listed.candidates) == 1
    assert "only the 1 nearest places are listed" in listed.cut
    assert "1 function pointer leads to more than 1 functions (sock_kind->tie)" in listed.cut
    monkeypatch.setattr(source_candidates, "DEEPEST", 1)
    deep = candidates(sources(tmp_path, {"net/tie.c": ENTRY + body}), "tie", "EINVAL")
    assert [c.site.function for c in deep.candidates] == ["do_tie"]
    assert "1 calls deeper than 1 were not followed" in deep.cut


def test_a_call_that_the_kernel_does_not_have_ends_in_the_function_for_such(tmp_path: Path) -> None:
    files = {"kernel/sys_ni.c": "SYSCALL_DEFINE0(ni_syscall)\n{\n        return -ENOSYS;\n}\n"}
    (only,) = candidates(sources(tmp_path, files), "create_module", "ENOSYS").candidates
    assert only.site.file == "kernel/sys_ni.c"


def test_what_was_read_once_is_kept_and_a_damaged_cache_is_made_anew(tmp_path: Path) -> None:
    """The second walk finds the same though the file has gone; a cache of garbage is replaced."""
    cache = tmp_path / "cache" / "toy.sqlite"
    files = {"net/tie.c": ENTRY + OPS}
    first = candidates(sources(tmp_path / "linux", files, cache=cache), "tie", "EINVAL")
    again = sources(tmp_path / "linux", files, cache=cache)
    (tmp_path / "linux/net/tie.c").unlink()
    second = candidates(again, "tie", "EINVAL")
    assert [(c.site.line, c.via) for c in second.candidates] == [(c.site.line, c.via) for c in first.candidates] != []
    cache.write_bytes(b"no database" * 100)
    third = candidates(sources(tmp_path / "linux", files, cache=cache), "tie", "EINVAL")
    assert third == first
    assert list(cache.parent.iterdir()) == [cache]
