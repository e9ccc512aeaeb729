"""Which arms of `#if` are compiled, as far as a kernel's configuration tells."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from profiler.debuginfo.c_text import DIRECTIVE, blank

CONDITIONAL = re.compile(r"[ \t]*#[ \t]*(if|ifdef|ifndef|elif|elifdef|elifndef|else|endif)\b(.*)", re.DOTALL)
TOKENS = re.compile(r"\s*(defined|\w+|&&|\|\||==|!=|<=|>=|[!<>()])")
CONFIG_MACROS = {"IS_ENABLED": ("y", "m"), "IS_BUILTIN": ("y",), "IS_MODULE": ("m",), "IS_REACHABLE": ("y",)}
# What is the same in every 64-bit kernel image.
KNOWN = {"BITS_PER_LONG": 64, "__BITS_PER_LONG": 64, "__KERNEL__": 1, "MODULE": None, "__CHECKER__": None}
KNOWN |= {"__SPARSE__": None, "__GENKSYMS__": None, "__x86_64__": 1, "__LP64__": 1, "__cplusplus": None}
CONFIG_LINE = re.compile(r"^(CONFIG_\w+)=(.*)$", re.MULTILINE)

Config = dict[str, str]  # CONFIG_NET → "y", "m" or a value; what is absent is off


def read_config(text: str) -> Config:
    """A kernel's .config."""
    return dict(CONFIG_LINE.findall(text))


def evaluate(expression: str, config: Config | None) -> bool | None:
    """The value of a preprocessor condition; None where it depends on what is not known."""
    tokens = TOKENS.findall(expression.replace("\\\n", " "))
    if re.sub(r"\s", "", "".join(tokens)) != re.sub(r"\s|\\\n", "", expression):
        return None  # arithmetic and function-like macros are left undecided
    try:
        value = _Evaluation(tokens, config).whole()
    except (IndexError, ValueError):
        return None
    return None if value is None else bool(value)


class _Evaluation:
    """A recursive descent over `||`, `&&`, comparisons, `!` and primaries; None stands for unknown."""

    def __init__(self, tokens: list[str], config: Config | None) -> None:
        self.tokens = [*tokens, ""]
        self.at = 0
        self.config = config

    def whole(self) -> int | None:
        value = self.disjunction()
        return value if self.tokens[self.at] == "" else None

    def take(self, token: str | None = None) -> str:
        found = self.tokens[self.at]
        if (token is not None and found != token) or not found:
            raise ValueError(found)
        self.at += 1
        return found

    def disjunction(self) -> int | None:
        value = self.conjunction()
        while self.tokens[self.at] == "||":
            self.take()
            other = self.conjunction()
            value = 1 if value or other else None if value is None or other is None else 0
        return value

    def conjunction(self) -> int | None:
        value = self.comparison()
        while self.tokens[self.at] == "&&":
            self.take()
            other = self.comparison()
            known_false = value == 0 or other == 0
            value = 0 if known_false else None if value is None or other is None else 1
        return value

    def comparison(self) -> int | None:
        value = self.unary()
        while self.tokens[self.at] in ("==", "!=", "<", ">", "<=", ">="):
            operator, other = self.take(), self.unary()
            if value is None or other is None:
                value = None
            else:
                outcomes = {"==": value == other, "!=": value != other, "<": value < other}
                outcomes |= {">": value > other, "<=": value <= other, ">=": value >= other}
                value = int(outcomes[operator])
        return value

    def unary(self) -> int | None:
        first = self.take()
        if first == "!":
            value = self.unary()
            return None if value is None else int(not value)
        if first == "(":
            value = self.disjunction()
            self.take(")")
            return value
        if first == "defined" or first in CONFIG_MACROS:
            return self.symbol(first)
        return self.primary(first)

    def symbol(self, operator: str) -> int | None:
        bracket = self.tokens[self.at] == "("
        if bracket:
            self.take()
        name = self.take()
        if bracket:
            self.take(")")
        if operator == "defined":
            return self.defined(name)
        if self.config is None:
            return None
        return int(self.config.get(name, "n") in CONFIG_MACROS[operator])

    def defined(self, name: str) -> int | None:
        if name.startswith("CONFIG_"):
            if self.config is None:
                return None
            if name.endswith("_MODULE"):
                return int(self.config.get(name.removesuffix("_MODULE")) == "m")
            return int(self.config.get(name, "m") != "m")
        return int(KNOWN[name] is not None) if name in KNOWN else None

    def primary(self, token: str) -> int | None:
        if token[0].isdigit():
            return int(token.rstrip("uUlL"), 0)
        if token.startswith("CONFIG_") and self.config is not None:
            value = self.config.get(token, "0")
            return int(value, 0) if re.fullmatch(r"0x[0-9a-fA-F]+|\d+", value) else None
        return KNOWN.get(token)


