"""Kernels on this machine, and what killed runs leave on it."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from profiler.errors import MismatchError, MissingError, UsageError
from profiler.lab import elf_note, leftovers, programs, store
from profiler.model import Kernel
from tests.conftest import require


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_only_directories_of_dead_owners_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers.tempfile, "tempdir", str(tmp_path))
    dead = subprocess.Popen(["true"])
    dead.wait()
    (tmp_path / "whyerrno-vm-dead").mkdir()
    (tmp_path / "whyerrno-vm-dead/owner").write_text(f"{dead.pid} 12345\n")
    (tmp_path / "whyerrno-vm-reused").mkdir()  # our own process id, started at another time
    (tmp_path / "whyerrno-vm-reused/owner").write_text(f"{os.getpid()} 1\n")
    (tmp_path / "whyerrno-vm-young").mkdir()
    (tmp_path / "somebody-elses").mkdir()
    with leftovers.directory("vm") as mine:
        removed = {path.name for path in leftovers.remove()}
        assert mine.exists()
    assert removed == {"whyerrno-vm-dead", "whyerrno-vm-reused"}
    assert names_in(tmp_path) == ["somebody-elses", "whyerrno-vm-young"]


def test_the_guest_of_a_dead_owner_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers.tempfile, "tempdir", str(tmp_path))
    (tmp_path / "whyerrno-vm-x").mkdir()
    (tmp_path / "whyerrno-vm-x/owner").write_text("999999999 1\n")
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as orphan:
        leftovers.note_process(tmp_path / "whyerrno-vm-x", orphan.pid)
        leftovers.remove()
        assert orphan.wait(10) == -9


def bzimage(path: Path, text: str) -> None:
    head = bytearray(0x4000)
    head[0x202:0x206] = b"HdrS"
    head[0x20E:0x210] = (0x3000 - 0x200).to_bytes(2, "little")
    head[0x3000 : 0x3000 + len(text)] = text.encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head)


def elf_with_build_id(path: Path, build_id: bytes) -> None:
    note = struct.pack("<III", 4, len(build_id), 3) + b"GNU\0" + build_id
    header = (
        b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    )
    segment = struct.pack("<IIQQQQQQ", 4, 4, 64 + 56, 0, 0, len(note), len(note), 4)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + segment + note)


BANNER = "6.1.0-56-cloud-amd64 (debian-kernel@lists.debian.org) #1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-16)"


def test_an_unpacked_package_is_recognised_with_release_version_and_build_id(tmp_path: Path) -> None:
    release = "6.1.0-56-cloud-amd64"
    bzimage(tmp_path / f"root/boot/vmlinuz-{release}", BANNER)
    elf_with_build_id(tmp_path / f"root/usr/lib/debug/boot/vmlinux-{release}", bytes(range(20)))
    (tmp_path / f"root/lib/modules/{release}").mkdir(parents=True)
    (tmp_path / "src/kernel").mkdir(parents=True)
    (tmp_path / "src/kernel/fork.c").touch()
    kernel = store.from_path(tmp_path / "root")
    assert (kernel.release, kernel.package_version) == (release, "6.1.192-2")
    assert kernel.build_id == bytes(range(20)).hex()
    assert kernel.source == tmp_path / "src"
    assert kernel.modules == tmp_path / f"root/lib/modules/{release}"


def test_a_build_tree_is_recognised(tmp_path: Path) -> None:
    bzimage(tmp_path / "arch/x86/boot/bzImage", "6.9.0-rc1 (me@here) #3")
    elf_with_build_id(tmp_path / "vmlinux", b"\xab" * 20)
    kernel = store.from_path(tmp_path)
    assert (kernel.release, kernel.package_version, kernel.build_id) == ("6.9.0-rc1", "", "ab" * 20)
    assert kernel.source == tmp_path


def test_paths_without_a_kernel_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a directory"):
        store.from_path(tmp_path / "nowhere")
    with pytest.raises(MissingError, match="no kernel image"):
        store.from_path(tmp_path)
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot/vmlinuz-x").write_bytes(b"\0" * 4096)
    with pytest.raises(MismatchError, match="not an x86 bzImage"):
        store.from_path(tmp_path)


def cached(root: Path, version: str) -> None:
    directory = root / "whyerrno/kernels" / version
    (directory / "source").mkdir(parents=True)
    (directory / "image").touch()
    (directory / "vmlinux").touch()
    store.write(directory, Kernel(f"{version}-cloud", version, "ab", "x86_64"))


def test_the_newest_cached_kernel_of_a_version_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for version in ("6.1.99-1", "6.1.192-2", "6.12.1-1"):
        cached(tmp_path, version)
    (tmp_path / "whyerrno/kernels/.partial-x").mkdir()
    found = store.find("6.1")
    assert found is not None and found.package_version == "6.1.192-2"
    assert store.find("6.13") is None
    assert [kernel.package_version for kernel in store.list_cached()] == ["6.1.99-1", "6.1.192-2", "6.12.1-1"]


def test_a_damaged_cached_kernel_is_passed_over_and_told_when_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cached(tmp_path, "6.1.99-1")
    (tmp_path / "whyerrno/kernels/6.1.99-1/vmlinux").unlink()
    assert store.find("6.1") is None
    with pytest.raises(MissingError, match="rm -r"):
        store.from_path(tmp_path / "whyerrno/kernels/6.1.99-1")


def test_a_build_id_is_read_from_an_elf_file_and_from_note_bytes(tmp_path: Path) -> None:
    elf_with_build_id(tmp_path / "vmlinux", b"\x01\x02")
    assert elf_note.of_file(tmp_path / "vmlinux") == "0102"
    other = struct.pack("<III", 6, 4, 257) + b"Linux\0\0\0" + b"\0\0\0\0"
    assert elf_note.of_notes(other + struct.pack("<III", 4, 2, 3) + b"GNU\0\x0a\x0b") == "0a0b"
    assert elf_note.of_notes(struct.pack("<III", 4, 200, 3) + b"GNU\0cut") == ""
    (tmp_path / "text").write_text("text")
    assert elf_note.of_file(tmp_path / "text") == ""


def test_the_build_id_of_this_interpreter_agrees_with_readelf() -> None:
    readelf = shutil.which("readelf")
    require(readelf, "readelf is not installed (package binutils)")
    assert readelf
    path = programs.python()
    shown = subprocess.run([readelf, "-n", path], capture_output=True, text=True, check=True).stdout
    require("Build ID: " in shown, "this interpreter has no build id")
    assert elf_note.of_file(path) == shown.split("Build ID: ")[1].split()[0]
