"""A kernel's source tree of a few lines, for the walk of the source."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

from profiler.conclude.kernel_sources import KernelSources
from profiler.debuginfo.source import SourceTree
from profiler.debuginfo.source_index import SourceIndex


def sources(
    root: Path, files: Mapping[str, str], config: dict[str, str] | None = None, cache: Path | None = None
) -> KernelSources:
    """A tree of these files below `root`; all C files count as built."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"))
    tree = SourceTree(root)
    index = SourceIndex.open(cache, tree, lambda: [name for name in files if name.endswith(".c")])
    return KernelSources(tree, index, config)
