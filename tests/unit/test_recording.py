"""The Recording directory: whole or absent, and read with errors that say what is wrong."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from profiler import recording
from profiler.errors import InputError, UsageError
from profiler.model import ExecutionLog, LoadResult
from tests.unit.sample_analysis import named
from tests.unit.toy_recording import LOAD, manifest


def earlier_run(directory: Path) -> Path:
    directory.mkdir()
    recording.write_manifest(directory, manifest())
    return directory


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_directory_appears_when_it_is_whole(tmp_path: Path) -> None:
    final = tmp_path / "runs" / "one"
    with recording.new_directory(final) as partial:
        (partial / "perf.data").write_bytes(b"data")
        assert not final.exists()
        assert partial.parent == final.parent  # so that renaming it is atomic
    assert names(final) == ["perf.data"]
    assert names(final.parent) == ["one"]
    assert final.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_nothing_appears_when_it_fails(tmp_path: Path, failure: type[BaseException]) -> None:
    with pytest.raises(failure), recording.new_directory(tmp_path / "one") as partial:
        (partial / "perf.data").write_bytes(b"half")
        raise failure
    assert names(tmp_path) == []


def test_an_existing_directory_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "precious").touch()
    with pytest.raises(UsageError, match="exists") as caught, recording.new_directory(tmp_path / "one"):
        pytest.fail("must not begin")
    assert "--force" in caught.value.hint
    assert names(tmp_path / "one") == ["precious"]


def test_an_existing_directory_is_replaced_by_force_when_the_new_one_is_whole(tmp_path: Path) -> None:
    earlier_run(tmp_path / "one")
    with recording.new_directory(tmp_path / "one", force=True) as partial:
        (partial / "new").touch()
        assert names(tmp_path / "one") == ["manifest.json"]
    assert names(tmp_path / "one") == ["new"]
    assert names(tmp_path) == ["one"]


def test_what_was_there_survives_a_forced_replacement_that_fails(tmp_path: Path) -> None:
    earlier_run(tmp_path / "one")
    with pytest.raises(RuntimeError), recording.new_directory(tmp_path / "one", force=True):
        raise RuntimeError
    assert names(tmp_path / "one") == ["manifest.json"]
    assert names(tmp_path) == ["one"]


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    recording.write_atomically(path, "first")
    recording.write_atomically(path, b"second")
    assert path.read_text() == "second"
    assert names(tmp_path) == ["file"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    """The new content is refused before anything is replaced, and no partial file stays."""
    path = tmp_path / "taken"
    path.mkdir()
    (path / "inside").touch()
    with pytest.raises(OSError, match="taken"):
        recording.write_atomically(path, "text")
    assert names(tmp_path) == ["taken"]


def test_manifest_load_and_analysis_are_read_as_written(tmp_path: Path) -> None:
    analysis = named()
    recording.write_manifest(tmp_path, manifest(warnings=["w"]))
    recording.write_load(tmp_path, LOAD)
    recording.write_analysis(tmp_path, analysis)
    assert recording.read_manifest(tmp_path) == manifest(warnings=["w"])
    assert recording.read_load(tmp_path) == LOAD
    assert recording.read_analysis(tmp_path) == analysis


def test_the_same_analysis_is_written_byte_for_byte(tmp_path: Path) -> None:
    written = []
    for _ in range(2):
        recording.write_analysis(tmp_path, named())
        written.append((tmp_path / recording.ANALYSIS).read_bytes())
    assert written[0] == written[1]


def test_a_directory_without_a_manifest_is_no_recording(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a recording"):
        recording.read_manifest(tmp_path)
    with pytest.raises(UsageError, match="is not a recording"):
        recording.read_manifest(tmp_path / "absent")


def test_a_run_that_was_not_analyzed_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no analysis") as caught:
        recording.read_analysis(tmp_path)
    assert "whyerrno analyze" in caught.value.hint


def test_a_recording_without_the_loads_result_is_not_whole(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"load\.json is missing"):
        recording.read_load(tmp_path)


def test_a_newer_schema_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / recording.MANIFEST).write_text(json.dumps({**manifest().to_json(), "schema": 99}))
    with pytest.raises(InputError, match="schema 99 is newer than this whyerrno reads") as caught:
        recording.read_manifest(tmp_path)
    assert caught.value.hint == "update whyerrno"


def test_fields_that_a_newer_version_added_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / recording.MANIFEST).write_text(json.dumps({**manifest().to_json(), "added_later": [1, 2]}))
    assert recording.read_manifest(tmp_path) == manifest()


WHOLE = dataclasses.asdict(LOAD)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"3",
        b'{"calls": 1}',
        json.dumps({**WHOLE, "calls": "many"}).encode(),
        json.dumps({**WHOLE, "seconds": None}).encode(),
        json.dumps({**WHOLE, "results": 5}).encode(),
        json.dumps({**WHOLE, "comm": ["a"]}).encode(),
    ],
)
def test_a_damaged_file_is_named_in_one_line(tmp_path: Path, content: bytes) -> None:
    """Whatever the damage, it is an error of ours that begins with the file's name."""
    (tmp_path / recording.LOAD).write_bytes(content)
    with pytest.raises(InputError, match=r"load\.json: not ") as caught:
        recording.read_load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_whole_number_of_seconds_is_a_number_of_seconds(tmp_path: Path) -> None:
    (tmp_path / recording.LOAD).write_text(json.dumps({**WHOLE, "seconds": 2}))
    found: LoadResult = recording.read_load(tmp_path)
    assert (found.seconds, type(found.seconds)) == (2.0, float)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"PERFILE2" + bytes(96), recording.PERF_DATA),
        (b"2ELIFREP" + bytes(96), recording.PERF_DATA),
        (b"bash  1234 [000]  1.5:  cpu-clock:\n", recording.PERF_SCRIPT),
        (b" Percent | Source code & Disassembly of vmlinux for cpu-clock\n", recording.PERF_ANNOTATE),
    ],
)
def test_a_file_of_perfs_is_named_by_its_content(tmp_path: Path, content: bytes, name: str) -> None:
    path = tmp_path / "anything.txt"
    path.write_bytes(content)
    assert recording.data_name(path) == name


