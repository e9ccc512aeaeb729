"""perf is found, asked and judged: by small programs that answer as real ones did."""

import os
import struct
from pathlib import Path

import pytest

from profiler.errors import MissingError, RecordError
from profiler.record import perf
from profiler.record.perf import PerfRecord

# Answers "enable" on the --control descriptors as perf does, then waits for SIGINT and writes a file.
GOOD = """\
trap 'cp {whole} {output}; exit 0' INT
for word; do case $word in --control=fd:*) fds=${{word#--control=fd:}};; esac; done
read command </dev/fd/${{fds%,*}}
echo ack >/dev/fd/${{fds#*,}}
while :; do sleep 0.05; done
"""

# The words of perf 6.1.187.
REFUSED = """\
Error:
Access to performance monitoring and observability operations is limited.
Consider adjusting /proc/sys/kernel/perf_event_paranoid setting to open
access to performance monitoring and observability operations for processes
without CAP_PERFMON, CAP_SYS_PTRACE or CAP_SYS_ADMIN Linux capability."""


def program(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}")
    path.chmod(0o755)
    return str(path)


def whole_file(path: Path, *, data_size: int = 8) -> Path:
    header = b"PERFILE2" + struct.pack("=QQ QQ QQ QQ", 104, 136, 104, 0, 104, data_size, 0, 0)
    path.write_bytes(header.ljust(104, b"\0") + b"12345678")
    return path


def recorder(tmp_path: Path, script: str) -> PerfRecord:
    return PerfRecord(
        program(tmp_path / "perf", script), event="cpu-clock", frequency=8000, output=str(tmp_path / "perf.data")
    )


def good_script(tmp_path: Path) -> str:
    return GOOD.format(whole=whole_file(tmp_path / "whole"), output=tmp_path / "perf.data")


def test_the_first_perf_on_an_absolute_path_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "perf").mkdir()
    (tmp_path / "bin").mkdir()
    found = program(tmp_path / "bin" / "perf", "exit 0\n")
    monkeypatch.setenv("PATH", f".::{tmp_path}:{tmp_path}/bin")
    assert perf.find_perf() == found


def test_an_absent_perf_is_missing_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError) as caught:
        perf.find_perf()
    assert "linux-perf" in caught.value.hint


def test_perf_tells_its_version(tmp_path: Path) -> None:
    for version in ("6.1.187", "5.9.gbbf5c979011a", "6.12.94", "7", "unknown"):
        assert perf.perf_version(program(tmp_path / "perf", f"echo perf version {version}\n")) == version
    with pytest.raises(MissingError, match=r"perf 3\.16\.7 is too old"):
        perf.perf_version(program(tmp_path / "perf", "echo perf version 3.16.7\n"))


def test_a_wrapper_without_a_perf_for_this_kernel_is_missing(tmp_path: Path) -> None:
    """Ubuntu's /usr/bin/perf is such a wrapper."""
    wrapper = program(tmp_path / "perf", "echo 'WARNING: perf not found for kernel 6.8.0-40' >&2; exit 2\n")
    with pytest.raises(MissingError, match="not found for kernel"):
        perf.perf_version(wrapper)


def test_an_event_that_was_asked_for_is_not_tried(tmp_path: Path) -> None:
    assert perf.choose_event("/nonexistent/perf", "cycles:pp", str(tmp_path)) == "cycles:pp"


def test_a_machine_without_a_pmu_takes_the_clock(tmp_path: Path) -> None:
    for name in ("breakpoint", "software", "tracepoint", "msr"):
        (tmp_path / name).mkdir()
    assert not perf._has_cpu_pmu(str(tmp_path))


def test_a_pmu_is_known_by_its_event_of_cycles(tmp_path: Path) -> None:
    (tmp_path / "armv8_pmuv3_0" / "events").mkdir(parents=True)
    (tmp_path / "armv8_pmuv3_0" / "events" / "cpu_cycles").touch()
    assert perf._has_cpu_pmu(str(tmp_path))


TRIALS = [
    ("echo '[ perf record: Captured and wrote 0.018 MB x (31 samples) ]'", "cycles:P", "cycles:P"),
    ("echo '[ perf record: Captured and wrote 0.018 MB x (31 samples) ]'", "cpu-clock", "cpu-clock"),
    ("echo '[ perf record: Captured and wrote 0.001 MB x ]'", "cycles:P", "cpu-clock"),
    ("exit 255", "", "cpu-clock"),
]


