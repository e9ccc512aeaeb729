"""Recordings of a toy kernel: samples by the place they were taken at."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np

from profiler.conclude.analysis import Subject
from profiler.model import KernelId, LoadResult, Manifest, PerfRecording, Samples
from tests.unit.toy_kernel import FILE, ToyKernel

LOAD_PID, OTHER_PID = 100, 7
KERNEL_ID = KernelId("6.1.0-toy", "6.1.1-1", "ab" * 20, "x86_64")
LOAD = LoadResult(calls=1000, seconds=1.0, results={"EINVAL": 1000}, pid=LOAD_PID, comm="whyerrno-load")


def addresses_of(kernel: ToyKernel, place: str) -> tuple[int, ...]:
    """`label < call < outer call`: the address of the first, and where the others return to, innermost first."""
    inner, *calls = place.split(" < ")
    return (kernel.at[inner], *(kernel.behind(call) for call in calls))


def recorded(
    kernel: ToyKernel,
    samples: Mapping[str, int],
    *,
    others: Mapping[str, int] | None = None,
    loose: Mapping[tuple[int, ...], int] | None = None,
    kaslr_offset: int = 0,
    callchains: bool = True,
    **more: Any,
) -> PerfRecording:
    """`samples` of the load, `others` of another process; `loose`: of the load, as bare link addresses."""
    rows = [(addresses_of(kernel, place), count, LOAD_PID) for place, count in samples.items()]
    rows += [(chain, count, LOAD_PID) for chain, count in (loose or {}).items()]
    rows += [(addresses_of(kernel, place), count, OTHER_PID) for place, count in (others or {}).items()]
    chains = [tuple(address + kaslr_offset for address in chain) for chain, count, _ in rows for _ in range(count)]
    pids = [pid for _, count, pid in rows for _ in range(count)]
    ips = [chain[0] for chain in chains]
    chains = chains if callchains else [chain[:1] for chain in chains]
    zeros = np.zeros(len(ips), np.int32)
    columns = Samples(
        ip=np.array(ips, np.uint64),
        pid=np.array(pids, np.int32),
        tid=np.array(pids, np.int32),
        cpu=zeros,
        time=np.arange(len(ips), dtype=np.uint64),
        period=np.ones(len(ips), np.uint64),
        event=zeros.astype(np.int16),
        in_kernel=np.ones(len(ips), np.bool_),
        comm=zeros,
        chain_start=np.cumsum([0, *(len(chain) for chain in chains)]).astype(np.int64),
        chain=np.array([address for chain in chains for address in chain], np.uint64),
    )
    return PerfRecording(columns, (), ("load",), **{"parents": {}, "lost": 0, "throttled": 0, **more})


def subject(**changes: Any) -> Subject:
    asked = Subject(
        syscall="frob",
        errno="EINVAL",
        errno_number=22,
        kernel=KERNEL_ID,
        kaslr_offset=0,
        emulated=False,
        manifest=None,
        load=LOAD,
    )
    return dataclasses.replace(asked, **changes)


def manifest(**changes: Any) -> Manifest:
    made = Manifest(
        schema=1,
        created="2026-01-01T00:00:00+00:00",
        syscall="frob",
        errno="EINVAL",
        errno_number=22,
        scenario="frob-einval",
        program=[],
        target="vm:6.1",
        release=KERNEL_ID.release,
        package_version=KERNEL_ID.package_version,
        build_id=KERNEL_ID.build_id,
        arch=KERNEL_ID.arch,
        kaslr_offset=0,
        event="cpu-clock",
        frequency=8000,
        seconds=10.0,
        lost=0,
        throttled=0,
        commands=[["perf", "record", "-a"]],
        tool_versions={"perf": "6.1"},
        emulated=False,
    )
    return dataclasses.replace(made, **changes)


class ToySource:
    """One file of C, the first of its lines on line 1."""

    def __init__(self, text: str) -> None:
        self.lines = textwrap.dedent(text).lstrip("\n").split("\n")

    def text(self, file: str) -> list[str] | None:
        return self.lines if file == FILE else None
