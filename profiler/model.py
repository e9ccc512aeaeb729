"""The nouns that pass between the parts. Frozen dataclasses, standard library only.

`Analysis` and `Manifest` are the two that are saved. Their JSON form is their fields, by name.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ANALYSIS_SCHEMA = 1
MANIFEST_SCHEMA = 1


class Conclusion(enum.StrEnum):
    NAMED = "named"
    INCONCLUSIVE = "inconclusive"
    NOT_REPRODUCED = "not-reproduced"


EXIT_CODES = {Conclusion.NAMED: 0, Conclusion.INCONCLUSIVE: 3, Conclusion.NOT_REPRODUCED: 4}


@dataclass(frozen=True, slots=True)
class SourceLocation:
    """A line of kernel source. `file` is relative to the kernel tree; a tuple of these is an
    inline chain, innermost first."""

    function: str
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Kernel:
    """One exact kernel and where its parts lie on this machine (None where a part is absent)."""

    release: str  # uname -r
    package_version: str  # "" for a build tree
    build_id: str  # hex, from the GNU build-id note
    arch: str  # "x86_64"
    image: Path | None = None  # bootable bzImage
    vmlinux: Path | None = None  # with DWARF
    source: Path | None = None  # root of the kernel tree
    modules: Path | None = None  # lib/modules/RELEASE
    config: Path | None = None
    module_debug: Path | None = None  # below it lie modules with DWARF


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModule:
    """A kernel module as it lay in the recorded kernel. Addresses have the KASLR offset taken off."""

    name: str
    build_id: str  # hex; "" where the module has none
    sections: dict[str, int]  # name → address
    text: tuple[tuple[int, bytes], ...] = ()  # (address, code as it ran), where that was recorded
    symbols: tuple[tuple[int, str], ...] = ()  # (address, name) of its code by /proc/kallsyms


@dataclass(frozen=True, slots=True)
class DecodeError:
    """A malformed record: a value in the stream, counted and reported."""

    offset: int  # bytes into the file, or line number (from 1) for text
    what: str


@dataclass(frozen=True, slots=True)
class Event:
    """One perf event (attribute) of a recording."""

    name: str
    frequency: int  # samples a second asked for; 0 where a period was asked for
    precise: int  # precise_ip, 0 to 3


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """perf samples as columns; row i of every column belongs to sample i, in file order.

    `chain[chain_start[i]:chain_start[i + 1]]` is the kernel callchain of sample i, the sampled ip
    first, then return addresses outwards; context markers and user addresses are left out.
    """

    ip: NDArray[np.uint64]
    pid: NDArray[np.int32]
    tid: NDArray[np.int32]
    cpu: NDArray[np.int32]
    time: NDArray[np.uint64]  # ns; 0 where not recorded
    period: NDArray[np.uint64]
    event: NDArray[np.int16]  # index into PerfRecording.events
    in_kernel: NDArray[np.bool_]
    comm: NDArray[np.int32]  # index into PerfRecording.comms
    chain_start: NDArray[np.int64]  # length n + 1
    chain: NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class KernelMap:
    """The kernel's text mapping as perf saw it (MMAP record of [kernel.kallsyms]_text)."""

    start: int
    length: int
    pgoff: int  # address of the reference symbol (_text or _stext) as loaded
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class PerfRecording:
    """What a perf.data file or a perf script text holds."""

    samples: Samples
    events: tuple[Event, ...]
    comms: tuple[str, ...]
    parents: dict[int, int]  # pid → parent pid, from FORK records
    lost: int
    throttled: int
    kernel_map: KernelMap | None = None
    kernel_build_id: str = ""
    os_release: str = ""
    arch: str = ""
    perf_version: str = ""
    command_line: tuple[str, ...] = ()
    decode_errors: tuple[DecodeError, ...] = ()


# Columns of ExecutionLog.registers.
LOGGED_REGISTERS = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
)


