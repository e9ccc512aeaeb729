"""Runs in a guest: every scenario for a moment, one JSON line each.

    python every_scenario.py LIBRARY SECONDS [success]

With a third argument, those that have a variant that succeeds, in that variant. One process forks for each, so that
Python starts once: under emulation that is most of the time.
"""

import json
import os
import sys
import traceback
from pathlib import Path

from loadgen import __main__ as load
from loadgen.scenarios import SCENARIOS


def run(name: str, library: str, seconds: str, variant: str) -> int:
    """The exit code of the load."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            options = ["--seconds", seconds, "--no-wait", "--loop", library, "--variant", variant]
            code = load.main([name, *options, "--result", "load.json"])
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def traces() -> list[str]:
    """What a load must not leave behind: files, cgroups, IPC objects, a changed console level."""
    left = [str(path) for path in Path("/tmp").glob("whyerrno-*")]
    left += [str(path) for path in Path("/sys/fs/cgroup").glob("whyerrno-*")]
    for kind in ("sem", "msg", "shm"):
        left += [f"{kind} {line.split()[0]}" for line in Path(f"/proc/sysvipc/{kind}").read_text().splitlines()[1:]]
    return [*left, Path("/proc/sys/kernel/printk").read_text().split()[0]]


def main() -> None:
    before = traces()
    result = Path("load.json")
    variant = sys.argv[3] if len(sys.argv) > 3 else "failure"
    for name, scenario in SCENARIOS.items():
        if variant == "success" and scenario.success is None:
            continue
        result.unlink(missing_ok=True)
        code = run(name, sys.argv[1], sys.argv[2], variant)
        seen = json.loads(result.read_text()) if result.exists() else None
        left = sorted(set(traces()) ^ set(before))
        print(json.dumps({"name": name, "exit_code": code, "load": seen, "left": left}), flush=True)


main()
