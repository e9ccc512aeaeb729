"""The text of `perf annotate --stdio` to records, one for each instruction.

Made with, for one function or for all that have samples (-n: counts in place of percentages):

    LC_ALL=C perf annotate --stdio -l -i perf.data [FUNCTION]
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from profiler.errors import InputError
from profiler.model import DecodeError
from profiler.parse.faults import Faults


@dataclass(frozen=True, slots=True)
class AnnotatedInstruction:
    """One instruction and its share of its function's samples; one of the two is None."""

    function: str
    address: int  # as in the object file
    percent: float | None
    samples: int | None
    text: str  # the instruction
    source: tuple[str, ...] = ()  # the source lines printed just before it
    location: str = ""  # "w.c:3", where -l was given


@dataclass(frozen=True, slots=True)
class Annotation:
    """What a text holds. `totals` has each function's number of samples, where its heading says it."""

    instructions: tuple[AnnotatedInstruction, ...]
    totals: dict[str, int] = field(default_factory=dict)
    decode_errors: tuple[DecodeError, ...] = ()


#  Percent |	Source code & Disassembly of w for cpu-clock (72 samples, percent: local period)
_HEADING = re.compile(r"\s*(?P<unit>Percent|Samples|Period).*\|\s*Source code & Disassembly of (?P<object>.*)")
_TOTAL = re.compile(r" \((\d+) samples")
#          : 5    0000000000001139 <spin>:
_FUNCTION = re.compile(r"\s*:\s*(?:\d+\s+)?[0-9a-f]+ <(?P<name>.+)>:")
#    58.33 :   1140:   add    %eax,%edx // w.c:3
_INSTRUCTION = re.compile(r"\s*(?P<share>\d+(?:\.\d+)?)\s+:\s+(?P<address>[0-9a-f]{1,16}):\s+(?P<text>.*)")
#    67.12   61.64 :   1140:   add    %eax,%edx // w.c:2      (perf annotate --group: a share for each event)
_SHARES = re.compile(r"\s*\d+(?:\.\d+)?(?:\s+\d+(?:\.\d+)?)+\s+:\s+[0-9a-f]{1,16}:\s")
#          : 3    int spin(volatile int *p){ for(int i=0;i<300000000;i++) *p += i; return *p; }
_SOURCE = re.compile(r"\s*:(?:\s*\d+ {4}|\s*)(?P<text>.*)")
_LOCATION = re.compile(r"\s+// (?P<location>\S+:\d+)$")
# Between functions, with -l, a summary of lines:   "  100.00 w.c:3"
_SUMMARY = re.compile(r"\s*(?:Sorted summary for file .*|-+|(?:\d+\.\d+ +)+\S.*:(?:\d+|\?)|\s*)")
_SECTION = "Disassembly of section "


def read(lines: Iterable[str | bytes]) -> Annotation:
    """Raises InputError where no instruction is found, or where each has the shares of several events.

    Other lines that cannot be read are `decode_errors`.
    """
    text = _Text()
    for number, line in enumerate(lines, 1):
        shown = line.decode("utf-8", "backslashreplace") if isinstance(line, bytes) else line
        text.take(number, shown.rstrip("\r\n"))
    if not text.instructions:
        raise InputError(
            "no instruction found: this is no text of perf annotate",
            hint="make it with: LC_ALL=C perf annotate --stdio -l -i perf.data",
        )
    return Annotation(tuple(text.instructions), text.totals, text.faults.errors())


class _Text:
    def __init__(self) -> None:
        self.instructions: list[AnnotatedInstruction] = []
        self.totals: dict[str, int] = {}
        self.faults = Faults()
        self._function = ""
        self._total: int | None = None
        self._counts = False
        self._source: list[str] = []
        self._inside = False  # below a heading

    def take(self, number: int, line: str) -> None:
        heading = _HEADING.fullmatch(line)
        if heading is not None:
            self._heading(heading)
        elif self._inside and (instruction := _INSTRUCTION.fullmatch(line)) is not None:
            self._instruction(instruction)
        elif self._inside and _SHARES.match(line) is not None:
            raise InputError(f"line {number}: shares of several events side by side", hint="annotate without --group")
        elif _SUMMARY.fullmatch(line) is not None:
            return
        elif self._inside and (function := _FUNCTION.fullmatch(line)) is not None:
            self._function = function["name"]
            self._source = []
            if self._total is not None:
                self.totals[self._function] = self._total
        elif self._inside and (source := _SOURCE.fullmatch(line)) is not None:
            self._source_line(source["text"])
        else:
            self.faults.add(number, f"not a line of perf annotate: {line[:80]!r}")

    def _heading(self, match: re.Match[str]) -> None:
        total = _TOTAL.search(match["object"])
        self._total = int(total[1]) if total else None
        self._counts = match["unit"] == "Samples"
        self._function, self._source, self._inside = "", [], True

    def _source_line(self, text: str) -> None:
        """objdump also prints section and function names among the source lines."""
        if text and not text.startswith(_SECTION) and text != f"{self._function}():":
            self._source.append(text)

    def _instruction(self, match: re.Match[str]) -> None:
        location = _LOCATION.search(match["text"])
        share = float(match["share"])
        self.instructions.append(
            AnnotatedInstruction(
                function=self._function,
                address=int(match["address"], 16),
                percent=None if self._counts else share,
                samples=int(share) if self._counts else None,
                text=match["text"][: location.start()] if location else match["text"].rstrip(),
                source=tuple(self._source),
                location=location["location"] if location else "",
            )
        )
        self._source = []
