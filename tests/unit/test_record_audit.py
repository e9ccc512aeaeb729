"""Audit records from netlink, as lines of a kernel log."""

from __future__ import annotations

import struct
import time

from profiler.record.audit import AuditLog, format_record
from profiler.record.kernel_log import console_level


def message(kind: int, text: str) -> bytes:
    body = text.encode() + b"\0"
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def test_a_record_becomes_a_line_at_its_time_since_boot() -> None:
    """The kernel stamps records with the time of day; the log counts from boot."""
    stamp = time.time()
    line = format_record(message(1400, f'audit({stamp:.3f}:7): apparmor="DENIED" pid=812'))
    assert line.endswith(f'] audit: type=1400 audit({stamp:.3f}:7): apparmor="DENIED" pid=812')
    assert abs(float(line[4:16]) - time.monotonic()) < 5


def test_what_is_no_record_is_nothing() -> None:
    """Answers to questions, the end of an event, text without a stamp, a message cut short."""
    assert format_record(message(1000, "audit(1.2:3): x")) == ""
    assert format_record(message(1320, "audit(1.2:3): ")) == ""
    assert format_record(message(1400, "nothing")) == ""
    assert format_record(b"\0" * 7) == ""


def test_records_that_the_log_has_are_not_repeated() -> None:
    """Without an audit daemon a record comes both ways."""

    class Messages:
        def __init__(self) -> None:
            self._left = [message(1400, "audit(1.2:3): a"), message(1400, "audit(1.2:4): b")]

        def recv(self, _size: int) -> bytes:
            if not self._left:
                raise BlockingIOError
            return self._left.pop(0)

        def close(self) -> None:
            """Nothing to close."""

    log = AuditLog()
    log.close()
    log._socket = Messages()  # type: ignore[assignment]
    lines = log.lines(["<5>[ 1.0] audit: type=1400 audit(1.2:3): a"])
    assert [line.rpartition("audit: ")[2] for line in lines] == ["type=1400 audit(1.2:4): b"]


def test_the_consoles_level_is_the_first_number() -> None:
    """Of kernel.printk; where it cannot be read nothing is raised."""
    assert console_level("/nonexistent") == 8
