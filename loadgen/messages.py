"""The structures of sendmsg(2), sendmmsg(2), semop(2), msgsnd(2), mq_open(3) and poll(2), by their man pages."""

from __future__ import annotations

import ctypes

from loadgen.structures import IoVector, SockaddrIn

SOL_SOCKET = 1
SCM_RIGHTS = 1


class MessageHeader(ctypes.Structure):
    """sendmsg(2), `struct msghdr`. Whoever makes one keeps what it points to alive: ctypes does that for pointers."""

    _fields_ = [
        ("name", ctypes.POINTER(SockaddrIn)),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(IoVector)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class CountedMessage(ctypes.Structure):
    """sendmmsg(2), `struct mmsghdr`."""

    _fields_ = [("header", MessageHeader), ("sent", ctypes.c_uint32)]


class Semop(ctypes.Structure):
    """semop(2), `struct sembuf`."""

    _fields_ = [("number", ctypes.c_uint16), ("change", ctypes.c_int16), ("flags", ctypes.c_int16)]


class SysvMessage(ctypes.Structure):
    """msgsnd(2), `struct msgbuf`."""

    _fields_ = [("kind", ctypes.c_long), ("text", ctypes.c_char * 8)]


class QueueAttributes(ctypes.Structure):
    """mq_getattr(3)."""

    _fields_ = [(name, ctypes.c_long) for name in ("flags", "most_messages", "message_size", "messages")] + [
        ("reserved", ctypes.c_long * 4)
    ]


class PollDescriptor(ctypes.Structure):
    """poll(2)."""

    _fields_ = [("descriptor", ctypes.c_int), ("events", ctypes.c_short), ("returned", ctypes.c_short)]


def descriptors_message(*descriptors: int) -> MessageHeader:
    """A message of one byte that hands over these descriptors: unix(7), SCM_RIGHTS; cmsg(3) has the layout."""
    numbers = (ctypes.c_int * len(descriptors))(*descriptors)

    class Control(ctypes.Structure):
        _fields_ = [
            ("length", ctypes.c_size_t),
            ("level", ctypes.c_int),
            ("kind", ctypes.c_int),
            ("descriptors", type(numbers)),
        ]

    length = Control.descriptors.offset + ctypes.sizeof(numbers)
    control = Control(length, SOL_SOCKET, SCM_RIGHTS, numbers)
    byte = ctypes.create_string_buffer(1)
    header = MessageHeader(
        vectors=ctypes.pointer(IoVector(ctypes.addressof(byte), 1)),
        vector_count=1,
        control=ctypes.addressof(control),
        control_length=ctypes.sizeof(control),
    )
    header.alive = (byte, control)  # addresses alone would not keep them
    return header
