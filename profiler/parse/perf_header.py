"""The header of a perf.data file: its sections, events and features.

Format: `tools/perf/Documentation/perf.data-file-format.txt` of Linux 7.3.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from profiler.errors import InputError
from profiler.parse import perf_format as fmt
from profiler.parse.faults import Faults
from profiler.parse.perf_attr import Attr, decode_attr

_NOTHING_WHOLE = "no sample is in it: record again"
_SALVAGE_HINT = "--salvage takes what is whole"


@dataclass(slots=True)
class Facts:
    """What the features of a recording say, in a file's header or in a pipe's records."""

    os_release: str = ""
    perf_version: str = ""
    arch: str = ""
    cpus: int = 0  # 0 where not known
    command_line: tuple[str, ...] = ()
    kernel_build_id: str = ""
    event_names: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FileHeader:
    """Where the records lie, and the events. A pipe brings its events as records instead."""

    pipe: bool
    data_start: int
    data_end: int
    attrs: tuple[Attr, ...] = ()
    features: dict[int, tuple[int, int]] = field(default_factory=dict)  # bit → offset, size


def read_header(data: memoryview, name: str, *, salvage: bool, faults: Faults) -> FileHeader:
    """`data` is the whole file.

    Raises InputError on anything that is no perf.data of this byte order, and on a file that is cut
    short or whose recorder was killed; with `salvage` the last two are faults, and the rest is read.
    """
    _check_magic(data, name)
    header_size = struct.unpack_from("<Q", data, 8)[0]
    if header_size == fmt.PIPE_HEADER_SIZE:
        return FileHeader(pipe=True, data_start=fmt.PIPE_HEADER_SIZE, data_end=len(data))
    if header_size != fmt.FILE_HEADER_SIZE:
        raise InputError(f"{name}: header of {header_size} bytes at offset 0x8, {fmt.FILE_HEADER_SIZE} expected")
    if len(data) < fmt.FILE_HEADER_SIZE:
        what = f"{name}: cut inside the file header, at {len(data)} of {fmt.FILE_HEADER_SIZE} bytes"
        raise InputError(what, hint=_NOTHING_WHOLE)
    attr_size, attrs_at, attrs_size, data_at, data_size = struct.unpack_from("<5Q", data, 16)
    attrs = _read_attrs(data, name, attr_size, attrs_at, attrs_size)
    end = _data_end(data, name, data_at, data_size, salvage=salvage, faults=faults)
    features: dict[int, tuple[int, int]] = {}
    if data_size and end == data_at + data_size:
        try:
            features = _feature_sections(data, name, end)
        except InputError as error:
            if not salvage:
                raise
            faults.add(end, error.args[0])
    return FileHeader(pipe=False, data_start=data_at, data_end=end, attrs=attrs, features=features)


def _check_magic(data: memoryview, name: str) -> None:
    if len(data) == 0:
        raise InputError(f"{name}: empty file", hint="perf record wrote nothing; record again")
    magic = bytes(data[:8])
    if magic == fmt.MAGIC_SWAPPED:
        raise InputError(f"{name}: recorded on a machine of the other byte order", hint="use perf script's text there")
    if magic == fmt.MAGIC_VERSION_1:
        raise InputError(f"{name}: perf.data of version 1", hint="written by a perf older than 2.6.36; record again")
    if magic != fmt.MAGIC:
        raise InputError(
            f"{name}: not a perf.data file: it does not start with PERFILE2", hint="give a file that perf record wrote"
        )
    if len(data) < fmt.PIPE_HEADER_SIZE:
        raise InputError(f"{name}: cut inside the file header, at {len(data)} bytes", hint=_NOTHING_WHOLE)


def _read_attrs(data: memoryview, name: str, attr_size: int, at: int, size: int) -> tuple[Attr, ...]:
    """The attrs section: entries of `attr_size`, each an attribute and, last, the section of its ids."""
    if not fmt.SMALLEST_ATTR + 16 <= attr_size <= fmt.LARGEST_ATTR:
        raise InputError(f"{name}: event attributes of {attr_size} bytes each (offset 0x10)")
    entries = _section(data, name, "event attributes", at, size)
    if size % attr_size or not size:
        raise InputError(f"{name}: event attributes at offset {at:#x}: {size} bytes are no multiple of {attr_size}")
    attrs = []
    for start in range(0, size, attr_size):
        entry = entries[start : start + attr_size]
        ids_at, ids_size = struct.unpack_from("<2Q", entry, attr_size - 16)
        ids = _section(data, name, "event ids", ids_at, ids_size)
        numbers = struct.unpack_from(f"<{ids_size // 8}Q", ids)
        attrs.append(decode_attr(bytes(entry[:-16]), numbers, where=f"{name}: offset {at + start:#x}"))
    return tuple(attrs)


def _data_end(data: memoryview, name: str, at: int, size: int, *, salvage: bool, faults: Faults) -> int:
    if at > len(data):
        raise InputError(f"{name}: records begin at offset {at:#x}, past the end of the file ({len(data):#x})")
    if size == 0:
        what = f"{name}: data size is 0: perf record was killed before it finished the file"
    elif at + size > len(data):
        what = f"{name}: cut short: records should end at offset {at + size:#x}, the file ends at {len(data):#x}"
    else:
        return at + size
    if not salvage:
        raise InputError(what, hint=_SALVAGE_HINT)
    faults.add(len(data), what)
    return len(data)


def _feature_sections(data: memoryview, name: str, table: int) -> dict[int, tuple[int, int]]:
    """After the records: one (offset, size) for each feature bit that is set, in order."""
    bits = int.from_bytes(data[72:104], "little")
    features = [bit for bit in range(fmt.FEATURE_BITS) if bits >> bit & 1]
    if table + 16 * len(features) > len(data):
        raise InputError(
            f"{name}: cut short: table of {len(features)} features at offset {table:#x} runs past the end of the file",
            hint=_SALVAGE_HINT,
        )
    sections = {}
    for number, bit in enumerate(features):
        at, size = struct.unpack_from("<2Q", data, table + 16 * number)
        _section(data, name, f"feature {bit}", at, size)
        sections[bit] = (at, size)
    return sections


def _section(data: memoryview, name: str, what: str, at: int, size: int) -> memoryview:
    """Python's integers do not overflow, so this comparison is enough."""
    if at + size > len(data):
        raise InputError(
            f"{name}: {what} at offset {at:#x}, {size:#x} bytes, run past the end of the file ({len(data):#x})",
            hint=_SALVAGE_HINT,
        )
    return data[at : at + size]


