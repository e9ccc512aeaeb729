"""Every scenario on every kernel version: fails with its errno alone where its declaration says so, and only there.

One boot a kernel; the table of calls is printed (pytest -s).
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from loadgen.build import loop_library
from loadgen.scenarios import SCENARIOS
from profiler import lab
from profiler.target import open_target
from tests.conftest import require
from tests.vm.kernels import VERSIONS, kernel_of

pytestmark = pytest.mark.vm

SECONDS = 0.3


def outcomes(version: str, cache: Path) -> dict[str, dict[str, Any]]:
    """Scenario name → what every_scenario.py printed of it, on a freshly booted kernel."""
    library = loop_library(cache)
    script = Path(__file__).with_name("every_scenario.py")
    found: dict[str, dict[str, Any]] = {}
    output: list[str] = []

    def take(line: str) -> None:
        output.append(line)
        if line.startswith("{"):
            record = json.loads(line)
            found[record["name"]] = record

    modules = dict(wanted_modules(version))
    files = {"/every_scenario.py": script, "/loop.so": library}
    files |= {f"/modules/{name}.ko": path for name, path in modules.items()}
    with open_target(f"vm:{version}").session(files) as session:
        for name in modules:
            assert session.run(["insmod", f"/modules/{name}.ko"], timeout=60).exit_code == 0, name
        command = [session.python, session.path("/every_scenario.py"), session.path("/loop.so"), str(SECONDS)]
        completed = session.run(command, timeout=600, on_line=take)
    assert completed.exit_code == 0, "\n".join(output)
    print(table(version, found))
    return found


def wanted_modules(version: str) -> list[tuple[str, Path]]:
    """What the scenarios want loaded, each after what it needs itself."""
    names = tuple(dict.fromkeys(name for each in SCENARIOS.values() for name in each.modules))
    return lab.loadable_modules(kernel_of(version), names, lambda phase, fraction: None)


def table(version: str, found: dict[str, dict[str, Any]]) -> str:
    lines = [f"\n{version:28} calls a second   results"]
    for name, record in found.items():
        load = record["load"] or {"calls": 0, "seconds": 1, "results": "none"}
        lines.append(f"{name:28} {load['calls'] / max(load['seconds'], 0.001):14,.0f}   {load['results']}")
    return "\n".join(lines)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_scenario_fails_as_declared_and_leaves_nothing(version: str, tmp_path: Path) -> None:
    require(shutil.which("qemu-system-x86_64"), "no QEMU")
    kernel = kernel_of(version)
    found = outcomes(version, tmp_path)
    assert set(found) == set(SCENARIOS)
    wrong = {name: record for name, record in found.items() if not as_declared(name, record, kernel.release)}
    assert wrong == {}
    assert {name: record["left"] for name, record in found.items() if record["left"]} == {}


def as_declared(name: str, record: dict[str, Any], release: str) -> bool:
    if record["exit_code"] != 0:
        return False
    load = record["load"]
    if SCENARIOS[name].fails_on(release):
        return set(load["results"]) == {SCENARIOS[name].errno} and load["stopped_by"] == "time"
    return SCENARIOS[name].errno not in load["results"]


def test_the_loop_stops_before_it_has_eaten_the_memory(tmp_path: Path) -> None:
    """The kernel log then holds no word of the OOM killer, and the load lives to say why it stopped."""
    require(shutil.which("qemu-system-x86_64"), "no QEMU")
    kernel_of("6.1")
    library = loop_library(tmp_path)
    script = Path(__file__).with_name("memory_guard.py")
    with open_target("vm:6.1").session({"/memory_guard.py": script, "/loop.so": library}) as session:
        command = [session.python, session.path("/memory_guard.py"), session.path("/loop.so")]
        completed = session.run(command, timeout=120)
        kernel_log = session.run(["dmesg"], timeout=20).output
    assert completed.exit_code == 0, completed.output
    seen = json.loads(completed.output)
    assert seen["stopped_by"] == "memory"
    assert seen["calls"] > 500  # of a megabyte each: it did come near the end
    assert "Out of memory" not in kernel_log
