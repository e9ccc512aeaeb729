"""Sockets, on the loopback address and in the file system."""

from __future__ import annotations

import ctypes
import functools

from loadgen.faults import before_forbidden
from loadgen.messages import CountedMessage, MessageHeader, descriptors_message
from loadgen.scenario import RESULT, Call, scenario, succeeds
from loadgen.setup import Setup
from loadgen.structures import IoVector, SockaddrIn, SockaddrUn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from socket import socket as Socket  # noqa: N812

AF_UNIX = 1
FAMILY_BEYOND_ALL = 255  # more than AF_MAX, so that no module is asked for
SOCK_STREAM = 1
SOCK_DGRAM = 2
SOL_SOCKET = 1
SO_PEERNAME = 28
SHUT_RDWR = 2
IPPROTO_TCP = 6
AF_INET = 2
TCP_NODELAY = 1
UDP_MOST = 65507  # bytes, that an IPv4 datagram holds beside its headers
NO_DESCRIPTOR = 1_000_000  # never opened here
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


@succeeds(bind_eaddrinuse, anew=True)
def bind_to_a_free_port(setup: Setup) -> Call:
    address = SockaddrIn.loopback(free_port())
    return Call("bind", setup.tcp_socket().fileno(), address, ctypes.sizeof(address))


@functools.cache
def free_port() -> int:
    """Found once, so that binding to it is the only bind() that is repeated."""
    import socket

    with socket.socket(AF_INET, SOCK_STREAM) as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


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


@succeeds(connect_econnrefused, anew=True)
def connect_to_a_listener(setup: Setup) -> Call:
    path = f"{setup.directory()}/bound"
    bound = setup.socket(AF_UNIX, SOCK_STREAM)
    bound.bind(path)
    setup.unlink_at_end(path)
    bound.listen(1)
    address = SockaddrUn(AF_UNIX, path.encode())
    return Call("connect", setup.socket(AF_UNIX, SOCK_STREAM).fileno(), address, ctypes.sizeof(address))


@scenario(
    "sendto-edestaddrreq",
    "EDESTADDRREQ",
    "A datagram without an address on a UDP socket that is not connected.",
)
def sendto_edestaddrreq(setup: Setup) -> Call:
    return Call("sendto", setup.udp_socket().fileno(), b"x", 1, 0, None, 0)


@succeeds(sendto_edestaddrreq)
def send_to_an_address(setup: Setup) -> Call:
    address = loopback_receiver(setup)
    return Call("sendto", setup.udp_socket().fileno(), b"x", 1, 0, address, ctypes.sizeof(address))


@scenario(
    "setsockopt-enoprotoopt",
    "ENOPROTOOPT",
    "A TCP option that does not exist: the default of a switch of some fifty cases.",
)
def setsockopt_enoprotoopt(setup: Setup) -> Call:
    return Call("setsockopt", setup.tcp_socket().fileno(), IPPROTO_TCP, UNKNOWN_OPTION, ctypes.c_int(1), 4)


@succeeds(setsockopt_enoprotoopt)
def set_an_option(setup: Setup) -> Call:
    return Call("setsockopt", setup.tcp_socket().fileno(), IPPROTO_TCP, TCP_NODELAY, ctypes.c_int(1), 4)


@scenario(
    "socket-eafnosupport",
    "EAFNOSUPPORT",
    "An address family beyond the last one. The same errno is given for a family whose module is not loaded.",
)
def socket_eafnosupport(setup: Setup) -> Call:
    return Call("socket", FAMILY_BEYOND_ALL, SOCK_STREAM, 0)


@succeeds(socket_eafnosupport)
def make_a_socket(setup: Setup) -> Call:
    return Call("socket", AF_INET, SOCK_STREAM, 0, undo=Call("close", RESULT))


@scenario(
    "accept4-einval",
    "EINVAL",
    "A TCP socket that does not listen. The errno comes from the protocol, after a socket and a file for the "
    "connection were already made.",
)
def accept4_einval(setup: Setup) -> Call:
    return Call("accept4", setup.tcp_socket().fileno(), None, None, 0)


