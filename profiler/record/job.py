"""The job file: what to record, as JSON, written by the host and checked here once.

    {"syscall": "bind", "syscall_number": 49, "errno": "EADDRINUSE", "errno_number": 98,
     "scenario": "bind-eaddrinuse", "program": [], "seconds": 10, "frequency": 8000,
     "event": "auto", "loop_library": "/whyerrno/loop.so", "kernel_text": true}

Either `scenario` names one of loadgen's, or `program` is the argument list of somebody's own program.
Six more may be given:

    "variant"         of the scenario: "failure", or "success", where the same call succeeds
    "seconds"         of sampling, at most; 0: none at all, and no perf.data
    "looks"           seconds of sampling, rising, after which perf.data is made good so far and {"sampled": S} is said
    "replay_seconds"  that the load runs on without samples, at most, after the first look (without looks, at the
                      end): {"replay": true} is said, and an emulator can log what is executed
    "orders"          a list of what is to be done first, before anything is sampled (profiler.record.orders)
    "orders_seconds"  that the load runs on, at most, when all the rest is over, for orders still to come

A file `enough` beside the job file ends everything in order, at once; a file `replayed` ends the replay.
"""

import json

from profiler.errors import UsageError

MOST_SECONDS = 3600.0
MOST_FREQUENCY = 1_000_000


class Job:
    """A job that was checked: every attribute has its type and lies in its range."""

    def __init__(self, fields: dict[str, object]) -> None:
        self.syscall = _text(fields, "syscall")
        self.errno = _text(fields, "errno")
        self.errno_number = int(_number(fields, "errno_number", 1, 4095))
        self.syscall_number = int(_number(fields, "syscall_number", 0, 1 << 31))
        self.seconds = _number(fields, "seconds", 0, MOST_SECONDS)
        self.replay_seconds = _number(fields, "replay_seconds", 0, MOST_SECONDS, default=0)
        self.looks = _looks(fields)
        self.orders = _orders(fields)
        self.orders_seconds = _number(fields, "orders_seconds", 0, MOST_SECONDS, default=0)
        self.frequency = int(_number(fields, "frequency", 1, MOST_FREQUENCY))
        self.event = _text(fields, "event", "auto")
        self.scenario = _text(fields, "scenario", "")
        self.variant = _text(fields, "variant", "failure")
        self.program = _arguments(fields)
        self.loop_library = _text(fields, "loop_library", "")
        self.kernel_text = bool(fields.get("kernel_text", True))
        if bool(self.scenario) == bool(self.program):
            raise UsageError("a job needs either a scenario or a program, and not both")
        if self.event.startswith("-"):
            raise UsageError(f"{self.event!r} is not an event's name")
        if not (self.seconds or self.replay_seconds or self.orders or self.orders_seconds):
            raise UsageError("a job needs seconds of sampling, or of replay, or orders")


def read_job(path: str) -> Job:
    """Raises UsageError on a file that is absent, not JSON, or not a job."""
    try:
        with open(path, "rb") as file:
            fields = json.load(file)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as a job: {error}") from error
    if not isinstance(fields, dict):
        raise UsageError(f"{path}: a job is a JSON object, not a {type(fields).__name__}")
    return Job(fields)


def _text(fields: dict[str, object], name: str, default: str | None = None) -> str:
    value = fields.get(name, default)
    if value is None and default is not None:
        return default
    if not isinstance(value, str) or (default is None and not value) or "\0" in value:
        raise UsageError(f"the job's {name!r} must be a text, not {value!r}")
    return value


def _looks(fields: dict[str, object]) -> list[float]:
    value = fields.get("looks") or []
    numbers = value if isinstance(value, list) else [None]
    if not all(isinstance(number, int | float) and number > 0 for number in numbers) or sorted(numbers) != numbers:
        raise UsageError(f"the job's 'looks' must be a list of rising seconds, not {value!r}")
    return list(numbers)


def _orders(fields: dict[str, object]) -> list[dict[str, object]]:
    value = fields.get("orders") or []
    if not isinstance(value, list) or not all(isinstance(order, dict) and "do" in order for order in value):
        raise UsageError(f"the job's 'orders' must be a list of orders, not {value!r}")
    return list(value)


def _number(fields: dict[str, object], name: str, least: float, most: float, default: float | None = None) -> float:
    value = fields.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise UsageError(f"the job's {name!r} must be a number from {least:g} to {most:g}, not {value!r}")
    return value


def _arguments(fields: dict[str, object]) -> list[str]:
    value = fields.get("program") or []
    if not isinstance(value, list) or not all(isinstance(word, str) and "\0" not in word for word in value):
        raise UsageError(f"the job's 'program' must be a list of arguments, not {value!r}")
    return list(value)