@pytest.mark.parametrize(("recorded", "listed", "chosen"), TRIALS, ids=["works", "falls back", "never counts", "fails"])
def test_cycles_are_taken_only_where_a_trial_gave_samples_of_cycles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: str, listed: str, chosen: str
) -> None:
    fake = program(tmp_path / "perf", f"case $1 in record) {recorded};; evlist) echo {listed};; esac\n")
    monkeypatch.setattr(perf, "_has_cpu_pmu", lambda: True)
    assert perf.choose_event(fake, "auto", str(tmp_path)) == chosen


def test_a_recording_starts_when_perf_answers_and_stops_with_a_whole_file(tmp_path: Path) -> None:
    recording = recorder(tmp_path, good_script(tmp_path))
    recording.start()
    assert recording.alive()
    recording.stop()
    assert not recording.alive()
    assert (tmp_path / "perf.data").is_file()


def test_a_flag_that_an_older_perf_does_not_know_is_left_out(tmp_path: Path) -> None:
    refuse = """case "$*" in *--synth=*) echo 'Error: unknown option `synth=task'"'" >&2; exit 129;; esac\n"""
    recording = recorder(tmp_path, refuse + good_script(tmp_path))
    recording.start()
    recording.stop()
    assert recording.dropped_flags == ["--synth=task"]
    assert "--buildid-all" in recording.argv


def test_a_buffer_that_is_not_permitted_is_left_to_perf(tmp_path: Path) -> None:
    refuse = """case "$*" in *' -m '*) echo 'Permission error mapping pages.' >&2; exit 255;; esac\n"""
    recording = recorder(tmp_path, refuse + good_script(tmp_path))
    recording.start()
    recording.stop()
    assert recording.dropped_flags == ["-m"]


def test_a_perf_without_control_is_too_old(tmp_path: Path) -> None:
    recording = recorder(tmp_path, """echo 'Error: unknown option `control=fd:3,4'"'" >&2; exit 129\n""")
    with pytest.raises(MissingError, match="too old"):
        recording.start()


def test_a_refusal_names_the_sysctl_and_the_capability(tmp_path: Path) -> None:
    recording = recorder(tmp_path, f"cat >&2 <<'END'\n{REFUSED}\nEND\nexit 255\n")
    with pytest.raises(MissingError, match=r"perf_event_paranoid is -?[0-9]") as caught:
        recording.start()
    assert "CAP_PERFMON" in caught.value.hint


def test_a_full_disk_is_reported_as_one(tmp_path: Path) -> None:
    script = good_script(tmp_path).replace(
        "exit 0", 'echo "failed to write perf data, error: No space left on device" >&2; exit 255'
    )
    recording = recorder(tmp_path, script)
    recording.start()
    with pytest.raises(RecordError, match="disk is full"):
        recording.stop()


def test_an_unknown_event_is_reported_in_perfs_words(tmp_path: Path) -> None:
    recording = recorder(tmp_path, "echo \"event syntax error: 'nonsense'\" >&2; exit 129\n")
    with pytest.raises(RecordError, match="event syntax error"):
        recording.start()


def test_data_of_size_zero_is_a_recorder_that_was_killed(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cut off"):
        perf.check_whole(str(whole_file(tmp_path / "perf.data", data_size=0)))


def test_data_shorter_than_its_header_says_is_cut_off(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="9 bytes of data announced at 104, 112 bytes in all"):
        perf.check_whole(str(whole_file(tmp_path / "perf.data", data_size=9)))


@pytest.mark.parametrize("content", [b"", b"PERFILE2", b"x" * 200])
def test_a_file_without_a_header_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "perf.data").write_bytes(content)
    with pytest.raises(RecordError, match="without a header"):
        perf.check_whole(str(tmp_path / "perf.data"))


def test_perf_hears_nothing_of_the_users_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEBUGINFOD_URLS", "https://example.invalid")
    monkeypatch.setenv("PERF_CONFIG", "/somewhere")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    found = perf.environment()
    assert (found["DEBUGINFOD_URLS"], found["PERF_CONFIG"], found["LC_ALL"]) == ("", "/dev/null", "C")
    assert found["PATH"] == os.environ["PATH"]
