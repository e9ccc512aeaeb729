"""kallsyms: look-up by name and address, duplicates, modules, and a kernel that hides its addresses."""

from pathlib import Path

import numpy as np
import pytest

from profiler.errors import InputError, MissingError
from profiler.parse import kallsyms

# The form of /proc/kallsyms: modules come last and, like per-CPU data, out of order.
TEXT = b"""\
0000000000000000 A fixed_percpu_data
ffffffff81000000 D _text_data
ffffffff81000000 T _text
ffffffff81000000 T _stext
ffffffff81001000 t do_one
ffffffff81002000 t helper.isra.0
ffffffff81003000 T __x64_sys_bind
ffffffff81004000 t do_one
ffffffffc0002000 t later\t[mod_b]
ffffffffc0001000 t do_one\t[mod_a]
"""


def parse(text: bytes = TEXT) -> kallsyms.Kallsyms:
    return kallsyms.parse(text, "kallsyms")


def test_addresses_are_found_within_their_symbols() -> None:
    symbols = parse()
    wanted = [0xFFFFFFFF81003000, 0xFFFFFFFF81003FFF, 0xFFFFFFFF81001004, 0xFFFFFFFFC0001010, 0xFFFFFFFFC0002001]
    found = symbols.find(np.array(wanted, np.uint64))
    assert [symbols.names[i] for i in found] == ["__x64_sys_bind", "__x64_sys_bind", "do_one", "do_one", "later"]
    assert [symbols.modules[i] for i in found] == ["", "", "", "mod_a", "mod_b"]


def test_of_several_symbols_at_one_address_the_first_of_code_names_it() -> None:
    symbols = parse()
    assert symbols.names[symbols.find(np.array([0xFFFFFFFF81000010], np.uint64))[0]] == "_text"


def test_an_address_before_all_symbols_has_none() -> None:
    symbols = parse(b"ffffffff81000000 T _text\n")
    assert symbols.find(np.array([0, 0xFFFFFFFF80FFFFFF], np.uint64)).tolist() == [-1, -1]


def test_names_give_addresses_and_duplicates_are_all_kept() -> None:
    symbols = parse()
    assert symbols.address_of("__x64_sys_bind") == 0xFFFFFFFF81003000
    assert symbols.address_of("absent") is None
    assert symbols.addresses_of("do_one") == [0xFFFFFFFF81001000, 0xFFFFFFFF81004000]
    assert symbols.address_of("do_one", "mod_a") == 0xFFFFFFFFC0001000
    assert len(symbols.names) == 10


def test_hidden_addresses_name_the_setting() -> None:
    with pytest.raises(MissingError, match=r"kernel\.kptr_restrict"):
        parse(b"0000000000000000 T _text\n0000000000000000 T _stext\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "empty"),
        (b"no symbols here\n", "line 1 is no symbol"),
        (b"ffffffff81000000 T a\nffffffff8100000g T b\n", "line 2 is no symbol"),
        (b"ffffffff81000000 T a\n\n", "line 2 is no symbol"),
        (b"ffffffff81000000 T a\nffffffff81000000TTb\n", "line 2 is no symbol"),
        (b"ffffffff81000000 T a\nffffffff810000", "cut inside its last line"),
        (b"\xff" * 40 + b"\n", "line 1 is no symbol"),
    ],
)
def test_other_text_is_refused_by_line(text: bytes, says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse(text)


def test_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        kallsyms.read(tmp_path / "absent")


def test_addresses_of_32_bit_kernels_are_read() -> None:
    assert parse(b"c0008000 T _text\nc0009000 t x\n").address_of("x") == 0xC0009000
