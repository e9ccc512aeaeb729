"""whyerrno graph on real kernels: the example of the method, a program of one's own, every variant that succeeds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loadgen.build import loop_library
from loadgen.scenarios import SCENARIOS
from profiler.target import open_target
from tests import truth
from tests.conftest import require
from tests.vm.kernels import VERSIONS, kernel_of

pytestmark = pytest.mark.vm

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "profiler.cli", "graph"]
# Calls that succeed every third time.
NOW_AND_THEN = """
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>
int main(void)
{
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(4711)};
    int taken = socket(AF_INET, SOCK_STREAM, 0);
    bind(taken, (struct sockaddr *)&here, sizeof here);
    for (;;) {
        for (int port = 4711; port < 4714; port++) {
            int one = socket(AF_INET, SOCK_STREAM, 0);
            here.sin_port = htons(port == 4713 ? 4713 : 4711);
            bind(one, (struct sockaddr *)&here, sizeof here);
            close(one);
        }
    }
}
"""


def whyerrno_graph(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=590, check=False)


@pytest.mark.parametrize(("version", "reached"), [("5.10", "__get_free_pages"), ("7.3", "io_create_region")])
def test_the_example_of_the_method(version: str, reached: str, tmp_path: Path) -> None:
    """io_uring_setup() fails with ENOMEM in a small cgroup: both trees, where they part, and what that rules out; the
    place that is to blame is never among it."""
    require(shutil.which("qemu-system-x86_64"), "no QEMU")
    kernel = kernel_of(version)
    done = whyerrno_graph("io-uring-setup-enomem", "--target", f"vm:{version}", "--json", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    comparison = result["comparison"]
    assert comparison["failing_calls"] > 1
    assert comparison["succeeding_calls"] > 1
    assert comparison["told_by"] == "what each call returned"
    called = {(line["function"], line["failing"], line["succeeding"]) for line in comparison["lines"]}
    assert ("__x64_sys_io_uring_setup", True, True) in called
    assert ("io_ring_ctx_wait_and_kill", True, False) in called
    assert (reached, True, True) in called
    assert "io_ring_ctx_wait_and_kill()" in comparison["divergence"]
    out = [one for one in result["candidates"] if one["excluded_by"] == "graph"]
    assert len(out) > len(result["candidates"]) / 2
    assert all(one["reason"] for one in out)
    right = truth.load("io-uring-setup-enomem")[kernel.package_version]
    assert not [one for one in out if any(site.holds(one["site"]) for site in right.sites)]
    assert (tmp_path / "out" / "graph-0.txt").stat().st_size > 10_000
    assert json.loads((tmp_path / "out" / "graph.json").read_text()) == result


def test_a_program_that_succeeds_now_and_then_is_its_own_comparison(tmp_path: Path) -> None:
    """Two calls fail, one succeeds, and so on: one trace holds both sides."""
    require(shutil.which("cc"), "no C compiler")
    kernel_of("6.1")
    source, program = tmp_path / "now.c", tmp_path / "now"
    source.write_text(NOW_AND_THEN)
    subprocess.run(["cc", "-O2", "-static", "-o", program, source], check=True)
    done = whyerrno_graph("--syscall", "bind", "--errno", "EADDRINUSE", "--target", "vm:6.1", "--", program)
    assert done.returncode == 0, done.stderr
    head = done.stdout[: done.stdout.index("__x64_sys_bind")]
    assert "failing calls and" in " ".join(head.split())
    assert "inet_csk_get_port()" in done.stdout[done.stdout.index("They part") :]
    assert "Still possible" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    assert "\x1b" not in done.stdout


def test_a_call_that_never_comes_to_its_code_says_so() -> None:
    """A seccomp filter refuses getppid() before that is entered."""
    kernel_of("6.1")
    done = whyerrno_graph("getppid-eperm", "--target", "vm:6.1", "--quiet")
    assert done.returncode == 1
    assert "no whole call of __x64_sys_getppid" in done.stderr
    assert "seccomp" in done.stderr


def outcomes(version: str, cache: Path) -> dict[str, dict[str, Any]]:
    """Scenario name → what every_scenario.py printed of its variant that succeeds."""
    library = loop_library(cache)
    script = Path(__file__).with_name("every_scenario.py")
    found: dict[str, dict[str, Any]] = {}

    def take(line: str) -> None:
        if line.startswith("{"):
            record = json.loads(line)
            found[record["name"]] = record

    with open_target(f"vm:{version}").session({"/every_scenario.py": script, "/loop.so": library}) as session:
        script_there, library_there = session.path("/every_scenario.py"), session.path("/loop.so")
        command = [session.python, script_there, library_there, "0.3", "success"]
        completed = session.run(command, timeout=580, on_line=take)
    assert completed.exit_code == 0, completed.output
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_every_variant_that_succeeds_does_and_leaves_nothing(version: str, tmp_path: Path) -> None:
    require(shutil.which("qemu-system-x86_64"), "no QEMU")
    kernel_of(version)
    found = outcomes(version, tmp_path)
    assert set(found) == {name for name, each in SCENARIOS.items() if each.success is not None}
    wrong = {
        name: record
        for name, record in found.items()
        if record["exit_code"] != 0 or set(record["load"]["results"]) != {"0"} or record["left"]
    }
    assert wrong == {}
