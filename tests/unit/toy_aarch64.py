"""AArch64 functions put together from words: (mnemonic, operands...), a jump's last operand being a label.

Encodings: Arm Architecture Reference Manual, chapter C6. Numbers are registers or immediates as each takes them;
`wide` variants end in "x".
"""

from __future__ import annotations

from collections.abc import Callable

from profiler.debuginfo import cfg
from profiler.debuginfo.aarch64_flow import AARCH64

TEXT = 0xFFFF800008010000
Line = tuple[str | int, ...]

WORDS: dict[str, Callable[..., int]] = {
    "movz": lambda d, n: 0x52800000 | n << 5 | d,
    "movn": lambda d, n: 0x12800000 | n << 5 | d,
    "movk": lambda d, n, at: 0x72800000 | at // 16 << 21 | n << 5 | d,
    "mov": lambda d, m: 0x2A0003E0 | m << 16 | d,
    "movx": lambda d, m: 0xAA0003E0 | m << 16 | d,
    "add": lambda d, n, i: 0x11000000 | i << 10 | n << 5 | d,
    "addx": lambda d, n, i: 0x91000000 | i << 10 | n << 5 | d,
    "subx": lambda d, n, i: 0xD1000000 | i << 10 | n << 5 | d,
    "subs": lambda d, n, i: 0x71000000 | i << 10 | n << 5 | d,
    "neg": lambda d, m: 0x4B0003E0 | m << 16 | d,
    "mvn": lambda d, m: 0x2A2003E0 | m << 16 | d,
    "mul": lambda d, n, m: 0x1B007C00 | m << 16 | n << 5 | d,
    "csel": lambda d, n, m, c: 0x1A800000 | m << 16 | c << 12 | n << 5 | d,
    "csinc": lambda d, n, m, c: 0x1A800400 | m << 16 | c << 12 | n << 5 | d,
    "csinv": lambda d, n, m, c: 0x5A800000 | m << 16 | c << 12 | n << 5 | d,
    "csneg": lambda d, n, m, c: 0x5A800400 | m << 16 | c << 12 | n << 5 | d,
    "cmp": lambda n, i: 0x7100001F | i << 10 | n << 5,
    "cmn": lambda n, i: 0x3100001F | i << 10 | n << 5,
    "cmn4096": lambda n: 0xB140041F | n << 5,
    "tst": lambda n, m: 0x6A00001F | m << 16 | n << 5,
    "ldr": lambda t, n, at: 0xB9400000 | at // 4 << 10 | n << 5 | t,
    "ldrx": lambda t, n, at: 0xF9400000 | at // 8 << 10 | n << 5 | t,
    "str": lambda t, n, at: 0xB9000000 | at // 4 << 10 | n << 5 | t,
    "strx": lambda t, n, at: 0xF9000000 | at // 8 << 10 | n << 5 | t,
    "stp_pre": lambda t, u, n, at: 0xA9800000 | (at // 8 & 0x7F) << 15 | u << 10 | n << 5 | t,
    "ldp_post": lambda t, u, n, at: 0xA8C00000 | (at // 8 & 0x7F) << 15 | u << 10 | n << 5 | t,
    "ldadd": lambda s, t, n: 0xB8200000 | s << 16 | n << 5 | t,
    "adr": lambda d, to: 0x10000000 | (to & 3) << 29 | (to >> 2 & 0x7FFFF) << 5 | d,
    "ldrb_table": lambda t, n, m: 0x38606800 | m << 16 | n << 5 | t,
    "add_entry": lambda d, n, m: 0x8B208800 | m << 16 | n << 5 | d,  # add xd, xn, wm, sxtb #2
    "br": lambda n: 0xD61F0000 | n << 5,
    "blr": lambda n: 0xD63F0000 | n << 5,
    "b": lambda to: 0x14000000 | to >> 2 & 0x3FFFFFF,
    "bl": lambda to: 0x94000000 | to >> 2 & 0x3FFFFFF,
    "b.cond": lambda c, to: 0x54000000 | (to >> 2 & 0x7FFFF) << 5 | c,
    "cbz": lambda t, to: 0x34000000 | (to >> 2 & 0x7FFFF) << 5 | t,
    "cbnz": lambda t, to: 0x35000000 | (to >> 2 & 0x7FFFF) << 5 | t,
    "tbnz": lambda t, bit, to: 0x37000000 | bit << 19 | (to >> 2 & 0x3FFF) << 5 | t,
    "ret": lambda: 0xD65F03C0,
    "nop": lambda: 0xD503201F,
    "paciasp": lambda: 0xD503233F,
    "autiasp": lambda: 0xD50323BF,
    "brk": lambda n: 0xD4200000 | n << 5,
    "irqs_off": lambda: 0xD50343DF,  # msr daifset, #3
    "irqs_restored": lambda: 0xD51B4220,  # msr daif, x0
    "hvc": lambda: 0xD4000002,
    "bytes": lambda word: word,
}
EQ, NE, HS, LO, MI, PL, HI, LS, GE, LT, GT, LE = 0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13


def word(mnemonic: str, *operands: int) -> bytes:
    return WORDS[mnemonic](*operands).to_bytes(4, "little")


class ToyAArch64:
    """Functions and labels by address. A line is a label, ("f:",) or (".label:",), or an instruction."""

    def __init__(self, *lines: Line, fixups: dict[str, str] | None = None, words: dict[str, int] | None = None) -> None:
        self.at: dict[str, int] = {}
        starts: list[tuple[str, int]] = []
        address = TEXT
        for line in lines:
            name = str(line[0])
            if name.endswith(":"):
                self.at[name[:-1]] = address
                if not name.startswith("."):
                    starts.append((name[:-1], address))
            else:
                address += 4
        ends = [start for _, start in starts[1:]] + [address]
        self.functions = [(name, start, end) for (name, start), end in zip(starts, ends, strict=True)]
        self.bytes = b""
        for line in lines:
            if not str(line[0]).endswith(":"):
                self.bytes += word(str(line[0]), *(self._operand(operand) for operand in line[1:]))
        self.text = cfg.Text(
            self.read,
            self.function_at,
            {self.at[a]: self.at[b] for a, b in (fixups or {}).items()},
            fault_effects={self.at[a]: AARCH64.fault_effects(w) for a, w in (words or {}).items()},
            architecture=AARCH64,
        )

    def _operand(self, operand: str | int) -> int:
        """A label is the distance from the instruction now to be appended."""
        return operand if isinstance(operand, int) else self.at[operand] - TEXT - len(self.bytes)

    def read(self, address: int, size: int) -> bytes:
        return self.bytes[address - TEXT : address - TEXT + size] if address >= TEXT else b""

    def function_at(self, address: int) -> tuple[str, int, int] | None:
        return next((found for found in self.functions if found[1] <= address < found[2]), None)
