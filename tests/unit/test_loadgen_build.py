"""Compiling the loop: what is said when it cannot be done."""

from pathlib import Path

import pytest

from loadgen.build import _compile_error, loop_library
from profiler.errors import MissingError, RecordError


def test_without_a_compiler_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match="gcc"):
        loop_library(tmp_path / "cache")
    assert list((tmp_path / "cache" / "loop").iterdir()) == []


@pytest.mark.parametrize(
    "stderr",
    [
        "loop.c:9:10: fatal error: errno.h: No such file or directory\n    9 | #include <errno.h>\n",
        "/usr/bin/ld: cannot find crti.o: No such file or directory\ncollect2: error: ld returned 1 exit status\n",
        "/usr/bin/ld: cannot find -lc: No such file or directory\n",
    ],
)
def test_missing_headers_are_told_from_other_failures(stderr: str) -> None:
    error = _compile_error("cc", stderr)
    assert isinstance(error, MissingError)
    assert "libc6-dev" in error.hint


def test_a_compiler_that_fails_otherwise_is_quoted_in_one_line() -> None:
    error = _compile_error("cc", "In file included from x:\nloop.c:3:2: error: no syscall_ARCH.h\n  3 | #error\n")
    assert isinstance(error, RecordError)
    assert str(error) == "cc could not build the load: loop.c:3:2: error: no syscall_ARCH.h"


def test_a_compiler_that_fails_leaves_nothing_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho 'cc: error: broken' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(RecordError, match="broken"):
        loop_library(tmp_path / "cache")
    assert list((tmp_path / "cache" / "loop").iterdir()) == []
