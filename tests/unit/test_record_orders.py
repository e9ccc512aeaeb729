"""Orders are carried out one by one while the load runs, each answered, and none of them ends the recording."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from profiler.errors import MissingError, RecordError
from profiler.record import course, function_graph, operands, probes
from profiler.record.course import Course
from profiler.record.job import Job
from profiler.record.orders import Orders, Place
from tests.unit.test_record_job import JOB


class FakeRate:
    def __init__(self, events: list[str]) -> None:
        self._events = events

    def begin(self, rung: str) -> None:
        self._events.append(f"begin {rung}")

    def end(self, rung: str) -> None:
        self._events.append(f"end {rung}")

    def measure(self, seconds: float, rung: str = "none") -> None:
        self._events.append(f"measure {rung}")


class FakeLoad:
    """That runs on until it was looked after `turns` times."""

    def __init__(self, events: list[str], turns: int = 50) -> None:
        self.events = events
        self.rate = FakeRate(events)
        self.pid = 100
        self._turns = turns

    def release(self) -> None:
        self.events.append("release")

    def check(self) -> bool:
        self._turns -= 1
        return self._turns >= 0


class FakePerf:
    def __init__(self, events: list[str]) -> None:
        self._events = events

    def resume(self) -> None:
        self._events.append("resume")

    def pause(self) -> None:
        self._events.append("pause")

    def flush(self) -> None:
        self._events.append("flush")

    def alive(self) -> bool:
        return True


class Recording:
    """A recorder's directory with its orders, on a load that is none; what happens is told in `events`."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, turns: int = 50, **job: Any) -> None:
        self.directory = directory
        self.events: list[str] = []
        self.job = Job({**JOB, **job})
        self.load = FakeLoad(self.events, turns)
        place = Place(self.job, self.load, str(directory / "out"))  # type: ignore[arg-type]
        self.orders = Orders(place, str(directory))
        for module in (function_graph, probes, operands):
            monkeypatch.setattr(module, "carry_out", self._carried_out)

    def _carried_out(self, order: dict[str, Any], number: int, _place: Place) -> dict[str, Any]:
        self.events.append(f"{order['do']} {number}")
        if "raises" in order:
            raise {"missing": MissingError("no kprobes here", hint="boot one with"), "os": OSError(16, "busy")}.get(
                str(order["raises"]), RecordError("it broke")
            )
        return {"hits": 3}

    def put(self, number: int, order: Any) -> None:
        text = order if isinstance(order, str) else json.dumps(order)
        (self.directory / f"order-{number}.json").write_text(f"{text}\n")

    def run(self, *, sampled: bool = False) -> Course:
        perf = FakePerf(self.events) if sampled else None
        made = Course(self.job, self.load, perf, self.orders, str(self.directory))  # type: ignore[arg-type]
        made.run()
        return made


