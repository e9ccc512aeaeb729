"""Operands of compiled C, against what the program, executed, holds in its variables."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest
import unicorn
from elftools.elf.elffile import ELFFile
from iced_x86 import Decoder
from unicorn import UC_ARCH_X86, UC_MODE_64, x86_const

from profiler.conclude import operands
from profiler.debuginfo import cfg
from profiler.debuginfo.operands import Memory, Register, evaluate
from profiler.debuginfo.operands_names import resolve
from profiler.debuginfo.variables import Variable, Variables
from profiler.debuginfo.vmlinux import Vmlinux
from profiler.graph import FunctionGraph
from profiler.model import Branch, SourceLocation
from tests.conftest import require

# Each condition that is asked for ends with a mark of its own.
PROGRAM = """
struct limit { unsigned long soft, hard; };
struct shared { int pad; struct limit limits[4]; };
struct space { unsigned long locked; unsigned kind:3; unsigned busy:5; signed char level; };
#define t_state common.state
struct common { short state; };
struct task { struct shared *shared; struct space *space; struct common common; int errors[8]; };
enum state { IDLE, READY = 7 };

__attribute__((noinline)) int account(struct task *task, unsigned long pages)
{
    unsigned long limit = task->shared->limits[2].soft >> 12;
    unsigned long total = task->space->locked + pages;

    if (total > limit) /* account */
        return -12;
    task->space->locked = total;
    return 0;
}

static inline __attribute__((always_inline)) int check(struct space *space, int level)
{
    if (space->level < level) /* check */
        return -13;
    return 0;
}

__attribute__((noinline)) int use(struct task *task, int level, unsigned flags)
{
    int error = check(task->space, level);

    if (error < 0) /* use */
        return error;
    if (flags & ~0xf3) { /* flags */
        asm volatile(""); /* so that it stays a jump */
        return -22;
    }
    return 0;
}

__attribute__((noinline)) int states(struct task *task, int index)
{
    if (task->t_state != READY) /* state */
        return -1;
    if (task->errors[index] == -5) /* errors */
        return task->errors[index];
    if (task->space->busy != 3) { /* busy */
        asm volatile(""); /* so that it stays a jump */
        return -16;
    }
    return 0;
}

int ceiling = 40, hidden = 1;

__attribute__((noinline)) int globals(int wanted)
{
    int hidden = wanted * 3;

    if (wanted > ceiling) { /* global */
        asm volatile(""); /* so that it stays a jump */
        return -7;
    }
    return hidden;
}

void _start(void) { globals(0); account(0, 0); use(0, 0, 0); states(0, 0); }
"""
STACK, DATA, END = 0x7000_0000, 0x6000_0000, 0x5000_0000
TASK, SHARED, SPACE = DATA, DATA + 0x100, DATA + 0x200
REGISTERS = {name: getattr(x86_const, f"UC_X86_REG_{name.upper()}") for name in ("rdi", "rsi", "rdx", "rsp")}


class Compiled:
    """What is asked of a kernel's code, of the program."""

    def __init__(self, path: Path) -> None:
        self.image = Vmlinux(path)
        self.path = path
        self._frames: dict[int, tuple[SourceLocation, ...]] = {}
        self._variables = Variables(self.image)
        self._text = cfg.Text(self.image.read, self.function_at)

    machine = "x86_64"

    def read(self, address: int, size: int) -> bytes:
        return self.image.read(address, size)

    def function_at(self, address: int) -> tuple[str, int, int] | None:
        found = self.image.function_at(address)
        return (found.name, found.start, found.end) if found else None

    owner_of = function_at

    def graph(self, entry: int) -> FunctionGraph:
        return cfg.build(self._text, entry)

    def frames(self, address: int) -> tuple[SourceLocation, ...]:
        if address not in self._frames:
            argv = ["addr2line", "-e", str(self.path), "-f", "-i", f"{address:#x}"]
            lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split("\n")
            found = [(name, re.search(r":(\d+)", place)) for name, place in zip(lines[::2], lines[1::2], strict=False)]
            self._frames[address] = tuple(SourceLocation(name, "program.c", int(at[1])) for name, at in found if at)
        return self._frames[address]

    def variables(self, address: int, function: str, names: Collection[str]) -> Mapping[str, Variable]:
        return self._variables.at(address, function, names)

    def enumerators(self, address: int) -> Mapping[str, int]:
        return self._variables.enumerators(address)


