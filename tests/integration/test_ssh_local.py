"""An ssh target against a real sshd on the loopback address: sessions, and everything that may go wrong with them.

This machine's kernel is not asked for anything that needs tracing; tests/vm/test_ssh_guest.py does that.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from profiler.errors import MissingError, TargetError
from profiler.target import Session, open_target
from profiler.target.ssh import SecureShell
from profiler.target.ssh_connection import CONFIG_VARIABLE
from tests.sshd import Server, free_port, serving

PREFIX = "whyerrno-session-"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture(autouse=True)
def config(server: Server, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CONFIG_VARIABLE, str(server.keys.config))
    return server.keys.config


def toy() -> SecureShell:
    target = open_target("ssh:toy")
    assert isinstance(target, SecureShell)
    return target


@pytest.fixture
def session() -> Iterator[Session]:
    with toy().session({}, unchecked=True) as opened:
        yield opened


def eventually(condition: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def test_the_host_is_known_by_its_own_facts() -> None:
    kernel = toy().kernel()
    assert kernel is not None
    assert kernel.release == os.uname().release
    assert kernel.arch == os.uname().machine


def test_arguments_arrive_as_they_are(session: Session) -> None:
    """Whatever a shell would make of them; and the packages that run on a target can be imported."""
    odd = ["a b", "it's", "$(id)", "`id`", "back\\slash", "new\nline", '"', "*", "-n", "", "ä", "~"]
    script = "import sys, loadgen, profiler.record; print(sys.argv[1:])"
    assert session.run([session.python, "-X", "utf8", "-c", script, *odd], timeout=60).output == f"{odd}\n"


def test_how_a_command_ended_is_told(session: Session) -> None:
    """Its exit code, 255 too, or the signal; its standard error stands among its output."""
    assert session.run(["sh", "-c", "echo one; echo two >&2; exit 255"], timeout=60).output == "one\ntwo\n"
    assert session.run(["sh", "-c", "exit 255"], timeout=60).exit_code == 255
    assert session.run(["sh", "-c", "kill -9 $$"], timeout=60).exit_code == -9
    assert session.run(["no-such-program"], timeout=60).exit_code == 127


def test_while_a_command_runs_another_does_and_files_are_moved(session: Session, tmp_path: Path) -> None:
    told: list[str] = []
    (tmp_path / "go").write_text("ahead")

    def on_line(line: str) -> None:
        told.append(line)
        if line == "waiting":
            told.append(session.run(["echo", "meanwhile"], timeout=60).output)
            session.put(tmp_path / "go", "go")
            session.get("made", tmp_path / "made")

    script = "echo made >made; echo waiting; until [ -e go ]; do sleep 0.05; done; cat go"
    session.run(["sh", "-c", script], timeout=60, on_line=on_line)
    assert told == ["waiting", "meanwhile\n", "ahead"]
    assert (tmp_path / "made").read_text() == "made\n"


def test_files_and_trees_are_copied_both_ways(session: Session, tmp_path: Path) -> None:
    """With their bytes, names and the permission to run; what is not there is an error."""
    (tmp_path / "tree/it's deep").mkdir(parents=True)
    (tmp_path / "tree/it's deep/data").write_bytes(bytes(range(256)) * 10_000)
    (tmp_path / "tree/run").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "tree/run").chmod(0o755)
    session.put(tmp_path / "tree", "a tree")
    session.put(tmp_path / "tree/run", "deep/er/run")
    assert session.run(["deep/er/run"], timeout=60).output == "ran\n"
    session.get("a tree", tmp_path / "back")
    assert (tmp_path / "back/it's deep/data").read_bytes() == bytes(range(256)) * 10_000
    assert os.access(tmp_path / "back/run", os.X_OK)
    session.get("a tree/run", tmp_path / "one")
    assert (tmp_path / "one").read_text() == "#!/bin/sh\necho ran\n"
    with pytest.raises(TargetError, match="absent was not made"):
        session.get("absent", tmp_path / "absent")


def test_files_asked_for_at_a_guests_paths_lie_in_the_sessions_directory(tmp_path: Path) -> None:
    (tmp_path / "library").write_text("x")
    files = {"/whyerrno/library": tmp_path / "library", "/work/data": tmp_path / "library"}
    with toy().session(files, unchecked=True) as session:
        assert session.run(["cat", session.path("/whyerrno/library"), "data"], timeout=60).output == "xx"
        assert session.path("/whyerrno/library").startswith(f"/tmp/{PREFIX}")


def test_nothing_is_left_by_a_session(session: Session) -> None:
    """Neither its directory nor a process that it started, in the background or not."""
    with toy().session({}, unchecked=True) as other:
        other.run(["sh", "-c", "sleep 1234 & echo $! >pid"], timeout=60)
        pid = int(other.run(["cat", "pid"], timeout=60).output)
        assert eventually(lambda: not Path(f"/proc/{pid}").exists()), "what a command leaves behind ends with it"
        assert Path(other.workdir).is_dir()
    assert not Path(other.workdir).parent.exists()
    assert Path(session.workdir).is_dir(), "a second session is not touched"


def test_a_command_past_its_deadline_is_ended_there(session: Session) -> None:
    """With what it started; the session goes on."""
    with pytest.raises(TargetError, match=r"the wait did not end within 0\.5 s"):
        session.run(["sh", "-c", "echo $$ >pid; sleep 1234 & wait"], timeout=0.5, name="the wait")
    pid = int(session.run(["cat", "pid"], timeout=60).output)
    assert eventually(lambda: not Path(f"/proc/{pid}").exists())


def test_a_connection_that_breaks_is_an_error_and_leaves_nothing(server: Server) -> None:
    """The command that ran is ended there, and the directory removed, though nobody here could ask for it."""
    before = set(server.connections())
    with toy().session({}, unchecked=True) as session:
        (connection,) = set(server.connections()) - before
        workdir = Path(session.workdir)
        threading.Timer(1.0, break_connection, (connection,)).start()
        with pytest.raises(TargetError, match="the connection to toy was lost during the sleep"):
            session.run(["sh", "-c", "echo $$ >pid; exec sleep 1234"], timeout=60, name="the sleep")
        assert eventually(lambda: not workdir.parent.exists())
        with pytest.raises(TargetError, match="the connection to toy was lost"):
            session.run(["true"], timeout=60)
        with pytest.raises(TargetError, match="the connection to toy was lost"):
            session.put(Path(__file__), "file")
        with pytest.raises(TargetError, match="the connection to toy was lost"):
            session.get("file", workdir)


def break_connection(pid: int) -> None:
    """sshd's own processes of a connection, and nothing that runs in it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for each in [*map(int, children), pid]:
        if Path(f"/proc/{each}/comm").read_text().startswith("sshd"):
            os.kill(each, signal.SIGKILL)