# ---- features ----


def apply_feature(facts: Facts, bit: int, payload: bytes, offset: int, faults: Faults) -> None:
    """Note one feature in `facts`; those not needed, or not known yet, are passed over."""
    reader = _FEATURE_READERS.get(bit)
    if reader is None:
        return
    try:
        reader(facts, payload)
    except (struct.error, ValueError) as error:
        faults.add(offset, f"feature {bit} is malformed: {error}")


def name_events(attrs: list[Attr], facts: Facts) -> list[Attr]:
    """Give the attributes the names of EVENT_DESC, matched by ids, else by their order."""
    by_id = {number: name for name, ids in facts.event_names for number in ids}
    in_order = len(facts.event_names) == len(attrs)
    named = []
    for position, attr in enumerate(attrs):
        name = next((by_id[number] for number in attr.ids if number in by_id), "")
        if not name and in_order:
            name = facts.event_names[position][0]
        named.append(replace(attr, name=name) if name and not attr.name else attr)
    return named


def text(raw: bytes) -> str:
    """A C string as text; bytes that are not UTF-8 stay visible as escapes."""
    return raw.partition(b"\0")[0].decode("utf-8", "backslashreplace")


def _string(payload: bytes, at: int) -> tuple[str, int]:
    """perf_header_string: u32 length (with padding), then zero-terminated text. Returns it and the end."""
    (length,) = struct.unpack_from("<I", payload, at)
    end = at + 4 + length
    if end > len(payload):
        raise ValueError(f"string of {length} bytes in {len(payload)}")
    return text(payload[at + 4 : end]), end


