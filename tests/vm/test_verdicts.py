"""Verdicts on real kernels, judged by what reading the source says (loadgen/truth)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from loadgen.scenarios import SCENARIOS
from profiler import pipeline
from profiler.errors import ProfilerError
from profiler.model import Analysis, Conclusion
from tests import truth
from tests.conftest import require
from tests.vm.kernels import VERSIONS, kernel_of

pytestmark = pytest.mark.vm

SAMPLE_DATA = Path(__file__).parents[2] / "sample_data"
SURE = 0.95
# On 6.1: an errno set early and returned late, one in an inlined helper, one behind a function pointer, a merged
# tail, a predicate, one from two lines an `if` apart, one in a loop.
VARIED = [
    "dup3-einval",
    "epoll-ctl-eexist",
    "getpeername-enotconn",
    "madvise-einval",
    "mlock-enomem",
    "prctl-einval",
    "keyctl-enokey",
    "timerfd-settime-einval",
]


def quiet(_phase: str, _fraction: float | None) -> None:
    """No progress."""


def diagnose(scenario: str, version: str, out: Path) -> Analysis:
    kernel_of(version)
    declared = SCENARIOS[scenario]
    request = pipeline.RunRequest(
        target=f"vm:{version}", scenario=scenario, syscall=declared.syscall, errno=declared.errno, seconds=8
    )
    return pipeline.diagnose(request, out, progress=quiet)


def judged(analysis: Analysis, scenario: str) -> truth.Judgement:
    """By the lines of that very package; of one that came after the truth files, by the names of the functions."""
    known = truth.load(scenario)
    exact = known.get(analysis.kernel.package_version)
    if exact is not None:
        return truth.judge(analysis.to_json(), exact)
    series = ".".join(analysis.kernel.package_version.split(".")[:2]) + "."
    near = next(entry for version, entry in known.items() if version.startswith(series))
    site, branch = analysis.error_site, analysis.branch
    return truth.Judgement(
        conclusion_right=(analysis.conclusion is Conclusion.NOT_REPRODUCED) != near.reproduced,
        site_right=site is not None and site.function in {true.function for true in near.sites},
        branch_right=branch is not None and branch.function in {true.place.function for true in near.branches},
        reading=None,
        outcome_right=None,
    )


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("scenario", ["io-uring-setup-enomem", "bind-eaddrinuse"])
def test_the_examples_are_named_right_on_every_kernel(scenario: str, version: str, tmp_path: Path) -> None:
    """The two failures of the documentation: site, branch and the condition's value as the source says."""
    analysis = diagnose(scenario, version, tmp_path / "run")
    judgement = judged(analysis, scenario)
    claimed = f"{analysis.error_site} {analysis.branch} at {analysis.confidence}"
    assert analysis.conclusion is Conclusion.NAMED, claimed
    assert judgement.site_right, claimed
    assert judgement.branch_right, claimed
    assert judgement.outcome_right is not False, claimed


def test_most_of_a_varied_lot_is_right_and_none_wrong_for_sure(tmp_path: Path) -> None:
    """Of eight scenarios on 6.1 at least six are right, and none is wrong at a stated confidence of 95%."""
    right, wrong = [], []
    for scenario in VARIED:
        analysis = diagnose(scenario, "6.1", tmp_path / scenario)
        judgement = judged(analysis, scenario)
        is_right = judgement.site_right and judgement.branch_right and judgement.outcome_right is not False
        if analysis.conclusion is Conclusion.NAMED and is_right:
            right.append(scenario)
        elif analysis.conclusion is Conclusion.NAMED and analysis.confidence >= SURE:
            wrong.append(f"{scenario}: {analysis.error_site} {analysis.branch}")
    assert not wrong
    assert len(right) >= 6, right


def test_a_kernel_that_accepts_the_call_is_told(tmp_path: Path) -> None:
    """7.3 takes the madvise() advice that 6.1 refuses: not reproduced, and the reason says that it succeeded."""
    analysis = diagnose("madvise-einval", "7.3", tmp_path / "run")
    assert analysis.conclusion is Conclusion.NOT_REPRODUCED
    assert "succeeded" in analysis.reason


@pytest.mark.parametrize("version", ["5.10", "7.3"])
def test_the_sample_data_can_be_analyzed_again(version: str, tmp_path: Path) -> None:
    """Without the kernel's running text, from vmlinux and samples alone, the verdict is the one kept there or none."""
    kernel_of(version)
    copy = tmp_path / "copy"
    shutil.copytree(SAMPLE_DATA / f"io-uring-setup-enomem-{version}", copy)
    try:
        analysis = pipeline.analyze(copy, progress=quiet)
    except ProfilerError as error:
        require(False, f"the very kernel of the sample is not here: {error}")
    judgement = judged(analysis, "io-uring-setup-enomem")
    assert analysis.conclusion is Conclusion.INCONCLUSIVE or (judgement.site_right and judgement.branch_right)
