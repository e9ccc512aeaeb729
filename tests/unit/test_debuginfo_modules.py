"""Which module holds an address, and what is known of its code with and without its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiler.debuginfo.modules import Modules
from profiler.errors import InputError, MismatchError
from profiler.model import LoadedModule, SourceLocation
from tests.unit.relocatable import BUILD_ID
from tests.unit.test_debuginfo_module_link import CALL, PLACES, TEXT, known, module, target

RAN = b"\x90" * 5 + b"\xc3" * 27
OTHER = 0xFFFFFFFFC1000000
SYMBOLS = ((TEXT, "ask"), (TEXT, "__pfx_ask"), (TEXT + 16, "tell"))


def tun(**changes: object) -> LoadedModule:
    fields: dict[str, object] = {"name": "tun", "build_id": BUILD_ID, "sections": PLACES, "symbols": SYMBOLS}
    return LoadedModule(**{**fields, **changes})  # type: ignore[arg-type]


def modules(*loaded: LoadedModule, file: Path | None = None) -> Modules:
    return Modules(loaded, lambda _: file, known, lambda path: path)


def test_an_address_belongs_to_the_module_one_of_whose_functions_holds_it(tmp_path: Path) -> None:
    found = modules(tun(), file=module().write(tmp_path / "tun.ko")).at(TEXT + 17)
    assert found is not None
    assert found.function_at(TEXT + 17) == ("tell", TEXT + 16, TEXT + 22)
    assert found.functions_named("ask") == [("ask", TEXT, TEXT + 11)]


def test_an_address_between_functions_belongs_to_none(tmp_path: Path) -> None:
    path = module().write(tmp_path / "tun.ko")
    assert modules(tun(), file=path).at(TEXT + 12) is None
    assert modules(tun(), file=path).at(TEXT - 1) is None


def test_code_as_it_ran_goes_before_that_of_the_file(tmp_path: Path) -> None:
    path = module().write(tmp_path / "tun.ko")
    as_built = modules(tun(), file=path).at(TEXT)
    as_ran = modules(tun(text=((TEXT, RAN),)), file=path).at(TEXT)
    assert as_built is not None and as_ran is not None
    assert target(as_built.read(TEXT, 5), TEXT) == known("kfree")
    assert as_ran.read(TEXT, 5) == b"\x90" * 5
    assert (as_built.is_patched, as_ran.is_patched) == (False, True)


def test_without_a_file_functions_are_those_of_kallsyms_and_bytes_those_that_ran() -> None:
    found = modules(tun(text=((TEXT, RAN),))).at(TEXT + 3)
    assert found is not None
    assert found.function_at(TEXT + 3) == ("ask", TEXT, TEXT + 16)
    assert found.function_at(TEXT + 20) == ("tell", TEXT + 16, TEXT + 32)
    assert found.functions_named("tell") == [("tell", TEXT + 16, TEXT + 32)]
    assert found.read(TEXT + 16, 16) == b"\xc3" * 16
    assert found.frames(TEXT + 20) == (SourceLocation("tell", "", 0),)
    assert not found.has_lines
    with pytest.raises(InputError, match="module tun"):
        found.read(TEXT + 0x1000, 4)


def test_without_file_and_bytes_only_the_name_of_the_module_is_known() -> None:
    found = modules(tun(), LoadedModule("bpf", "", {}, (), ((OTHER, "bpf_prog_1"),)))
    assert found.at(TEXT + 3) is None
    assert (found.name_at(TEXT + 3), found.name_at(OTHER + 8), found.name_at(TEXT - 1)) == ("tun", "bpf", None)


def test_a_symbol_of_another_module_is_found_through_kallsyms(tmp_path: Path) -> None:
    other = LoadedModule("vhost", "", {}, (), ((OTHER, "other_module_call"),))
    found = modules(tun(), other, file=module().write(tmp_path / "tun.ko")).at(TEXT + 16)
    assert found is not None
    assert found.read(TEXT + 16, 5)[:1] == CALL[:1]
    assert target(found.read(TEXT + 16, 5), TEXT + 16) == OTHER


def test_a_file_of_another_build_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match=BUILD_ID):
        modules(tun(build_id="ab" * 20), file=module().write(tmp_path / "tun.ko")).at(TEXT)


def test_a_file_without_debug_info_has_functions_and_no_lines(tmp_path: Path) -> None:
    found = modules(tun(), file=module().write(tmp_path / "tun.ko")).at(TEXT)
    assert found is not None
    assert not found.has_lines
    assert found.frames(TEXT + 1) == (SourceLocation("ask", "", 0),)
