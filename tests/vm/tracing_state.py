"""Runs in a guest: everything that a recorder may switch on, as JSON. `python3 tracing_state.py`"""

import json
import sys
from pathlib import Path

TRACING = "/sys/kernel/tracing"
CONTROLS = (
    *("current_tracer", "tracing_on", "set_ftrace_pid", "set_event_pid", "set_graph_function", "set_graph_notrace"),
    *("set_ftrace_filter", "set_ftrace_notrace", "trace_options", "kprobe_events", "max_graph_depth"),
)
OTHERS = (
    "/sys/kernel/rcu_expedited",
    "/proc/sys/debug/kprobes-optimization",
    "/proc/sys/kernel/ftrace_enabled",
    "/sys/kernel/debug/kprobes/list",
)


def state() -> dict[str, object]:
    paths = [*(f"{TRACING}/{name}" for name in CONTROLS), *OTHERS]
    found: dict[str, object] = {path: read(path) for path in paths if Path(path).exists()}
    found["instances"] = names(f"{TRACING}/instances")
    found["events"] = [name for name in names(f"{TRACING}/events") if "whyerrno" in name]
    found["enabled"] = read(f"{TRACING}/events/enable")
    found["journal"] = names("/run/whyerrno") if Path("/run/whyerrno").exists() else []
    found["loads"] = loads()
    return found


def read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8", errors="replace")


def names(path: str) -> list[str]:
    return sorted(entry.name for entry in Path(path).iterdir())


def loads() -> list[str]:
    """The states of the loads' processes; those that only wait to be reaped have none."""
    found = []
    for pid in filter(str.isdigit, names("/proc")):
        try:
            name, _, rest = read(f"/proc/{pid}/stat").rpartition(")")
        except OSError:
            continue
        if name.endswith("(whyerrno-load") and rest.split()[0] not in "ZX":
            found.append(rest.split()[0])
    return found


if __name__ == "__main__":
    json.dump(state(), sys.stdout)
