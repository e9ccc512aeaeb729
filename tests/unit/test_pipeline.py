"""The whole road: what is refused before anything runs, and what is read back from a Recording."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from profiler import case, evidence, pipeline
from profiler.conclude.analysis import Subject
from profiler.errors import InputError, MissingError, UsageError
from tests.unit.test_acquire import request, toy_kernel
from tests.unit.toy_recording import LOAD, manifest

# ---- before anything runs ----


def test_an_existing_output_is_refused_before_the_target_is_opened(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="exists"):
        pipeline.record(request(target="no:such"), tmp_path / "out", progress=lambda *_: None)


@pytest.mark.parametrize(
    ("name", "message"), [("no-such-program-anywhere", "there is no program"), ("./dir", "is a directory")]
)
def test_a_program_that_cannot_run_is_refused_before_the_target_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dir").mkdir()
    with pytest.raises(UsageError, match=message):
        pipeline.record(request(target="no:such", program=[name]), tmp_path / "out", progress=lambda *_: None)
    assert not (tmp_path / "out").exists()


def test_a_kernel_without_debug_info_is_refused_before_recording(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no debug info"):
        pipeline.require_debug_info(toy_kernel(tmp_path), "vm:toy")
    with pytest.raises(MissingError, match="no vmlinux with debug info for the kernel of local"):
        pipeline.require_debug_info(None, "local")


# ---- the other half: what is read back ----


def test_a_kernel_that_is_not_here_is_named_with_what_to_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(MissingError, match=r"no vmlinux of 6\.1\.0-toy \(build id abababababab\)") as caught:
        pipeline.find_kernel(manifest(target="vm:toy"))
    assert "kernels fetch 6.1.1-1" in caught.value.hint
    with pytest.raises(MissingError):
        pipeline.find_kernel(manifest(target="import", package_version=""))


@pytest.mark.parametrize("name", ["perf.data", "perf.script", "perf.annotate"])
def test_samples_that_cannot_be_read_are_named_by_their_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PERFILE2 and no more" if name == "perf.data" else b"nothing of perf's\n")
    with pytest.raises(InputError, match=str(tmp_path / name)):
        pipeline.read_samples(tmp_path / name)


READ_HERE = {"man", "log", "source"}


def asked(**changes: Any) -> Subject:
    return case.subject_of(manifest(**changes), LOAD)


def test_evidence_is_what_a_recording_holds_unless_less_is_asked_for(tmp_path: Path) -> None:
    for name in ("perf.data", "execution.npz", "graph-0.json", "probes-1.json"):
        (tmp_path / name).touch()
    assert pipeline._evidence(tmp_path, asked(), evidence.AUTO) == set(evidence.RUNGS)
    assert pipeline._evidence(tmp_path, asked(), frozenset({"exact"})) == {"exact"}
    assert pipeline._evidence(tmp_path, asked(rungs=["man", "exact"], event=""), evidence.AUTO) == (
        set(evidence.RUNGS) - {"log", "source"}
    )
    (tmp_path / "perf.data").unlink()
    assert "samples" not in pipeline._evidence(tmp_path, asked(event=""), evidence.AUTO)


def test_evidence_that_a_recording_lacks_is_refused_with_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "perf.data").touch()
    with pytest.raises(UsageError, match="holds no exact evidence") as caught:
        pipeline._evidence(tmp_path, asked(), frozenset({"samples", "exact"}))
    assert "--evidence samples" in caught.value.hint
    found = pipeline._evidence(tmp_path / "nothing", asked(), evidence.AUTO)
    assert found == {"samples", *READ_HERE}  # so that their absence is told
    assert pipeline._evidence(tmp_path / "nothing", asked(event=""), evidence.AUTO) == READ_HERE


def test_a_recording_without_samples_reads_as_none() -> None:
    """With every column there, as long as the others."""
    none = case.no_samples()
    assert len(none.samples.ip) == len(none.samples.chain) == 0
    assert none.samples.chain_start.tolist() == [0]
    assert none.samples.in_kernel.dtype == bool
    assert (none.lost, none.parents) == (0, {})
