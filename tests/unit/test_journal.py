"""The journal says what is switched on before it is, and whoever starts next undoes what a killed recorder left."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from profiler.errors import RecordError
from profiler.record import journal, tracefs


@pytest.fixture(autouse=True)
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The journals' directory."""
    monkeypatch.setattr(journal, "RUN", str(tmp_path / "run"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path / "run"


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "rcu_expedited"
    path.write_text("0\n")
    monkeypatch.setitem(journal.SETTINGS, "rcu_expedited", str(path))
    return path


def own(run: Path) -> Path:
    return run / f"{os.getpid()}.json"


def leave(run: Path, notes: list[object], pid: int = 1 << 22, started: int = 1) -> Path:
    """The journal of a recorder that is gone."""
    run.mkdir(mode=0o700, exist_ok=True)
    path = run / f"{pid}.json"
    path.write_text(json.dumps({"pid": pid, "started": started, "notes": notes}))
    return path


def test_a_note_is_on_disk_with_the_process_it_belongs_to_until_it_is_forgotten(run: Path) -> None:
    number = journal.note("instance", "whyerrno-1")
    written = json.loads(own(run).read_text())
    assert written == {
        "pid": os.getpid(),
        "started": journal.started(os.getpid()),
        "notes": [["instance", "whyerrno-1"]],
    }
    journal.forget(number)
    assert not run.exists()


def test_what_cannot_be_undone_is_not_noted() -> None:
    with pytest.raises(ValueError, match="no way to undo"):
        journal.note("reboot", "now")


def test_settings_are_changed_on_record_and_put_back(run: Path, setting: Path) -> None:
    with journal.Changed({"rcu_expedited": "1"}):
        assert setting.read_text() == "1"
        assert json.loads(own(run).read_text())["notes"] == [["setting", ["rcu_expedited", "0"]]]
    assert setting.read_text() == "0"
    assert not run.exists()


def test_a_setting_that_has_its_value_already_is_left_alone(run: Path, setting: Path) -> None:
    with journal.Changed({"rcu_expedited": "0"}):
        assert not run.exists()
    assert setting.read_text() == "0\n"


def test_a_setting_that_is_not_there_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(journal.SETTINGS, "rcu_expedited", str(tmp_path / "absent"))
    assert journal.change("rcu_expedited", "1") is None


def test_everything_still_on_record_is_put_back_at_once(run: Path, setting: Path) -> None:
    journal.change("rcu_expedited", "1")
    assert journal.put_all_back() == []
    assert setting.read_text() == "0"
    assert not run.exists()


def test_the_journal_of_a_recorder_that_is_gone_is_undone_and_removed(run: Path, setting: Path) -> None:
    setting.write_text("1")
    leave(run, [["setting", ["rcu_expedited", "0"]]])
    assert journal.undo_leftovers() == []
    assert setting.read_text() == "0"
    assert not run.exists()


def test_the_journal_of_a_recorder_that_lives_is_left_alone(run: Path, setting: Path) -> None:
    setting.write_text("1")
    path = leave(run, [["setting", ["rcu_expedited", "0"]]], os.getpid(), journal.started(os.getpid()))
    journal.undo_leftovers()
    assert setting.read_text() == "1"
    assert path.exists()


def test_a_process_that_only_has_the_number_of_a_recorder_is_not_taken_for_it(run: Path, setting: Path) -> None:
    setting.write_text("1")
    leave(run, [["setting", ["rcu_expedited", "0"]]], os.getpid(), journal.started(os.getpid()) - 1)
    journal.undo_leftovers()
    assert setting.read_text() == "0"


def test_a_recorder_known_to_be_gone_needs_no_proof(run: Path, setting: Path) -> None:
    setting.write_text("1")
    leave(run, [["setting", ["rcu_expedited", "0"]]], os.getpid(), journal.started(os.getpid()))
    journal.undo_leftovers(ended=os.getpid())
    assert setting.read_text() == "0"


def test_what_could_not_be_undone_stays_for_the_next_and_the_rest_is_done(run: Path, setting: Path) -> None:
    setting.write_text("1")
    path = leave(run, [["setting", ["rcu_expedited", "0"]], ["instance", "somebody-elses"], ["unknown", 1], 7])
    problems = journal.undo_leftovers()
    assert len(problems) == 3
    assert setting.read_text() == "0"
    assert json.loads(path.read_text())["notes"] == [["instance", "somebody-elses"], ["unknown", 1], 7]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"pid": "x", "started": 1, "notes": []}'])
def test_a_damaged_journal_is_removed(run: Path, text: str) -> None:
    leave(run, []).write_text(text)
    assert journal.undo_leftovers() == []
    assert not run.exists()


def test_a_stopped_process_runs_again(run: Path) -> None:
    process = subprocess.Popen(["sleep", "60"])
    started = journal.started(process.pid)
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)
    leave(run, [["stopped", [[process.pid, started], [1 << 22, 1]]]])
    assert journal.undo_leftovers() == []
    assert os.waitpid(process.pid, os.WCONTINUED)[1] == 0xFFFF  # continued
    process.kill()
    process.wait()


