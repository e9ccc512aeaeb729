"""What one function can hand to its caller as an errno: the places that set one, the calls whose result it passes on.

A value leaves a function in one of several ways, its outlets: "return", "*err" (an int that a parameter points to) and
".error" (a member of an object that others read). Within the function, names are followed from the outlet back through
`a = b`, whatever the order of the statements; so all that can reach an outlet is found, and a little that cannot.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from profiler.debuginfo.c_calls import WRAPPERS, Called, calls_in, constructor, without_calls
from profiler.debuginfo.source_flow import ERRNO_NAMES, FlowNode, SourceFlow, Value
from profiler.debuginfo.source_guard import NONE, Guards

FORMAT = 4  # raise it when `summarize` finds other things than before: summaries are kept on disk
RETURN = "return"
ANY = "*"  # the errno is read from memory: whichever was put there
# names that hold an errno by custom; what a call is given under such a name it may hand back
ERROR_NAME = re.compile(r"(?:.*_)?(?:err|error|ret|rc|retval|res|result|status|errno|rv|ret_val)\d?$")
# copy to or from user memory whose errno is set by fix-up code in assembly
FAULTING = frozenset(["get_user", "__get_user", "put_user", "__put_user", "unsafe_get_user", "unsafe_put_user"])
NAME = re.compile(r"\*?[A-Za-z_]\w*(?:(?:->|\.)\w+)*")
NEGATED = re.compile(r"\(?-\s*\(?(?:\([\w\s]+\)\s*)?[a-z_]\w*(?:(?:->|\.)\w+)*\)?\)?")
CONSTANT_NAME = re.compile(r"\b[A-Z][A-Z0-9_]{3,}\b")
INT_POINTER = re.compile(r"\b(?:int|long|ssize_t)\s*\*\s*(\w+)")
STRUCT_POINTER = re.compile(r"\bstruct\s+(\w+)\s*(?:const\s*)?\*+\s*(?:const\s+)?(?:__\w+\s+)?(\w+)")
NO_NAMES = frozenset(["NULL", "true", "false", "sizeof", "struct", "int", "long", "unsigned", "void", "char", "const"])
# security/security.c: every hook that was registered under the name
# CLASS(filename, name)(pathname): a variable, and what its constructor is given
CLASS = re.compile(r"\bCLASS\(\s*(\w+)\s*,\s*(\w+)\s*\)\s*(\(.*\))")
READ_ONCE = re.compile(r"\bREAD_ONCE\(([^()]*)\)")
HOOK_CALLS = ("call_int_hook", "security_hook_heads")
SETS_RESULT = "syscall_set_return_value"  # arch/*/include/asm/syscall.h: the system call's result, set from outside it


@dataclass(frozen=True, slots=True)
class Place:
    """A statement that sets an errno; ANY where it takes it from memory."""

    outlet: str
    errno: str
    line: int
    condition: str | None
    condition_line: int


@dataclass(frozen=True, slots=True)
class Link:
    """A call by which what the callee hands out through `wanted` reaches `outlet`.

    `through` is the type of the object whose member is called, or the name of the pointer to it; `*N` in `wanted`
    counts the callee's parameters from 0. `callback`: not called here, but handed to the callee.
    """

    outlet: str
    name: str
    through: str
    wanted: str
    line: int
    condition: str | None = None
    condition_line: int = 0
    member: bool = False
    callback: bool = False


@dataclass(frozen=True, slots=True)
class Given:
    """A callee's parameter, by its number, that is given what a call gives: mkdir(dfd, getname(path))."""

    callee: str
    number: int
    value: Link


@dataclass(frozen=True, slots=True)
class Handed:
    """A parameter that is handed on to a callee whose result is returned; both by their numbers."""

    own: int
    callee: str
    number: int


