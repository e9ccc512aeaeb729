"""The host's end of a command channel: the guest's second serial port, or its third, as a socket.

To the guest, one line a command:   NUMBER BASE64-OF-A-SHELL-SCRIPT
From the guest:                     \\x1eready RELEASE                once
                                    \\x1ebegin NUMBER                 then the command's output as it comes
                                    \\x1eend NUMBER EXIT-CODE
NUMBER carries a random token, so that a command's own output cannot pass for the end of it.
"""

from __future__ import annotations

import base64
import secrets
import select
import socket
import time
from collections.abc import Callable, Iterator

# The tty layer of the guest buffers 4,096 bytes; what is longer goes over the disk.
LONGEST_SCRIPT = 2500


class ChannelClosed(Exception):  # noqa: N818 - an event of the protocol; the guest turns it into a TargetError
    """The other end is gone: QEMU ended."""


class ChannelSilent(Exception):  # noqa: N818
    """The deadline came first."""


class Channel:
    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._socket.setblocking(False)
        self._buffer = b""
        self._token = secrets.token_hex(6)
        self._count = 0
        self.busy = False
        self.ready = False

    def wait_ready(self, deadline: float, check: Callable[[], None]) -> str:
        """The guest's kernel release, once its init listens."""
        for line in self._lines(deadline, check):
            _, found, release = line.partition(b"\x1eready ")
            if found:
                self.ready = True
                return release.decode().strip()
        raise ChannelClosed

    def run(
        self, script: str, deadline: float, check: Callable[[], None], on_line: Callable[[bytes], None]
    ) -> tuple[int, bytes]:
        """Exit code and output of a shell script. `check` is called about once a second and may raise."""
        self.busy = True
        try:
            return self._run(script, deadline, check, on_line)
        finally:
            self.busy = False

    def _run(
        self, script: str, deadline: float, check: Callable[[], None], on_line: Callable[[bytes], None]
    ) -> tuple[int, bytes]:
        self._count += 1
        number = f"{self._token}-{self._count}"
        begin, end = f"\x1ebegin {number}".encode(), f"\x1eend {number} ".encode()
        self._send(number.encode() + b" " + base64.b64encode(script.encode()) + b"\n", deadline)
        output: list[bytes] = []
        running = False
        for line in self._lines(deadline, check):
            if not running:
                running = begin in line  # what comes before is left over from a background process
                continue
            text, found, code = line.partition(end)
            if text:
                output.append(text)
                on_line(text)
            if found:
                return int(code), b"".join(output)
        raise ChannelClosed

    def _send(self, data: bytes, deadline: float) -> None:
        while data:
            if not select.select([], [self._socket], [], max(0, deadline - time.monotonic()))[1]:
                raise ChannelSilent
            try:
                data = data[self._socket.send(data) :]
            except OSError as error:
                raise ChannelClosed from error

    def _lines(self, deadline: float, check: Callable[[], None]) -> Iterator[bytes]:
        """Whole lines, newline included, until the deadline (ChannelSilent) or the end (ChannelClosed)."""
        while True:
            line, newline, rest = self._buffer.partition(b"\n")
            if newline:
                self._buffer = rest
                yield line + newline
                continue
            left = deadline - time.monotonic()
            if left <= 0:
                raise ChannelSilent
            if not select.select([self._socket], [], [], min(left, 1.0))[0]:
                check()
                continue
            self._buffer += self._receive()

    def _receive(self) -> bytes:
        try:
            data = self._socket.recv(1 << 16)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise ChannelClosed from error
        if not data:
            raise ChannelClosed
        return data
