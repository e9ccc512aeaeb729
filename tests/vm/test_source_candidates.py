"""The places that the truth files name are in the lists that the source gives, on every kernel."""

from __future__ import annotations

import statistics
import time

import pytest

from loadgen.scenarios import SCENARIOS
from profiler import explain, lab
from profiler.conclude.analysis import ENTRY_NAMES
from profiler.conclude.source_candidates import candidates
from tests import truth
from tests.conftest import require
from tests.vm.kernels import VERSIONS

# Each in another way: through a struct's pointers, an argument, a macro, memory, a security hook, a seccomp filter.
SAMPLE = (
    *("accept-eagain", "accept4-einval", "bind-eaddrinuse", "clone-eagain", "connect-econnrefused"),
    *("fcntl-ebadf", "getppid-eperm", "io-uring-setup-enomem", "keyctl-enokey", "lseek-espipe", "mkdirat-enametoolong"),
    *("openat-eacces", "openat-emfile", "openat-enoent", "poll-efault", "sched-setattr-efault", "sendmsg-ebadf"),
    *("setsockopt-enoprotoopt", "unlinkat-enotempty", "wait4-echild"),
)


@pytest.mark.vm
@pytest.mark.parametrize("version", VERSIONS)
def test_the_true_place_is_in_the_list(version: str) -> None:
    """All of a sample; of all 308 calls on four kernels one is missed, which assembly answers (bench_source.py)."""
    kernel = lab.find(version)
    require(kernel is not None and kernel.source is not None, f"the source of {version} is not cached")
    assert kernel is not None
    missed, counts = [], []
    for name in SAMPLE:
        true = truth.load(name).get(kernel.package_version)
        if true is None or not true.reproduced:
            continue
        scenario = SCENARIOS[name]
        sources = explain.open_sources(kernel, scenario.modules)
        entry = ENTRY_NAMES.get(scenario.syscall, scenario.syscall)
        listed = candidates(sources, entry, scenario.errno).candidates
        counts.append(len(listed))
        places = [{"file": candidate.site.file, "line": candidate.site.line} for candidate in listed]
        if not any(site.holds(place) for site in true.sites for place in places):
            missed.append(name)
    require(bool(counts), f"the truth files do not speak of {kernel.package_version}")
    assert missed == []
    assert statistics.median(counts) < 40


@pytest.mark.vm
def test_a_list_that_was_made_before_takes_a_second() -> None:
    """Measured: 0.1 s of CPU time; the bound leaves room for a busy machine."""
    kernel = lab.find("6.1")
    require(kernel is not None and kernel.source is not None, "the source of 6.1 is not cached")
    assert kernel is not None
    explain.source_half(kernel, "bind", "EADDRINUSE")
    started = time.process_time()
    listed = explain.source_half(kernel, "bind", "EADDRINUSE")
    assert time.process_time() - started < 2
    conditions = {candidate.site.function: candidate.condition for candidate in listed.candidates}
    assert "inet_csk_get_port" in conditions
