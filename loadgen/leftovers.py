"""What a load that was killed left behind, found by its name prefix and the number of a process that is gone."""

from __future__ import annotations

import os

from loadgen import sysv

PREFIX = "whyerrno-load-"  # then the process number: directories and cgroups
MOUNT_PREFIX = "whyerrno-cgroup-"  # mount points of a cgroup hierarchy that nobody else had mounted


def temporary_directory() -> str:
    return os.environ.get("TMPDIR") or "/tmp"  # noqa: S108  names below it are made by mkdir, which refuses links


def mount_point() -> str | None:
    """Where cgroup v2 is mounted."""
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:
            # cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nodev,noexec,relatime 0 0
            _, mounted_on, kind, *_ = line.split(" ")
            if kind == "cgroup2":
                return mounted_on
    return None


def remove_leftovers() -> None:
    """Removes directories, cgroups, mounts and IPC objects of this user's loads whose process is gone.

    Never raises OSError.
    """
    sysv.remove_leftovers()
    cgroups = mount_point()
    for path in _left_in(cgroups, PREFIX):
        _remove_directory(path)
    for path in _left_in(temporary_directory(), MOUNT_PREFIX):
        _unmount(path)
        _remove_directory(path)
    for path in _left_in(temporary_directory(), PREFIX):
        import shutil

        shutil.rmtree(path, ignore_errors=True)


def _left_in(directory: str | None, prefix: str) -> list[str]:
    try:
        names = os.listdir(directory) if directory else []
    except OSError:
        return []
    return [
        f"{directory}/{name}" for name in names if name.startswith(prefix) and _is_left(f"{directory}/{name}", prefix)
    ]


def _is_left(path: str, prefix: str) -> bool:
    number = path.rpartition(prefix)[2]
    if not number.isdecimal() or os.path.exists(f"/proc/{number}"):
        return False
    try:
        return os.lstat(path).st_uid == os.geteuid()
    except OSError:
        return False


def _unmount(path: str) -> None:
    import ctypes

    ctypes.CDLL(None).umount2(path.encode(), 0)


def _remove_directory(path: str) -> None:
    try:
        os.rmdir(path)
    except OSError:
        return  # still in use: left for the next run
