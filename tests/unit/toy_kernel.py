"""A kernel small enough to read: functions assembled from text, each instruction with its source line.

    do_frob:                        a function begins at a line of its own
        test edi, edi       ; 3     the instruction's line, in the function itself
        js .bad             ; 3     labels begin with a dot and belong to their function
        call helper         ; 4
        cmp eax, 7          ; pred 20 < 5     line 20 of pred(), inlined at line 5
        ret                 ; 6
    .bad:
        mov eax, -22        ; 3
        ret                 ; 6

Operands are registers, numbers, labels, and memory as `[rsp+8]`. Everything is of one file, toy.c.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from iced_x86 import BlockEncoder, Code, Decoder, Instruction, MemoryOperand, Register
from numpy.typing import NDArray

from profiler.debuginfo import cfg, x86_execution
from profiler.debuginfo.histogram import LineHistogram, histograms
from profiler.graph import Block, Executed, FunctionGraph
from profiler.model import SourceLocation

TEXT = 0xFFFFFFFF81000000
FILE = "toy.c"
_LABEL = 1 << 32  # where label numbers begin, before they are addresses
_PLAIN = {
    "ret": "RETNQ",
    "ud2": "UD2",
    "cli": "CLI",
    "sti": "STI",
    "leave": "LEAVEQ",
    "cdqe": "CDQE",
    "nop": "NOPD",
    "int3": "INT3",
    "popfq": "POPFQ",
    "stac": "STAC",
    "sysretq": "SYSRETQ",
    "iretq": "IRETQ",
}
_STRINGS = {
    "rep movsb": Instruction.create_rep_movsb,
    "rep movsq": Instruction.create_rep_movsq,
    "rep stosq": Instruction.create_rep_stosq,
}
_WIDTHS = {1: "8", 2: "16", 4: "32", 8: "64"}


def _register(name: str) -> Any:
    return getattr(Register, name.upper(), None)


def _width(name: str) -> str:
    if re.fullmatch(r"r\d+d|e\w\w", name):
        return "32"
    return "8" if re.fullmatch(r"[abcd]l|r\d+b|[sd]il|bpl", name) else "64"


def _memory(text: str) -> MemoryOperand:
    """`[rbx+rax*4-8]`"""
    base, index, scale, displacement = Register.NONE, Register.NONE, 1, 0
    for sign, term in re.findall(r"([+-]?)\s*([\w*]+)", text.strip("[]")):
        name, _, factor = term.partition("*")
        if _register(name) is None:
            displacement += int(sign + term, 0)
        elif factor or base != Register.NONE:
            index, scale = _register(name), int(factor or 1)
        else:
            base = _register(name)
    return MemoryOperand(base, index, scale, displacement, 8)


def _code(mnemonic: str, *forms: str) -> Any:
    for form in forms:
        code = getattr(Code, f"{mnemonic.upper()}_{form}", None)
        if code is not None:
            return code
    raise AssertionError(f"no encoding of {mnemonic} known as any of {forms}")


def _of_two(mnemonic: str, first: str, second: str) -> Instruction:
    target, source = _register(first), _register(second)
    n = _width(second if target is None else first)
    if target is not None and source is not None:
        m = _width(second)
        code = _code(mnemonic, f"R{n}_RM{m}", f"RM{n}_R{m}")
        return Instruction.create_reg_reg(code, target, source)
    if target is not None and second.startswith("["):
        return Instruction.create_reg_mem(_code(mnemonic, f"R{n}_RM{n}", f"R{n}_M"), target, _memory(second))
    if source is not None:
        return Instruction.create_mem_reg(_code(mnemonic, f"RM{n}_R{n}"), _memory(first), source)
    value = int(second, 0)
    if target is None:
        return Instruction.create_mem_i32(_code(mnemonic, "RM32_IMM32"), _memory(first), value)
    code = _code(mnemonic, f"RM{n}_IMM{'32' if n == '64' else n}", f"RM{n}_IMM8")
    return Instruction.create_reg_i32(code, target, value)


def _instruction(text: str, label: Mapping[str, int]) -> Instruction:
    if text in _STRINGS:
        return _STRINGS[text](64)
    mnemonic, _, rest = text.partition(" ")
    operands = [operand.strip() for operand in rest.split(",")] if rest else []
    if mnemonic in _PLAIN:
        return Instruction.create(getattr(Code, _PLAIN[mnemonic]))
    if len(operands) == 2:
        return _of_two(mnemonic, *operands)
    (operand,) = operands
    register = _register(operand)
    if register is not None:
        n = _width(operand)
        return Instruction.create_reg(_code(mnemonic, f"R{n}", f"RM{n}"), register)
    if operand.startswith("["):
        return Instruction.create_mem(_code(mnemonic, "RM64", "RM8"), _memory(operand))
    return Instruction.create_branch(_code(mnemonic, "REL32_64"), label[operand])


@dataclass
class _Line:
    function: str
    labels: list[str]
    text: str
    place: str


def _lines(assembly: str) -> Iterator[_Line]:
    function, labels = "", []
    for raw in textwrap.dedent(assembly).split("\n"):
        text, _, place = (part.strip() for part in raw.partition(";"))
        if text.endswith(":"):
            name = text[:-1]
            function = function if name.startswith(".") else name
            labels.append(function + name if name.startswith(".") else name)
        elif text:
            yield _Line(function, labels, text, place)
            labels = []


class ToyKernel:
    """What a KernelCode answers, of the functions of `assembly`. `fixups`, `keys`: from label to label."""

    def __init__(
        self, assembly: str, *, fixups: Mapping[str, str] | None = None, keys: Mapping[str, str] | None = None
    ) -> None:
        self._assemble(list(_lines(assembly)))
        tables = ({self.at[a]: self.at[b] for a, b in (table or {}).items()} for table in (fixups, keys))
        self.text = cfg.Text(self.read, self.function_at, *tables)
        self._graphs: dict[int, FunctionGraph] = {}

    def _assemble(self, lines: list[_Line]) -> None:
        numbers = {name: _LABEL + i for i, line in enumerate(lines) for name in line.labels}
        encoder = BlockEncoder(64, fix_branches=True)
        for i, line in enumerate(lines):
            local = {name.removeprefix(line.function): number for name, number in numbers.items()}
            instruction = _instruction(line.text, {**local, **numbers})
            instruction.ip = _LABEL + i
            encoder.add(instruction)
        self.bytes = encoder.encode(TEXT)
        decoded = list(Decoder(64, self.bytes, ip=TEXT))
        assert len(decoded) == len(lines)
        self.at: dict[str, int] = {}  # label → address
        self._frames: dict[int, tuple[SourceLocation, ...]] = {}
        self.unread: dict[int, str] = {}  # address → the module of unknown code there
        self.bare: dict[int, str] = {}  # address → the module without lines there
        starts: dict[str, int] = {}
        self.functions: list[tuple[str, int, int]] = []
        for line, instruction in zip(lines, decoded, strict=True):
            for name in line.labels:
                self.at[name] = instruction.ip
            if line.function not in starts:
                starts[line.function] = instruction.ip
            for address in range(instruction.ip, instruction.next_ip):
                self._frames[address] = _chain(line)
        ends = [*list(starts.values())[1:], TEXT + len(self.bytes)]
        self.functions = [(name, start, end) for (name, start), end in zip(starts.items(), ends, strict=True)]
        self.next_ip = {instruction.ip: instruction.next_ip for instruction in decoded}

    # ---- what is asked of a kernel's code ----

    def read(self, address: int, size: int) -> bytes:
        return self.bytes[address - TEXT : address - TEXT + size]

    def function_at(self, address: int) -> tuple[str, int, int] | None:
        return next((found for found in self.functions if found[1] <= address < found[2]), None)

    def owner_of(self, address: int) -> tuple[str, int, int] | None:
        found = self.function_at(address)
        if found is None or ".cold" not in found[0]:
            return found
        return next(owner for owner in self.functions if owner[0] == found[0].partition(".cold")[0])

    def graph(self, entry: int) -> FunctionGraph:
        if entry not in self._graphs:
            self._graphs[entry] = cfg.build(self.text, entry)
        return self._graphs[entry]

    def executed(self, address: int) -> Executed | None:
        return x86_execution.decode(self.read(address, 15), address)

    def instructions_of(self, block: Block) -> list[int]:
        return [address for address in self.next_ip if block.start <= address < block.end]

    def frames(self, address: int) -> tuple[SourceLocation, ...]:
        return self._frames.get(address, ())

    def name(self, address: int) -> str:
        found = self.function_at(address)
        return f"{found[0]}+{address - found[1]:#x}" if found else f"{address:#x}"

    def expression(self, entry: int, place: str) -> str | None:
        """As if every function were given a struct toy *toy alone, whose member at 8 is `error`."""
        return "toy->error" if place == "[rdi+0x8]" and self.function_at(entry) is not None else None

    def symbol(self, name: str) -> int | None:
        return self.at.get(name)

    def module_at(self, _address: int) -> None:
        """All of it is the kernel proper."""

    def unknown_module_at(self, address: int) -> str | None:
        return self.unread.get(address)

    def module_without_lines(self, address: int) -> str | None:
        return self.bare.get(address)

    def histograms(self, addresses: NDArray[np.uint64]) -> dict[tuple[str, str], LineHistogram]:
        return histograms(addresses, self)

    # ---- for the tests ----

    def behind(self, label: str) -> int:
        """The address behind the instruction at a label: where a call there returns to."""
        return self.next_ip[self.at[label]]


def _chain(line: _Line) -> tuple[SourceLocation, ...]:
    """`20` or `pred 20 < 5`: innermost first; the last is in the function itself."""
    if not line.place:
        return ()
    function = line.function.partition(".")[0]
    frames = []
    for place in line.place.split("<"):
        name, _, number = place.strip().rpartition(" ")
        frames.append(SourceLocation(name or function, FILE, int(number)))
    return tuple(frames)
