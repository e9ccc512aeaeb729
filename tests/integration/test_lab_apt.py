"""The machine's own apt against mirrors that must not be trusted or cannot be reached."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from profiler.errors import MissingError
from profiler.lab import apt
from tests.conftest import require


@pytest.fixture
def private(tmp_path: Path) -> apt.Apt:
    require(shutil.which("apt-get"), "apt-get is not on this machine")
    require(any(Path(name).is_file() for name in apt._KEYRINGS), "debian-archive-keyring is not installed")
    return apt.Apt(tmp_path / "apt")


def quiet(phase: str, fraction: float | None) -> None:
    """Nobody watches."""


def test_a_mirror_without_debians_signature_is_refused(
    private: apt.Apt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = tmp_path / "mirror/dists/bookworm"
    (suite / "main/binary-amd64").mkdir(parents=True)
    (suite / "Release").write_text("Origin: Debian\nSuite: bookworm\nCodename: bookworm\n")
    (suite / "main/binary-amd64/Packages").write_text("Package: linux-source-6.1\nVersion: 6.1.1-1\n")
    monkeypatch.setenv(apt.MIRROR_VARIABLE, f"file:{tmp_path}/mirror")
    with pytest.raises(MissingError, match=r"not signed.*debian-archive-keyring"):
        private.update(quiet)


def test_a_mirror_out_of_reach_is_told_and_nothing_counts_as_updated(
    private: apt.Apt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(apt.MIRROR_VARIABLE, "http://127.0.0.1:9/debian")
    with pytest.raises(MissingError, match="check the network"):
        private.update(quiet)
    assert not (tmp_path / "apt/updated").exists()
