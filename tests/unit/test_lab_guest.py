"""The guest's image, its command channel, and QEMU's command line."""

from __future__ import annotations

import base64
import io
import lzma
import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from profiler.errors import MissingError, ProfilerError, UsageError
from profiler.lab import channel, cpio, image, modules, programs, qemu
from tests.conftest import require


def test_the_cpio_program_reads_what_the_writer_wrote(tmp_path: Path) -> None:
    busybox = shutil.which("busybox")
    require(busybox, "busybox is not installed (package busybox-static)")
    assert busybox
    (tmp_path / "source").write_bytes(b"program")
    (tmp_path / "source").chmod(0o700)
    with (tmp_path / "a.cpio").open("wb") as stream:
        writer = cpio.CpioWriter(stream)
        writer.file("deep/er/file", b"12345")
        writer.copy("deep/copy", tmp_path / "source")
        writer.symlink("link", "deep/copy")
        writer.close()
    into = tmp_path / "out"
    into.mkdir()
    with (tmp_path / "a.cpio").open("rb") as stream:
        subprocess.run([busybox, "cpio", "-i", "-d"], stdin=stream, cwd=into, check=True, capture_output=True)
    assert (into / "deep/er/file").read_bytes() == b"12345"
    assert (into / "link").read_bytes() == b"program"
    assert os.access(into / "deep/copy", os.X_OK)


def test_two_archives_after_another_stay_aligned() -> None:
    stream = io.BytesIO()
    for name in ("one", "two"):
        writer = cpio.CpioWriter(stream)
        writer.file(name, b"x" * 7)
        writer.close()
        assert stream.tell() % 4 == 0
    assert stream.getvalue().count(b"070701") == 4


def test_the_same_contents_make_the_same_archive() -> None:
    def written() -> bytes:
        stream = io.BytesIO()
        writer = cpio.CpioWriter(stream)
        writer.file("a/b", b"x")
        writer.close()
        return stream.getvalue()

    first = written()
    time.sleep(0.01)
    assert written() == first


def test_paths_of_this_machine_map_into_a_merged_usr() -> None:
    assert programs.guest_path("/lib/x86_64-linux-gnu/libc.so.6") == "/usr/lib/x86_64-linux-gnu/libc.so.6"
    assert programs.guest_path("/usr/sbin/x") == "/usr/bin/x"
    assert programs.guest_path("/opt/bin/x") == "/opt/bin/x"


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        (b"just words\n", UsageError, "neither ELF nor a script"),
        (b"", UsageError, "neither ELF nor a script"),
        (b"#!/nowhere/sh -e\n", MissingError, r"/nowhere/sh -e, is not on this machine"),
        (b"\x7fELF" + bytes(14) + (183).to_bytes(2, "little"), UsageError, "another processor"),
    ],
)
def test_what_cannot_be_started_is_told_before_anything_boots(
    content: bytes, error: type[ProfilerError], says: str, tmp_path: Path
) -> None:
    (tmp_path / "load").write_bytes(content)
    with pytest.raises(error, match=says):
        programs.require_runnable(tmp_path / "load")


def test_programs_and_scripts_can_be_started(tmp_path: Path) -> None:
    (tmp_path / "script").write_bytes(b"#!/usr/bin/env sh\n")
    programs.require_runnable(tmp_path / "script")
    programs.require_runnable(Path("/bin/sh"))


def test_a_program_needs_its_libraries_and_a_script_its_interpreter(tmp_path: Path) -> None:
    assert any("libc.so" in name for name in programs.needed_by(Path("/bin/bash")))
    script = tmp_path / "script"
    script.write_text("#!/usr/bin/env -S bash -e\necho\n")
    assert "/usr/bin/bash" in programs.needed_by(script)
    script.write_text("no interpreter")
    assert programs.needed_by(script) == {}


def test_the_standard_library_in_the_guest_leaves_out_what_nothing_there_uses() -> None:
    names = [str(path) for path, _ in programs.python_modules()]
    assert any(name.endswith("/json/decoder.py") for name in names)
    assert not any("/site-packages/" in name or "/test/" in name or "/idlelib/" in name for name in names)


