"""Switching the function_graph tracer on for some threads, and everything back.

In an instance of our own, what belongs to the instance goes with it. Two things may be shared with everybody:
set_graph_function, and on some kernels the tracer's options. They are noted and put back, and nothing is touched at all
where another tracer is active.
"""

import contextlib
import os
import time

from profiler.errors import MissingError, ProfilerError, RecordError
from profiler.record import journal, tracefs

TRACER = "function_graph"
SYS_EXIT = "events/raw_syscalls/sys_exit/enable"
# Where the entry function cannot be traced: what calls every system call, newest kernels first.
DISPATCHERS = ("x64_sys_call", "do_syscall_64", "invoke_syscall", "el0_svc_common.constprop.0")
# Wanted so, where there is such an option.
TRACER_OPTIONS = {
    "funcgraph-abstime": "1",
    "funcgraph-cpu": "1",
    "funcgraph-proc": "1",
    "funcgraph-duration": "1",
    "funcgraph-tail": "1",
    "funcgraph-overhead": "0",
    "funcgraph-overrun": "0",
    "funcgraph-irqs": "0",  # what interrupts call would stand among what the load calls
    "funcgraph-retval": "1",
    "funcgraph-retval-hex": "0",
    "funcgraph-retaddr": "0",
    "funcgraph-args": "0",
}
# The first calls are kept, the last dropped: what is in the buffer then has no hole at its begin.
OPTIONS = {"overwrite": "0", "context-info": "1", "latency-format": "0", "sym-offset": "0", "sym-addr": "0"}
BUFFER_KB, ALL_BUFFERS_KB, LEAST_BUFFER_KB = 8192, 65536, 256

_MOST = 0.9

_instances_trace: list[bool] = []  # whether function_graph runs in instances here, once known


class Tracing:
    """`begin`, `trace_for` any number of times, `end`; `end` also after a `begin` that failed."""

    def __init__(self, function: str, functions: list[str], sites: list[int], *, follow_children: bool) -> None:
        self.entry = function  # whose calls stand in the trace; "" where that could not be had
        self.path = ""
        self.where = ""
        self.limited_to: list[str] = []
        self.results_by = ""
        self.threads: list[int] = []
        self.options: list[str] = []
        self.warnings: list[str] = []
        self._functions = functions
        self._sites = sites
        self._follow_children = follow_children
        self._undo = contextlib.ExitStack()
        self._control: tracefs.Instance | tracefs.Whole | None = None

    def begin(self, threads: list[int]) -> None:
        """Everything but tracing_on. Raises MissingError or RecordError."""
        if not threads:
            raise RecordError("the load ended before it could be traced")
        self.threads = threads
        root = tracefs.find()
        _check(root)
        control = self._control = self._place()
        control.write("tracing_on", "0")
        control.write("buffer_size_kb", str(_buffer_kb()))
        self._set_options(root)
        self._choose_threads()
        if self._functions:
            self._limit()
        if not self.limited_to or self._follow_children:
            self._choose_entry()
        self._tell_results()
        control.write("current_tracer", TRACER)
        self.options = control.read("trace_options").split()

    def trace_for(self, seconds: float) -> float:
        """Traces anew. Returns how long it was, seconds."""
        tracefs.write(f"{self.path}/trace", "")  # empties the buffer
        tracefs.write(f"{self.path}/tracing_on", "1")
        began = time.monotonic()
        try:
            time.sleep(seconds)
        finally:
            tracefs.write(f"{self.path}/tracing_on", "0")
        return time.monotonic() - began

    def losses(self) -> dict[str, dict[str, int]]:
        """What each CPU's buffer says: {"cpu0": {"entries": 5257, "overrun": 0, "dropped events": 0}, ...}."""
        found = {}
        for cpu in sorted(os.listdir(f"{self.path}/per_cpu")):
            lines = tracefs.read(f"{self.path}/per_cpu/{cpu}/stats").splitlines()
            fields = dict(line.split(": ", 1) for line in lines if ": " in line)
            wanted = ("entries", "overrun", "dropped events")
            found[cpu] = {name: int(fields[name]) for name in wanted if fields.get(name, "").isdigit()}
        return found

    def end(self) -> None:
        self._undo.close()

    # ---- where ----

    def _place(self) -> tracefs.Instance | tracefs.Whole:
        if not _instances_trace or _instances_trace[0]:
            with contextlib.ExitStack() as stack:
                instance = stack.enter_context(tracefs.Instance("graph"))
                # an instance lists the options of those tracers that it can run
                can = os.path.exists(f"{instance.path}/options/funcgraph-abstime")
                _instances_trace[:] = [can]
                if can:
                    self._undo.push(stack.pop_all())
                    self.path, self.where = instance.path, "instance"
                    return instance
        whole = tracefs.Whole()
        _check_unused(tracefs.find())
        self._undo.enter_context(whole)
        self.path, self.where = whole.path, "top level"
        return whole

    def _write(self, name: str, text: str) -> None:
        assert self._control is not None, "begin() comes first"
        self._control.write(name, text)

    # ---- what ----

    def _set_options(self, root: str) -> None:
        for name, value in {**TRACER_OPTIONS, **OPTIONS}.items():
            path = f"options/{name}"
            if not os.path.exists(f"{self.path}/{path}") or tracefs.read(f"{self.path}/{path}").strip() == value:
                continue
            if self.where == "instance" and name in TRACER_OPTIONS:
                self._undo.callback(_put_back, path, *_noted(root, path))
            with contextlib.suppress(RecordError):  # a kernel may refuse one; the text is understood either way
                self._write(path, value)

    def _choose_threads(self) -> None:
        pids = " ".join(map(str, self.threads))
        for name in ("set_ftrace_pid", "set_event_pid"):
            self._write(name, pids)
        if self._follow_children:
            for name in ("options/function-fork", "options/event-fork"):
                if os.path.exists(f"{self.path}/{name}"):
                    self._write(name, "1")

    def _limit(self) -> None:
        """Patches only the functions asked for, by their places; a name each would take a walk through all of them."""
        wanted = {*self._functions, self.entry}
        names = self._filtered(self._sites) if self._sites else []
        # by the places of another kernel, hardly any name would be right; a few functions have two names
        if self.entry not in names or len(wanted & set(names)) < _MOST * len(wanted):
            sites = _places_of(wanted)
            if not sites:
                self.warnings.append("none of the functions asked for can be traced: all functions were")
                self._write("set_ftrace_filter", "")
                return
            names = self._filtered(sites)
        self.limited_to = sorted(set(names))
        if self.entry not in self.limited_to:
            self.warnings.append(f"{self.entry} is not in available_filter_functions")
            self.entry = ""

    def _filtered(self, sites: list[int]) -> list[str]:
        """The names of the functions that stand in these places."""
        self._write("set_ftrace_filter", " ".join(map(str, sorted(set(sites)))))
        lines = tracefs.read(f"{self.path}/set_ftrace_filter").splitlines()
        return [line.split()[0] for line in lines if line and not line.startswith("#")]

    def _choose_entry(self) -> None:
        """Only what the entry function calls. The file is one for the whole kernel."""
        root = tracefs.find()
        if not os.path.exists(f"{root}/set_graph_function"):
            self.warnings.append("this kernel has no set_graph_function: all calls of the load's threads were traced")
            return
        top = self._undo.enter_context(tracefs.Whole()) if self.where == "instance" else self._control
        assert top is not None, "begin() comes first"
        if not top.read("set_graph_function").startswith("#"):
            raise RecordError("set_graph_function is set, and not by us", hint=f"echo > {root}/set_graph_function")
        for function in (self.entry, *DISPATCHERS):
            if function:
                with contextlib.suppress(RecordError):
                    top.write("set_graph_function", function)
                    break
                self.warnings.append(f"{function} is not in available_filter_functions")
        else:
            function = ""
        self.entry = function

    def _tell_results(self) -> None:
        """The event after each system call, among the functions, says what it returned: on any kernel."""
        if f"{TRACER_OPTIONS['funcgraph-retval']}" and os.path.exists(f"{self.path}/options/funcgraph-retval"):
            self.results_by = "retval"
        try:
            self._write(SYS_EXIT, "1")
            self.results_by = "sys_exit"
        except ProfilerError as error:
            self.warnings.append(f"results of calls are not in the trace: {error.args[0]}")


