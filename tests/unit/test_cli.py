"""The command line: what it prints, what it refuses, how it ends."""

from __future__ import annotations

import dataclasses
import errno
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from profiler import recording
from profiler.cli import _Terminated, exit_code_of, main
from profiler.cli.completion import VARIABLE
from profiler.cli.output import print_columns
from profiler.cli.progress import show_progress
from profiler.cli.root import COMMANDS, Settings, root
from profiler.cli.verdict import conclude
from profiler.errors import (
    InputError,
    MismatchError,
    MissingError,
    ProfilerError,
    RecordError,
    TargetError,
    UsageError,
)
from tests.unit import sample_analysis

ROOT = Path(__file__).parents[2]

# What the issue that asked for --json promised.
PROMISED = {
    "schema",
    "syscall",
    "errno",
    "errno_number",
    "kernel",
    "conclusion",
    "error_site",
    "branch",
    "confidence",
    "chain",
    "candidates",
    "evidence",
    "samples",
}


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """main() catches SIGTERM and SIGHUP; give them back to pytest."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def all_commands() -> Iterator[tuple[str, ...]]:
    """Every command as words, those of groups too."""
    context = click.Context(root)
    for name in root.list_commands(context):
        command = root.get_command(context, name)
        if isinstance(command, click.Group):
            yield from ((name, sub) for sub in command.list_commands(context))
        else:
            yield (name,)


def raising(error: BaseException) -> Callable[[], int]:
    def command() -> int:
        raise error

    return command


@pytest.mark.parametrize("words", list(all_commands()), ids=" ".join)
def test_every_command_has_help_with_examples(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """--help says what the command does and shows it at work."""
    assert main([*words, "--help"]) == 0
    text = capsys.readouterr().out
    assert "Examples:" in text
    assert f"  whyerrno {' '.join(words)}" in text


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """The overview names each with one line, and the exit codes."""
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in COMMANDS)
    assert "4    not reproduced" in text


def test_help_imports_nothing_heavy() -> None:
    """`whyerrno --help` stays fast: no numpy, rich, matplotlib, drgn or pandas is imported for it."""
    code = (
        "import sys, profiler.cli; profiler.cli.main(['--help']);"
        "print([m for m in ('numpy','rich','matplotlib','drgn','pandas','jinja2','symbolic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["rum"], "did you mean run?"),
        (["run", "--scenario", "bind-eadrinuse"], "did you mean bind-eaddrinuse"),
        (["run", "--syscall", "bnid", "--errno", "EINVAL", "--", "./x"], "did you mean bind"),
        (["run", "--syscall", "bind", "--errno", "EADDRINUS", "--", "./x"], "did you mean EADDRINUSE"),
        (["run", "--scenario", "bind-eaddrinuse", "--target", "lcoal"], "did you mean local"),
        (["run", "--scenario", "bind-eaddrinuse", "--targt", "local"], "--target"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_nearest(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands, scenarios, system calls, errnos, targets and options; the exit code is that of usage."""
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run"], "nothing to run"),
        (["run", "--", "./repro"], "a program needs --syscall and --errno"),
        (["run", "--scenario", "bind-eaddrinuse", "--errno", "EINVAL"], "goes without"),
        (["run", "--scenario", "bind-eaddrinuse", "--seconds", "0"], "--seconds"),
        (["compare", "."], "two runs or more"),
        (["report", "."], "holds no analysis"),
        (["analyze", "."], "is not a recording"),
        (["import", "nothing-here", "-o", "x"], "does not exist"),
        (["campaign", "report", "."], "holds no results"),
    ],
)
def test_wrong_usage_is_answered_in_words(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2, one message, no traceback, nothing written."""
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert says in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ProfilerError("x"), 1),
        (InputError("x"), 1),
        (MismatchError("x"), 1),
        (TargetError("x"), 1),
        (RecordError("x"), 1),
        (UsageError("x"), 2),
        (MissingError("x"), 5),
        (KeyboardInterrupt(), 130),
        (_Terminated(), 143),
        (OSError(errno.ENOSPC, "No space left on device", "/full/file"), 1),
        (PermissionError(errno.EACCES, "Permission denied", "/secret"), 1),
        (ZeroDivisionError("division by zero"), 1),
    ],
)
def test_each_error_has_its_exit_code_and_one_message(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a command raises becomes one line, a hint at most, and an exit code; never a traceback."""
    assert exit_code_of(raising(error), Settings()) == code
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("whyerrno: ")
    assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("  hint: "))


