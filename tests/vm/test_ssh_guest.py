"""An ssh target whose kernel has all that tracing needs: a stock kernel in a guest, with a real sshd in it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from profiler.cli import main
from profiler.errors import MissingError
from profiler.target import open_target
from profiler.target.ssh_connection import CONFIG_VARIABLE
from tests.vm.ssh_guest import Reached, serving

pytestmark = pytest.mark.vm

# An emulated guest on a busy machine drowns in the interrupts of thousands a second: its clock is the machine's here.
GENTLY = ("--frequency", "1000")
TRACEFS = "/sys/kernel/tracing"
STATE = (
    f"cd {TRACEFS}; cat current_tracer tracing_on set_graph_function kprobe_events set_event; ls instances; "
    "cat /proc/sys/kernel/printk; find /tmp /dev/shm /var/tmp -mindepth 1; ls /run | grep -v command-"
)


@pytest.fixture(scope="module")
def reached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reached]:
    with serving("6.1", tmp_path_factory.mktemp("ssh")) as guest:
        yield guest


@pytest.fixture(autouse=True)
def config(reached: Reached, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONFIG_VARIABLE, str(reached.ssh_config()))


@pytest.fixture(autouse=True)
def nothing_is_left(reached: Reached, config: None) -> Iterator[None]:
    """Whatever a test does, the host is afterwards as it was before."""
    before = state(reached)
    yield
    deadline = time.monotonic() + 60
    while state(reached) != before and time.monotonic() < deadline:
        time.sleep(1)
    assert state(reached) == before


def state(reached: Reached) -> str:
    return reached.guest.run(["sh", "-c", STATE], timeout=300).output


def in_guest(reached: Reached, script: str) -> str:
    done = reached.guest.run(["sh", "-c", script], timeout=300)
    assert done.exit_code == 0, done.output
    return done.output


def test_every_rung_but_the_emulators_log_works_there(capsys: pytest.CaptureFixture[str]) -> None:
    """Each tried on that kernel, and its debug information found here."""
    assert main(["doctor", "ssh:toy", "--json"]) == 0
    told = {rung["name"]: rung for rung in json.loads(capsys.readouterr().out)["rungs"]}
    assert {name for name, rung in told.items() if not rung["ok"]} - {"man"} == {"exact"}, told
    assert "function_graph traced 3 calls" in told["graph"]["says"]
    assert "a kprobe counted 3 calls" in told["probes"]["says"]


def run(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    argv = ["run", "--target", "ssh:toy", "-o", str(tmp_path / "run"), "--no-report", "-q", *GENTLY, *arguments]
    assert main(argv) == 0
    analysis: dict[str, Any] = json.loads((tmp_path / "run/analysis.json").read_text())
    return analysis


def test_a_scenario_is_named_from_samples_and_probes(tmp_path: Path) -> None:
    """As in a guest of this machine's own: function, branch and the rungs that say so."""
    analysis = run(tmp_path, "--scenario", "bind-eaddrinuse", "--evidence", "samples,probes")
    assert analysis["conclusion"] == "named"
    assert analysis["error_site"]["function"] == "inet_csk_get_port"
    states = {note["source"]: note["state"] for note in analysis["evidence"]}
    assert states["samples"] == states["probes"] == "taken", states
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert (manifest["target"], manifest["emulated"]) == ("ssh:toy", True)


def test_a_program_of_the_hosts_own_is_looked_up_there(tmp_path: Path) -> None:
    script = "while :; do cd /nonexistent 2>/dev/null; done"
    argv = ["--syscall", "chdir", "--errno", "ENOENT", "--evidence", "samples", "--", "sh", "-c", script]
    assert main(["run", "--target", "ssh:toy", "-o", str(tmp_path / "run"), "--no-report", "-q", *GENTLY, *argv]) in (
        0,
        3,
    )
    load = json.loads((tmp_path / "run/load.json").read_text())
    assert load["results"]["ENOENT"] > 100


def test_a_user_who_is_not_root_is_told(reached: Reached, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no sudo in the guest, and the sysctl forbids what would do instead."""
    in_guest(reached, "echo 2 >/proc/sys/kernel/perf_event_paranoid")
    monkeypatch.setenv(CONFIG_VARIABLE, str(reached.ssh_config(user="nobody")))
    try:
        with (
            pytest.raises(MissingError, match="nobody is not root on toy, and there is no sudo"),
            open_target("ssh:toy").session({}),
        ):
            pass
    finally:
        in_guest(reached, "echo -1 >/proc/sys/kernel/perf_event_paranoid")


def test_a_connection_lost_while_recording_leaves_the_host_as_it_was(
    reached: Reached, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The recorder there switches off what it switched on, and the run here ends with an error."""

    def cut() -> None:
        for _ in range(240):
            if "perf" in in_guest(reached, "cat /proc/[0-9]*/comm 2>/dev/null; true"):  # processes end meanwhile
                in_guest(reached, "kill $(ps | grep '[s]shd: root@' | awk '{print $1}')")
                return
            time.sleep(0.5)

    cutting = threading.Thread(target=cut)
    cutting.start()
    argv = ["--scenario", "openat-enoent", "--evidence", "samples", "--seconds", "60", "--confidence", "1"]
    code = main(["run", "--target", "ssh:toy", "-o", str(tmp_path / "run"), "--no-report", "-q", *GENTLY, *argv])
    cutting.join()
    assert code == 1
    assert "the connection to toy was lost during" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
