"""Where the kernel was loaded, by each source that says it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from profiler import kaslr
from profiler.debuginfo.vmlinux import Vmlinux
from profiler.errors import InputError, MismatchError
from profiler.model import KernelMap, PerfRecording
from tests.unit.elf_image import FUNC, NOTYPE, TEXT, Image
from tests.unit.toy_kernel import ToyKernel
from tests.unit.toy_recording import recorded

OFFSET = 0x1C00000


@pytest.fixture
def vmlinux(tmp_path: Path) -> Vmlinux:
    symbols = [(name, TEXT, 0, NOTYPE) for name in ("_text", "_stext")]
    path = tmp_path / "vmlinux"
    path.write_bytes(Image(symbols=[*symbols, ("_etext", TEXT + 0x100, 0, NOTYPE), ("f", TEXT, 16, FUNC)]).content())
    return Vmlinux(path)


def listing(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "kallsyms"
    path.write_text(text)
    return path


def test_kallsyms_has_the_loaded_address(tmp_path: Path, vmlinux: Vmlinux) -> None:
    text = f"{TEXT:016x} A fixed_percpu_data\n{TEXT + OFFSET:016x} T _stext\n"
    assert kaslr.of_kallsyms(listing(tmp_path, text), vmlinux) == OFFSET


def test_kallsyms_without_the_symbol_says_nothing(tmp_path: Path, vmlinux: Vmlinux) -> None:
    assert kaslr.of_kallsyms(listing(tmp_path, "ffffffff81000000 T other\n"), vmlinux) is None


@pytest.mark.parametrize(("address", "message"), [("0" * 16, "all addresses are zero"), ("nonsense", "is no address")])
def test_hidden_or_damaged_addresses_are_told(tmp_path: Path, vmlinux: Vmlinux, address: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        kaslr.of_kallsyms(listing(tmp_path, f"{address} T _stext\n"), vmlinux)


@pytest.mark.parametrize("address", [TEXT - 0x200000, TEXT + (1 << 31), 0x1000])
def test_an_address_where_no_kernel_can_be_is_refused(tmp_path: Path, vmlinux: Vmlinux, address: int) -> None:
    with pytest.raises(MismatchError, match="cannot have been loaded"):
        kaslr.of_kallsyms(listing(tmp_path, f"{address:016x} T _stext\n"), vmlinux)


def sampled(count_inside: int, count_outside: int) -> PerfRecording:
    return recorded(ToyKernel("f:\nret"), {"f": count_inside}, loose={(TEXT + 0x40000000,): count_outside})


def mapped(**changes: object) -> PerfRecording:
    kernel_map = KernelMap(TEXT + OFFSET, 0x100, TEXT + OFFSET, "[kernel.kallsyms]_stext")
    return dataclasses.replace(sampled(1, 0), kernel_map=dataclasses.replace(kernel_map, **changes))  # type: ignore[arg-type]


def test_perfs_own_mapping_has_the_loaded_address_of_a_symbol(vmlinux: Vmlinux) -> None:
    assert kaslr.of_map(mapped(), vmlinux, Path("perf.data")) == OFFSET
    assert kaslr.of_map(mapped(name="[kernel.kallsyms]_text"), vmlinux, Path("perf.data")) == OFFSET


def test_a_mapping_recorded_without_rights_says_nothing(vmlinux: Vmlinux) -> None:
    """perf writes 0 where the kernel hid its addresses."""
    assert kaslr.of_map(mapped(pgoff=0), vmlinux, Path("perf.data")) is None
    assert kaslr.of_map(sampled(1, 0), vmlinux, Path("perf.data")) is None


def test_samples_within_the_image_show_a_kernel_that_was_not_moved(vmlinux: Vmlinux) -> None:
    assert kaslr.of_samples(sampled(60, 40), vmlinux) == 0
    assert kaslr.of_samples(sampled(0, 0), vmlinux) == 0


def test_samples_outside_the_image_are_refused(vmlinux: Vmlinux) -> None:
    with pytest.raises(MismatchError, match="60% of the kernel samples lie outside"):
        kaslr.of_samples(sampled(40, 60), vmlinux)
