"""What every test shares: a way to say that something needed is not here."""

import os
import signal

import pytest

# A runner started in the background ignores Ctrl-C, and hands that on to every process the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def require(condition: object, reason: str) -> None:
    """Skip the test with `reason`, or fail it where WHYERRNO_REQUIRE_ALL=1 says that everything must run."""
    if condition:
        return
    if os.environ.get("WHYERRNO_REQUIRE_ALL") == "1":
        pytest.fail(f"WHYERRNO_REQUIRE_ALL=1, and this test cannot run: {reason}")
    pytest.skip(reason)