def test_a_process_that_got_the_number_of_a_stopped_one_is_not_signalled(run: Path) -> None:
    process = subprocess.Popen(["sleep", "60"])
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)
    leave(run, [["stopped", [[process.pid, journal.started(process.pid) - 1]]]])
    journal.undo_leftovers()
    assert os.waitpid(process.pid, os.WCONTINUED | os.WNOHANG) == (0, 0)
    process.kill()
    process.wait()


def test_a_process_group_that_outlived_its_recorder_is_ended(run: Path) -> None:
    ours = subprocess.Popen(["sleep", "60"], start_new_session=True)
    other = subprocess.Popen(["sleep", "60"], start_new_session=True)
    notes = [[ours.pid, journal.started(ours.pid)], [other.pid, journal.started(other.pid) - 1], [1 << 22, 0]]
    leave(run, [["processes", note] for note in notes])
    assert journal.undo_leftovers() == []
    assert ours.wait(10) == -signal.SIGKILL
    assert other.poll() is None  # it only has the number of one of ours
    other.kill()
    other.wait()


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "instances/x/tracing_on", "events/../../x"])
def test_only_control_files_are_restored(run: Path, name: str) -> None:
    leave(run, [["control", [name, "1"]]])
    assert "not a control file" in journal.undo_leftovers()[0]


@pytest.mark.parametrize("name", ["theirs", "whyerrno-1/../theirs", ""])
def test_only_our_instances_are_removed(run: Path, name: str) -> None:
    leave(run, [["instance", name]])
    assert "not an instance of ours" in journal.undo_leftovers()[0]


def test_notes_are_undone_the_last_first(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    removed: list[str] = []
    monkeypatch.setattr(tracefs, "remove_instance", removed.append)
    leave(run, [["instance", "whyerrno-1"], ["instance", "whyerrno-2"]])
    journal.undo_leftovers()
    assert removed == ["whyerrno-2", "whyerrno-1"]


def test_a_directory_that_others_may_write_is_not_trusted(run: Path, setting: Path, tmp_path: Path) -> None:
    """What stands in a journal is done with the rights of whoever reads it."""
    setting.write_text("1")
    leave(run, [["setting", ["rcu_expedited", "0"]]])
    run.chmod(0o777)
    journal.undo_leftovers()
    assert setting.read_text() == "1"
    number = journal.note("instance", "whyerrno-1")
    assert (tmp_path / f"whyerrno-{os.geteuid()}" / f"{os.getpid()}.json").exists()
    journal.forget(number)


def test_a_link_to_a_directory_is_not_trusted(run: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    run.symlink_to(tmp_path / "real")
    (tmp_path / f"whyerrno-{os.geteuid()}").write_text("")
    with pytest.raises(RecordError, match="no directory for the journal"):
        journal.note("instance", "whyerrno-1")
    journal._notes.clear()


def test_a_process_that_has_ended_has_no_start() -> None:
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert journal.started(process.pid) == 0  # not yet reaped
    process.wait()
    assert journal.started(process.pid) == 0
    assert journal.started(os.getpid()) > 0
