"""The text of `perf script` to a PerfRecording.

Best made with exactly this, which pins the fields and keeps what the text otherwise loses:

    LC_ALL=C perf script --ns --header --show-task-events --show-lost-events \\
        -F comm,pid,tid,cpu,time,period,event,ip,sym -i perf.data

(without `cpu` where perf record ran without -a and the samples do not carry it). The default form,
without -F, is understood as well, as are more fields than these: dso, symoff, misc, srcline.

What the text cannot say: the ip of a sample outside the kernel when only kernel callchains were
recorded (it becomes 0), spaces around a thread's name, and which event a frequency belongs to unless
the header is there. Whether an address is the kernel's is told by its upper half.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable

import numpy as np

from profiler.errors import InputError
from profiler.model import Event, PerfRecording, Samples
from profiler.parse.faults import Faults

PERF_SCRIPT_FIELDS = "comm,pid,tid,cpu,time,period,event,ip,sym"
PERF_SCRIPT_COMMAND = (
    *("perf", "script", "--ns", "--header", "--show-task-events", "--show-lost-events"),
    *("-F", PERF_SCRIPT_FIELDS),
)

_LONGEST_LINE = 1 << 16
_RULE = "# ========"  # above and below the header
_VSYSCALL = 0xFFFFFFFFFF600000 >> 12  # a user page in the kernel's half of the address space

# Each line begins with the thread. Names hold anything, up to 15 bytes, so what follows is matched strictly.
_THREAD = (
    r"(?:(?P<comm>.{0,80}?)\s+)?(?:(?P<pid>-?\d+)/)?(?P<tid>-?\d+)\s+(?:\[(?P<cpu>-?\d{3,})\]\s+)?"
    r"(?:(?P<misc>[KUHGE][a-zA-Z]{0,7})\s+)?(?P<seconds>\d+)\.(?P<fraction>\d{6,9}):\s+"
)
#             sh 13912/13912 [001]  1699.686871742:      50000 cpu-clock:  ffffffff815e3255 do_wp_page
#             ls 14667  1706.122450:    1001001  cpu-clock:      7f845a68d09f _nl_intern_locale_data+0x1f (libc.so.6)
_SAMPLE = re.compile(
    _THREAD + r"(?:(?P<period>\d+)\s+)?(?P<event>(?!PERF_RECORD_)\S+):(?:\s+(?P<ip>[0-9a-f]{1,16})(?:\s.*)?)?(?:\s.*)?"
)
# kthreadd     0/0     [000]     0.000000000: PERF_RECORD_FORK(3:3):(2:2)
_FORK = re.compile(_THREAD + r"PERF_RECORD_FORK\((?P<child>-?\d+):-?\d+\):\((?P<parent>-?\d+):-?\d+\)")
# perf-exec 29971/29971 [000]  2582.654872565: PERF_RECORD_LOST lost 13
_LOST = re.compile(_THREAD + r"PERF_RECORD_(?P<what>LOST|LOST_SAMPLES) lost (?P<lost>\d+)")
# sh 13912/13912 [001]  1700.574880112: PERF_RECORD_EXIT(14514:14514):(13912:13912)
_OTHER_RECORD = re.compile(_THREAD + r"PERF_RECORD_\w+.*")
# 	ffffffff815e3255 do_wp_page+0x25 ([kernel.kallsyms])
_CHAIN_ENTRY = re.compile(r"\s+([0-9a-f]{1,16})(?:\s|$)")
#   memory.c:3012
_SOURCE_LINE = re.compile(r"\s+\S.*:(?:\d+|\?)$")
# # event : name = cpu-clock, , id = { 75 }, type = 1, { sample_period, sample_freq } = 20000, freq = 1, precise_ip = 3
_EVENT_HEADER = re.compile(r"# event : name = (?P<name>.+?), , (?P<rest>.*)")
_ASKED = re.compile(r"\{ sample_period, sample_freq \} = (\d+)")
_PRECISE = re.compile(r"\bprecise_ip = (\d)")
# # os release : 6.1.0-56-cloud-amd64
_HEADER = re.compile(r"# (os release|perf version|arch|cmdline) : (.*)")


def read(lines: Iterable[str | bytes]) -> PerfRecording:
    """Samples in the order of the text. Lines that cannot be read are `decode_errors`, by line number from 1.

    Bytes that are not UTF-8 become escapes, as in `perf_data.read`. Raises InputError where no line
    at all is a sample.
    """
    text = _Text()
    number = 0
    for number, line in enumerate(lines, 1):
        shown = line.decode("utf-8", "backslashreplace") if isinstance(line, bytes) else line
        text.take(number, shown.rstrip("\r\n"))
    if not text.samples:
        what = f"none of {number} lines is a sample of perf script" if number else "empty perf script text"
        raise InputError(what, hint=f"make it with: LC_ALL=C {' '.join(PERF_SCRIPT_COMMAND)} -i perf.data")
    return text.finish()


def _is_kernel(address: int) -> bool:
    return address >> 63 == 1 and address >> 12 != _VSYSCALL


class _Text:
    """The columns, as they grow line by line."""

    def __init__(self) -> None:
        self.samples = 0
        self._faults = Faults()
        self._unsigned = {name: array("Q") for name in ("ip", "time", "period", "chain")}
        self._signed = {name: array("i") for name in ("pid", "tid", "cpu", "comm", "event")}
        self._in_kernel = bytearray()
        self._chain_start = array("q", [0])
        self._chain_open = False  # the lines that follow belong to the last sample's chain
        self._kernel_part = False
        self._in_header = False
        self._comms: dict[str, int] = {}
        self._events: dict[str, int] = {}
        self._described: dict[str, Event] = {}
        self._facts: dict[str, str] = {}
        self._parents: dict[int, int] = {}
        self._lost = {"LOST": 0, "LOST_SAMPLES": 0}

    def take(self, number: int, line: str) -> None:
        if line == _RULE:
            self._in_header = not self._in_header
        elif not line or line.isspace():
            self._chain_open = False
        elif line.startswith("#"):
            self._header(line)
        elif self._in_header and not _SAMPLE.fullmatch(line.strip()):
            return  # the rest of a recorded command whose arguments hold newlines
        elif len(line) > _LONGEST_LINE:
            self._faults.add(number, f"line of {len(line)} characters")
        elif not (self._chain_open and self._chain_line(line)) and not self._record(line):
            self._faults.add(number, f"not a line of perf script: {line[:80]!r}")

    def _chain_line(self, line: str) -> bool:
        entry = _CHAIN_ENTRY.match(line)
        if entry is None:
            return _SAMPLE.fullmatch(line.strip()) is None and _SOURCE_LINE.match(line) is not None
        if not line.endswith("(inlined)"):  # perf repeats the address for functions inlined at it
            self._chain_entry(int(entry[1], 16))
        return True

    def _chain_entry(self, address: int) -> None:
        kernel = _is_kernel(address)
        if not self._unsigned["ip"][-1]:  # with a chain the ip stands there, first
            self._unsigned["ip"][-1] = address
            self._in_kernel[-1] = self._kernel_part = kernel
        # After the first user address all are the user's, even what looks otherwise: perf unwinds user
        # stacks by frame pointers that may point anywhere.
        self._kernel_part = self._kernel_part and kernel
        if self._kernel_part:
            self._unsigned["chain"].append(address)
            self._chain_start[-1] += 1

    def _record(self, line: str) -> bool:
        stripped = line.strip()
        match = _SAMPLE.fullmatch(stripped)
        if match is not None:
            self._sample(match)
            return True
        self._chain_open = False
        fork = _FORK.fullmatch(stripped)
        if fork is not None and fork["child"] != fork["parent"]:
            self._parents[int(fork["child"])] = int(fork["parent"])
        lost = _LOST.fullmatch(stripped)
        if lost is not None:
            self._lost[lost["what"]] += int(lost["lost"])
        return _OTHER_RECORD.fullmatch(stripped) is not None

    def _sample(self, match: re.Match[str]) -> None:
        comm, pid, tid, cpu, misc, seconds, fraction, period, event, ip = match.groups()
        address = int(ip or "0", 16)
        unsigned, signed = self._unsigned, self._signed
        unsigned["ip"].append(address)
        unsigned["time"].append((int(seconds) * 10**9 + int(fraction.ljust(9, "0"))) % 2**64)
        unsigned["period"].append(min(int(period or 0), 2**64 - 1))
        signed["pid"].append(_int32(pid))
        signed["tid"].append(_int32(tid))
        signed["cpu"].append(_int32(cpu))
        signed["comm"].append(self._comms.setdefault(comm or "", len(self._comms)))
        signed["event"].append(self._events.setdefault(event, len(self._events)))
        self._in_kernel.append(misc[0] == "K" if misc else _is_kernel(address))
        self._chain_start.append(self._chain_start[-1])
        self._chain_open = ip is None
        self.samples += 1

    def _header(self, line: str) -> None:
        event = _EVENT_HEADER.fullmatch(line)
        if event is not None:
            asked, precise = _ASKED.search(event["rest"]), _PRECISE.search(event["rest"])
            by_frequency = asked is not None and ", freq = 1" in event["rest"]
            frequency = int(asked[1]) if asked is not None and by_frequency else 0
            self._described[event["name"]] = Event(event["name"], frequency, int(precise[1]) if precise else 0)
            return
        fact = _HEADER.fullmatch(line)
        if fact is not None:
            self._facts.setdefault(fact[1], fact[2].strip())

    def finish(self) -> PerfRecording:
        unsigned = {name: np.array(column, np.uint64) for name, column in self._unsigned.items()}
        signed = {name: np.array(column, np.int32) for name, column in self._signed.items()}
        samples = Samples(
            **unsigned,
            pid=signed["pid"],
            tid=signed["tid"],
            cpu=signed["cpu"],
            comm=signed["comm"],
            event=signed["event"].astype(np.int16),
            in_kernel=np.frombuffer(bytes(self._in_kernel), np.bool_),
            chain_start=np.array(self._chain_start, np.int64),
        )
        return PerfRecording(
            samples=samples,
            events=tuple(self._described.get(name, Event(name, 0, 0)) for name in self._events),
            comms=tuple(self._comms),
            parents=self._parents,
            lost=max(self._lost.values()),
            throttled=0,
            os_release=self._facts.get("os release", ""),
            arch=self._facts.get("arch", ""),
            perf_version=self._facts.get("perf version", ""),
            command_line=tuple(self._facts.get("cmdline", "").split()),
            decode_errors=self._faults.errors(),
        )


def _int32(digits: str | None) -> int:
    """-1 where there are none, or where no 32-bit number is meant."""
    number = int(digits) if digits is not None and len(digits) <= 11 else -1
    return number if -(2**31) <= number < 2**31 else -1
