"""The load for real: the native loop, compiled here, around system calls of this kernel."""

import concurrent.futures
import ctypes
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loadgen import loop, sysv
from loadgen.build import loop_library
from loadgen.faults import before_forbidden
from loadgen.messages import descriptors_message
from loadgen.scenario import RESULT, Call
from loadgen.scenarios import SCENARIOS
from loadgen.scenarios.namespaces import enter_new_network
from loadgen.setup import Setup
from loadgen.syscalls import NUMBERS
from profiler.errors import MissingError
from profiler.model import LoadResult, from_json
from profiler.record.rate import Rate
from tests.conftest import require

# These fail alike on every kernel and in most sandboxes; tests/vm runs all scenarios on known kernels.
PLAIN = ["bind-eaddrinuse", "openat-enoent", "openat-eacces", "openat-emfile", "epoll-ctl-eexist", "mlock-enomem"]
PLAIN += ["connect-econnrefused", "timerfd-settime-einval", "copy-file-range-einval", "wait4-echild"]
PLAIN += ["getppid-eperm", "create-module-enosys", "rt-sigaction-efault", "readv-einval", "capset-eperm"]
PLAIN += ["sendmsg-ebadf", "poll-efault", "semop-eagain", "msgrcv-enomsg", "mq-timedsend-eagain", "accept-eagain"]

