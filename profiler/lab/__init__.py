"""Kernels to run in virtual machines: find, fetch, check and unpack them; the guest's image; QEMU.

find(version) and list_cached() look at the cache only; available(progress) and fetch(version, progress) ask the
mirrors. A progress callback gets what is being done, and how much of it (0 to 1) where that is known.
"""

from profiler.lab.acquire import available, fetch
from profiler.lab.catalogue import Available
from profiler.lab.module_debug import fetch as fetch_modules
from profiler.lab.module_debug import find as find_module
from profiler.lab.module_debug import loadable as loadable_modules
from profiler.lab.store import cache_directory, find, from_path, list_cached

__all__ = [
    "Available",
    "available",
    "cache_directory",
    "fetch",
    "fetch_modules",
    "find",
    "find_module",
    "from_path",
    "list_cached",
    "loadable_modules",
]