def answers(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [message for message in said if "answered" in message]


# ---- orders ----


def test_orders_are_numbered_as_they_come_those_of_the_job_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Recording(tmp_path, monkeypatch, orders=[{"do": "graph"}])
    made.put(0, {"do": "probes"})
    made.put(1, {"do": "operands"})
    while made.orders.waiting():
        made.orders.carry_out()
    assert [(answer["answered"], answer["do"]) for answer in answers(capsys)] == [
        (0, "graph"),
        (1, "probes"),
        (2, "operands"),
    ]


def test_an_order_that_is_still_being_written_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The target unpacks it: a long one was seen cut at 47,609 characters."""
    made = Recording(tmp_path, monkeypatch)
    for text in ("", '{"do": "pro', '{"do": "probes"}'):
        (tmp_path / "order-0.json").write_text(text)
        assert not made.orders.waiting()
    made.put(0, {"do": "probes"})
    assert made.orders.waiting()


def test_an_answer_says_what_the_module_says_and_how_long_it_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Recording(tmp_path, monkeypatch, orders=[{"do": "probes"}])
    made.orders.carry_out()
    (answer,) = answers(capsys)
    assert (answer["hits"], answer["problem"], answer["hint"]) == (3, "", "")
    assert 0 <= answer["seconds"] < 5


def test_there_is_nothing_to_do_until_an_order_comes_and_each_is_carried_out_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Recording(tmp_path, monkeypatch)
    assert not made.orders.waiting()
    made.put(0, {"do": "probes"})
    assert made.orders.waiting()
    made.orders.carry_out()
    assert not made.orders.waiting()


@pytest.mark.parametrize(
    ("order", "problem", "hint", "kind"),
    [
        ({"do": "probes", "raises": "missing"}, "no kprobes here", "boot one with", "missing"),
        ({"do": "probes", "raises": "record"}, "it broke", "", "record"),
        ({"do": "probes", "raises": "os"}, "OSError: [Errno 16] busy", "", ""),
        ({"do": "dance"}, "KeyError: 'dance'", "", ""),
        ({}, "KeyError: 'do'", "", ""),
        ("{", "JSONDecodeError", "", ""),
        ("[]", "TypeError", "", ""),
    ],
)
def test_a_problem_ends_the_order_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    order: Any,
    problem: str,
    hint: str,
    kind: str,
) -> None:
    made = Recording(tmp_path, monkeypatch)
    made.put(0, order)
    made.put(1, {"do": "operands"})
    while made.orders.waiting():
        made.orders.carry_out()
    first, second = answers(capsys)
    assert first["problem"].startswith(problem)
    assert (first["hint"], first["kind"]) == (hint, kind)
    assert (second["answered"], second["problem"]) == (1, "")


@pytest.mark.parametrize(("word", "rung"), [("graph", "graph"), ("probes", "probes"), ("operands", "probes")])
def test_what_an_order_costs_the_load_is_counted_for_its_rung(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, rung: str
) -> None:
    made = Recording(tmp_path, monkeypatch, orders=[{"do": word}])
    made.orders.carry_out()
    assert made.events == [f"begin {rung}", f"{word} 0", f"end {rung}"]


# ---- the course with orders ----


def test_the_jobs_orders_come_before_sampling_but_behind_what_the_load_begins_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(course, "TICK_SECONDS", 0.01)
    made = Recording(tmp_path, monkeypatch, seconds=0.02, orders=[{"do": "graph"}])
    made.run(sampled=True)
    events = made.events
    assert events[:3] == ["resume", "release", "pause"]
    assert events.index("graph 0") < events.index("resume", 3)


def test_the_load_is_measured_alone_before_anything_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Recording(tmp_path, monkeypatch, seconds=0, orders=[{"do": "graph"}])
    made.run()
    assert made.events[:4] == ["release", "measure warm", "measure none", "begin graph"]


def test_samples_pause_while_an_order_is_carried_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(course, "TICK_SECONDS", 0.01)
    made = Recording(tmp_path, monkeypatch, seconds=0.1, looks=[0.01])
    monkeypatch.setattr(
        course.progress, "say", lambda message: made.put(0, {"do": "probes"}) if "sampled" in message else None
    )
    followed = made.run(sampled=True)
    at = made.events.index("probes 0")
    before, after = made.events[:at], made.events[at:]
    assert before[-3:] == ["end samples", "pause", "begin probes"]
    assert after[:4] == ["probes 0", "end probes", "resume", "begin samples"]
    assert 0.1 <= followed.sampled < 1


def test_a_recorder_without_samples_waits_for_orders_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(course, "TICK_SECONDS", 0.01)
    made = Recording(tmp_path, monkeypatch, seconds=0, orders_seconds=5)
    made.put(0, {"do": "probes"})
    made.put(1, {"do": "operands"})
    made.run()
    said = capsys.readouterr().out
    assert [event for event in made.events if event[-1].isdigit()] == ["probes 0", "operands 1"]
    assert '"waiting": true' in said


def test_waiting_ends_with_the_hosts_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Recording(tmp_path, monkeypatch, turns=1_000_000, seconds=0, orders_seconds=3600)
    (tmp_path / course.ENOUGH).touch()
    made.run()
    assert not made.orders.waiting()


def test_waiting_ends_with_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(course, "TICK_SECONDS", 0.01)
    made = Recording(tmp_path, monkeypatch, turns=1_000_000, seconds=0, orders_seconds=0.05)
    made.run()
    assert made.load.check()


def test_orders_are_left_where_the_load_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Recording(tmp_path, monkeypatch, turns=1, seconds=0, orders=[{"do": "graph"}, {"do": "graph"}])
    made.run()
    assert [event for event in made.events if event[-1].isdigit()] == ["graph 0"]
    assert made.orders.waiting()