@pytest.mark.parametrize(("content", "message"), [(b"", "is empty"), (b"GIF89a\0\0", "is not of perf")])
def test_a_file_that_is_none_of_perfs_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        recording.data_name(path)


def test_what_is_no_run_is_not_replaced_by_force(tmp_path: Path) -> None:
    """--force is for earlier runs: a directory of other things, a file or a link stays as it is."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis").touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(earlier_run(tmp_path / "run"))
    for name in ("home", "file", "link"):
        with pytest.raises(UsageError, match="is not a run"), recording.new_directory(tmp_path / name, force=True):
            pytest.fail("must not begin")
    assert names(tmp_path / "home") == ["thesis"]
    assert (tmp_path / "link").is_symlink()


def test_an_empty_directory_may_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    with recording.new_directory(tmp_path / "one", force=True) as partial:
        (partial / "new").touch()
    assert names(tmp_path / "one") == ["new"]


def test_a_directory_that_cannot_be_made_is_a_wrong_request(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be made"), recording.new_directory(tmp_path / "file" / "one"):
        pytest.fail("must not begin")


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    """Opening it would wait for a writer."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a regular file"):
        recording.data_name(tmp_path / "pipe")


@pytest.mark.parametrize("schema", ["9", None, [1]])
def test_a_schema_that_is_no_number_is_damage(tmp_path: Path, schema: object) -> None:
    (tmp_path / recording.MANIFEST).write_text(json.dumps({**manifest().to_json(), "schema": schema}))
    with pytest.raises(InputError, match=r"manifest\.json: not of the expected shape"):
        recording.read_manifest(tmp_path)


