"""Compares what perf.data and perf's own text of it say, sample by sample."""

from profiler.model import PerfRecording

Row = tuple[int, int, int, int, int, str, str, int, tuple[int, ...]]


def rows(recording: PerfRecording, *, chains_only: bool) -> list[Row]:
    """One row a sample, in order of time. With `chains_only` the ip of samples without a kernel chain is left out:
    perf's text does not have it where only kernel callchains were recorded."""
    s = recording.samples
    found = []
    for i in range(len(s.ip)):
        chain = tuple(s.chain[s.chain_start[i] : s.chain_start[i + 1]].tolist())
        found.append(
            (
                int(s.time[i]),
                int(s.tid[i]),
                int(s.pid[i]),
                int(s.cpu[i]),
                int(s.period[i]),
                recording.events[s.event[i]].name,
                recording.comms[s.comm[i]],
                0 if chains_only and not chain else int(s.ip[i]),
                chain,
            )
        )
    return sorted(found)


def assert_same_samples(data: PerfRecording, text: PerfRecording) -> None:
    """perf prints no chain at all where the user's part holds an impossible entry ("invalid callchain context: -1"),
    as frame pointers of generated code make it; the kernel's part is good even then. A few such samples pass."""
    with_chains = len(data.samples.chain) > 0
    ours, theirs = rows(data, chains_only=with_chains), rows(text, chains_only=with_chains)
    assert len(ours) == len(theirs)
    differing = [(row, other) for row, other in zip(ours, theirs, strict=True) if row != other]
    assert [(row, other) for row, other in differing if (*row[:7], 0, ()) != other] == []
    assert len(differing) <= len(ours) / 100