@succeeds(accept4_einval, anew=True)
def accept_a_connection(setup: Setup) -> Call:
    listening, _ = connection(setup)
    return Call("accept4", listening.fileno(), None, None, 0, undo=Call("close", RESULT))


@scenario(
    "getpeername-enotconn",
    "ENOTCONN",
    "A TCP socket that was never connected has no peer.",
)
def getpeername_enotconn(setup: Setup) -> Call:
    address = SockaddrIn()
    return Call("getpeername", setup.tcp_socket().fileno(), address, ctypes.c_uint32(ctypes.sizeof(address)))


@succeeds(getpeername_enotconn)
def name_the_peer(setup: Setup) -> Call:
    _, connected = connection(setup)
    address = SockaddrIn()
    return Call("getpeername", connected.fileno(), address, ctypes.c_uint32(ctypes.sizeof(address)))


@scenario(
    "recvfrom-eagain",
    "EAGAIN",
    "An empty UDP socket, asked not to wait. Not an error to most programs, and the commonest errno of all.",
)
def recvfrom_eagain(setup: Setup) -> Call:
    receiving = setup.udp_socket()
    receiving.bind(("127.0.0.1", 0))
    return Call("recvfrom", receiving.fileno(), ctypes.create_string_buffer(16), 16, MSG_DONTWAIT, None, None)


@succeeds(recvfrom_eagain, anew=True)
def receive_a_datagram(setup: Setup) -> Call:
    receiving = setup.udp_socket()
    receiving.bind(("127.0.0.1", 0))
    setup.udp_socket().sendto(b"x", receiving.getsockname())
    return Call("recvfrom", receiving.fileno(), ctypes.create_string_buffer(16), 16, MSG_DONTWAIT, None, None)


@scenario(
    "connect-tcp-econnrefused",
    "ECONNREFUSED",
    "A TCP port on which nobody listens. The reset that comes back over the loopback interface leaves the errno in the "
    "socket, where connect finds it: no line of connect's own code says ECONNREFUSED.",
    syscall="connect",
)
def connect_tcp_econnrefused(setup: Setup) -> Call:
    silent = setup.tcp_socket()
    silent.bind(("127.0.0.1", 0))  # nobody else can listen there now
    address = SockaddrIn.loopback(silent.getsockname()[1])
    return Call("connect", setup.tcp_socket().fileno(), address, ctypes.sizeof(address))


@succeeds(connect_tcp_econnrefused, anew=True)
def connect_where_somebody_listens(setup: Setup) -> Call:
    listening = setup.tcp_socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(1)
    address = SockaddrIn.loopback(listening.getsockname()[1])
    return Call("connect", setup.tcp_socket().fileno(), address, ctypes.sizeof(address))


@scenario(
    "sendmmsg-emsgsize",
    "EMSGSIZE",
    "One byte more than fits an IPv4 datagram. UDP's own check of the length lets it pass; the IP layer below refuses "
    "it, with the same errno.",
)
def sendmmsg_emsgsize(setup: Setup) -> Call:
    address = loopback_receiver(setup)
    vector = IoVector(setup.anonymous_memory(UDP_MOST + 1), UDP_MOST + 1)
    header = MessageHeader(ctypes.pointer(address), ctypes.sizeof(address), ctypes.pointer(vector), 1)
    return Call(
        "sendmmsg",
        setup.udp_socket().fileno(),
        (CountedMessage * 2)(CountedMessage(header), CountedMessage(header)),
        2,
        0,
    )


@succeeds(sendmmsg_emsgsize)
def send_two_short_messages(setup: Setup) -> Call:
    address = loopback_receiver(setup)
    vector = IoVector(setup.anonymous_memory(16), 16)
    header = MessageHeader(ctypes.pointer(address), ctypes.sizeof(address), ctypes.pointer(vector), 1)
    messages = (CountedMessage * 2)(CountedMessage(header), CountedMessage(header))
    return Call("sendmmsg", setup.udp_socket().fileno(), messages, 2, 0)


