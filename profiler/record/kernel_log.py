"""The kernel log's lines from the time of the recording, out of /dev/kmsg, with audit records that are not in it.

A read gives one record (Documentation/ABI/testing/dev-kmsg), then lines of details that begin with a space:

    6,339,5140900,-,caller=T1;NET: Registered PF_INET6 protocol family
     SUBSYSTEM=...

that is facility and level, sequence number, microseconds since boot, flags, who logged it where the kernel was built
to say that, and the text.

/dev/kmsg has the lines of every level. What the level set by kernel.printk holds back are lines on the console, and
these are all that is left of a machine that hangs or panics (a guest's console is kept), so it is raised meanwhile. The
limits on repeated messages stay: a load that fails a million times a second would drown the log in one line.
"""

import errno
import os
import re

from profiler.record import journal, threads
from profiler.record.audit import AuditLog

PATH = "/dev/kmsg"
LEVEL_PATH = "/proc/sys/kernel/printk"  # the console's level is the first of its four numbers
ALL_LEVELS = 8
MOST_LINES = 20_000
MOST_THREADS = 100


class KernelLog:
    """Everything logged between the construction and `lines`; opened before the load is set up."""

    def __init__(self, path: str = PATH) -> None:
        self.problem = ""
        self._fd = -1
        self._found: list[str] = []
        self._audit = AuditLog()
        self._raised: int | None = None
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._fd, 0, os.SEEK_END)
        except OSError as error:
            self.problem = (
                f"the kernel log cannot be read: {error.strerror} (root, or kernel.dmesg_restrict=0, is needed)"
            )
        if self._fd >= 0 and console_level() < ALL_LEVELS:
            self._raised = journal.change("printk", str(ALL_LEVELS))

    def load_begins(self, pid: int) -> None:
        """What comes from now on may be the doing of the calls; what came before is of the set-up."""
        self._read()
        numbers = " ".join(str(number) for number in threads.of(pid)[:MOST_THREADS])
        self._found.append(f"whyerrno: the load begins, its threads are {numbers or pid}")

    def lines(self) -> list[str]:
        """Lines such as "<6>[    5.140900] NET: Registered PF_INET6 protocol family", and remarks that begin with
        "whyerrno: " on where the load begins and where records were lost."""
        self._read()
        return self._found

    def close(self) -> None:
        journal.put_back(self._raised)
        self._raised = None
        self._audit.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> None:
        found: list[str] = []
        while self._fd >= 0 and len(self._found) + len(found) < MOST_LINES:
            try:
                record = os.read(self._fd, 8192)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.EPIPE:  # EPIPE: overwritten before it was read; the next read goes on
                    break
                found.append("whyerrno: kernel log records were overwritten here")
                continue
            if not record:
                break
            found.append(format_record(record))
        self._found += found
        self._found += self._audit.lines(self._found)


def console_level(path: str = LEVEL_PATH) -> int:
    """The level below which lines are shown on the console; ALL_LEVELS where it cannot be told."""
    try:
        with open(path) as file:
            return int(file.read().split()[0])
    except (OSError, ValueError, IndexError):
        return ALL_LEVELS


def format_record(record: bytes) -> str:
    """As `dmesg -r` prints it: facility and level, seconds since boot, who logged it where that is known, text."""
    prefix, separator, text = record.partition(b";")
    if not separator:
        prefix, text = b"", record
    fields = prefix.split(b",")
    line = text.partition(b"\n")[0].decode("utf-8", "replace")
    if len(fields) < 3 or not fields[0].isdigit() or not fields[2].isdigit():
        return line
    level, microseconds = int(fields[0]), int(fields[2])
    caller = re.search(rb",caller=([TC]\d+)", prefix)
    by = f"[{caller[1].decode():>6}]" if caller else ""
    return f"<{level}>[{microseconds // 1_000_000:5}.{microseconds % 1_000_000:06}]{by} {line}"
