"""The saved nouns and their JSON form."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.model import (
    EXIT_CODES,
    Analysis,
    Branch,
    Conclusion,
    LoadResult,
    Manifest,
    SourceLocation,
    from_json,
)
from tests.unit.sample_analysis import named
from tests.unit.toy_recording import manifest


def test_each_conclusion_has_the_exit_code_that_is_documented() -> None:
    assert {str(conclusion): code for conclusion, code in EXIT_CODES.items()} == {
        "named": 0,
        "inconclusive": 3,
        "not-reproduced": 4,
    }


def test_an_analysis_survives_its_json_form() -> None:
    analysis = named()
    again = Analysis.from_json(json.loads(json.dumps(analysis.to_json())))
    assert again == analysis
    assert isinstance(again.conclusion, Conclusion)
    assert again.branch is None or isinstance(again.branch, Branch)


def test_the_json_form_has_what_the_manual_promises() -> None:
    saved = json.loads(json.dumps(named().to_json()))
    promised = (
        "schema syscall errno errno_number kernel conclusion error_site branch confidence chain candidates "
        "evidence samples"
    )
    assert set(promised.split()) <= set(saved)
    assert set(saved["kernel"]) == {"release", "package_version", "build_id", "arch"}
    assert {"function", "file", "line", "address"} <= set(saved["error_site"])
    assert {"condition", "outcome", "inlined_from"} <= set(saved["branch"])
    assert {"total", "in_load", "in_kernel", "lost"} <= set(saved["samples"])
    assert saved["conclusion"] in ("named", "inconclusive", "not-reproduced")


@settings(derandomize=True, deadline=None)
@given(
    st.builds(
        LoadResult,
        calls=st.integers(),
        seconds=st.floats(allow_nan=False),
        results=st.dictionaries(st.text(), st.integers()),
        pid=st.integers(),
        comm=st.text(),
        stopped_by=st.text(),
        message=st.text(),
    )
)
def test_any_result_of_a_load_survives_its_json_form(load: LoadResult) -> None:
    assert from_json(LoadResult, json.loads(json.dumps(dataclasses.asdict(load)))) == load


def test_a_field_with_a_default_may_be_absent() -> None:
    data = manifest().to_json()
    del data["warnings"]
    assert Manifest.from_json(data).warnings == []


def test_an_optional_field_may_be_null() -> None:
    assert Manifest.from_json({**manifest().to_json(), "scenario": None}).scenario is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("line", "seven"),
        ("line", None),
        ("file", 7),
        ("outcome", "yes"),
        ("inlined_from", 3),
        ("inlined_from", [{"function": "f"}]),
        ("inlined_from", ["f"]),
    ],
)
def test_a_value_of_another_kind_is_refused(field: str, value: object) -> None:
    """The reader of a damaged file gets one of three errors, which become one line."""
    good: dict[str, Any] = dataclasses.asdict(
        Branch("f", "a.c", 1, "f+0x1", None, True, [SourceLocation("g", "b.c", 2)])
    )
    assert from_json(Branch, good).inlined_from == [SourceLocation("g", "b.c", 2)]
    with pytest.raises((TypeError, ValueError, KeyError, AttributeError)):
        from_json(Branch, {**good, field: value})


def test_an_unknown_conclusion_is_refused() -> None:
    with pytest.raises(ValueError, match="perhaps"):
        Analysis.from_json({**named().to_json(), "conclusion": "perhaps"})


def test_a_missing_field_without_default_is_refused() -> None:
    data = manifest().to_json()
    del data["build_id"]
    with pytest.raises(TypeError, match="build_id"):
        Manifest.from_json(data)
