"""A module's relocatable file put where it was loaded."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from profiler.debuginfo.module_link import link
from profiler.errors import InputError, MissingError
from tests.unit.relocatable import (
    ABS32S,
    ABS64,
    ALLOC,
    BUILD_ID,
    EXEC,
    GLOBAL_FUNC,
    GLOBAL_NOTYPE,
    LOCAL_FUNC,
    NOBITS,
    PC32,
    PLT32,
    PROGBITS,
    Relocatable,
)

TEXT, COLD, DATA, TABLE = 0xFFFFFFFFC0600000, 0xFFFFFFFFC0700000, 0xFFFFFFFFC0800000, 0xFFFFFFFFC0900000
KFREE = 0xFFFFFFFF81234560
PLACES = {".text": TEXT, ".text.unlikely": COLD, ".data": DATA, "__ex_table": TABLE, ".bss": DATA + 0x100}
CALL, JUMP = b"\xe8\0\0\0\0", b"\xe9\0\0\0\0"


def module(**changes: object) -> Relocatable:
    made = Relocatable(
        sections={
            ".text": (PROGBITS, ALLOC | EXEC, CALL + JUMP + b"\xc3" + b"\x90" * 5 + CALL + b"\xc3"),
            ".text.unlikely": (PROGBITS, ALLOC | EXEC, b"\x0f\x0b" + JUMP),
            ".init.text": (PROGBITS, ALLOC | EXEC, b"\xc3" * 8),
            ".data": (PROGBITS, ALLOC, bytes(16)),
            "__ex_table": (PROGBITS, ALLOC, bytes(12)),
            ".bss": (NOBITS, ALLOC, bytes(64)),
        },
        symbols=[
            ("ask", GLOBAL_FUNC, ".text", 0, 11),
            ("tell", LOCAL_FUNC, ".text", 16, 6),
            ("ask.cold", LOCAL_FUNC, ".text.unlikely", 0, 7),
            ("init_module", GLOBAL_FUNC, ".init.text", 0, 8),
            ("kfree", GLOBAL_NOTYPE, "", 0, 0),
            ("other_module_call", GLOBAL_NOTYPE, "", 0, 0),
            ("table", LOCAL_FUNC, ".data", 0, 16),
        ],
        relocations={
            ".text": [(1, PLT32, "kfree", -4), (6, PC32, "ask.cold", -4), (17, PLT32, "other_module_call", -4)],
            ".text.unlikely": [(3, PLT32, "ask", 5 - 4)],
            ".data": [(0, ABS64, "tell", 0), (8, ABS32S, "table", 4)],
            "__ex_table": [(0, PC32, "ask", 0), (4, PC32, "ask", 10)],
        },
    )
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def known(name: str) -> int | None:
    return KFREE if name == "kfree" else None


def target(code: bytes, at: int) -> int:
    """Where a 5-byte call or jump leads."""
    return (at + 5 + int(struct.unpack("<i", code[1:5])[0])) % (1 << 64)


def test_calls_and_jumps_lead_to_the_kernel_and_to_the_modules_own_parts(tmp_path: Path) -> None:
    linked = link(module().write(tmp_path / "m.ko"), PLACES, known)
    assert target(linked.read(TEXT, 5), TEXT) == KFREE
    assert target(linked.read(TEXT + 5, 5), TEXT + 5) == COLD
    assert target(linked.read(COLD + 2, 5), COLD + 2) == TEXT + 5


def test_data_holds_addresses_of_both_widths(tmp_path: Path) -> None:
    linked = link(module().write(tmp_path / "m.ko"), PLACES, known)
    assert struct.unpack("<Qi", linked.read(DATA, 12)) == (TEXT + 16, (DATA + 4) - (1 << 64))


def test_functions_lie_at_their_addresses_and_those_of_freed_sections_do_not(tmp_path: Path) -> None:
    linked = link(module().write(tmp_path / "m.ko"), PLACES, known)
    found = {(function.name, function.start, function.end) for function in linked.functions}
    assert found == {("ask", TEXT, TEXT + 11), ("tell", TEXT + 16, TEXT + 22), ("ask.cold", COLD, COLD + 7)}
    assert linked.code_ranges == [(TEXT, TEXT + 22), (COLD, COLD + 7)]


def test_the_exception_table_is_that_of_a_vmlinux(tmp_path: Path) -> None:
    linked = link(module().write(tmp_path / "m.ko"), PLACES, known)
    assert linked.exception_table() == {TEXT: TEXT + 10}


def test_a_symbol_that_nobody_knows_leads_to_no_function(tmp_path: Path) -> None:
    linked = link(module().write(tmp_path / "m.ko"), PLACES, known)
    assert linked.function_at(target(linked.read(TEXT + 16, 5), TEXT + 16)) is None


def test_the_build_id_is_that_of_the_file_and_errors_name_it(tmp_path: Path) -> None:
    path = module().write(tmp_path / "m.ko")
    linked = link(path, PLACES, known)
    assert linked.build_id == BUILD_ID
    with pytest.raises(InputError, match=r"m\.ko"):
        linked.read(0x1000, 4)


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    content = module().content()
    for length in (10, 100, len(content) // 2, len(content) - 70):
        path = tmp_path / f"{length}.ko"
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match=f"{length}.ko"):
            link(path, PLACES, known)


def test_a_relocation_beyond_its_section_is_refused(tmp_path: Path) -> None:
    broken = module(relocations={".text": [(20, PC32, "kfree", -4)]})
    with pytest.raises(InputError, match="20 of 22"):
        link(broken.write(tmp_path / "m.ko"), PLACES, known)


def test_a_module_of_another_machine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="x86-64"):
        link(module(machine=183).write(tmp_path / "m.ko"), PLACES, known)


def test_a_file_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"absent\.ko"):
        link(tmp_path / "absent.ko", PLACES, known)
