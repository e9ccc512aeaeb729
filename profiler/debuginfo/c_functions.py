"""Where the functions of a C file lie, found by its brackets: a kernel has more macros than a grammar knows."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

from profiler.debuginfo.c_preprocessor import Config, resolve
from profiler.debuginfo.c_text import ANNOTATION_CALLS, blank, closing, fold, without_comments, without_strings

# SYSCALL_DEFINE3(bind, ...   COMPAT_SYSCALL_DEFINE2(...   SYSCALL32_DEFINE4(...
SYSCALL_DEFINE = re.compile(r"\b(COMPAT_|)SYSCALL(?:32)?_DEFINE\d\s*\(\s*(\w+)")
# BPF_CALL_2(bpf_map_lookup_elem, ...): a macro whose first argument is the function's name
NAMED_BY_MACRO = re.compile(r"\b[A-Z][A-Z0-9_]*\s*\(\s*(\w+)")
# __x64_sys_bind, __se_compat_sys_fcntl, __do_sys_prctl, sys_bind
SYSCALL_SYMBOL = re.compile(
    r"(?:__(?:x64|ia32|arm64|se|do)_)?(compat_|)sys_(\w+)|__(?:x64|ia32|se|do)_compat_sys_(\w+)"
)
GROUP = re.compile(r"\b([A-Za-z_]\w*)\s*\(")
BRACKET = re.compile(r"[{};]")
NOT_A_FUNCTION = re.compile(r"\b(?:struct|union|enum)\s+\w*\s*$|[=,]\s*$|\bextern\s*\"")


@dataclass(frozen=True, slots=True)
class FunctionText:
    """A function definition. Lines count from 1; offsets are characters into the file's text."""

    name: str  # __do_sys_NAME for what SYSCALL_DEFINE defines
    first_line: int  # of the head
    body_line: int  # of the opening brace
    last_line: int
    head: str  # white space folded
    start: int  # of the opening brace
    end: int  # after the closing brace


class SourceFile:
    """One C file: its functions, and its text in the forms that parsing needs, all of the same length.

    `config`: the kernel's configuration; with it, only what was compiled counts as source.
    """

    def __init__(self, lines: list[str], config: Config | None = None) -> None:
        self.config = config
        self.text = "\n".join(lines)
        self.code = without_comments(self.text)  # strings kept
        self.masked = without_strings(self.code)  # directives kept

    @cached_property
    def functions(self) -> list[FunctionText]:
        """Every function definition, by its place in the file."""
        text = resolve(self.masked, self.config)
        found = []
        depth, since, opened = 0, 0, 0
        for match in BRACKET.finditer(text):
            at = match.start()
            if match[0] == "{":
                if depth == 0:
                    opened = at
                depth += 1
            elif match[0] == "}" and depth:
                depth -= 1
                if depth == 0:
                    function = self._function(text, since, opened, at + 1)
                    if function:
                        found.append(function)
                    since = at + 1
            elif depth == 0:
                since = at + 1
        return found

    def find(self, name: str, near_line: int = 0) -> FunctionText | None:
        """The definition of a function, by its own name or by any symbol of a system call.

        Of several of one name, the one that holds `near_line`, else the nearest to it.
        """
        wanted = {name} | _syscall_names(name)
        found = [f for f in self.functions if f.name == name] or [f for f in self.functions if f.name in wanted]

        def distance(function: FunctionText) -> int:
            return max(function.first_line - near_line, near_line - function.last_line, 0)

        return min(found, key=distance, default=None)

    @cached_property
    def compiled(self) -> str:
        """The masked text of what is compiled; #if blocks of whole statements that nothing decides are kept."""
        return resolve(self.masked, self.config, keep_undecided=True)

    def line_of(self, offset: int) -> int:
        return bisect_right(self._line_starts, offset)

    @cached_property
    def _line_starts(self) -> list[int]:
        return [0] + [match.end() for match in re.finditer("\n", self.text)]

    def _function(self, text: str, since: int, opened: int, end: int) -> FunctionText | None:
        head = text[since:opened]
        name = defined_name(head)
        if name is None:
            return None
        first = since + len(head) - len(head.lstrip())
        return FunctionText(
            name,
            self.line_of(first),
            self.line_of(opened),
            self.line_of(end - 1),
            fold(text[first:opened]),
            opened,
            end,
        )


def _syscall_names(symbol: str) -> set[str]:
    match = SYSCALL_SYMBOL.fullmatch(symbol)
    if match is None:
        return set()
    compat, name, compat_name = match.groups()
    if compat_name or compat:
        return {f"__do_compat_sys_{compat_name or name}"}
    return {f"__do_sys_{name}"}


def defined_name(head: str) -> str | None:
    """The name that the head of a definition gives, None for the head of anything else than a function."""
    syscall = SYSCALL_DEFINE.search(head)
    if syscall:
        return f"__do_{syscall[1].lower()}sys_{syscall[2]}"
    plain = _without_annotations(head)
    if NOT_A_FUNCTION.search(plain.rstrip()):
        return None
    chosen, at = None, 0
    while match := GROUP.search(plain, at):
        between = [word for word in plain[at : match.start()].split() if not word.startswith("__")]
        # words before it are the type of what is defined; without any it annotates what stands before it
        if chosen is None or between:
            chosen = match
        at = closing(plain, match.end() - 1)
    if chosen is None:
        return None
    by_macro = NAMED_BY_MACRO.match(plain, chosen.start())
    typed = plain[: chosen.start()].replace("static", "").strip()
    return by_macro[1] if by_macro and not typed else chosen[1]


def _without_annotations(head: str) -> str:
    at = 0
    while match := ANNOTATION_CALLS.search(head, at):
        end = closing(head, match.end())
        head = head[: match.start()] + blank(head[match.start() : end]) + head[end:]
        at = end
    return head
