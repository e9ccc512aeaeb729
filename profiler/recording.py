"""The Recording directory: all that was captured on a target, raw, with a manifest.

    manifest.json   Manifest; written last
    perf.data       perf record -a, with kernel callchains (none of exact evidence alone)
    kallsyms        /proc/kallsyms of the kernel that ran
    load.json       LoadResult
    kernel.log      the kernel log of the time, one line each
    kernel_text     the running kernel's text from _stext to _etext, zlib-compressed (optional: needs /proc/kcore)
    modules.json    the loaded modules: names, build ids, addresses of their sections (optional)
    modules_text    the loaded modules' text as it ran, zlib-compressed (optional)
    config          the kernel's configuration (optional)
    console.log     a guest's console (optional)
    execution.npz   ExecutionLog, its columns as numpy arrays (optional: exact replay)

Everything is first written to a hidden directory beside the final one and renamed when it is whole,
so that a directory under the asked name is a finished recording.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import glob
import io
import json
import os
import shutil
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from profiler.errors import InputError, UsageError
from profiler.model import (
    ANALYSIS_SCHEMA,
    LOGGED_REGISTERS,
    MANIFEST_SCHEMA,
    Analysis,
    ExecutionLog,
    LoadResult,
    Manifest,
    from_json,
)

MANIFEST = "manifest.json"
PERF_DATA = "perf.data"
KALLSYMS = "kallsyms"
LOAD = "load.json"
KERNEL_LOG = "kernel.log"
KERNEL_TEXT = "kernel_text"
MODULES = "modules.json"
MODULES_TEXT = "modules_text"
CONFIG = "config"
CONSOLE = "console.log"
EXECUTION_LOG = "execution.npz"
ANALYSIS = "analysis.json"
PERF_SCRIPT = "perf.script"  # in place of perf.data in an import: the text of perf script
PERF_ANNOTATE = "perf.annotate"  # or of perf annotate --stdio

SAMPLES_FILES = (PERF_SCRIPT, PERF_ANNOTATE, PERF_DATA)

_YOUNG_SECONDS = 5.0

_DAMAGED = "the recording is damaged; record again"
_REMEDY = {MANIFEST: _DAMAGED, LOAD: _DAMAGED, ANALYSIS: "`whyerrno analyze` on its directory writes it anew"}


@contextlib.contextmanager
def new_directory(final: Path, *, force: bool = False) -> Iterator[Path]:
    """A directory that appears as `final` when the block ends well, and not at all otherwise.

    What was there before is replaced only then. What a killed run left hidden beside it is removed.
    Raises UsageError as `check_free` does, and where none can be made.
    """
    _remove_abandoned(final)
    check_free(final, force=force)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        partial = _hidden_beside(final)
    except OSError as error:
        raise UsageError(f"{final} cannot be made: {error.strerror}", hint="choose another output") from error
    partial.chmod(0o755)
    lock = _lock(partial)
    try:
        yield partial
        if final.exists():
            _replace(final, partial)
        else:
            partial.rename(final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _lock(directory: Path) -> int | None:
    """A lock on a directory that ends with this process, however it ends; None where another process holds it."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held, or a file system without locks: then nothing is known to be abandoned
        os.close(descriptor)
        return None
    return descriptor


def _remove_abandoned(final: Path) -> None:
    """Remove what killed processes left hidden beside `final`; what one was about to replace is put back."""
    for hidden in final.parent.glob(f".{glob.escape(final.name)}.partial-*"):
        with contextlib.suppress(OSError):
            if time.time() - hidden.stat().st_mtime < _YOUNG_SECONDS:  # perhaps made, and not yet locked
                continue
            lock = _lock(hidden)
            if lock is None:
                continue
            if (hidden / "old").is_dir() and not final.exists():
                (hidden / "old").rename(final)
            shutil.rmtree(hidden, ignore_errors=True)
            os.close(lock)


def check_free(final: Path, *, force: bool) -> None:
    """Raises UsageError when `final` exists, unless it is an earlier run, or empty, and may be replaced (`force`)."""
    if not final.exists() and not final.is_symlink():
        return
    if not force:
        raise UsageError(f"{final} exists", hint="choose another output, or --force to replace it")
    if not final.is_dir() or final.is_symlink() or (any(final.iterdir()) and not (final / MANIFEST).is_file()):
        raise UsageError(f"{final} is not a run, so --force does not replace it", hint="choose another output")


def _hidden_beside(final: Path) -> Path:
    return Path(tempfile.mkdtemp(prefix=f".{final.name}.partial-", dir=final.parent))


def _replace(final: Path, partial: Path) -> None:
    before = _hidden_beside(final)
    final.rename(before / "old")
    try:
        partial.rename(final)
    except BaseException:
        (before / "old").rename(final)
        before.rmdir()
        raise
    shutil.rmtree(before, ignore_errors=True)


