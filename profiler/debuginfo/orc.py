"""The kernel's unwind table of x86-64: where the stack frame begins at an address.

Format: arch/x86/include/asm/orc_types.h. `.orc_unwind_ip` holds sorted addresses, each 32 bits relative to its own
place; `.orc_unwind` for each an entry of 6 bytes that begins with two offsets of 16 bits, for sp and bp, and four
bits that name the register that the first counts from. All of this is the same from Linux 4.14 to 7.3.
"""

from __future__ import annotations

import numpy as np

from profiler.debuginfo.operands import Register, Value, plus
from profiler.debuginfo.vmlinux import Vmlinux

_ENTRY_BYTES = 6
_BASES = {4: "rbp", 5: "rsp"}  # ORC_REG_BP, ORC_REG_SP


class Orc:
    def __init__(self, start: int, addresses: bytes, entries: bytes) -> None:
        relative = np.frombuffer(addresses[: len(addresses) // 4 * 4], "<i4").astype(np.int64)
        places = np.uint64(start).astype(np.int64) + 4 * np.arange(len(relative), dtype=np.int64)
        self._addresses = (places + relative).astype(np.uint64)
        self._entries = entries

    @classmethod
    def of(cls, vmlinux: Vmlinux) -> Orc | None:
        """None where the image has no such table."""
        addresses, entries = vmlinux.section(".orc_unwind_ip"), vmlinux.section(".orc_unwind")
        return cls(*addresses, entries[1]) if addresses is not None and entries is not None else None

    def frame_address(self, address: int) -> Value | None:
        """The canonical frame address: the stack pointer before the call that entered the function."""
        index = int(np.searchsorted(self._addresses, np.uint64(address), side="right")) - 1
        entry = self._entries[index * _ENTRY_BYTES : (index + 1) * _ENTRY_BYTES]
        if index < 0 or len(entry) < _ENTRY_BYTES or (base := _BASES.get(entry[4] & 0xF)) is None:
            return None
        return plus(Register(base), int.from_bytes(entry[:2], "little", signed=True))
