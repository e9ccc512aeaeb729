"""Orders for probes are checked before anything is touched; what the kernel refuses is told."""

import errno
import os
import resource
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from profiler.errors import MissingError, RecordError
from profiler.record import journal, perf_event, probes
from profiler.record.orders import Place

BIND = 0xFFFFFFFF81E63D60


def place(pid: int) -> Place:
    return cast(Place, SimpleNamespace(load=SimpleNamespace(pid=pid), out="/nonexistent"))


@pytest.mark.parametrize(
    ("order", "says"),
    [
        ({}, "names 1 to"),
        ({"probes": []}, "names 1 to"),
        ({"probes": [{"address": BIND}] * 5000}, "names 1 to"),
        ({"probes": [BIND]}, "is no probe"),
        ({"probes": [{"address": "do_madvise"}]}, "is no probe"),
        ({"probes": [{"address": 0x400000}]}, "is no probe"),
        ({"probes": [{"address": BIND}], "seconds": 0}, "stay for up to"),
        ({"probes": [{"address": BIND}], "seconds": 1000}, "stay for up to"),
        ({"probes": [{"address": BIND}], "rows": 0}, "no number of rows"),
        ({"probes": [{"address": BIND}], "rows": "many"}, "no number of rows"),
    ],
)
def test_an_order_of_another_shape_is_refused(order: Mapping[str, object], says: str) -> None:
    with pytest.raises(RecordError, match=says):
        probes.carry_out(order, 0, place(os.getpid()))


def test_a_kernel_without_kprobes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perf_event, "PMU", "/nonexistent/kprobe/type")
    with pytest.raises(MissingError, match="no kprobes") as told:
        probes.carry_out({"probes": [{"address": BIND}]}, 0, place(os.getpid()))
    assert "CONFIG_KPROBE_EVENTS" in told.value.hint


def test_a_load_that_has_ended_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perf_event, "kprobe_type", lambda: 8)
    with pytest.raises(RecordError, match="the load has ended"):
        probes.carry_out({"probes": [{"address": BIND}]}, 0, place(1 << 22))


def refusing(number: int) -> Any:
    def open_probe(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    return open_probe


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES])
def test_a_want_of_permission_ends_the_order(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(perf_event, "open_probe", refusing(number))
    with pytest.raises(MissingError, match="kprobe cannot be made"):
        probes.Events(8, [(BIND, False)], [1]).open(4096)


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.EINVAL, "the kernel does not let this instruction be probed"),
        (errno.EILSEQ, "not at the beginning of an instruction"),
        (errno.ENOMEM, os.strerror(errno.ENOMEM)),
    ],
)
def test_a_probe_that_the_kernel_refuses_is_told_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str], number: int, says: str
) -> None:
    monkeypatch.setattr(perf_event, "open_probe", refusing(number))
    events = probes.Events(8, [(BIND, False), (BIND, True)], [1])
    events.open(4096)
    assert events.write(f"{os.fspath(tmp_path)}/probes-0", 0.1) == {"hits": 0, "refused": 2}
    assert says in open(f"{os.fspath(tmp_path)}/probes-0.json").read()  # noqa: PTH123, SIM115


def test_a_thread_that_has_ended_refuses_no_probe(monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]) -> None:
    monkeypatch.setattr(perf_event, "open_probe", refusing(errno.ESRCH))
    events = probes.Events(8, [(BIND, False)], [1])
    events.open(4096)
    assert events.write(f"{os.fspath(tmp_path)}/probes-0", 0.1) == {"hits": 0, "refused": 0}


def test_settings_are_changed_in_guests_of_our_own_and_elsewhere_only_where_it_would_take_seconds() -> None:
    assert set(probes.quick_settings({"ours": True}, 1)) == {"rcu_expedited", "kprobes-optimization"}
    assert probes.quick_settings({}, 10) == {}
    assert set(probes.quick_settings({"ours": False}, 500)) == {"rcu_expedited"}
    assert set(probes.quick_settings({"ours": True}, 500)) <= set(journal.SETTINGS)


def test_the_limit_of_open_files_is_raised_as_far_as_needed() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
        probes._allow_descriptors(300)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (300 + probes.SPARE_DESCRIPTORS, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("most", [4096, 5000, 8 << 20, (8 << 20) // 3])
def test_a_ring_has_pages_by_a_power_of_two(most: int) -> None:
    size = perf_event.ring_size(most)
    assert size <= most < 2 * size
    assert size // 4096 & size // 4096 - 1 == 0
