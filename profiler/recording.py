"""The Recording directory: all that was captured on a target, raw, with a manifest.

    manifest.json   Manifest; written last
    perf.data       perf record -a, with kernel callchains
    kallsyms        /proc/kallsyms of the kernel that ran
    load.json       LoadResult
    kernel.log      the kernel log of the time, one line each
    kernel_text     the running kernel's text from _stext to _etext, zlib-compressed (optional: needs /proc/kcore)
    config          the kernel's configuration (optional)
    console.log     a guest's console (optional)

Everything is first written to a hidden directory beside the final one and renamed when it is whole,
so that a directory under the asked name is a finished recording.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from profiler.errors import InputError, UsageError
from profiler.model import ANALYSIS_SCHEMA, MANIFEST_SCHEMA, Analysis, LoadResult, Manifest, from_json

MANIFEST = "manifest.json"
PERF_DATA = "perf.data"
KALLSYMS = "kallsyms"
LOAD = "load.json"
KERNEL_LOG = "kernel.log"
KERNEL_TEXT = "kernel_text"
CONFIG = "config"
CONSOLE = "console.log"
ANALYSIS = "analysis.json"
PERF_SCRIPT = "perf.script"  # in place of perf.data in an import: the text of perf script
PERF_ANNOTATE = "perf.annotate"  # or of perf annotate --stdio


@contextlib.contextmanager
def new_directory(final: Path, *, force: bool = False) -> Iterator[Path]:
    """A directory that appears as `final` when the block ends well, and not at all otherwise.

    Raises UsageError when `final` exists and `force` is not set.
    """
    if final.exists() and not force:
        raise UsageError(f"{final} exists", hint="choose another output, or --force to replace it")
    final.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{final.name}.partial-", dir=final.parent))
    partial.chmod(0o755)
    try:
        yield partial
        if final.exists():
            replaced = Path(tempfile.mkdtemp(prefix=f".{final.name}.partial-", dir=final.parent))
            final.rename(replaced / "old")
            partial.rename(final)
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            partial.rename(final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def data_name(data: Path) -> str:
    """The name that a file of perf's gets in a Recording, by what it is. Raises InputError on an empty file."""
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


def write_atomically(path: Path, content: str | bytes) -> None:
    """The whole content or nothing, whatever happens meanwhile."""
    data = content.encode() if isinstance(content, str) else content
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        partial.chmod(0o644)
        partial.replace(path)
    except BaseException:
        partial.unlink()
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
        raise InputError(f"{path}: not readable as JSON: {error}") from error
    if newest_schema is not None and isinstance(data, dict) and data.get("schema", 0) > newest_schema:
        raise InputError(
            f"{path}: schema {data['schema']} is newer than this whyerrno reads ({newest_schema})",
            hint="update whyerrno",
        )
    try:
        return from_json(cls, data)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: not of the expected shape: {error}") from error
