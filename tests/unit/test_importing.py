"""Imports of what perf alone recorded: made whole, or refused in one line with nothing left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from profiler.errors import InputError, MismatchError, MissingError, UsageError
from profiler.importing import import_perf
from profiler.model import Analysis
from tests.unit.elf_image import FUNC, NOTYPE, TEXT, Image, note

DATA = Path(__file__).parent.parent / "data" / "perf"
BUILD_ID = "3b43fad5034874490492495d552c0af6a5fab235"  # of the kernel that callchains.data was recorded on


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No kernel of this machine's own may be found."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def imported(data: Path, tmp_path: Path, **more: Any) -> Analysis:
    options: dict[str, Any] = {
        "vmlinux": None,
        "source": None,
        "syscall": "bind",
        "errno": "EADDRINUSE",
        "out": tmp_path / "out",
        "force": False,
        "progress": lambda *_: None,
    }
    return import_perf(data, **{**options, **more})


def vmlinux(path: Path, build_id: str, *, debug: bool = True) -> Path:
    """An image with a build id and symbols."""
    symbols = [
        ("_text", TEXT, 0, NOTYPE),
        ("_stext", TEXT, 0, NOTYPE),
        ("_etext", TEXT + 0x100, 0, NOTYPE),
        ("start_kernel", TEXT, 0x10, FUNC),
    ]
    path.write_bytes(Image(symbols=symbols, notes=note(b"GNU\0", 3, bytes.fromhex(build_id)), debug=debug).content())
    return path


def left_behind(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in tmp_path.iterdir() if path.name not in ("cache", "given"))


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """Where a test puts its files."""
    directory = tmp_path / "given"
    directory.mkdir()
    return directory


def test_a_kernel_that_is_not_here_is_named_by_its_build_id(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=BUILD_ID) as caught:
        imported(DATA / "callchains.data", tmp_path)
    assert "--vmlinux" in caught.value.hint
    assert left_behind(tmp_path) == []


def test_text_does_not_say_which_kernel_it_is_of(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="not say which kernel") as caught:
        imported(DATA / "callchains.script", tmp_path)
    assert "--vmlinux" in caught.value.hint
    assert left_behind(tmp_path) == []


def test_another_kernels_vmlinux_is_refused(tmp_path: Path, given: Path) -> None:
    other = vmlinux(given / "vmlinux", "00" * 20)
    with pytest.raises(MismatchError, match=f"is not {BUILD_ID}"):
        imported(DATA / "callchains.data", tmp_path, vmlinux=other)
    assert left_behind(tmp_path) == []


def test_a_vmlinux_without_debug_info_is_refused(tmp_path: Path, given: Path) -> None:
    bare = vmlinux(given / "vmlinux", BUILD_ID, debug=False)
    with pytest.raises(MissingError, match="no debug info"):
        imported(DATA / "callchains.data", tmp_path, vmlinux=bare)
    assert left_behind(tmp_path) == []


def test_text_of_a_kernel_that_was_loaded_elsewhere_is_refused(tmp_path: Path, given: Path) -> None:
    """The text says nothing of KASLR; where the samples do not lie in the image, no line would be right."""
    small = vmlinux(given / "vmlinux", BUILD_ID)
    with pytest.raises(MismatchError, match="of the kernel samples lie outside the text of"):
        imported(DATA / "callchains.script", tmp_path, vmlinux=small)
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "is empty"), (b"\x7fELF\0\0", "is not of perf"), (b"PERFILE2", r"perf\.data")]
)
def test_data_that_is_none_of_perfs_is_refused(tmp_path: Path, given: Path, content: bytes, message: str) -> None:
    (given / "perf.data").write_bytes(content)
    with pytest.raises(InputError, match=message):
        imported(given / "perf.data", tmp_path)
    assert left_behind(tmp_path) == []


def test_an_existing_output_is_refused_before_anything_is_read(tmp_path: Path, given: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "kept").touch()
    with pytest.raises(UsageError, match="exists"):
        imported(given / "absent", tmp_path)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["kept"]


def test_the_file_given_is_not_touched(tmp_path: Path, given: Path) -> None:
    data = given / "perf.data"
    data.write_bytes((DATA / "callchains.data").read_bytes())
    with pytest.raises(MissingError):
        imported(data, tmp_path)
    assert data.read_bytes() == (DATA / "callchains.data").read_bytes()
