"""Samples with callchains, gathered into the calling contexts of one system call.

A node is one function as called from one place. It holds the samples taken in the function itself
(by address) and, through its children, those of its callees: each of these proves that the call
they were made from was executed, which a flat profile cannot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from profiler.graph import FunctionGraph

# Interrupts and exceptions: frames inwards of these belong to no system call, and the frame outwards
# holds the interrupted instruction itself.
_ENTRIES_FROM_OUTSIDE = ("asm_sysvec_", "asm_common_interrupt", "asm_exc_", "common_interrupt_return", "asm_fred_")
# Code that mitigations jump through; the ip there belongs to the function that jumped.
THUNKS = ("__x86_return_thunk", "__x86_indirect", "srso_", "retbleed_", "its_return", "__SCT__")
_MOST_TAIL_CALLS = 4
_AT_ONCE = 1 << 15  # samples: what is computed of so many stays in the processor's cache


@dataclass(slots=True)
class CallNode:
    """One function in one calling context."""

    entry: int  # link address of the function
    name: str
    parent: CallNode | None
    return_address: int | None  # in the parent; None where it was reached by a tail call, or is the root
    tail_from: int | None = None  # the jump in the parent that reached it
    own: Counter[int] = field(default_factory=Counter)  # address → samples with their ip here
    children: dict[tuple[int | None, int], CallNode] = field(default_factory=dict)  # by (return address, entry)
    executed: Counter[int] | None = None  # address → times executed in one call; None: no execution log
    returned: int | None = None  # the 64-bit value it returned, where a log shows it

    def total(self) -> int:
        """Samples here and below."""
        return self.own.total() + sum(child.total() for child in self.children.values())

    def child(self, return_address: int | None, entry: int, name: str) -> CallNode:
        key = (return_address, entry)
        if key not in self.children:
            self.children[key] = CallNode(entry, name, self, return_address)
        return self.children[key]

    def called_at(self, return_address: int) -> list[CallNode]:
        return [child for (at, _), child in self.children.items() if at == return_address]

    def walk(self) -> Iterable[CallNode]:
        yield self
        for child in self.children.values():
            yield from child.walk()


@dataclass(frozen=True, slots=True)
class Symbols:
    """What the tree asks of the kernel: the function that holds an address, and its graph."""

    function_at: Callable[[int], tuple[str, int, int] | None]  # (name, start, end)
    graph: Callable[[int], FunctionGraph]  # by any address in the function's start symbol


@dataclass(frozen=True, slots=True)
class Gathered:
    root: CallNode
    on_path: int  # samples that went into the tree
    outside: int  # samples of the load that were not within this system call
    unknown: int  # samples whose chain holds an address of no known symbol
    nameless: Counter[int] = field(default_factory=Counter)  # such addresses within the call → samples


def unique_chains(
    start: NDArray[np.int64], chain: NDArray[np.uint64], rows: NDArray[np.int64]
) -> list[tuple[tuple[int, ...], int]]:
    """Distinct callchains among `rows`, with how often each occurs, in a fixed order.

    Chains are told apart by a 64-bit hash of addresses and depths, so that the cost in Python is that of
    the distinct ones alone; a collision (one in 2**64 for each pair) would merge two chains.
    """
    found: dict[int, tuple[tuple[int, ...], int]] = {}
    for at in range(0, len(rows), _AT_ONCE):
        part = rows[at : at + _AT_ONCE]
        lengths = start[part + 1] - start[part]
        part, lengths = part[lengths > 0], lengths[lengths > 0]
        if len(part):
            _count_chains(found, start[part], lengths, chain)
    return sorted(found.values())


def _count_chains(
    found: dict[int, tuple[tuple[int, ...], int]],
    start: NDArray[np.int64],
    lengths: NDArray[np.int64],
    chain: NDArray[np.uint64],
) -> None:
    """Adds chains, none of them empty, to `found`, by their hash."""
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    depth = np.arange(bounds[-1]) - np.repeat(bounds[:-1], lengths)
    values = chain[np.repeat(start, lengths) + depth]
    with np.errstate(over="ignore"):
        mixed = (values ^ (depth.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))) * np.uint64(0xD6E8FEB86659FD93)
        mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
        hashes = np.add.reduceat(mixed, bounds[:-1])
    distinct, first, counts = np.unique(hashes, return_index=True, return_counts=True)
    for key, i, count in zip(distinct.tolist(), first.tolist(), counts.tolist(), strict=True):
        known = found.get(key)
        addresses = known[0] if known is not None else tuple(values[bounds[i] : bounds[i + 1]].tolist())
        found[key] = (addresses, count + (known[1] if known is not None else 0))


def gather(
    chains: Iterable[tuple[tuple[int, ...], int]], entry: int, dispatchers: set[str], symbols: Symbols
) -> Gathered:
    """The calling contexts under the system call's entry function at `entry`.

    `dispatchers` names the functions that call entry functions (do_syscall_64, x64_sys_call): where
    the entry function left by a tail call it is missing from the chain, and is put back.
    """
    found = symbols.function_at(entry)
    assert found is not None
    root = CallNode(entry, found[0], None, None)
    on_path = outside = unknown = 0
    nameless: Counter[int] = Counter()
    for chain, count in chains:
        frames = _frames(chain, symbols)
        if frames is None:
            unknown += count
            nameless.update(dict.fromkeys(_nameless(chain, entry, dispatchers, symbols), count))
        elif _place(root, frames, count, dispatchers, symbols):
            on_path += count
        else:
            outside += count
    pending = [root]
    while pending:
        node = pending.pop()
        _restore_tail_calls(node, symbols)
        pending += node.children.values()
    return Gathered(root, on_path, outside, unknown, nameless)


def gather_flat(addresses: Mapping[int, int], entry: int, symbols: Symbols) -> Gathered:
    """The same for samples without callchains: functions are placed where direct calls from the entry lead.

    A function's samples are given to every call site of it that is reached, since nothing tells them apart;
    what is reached through function pointers alone stays outside.
    """
    by_function: dict[int, Counter[int]] = {}
    unknown = 0
    for address, count in addresses.items():
        symbol = symbols.function_at(address)
        if symbol is None:
            unknown += count
        else:
            by_function.setdefault(symbol[1], Counter())[address] += count
    root = CallNode(entry, _name(entry, symbols), None, None, own=by_function.get(entry, Counter()))
    placed = {entry}
    pending = [root]
    while pending:
        node = pending.pop(0)
        for block in symbols.graph(node.entry).blocks.values():
            target = block.call.target if block.call is not None else None
            if target is None or target not in by_function or target == node.entry:
                continue
            assert block.call is not None
            child = node.child(None if block.call.tail else block.end, target, _name(target, symbols))
            child.tail_from = block.call.address if block.call.tail else None
            child.own = by_function[target]
            if target not in placed:
                placed.add(target)
                pending.append(child)
    on_path = sum(by_function[function].total() for function in placed if function in by_function)
    return Gathered(root, on_path, sum(addresses.values()) - on_path - unknown, unknown)


_Frame = tuple[int, int, str]  # address, entry of its function, name


def _frames(chain: tuple[int, ...], symbols: Symbols) -> list[_Frame] | None:
    """The chain outermost first, without interrupts taken on top and without thunks."""
    frames: list[_Frame] = []
    exact = True  # the sampled instruction, and one that an interrupt came in on; all others are return addresses
    for depth, address in enumerate(chain):
        # A return address may be the first byte behind a function that ends in a call.
        symbol = symbols.function_at(address if exact else address - 1)
        if symbol is None and exact and depth + 1 < len(chain):
            symbol = _faulting(address, chain[depth + 1], symbols)
        if symbol is None:
            return None
        name, start, _ = symbol
        exact = name.startswith(_ENTRIES_FROM_OUTSIDE)
        if exact:
            frames.clear()
        elif not (depth == 0 and name.startswith(THUNKS)):
            frames.append((address, start, name))
    return frames[::-1]


def _faulting(address: int, return_address: int, symbols: Symbols) -> tuple[str, int, int] | None:
    """The function called there, where `address`, of no symbol, is code that a fault in it leads to: its graph has
    that code (of `__get_user_4`, for one, it is shared with others and begins at a local label)."""
    caller = symbols.function_at(return_address - 1)
    if caller is None:
        return None
    blocks = symbols.graph(caller[1]).blocks.values()
    callee = next((block.call.target for block in blocks if block.call and block.end == return_address), None)
    found = symbols.function_at(callee) if callee is not None else None
    if found is None or found[1] != callee:
        return None
    inside = any(block.start <= address < block.end for block in symbols.graph(callee).blocks.values())
    return found if inside else None


def _nameless(chain: tuple[int, ...], entry: int, dispatchers: set[str], symbols: Symbols) -> list[int]:
    """The innermost address of no known symbol, within the system call and below what came in from outside."""
    found: list[int] = []
    for address in chain:
        symbol = symbols.function_at(address)
        if symbol is None:
            found = found or [address]
        elif symbol[0].startswith(_ENTRIES_FROM_OUTSIDE):
            found = []
        elif symbol[1] == entry or symbol[0] in dispatchers:
            return found
    return []


def _place(root: CallNode, frames: list[_Frame], count: int, dispatchers: set[str], symbols: Symbols) -> bool:
    """Adds one chain to the tree; False where it is not within the system call."""
    at = next((i for i, frame in enumerate(frames) if frame[1] == root.entry), None)
    if at is None:
        # The entry function may have gone by a tail call: then its callee stands right behind a dispatcher.
        before = max((i for i, frame in enumerate(frames) if frame[2] in dispatchers), default=None)
        if before is None or before + 1 >= len(frames):
            return False
        if _tail_route(root.entry, frames[before + 1][1], symbols) is None:
            return False  # another system call, or what the dispatcher does around one
        node = root.child(None, frames[before + 1][1], frames[before + 1][2])
        at = before + 1
    else:
        node = root
    for outer, (_, start, name) in zip(frames[at:], frames[at + 1 :], strict=False):
        node = node.child(outer[0], start, name)
    node.own[frames[-1][0]] += count
    return True


def _restore_tail_calls(node: CallNode, symbols: Symbols) -> None:
    """Puts a function that was reached by tail calls below the one that its caller called."""
    for (return_address, entry), child in list(node.children.items()):
        expected = _expected(node, return_address, child, symbols)
        if expected is None or expected == entry:
            continue
        jumper = node.children.get((return_address, expected))
        jumps = _tail_route(expected, entry, symbols, jumper.own if jumper is not None else ())
        if jumps is None:
            continue
        del node.children[return_address, entry]
        at = node.child(return_address, expected, _name(expected, symbols)) if return_address is not None else node
        for jump, target in jumps:
            at = at.child(None, target, _name(target, symbols))
            at.tail_from = jump
        _merge(child, at)


def _expected(node: CallNode, return_address: int | None, child: CallNode, symbols: Symbols) -> int | None:
    """The function that a call site called: by its instruction, or by the siblings that may have jumped on."""
    if return_address is None:
        return node.entry if child.tail_from is None else None
    for block in symbols.graph(node.entry).blocks.values():
        if block.end == return_address and block.call is not None:
            if block.call.target is not None:
                return block.call.target
            break
    # An indirect call: of two functions there, the one with less code is the trampoline that jumped on to the other.
    size = len(symbols.graph(child.entry).blocks)
    siblings = [s for s in node.called_at(return_address) if len(symbols.graph(s.entry).blocks) < size]
    return next((s.entry for s in siblings if _tail_route(s.entry, child.entry, symbols)), None)


def _tail_route(start: int, goal: int, symbols: Symbols, seen_at: Iterable[int] = ()) -> list[tuple[int, int]] | None:
    """Tail jumps (jump, function) that lead from one function to another, the fewest; None where none do. Of several
    to the same function one that was certainly taken: `seen_at` are addresses at which the first function was seen."""
    routes: list[tuple[int, list[tuple[int, int]]]] = [(start, [])]
    seen = {start}
    for _ in range(_MOST_TAIL_CALLS):
        longer: list[tuple[int, list[tuple[int, int]]]] = []
        for function, route in routes:
            for jump, target in _certain_first(tail_jumps(function, symbols), function, symbols, seen_at):
                if target is None or target == goal:
                    return [*route, (jump, goal)]
                if target not in seen:
                    seen.add(target)
                    longer.append((target, [*route, (jump, target)]))
        routes = longer
    return None


def _certain_first(
    jumps: list[tuple[int, int | None]], function: int, symbols: Symbols, seen_at: Iterable[int]
) -> list[tuple[int, int | None]]:
    """Those first that end a block in which the function was seen, and which leads nowhere else."""
    if len(jumps) < 2 or not seen_at:
        return jumps
    ends = [block for block in symbols.graph(function).blocks.values() if block.call and not block.edges]
    taken = {b.call.address for b in ends if b.call and any(b.start <= address < b.end for address in seen_at)}
    return sorted(jumps, key=lambda jump: (jump[1] is None, jump[0] not in taken))


def tail_jumps(function: int, symbols: Symbols) -> list[tuple[int, int | None]]:
    """(jump, target) of each tail call of a function, direct ones first; target None where it is indirect."""
    if symbols.function_at(function) is None:
        return []
    calls = [block.call for block in symbols.graph(function).blocks.values() if block.call and block.call.tail]
    return sorted(((call.address, call.target) for call in calls), key=lambda jump: (jump[1] is None, jump[0]))


def _merge(source: CallNode, into: CallNode) -> None:
    into.own.update(source.own)
    for (return_address, entry), child in source.children.items():
        _merge(child, into.child(return_address, entry, child.name))


def _name(entry: int, symbols: Symbols) -> str:
    found = symbols.function_at(entry)
    return found[0] if found else f"{entry:#x}"


def graft(samples: CallNode, onto: CallNode) -> None:
    """Adds the samples of one tree to the same contexts of another; those of contexts it lacks are left out."""
    if samples.entry != onto.entry:
        return
    onto.own.update(samples.own)
    for key, child in samples.children.items():
        if key in onto.children:
            graft(child, onto.children[key])


def counts_by_return_address(node: CallNode) -> Mapping[int, int]:
    """Samples in callees, by the return address of the call they were made from; of a tail call, by the jump's own
    address made negative, since that may be the return address of the call before it."""
    counts: Counter[int] = Counter()
    for (return_address, _), child in node.children.items():
        if return_address is not None:
            counts[return_address] += child.total()
        elif child.tail_from is not None:
            counts[-child.tail_from] += child.total()
    return counts