class Headers:
    """The program as the source it was compiled from."""

    def text(self, file: str) -> list[str] | None:
        return PROGRAM.split("\n") if file == "program.c" else None


@pytest.fixture(scope="module", params=["-O2 -gdwarf-5", "-O2 -gdwarf-4", "-O1 -gdwarf-5", "-Os -gdwarf-5"])
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    require(shutil.which("gcc") and shutil.which("addr2line"), "no compiler")
    folder = tmp_path_factory.mktemp("compiled")
    (folder / "program.c").write_text(PROGRAM)
    how = f"{request.param} -nostdlib -static -fno-pie -no-pie -fcf-protection=none -fno-ipa-icf -fno-ipa-sra".split()
    subprocess.run(["gcc", *how, "-o", folder / "program", folder / "program.c"], check=True)
    return Compiled(folder / "program")


def condition(mark: str) -> tuple[int, str]:
    """Line and text."""
    for number, line in enumerate(PROGRAM.split("\n"), 1):
        if found := re.search(rf"if \((.*)\) (?:{{ )?/\* {mark} \*/", line):
            return number, found[1]
    raise AssertionError(mark)


def run(compiled: Compiled, function: str, arguments: list[int], memory: Mapping[int, bytes]) -> Iterator[Any]:
    """The emulator, before each instruction of a call."""
    emulator: Any = unicorn.Uc(UC_ARCH_X86, UC_MODE_64)
    for start, end in ((STACK, STACK + 0x2000), (DATA, DATA + 0x1000), (END, END + 0x1000)):
        emulator.mem_map(start, end - start)
    emulator.mem_map(0x400000, 0x8000)
    section = compiled.image.section(".data")
    assert section is not None
    emulator.mem_write(*section)
    start, size = compiled.image.functions_named("_start")[0].start, 0
    for name in ("account", "use", "states", "globals", "_start"):
        found = compiled.image.functions_named(name)[0]
        emulator.mem_write(found.start, compiled.image.read(found.start, found.end - found.start))
        start, size = min(start, found.start), max(size, found.end - start)
    for address, data in memory.items():
        emulator.mem_write(address, data)
    emulator.mem_write(STACK + 0x1000, struct.pack("<Q", END))
    for name, value in zip(("rdi", "rsi", "rdx"), arguments, strict=False):
        emulator.reg_write(REGISTERS[name], value)
    emulator.reg_write(REGISTERS["rsp"], STACK + 0x1000)
    at = compiled.image.functions_named(function)[0].start
    while at != END:
        yield emulator
        emulator.emu_start(at, END, count=1)
        at = emulator.reg_read(x86_const.UC_X86_REG_RIP)


def known(emulator: Any) -> operands.Known:
    """Its registers and memory as they are now."""
    registers: dict[Register | Memory, int | None] = {}

    def read(source: Register | Memory) -> int | None:
        if source not in registers:
            if isinstance(source, Register):
                registers[source] = emulator.reg_read(getattr(x86_const, f"UC_X86_REG_{source.name.upper()}"))
            else:
                address = evaluate(source.address, read)
                word = bytes(emulator.mem_read(address, source.size)) if address is not None else b""
                registers[source] = int.from_bytes(word, "little")
        return registers[source]

    return read


