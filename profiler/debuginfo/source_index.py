"""Where a kernel's functions, macros and function pointers are defined: its source files, read once by patterns.

The index is an SQLite file, one a kernel, so that a question reads a few pages of it and nothing is held in memory:

    files      those that were read; a module's are read when it is asked for
    functions  name → file, line, whether it is static
    pointers   what `.member = function` of a struct's initialiser, or LSM_HOOK_INIT(member, function), sets a member to
    fields     what struct a pointer of some name leads to: `const struct proto_ops *ops;` as a member
    macros     #define NAME(...) body, and those without parameters whose body names an errno
    kept       what a caller wants to find again

Names alone decide; `#if` does not. What is read there is checked against the configuration when the function is parsed.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiler.debuginfo.c_calls import constructor, terms
from profiler.debuginfo.c_functions import defined_name
from profiler.debuginfo.c_text import ANNOTATIONS, closing
from profiler.debuginfo.source import SourceTree
from profiler.errors import InputError

FORMAT = 3
SCHEMA = """
CREATE TABLE files (file TEXT PRIMARY KEY);
CREATE TABLE functions (name TEXT, file TEXT, line INTEGER, static INTEGER);
CREATE TABLE pointers (member TEXT, type TEXT, function TEXT, file TEXT);
CREATE TABLE fields (name TEXT, type TEXT, PRIMARY KEY (name, type)) WITHOUT ROWID;
CREATE TABLE macros (name TEXT, file TEXT, line INTEGER, parameters TEXT, body TEXT);
CREATE TABLE kept (key TEXT PRIMARY KEY, value TEXT);
CREATE INDEX functions_by_name ON functions (name);
CREATE INDEX pointers_by_member ON pointers (member);
CREATE INDEX macros_by_name ON macros (name);
"""
LONGEST_MACRO = 6000
LSM_HOOKS = "LSM_HOOK_INIT"  # the type under which hooks of security modules are found

# the head of a definition at the start of a line, up to its brace
HEAD = re.compile(r"^([A-Za-z_][^;{}#=]*\)[^;{}#=()]*)\{", re.MULTILINE)
# its head may hold #ifdef
SYSTEM_CALL = re.compile(r"^(COMPAT_|)SYSCALL(?:32)?_DEFINE\d\s*\(\s*(\w+)", re.MULTILINE)
PLAIN_HEAD = re.compile(r"[^()]*?\b([a-z_]\w*)\s*\(")
# .bind = inet_bind,
POINTER = re.compile(r"^[ \t]*\.(\w+)[ \t]*=[ \t]*&?([A-Za-z_]\w*)[ \t]*(?:,|$)", re.MULTILINE)
LSM_HOOK = re.compile(r"\bLSM_HOOK_INIT\(\s*(\w+)\s*,\s*(\w+)\s*\)")
# const struct proto_ops inet_stream_ops = {     [IORING_OP_NOP] = {  within such
INITIALISER = re.compile(r"\bstruct[ \t]+(\w+)[ \t]+[^;{}()=\n]*=\s*\{")
ASSIGNED = re.compile(r"->(\w+)[ \t]*=[ \t]*([a-z]\w*_\w*)[ \t]*;")
FIELD = re.compile(
    r"^[ \t]+(?:const[ \t]+)?struct[ \t]+(\w+)[ \t]+(?:__\w+[ \t]+)?"
    r"\*[ \t]*(?:const[ \t]+)?(?:__\w+[ \t]+)?(\w+)(?:\[\w*\])?;",
    re.MULTILINE,
)
MACRO = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)(\([^()\n]*\))?((?:[^\n]*\\\n)*[^\n]*)", re.MULTILINE)
# DEFINE_CLASS(filename, struct filename *, putname(_T), getname(p), const char *p)
CLASS = re.compile(r"^(DEFINE|EXTEND)_CLASS(?=\()", re.MULTILINE)
NAMES_ERRNO = re.compile(r"-\s*E[A-Z0-9]{3,}\b")
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Defined:
    """Where a function is defined, as far as names tell."""

    file: str
    line: int
    static: bool


@dataclass(frozen=True, slots=True)
class Macro:
    """`parameters` is None for a macro without parentheses. `body` has its comments taken out."""

    name: str
    file: str
    line: int
    parameters: tuple[str, ...] | None
    body: str


class SourceIndex:
    """The index of one kernel's tree."""

    def __init__(self, connection: sqlite3.Connection, tree: SourceTree) -> None:
        self._connection = connection
        self._tree = tree

    @classmethod
    def open(cls, path: Path | None, tree: SourceTree, files: Callable[[], Iterable[str]]) -> SourceIndex:
        """The index at `path`, made of the C files `files()` and of the headers they may include where there is none.

        A cache that cannot be written or read costs the time to make it in memory.
        """
        connection = _existing(path)
        if connection is not None:
            return cls(connection, tree)
        with contextlib.suppress(OSError, sqlite3.Error):
            if path is not None:
                _make(path, tree, files())
                connection = _existing(path)
        if connection is None:
            connection = sqlite3.connect(":memory:")
            _fill(connection, tree, files())
        return cls(connection, tree)

    def add(self, files: Iterable[str]) -> None:
        """Reads further files, a module's; those that are known are not read again."""
        new = [file for file in sorted(set(files)) if not self.has(file)]
        if not new:
            return
        try:
            with self._connection:
                _read_into(self._connection, self._tree, new)
        except sqlite3.Error:  # a cache that is not ours to write
            memory = sqlite3.connect(":memory:")
            self._connection.backup(memory)
            self._connection = memory
            _read_into(memory, self._tree, new)

    def has(self, file: str) -> bool:
        return bool(self._rows("SELECT 1 FROM files WHERE file = ?", file))

    def functions(self, name: str) -> list[Defined]:
        rows = self._rows("SELECT file, line, static FROM functions WHERE name = ? ORDER BY file, line", name)
        return [Defined(file, line, bool(static)) for file, line, static in rows]

    def pointers(self, member: str) -> list[tuple[str, str, str]]:
        """(struct type, function, file) for what the member of some struct is set to."""
        query = "SELECT DISTINCT type, function, file FROM pointers WHERE member = ? ORDER BY file, function, type"
        return [(kind, function, file) for kind, function, file in self._rows(query, member)]

    def types_of(self, field: str) -> set[str]:
        """The structs that members of this name point to."""
        return {kind for (kind,) in self._rows("SELECT type FROM fields WHERE name = ?", field)}

    def macro(self, name: str, file: str) -> Macro | None:
        """The macro as the file itself defines it, else by the first header that does."""
        query = "SELECT file, line, parameters, body FROM macros WHERE name = ? ORDER BY file != ?, file, line"
        for where, line, parameters, body in self._rows(query, name, file):
            if where.endswith(".c") and where != file:
                continue
            return Macro(name, where, line, tuple(parameters.split(",")) if parameters is not None else None, body)
        return None

    def kept(self, key: str) -> str | None:
        rows = self._rows("SELECT value FROM kept WHERE key = ?", key)
        return str(rows[0][0]) if rows else None

    def keep(self, entries: dict[str, str]) -> None:
        """Saves what took long to find out; does nothing where the cache is read-only, full, or locked for long."""
        if entries:
            with contextlib.suppress(sqlite3.Error), self._connection:
                self._connection.executemany("INSERT OR REPLACE INTO kept VALUES (?, ?)", entries.items())

    def close(self) -> None:
        self._connection.close()

    def _rows(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            name = str(self._connection.execute("PRAGMA database_list").fetchone()[2])
            raise InputError(
                f"{name}: the index of the kernel's source cannot be read: {error}", hint="remove it"
            ) from error


def _existing(path: Path | None) -> sqlite3.Connection | None:
    """An index of this format; None where there is none, or a damaged one."""
    if path is None or not path.is_file():
        return None
    connection = None
    try:
        connection = sqlite3.connect(path, timeout=20)
        if connection.execute("PRAGMA user_version").fetchone()[0] == FORMAT:
            connection.execute("SELECT count(*) FROM kept WHERE key = ''").fetchone()
            return connection
    except sqlite3.Error:
        pass
    if connection is not None:
        connection.close()
    return None


def _make(path: Path, tree: SourceTree, files: Iterable[str]) -> None:
    """The file appears only when it is whole."""
    damaged = path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with contextlib.closing(sqlite3.connect(temporary)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            _fill(connection, tree, files)
        path.unlink(missing_ok=True) if damaged else None
        # a file that another process made meanwhile is left alone: it may be open there, and written to
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _fill(connection: sqlite3.Connection, tree: SourceTree, files: Iterable[str]) -> None:
    named = set(files)
    with connection:
        connection.executescript(SCHEMA)
        _read_into(connection, tree, sorted({*named, *_headers(tree, named)}))
        connection.execute(f"PRAGMA user_version = {FORMAT}")


def _headers(tree: SourceTree, files: Iterable[str]) -> Iterator[str]:
    """Those of the folders of `files`, of include/ and of the architecture."""
    folders = {posixpath.dirname(file) for file in files}
    for folder in sorted(folders):
        yield from tree.headers(folder, below=False)
    arches = {"/".join(folder.split("/")[:2]) for folder in folders if folder.startswith("arch/")}
    for folder in ("include", *(f"{arch}/include" for arch in sorted(arches))):
        yield from (file for file in tree.headers(folder, below=True) if not file.startswith("include/dt-bindings/"))


def _read_into(connection: sqlite3.Connection, tree: SourceTree, files: Iterable[str]) -> None:
    for file in files:
        text = tree.content(file)
        if text is None:
            continue
        connection.execute("INSERT OR IGNORE INTO files VALUES (?)", (file,))
        connection.executemany("INSERT INTO functions VALUES (?, ?, ?, ?)", _functions(file, text))
        connection.executemany("INSERT INTO pointers VALUES (?, ?, ?, ?)", _pointers(file, text))
        connection.executemany("INSERT OR IGNORE INTO fields VALUES (?, ?)", set(_fields(text)))
        connection.executemany("INSERT INTO macros VALUES (?, ?, ?, ?, ?)", _macros(file, text))
        connection.executemany("INSERT INTO macros VALUES (?, ?, ?, ?, ?)", _classes(file, text))


class _Lines:
    """Line numbers of rising offsets."""

    def __init__(self, text: str) -> None:
        self._text, self._at, self._line = text, 0, 1

    def of(self, offset: int) -> int:
        self._line += self._text.count("\n", self._at, offset)
        self._at = offset
        return self._line


def _functions(file: str, text: str) -> Iterator[tuple[str, str, int, int]]:
    lines = _Lines(text)
    for match in HEAD.finditer(text):
        head = match[1]
        plain = PLAIN_HEAD.match(head)
        name = plain[1] if plain else None
        if name is None or name.startswith("__") or ANNOTATIONS.fullmatch(name):
            name = defined_name(COMMENT.sub("", head)) or name
        if name and not SYSTEM_CALL.match(head):
            yield name, file, lines.of(match.start()), int(head.startswith("static") or " static " in head[:80])

    lines = _Lines(text)
    for match in SYSTEM_CALL.finditer(text):
        yield f"__do_{match[1].lower()}sys_{match[2]}", file, lines.of(match.start()), 0


def _pointers(file: str, text: str) -> Iterator[tuple[str, str, str, str]]:
    if file.endswith(".h"):
        return  # it has declarations
    starts = [(match.start(), match[1]) for match in INITIALISER.finditer(text)]
    at, kind = 0, ""
    for match in POINTER.finditer(text):
        while at < len(starts) and starts[at][0] < match.start():
            kind = starts[at][1]
            at += 1
        if match[2] not in ("NULL", "THIS_MODULE", "true", "false") and match[2].upper() != match[2]:
            yield match[1], kind, match[2], file
    for match in LSM_HOOK.finditer(text):
        yield match[1], LSM_HOOKS, match[2], file
    for match in ASSIGNED.finditer(text):
        yield match[1], "", match[2], file


def _fields(text: str) -> Iterator[tuple[str, str]]:
    return ((match[2], match[1]) for match in FIELD.finditer(text))


def _classes(file: str, text: str) -> Iterator[tuple[str, str, int, str | None, str]]:
    """What makes a variable of a class, as if it were a macro of the constructor's name."""
    lines = _Lines(text)
    for match in CLASS.finditer(text):
        listed = terms(text[match.end() + 1 : closing(text, match.end()) - 1])
        name, made = ("", 2) if match[1] == "EXTEND" else (listed[0], 3)
        if len(listed) > made:
            yield constructor(name or listed[0] + listed[1]), file, lines.of(match.start()), "", listed[made]


def _macros(file: str, text: str) -> Iterator[tuple[str, str, int, str | None, str]]:
    lines = _Lines(text)
    for match in MACRO.finditer(text):
        name, parameters, body = match.groups()
        if parameters is None and not NAMES_ERRNO.search(body):
            continue
        if len(body) <= LONGEST_MACRO and body.strip():
            listed = ",".join(word.strip() for word in parameters[1:-1].split(",")) if parameters is not None else None
            yield name, file, lines.of(match.start()), listed, COMMENT.sub(" ", body.replace("\\\n", " ")).strip()