def test_a_file_for_the_guest_must_exist_and_have_an_absolute_place(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        image._add_files(cpio.CpioWriter(io.BytesIO()), {"/work/x": tmp_path / "x"})
    with pytest.raises(UsageError, match="not an absolute path"):
        image._add_files(cpio.CpioWriter(io.BytesIO()), {"../x": Path("/bin/sh")})


def fake_module(directory: Path, name: str, depends: str, *, packed: bool = False) -> None:
    content = b"\x7fELF....license=GPL\0depends=" + depends.encode() + b"\0name=" + name.encode() + b"\0"
    directory.mkdir(parents=True, exist_ok=True)
    if packed:
        (directory / f"{name}.ko.xz").write_bytes(lzma.compress(content))
    else:
        (directory / f"{name}.ko").write_bytes(content)


def test_modules_come_unpacked_with_their_dependencies_first(tmp_path: Path) -> None:
    fake_module(tmp_path / "virtio", "virtio", "")
    fake_module(tmp_path / "virtio", "virtio-ring", "virtio", packed=True)
    fake_module(tmp_path / "virtio", "virtio_pci", "virtio,virtio_ring")
    fake_module(tmp_path / "block", "virtio_blk", "virtio_ring,virtio", packed=True)
    fake_module(tmp_path / "net", "virtio_net", "virtio")
    loaded = list(modules.in_load_order(tmp_path))
    assert [name for name, _ in loaded] == ["virtio.ko", "virtio_ring.ko", "virtio_pci.ko", "virtio_blk.ko"]
    assert all(content.startswith(b"\x7fELF") for _, content in loaded)


def test_a_kernel_with_everything_built_in_loads_nothing(tmp_path: Path) -> None:
    assert list(modules.in_load_order(tmp_path)) == []
    assert list(modules.in_load_order(None)) == []


class FakeGuest:
    """The other end of a channel: runs the scripts that come in with this machine's shell, as init.sh does."""

    def __init__(self, connection: socket.socket) -> None:
        self._file = connection.makefile("rwb")
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        self._say(b"\x1eready 6.1.0-fake\n")
        for line in self._file:
            number, script = line.split()
            self._say(b"noise from before\n\x1ebegin " + number + b"\n")
            done = subprocess.run(
                ["sh", "-c", base64.b64decode(script)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
            )
            self._say(done.stdout + b"\x1eend " + number + b" %d\n" % done.returncode)

    def _say(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()


def nothing() -> None:
    """The guest is well."""


def open_channel() -> tuple[channel.Channel, socket.socket]:
    ours, theirs = socket.socketpair()
    return channel.Channel(ours), theirs


def test_commands_run_one_after_another_and_give_output_and_exit_code() -> None:
    ours, theirs = open_channel()
    FakeGuest(theirs)
    deadline = time.monotonic() + 10
    assert ours.wait_ready(deadline, nothing) == "6.1.0-fake"
    lines: list[bytes] = []
    assert ours.run("echo a; printf b; exit 5", deadline, nothing, lines.append) == (5, b"a\nb")
    assert lines == [b"a\n", b"b"]
    assert ours.run("true", deadline, nothing, lines.append) == (0, b"")


def test_output_that_looks_like_the_end_of_a_command_is_output() -> None:
    ours, theirs = open_channel()
    FakeGuest(theirs)
    deadline = time.monotonic() + 10
    code, output = ours.run(r"printf '\036end 1 0\n'; exit 3", deadline, nothing, lambda line: None)
    assert (code, output) == (3, b"\x1eend 1 0\n")


def test_a_silent_guest_meets_the_deadline() -> None:
    ours, _theirs = open_channel()
    with pytest.raises(channel.ChannelSilent):
        ours.wait_ready(time.monotonic() + 0.2, nothing)


def test_a_guest_that_ends_closes_the_channel() -> None:
    ours, theirs = open_channel()
    theirs.close()
    with pytest.raises(channel.ChannelClosed):
        ours.wait_ready(time.monotonic() + 10, nothing)


def test_the_machine_has_no_network_one_processor_and_no_kaslr() -> None:
    command = qemu.Machine(Path("/k"), "tcg", Path("/c")).command()
    joined = " ".join(command)
    assert "-nodefaults" in command and "-smp 1" in joined and "nokaslr" in joined and "panic=-1" in joined
    assert not any(word in joined for word in ("-nic", "-net", "virtio-net"))
    assert "max,-cx16" in joined


def test_a_comma_in_a_path_does_not_end_the_option() -> None:
    command = qemu.Machine(Path("/k"), "tcg", Path("/a,b/c"), disk=Path("/a,b/d")).command()
    assert "file,id=console,path=/a,,b/c" in command
    assert any(word.startswith("file=/a,,b/d,format=raw") for word in command)


def test_an_unknown_accelerator_is_a_usage_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(qemu.ACCELERATOR_VARIABLE, "warp")
    with pytest.raises(UsageError, match="neither tcg nor kvm"):
        qemu.accelerator(Path("/k"), tmp_path)
