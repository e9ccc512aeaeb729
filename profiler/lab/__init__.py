"""Kernels to run in virtual machines: find, fetch, check and unpack them; the guest's image; QEMU."""

from profiler.lab.store import find, from_path, list_cached

__all__ = ["find", "from_path", "list_cached"]
