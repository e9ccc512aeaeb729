"""Machine places in source terms: chains of calls, sites, branches."""

from __future__ import annotations

import itertools
from typing import Protocol

from profiler.graph import FunctionGraph
from profiler.infer.decision import Decision
from profiler.infer.slice import OriginKind
from profiler.infer.verdict import Located, SolvedCall
from profiler.model import Branch, ChainLink, ErrorSite, SourceLocation

WRAPPERS = ("__x64_sys_", "__se_sys_", "__arm64_sys_", "__ia32_sys_")
_CALLING_CONVENTION = (*WRAPPERS, "__do_sys_")


class Code(Protocol):
    """What is asked of a kernel's code; profiler.debuginfo.code.KernelCode."""

    def frames(self, address: int) -> tuple[SourceLocation, ...]: ...
    def name(self, address: int) -> str: ...
    def graph(self, entry: int) -> FunctionGraph: ...
    def function_at(self, address: int) -> tuple[str, int, int] | None: ...


class Source(Protocol):
    """What is asked of the kernel's source; profiler.debuginfo.source.SourceTree."""

    def text(self, file: str) -> list[str] | None: ...


def site_address(located: Located) -> int:
    """The instruction that brought the errno in: the constant, or the call that returned it."""
    origin = located.origin
    if origin.kind == OriginKind.CALL:
        return located.calls[-1].graph.blocks[origin.address].last
    return origin.address


def call_address(caller: SolvedCall, callee: SolvedCall) -> int:
    """The call instruction (or tail jump) in `caller` that led to `callee`."""
    start = caller.origin_of(callee).address
    return caller.graph.blocks[start].last


def chain_of(code: Code, calls: tuple[SolvedCall, ...], end: int) -> list[ChainLink]:
    """From the entry down to the function, inlined or not, that holds the address `end`."""
    links: list[ChainLink] = []
    came_from: SourceLocation | None = None
    came_by = ""
    addresses = [call_address(outer, inner) for outer, inner in itertools.pairwise(calls)]
    for call, address in zip(calls, [*addresses, end], strict=True):
        frames = code.frames(address) or (SourceLocation(call.node.name, "", 0),)
        for depth in range(len(frames) - 1, -1, -1):
            inlined = depth < len(frames) - 1
            at = frames[depth + 1] if inlined else came_from
            file, line = (at.file, at.line) if at else (frames[depth].file, 0)
            links.append(ChainLink(frames[depth].function, file, line, inlined, "" if inlined else came_by))
        came_from, came_by = frames[0], code.name(address)
    return _without_convention(links)


def down_to(links: list[ChainLink], branch: Branch | None) -> list[ChainLink]:
    """The chain continued into the functions inlined where the branch lies, below the chain's last function."""
    if branch is None:
        return links
    frames = [SourceLocation(branch.function, branch.file, branch.line), *branch.inlined_from]
    last = next((i for i, frame in enumerate(frames) if frame.function == links[-1].function), 0)
    deeper = [
        ChainLink(frames[depth].function, frames[depth + 1].file, frames[depth + 1].line, True, "")
        for depth in range(last - 1, -1, -1)
    ]
    return [*links, *deeper]


def _without_convention(links: list[ChainLink]) -> list[ChainLink]:
    """Drops the wrappers that SYSCALL_DEFINE makes inside one another, but for the outermost."""
    kept = [link for index, link in enumerate(links) if index == 0 or not link.function.startswith(_CALLING_CONVENTION)]
    return kept or links


def machine_site(code: Code, located: Located) -> ErrorSite:
    address = site_address(located)
    frame = _first(code, address)
    return ErrorSite(frame.function, frame.file, frame.line, code.name(address))


def machine_branch(code: Code, decision: Decision) -> Branch:
    frames = code.frames(decision.address)
    innermost = _first(code, decision.address)
    return Branch(
        innermost.function,
        innermost.file,
        innermost.line,
        code.name(decision.address),
        None,
        None,
        list(frames[1:]),
    )


def _first(code: Code, address: int) -> SourceLocation:
    frames = code.frames(address)
    return frames[0] if frames else SourceLocation(code.name(address).partition("+")[0], "", 0)
