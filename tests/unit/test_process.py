"""Starting processes: what comes back, deadlines, and that nothing is left running."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from profiler import process
from profiler.errors import MissingError


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_output_errors_and_exit_code_come_back_apart() -> None:
    completed = process.run(["sh", "-c", "echo out; echo err >&2; exit 3"], timeout=10, check=False)
    assert completed == process.Completed(3, "out\n", "err\n")


def test_a_failure_quotes_the_last_error_line() -> None:
    with pytest.raises(process.ProcessError, match="sh failed: broken"):
        process.run(["sh", "-c", "echo first >&2; echo broken >&2; exit 1"], timeout=10)


def test_a_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process.shutil, "which", lambda program, path=None: None)
    with pytest.raises(MissingError, match="install the package qemu-system-x86"):
        process.run(["qemu-system-x86_64"], timeout=10)


def test_texts_are_pinned_to_the_c_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert process.run(["sh", "-c", "echo $LC_ALL"], timeout=10).output == "C\n"


def test_arguments_never_pass_through_a_shell() -> None:
    assert process.run(["printf", "%s", "$(id); `id` 'x"], timeout=10).output == "$(id); `id` 'x"


def test_a_deadline_ends_the_whole_group(tmp_path: Path) -> None:
    script = f"sleep 600 & echo $! >{tmp_path}/pid; sleep 600"
    started = time.monotonic()
    with pytest.raises(process.ProcessError, match=r"did not end within 0\.5 s"):
        process.run(["sh", "-c", script], timeout=0.5)
    assert time.monotonic() - started < 5
    assert not alive(int((tmp_path / "pid").read_text()))


def test_a_program_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.3)
    script = f"trap '' TERM; echo $$ >{tmp_path}/pid; while :; do sleep 0.1; done"
    with pytest.raises(process.ProcessError):
        process.run(["sh", "-c", script], timeout=0.5)
    assert not alive(int((tmp_path / "pid").read_text()))


def test_lines_come_while_the_program_runs() -> None:
    seen: list[tuple[float, str]] = []
    process.run(
        ["sh", "-c", "echo a; sleep 0.5; echo b"], timeout=10, on_line=lambda s: seen.append((time.monotonic(), s))
    )
    assert [text for _, text in seen] == ["a", "b"]
    assert seen[1][0] - seen[0][0] > 0.3


def test_an_error_in_a_callback_ends_the_program(tmp_path: Path) -> None:
    def fail(line: str) -> None:
        raise ValueError(line)

    with pytest.raises(ValueError, match="x"):
        process.run(["sh", "-c", f"echo $$ >{tmp_path}/pid; echo x; sleep 600"], timeout=60, on_line=fail)
    assert not alive(int((tmp_path / "pid").read_text()))


def test_a_flood_on_standard_error_does_not_block_the_program() -> None:
    script = "import sys; sys.stderr.write('e' * 3_000_000); print('done')"
    completed = process.run([sys.executable, "-c", script], timeout=30)
    assert completed.output == "done\n"
    assert len(completed.errors) == 3_000_000


def test_bytes_that_are_no_text_are_escaped() -> None:
    assert process.run(["printf", r"\377x"], timeout=10).output == "\\xffx"


def test_a_started_program_ends_with_its_block(tmp_path: Path) -> None:
    with process.started(["sleep", "600"], log=tmp_path / "log") as running:
        assert alive(running.pid)
    assert not alive(running.pid)


def test_a_piped_program_that_fails_is_told_and_one_not_read_to_its_end_is_ended() -> None:
    with (
        pytest.raises(process.ProcessError, match="sh failed: no"),
        process.piped(["sh", "-c", "echo x; echo no >&2; exit 2"]) as stream,
    ):
        stream.read()
    with process.piped(["yes"]) as stream:
        assert stream.read(4) == b"y\ny\n"


def test_each_program_has_a_process_group_of_its_own() -> None:
    shown = process.run([sys.executable, "-c", "import os; print(os.getpgid(0))"], timeout=10).output
    assert int(shown) != os.getpgid(0)
