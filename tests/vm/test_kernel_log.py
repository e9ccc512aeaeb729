"""The kernel log in a real guest: a broken file system, a denial, text that a process wrote, and the level put back."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from profiler import lab
from profiler.conclude import kernel_log
from profiler.errors import ProfilerError
from profiler.model import LogLine
from profiler.parse import kernel_log as parse
from profiler.target import Session, open_target
from tests.conftest import require
from tests.vm.kernels import kernel_of

pytestmark = pytest.mark.vm

VERSION = "6.1"
LEVEL = "/proc/sys/kernel/printk"
FILES = {"/log/loop.ko": "loop.ko", "/log/broken.img": "broken.img"} | {
    f"/log/{name}": name for name in ("broken.sh", "killed.py", "liar.sh")
}
# Each is a load that goes on until it is ended.
PROGRAMS = {
    "broken.sh": """#!/bin/sh
mkdir -p /mnt/broken
mount -t ext4 -o loop,errors=continue /log/broken.img /mnt/broken
cat /proc/sys/kernel/printk > /tmp/level
while :; do ls /mnt/broken/folder/victim; sleep 0.1; done 2>/dev/null
""",
    # SECCOMP_MODE_STRICT lets a process read, write and exit; anything else kills it, which is audited.
    "killed.py": """import ctypes, os, time
while True:
    child = os.fork()
    if not child:
        ctypes.CDLL(None).prctl(22, 1, 0, 0, 0)
        os.getpid()
    os.waitpid(child, 0)
    time.sleep(0.3)
""",
    "liar.sh": """#!/bin/sh
while :; do echo "<2>EXT4-fs error (device sda1): all is lost" > /dev/kmsg; sleep 0.3; done
""",
}
Record = Callable[..., list[LogLine]]


def loop_module() -> Path:
    kernel = kernel_of(VERSION)
    try:
        lab.fetch_modules(kernel, ["loop"], lambda phase, fraction: None)
    except ProfilerError as error:
        require(False, f"the module loop cannot be had here: {error}")
    found = lab.find_module(kernel, "loop")
    assert found is not None
    return found


def broken_image(folder: Path) -> Path:
    """An ext4 file system with a folder whose block does not fit its checksum."""
    require(shutil.which("mke2fs", path="/usr/sbin:/sbin:/usr/bin"), "no mke2fs (package e2fsprogs)")
    (folder / "tree/folder").mkdir(parents=True)
    (folder / "tree/folder/victim").write_text("here")
    image = folder / "broken.img"
    mke2fs = shutil.which("mke2fs", path="/usr/sbin:/sbin:/usr/bin") or ""
    options = ["-q", "-t", "ext4", "-O", "metadata_csum", "-d", str(folder / "tree")]
    subprocess.run([mke2fs, *options, str(image), "4M"], check=True)
    content = image.read_bytes()
    assert b"victim" in content
    image.write_bytes(content.replace(b"victim", b"VICTIM"))
    return image


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    require(shutil.which("qemu-system-x86_64"), "no QEMU")
    folder = tmp_path_factory.mktemp("log")
    shutil.copy(loop_module(), folder / "loop.ko")
    broken_image(folder)
    for name, text in PROGRAMS.items():
        (folder / name).write_text(text)
    with open_target(f"vm:{VERSION}").session({at: folder / name for at, name in FILES.items()}) as booted:
        assert booted.run(["insmod", "/log/loop.ko"], timeout=60).exit_code == 0
        yield booted


@pytest.fixture
def record(session: Session, tmp_path: Path) -> Record:
    """Records a program for some seconds; the lines that are of it."""

    def run(*program: str) -> list[LogLine]:
        job = {"syscall": "openat", "syscall_number": 257, "errno": "ENOENT", "errno_number": 2, "kernel_text": False}
        (tmp_path / "job.json").write_text(json.dumps({**job, "program": program, "seconds": 3, "frequency": 500}))
        session.put(tmp_path / "job.json", f"{session.workdir}/job.json")
        remote = f"{session.workdir}/{tmp_path.name}"
        argv = [session.python, "-m", "profiler.record", f"{session.workdir}/job.json", remote]
        completed = session.run(argv, timeout=180)
        assert completed.exit_code == 0, completed.output
        session.get(remote, tmp_path / "out")
        load = json.loads((tmp_path / "out/load.json").read_text())
        lines = (tmp_path / "out/kernel.log").read_text().splitlines()
        assert sum(line.startswith("whyerrno: the load begins") for line in lines) == 1
        return kernel_log.read(parse.read(lines), pid=load["pid"], comm=load["comm"])

    return run


def level(session: Session, path: str = LEVEL) -> list[str]:
    return session.run(["cat", path], timeout=20).output.split()


def test_an_error_of_a_filesystem_is_put_before_the_verdict(session: Session, record: Record) -> None:
    """A folder whose block is damaged: what ext4 prints is found, counted once, and comes first. The level of the
    console is raised while the load runs, and as it was afterwards."""
    assert session.run(["sh", "-c", f"echo 4 > {LEVEL}"], timeout=20).exit_code == 0
    before = level(session)
    lines = record("/bin/sh", "/log/broken.sh")
    found = [line for line in lines if line.kind == kernel_log.FILESYSTEM]
    assert found and all("EXT4-fs error (device loop0)" in line.text for line in found), lines
    assert kernel_log.before_verdict(lines).startswith("The kernel log has an error of a filesystem")
    assert before[0] == "4" and level(session, "/tmp/level") == ["8", *before[1:]]
    assert level(session) == before


def test_a_process_that_seccomp_killed_is_the_loads(session: Session, record: Record) -> None:
    """Without an audit daemon the record is in the log; it is the load's by its command, and there once."""
    lines = record(session.python, "/log/killed.py")
    denials = [line for line in lines if line.kind == kernel_log.DENIAL]
    assert denials and "type=1326" in denials[0].text, lines
    assert "a denial: audit: type=1326" in kernel_log.note(lines, 0.0).says
    assert kernel_log.before_verdict(lines) == ""


def test_what_a_process_wrote_into_the_log_is_not_believed(record: Record) -> None:
    """The text of an error of a filesystem, but not from the kernel."""
    lines = record("/bin/sh", "/log/liar.sh")
    assert [line.kind for line in lines if "all is lost" in line.text] == ["other"]
    assert kernel_log.before_verdict(lines) == ""


def test_the_level_is_put_back_after_sigkill(session: Session) -> None:
    """A recorder that is killed outright while the level is raised: its guardian puts the level back."""
    before = level(session)
    script = f"""cd {session.workdir}
{session.python} -m profiler.record job.json killed & recorder=$!
for i in $(seq 300); do [ $(cut -f1 {LEVEL}) = 8 ] && break; sleep 0.1; done
cut -f1 {LEVEL}; kill -9 $recorder; sleep 3; cat {LEVEL}"""
    lines = session.run(["sh", "-c", script], timeout=120).output.splitlines()
    words = [line.split() for line in lines if line and line[0].isdigit()]
    assert words == [["8"], before], lines
