"""What the kernel log says of the time of the failing calls: errors of hardware and filesystems, denials, no memory.

A line belongs to the load where it names one of its threads (`pid=812`, `repro[812]`, `Comm: repro PID: 812`), its
command, or was logged by one of them. A denial of somebody else's is none of the load's. What a report of one event
prints below its first line (registers, a backtrace, the state of memory) is left out, and what comes again is counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from profiler.evidence import LOG
from profiler.model import EvidenceNote, LogLine, RungState
from profiler.parse.kernel_log import LoadBegins, Lost, Record

HARDWARE, FILESYSTEM, KERNEL, DENIAL, MEMORY, LOAD, OTHER = (
    *("hardware", "filesystem", "kernel", "denial", "memory", "load", "other"),
)
GRAVE = (HARDWARE, FILESYSTEM, KERNEL)  # each may be why a call fails, whatever the branch says
MOST_LINES = 100

# The first that matches is the kind. What the kernel's own sources print, of long standing in all versions.
_KINDS = (
    (
        KERNEL,
        r"^BUG: |^kernel BUG at |^Oops|^general protection fault|^INFO: task .* blocked|soft lockup|"
        r"detected stalls? on CPUs|^Kernel panic",
    ),
    (
        HARDWARE,
        r"\bI/O error\b(?!.*\bXFS)|\bmce: |Machine [Cc]heck|Hardware Error|^EDAC |"
        r"\bata\d+(?:\.\d+)?: (?:exception|failed command|error|SError|status: \{ .*ERR|COMRESET failed|disabled)|"
        r"\bnvme\S*: (?:.*timeout|.*controller is down|.*Abort status|.*failed)|"
        r"critical (?:medium|target|nexus) error|[Mm]edium [Ee]rror|Unrecovered read error|Sense Key : Hardware|"
        r"PCIe Bus Error|\bAER: |DMAR:.*fault|uncorrectable|device-mapper: .*(?:[Ee]rror|corrupt)|md/raid.*failure",
    ),
    (
        FILESYSTEM,
        r"EXT[234]-fs (?:error|\(.*\): (?:error|.*corrupt|.*[Ff]ailed|.*bad ))|JBD2: .*[Ee]rror|"
        r"Remounting filesystem read-only|XFS \(.*\): (?:.*[Cc]orruption|.*I/O error|.*[Ss]hut|.*unmount and run)|"
        r"BTRFS:? (?:error|critical)|BTRFS (?:error|critical)|F2FS-fs .*(?:corrupt|inconsisten)|FAT-fs .*error|"
        r"SQUASHFS error|erofs.*(?:err|corrupt)|ISOFS: .*(?:error|unable)|UBIFS error|NFS: .*error|"
        r"nfs: server .* not responding|CIFS: .*(?:error|reconnect)|overlayfs: .*(?:failed|error)",
    ),
    (
        DENIAL,
        r'apparmor="DENIED"|\bavc: +denied|lsm=SMACK .*action=denied|type=1326\b|type=1423\b|\bdomain=\S+ denied\b|'
        r"Lockdown: .*restricted|ptrace (?:attach|traceme).* was attempted|fork rejected by pids controller|"
        r"\bTOMOYO.*(?:ERROR|violation)|integrity: .*(?:denied|appraise)|\bseccomp\b.*\b(?:kill|denied)|"
        r"Loading of (?:unsigned|module)|module verification failed|LoadPin: .*denied|blocked by (?:IMA|policy)",
    ),
    (
        MEMORY,
        r"invoked oom-killer|[Oo]ut of memory|^oom-kill:|^oom_reaper|page allocation (?:failure|stall)|"
        r"vmap allocation .*failed|[Uu]nable to allocate|vm_enough_memory.*|memory allocation failure",
    ),
)
_WORDS = {  # in the order of what they weigh
    HARDWARE: "a hardware error",
    FILESYSTEM: "an error of a filesystem",
    KERNEL: "a fault of the kernel itself",
    DENIAL: "a denial",
    MEMORY: "a want of memory",
    LOAD: "the load is named",
}
_ORDER = tuple(_WORDS)
_PATTERNS = [(kind, re.compile(pattern)) for kind, pattern in _KINDS]
# Lines below the first of a report.
_BELOW = re.compile(
    r"^(?:CPU: \d|Hardware name: |Call Trace:|Code: |RIP: |RSP: |R[A-Z0-9]{2}: |[ER]FLAGS|Modules linked in|</?\w+>$|"
    r"\?? ?[\w.]+\+0x|Mem-Info:|active_anon:|Node \d|Tasks state|\[ +pid +\]|\[ *\d+\] |(?:memory|swap|kmem): usage|"
    r"\w+ -?\d+$|"  # memory.stat
    r"Memory cgroup stats|anon \d|\d+ total pagecache|---\[|CR2: |FS: |CS: |PKRU: |DR\d: |Workqueue: |lowmem_reserve|"
    r"kprobes: kprobe jump-optimization |"  # of our own switching it off and on
    r"\d+ pages |Free swap|Total swap|Swap cache|Unreclaimable slab|pc : |lr : |sp : |x\d+ ?: |pstate: )"
)


def read(records: Iterable[Record | LoadBegins | Lost], *, pid: int = 0, comm: str = "") -> list[LogLine]:
    """Lines from the time of the calls, in order; with those of hardware and filesystems from the set-up before.

    `pid` and `comm` are the load's, of its LoadResult. At most MOST_LINES, those that may matter before the others.
    """
    items = list(records)
    begun = next((index for index, item in enumerate(items) if isinstance(item, LoadBegins)), -1)
    start = items[begun] if begun >= 0 else None
    threads = {*(start.threads if isinstance(start, LoadBegins) else ()), *([pid] if pid else [])}
    found: dict[tuple[str, str], LogLine] = {}
    again: Counter[tuple[str, str]] = Counter()
    for index, item in enumerate(items):
        if not isinstance(item, Record) or _BELOW.match(item.text) or not item.text:
            continue
        kind = kind_of(item, threads, comm)
        if index < begun and kind not in (HARDWARE, FILESYSTEM):
            continue
        key = kind, re.sub(r"\d+", "0", item.text)
        found.setdefault(key, LogLine(item.seconds, item.level, item.text, kind))
        again[key] += 1
    lines = [_counted(line, again[key]) for key, line in found.items()]
    lines = sorted(lines, key=lambda line: line.kind == OTHER)[:MOST_LINES]
    return sorted(lines, key=lambda line: line.seconds)


def kind_of(record: Record, threads: set[int], comm: str) -> str:
    """The first of the kinds that it is; a denial only where it is the load's or nobody's."""
    named = _names_load(record, threads, comm)
    for kind, pattern in _PATTERNS if record.from_kernel else ():  # a process may write what it likes
        if pattern.search(record.text):
            return kind if kind != DENIAL or named or not _owners(record.text) else OTHER
    return LOAD if named else OTHER


def before_verdict(lines: Iterable[LogLine]) -> str:
    """A sentence to put before the verdict; "" where nothing graver than the failure itself was logged."""
    grave = [line for line in lines if line.kind in GRAVE]
    if not grave:
        return ""
    first = min(grave, key=lambda line: (GRAVE.index(line.kind), line.seconds))
    more = f" (and {len(grave) - 1} more of such lines)" if len(grave) > 1 else ""
    return f"The kernel log has {_WORDS[first.kind]} from the time of the calls: {first.text}{more}."


def note(lines: list[LogLine], seconds: float, problem: str = "") -> EvidenceNote:
    """The rung in words; `problem` is why the log could not be read."""
    if problem:
        return EvidenceNote(LOG, problem, 0, seconds, RungState.NOT_POSSIBLE)
    telling = sorted((line for line in lines if line.kind != OTHER), key=lambda line: _ORDER.index(line.kind))
    if not telling:
        rest = f"; of other things {len(lines)} line{'s' if len(lines) > 1 else ''}" if lines else ""
        return EvidenceNote(LOG, f"nothing was logged of the failing calls{rest}", 0, seconds)
    first, more = telling[0], len(telling) - 1
    rest = f" (and {more} more line{'s' if more > 1 else ''} that may matter)" if more else ""
    return EvidenceNote(LOG, f"{_WORDS[first.kind]}: {first.text}{rest}", 0, seconds)


def unread(warnings: Iterable[str]) -> str:
    """The recorder's warning that it could not read the log, of a manifest's; "" where there is none."""
    return next((warning for warning in warnings if warning.startswith("the kernel log cannot be read")), "")


def _counted(line: LogLine, times: int) -> LogLine:
    if times == 1:
        return line
    return LogLine(line.seconds, line.level, f"{line.text} (and {times - 1} more like it)", line.kind)


def _names_load(record: Record, threads: set[int], comm: str) -> bool:
    owners = _owners(record.text)
    numbers = {int(owner) for owner in owners if owner.isdigit()}
    return record.thread in threads or bool(numbers & threads) or bool(comm and comm in owners)


def _owners(text: str) -> set[str]:
    """Process numbers and commands that a line names, as texts."""
    found: set[str] = set()
    for command, number in re.findall(r"([^\s\[\]\"]{1,64})\"?\[(\d{1,10})\]", text):  # repro[812], "repro"[812]
        found |= {command, number}
    found |= set(re.findall(r"\b(?:pid|tid|PID)[=: ]+(\d{1,10})", text))
    found |= set(re.findall(r"\bprocess (\d{1,10})\b", text))
    found |= {a or b for a, b in re.findall(r"\bcomm=\"([^\"]{0,64})\"|\bComm: (\S{1,64})", text)}
    found |= set(re.findall(r"^(\S{1,64}) invoked oom-killer", text))
    found |= {_decoded(coded) for coded in re.findall(r"\bcomm=([0-9A-F]{2,128})\b", text)}
    return found


def _decoded(coded: str) -> str:
    """audit writes a command that holds a space or a quote as hexadecimal digits."""
    return bytes.fromhex(coded).decode("utf-8", "replace") if len(coded) % 2 == 0 else coded
