"""A toy kernel's code run by a real CPU emulator (Unicorn), and the execution log of it.

So what a log holds is what x86-64 does, told by somebody else than the code under test. System calls begin at
`entry_SYSCALL_64` with the number in rax and arguments in rdi, rsi, rdx; ENTRY has the code from there to
`__x64_sys_frob`, which the tests supply. Interrupts come where a test wants them; what faults goes to
`asm_exc_page_fault` and goes on at its fixup, as the toy kernel's exception table says.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping

import numpy as np
import unicorn
from unicorn import x86_const

from profiler.graph import Control
from profiler.model import LOGGED_REGISTERS, ExecutionLog
from tests.unit.toy_kernel import TEXT, ToyKernel

FROB, OTHER = 7, 9  # numbers of system calls
KERNEL_STACK = 0xFFFFC90000004000
STACK_OBJECT = KERNEL_STACK - 0x1000 + 0x100  # an array on the kernel's stack, far from where the calls use it
HEAP = 0xFFFF888000001000
USER_STACK = 0x7FFF0000
NOT_MAPPED = 0x6000_0000
_TIMER = "asm_sysvec_apic_timer_interrupt"
_SCRATCH = 0x5000  # where the entry code keeps the user's stack pointer
_PAGE = 0x1000
_MOST_STEPS = 5000

# The registers that the user had are kept in a toy of pt_regs on the stack, where the result goes, too.
ENTRY = """
    entry_SYSCALL_64:
        mov [0x5000], rsp
        mov rsp, [0x5008]
        push rdx
        push rsi
        push rdi
        push rax
        mov rdi, rsp
        call do_syscall_64
        pop rax
        pop rdi
        pop rsi
        pop rdx
        mov rsp, [0x5000]
        sysretq
    do_syscall_64:
        push rbx
        mov rbx, rdi
        mov rdx, [rbx+24]
        mov rsi, [rbx+16]
        mov rdi, [rbx+8]
    .call:
        call __x64_sys_frob
    .back:
        cdqe
        mov [rbx], rax
        pop rbx
        ret
"""


def _number(name: str) -> int:
    return int(getattr(x86_const, f"UC_X86_REG_{name.upper()}"))


_RIP, _FLAGS, _RSP = _number("rip"), _number("eflags"), _number("rsp")
_LOGGED = [_number(name) for name in LOGGED_REGISTERS]


def toy(
    body: str, *, entry: str = ENTRY, fixups: Mapping[str, str] | None = None, name: str = "__x64_sys_frob"
) -> ToyKernel:
    """`name`: of the system call's own function."""
    entry = entry.replace("__x64_sys_frob", name)
    return ToyKernel(textwrap.dedent(entry) + textwrap.dedent(body), fixups=fixups)


