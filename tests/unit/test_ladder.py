"""Which step follows which look: on a toy kernel, whose calls a real CPU emulator runs and probes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from profiler import ladder, recording
from profiler.case import Case, no_samples
from profiler.errors import RecordError
from profiler.following import ENOUGH, Answer, Look
from profiler.ladder import Ladder
from profiler.model import ExecutionLog, Kernel, PerfRecording, ProbeHits
from profiler.syscalls import NUMBERS
from tests.unit.test_acquire import request
from tests.unit.test_conclude_exactly import BAD, CALLED, KERNEL, REFUSED, SOURCE, logged
from tests.unit.toy_execution import HEAP, ToyMachine
from tests.unit.toy_probes import hits_of, instructions
from tests.unit.toy_recording import recorded, subject

OFFSET = 0x1600_0000
MANY = {"__x64_sys_bind < do_syscall_64.call": 600, CALLED: 900, BAD: 800}
ALL = frozenset({"man", "log", "source", "graph", "samples", "probes"})
Step = dict[str, Any] | None


@dataclass
class FakePlan:
    """Of operands: one point, where the deciding jump is."""

    address: int

    def points(self, offset: int) -> list[Any]:
        return [ladder.operands.Point(self.address + offset, {"v0": "%ax:u64"})]


@dataclass
class Recorder:
    """A recorder that carries orders out on the toy machine; the ladder is asked after each."""

    directory: Path
    ladder: Ladder
    samples: PerfRecording
    hits: dict[bytes, ProbeHits] = field(default_factory=dict)
    execution: ExecutionLog | None = None

    def look(self, answer: Answer | None = None) -> Step:
        return self.ladder.next_step(Look(self.directory, 100, self.execution, answer))

    def answered(self, step: dict[str, Any], number: int, problem: str = "") -> Step:
        """What comes after an order was carried out."""
        answer = Answer(step["do"], number, problem, self.directory)
        if step["do"] == "probes" and not problem:
            (self.directory / f"probes-{number}.json").write_bytes(b"%d" % number)
            (self.directory / f"probes-{number}.bin").write_bytes(b"")
            self.hits[b"%d" % number] = self._probed(step)
        return self.look(answer)

    def _probed(self, step: dict[str, Any]) -> ProbeHits:
        machine = ToyMachine(KERNEL)
        machine.write(HEAP, 2)
        machine.call(NUMBERS["x86_64"]["bind"], **REFUSED)
        probes = [(probe["address"] - OFFSET, probe["return"]) for probe in step["probes"]]
        here = [address for address, on_return in probes if not on_return]
        returns = [address for address, on_return in probes if on_return]
        return hits_of(machine, here, returns=returns, offset=OFFSET)

    def course(self) -> list[str]:
        """The words of all steps, until it is enough or nothing follows."""
        words, step = [], self.look()
        while step is not None and step is not ENOUGH:
            assert len(words) < 20
            words.append(step["do"])
            step = self.answered(step, len(words) - 1)
        return [*words, "enough" if step is ENOUGH else "nothing"]


def recorder(
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    samples: dict[str, int],
    taken: frozenset[str] = ALL,
    *,
    ours: bool = True,
    **asked: Any,
) -> Recorder:
    kernel = Kernel("6.1.0-toy", "6.1.1-1", "ab" * 20, "x86_64")
    wanted = request(errno="EINVAL", **asked)
    made = Recorder(
        directory,
        Ladder(wanted, kernel, taken, emulated=False, ours=ours),
        recorded(KERNEL, samples, kaslr_offset=OFFSET) if samples else no_samples(),
    )
    if samples:
        (directory / recording.PERF_DATA).touch()
    monkeypatch.setattr(
        ladder,
        "case_of",
        lambda _directory, _kernel, about: Case(
            replace(about, kaslr_offset=OFFSET),
            KERNEL,
            SOURCE,
            None,
            kernel,  # type: ignore[arg-type]
        ),
    )
    monkeypatch.setattr(ladder, "read_samples", lambda *_, **__: made.samples)
    monkeypatch.setattr(ladder.probe_hits, "read", lambda facts, _: made.hits[facts])
    monkeypatch.setattr(ladder.operands, "plan", lambda _code, _branch, jump, _source: FakePlan(jump))
    return made


# ---- before anything is sampled ----


def test_the_function_graph_is_asked_for_first_where_it_may_be_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (order,) = recorder(tmp_path, monkeypatch, {}).ladder.orders()
    assert (order["do"], order["function"]) == ("graph", "__x64_sys_bind")
    assert recorder(tmp_path, monkeypatch, {}, ALL - {"graph"}).ladder.orders() == []


# ---- samples, probes, values ----


def test_probes_come_after_samples_then_the_values_and_then_it_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    course = recorder(tmp_path, monkeypatch, MANY).course()
    assert set(course[:-2]) == {"probes"}
    assert course[-2:] == ["operands", "enough"]


def test_the_first_probes_are_where_samples_make_it_likely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = recorder(tmp_path, monkeypatch, MANY).look()
    assert step is not None
    addresses = {probe["address"] - OFFSET for probe in step["probes"] if not probe["return"]}
    assert KERNEL.at["find_slot.bad"] in addresses
    assert KERNEL.at["__x64_sys_bind"] in addresses
    assert not addresses & instructions(KERNEL, ["insert"])
    returns = {probe["address"] - OFFSET for probe in step["probes"] if probe["return"]}
    assert KERNEL.at["find_slot"] in returns


def test_without_samples_probes_start_from_the_entry_and_find_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recorder(tmp_path, monkeypatch, {}, frozenset({"probes"}))
    course = made.course()
    assert course.count("probes") >= 2
    assert course[-2:] == ["operands", "enough"]


def test_a_problem_with_probes_ends_probing_and_the_samples_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recorder(tmp_path, monkeypatch, MANY, confidence=0.8)
    step = made.look()
    assert step is not None
    following = made.answered(step, 0, problem="this kernel has no kprobes")
    assert following is not None
    assert following["do"] in ("operands", "enough")


def test_a_problem_with_probes_and_no_samples_leaves_nothing_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recorder(tmp_path, monkeypatch, {}, frozenset({"probes"}))
    step = made.look()
    assert step is not None
    assert made.answered(step, 0, problem="this kernel has no kprobes") is None
    assert made.look() is None


def test_values_are_asked_for_but_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = recorder(tmp_path, monkeypatch, MANY)
    assert made.course().count("operands") == 1
    assert made.look() is ENOUGH


def test_the_values_are_read_where_the_kernel_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = recorder(tmp_path, monkeypatch, MANY)
    step, number = made.look(), 0
    while step is not None and step["do"] == "probes":
        step = made.answered(step, number)
        number += 1
    assert step is not None
    (point,) = step["points"]
    jump = KERNEL.at["find_slot"] + 2
    assert KERNEL.name(point["address"] - OFFSET).startswith("find_slot")
    assert point["address"] - OFFSET >= jump
    assert step["ours"] is True


def test_where_probes_may_not_be_taken_samples_alone_decide_and_no_value_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recorder(tmp_path, monkeypatch, MANY, ALL - {"probes"}, confidence=0.8)
    assert made.look() is ENOUGH


def test_few_samples_decide_nothing_where_there_are_no_probes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert recorder(tmp_path, monkeypatch, {BAD: 3}, ALL - {"probes"}).look() is None


def test_an_execution_log_needs_no_probes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = recorder(tmp_path, monkeypatch, MANY)
    made.execution = logged(REFUSED, offset=OFFSET)
    step = made.look()
    assert step is not None
    assert step["do"] == "operands"
    assert made.answered(step, 0) is ENOUGH


def test_settings_are_changed_in_a_guest_of_our_own_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = recorder(tmp_path, monkeypatch, MANY, ours=False).look()
    assert step is not None
    assert step["ours"] is False


@pytest.mark.parametrize("error", [RecordError("damaged"), LookupError("__x64_sys_bind")])
def test_what_cannot_be_read_while_it_goes_on_is_left_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    made = recorder(tmp_path, monkeypatch, MANY)

    def damaged(*_: Any, **__: Any) -> PerfRecording:
        raise error

    monkeypatch.setattr(ladder, "read_samples", damaged)
    assert made.look() is None


# ---- the case that the looks opened ----


def test_there_is_no_case_where_nobody_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert recorder(tmp_path, monkeypatch, MANY).ladder.case_of(tmp_path) is None


def test_a_case_is_not_used_again_where_other_code_ran_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recorder(tmp_path, monkeypatch, MANY)
    made.look()
    (tmp_path / recording.KERNEL_TEXT).write_bytes(b"other code")
    assert made.ladder.case_of(tmp_path) is None


def test_what_is_asked_is_the_same_in_every_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the load that is running, whose process id is known before there is a result."""
    made = recorder(tmp_path, monkeypatch, MANY)
    made.look()
    about = made.ladder._opened(Look(tmp_path, 100, None)).subject
    assert about.load is not None
    assert (about.syscall, about.errno, about.load.pid) == ("bind", "EINVAL", 100)
    assert subject(syscall="bind").errno_number == about.errno_number
