"""perf script's text to samples. That it gives the same as the binary file is tested in test_parse_perf_data.py."""

from pathlib import Path

import pytest

from profiler.errors import InputError
from profiler.model import PerfRecording
from profiler.parse import perf_script

DATA = Path(__file__).parent.parent / "data" / "perf"


def read(name: str) -> PerfRecording:
    return perf_script.read((DATA / name).read_bytes().splitlines(keepends=True))


def one(line: str) -> PerfRecording:
    return perf_script.read([line])


def test_default_form_gives_the_same_as_the_pinned_fields() -> None:
    """Without -F there is no pid and the time is in microseconds; all else is the same."""
    pinned, default = read("callchains.script"), read("callchains_default.script")
    assert not default.decode_errors
    assert (default.samples.chain == pinned.samples.chain).all()
    assert (default.samples.ip == pinned.samples.ip).all()
    assert (default.samples.tid == pinned.samples.tid).all()
    assert (default.samples.time == pinned.samples.time // 1000 * 1000).all()
    assert (default.samples.pid == -1).all()
    assert default.comms == pinned.comms


def test_header_lines_give_the_facts() -> None:
    recording = read("callchains.script")
    assert recording.os_release == "6.1.0-56-cloud-amd64"
    assert recording.arch == "x86_64"
    assert recording.perf_version.startswith("6.1.")
    assert recording.command_line[1] == "record"
    assert recording.events[0].name == "cpu-clock"
    assert recording.events[0].frequency == 199


@pytest.mark.parametrize(
    "comm",
    ["a b [001] c: d", "12/13 [000]", "x: 1 y:", "]]] 7 [", "$(x);rm", "-e", "", "1 2 3", "<b>&amp;", "\x1b[31mred"],
)
def test_thread_names_are_told_from_the_fields(comm: str) -> None:
    """Names may look like any part of the line."""
    line = f"{comm:>16s} 27850/27851 [001]  2373.816363844:     250000 cycles:P:  ffffffff821f8b58 __schedule"
    recording = one(line)
    samples = recording.samples
    assert recording.comms == (comm,)
    assert (samples.pid[0], samples.tid[0], samples.cpu[0]) == (27850, 27851, 1)
    assert (samples.time[0], samples.period[0], samples.ip[0]) == (2373816363844, 250000, 0xFFFFFFFF821F8B58)
    assert recording.events[0].name == "cycles:P"
    assert samples.in_kernel[0]


def test_names_of_real_threads_survive_but_for_the_newline() -> None:
    """A newline in a name breaks the line in two: the first part is a decode error, the sample stays."""
    recording = read("names.script")
    assert {"a b [001] c: d", "12/13 [000]", "\x1b[31mred", "\\xff\\xfe bad", "$(x);rm", "<b>&amp;"} <= set(
        recording.comms
    )
    assert len(recording.samples.ip) == 121
    assert {error.what for error in recording.decode_errors} >= {"not a line of perf script: 'x'"}


def test_misc_decides_between_kernel_and_user() -> None:
    kernel = "perf 27850 [000] K      2373.816363:  10101010 cpu-clock:      55851d628590 [unknown] (/usr/bin/x)"
    user = "perf 27850 [000] U      2373.816363:  10101010 cpu-clock:      ffffffff821f8b58 x"
    assert one(kernel).samples.in_kernel.tolist() == [True]
    assert one(user).samples.in_kernel.tolist() == [False]


def test_vsyscall_page_is_not_the_kernels() -> None:
    line = "perf 27850 [000]  2373.816363:  1 cpu-clock:  ffffffffff600000 [unknown] ([vsyscall])"
    assert one(line).samples.in_kernel.tolist() == [False]


def test_chain_ends_at_the_first_user_address() -> None:
    """perf unwinds user stacks by frame pointers that may hold anything, kernel addresses too."""
    recording = perf_script.read(
        [
            "sh 1 [000] 1.000000: 5 cpu-clock: \n",
            "\tffffffff81000010 a+0x10 ([kernel.kallsyms])\n",
            "  fs/namei.c:12\n",
            "\tffffffff81000010 inlined (inlined)\n",
            "\tffffffff81000020 b+0x10 ([kernel.kallsyms])\n",
            "\t    7f0000000000 main+0x1 (/bin/sh)\n",
            "\tffff8b9bdeadbeef [unknown] ([unknown])\n",
            "\n",
        ]
    )
    assert recording.samples.chain.tolist() == [0xFFFFFFFF81000010, 0xFFFFFFFF81000020]
    assert recording.samples.ip.tolist() == [0xFFFFFFFF81000010]
    assert not recording.decode_errors


def test_tracepoint_arguments_are_not_taken_for_an_address() -> None:
    line = "perf 27850 [000]  2373.816363: sched:sched_switch: prev_comm=perf prev_pid=27850 ==> next_comm=migration/0"
    recording = one(line)
    assert recording.events[0].name == "sched:sched_switch"
    assert recording.samples.ip.tolist() == [0]


def test_records_of_forks_and_losses_are_counted() -> None:
    lines = [
        "sh 13912/13912 [001]  1.000000001: PERF_RECORD_FORK(14514:14514):(13912:13912)",
        "sh 13912/13912 [001]  1.000000001: PERF_RECORD_FORK(13912:14000):(13912:13912)",
        "perf 29969/29969 [000]  2.660815981: PERF_RECORD_LOST lost 262",
        "sh 13912/13912 [001]  1.000000002: PERF_RECORD_COMM exec: cat:14514/14514",
        "cat 14514/14514 [001]  1.000000003:      50000 cpu-clock:  ffffffff81000010 x",
    ]
    recording = perf_script.read(lines)
    assert recording.parents == {14514: 13912}
    assert recording.lost == 262
    assert not recording.decode_errors


def test_unreadable_lines_are_named_by_their_number() -> None:
    lines = ["rubbish", "cat 14514 [001]  1.000003:  50000 cpu-clock:  ffffffff81000010 x", "x" * 70_000]
    errors = perf_script.read(lines).decode_errors
    assert [error.offset for error in errors] == [1, 3]


@pytest.mark.parametrize("lines", [[], ["rubbish"], [" " * 50_000 + "x"], ["# header only"]])
def test_text_without_samples_is_refused_with_the_command_to_run(lines: list[str]) -> None:
    with pytest.raises(InputError, match=r"perf script --ns --header .* -F comm,pid,tid,cpu,time,period,event,ip,sym"):
        perf_script.read(lines)


def test_numbers_out_of_range_do_not_break_the_columns() -> None:
    line = "x 99999999999/-1 [000]  99999999999999999999.000000: 99999999999999999999999 e:  ffffffff81000010 x"
    samples = one(line).samples
    assert (samples.pid[0], samples.tid[0]) == (-1, -1)


def test_newlines_in_the_recorded_command_are_no_decode_errors() -> None:
    lines = ["# ========", "# cmdline : /bin/perf record -- sh -c true", "true", "# ========"]
    assert not perf_script.read([*lines, "sh 1 [000] 1.000000: 5 cpu-clock: ffffffff81000010 x"]).decode_errors