@dataclass(frozen=True, slots=True)
class Summary:
    """`reads`: members whose value is returned. `calls`: every function called by name. `passes`: parameters that may
    be returned, as an error pointer is that is passed on."""

    places: tuple[Place, ...]
    links: tuple[Link, ...]
    reads: tuple[str, ...]
    calls: tuple[str, ...]
    passes: tuple[int, ...] = ()
    given: tuple[Given, ...] = ()
    handed: tuple[Handed, ...] = ()

    def dump(self) -> str:
        given = [[entry.callee, entry.number, _row(entry.value)] for entry in self.given]
        rows = [list(map(_row, entries)) for entries in (self.places, self.links, self.handed)]
        return json.dumps([*rows, given, self.reads, self.calls, self.passes], separators=(",", ":"))

    @classmethod
    def load(cls, text: str) -> Summary:
        places, links, handed, given, reads, calls, passes = json.loads(text)
        return cls(
            tuple(Place(*place) for place in places),
            tuple(Link(*link) for link in links),
            tuple(reads),
            tuple(calls),
            tuple(passes),
            tuple(Given(callee, number, Link(*value)) for callee, number, value in given),
            tuple(Handed(*entry) for entry in handed),
        )


def _row(entry: Place | Link | Handed) -> list[Any]:
    return [getattr(entry, name) for name in entry.__slots__]


Errnos = Callable[[str], tuple[str, ...]]  # of a macro: the errnos that its body names


def summarize(flow: SourceFlow, macro_errnos: Errnos, head: str, body: str) -> Summary:
    """`head` and `body` are the function's text, for the types that its declarations name."""
    return _Summarizer(flow, macro_errnos, head, body).summary()


