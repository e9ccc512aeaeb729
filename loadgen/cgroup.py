"""A cgroup v2 with limits, for the time of the loop."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from loadgen.leftovers import MOUNT_PREFIX, PREFIX, mount_point, temporary_directory
from profiler.errors import MissingError


class Cgroup:
    """`enter` and `leave` are open cgroup.procs files: the loop writes "0" to them to move itself in and out.

    Only the loop is inside: Python's own allocations must not meet the limit.
    """

    def __init__(self, controller: str, limits: dict[str, str], at_end: Callable[[Callable[[], object]], None]) -> None:
        root = mount_point() or _mount(at_end)
        _enable(controller, root, at_end)
        path = f"{root}/{PREFIX}{os.getpid()}"
        os.mkdir(path)  # pathlib is slow to import
        at_end(lambda: _remove(path))
        for name, value in limits.items():
            _write(f"{path}/{name.replace('_', '.')}", value)
        self.enter = os.open(f"{path}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        at_end(lambda: os.close(self.enter))
        self.leave = os.open(f"{root}{_own_path()}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        at_end(lambda: os.close(self.leave))


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _write(path: str, value: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def _mount(at_end: Callable[[Callable[[], object]], None]) -> str:
    """Mounts the hierarchy where nobody has: in a guest."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    path = f"{temporary_directory()}/{MOUNT_PREFIX}{os.getpid()}"  # mkdir refuses an existing one
    os.mkdir(path, 0o700)
    at_end(lambda: os.rmdir(path))
    if libc.mount(b"none", path.encode(), b"cgroup2", 0, None) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise MissingError(f"cgroup v2 cannot be mounted: {reason}", hint="the scenario needs a kernel with cgroup v2")
    at_end(lambda: libc.umount2(path.encode(), 0))
    return path


def _enable(controller: str, root: str, at_end: Callable[[Callable[[], object]], None]) -> None:
    if controller not in _read(f"{root}/cgroup.controllers").split():
        raise MissingError(
            f"cgroup v2 has no {controller} controller here",
            hint="it may be bound to cgroup v1 or disabled at boot; use a vm: target",
        )
    control = f"{root}/cgroup.subtree_control"
    if controller in _read(control).split():
        return
    try:
        _write(control, f"+{controller}")
    except OSError as error:
        raise MissingError(
            f"the {controller} controller cannot be enabled in {root}: {error.strerror}",
            hint="inside a container this is the outer cgroup's right; use a vm: target",
        ) from error
    at_end(lambda: _write(control, f"-{controller}"))


def _own_path() -> str:
    for line in _read("/proc/self/cgroup").splitlines():
        if line.startswith("0::"):
            return line.removeprefix("0::").rstrip("/")
    return ""


def _remove(path: str) -> None:
    """Removes the cgroup; the kernel may call it busy for a moment after its last process left."""
    for _ in range(50):
        try:
            os.rmdir(path)
        except OSError:
            time.sleep(0.02)
        else:
            return
    os.rmdir(path)
