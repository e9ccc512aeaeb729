"""What patterns find in a kernel's source files."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from profiler.debuginfo.source import SourceTree
from profiler.debuginfo.source_index import SourceIndex

TIE = """
static const struct file_operations tie_fops = {
	.open = tie_open,
	.release	= &tie_release,
	.owner = THIS_MODULE,
};
struct tie {
	const struct proto_ops *ops;
	struct tie __rcu *next;
};
#define TIE_FAILS (-EINVAL)
#define TIE_SIZE 8
#define tie_wait(x) \\
	wait_for(x, TIE_SIZE) /* how long */
static int __init
tie_open(struct inode *inode,
        struct file *file)
{
	return 0;
}
SYSCALL_DEFINE1(tie,
#ifdef CONFIG_X
		int, x)
#else
		long, x)
#endif
{
	return 0;
}
DEFINE_CLASS(tie, struct tie *, put_tie(_T), get_tie(p), int p)
EXTEND_CLASS(tie, _flags, get_tie_flags(p, f), int p, int f)
"""
HEADER = "static inline int tie_len(int x) { return x; }\n"


@pytest.fixture
def tree(tmp_path: Path) -> SourceTree:
    for name, text in {"net/tie.c": TIE, "net/tie.h": HEADER, "net/knot.c": "int knot(void)\n{\n}\n"}.items():
        (tmp_path / "linux" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "linux" / name).write_text(text)
    return SourceTree(tmp_path / "linux")


@pytest.fixture
def index(tree: SourceTree) -> SourceIndex:
    return SourceIndex.open(None, tree, lambda: ["net/tie.c"])


@pytest.mark.parametrize(
    ("name", "line", "static"), [("tie_open", 15, True), ("__do_sys_tie", 21, False), ("tie_len", 1, True)]
)
def test_functions_are_found_by_their_heads(index: SourceIndex, name: str, line: int, static: bool) -> None:
    """One over several lines, one with directives in it, one of a header of the same folder, all on one line."""
    (found,) = index.functions(name)
    assert (found.line, found.static) == (line, static)


def test_pointers_are_found_with_the_type_of_the_initialised_struct(index: SourceIndex) -> None:
    assert index.pointers("open") == [("file_operations", "tie_open", "net/tie.c")]
    assert index.pointers("release") == [("file_operations", "tie_release", "net/tie.c")]
    assert index.pointers("owner") == []


def test_members_that_are_pointers_are_found_with_their_types(index: SourceIndex) -> None:
    assert index.types_of("ops") == {"proto_ops"}
    assert index.types_of("next") == {"tie"}


def test_macros_with_parameters_or_an_errno_are_found_without_their_comments(index: SourceIndex) -> None:
    wait, fails = index.macro("tie_wait", "net/tie.c"), index.macro("TIE_FAILS", "net/tie.c")
    assert wait is not None
    assert (wait.parameters, wait.body) == (("x",), "wait_for(x, TIE_SIZE)")
    assert fails is not None
    assert (fails.parameters, fails.body) == (None, "(-EINVAL)")
    assert index.macro("TIE_SIZE", "net/tie.c") is None
    assert index.macro("tie_wait", "net/other.c") is None, "the macro of one C file is not another's"


def test_what_makes_a_variable_of_a_class_is_found_under_the_name_of_its_constructor(index: SourceIndex) -> None:
    for name, made in (("tie", "get_tie(p)"), ("tie_flags", "get_tie_flags(p, f)")):
        found = index.macro(f"class_{name}_constructor", "net/tie.c")
        assert found is not None
        assert found.body == made


def test_files_of_a_module_are_added_when_it_is_asked_for(tree: SourceTree, tmp_path: Path) -> None:
    """Where the cache cannot be written, in memory: what is on disk stays as it is."""
    cache = tmp_path / "cache.sqlite"
    index = SourceIndex.open(cache, tree, lambda: ["net/tie.c"])
    index.close()
    read_only = sqlite3.connect(f"file:{cache}?mode=ro", uri=True)
    index = SourceIndex(read_only, tree)
    assert index.functions("knot") == []
    index.add(["net/knot.c"])
    assert len(index.functions("knot")) == 1
    index.keep({"a": "b"})
    assert SourceIndex.open(cache, tree, list).functions("knot") == []
    writable = SourceIndex.open(cache, tree, list)
    writable.add(["net/knot.c"])
    assert len(SourceIndex.open(cache, tree, list).functions("knot")) == 1
