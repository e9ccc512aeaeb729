"""Where loaded modules lie, from files shaped as /proc/modules and /sys/module are."""

import json
import struct
import zlib
from pathlib import Path

from profiler.record import modules

TEXT, COLD, DATA = 0xFFFFFFFFC0600000, 0xFFFFFFFFC0600040, 0xFFFFFFFFC0601000
NOTE = struct.pack("<III", 4, 4, 3) + b"GNU\0" + bytes.fromhex("35d4c0de")


def system(root: Path, *, hidden: bool = False) -> tuple[str, str, str]:
    """(/proc/modules, /sys/module, /proc/kcore) of a kernel with `tun` loaded."""
    (root / "modules").write_text(f"tun 8192 2 vhost_net, Live {0 if hidden else TEXT:#x}\n")
    sections = root / "sys/tun/sections"
    sections.mkdir(parents=True)
    for name, address in ((".text", TEXT), (".text.unlikely", COLD), (".data", DATA), (".init.text", 0)):
        (sections / name).write_text(f"{0 if hidden else address:#018x}\n")
    notes = root / "sys/tun/notes"
    notes.mkdir()
    (notes / ".note.gnu.build-id").write_bytes(NOTE)
    text = b"\xc3" * 0x30 + bytes(0x10) + b"\x90" * 0x20
    header = (
        b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    )
    load = struct.pack("<IIQQQQQQ", 1, 7, 120, TEXT, 0, 0x2000, 0x2000, 4096)
    (root / "kcore").write_bytes((header + load + text).ljust(120 + 0x2000, b"\0"))
    return str(root / "modules"), str(root / "sys"), str(root / "kcore")


def test_sections_build_id_and_running_text_of_a_module_are_recorded(tmp_path: Path) -> None:
    loaded = modules.Loaded(*system(tmp_path))
    loaded.note(text=True)
    loaded.write(str(tmp_path / "out.json"), str(tmp_path / "out.text"))
    (tun,) = json.loads((tmp_path / "out.json").read_text())
    assert (tun["name"], tun["build_id"]) == ("tun", "35d4c0de")
    assert tun["sections"] == {".text": TEXT, ".text.unlikely": COLD, ".data": DATA}
    text = zlib.decompress((tmp_path / "out.text").read_bytes())
    runs = {run["section"]: text[run["offset"] : run["offset"] + run["size"]] for run in tun["text"]}
    assert runs == {".text": b"\xc3" * 0x30, ".text.unlikely": b"\x90" * 0x20}


def test_a_module_whose_addresses_are_hidden_is_left_out(tmp_path: Path) -> None:
    loaded = modules.Loaded(*system(tmp_path, hidden=True))
    loaded.note(text=True)
    loaded.write(str(tmp_path / "out.json"), str(tmp_path / "out.text"))
    assert json.loads((tmp_path / "out.json").read_text()) == []
    assert not (tmp_path / "out.text").exists()


def test_a_kernel_without_modules_has_none(tmp_path: Path) -> None:
    assert modules.read(str(tmp_path / "absent"), str(tmp_path)) == []


def test_a_module_is_noted_once_and_anew_when_it_was_loaded_again(tmp_path: Path) -> None:
    proc, sysfs, core = system(tmp_path)
    loaded = modules.Loaded(proc, sysfs, core)
    loaded.note(text=True)
    loaded.note(text=True)
    (tmp_path / "sys/tun/sections/.data").write_text(f"{DATA + 0x800:#x}\n")
    loaded.note(text=False)
    loaded.write(str(tmp_path / "out.json"), str(tmp_path / "out.text"))
    (tun,) = json.loads((tmp_path / "out.json").read_text())
    assert (tun["sections"][".data"], tun["text"]) == (DATA + 0x800, [])
    assert len(zlib.decompress((tmp_path / "out.text").read_bytes())) == 0x50


def test_text_that_cannot_be_read_leaves_the_addresses(tmp_path: Path) -> None:
    proc, sysfs, _ = system(tmp_path)
    loaded = modules.Loaded(proc, sysfs, str(tmp_path / "absent"))
    loaded.note(text=True)
    loaded.write(str(tmp_path / "out.json"), str(tmp_path / "out.text"))
    (tun,) = json.loads((tmp_path / "out.json").read_text())
    assert tun["sections"][".text"] == TEXT
    assert tun["text"] == []
