"""A perf annotate text as samples: what it says of each instruction, as so many samples without time or thread."""

from __future__ import annotations

import numpy as np

from profiler.errors import InputError
from profiler.model import Event, PerfRecording, Samples
from profiler.parse.perf_annotate import Annotation

_KERNEL_HALF = 1 << 63


def samples_of(annotation: Annotation) -> PerfRecording:
    """One row for each sample; of a percentage, the rounded share of the function's total.

    Raises InputError where percentages come without totals, so that counts cannot be told.
    """
    counts = []
    for instruction in annotation.instructions:
        if instruction.samples is not None:
            counts.append(instruction.samples)
            continue
        total = annotation.totals.get(instruction.function)
        if total is None:
            raise InputError(
                "percentages without the number of samples they are of", hint="annotate with -n, which prints counts"
            )
        counts.append(round((instruction.percent or 0.0) / 100 * total))
    addresses = np.array([instruction.address for instruction in annotation.instructions], np.uint64)
    ip = np.repeat(addresses, counts)
    n = len(ip)
    samples = Samples(
        ip=ip,
        pid=np.full(n, -1, np.int32),
        tid=np.full(n, -1, np.int32),
        cpu=np.full(n, -1, np.int32),
        time=np.zeros(n, np.uint64),
        period=np.ones(n, np.uint64),
        event=np.zeros(n, np.int16),
        in_kernel=ip >= np.uint64(_KERNEL_HALF),
        comm=np.zeros(n, np.int32),
        chain_start=np.arange(n + 1, dtype=np.int64),
        chain=ip,
    )
    return PerfRecording(samples, (Event("", 0, 0),), ("",), {}, 0, 0, decode_errors=annotation.decode_errors)