def test_a_full_disk_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """ENOSPC says which file and what to do."""
    exit_code_of(raising(OSError(errno.ENOSPC, "No space left on device", "/full/file")), Settings())
    assert "no space left to write /full/file" in capsys.readouterr().err


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """--debug, given after the command or before it, adds the traceback to the message."""
    for arguments in (["--debug", "analyze", str(tmp_path)], ["analyze", str(tmp_path), "--debug"]):
        assert main(arguments) == 2
        assert "Traceback" in capsys.readouterr().err


def test_messages_cannot_move_the_terminals_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    """Escape sequences and newlines in a name that came from a file are made visible."""
    exit_code_of(raising(InputError("a\x1b[2J\nb\u202e", hint="c\x07")), Settings())
    assert capsys.readouterr().err == "whyerrno: error: a\ufffd[2J b\ufffd\n  hint: c\ufffd\n"


@pytest.mark.parametrize(
    ("analysis", "code"),
    [(sample_analysis.named(), 0), (sample_analysis.inconclusive(), 3), (sample_analysis.not_reproduced(), 4)],
    ids=["named", "inconclusive", "not-reproduced"],
)
def test_a_conclusion_decides_the_exit_code_and_json_holds_it(
    analysis: object, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """0 named, 3 inconclusive, 4 not reproduced; --json prints the whole analysis and nothing else."""
    assert conclude(analysis, tmp_path, as_json=True, report=False) == code  # type: ignore[arg-type]
    printed = json.loads(capsys.readouterr().out)
    assert printed.keys() >= PROMISED
    assert list(tmp_path.iterdir()) == []


def test_messages_are_not_endless(capsys: pytest.CaptureFixture[str]) -> None:
    """An error that quotes a whole file is cut."""
    exit_code_of(raising(InputError("x" * 100_000)), Settings())
    assert len(capsys.readouterr().err) < 700


def test_a_directory_is_imported_only_if_perf_made_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither somebody's home directory nor an output inside the data is copied."""
    (tmp_path / "home").mkdir()
    assert main(["import", str(tmp_path / "home"), "-o", str(tmp_path / "out")]) == 1
    assert "none of perf's" in capsys.readouterr().err
    (tmp_path / "home/data").touch()
    assert main(["import", str(tmp_path / "home"), "-o", str(tmp_path / "home/out")]) == 2
    assert "lies inside" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["home", "data"]


def saved_run(directory: Path, **changes: object) -> Path:
    analysis = dataclasses.replace(sample_analysis.named(), **changes)  # type: ignore[arg-type]
    assert analysis.manifest is not None
    directory.mkdir(parents=True)
    recording.write_manifest(directory, analysis.manifest)
    recording.write_analysis(directory, analysis)
    return directory


def test_report_writes_page_and_pictures_and_prints_the_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`report RUN -o DIR` needs analysis.json alone, and leaves the run as it was."""
    run = saved_run(tmp_path / "run")
    before = sorted(run.iterdir())
    assert main(["report", str(run), "-o", str(tmp_path / "out")]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["candidates.png", "lines.png", "report.html"]
    assert "berth_park" in capsys.readouterr().out
    assert sorted(run.iterdir()) == before


def test_compare_writes_a_page_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two runs give compare.html and compare.png; a second time only with --force; --json is JSON alone."""
    runs = [str(saved_run(tmp_path / name)) for name in ("one", "two")]
    out = tmp_path / "compare"
    assert main(["compare", *runs, "-o", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["compare.html", "compare.png"]
    assert main(["compare", *runs, "-o", str(out)]) == 2
    assert "--force" in capsys.readouterr().err
    assert main(["compare", *runs, "-o", str(out), "--force", "--json"]) == 0
    assert [entry["run"] for entry in json.loads(capsys.readouterr().out)] == runs


def test_runs_of_different_calls_are_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Comparing bind with openat would align nothing that belongs together."""
    runs = [str(saved_run(tmp_path / name, syscall=name)) for name in ("bind", "openat")]
    assert main(["compare", *runs, "-o", str(tmp_path / "compare")]) == 2
    assert "different system calls: bind, openat" in capsys.readouterr().err


def test_demo_offline_shows_the_saved_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without network or QEMU the demo ends with verdicts, reports and a comparison of saved recordings."""
    for version in ("5.10", "7.3"):
        saved_run(tmp_path / f"sample/io-uring-setup-enomem-{version}")
    arguments = ["demo", "--offline", "--sample-data", str(tmp_path / "sample"), "-o", str(tmp_path / "out")]
    assert main(arguments) == 0
    last = capsys.readouterr().out.splitlines()[-3:]
    assert [line.split()[0] for line in last] == ["report", "report", "comparison"]
    assert all(Path(line.split()[1]).is_file() for line in last)


def test_scenarios_as_json_are_names_with_their_call_and_errno(capsys: pytest.CaptureFixture[str]) -> None:
    """One object a scenario."""
    assert main(["scenarios", "--json"]) == 0
    found = {entry["name"]: (entry["syscall"], entry["errno"]) for entry in json.loads(capsys.readouterr().out)}
    assert found["bind-eaddrinuse"] == ("bind", "EADDRINUSE")


def test_output_closed_early_is_no_error_message() -> None:
    """`whyerrno scenarios | head -1` ends quietly."""
    command = [sys.executable, "-m", "profiler.cli", "man"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 1


def test_sigterm_ends_a_command_with_its_code() -> None:
    """SIGTERM unwinds the program, so that what it switched on is switched off, and the exit code is 143."""
    code = (
        "import sys, time, click, profiler.cli as c\n"
        "@c.root.command()\n"
        "def wait():\n"
        "    try:\n        print('ready', flush=True)\n        time.sleep(60)\n"
        "    finally:\n        print('undone', flush=True)\n"
        "from profiler.cli.root import COMMANDS\n"
        "class Here: command = wait\n"
        "sys.modules['here'] = Here\n"
        "COMMANDS['wait'] = 'here'\n"
        "sys.exit(c.main(['wait']))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "undone\n"
        assert process.wait(30) == 143


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_call_the_command_back(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each script sets the variable that makes the command answer with completions."""
    assert main(["completion", shell]) == 0
    assert VARIABLE in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("whyerrno ca", "campaign"),
        ("whyerrno run --scenario bind", "bind-eaddrinuse"),
        ("whyerrno run --syscall io_uring_s", "io_uring_setup"),
        ("whyerrno run --errno EADDRI", "EADDRINUSE"),
        ("whyerrno run --target lo", "local"),
    ],
)
def test_the_shell_completes_names(line: str, expected: str) -> None:
    """Commands, scenarios, system calls, errno names and targets."""
    words = line.split()
    environment = {VARIABLE: "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    code = "import sys, profiler.cli; sys.exit(profiler.cli.main([]))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment, check=False
    )
    assert f"plain,{expected}" in done.stdout.splitlines()


def test_phases_are_said_once_when_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """One line a phase on stderr, none when quiet, stdout left alone."""
    with show_progress(quiet=False) as progress:
        for phase, fraction in (("booting", None), ("recording", 0.1), ("recording", 0.9)):
            progress(phase, fraction)
    with show_progress(quiet=True) as progress:
        progress("silence", 0.5)
    assert capsys.readouterr() == ("", "whyerrno: booting\nwhyerrno: recording\n")


def test_columns_line_up(capsys: pytest.CaptureFixture[str]) -> None:
    """Each column is as wide as its widest cell, and no line ends in blanks."""
    print_columns(("A", "B"), [("long name", ""), ("x", "y")])
    assert capsys.readouterr().out == "A          B\nlong name\nx          y\n"
