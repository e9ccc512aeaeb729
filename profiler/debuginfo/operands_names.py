"""What a name of the source stands for at an address: `sk->sk_state`, `iov[seg].iov_len`, `*limit`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from profiler.debuginfo.operands import Constant, Memory, Operation, Value, plus
from profiler.debuginfo.variable_types import Kind, Member, Typed, Types
from profiler.debuginfo.variables import DAMAGED, Variable

# sk   ->   sk_state   .   [   ]   16
_TOKENS = re.compile(r"\s*(->|\.|\[|\]|\*|[A-Za-z_]\w*|\d+)")
_DEEPEST = 8

Alias = Callable[[str], str | None]  # a macro's name → what it stands for: sk_state → __sk_common.skc_state


def resolve(text: str, variables: Mapping[str, Variable], alias: Alias) -> Variable | None:
    """None for what is no such name, or not kept where it can be read."""
    tokens = _tokens(text)
    try:
        return _resolved(tokens, variables, alias) if tokens else None
    except DAMAGED:
        return None


def _resolved(tokens: list[str], variables: Mapping[str, Variable], alias: Alias) -> Variable | None:
    stars = 0
    while tokens[stars] == "*" and stars + 1 < len(tokens):
        stars += 1
    found = _path(tokens[stars:], variables, alias, _DEEPEST)
    for _ in range(stars):
        found = _dereferenced(found, 0) if found is not None else None
    return found


def _tokens(text: str) -> list[str]:
    found: list[str] = []
    at = 0
    while at < len(text):
        match = _TOKENS.match(text, at)
        if match is None:
            return [] if text[at:].strip() else found
        found.append(match[1])
        at = match.end()
    return found


def _path(tokens: list[str], variables: Mapping[str, Variable], alias: Alias, depth: int) -> Variable | None:
    if not tokens or not depth:
        return None
    found, at = variables.get(tokens[0]), 1
    while found is not None and at < len(tokens):
        access = tokens[at]
        if access in ("->", ".") and at + 1 < len(tokens):
            names = _member_names(found, access, tokens[at + 1], alias)
            found = _members(found, access, names)
            at += 2
        elif access == "[":
            end = _closing(tokens, at)
            index = _index(tokens[at + 1 : end], variables, alias, depth - 1)
            found = _element(found, index) if index is not None else None
            at = end + 1
        else:
            return None
    return found


def _closing(tokens: list[str], at: int) -> int:
    depth = 0
    for index in range(at, len(tokens)):
        depth += {"[": 1, "]": -1}.get(tokens[index], 0)
        if not depth:
            return index
    return len(tokens)


def _index(tokens: list[str], variables: Mapping[str, Variable], alias: Alias, depth: int) -> Value | None:
    if len(tokens) == 1 and tokens[0].isdigit():
        return Constant(int(tokens[0]))
    found = _path(tokens, variables, alias, depth)
    if found is None or found.typed.kind != Kind.INTEGER or not found.typed.size:
        return None
    if isinstance(found.value, Constant):
        return found.value
    return Operation("sign" if found.typed.signed else "zero", found.value, Constant(8 * found.typed.size))


def _member_names(found: Variable, access: str, name: str, alias: Alias) -> list[str]:
    """A member by its name, or by that of the macro that stands for it."""
    structure = Types(found.typed.entry.cu).target(found.typed) if access == "->" else found.typed
    if structure is None or Types(structure.entry.cu).member(structure, name) is not None:
        return [name]
    body = alias(name)
    return re.split(r"\s*\.\s*", body) if body and re.fullmatch(r"\w+(\s*\.\s*\w+)*", body) else [name]


def _members(found: Variable, access: str, names: list[str]) -> Variable | None:
    current: Variable | None = _dereferenced(found, 0) if access == "->" else found
    for name in names:
        if current is None or current.typed.kind != Kind.STRUCTURE or not isinstance(current.value, Memory):
            return None
        member = Types(current.typed.entry.cu).member(current.typed, name)
        current = _at_member(current.value.address, member) if member is not None else None
    return current


def _at_member(address: Value, member: Member) -> Variable:
    size = 0 if member.typed.kind in (Kind.STRUCTURE, Kind.ARRAY) else member.typed.size
    value: Value = Memory(plus(address, member.offset), size)
    if member.bits:
        value = Operation("shr", value, Constant(member.shift))
        value = Operation("sign" if member.typed.signed else "zero", value, Constant(member.bits))
    return Variable(value, member.typed)


def _dereferenced(found: Variable, offset: int) -> Variable | None:
    if found.typed.kind != Kind.POINTER:
        return None
    target = Types(found.typed.entry.cu).target(found.typed)
    return _in_memory(plus(found.value, offset), target) if target is not None else None


def _in_memory(address: Value, typed: Typed) -> Variable:
    size = 0 if typed.kind in (Kind.STRUCTURE, Kind.ARRAY) else typed.size
    return Variable(Memory(address, size), typed)


def _element(found: Variable, index: Value) -> Variable | None:
    target = Types(found.typed.entry.cu).target(found.typed)
    if target is None or not target.size:
        return None
    if found.typed.kind == Kind.POINTER:
        address: Value = found.value
    elif isinstance(found.value, Memory):
        address = found.value.address
    else:
        return None
    if isinstance(index, Constant):
        return _in_memory(plus(address, index.value * target.size), target)
    return _in_memory(Operation("add", address, Operation("mul", index, Constant(target.size))), target)
