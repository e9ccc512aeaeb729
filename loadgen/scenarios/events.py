"""Timers, epoll, poll, eventfd, inotify and futexes."""

from __future__ import annotations

import ctypes
import os
import select

from loadgen.faults import before_forbidden
from loadgen.messages import PollDescriptor
from loadgen.scenario import RESULT, Call, scenario, succeeds
from loadgen.setup import Setup
from loadgen.structures import EpollEvent, ITimerSpec

CLOCK_MONOTONIC = 1
EPOLL_CTL_ADD = 1
EPOLL_CTL_DEL = 2
IN_MODIFY = 2
FUTEX_WAIT_PRIVATE = 128
POLL_ON_STACK = 30  # descriptors that poll copies first, to its stack: what fits 256 bytes with a header of 16
EVENTFD_MOST = 2**64 - 2


@scenario(
    "timerfd-settime-einval",
    "EINVAL",
    "A billion nanoseconds where 999999999 is the most. A wrong flag and a descriptor of another kind say EINVAL too.",
)
def timerfd_settime_einval(setup: Setup) -> Call:
    libc = ctypes.CDLL(None)
    timer = setup.owned(libc.timerfd_create(CLOCK_MONOTONIC, os.O_CLOEXEC))
    return Call("timerfd_settime", timer, 0, ITimerSpec(value_nanoseconds=1_000_000_000), None)


@succeeds(timerfd_settime_einval)
def set_a_timer(setup: Setup) -> Call:
    libc = ctypes.CDLL(None)
    timer = setup.owned(libc.timerfd_create(CLOCK_MONOTONIC, os.O_CLOEXEC))
    return Call("timerfd_settime", timer, 0, ITimerSpec(value_nanoseconds=999_999_999), None)


@scenario(
    "epoll-ctl-eexist",
    "EEXIST",
    "The descriptor is in the epoll set already: found by a search of a tree, after a good many other checks.",
)
def epoll_ctl_eexist(setup: Setup) -> Call:
    reading, _ = setup.pipe()
    polling = select.epoll()
    setup.at_end(polling.close)
    polling.register(reading, select.EPOLLIN)
    return Call("epoll_ctl", polling.fileno(), EPOLL_CTL_ADD, reading, EpollEvent(select.EPOLLIN, reading))


@succeeds(epoll_ctl_eexist)
def add_to_the_set(setup: Setup) -> Call:
    reading, _ = setup.pipe()
    polling = select.epoll()
    setup.at_end(polling.close)
    event = EpollEvent(select.EPOLLIN, reading)
    remove = Call("epoll_ctl", polling.fileno(), EPOLL_CTL_DEL, reading, event)
    return Call("epoll_ctl", polling.fileno(), EPOLL_CTL_ADD, reading, event, undo=remove)


@scenario(
    "inotify-add-watch-einval",
    "EINVAL",
    "A watch for no event at all: the mask has none of the bits that inotify knows.",
)
def inotify_add_watch_einval(setup: Setup) -> Call:
    libc = ctypes.CDLL(None)
    watching = setup.owned(libc.inotify_init1(os.O_CLOEXEC))
    return Call("inotify_add_watch", watching, setup.directory(), 0)


@succeeds(inotify_add_watch_einval)
def watch_a_directory(setup: Setup) -> Call:
    libc = ctypes.CDLL(None)
    watching = setup.owned(libc.inotify_init1(os.O_CLOEXEC))
    remove = Call("inotify_rm_watch", watching, RESULT)
    return Call("inotify_add_watch", watching, setup.directory(), IN_MODIFY, undo=remove)


@scenario(
    "futex-eagain",
    "EAGAIN",
    "A wait for a value that the futex no longer has: the race that every lock must lose sometimes.",
)
def futex_eagain(setup: Setup) -> Call:
    return Call("futex", ctypes.c_uint32(1), FUTEX_WAIT_PRIVATE, 2, None, None, 0)


@scenario(
    "epoll-wait-einval",
    "EINVAL",
    "The descriptor is a pipe's, not an epoll set's. A wrong number of events says EINVAL too, three checks earlier.",
)
def epoll_wait_einval(setup: Setup) -> Call:
    reading, _ = setup.pipe()
    return Call("epoll_wait", reading, EpollEvent(), 1, 0)


@succeeds(epoll_wait_einval)
def wait_for_nothing(setup: Setup) -> Call:
    polling = select.epoll()
    setup.at_end(polling.close)
    return Call("epoll_wait", polling.fileno(), EpollEvent(), 1, 0)


@scenario(
    "poll-efault",
    "EFAULT",
    "The array of descriptors runs into memory that nobody may read. It is copied in pieces: the first piece is "
    "there, the second faults.",
)
def poll_efault(setup: Setup) -> Call:
    first = bytes(PollDescriptor(-1)) * POLL_ON_STACK
    return Call("poll", before_forbidden(setup, first), POLL_ON_STACK + 1, 0)


@succeeds(poll_efault)
def poll_readable_memory(setup: Setup) -> Call:
    descriptors = bytes(PollDescriptor(-1)) * (POLL_ON_STACK + 1)
    return Call("poll", before_forbidden(setup, descriptors), POLL_ON_STACK + 1, 0)


@scenario(
    "write-eagain",
    "EAGAIN",
    "An eventfd whose counter is at its highest, opened with EFD_NONBLOCK. The errno is set before it is known "
    "whether the number fits.",
)
def write_eagain(setup: Setup) -> Call:
    counter = setup.owned(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
    os.eventfd_write(counter, EVENTFD_MOST)
    return Call("write", counter, ctypes.c_uint64(1), 8)


@succeeds(write_eagain)
def count_up(setup: Setup) -> Call:
    counter = setup.owned(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
    return Call("write", counter, ctypes.c_uint64(1), 8)
