"""System call numbers against the headers of the C library's kernel interface, where they are installed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from profiler.syscalls import NUMBERS
from tests.conftest import require

HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),  # arm64 takes the generic numbers
}
# #define __NR_bind 200, or __NR3264_fcntl 25 where 32-bit machines have another call of that number
DEFINED = re.compile(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)$", re.MULTILINE)


@pytest.mark.parametrize("arch", NUMBERS)
def test_numbers_are_those_of_the_headers(arch: str) -> None:
    require(HEADERS[arch].is_file(), f"no {HEADERS[arch]}; apt install linux-libc-dev")
    defined = {name: int(number) for name, number in DEFINED.findall(HEADERS[arch].read_text())}
    both = NUMBERS[arch].keys() & defined.keys()
    assert len(both) > 250
    assert {name: NUMBERS[arch][name] for name in both} == {name: defined[name] for name in both}


@pytest.mark.parametrize("arch", NUMBERS)
def test_no_two_calls_share_a_number(arch: str) -> None:
    assert len(set(NUMBERS[arch].values())) == len(NUMBERS[arch])
