"""Control files of tracefs are read and written with errors that say what to do, and put back as they were."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from profiler.errors import MissingError, RecordError
from profiler.record import journal, tracefs


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Plain files where tracefs has its control files; its own behaviour is tested in guests."""
    root = tmp_path / "tracing"
    (root / "instances").mkdir(parents=True)
    (root / "current_tracer").write_text("nop\n")
    monkeypatch.setattr(tracefs, "ROOTS", (str(tmp_path / "absent"), str(root)))
    monkeypatch.setattr(journal, "RUN", str(tmp_path / "run"))
    return root


def refuse(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let every writing fail as the kernel makes it fail."""

    def open_refused(path: str, flags: int) -> int:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(tracefs.os, "open", open_refused)


def test_the_root_is_where_instances_are(root: Path) -> None:
    assert tracefs.find() == str(root)


def test_a_file_is_replaced_or_added_to(root: Path) -> None:
    tracefs.write(f"{root}/current_tracer", "function\n")
    tracefs.write(f"{root}/current_tracer", "more", add=True)
    assert tracefs.read(f"{root}/current_tracer") == "function\nmore"
    tracefs.write(f"{root}/current_tracer", "")
    assert tracefs.read(f"{root}/current_tracer") == ""


@pytest.mark.parametrize("name", tracefs.SHARED)
def test_what_holds_everybodys_probes_is_never_truncated(root: Path, name: str) -> None:
    (root / name).write_text("p:theirs/p0 vfs_read\n")
    with pytest.raises(ValueError, match="others"):
        tracefs.write(f"{root}/{name}", "")
    assert (root / name).read_text() == "p:theirs/p0 vfs_read\n"


def test_an_absent_file_is_what_the_kernel_is_built_without(root: Path) -> None:
    for use in (tracefs.read, lambda path: tracefs.write(path, "1")):
        with pytest.raises(MissingError, match="set_graph_function") as told:
            use(f"{root}/set_graph_function")
        assert told.value.hint == "this kernel is built without it"


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES])
def test_a_refusal_under_lockdown_names_it(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    (tmp_path / "lockdown").write_text("none [integrity] confidentiality\n")
    monkeypatch.setattr(tracefs, "LOCKDOWN", str(tmp_path / "lockdown"))
    refuse(monkeypatch, number)
    with pytest.raises(MissingError) as told:
        tracefs.write(f"{root}/current_tracer", "nop")
    assert "locked down (integrity)" in told.value.hint


def test_a_refusal_without_lockdown_asks_for_root(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lockdown").write_text("[none] integrity confidentiality\n")
    monkeypatch.setattr(tracefs, "LOCKDOWN", str(tmp_path / "lockdown"))
    refuse(monkeypatch, errno.EACCES)
    with pytest.raises(MissingError) as told:
        tracefs.write(f"{root}/current_tracer", "nop")
    assert "root" in told.value.hint


def test_a_read_only_tracefs_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, errno.EROFS)
    with pytest.raises(MissingError) as told:
        tracefs.write(f"{root}/current_tracer", "nop")
    assert "read-only" in told.value.hint


def test_a_busy_file_names_the_tracers_that_are_active(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "instances" / "theirs").mkdir()
    (root / "instances" / "theirs" / "current_tracer").write_text("function_graph\n")
    refuse(monkeypatch, errno.EBUSY)
    with pytest.raises(RecordError) as told:
        tracefs.write(f"{root}/current_tracer", "function")
    assert told.value.hint == "in use: function_graph in instances/theirs"


def test_somebody_elses_tracer_is_refused_by_name(root: Path) -> None:
    (root / "current_tracer").write_text("irqsoff\n")
    with pytest.raises(RecordError, match="irqsoff is active"), tracefs.Whole():
        pass
    assert (root / "current_tracer").read_text() == "irqsoff\n"


def test_what_was_borrowed_is_put_back_in_reverse_order_and_on_record_meanwhile(root: Path) -> None:
    held = {
        "set_ftrace_pid": "no pid\n",
        "set_graph_function": "#### all functions enabled ####\n",
        "tracing_on": "1\n",
    }
    for name, text in held.items():
        (root / name).write_text(text)
    with tracefs.Whole() as whole:
        whole.write("set_ftrace_pid", "17")
        whole.write("set_graph_function", "bind")
        whole.write("tracing_on", "0")
        whole.write("tracing_on", "1\n")
        whole.write("current_tracer", "function_graph")
        assert [what for kind, what in journal._notes.values()] == [
            *([name, text] for name, text in held.items()),
            ["current_tracer", "nop\n"],
        ]
    assert (root / "current_tracer").read_text() == "nop\n"
    assert (root / "set_ftrace_pid").read_text() == ""  # the kernel takes that for "no pid"
    assert (root / "set_graph_function").read_text() == ""
    assert (root / "tracing_on").read_text() == "1\n"
    assert journal._notes == {}


def test_an_instance_has_our_name_and_lasts_as_long_as_it_is_used(root: Path) -> None:
    with tracefs.Instance() as instance:
        assert [path.name for path in (root / "instances").iterdir()] == [f"whyerrno-{os.getpid()}"]
        (root / "instances" / instance.name / "x").write_text("y")
        assert instance.read("x") == "y"
        (root / "instances" / instance.name / "x").unlink()  # rmdir of tracefs takes files along
    assert not list((root / "instances").iterdir())
    assert journal._notes == {}


def test_an_instance_that_cannot_be_made_leaves_no_note(root: Path) -> None:
    (root / "instances" / f"whyerrno-{os.getpid()}").write_text("")
    with pytest.raises(RecordError, match="cannot be made"), tracefs.Instance():
        pass
    assert journal._notes == {}


def test_only_the_probes_of_our_group_are_removed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines as Linux 5.10 and 7.3 list them."""
    lines = "p:whyerrno_7/p0 0x0000000030c151b8 v0=%di:s32\nr10:whyerrno_7/p1 0x0000000030c151b8\n"
    (root / "kprobe_events").write_text(lines + "p:whyerrno_77/p0 vfs_read\np:theirs/p0 vfs_read\n")
    written: list[str] = []
    note_writing: Callable[..., None] = lambda path, text, *, add=False: written.append(text)  # noqa: E731
    monkeypatch.setattr(tracefs, "write", note_writing)
    tracefs.remove_probes("whyerrno_7")
    assert written == ["-:whyerrno_7/p0\n", "-:whyerrno_7/p1\n"]


@pytest.mark.parametrize("group", ["theirs", "whyerrno_7/p0", "whyerrno_7\n-:theirs", ""])
def test_a_group_that_is_not_ours_is_left_alone(root: Path, group: str) -> None:
    with pytest.raises(ValueError, match="not a group of ours"):
        tracefs.remove_probes(group)


def test_functions_cannot_be_traced_where_the_sysctl_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ftrace_enabled").write_text("0\n")
    monkeypatch.setattr(tracefs, "FTRACE_ENABLED", str(tmp_path / "ftrace_enabled"))
    with pytest.raises(MissingError) as told:
        tracefs.check_function_tracing()
    assert told.value.hint == "sysctl kernel.ftrace_enabled=1"
    (tmp_path / "ftrace_enabled").write_text("1\n")
    tracefs.check_function_tracing()