@dataclass(slots=True)
class _Arm:
    start: int  # after its directive
    end: int
    value: bool | None


@dataclass(slots=True)
class _Block:
    directives: list[tuple[int, int]] = field(default_factory=list)
    arms: list[_Arm] = field(default_factory=list)
    decided: bool = False  # an earlier arm is compiled, so that later ones are not


def resolve(text: str, config: Config | None, keep_undecided: bool = False) -> str:
    """The text with the arms that are not compiled blanked, and the directives too.

    Where the configuration does not decide, the first arm that may be compiled is kept; with
    `keep_undecided`, an undecided block whose arms are whole statements stays as it is, directives included.
    """
    out = list(text)
    stack: list[_Block] = []
    kept: set[tuple[int, int]] = set()
    for match in DIRECTIVE.finditer(text):
        conditional = CONDITIONAL.match(match[0])
        if conditional is None:
            continue
        word, rest = conditional.groups()
        if word.startswith("if"):
            stack.append(_Block())
        if not stack:
            continue
        block = stack[-1]
        if block.arms and block.arms[-1].end < 0:
            block.arms[-1].end = match.start()
        block.directives.append(match.span())
        if word == "endif":
            kept |= _choose(out, text, stack.pop(), keep_undecided)
        else:
            block.arms.append(_Arm(match.end(), -1, _arm_value(word, rest, block, config)))
    for match in DIRECTIVE.finditer(text):
        if match.span() not in kept:
            out[match.start() : match.end()] = blank(match[0])
    return "".join(out)


def _arm_value(word: str, rest: str, block: _Block, config: Config | None) -> bool | None:
    if word in ("ifdef", "elifdef", "ifndef", "elifndef"):
        expression = ("!" if "ndef" in word else "") + f"defined({rest.strip()})"
    else:
        expression = "1" if word == "else" else rest
    value = False if block.decided else evaluate(expression, config)
    block.decided |= value is True
    return value


def _choose(out: list[str], text: str, block: _Block, keep_undecided: bool) -> set[tuple[int, int]]:
    """Blanks arms in `out`; the directives that stay."""
    possible = [arm for arm in block.arms if arm.value is not False]
    undecided = bool(possible) and possible[0].value is None
    keep = undecided and keep_undecided and all(_whole_statements(text, arm) for arm in possible)
    compiled = possible if keep else possible[:1]
    for arm in block.arms:
        if arm not in compiled:
            out[arm.start : arm.end] = blank("".join(out[arm.start : arm.end]))
    return set(block.directives) if keep else set()


def _whole_statements(text: str, arm: _Arm) -> bool:
    inside = text[arm.start : arm.end]
    if any(inside.count(a) != inside.count(b) for a, b in ("()", "{}", "[]")):
        return False
    before = text[: arm.start].rstrip()
    before = before[: before.rfind("\n") + 1].rstrip()
    code = DIRECTIVE.sub("", inside).strip()
    if code.startswith(("else", "}")):
        return False
    return before[-1:] in (";", "{", "}", ":") and (not code or code[-1] in ";}")
