"""A kernel's source as the walk asks for it: definitions, summaries, pointers; what was read once is kept on disk."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass

from profiler.debuginfo.c_calls import Called, calls_in
from profiler.debuginfo.c_preprocessor import Config
from profiler.debuginfo.c_slice import SlicedFile
from profiler.debuginfo.flow_builder import build_flow
from profiler.debuginfo.source import SourceTree
from profiler.debuginfo.source_flow import ERRNO_NAMES
from profiler.debuginfo.source_index import SourceIndex
from profiler.debuginfo.source_summary import FORMAT, Summary, summarize

PREPARED = 48  # source files held ready at a time
_ERRNO = re.compile(r"-\s*(E[A-Z0-9]{3,})\b")
_NONE = "none"


@dataclass(frozen=True, slots=True)
class Expansion:
    """What a macro's body names."""

    errnos: tuple[str, ...]
    calls: tuple[Called, ...]


class KernelSources:
    """One kernel's tree by its index, read under its configuration."""

    def __init__(
        self, tree: SourceTree, index: SourceIndex, config: Config | None, asked: Collection[str] = ()
    ) -> None:
        """`asked`: files of modules that are known to be loaded."""
        self._tree, self._index, self._config = tree, index, config
        self.asked = frozenset(asked)
        self._files: OrderedDict[str, SlicedFile | None] = OrderedDict()
        self._located: dict[tuple[str, str], tuple[str, str, int] | None] = {}
        self._summaries: dict[tuple[str, str], Summary | None] = {}
        self._expansions: dict[tuple[str, str], Expansion | None] = {}
        self._new: dict[str, str] = {}

    def line(self, file: str, line: int) -> str | None:
        return self._tree.line(file, line)

    def locate(self, name: str, file: str) -> tuple[str, str, int] | None:
        """(name, file, line) of the function that a call in `file` means.

        A definition in the file itself goes first, then a global one, then one of a header. Of the last two the one
        that the configuration leaves in is meant: headers have empty ones for what is not configured.
        """
        key = (name, file)
        if key not in self._located:
            self._located[key] = self._locate(name, file)
        return self._located[key]

    def _locate(self, name: str, file: str) -> tuple[str, str, int] | None:
        defined = self._index.functions(name)
        own = [place for place in defined if place.file == file]
        shared = [place for place in defined if not place.static and place.file != file]
        headers = [place for place in defined if place.static and place.file.endswith(".h") and place.file != file]
        if own:
            return name, file, own[0].line
        if not headers and len(shared) == 1:
            return name, shared[0].file, shared[0].line
        for place in shared + headers:
            if self.summary(name, place.file, 0) is not None:
                return name, place.file, place.line
        return None

    def summary(self, name: str, file: str, line: int) -> Summary | None:
        """None where the file does not define the function, or not under this configuration."""
        key = (name, file)
        if key not in self._summaries:
            stored = f"{FORMAT} {name} {file}"
            kept = self._index.kept(stored)
            if kept is None:
                found = self._summarize(name, file, line)
                self._new[stored] = found.dump() if found is not None else _NONE
            else:
                found = Summary.load(kept) if kept != _NONE else None
            self._summaries[key] = found
        return self._summaries[key]

    def _summarize(self, name: str, file: str, line: int) -> Summary | None:
        file_text = self._file(file)
        lines = sorted((place.line for place in self._index.functions(name) if place.file == file), key=line.__ne__)
        found = file_text.function(name, lines) if file_text is not None else None
        if found is None:
            return None
        source, function = found
        flow = build_flow(source, function, name)
        body = source.code[function.start : function.end]
        return summarize(flow, lambda word: self._errnos_of(word, file), function.head, body)

    def _errnos_of(self, word: str, file: str) -> tuple[str, ...]:
        expansion = self.macro(word, file)
        return expansion.errnos if expansion is not None else ()

    def macro(self, name: str, file: str) -> Expansion | None:
        key = (name, file)
        if key not in self._expansions:
            found = self._index.macro(name, file)
            expansion = None
            if found is not None:
                errnos = dict.fromkeys(errno for errno in _ERRNO.findall(found.body) if errno in ERRNO_NAMES)
                calls = [call for call in calls_in(found.body) if call.name not in (found.parameters or ())]
                expansion = Expansion(tuple(errnos), tuple(calls))
            self._expansions[key] = expansion
        return self._expansions[key]

    def pointers(self, member: str, through: str) -> list[tuple[str, str]]:
        """(function, file) of what the member may be set to.

        `through` is a struct's type, or the name of a pointer; of the latter the types are known that members of that
        name have. Where no initialiser is of such a type, every one of the member counts.
        """
        known = self._index.pointers(member)
        if through:
            types = {through} | self._index.types_of(through)
            fitting = [entry for entry in known if entry[0] in types]
            known = fitting or [entry for entry in known if not entry[0]] or known
        return list(dict.fromkeys((function, file) for _, function, file in known))

    def save(self) -> None:
        """Keeps on disk what was found out since."""
        self._index.keep(self._new)
        self._new = {}

    def _file(self, file: str) -> SlicedFile | None:
        if file in self._files:
            self._files.move_to_end(file)
            return self._files[file]
        content = self._tree.content(file)
        prepared = SlicedFile(content, self._config) if content is not None else None
        self._files[file] = prepared
        while len(self._files) > PREPARED:
            self._files.popitem(last=False)
        return prepared
