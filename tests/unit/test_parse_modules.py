"""modules.json, modules_text and the modules' symbols, as the recorder leaves them."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from profiler.errors import InputError
from profiler.model import LoadedModule
from profiler.parse import modules

OFFSET = 0x1C000000
TEXT = 0xFFFFFFFFC0600000
KALLSYMS = f"""\
ffffffff9d000000 T _stext
{TEXT + OFFSET:x} t tun_open	[tun]
{TEXT + OFFSET + 32:x} T tun_get	[tun]
{TEXT + OFFSET + 64:x} d tun_data	[tun]
{TEXT + OFFSET + 4096:x} t bpf_prog_6deef7357e7b4530	[bpf]
"""
TUN: dict[str, Any] = {
    "name": "tun",
    "build_id": "35d4",
    "sections": {".text": TEXT + OFFSET, ".init.text": TEXT + OFFSET + 8192},
    "text": [{"section": ".text", "offset": 2, "size": 3}],
}


def read(root: Path, rows: object, text: bytes | None = b"__\x90\x90\xc3") -> tuple[LoadedModule, ...]:
    (root / "modules.json").write_text(rows if isinstance(rows, str) else json.dumps(rows))
    if text is not None:
        (root / "modules_text").write_bytes(zlib.compress(text))
    (root / "kallsyms").write_text(KALLSYMS)
    return modules.read(root / "modules.json", root / "modules_text", root / "kallsyms", OFFSET)


def test_modules_lie_at_their_addresses_less_the_kaslr_offset(tmp_path: Path) -> None:
    tun, _ = read(tmp_path, [TUN])
    assert (tun.name, tun.build_id, tun.sections[".text"]) == ("tun", "35d4", TEXT)
    assert tun.text == ((TEXT, b"\x90\x90\xc3"),)
    assert tun.symbols == ((TEXT, "tun_open"), (TEXT + 32, "tun_get"))


def test_sections_whose_memory_was_freed_are_left_out(tmp_path: Path) -> None:
    assert ".init.text" not in read(tmp_path, [TUN])[0].sections


def test_compiled_bpf_programs_are_a_module_of_symbols_alone(tmp_path: Path) -> None:
    assert [(m.name, m.sections, m.symbols) for m in read(tmp_path, [TUN])[1:]] == [
        ("bpf", {}, ((TEXT + 4096, "bpf_prog_6deef7357e7b4530"),))
    ]


def test_a_recording_from_before_modules_were_recorded_has_none(tmp_path: Path) -> None:
    assert modules.read(tmp_path / "modules.json", tmp_path / "modules_text", tmp_path / "kallsyms", 0) == ()


@pytest.mark.parametrize("rows", ["[", "{}x", "[1]", '[{"name": "tun"}]', '[{"name": 1, "sections": []}]'])
def test_a_damaged_list_is_refused_by_name(tmp_path: Path, rows: str) -> None:
    with pytest.raises(InputError, match=r"modules\.json"):
        read(tmp_path, rows)


def test_text_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cut short"):
        read(tmp_path, [TUN], b"__\x90")
    (tmp_path / "modules_text").write_bytes(zlib.compress(b"__\x90\x90\xc3")[:-3])
    with pytest.raises(InputError, match="modules_text: cut short"):
        read(tmp_path, [TUN], None)
    (tmp_path / "modules_text").write_bytes(b"not zlib")
    with pytest.raises(InputError, match="not readable"):
        read(tmp_path, [TUN], None)
