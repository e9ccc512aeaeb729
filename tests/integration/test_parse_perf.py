"""The perf of this machine records; what perf_data reads from its files must be what perf script prints of them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from profiler.errors import InputError
from profiler.parse import kallsyms, perf_annotate, perf_data, perf_script
from tests.conftest import require
from tests.perf_parity import assert_same_samples, rows

# Half a second of forks, execs and system calls.
LOAD = [sys.executable, "-c", "import os, time\nend = time.time() + .4\nwhile time.time() < end: os.system('true')"]
ENVIRONMENT = {**os.environ, "LC_ALL": "C", "PERF_CONFIG": "/dev/null"}


def perf(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    require(shutil.which("perf"), "perf is not installed (package linux-perf)")
    return subprocess.run(["perf", *arguments], cwd=cwd, env=ENVIRONMENT, capture_output=True, check=False, timeout=120)


def record(cwd: Path, *options: str) -> Path:
    """perf.data in `cwd`, of the load above."""
    done = perf("record", "-q", "-N", "-F", "2000", *options, "-o", "perf.data", "--", *LOAD, cwd=cwd)
    require(done.returncode == 0, f"perf record {' '.join(options)} does not work here: {done.stderr.decode()[-300:]}")
    return cwd / "perf.data"


def script(path: Path, fields: str = perf_script.PERF_SCRIPT_FIELDS) -> list[bytes]:
    done = perf(*perf_script.PERF_SCRIPT_COMMAND[1:-1], fields, "-i", str(path), cwd=path.parent)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.splitlines(keepends=True)


@pytest.mark.parametrize(
    "options",
    [
        ["-a", "-e", "cpu-clock"],
        ["-a", "-e", "cpu-clock", "-g"],
        ["-a", "-e", "cpu-clock", "-g", "--kernel-callchains"],
        ["-a", "-e", "cpu-clock", "-e", "task-clock"],
        ["-a", "-e", "cpu-clock", "-g", "-e", "sched:sched_switch"],
        ["-a", "-z", "-e", "cpu-clock", "-g"],
        ["-a", "--threads", "-e", "cpu-clock", "-g"],
        ["-a", "-m", "1", "-e", "cpu-clock", "-g"],
        ["-a", "-e", "cpu-clock", "-d", "--phys-data", "--sample-identifier"],
    ],
    ids=lambda options: " ".join(options[1:]),
)
def test_reads_what_perf_script_prints(tmp_path: Path, options: list[str]) -> None:
    """Addresses, threads, times, CPUs, periods, events, names and chains of every sample."""
    path = record(tmp_path, *options)
    recording = perf_data.read(path)
    text = perf_script.read(script(path))
    assert len(recording.samples.ip) > 100
    assert not recording.decode_errors
    assert not text.decode_errors
    assert_same_samples(recording, text)
    assert recording.parents == text.parents


def test_group_reads_do_not_hide_the_chain(tmp_path: Path) -> None:
    """A group's leader records the counts of all members with each sample. perf script shows one line for each
    member; those of the leader are our samples, but for the period, which it replaces by the count's growth."""
    path = record(tmp_path, "-a", "-e", "{cpu-clock,task-clock}:S", "-g")
    recording = perf_data.read(path)
    assert not recording.decode_errors
    printed = [row for row in rows(perf_script.read(script(path)), chains_only=True) if row[5] == "cpu-clock"]
    read = rows(recording, chains_only=True)
    assert len(read) == len(printed) > 100
    assert [(*row[:4], *row[5:7]) for row in read] == [(*row[:4], *row[5:7]) for row in printed]
    assert sum(row[8] != other[8] for row, other in zip(read, printed, strict=True)) <= len(read) / 100


def test_pipe_gives_the_same(tmp_path: Path) -> None:
    require(shutil.which("perf"), "perf is not installed (package linux-perf)")
    path = tmp_path / "perf.data"
    with path.open("wb") as output:
        command = [
            "perf",
            "record",
            "-q",
            "-N",
            "-a",
            "-g",
            "-F",
            "2000",
            "-e",
            "cpu-clock",
            "-e",
            "task-clock",
            "-o",
            "-",
        ]
        done = subprocess.run(
            [*command, "--", *LOAD], stdout=output, stderr=subprocess.PIPE, env=ENVIRONMENT, check=False, timeout=120
        )
    require(done.returncode == 0, f"perf record to a pipe does not work here: {done.stderr.decode()[-300:]}")
    recording = perf_data.read(path)
    assert len(recording.samples.ip) > 100
    assert {"cpu-clock", "task-clock"} <= {event.name for event in recording.events}
    assert_same_samples(recording, perf_script.read(script(path)))


