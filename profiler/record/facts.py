"""What is true of the target while it records: release, build id, configuration, limits."""

import os
import struct
import zlib

from profiler.errors import RecordError

NOTES = "/sys/kernel/notes"
MAX_SAMPLE_RATE = "/proc/sys/kernel/perf_event_max_sample_rate"
NT_GNU_BUILD_ID = 3


def machine() -> dict[str, object]:
    name = os.uname()
    return {
        "release": name.release,
        "kernel_version": name.version,
        "arch": name.machine,
        "build_id": build_id(),
        "cpus": os.cpu_count() or 1,
    }


def build_id(path: str = NOTES) -> str:
    """Hexadecimal, "" where the kernel does not say. Raises RecordError where the notes are not ELF notes."""
    try:
        with open(path, "rb") as file:
            notes = file.read()
    except OSError:
        return ""
    return find_build_id(notes)


def find_build_id(notes: bytes) -> str:
    """The GNU build-id among ELF notes: sizes of name and description, type, then both, each padded to 4 bytes."""
    place = 0
    while place + 12 <= len(notes):
        name_size, size, kind = struct.unpack_from("=III", notes, place)
        start = place + 12 + (name_size + 3 & ~3)
        if start + size > len(notes):
            raise RecordError(f"{NOTES}: a note at {place} runs past the end")
        if kind == NT_GNU_BUILD_ID and notes[place + 12 : place + 16] == b"GNU\0":
            return notes[start : start + size].hex()
        place = start + (size + 3 & ~3)
    return ""


def copy_config(destination: str, release: str) -> bool:
    """Whether the kernel's configuration was found: from /proc/config.gz, /boot or the modules' folder."""
    for path in ("/proc/config.gz", f"/boot/config-{release}", f"/lib/modules/{release}/config"):
        try:
            with open(path, "rb") as file:
                text = file.read()
        except OSError:
            continue
        if path.endswith(".gz"):
            text = zlib.decompress(text, wbits=31)
        with open(destination, "wb") as file:
            file.write(text)
        return True
    return False


def max_sample_rate(path: str = MAX_SAMPLE_RATE) -> int:
    """Samples a second and CPU that the kernel allows at this moment; 0 where it is not known."""
    try:
        with open(path) as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0
