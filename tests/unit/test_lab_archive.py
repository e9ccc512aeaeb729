"""Unpacking what others made: nothing lands outside, nothing but files."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path, PurePosixPath

import pytest

from profiler.errors import InputError
from profiler.lab import archive


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    stream.seek(0)
    return stream


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info


def test_files_directories_and_inner_links_are_unpacked(tmp_path: Path) -> None:
    stream = tar_of(
        (member("./d/run", mode=0o4755), b"x"),
        (member("d/link", tarfile.SYMTYPE, "run"), b""),
        (member("e", tarfile.DIRTYPE), b""),
    )
    assert archive.extract(stream, tmp_path) == 2
    assert (tmp_path / "d/link").read_bytes() == b"x"
    assert (tmp_path / "d/run").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "e").is_dir()


@pytest.mark.parametrize("name", ["../out", "/abs", "a/../../out"])
def test_a_path_outside_is_refused(tmp_path: Path, name: str) -> None:
    into = tmp_path / "in"
    into.mkdir()
    with pytest.raises(InputError, match="outside itself"):
        archive.extract(tar_of((member(name), b"x")), into)
    assert names_in(tmp_path) == ["in"]


def test_links_that_lead_out_and_devices_are_left_out(tmp_path: Path) -> None:
    stream = tar_of(
        (member("l", tarfile.SYMTYPE, "../../etc"), b""),
        (member("a", tarfile.SYMTYPE, "/etc"), b""),
        (member("n", tarfile.CHRTYPE), b""),
        (member("p", tarfile.FIFOTYPE), b""),
        (member("h", tarfile.LNKTYPE, "/etc/passwd"), b""),
    )
    assert archive.extract(stream, tmp_path) == 0
    assert names_in(tmp_path) == []


def test_nothing_is_written_through_a_link_that_was_there(tmp_path: Path) -> None:
    into, outside = tmp_path / "in", tmp_path / "outside"
    into.mkdir()
    outside.mkdir()
    (into / "d").symlink_to(outside)
    with pytest.raises(InputError, match="through a link"):
        archive.extract(tar_of((member("d/f"), b"x")), into)
    assert names_in(outside) == []


def test_a_damaged_archive_is_an_input_error(tmp_path: Path) -> None:
    whole = tar_of((member("f"), b"x" * 5000)).getvalue()
    with pytest.raises(InputError, match="damaged"):
        archive.extract(io.BytesIO(whole[:2000]), tmp_path)


def test_members_can_be_renamed_and_left_out(tmp_path: Path) -> None:
    stream = tar_of((member("top/a"), b"1"), (member("top/b"), b"2"))
    archive.extract(stream, tmp_path, rename=lambda p: PurePosixPath("new") if p.name == "a" else None)
    assert names_in(tmp_path) == ["new"]


def test_a_stream_in_chunks_reads_like_a_file() -> None:
    stream = archive.Chunks(iter([b"abc", b"", b"never"]))
    assert (stream.read(2), stream.read(5)) == (b"ab", b"c")
