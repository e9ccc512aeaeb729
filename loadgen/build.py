"""Compiles the loop, once per content, into a cache."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from profiler.errors import MissingError, RecordError

SOURCES = ("loop.c", "syscall_x86_64.h")
FLAGS = ("-O2", "-std=gnu11", "-Wall", "-shared", "-fPIC")
COMPILE_SECONDS = 60


def loop_library(cache_dir: Path) -> Path:
    """The compiled loop's path below `cache_dir`, named by the content it was compiled from.

    Raises MissingError where there is no compiler or no C library to compile against, RecordError where it fails.
    """
    library = cache_dir / "loop" / f"loop-{_content_key()}.so"
    if library.is_file():
        return library
    library.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".loop-", dir=library.parent))
    try:
        _compile(partial / library.name)
        os.replace(partial / library.name, library)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return library


def _content_key() -> str:
    digest = hashlib.sha256(repr((FLAGS, platform.machine())).encode())
    for name in SOURCES:
        digest.update(_source(name).read_bytes())
    return digest.hexdigest()[:16]


def _source(name: str) -> Path:
    return Path(__file__).with_name(name)


def _compile(output: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise MissingError("no C compiler to build the load with", hint="apt install gcc libc6-dev")
    command = [compiler, *FLAGS, "-o", str(output), str(_source("loop.c"))]
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=COMPILE_SECONDS,
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        raise RecordError(f"{compiler} did not finish in {COMPILE_SECONDS} s") from None
    if done.returncode != 0:
        raise _compile_error(compiler, done.stderr)


def _compile_error(compiler: str, stderr: str) -> MissingError | RecordError:
    # loop.c:9:10: fatal error: errno.h: No such file or directory
    if ".h: No such file or directory" in stderr or "cannot find -lc" in stderr or "crti.o" in stderr:
        return MissingError("the C library's headers are missing", hint="apt install libc6-dev")
    first = next((line for line in stderr.splitlines() if "error" in line), stderr.strip()[:200])
    return RecordError(f"{compiler} could not build the load: {first}")
