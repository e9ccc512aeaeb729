"""C source text made ready for parsing by replacements of the same length, so that every offset and line stays."""

from __future__ import annotations

import re
from collections.abc import Callable

# a comment, a string, a character constant, whichever begins first
TOKEN = re.compile(r"""/\*.*?(?:\*/|\Z)|//(?:\\\n|[^\n])*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'""", re.DOTALL)
DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", re.MULTILINE)
NOT_ASCII = re.compile(r"[^\x00-\x7f]")

# Words between the parts of a declaration that a C grammar does not know. They mean nothing for control flow.
ANNOTATIONS = re.compile(
    r"\b(?:__user|__kernel|__iomem|__rcu|__percpu|__force|__nocast|__bitwise|__private|__guarded|__capability|"
    r"__init|__exit|__initdata|__initconst|__ref|__refdata|__meminit|__net_init|__cold|__hot|__sched|__cpuidle|"
    r"__read_mostly|__ro_after_init|__maybe_unused|__always_unused|__unused|__used|__must_check|__deprecated|__weak|"
    r"__pure|__packed|__visible|noinline|noinline_for_stack|noinstr|__always_inline|__no_kcsan|__uninitialized|"
    r"____cacheline_aligned_in_smp|____cacheline_aligned|__cacheline_aligned|__nonstring|__randomize_layout|"
    r"__extension__|asmlinkage|notrace|__bpf_kfunc|__restrict|__volatile__|__private)\b"
)
# The same with arguments, and the replacement of what stands for a type.
ANNOTATION_CALLS = re.compile(
    r"\b(?:__attribute__|__attribute|__aligned|__acquires|__releases|__must_hold|__counted_by|__free|__cleanup|"
    r"__cond_acquires|__section|__printf|__malloc|__alloc_size|__no_sanitize|__guarded_by|__context_unsafe|"
    r"__cond_lock_on|__realloc_size|__assume_aligned)\s*(?=\()"
)
TYPEOF = re.compile(r"\b(?:__typeof__|__typeof|typeof_unqual|__unqual_scalar_typeof|typeof_member|typeof)\s*(?=\()")
AUTO_TYPE = re.compile(r"\b__auto_type\b")
ASSEMBLY = re.compile(r"\b(?:asm|__asm__|__asm|asm_volatile_goto|asm_goto_output|asm_inline)\b[\s\w]*(?=\()")
# case 1 ... 3:   [0 ... 7] =
GNU_RANGE = re.compile(r"\.\.\.[^:\];{}\n]+(?=[:\]])")
LOCAL_LABEL = re.compile(r"\b__label__\s+[^;]*;")
# min_t(unsigned long, a, b)   list_entry(p, struct foo, member)   va_arg(ap, char *): a type as an argument
TYPE_WORDS = r"(?:(?:const|volatile|unsigned|signed|struct|union|enum|long|short)\s+)*\w+"
TYPE_ARGUMENT = re.compile(rf"(?<=,)(\s*)({TYPE_WORDS})([\s*]*)(?=[,)])|(?<=\()(\s*)({TYPE_WORDS})([\s*]*)(?=,)")

# alloc_percpu(struct foo): the same as the only one, which sizeof alone takes by the grammar
ONLY_ARGUMENT = re.compile(
    rf"\b(?!(?:sizeof|_Alignof|return|if|while|switch|case|int)\b)(\w+\()(\s*)({TYPE_WORDS})([\s*]*)(?=\))"
)
# operators of the grammar that take only part of what the compiler's take; as calls they parse
OPERATORS = re.compile(r"\b(?:offsetof|__alignof__|_Alignof)(?=\s*\()")
# static DEFINE_RATELIMIT_STATE(...);   DECLARE_BITMAP(map, 8) = { 0 };   f(a, <=, b)
STATIC_MACRO = re.compile(r"\bstatic(?=\s+[A-Z][A-Z0-9_]*\s*\()")
INITIALISED_MACRO = re.compile(r"(\b[A-Z][A-Z0-9_]*\([^()]*\)\s*)(=\s*\{[^{};]*\})(?=\s*;)")
OPERATOR_ARGUMENT = re.compile(r"(?<=,)(\s*)(?:[<>=!]=|[<>])(\s*)(?=,)")

# list_for_each_entry(p, head, member) STATEMENT   scoped_guard(mutex, &lock) STATEMENT
HEAD_CALL = re.compile(r"\b([A-Za-z_]\w*)\s*(?=\()")
LOOP_NAME = re.compile(r"for_?each|for_all_|_each_")
ONCE_NAME = re.compile(r"^scoped|guard|^with_|^if")  # runs the statement once, or not at all
STATEMENT_WORDS = frozenset(["if", "while", "for", "switch", "return", "sizeof", "do", "else", "case", "goto"])


def fold(text: str) -> str:
    """Runs of white space as one space, none at the ends."""
    return " ".join(text.split())


