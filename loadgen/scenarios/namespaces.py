"""Namespaces: who may enter them, and what is missing in a new one."""

from __future__ import annotations

import ctypes
import os

from loadgen.scenario import Call, scenario, succeeds
from loadgen.setup import Setup
from loadgen.structures import SockaddrIn

CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS = 0x8914
LOOPBACK_UP = b"lo".ljust(16, b"\0") + (1).to_bytes(2, "little").ljust(24, b"\0")  # netdevice(7): IFF_UP
ELSEWHERE = SockaddrIn(2, (0, 9), (192, 0, 2, 1))  # of the addresses that are for documentation (RFC 5737)


@scenario(
    "setns-eperm",
    "EPERM",
    "An ordinary user enters the UTS namespace that it is in already. Only the kind of namespace can refuse, through "
    "its table of operations, after copies of all of them were made.",
)
def setns_eperm(setup: Setup) -> Call:
    namespace = setup.open("/proc/self/ns/uts", os.O_RDONLY)
    setup.unprivileged()
    return Call("setns", namespace, 0)


@scenario(
    "connect-enetunreach",
    "ENETUNREACH",
    "A UDP socket in a network namespace of its own, which has no route but the loopback interface's. The search of "
    "the routes says EAGAIN, for the next table; there is none, and EAGAIN becomes ENETUNREACH.",
    needs_root=True,
)
def connect_enetunreach(setup: Setup) -> Call:
    enter_new_network(setup)
    return Call("connect", setup.udp_socket().fileno(), ELSEWHERE, ctypes.sizeof(ELSEWHERE))


@succeeds(connect_enetunreach)
def connect_to_oneself(setup: Setup) -> Call:
    enter_new_network(setup)
    address = SockaddrIn.loopback(9)
    return Call("connect", setup.udp_socket().fileno(), address, ctypes.sizeof(address))


def enter_new_network(setup: Setup) -> None:
    """A network namespace with nothing in it but the loopback interface, until the end."""
    import fcntl

    libc = ctypes.CDLL(None, use_errno=True)
    before = setup.open("/proc/self/ns/net", os.O_RDONLY)
    if libc.unshare(CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, f"no network namespace: {os.strerror(number)}")
    setup.at_end(lambda: libc.setns(before, CLONE_NEWNET))
    fcntl.ioctl(setup.udp_socket().fileno(), SIOCSIFFLAGS, LOOPBACK_UP)
