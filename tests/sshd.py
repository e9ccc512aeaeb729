"""A real sshd for tests: throw-away keys, a free port of the loopback address, no file of the user's touched."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import require

PROGRAM = "/usr/sbin/sshd"
ADDRESS = "127.0.0.1"


@dataclass(frozen=True)
class Keys:
    """Files of one directory: the host's key, the user's, and a configuration for ssh that knows both."""

    directory: Path

    @property
    def host(self) -> Path:
        return self.directory / "host_key"

    @property
    def user(self) -> Path:
        return self.directory / "user_key"

    @property
    def config(self) -> Path:
        return self.directory / "ssh_config"

    def write_config(self, port: int, *, user: str, identity: Path | None = None, known: bool = True) -> Path:
        """What WHYERRNO_SSH_CONFIG is to name: the host `toy`, and nothing of the user's own."""
        key_type, key = self.host.with_suffix(".pub").read_text().split()[:2]
        hosts = self.directory / "known_hosts"
        hosts.write_text(f"toy {key_type} {key}\n" if known else "")
        self.config.write_text(
            f"Host toy\n  HostName {ADDRESS}\n  HostKeyAlias toy\n  Port {port}\n  User {user}\n"
            f"Host *\n  IdentityFile {identity or self.user}\n  IdentitiesOnly yes\n  IdentityAgent none\n"
            f"  UserKnownHostsFile {hosts}\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n"
        )
        return self.config


def make_keys(directory: Path) -> Keys:
    require(shutil.which("ssh") and shutil.which("ssh-keygen"), "ssh is not installed (openssh-client)")
    keys = Keys(directory)
    for path in (keys.host, keys.user):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True, timeout=60)
    return keys


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        port: int = probe.getsockname()[1]
        return port


def server_config(keys: str, *, listen: str, path: str = "") -> str:
    """For an sshd whose files lie in the directory `keys` where it runs. Commands find their programs in `path`,
    whatever the user's shell would make of it."""
    lines = [f"ListenAddress {listen}", f"HostKey {keys}/host_key", f"AuthorizedKeysFile {keys}/user_key.pub"]
    lines += ["StrictModes no", "PasswordAuthentication no", "KbdInteractiveAuthentication no", "UsePAM no"]
    lines += ["PermitRootLogin prohibit-password", "PidFile none", "PrintMotd no"]
    lines += [f'ForceCommand exec /usr/bin/env PATH={path} /bin/sh -c "$SSH_ORIGINAL_COMMAND"'] if path else []
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Server:
    keys: Keys
    port: int
    process: subprocess.Popen[bytes]

    def connections(self) -> list[int]:
        """Process ids of what serves the connections that are open."""
        pid = self.process.pid
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextlib.contextmanager
def serving(directory: Path, *, path: str = "") -> Iterator[Server]:
    """An sshd on this machine for the user that runs the tests, ended with its connections."""
    require(Path(PROGRAM).exists(), "sshd is not installed (openssh-server)")
    keys = make_keys(directory)
    port = free_port()
    keys.write_config(port, user=pwd.getpwuid(os.geteuid()).pw_name)
    config = directory / "sshd_config"
    config.write_text(server_config(str(directory), listen=ADDRESS, path=path))
    made = os.geteuid() == 0 and not Path("/run/sshd").exists()  # an sshd of root's insists on it
    if made:
        Path("/run/sshd").mkdir(mode=0o755)
    argv = [PROGRAM, "-D", "-e", "-f", str(config), "-p", str(port)]
    with (directory / "sshd.log").open("wb") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    server = Server(keys, port, process)
    try:
        answers = wait_until_it_answers(port, lambda: process.poll() is None)
        assert answers, f"sshd does not listen: {(directory / 'sshd.log').read_text()}"
        yield server
    finally:
        for pid in server.connections():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 15)
        process.terminate()
        process.wait(10)
        if made:
            with contextlib.suppress(OSError):
                Path("/run/sshd").rmdir()


def wait_until_it_answers(port: int, alive: Callable[[], bool] = lambda: True) -> bool:
    """Whether an sshd says its version there, before long and while it is alive."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and alive():
        with contextlib.suppress(OSError), socket.create_connection((ADDRESS, port), timeout=5) as connection:
            if connection.recv(4) == b"SSH-":
                return True
        time.sleep(0.05)
    return False