def blank(text: str) -> str:
    """Spaces for everything but the line ends."""
    return re.sub(r"[^\n]", " ", text)


def without_comments(text: str) -> str:
    """Comments blanked, strings kept; every character beyond ASCII becomes `?`, so that offsets count bytes too."""
    return TOKEN.sub(lambda match: blank(match[0]) if match[0][0] == "/" else match[0], NOT_ASCII.sub("?", text))


def without_strings(text: str) -> str:
    """The contents of strings and character constants as underscores; the quotes stay."""
    return TOKEN.sub(lambda match: match[0][0] + "_" * (len(match[0]) - 2) + match[0][-1], text)


def without_directives(text: str) -> str:
    """Preprocessor lines blanked, with the lines that continue them."""
    return DIRECTIVE.sub(lambda match: blank(match[0]), text)


def closing(text: str, at: int) -> int:
    """The offset just after the bracket that closes the one at `at`; the end of the text where none does."""
    depth = 0
    for match in re.compile(r"[(\[{)\]}]").finditer(text, at):
        depth += 1 if match[0] in "([{" else -1
        if depth == 0:
            return match.end()
    return len(text)


def parseable(body: str) -> str:
    """A function body (comments, strings and directives already masked) as plain C, of the same length.

    Loop macros become `while`, scoped guards `if`; the original text at the same offset tells which.
    """
    text = ANNOTATIONS.sub(lambda match: " " * len(match[0]), body)
    text = LOCAL_LABEL.sub(lambda match: blank(match[0]), text)
    text = _with_arguments(text, ANNOTATION_CALLS, lambda name, arguments: blank(name + arguments))
    text = _with_arguments(text, TYPEOF, lambda name, arguments: "int" + blank(name + arguments)[3:])
    text = AUTO_TYPE.sub("int        ", text)
    text = _with_arguments(text, ASSEMBLY, _plain_call)
    text = GNU_RANGE.sub(lambda match: blank(match[0]), text)
    text = OPERATORS.sub(lambda match: "A" + match[0][1:], text)
    text = TYPE_ARGUMENT.sub(_plain_argument, text)
    text = ONLY_ARGUMENT.sub(_plain_only_argument, text)
    text = STATIC_MACRO.sub("      ", text)
    text = INITIALISED_MACRO.sub(lambda match: match[1] + blank(match[2]), text)
    text = OPERATOR_ARGUMENT.sub(lambda match: match[1] + "0".ljust(len(match[0].strip())) + match[2], text)
    return _statement_macros(text)


def _with_arguments(text: str, pattern: re.Pattern[str], replace: Callable[[str, str], str]) -> str:
    """Each match of `pattern` and the parenthesised arguments after it, replaced by a text as long."""
    at = 0
    while match := pattern.search(text, at):
        end = closing(text, match.end())
        text = text[: match.start()] + replace(match[0], text[match.end() : end]) + text[end:]
        at = match.start() + 1
    return text


def _plain_call(name: str, arguments: str) -> str:
    word = re.match(r"\w+", name)
    length = word.end() if word else 0
    inner = blank(arguments[1:-1])
    return "A" + "_" * (length - 1) + blank(name[length:]) + "(" + inner + ")"


def _plain_argument(match: re.Match[str]) -> str:
    first = 1 if match[2] is not None else 4
    space, words, stars = match[first], match[first + 1], match[first + 2]
    return space + re.sub(r"\s", "_", words) + stars.replace("*", " ")


def _plain_only_argument(match: re.Match[str]) -> str:
    call, space, words, stars = match.groups()
    return call + space + re.sub(r"\s", "_", words) + stars.replace("*", " ")


def _statement_macros(text: str) -> str:
    out = list(text)
    for match in HEAD_CALL.finditer(text):
        name = match[1]
        if name in STATEMENT_WORDS or not _starts_statement(text, match.start()):
            continue
        after = text[closing(text, match.end()) :].lstrip()[:1]
        if after == "{" or _heads_statement(name, after) or _ends_loop(text, match.start(), name, after):
            word = "if" if ONCE_NAME.search(name) or len(name) < 5 else "while"
            out[match.start() : match.end(1)] = word.ljust(len(name))
    return "".join(out)


def _starts_statement(text: str, at: int) -> bool:
    before = text[max(0, at - 400) : at].rstrip()
    return not before or before[-1] in ";{}:)" or bool(re.search(r"\b(?:else|do)$", before))


def _heads_statement(name: str, after: str) -> bool:
    known = LOOP_NAME.search(name) or name.startswith("scoped")
    return bool(known) and (after.isalnum() or after in ("_", "*", "("))


def _ends_loop(text: str, at: int, name: str, after: str) -> bool:
    """do { ... } while_each_thread(g, t);"""
    return after == ";" and name.startswith(("while_", "for_each_")) and text[:at].rstrip()[-1:] == "}"