def _check(root: str) -> None:
    """Raises MissingError where the kernel has no such tracer, RecordError where another is active."""
    if TRACER not in tracefs.read(f"{root}/available_tracers").split():
        raise MissingError(
            "this kernel has no function_graph tracer", hint="a kernel with CONFIG_FUNCTION_GRAPH_TRACER is needed"
        )
    others = tracefs.active_tracers(root)
    if others:
        raise RecordError(
            f"another tracer is active, and was left alone: {', '.join(others)}",
            hint="end whoever uses it, or: echo nop > current_tracer there",
        )


def _check_unused(root: str) -> None:
    """Raises RecordError where somebody uses the top level without a tracer: what they recorded would be lost."""
    events = tracefs.read(f"{root}/set_event").split()
    if events:
        raise RecordError(
            f"somebody records events at the top level of tracing: {' '.join(events[:3])}",
            hint=f"end whoever does, or: echo 0 > {root}/events/enable",
        )
    for name in ("set_ftrace_filter", "set_ftrace_notrace", "set_graph_notrace"):
        with contextlib.suppress(MissingError):
            if not tracefs.read(f"{root}/{name}").startswith("#"):
                raise RecordError(f"{name} is set at the top level, and not by us", hint=f"echo > {root}/{name}")
    for cpu in os.listdir(f"{root}/per_cpu"):
        if not tracefs.read(f"{root}/per_cpu/{cpu}/stats").startswith("entries: 0\n"):
            raise RecordError(
                "the trace buffer at the top level holds somebody's records", hint=f"save {root}/trace, and empty it"
            )


def _noted(root: str, name: str) -> tuple[str, int]:
    """What a file at the top level holds, and the number of the note of that; as `tracefs.restore` wants it."""
    former = tracefs.read(f"{root}/{name}")
    return former, journal.note("control", [name, former])


def _put_back(name: str, former: str, note: int) -> None:
    tracefs.restore(name, former)
    journal.forget(note)


def _places_of(names: set[str]) -> list[int]:
    """Places in available_filter_functions, from 1."""
    with open(f"{tracefs.find()}/available_filter_functions", "rb") as file:
        lines = file.read().split(b"\n")
    wanted = {name.encode() for name in names}
    # those of modules, "ext4_map_blocks [ext4]", stand at the end
    return [
        place
        for place, line in enumerate(lines, 1)
        if line in wanted or (line[-1:] == b"]" and line.split(None, 1)[0] in wanted)
    ]


def _buffer_kb() -> int:
    """For each CPU."""
    return max(LEAST_BUFFER_KB, min(BUFFER_KB, ALL_BUFFERS_KB // (os.cpu_count() or 1)))