def test_killed_outright_this_side_leaves_nothing_there(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        from profiler.target import open_target
        with open_target("ssh:toy").session({}, unchecked=True) as session:
            command = ["sh", "-c", "echo $$ $PWD; exec sleep 1234"]
            session.run(command, timeout=60, on_line=lambda line: print(line, flush=True))
    """)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        pid, workdir = running.stdout.readline().split()
        running.kill()
    assert eventually(lambda: not Path(workdir).parent.exists())
    assert not Path("/proc", pid).exists()


def test_what_a_killed_keeper_left_the_next_session_removes() -> None:
    script = textwrap.dedent("""
        import os, signal
        from pathlib import Path
        from profiler.target import open_target
        with open_target("ssh:toy").session({}, unchecked=True) as session:
            keeper = int(Path(session.workdir).parent.joinpath("owner").read_text().split()[0])
            os.kill(keeper, signal.SIGKILL)
            print(session.workdir, flush=True)
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    abandoned = Path(done.stdout.strip()).parent
    assert abandoned.name.startswith(PREFIX)
    assert abandoned.is_dir()
    with toy().session({}, unchecked=True) as session:
        assert not abandoned.exists()
        assert Path(session.workdir).is_dir()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ("refused", TargetError, r"toy is out of reach: connect to host 127\.0\.0\.1 port \d+: Connection refused"),
        ("unknown name", TargetError, "out of reach: Could not resolve hostname"),
        ("unknown host key", TargetError, "the key of toy is not known here .*compare and accept it once: ssh -F"),
        ("another host key", TargetError, "the key of toy is another than the one known here"),
        ("no key", MissingError, "toy accepts none of this user's keys .*ssh-copy-id toy"),
    ],
)
def test_a_host_that_cannot_be_used_is_told_with_what_to_do(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: str, error: type[Exception], words: str
) -> None:
    text = server.keys.config.read_text()
    key = server.keys.user.with_suffix(".pub").read_text()
    (tmp_path / "none").write_text("")
    (tmp_path / "other").write_text(f"toy {' '.join(key.split()[:2])}\n")
    known = f"{server.keys.directory}/known_hosts"
    changes = {
        "refused": text.replace(f"Port {server.port}", f"Port {free_port()}"),
        "unknown name": text.replace("HostName 127.0.0.1", "HostName no-such-host.invalid"),
        "unknown host key": text.replace(known, str(tmp_path / "none")),
        "another host key": text.replace(known, str(tmp_path / "other")),
        "no key": text.replace(f"IdentityFile {server.keys.user}", f"IdentityFile {server.keys.host}"),
    }
    (tmp_path / "config").write_text(changes[change])
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "config"))
    with pytest.raises(error, match=words), toy().session({}, unchecked=True):
        pass


def test_a_host_without_python_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "sshd").mkdir()
    with serving(tmp_path / "sshd", path=str(tmp_path / "bin")) as poor:
        monkeypatch.setenv(CONFIG_VARIABLE, str(poor.keys.config))
        with pytest.raises(MissingError, match=r"there is no python3 on toy \(install Python 3\.10"):
            toy().kernel()