def told(
    compiled: Compiled, mark: str, inside: str, function: str, arguments: list[int], memory: Mapping[int, bytes]
) -> list[Branch]:
    """For each jump on the condition's line that is passed, its operands. `inside`: the function it stands in."""
    line, text = condition(mark)
    owner = compiled.image.functions_named(function)[0].start
    jumps = [
        instruction.ip
        for block in compiled.graph(owner).blocks.values()
        for instruction in Decoder(64, compiled.read(block.start, block.end - block.start), ip=block.start)
        if instruction.condition_code
        if any((f.function, f.line) == (inside, line) for f in compiled.frames(instruction.ip))
    ]
    branch = Branch(inside, "program.c", line, "", text, True)
    plans = [plan for jump in jumps if (plan := operands.plan(compiled, branch, jump, Headers())) is not None]
    found = []
    for emulator in run(compiled, function, arguments, memory):
        at = emulator.reg_read(x86_const.UC_X86_REG_RIP) or compiled.image.functions_named(function)[0].start
        for plan in plans:
            if plan.address == at:
                found.append(operands.with_values(plan, [known(emulator)]))
    return [branch for branch in found if branch.operands]


def memory(
    *, locked: int = 0, bits: int = 0, level: int = 0, state: int = 7, soft: int = 0, error: int = 0
) -> dict[int, bytes]:
    task = struct.pack("<QQhxx8i", SHARED, SPACE, state, *[error] * 8)
    shared = struct.pack("<ixxxx4Q", 0, 0, 0, 0, 0) + struct.pack("<QQ", soft, 0)
    return {TASK: task, SHARED: shared, SPACE: struct.pack("<QBbxxxxxx", locked, bits, level)}


@pytest.mark.parametrize(
    ("mark", "inside", "function", "arguments", "content", "expected"),
    [
        ("account", "account", "account", [TASK, 16], memory(locked=3, soft=5 << 12), {"total": "19", "limit": "5"}),
        ("check", "check", "use", [TASK, 4, 0], memory(level=-2), {"space->level": "-2", "level": "4"}),
        ("use", "use", "use", [TASK, 4, 0], memory(level=-2), {"error": "-EACCES"}),
        ("flags", "use", "use", [TASK, 0, 0x1C], memory(), {"flags": "0x1c"}),
        ("state", "states", "states", [TASK, 0], memory(state=9), {"task->t_state": "9"}),
        ("errors", "states", "states", [TASK, 3], memory(error=-5), {"task->errors[index]": "-EIO"}),
        ("busy", "states", "states", [TASK, 0], memory(bits=6 << 3), {"task->space->busy": "6"}),
        ("global", "globals", "globals", [41], memory(), {"wanted": "41", "ceiling": "40"}),
    ],
)
def test_operands_are_what_the_variables_hold(
    compiled: Compiled,
    mark: str,
    inside: str,
    function: str,
    arguments: list[int],
    content: dict[int, bytes],
    expected: dict[str, str],
) -> None:
    """A part may be known under no name any more where it is compared; what is said is right."""
    found = told(compiled, mark, inside, function, arguments, content)
    for branch in found:
        values = {operand.expression: operand.value for operand in branch.operands}
        assert values.items() <= expected.items()
    assert found or mark == "use"  # a jump made one with that of the function inlined before it


def test_damaged_debug_info_is_never_more_than_unknown_variables(compiled: Compiled, tmp_path: Path) -> None:
    whole, random = compiled.path.read_bytes(), Random(7)
    with compiled.path.open("rb") as file:
        sections = [s for s in ELFFile(file).iter_sections() if s.name.startswith(".debug_")]
    for _ in range(25):
        data = bytearray(whole)
        for section in random.choices(sections, k=3):
            data[section["sh_offset"] + random.randrange(section["sh_size"])] = random.randrange(256)
        (tmp_path / "damaged").write_bytes(data)
        with Vmlinux(tmp_path / "damaged") as image:
            variables, states = Variables(image), image.functions_named("states")[0]
            variables.enumerators(states.start)
            for address in range(states.start, states.end, 5):
                known = variables.at(address, "states")
                resolve("task->errors[index]", known, lambda _: None)
