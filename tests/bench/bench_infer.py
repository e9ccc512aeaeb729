"""Time of the inference: over paths of many functions, and over many samples.

    python -m tests.bench.bench_infer [RECORDING]...

Asked: at most 3 s for one run once the symbols are loaded, however many functions its path has; and for
2 million samples no more than for 20,000, reading them aside. Without RECORDINGs some calls with long paths are
recorded first, in a guest of 6.1. A recording is not touched: what is analyzed is a copy with its samples
as often as asked for.
"""

from __future__ import annotations

import itertools
import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from loadgen.scenarios import SCENARIOS
from profiler import pipeline, recording
from profiler.parse import perf_data

LONG_PATHS = ("openat-enoent", "io-uring-setup-enomem", "mount-eperm")
TARGET, SECONDS = "vm:6.1", 4.0
LIMIT = 3.0  # s
FEW, MANY = 20_000, 2_000_000  # samples
RUNS = 3
INFERENCE = "weighing paths"  # the phase that begins when samples and symbols are there


@dataclass(slots=True)
class Phases:
    """When each phase of an analysis began, in CPU time (an analysis has one thread): others use the machine too."""

    began: list[tuple[str, float]] = field(default_factory=list)

    def __call__(self, phase: str, _fraction: float | None) -> None:
        if not self.began or self.began[-1][0] != phase:
            self.began.append((phase, time.process_time()))

    def seconds(self, *phases: str) -> float:
        return sum(end - start for (name, start), (_, end) in itertools.pairwise(self.began) if name in phases)

    def since(self, phase: str) -> float:
        return self.began[-1][1] - next(start for name, start in self.began if name == phase)


@dataclass(frozen=True, slots=True)
class Timed:
    """CPU seconds, each the least of several analyses."""

    inference: float
    reading: float
    on_path: int
    functions: int


def analyzed(directory: Path) -> Timed:
    inference, reading = [], []
    for _ in range(RUNS):
        phases = Phases()
        analysis = pipeline.analyze(directory, progress=phases)
        phases("end", None)
        inference.append(phases.since(INFERENCE))
        reading.append(phases.seconds("reading samples"))
    return Timed(min(inference), min(reading), analysis.samples.on_path, len(analysis.chain))


def copy(directory: Path, out: Path, samples: int | None = None) -> Path:
    """The recording with about as many samples as asked for, its own over and over; without a conclusion."""
    out.mkdir()
    for file in directory.iterdir():
        if file.name not in (recording.ANALYSIS, recording.PERF_DATA) and file.is_file():
            (out / file.name).symlink_to(file.resolve())
    data = directory / recording.PERF_DATA
    if samples is None:
        shutil.copyfile(data, out / recording.PERF_DATA)
    else:
        times = max(1, round(samples / len(perf_data.read(data).samples.ip)))
        (out / recording.PERF_DATA).write_bytes(repeated(data.read_bytes(), times))
    return out


def repeated(data: bytes, times: int) -> bytes:
    """perf.data with its data section `times` over; what comes behind it moves on.

    The header's words (tools/perf/Documentation/perf.data-file-format.txt): magic, size, attr_size, then offset
    and size of attributes, data and event types, then the feature bits; the features' own offsets and
    sizes stand right behind the data.
    """
    words = list(struct.unpack_from("<13Q", data))
    start, size = words[5], words[6]
    end, more = start + size, size * (times - 1)
    words[6] = size * times
    features = sum(word.bit_count() for word in words[9:13])
    places = struct.unpack_from(f"<{2 * features}Q", data, end)
    moved = [place + more if index % 2 == 0 else place for index, place in enumerate(places)]
    head = struct.pack("<13Q", *words) + data[104:start]
    behind = data[end + 16 * features :]
    return head + data[start:end] * times + struct.pack(f"<{2 * features}Q", *moved) + behind


def record_long_paths(folder: Path) -> Iterable[Path]:
    for name in LONG_PATHS:
        scenario = SCENARIOS[name]
        request = pipeline.RunRequest(TARGET, name, scenario.syscall, scenario.errno, seconds=SECONDS)
        print(f"recording {name} for {SECONDS:g} s", flush=True)
        yield pipeline.record(request, folder / name, progress=lambda _phase, _fraction: None)


def main(*recordings: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "recorded").mkdir()
        found = [Path(path) for path in recordings] or list(record_long_paths(folder / "recorded"))
        slowest, slowest_at = 0.0, found[0]
        for index, directory in enumerate(found):
            timed = analyzed(copy(directory, folder / f"copy{index}"))
            print(
                f"{directory.name}: {timed.inference:.2f} s for {timed.on_path} samples, "
                f"{timed.functions} functions in the chain (limit {LIMIT:g} s)",
                flush=True,
            )
            if timed.inference > slowest:
                slowest, slowest_at = timed.inference, directory
        print(f"longest: {slowest:.2f} s, {slowest / LIMIT:.2f} of the limit")
        few = analyzed(copy(slowest_at, folder / "few", FEW))
        many = analyzed(copy(slowest_at, folder / "many", MANY))
        print(
            f"{slowest_at.name}, {few.on_path} samples on the path: {few.inference:.2f} s (and {few.reading:.2f} s to "
            f"read); {many.on_path}: {many.inference:.2f} s (and {many.reading:.2f} s); "
            f"ratio {many.inference / few.inference:.2f} (aim: 1)"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
