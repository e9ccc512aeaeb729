"""The values of registers and memory at chosen instructions, by kprobes with fetch arguments, for a moment.

    {"do": "operands", "points": [{"address": 18446744071579242510, "return": false,
                                   "fetch": {"v0": "%ax:s32", "v1": "+16(%bx):u64"}}],
     "seconds": 0.2, "hits": 8, "ours": true}

Fetch arguments are those of the kernel's Documentation/trace/kprobetrace.rst. The probes are defined in kprobe_events,
in a group of our own, and traced in an instance of our own, of the load and what it starts. Leaves `operands-N.json`,
hits in their order:

    {"hits": [{"point": 0, "address": 18446744071579242510, "thread": 901, "values": {"v0": -22, "v1": 16}}],
     "errors": [{"address": 18446744071579242510, "name": "v2", "definition": "+0(%zz):u64",
                 "says": "Invalid register name"}]}

A fetch argument that the kernel refuses is left out of its probe; one that cannot be read at that moment (a pointer to
nowhere) gives 0 as the kernel has it, or for texts null.
"""

import json
import os
import re
import time
from collections.abc import Mapping

from profiler.errors import MissingError, ProfilerError, RecordError
from profiler.record import journal, progress, threads, tracefs
from profiler.record.orders import Place
from profiler.record.probes import quick_settings

MOST_SECONDS = 30.0
MOST_POINTS = 500
MOST_HITS = 10_000
MOST_THREADS = 64
RETURN_REGISTER = "%ax"
BUFFER_KB = 256  # of each CPU
READ_BYTES, READS = 1 << 16, 4
POLL_SECONDS = 0.01

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,30}")
_TYPE = re.compile(r"([usx](8|16|32|64)|char|u?string|symbol|symstr|b\d{1,2}@\d{1,2}/(8|16|32|64))(\[\d{1,2}\])?")
_BASE = re.compile(
    r"%[a-z][a-z0-9]{1,4}"
    r"|@0x[0-9a-f]{1,16}"
    r"|@[A-Za-z_][A-Za-z0-9_.]{0,120}([+-]\d{1,9})?"
    r"|\$(stack\d{0,4}|retval|arg\d{1,2}|comm)"
    r"|\\-?\d{1,20}"
)
_THROUGH = re.compile(r"[+-]u?(0x[0-9a-f]{1,16}|\d{1,20})\((.*)\)")

#  whyerrno-load-120     [000] d..2.    12.345678: p0: (do_madvise+0x9d/0xca0) v0=-22 v1=0x10
_LINE = re.compile(r"-(\d+) +(?:\([^)]*\) +)?\[\d+\] +\S+ +[\d.]+: p(\d+): \([^)]*\)(.*)$")
_LOST = re.compile(r"LOST (\d+) EVENTS")


class Point:
    """A place to probe, and what to fetch there: name → fetch argument."""

    def __init__(self, address: int, on_return: bool, fetch: dict[str, str]) -> None:
        self.address = address
        self.on_return = on_return
        self.fetch = fetch

    def definition(self, event: str) -> str:
        """A line for kprobe_events. $retval is put as the register: with a function's address alone it is refused."""
        words = [f"{'r' if self.on_return else 'p'}:{event}", f"{self.address:#x}"]
        for name, argument in self.fetch.items():
            words.append(f"{name}={argument.replace('$retval', RETURN_REGISTER) if self.on_return else argument}")
        return " ".join(words)

    def with_only(self, *names: str) -> "Point":
        return Point(self.address, self.on_return, {name: self.fetch[name] for name in names})


def carry_out(order: Mapping[str, object], number: int, place: Place) -> dict[str, object]:
    """Returns {"hits": N, "refused": N}. Raises MissingError where kprobe_events is not to be had, RecordError."""
    points, seconds, most = _read(order)
    control_file = events_file()
    load = place.load.pid
    group = f"{tracefs.PREFIX}_{os.getpid()}"
    errors: list[dict[str, object]] = []
    hits: list[dict[str, object]] = []
    with (
        journal.Changed(quick_settings(order, len(points))),
        Group(group, control_file) as probes,
        threads.Stopped(load) as stopped,
    ):
        defined = {index: kept for index, point in enumerate(points) if (kept := probes.define(index, point, errors))}
        if defined:
            with tracefs.Instance() as instance:
                _prepare(instance, load)
                instance.write(f"events/{group}/enable", "1")
                stopped.go_on()
                hits = _collect(instance, defined, place, seconds, most)
                stopped.stop()
                instance.write(f"events/{group}/enable", "0")
    with open(f"{place.out}/operands-{number}.json", "w") as file:
        json.dump({"hits": hits, "errors": errors}, file)
    return {"hits": len(hits), "refused": len(errors)}


