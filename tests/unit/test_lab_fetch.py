"""Choosing and checking what is fetched: versions, the catalogue, mirrors."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from profiler.errors import MissingError
from profiler.lab import acquire, apt, catalogue, debian_version
from profiler.lab.apt import PackageVersion


def test_debian_versions_sort_as_dpkg_sorts_them() -> None:
    ordered = [
        "5.10.223-1", "6.1.176-1~deb11u1", "6.1.176-1", "6.1.192-1", "6.1.192-2", "6.12.117-1~deb12u1", "6.12.117-1",
        "7.3.4-1~bpo13+1", "7.3.4-1", "7.3.4-1+b1", "1:5.0-1",
    ]  # fmt: skip
    shuffled = sorted(ordered)
    assert shuffled != ordered
    assert sorted(shuffled, key=debian_version.key) == ordered


@pytest.mark.parametrize(
    "pair", [("1.0~rc1", "1.0"), ("1.0", "1.0a"), ("1.0a", "1.0+"), ("1.9", "1.10"), ("1-1", "1-1.1")]
)
def test_the_order_of_two_versions_agrees_with_dpkg(pair: tuple[str, str]) -> None:
    assert debian_version.key(pair[0]) < debian_version.key(pair[1])
    assert subprocess.run(["dpkg", "--compare-versions", pair[0], "lt", pair[1]], check=False).returncode == 0


def test_a_wanted_version_matches_whole_numbers_only() -> None:
    assert debian_version.matches("6.1.192-2", "6.1")
    assert debian_version.matches("6.1.192-2", "6.1.192-2")
    assert debian_version.matches("6.1.192-2", "6")
    assert not debian_version.matches("6.12.117-1", "6.1")
    assert not debian_version.matches("6.1.192-2", "6.1.19")
    assert not debian_version.matches("6.1.192-2", "6.1.192-1")


def listed(*names: str, version: str, suite: str = "s") -> list[PackageVersion]:
    return [PackageVersion(name, version, suite) for name in names]


def test_only_kernels_with_image_debug_info_and_source_at_one_version_are_whole() -> None:
    packages = [
        *listed("linux-image-6.1.0-55-cloud-amd64", "linux-image-6.1.0-55-cloud-amd64-dbg", version="6.1.192-1"),
        *listed("linux-image-6.1.0-56-cloud-amd64", "linux-image-6.1.0-56-cloud-amd64-dbg", version="6.1.192-2"),
        *listed("linux-source-6.1", version="6.1.192-2"),
        *listed(
            "linux-image-6.12-cloud-amd64", "linux-image-6.12-cloud-amd64-dbg", "linux-source-6.12", version="6.12.1-1"
        ),
    ]
    (only,) = catalogue.whole(packages)
    assert only.release == "6.1.0-56-cloud-amd64"
    assert set(only.packages) == {
        "linux-image-6.1.0-56-cloud-amd64=6.1.192-2",
        "linux-image-6.1.0-56-cloud-amd64-dbg=6.1.192-2",
        "linux-source-6.1=6.1.192-2",
    }


def test_a_split_image_is_taken_in_its_parts() -> None:
    release, version = "7.3.4+deb13-cloud-amd64", "7.3.4-1~bpo13+1"
    parts = [f"linux-binary-{release}", f"linux-modules-{release}", f"linux-base-{release}"]
    names = [*parts, f"linux-image-{release}", f"linux-image-{release}-dbg", "linux-source-7.3"]
    (only,) = catalogue.whole(listed(*names, version=version))
    assert only.packages[:3] == tuple(f"{part}={version}" for part in parts)
    assert f"linux-image-{release}={version}" not in only.packages
    assert catalogue.whole(listed(*(n for n in names if "modules" not in n), version=version)) == []


def test_kernels_come_newest_last() -> None:
    packages = []
    for release, version in (("6.1.0-56", "6.1.192-2"), ("5.10.0-32", "5.10.223-1"), ("6.12.1+deb13", "6.12.1-1")):
        name = f"linux-image-{release}-cloud-amd64"
        source = ".".join(version.split(".")[:2])
        packages += listed(name, f"{name}-dbg", f"linux-source-{source}", version=version)
    assert [k.package_version for k in catalogue.whole(packages)] == ["5.10.223-1", "6.1.192-2", "6.12.1-1"]


def test_mirrors_are_those_of_the_machine_and_its_own_release_is_looked_through_too() -> None:
    found = apt.choose_mirrors(
        [
            ("http://a.test/debian/", "forky", "Debian"),
            ("http://a.test/debian/", "forky-updates", "Debian"),
            ("http://b.test/sec/", "forky-security", "Debian"),
            ("http://c.test/node", "nodistro", "Node Source"),
        ]
    )
    assert (found.main, found.security) == ("http://a.test/debian/", "http://b.test/sec/")
    assert found.codenames == (*apt.CODENAMES, "forky")


def test_mirrors_are_found_before_the_first_update_when_origins_are_unknown() -> None:
    found = apt.choose_mirrors([("http://a.test/debian/", "bookworm", "$(ORIGIN)"), ("http://x.test", "stable", "")])
    assert (found.main, found.security) == ("http://a.test/debian/", "")


def test_a_machine_without_debians_archive_is_told_what_to_do() -> None:
    with pytest.raises(MissingError, match=apt.MIRROR_VARIABLE):
        apt.choose_mirrors(
            [("http://u.test/ubuntu/", "noble", "Ubuntu"), ("http://u.test/ubuntu/", "noble-security", "Ubuntu")]
        )


def test_a_missing_keyring_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt, "_KEYRINGS", ("/nowhere/keyring.gpg",))
    with pytest.raises(MissingError, match="install the package debian-archive-keyring"):
        apt.keyring()


def test_every_source_is_checked_against_the_keyring() -> None:
    lines = apt._sources(apt.Mirrors("http://a.test", "http://b.test", ("bookworm",)), Path("/k.gpg")).splitlines()
    assert lines == [
        "deb [arch=amd64 signed-by=/k.gpg] http://a.test bookworm main",
        "deb [arch=amd64 signed-by=/k.gpg] http://a.test bookworm-backports main",
        "deb [arch=amd64 signed-by=/k.gpg] http://b.test bookworm-security main",
    ]


def test_a_mirror_that_would_change_the_sources_list_is_refused() -> None:
    with pytest.raises(MissingError, match="not the address of a mirror"):
        apt._sources(apt.Mirrors("http://a.test x\ndeb [trusted=yes] http://evil.test", "", ("b",)), Path("/k"))


def test_too_small_a_disk_is_told_before_anything_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = catalogue.Available("6.1.0-56-cloud-amd64", "6.1.192-2", "bookworm-security", ())
    monkeypatch.setattr(acquire.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9 << 30, 8 << 30, 1 << 30))
    with pytest.raises(MissingError, match=r"needs 2\.6 GB in .*; 1\.1 GB are free .*XDG_CACHE_HOME"):
        acquire._require_space(450 << 20, tmp_path, kernel)


class Mirror:
    """A mirror whose lists name three kernels, of which only some are there."""

    def __init__(self, whole: set[str]) -> None:
        self.whole = whole
        self.updates: list[bool] = []

    def update(self, progress: apt.Progress, *, force: bool = False) -> None:
        self.updates.append(force)

    def names(self, prefix: str) -> list[str]:
        return [package.name for package in self._packages()]

    def versions(self, names: list[str]) -> list[PackageVersion]:
        return self._packages()

    def files(self, packages: list[str]) -> list[apt.PackageFile]:
        return [apt.PackageFile("", packages[0], 1, "")]

    def download(self, files: list[apt.PackageFile], into: Path, progress: apt.Progress, phase: str) -> None:
        version = files[0].name.partition("=")[2]
        if version not in self.whole:
            raise apt.NotFoundError(f"{version} 404 Not Found")
        raise MissingError(f"would take {version}")

    @staticmethod
    def _packages() -> list[PackageVersion]:
        packages = []
        for number in ("1", "2", "3"):
            name = f"linux-image-6.1.0-{number}-cloud-amd64"
            packages += listed(name, f"{name}-dbg", "linux-source-6.1", version=f"6.1.{number}-1")
        return packages


def fetched(mirror: Mirror, monkeypatch: pytest.MonkeyPatch, cache: Path) -> tuple[str, list[str]]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(acquire, "_apt", lambda: mirror)
    said: list[str] = []
    with pytest.raises(MissingError) as caught:
        acquire.fetch("6.1", lambda phase, fraction: said.append(phase))
    return str(caught.value), said


def test_a_package_that_is_gone_leads_to_the_next_older_kernel_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message, said = fetched(Mirror({"6.1.1-1", "6.1.2-1"}), monkeypatch, tmp_path)
    assert message == "would take 6.1.2-1"
    assert "6.1.3-1 is not whole on the mirror; trying the next older" in said
    assert list((tmp_path / "whyerrno/downloads").glob("*")) == []


def test_lists_are_fetched_anew_before_giving_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = Mirror(set())
    message, _ = fetched(mirror, monkeypatch, tmp_path)
    assert "no kernel 6.1 is whole on the mirror" in message
    assert "6.1.3-1 404 Not Found" in message
    assert mirror.updates == [False, True]


def test_a_version_that_no_mirror_has_names_those_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(acquire, "_apt", lambda: Mirror(set()))
    with pytest.raises(MissingError, match=r"no kernel 9\.9 \(it has 6\.1\)"):
        acquire.fetch("9.9", lambda phase, fraction: None)


def test_what_a_killed_run_left_half_unpacked_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "whyerrno/kernels/.partial-x/source").mkdir(parents=True)
    fetched(Mirror(set()), monkeypatch, tmp_path)
    assert list((tmp_path / "whyerrno/kernels").iterdir()) == []


def test_a_downloaded_file_counts_only_when_its_hash_is_right(tmp_path: Path) -> None:
    digest = "SHA256:9834876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0"  # of "aaa"
    wanted = apt.PackageFile("http://a.test/x.deb", "x.deb", 3, digest)
    assert not wanted.is_whole(tmp_path)
    (tmp_path / "x.deb").write_text("aab")
    assert not wanted.is_whole(tmp_path)
    (tmp_path / "x.deb").write_text("aaa")
    assert wanted.is_whole(tmp_path)