class _Summarizer:
    def __init__(self, flow: SourceFlow, macro_errnos: Errnos, head: str, body: str) -> None:
        self.flow = flow
        self.macro_errnos = macro_errnos
        self.nodes = [node for node in flow.nodes if node.index in flow.reachable]
        self.parameters = _parameters(head)
        self.int_pointers = set(INT_POINTER.findall(head)) & set(self.parameters)
        self.types: dict[str, str] = {name: kind for kind, name in STRUCT_POINTER.findall(head + ";" + body)}
        self.guards = Guards(flow)
        self.used_in: dict[str, frozenset[int]] = {}
        self.set_in: dict[str, list[tuple[FlowNode, Value]]] = defaultdict(list)
        self.by_address: dict[str, list[tuple[FlowNode, str]]] = defaultdict(list)
        for node in self.nodes:
            if made := CLASS.search(node.text):
                call = constructor(made[1])
                self.set_in[made[2]].append((node, Value(call + made[3], (), (call,))))
            for assignment in node.assigns:
                target = "".join(assignment.target.split())
                if assignment.operator == "&":
                    self.by_address[target].append((node, assignment.value.expression))
                else:
                    self.set_in[target].append((node, assignment.value))

    def summary(self) -> Summary:
        places: list[Place] = []
        links: list[Link] = []
        returned = self._reaching(name for node in self.nodes if node.returned for name in _names(node.returned))
        for node in self.nodes:
            if node.returned is not None:
                places.extend(self._places(RETURN, node, node.returned, None))
                links.extend(self._links(RETURN, node, node.returned))
            if SETS_RESULT in node.calls:
                guard = self.guards.of(node)
                places.extend(Place(RETURN, errno, node.first_line, *guard) for errno in node.errnos or [ANY])
        self._outlet(RETURN, returned, places, links)
        for parameter in sorted(self.int_pointers):
            outlet = f"*{self.parameters.index(parameter)}"
            self._outlet(outlet, self._reaching(["*" + parameter]), places, links)
            links.extend(self._passed_on(outlet, parameter))
        for member, targets in sorted(self._members().items()):
            self._outlet(member, self._reaching(targets), places, links)
        reads = sorted({_member(name) for name in returned if _member(name)})
        links.extend(self._filled({(_member(name), re.split(r"->|\.", name)[0]) for name in returned if _member(name)}))
        calls = dict.fromkeys(call for node in self.nodes for call in node.calls)
        passes = [number for number, parameter in enumerate(self.parameters) if parameter in returned]
        given, handed = self._arguments({link.name for link in links if link.outlet == RETURN})
        found = (places, links, reads, calls, passes, given, handed)
        return Summary(*(tuple(dict.fromkeys(entries)) for entries in found))  # type: ignore[arg-type]

    def _arguments(self, callees: set[str]) -> tuple[list[Given], list[Handed]]:
        """What the functions whose result is returned are given."""
        given: list[Given] = []
        handed: list[Handed] = []
        values = [(node, value) for node in self.nodes for value in _values(node)]
        for node, value in values:
            for called in calls_in(value.expression):
                if called.name not in callees:
                    continue
                for number, argument in enumerate(called.arguments):
                    if argument in self.parameters:
                        handed.append(Handed(self.parameters.index(argument), called.name, number))
                    sources = [(node, argument)] if "(" in argument else []
                    sources += [(at, source.expression) for at, source in self.set_in.get(argument, ())]
                    for at, source in sources:
                        given += [Given(called.name, number, link) for link in self._giving(at, source)]
        return given, handed

    def _giving(self, node: FlowNode, expression: str) -> Iterator[Link]:
        """The calls that give an argument its value."""
        for called in calls_in(expression):
            if called.depth == 0 and called.name not in WRAPPERS:
                yield from (link for link in self._called(RETURN, RETURN, node, called) if not link.callback)

    def _reaching(self, names: Iterable[str]) -> set[str]:
        """The names whose value may become that of one of `names`."""
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting.extend(source for _, value in self.set_in.get(name, ()) for source in _names(value))
        return found

    def _members(self) -> dict[str, list[str]]:
        """Members that are set to an errno or, under a name for errors, to what a call gives: `.error` → targets."""
        found: dict[str, list[str]] = defaultdict(list)
        for target in list(self.set_in):
            member = _member(target)
            named = member and ERROR_NAME.match(member[1:])
            values = (
                [value for name in self._reaching([target]) for _, value in self.set_in.get(name, ())] if member else []
            )
            if any(value.errnos or (named and value.calls) for value in values):
                found[member].append(target)
        return found

    def _outlet(self, outlet: str, names: set[str], places: list[Place], links: list[Link]) -> None:
        for name in sorted(names):
            for node, value in self.set_in.get(name, ()):
                places.extend(self._places(outlet, node, value, name))
                links.extend(self._links(outlet, node, value))
            for node, call in self.by_address.get(name, ()):
                links.extend(self._given_address(outlet, name, node, call))

    def _places(self, outlet: str, node: FlowNode, value: Value, target: str | None) -> Iterator[Place]:
        errnos = set(value.errnos)
        for word in set(CONSTANT_NAME.findall(value.expression)) - ERRNO_NAMES:
            errnos.update(self.macro_errnos(word))
        if FAULTING & set(value.calls):
            errnos.add("EFAULT")
        if NEGATED.fullmatch(value.expression.strip()):
            errnos.add(ANY)
        for errno in sorted(errnos):
            used = self._uses(target) if target is not None else None
            yield Place(outlet, errno, node.first_line, *self.guards.of(node, target, used))

    def _uses(self, target: str) -> frozenset[int]:
        """The nodes that take the value of a variable; none for what is read behind the function."""
        if target not in self.used_in:
            using = [node.index for node in self.nodes if any(target in _names(value) for value in _values(node))]
            self.used_in[target] = frozenset(using)
        return self.used_in[target]

    def _links(self, outlet: str, node: FlowNode, value: Value) -> Iterator[Link]:
        for called in calls_in(value.expression):
            if called.depth == 0 and called.name not in WRAPPERS:
                yield from self._called(outlet, RETURN, node, called)

    def _called(self, outlet: str, wanted: str, node: FlowNode, called: Called) -> Iterator[Link]:
        if called.name in HOOK_CALLS and called.arguments:
            yield Link(outlet, called.arguments[0], "LSM_HOOK_INIT", wanted, node.first_line, member=True)
            return
        if not called.through and called.name in self.set_in:
            yield from self._by_variable(outlet, wanted, node, called.name)
            return
        through = self.types.get(called.through, called.through)
        is_macro = called.name.upper() == called.name or self.macro_errnos(called.name)
        guard = self.guards.of(node) if is_macro else NONE
        is_member = bool(called.through) or called.name in self.parameters
        yield Link(outlet, called.name, through, wanted, node.first_line, guard[0], guard[1], member=is_member)
        if wanted != RETURN:
            return
        for argument in called.arguments:
            yield from self._callback(outlet, node, called, argument)

    def _by_variable(self, outlet: str, wanted: str, node: FlowNode, variable: str) -> Iterator[Link]:
        """`fn = no_llseek; ... return fn(file);`: what the variable was set to."""
        for _, value in self.set_in[variable]:
            *bases, name = re.split(r"->|\.", value.expression.strip())
            if re.fullmatch(r"[a-z_]\w*", name):
                through = self.types.get(bases[-1], bases[-1]) if bases else ""
                yield Link(outlet, name, through, wanted, node.first_line, member=bool(bases))

    def _callback(self, outlet: str, node: FlowNode, called: Called, argument: str) -> Iterator[Link]:
        """A function that is handed to a callee, or a member that a macro is given to call: INDIRECT_CALL_1(p->f, g)"""
        word = READ_ONCE.sub(r"\1", argument.removeprefix("&").strip())
        if re.fullmatch(r"[a-z_]\w*_\w+", word) and word not in self.parameters and word not in self.set_in:
            yield Link(outlet, word, "", RETURN, node.first_line, callback=True)
        elif called.name.isupper() and re.fullmatch(r"[a-z_]\w*(?:(?:->|\.)\w+)+", word):
            *_, base, member = re.split(r"->|\.", word)
            yield Link(outlet, member, self.types.get(base, base), RETURN, node.first_line, member=True, callback=True)

    def _given_address(self, outlet: str, name: str, node: FlowNode, call: str) -> Iterator[Link]:
        for called in calls_in(call):
            for number, argument in enumerate(called.arguments):
                if argument.replace(" ", "") == "&" + name:
                    yield from self._called(outlet, f"*{number}", node, called)

    def _filled(self, reads: set[tuple[str, str]]) -> Iterator[Link]:
        """Calls that are given the object whose member is returned: `x = accept(sk, &arg); return arg.err;`"""
        bases = {base for _, base in reads}
        for node in self.nodes:
            for called in calls_in(node.text) if node.calls and any(base in node.text for base in bases) else ():
                given = {argument.removeprefix("&").strip() for argument in called.arguments}
                for member, base in sorted(reads):
                    if base in given:
                        yield from self._called(member, member, node, called)

    def _passed_on(self, outlet: str, parameter: str) -> Iterator[Link]:
        """Calls that are given the pointer as it is."""
        for node in self.nodes:
            for called in calls_in(node.text) if re.search(rf"\b{parameter}\b", node.text) else ():
                for number, argument in enumerate(called.arguments):
                    if argument == parameter:
                        yield from self._called(outlet, f"*{number}", node, called)


