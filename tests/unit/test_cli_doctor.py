"""The doctor: every check becomes a line, whatever it runs into."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NoReturn

import pytest

from profiler import evidence
from profiler.cli import doctor, main
from profiler.cli.doctor_checks import BOTH, CHECKS, LOCAL, VM, FaultError, Finding, findings
from profiler.errors import MissingError


def raising(error: Exception) -> NoReturn:
    raise error


def test_whatever_a_check_raises_becomes_a_finding_with_its_remedy() -> None:
    """A fault, an error of the project's and one of the operating system are told, and the next check is made."""
    found = list(
        findings(
            (
                ("fault", LOCAL, lambda: raising(FaultError("switched off", "switch it on"))),
                ("missing", VM, lambda: raising(MissingError("no qemu", hint="install qemu"))),
                ("denied", "", lambda: raising(PermissionError(13, "Permission denied", "/proc/kallsyms"))),
                ("good", BOTH, lambda: "all well"),
            )
        )
    )
    assert found == [
        Finding("fault", False, "switched off", "switch it on", LOCAL),
        Finding("missing", False, "no qemu", "install qemu", VM),
        Finding("denied", False, "/proc/kallsyms: Permission denied", "", ""),
        Finding("good", True, "all well", "", BOTH),
    ]


def test_a_target_is_usable_when_all_it_needs_is_here() -> None:
    """What one kind of target lacks does not count against the other; what both need counts against both."""
    found = [Finding("perf", True, "", "", BOTH), Finding("qemu", False, "", "", VM), Finding("kvm", False, "", "", "")]
    assert doctor.works(LOCAL, found)
    assert not doctor.works(VM, found)
    assert not doctor.works(LOCAL, [*found, Finding("compiler", False, "", "", BOTH)])


def test_doctor_tries_everything_here_and_leaves_no_line_out(capsys: pytest.CaptureFixture[str]) -> None:
    """--json has one finding a check, and a remedy or a reason wherever something needed fails."""
    code = main(["doctor", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert [finding["name"] for finding in told["findings"]] == [name for name, _, _ in CHECKS]
    assert all(finding["says"] for finding in told["findings"])
    assert code == (0 if any(told["targets"].values()) else 5)
    assert [rung["name"] for rung in told["rungs"]] == list(evidence.RUNGS)
    assert all(rung["says"] and (rung["ok"] or rung["fix"]) for rung in told["rungs"])


def test_a_line_is_folded_below_itself(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """At 80 columns none is longer, and what to do is marked."""
    monkeypatch.setenv("COLUMNS", "80")
    doctor.print_line(
        "NO", "probes", "this kernel has no kprobes for perf, and so on for longer than that", "use a vm: " * 9
    )
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line[:32].strip() for line in lines] == ["NO  probes                   thi", "lon", "->", ""]


def test_colours_are_left_out_where_nobody_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert doctor.styled("ok", "green") == "\x1b[32mok\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert doctor.styled("ok", "green") == "ok"


def test_a_target_out_of_reach_is_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No rung is told of a host that does not answer, or where there is no ssh."""
    (tmp_path / "config").write_text("Host toy\n  HostName 127.0.0.1\n  Port 1\n")
    monkeypatch.setenv("WHYERRNO_SSH_CONFIG", str(tmp_path / "config"))
    assert main(["doctor", "ssh:toy"]) in (1, 5)
    told = capsys.readouterr()
    assert not told.out
    assert "toy is out of reach" in told.err or "the program ssh is not on this machine" in told.err


def test_a_target_that_does_not_exist_is_a_usage_error() -> None:
    assert main(["doctor", "sssh:toy"]) == 2
