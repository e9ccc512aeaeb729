"""The ssh target without a host: specifications, arguments for ssh, what its refusals mean, the keeper's parts."""

from __future__ import annotations

import ast
import io
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from profiler import lab
from profiler.cli.names import complete_target
from profiler.errors import MissingError, ProfilerError, TargetError, UsageError
from profiler.model import Kernel
from profiler.target import check_spec, ssh, ssh_connection, ssh_keeper
from profiler.target.ssh import SecureShell
from profiler.target.ssh_connection import Place


@pytest.mark.parametrize(
    ("spec", "place"),
    [
        ("ssh:host", Place("host")),
        ("ssh:root@host.example", Place("root@host.example")),
        ("ssh:fe80::1%eth0", Place("fe80::1%eth0")),
        ("ssh://host", Place("host")),
        ("ssh://root@host:2222", Place("root@host", 2222)),
        ("ssh://root@[::1]:2222", Place("root@::1", 2222)),
    ],
)
def test_a_specification_names_what_ssh_connects_to(spec: str, place: Place) -> None:
    assert ssh_connection.parse(spec) == place
    check_spec(spec)


@pytest.mark.parametrize("spec", ["ssh:", "ssh://", "ssh:a b", "ssh:user@", "ssh:@host", "ssh://host:port", "ssh:a/b"])
def test_what_names_no_host_is_a_usage_error(spec: str) -> None:
    with pytest.raises(UsageError, match="names no ssh host"):
        check_spec(spec)


@pytest.mark.parametrize("spec", ["ssh:-oProxyCommand=id", "ssh:-v@host", "ssh:root@-v", "ssh://-v:22"])
def test_no_name_is_an_option_of_ssh(spec: str) -> None:
    with pytest.raises(UsageError, match="would be an option to ssh"):
        check_spec(spec)


def test_the_users_own_configuration_holds_unless_another_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ssh_connection.CONFIG_VARIABLE, raising=False)
    assert "-F" not in ssh_connection._master(Place("host"), tmp_path, b"")
    (tmp_path / "config").write_text("")
    monkeypatch.setenv(ssh_connection.CONFIG_VARIABLE, str(tmp_path / "config"))
    argv = ssh_connection._master(Place("host", 22), tmp_path, b"")
    assert argv[argv.index("-F") + 1] == str(tmp_path / "config")
    assert argv[argv.index("-p") + 1] == "22"
    assert argv[-3:-1] == ["--", "host"]
    monkeypatch.setenv(ssh_connection.CONFIG_VARIABLE, str(tmp_path / "absent"))
    with pytest.raises(UsageError, match="is no file"):
        ssh_connection._master(Place("host"), tmp_path, b"")