class ToyMachine:
    """A CPU in the toy kernel; `rows` is the log so far: address, registers, flags.

    `interrupts`: label → how many timer interrupts come one after the other before the instruction there, once a
    call. `mended`: labels whose fault brings the page in. `effects`: label → what is set in a register where its fault
    goes to the fixup. `before`: label → what somebody else does just before, on another CPU or as a device.
    """

    def __init__(self, kernel: ToyKernel) -> None:
        self.kernel = kernel
        self.interrupts: dict[str, int] = {}
        self.effects: dict[str, tuple[str, int]] = {}
        self.mended: set[str] = set()
        self.before: dict[str, Callable[[ToyMachine], None]] = {}
        self.rows: list[tuple[int, tuple[int, ...], int]] = []
        self._effect: tuple[str, int] | None = None  # of the fault that is being served
        self._cpu = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        self._cpu.ctl_set_tlb_mode(unicorn.UC_TLB_VIRTUAL)
        for page in (TEXT, KERNEL_STACK - _PAGE, HEAP, USER_STACK - _PAGE, _SCRATCH):
            self._cpu.mem_map(page, _PAGE)
        self._cpu.mem_write(TEXT, kernel.bytes)
        self.write(_SCRATCH + 8, KERNEL_STACK)
        self.set(rsp=USER_STACK)

    def write(self, address: int, *words: int) -> None:
        for index, word in enumerate(words):
            self._cpu.mem_write(address + 8 * index, (word & (1 << 64) - 1).to_bytes(8, "little"))

    def word(self, address: int) -> int:
        return int.from_bytes(self._cpu.mem_read(address, 8), "little")

    def set(self, **registers: int) -> None:
        for name, value in registers.items():
            self._cpu.reg_write(_number(name), value & (1 << 64) - 1)

    def get(self, name: str) -> int:
        return int(self._cpu.reg_read(_number(name)))

    def call(self, number: int = FROB, **registers: int) -> int:
        """One system call, whole; what it returned, signed."""
        self.set(**{"rax": number, "rsp": USER_STACK, **registers})
        self.run(self.kernel.at["entry_SYSCALL_64"])
        value = self.get("rax")
        return value - (1 << 64) if value >> 63 else value

    def interrupt(self) -> None:
        self._enter(_TIMER, self.get("rip"))

    def interrupt_user(self) -> None:
        """A timer interrupt between two system calls."""
        self.set(rsp=KERNEL_STACK, rip=USER_STACK)
        self.interrupt()
        self.run(self.get("rip"))

    def run(self, address: int, *, until: str = "", most: int = _MOST_STEPS) -> None:
        """Until the user gets control back, or before the instruction at `until`."""
        due = dict(self.interrupts)
        labels = {at: name for name, at in self.kernel.at.items()}
        self._cpu.reg_write(_RIP, address)
        for _ in range(most):
            at = self.get("rip")
            label = labels.get(at, "")
            if until and label == until:
                return
            if due.get(label):
                due[label] -= 1
                self.interrupt()
                continue
            if label in self.before:
                self.before[label](self)
                if self.get("rip") != at:
                    continue
            if self._step(at, label):
                return
        raise AssertionError("the toy kernel does not come to an end")

    def _step(self, at: int, label: str) -> bool:
        """Whether this was the return to the user."""
        registers = tuple(self._cpu.reg_read_batch(_LOGGED))
        flags = int(self._cpu.reg_read(_FLAGS))
        self.rows.append((at, registers, flags))
        executed = self.kernel.executed(at)
        assert executed is not None, f"no instruction at {self.kernel.name(at)}"
        if executed.control == Control.SYSCALL_RETURN:
            return True
        if executed.control == Control.INTERRUPT_RETURN:
            return self._leave()
        try:
            self._cpu.emu_start(at, 0, count=1)
        except unicorn.UcError:
            for number, value in zip([*_LOGGED, _FLAGS], [*registers, flags], strict=True):
                self._cpu.reg_write(number, value)
            self._fault(at, label)
        return False

    def _fault(self, at: int, label: str) -> None:
        if label in self.mended:
            self._cpu.mem_map(NOT_MAPPED, _PAGE)
            self._enter("asm_exc_page_fault", at)
            return
        assert at in self.kernel.text.fixups, f"a fault without a fixup at {self.kernel.name(at)}"
        self._enter("asm_exc_page_fault", self.kernel.text.fixups[at])
        self._effect = self.effects.get(label)

    def _enter(self, handler: str, back_to: int) -> None:
        """As the CPU does: the frame that iret takes back (Intel SDM vol. 3, 6.14)."""
        frame = [back_to, 0x10, int(self._cpu.reg_read(_FLAGS)), self.get("rsp"), 0x18]
        top = (self.get("rsp") & ~15) - 8 * len(frame)
        self.write(top, *frame)
        self._cpu.reg_write(_RSP, top)
        self._cpu.reg_write(_RIP, self.kernel.at[handler])

    def _leave(self) -> bool:
        top = self.get("rsp")
        address, flags, stack = self.word(top), self.word(top + 16), self.word(top + 24)
        self._cpu.reg_write(_FLAGS, flags)
        self._cpu.reg_write(_RSP, stack)
        if self._effect is not None:
            self.set(**{self._effect[0]: self._effect[1]})
            self._effect = None
        self._cpu.reg_write(_RIP, address)
        return address < 1 << 47

    def log(self, *, offset: int = 0) -> ExecutionLog:
        """`offset`: how far above its link addresses the kernel ran."""
        return ExecutionLog(
            np.array([address + offset for address, _, _ in self.rows], np.uint64),
            np.array([registers for _, registers, _ in self.rows], np.uint64).reshape(-1, len(LOGGED_REGISTERS)),
            np.array([flags for _, _, flags in self.rows], np.uint32),
        )
