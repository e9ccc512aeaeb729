"""One kernel's code as the inference sees it: functions, graphs and lines by link address."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from profiler.debuginfo import cfg, x86_execution
from profiler.debuginfo.architecture import Architecture
from profiler.debuginfo.histogram import LineHistogram, histograms
from profiler.debuginfo.lines import Frames, LineTable
from profiler.debuginfo.members import KernelMembers
from profiler.debuginfo.modules import ModuleCode, Modules
from profiler.debuginfo.variables import Variable, Variables
from profiler.debuginfo.vmlinux import Vmlinux
from profiler.debuginfo.x86_flow import X86_64
from profiler.errors import InputError, MismatchError
from profiler.graph import Block, Executed, FunctionGraph

_LARGEST_TEXT = 256 << 20
_LONGEST_INSTRUCTION = 15  # bytes (Intel SDM vol. 2, 2.3.11)


class KernelCode:
    """Symbols and lines from the vmlinux; bytes from the running kernel where its text was recorded, because
    static keys, alternatives, static calls and ftrace patch the image; the same of its modules. Everything asked is
    remembered."""

    def __init__(
        self, vmlinux: Vmlinux, lines: LineTable, running_text: bytes | None = None, modules: Modules | None = None
    ) -> None:
        """Raises MismatchError where the running text is not as long as the image's."""
        self.vmlinux = vmlinux
        self.lines = lines
        start, end = vmlinux.text_range
        if running_text is not None and len(running_text) != end - start:
            raise MismatchError(
                f"the recorded kernel text has {len(running_text)} bytes, that of {vmlinux.path} {end - start}",
                hint="the recording is of another kernel",
            )
        self._running, self._start = running_text, start
        self._symbols: dict[int, tuple[str, int, int] | None] = {}
        self._graphs: dict[int, FunctionGraph] = {}
        self._frames: dict[int, Frames] = {}
        self._executed: dict[int, Executed | None] = {}
        self._owners: dict[int, tuple[str, int, int]] = {}  # by the start of a split-off part
        self._text = self._describe(vmlinux, patched=running_text is not None)
        self._members = KernelMembers(vmlinux)
        self._variables = Variables(vmlinux)
        self._modules = modules
        self._module_texts: dict[str, cfg.Text] = {}
        self._image_end = vmlinux.find_symbol("_end") or end  # modules lie above

    def _describe(self, vmlinux: Vmlinux, *, patched: bool) -> cfg.Text:
        machine = architecture_of(vmlinux.machine)
        # Modules have no handlers of their own by which theirs could be told from words.
        words = vmlinux.fault_words() if self.vmlinux.fault_words() else {}
        effects = {address: machine.fault_effects(word) for address, word in words.items()}
        return cfg.Text(
            self.read,
            self.function_at,
            vmlinux.exception_table(),
            {} if patched else {entry.address: entry.target for entry in vmlinux.jump_table().values()},
            {address: effect for address, effect in effects.items() if effect},
            vmlinux.warnings(),
            frozenset() if patched else vmlinux.alternatives(),
            patched,
            machine,
        )

    @property
    def machine(self) -> str:
        """The architecture, by its name in `uname -m`."""
        return self.vmlinux.machine

    def read(self, address: int, size: int) -> bytes:
        offset = address - self._start
        if self._running is not None and offset >= 0 and offset + size <= len(self._running):
            return self._running[offset : offset + size]
        module = self.module_at(address)
        return self.vmlinux.read(address, size) if module is None else module.read(address, size)

    def module_at(self, address: int) -> ModuleCode | None:
        """The module one of whose functions holds the address."""
        return self._modules.at(address) if self._modules is not None and address >= self._image_end else None

    def unknown_module_at(self, address: int) -> str | None:
        """The name of the module that an address lies in whose code is not known."""
        if self._modules is None or address < self._image_end or self.function_at(address) is not None:
            return None
        return self._modules.name_at(address)

    def module_without_lines(self, address: int) -> str | None:
        """The name of the module that an address lies in where no lines of it are known."""
        module = self.module_at(address)
        return None if module is None or module.has_lines else module.loaded.name

    def function_at(self, address: int) -> tuple[str, int, int] | None:
        """(name, start, end) of the function that holds an address."""
        if address not in self._symbols:
            module = self.module_at(address)
            found = self.vmlinux.function_at(address) if module is None else None
            if module is not None:
                self._symbols[address] = module.function_at(address)
            else:
                self._symbols[address] = (found.name, found.start, found.end) if found else None
        return self._symbols[address]

    def owner_of(self, address: int) -> tuple[str, int, int] | None:
        """As function_at, but for an address in a part that was split off (NAME.cold) the function it belongs to."""
        found = self.function_at(address)
        if found is None or ".cold" not in found[0]:
            return found
        if found[1] not in self._owners:
            self._owners[found[1]] = self._find_owner(*found)
        return self._owners[found[1]]

    def _find_owner(self, name: str, start: int, end: int) -> tuple[str, int, int]:
        owners = self._functions_named(name.partition(".cold")[0], self.module_at(start))
        if len(owners) > 1:  # static functions of one name: the graph of the right one leads into the part
            owners = [owner for owner in owners if any(start <= block < end for block in self.graph(owner[1]).blocks)]
        return owners[0] if owners else (name, start, end)

    def _functions_named(self, name: str, module: ModuleCode | None) -> list[tuple[str, int, int]]:
        if module is not None:
            return module.functions_named(name)
        return [(found.name, found.start, found.end) for found in self.vmlinux.functions_named(name)]

    def graph(self, entry: int) -> FunctionGraph:
        """Raises LookupError where no function is."""
        if entry not in self._graphs:
            module = self.module_at(entry)
            self._graphs[entry] = cfg.build(self._text if module is None else self._text_of(module), entry)
        return self._graphs[entry]

    def _text_of(self, module: ModuleCode) -> cfg.Text:
        name = module.loaded.name
        if name not in self._module_texts:
            if module.image is not None:
                self._module_texts[name] = self._describe(module.image, patched=module.is_patched)
            else:
                self._module_texts[name] = cfg.Text(self.read, self.function_at, patched=True)
        return self._module_texts[name]

    def frames(self, address: int) -> Frames:
        """The inline chain at an address, innermost first; of a function that a split part of itself was inlined
        into (GCC's partial inlining), once."""
        if address not in self._frames:
            module = self.module_at(address)
            frames = self.lines.frames(address) if module is None else module.frames(address)
            self._frames[address] = _without_split_parts(frames)
        return self._frames[address]

    def executed(self, address: int) -> Executed | None:
        """What the instruction at an address does when it is executed; None where there is none."""
        if address not in self._executed:
            self._executed[address] = x86_execution.decode(self._read_within(address), address)
        return self._executed[address]

    def instructions_of(self, block: Block) -> list[int]:
        """The addresses of a block's instructions."""
        found, address = [], block.start
        while address < block.end:
            found.append(address)
            executed = self.executed(address)
            if executed is None:
                break
            address = executed.following
        return found

    def _read_within(self, address: int) -> bytes:
        """The bytes of one instruction, fewer at the end of what is known."""
        with contextlib.suppress(InputError):
            return self.read(address, _LONGEST_INSTRUCTION)
        return b""

    def symbol(self, name: str) -> int | None:
        return self.vmlinux.find_symbol(name)

    def histograms(self, addresses: NDArray[np.uint64]) -> dict[tuple[str, str], LineHistogram]:
        """Samples per line of every source function that the addresses fall into."""
        return histograms(addresses, self.lines if self._modules is None else self)

    def expression(self, entry: int, place: str) -> str | None:
        """What the source may call a place in memory, `sk->sk_err`, in the terms of the function that starts at
        `entry`; None where that cannot be told."""
        found = self.function_at(entry)
        if found is None or self.module_at(entry) is not None:
            return None
        return self._members.expression(found[0], place)

    def variables(self, address: int, function: str, names: Collection[str] = ()) -> dict[str, Variable]:
        """The variables of a function, itself or inlined, that an address of the image belongs to, and those of its
        file that are asked for by name."""
        return self._variables.at(address, function, names)

    def enumerators(self, address: int) -> dict[str, int]:
        """Named constants that the source at an address knows."""
        return self._variables.enumerators(address)

    def name(self, address: int) -> str:
        """`symbol+0xoffset`, or the bare address where there is no symbol."""
        found = self.function_at(address)
        return f"{found[0]}+{address - found[1]:#x}" if found else f"{address:#x}"


def architecture_of(machine: str) -> Architecture:
    """By its name in `uname -m`. Raises InputError for one whose instructions are not decoded here."""
    if machine == "x86_64":
        return X86_64
    if machine == "aarch64":
        from profiler.debuginfo.aarch64_flow import AARCH64  # noqa: PLC0415  # its decoder takes 0.1 s to import

        return AARCH64
    raise InputError(f"no decoder for {machine}", hint="only x86_64 and aarch64 kernels are analyzed")


def _without_split_parts(frames: Frames) -> Frames:
    return tuple(
        frame
        for depth, frame in enumerate(frames)
        if not depth or (frames[depth - 1].function, frames[depth - 1].file) != (frame.function, frame.file)
    )


def read_running_text(path: Path) -> bytes | None:
    """The text recorded from /proc/kcore, None where there is none. Raises InputError on a damaged file."""
    if not path.is_file():
        return None
    decompressor = zlib.decompressobj()
    try:
        text = decompressor.decompress(path.read_bytes(), _LARGEST_TEXT)
    except zlib.error as error:
        raise InputError(f"{path}: not readable: {error}", hint="record again") from error
    if not decompressor.eof:
        raise InputError(f"{path}: cut short", hint="record again")
    return text