@scenario(
    "sendto-efault",
    "EFAULT",
    "The second half of the datagram is memory that nobody may read. Found when the bytes are copied into the packet, "
    "behind a function pointer, eight calls below sendto.",
)
def sendto_efault(setup: Setup) -> Call:
    address, half = loopback_receiver(setup), bytes(64)
    data = before_forbidden(setup, half)
    return Call("sendto", setup.udp_socket().fileno(), data, 128, 0, address, ctypes.sizeof(address))


@succeeds(sendto_efault)
def send_readable_memory(setup: Setup) -> Call:
    address = loopback_receiver(setup)
    data = setup.anonymous_memory(128)
    return Call("sendto", setup.udp_socket().fileno(), data, 128, 0, address, ctypes.sizeof(address))


def loopback_receiver(setup: Setup) -> SockaddrIn:
    """The address of a UDP socket on the loopback interface."""
    receiving = setup.udp_socket()
    receiving.bind(("127.0.0.1", 0))
    return SockaddrIn.loopback(receiving.getsockname()[1])


@scenario(
    "sendmsg-ebadf",
    "EBADF",
    "Of the two descriptors that a UNIX socket shall hand over, the second is not open. The socket's own descriptor "
    "is, which a wrong one would say with the same errno.",
)
def sendmsg_ebadf(setup: Setup) -> Call:
    reading, _ = setup.pipe()
    sending = setup.socket(AF_UNIX, SOCK_DGRAM)
    return Call("sendmsg", sending.fileno(), descriptors_message(reading, NO_DESCRIPTOR), 0)


@succeeds(sendmsg_ebadf, anew=True)
def hand_over_open_descriptors(setup: Setup) -> Call:
    reading, writing = setup.pipe()
    receiving, sending = setup.socket(AF_UNIX, SOCK_DGRAM), setup.socket(AF_UNIX, SOCK_DGRAM)
    receiving.bind("")  # to a name of the kernel's choice
    sending.connect(receiving.getsockname())
    return Call("sendmsg", sending.fileno(), descriptors_message(reading, writing), 0)


@scenario(
    "shutdown-enotconn",
    "ENOTCONN",
    "A TCP socket that was never connected. The errno is set, and then the socket is shut down all the same.",
)
def shutdown_enotconn(setup: Setup) -> Call:
    return Call("shutdown", setup.tcp_socket().fileno(), SHUT_RDWR)


@succeeds(shutdown_enotconn, anew=True)
def shut_a_connection_down(setup: Setup) -> Call:
    _, connected = connection(setup)
    return Call("shutdown", connected.fileno(), SHUT_RDWR)


@scenario(
    "accept-eagain",
    "EAGAIN",
    "Nobody is waiting to be accepted, and the socket must not wait. The errno leaves by the label that accept4's "
    "EINVAL takes too.",
)
def accept_eagain(setup: Setup) -> Call:
    listening = setup.tcp_socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(1)
    listening.setblocking(False)
    return Call("accept", listening.fileno(), None, None)


@succeeds(accept_eagain, anew=True)
def accept_without_waiting(setup: Setup) -> Call:
    listening, _ = connection(setup)
    listening.setblocking(False)
    return Call("accept", listening.fileno(), None, None, undo=Call("close", RESULT))


@scenario(
    "getsockopt-enotconn",
    "ENOTCONN",
    "SO_PEERNAME of a TCP socket that was never connected. The protocol says ENOTCONN, and whatever it says is "
    "replaced by ENOTCONN.",
)
def getsockopt_enotconn(setup: Setup) -> Call:
    name = ctypes.create_string_buffer(16)
    length = ctypes.c_uint32(16)
    return Call("getsockopt", setup.tcp_socket().fileno(), SOL_SOCKET, SO_PEERNAME, name, length)


@succeeds(getsockopt_enotconn)
def ask_for_the_peers_name(setup: Setup) -> Call:
    _, connected = connection(setup)
    name, length = ctypes.create_string_buffer(16), ctypes.c_uint32(16)
    return Call("getsockopt", connected.fileno(), SOL_SOCKET, SO_PEERNAME, name, length)


def connection(setup: Setup) -> tuple[Socket, Socket]:
    """A listening TCP socket, and one that is connected to it and not yet accepted."""
    listening, connected = setup.tcp_socket(), setup.tcp_socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(1)
    connected.connect(listening.getsockname())
    return listening, connected
