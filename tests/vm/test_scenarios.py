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

pytestmark = pytest.mark.vm

SECONDS = 0.3
VERSIONS = ("5.10", "6.1", "6.12", "7.3")


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

    with open_target(f"vm:{version}").session({"/every_scenario.py": script, "/loop.so": library}) as session:
        command = [session.python, session.path("/every_scenario.py"), session.path("/loop.so"), str(SECONDS)]
        completed = session.run(command, timeout=300, on_line=take)
    assert completed.exit_code == 0, "\n".join(output)
    print(table(version, found))
    return found


def table(version: str, found: dict[str, dict[str, Any]]) -> str:
    lines = [f"\n{version:28} calls a second   results"]
    for name, record in found.items():
        load = record["load"] or {"calls": 0, "seconds": 1, "results": "none"}
        lines.append(f"{name:28} {load['calls'] / max(load['seconds'], 0.001):14,.0f}   {load['results']}")
    return "\n".join(lines)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_scenario_fails_as_declared_and_leaves_nothing(version: str, tmp_path: Path) -> None:
    require(shutil.which("qemu-system-x86_64"), "no QEMU")
    require(lab.find(version), f"no {version} kernel in the cache; `whyerrno kernels fetch {version}`")
    kernel = lab.find(version)
    assert kernel is not None
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
