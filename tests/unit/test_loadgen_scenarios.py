"""The declarations: what they promise, without running any of them."""

import ctypes
import subprocess
import sys

import pytest

from loadgen.scenario import RESULT, Call, Scenario, scenario
from loadgen.scenarios import SCENARIOS
from loadgen.setup import Setup
from loadgen.syscalls import NUMBERS, syscall_number
from profiler.errors import MissingError

PROMISED = {
    "io-uring-setup-enomem",
    "io-uring-setup-einval",
    "bind-eaddrinuse",
    "openat-enoent",
    "openat-eacces",
    "mmap-einval",
    "mlock-enomem",
    "mount-eperm",
    "connect-econnrefused",
    "sendto-edestaddrreq",
    "setsockopt-enoprotoopt",
    "timerfd-settime-einval",
    "epoll-ctl-eexist",
    "fcntl-ebadf",
    "madvise-einval",
    "prctl-einval",
    "socket-eafnosupport",
    "ptrace-eperm",
    "pipe2-einval",
    "memfd-create-einval",
    "keyctl-enokey",
    "bpf-eperm",
    "clone3-einval",
    "copy-file-range-einval",
}


def test_the_promised_scenarios_exist() -> None:
    assert set(SCENARIOS) >= PROMISED


def test_scenarios_cover_many_system_calls_and_errnos() -> None:
    assert len(SCENARIOS) >= 60
    assert len({each.syscall for each in SCENARIOS.values()}) >= 40
    assert len({each.errno for each in SCENARIOS.values()}) >= 20


@pytest.mark.parametrize("each", SCENARIOS.values(), ids=lambda each: each.name)
def test_a_name_says_the_system_call_and_the_errno(each: Scenario) -> None:
    """And the way between the two, where the call has more than one to that errno."""
    assert each.name.startswith(each.syscall.replace("_", "-") + "-")
    assert each.name.endswith("-" + each.errno.lower())
    assert each.errno_number > 0
    assert each.syscall_number() == NUMBERS["x86_64"][each.syscall]
    assert each.summary.endswith(".")


def test_every_numbered_system_call_is_used() -> None:
    undo = {"close", "munmap", "munlock", "inotify_rm_watch"}  # successes
    used = {each.syscall for each in SCENARIOS.values()} | undo
    assert used == set(NUMBERS["x86_64"])


@pytest.mark.parametrize(
    ("release", "fails"),
    [
        ("5.10.0-32-cloud-amd64", True),
        ("6.1.0-56-cloud-amd64", True),
        ("6.2.9", True),
        ("6.3-rc1", False),
        ("6.12.107+deb13-cloud-amd64", False),
        ("10.0.1", False),
    ],
)
def test_a_flag_that_newer_kernels_know_fails_on_older_ones_only(release: str, fails: bool) -> None:
    assert SCENARIOS["memfd-create-einval"].fails_on(release) is fails


def test_a_scenario_can_start_to_fail_with_a_version() -> None:
    made = scenario("close-ebadf", "EBADF", "Closed.", fails_since="6.1")(lambda setup: Call("close", -1))
    assert not made.fails_on("5.10.0")
    assert made.fails_on("6.1.0")


def test_bytes_text_and_structures_are_passed_by_address_and_null_as_zero() -> None:
    structure = ctypes.c_int(7)
    call = Call("openat", -100, b"/etc", "/usr", structure, None)
    assert call.words[0] == -100
    assert ctypes.string_at(call.words[1]) == b"/etc"
    assert ctypes.string_at(call.words[2]) == b"/usr"
    assert ctypes.c_int.from_address(call.words[3]).value == 7
    assert call.words[4:] == [0, 0]


def test_an_unsigned_argument_keeps_its_bits() -> None:
    assert Call("close", 0xFFFF_FFFF_FFFF_FFFF).words[0] == -1


def test_an_undo_call_knows_where_the_result_goes() -> None:
    assert Call("dup3", 1, RESULT, 0).result_position == 1


def test_an_architecture_without_a_table_is_named() -> None:
    with pytest.raises(MissingError, match="riscv64"):
        syscall_number("bind", "riscv64")


def test_the_load_needs_no_module_beyond_the_standard_library_and_the_errors() -> None:
    script = (
        "import sys; import loadgen.__main__, loadgen.scenarios\n"
        "print([m for m in sys.modules if m.startswith('profiler') or m in ('argparse', 'dataclasses', 'pathlib')])"
    )
    done = subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['profiler', 'profiler.errors']"


def test_set_up_is_undone_last_first_and_goes_on_after_a_failure() -> None:
    undone: list[str] = []

    def fail() -> None:
        undone.append("fails")
        raise OSError("busy")

    setup = Setup()
    setup.at_end(lambda: undone.append("first"))
    setup.at_end(fail)
    setup.at_end(lambda: undone.append("last"))
    with pytest.raises(Exception, match="busy"):
        setup.__exit__()
    assert undone == ["last", "fails", "first"]
