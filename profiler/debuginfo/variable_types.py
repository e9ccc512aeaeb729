"""Types of variables by DWARF, as far as it takes to read them: sizes, signs, members."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

_LONGEST = 32  # typedefs and qualifiers of one another, structures within structures
_TRANSPARENT = frozenset(
    ["DW_TAG_typedef", "DW_TAG_const_type", "DW_TAG_volatile_type", "DW_TAG_restrict_type", "DW_TAG_atomic_type"]
)
_AGGREGATES = ("DW_TAG_structure_type", "DW_TAG_union_type")
# DW_ATE_boolean, _signed, _signed_char
_BOOLEAN, _SIGNED = 2, (5, 6)


class Kind(enum.Enum):
    INTEGER = "integer"
    BOOLEAN = "boolean"
    POINTER = "pointer"
    STRUCTURE = "structure"
    ARRAY = "array"


@dataclass(frozen=True, slots=True)
class Typed:
    """A type. `entry`: its entry in the debug info, behind typedefs; `name` as the source calls it, "" for none."""

    kind: Kind
    size: int  # bytes; 0 where unknown
    signed: bool
    name: str
    entry: Any


@dataclass(frozen=True, slots=True)
class Member:
    """At `offset` bytes; of a bit field, `bits` of the storage unit from bit `shift` on."""

    offset: int
    typed: Typed
    shift: int = 0
    bits: int = 0


class Types:
    """Of one compilation unit."""

    def __init__(self, unit: Any) -> None:
        self._unit = unit

    def of(self, entry: Any) -> Typed | None:
        """Of what a variable, a member or a pointer has as its type; None for void and for what is not read here."""
        for _ in range(4):
            if "DW_AT_type" in entry.attributes:
                return self._resolved(entry.get_DIE_from_attribute("DW_AT_type"))
            link = next((a for a in ("DW_AT_abstract_origin", "DW_AT_specification") if a in entry.attributes), None)
            if link is None:
                return None
            entry = entry.get_DIE_from_attribute(link)
        return None

    def _resolved(self, entry: Any) -> Typed | None:
        name = ""
        for _ in range(_LONGEST):
            found = entry.attributes.get("DW_AT_name")
            if not name and found is not None:
                name = found.value.decode()
            if entry.tag not in _TRANSPARENT:
                return self._plain(entry, name)
            if "DW_AT_type" not in entry.attributes:
                return None
            entry = entry.get_DIE_from_attribute("DW_AT_type")
        return None

    def _plain(self, entry: Any, name: str) -> Typed | None:
        size = entry.attributes["DW_AT_byte_size"].value if "DW_AT_byte_size" in entry.attributes else 0
        if entry.tag == "DW_TAG_base_type":
            encoding = entry.attributes["DW_AT_encoding"].value
            kind = Kind.BOOLEAN if encoding == _BOOLEAN else Kind.INTEGER
            return Typed(kind, size, encoding in _SIGNED, name, entry)
        if entry.tag == "DW_TAG_enumeration_type":
            return Typed(Kind.INTEGER, size, False, name, entry)
        if entry.tag == "DW_TAG_pointer_type":
            return Typed(Kind.POINTER, 8, False, name, entry)
        if entry.tag in _AGGREGATES:
            return Typed(Kind.STRUCTURE, size, False, name, entry)
        return Typed(Kind.ARRAY, 0, False, name, entry) if entry.tag == "DW_TAG_array_type" else None

    def target(self, typed: Typed) -> Typed | None:
        """Of what a pointer points to, or an array consists of."""
        return self.of(typed.entry) if typed.kind in (Kind.POINTER, Kind.ARRAY) else None

    def member(self, typed: Typed, name: str) -> Member | None:
        """By name, members of anonymous structures included."""
        return self._member(typed.entry, name, _LONGEST) if typed.kind == Kind.STRUCTURE else None

    def _member(self, structure: Any, name: str, depth: int) -> Member | None:
        if not depth or not structure.has_children:
            return None
        for entry in self._unit.iter_DIE_children(structure):
            if entry.tag != "DW_TAG_member":
                continue
            found = entry.attributes.get("DW_AT_name")
            typed = self.of(entry)
            if typed is None:
                continue
            offset = _offset(entry)
            if found is not None and found.value.decode() == name:
                return _located(entry, offset, typed)
            if found is None and typed.kind == Kind.STRUCTURE:
                inner = self._member(typed.entry, name, depth - 1)
                if inner is not None:
                    return Member(offset + inner.offset, inner.typed, inner.shift, inner.bits)
        return None


def _offset(member: Any) -> int:
    value = member.attributes["DW_AT_data_member_location"].value if _has_offset(member) else 0
    return value if isinstance(value, int) else 0


def _has_offset(member: Any) -> bool:
    return "DW_AT_data_member_location" in member.attributes


def _located(entry: Any, offset: int, typed: Typed) -> Member | None:
    """A bit field counts its bits from the start of the structure (DWARF 5), or from the end of its storage unit."""
    size = entry.attributes.get("DW_AT_bit_size")
    if size is None:
        return Member(offset, typed)
    if "DW_AT_data_bit_offset" in entry.attributes:
        first = entry.attributes["DW_AT_data_bit_offset"].value
        storage = typed.size or 4
        start = first // (8 * storage) * storage
        return Member(start, typed, first - 8 * start, size.value)
    if "DW_AT_bit_offset" in entry.attributes:
        storage = typed.size or 4
        return Member(offset, typed, 8 * storage - entry.attributes["DW_AT_bit_offset"].value - size.value, size.value)
    return None
