"""Which arms of #if are compiled."""

from __future__ import annotations

import pytest

from profiler.debuginfo.c_preprocessor import evaluate, read_config, resolve

CONFIG = read_config('CONFIG_NET=y\nCONFIG_EXT4_FS=m\n# CONFIG_SLOW is not set\nCONFIG_HZ=250\nCONFIG_NAME="x"\n')


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("defined(CONFIG_NET)", True),
        ("defined CONFIG_SLOW", False),
        ("defined(CONFIG_EXT4_FS)", False),
        ("defined(CONFIG_EXT4_FS_MODULE)", True),
        ("IS_ENABLED(CONFIG_EXT4_FS)", True),
        ("IS_BUILTIN(CONFIG_EXT4_FS)", False),
        ("!IS_ENABLED(CONFIG_SLOW) && CONFIG_HZ > 100", True),
        ("CONFIG_HZ == 1000 || BITS_PER_LONG == 64", True),
        ("defined(ARCH_HAS_X)", None),
        ("defined(ARCH_HAS_X) && defined(CONFIG_SLOW)", False),
        ("defined(ARCH_HAS_X) || defined(CONFIG_NET)", True),
        ("PAGE_SHIFT + 1 > 12", None),
        ("(0", None),
        ("", None),
        ("0", False),
        ("0x10UL", True),
    ],
)
def test_conditions_have_their_value_where_the_configuration_decides(expression: str, value: bool | None) -> None:
    assert evaluate(expression, CONFIG) is value


def test_nothing_is_decided_without_a_configuration() -> None:
    assert evaluate("IS_ENABLED(CONFIG_NET)", None) is None
    assert evaluate("0", None) is False


@pytest.mark.parametrize(("hz", "kept"), [("100", "a"), ("250", "b"), ("1000", "c")])
def test_one_arm_is_kept_and_every_offset_stays(hz: str, kept: str) -> None:
    text = "#if CONFIG_HZ == 100\na\n#elif CONFIG_HZ == 250\nb\n#else\nc\n#endif\nd"
    resolved = resolve(text, {"CONFIG_HZ": hz})
    assert resolved.split() == [kept, "d"]
    assert len(resolved) == len(text)
    assert resolved.index(kept) == text.index(f"\n{kept}\n") + 1


def test_blocks_within_blocks_are_decided_each() -> None:
    text = "#ifdef CONFIG_NET\n#ifndef CONFIG_SLOW\na\n#else\nb\n#endif\n#else\n#ifdef CONFIG_NET\nc\n#endif\n#endif"
    assert resolve(text, CONFIG).split() == ["a"]


def test_definitions_are_blanked_with_their_continuations() -> None:
    assert resolve("x;\n#define A \\\n  b\ny;", CONFIG).split() == ["x;", "y;"]
