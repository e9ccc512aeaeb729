"""Makes sample_data/: io_uring_setup failing with ENOMEM on two kernels, recorded in guests.

usage: python scripts/make_sample_data.py

A recording is kept without what is large or not ours to pass on: no kernel text, no kernel source lines, no
kallsyms, no logs. What is left holds addresses, names, line numbers and counts.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path

from profiler import pipeline, recording
from profiler.model import Analysis

SCENARIO = "io-uring-setup-enomem"
VERSIONS = ("5.10", "7.3")
KEPT = (recording.MANIFEST, recording.PERF_DATA, recording.LOAD)
SAMPLE_DATA = Path(__file__).parent.parent / "sample_data"


def main() -> None:
    for version in VERSIONS:
        with tempfile.TemporaryDirectory() as folder:
            request = pipeline.RunRequest(
                target=f"vm:{version}",
                scenario=SCENARIO,
                syscall="io_uring_setup",
                errno="ENOMEM",
                seconds=4,
                frequency=2000,
            )
            directory = Path(folder) / "run"
            analysis = pipeline.diagnose(request, directory, progress=print)
            final = SAMPLE_DATA / f"{SCENARIO}-{version}"
            shutil.rmtree(final, ignore_errors=True)
            final.mkdir(parents=True)
            for name in KEPT:
                shutil.copyfile(directory / name, final / name)
            recording.write_analysis(final, without_source(analysis))


def without_source(analysis: Analysis) -> Analysis:
    """The same without lines of kernel source, but for the one condition that the verdict quotes."""
    functions = [
        dataclasses.replace(f, lines=[dataclasses.replace(line, text=None) for line in f.lines])
        for f in analysis.functions
    ]
    site = analysis.error_site and dataclasses.replace(analysis.error_site, text=None)
    candidates = [dataclasses.replace(c, site=dataclasses.replace(c.site, text=None)) for c in analysis.candidates]
    return dataclasses.replace(analysis, functions=functions, error_site=site, candidates=candidates)


if __name__ == "__main__":
    main()