def _values(node: FlowNode) -> Iterator[Value]:
    yield from (assignment.value for assignment in node.assigns if assignment.operator == "=")
    if node.returned is not None:
        yield node.returned


def _names(value: Value) -> list[str]:
    """The variables that a value may be a copy of: those outside calls, and what calls are given as an error."""
    names = NAME.findall(without_calls(value.expression))
    for called in calls_in(value.expression):
        names += [argument for argument in called.arguments if ERROR_NAME.fullmatch(argument.lower())]
    return [name for name in names if name not in NO_NAMES and name.upper() != name]


def _member(name: str) -> str:
    parts = re.split(r"->|\.", name)
    return "." + parts[-1] if len(parts) > 1 else ""


def _parameters(head: str) -> list[str]:
    """Names of the parameters of a function's head; of a SYSCALL_DEFINE those behind the call's name."""
    calls = calls_in(head)
    if not calls:
        return []
    called = calls[0]
    listed = called.arguments[2::2] if "SYSCALL" in called.name else called.arguments
    return [_last_name(term) for term in listed]


def _last_name(term: str) -> str:
    pointer = re.search(r"\(\s*\*\s*(\w+)", term)
    names = re.findall(r"[A-Za-z_]\w*", term.partition("[")[0])
    return pointer[1] if pointer else names[-1] if names else ""
