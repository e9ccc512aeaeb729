"""What the recorder writes is what the host reads: names of files, shape of load.json, errors as JSON lines."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from profiler import recording
from profiler.errors import MissingError, UsageError
from profiler.model import LoadResult, from_json
from profiler.record import __main__ as command
from profiler.record import capture, load
from profiler.record.job import Job
from tests.unit.test_record_job import JOB

HEAVY = {"dataclasses", "subprocess", "typing", "pathlib", "inspect", "ctypes", "argparse", "tempfile", "shutil"}


def test_files_have_the_names_of_the_recording_directory() -> None:
    names = ("PERF_DATA", "KALLSYMS", "LOAD", "KERNEL_LOG", "KERNEL_TEXT", "MODULES", "MODULES_TEXT", "CONFIG")
    assert [getattr(capture, name) for name in names] == [getattr(recording, name) for name in names]


def test_a_programs_result_has_the_shape_of_a_load_result() -> None:
    job = Job({**JOB, "scenario": None, "program": ["/bin/sh", "-c", "echo oops >&2; exit 3"]})
    program = load.ProgramLoad(job)
    program.prepare()
    program.release()
    while program.check():
        pass
    result = from_json(LoadResult, program.finish(grace=1.0))
    assert (result.stopped_by, result.results, result.comm) == ("error", {}, "sh")
    assert result.message.endswith("with exit status 3; it said: oops")


def test_a_program_that_runs_on_is_ended_by_time() -> None:
    program = load.ProgramLoad(Job({**JOB, "scenario": None, "program": ["/bin/sleep", "60"]}))
    program.prepare()
    program.release()
    assert program.check()
    assert program.finish(grace=1.0)["stopped_by"] == "time"


def test_a_program_short_of_memory_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    program = load.ProgramLoad(Job({**JOB, "scenario": None, "program": ["/bin/sleep", "60"]}))
    program.prepare()
    program.release()
    monkeypatch.setattr(load, "_available_memory_kb", lambda: 1000)
    assert not program.check()
    assert program.finish(grace=1.0)["stopped_by"] == "memory"


def test_what_loadgen_says_of_an_unknown_scenario_is_passed_on() -> None:
    scenario = load.ScenarioLoad(Job({**JOB, "scenario": "bind-eaddrinus"}), "/nonexistent/load.json")
    with pytest.raises(UsageError, match="no scenario 'bind-eaddrinus'"):
        scenario.prepare()
    scenario.end()


def test_importing_the_recorder_loads_nothing_heavy() -> None:
    """Each of these costs a tenth of a second to a second in an emulated guest."""
    script = "import profiler.record.__main__, profiler.record.capture, profiler.record.job, sys; print(*sys.modules)"
    argv = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(Path.cwd())!r}); {script}"]
    loaded = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    assert "profiler.record.capture" in loaded
    assert HEAVY.isdisjoint(loaded)


def last_line(text: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(text.splitlines()[-1])
    return found


def test_wrong_arguments_are_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 2
    assert last_line(capsys.readouterr().out)["kind"] == "usage"


def test_an_output_directory_that_holds_something_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "job.json").write_text(json.dumps(JOB))
    assert command.main([str(tmp_path / "job.json"), str(tmp_path)]) == 2
    assert "not empty" in last_line(capsys.readouterr().out)["error"]


def test_something_missing_is_told_with_its_hint_and_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise MissingError("no addresses", hint="set kernel.kptr_restrict")

    monkeypatch.setattr("profiler.record.kallsyms.check_shown", refuse)
    (tmp_path / "job.json").write_text(json.dumps(JOB))
    assert command.main([str(tmp_path / "job.json"), str(tmp_path / "out")]) == 5
    told = last_line(capsys.readouterr().out)
    assert told == {"error": "no addresses", "hint": "set kernel.kptr_restrict", "kind": "missing"}
    assert not any((tmp_path / "out").iterdir())
