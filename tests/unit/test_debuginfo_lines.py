"""Inline chains with files relative to the kernel tree, over a symbol cache made here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from profiler.debuginfo.functions import Function
from profiler.debuginfo.lines import LineTable, default_cache
from profiler.debuginfo.vmlinux import Vmlinux
from profiler.errors import InputError, MissingError
from profiler.model import SourceLocation
from tests.unit.elf_image import TEXT, Image


@dataclass
class Match:
    symbol: str
    full_path: str | None
    line: int


class SymbolCache:
    """Answers by offset from the image's start, as symbolic does, and counts the questions."""

    def __init__(self, root: str, answers: dict[int, list[Match]]) -> None:
        self.answers = {0x10: [Match("start_kernel", root + "init/main.c", 900)], **answers}
        self.asked: list[int] = []

    def lookup(self, offset: int) -> list[Match]:
        self.asked.append(offset)
        return self.answers.get(offset, [])


class KernelImage:
    path = Path("vmlinux")

    def symbol_address(self, name: str) -> int:
        return {"_text": TEXT, "start_kernel": TEXT + 0x10, "_end": TEXT + 0x1000}[name]

    def function_at(self, address: int) -> Function | None:
        return None


def table(root: str, answers: dict[int, list[Match]]) -> tuple[LineTable, SymbolCache]:
    cache = SymbolCache(root, answers)
    return LineTable(cast(Vmlinux, KernelImage()), cast(Any, cache)), cache


@pytest.mark.parametrize(
    ("root", "path", "file"),
    [
        ("debian/build/build_amd64_none_cloud-amd64/", "debian/build/build_amd64_none_cloud-amd64/net/a.c", "net/a.c"),
        ("debian/build/build_amd64_none/", "/build/reproducible-path/linux-6.1.192/arch/x86/e.S", "arch/x86/e.S"),
        ("/home/me/linux/", "/home/me/linux/arch/x86/include/./asm/b.h", "arch/x86/include/asm/b.h"),
        ("/home/me/linux/", "/home/me/linux/kernel/bpf/../../tools/lib/c.c", "tools/lib/c.c"),
        ("/out/../linux/", "/linux/mm/d.c", "mm/d.c"),
        ("", "./fs/e.c", "fs/e.c"),
        ("/home/me/linux/", "/usr/lib/rustlib/core.rs", "/usr/lib/rustlib/core.rs"),
    ],
)
def test_files_are_relative_to_the_kernel_tree(root: str, path: str, file: str) -> None:
    lines, _ = table(root, {0x40: [Match("f", path, 7)]})
    assert lines.frames(TEXT + 0x40) == (SourceLocation("f", file, 7),)


def test_chains_are_innermost_first_and_named_as_in_the_source() -> None:
    chain = [Match("inner", "/k/include/i.h", 3), Match("outer.part.0.cold", "/k/net/o.c", 9)]
    lines, _ = table("/k/", {0x40: chain})
    assert lines.frames(TEXT + 0x40) == (
        SourceLocation("inner", "include/i.h", 3),
        SourceLocation("outer", "net/o.c", 9),
    )


def test_each_address_is_looked_up_once() -> None:
    lines, cache = table("/k/", {0x40: [Match("f", "/k/a.c", 1)]})
    cache.asked.clear()
    assert [lines.frames(TEXT + offset) for offset in (0x40, 0x40, 0x50)] == [(SourceLocation("f", "a.c", 1),)] * 2 + [
        ()
    ]
    assert sorted(cache.asked) == [0x40, 0x50]


def test_a_symbol_cache_of_other_debug_info_is_refused() -> None:
    cache = SymbolCache("", {0x10: [Match("rest_init", "init/main.c", 1)]})
    with pytest.raises(InputError, match="does not know start_kernel"):
        LineTable(cast(Vmlinux, KernelImage()), cast(Any, cache))


def test_an_image_without_debug_info_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(Image().content())
    with pytest.raises(MissingError, match="no debug info"):
        LineTable.open(path, cache_dir=tmp_path)


def test_the_cache_lies_where_the_desktop_standard_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "whyerrno" / "symcache"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_cache().is_relative_to(Path.home())
