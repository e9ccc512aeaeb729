"""The kernel log: which lines are of the failing calls' time, what they are, and what is said before the verdict."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.conclude import kernel_log
from profiler.model import LogLine, RungState
from profiler.parse import kernel_log as parse

BEGINS = "whyerrno: the load begins, its threads are 812 813"
# As kernels 5.10 to 7.3 print them.
HARDWARE = "<3>[   20.000000] I/O error, dev sda, sector 2048 op 0x0:(READ) flags 0x80700 phys_seg 1 prio class 2"
FILESYSTEM = (
    "<2>[   20.100000] EXT4-fs error (device loop0): ext4_lookup:1855: inode #2: comm ls: iget: checksum invalid"
)
SECCOMP = (
    "<5>[   20.200000] audit: type=1326 audit(1700000000.123:45): auid=0 uid=0 gid=0 ses=1 subj=unconfined pid=813 "
    'comm="repro" exe="/bin/repro" sig=31 arch=c000003e syscall=110 compat=0 ip=0x7f code=0x80000000'
)
APPARMOR = (
    '<5>[   20.300000] audit: type=1400 audit(1700000000.124:46): apparmor="DENIED" operation="open" '
    'profile="browser" name="/etc/shadow" pid=4711 comm="browser" requested_mask="r"'
)


def read(*lines: str, pid: int = 812, comm: str = "repro") -> list[LogLine]:
    return kernel_log.read(parse.read(lines), pid=pid, comm=comm)


def kinds(*lines: str) -> list[str]:
    return [line.kind for line in read(BEGINS, *lines)]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Buffer I/O error on dev loop0, logical block 12, lost async page write", "hardware"),
        ("mce: [Hardware Error]: Machine check events logged", "hardware"),
        ("ata1.00: exception Emask 0x0 SAct 0x0 SErr 0x0 action 0x0", "hardware"),
        ("nvme nvme0: I/O 12 QID 3 timeout, aborting", "hardware"),
        ("EXT4-fs (vda1): Remounting filesystem read-only", "filesystem"),
        ("XFS (loop0): Metadata corruption detected at xfs_agf_read_verify", "filesystem"),
        ("BTRFS error (device vdb): bad tree block start", "filesystem"),
        ("BUG: kernel NULL pointer dereference, address: 0000000000000008", "kernel"),
        ("Lockdown: repro: /dev/mem,kmem,port is restricted; see man kernel_lockdown.7", "denial"),
        ('ptrace attach of "init"[1] was attempted by "repro"[812]', "denial"),
        ("cgroup: fork rejected by pids controller in /limited", "denial"),
        ("Memory cgroup out of memory: Killed process 999 (other) total-vm:1kB", "memory"),
        ("other invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0", "memory"),
        ("repro: page allocation failure: order:9, mode:0x40cc0", "memory"),
        ("repro[812]: segfault at 0 ip 000055 sp 00007f error 4 in repro[55+1]", "load"),
        ("EXT4-fs (loop0): mounted filesystem with ordered data mode", "other"),
        ("Hardware name: QEMU Standard PC", None),
        ("hardware clock set", "other"),
        ("loop0: detected capacity change from 0 to 2048", "other"),
    ],
)
def test_a_line_is_of_the_kind_that_the_kernel_means(text: str, kind: str | None) -> None:
    """By the words of the kernel's own messages; what stands below the first line of a report is left out."""
    assert kinds(f"<4>[   20.000000] {text}") == ([kind] if kind else [])


def test_a_denial_is_the_loads_or_nothing() -> None:
    """By the number or the command of the process that the record names; another program's is not the load's."""
    assert kinds(SECCOMP, APPARMOR) == ["denial", "other"]
    assert [line.kind for line in read(SECCOMP, pid=5, comm="repro")] == ["denial"]
    assert [line.kind for line in read(SECCOMP, pid=5, comm="x")] == ["other"]


def test_a_command_in_hexadecimal_is_read() -> None:
    """audit writes a name with a space as digits."""
    line = "<5>[   20.0] audit: type=1400 audit(1.2:3): avc:  denied  { read } for  pid=9 comm=6120622063 dev=sda"
    assert [found.kind for found in read(line, comm="a b c")] == ["denial"]


