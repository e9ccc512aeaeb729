"""Kernel modules that stand in the way of a verdict: their code is not known, or no lines of it are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Protocol

from profiler.infer.decision import Decision
from profiler.infer.verdict import Located
from profiler.model import KernelId, Manifest

_LEAST_SHARE = 0.01  # of the call's samples, below which a module is a detour
_SHOWN = 3


class ModuleNames(Protocol):
    """What is asked of a kernel's code; profiler.debuginfo.code.KernelCode."""

    def unknown_module_at(self, address: int) -> str | None: ...
    def module_without_lines(self, address: int) -> str | None: ...


def unread(nameless: Counter[int], on_path: int, code: ModuleNames) -> list[str]:
    """The modules in which a good part of the call's samples lies, and whose code is not known; most samples first.

    `nameless` has the call's samples in code of no known symbol, by address; `on_path` is the number of the others.
    """
    samples: Counter[str] = Counter()
    for address, count in nameless.items():
        samples[code.unknown_module_at(address) or ""] += count
    due = _LEAST_SHARE * (on_path + samples.total())
    return [name for name, count in samples.most_common() if name and count >= due][:_SHOWN]


def without_lines(best: Located, decision: Decision | None, code: ModuleNames) -> list[str]:
    """The modules that hold the origin or the decision, and of which no lines are known."""
    addresses = [best.calls[-1].node.entry, *([decision.address] if decision is not None else [])]
    names = (code.module_without_lines(address) for address in addresses)
    return list(dict.fromkeys(name for name in names if name is not None))


def reason_unread(syscall: str, errno: str, names: Iterable[str]) -> str:
    modules = _listed(names)
    return f"{syscall}() runs through the {modules}, whose code is not known here: {errno} may come from there"


def reason_without_lines(syscall: str, errno: str, names: Iterable[str], place: str) -> str:
    modules = _listed(names)
    return f"{syscall}() fails with {errno} in the {modules}, at {place}; what line that is, its debug info would say"


def remedy(names: Iterable[str], kernel: KernelId, manifest: Manifest | None) -> list[str]:
    """The command that gets the debug info."""
    if manifest is not None and manifest.target.startswith("vm:") and kernel.package_version:
        wanted = "".join(f" --module {name}" for name in names)
        return [f"`whyerrno kernels fetch {kernel.package_version}{wanted}`, then `whyerrno analyze` on the recording"]
    return [
        f"install the modules' debug info (Debian: `apt install linux-image-{kernel.release}-dbg`, Ubuntu: "
        f"linux-image-{kernel.release}-dbgsym), then `whyerrno analyze` on the recording"
    ]


def _listed(names: Iterable[str]) -> str:
    listed = list(names)
    return f"module {listed[0]}" if len(listed) == 1 else f"modules {', '.join(listed[:-1])} and {listed[-1]}"