def data_name(data: Path) -> str:
    """The name that a file of perf's gets in a Recording, by what it is.

    Raises InputError on an empty file and on what is no file, such as a pipe.
    """
    if not data.is_dir() and not data.is_file():
        raise InputError(f"{data} is not a regular file", hint="write the data into a file first, and import that")
    if data.is_dir():
        return PERF_DATA
    with data.open("rb") as file:
        head = file.read(1 << 16)
    if not head:
        raise InputError(f"{data} is empty", hint="record again: perf may have been killed before it wrote anything")
    if head[:8] in (b"PERFILE2", b"2ELIFREP"):
        return PERF_DATA
    if b"\0" in head:
        raise InputError(f"{data} is not of perf: no PERFILE2 at its start", hint="give a perf.data or perf's text")
    return PERF_ANNOTATE if b"Source code & Disassembly of" in head else PERF_SCRIPT


def samples_file(directory: Path) -> Path:
    """The file of perf's in a Recording. Raises InputError where there is none."""
    for name in SAMPLES_FILES:
        if (directory / name).exists():
            return directory / name
    raise InputError(f"{directory / PERF_DATA} is missing", hint="the recording is not whole; record again")


def write_atomically(path: Path, content: str | bytes) -> None:
    """The whole content or nothing, whatever happens meanwhile. An OSError names `path`."""
    try:
        _write_beside(path, content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _write_beside(path: Path, data: bytes) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        partial.chmod(0o644)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_manifest(directory: Path, manifest: Manifest) -> None:
    write_atomically(directory / MANIFEST, json.dumps(manifest.to_json(), indent=1) + "\n")


def read_manifest(directory: Path) -> Manifest:
    """Raises UsageError where there is no recording, InputError on one that is damaged or too new."""
    if not (directory / MANIFEST).is_file():
        raise UsageError(f"{directory} is not a recording", hint=f"no {MANIFEST} in it; make one with `whyerrno run`")
    manifest: Manifest = _read(directory / MANIFEST, Manifest, MANIFEST_SCHEMA)
    return manifest


def write_load(directory: Path, load: LoadResult) -> None:
    write_atomically(directory / LOAD, json.dumps(dataclasses.asdict(load), indent=1) + "\n")


def read_load(directory: Path) -> LoadResult:
    load: LoadResult = _read(directory / LOAD, LoadResult, None)
    return load


def write_execution_log(directory: Path, log: ExecutionLog) -> None:
    import numpy as np  # noqa: PLC0415 - a tenth of a second, which most commands need not wait

    packed = io.BytesIO()
    np.savez_compressed(packed, address=log.address, registers=log.registers, flags=log.flags)
    write_atomically(directory / EXECUTION_LOG, packed.getvalue())


def read_execution_log(directory: Path) -> ExecutionLog | None:
    """None where the recording holds none. Raises InputError on a damaged one."""
    import numpy as np  # noqa: PLC0415 - a tenth of a second, which most commands need not wait

    path = directory / EXECUTION_LOG
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as columns:
            log = ExecutionLog(columns["address"], columns["registers"], columns["flags"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: not readable as an execution log: {error}", hint=_DAMAGED) from error
    shapes = (log.address.shape, log.registers.shape, log.flags.shape)
    n = len(log.address) if log.address.ndim else 0
    types = [str(column.dtype) for column in (log.address, log.registers, log.flags)]
    if shapes != ((n,), (n, len(LOGGED_REGISTERS)), (n,)) or types != ["uint64", "uint64", "uint32"]:
        raise InputError(f"{path}: not readable as an execution log: shapes {shapes}, {types}", hint=_DAMAGED)
    return log


def write_analysis(directory: Path, analysis: Analysis) -> None:
    write_atomically(directory / ANALYSIS, json.dumps(analysis.to_json(), indent=1) + "\n")


def read_analysis(directory: Path) -> Analysis:
    """Raises UsageError where the run was not analyzed yet, InputError on a damaged or newer file."""
    if not (directory / ANALYSIS).is_file():
        raise UsageError(f"{directory} holds no analysis", hint=f"run `whyerrno analyze {directory}` first")
    analysis: Analysis = _read(directory / ANALYSIS, Analysis, ANALYSIS_SCHEMA)
    return analysis


def _read(path: Path, cls: type, newest_schema: int | None) -> Any:
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path} is missing", hint="the recording is not whole; record again") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: not readable as JSON: {error}", hint=_REMEDY[path.name]) from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: not a JSON object", hint=_REMEDY[path.name])
    schema = data.get("schema")
    if newest_schema is not None and isinstance(schema, int) and schema > newest_schema:
        raise InputError(
            f"{path}: schema {schema} is newer than this whyerrno reads ({newest_schema})",
            hint="update whyerrno",
        )
    try:
        return from_json(cls, data)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: not of the expected shape: {error}", hint=_REMEDY[path.name]) from error