def test_an_earlier_run_comes_back_when_the_new_one_cannot_take_its_place(tmp_path: Path) -> None:
    earlier_run(tmp_path / "one")
    with (
        pytest.raises(FileNotFoundError),
        recording.new_directory(tmp_path / "one", force=True) as partial,
    ):
        partial.rmdir()
    assert names(tmp_path / "one") == ["manifest.json"]
    assert names(tmp_path) == ["one"]


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_makes_is_not(tmp_path: Path) -> None:
    """The hidden directory of a process that got SIGKILL goes with the next run of that name, and no other does."""
    script = (
        "import os, signal, sys; from pathlib import Path; from profiler import recording\n"
        "with recording.new_directory(Path(sys.argv[1])) as partial:\n"
        "    (partial / 'perf.data').write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "run")], check=False)
    (tmp_path / ".other.partial-1").mkdir()
    (left,) = tmp_path.glob(".run.partial-*")
    with recording.new_directory(tmp_path / "run") as living:
        assert left.exists()  # too young to be sure of
        for path in tmp_path.iterdir():
            os.utime(path, (0, 0))
        with pytest.raises(UsageError), recording.new_directory(tmp_path / "run"):
            (tmp_path / "run").mkdir()
            raise UsageError("only to see what is removed")
        assert living.exists()
        assert not left.exists()
        (tmp_path / "run").rmdir()
    assert names(tmp_path) == [".other.partial-1", "run"]


def test_a_run_that_was_just_being_replaced_is_put_back(tmp_path: Path) -> None:
    """A process killed between the two renames of a replacement loses nothing."""
    (tmp_path / ".run.partial-1").mkdir()
    earlier_run(tmp_path / ".run.partial-1" / "old")
    os.utime(tmp_path / ".run.partial-1", (0, 0))
    with pytest.raises(UsageError, match="exists"), recording.new_directory(tmp_path / "run"):
        pass
    assert names(tmp_path) == ["run"]
    assert recording.read_manifest(tmp_path / "run") == manifest()


def execution_log() -> ExecutionLog:
    registers = np.arange(48, dtype=np.uint64).reshape(3, 16) + np.uint64(0xFFFFFFFF80000000)
    return ExecutionLog(np.array([1, 2, 2**64 - 1], np.uint64), registers, np.array([2, 0x246, 0], np.uint32))


def test_an_execution_log_comes_back_as_it_was_written(tmp_path: Path) -> None:
    recording.write_execution_log(tmp_path, execution_log())
    read = recording.read_execution_log(tmp_path)
    assert read is not None
    assert names(tmp_path) == ["execution.npz"]
    for column in ("address", "registers", "flags"):
        written = getattr(execution_log(), column)
        assert getattr(read, column).dtype == written.dtype
        np.testing.assert_array_equal(getattr(read, column), written)


def test_a_recording_without_an_execution_log_has_none(tmp_path: Path) -> None:
    assert recording.read_execution_log(tmp_path) is None


def damaged(good: bytes) -> dict[str, bytes]:
    short = io.BytesIO()
    np.savez_compressed(short, address=np.zeros(3, np.uint64))
    other = io.BytesIO()
    log = execution_log()
    np.savez_compressed(other, address=log.address[:2], registers=log.registers, flags=log.flags)
    floats = io.BytesIO()
    np.savez_compressed(floats, address=np.zeros(3), registers=np.zeros((3, 16)), flags=np.zeros(3))
    objects = io.BytesIO()
    pickled = np.array([{}], dtype=object)
    np.savez_compressed(objects, allow_pickle=True, address=pickled, registers=pickled, flags=pickled)
    return {
        "empty": b"",
        "cut": good[: len(good) // 2],
        "scrambled": good[:60] + bytes(40) + good[100:],
        "text": b"Trace 0: no archive\n",
        "columns missing": short.getvalue(),
        "columns of unequal length": other.getvalue(),
        "columns of another type": floats.getvalue(),
        "pickled": objects.getvalue(),
    }


@pytest.mark.parametrize("what", damaged(b"."))
def test_a_damaged_execution_log_is_an_input_error_that_names_it(tmp_path: Path, what: str) -> None:
    recording.write_execution_log(tmp_path, execution_log())
    path = tmp_path / "execution.npz"
    path.write_bytes(damaged(path.read_bytes())[what])
    with pytest.raises(InputError, match=r"execution\.npz") as caught:
        recording.read_execution_log(tmp_path)
    assert "record again" in caught.value.hint
