"""How QEMU is started: the machine as data, and whether KVM can be used here."""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from profiler import process
from profiler.errors import UsageError
from profiler.lab import leftovers, replay
from profiler.recording import write_atomically

PROGRAM = "qemu-system-x86_64"
ACCELERATOR_VARIABLE = "WHYERRNO_ACCEL"
PROBE_SECONDS = 10.0
# cx16: QEMU 7.2's cmpxchg16b crashes Linux 6.12 in __kmalloc. erms, fsrm: under TCG `rep movsb` runs byte
# by byte; without the two the kernel copies eight bytes at a time.
CPU = {"tcg": "max,-cx16,-erms,-fsrm", "kvm": "host"}


@dataclass(frozen=True, slots=True)
class Machine:
    """A guest to start. `extra` arguments come last."""

    image: Path  # bzImage
    accelerator: str  # "tcg" or "kvm"
    console: Path  # what the first serial port prints
    initrd: Path | None = None
    disk: Path | None = None  # raw
    channel: socket.socket | None = None  # the second serial port
    side_channel: socket.socket | None = None  # the third
    memory: int = 2048  # MiB
    append: str = ""
    qmp: Path | None = None  # a socket QEMU listens on
    replays: bool = False  # made for the execution log (tcg only)
    extra: tuple[str, ...] = ()

    def command(self) -> list[str]:
        argv = [PROGRAM, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
        argv += ["-accel", self.accelerator, "-cpu", CPU[self.accelerator], "-smp", "1", "-m", f"{self.memory}M"]
        argv += ["-kernel", str(self.image), "-append", self._command_line()]
        argv += ["-chardev", f"file,id=console,path={_value(self.console)}", "-serial", "chardev:console"]
        if self.initrd is not None:
            argv += ["-initrd", str(self.initrd)]
        if self.channel is not None:
            argv += ["-chardev", f"socket,id=channel,fd={self.channel.fileno()}", "-serial", "chardev:channel"]
        if self.side_channel is not None:
            # irq=5: by default the console's own, and QEMU does not join what two devices want of one line
            argv += ["-chardev", f"socket,id=side,fd={self.side_channel.fileno()}"]
            argv += ["-device", "isa-serial,chardev=side,index=2,irq=5"]
        if self.disk is not None:
            # unsafe: the host's page cache is the only cache, so both sides see the same bytes at once;
            # report: a full disk fails the guest's write instead of freezing the guest
            argv += ["-drive", f"file={_value(self.disk)},format=raw,if=virtio,cache=unsafe,werror=report"]
        if self.qmp is not None:
            argv += ["-qmp", f"unix:{_value(self.qmp)},server=on,wait=off"]
        if self.replays:
            argv += ["-dfilter", replay.ADDRESSES, "-icount", replay.INSTRUCTION_CLOCK]
        return [*argv, *self.extra]

    def _command_line(self) -> str:
        # nokaslr: addresses are those of vmlinux; panic=-1 with -no-reboot: a panic ends QEMU at once
        return f"console=ttyS0 quiet nokaslr panic=-1 {self.append}".strip()


def _value(path: Path) -> str:
    """A path inside one of QEMU's comma-separated options."""
    return str(path).replace(",", ",,")


def accelerator(image: Path, cache: Path) -> str:
    """ "kvm" where a kernel really boots with it, else "tcg".

    /dev/kvm may be there and be useless (nested machines hang in the firmware), so it is tried, once for each
    start of this machine and QEMU. WHYERRNO_ACCEL=tcg or kvm decides instead.
    """
    wish = os.environ.get(ACCELERATOR_VARIABLE, "")
    if wish:
        if wish not in CPU:
            raise UsageError(f"{ACCELERATOR_VARIABLE}={wish} is neither tcg nor kvm")
        return wish
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    answers = cache / "kvm.json"
    key = _machine_key()
    known = _read_answers(answers)
    if key not in known:
        known = {key: _kvm_boots(image)}
        cache.mkdir(parents=True, exist_ok=True)
        write_atomically(answers, json.dumps(known) + "\n")
    return "kvm" if known[key] else "tcg"


def _machine_key() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot} {process.find(PROGRAM).stat().st_mtime_ns}"


def _read_answers(path: Path) -> dict[str, bool]:
    try:
        answers = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return answers if isinstance(answers, dict) else {}


def _kvm_boots(image: Path) -> bool:
    """A kernel without a root file system prints its banner and panics within a second or two, or never."""
    with leftovers.directory("kvm") as directory:
        machine = Machine(image, "kvm", directory / "console.log", memory=512, append="ignore_loglevel")
        with process.started(machine.command(), log=directory / "qemu.log") as qemu:
            leftovers.note_process(directory, qemu.pid)
            deadline = time.monotonic() + PROBE_SECONDS
            while time.monotonic() < deadline and qemu.poll() is None:
                time.sleep(0.05)
        console = directory / "console.log"
        return console.exists() and b"Kernel panic" in console.read_bytes()
