"""A whole import, with code, debug info and source as the machine's own compiler makes them.

The "kernel" is a few functions linked at a kernel's address; the samples are the instructions of the lines that a
failing call runs through, as perf script would print them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
from iced_x86 import Decoder

from profiler import importing, pipeline, recording
from profiler.debuginfo.lines import LineTable
from profiler.debuginfo.vmlinux import Vmlinux
from profiler.model import Analysis, Conclusion
from tests.conftest import require

MAIN = """\
void start_kernel(void);
void start_kernel(void)
{
    for (;;)
        ;
}
"""
LAYOUT = """\
SECTIONS
{
    . = 0xffffffff81000000;
    _text = .;
    _stext = .;
    .text : { *(.text .text.*) }
    _etext = .;
    .notes : { *(.note.gnu.build-id) }
    .data : { *(.data .data.* .rodata .rodata.*) }
    .bss : { *(.bss .bss.* COMMON) }
    _end = .;
}
"""
FROB = """\
#define EINVAL 22
#define ENOMEM 12
#define EBADF 9

struct table { long count; long most; struct table *parent; };

extern struct table tables[4];
long insert(struct table *t, long slot);
long __x64_sys_frob(long fd, long slot);

static inline long check_slot(struct table *t, long slot)
{
    if (slot > t->most)
        return -EINVAL;
    if (slot == t->count && !t->parent)
        return -ENOMEM;
    return 0;
}

static long __attribute__((noinline)) add_slot(struct table *t, long slot)
{
    long err = check_slot(t, slot);

    if (err)
        return err;
    t->count++;
    return insert(t, slot);
}

long __x64_sys_frob(long fd, long slot)
{
    if (fd < 0 || fd > 3)
        return -EBADF;
    return add_slot(&tables[fd], slot) + 0;
}

long __attribute__((noinline)) insert(struct table *t, long slot)
{
    if (t->count & 1)
        return -EINVAL;
    t->most = slot;
    return 0;
}

struct table tables[4];
"""


def line_of(text: str, after: str = "") -> int:
    lines = FROB.split("\n")
    start = next((i for i, line in enumerate(lines) if after and after in line), 0)
    return next(i for i, line in enumerate(lines[start:], start + 1) if text in line)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source tree with init/main.c, fs/frob.c and the vmlinux made of them."""
    require(shutil.which("cc"), "no C compiler: apt install gcc")
    tree = tmp_path_factory.mktemp("kernel")
    for name, text in (("init/main.c", MAIN), ("fs/frob.c", FROB)):
        (tree / name).parent.mkdir()
        (tree / name).write_text(text)
    (tree / "vmlinux.lds").write_text(LAYOUT)
    options = "-O2 -g -ffreestanding -fno-pic -no-pie -mcmodel=kernel -nostdlib -static -fno-asynchronous-unwind-tables"
    link = "-Wl,--build-id=sha1,-T,vmlinux.lds,--entry=start_kernel"
    command = ["cc", *options.split(), link, "-o", "vmlinux", "init/main.c", "fs/frob.c"]
    subprocess.run(command, cwd=tree, check=True, env={**os.environ, "LC_ALL": "C"})
    return tree


def addresses(kernel: Path, cache: Path, ran: Iterable[int]) -> list[int]:
    """The instructions whose innermost line is among those that ran."""
    wanted = set(ran)
    with Vmlinux(kernel / "vmlinux") as image:
        lines = LineTable.open(image, cache_dir=cache)
        found = []
        for row in range(len(image.functions)):
            function = image.functions[row]
            code = image.read(function.start, function.end - function.start)
            for instruction in Decoder(64, code, ip=function.start):
                frames = lines.frames(instruction.ip)
                if frames and frames[0].file == "fs/frob.c" and frames[0].line in wanted:
                    found.append(instruction.ip)
        return found


def imported(kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ran: Iterable[int], errno: str) -> Analysis:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    text = "".join(
        f"load 100/100 [000] {1 + at / 1000:.9f}: 250000 cpu-clock: {address:16x} frob\n"
        for address in addresses(kernel, tmp_path / "symcache", ran)
        for at in range(40)
    )
    (tmp_path / "perf.script").write_text(text)
    return importing.import_perf(
        tmp_path / "perf.script",
        vmlinux=kernel / "vmlinux",
        source=kernel,
        syscall="frob",
        errno=errno,
        out=tmp_path / "out",
        force=False,
        progress=lambda *_: None,
    )


ENTRY = (line_of("fd < 0 || fd > 3"), line_of("return add_slot("))


def test_the_inlined_condition_is_named(kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first check of an inlined function, through a call that only direct calls lead to."""
    ran = (*ENTRY, line_of("slot > t->most"), line_of("return -EINVAL;"))
    found = imported(kernel, tmp_path, monkeypatch, ran, "EINVAL")
    assert found.conclusion == Conclusion.NAMED, found.reason
    assert found.error_site is not None
    assert (found.error_site.function, found.error_site.file) == ("check_slot", "fs/frob.c")
    assert (found.error_site.line, found.error_site.text) == (line_of("return -EINVAL;"), "return -EINVAL;")
    assert found.branch is not None
    assert (found.branch.condition, found.branch.outcome) == ("slot > t->most", True)
    assert [link.function for link in found.chain] == ["__x64_sys_frob", "add_slot", "check_slot"]


def test_the_import_is_a_recording_that_can_be_analyzed_again(
    kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline, from the directory alone, with the same result."""
    ran = (*ENTRY, line_of("slot > t->most"), line_of("return -EINVAL;"))
    first = imported(kernel, tmp_path, monkeypatch, ran, "EINVAL")
    out = tmp_path / "out"
    assert recording.read_analysis(out) == first
    manifest = recording.read_manifest(out)
    assert (manifest.target, manifest.syscall, manifest.errno_number) == ("import", "frob", 22)
    assert json.loads((out / "analysis.json").read_text())["conclusion"] == "named"
    with Vmlinux(kernel / "vmlinux") as image:
        assert manifest.build_id == image.build_id


def test_a_profile_needs_no_call_named(kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = addresses(kernel, tmp_path / "symcache", (line_of("t->most = slot;"),))
    (tmp_path / "perf.script").write_text(
        "".join(f"load 100/100 [000] 1.500000000: 250000 cpu-clock: {address:16x} frob\n" for address in found * 10)
    )
    analysis = importing.import_perf(
        tmp_path / "perf.script",
        vmlinux=kernel / "vmlinux",
        source=kernel,
        syscall="",
        errno="",
        out=tmp_path / "out",
        force=False,
        progress=lambda *_: None,
    )
    assert analysis.conclusion == Conclusion.INCONCLUSIVE
    assert analysis.functions[0].function == "insert"
    assert sum(line.samples for line in analysis.functions[0].lines) == len(found) * 10


def test_an_unknown_kernel_is_asked_for(kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Analyzing again without its vmlinux at hand names the build id."""
    ran = (*ENTRY, line_of("slot > t->most"), line_of("return -EINVAL;"))
    imported(kernel, tmp_path, monkeypatch, ran, "EINVAL")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pipeline.MissingError, match="no vmlinux of"):
        pipeline.analyze(tmp_path / "out", progress=lambda *_: None)
