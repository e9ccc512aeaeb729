"""The kernels that the tests run on: from the cache, or fetched now."""

from profiler import lab
from profiler.errors import ProfilerError
from profiler.model import Kernel
from tests.conftest import require

VERSIONS = ("5.10", "6.1", "6.12", "7.3")


def kernel_of(version: str) -> Kernel:
    """A cached kernel, or one fetched now; the test is skipped where neither can be had."""
    try:
        return lab.find(version) or lab.fetch(version, lambda phase, fraction: None)
    except ProfilerError as error:
        require(False, f"kernel {version} cannot be had here: {error}")
        raise