@dataclass(frozen=True, slots=True, eq=False)
class ExecutionLog:
    """Every kernel instruction that an emulated CPU executed for a while, in order; user code is left out.

    Row i holds the state before instruction i. Addresses are those of the running kernel.
    """

    address: NDArray[np.uint64]  # (n,)
    registers: NDArray[np.uint64]  # (n, 16), in the order of LOGGED_REGISTERS
    flags: NDArray[np.uint32]  # (n,), RFLAGS
    decode_errors: tuple[DecodeError, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class ProbeHits:
    """What kprobes in the load's threads saw: row i is one hit, each thread's rows in the order of execution; it holds
    the state before the instruction, or of a return probe that on return. Addresses are those of the running kernel."""

    address: NDArray[np.uint64]  # (n,) of the probe
    is_return: NDArray[np.bool_]  # (n,)
    registers: NDArray[np.uint64]  # (n, 16), in the order of LOGGED_REGISTERS
    flags: NDArray[np.uint32]  # (n,), RFLAGS
    thread: NDArray[np.int32]  # (n,)
    time: NDArray[np.uint64]  # (n,) ns
    attached: frozenset[int]  # instructions that were probed, hit or not
    refused: dict[int, str]  # address → why the kernel did not let it be probed
    lost: int  # hits that were not recorded
    attached_returns: frozenset[int] = frozenset()  # functions whose return was probed
    decode_errors: tuple[DecodeError, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What the load, or the counting of somebody's own program, saw. Written as load.json."""

    calls: int
    seconds: float
    results: dict[str, int]  # "EADDRINUSE" → count; "0" stands for success
    pid: int  # of the load's first process; its descendants belong to it
    comm: str
    stopped_by: str = "time"  # time, success, memory, error, signal; exit: a program that ended by itself with status 0
    message: str = ""
    processes: list[int] = field(default_factory=list)  # of the load, seen while nothing was sampled


@dataclass(frozen=True, slots=True)
class Manifest:
    """The facts of a recording. Written last, so that its presence says the recording is whole."""

    schema: int
    created: str  # ISO 8601, UTC
    syscall: str
    errno: str
    errno_number: int
    scenario: str | None
    program: list[str]  # the user's own program; empty with a scenario
    target: str  # as asked: local, vm:6.1, ...
    release: str
    package_version: str
    build_id: str
    arch: str
    kaslr_offset: int  # address of _text as loaded, less its link address in vmlinux
    event: str  # "cpu-clock", "cycles:P"
    frequency: int
    seconds: float  # of recording
    lost: int
    throttled: int
    commands: list[list[str]]  # run on the target, as argument lists
    tool_versions: dict[str, str]
    emulated: bool  # under TCG: samples land on translation-block heads
    warnings: list[str] = field(default_factory=list)
    rungs: list[str] = field(default_factory=list)  # that could be taken; [] where an older version recorded
    orders: list[dict[str, Any]] = field(default_factory=list)  # as profiler.record.orders answers them
    stopped_by: str = ""  # verdict: it was decided; replay: nothing was sampled; time: all that was asked for
    rates: dict[str, float] = field(default_factory=dict)  # calls a second: "none", without a rung, and under each

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Manifest:
        return typing.cast(Manifest, from_json(cls, data))


# ---- the Analysis, as saved in analysis.json ----


@dataclass(frozen=True, slots=True)
class KernelId:
    release: str
    package_version: str
    build_id: str
    arch: str


@dataclass(frozen=True, slots=True)
class ErrorSite:
    """A place where a negative errno enters the value that is returned."""

    function: str
    file: str
    line: int
    address: str  # symbol+0xoffset
    text: str | None = None  # the source line, where the source was at hand


@dataclass(frozen=True, slots=True)
class Operand:
    """A part of a condition and what it was when the branch was taken."""

    expression: str  # as the source has it: "lock_limit", "ctx->flags"
    value: str  # as a person reads it: "16", "0x80", "NULL"
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Branch:
    """A conditional jump, the condition in the source, and the side taken."""

    function: str
    file: str
    line: int
    address: str  # symbol+0xoffset
    condition: str | None  # source text of the condition
    outcome: bool | None  # the value the condition had; None where only the jump is known
    inlined_from: list[SourceLocation] = field(default_factory=list)  # outwards
    operands: list[Operand] = field(default_factory=list)  # those that were captured
    values: str = ""  # the condition with its operands' values, as in "16 > 0"


@dataclass(frozen=True, slots=True)
class ChainLink:
    """One call on the way from syscall entry to the origin; `file` and `line` are where it was called from."""

    function: str
    file: str
    line: int
    inlined: bool
    address: str  # of the call, symbol+0xoffset; "" for the entry


@dataclass(frozen=True, slots=True)
class Candidate:
    site: ErrorSite
    branch: Branch | None
    probability: float
    excluded_by: str | None  # why it is out, in words; None for the one named


@dataclass(frozen=True, slots=True)
class SourceCandidate:
    """A place in the source, in the call tree of the system call, that can produce the errno."""

    site: ErrorSite
    condition: str | None  # the one that guards it, as the source has it
    condition_line: int  # in site.file; 0 without one
    via: list[str]  # functions from the entry to the one that holds it
    excluded_by: str = ""  # the rung that ruled it out; "" for what is left
    reason: str = ""  # why it is out, in words


@dataclass(frozen=True, slots=True)
class SourceList:
    candidates: list[SourceCandidate]  # those nearest to the entry first
    cut: str = ""  # what was left out, in words


class RungState(enum.StrEnum):
    TAKEN = "taken"
    NOT_NEEDED = "not needed"
    NOT_POSSIBLE = "not possible"
    NOT_ASKED = "not asked"


@dataclass(frozen=True, slots=True)
class EvidenceNote:
    """What one rung contributed, in words."""

    source: str  # the rung: man, log, source, graph, probes, samples, exact
    says: str  # where it was not taken, why
    excluded: int  # candidates it ruled out
    seconds: float
    state: RungState = RungState.TAKEN
    overhead: float | None = None  # share of its rate that the load lost meanwhile; None where not measured
    disagrees: str = ""  # with another rung: with which and on what, in words


@dataclass(frozen=True, slots=True)
class Meaning:
    """What the manual says of the errno for this system call."""

    page: str  # "bind(2)"
    documented: bool  # whether that page names the errno
    entry: str  # the entry that fits; "" where none does, or it is not known which
    others: list[str] = field(default_factory=list)  # further entries of the same errno
    says: str = ""  # where the text is not of the page: what errno(3) says


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of the kernel log from the time of the recording."""

    seconds: float  # since boot
    level: int  # 0 (emergency) to 7 (debug)
    text: str
    kind: str  # "hardware", "filesystem", "denial", "memory", "load" (it names the load), "other"


@dataclass(frozen=True, slots=True)
class GraphLine:
    """A function in the trees of failing and of succeeding calls, side by side."""

    depth: int
    function: str
    failing: bool  # called in the failing calls
    succeeding: bool | None  # called in the succeeding ones; None where there are none
    diverges: bool = False  # the first that differs; again where the functions around it differ in what follows
    note: str = ""  # "6 times", "in 3 of 32 failing", "landmark: ..."
    failing_returned: str = ""  # "-12", "0 or -11", where the tracer shows return values
    succeeding_returned: str = ""


@dataclass(frozen=True, slots=True)
class GraphComparison:
    """Function graphs of failing calls, and of succeeding ones where there were any."""

    failing_calls: int
    succeeding_calls: int
    told_by: str  # how failing and succeeding calls were told apart
    lines: list[GraphLine]
    divergence: str = ""  # in words
    parted_in: str = ""  # the deepest function that both go through before they part


@dataclass(frozen=True, slots=True)
class SampleCounts:
    total: int
    in_load: int
    in_kernel: int  # of those in the load
    lost: int
    throttled: int = 0
    on_path: int = 0
    unexplained: int = 0


@dataclass(frozen=True, slots=True)
class Effort:
    """What the verdict took, against the time for which the method records where nobody looks."""

    evidence: list[str]  # that it rests on: samples, exact
    samples: int
    seconds: float  # of sampling
    calls: int = 0  # logged from their beginning on
    instructions: int = 0  # in the log
    stopped_by: str = ""  # as of Manifest
    fixed_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class InlinedSamples:
    """Samples of code inlined into a line, by its own place."""

    function: str
    file: str
    line: int
    samples: int


@dataclass(frozen=True, slots=True)
class AnnotatedLine:
    line: int
    text: str | None
    samples: int  # of this line and what was inlined into it
    low: float  # 95% interval of the share of the function's samples
    high: float
    on_path: bool | None  # None where there is no code or it is not known
    marks: list[str] = field(default_factory=list)  # "error-site", "branch", "call"
    inlined: list[InlinedSamples] = field(default_factory=list)
    goes_to: list[int] = field(default_factory=list)  # lines where the path went from a jump here, in the order taken


@dataclass(frozen=True, slots=True)
class AnnotatedFunction:
    """A function on the path, line by line, in the order of its file."""

    function: str
    file: str
    samples: int
    lines: list[AnnotatedLine]
    inlined: bool = False  # shown by its own file though inlined into another


@dataclass(frozen=True, slots=True)
class Analysis:
    """What was concluded from a recording. `functions` run from syscall entry to the origin."""

    schema: int
    tool_version: str
    syscall: str
    errno: str
    errno_number: int
    kernel: KernelId
    conclusion: Conclusion
    reason: str  # the verdict as one plain sentence
    error_site: ErrorSite | None
    branch: Branch | None
    confidence: float
    chain: list[ChainLink]
    candidates: list[Candidate]
    evidence: list[EvidenceNote]
    samples: SampleCounts
    functions: list[AnnotatedFunction]
    manifest: Manifest | None  # None for an import
    load: LoadResult | None
    warnings: list[str] = field(default_factory=list)
    next_steps: list[str] = field(default_factory=list)
    effort: Effort | None = None
    meaning: Meaning | None = None
    kernel_log: list[LogLine] = field(default_factory=list)
    source_candidates: list[SourceCandidate] = field(default_factory=list)
    graph: GraphComparison | None = None

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Analysis:
        """Raises KeyError, TypeError or ValueError on data of another shape."""
        return typing.cast(Analysis, from_json(cls, data))


def from_json(cls: Any, data: Any) -> Any:
    """The inverse of `to_json`, led by the annotations of `cls`.

    Unknown keys are ignored (an older program reads what a newer one added); a missing field without
    a default raises TypeError, a value of the wrong kind TypeError or ValueError.
    """
    origin, arms = typing.get_origin(cls), typing.get_args(cls)
    value: Any = data
    if origin in (types.UnionType, typing.Union):
        inner = next(arm for arm in arms if arm is not type(None))
        value = None if data is None else from_json(inner, data)
    elif origin is list:
        value = [from_json(arms[0], element) for element in data]
    elif origin is dict:
        value = dict(data)
    elif dataclasses.is_dataclass(cls):
        hints = typing.get_type_hints(cls)
        known = {f.name for f in dataclasses.fields(cls)}
        value = typing.cast(type, cls)(**{k: from_json(hints[k], v) for k, v in data.items() if k in known})
    elif cls is float:
        value = float(data)
    elif issubclass(cls, enum.Enum):
        value = cls(data)
    elif not isinstance(data, cls):
        raise TypeError(f"expected {cls.__name__}, found {type(data).__name__}")
    return value
