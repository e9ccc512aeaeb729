"""The design's rules on imports and sizes, checked on every module of the tree."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

NOUNS = {
    "profiler.model",
    "profiler.errors",
    "profiler.recording",
    "profiler.graph",
    "profiler.syscalls",
    "profiler.evidence",
}

# Part → the parts of the project it may import besides itself. The longest name that fits a module is its part.
ALLOWED: dict[str, set[str]] = {
    "profiler": set(),
    "profiler.errors": set(),
    "profiler.syscalls": set(),
    "profiler.graph": set(),
    "profiler.evidence": {"profiler.errors"},
    "profiler.model": {"profiler.errors"},
    "profiler.recording": {"profiler.model", "profiler.errors"},
    "profiler.process": {"profiler.errors"},
    # On the target: standard library, and the nouns that are standard library themselves.
    "loadgen": {"profiler.model", "profiler.errors", "profiler.syscalls"},
    "profiler.record": {"profiler.model", "profiler.errors", "profiler.syscalls"},
    # The working packages know the nouns and not each other; pipeline hands one's result to the next.
    "profiler.parse": NOUNS,
    "profiler.debuginfo": NOUNS,
    "profiler.infer": NOUNS,
    "profiler.lab": NOUNS | {"profiler.process"},
    # A vm target is a guest of the lab.
    "profiler.target": NOUNS | {"profiler.process", "profiler.lab"},
    "reports": {"profiler.model"},
    "profiler.campaign": NOUNS,
    # Where results meet: from samples, code and walks to one Analysis.
    "profiler.conclude": NOUNS | {"profiler", "profiler.parse", "profiler.debuginfo", "profiler.infer"},
    "profiler.tables": {"profiler.model", "profiler.recording"},
    "profiler.kaslr": NOUNS | {"profiler.debuginfo"},
    "profiler.manual": {"profiler.errors", "profiler.parse", "profiler.lab"},
    # The road: its recording half, and all of it.
    "profiler.request": {"profiler.errors", "profiler.evidence", "profiler", "profiler.lab", "loadgen"},
    "profiler.acquire": NOUNS
    | {"profiler.following", "profiler.request"}
    | {"profiler", "profiler.parse", "profiler.debuginfo", "profiler.target", "profiler.lab", "loadgen"},
    "profiler.case": NOUNS
    | {"profiler", "profiler.kaslr", "profiler.conclude", "profiler.parse", "profiler.debuginfo"}
    | {"profiler.target", "profiler.lab"},
}
ALLOWED["profiler.following"] = ALLOWED["profiler.acquire"] - {"profiler.following"}
ALLOWED["profiler.explain"] = NOUNS | {"profiler.lab", "profiler.debuginfo", "profiler.conclude"}
ALLOWED["profiler.ladder"] = ALLOWED["profiler.case"] | {
    *("profiler.case", "profiler.following", "profiler.request", "profiler.explain", "profiler.infer")
}
ALLOWED["profiler.graph_rung"] = ALLOWED["profiler.ladder"] | {"profiler.acquire", "loadgen"}
ALLOWED["profiler.rungs"] = ALLOWED["profiler.ladder"] | {*("profiler.manual", "profiler.graph_rung")}
ALLOWED["profiler.pipeline"] = ALLOWED["profiler.rungs"] | {
    *("profiler.rungs", "profiler.ladder", "profiler.acquire", "profiler.tables")
}
ALLOWED["profiler.importing"] = ALLOWED["profiler.pipeline"] | {"profiler.pipeline"}
ALLOWED["profiler.cli"] = set(ALLOWED)

STANDARD_LIBRARY_ONLY = (
    "loadgen",
    "profiler.record",
    "profiler.target.ssh_keeper",
    "profiler.model",
    "profiler.errors",
    "profiler.syscalls",
)
PURE = ("profiler.parse", "profiler.debuginfo", "profiler.infer", "profiler.conclude", "reports")
PROCESSES_AND_NETWORK = ("subprocess", "multiprocessing", "socket", "urllib.request", "http", "asyncio", "concurrent")
STARTS_PROCESSES = {
    "profiler.process",
    "profiler.lab.guest",  # for the type of what profiler.process started
    "loadgen.build",  # runs on the host, and is standard library alone
    "profiler.record.spawn",  # runs on the target
    "profiler.target.ssh_keeper",  # so does this
}

LINES_A_MODULE = 500
LINES_A_FUNCTION = 60


def modules() -> dict[str, Path]:
    """Dotted name → file, of all that is installed."""
    found = {}
    for top in ("profiler", "loadgen", "reports"):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(name: str) -> Iterator[str]:
    """Every module that `name` imports, those inside functions too; `from profiler import x` as `profiler.x`."""
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            assert node.module is not None
            for alias in node.names:
                deeper = f"{node.module}.{alias.name}"
                yield deeper if deeper in MODULES else node.module


def part_of(name: str) -> str:
    """The part that a module belongs to, by the longest name in ALLOWED."""
    words = name.split(".")
    return next(part for n in range(len(words), 0, -1) if (part := ".".join(words[:n])) in ALLOWED)


def within(name: str, parts: tuple[str, ...]) -> bool:
    return any(name == part or name.startswith(part + ".") for part in parts)


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_one_way(name: str) -> None:
    """A module imports its own part and the parts that the design lets it."""
    part = part_of(name)
    wrong = [
        imported
        for imported in imports(name)
        if imported.split(".")[0] in ("profiler", "loadgen", "reports", "tests")
        and part_of(imported) not in ALLOWED[part] | {part}
    ]
    assert not wrong


@pytest.mark.parametrize("name", [name for name in MODULES if within(name, STANDARD_LIBRARY_ONLY)])
def test_what_runs_in_a_guest_needs_the_standard_library_alone(name: str) -> None:
    """No module that is copied to a target imports a package that the target may lack."""
    typing_only = {"numpy"} if name == "profiler.model" else set()
    tops = {imported.split(".")[0] for imported in imports(name)} - {"profiler", "loadgen"} - typing_only
    assert tops <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("name", [name for name in MODULES if within(name, PURE)])
def test_analysis_starts_no_process_and_opens_no_network(name: str) -> None:
    """Parsing, debug information, inference and reports work offline."""
    assert not [imported for imported in imports(name) if within(imported, PROCESSES_AND_NETWORK)]


def test_one_place_starts_processes() -> None:
    """Only profiler.process, and its counterparts where it cannot be used, import subprocess."""
    starters = {name for name in MODULES if "subprocess" in set(imports(name))}
    assert starters <= STARTS_PROCESSES


@pytest.mark.parametrize("name", MODULES)
def test_modules_and_functions_are_short(name: str) -> None:
    """No module is above 500 lines and no function above 60."""
    text = MODULES[name].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LINES_A_MODULE
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = [f.name for f in functions if (f.end_lineno or 0) - f.lineno + 1 > LINES_A_FUNCTION]
    assert not long