def _read_os_release(facts: Facts, payload: bytes) -> None:
    facts.os_release = _string(payload, 0)[0]


def _read_version(facts: Facts, payload: bytes) -> None:
    facts.perf_version = _string(payload, 0)[0]


def _read_arch(facts: Facts, payload: bytes) -> None:
    facts.arch = _string(payload, 0)[0]


def _read_cpus(facts: Facts, payload: bytes) -> None:
    facts.cpus = struct.unpack_from("<I", payload)[0]


def _read_command_line(facts: Facts, payload: bytes) -> None:
    (count,) = struct.unpack_from("<I", payload)
    if count > len(payload) // 4:
        raise ValueError(f"{count} arguments in {len(payload)} bytes")
    arguments, at = [], 4
    for _ in range(count):
        argument, at = _string(payload, at)
        arguments.append(argument)
    facts.command_line = tuple(arguments)


def _read_event_descriptions(facts: Facts, payload: bytes) -> None:
    """u32 count, u32 attribute size, then for each: attribute, u32 number of ids, name, ids."""
    count, attr_size = struct.unpack_from("<2I", payload)
    if attr_size < fmt.SMALLEST_ATTR or count > len(payload) // attr_size:
        raise ValueError(f"{count} events of {attr_size} bytes in {len(payload)}")
    at, names = 8, []
    for _ in range(count):
        (id_count,) = struct.unpack_from("<I", payload, at + attr_size)
        name, at = _string(payload, at + attr_size + 4)
        if at + 8 * id_count > len(payload):
            raise ValueError(f"{id_count} ids in {len(payload)} bytes")
        names.append((name, struct.unpack_from(f"<{id_count}Q", payload, at)))
        at += 8 * id_count
    facts.event_names = names


def _read_build_ids(facts: Facts, payload: bytes) -> None:
    at = 0
    while at + fmt.RECORD_HEADER_SIZE <= len(payload):
        (size,) = struct.unpack_from("<H", payload, at + 6)
        if size < 36 or at + size > len(payload):
            raise ValueError(f"build-id entry of {size} bytes at {at:#x} of {len(payload)}")
        note_build_id(facts, payload[at : at + size])
        at += size


def note_build_id(facts: Facts, record: bytes) -> None:
    """build_id_event: header, i32 pid, 24 bytes of id, file name. Keeps the kernel's own."""
    if len(record) < 36:
        raise ValueError(f"build-id entry of {len(record)} bytes")
    (misc,) = struct.unpack_from("<H", record, 4)
    name = text(record[36:])
    module = name.startswith("[") and not name.startswith("[kernel")  # perf names modules [ext4]
    if misc & fmt.CPUMODE_MASK != fmt.CPUMODE_KERNEL or module or ".ko" in name or name.startswith("[kernel.vdso"):
        return
    length = record[32] if misc & fmt.MISC_BUILD_ID_SIZE else 20
    facts.kernel_build_id = record[12 : 12 + min(length, 20)].hex()


_FEATURE_READERS: dict[int, Callable[[Facts, bytes], None]] = {
    fmt.FEATURE_BUILD_ID: _read_build_ids,
    fmt.FEATURE_OSRELEASE: _read_os_release,
    fmt.FEATURE_VERSION: _read_version,
    fmt.FEATURE_ARCH: _read_arch,
    fmt.FEATURE_NRCPUS: _read_cpus,
    fmt.FEATURE_CMDLINE: _read_command_line,
    fmt.FEATURE_EVENT_DESC: _read_event_descriptions,
}
