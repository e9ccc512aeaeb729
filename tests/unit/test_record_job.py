"""A job file is accepted with what it must say, and refused with the reason otherwise."""

import json
from pathlib import Path

import pytest

from profiler.errors import UsageError
from profiler.record.job import Job, read_job

JOB: dict[str, object] = {
    "syscall": "bind",
    "syscall_number": 49,
    "errno": "EADDRINUSE",
    "errno_number": 98,
    "scenario": "bind-eaddrinuse",
    "program": [],
    "seconds": 10,
    "frequency": 8000,
    "event": "auto",
    "loop_library": "/whyerrno/loop.so",
    "kernel_text": True,
}


def test_a_scenario_job_keeps_what_was_asked(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    path.write_text(json.dumps(JOB))
    job = read_job(str(path))
    assert (job.scenario, job.program, job.syscall_number, job.seconds) == ("bind-eaddrinuse", [], 49, 10)


def test_a_program_job_may_leave_the_scenario_null() -> None:
    job = Job({**JOB, "scenario": None, "program": ["./repro", "5"]})
    assert (job.scenario, job.program) == ("", ["./repro", "5"])


def test_a_job_may_be_for_a_replay_alone_and_have_looks() -> None:
    assert Job({**JOB, "seconds": 0, "replay_seconds": 20}).seconds == 0
    assert Job({**JOB, "looks": [2, 3.5]}).looks == [2, 3.5]
    assert (Job(JOB).replay_seconds, Job(JOB).looks) == (0, [])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seconds": "10"}, "seconds"),
        ({"seconds": True}, "seconds"),
        ({"seconds": float("nan")}, "seconds"),
        ({"frequency": 0}, "frequency"),
        ({"seconds": 0}, "sampling, or of replay"),
        ({"replay_seconds": -1}, "replay_seconds"),
        ({"looks": [3, 2]}, "looks"),
        ({"looks": [0]}, "looks"),
        ({"looks": "2"}, "looks"),
        ({"errno_number": -98}, "errno_number"),
        ({"syscall": ""}, "syscall"),
        ({"errno": None}, "errno"),
        ({"program": "./repro"}, "program"),
        ({"scenario": None, "program": ["a\0b"]}, "program"),
        ({"program": ["./repro"]}, "not both"),
        ({"scenario": None}, "either"),
        ({"event": "--filter=x"}, "event"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        Job({**JOB, **change})


@pytest.mark.parametrize("content", ["", "[]", "{", "3"])
def test_a_file_that_is_no_job_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "job.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"job\.json"):
        read_job(str(path))


def test_an_absent_job_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_job(str(tmp_path / "absent.json"))
