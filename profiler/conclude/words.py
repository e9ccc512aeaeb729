"""The verdict in plain words."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable

from profiler.conclude.places import Code, machine_site, site_address
from profiler.graph import FunctionGraph
from profiler.infer.slice import OriginKind
from profiler.infer.verdict import Located
from profiler.model import Branch, ErrorSite, LoadResult, Manifest

PROFILE_ONLY = "a profile per source line; no system call and errno were named, so there is no verdict"
NO_WHOLE_CALL = "the execution log holds no whole call that failed so: what it says is left out"
NO_WHOLE_CALL_PROBED = "the probes saw no whole call that failed so: what they say is left out"
NOTHING_SEEN = "nothing was taken that shows what ran: samples, probes or exact would name the place"
SEE_WHAT_RUNS = "run again with what shows it: --evidence samples,probes, or leave the choice to auto"
_WORTH_TELLING = 0.01  # of the call's samples
NAME_THE_CALL = "import again with --syscall NAME --errno NAME for a verdict"


def named(syscall: str, errno: str, site: ErrorSite, branch: Branch | None) -> str:
    where = f"{site.function}() at {_line(site)}"
    sentence = f"{syscall}() fails with {errno} because {where} returns it"
    if branch is None:
        return f"{sentence}, whatever the arguments"
    condition = f"`{branch.condition}`" if branch.condition else "the condition"
    outcome = {True: " was true", False: " was false", None: " decided so"}[branch.outcome]
    return f"{sentence}: {condition} at {_line(branch)}{outcome}"


def _line(place: ErrorSite | Branch) -> str:
    """Where there is no line, as in assembly, the instruction."""
    return f"{place.file}:{place.line}" if place.file else f"{place.address} (no line is known)"


def undecided(syscall: str, errno: str, places: list[ErrorSite]) -> str:
    names = [f"{site.function}() at {_line(site)}" for site in places]
    if not names:
        return f"no place was found from which {syscall}() could return {errno}"
    if len(names) == 1:
        return f"{syscall}() may return {errno} from {names[0]}, but the evidence does not settle it"
    return f"the evidence does not tell apart where {errno} comes from: {' or '.join(names)}"


def read_from(expression: str | None) -> str:
    """`expression`: of memory that the errno was read from, None where it is not known."""
    return f"; it was put into `{expression}` before, and read from there" if expression else ""


def no_entry(syscall: str, symbol: str, release: str) -> str:
    return f"the kernel {release} has no function {symbol}: it does not know the system call {syscall}()"


def too_few(syscall: str, count: int) -> str:
    return f"only {count} samples were taken within {syscall}(): too few to name a path"


def nameless(samples: Counter[int], on_path: int) -> list[str]:
    """What is to be said of samples within the call that lie in code of no known symbol, by address."""
    total = samples.total()
    if total < _WORTH_TELLING * (total + on_path) or not total:
        return []
    (address, _), *_ = samples.most_common(1)
    return [f"{total} samples within the call lie in code of no known symbol, most of them at {address:#x}: left out"]


def undecoded(graphs: Iterable[FunctionGraph]) -> list[str]:
    """What is to be said of functions on the path whose bytes are not all instructions."""
    said = (
        f"{graph.name}() does not decode at {graph.undecoded[0]:#x}: what it does from there on is not known"
        for graph in graphs
        if graph.undecoded
    )
    return list(dict.fromkeys(said))


def longer(manifest: Manifest | None) -> list[str]:
    """The command that gathers more evidence of the same."""
    if manifest is None or manifest.target == "import":
        return ["record for longer, with callchains: perf record -a -g -F 8000 -- sleep 30"]
    load = f"--scenario {manifest.scenario}" if manifest.scenario else ""
    program = ""
    if not manifest.scenario:
        load = f"--syscall {manifest.syscall} --errno {manifest.errno}"
        program = f" -- {shlex.join(manifest.program)}"
    return [f"`whyerrno run {load} --target {shlex.quote(manifest.target)} --seconds 30{program}`"]


def not_reproduced(syscall: str, errno: str, load: LoadResult) -> str:
    others = {name: count for name, count in load.results.items() if count and name != errno}
    if others.get("0"):
        seen = "it succeeded"
    elif others:
        most = max(others, key=lambda name: others[name])
        seen = f"it failed with {most}"
    else:
        seen = "it was not called"
    return f"{syscall}() did not fail with {errno}: {seen}"


def mixture(errno: str, results: dict[str, int]) -> str:
    """A warning with the share of each way in which the calls ended."""
    total = sum(results.values())
    ended = sorted(((count, name) for name, count in results.items() if count), reverse=True)
    shares = [f"{_share(count / total)} {'succeeded' if name == '0' else name}" for count, name in ended]
    return (
        f"the calls did not all end with {errno} ({', '.join(shares)}): what was recorded is a mixture of their paths, "
        "and the verdict may mix them up"
    )


def _share(part: float) -> str:
    """As a percentage that is never 0% or 100% by rounding."""
    return "under 0.1%" if part < 0.001 else "over 99.9%" if part > 0.999 else f"{100 * part:.3g}%"


def excluded_by(code: Code, out: Located, best: Located) -> str:
    """Why a candidate is out, from what was and was not sampled."""
    origin, call = out.origin, out.calls[-1]
    same = 0
    while same < min(len(out.calls), len(best.calls)) and out.calls[same].node is best.calls[same].node:
        same += 1
    if origin.kind == OriginKind.CALL:
        callee = call.graph.blocks[origin.address].call
        name = code.function_at(callee.target) if callee is not None and callee.target is not None else None
        seen = call.samples.in_callees.get(origin.address, 0)
        what = f"{name[0]}()" if name else "what is called there"
        if call.node.executed is not None:
            logged = "in the call that was logged"
            if not call.node.executed[origin.address]:
                return f"{what} was not called {logged}" if name else f"nothing was called there {logged}"
            return f"{what} was called {logged}, but the value returned is not its"
        return f"{what} has {seen} samples from this call, and its return value is not the one returned"
    block = _block_of(out, site_address(out))
    if block is not None and call.node.executed is not None:
        if not call.node.executed.get(block):
            return "not executed in the call that was logged"
        return "executed in the call that was logged, but the value that it returned came from elsewhere"
    if block is not None:
        hits = call.samples.own.get(block, 0)
        due = call.per_exposure
        if not hits and due >= 2:
            return f"never sampled, where some {due:.0f} samples are due if it runs in every call"
        if not hits:
            return "never sampled, and the walk that explains the samples does not pass it"
        if hits:
            return f"its code ran ({hits} samples), but the walk that explains the samples returns another value"
    if same < len(out.calls):
        return f"{out.calls[-1].node.name}() ran, but the walk that explains its samples returns something else"
    return "the walk that explains the samples does not pass it"


def _block_of(located: Located, address: int) -> int | None:
    for start, block in located.calls[-1].graph.blocks.items():
        if block.start <= address < block.end:
            return start
    return None


def places(code: Code, candidates: list[Located], least: float) -> list[ErrorSite]:
    """Distinct source places of the candidates above a probability."""
    found: dict[tuple[str, str, int], ErrorSite] = {}
    for candidate in candidates:
        if candidate.probability >= least:
            site = machine_site(code, candidate)
            found.setdefault((site.function, site.file, site.line), site)
    return list(found.values())
