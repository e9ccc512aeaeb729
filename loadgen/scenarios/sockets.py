"""Sockets, on the loopback address and in the file system."""

from __future__ import annotations

import ctypes

from loadgen.scenario import Call, scenario
from loadgen.setup import Setup
from loadgen.structures import SockaddrIn, SockaddrUn

AF_UNIX = 1
FAMILY_BEYOND_ALL = 255  # more than AF_MAX, so that no module is asked for
SOCK_STREAM = 1
IPPROTO_TCP = 6
UNKNOWN_OPTION = 999
MSG_DONTWAIT = 0x40


@scenario(
    "bind-eaddrinuse",
    "EADDRINUSE",
    "Another TCP socket listens on the port. Whether that is a conflict is decided over the sockets of one hash "
    "bucket, by reuse flags, devices, addresses and users.",
)
def bind_eaddrinuse(setup: Setup) -> Call:
    listening = setup.tcp_socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(1)
    address = SockaddrIn.loopback(listening.getsockname()[1])
    return Call("bind", setup.tcp_socket().fileno(), address, ctypes.sizeof(address))


@scenario(
    "connect-econnrefused",
    "ECONNREFUSED",
    "A UNIX socket file whose socket is bound but never listened: it is there, it may be opened, and still nobody "
    "answers. The same errno stands for a file whose socket is gone.",
)
def connect_econnrefused(setup: Setup) -> Call:
    path = f"{setup.directory()}/bound"
    bound = setup.socket(AF_UNIX, SOCK_STREAM)
    bound.bind(path)
    setup.unlink_at_end(path)
    address = SockaddrUn(AF_UNIX, path.encode())
    return Call("connect", setup.socket(AF_UNIX, SOCK_STREAM).fileno(), address, ctypes.sizeof(address))


@scenario(
    "sendto-edestaddrreq",
    "EDESTADDRREQ",
    "A datagram without an address on a UDP socket that is not connected.",
)
def sendto_edestaddrreq(setup: Setup) -> Call:
    return Call("sendto", setup.udp_socket().fileno(), b"x", 1, 0, None, 0)


@scenario(
    "setsockopt-enoprotoopt",
    "ENOPROTOOPT",
    "A TCP option that does not exist: the default of a switch of some fifty cases.",
)
def setsockopt_enoprotoopt(setup: Setup) -> Call:
    return Call("setsockopt", setup.tcp_socket().fileno(), IPPROTO_TCP, UNKNOWN_OPTION, ctypes.c_int(1), 4)


@scenario(
    "socket-eafnosupport",
    "EAFNOSUPPORT",
    "An address family beyond the last one. The same errno is given for a family whose module is not loaded.",
)
def socket_eafnosupport(setup: Setup) -> Call:
    return Call("socket", FAMILY_BEYOND_ALL, SOCK_STREAM, 0)


@scenario(
    "accept4-einval",
    "EINVAL",
    "A TCP socket that does not listen. The errno comes from the protocol, after a socket and a file for the "
    "connection were already made.",
)
def accept4_einval(setup: Setup) -> Call:
    return Call("accept4", setup.tcp_socket().fileno(), None, None, 0)


@scenario(
    "getpeername-enotconn",
    "ENOTCONN",
    "A TCP socket that was never connected has no peer.",
)
def getpeername_enotconn(setup: Setup) -> Call:
    address = SockaddrIn()
    return Call("getpeername", setup.tcp_socket().fileno(), address, ctypes.c_uint32(ctypes.sizeof(address)))


@scenario(
    "recvfrom-eagain",
    "EAGAIN",
    "An empty UDP socket, asked not to wait. Not an error to most programs, and the commonest errno of all.",
)
def recvfrom_eagain(setup: Setup) -> Call:
    receiving = setup.udp_socket()
    receiving.bind(("127.0.0.1", 0))
    return Call("recvfrom", receiving.fileno(), ctypes.create_string_buffer(16), 16, MSG_DONTWAIT, None, None)