NEWEST = {"file_getattr"}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require(shutil.which("cc"), "no C compiler")
    return loop_library(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def setup() -> Iterator[Setup]:
    with Setup() as made:
        yield made


def start(library: Path, tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    """A load whose temporary files are below tmp_path/tmp and whose result goes to tmp_path/load.json."""
    (tmp_path / "tmp").mkdir(exist_ok=True)
    command = [sys.executable, "-m", "loadgen", *arguments, "--loop", str(library)]
    command += ["--result", str(tmp_path / "load.json")]
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": str(Path(__file__).parents[2])}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment)


def result(tmp_path: Path) -> LoadResult:
    load: LoadResult = from_json(LoadResult, json.loads((tmp_path / "load.json").read_text()))
    return load


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within 10 s"
        time.sleep(0.01)


def run(library: Path, call: Call, setup: Setup, seconds: float, **limits: int) -> loop.Outcome:
    return loop.run(loop.load_library(str(library)), loop.plan(call, setup, seconds, **limits))


@pytest.mark.parametrize("name", PLAIN)
def test_a_scenario_fails_with_its_errno_alone_and_leaves_nothing(name: str, library: Path, tmp_path: Path) -> None:
    load = start(library, tmp_path, name, "--seconds", "0.1", "--no-wait")
    output, errors = load.communicate(timeout=20)
    assert (load.returncode, errors) == (0, "")
    assert output == f"ready {load.pid}\n"
    seen = result(tmp_path)
    assert set(seen.results) == {SCENARIOS[name].errno}
    assert seen.calls == sum(seen.results.values()) > 100
    assert (seen.pid, seen.comm, seen.stopped_by) == (load.pid, "whyerrno-load", "time")
    assert seen.seconds == pytest.approx(0.1, abs=0.09)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_the_loop_waits_for_a_line_and_bears_its_name(library: Path, tmp_path: Path) -> None:
    load = start(library, tmp_path, "fcntl-ebadf", "--seconds", "20")
    assert load.stdin and load.stdout
    assert load.stdout.readline() == f"ready {load.pid}\n"
    name = Path(f"/proc/{load.pid}/comm")
    assert name.read_text() != "whyerrno-load\n"
    load.stdin.write("go\n")
    load.stdin.flush()
    wait_until(lambda: name.read_text() == "whyerrno-load\n")
    load.send_signal(signal.SIGINT)
    assert load.wait(timeout=10) == 0
    assert result(tmp_path).stopped_by == "signal"


def test_the_loop_can_be_counted_while_it_runs(library: Path, tmp_path: Path) -> None:
    """The recorder's rate, taken twice from outside, agrees with what the load says of itself at the end."""
    load = start(library, tmp_path, "fcntl-ebadf", "--seconds", "0.6", "--counter", str(tmp_path / "counter"))
    assert load.stdin and load.stdout
    load.stdout.readline()
    rate = Rate(str(tmp_path / "counter"))
    assert rate.count()[0] == 0
    load.stdin.write("go\n")
    load.stdin.flush()
    wait_until(lambda: rate.count()[0] > 0)
    for rung in ("one", "other"):
        rate.measure(0.2, rung)
    assert load.wait(timeout=10) == 0
    seen = result(tmp_path)
    assert rate.count()[0] == seen.calls
    assert set(rate.rates()) == {"one", "other"}
    assert sum(rate.rates().values()) / 2 == pytest.approx(seen.calls / seen.seconds, rel=0.5)


def test_sigterm_while_waiting_undoes_the_set_up(library: Path, tmp_path: Path) -> None:
    load = start(library, tmp_path, "read-eisdir", "--seconds", "20")
    assert load.stdout
    load.stdout.readline()
    assert len(list((tmp_path / "tmp").iterdir())) == 1
    load.terminate()
    assert load.wait(timeout=10) == 128 + signal.SIGTERM
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not (tmp_path / "load.json").exists()


def test_what_a_killed_load_left_is_removed_by_the_next_and_a_living_one_is_spared(
    library: Path, tmp_path: Path
) -> None:
    killed, living = (start(library, tmp_path, "unlinkat-enotempty", "--seconds", "20") for _ in range(2))
    for load in (killed, living):
        assert load.stdout
        load.stdout.readline()
    killed.kill()
    killed.wait()
    start(library, tmp_path, "fcntl-ebadf", "--seconds", "0", "--no-wait").communicate(timeout=20)
    assert [path.name for path in (tmp_path / "tmp").iterdir()] == [f"whyerrno-load-{living.pid}"]
    living.terminate()
    living.wait(timeout=10)


@pytest.mark.parametrize(("name", "kind"), [("semop-eagain", "sem"), ("msgrcv-enomsg", "msg")])
def test_ipc_objects_of_a_killed_load_are_removed_by_the_next_and_a_living_ones_are_spared(
    name: str, kind: str, library: Path, tmp_path: Path
) -> None:
    killed, living = (start(library, tmp_path, name, "--seconds", "20") for _ in range(2))
    for load in (killed, living):
        assert load.stdout
        load.stdout.readline()
    keys = {str(sysv.KEY | load.pid) for load in (killed, living)}
    assert keys <= ipc_keys(kind)
    killed.kill()
    killed.wait()
    start(library, tmp_path, "fcntl-ebadf", "--seconds", "0", "--no-wait").communicate(timeout=20)
    assert keys & ipc_keys(kind) == {str(sysv.KEY | living.pid)}
    living.terminate()
    living.wait(timeout=10)
    assert not keys & ipc_keys(kind)


def ipc_keys(kind: str) -> set[str]:
    return {line.split()[0] for line in Path(f"/proc/sysvipc/{kind}").read_text().splitlines()}


def test_a_message_hands_over_the_descriptors_that_it_names(library: Path, setup: Setup) -> None:
    """The layout of the message and its control data, as this kernel reads it."""
    sending, receiving = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    setup.at_end(sending.close)
    setup.at_end(receiving.close)
    reading, writing = setup.pipe()
    run(library, Call("sendmsg", sending.fileno(), descriptors_message(reading, writing), 0), setup, 5, calls_limit=1)
    _, (first, second), _, _ = socket.recv_fds(receiving, 1, 2)
    setup.owned(first)
    setup.owned(second)
    assert [os.fstat(made).st_ino for made in (first, second)] == [os.fstat(reading).st_ino] * 2


def test_memory_before_a_forbidden_page_can_be_read_to_its_end_and_not_beyond(library: Path, setup: Setup) -> None:
    address, (_, writing) = before_forbidden(setup, b"whole"), setup.pipe()
    for length, results in ((5, {"0": 1}), (6, {"EFAULT": 1})):
        outcome = run(library, Call("write", writing, address, length), setup, 5, calls_limit=1)
        assert loop.results(outcome) == results


def test_the_network_is_the_former_one_again_afterwards() -> None:
    require(os.geteuid() == 0, "needs root")
    namespace = Path("/proc/self/ns/net")
    before = namespace.readlink()
    with Setup() as setup:
        try:
            enter_new_network(setup)
        except PermissionError:
            require(False, "needs the right to make a network namespace")
        assert namespace.readlink() != before
    assert namespace.readlink() == before


def test_a_recorder_that_is_gone_starts_no_loop(library: Path, tmp_path: Path) -> None:
    load = start(library, tmp_path, "fcntl-ebadf", "--seconds", "20")
    _, errors = load.communicate(timeout=10)
    assert load.returncode == 1
    assert "standard input ended" in errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bind-eadrinuse"], "did you mean bind-eaddrinuse?"),
        (["fcntl-ebadf", "--seconds", "soon"], "--seconds takes a number, not 'soon'"),
        (["fcntl-ebadf", "--second", "1"], "unknown option --second"),
        ([], "usage: "),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(arguments: list[str], said: str, library: Path, tmp_path: Path) -> None:
    load = start(library, tmp_path, *arguments)
    _, errors = load.communicate(timeout=10)
    assert load.returncode == 2
    assert said in errors
    assert errors.count("\n") == 1


def test_the_loop_stops_at_the_first_success(library: Path, setup: Setup) -> None:
    descriptor = setup.open(setup.file("plain"), os.O_RDONLY)
    outcome = run(library, Call("lseek", descriptor, 5, os.SEEK_SET), setup, 5)
    assert (outcome.calls, outcome.success_result) == (1, 5)
    assert loop.results(outcome) == {"0": 1}
    assert loop.STOPPED_BY[outcome.stopped_by] == "success"


def test_a_success_that_can_be_undone_is_undone_and_the_loop_goes_on(library: Path, setup: Setup) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    outcome = run(library, Call("memfd_create", "x", 0, undo=Call("close", RESULT)), setup, 5, calls_limit=5000)
    assert (outcome.calls, outcome.successes) == (5000, 5000)
    assert loop.STOPPED_BY[outcome.stopped_by] == "count"
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_each_errno_is_counted_apart(library: Path, setup: Setup) -> None:
    """Sixteen pages fit a pipe; later writes find it full. The undo call does nothing, so that the pipe stays so."""
    _, writing = setup.pipe()
    os.set_blocking(writing, False)
    write = Call("write", writing, bytes(4096), 4096, undo=Call("lseek", writing, 0, RESULT))
    outcome = run(library, write, setup, 5, calls_limit=100)
    assert loop.results(outcome) == {"0": 16, "EAGAIN": 84}


def test_the_loop_gives_up_when_memory_does_not_come_back(library: Path, setup: Setup) -> None:
    outcome = run(library, Call("fcntl", 1_000_000, 1), setup, 20, floor=1 << 60)
    assert loop.STOPPED_BY[outcome.stopped_by] == "memory"
    assert outcome.pauses > 10
    assert outcome.elapsed_ns < 10e9


def test_a_call_that_blocks_is_cut_off_soon_after_the_deadline(library: Path, setup: Setup) -> None:
    futex_wait = Call("futex", ctypes.c_uint32(1), 128, 1, None, None, 0)
    outcome = run(library, futex_wait, setup, 0.1)
    assert loop.STOPPED_BY[outcome.stopped_by] == "time"
    assert loop.results(outcome) == {"EINTR": 1}
    assert outcome.elapsed_ns < 2e9


def test_python_gets_its_signal_handlers_back(library: Path, setup: Setup) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]
    run(library, Call("fcntl", 1_000_000, 1), setup, 0)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)] == before
    assert signal.setitimer(signal.ITIMER_REAL, 0) == (0, 0)


