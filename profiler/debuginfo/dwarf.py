"""A kernel's debug info in full, through drgn: types, members, and lines of assembly."""

from __future__ import annotations

import drgn  # 0.1 s: import this module only where it is needed

from profiler.debuginfo.vmlinux import Vmlinux

_ARCHITECTURES = {"x86_64": drgn.Architecture.X86_64, "aarch64": drgn.Architecture.AARCH64}


def open_program(vmlinux: Vmlinux) -> drgn.Program:
    program = drgn.Program(drgn.Platform(_ARCHITECTURES[vmlinux.machine]))
    module = program.extra_module("vmlinux", create=True)
    module.address_ranges = [(vmlinux.symbol_address("_text"), vmlinux.symbol_address("_end"))]
    module.try_file(str(vmlinux.path), force=True)
    return program
