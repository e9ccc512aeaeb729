"""Semaphores, message queues: System V's and POSIX's."""

from __future__ import annotations

import ctypes
import os

from loadgen import sysv
from loadgen.messages import QueueAttributes, Semop, SysvMessage
from loadgen.scenario import Call, scenario, succeeds
from loadgen.setup import Setup

IPC_NOWAIT = 0o4000


@scenario(
    "semop-eagain",
    "EAGAIN",
    "Three operations on two semaphores, of which the last would block. Those before it are taken back in a loop "
    "after the errno was set.",
)
def semop_eagain(setup: Setup) -> Call:
    up, down = Semop(0, 1, IPC_NOWAIT), Semop(1, -1, IPC_NOWAIT)
    return Call("semop", sysv.semaphores(setup, 2), (Semop * 3)(up, up, down), 3)


@succeeds(semop_eagain)
def up_and_down(setup: Setup) -> Call:
    up, down = Semop(0, 1, IPC_NOWAIT), Semop(0, -1, IPC_NOWAIT)
    return Call("semop", sysv.semaphores(setup, 2), (Semop * 2)(up, down), 2)


@scenario(
    "msgrcv-enomsg",
    "ENOMSG",
    "The queue holds messages, but none of the type asked for. The search itself says EAGAIN, which its caller "
    "replaces.",
)
def msgrcv_enomsg(setup: Setup) -> Call:
    queue = sysv.message_queue(setup)
    libc = ctypes.CDLL(None)
    for kind in (2, 3):
        libc.msgsnd(queue, ctypes.byref(SysvMessage(kind, b"other")), ctypes.c_size_t(8), IPC_NOWAIT)
    return Call("msgrcv", queue, SysvMessage(), 8, 1, IPC_NOWAIT)


@succeeds(msgrcv_enomsg, anew=True)
def receive_any_message(setup: Setup) -> Call:
    queue = sysv.message_queue(setup)
    libc = ctypes.CDLL(None)
    libc.msgsnd(queue, ctypes.byref(SysvMessage(2, b"other")), ctypes.c_size_t(8), IPC_NOWAIT)
    return Call("msgrcv", queue, SysvMessage(), 8, 2, IPC_NOWAIT)


@scenario(
    "mq-timedsend-eagain",
    "EAGAIN",
    "A POSIX message queue that is full, opened with O_NONBLOCK. The message was copied in already and is freed again.",
)
def mq_timedsend_eagain(setup: Setup) -> Call:
    queue = posix_queue(setup)
    ctypes.CDLL(None).mq_send(queue, b"full", ctypes.c_size_t(4), 0)
    return Call("mq_timedsend", queue, b"more", 4, 0, None)


@succeeds(mq_timedsend_eagain, anew=True)
def send_to_an_empty_queue(setup: Setup) -> Call:
    return Call("mq_timedsend", posix_queue(setup), b"more", 4, 0, None)


def posix_queue(setup: Setup) -> int:
    """A queue for one message, without a name."""
    libc = ctypes.CDLL(None)
    name = f"/whyerrno-load-{os.getpid()}".encode()
    attributes = QueueAttributes(most_messages=1, message_size=16)
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC
    queue = setup.owned(libc.mq_open(name, flags, 0o600, ctypes.byref(attributes)))
    libc.mq_unlink(name)
    return queue