def test_lost_share_is_the_one_perf_tells(tmp_path: Path) -> None:
    """perf record and report print `lost NN.NN%` of all samples, lost ones included."""
    path = record(tmp_path, "-a", "-m", "1", "-e", "cpu-clock", "-g", "-F", "20000")
    recording = perf_data.read(path)
    total = len(recording.samples.ip) + recording.lost
    told = perf("report", "--stdio", "-i", str(path), cwd=tmp_path).stderr.decode()
    if recording.lost > total / 20:  # below, perf says nothing
        assert f"Processed {total} samples and lost {100 * recording.lost / total:.2f}%" in told


def test_killed_recorder_leaves_what_salvage_reads(tmp_path: Path) -> None:
    """SIGKILL while perf records: the file's data size is still 0."""
    require(shutil.which("perf"), "perf is not installed (package linux-perf)")
    path = tmp_path / "perf.data"
    command = ["perf", "record", "-q", "-N", "-a", "-e", "cpu-clock", "-F", "5000", "-m", "8", "-o", str(path)]
    recorder = subprocess.Popen([*command, "--", "sleep", "1"], env=ENVIRONMENT, stderr=subprocess.PIPE)
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            recorder.wait(0.9)
    finally:
        recorder.kill()
        recorder.communicate()
    with pytest.raises(InputError, match="data size is 0"):
        perf_data.read(path)
    recording = perf_data.read(path, salvage=True)
    assert len(recording.samples.ip) > 100
    assert recording.events[0].name == "cpu-clock"


def test_symbols_of_this_kernel_name_the_sampled_addresses_as_perf_does(tmp_path: Path) -> None:
    symbols_path = Path("/proc/kallsyms")
    require(not symbols_path.read_bytes().startswith(b"0000000000000000 T"), "kallsyms is hidden here (kptr_restrict)")
    symbols = kallsyms.read(symbols_path)
    path = record(tmp_path, "-a", "-e", "cpu-clock")
    lines = [line.split() for line in perf("script", "-F", "ip,sym", "-i", str(path), cwd=tmp_path).stdout.splitlines()]
    pairs = {int(line[0], 16): line[1].decode() for line in lines if len(line) == 2}
    kernel = np.array([address for address in pairs if address >> 63], np.uint64)
    require(len(kernel) > 20, "no kernel samples were taken")
    starts = symbols.addresses[symbols.find(kernel)]
    for address, start in zip(kernel.tolist(), starts.tolist(), strict=True):
        assert start in symbols.addresses_of(pairs[address]) or pairs[address] == "[unknown]"


def test_perf_annotate_of_a_program_of_our_own(tmp_path: Path) -> None:
    """Counts of all instructions add up to the total that the heading tells."""
    require(shutil.which("cc") and shutil.which("objdump"), "no C compiler or objdump (packages gcc, binutils)")
    source = "int main(void) { volatile int x = 0; for (int i = 0; i < 200000000; i++) x += i; return 0; }\n"
    (tmp_path / "loop.c").write_text(source)
    subprocess.run(["cc", "-g", "-O1", "-o", "loop", "loop.c"], cwd=tmp_path, check=True)
    done = perf("record", "-q", "-N", "-e", "cpu-clock", "-F", "999", "-o", "perf.data", "./loop", cwd=tmp_path)
    require(done.returncode == 0, f"perf record does not work here: {done.stderr.decode()[-300:]}")
    text = perf("annotate", "--stdio", "-l", "-n", "-i", "perf.data", "main", cwd=tmp_path)
    annotation = perf_annotate.read(text.stdout.splitlines(keepends=True))
    assert not annotation.decode_errors
    assert sum(instruction.samples or 0 for instruction in annotation.instructions) == annotation.totals["main"] > 0
