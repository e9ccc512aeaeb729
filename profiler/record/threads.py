"""The threads of the load: of a process and all that it has started, as /proc tells."""

import os


def of(pid: int) -> list[int]:
    """Thread ids of a process and its descendants, its own first; none where it is gone."""
    return [thread for process in tree(pid) for thread in _threads(process)]


def tree(pid: int) -> list[int]:
    """A process and its descendants, parents before children; those that ended meanwhile are left out."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = _stat(f"/proc/{name}/stat")
            if fields:
                children.setdefault(int(fields[1]), []).append(int(name))
    found = [pid] if os.path.exists(f"/proc/{pid}") else []
    for process in found:  # grows meanwhile
        found += sorted(children.get(process, []))
    return found


def busiest(threads: list[int], count: int) -> list[int]:
    """The `count` threads that have had most CPU time; those that ended are left out."""
    spent = {thread: seconds for thread in threads if (seconds := _cpu_ticks(thread)) is not None}
    return sorted(spent, key=lambda thread: -spent[thread])[:count]


def _threads(pid: int) -> list[int]:
    try:
        names = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    return sorted(int(name) for name in names)


def _cpu_ticks(thread: int) -> int | None:
    """In user and in kernel mode, in clock ticks; None where it ended. /proc/TID is there for every thread."""
    fields = _stat(f"/proc/{thread}/stat")
    return int(fields[11]) + int(fields[12]) if fields and fields[0] not in (b"Z", b"X") else None


def _stat(path: str) -> list[bytes]:
    """The fields of proc(5)'s stat after the name in brackets: state, parent, ...; none where it is gone."""
    try:
        with open(path, "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []
