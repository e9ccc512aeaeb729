"""Where the loaded modules lie: their sections' addresses and build ids, from sysfs, and their text as it runs.

    modules.json  [{"name": "tun", "build_id": "35d4...", "sections": {".text": 18446744072639234048, ...},
                    "text": [{"section": ".text", "offset": 0, "size": 32768}]}]
    modules_text  the runs named by "text" (offset and size in bytes of the uncompressed whole), zlib-compressed

/proc/modules gives names and sizes, /sys/module/NAME/sections/ one file a section and /sys/module/NAME/notes/ the
notes (kernel/module/sysfs.c). A section's size is nowhere to be had; a run reaches up to the next section of its
module, or as far as the module is large.
"""

import json
import os

from profiler.errors import RecordError
from profiler.record import facts, kcore

PROC, SYSFS = "/proc/modules", "/sys/module"
PAGE = 4096
LARGEST_TEXT = 64 << 20  # bytes of all modules together
EXECUTABLE = (".text", ".noinstr.text", ".exit.text", ".static_call.text")  # and what begins with ".text."


class Module:
    """One line of /proc/modules:

    tun 61440 2 vhost_net, Live 0xffffffffc0600000
    """

    def __init__(self, name: str, size: int, build_id: str, sections: dict[str, int]) -> None:
        self.name = name
        self.size = size
        self.build_id = build_id
        self.sections = sections
        self.text: list[dict[str, object]] = []

    def text_runs(self) -> list[tuple[str, int, int]]:
        """(section, start, end) of its code; `end` is where it ends at the latest."""
        starts = sorted(set(self.sections.values()))
        runs = []
        for section, start in self.sections.items():
            if section in EXECUTABLE or section.startswith(".text."):
                after = [other for other in starts if other > start]
                end = min([start + self.size, *after[:1]])
                runs.append((section, start, end))
        return runs

    def to_json(self) -> dict[str, object]:
        return {"name": self.name, "build_id": self.build_id, "sections": self.sections, "text": self.text}


def read(proc: str = PROC, sysfs: str = SYSFS) -> list[Module]:
    """The loaded modules whose sections are shown; [] on a kernel without modules, or for an ordinary user."""
    try:
        with open(proc, encoding="utf-8", errors="replace") as file:
            rows = [line.split() for line in file]
    except OSError:
        return []
    found = []
    for row in rows:
        if len(row) > 1 and row[1].isdigit() and (sections := _sections(f"{sysfs}/{row[0]}/sections")):
            found.append(Module(row[0], int(row[1]), _build_id(f"{sysfs}/{row[0]}/notes"), sections))
    return found


def _sections(directory: str) -> dict[str, int]:
    """Only those with an address: all are zero where kptr_restrict hides them."""
    found = {}
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return {}
    for name in names:
        try:
            with open(f"{directory}/{name}") as file:
                address = int(file.read(), 16)  # 0xffffffffc0600000
        except (OSError, ValueError):
            continue
        if address:
            found[name] = address
    return found


def _build_id(directory: str) -> str:
    """ "" where the module was linked without one."""
    try:
        return facts.build_id(f"{directory}/.note.gnu.build-id")
    except RecordError:
        return ""


class Loaded:
    """The modules seen so far; `note` may be asked again, for those that came in since."""

    def __init__(self, proc: str = PROC, sysfs: str = SYSFS, core: str = kcore.PATH) -> None:
        self._paths = (proc, sysfs)
        self._core = core
        self._known: dict[str, Module] = {}
        self._text = bytearray()

    def note(self, *, text: bool) -> None:
        for module in read(*self._paths):
            known = self._known.get(module.name)
            if known is None or known.sections != module.sections:
                self._known[module.name] = module
                if text:
                    self._read_text(module)

    def _read_text(self, module: Module) -> None:
        """Beyond LARGEST_TEXT, and where /proc/kcore cannot be read, a module goes without."""
        for section, start, end in module.text_runs():
            if len(self._text) + end - start > LARGEST_TEXT:
                return
            try:
                text = kcore.read_text(start, end, self._core).rstrip(b"\0")
            except RecordError:
                return
            module.text.append({"section": section, "offset": len(self._text), "size": len(text)})
            self._text += text

    def write(self, facts_path: str, text_path: str) -> None:
        with open(facts_path, "w", encoding="utf-8") as file:
            file.write(json.dumps([module.to_json() for module in self._known.values()], indent=1) + "\n")
        if self._text:
            kcore.compress(bytes(self._text), text_path)