def test_dropped_rights_and_limits_come_back() -> None:
    require(os.geteuid() == 0, "needs root")
    before = (os.getresuid(), os.getresgid(), os.getgroups(), resource.getrlimit(resource.RLIMIT_MEMLOCK))
    with Setup() as setup:
        setup.limit("RLIMIT_MEMLOCK", 4096)
        setup.unprivileged()
        assert os.geteuid() != 0
        with pytest.raises(PermissionError):
            os.chown("/", 0, 0)
    assert (os.getresuid(), os.getresgid(), os.getgroups(), resource.getrlimit(resource.RLIMIT_MEMLOCK)) == before


def test_a_cgroup_without_root_is_refused_with_the_reason() -> None:
    require(os.geteuid() == 0, "needs root, to give it up")
    with Setup() as setup:
        setup.unprivileged()
        with pytest.raises(MissingError, match="needs root"):
            setup.memory_cgroup(memory_max="1M")


def test_the_library_is_compiled_once_though_many_ask(tmp_path: Path) -> None:
    require(shutil.which("cc"), "no C compiler")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        made = {done.result() for done in [pool.submit(loop_library, tmp_path) for _ in range(4)]}
    assert len(made) == 1
    built = made.pop()
    assert list((tmp_path / "loop").iterdir()) == [built]
    modified = built.stat().st_mtime_ns
    assert loop_library(tmp_path) == built
    assert built.stat().st_mtime_ns == modified


def test_the_numbers_are_those_of_the_kernel_headers() -> None:
    """Headers may be too old to know the newest calls."""
    require(shutil.which("cc"), "no C compiler")
    asked = "#include <sys/syscall.h>\n" + "\n".join(f"{name} SYS_{name}" for name in NUMBERS["x86_64"])
    done = subprocess.run(["cc", "-E", "-P", "-"], input=asked, capture_output=True, text=True, check=True)
    found = dict(re.findall(r"^(\w+) (\d+)$", done.stdout, re.MULTILINE))
    known = {name: int(number) for name, number in found.items()}
    assert known.items() <= NUMBERS["x86_64"].items()
    assert NUMBERS["x86_64"].keys() - known.keys() <= NEWEST


def test_the_plain_program_of_the_tests_fails_by_itself(tmp_path: Path) -> None:
    """tests/programs/repro_bind.c stands for a user's own load elsewhere; here it proves to do what it says."""
    require(shutil.which("cc"), "no C compiler")
    program = tmp_path / "repro"
    source = Path(__file__).parents[1] / "programs" / "repro_bind.c"
    subprocess.run(["cc", "-O2", "-Wall", "-Werror", "-o", str(program), str(source)], check=True)
    done = subprocess.run([str(program), "0.1"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert re.fullmatch(r"bind failed \d{4,} times with EADDRINUSE\n", done.stdout)
