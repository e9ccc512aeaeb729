"""Damaged input of any kind ends in a result or an InputError, soon, and without much memory."""

import resource
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profiler.errors import InputError, MissingError
from profiler.parse import kallsyms, perf_annotate, perf_data, perf_script

DATA = Path(__file__).parent.parent / "data" / "perf"
FILES = {name: (DATA / f"{name}.data").read_bytes() for name in ("callchains", "plain", "compressed", "events", "pipe")}
SECONDS = 3  # far more than any of these files takes
MEGABYTES = 600

# Single bytes, and whole numbers that sizes and counts like to be wrong by.
BYTES = st.binary(min_size=1, max_size=4)
NUMBERS = st.sampled_from(
    [bytes(8), b"\xff" * 8, b"\xff" * 2, b"\1", b"\x08\0", bytes(7) + b"\x80", b"\xff\xff\xff\x7f"]
)
CHANGES = st.lists(st.tuples(st.floats(0, 1), BYTES | NUMBERS), max_size=12)
FUZZED = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def damaged(content: bytes, changes: list[tuple[float, bytes]], keep: float) -> bytes:
    data = bytearray(content)
    for place, new in changes:
        at = int(place * (len(data) - 1))
        data[at : at + len(new)] = new
    return bytes(data[: int(keep * len(data)) + 1])


@pytest.mark.parametrize("salvage", [False, True])
@FUZZED
@given(name=st.sampled_from(sorted(FILES)), changes=CHANGES, keep=st.just(1.0) | st.floats(0, 1), early=st.booleans())
def test_damaged_perf_data(
    tmp_path: Path, salvage: bool, name: str, changes: list[tuple[float, bytes]], keep: float, early: bool
) -> None:
    """Half of the time all damage is in the first part, where the header and the first records are."""
    if early:
        changes = [(place / 50, new) for place, new in changes]
    path = tmp_path / "perf.data"
    path.write_bytes(damaged(FILES[name], changes, keep))
    before = time.monotonic()
    try:
        recording = perf_data.read(path, salvage=salvage)
    except InputError as error:
        assert str(path) in str(error)
    else:
        samples = recording.samples
        n = len(samples.ip)
        assert n <= len(FILES[name])
        assert len(samples.comm) == n
        assert len(samples.chain_start) == n + 1
        assert samples.chain_start[-1] == len(samples.chain)
        assert n == 0 or 0 <= samples.comm.min() <= samples.comm.max() < len(recording.comms)
        assert n == 0 or 0 <= samples.event.min() <= samples.event.max() < len(recording.events)
    assert time.monotonic() - before < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < MEGABYTES * 1024


@FUZZED
@given(changes=CHANGES, keep=st.floats(0, 1))
def test_damaged_perf_script(changes: list[tuple[float, bytes]], keep: float) -> None:
    text = damaged((DATA / "callchains.script").read_bytes()[-8000:], changes, keep)
    try:
        recording = perf_script.read(text.splitlines(keepends=True))
    except InputError:
        return
    assert len(recording.samples.chain_start) == len(recording.samples.ip) + 1
    assert recording.samples.chain_start[-1] == len(recording.samples.chain)


@FUZZED
@given(changes=CHANGES, keep=st.floats(0, 1))
def test_damaged_perf_annotate(changes: list[tuple[float, bytes]], keep: float) -> None:
    text = damaged((DATA / "annotate_lines.txt").read_bytes(), changes, keep)
    try:
        assert perf_annotate.read(text.splitlines(keepends=True)).instructions
    except InputError:
        return


@FUZZED
@given(changes=CHANGES, keep=st.floats(0, 1))
def test_damaged_kallsyms(changes: list[tuple[float, bytes]], keep: float) -> None:
    text = damaged(
        b"".join(b"%016x t name_%d\t[mod]\n" % (0xFFFFFFFFC0000000 + i, i) for i in range(50)), changes, keep
    )
    try:
        symbols = kallsyms.parse(text, "kallsyms")
    except (InputError, MissingError):
        return
    assert len(symbols.names) == len(symbols.addresses) == len(symbols.kinds)