class Group:
    """A group of kprobe_events that is ours, from `with` to its end."""

    def __init__(self, name: str, path: str) -> None:
        self._name = name
        self._path = path
        self._note = -1

    def __enter__(self) -> "Group":
        self._note = journal.note("group", self._name)
        return self

    def __exit__(self, *_: object) -> None:
        tracefs.remove_probes(self._name)
        journal.forget(self._note)

    def define(self, index: int, point: Point, errors: list[dict[str, object]]) -> Point | None:
        """The point with those of its arguments that the kernel takes; None where it takes no probe there."""
        event = f"{self._name}/p{index}"
        if not self._add(point.definition(event)):
            return point
        bare = point.with_only()
        says = self._add(bare.definition(event))
        if says:
            errors.append({"address": point.address, "name": "", "definition": bare.definition(event), "says": says})
            return None
        tracefs.write(self._path, f"-:{event}\n", add=True)
        kept = [name for name in point.fetch if self._takes(point, name, errors)]
        point = point.with_only(*kept)
        says = self._add(point.definition(event))
        if says:
            errors.append({"address": point.address, "name": "", "definition": point.definition(event), "says": says})
            return None
        return point

    def _takes(self, point: Point, name: str, errors: list[dict[str, object]]) -> bool:
        trial = f"{self._name}/trial"
        says = self._add(point.with_only(name).definition(trial))
        if says:
            errors.append({"address": point.address, "name": name, "definition": point.fetch[name], "says": says})
            return False
        tracefs.write(self._path, f"-:{trial}\n", add=True)
        return True

    def _add(self, definition: str) -> str:
        """ "" or why the kernel refuses the definition. Raises MissingError where nothing can be defined."""
        progress.check()
        try:
            tracefs.write(self._path, definition + "\n", add=True)
        except MissingError:
            if not os.access(self._path, os.W_OK):
                raise
            return self._refusal(definition) or "no code lies there"
        except RecordError as error:
            return self._refusal(definition) or str(error.args[0])
        return ""

    def _refusal(self, definition: str) -> str:
        """What the kernel's error log says of a definition.

        [   12.345678] trace_kprobe: error: Invalid register name
          Command: p:whyerrno_120/p0 0xffffffff812a3b10 v0=%zz:s32
                                                           ^
        """
        try:
            lines = tracefs.read(f"{os.path.dirname(self._path)}/error_log").splitlines()
        except ProfilerError:
            return ""
        for line, command in zip(reversed(lines[:-1]), reversed(lines[1:]), strict=True):
            if ": error: " in line and command.strip() == f"Command: {definition}":
                return line.partition(": error: ")[2].strip()
        return ""


def events_file() -> str:
    """Raises MissingError where kprobes cannot be defined by text."""
    root = tracefs.find()
    path = f"{root}/kprobe_events"
    if not os.path.exists(path):
        hint = "a kernel with CONFIG_KPROBE_EVENTS is needed, as in --target vm:VERSION"
        raise MissingError("this kernel has no kprobe_events", hint=hint)
    tracefs.write(path, "", add=True)  # opened for writing, and nothing changed
    return path


def _prepare(instance: tracefs.Instance, load: int) -> None:
    instance.write("buffer_size_kb", str(BUFFER_KB))
    instance.write("options/overwrite", "0")
    instance.write("options/event-fork", "1")
    instance.write("set_event_pid", " ".join(map(str, threads.of(load)[:MOST_THREADS])) + "\n")


