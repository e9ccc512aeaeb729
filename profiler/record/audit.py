"""Audit records by the kernel's netlink multicast group, which is there whether an audit daemon runs or not.

Where none runs the kernel prints its records into the kernel log as well; where one runs they go to it alone, and a
denial by a security module would not be seen otherwise. A message is a netlink header (netlink(7)), whose type is the
record's, and the record's text; its length may leave the header out. The group is AUDIT_NLGRP_READLOG of
include/uapi/linux/audit.h, and needs CAP_AUDIT_READ.

    audit(1700000000.123:45): apparmor="DENIED" operation="open" pid=812 comm="repro" ...
"""

import _socket as socket  # without the Python part, whose import takes an emulated guest half a second
import re
import struct
import time

NETLINK_AUDIT = 9
READLOG = 1  # the bit of group 1
ROOM = 4 << 20  # bytes that wait to be read, at most; a recording may take minutes
MOST_RECORDS = 5_000
_HEADER = struct.Struct("=IHHII")
_FIRST_RECORD = 1300  # kernel records: AUDIT_SYSCALL and above; what is below are answers and orders
_END_OF_EVENT = 1320
_STAMP = re.compile(r"audit\((\d+\.\d+):(\d+)\)")


class AuditLog:
    """Records from its construction on; none where this process may not read them."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETLINK_AUDIT)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
            self._socket.bind((0, READLOG))
        except OSError:  # no permission, or a kernel without audit
            self.close()

    def lines(self, known: list[str]) -> list[str]:
        """The records as lines of a kernel log, without those that `known` lines of it have already."""
        stamps = {match[0] for line in known if (match := _STAMP.search(line))}
        found: list[str] = []
        while self._socket is not None and len(found) < MOST_RECORDS:
            try:
                message = self._socket.recv(65536)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: some were lost for want of room; the next read goes on
                found.append("whyerrno: audit records were lost here")
                continue
            line = format_record(message)
            stamp = _STAMP.search(line)
            if line and not (stamp and stamp[0] in stamps):
                found.append(line)
        return found

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def format_record(message: bytes) -> str:
    """`<5>[   12.345678] audit: type=1400 audit(...): ...`, as the kernel prints it; "" of what is no record."""
    if len(message) < _HEADER.size:
        return ""
    kind = _HEADER.unpack_from(message)[1]
    if kind < _FIRST_RECORD or kind == _END_OF_EVENT:
        return ""
    text = message[_HEADER.size :].rstrip(b"\0\n").decode("utf-8", "replace")
    stamp = _STAMP.match(text)
    if stamp is None:
        return ""
    since_boot = max(0.0, float(stamp[1]) - (time.time() - time.monotonic()))
    return f"<5>[{since_boot:12.6f}] audit: type={kind} {text}"
