"""Modules of stock kernels: linked, their lines and calls checked, and verdicts on calls that fail within them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from profiler import lab
from profiler.debuginfo.module_link import LinkedModule, link
from profiler.debuginfo.vmlinux import Vmlinux
from profiler.errors import ProfilerError
from profiler.model import Conclusion, Kernel
from tests.conftest import require
from tests.vm.kernels import VERSIONS, kernel_of
from tests.vm.test_verdicts import diagnose, judged

pytestmark = pytest.mark.vm

TEXT, COLD, DATA = 0xFFFFFFFFC0600000, 0xFFFFFFFFC0700000, 0xFFFFFFFFC0800000
PLACES = {".text": TEXT, ".text.unlikely": COLD, ".data": DATA, ".rodata": DATA + 0x10000, "__ex_table": DATA + 0x20000}
LOOKED_AT = 7  # every seventh byte


def file_of(kernel: Kernel, name: str) -> Path:
    try:
        lab.fetch_modules(kernel, [name], lambda phase, fraction: None)
    except ProfilerError as error:
        require(False, f"the debug info of {name} cannot be had here: {error}")
        raise
    found = lab.find_module(kernel, name)
    assert found is not None
    return found


@cache
def vmlinux_of(version: str) -> Vmlinux:
    path = kernel_of(version).vmlinux
    assert path is not None
    return Vmlinux(path)


@cache
def linked(version: str, name: str) -> LinkedModule:
    return link(file_of(kernel_of(version), name), PLACES, vmlinux_of(version).find_symbol)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["tun", "vsock"])
def test_lines_of_a_linked_module_are_those_that_drgn_finds(version: str, name: str) -> None:
    drgn = pytest.importorskip("drgn")
    module = linked(version, name)
    program = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    theirs: Any = program.relocatable_module(name, TEXT, create=True)
    theirs.address_ranges = module.code_ranges
    for section, address in PLACES.items():
        theirs.section_addresses[section] = address
    theirs.try_file(str(module.path), force=True)
    differing, compared = [], 0
    for function in module.functions:
        for address in range(function.start, function.end, LOOKED_AT):
            ours = [(at.symbol.partition(".")[0], at.line) for at in module.symcache.lookup(address - module.start)]
            expected = [(at.name().partition(".")[0], at.line) for at in program.source_location(address)]
            compared += 1
            if ours != expected:
                differing.append((hex(address), ours, expected))
    assert compared > 500
    assert not differing


@pytest.mark.parametrize("version", VERSIONS)
def test_every_call_of_a_linked_module_leads_to_the_start_of_a_function(version: str) -> None:
    iced_x86 = pytest.importorskip("iced_x86")
    module, kernel = linked(version, "tun"), vmlinux_of(version)
    wrong, calls = [], 0
    for function in module.functions:
        code = module.read(function.start, function.end - function.start)
        for instruction in iced_x86.Decoder(64, code, ip=function.start):
            if instruction.flow_control != iced_x86.FlowControl.CALL:
                continue
            calls += 1
            target = instruction.near_branch_target
            callee = module.function_at(target) or kernel.function_at(target)
            if callee is None or callee.start != target:
                wrong.append((hex(instruction.ip), hex(target)))
    assert calls > 300
    assert not wrong


@pytest.mark.parametrize("scenario", ["ioctl-ebadfd", "connect-enodev"])
def test_a_call_that_fails_within_a_module_is_named(scenario: str, tmp_path: Path) -> None:
    analysis = diagnose(scenario, "6.1", tmp_path / "run")
    judgement = judged(analysis, scenario)
    assert analysis.conclusion is Conclusion.NAMED
    assert judgement.site_right and judgement.branch_right


def test_without_the_modules_debug_info_no_place_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "find_module", lambda kernel, name: None)
    analysis = diagnose("ioctl-ebadfd", "6.1", tmp_path / "run")
    assert analysis.conclusion is Conclusion.INCONCLUSIVE
    assert "module tun" in analysis.reason
    assert any("--module tun" in step for step in analysis.next_steps)
