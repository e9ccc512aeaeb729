"""A kernel in a virtual machine: stock Debian (vm:6.1) or somebody's own (vm:PATH)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

from profiler.lab import guest, qemu, store
from profiler.model import Kernel
from profiler.target.session import Session


class VirtualMachine:
    def __init__(self, spec: str, kernel: Kernel) -> None:
        self.spec = spec
        self._kernel = kernel

    @cached_property
    def accelerator(self) -> str:
        assert self._kernel.image is not None
        return qemu.accelerator(self._kernel.image, store.cache_directory())

    @property
    def emulated(self) -> bool:
        return self.accelerator == "tcg"

    def check(self) -> None:
        guest.require_programs()

    def kernel(self) -> Kernel | None:
        return self._kernel

    @contextlib.contextmanager
    def session(self, files: Mapping[str, Path]) -> Iterator[Session]:
        """One guest, booted for this session. Raises MissingError without QEMU, busybox or perf on this machine,
        TargetError when the guest fails."""
        cache = store.cache_directory()
        with guest.boot(self._kernel, files, cache, accelerator=self.accelerator, replays=self.emulated) as booted:
            yield booted