def _collect(
    instance: tracefs.Instance, points: Mapping[int, Point], place: Place, seconds: float, most: int
) -> list[dict[str, object]]:
    """Hits until each point has `most`, the time is over, or the load has ended and its last ones are read."""
    parser = Parser(points, most)
    pipe = os.open(f"{instance.path}/trace_pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        deadline = time.monotonic() + seconds
        runs = True
        while runs and not parser.enough() and time.monotonic() < deadline:
            progress.check()
            runs = place.load.check()
            time.sleep(POLL_SECONDS)
            for _ in range(READS):  # the load may fill the buffer faster than it is read
                parser.feed(_read_some(pipe))
    finally:
        os.close(pipe)
    return parser.hits


def _read_some(pipe: int) -> str:
    try:
        return os.read(pipe, READ_BYTES).decode("utf-8", "replace")
    except BlockingIOError:
        return ""


class Parser:
    """Hits from the text of trace_pipe, which comes in pieces cut anywhere."""

    def __init__(self, points: Mapping[int, Point], most: int) -> None:
        self.hits: list[dict[str, object]] = []
        self.lost = 0
        self._points = points
        self._most = most
        self._counts = dict.fromkeys(points, 0)
        self._values = {index: _pattern(point) for index, point in points.items()}
        self._rest = ""

    def enough(self) -> bool:
        return min(self._counts.values(), default=0) >= self._most

    def feed(self, text: str) -> None:
        lines = (self._rest + text).split("\n")
        self._rest = lines.pop()
        for line in lines:
            self._take(line)

    def _take(self, line: str) -> None:
        found = _LINE.search(line)
        if found is None:
            lost = _LOST.search(line)  # CPU:0 [LOST 12 EVENTS]
            self.lost += int(lost[1]) if lost else 0
            return
        index = int(found[2])
        if index not in self._points or self._counts[index] >= self._most:
            return
        values = self._values[index].fullmatch(found[3])
        if values is None:
            return
        self._counts[index] += 1
        point = self._points[index]
        fetched = {name: _value(text) for name, text in zip(point.fetch, values.groups(), strict=True)}
        hit = {"point": index, "address": point.address, "thread": int(found[1]), "values": fetched}
        self.hits.append(hit)


def _pattern(point: Point) -> re.Pattern[str]:
    """Of the values of a point, each by its type: a text may hold anything."""
    parts = []
    for name, argument in point.fetch.items():
        kind = argument.rpartition(":")[2] if ":" in argument else ""
        one = r"-?\d+|0x[0-9a-f]+|'.*'|[\w.]+\+0x[0-9a-f]+/0x[0-9a-f]+"
        if "string" in kind or kind == "symstr" or argument == "$comm":
            one = r'".*"|\(fault\)'
        parts.append(rf" {name}=(\{{.*\}}|{one})")
    return re.compile("".join(parts))


def _value(text: str) -> object:
    """A number; a text without its quotes; None for what could not be read; a list for an array."""
    if text.startswith("{"):
        return [_value(part) for part in text[1:-1].split(",")]
    if text == "(fault)":
        return None
    if text[0] in "\"'":
        return text[1:-1]
    try:
        return int(text, 0)
    except ValueError:
        return text


def check_fetch(name: str, argument: str) -> None:
    """Raises RecordError on what is no fetch argument: a newline or `;` would begin another command of the kernel's."""
    wanted, colon, kind = argument.rpartition(":") if ":" in argument else (argument, "", "")
    base = wanted
    depth = 0
    while (through := _THROUGH.fullmatch(base)) is not None and depth < 8:
        base, depth = through[2], depth + 1
    if not _NAME.fullmatch(name) or not _BASE.fullmatch(base) or (colon and not _TYPE.fullmatch(kind)):
        raise RecordError(f"{name}={argument!r} is no fetch argument", hint="as in v0=+16(%bx):u64")


def _read(order: Mapping[str, object]) -> tuple[list[Point], float, int]:
    """Points, seconds, hits of each. Raises RecordError on an order of another shape."""
    points, seconds, hits = order.get("points"), order.get("seconds", 0.2), order.get("hits", 8)
    if not isinstance(points, list) or not 0 < len(points) <= MOST_POINTS:
        raise RecordError(f"an order for operands names 1 to {MOST_POINTS} points")
    if not isinstance(seconds, int | float) or not 0 < seconds <= MOST_SECONDS:
        raise RecordError(f"operands are captured for up to {MOST_SECONDS:g} s, not {seconds!r}")
    if not isinstance(hits, int) or not 0 < hits <= MOST_HITS:
        raise RecordError(f"operands are captured 1 to {MOST_HITS} times, not {hits!r}")
    return [_point(point) for point in points], float(seconds), hits


def _point(point: object) -> Point:
    address = point.get("address") if isinstance(point, dict) else None
    fetch = point.get("fetch", {}) if isinstance(point, dict) else None
    if not isinstance(point, dict) or not isinstance(address, int) or not 1 << 63 <= address < 1 << 64:
        raise RecordError(f"{point!r} is no point: it has no kernel address")
    if not isinstance(fetch, dict) or not all(isinstance(argument, str) for argument in fetch.values()):
        raise RecordError(f"{point!r} is no point: `fetch` leads from names to fetch arguments")
    for name, argument in fetch.items():
        check_fetch(name, argument)
    return Point(address, bool(point.get("return")), dict(fetch))
