"""Functions, bytes and tables of a kernel image, on small images made here."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from profiler.debuginfo.functions import Function, base_name
from profiler.debuginfo.vmlinux import Vmlinux
from profiler.errors import InputError, MismatchError, MissingError, ProfilerError
from tests.unit.elf_image import FUNC, NOTYPE, OBJECT, TEXT, Image, note

BUILD_ID = bytes(range(20))
SYMBOLS = [
    ("_stext", TEXT, 0, NOTYPE),
    ("_etext", TEXT + 0x100, 0, NOTYPE),
    ("__pfx_alpha", TEXT + 0x00, 0x10, FUNC),
    ("alpha", TEXT + 0x10, 0x20, FUNC),
    ("__alpha_alias", TEXT + 0x10, 0x20, FUNC),
    ("inner", TEXT + 0x18, 0x04, FUNC),
    ("label", TEXT + 0x14, 0, NOTYPE),
    ("twice", TEXT + 0x40, 0x08, FUNC),
    ("twice", TEXT + 0x50, 0x08, FUNC),
    ("alpha.cold", TEXT + 0x60, 0x08, FUNC),
    ("alpha.part.0.isra.0", TEXT + 0x70, 0x08, FUNC),
    ("assembly", TEXT + 0x80, 0x08, NOTYPE),
    ("unsized", TEXT + 0x90, 0, NOTYPE),
    ("after", TEXT + 0xA0, 0x08, FUNC),
    ("data", TEXT + 0x2000, 8, OBJECT),
]


def opened(tmp_path: Path, image: Image) -> Vmlinux:
    path = tmp_path / "vmlinux"
    path.write_bytes(image.content())
    return Vmlinux(path)


@pytest.fixture
def vmlinux(tmp_path: Path) -> Vmlinux:
    xen = note(b"Xen\0", 3, b"12345678")
    return opened(tmp_path, Image(symbols=SYMBOLS, notes=xen + note(b"GNU\0", 3, BUILD_ID), debug=True))


def test_the_build_id_is_gnus_and_not_another_owners_note(vmlinux: Vmlinux) -> None:
    assert vmlinux.build_id == BUILD_ID.hex()
    vmlinux.check_build_id(BUILD_ID.hex().upper())
    with pytest.raises(MismatchError, match="is not 00ff"):
        vmlinux.check_build_id("00ff")


def test_an_address_belongs_to_the_innermost_function(vmlinux: Vmlinux) -> None:
    names = {offset: getattr(vmlinux.function_at(TEXT + offset), "name", None) for offset in range(0, 0xB0, 8)}
    assert [names[offset] for offset in (0x00, 0x10, 0x18, 0x20, 0x28)] == [None, "alpha", "inner", "alpha", "alpha"]
    assert [names[offset] for offset in (0x30, 0x80, 0x90, 0x98, 0xA0)] == [
        None,
        "assembly",
        "unsized",
        "unsized",
        "after",
    ]
    assert vmlinux.function_at(0) is None
    assert vmlinux.function_at(2**64 - 1) is None


def test_many_addresses_are_mapped_as_one_by_one(vmlinux: Vmlinux) -> None:
    addresses = np.arange(TEXT - 8, TEXT + 0x110, 3, dtype=np.uint64)
    rows = vmlinux.functions.rows_of(addresses)
    one_by_one = [vmlinux.function_at(int(address)) for address in addresses]
    assert [vmlinux.functions[row] if row >= 0 else None for row in rows.tolist()] == one_by_one


def test_an_alias_is_found_by_its_name_and_shown_by_the_plainer_one(vmlinux: Vmlinux) -> None:
    assert vmlinux.functions_named("__alpha_alias") == [Function(TEXT + 0x10, TEXT + 0x30, "__alpha_alias")]
    found = vmlinux.function_at(TEXT + 0x10)
    assert found is not None
    assert found.name == "alpha"


def test_static_functions_may_share_a_name(vmlinux: Vmlinux) -> None:
    assert [f.start - TEXT for f in vmlinux.functions_named("twice")] == [0x40, 0x50]


def test_the_pieces_of_a_function_are_found_with_it(vmlinux: Vmlinux) -> None:
    assert [f.name for f in vmlinux.pieces_of("alpha")] == ["alpha", "alpha.cold", "alpha.part.0.isra.0"]


@pytest.mark.parametrize(
    ("symbol", "name"),
    [("a.part.0.cold", "a"), ("a.constprop.1.isra.0", "a"), ("a.cold", "a"), ("a", "a"), ("a.b", "a.b")],
)
def test_what_the_compiler_appends_to_a_name_comes_off(symbol: str, name: str) -> None:
    assert base_name(symbol) == name


def test_a_function_goes_by_its_first_name(tmp_path: Path) -> None:
    """`__pi_` is what code that runs before the kernel is mapped calls it; `named` knows it so too."""
    symbols = [("__pi___frob", TEXT, 16, FUNC), ("__frob", TEXT, 16, FUNC)]
    vmlinux = opened(tmp_path, Image(symbols=symbols))
    found = vmlinux.function_at(TEXT)
    assert found is not None
    assert found.name == "__frob"
    assert [function.start for function in vmlinux.functions_named("__pi___frob")] == [TEXT]


def test_markers_of_code_and_data_are_no_functions(tmp_path: Path) -> None:
    """AArch64 has them all over its text."""
    symbols = [("$x", TEXT, 0, NOTYPE), ("f", TEXT + 4, 8, FUNC), ("__kvm_nvhe_$d", TEXT + 16, 0, NOTYPE)]
    assert opened(tmp_path, Image(symbols=symbols)).functions.names == ["f"]


def test_bytes_are_read_within_one_section(vmlinux: Vmlinux) -> None:
    assert vmlinux.read(TEXT + 250, 6) == b"\x90" * 6
    for address, size in ((TEXT + 250, 7), (TEXT - 1, 1), (TEXT + 0x5000, 4), (TEXT, -1), (0, 1 << 40)):
        with pytest.raises(InputError, match="holds no"):
            vmlinux.read(address, size)


def test_text_range_and_symbols(vmlinux: Vmlinux) -> None:
    assert vmlinux.text_range == (TEXT, TEXT + 0x100)
    assert vmlinux.symbol_address("data") == TEXT + 0x2000
    assert vmlinux.find_symbol("nowhere") is None
    with pytest.raises(MissingError, match="no symbol nowhere"):
        vmlinux.symbol_address("nowhere")


def test_exception_entries_are_relative_to_their_own_fields(tmp_path: Path) -> None:
    table = TEXT + 0x2000
    entry = struct.pack("<iii", TEXT + 0x20 - table, TEXT + 0x40 - (table + 4), 3)
    symbols = [("__start___ex_table", table, 0, NOTYPE), ("__stop___ex_table", table + 12, 0, NOTYPE)]
    vmlinux = opened(tmp_path, Image(ex_table=entry, symbols=symbols))
    assert vmlinux.exception_table() == {TEXT + 0x20: TEXT + 0x40}
    assert vmlinux.jump_table() == {}


FAULT = -14 << 16 | 17  # x86-64: -EFAULT into rax
HANDLER = TEXT + 0x80 - (TEXT + 0x2000 + 8)


@pytest.mark.parametrize(("third", "words"), [(FAULT, {TEXT + 0x20: FAULT}), (HANDLER, {})])
def test_the_third_word_says_what_a_handler_does_or_where_it_is(
    tmp_path: Path, third: int, words: dict[int, int]
) -> None:
    """Up to Linux 5.15 it leads to a function."""
    table = TEXT + 0x2000
    entry = struct.pack("<iii", TEXT + 0x20 - table, TEXT + 0x40 - (table + 4), third)
    symbols = [("__start___ex_table", table, 0, NOTYPE), ("__stop___ex_table", table + 12, 0, NOTYPE)]
    vmlinux = opened(tmp_path, Image(ex_table=entry, symbols=[*symbols, ("handler", TEXT + 0x80, 16, FUNC)]))
    assert vmlinux.fault_words() == words


@pytest.mark.parametrize("between", [4, 8])
def test_the_bug_tables_entries_grow_with_what_a_warning_tells(tmp_path: Path, between: int) -> None:
    """A file, and in newer kernels a format; then line and flags. Three entries: a WARN, a BUG, a WARN."""
    table, entries = TEXT + 0x3000, b""
    for trap, flags in ((0x10, 0x909), (0x20, 0), (0x30, 0x901)):
        entries += struct.pack("<i", TEXT + trap - (table + len(entries))) + bytes(between)
        entries += struct.pack("<HH", 1234, flags)
    symbols = [
        ("__start___bug_table", table, 0, NOTYPE),
        ("__stop___bug_table", table + len(entries), 0, NOTYPE),
    ]
    vmlinux = opened(tmp_path, Image(jump_table=entries, symbols=symbols))
    assert vmlinux.warnings() == {TEXT + 0x10, TEXT + 0x30}


def test_without_a_bug_table_warnings_are_not_known(vmlinux: Vmlinux) -> None:
    assert vmlinux.warnings() is None


@pytest.mark.parametrize(("machine", "found"), [(183, {TEXT + 0x20}), (62, set())])
def test_alternatives_of_aarch64_are_found(tmp_path: Path, machine: int, found: set[int]) -> None:
    entry = struct.pack("<iihBB", 0x20 - 0x6000, 0, 3, 4, 4)
    image = opened(tmp_path, Image(altinstructions=entry, machine=machine, symbols=[("f", TEXT, 16, FUNC)]))
    assert image.alternatives() == found


def test_static_branches_carry_their_key_and_sense(tmp_path: Path) -> None:
    table = TEXT + 0x3000
    key = TEXT + 0x5000
    entry = struct.pack("<iiq", TEXT + 0x20 - table, TEXT + 0x40 - (table + 4), key - (table + 8) + 1)
    symbols = [("__start___jump_table", table, 0, NOTYPE), ("__stop___jump_table", table + 16, 0, NOTYPE)]
    (found,) = opened(tmp_path, Image(jump_table=entry, symbols=symbols)).jump_table().values()
    assert (found.address, found.target, found.key, found.likely) == (TEXT + 0x20, TEXT + 0x40, key, True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b"MZ" + bytes(100), "compressed kernel image"),
        (b"text", "not an ELF file"),
        (Image(machine=243).content(), "built for RISC-V"),
        (Image(symbols=SYMBOLS).content()[:-1], "vmlinux: "),
        (Image().content()[:40], "damaged ELF"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        Vmlinux(path)


def test_every_cut_of_an_image_is_an_error_of_ours_or_still_reads(tmp_path: Path) -> None:
    whole = Image(symbols=SYMBOLS, notes=note(b"GNU\0", 3, BUILD_ID)).content()
    path = tmp_path / "vmlinux"
    for size in range(0, len(whole), 37):
        path.write_bytes(whole[:size])
        with pytest.raises(ProfilerError):
            len(Vmlinux(path).functions)


def test_what_an_image_lacks_is_named(tmp_path: Path) -> None:
    bare = opened(tmp_path, Image())
    with pytest.raises(MissingError, match="no symbol table"):
        len(bare.functions)
    with pytest.raises(MissingError, match="no build id"):
        _ = bare.build_id
    with pytest.raises(MissingError, match="no debug info"):
        bare.require_lines()
    with pytest.raises(MissingError, match="no such file"):
        Vmlinux(tmp_path / "absent")