def test_a_line_belongs_to_the_thread_that_logged_it() -> None:
    """Kernels built with PRINTK_CALLER say who."""
    assert kinds("<4>[   20.000000][  T813] something happened", "<4>[   20.000000][   C1] other") == ["load", "other"]


def test_what_a_process_wrote_is_never_the_kernels_word() -> None:
    """A program that prints "EXT4-fs error" into the log has another facility than the kernel."""
    assert kinds(FILESYSTEM.replace("<2>", "<10>")) == ["other"]


def test_only_errors_of_hardware_are_kept_of_the_set_up() -> None:
    """Lines before the load begins are of the set-up, but a broken disk stays broken."""
    before = "<6>[   10.000000] loop0: detected capacity change from 0 to 2048"
    after = "<6>[   30.000000] something"
    assert [line.seconds for line in read(before, HARDWARE, BEGINS, after)] == [20.0, 30.0]
    assert len(read(before, after)) == 2  # a recording that does not say when the load began


def test_what_comes_again_is_counted() -> None:
    """Three lines that differ in numbers are one, and said to be three."""
    lines = [f"<4>[   2{i}.000000] net_ratelimit: {i} callbacks suppressed" for i in range(3)]
    assert [line.text for line in read(*lines)] == ["net_ratelimit: 0 callbacks suppressed (and 2 more like it)"]


def test_at_most_a_hundred_lines_are_kept_and_the_grave_ones_are_among_them() -> None:
    """A flood of other lines does not drive out the error."""
    flood = [f"<6>[   20.{i:06}] device {chr(97 + i % 26)}{chr(97 + i // 26)} ready" for i in range(300)]
    lines = read(*flood, HARDWARE.replace("20.000000", "29.000000"))
    assert len(lines) == 100 and lines[-1].kind == "hardware"


def test_the_gravest_is_put_before_the_verdict() -> None:
    """Hardware before filesystems; nothing where nothing grave was logged."""
    assert kernel_log.before_verdict(read(SECCOMP)) == ""
    assert kernel_log.before_verdict(read(FILESYSTEM)) == (
        "The kernel log has an error of a filesystem from the time of the calls: "
        "EXT4-fs error (device loop0): ext4_lookup:1855: inode #2: comm ls: iget: checksum invalid."
    )
    both = kernel_log.before_verdict(read(FILESYSTEM, HARDWARE))
    assert both.startswith("The kernel log has a hardware error") and both.endswith("(and 1 more of such lines).")


def test_the_rung_says_what_it_found() -> None:
    """The line that weighs most, or that there is none, or why it could not be read."""
    assert kernel_log.note(read(SECCOMP, HARDWARE), 0.1).says.startswith("a hardware error: I/O error, dev sda")
    assert "1 more line that" in kernel_log.note(read(SECCOMP, HARDWARE), 0.1).says
    assert kernel_log.note([], 0.1).says == "nothing was logged of the failing calls"
    assert (
        kernel_log.note(read(APPARMOR), 0.1).says == "nothing was logged of the failing calls; of other things 1 line"
    )
    problem = kernel_log.unread(["perf lost samples", "the kernel log cannot be read: Permission denied"])
    assert kernel_log.note([], 0.0, problem).state is RungState.NOT_POSSIBLE
    assert kernel_log.unread([]) == ""


def test_hostile_text_becomes_printable() -> None:
    """Escape sequences, line breaks and signs that reverse the direction of text cannot reach a terminal."""
    line = "<4>[   20.000000] \x1b]0;owned\x07 a\\x0ab \u202e reversed " + "x" * 5000
    [found] = read(line)
    assert found.text.isprintable() and len(found.text) < 1100
    assert found.text.startswith("\\u001b]0;owned\\u0007 a b \\u202e reversed")


def test_dmesgs_own_text_is_read() -> None:
    """Without a level, and with lines that are no records."""
    records = list(parse.read(["[    5.140900] NET: Registered", "garbage", "", "[x] y", "whyerrno: lost"]))
    assert records == [parse.Record(5.1409, 6, "NET: Registered"), parse.Lost("lost")]


@given(st.lists(st.text(alphabet=st.sampled_from("<>[]0123456789. Twhyerno:,begins\x1b\\\n"), max_size=80)))
def test_no_text_makes_it_fail(lines: list[str]) -> None:
    """Whatever the log holds, it is read."""
    read(*lines)
