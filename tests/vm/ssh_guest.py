"""A guest that is reached by ssh: an sshd in it, on a port of this machine's loopback address."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from profiler import lab
from profiler.errors import ProfilerError
from profiler.lab import guest
from profiler.lab.guest import Guest
from tests.conftest import require
from tests.sshd import ADDRESS, PROGRAM, Keys, free_port, make_keys, server_config, wait_until_it_answers
from tests.vm.kernels import kernel_of

FILES = "/sshd"  # in the guest
# Newer versions of OpenSSH split sshd in two or three.
PARTS = ("/usr/lib/openssh/sshd-session", "/usr/lib/openssh/sshd-auth")
DRIVERS = ("virtio_net", "net_failover", "failover")
NETWORK = "10.0.2.15/24"  # QEMU's user network gives its guest this address


@dataclass(frozen=True)
class Reached:
    """`host` names it for ssh, by the configuration of `keys`."""

    guest: Guest
    keys: Keys
    port: int
    host: str = "toy"

    def ssh_config(self, *, user: str = "root") -> Path:
        return self.keys.write_config(self.port, user=user)


@contextlib.contextmanager
def serving(version: str, directory: Path) -> Iterator[Reached]:
    """A stock kernel's guest in which sshd serves root and nobody."""
    require(shutil.which("qemu-system-x86_64"), "no QEMU")
    require(Path(PROGRAM).exists(), "sshd is not installed (openssh-server)")
    kernel = kernel_of(version)
    keys, port = make_keys(directory), free_port()
    (directory / "config").write_text(server_config(FILES, listen="0.0.0.0", path="/usr/bin"))
    files = {f"{FILES}/{name}": directory / name for name in ("config", "host_key", "user_key.pub")}
    files |= {path: Path(path) for path in (PROGRAM, *PARTS) if Path(path).exists()}
    try:  # its card's; all at once, for each fetching is one download
        drivers = lab.loadable_modules(kernel, DRIVERS, lambda *_: None)
    except ProfilerError as error:
        require(False, f"the network card's modules cannot be had here: {error}")
        raise
    files |= {f"/network/{name}.ko": path for name, path in drivers}
    forward = f"user,id=net,restrict=on,hostfwd=tcp:{ADDRESS}:{port}-:22"
    extra = ("-netdev", forward, "-device", "virtio-net-pci,netdev=net")
    with guest.boot(kernel, files, lab.cache_directory(), extra=extra) as booted:
        _start(booted, [name for name, _ in drivers])
        assert wait_until_it_answers(port)  # the network's link comes up a moment after its address
        yield Reached(booted, keys, port)


def _start(booted: Guest, drivers: list[str]) -> None:
    load = "".join(f"insmod /network/{name}.ko && " for name in drivers)
    script = (
        f"{load} ip addr add {NETWORK} dev eth0 && ip link set eth0 up && "
        "echo 'sshd:x:100:65534::/run/sshd:/bin/false' >>/etc/passwd && mkdir -p /run/sshd && "
        f"chmod 600 {FILES}/host_key && chmod 644 {FILES}/user_key.pub && {PROGRAM} -f {FILES}/config"
    )
    done = booted.run(["sh", "-c", script], timeout=300)
    assert done.exit_code == 0, done.output
