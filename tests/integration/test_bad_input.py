"""Bad input, end to end: the real command on really damaged files, full disks and missing programs.

Each answer is one line with what is wrong, a hint with what to do, and an exit code; what was there stays as it was,
and nothing appears that is not whole. What goes wrong inside a guest is in tests/vm/test_faults.py.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from profiler import lab
from profiler.model import Kernel
from tests.command import (
    COMMAND,
    ROOT,
    assert_refused,
    cached_kernel,
    content,
    environment,
    fill,
    small_disk,
    whyerrno,
)
from tests.conftest import require

SAMPLE = ROOT / "sample_data/io-uring-setup-enomem-7.3"
SYSCALL = ("--syscall", "io_uring_setup", "--errno", "ENOMEM")
BOOT = ("run", "--scenario", "bind-eaddrinuse", "--seconds", "1", "--no-report")


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    """The kernel that the sample was recorded on."""
    build_id = json.loads((SAMPLE / "manifest.json").read_text())["build_id"]
    cached_kernel("7.3")
    found = [kernel for kernel in lab.list_cached() if kernel.build_id == build_id]
    require(found, "the kernel of sample_data is no longer on the mirror")
    return found[0]


@pytest.fixture(scope="module")
def vmlinux(kernel: Kernel) -> Path:
    assert kernel.vmlinux is not None
    return kernel.vmlinux


@pytest.fixture(scope="module")
def other() -> Kernel:
    return cached_kernel("6.1")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A copy of a whole run, to damage."""
    shutil.copytree(SAMPLE, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(scope="module")
def stripped(vmlinux: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernel without debug info, as a distribution's build ends."""
    require(shutil.which("strip"), "strip is not installed (package binutils)")
    path = tmp_path_factory.mktemp("stripped") / "vmlinux"
    subprocess.run(["strip", "-d", "-o", path, vmlinux], check=True)
    return path


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# ---- perf.data ----


def damaged(data: bytes) -> dict[str, tuple[bytes, str]]:
    """Ways to damage a perf.data, and what must be said of each."""
    return {
        "empty": (b"", "empty"),
        "foreign": (Path("/bin/ls").read_bytes()[:50_000], "PERFILE2"),
        "header": (data[:60], "cut inside the file header"),
        "half": (data[: len(data) // 2], "cut short"),
        "three bytes short": (data[:-3], "past the end of the file"),
        "killed recorder": (data[:48] + bytes(8) + data[56:], "perf record was killed"),
        "record of size 0": (data[: len(data) // 2] + bytes(len(data) - len(data) // 2), "record at offset"),
    }


@pytest.mark.parametrize("way", damaged(b""))
def test_damaged_samples_are_not_imported(way: str, tmp_path: Path) -> None:
    """`import` names the user's own file, not a copy of it, and makes nothing."""
    data, says = damaged((SAMPLE / "perf.data").read_bytes())[way]
    (tmp_path / "mine.data").write_bytes(data)
    done = whyerrno("import", tmp_path / "mine.data", *SYSCALL, "-o", tmp_path / "out")
    assert_refused(done, 1, says, f"{tmp_path}/mine.data")
    assert content(tmp_path) == {"mine.data": data}


@pytest.mark.parametrize("way", damaged(b""))
def test_damaged_samples_are_not_analyzed(way: str, run: Path, kernel: Kernel) -> None:
    """`analyze` keeps the analysis that is there and the samples as they are."""
    data, says = damaged((run / "perf.data").read_bytes())[way]
    (run / "perf.data").write_bytes(data)
    before = content(run)
    assert_refused(whyerrno("analyze", run), 1, says, f"{run}/perf.data")
    assert content(run) == before


def test_what_is_whole_of_cut_samples_can_be_salvaged(run: Path, vmlinux: Path, tmp_path: Path) -> None:
    """With --salvage both commands take the samples before the cut, and the result says that some are missing."""
    data = (run / "perf.data").read_bytes()
    (run / "perf.data").write_bytes(data[: len(data) * 3 // 4])
    analyzed = whyerrno("analyze", run, "--salvage", "--json", "--no-report", "-q")
    imported = whyerrno(  # the kernel's build id was behind the cut
        *("import", run / "perf.data", *SYSCALL, "--vmlinux", vmlinux, "-o", tmp_path / "out"),
        *("--salvage", "--json", "--no-report", "-q"),
    )
    whole = json.loads((SAMPLE / "analysis.json").read_text())["samples"]["total"]
    for done in (analyzed, imported):
        result = json.loads(done.stdout)
        assert done.stderr == ""
        assert whole / 2 < result["samples"]["total"] < whole
        assert any("cut short" in warning for warning in result["warnings"])


def test_a_file_missing_from_a_run_is_named(run: Path, kernel: Kernel) -> None:
    """No samples, no counts, no manifest: each by its name."""
    for name, code, says in (
        ("perf.data", 1, "perf.data is missing"),
        ("load.json", 1, "load.json is missing"),
        ("manifest.json", 2, "is not a recording"),
    ):
        (run / name).unlink()
        assert_refused(whyerrno("analyze", run), code, says)
        shutil.copy(SAMPLE / name, run / name)


def test_other_texts_and_pipes_are_not_imported(vmlinux: Path, tmp_path: Path) -> None:
    """A text that perf did not write, and a pipe, which nobody may ever write to."""
    assert_refused(whyerrno("import", "/etc/passwd", "-o", tmp_path / "out"), 1, "/etc/passwd: none of", "perf script")
    os.mkfifo(tmp_path / "pipe")
    assert_refused(whyerrno("import", tmp_path / "pipe", "-o", tmp_path / "out", timeout=20), 1, "not a regular file")
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_a_text_of_another_kernel_is_not_imported(other: Kernel, tmp_path: Path) -> None:
    """The header of perf script's text says which release was recorded; a vmlinux of another one is refused."""
    perf = shutil.which("perf")
    require(perf, "perf is not installed")
    argv = [str(perf), "script", "--header", "--ns", "-F", "comm,pid,tid,cpu,time,period,event,ip,sym"]
    text = subprocess.run([*argv, "-i", SAMPLE / "perf.data"], capture_output=True, check=True).stdout
    (tmp_path / "text").write_bytes(text)
    assert other.vmlinux is not None
    done = whyerrno("import", tmp_path / "text", *SYSCALL, "--vmlinux", other.vmlinux, "-o", tmp_path / "out")
    assert_refused(done, 1, f"is of Linux {other.release}", "the data are of 7.3")
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_the_call_and_its_errno_go_together(tmp_path: Path) -> None:
    """One without the other is a mistake, not a wish for a profile."""
    for half in (SYSCALL[:2], SYSCALL[2:]):
        done = whyerrno("import", SAMPLE / "perf.data", *half, "-o", tmp_path / "out")
        assert_refused(done, 2, "--syscall and --errno go together")


# ---- kernels, debug info, sources ----


def test_a_vmlinux_of_another_kernel_is_refused(run: Path, other: Kernel, tmp_path: Path) -> None:
    """By its build id, in `analyze` and in `import`; both ids are told."""
    assert other.vmlinux is not None
    before = content(run)
    build_id = json.loads((run / "manifest.json").read_text())["build_id"]
    says = (other.build_id, build_id, "another kernel")
    assert_refused(whyerrno("analyze", run, "--vmlinux", other.vmlinux), 1, *says)
    done = whyerrno("import", run / "perf.data", *SYSCALL, "--vmlinux", other.vmlinux, "-o", tmp_path / "out")
    assert_refused(done, 1, *says)
    assert content(run) == before
    assert not (tmp_path / "out").exists()


def test_a_source_tree_of_another_version_is_refused(run: Path, kernel: Kernel, other: Kernel, tmp_path: Path) -> None:
    """By the version in its Makefile; a directory that is no kernel source is told apart."""
    assert other.source is not None and kernel.vmlinux is not None
    before = content(run)
    assert_refused(whyerrno("analyze", run, "--source", other.source), 1, "source of Linux 6.1", "kernel is 7.3")
    imported = ("import", run / "perf.data", *SYSCALL, "--vmlinux", kernel.vmlinux, "-o", tmp_path / "out")
    assert_refused(whyerrno(*imported, "--source", other.source), 1, "source of Linux 6.1")
    assert_refused(whyerrno("analyze", run, "--source", ROOT), 1, "not a kernel source tree")
    assert content(run) == before
    assert not (tmp_path / "out").exists()


def test_a_kernel_without_debug_info_is_missing_something(run: Path, stripped: Path, tmp_path: Path) -> None:
    """Exit code 5 and where to get it: in `analyze`, in `import`, and in `run` before anything is booted."""
    assert_refused(whyerrno("analyze", run, "--vmlinux", stripped), 5, "no debug info", "-dbg package")
    done = whyerrno("import", run / "perf.data", "--vmlinux", stripped, "-o", tmp_path / "out")
    assert_refused(done, 5, "no debug info", "-dbg package")
    assert not (tmp_path / "out").exists()


def test_a_kernel_without_debug_info_is_not_booted(kernel: Kernel, stripped: Path, tmp_path: Path) -> None:
    """`vm:PATH` with a stripped vmlinux ends before a minute is spent on it."""
    tree = tmp_path / "package"
    (tree / "boot").mkdir(parents=True)
    assert kernel.image is not None
    (tree / f"boot/vmlinuz-{kernel.release}").symlink_to(kernel.image)
    (tree / "vmlinux").symlink_to(stripped)
    done = whyerrno(*BOOT, "-t", f"vm:{tree}", "-o", tmp_path / "out")
    assert_refused(done, 5, "no debug info")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("made", "says"),
    [(b"root:x:0:0:root:/root:/bin/sh\n", "not an ELF file"), (b"\x7fELF\2\1\1" + bytes(57), "")],
    ids=["text", "cut"],
)
def test_what_is_no_vmlinux_is_refused(run: Path, made: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_bytes(made)
    done = whyerrno("analyze", run, "--vmlinux", tmp_path / "vmlinux")
    assert done.returncode == 1
    assert f"{tmp_path}/vmlinux: " in done.stderr and says in done.stderr
    assert "Traceback" not in done.stderr and "unexpected" not in done.stderr


def test_a_kernel_that_is_not_here_is_missing(run: Path) -> None:
    """The hint fetches exactly that package version."""
    edit(run / "manifest.json", build_id="00" * 20, package_version="6.1.1-1", release="6.1.0-1-amd64", target="vm:6.1")
    assert_refused(whyerrno("analyze", run), 5, "no vmlinux of 6.1.0-1-amd64", "whyerrno kernels fetch 6.1.1-1")


def test_hidden_kernel_addresses_are_told_with_the_sysctl(run: Path, kernel: Kernel) -> None:
    """A kallsyms recorded under kptr_restrict shows zeros: samples cannot be placed, and no other way is guessed."""
    symbols = Path("/proc/kallsyms").read_text()
    hidden = re.sub(r"^[0-9a-f]+", "0" * 16, symbols, flags=re.MULTILINE)
    (run / "kallsyms").write_text(hidden)
    before = content(run)
    assert_refused(whyerrno("analyze", run), 1, "all addresses are zero", "kernel.kptr_restrict=0")
    assert content(run) == before


@pytest.mark.parametrize("offset", [-4096, 1 << 40])
def test_an_impossible_kaslr_offset_is_refused(run: Path, kernel: Kernel, offset: int) -> None:
    edit(run / "manifest.json", kaslr_offset=offset)
    assert_refused(whyerrno("analyze", run), 1, "manifest.json", "cannot have been loaded")


def test_a_user_who_may_not_see_addresses_is_told_before_recording(tmp_path: Path) -> None:
    """On this machine, without CAP_SYSLOG: kallsyms shows zeros then."""
    require(os.geteuid() == 0 and shutil.which("setpriv"), "giving up a capability takes root and setpriv")
    require(shutil.which("perf"), "perf is not installed")
    user = ["setpriv", "--bounding-set=-syslog", "--inh-caps=-syslog"]
    shown = subprocess.run([*user, "head", "-1", "/proc/kallsyms"], capture_output=True, check=True).stdout
    require(shown.startswith(b"0000000000000000"), "this machine shows kernel addresses to everybody")
    command = [*user, *COMMAND, *BOOT, "-t", "local", "-o", "/nonexistent/out"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(HOME="/nonexistent"), check=False)
    assert_refused(done, 5, "kernel addresses are hidden from this user", "sudo sysctl kernel.")


# ---- schemas and shapes ----


@pytest.mark.parametrize(
    ("name", "commands"), [("manifest.json", ["analyze"]), ("analysis.json", ["report", "compare"])]
)
def test_a_newer_or_damaged_file_is_refused(name: str, commands: list[str], run: Path, tmp_path: Path) -> None:
    """A newer schema says to update; what is not whole, or of another shape, says how to get it anew."""
    for made, says in (
        (json.dumps({**json.loads((run / name).read_text()), "schema": 99}), "schema 99 is newer"),
        (json.dumps({**json.loads((run / name).read_text()), "schema": "x"}), "not of the expected shape"),
        ((run / name).read_text()[:300], "not readable as JSON"),
        ("", "not readable as JSON"),
        ("[1]", "not a JSON object"),
    ):
        (run / name).write_text(made)
        before = content(run)
        for command in commands:
            rest = [SAMPLE, "-o", tmp_path / "compared"] if command == "compare" else []
            done = whyerrno(command, run, *rest)
            assert_refused(done, 1, f"{run / name}: ", says)
        assert content(run) == before
        shutil.copy(SAMPLE / name, run / name)
    assert not (tmp_path / "compared").exists()


def test_reports_and_comparisons_need_analyses(run: Path, tmp_path: Path) -> None:
    (run / "analysis.json").unlink()
    assert_refused(whyerrno("report", run), 2, "holds no analysis", f"whyerrno analyze {run}")
    done = whyerrno("compare", SAMPLE, run, "-o", tmp_path / "compared")
    assert_refused(done, 2, "holds no analysis")
    assert_refused(whyerrno("compare", SAMPLE, "-o", tmp_path / "compared"), 2, "needs two runs or more")
    assert not (tmp_path / "compared").exists()


# ---- names ----


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--scenario", "bind-eadrinuse", "-t", "vm:6.1"), 2, "did you mean bind-eaddrinuse?"),
        (("--scenario", "bind-eaddrinuse", "-t", "vm6.1"), 2, "there is no target 'vm6.1'"),
        (("--scenario", "bind-eaddrinuse", "-t", "vm:"), 2, "a version is missing"),
        (("--scenario", "bind-eaddrinuse", "-t", "vm:/nowhere"), 2, "neither a version nor a directory"),
        (("--scenario", "bind-eaddrinuse", "-t", f"vm:{ROOT}"), 5, "holds no kernel image"),
        (("--syscall", "bnid", "--errno", "EADDRINUSE", "--", "/bin/sh"), 2, "did you mean bind"),
        (("--syscall", "bind", "--errno", "EADDRINUS", "--", "/bin/sh"), 2, "did you mean EADDRINUSE"),
        (("--syscall", "bind", "--errno", "EINVAL", "-t", "vm:6.1", "--", "./absent"), 2, "no program ./absent"),
        (("--syscall", "bind", "--errno", "EINVAL", "-t", "vm:6.1", "--", "./plain"), 2, "chmod +x ./plain"),
        (("--syscall", "bind", "--errno", "EINVAL", "-t", "vm:6.1", "--", "plain"), 2, "give its path: ./plain"),
        (("--syscall", "bind", "--errno", "EINVAL", "-t", "vm:6.1", "--", "./folder"), 2, "is a directory"),
        (("--syscall", "bind", "--errno", "EINVAL", "-t", "vm:6.1", "--", "./words"), 2, "neither ELF nor a script"),
        (("--syscall", "bind", "--errno", "EINVAL", "-t", "vm:6.1", "--", "./script"), 5, "/nowhere/sh"),
    ],
)
def test_what_does_not_exist_is_told_at_once(arguments: tuple[str, ...], code: int, says: str, tmp_path: Path) -> None:
    """Scenario, target, system call, errno, program: before anything is fetched, booted or made."""
    (tmp_path / "folder").mkdir()
    for name, text, mode in (("plain", "", 0o644), ("words", "words\n", 0o755), ("script", "#!/nowhere/sh\n", 0o755)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(mode)
    before = sorted(tmp_path.iterdir())
    split = arguments.index("--") if "--" in arguments else len(arguments)
    done = whyerrno("run", *arguments[:split], "-o", "out", *arguments[split:], cwd=tmp_path)
    assert_refused(done, code, says)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ('scenarios = ["bind-eadrinuse"]\ntargets = ["vm:6.1"]', 2, "did you mean bind-eaddrinuse?"),
        ('scenarios = ["bind-eaddrinuse"]\ntargets = ["vn:6.1"]', 2, "did you mean vm:6.1?"),
        ('scenario = ["bind-eaddrinuse"]\ntargets = ["vm:6.1"]', 1, "no setting 'scenario'"),
        ('scenarios = ["bind-eaddrinuse"]\ntargets = ["vm:6.1"]\nseconds = -1', 1, "a number above 0"),
        ('scenarios = ["bind-eaddrinuse"\n', 1, "not a TOML file"),
        ("", 1, "scenarios must be a list of names"),
    ],
)
def test_a_campaign_file_is_checked_before_anything_runs(
    text: str, code: int, says: str, tmp_path: Path, other: Kernel
) -> None:
    (tmp_path / "c.toml").write_text(text)
    done = whyerrno("campaign", "run", "c.toml", "-o", "camp", cwd=tmp_path)
    assert_refused(done, code, says)
    assert [path.name for path in tmp_path.iterdir()] == ["c.toml"]


# ---- outputs that exist ----


def test_output_that_exists_is_refused_without_force(run: Path) -> None:
    before = content(run)
    done = whyerrno(*BOOT, "-t", "vm:6.1", "-o", run)
    assert_refused(done, 2, f"{run} exists", "--force")
    done = whyerrno("import", SAMPLE / "perf.data", "-o", run)
    assert_refused(done, 2, f"{run} exists", "--force")
    assert content(run) == before


def test_force_replaces_only_on_success(run: Path, kernel: Kernel, tmp_path: Path) -> None:
    """An import that fails leaves the run that was there; one that ends well takes its place."""
    before = content(run)
    (tmp_path / "cut").write_bytes((SAMPLE / "perf.data").read_bytes()[:500_000])
    assert_refused(whyerrno("import", tmp_path / "cut", *SYSCALL, "-o", run, "--force"), 1, "cut short")
    assert content(run) == before
    done = whyerrno("import", SAMPLE / "perf.data", *SYSCALL, "-o", run, "--force", "--no-report")
    assert done.returncode in (0, 3), done.stderr
    assert json.loads((run / "manifest.json").read_text())["target"] == "import"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut", "run"]


def test_force_replaces_nothing_but_runs(tmp_path: Path) -> None:
    """Neither somebody's files nor somebody's directory, whatever was mistyped."""
    (tmp_path / "home/letters").mkdir(parents=True)
    (tmp_path / "home/letters/one").write_text("dear")
    (tmp_path / "file").write_text("precious")
    before = content(tmp_path)
    for name in ("home", "file"):
        done = whyerrno("import", SAMPLE / "perf.data", "-o", tmp_path / name, "--force")
        assert_refused(done, 2, "is not a run")
    assert content(tmp_path) == before


# ---- disks that fill ----


def test_a_disk_that_fills_during_an_import_is_told(kernel: Kernel, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "512k") as disk:
        done = whyerrno("import", SAMPLE / "perf.data", *SYSCALL, "-o", disk / "out", "--no-report")
        assert_refused(done, 1, "no space left", "free some space")
        assert list(disk.iterdir()) == []


def test_a_disk_that_fills_during_an_analysis_keeps_the_one_before(kernel: Kernel, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "8m") as disk:
        shutil.copytree(SAMPLE, disk / "run")
        fill(disk)
        before = content(disk / "run")
        done = whyerrno("analyze", disk / "run", "--no-report")
        assert_refused(done, 1, f"no space left to write {disk}/run/analysis.json", "free some space")
        assert content(disk / "run") == before


def test_a_disk_that_fills_during_a_report_keeps_the_one_before(kernel: Kernel, tmp_path: Path) -> None:
    """Every file of the report is the old one or the new one; after `analyze` the verdict itself is safe."""
    with small_disk(tmp_path / "small", "8m") as disk:
        shutil.copytree(SAMPLE, disk / "run")
        assert whyerrno("report", disk / "run").returncode == 0
        page = (disk / "run/report.html").read_bytes()
        fill(disk, leave=300_000)
        names = sorted(path.name for path in (disk / "run").iterdir())
        done = whyerrno("report", disk / "run")
        assert_refused(done, 1, "no space left", "free some space")
        assert (disk / "run/report.html").read_bytes() == page
        done = whyerrno("analyze", disk / "run")
        assert_refused(done, 1, "the report could not be written", "recording and analysis are whole")
        assert {path.name for path in (disk / "run").iterdir()} - set(names) <= {"lines.parquet"}


def test_a_full_standard_output_is_told(run: Path) -> None:
    """`whyerrno scenarios >/dev/full`: the exit code tells scripts that they got less than all."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "scenarios"],
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
    assert done.returncode == 1
    assert "no space left" in done.stderr and "Traceback" not in done.stderr


# ---- programs that are missing ----


@pytest.mark.parametrize(
    ("target", "missing", "package"),
    [
        ("vm:6.1", "perf", "linux-perf"),
        ("vm:6.1", "qemu-system-x86_64", "qemu-system-x86"),
        ("vm:6.1", "busybox", "busybox-static"),
        ("local", "perf", "linux-perf"),
    ],
)
def test_a_missing_program_is_named_with_its_package(
    target: str, missing: str, package: str, other: Kernel, tmp_path: Path
) -> None:
    path = tmp_path / "bin"
    path.mkdir()
    for name in {"perf", "qemu-system-x86_64", "busybox", "cc", "ldd"} - {missing}:
        found = shutil.which(name)
        require(found, f"{name} is not installed")
        (path / name).symlink_to(str(found))
    require(not shutil.which(missing, path="/usr/sbin:/sbin:/usr/local/sbin"), f"{missing} is in sbin")
    done = whyerrno(*BOOT, "-t", target, "-o", tmp_path / "out", PATH=str(path))
    assert_refused(done, 5, f"{missing} is not on this machine", package)
    assert not (tmp_path / "out").exists()
