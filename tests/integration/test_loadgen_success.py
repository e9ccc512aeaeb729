"""The variants that succeed, for real: each call succeeds, time after time, and leaves nothing behind."""

import shutil
import signal
from pathlib import Path

import pytest

from loadgen.build import loop_library
from loadgen.scenarios import SCENARIOS
from tests.conftest import require
from tests.integration.test_loadgen import result, start

# Root of a machine with a memory controller in cgroup v2, or io_uring and BPF that a sandbox may forbid: tests/vm.
ELSEWHERE = {"io-uring-setup-enomem", "io-uring-setup-einval", "bpf-eperm", "connect-enetunreach"}
HERE = [name for name, each in SCENARIOS.items() if each.success is not None and name not in ELSEWHERE]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require(shutil.which("cc"), "no C compiler")
    return loop_library(tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize("name", HERE)
def test_a_variant_succeeds_every_time_and_leaves_nothing(name: str, library: Path, tmp_path: Path) -> None:
    """As many calls as asked for, all successful, and no file of the set-up left."""
    load = start(library, tmp_path, name, "--variant", "success", "--seconds", "10", "--calls", "20", "--no-wait")
    output, errors = load.communicate(timeout=20)
    assert (load.returncode, errors) == (0, "")
    assert output == f"ready {load.pid}\n"
    seen = result(tmp_path)
    assert (seen.results, seen.calls, seen.stopped_by) == ({"0": 20}, 20, "count")
    assert seen.comm == "whyerrno-load"
    assert list((tmp_path / "tmp").iterdir()) == []


def test_most_scenarios_have_a_variant_that_succeeds() -> None:
    assert len(HERE) + len(ELSEWHERE) >= 50


@pytest.mark.parametrize("name", ["pipe2-einval", "openat-enoent"])
def test_a_signal_ends_the_repetition_with_a_result(name: str, library: Path, tmp_path: Path) -> None:
    """Both where each call is set up anew and where the set-up stays."""
    load = start(library, tmp_path, name, "--variant", "success", "--seconds", "20")
    assert load.stdin and load.stdout
    assert load.stdout.readline() == f"ready {load.pid}\n"
    load.stdin.write("go\n")
    load.stdin.flush()
    with pytest.raises(Exception, match="timed out"):
        load.wait(timeout=0.3)
    load.send_signal(signal.SIGTERM)
    assert load.wait(timeout=10) == 0
    seen = result(tmp_path)
    assert (set(seen.results), seen.stopped_by) == ({"0"}, "signal")
    assert seen.calls > 1
    assert list((tmp_path / "tmp").iterdir()) == []


def test_calls_are_paced(library: Path, tmp_path: Path) -> None:
    """Whatever a call leaves to be freed later cannot pile up by the million."""
    load = start(library, tmp_path, "socket-eafnosupport", "--variant", "success", "--seconds", "0.5", "--no-wait")
    assert load.communicate(timeout=20)[1] == ""
    assert 1 < result(tmp_path).calls < 2000


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (("clone3-einval", "--variant", "success"), "knows of no way in which clone3 succeeds", 5),
        (("fcntl-ebadf", "--variant", "sucess"), "there is no variant 'sucess'", 2),
    ],
)
def test_what_there_is_not_is_said(
    arguments: tuple[str, ...], said: str, code: int, library: Path, tmp_path: Path
) -> None:
    load = start(library, tmp_path, *arguments, "--seconds", "1", "--no-wait")
    _, errors = load.communicate(timeout=20)
    assert (load.returncode, said in errors) == (code, True)
