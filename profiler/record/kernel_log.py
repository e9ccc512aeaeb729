"""The kernel log's lines from the time of the recording, out of /dev/kmsg.

A read gives one record (Documentation/ABI/testing/dev-kmsg), then lines of details that begin with a space:

    6,339,5140900,-;NET: Registered PF_INET6 protocol family
     SUBSYSTEM=...

that is facility and level, sequence number, microseconds since boot, flags, and the text.
"""

import errno
import os

PATH = "/dev/kmsg"
MOST_LINES = 20_000


class KernelLog:
    """Everything logged between the construction and `lines`; opened before the load is set up."""

    def __init__(self, path: str = PATH) -> None:
        self.problem = ""
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._fd, 0, os.SEEK_END)
        except OSError as error:
            self.problem = (
                f"the kernel log cannot be read: {error.strerror} (root, or kernel.dmesg_restrict=0, is needed)"
            )

    def lines(self) -> list[str]:
        """Lines such as "<6>[    5.140900] NET: Registered PF_INET6 protocol family"; says where records were lost."""
        found: list[str] = []
        while self._fd >= 0 and len(found) < MOST_LINES:
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
        return found

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def format_record(record: bytes) -> str:
    """As `dmesg -r` prints it: level, seconds since boot, text."""
    prefix, separator, text = record.partition(b";")
    if not separator:
        prefix, text = b"", record
    fields = prefix.split(b",")
    line = text.partition(b"\n")[0].decode("utf-8", "replace")
    if len(fields) < 3 or not fields[0].isdigit() or not fields[2].isdigit():
        return line
    level, microseconds = int(fields[0]) & 7, int(fields[2])
    return f"<{level}>[{microseconds // 1_000_000:5}.{microseconds % 1_000_000:06}] {line}"
