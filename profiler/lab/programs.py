"""Which files of this machine a program needs to run in a guest: itself, its libraries, its interpreter."""

from __future__ import annotations

import re
import shutil
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

from profiler import process
from profiler.errors import MissingError, UsageError

# libm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f9c2df20000)
# /lib64/ld-linux-x86-64.so.2 (0x00007f9c2e9c7000)
_LIBRARY = re.compile(r"^\s+(?:\S+ => )?(/.*) \(0x[0-9a-f]+\)$")
# libfoo.so.1 => not found
_ABSENT = re.compile(r"^\s+(\S+) => not found$")

# Parts of the standard library that nothing in a guest uses; they are two thirds of its size.
_UNUSED_PACKAGES = {
    "__phello__", "__pycache__", "curses", "dbm", "distutils", "ensurepip", "idlelib", "lib-dynload", "lib2to3",
    "pydoc_data", "site-packages", "dist-packages", "sqlite3", "test", "tkinter", "turtledemo", "unittest", "venv",
    "wsgiref", "xmlrpc",
}  # fmt: skip
_UNUSED_MODULES = re.compile(r"^(turtle|pydoc|pickletools|doctest|imaplib|antigravity|this)\.py$")
_UNUSED_EXTENSIONS = re.compile(
    r"^(_test|_xxtest|xxlimited|_tkinter|_sqlite3|_curses|_dbm|_gdbm|_ctypes_test|nis|ossaudio|audioop)"
)


_MACHINES = (62, 3)  # e_machine of ELF: EM_X86_64, and EM_386, which Debian's kernels run as well


def guest_path(path: str) -> str:
    """Where a file of this machine lies in a guest, which has /bin, /sbin and /lib merged into /usr."""
    for old, new in (("/usr/sbin/", "/usr/bin/"), ("/sbin/", "/usr/bin/"), ("/bin/", "/usr/bin/")):
        if path.startswith(old):
            return new + path[len(old) :]
    return "/usr" + path if path.startswith(("/lib/", "/lib64/")) else path


def is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def libraries(programs: Iterable[Path], *, required: bool = True) -> set[Path]:
    """The shared libraries of programs, as the dynamic loader of this machine finds them.

    Raises MissingError when a library is absent and `required` is set.
    """
    paths = [path for path in programs if is_elf(path)]
    found: set[Path] = set()
    if not paths:
        return found
    # ldd exits 1 when one of them is static
    for line in process.run(["ldd", *paths], timeout=60, check=False).output.splitlines():
        if match := _LIBRARY.match(line):
            found.add(Path(match[1]))
        elif required and (match := _ABSENT.match(line)):
            raise MissingError(f"the shared library {match[1]} of {paths[0]} is not on this machine")
    return found


def interpreter(script: Path) -> Path | None:
    """The program that a `#!` line names, or None. `#!/usr/bin/env X` is looked up as X."""
    with script.open("rb") as file:
        first = file.readline(512)
    if not first.startswith(b"#!"):
        return None
    words = first[2:].decode("utf-8", "replace").split()
    if words and words[0].endswith("/env") and len(words) > 1:
        found = shutil.which(next((word for word in words[1:] if not word.startswith("-") and "=" not in word), ""))
        return Path(found) if found else None
    return Path(words[0]) if words and Path(words[0]).is_file() else None


def require_runnable(path: Path) -> None:
    """Raises UsageError on an executable file that no kernel here can start, MissingError without its interpreter."""
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(b"#!"):
        if interpreter(path) is None:
            named = head[2:].split(b"\n")[0].decode("utf-8", "replace").strip()
            raise MissingError(f"the interpreter of {path}, {named}, is not on this machine", hint="see its first line")
    elif not head.startswith(b"\x7fELF"):
        raise UsageError(
            f"{path} is no program: neither ELF nor a script", hint="a script begins with #! and its shell"
        )
    elif int.from_bytes(head[18:20], "little") not in _MACHINES:
        raise UsageError(f"{path} is a program for another processor", hint="compile it for x86-64")


def needed_by(path: Path) -> dict[str, Path]:
    """What one file of the caller's needs beside itself, as guest path → file of this machine."""
    run_by = None if is_elf(path) else interpreter(path)
    programs = [path] if run_by is None else [run_by]
    files = {guest_path(str(library)): library for library in libraries(programs)}
    if run_by is not None:
        files[guest_path(str(run_by))] = run_by.resolve()
    return files


def perf() -> Path:
    """perf itself: on Ubuntu /usr/bin/perf is a script that picks one by the running kernel's release."""
    path = process.find("perf").resolve()
    if is_elf(path):
        return path
    packaged = [p for p in Path("/usr/lib").glob("linux-tools*/**/perf") if p.is_file() and is_elf(p)]
    if not packaged:
        raise MissingError(f"{path} is a script and no perf of linux-tools is here", hint="install linux-tools-generic")
    return max(packaged, key=lambda p: (_numbers(str(p)), str(p)))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)))


def python() -> Path:
    """The interpreter that runs us, outside any virtual environment."""
    base: str = getattr(sys, "_base_executable", "") or sys.executable
    return Path(base).resolve()


def python_modules() -> Iterator[tuple[Path, bool]]:
    """The standard library's files that a guest gets, and for each whether it is Python source to compile."""
    root = Path(sysconfig.get_path("stdlib")).resolve()  # as the interpreter will find it from its own real path
    for entry in sorted(root.iterdir()):
        if entry.is_dir() and entry.name not in _UNUSED_PACKAGES and not entry.name.startswith("config-"):
            yield from ((path, True) for path in sorted(entry.rglob("*.py")) if "test" not in path.parts[-2])
        elif entry.suffix == ".py" and not _UNUSED_MODULES.match(entry.name):
            yield entry, True
    dynload = next((Path(p) for p in sys.path if Path(p).name == "lib-dynload"), root / "lib-dynload")
    for path in sorted(dynload.resolve().glob("*.so")):
        if not _UNUSED_EXTENSIONS.match(path.name):
            yield path, False
