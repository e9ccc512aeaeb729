"""One kernel's code: bytes of the image or of the running kernel, functions, graphs."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from profiler.debuginfo.code import KernelCode, read_running_text
from profiler.debuginfo.lines import LineTable
from profiler.debuginfo.vmlinux import Vmlinux
from profiler.errors import InputError, MismatchError
from profiler.graph import EdgeKind
from profiler.model import SourceLocation
from tests.unit.elf_image import FUNC, NOTYPE, TEXT, Image
from tests.unit.toy_kernel import ToyKernel

PROGRAM = ToyKernel("""
    f:
        test edi, edi
        js f.cold
    .key:
        nop
    .off:
        ret
    .on:
        mov eax, -1
        ret
    g:
        test edi, edi
        je g.cold
        ret
    g.cold:
        ret
    f.cold:
        mov eax, -22
        ret
    twice:
        jmp twice.cold
    twice.cold:
        ret
""")


class Lines:
    """Inline chains by address."""

    def __init__(self, chains: dict[int, tuple[SourceLocation, ...]] | None = None) -> None:
        self.chains = chains or {}

    def frames(self, address: int) -> tuple[SourceLocation, ...]:
        return self.chains.get(address, ())


def image(path: Path, *, keys: bool = False) -> Vmlinux:
    symbols = [(name, start, end - start, FUNC) for name, start, end in PROGRAM.functions]
    # a static function of the same name in another file, without a cold part
    symbols += [("twice", TEXT + 0xF0, 8, FUNC), ("_stext", TEXT, 0, NOTYPE), ("_etext", TEXT + 0x100, 0, NOTYPE)]
    table, entry = TEXT + 0x3000, b""
    if keys:
        offsets = (PROGRAM.at["f.key"] - table, PROGRAM.at["f.on"] - (table + 4), 0x2000 - 8)
        entry = struct.pack("<iiq", *offsets)
        symbols += [("__start___jump_table", table, 0, NOTYPE), ("__stop___jump_table", table + 16, 0, NOTYPE)]
    content = Image(text=PROGRAM.bytes.ljust(256, b"\xc3"), symbols=symbols, jump_table=entry).content()
    path.write_bytes(content)
    return Vmlinux(path)


def code(tmp_path: Path, running: bytes | None = None, *, keys: bool = False, lines: Lines | None = None) -> KernelCode:
    return KernelCode(image(tmp_path / "vmlinux", keys=keys), cast(LineTable, lines or Lines()), running)


def test_functions_graphs_and_names_come_from_the_image(tmp_path: Path) -> None:
    found = code(tmp_path)
    assert found.symbol("g") == PROGRAM.at["g"]
    assert found.symbol("nowhere") is None
    assert found.function_at(PROGRAM.at["f.off"]) == PROGRAM.functions[0]
    assert found.name(PROGRAM.at["f.off"]) == f"f+{PROGRAM.at['f.off'] - PROGRAM.at['f']:#x}"
    assert found.name(0x10) == "0x10"
    assert found.graph(PROGRAM.at["f"]) == PROGRAM.graph(PROGRAM.at["f"])
    assert found.graph(PROGRAM.at["f"]) is found.graph(PROGRAM.at["f"])
    with pytest.raises(LookupError):
        found.graph(0x10)


def test_the_running_kernels_text_is_preferred(tmp_path: Path) -> None:
    """It is patched: here a nop became `sti`."""
    at = PROGRAM.at["f.key"]
    running = bytearray(PROGRAM.bytes.ljust(256, b"\xc3"))
    running[at - TEXT] = 0xFB
    found = code(tmp_path, bytes(running))
    assert found.read(at, 1) == b"\xfb"
    assert code(tmp_path).read(at, 1) == b"\x90"


def test_outside_the_running_text_the_image_answers(tmp_path: Path) -> None:
    """Code of initialisation and tables lie behind _etext."""
    found = code(tmp_path, bytes(256), keys=True)
    assert found.read(TEXT, 4) == bytes(4)
    assert found.read(TEXT + 0x3000, 4) != bytes(4)
    with pytest.raises(InputError, match="holds no"):
        found.read(TEXT + 250, 20)


def test_running_text_of_another_length_is_another_kernels(tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match=r"has 255 bytes, that of .* 256"):
        code(tmp_path, bytes(255))


def test_static_keys_matter_only_where_the_running_text_is_not_at_hand(tmp_path: Path) -> None:
    """In the running kernel the jump or no-op itself says which side is taken."""
    entry = PROGRAM.at["f"]
    unknown = code(tmp_path, keys=True).graph(entry)
    assert (PROGRAM.at["f.on"], EdgeKind.KEY) in [
        (edge.target, edge.kind) for block in unknown.blocks.values() for edge in block.edges
    ]
    known = code(tmp_path, PROGRAM.bytes.ljust(256, b"\xc3"), keys=True).graph(entry)
    assert PROGRAM.at["f.on"] not in known.blocks


def test_a_split_off_part_is_owned_by_its_function(tmp_path: Path) -> None:
    found = code(tmp_path)
    assert found.owner_of(PROGRAM.at["f.cold"]) == PROGRAM.functions[0]
    assert found.owner_of(PROGRAM.at["g"]) == found.function_at(PROGRAM.at["g"])
    assert found.owner_of(0x10) is None


def test_of_static_functions_of_one_name_the_one_that_jumps_there_is_the_owner(tmp_path: Path) -> None:
    assert code(tmp_path).owner_of(PROGRAM.at["twice.cold"]) == next(f for f in PROGRAM.functions if f[0] == "twice")


def test_a_part_of_a_function_inlined_into_itself_is_shown_once(tmp_path: Path) -> None:
    """GCC splits a function and inlines a part of it: one name, twice in the chain."""
    part, whole = SourceLocation("f", "a.c", 9), SourceLocation("f", "a.c", 3)
    other = SourceLocation("f", "b.h", 1)
    chains = {1: (part, whole), 2: (other, whole), 3: (part, other, whole), 4: ()}
    found = code(tmp_path, lines=Lines(chains))
    assert [found.frames(address) for address in chains] == [(part,), (other, whole), (part, other, whole), ()]


def test_samples_are_counted_by_line(tmp_path: Path) -> None:
    here = SourceLocation("f", "a.c", 9)
    found = code(tmp_path, lines=Lines({1: (here,), 2: (here,)})).histograms(np.array([1, 1, 2, 3], np.uint64))
    assert {key: histogram.samples for key, histogram in found.items()} == {("f", "a.c"): 3}


def test_recorded_text_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "kernel_text"
    assert read_running_text(path) is None
    path.write_bytes(zlib.compress(b"\x90" * 1000))
    assert read_running_text(path) == b"\x90" * 1000


@pytest.mark.parametrize(
    ("content", "message"),
    [(zlib.compress(bytes(1000))[:-3], "cut short"), (b"", "cut short"), (b"no zlib", "not readable")],
)
def test_damaged_text_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "kernel_text"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_running_text(path)
