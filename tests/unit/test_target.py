"""Targets: specifications, this machine as a target, and what recording here needs."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from profiler import lab
from profiler.errors import MissingError, TargetError, UsageError
from profiler.model import Kernel
from profiler.target import checks, local, open_target


@pytest.mark.parametrize("spec", ["locale", "", "vm:", "vm", "ssh", "ss:host"])
def test_an_unknown_target_is_a_usage_error_that_names_the_kinds(spec: str) -> None:
    with pytest.raises(UsageError, match="targets are local, vm:VERSION, vm:PATH and ssh:"):
        open_target(spec)


def test_the_nearest_target_is_suggested(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="did you mean local"):
        open_target("loca")
    monkeypatch.setattr(lab, "list_cached", lambda: [Kernel("6.1.0-56-cloud-amd64", "6.1.192-2", "", "x86_64")])
    with pytest.raises(UsageError, match=r"did you mean vm:6\.1"):
        open_target("vm6.1")


def test_a_version_that_is_not_here_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel("6.9.1-cloud-amd64", "6.9.1-1", "ab", "x86_64", image=Path("/k"))
    asked: list[str] = []
    monkeypatch.setattr(lab, "find", lambda version: None)
    monkeypatch.setattr(lab, "fetch", lambda version, progress: asked.append(version) or kernel)
    assert open_target("vm:6.9").kernel() == kernel
    assert asked == ["6.9"]


def test_this_machines_kernel_is_described_as_far_as_it_is_known() -> None:
    kernel = open_target("local").kernel()
    assert kernel is not None
    assert kernel.release == Path("/proc/sys/kernel/osrelease").read_text().strip()
    assert kernel.vmlinux is None or kernel.build_id


@pytest.fixture
def session(tmp_path: Path) -> local.LocalSession:
    (tmp_path / "work").mkdir()
    return local.LocalSession(tmp_path / "work", {"/work/data": tmp_path / "data"})


def test_a_local_command_runs_in_the_working_directory_with_our_packages(session: local.LocalSession) -> None:
    script = "import os, loadgen, profiler.model; print(os.getcwd())"
    assert session.run([session.python, "-c", script], timeout=60).output.strip() == session.workdir


def test_a_local_deadline_is_a_target_error(session: local.LocalSession) -> None:
    with pytest.raises(TargetError, match="did not end within"):
        session.run(["sleep", "60"], timeout=0.2)


def test_a_file_of_this_machine_stays_where_it_is(session: local.LocalSession, tmp_path: Path) -> None:
    assert session.path("/work/data") == str(tmp_path / "data")


def test_local_files_and_trees_are_copied_both_ways(session: local.LocalSession, tmp_path: Path) -> None:
    (tmp_path / "tree/deep").mkdir(parents=True)
    (tmp_path / "tree/deep/file").write_text("x")
    session.put(tmp_path / "tree", "copied")
    session.get("copied", tmp_path / "back")
    assert (tmp_path / "back/deep/file").read_text() == "x"
    with pytest.raises(TargetError, match="was not made"):
        session.get("absent", tmp_path / "absent")


def test_this_machines_kernel_has_no_exact_replay(session: local.LocalSession) -> None:
    assert not session.replays
    with pytest.raises(MissingError, match="needs a kernel in a virtual machine") as caught:
        session.execution_log(seconds=1)
    assert "--evidence samples" in caught.value.hint


class Machine:
    """A machine with chosen sysctls and capabilities."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, sysctls: dict[str, int], capabilities: set[int]) -> None:
        monkeypatch.setattr(checks, "_sysctl", sysctls.get)
        monkeypatch.setattr(checks, "has_capability", capabilities.__contains__)


@pytest.mark.parametrize(
    ("paranoid", "capabilities", "may"),
    [(2, set(), False), (0, set(), False), (-1, set(), True), (3, {38}, True), (3, {21}, True)],
)
def test_recording_needs_a_capability_or_a_low_paranoia(
    monkeypatch: pytest.MonkeyPatch, paranoid: int, capabilities: set[int], may: bool
) -> None:
    Machine(monkeypatch, {"kernel/perf_event_paranoid": paranoid}, capabilities)
    error = checks.may_record()
    assert (error is None) == may
    if error:
        assert "sudo sysctl kernel.perf_event_paranoid=-1" in str(error)
        assert error.exit_code == 5


@pytest.mark.parametrize(
    ("restrict", "paranoid", "capabilities", "remedy"),
    [
        (0, 1, set(), ""),
        (0, 2, set(), "run as root, or: sudo sysctl kernel.perf_event_paranoid=1;"),
        (1, 1, set(), "run as root, or: sudo sysctl kernel.kptr_restrict=0;"),
        (1, 2, set(), "run as root, or: sudo sysctl kernel.kptr_restrict=0 kernel.perf_event_paranoid=1;"),
        (1, 2, {34}, ""),
        (2, -1, {34}, "(sudo sysctl kernel.kptr_restrict=0;"),
    ],
)
def test_the_settings_that_hide_symbols_are_named(
    monkeypatch: pytest.MonkeyPatch, restrict: int, paranoid: int, capabilities: set[int], remedy: str
) -> None:
    sysctls = {"kernel/kptr_restrict": restrict, "kernel/perf_event_paranoid": paranoid}
    Machine(monkeypatch, sysctls, capabilities)
    error = checks.sees_symbols()
    assert (error is None) == (not remedy)
    assert remedy in str(error)


def test_a_missing_perf_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.shutil, "which", lambda name: None)
    error = checks.perf_present()
    assert isinstance(error, MissingError)
    assert "linux-perf" in str(error)
    with pytest.raises(MissingError, match="perf is not on this machine"):
        checks.require_all()


def test_capabilities_are_read_from_the_effective_set(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "Name:\tx\nCapPrm:\tffffffffffffffff\nCapEff:\t0000004000000000\n"
    monkeypatch.setattr(checks.Path, "read_text", lambda self, **options: io.StringIO(text).read())
    assert checks.has_capability(38)
    assert not checks.has_capability(21)
