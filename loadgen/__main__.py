"""python3 -m loadgen SCENARIO --seconds S --result load.json [--loop LIBRARY] [--no-wait] [--calls N] [--counter FILE]
                   [--variant failure|success]
python3 -m loadgen --list [--json]

Sets the failure up, prints "ready PID", waits for a line on standard input, loops, undoes the set-up and writes a
LoadResult. Exit code 0 when the loop ran, whatever it saw; an error's own code otherwise.
No argparse and no profiler.model: under emulation their imports cost more than all the rest.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from loadgen import loop
from loadgen.leftovers import remove_leftovers
from loadgen.scenario import Call, Scenario
from loadgen.setup import Setup
from profiler.errors import MissingError, ProfilerError, RecordError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctypes import CDLL

USAGE = "usage: python3 -m loadgen SCENARIO --seconds S --result FILE [--loop LIBRARY] [--no-wait] [--calls N]"
USAGE += " [--counter FILE] [--variant failure|success]"
VALUES = ("--seconds", "--result", "--loop", "--calls", "--counter", "--variant")
SWITCHES = ("--no-wait", "--list", "--json")


def main(arguments: list[str]) -> int:
    try:
        options, names = parse(arguments)
        if "--list" in options:
            list_scenarios(as_json="--json" in options)
            return 0
        if len(names) != 1:
            raise UsageError(USAGE)
        run_scenario(find_scenario(names[0]), options)
    except ProfilerError as error:
        sys.stderr.write(f"whyerrno-load: {error}\n")
        return error.exit_code
    return 0


def parse(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    options: dict[str, str] = {}
    names: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        if argument in VALUES:
            options[argument] = next(remaining, "")
        elif argument in SWITCHES:
            options[argument] = ""
        elif argument.startswith("-"):
            raise UsageError(f"unknown option {argument}", hint=USAGE)
        else:
            names.append(argument)
    return options, names


def find_scenario(name: str) -> Scenario:
    """Raises UsageError, with the nearest name, for one that does not exist."""
    from loadgen.scenarios import SCENARIOS

    if name in SCENARIOS:
        return SCENARIOS[name]
    import difflib  # slow to import

    nearest = difflib.get_close_matches(name, SCENARIOS, 1, 0)
    raise UsageError(f"no scenario {name!r}", hint=f"did you mean {nearest[0]}?")


def list_scenarios(*, as_json: bool) -> None:
    from loadgen.scenarios import SCENARIOS

    if as_json:
        import json

        sys.stdout.write(json.dumps([each.to_json() for each in SCENARIOS.values()], indent=1) + "\n")
        return
    for each in SCENARIOS.values():
        sys.stdout.write(f"{each.name:28} {each.syscall:20} {each.errno:14} {each.summary}\n")


def run_scenario(scenario: Scenario, options: dict[str, str]) -> None:
    seconds = number(options, "--seconds", scenario.seconds)
    calls_limit = int(number(options, "--calls", 0))
    if not options.get("--result"):
        raise UsageError("--result is missing", hint=USAGE)
    library = loop.load_library(options.get("--loop") or build())
    # Before the set-up takes rights and limits away.
    counted = loop.shared_outcome(options["--counter"]) if options.get("--counter") else None
    set_signals(leave)
    remove_leftovers()
    if wants_success(options):
        outcome = succeed(scenario, library, seconds, calls_limit, counted, wait="--no-wait" not in options)
        write_result(options["--result"], outcome)
        return
    with Setup() as setup:
        call = set_up(scenario.name, scenario.prepare, setup)
        setup.at_end(lambda: set_signals(None))
        planned = loop.plan(call, setup, seconds, calls_limit)
        die_with_parent()
        announce(wait="--no-wait" not in options)
        outcome = loop.run(library, planned, counted)
    write_result(options["--result"], outcome)
    if loop.STOPPED_BY[outcome.stopped_by] == "error":
        raise RecordError(message(outcome))


def wants_success(options: dict[str, str]) -> bool:
    variant = options.get("--variant", "failure")
    if variant not in ("failure", "success"):
        raise UsageError(f"there is no variant {variant!r}", hint="there are failure and success")
    return variant == "success"


def succeed(
    scenario: Scenario, library: CDLL, seconds: float, calls_limit: int, counted: loop.Outcome | None, *, wait: bool
) -> loop.Outcome:
    """Repeats the call as it succeeds. Raises MissingError where it cannot: not here, or not in this scenario."""
    from loadgen.success import Repetition

    success = scenario.success
    if success is None:
        raise MissingError(f"{scenario.name} knows of no way in which {scenario.syscall} succeeds")

    def prepare(setup: Setup) -> Call:
        call = set_up(scenario.name, success.call, setup)
        die_with_parent()
        return call

    repetition = Repetition(library, success, prepare)
    first = repetition.first()
    if not first.successes:
        failed = ", ".join(loop.results(first)) or loop.STOPPED_BY[first.stopped_by]
        raise MissingError(f"the call of {scenario.name} that is to succeed does not, here: {failed}")
    announce(wait=wait)
    return repetition.run(seconds, calls_limit, counted)


def number(options: dict[str, str], name: str, default: float) -> float:
    try:
        value = float(options.get(name, default))
    except ValueError:
        raise UsageError(f"{name} takes a number, not {options[name]!r}") from None
    if not 0 <= value < 1e9:
        raise UsageError(f"{name} takes a number from 0, not {value:g}")
    return value


def build() -> str:
    from pathlib import Path  # slow to import

    from loadgen.build import loop_library

    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return str(loop_library(Path(cache).expanduser() / "whyerrno"))


def leave(number: int, _: object) -> None:
    raise SystemExit(128 + number)


def set_signals(action: Callable[[int, object], None] | None) -> None:
    """What SIGTERM and SIGINT do outside the loop: end it, so that the set-up is undone; None: nothing, meanwhile."""
    import signal

    signal.signal(signal.SIGTERM, action or signal.SIG_IGN)
    signal.signal(signal.SIGINT, action or signal.SIG_IGN)


def die_with_parent() -> None:
    """SIGTERM when the recorder dies. Set last: the kernel forgets it when the user id changes (prctl(2))."""
    import ctypes

    ctypes.CDLL(None).prctl(1, 15, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGTERM


def set_up(name: str, prepare: Callable[[Setup], Call], setup: Setup) -> Call:
    try:
        return prepare(setup)
    except PermissionError as error:
        raise MissingError(f"{name} lacks a permission to set up: {error}", hint="run it as root") from error
    except OSError as error:
        raise RecordError(f"{name} could not be set up: {error}") from error


def announce(*, wait: bool) -> None:
    sys.stdout.write(f"ready {os.getpid()}\n")
    sys.stdout.flush()
    if wait and not sys.stdin.readline():
        raise RecordError("standard input ended before the line that starts the loop", hint="or use --no-wait")


def write_result(path: str, outcome: loop.Outcome) -> None:
    import json

    result = {  # the fields of profiler.model.LoadResult
        "calls": outcome.calls,
        "seconds": outcome.elapsed_ns / 1e9,
        "results": loop.results(outcome),
        "pid": os.getpid(),
        "comm": loop.COMM,
        "stopped_by": loop.STOPPED_BY[outcome.stopped_by],
        "message": message(outcome),
    }
    partial = f"{path}.partial"
    with open(partial, "w", encoding="ascii") as file:
        json.dump(result, file, indent=1)
        file.write("\n")
    os.replace(partial, path)


def message(outcome: loop.Outcome) -> str:
    stopped_by = loop.STOPPED_BY[outcome.stopped_by]
    if stopped_by == "success":
        return f"call {outcome.calls} succeeded and returned {outcome.success_result}; the loop stopped there"
    if stopped_by == "memory":
        return "the machine ran short of memory, and pausing did not bring it back"
    if stopped_by == "error":
        return f"the loop could not enter its cgroup: {os.strerror(outcome.error)}"
    return f"paused {outcome.pauses} times for memory" if outcome.pauses else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