def test_hosts_of_the_configuration_complete_a_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patterns are none of them; a user that was typed is kept."""
    (tmp_path / "config").write_text("Host one two *.example !three\nHostName x\nhost=four\nHost one\n")
    monkeypatch.setenv(ssh_connection.CONFIG_VARIABLE, str(tmp_path / "config"))
    parameter: Any = None
    found = [item.value for item in complete_target(parameter, parameter, "ssh:")]
    assert found == ["ssh:one", "ssh:two", "ssh:four"]
    assert [item.value for item in complete_target(parameter, parameter, "ssh:me@f")] == ["ssh:me@four"]
    assert "ssh:" in [item.value for item in complete_target(parameter, parameter, "")]


REFUSALS = [
    (255, "ssh: connect to host h port 22: Connection refused\n", TargetError, "connect to host h port 22"),
    (255, "ssh: Could not resolve hostname h: Name or service not known\n", TargetError, "Could not resolve hostname"),
    (255, "Host key verification failed.\n", TargetError, "the key of h is not known here"),
    (255, "@@@@@@@\n@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.\n", TargetError,
     "another than the one known here"),
    (255, "Welcome\nroot@h: Permission denied (publickey,password).\n", MissingError, "none of this user's keys"),
    (255, "kex_exchange_identification: Connection closed by remote host\n", TargetError, "Connection closed by"),
    (127, "bash: line 1: exec: python3: not found\n", MissingError, "there is no python3 on h"),
    (1, "no directory of /tmp, /run can be written to and run from\n", TargetError, "no directory of /tmp"),
    (255, "", TargetError, "ssh ended with exit code 255"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "text", "kind", "words"), REFUSALS)
def test_what_ssh_says_becomes_an_error_with_what_to_do(
    code: int, text: str, kind: type[ProfilerError], words: str
) -> None:
    error = ssh_connection.refusal(Place("h"), code, text)
    assert type(error) is kind
    assert words in str(error)
    assert error.hint


FACTS: dict[str, Any] = {
    "able": True, "version": [3, 11, 2], "arch": "x86_64", "perf": "/usr/bin/perf", "user": "joe", "root": False,
    "sudo": False, "sudo_says": "sudo: a password is required", "capabilities": "0", "paranoid": 2, "restrict": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"able": False, "version": [3, 6, 8]}, r"h has Python 3\.6\.8 only .*3\.10 or later"),
        ({"arch": "aarch64"}, "h is an aarch64 machine"),
        ({"perf": ""}, "perf is not on h .*linux-perf"),
        ({}, "joe is not root on h, and sudo: a password is required .*NOPASSWD"),
        ({"paranoid": -1, "restrict": 1}, "kernel addresses are hidden there"),
        ({"paranoid": None}, "joe is not root on h"),
    ],
)
def test_what_a_host_lacks_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(MissingError, match=words):
        ssh.require_able({**FACTS, **change}, "h")


@pytest.mark.parametrize("change", [{"root": True}, {"paranoid": -1}, {"capabilities": f"{1 << 38 | 1 << 34:x}"}])
def test_who_may_record_there_may(change: dict[str, Any]) -> None:
    ssh.require_able({**FACTS, **change}, "h")


@pytest.mark.parametrize(
    ("path", "there"), [("/work/data", "work/data"), ("/whyerrno/loop.so", "files/loop.so"), ("/work/a/b", "work/a/b")]
)
def test_a_guests_paths_lie_below_the_sessions_directory(path: str, there: str) -> None:
    assert ssh._below(path) == there


@pytest.mark.parametrize("path", ["/etc/passwd", "/work/../etc/passwd", "/whyerrno/../x", "/root/.ssh/config"])
def test_nothing_is_put_outside_of_it(path: str) -> None:
    with pytest.raises(UsageError, match="nothing is written outside"):
        ssh._below(path)


def test_a_fetched_kernel_is_found_by_its_build_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the host calls its release; and none is taken where no build id is known."""
    notes = "BAAAAAIAAAADAAAAR05VAKvNAAA="  # the note of build id abcd
    kernel = Kernel("6.1.0", "6.1.192-2", "abcd", "x86_64", vmlinux=Path("/v"))
    monkeypatch.setattr(lab, "list_cached", lambda: [Kernel("6.1.0", "", "", "x86_64"), kernel])
    facts = {"notes": notes, "release": "6.1.0", "arch": "x86_64", "kernel_version": "#1 SMP Debian 6.1.192-2 (2026)"}
    target = SecureShell("ssh:h")
    target.__dict__["facts"] = facts
    assert target.kernel() == kernel
    target.__dict__["facts"] = {**facts, "notes": ""}
    found = target.kernel()
    assert found is not None
    assert (found.vmlinux, found.package_version, found.build_id) == (None, "6.1.192-2", "")


def test_what_is_sent_is_what_a_guest_gets() -> None:
    """And it is whole: the recorder and the loads start from it alone."""
    with tarfile.open(fileobj=io.BytesIO(ssh._packages())) as tar:
        names = {name.removeprefix("./") for name in tar.getnames()}
    assert {"profiler/errors.py", "profiler/record/__main__.py", "loadgen/__main__.py", "loadgen/loop.c"} <= names
    assert not [name for name in names if name.startswith("profiler/cli") or name.endswith((".toml", ".pyc"))]


def test_the_keeper_speaks_an_old_python() -> None:
    """It has to say of a Python that it is too old."""
    ast.parse(Path(ssh_keeper.__file__).read_text(), feature_version=(3, 6))


def test_the_keeper_tells_a_process_by_its_start_too(tmp_path: Path) -> None:
    """A command that has ended is not ended again, though its number may be another's."""
    (tmp_path / "runs").mkdir()
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as running:
        stat = Path(f"/proc/{running.pid}/stat").read_bytes()
        (tmp_path / "runs/1").write_bytes(stat)
        head, _, tail = stat.rpartition(b") ")
        fields = tail.split()
        fields[19] = b"1"
        (tmp_path / "runs/2").write_bytes(head + b") " + b" ".join(fields))
        (tmp_path / "runs/3.ended").write_bytes(b"")
        assert ssh_keeper.groups_of(str(tmp_path), ["1"]) == {running.pid}
        assert ssh_keeper.groups_of(str(tmp_path), ["2", "3.ended", "4"]) == set()
        ssh_keeper.end({running.pid})
        assert running.wait(10) == -15


def test_the_keeper_removes_what_dead_ones_left_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_keeper, "PLACES", (str(tmp_path),))
    for name, owner in (("dead", "1 1"), ("alive", f"{os.getpid()} {ssh_keeper.started_at(os.getpid())}"), ("new", "")):
        (tmp_path / f"{ssh_keeper.PREFIX}{name}/runs").mkdir(parents=True)
        (tmp_path / f"{ssh_keeper.PREFIX}{name}/owner").write_text(owner)
    (tmp_path / "other").mkdir()
    (tmp_path / f"{ssh_keeper.PREFIX}link").symlink_to(tmp_path / "other")
    ssh_keeper.remove_leftovers()
    left = {path.name.removeprefix(ssh_keeper.PREFIX) for path in tmp_path.iterdir()}
    assert left == {"alive", "new", "other", "link"}
