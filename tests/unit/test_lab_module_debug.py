"""Modules with their debug info: found beside a kernel, or unpacked from its -dbg package."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from profiler import lab
from profiler.errors import MissingError, UsageError
from profiler.lab import acquire, modules, store
from profiler.model import Kernel

VERSION = "6.1.192-2"
PACKED = "usr/lib/debug/lib/modules/6.1.0-56-cloud-amd64/kernel"


def quiet(_phase: str, _fraction: float | None) -> None:
    """No progress."""


def content(*needs: str) -> bytes:
    return b"\x7fELF\0depends=" + ",".join(needs).encode() + b"\0"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A -dbg package with tun, and sctp, which needs libcrc32c and udp_tunnel."""
    tree = tmp_path / "tree"
    for name, needs in {"net/tun": (), "sctp": ("libcrc32c", "udp-tunnel"), "libcrc32c": (), "udp-tunnel": ()}.items():
        path = tree / PACKED / f"{name}.ko"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(*needs))
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(
        "Package: linux-image-dbg\nVersion: 1\nArchitecture: all\nMaintainer: nobody <n@example.org>\nDescription: x\n"
    )
    made = tmp_path / "debug.deb"
    subprocess.run(["dpkg-deb", "--build", "-Znone", tree, made], check=True, capture_output=True)
    return made


@pytest.fixture
def kernel(tmp_path: Path, package: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    @contextlib.contextmanager
    def downloaded(_kernel: Kernel, _progress: object) -> Iterator[Path]:
        downloads.append(package)
        yield package

    downloads.clear()
    monkeypatch.setattr(acquire, "debug_package", downloaded)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    directory = store.kernels_directory() / VERSION
    directory.mkdir(parents=True)
    return Kernel("6.1.0-56-cloud-amd64", VERSION, "ab", "x86_64", module_debug=directory / store.MODULE_DEBUG)


downloads: list[Path] = []


def test_only_the_modules_asked_for_are_unpacked_and_kept(kernel: Kernel) -> None:
    assert lab.find_module(kernel, "tun") is None
    lab.fetch_modules(kernel, ["tun"], quiet)
    assert kernel.module_debug is not None
    assert lab.find_module(kernel, "tun") == kernel.module_debug / "tun.ko"
    assert [path.name for path in kernel.module_debug.parent.rglob("*")] == ["debug", "tun.ko"]


def test_what_is_there_is_not_fetched_again(kernel: Kernel) -> None:
    lab.fetch_modules(kernel, ["tun"], quiet)
    lab.fetch_modules(kernel, ["tun"], quiet)
    assert len(downloads) == 1


def test_modules_come_behind_those_they_need(kernel: Kernel) -> None:
    order = [name for name, _ in lab.loadable_modules(kernel, ["tun", "sctp"], quiet)]
    assert set(order) == {"tun", "sctp", "libcrc32c", "udp_tunnel"}
    assert max(order.index("libcrc32c"), order.index("udp_tunnel")) < order.index("sctp")


def test_hyphens_and_underscores_are_the_same(kernel: Kernel) -> None:
    lab.fetch_modules(kernel, ["udp_tunnel"], quiet)
    found = lab.find_module(kernel, "udp_tunnel")
    assert found is not None and found.name == "udp-tunnel.ko"
    assert lab.find_module(kernel, "udp-tunnel") == found


def test_a_module_that_the_package_lacks_is_named(kernel: Kernel) -> None:
    with pytest.raises(MissingError, match="no module nosuch"):
        lab.fetch_modules(kernel, ["nosuch"], quiet)
    assert lab.find_module(kernel, "nosuch") is None


def test_what_is_no_name_is_refused_before_anything_is_fetched(kernel: Kernel) -> None:
    with pytest.raises(UsageError, match="not the name of a kernel module"):
        lab.fetch_modules(kernel, ["../../etc/passwd"], quiet)
    assert not downloads


def test_a_kernel_of_somebodys_own_is_told_where_its_modules_are_looked_for(kernel: Kernel, tmp_path: Path) -> None:
    own = replace(kernel, package_version="", module_debug=tmp_path / "tree")
    assert lab.find_module(own, "tun") == tmp_path / "tree" / PACKED / "net/tun.ko"
    with pytest.raises(MissingError, match="nosuch") as caught:
        lab.fetch_modules(own, ["nosuch"], quiet)
    assert str(tmp_path / "tree") in caught.value.hint


def test_a_module_that_needs_none_has_no_dependencies(tmp_path: Path) -> None:
    path = tmp_path / "tun.ko"
    path.write_bytes(content())
    assert modules.depends(path) == []
