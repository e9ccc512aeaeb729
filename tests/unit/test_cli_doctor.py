"""The doctor: every check becomes a line, whatever it runs into."""

from __future__ import annotations

import json
from typing import NoReturn

import pytest

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
