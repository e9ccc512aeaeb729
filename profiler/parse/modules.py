"""modules.json and modules_text of a Recording (profiler/record/modules.py), and the modules' part of its kallsyms."""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path
from typing import Any

from profiler.errors import InputError
from profiler.model import LoadedModule

# ffffffffc023e6b0 t __tun_chr_ioctl	[tun]
_SYMBOL = re.compile(rb"^([0-9a-f]+) [tTwW] (\S+)\t\[(\S+)\]$", re.MULTILINE)
_LARGEST_TEXT = 256 << 20
_FREED = ".init"  # sections of initialisation, whose memory may hold another module by now
_AGAIN = "record again"

Symbols = dict[str, list[tuple[int, str]]]  # module → (address, name)


def read(facts: Path, text: Path, kallsyms: Path, kaslr_offset: int) -> tuple[LoadedModule, ...]:
    """The modules of a recording, () where it has no `facts`. Compiled BPF programs come as a module "bpf".

    Raises InputError on a file that is damaged.
    """
    if not facts.is_file():
        return ()
    symbols = _symbols(kallsyms.read_bytes(), kaslr_offset) if kallsyms.is_file() else {}
    whole = _text(text) if text.is_file() else b""
    try:
        rows = json.loads(facts.read_bytes())
        modules = [_module(row, whole, symbols.pop(row["name"], []), kaslr_offset) for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{facts}: not a list of modules: {error}", hint=_AGAIN) from error
    others = [LoadedModule(name, "", {}, (), tuple(found)) for name, found in symbols.items()]
    return (*modules, *others)


def _module(row: dict[str, Any], whole: bytes, symbols: list[tuple[int, str]], offset: int) -> LoadedModule:
    sections = {
        str(name): int(address) - offset for name, address in row["sections"].items() if not name.startswith(_FREED)
    }
    runs = [(sections[run["section"]], whole[run["offset"] : run["offset"] + run["size"]]) for run in row["text"]]
    if any(len(text) != run["size"] for (_, text), run in zip(runs, row["text"], strict=True)):
        raise ValueError(f"the text of {row['name']} is cut short")
    return LoadedModule(str(row["name"]), str(row["build_id"]), sections, tuple(runs), tuple(symbols))


def _symbols(kallsyms: bytes, offset: int) -> Symbols:
    found: Symbols = {}
    start = kallsyms.find(b"\t[")  # modules come last, after some hundred thousand symbols of the kernel
    for address, name, module in _SYMBOL.findall(kallsyms, kallsyms.rfind(b"\n", 0, start) + 1 if start >= 0 else 0):
        symbol = (int(address, 16) - offset, name.decode("utf-8", "backslashreplace"))
        found.setdefault(module.decode("utf-8", "backslashreplace"), []).append(symbol)
    return found


def _text(path: Path) -> bytes:
    decompressor = zlib.decompressobj()
    try:
        text = decompressor.decompress(path.read_bytes(), _LARGEST_TEXT)
    except zlib.error as error:
        raise InputError(f"{path}: not readable: {error}", hint=_AGAIN) from error
    if not decompressor.eof:
        raise InputError(f"{path}: cut short", hint=_AGAIN)
    return text
