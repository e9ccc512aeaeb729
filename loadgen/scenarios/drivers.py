"""Calls that a loadable module answers: the origin lies outside the kernel's own image."""

from __future__ import annotations

import ctypes
import os

from loadgen.scenario import Call, scenario
from loadgen.setup import Setup
from loadgen.structures import SockaddrVm

TUNGETIFF = 0x800454D2  # _IOR('T', 210, unsigned int): linux/if_tun.h
INTERFACE_REQUEST = 40  # bytes of struct ifreq
AF_VSOCK, SOCK_STREAM = 40, 1
ANOTHER_GUEST, PORT = 3, 1024


@scenario(
    "ioctl-ebadfd",
    "EBADFD",
    "A question to /dev/net/tun before any interface is attached to the descriptor. The errno is set ahead of the test "
    "and returned at the exit label that half of a thousand-line switch shares, in a module.",
    needs_root=True,
    modules=("tun",),
)
def ioctl_ebadfd(setup: Setup) -> Call:
    setup.module("tun")
    return Call(
        "ioctl", setup.open("/dev/net/tun", os.O_RDWR), TUNGETIFF, ctypes.create_string_buffer(INTERFACE_REQUEST)
    )


@scenario(
    "connect-enodev",
    "ENODEV",
    "A VM socket connects where no transport carries it: two functions deep in a module, behind a function pointer of "
    "the kernel proper, and by one of two operands of an `||`.",
    modules=("vsock",),
)
def connect_enodev(setup: Setup) -> Call:
    setup.module("vsock")
    address = SockaddrVm(family=AF_VSOCK, port=PORT, cid=ANOTHER_GUEST)
    return Call("connect", setup.socket(AF_VSOCK, SOCK_STREAM).fileno(), address, ctypes.sizeof(address))
