"""Variables by name at an address: where they are kept there, and of what type, by the image's DWARF.

One compilation unit is read at a time, as far as it is needed: some 0.05 s. Sources: DWARF 5, 2.5 and 2.6
(location expressions and lists), 3.3 (inlined calls), 7.7.3; for the frame's base the kernel's own
unwind table (arch/x86/include/asm/orc_types.h).
"""

from __future__ import annotations

import mmap
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

from elftools.common.exceptions import DWARFError, ELFError
from elftools.dwarf.dwarf_expr import DWARFExprParser
from elftools.dwarf.dwarfinfo import DebugSectionDescriptor, DwarfConfig, DWARFInfo
from elftools.dwarf.locationlists import LocationParser

from profiler.debuginfo.operands import Constant, Memory, Operation, Register, Value, plus
from profiler.debuginfo.orc import Orc
from profiler.debuginfo.variable_types import Kind, Typed, Types
from profiler.debuginfo.vmlinux import Vmlinux

# DWARF register numbers of x86-64 (System V ABI, figure 3.36)
_REGISTERS = (
    *("rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
)
_SECTIONS = {
    "debug_info_sec": ".debug_info",
    "debug_aranges_sec": ".debug_aranges",
    "debug_abbrev_sec": ".debug_abbrev",
    "debug_str_sec": ".debug_str",
    "debug_loc_sec": ".debug_loc",
    "debug_ranges_sec": ".debug_ranges",
    "debug_addr_sec": ".debug_addr",
    "debug_str_offsets_sec": ".debug_str_offsets",
    "debug_line_str_sec": ".debug_line_str",
    "debug_loclists_sec": ".debug_loclists",
    "debug_rnglists_sec": ".debug_rnglists",
}
_OTHERS = (
    *("debug_frame_sec", "eh_frame_sec", "debug_line_sec", "debug_pubtypes_sec", "debug_pubnames_sec"),
    *("debug_sup_sec", "gnu_debugaltlink_sec", "debug_types_sec"),
)
# What pyelftools raises on damaged debug info, some of it unawares.
DAMAGED = (
    *(DWARFError, ELFError, KeyError, ValueError, IndexError, AttributeError, TypeError),
    *(NotImplementedError, AssertionError, OverflowError, RecursionError),
)
_MOST_ENTRIES = 200_000  # side by side; more are damaged links that lead in circles
_BINARY = {
    "DW_OP_plus": "add",
    "DW_OP_minus": "sub",
    "DW_OP_and": "and",
    "DW_OP_or": "or",
    "DW_OP_xor": "xor",
    "DW_OP_shl": "shl",
    "DW_OP_shr": "shr",
    "DW_OP_shra": "sar",
    "DW_OP_mul": "mul",
}


@dataclass(frozen=True, slots=True)
class Variable:
    """`value`: what its storage holds, or, of a structure, the Memory that it occupies."""

    value: Value
    typed: Typed


class Variables:
    """Of one kernel image; {} where it has no DWARF, or one that cannot be read."""

    def __init__(self, vmlinux: Vmlinux) -> None:
        self._vmlinux = vmlinux

    def at(self, address: int, function: str, names: Collection[str] = ()) -> dict[str, Variable]:
        """Those of `function`, itself or inlined, that the instruction at an address belongs to, as they are before
        it, and of its file's those of `names`; those that are not kept anywhere then are left out."""
        if self._dwarf is None or self._vmlinux.machine != "x86_64":
            return {}
        try:
            return self._at(address, function, names)
        except DAMAGED:
            return {}

    def enumerators(self, address: int) -> dict[str, int]:
        """Constants by name, of the enumerations that the unit of an address knows."""
        try:
            unit = self._unit(address)
            found: dict[str, int] = {}
            if unit is None:
                return {}
            for entry in islice(unit.iter_DIE_children(unit.get_top_DIE()), _MOST_ENTRIES):
                if entry.tag == "DW_TAG_enumeration_type" and entry.has_children:
                    for constant in unit.iter_DIE_children(entry):
                        value = constant.attributes.get("DW_AT_const_value")
                        name = constant.attributes.get("DW_AT_name")
                        if value is not None and name is not None:
                            found[name.value.decode()] = value.value
        except DAMAGED:
            return {}
        return found

    # ---- reading ----

    def _at(self, address: int, function: str, names: Collection[str]) -> dict[str, Variable]:
        unit = self._unit(address)
        if unit is None:
            return {}
        found: dict[str, Variable] = {}
        hidden: set[str] = set()
        base = self._frame_base(address)
        for entry in self._entries(unit, address, function):
            name = _name(entry)
            kind = Types(unit).of(entry)
            if not name or kind is None:
                continue
            hidden.add(name)
            located = self._located(entry, address, base, kind)
            if located is not None:
                found[name] = Variable(located, kind)
            else:
                found.pop(name, None)  # it hides one of the same name farther out
        return {**self._globals(unit, set(names) - hidden), **found}

    def _globals(self, unit: Any, names: set[str]) -> dict[str, Variable]:
        """Variables of the file, and of others that it uses."""
        found: dict[str, Variable] = {}
        if not names:
            return found
        for entry in islice(unit.iter_DIE_children(unit.get_top_DIE()), _MOST_ENTRIES):
            if entry.tag != "DW_TAG_variable" or (name := _name(entry)) not in names:
                continue
            kind = Types(unit).of(entry)
            address = self._vmlinux.find_symbol(name)
            if kind is not None and address and self._is_at(entry, address):
                found[name] = Variable(Memory(Constant(address), 0 if kind.kind == Kind.STRUCTURE else kind.size), kind)
        return found

    def _is_at(self, entry: Any, address: int) -> bool:
        """False where a symbol of the same name is another file's."""
        attribute = entry.attributes.get("DW_AT_location")
        if attribute is None:
            return "DW_AT_declaration" in entry.attributes and "DW_AT_external" in entry.attributes
        operations = DWARFExprParser(entry.cu.structs).parse_expr(attribute.value)
        return len(operations) == 1 and operations[0].op_name == "DW_OP_addr" and operations[0].args[0] == address

    def _entries(self, unit: Any, address: int, function: str) -> Iterator[Any]:
        """The parameters and variables of the function's instance around an address, blocks within after their
        surroundings."""
        pending = [(unit.get_top_DIE(), False)]
        while pending:
            surrounding, inside = pending.pop()
            for entry in islice(unit.iter_DIE_children(surrounding), _MOST_ENTRIES):
                if entry.tag in ("DW_TAG_subprogram", "DW_TAG_inlined_subroutine", "DW_TAG_lexical_block"):
                    if self._holds(unit, entry, address):
                        within = inside if entry.tag == "DW_TAG_lexical_block" else _name(entry) == function
                        pending.append((entry, within))
                elif inside and entry.tag in ("DW_TAG_formal_parameter", "DW_TAG_variable"):
                    yield entry

    def _holds(self, unit: Any, entry: Any, address: int) -> bool:
        attributes = entry.attributes
        if "DW_AT_low_pc" in attributes and "DW_AT_high_pc" in attributes:
            low, high = attributes["DW_AT_low_pc"].value, attributes["DW_AT_high_pc"]
            return bool(low <= address < (high.value if high.form == "DW_FORM_addr" else low + high.value))
        if "DW_AT_ranges" not in attributes or self._dwarf is None:
            return False
        lists = self._dwarf.range_lists()
        base = _low(unit)
        for item in lists.get_range_list_at_offset(attributes["DW_AT_ranges"].value, cu=unit):
            if hasattr(item, "base_address"):
                base = item.base_address
                continue
            start = 0 if getattr(item, "is_absolute", False) else base
            if start + item.begin_offset <= address < start + item.end_offset:
                return True
        return False

    def _located(self, entry: Any, address: int, base: Value | None, kind: Typed) -> Value | None:
        if "DW_AT_const_value" in entry.attributes:
            value = entry.attributes["DW_AT_const_value"].value
            return Constant(value & ((1 << 64) - 1)) if isinstance(value, int) else None
        attribute = entry.attributes.get("DW_AT_location")
        if attribute is None or self._dwarf is None:
            return None
        unit = entry.cu
        parser = LocationParser(self._dwarf.location_lists())
        location = parser.parse_from_attribute(attribute, unit["version"], die=entry)
        expression = location.loc_expr if not isinstance(location, list) else _covering(location, _low(unit), address)
        if not expression:
            return None
        operations = DWARFExprParser(unit.structs).parse_expr(expression)
        return _value(operations, base, kind)

    def _frame_base(self, address: int) -> Value | None:
        """The canonical frame address, from the stack or base pointer."""
        return self._orc.frame_address(address) if self._orc is not None else None

    @cached_property
    def _orc(self) -> Orc | None:
        return Orc.of(self._vmlinux)

    def _unit(self, address: int) -> Any:
        if self._dwarf is None or self._ranges is None:
            return None
        offset = self._ranges.cu_offset_at_addr(address)
        return self._dwarf.get_CU_at(offset) if offset is not None else None

    @cached_property
    def _ranges(self) -> Any:
        return self._dwarf.get_aranges() if self._dwarf is not None else None

    @cached_property
    def _dwarf(self) -> Any:
        """Without relocations: those of a kernel linked with --emit-relocs are applied already."""
        places = self._vmlinux.file_ranges(frozenset(_SECTIONS.values()))
        if ".debug_info" not in places or ".debug_abbrev" not in places:
            return None
        streams = {key: self._descriptor(name, places) for key, name in _SECTIONS.items()}
        config = DwarfConfig(little_endian=True, machine_arch="x64", default_address_size=8)
        try:
            return DWARFInfo(config=config, **streams, **dict.fromkeys(_OTHERS))
        except DAMAGED:
            return None

    def _descriptor(self, name: str, places: dict[str, tuple[int, int]]) -> Any:
        if name not in places:
            return None
        start, size = places[name]
        stream: Any = _Slice(self._vmlinux.mapped, start, size)
        return DebugSectionDescriptor(stream=stream, name=name, global_offset=start, size=size, address=0)


class _Slice:
    """A part of a mapped file, read as a file of its own."""

    def __init__(self, mapped: mmap.mmap, start: int, size: int) -> None:
        self._mapped, self._start, self._size, self._at = mapped, start, size, 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (self._at if whence == 1 else self._size if whence == 2 else 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, count: int = -1) -> bytes:
        end = self._size if count < 0 else min(self._at + count, self._size)
        data = self._mapped[self._start + self._at : self._start + max(end, self._at)]
        self._at += len(data)
        return data


def _low(unit: Any) -> int:
    low = unit.get_top_DIE().attributes.get("DW_AT_low_pc")
    return int(low.value) if low is not None else 0


def _name(entry: Any) -> str:
    """Of a concrete instance, that of what it is an instance of."""
    for _ in range(4):
        found = entry.attributes.get("DW_AT_name")
        if found is not None:
            return str(found.value.decode())
        link = next((a for a in ("DW_AT_abstract_origin", "DW_AT_specification") if a in entry.attributes), None)
        if link is None:
            return ""
        entry = entry.get_DIE_from_attribute(link)
    return ""


def _covering(locations: list[Any], base: int, address: int) -> Any:
    """The expression of the entry of a location list that an address lies in."""
    for item in locations:
        if hasattr(item, "base_address"):
            base = item.base_address
            continue
        if not hasattr(item, "begin_offset"):
            continue
        start = 0 if getattr(item, "is_absolute", False) else base
        if start + item.begin_offset <= address < start + item.end_offset:
            return item.loc_expr
    return None


def _value(operations: list[Any], base: Value | None, kind: Typed) -> Value | None:
    """What a variable holds by its location expression; None for what is not followed here (entry values, pieces)."""
    if not operations:
        return None
    first = operations[0].op_name
    if len(operations) == 1 and (number := _register(first, "DW_OP_reg", operations[0].args)) is not None:
        return Register(_REGISTERS[number]) if number < len(_REGISTERS) else None
    stack: list[Value] = []
    computed = False
    for operation in operations:
        name, args = operation.op_name, operation.args
        if name == "DW_OP_stack_value":
            computed = True
        elif not _step(stack, name, args, base):
            return None
    if len(stack) != 1:
        return None
    size = kind.size if kind.kind != Kind.STRUCTURE else 0
    return stack[0] if computed else Memory(stack[0], size)


def _register(name: str, prefix: str, args: list[Any]) -> int | None:
    if name == f"{prefix}x":
        return int(args[0])
    digits = name.removeprefix(prefix)
    return int(digits) if digits.isdigit() and name.startswith(prefix) else None


def _step(stack: list[Value], name: str, args: list[Any], base: Value | None) -> bool:
    """Carries out one operation; False where it is not known here."""
    if (number := _register(name, "DW_OP_breg", args)) is not None:
        if number >= len(_REGISTERS):
            return False
        stack.append(plus(Register(_REGISTERS[number]), args[-1]))
    elif (literal := _register(name, "DW_OP_lit", args)) is not None:
        stack.append(Constant(literal))
    elif name == "DW_OP_fbreg" and base is not None:
        stack.append(plus(base, args[0]))
    elif name == "DW_OP_call_frame_cfa" and base is not None:
        stack.append(base)
    elif name == "DW_OP_addr" or (name.startswith("DW_OP_const") and name[11:] in _CONSTANTS):
        stack.append(Constant(args[0] & ((1 << 64) - 1)))
    elif name == "DW_OP_plus_uconst" and stack:
        stack.append(plus(stack.pop(), args[0]))
    elif name in _BINARY and len(stack) > 1:
        right, left = stack.pop(), stack.pop()
        stack.append(Operation(_BINARY[name], left, right))
    elif name == "DW_OP_deref" and stack:
        stack.append(Memory(stack.pop(), 8))
    else:
        return False
    return True


_CONSTANTS = ("1u", "1s", "2u", "2s", "4u", "4s", "8u", "8s", "u", "s")
