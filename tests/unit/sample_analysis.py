"""Analyses made up for the report tests: an invented kernel with invented code, plain, hostile, huge and bare."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Set as AbstractSet

from profiler.model import (
    ANALYSIS_SCHEMA,
    MANIFEST_SCHEMA,
    Analysis,
    AnnotatedFunction,
    AnnotatedLine,
    Branch,
    Candidate,
    ChainLink,
    Conclusion,
    Effort,
    ErrorSite,
    EvidenceNote,
    GraphComparison,
    GraphLine,
    InlinedSamples,
    KernelId,
    LoadResult,
    LogLine,
    Manifest,
    Meaning,
    Operand,
    RungState,
    SampleCounts,
    SourceCandidate,
    SourceLocation,
)
from reports.campaign import CampaignRow

HOSTILE = (
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=1">',
    "'--><svg/onload=document.title=2>",
    "\x1b[31mred\x1b]0;title\x07",
    "line one\nline two\r\n",
    "\u202egnirts desrever\u202c",
    "javascript:document.title=3",
    "$(touch /tmp/x);`id`",
    "\ud800 lone half",
    "[bold red]markup[/] {{ 7 * 7 }} $\\frac{1}{2}$",
)

_PARK = """\
static int berth_park(struct harbour *h, struct boat *b, unsigned int slot)
{
\tstruct berth *berth;
\tint err = -EINVAL;

\t/*
\t * A slot beyond the quay never existed; one that is
\t * taken may be shared by boats of one fleet.
\t */
\tif (slot >= h->quay_length)
\t\tgoto out;

\tspin_lock(&h->lock);
\tberth = berth_lookup(h, slot);
\tif (!berth) {
\t\terr = berth_create(h, slot);
\t\tif (err)
\t\t\tgoto out_unlock;
\t\tberth = berth_lookup(h, slot);
\t}

\terr = -EADDRINUSE;
\tif (berth->boat && !(boat_shares(b) && berth->shared))
\t\tgoto out_unlock;

\tberth->boat = b;
\tberth->shared = boat_shares(b);
\tharbour_log(h, "berth %u taken", slot);
\terr = 0;

out_unlock:
\tspin_unlock(&h->lock);
out:
\treturn err;
}"""
_PARK_SAMPLES = {1: 310, 10: 95, 13: 420, 14: 1640, 15: 130, 22: 61, 23: 2890, 24: 12, 32: 510, 34: 140, 35: 205}
_PARK_OFF = {11, 16, 17, 18, 19, 26, 27, 28, 29}
_PARK_TURNS = {10: [13], 15: [22], 23: [24]}
_PARK_CODE = set(_PARK_SAMPLES) | _PARK_OFF

_ENTRY = """\
SYSCALL_DEFINE3(moor, int, fd, struct boat __user *, ub, unsigned int, slot)
{
\treturn __sys_moor(fd, ub, slot);
}"""

_MOOR = """\
int __sys_moor(int fd, struct boat __user *ub, unsigned int slot)
{
\tstruct harbour *h;
\tstruct boat b;
\tint err;

\th = harbour_from_fd(fd, &err);
\tif (!h)
\t\treturn err;
\terr = boat_from_user(&b, ub);
\tif (!err)
\t\terr = h->ops->park(h, &b, slot);
\tharbour_put(h);
\treturn err;
}"""


def wilson(hits: int, total: int) -> tuple[float, float]:
    """The 95% score interval of hits/total."""
    if not total:
        return 0.0, 0.0
    z, share = 1.96, hits / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    return max(0.0, centre - half), min(1.0, centre + half)


def annotate(
    function: str,
    file: str,
    first: int,
    text: str,
    samples: dict[int, int],
    *,
    off: AbstractSet[int] = frozenset(),
    marks: dict[int, list[str]] | None = None,
    inlined: dict[int, list[InlinedSamples]] | None = None,
    turns: dict[int, list[int]] | None = None,
) -> AnnotatedFunction:
    """Lines of `text` from line `first` on; all other arguments count lines from 1 within the text."""
    total = sum(samples.values())
    lines = []
    for number, line in enumerate(text.split("\n"), 1):
        hits = samples.get(number, 0)
        low, high = wilson(hits, total)
        on_path = True if number in samples else False if number in off else None
        here, there = (marks or {}).get(number, []), (inlined or {}).get(number, [])
        goes_to = [first + after - 1 for after in (turns or {}).get(number, [])]
        lines.append(AnnotatedLine(first + number - 1, line, hits, low, high, on_path, here, there, goes_to))
    return AnnotatedFunction(function, file, total, lines)


def park_function(first: int = 412, file: str = "drivers/harbour/berth.c") -> AnnotatedFunction:
    inlined = {
        13: [InlinedSamples("queued_spin_lock", "include/harbour/lock.h", 88, 402)],
        14: [
            InlinedSamples("berth_lookup", "drivers/harbour/berth.c", 377, 1201),
            InlinedSamples("tide_hash", "include/harbour/hash.h", 31, 439),
        ],
        23: [InlinedSamples("boat_shares", "include/harbour/boat.h", 64, 2204)],
    }
    marks = {23: ["branch"], 22: ["error-site"]}
    return annotate(
        "berth_park", file, first, _PARK, _PARK_SAMPLES, off=_PARK_OFF, marks=marks, inlined=inlined, turns=_PARK_TURNS
    )


def named() -> Analysis:
    site = ErrorSite("berth_park", "drivers/harbour/berth.c", 433, "berth_park+0x9c", "err = -EADDRINUSE;")
    condition = "berth->boat && !(boat_shares(b) && berth->shared)"
    branch = Branch("berth_park", "drivers/harbour/berth.c", 434, "berth_park+0xb1", condition, True)
    return Analysis(
        schema=ANALYSIS_SCHEMA,
        tool_version="0.1.0",
        syscall="moor",
        errno="EADDRINUSE",
        errno_number=98,
        kernel=KernelId("6.1.0-99-harbour-amd64", "6.1.999-1", "9f3c1e07aa5d4b8890c2d1e6f7a8b9c0d1e2f3a4", "x86_64"),
        conclusion=Conclusion.NAMED,
        reason="moor() returns EADDRINUSE because the slot's berth already has a boat, and the two do not both share.",
        error_site=site,
        branch=branch,
        confidence=0.987,
        chain=[
            ChainLink("__x64_sys_moor", "", 0, False, ""),
            ChainLink("__do_sys_moor", "drivers/harbour/moor.c", 201, True, "__x64_sys_moor+0x14"),
            ChainLink("__sys_moor", "drivers/harbour/moor.c", 203, False, "__x64_sys_moor+0x22"),
            ChainLink("berth_park", "drivers/harbour/moor.c", 182, False, "__sys_moor+0x6e"),
        ],
        candidates=_candidates(site, branch),
        evidence=[
            EvidenceNote(
                "samples", "The best-weighted path through berth_park explains 6,412 of 6,413 samples.", 2, 0.41
            ),
            EvidenceNote("callchains", "Every sample of berth_park was called from __sys_moor+0x6e.", 1, 0.02),
            EvidenceNote("return-value", "The value returned is the constant -98, set before the branch.", 1, 0.0),
        ],
        samples=SampleCounts(80123, 39876, 38015, 0, 0, 6412, 1),
        functions=[
            annotate("__x64_sys_moor", "drivers/harbour/moor.c", 201, _ENTRY, {1: 800, 3: 2103}),
            annotate(
                "__sys_moor",
                "drivers/harbour/moor.c",
                171,
                _MOOR,
                {1: 310, 7: 2105, 8: 40, 10: 3307, 11: 60, 12: 950, 13: 700, 15: 55},
                off={9},
                marks={12: ["call"]},
            ),
            park_function(),
        ],
        manifest=_manifest(),
        load=LoadResult(10_482_113, 10.02, {"EADDRINUSE": 10_482_113}, 311, "whyerrno-load"),
        warnings=[],
        next_steps=["Read drivers/harbour/berth.c from line 433 on: the boat that holds the slot is berth->boat."],
    )


def _candidates(site: ErrorSite, branch: Branch) -> list[Candidate]:
    file = "drivers/harbour/berth.c"
    create = ErrorSite("berth_create", file, 398, "berth_create+0x31", "return -EADDRINUSE;")
    fleet = ErrorSite("fleet_admit", "drivers/harbour/fleet.c", 77, "fleet_admit+0x1f", "return -EADDRINUSE;")
    moved = ErrorSite("berth_move", file, 509, "berth_move+0x2a", None)
    exists = Branch("berth_create", file, 397, "berth_create+0x2c", "berth_exists(h, slot)", True)
    return [
        Candidate(site, branch, 0.987, None),
        Candidate(
            create, exists, 0.012, "The call at line 427 lies on a branch with no samples where 214 were expected."
        ),
        Candidate(fleet, None, 0.001, "fleet_admit never appears in a callchain."),
        Candidate(moved, None, 0.0, "berth_move is not reached from this system call."),
    ]


def _manifest() -> Manifest:
    return Manifest(
        schema=MANIFEST_SCHEMA,
        created="2026-11-23T10:15:00Z",
        syscall="moor",
        errno="EADDRINUSE",
        errno_number=98,
        scenario="moor-eaddrinuse",
        program=[],
        target="vm:6.1",
        release="6.1.0-99-harbour-amd64",
        package_version="6.1.999-1",
        build_id="9f3c1e07aa5d4b8890c2d1e6f7a8b9c0d1e2f3a4",
        arch="x86_64",
        kaslr_offset=0x1A000000,
        event="cpu-clock",
        frequency=8000,
        seconds=10.0,
        lost=0,
        throttled=0,
        commands=[["perf", "record", "-a", "-F", "8000", "-e", "cpu-clock", "-o", "perf.data", "--", "sleep", "10"]],
        tool_versions={"perf": "6.1.170", "qemu": "7.2.22"},
        emulated=True,
    )


def executed() -> Analysis:
    """The verdict of an instruction log alone: nothing was sampled."""
    whole = named()
    functions = [
        dataclasses.replace(
            function,
            samples=0,
            lines=[dataclasses.replace(line, samples=0, low=0.0, high=0.0, inlined=[]) for line in function.lines],
        )
        for function in whole.functions
    ]
    assert whole.manifest is not None
    out = "not executed in the call that was logged"
    return dataclasses.replace(
        whole,
        confidence=0.99,
        candidates=[dataclasses.replace(c, excluded_by=out if c.excluded_by else None) for c in whole.candidates],
        evidence=[EvidenceNote("exact", "8 whole calls were logged instruction by instruction", 3, 0.02)],
        samples=SampleCounts(0, 0, 0, 0),
        functions=functions,
        manifest=dataclasses.replace(whole.manifest, event="", frequency=0, seconds=0.0, stopped_by="replay"),
        effort=Effort(["exact"], 0, 0.0, 8, 16384, "replay"),
    )


def climbed() -> Analysis:
    """The same verdict with every rung of the ladder: some taken, some not, two of which disagree."""
    whole = named()
    assert whole.branch is not None
    notes = [
        EvidenceNote("samples", "the likeliest walk explains 6,412 of 6,413 samples", 9, 2.04, overhead=0.153),
        EvidenceNote("man", "moor(2) has two entries of EADDRINUSE; the second fits the branch", 0, 0.012),
        EvidenceNote("log", "one denial that names the load, no error of hardware or a filesystem", 0, 0.004),
        EvidenceNote("source", "43 places in 19 functions can return it", 0, 0.31),
        EvidenceNote("graph", "32 failing and 32 succeeding calls part in berth_park()", 31, 0.62, overhead=0.874),
        EvidenceNote(
            "probes",
            "__sys_moor() and berth_park() returned -98, and no function below them did",
            2,
            0.41,
            overhead=0.062,
            disagrees="the samples put 0.4% on berth_create(), which was never called",
        ),
        EvidenceNote("exact", "the verdict was decided without it", 0, 0.0, RungState.NOT_NEEDED),
    ]
    operands = [
        Operand("berth->boat", "0xffff888004c1e000", 0xFFFF888004C1E000),
        Operand("boat_shares(b)", "false", 0),
        Operand("berth->shared", "false", 0),
    ]
    branch = dataclasses.replace(
        whole.branch, operands=operands, values="0xffff888004c1e000 && !(false && berth->shared)"
    )
    return dataclasses.replace(
        whole,
        branch=branch,
        evidence=notes,
        effort=Effort(["samples", "probes", "graph"], 16204, 2.04, stopped_by="verdict"),
        meaning=Meaning("moor(2)", True, "The berth is taken by a boat that does not share it.", ["slot is the last."]),
        kernel_log=_kernel_log(),
        source_candidates=_source_candidates(),
        graph=_graph(),
    )


def _graph() -> GraphComparison:
    lines = [
        GraphLine(0, "__x64_sys_moor", True, True, failing_returned="-98", succeeding_returned="0"),
        GraphLine(1, "harbour_from_fd", True, True),
        *(GraphLine(2, f"tide_{i}", True, True, note="20 times" if i == 3 else "") for i in range(150)),
        GraphLine(1, "berth_park", True, True, failing_returned="-98", succeeding_returned="0"),
        GraphLine(2, "harbour_log", False, True, diverges=True),
        GraphLine(2, "berth_release", True, False, diverges=True),
        GraphLine(1, "harbour_put", True, True),
    ]
    return GraphComparison(32, 31, "harbour_log()", lines, "in berth_park(): only succeeding calls log", "berth_park")


def _kernel_log() -> list[LogLine]:
    return [
        LogLine(
            41.120032, 3, "EXT4-fs error (device vda): ext4_lookup:1855: inode #12: comm whyerrno-load", "filesystem"
        ),
        LogLine(41.120412, 6, "perf: interrupt took too long (2510 > 2500)", "other"),
        LogLine(41.55, 5, 'audit: apparmor="DENIED" operation="moor" comm="whyerrno-load"', "denial"),
        *(LogLine(42.0 + i, 6, f"harbour: tide {i}", "other") for i in range(7)),
    ]


def _source_candidates() -> list[SourceCandidate]:
    """43 places: one left, the others crossed out by three rungs."""
    file = "drivers/harbour/berth.c"
    kept = SourceCandidate(
        ErrorSite("berth_park", file, 433, "", "err = -EADDRINUSE;"),
        "berth->boat && !(boat_shares(b) && berth->shared)",
        434,
        ["__do_sys_moor", "__sys_moor", "berth_park"],
    )
    made = []
    for number in range(42):
        by = "samples" if number < 9 else "probes" if number < 11 else "graph"
        function = f"berth_{['create', 'move', 'split', 'merge', 'lease'][number % 5]}"
        site = ErrorSite(function, file, 500 + 7 * number, "", "return -EADDRINUSE;")
        way = ["__do_sys_moor", "__sys_moor", "berth_park", *([f"tide_{number}"] * (number % 3)), function]
        reason = {
            "samples": "no sample where 214 were expected",
            "probes": "the probe on its block was not hit in 20,000 calls",
            "graph": f"{function}() was not called",
        }[by]
        made.append(SourceCandidate(site, f"h->level[{number}] > when", 499 + 7 * number, way, by, reason))
    return [*made[:20], kept, *made[20:]]


def inconclusive() -> Analysis:
    whole = named()
    first, second, *rest = whole.candidates
    candidates = [
        dataclasses.replace(first, probability=0.56),
        dataclasses.replace(second, probability=0.43, excluded_by=None),
        *rest,
    ]
    return dataclasses.replace(
        whole,
        conclusion=Conclusion.INCONCLUSIVE,
        reason="Two places fit the samples about equally well: berth_park line 433 and berth_create line 398.",
        confidence=0.56,
        candidates=candidates,
        samples=dataclasses.replace(whole.samples, total=800, in_load=402, in_kernel=311, lost=212, throttled=3),
        warnings=["Only 61 samples fell into berth_park; 200 are needed to separate these candidates."],
        next_steps=[
            "Record for longer: whyerrno run --scenario moor-eaddrinuse --target vm:6.1 --seconds 60 -o runs/longer",
            "Put a probe on berth_create with perf probe and count its calls.",
        ],
    )


def not_reproduced() -> Analysis:
    return dataclasses.replace(
        named(),
        conclusion=Conclusion.NOT_REPRODUCED,
        reason="None of 1,204,331 calls of moor() returned EADDRINUSE; most returned EACCES.",
        error_site=None,
        branch=None,
        confidence=0.0,
        chain=[],
        candidates=[],
        evidence=[],
        functions=[],
        load=LoadResult(1_204_331, 4.1, {"EACCES": 1_204_318, "0": 1, "EINTR": 12}, 311, "whyerrno-load", "success"),
        next_steps=["Check that the load runs with the rights that it needs: EACCES comes before EADDRINUSE."],
    )


def bare() -> Analysis:
    """As little as an Analysis can hold: an import without source, manifest or load."""
    whole = named()
    functions = [
        dataclasses.replace(function, lines=[dataclasses.replace(line, text=None) for line in function.lines])
        for function in whole.functions
    ]
    return dataclasses.replace(
        whole,
        kernel=KernelId("", "", "", ""),
        branch=dataclasses.replace(whole.branch, condition=None, outcome=None) if whole.branch else None,
        error_site=dataclasses.replace(whole.error_site, text=None) if whole.error_site else None,
        functions=[*functions, AnnotatedFunction("no_lines", "", 0, [])],
        manifest=None,
        load=None,
        evidence=[],
        next_steps=[],
    )


def hostile() -> Analysis:
    """Every string that a trace or a kernel could choose is an attack."""
    whole = named()
    bad = "".join(HOSTILE)
    site = ErrorSite(bad, bad, 433, bad, bad)
    branch = Branch(bad, bad, 434, bad, bad, True, [SourceLocation(bad, bad, 1)], [Operand(bad, bad)], bad)
    source = annotate(bad, bad, 412, _PARK, _PARK_SAMPLES, off=_PARK_OFF)
    lines = [dataclasses.replace(line, text=HOSTILE[i % len(HOSTILE)]) for i, line in enumerate(source.lines)]
    lines[3] = dataclasses.replace(lines[3], inlined=[InlinedSamples(bad, bad, 3, 7)], samples=7)
    assert whole.manifest is not None
    manifest = dataclasses.replace(
        whole.manifest,
        scenario=bad,
        target="vm:" + bad,
        event=bad,
        created=bad,
        commands=[[bad, bad]],
        program=[bad],
        tool_versions={bad: bad},
        warnings=[bad],
    )
    return dataclasses.replace(
        whole,
        tool_version=bad,
        syscall=bad,
        errno=bad,
        kernel=KernelId(bad, bad, bad, bad),
        reason=bad,
        error_site=site,
        branch=branch,
        chain=[ChainLink(bad, bad, 1, True, bad), *(ChainLink(name, name, 1, False, name) for name in HOSTILE)],
        candidates=[Candidate(site, branch, 0.9, None), Candidate(site, None, 0.1, bad)],
        evidence=[
            EvidenceNote(bad, bad, 1, 0.1, disagrees=bad),
            EvidenceNote("exact", bad, 1, 0.1, RungState.NOT_POSSIBLE, overhead=-1.0),
        ],
        meaning=Meaning(bad, False, "", HOSTILE[:2], bad),
        kernel_log=[LogLine(0.5, 3, bad, "hardware"), LogLine(0.5, 3, bad, bad)],
        graph=GraphComparison(
            2,
            1,
            bad,
            [
                GraphLine(0, bad, True, True, note=bad, failing_returned=bad),
                *(GraphLine(40, name, name < "k", name >= "k", True, name, name, name) for name in HOSTILE),
            ],
            bad,
            bad,
        ),
        source_candidates=[
            SourceCandidate(site, bad, 3, list(HOSTILE)),
            *(SourceCandidate(site, name, 3, [name], name, name) for name in HOSTILE),
        ],
        functions=[*whole.functions[:1], dataclasses.replace(source, lines=lines)],
        manifest=manifest,
        load=LoadResult(5, 0.1, dict.fromkeys(HOSTILE, 1), 1, bad, bad, bad),
        warnings=[bad, *HOSTILE],
        next_steps=[bad],
    )


def huge(lines: int = 6000, functions: int = 4) -> Analysis:
    """Functions of thousands of lines, a third of them sampled."""
    text = "\n".join(
        ["static long tide_table(struct harbour *h, unsigned long when)", "{"]
        + [
            f"\tif (h->level[{i}] > when + {i}) /* mark {i} */\n\t\treturn -EDOM + {i % 7};"
            for i in range(lines // 2 - 2)
        ]
        + ["\treturn 0;", "}"]
    )
    samples = {number: 1 + number % 17 for number in range(1, lines, 3) if (number // 400) % 2 == 0}
    whole = named()
    big = [annotate(f"tide_table_{i}", "drivers/harbour/tide.c", 100, text, samples) for i in range(functions)]
    return dataclasses.replace(whole, functions=[*big, park_function()])


def older() -> Analysis:
    """The same failure on an earlier kernel: berth_park in another file, one line edited, another branch order of
    magnitude, boat_from_user's caller renamed, and no __sys_moor of its own."""
    whole = named()
    text = _PARK.replace(
        "if (berth->boat && !(boat_shares(b) && berth->shared))", "if (berth->boat && !boat_shares(b))"
    )
    text = text.replace('\tharbour_log(h, "berth %u taken", slot);\n', "")
    samples = {1: 300, 10: 90, 13: 410, 14: 1650, 15: 120, 22: 55, 23: 1410, 24: 10, 31: 1190, 33: 150, 34: 195}
    file = "drivers/harbour/harbour.c"
    park = annotate("berth_park", file, 880, text, samples, off={11, 16, 17, 18, 19, 26, 27, 28})
    entry = annotate("__ia32_compat_moor", "drivers/harbour/moor.c", 90, _ENTRY, {1: 700, 3: 2200})
    site = ErrorSite("berth_park", file, 901, "berth_park+0x90", "err = -EADDRINUSE;")
    branch = Branch("berth_park", file, 902, "berth_park+0xa4", "berth->boat && !boat_shares(b)", True)
    inlined = [InlinedSamples("__sys_moor", "drivers/harbour/moor.c", 75, 2000)]
    entry = dataclasses.replace(
        entry, lines=[*entry.lines[:2], dataclasses.replace(entry.lines[2], inlined=inlined), *entry.lines[3:]]
    )
    return dataclasses.replace(
        whole,
        kernel=KernelId("5.10.0-99-harbour-amd64", "5.10.888-1", "aa3c1e07aa5d4b8890c2d1e6f7a8b9c0d1e2f3a4", "x86_64"),
        error_site=site,
        branch=branch,
        confidence=0.961,
        functions=[entry, park],
    )


def versions() -> list[tuple[str, Analysis]]:
    return [("runs/moor-5.10", older()), ("runs/moor-6.1", named())]


def many_versions() -> list[tuple[str, Analysis]]:
    """Four runs, one of which lost too many samples and one of which did not fail."""
    lossy = dataclasses.replace(named(), samples=dataclasses.replace(named().samples, lost=20_000))
    return [*versions(), ("runs/moor-6.12", lossy), ("runs/moor-7.3", not_reproduced())]


def campaign_rows() -> list[CampaignRow]:
    """Three scenarios on three targets, twice each, with every way to end."""
    rows = []
    for number, scenario in enumerate(("moor-eaddrinuse", "anchor-enomem", "sail-eperm")):
        for target, release in (("vm:5.10", "5.10.0-99-harbour"), ("vm:6.1", "6.1.0-99-harbour"), ("vm:7.3", "7.3.4")):
            for repeat in (1, 2):
                run = f"runs/{scenario}-{target.replace(':', '-')}-{repeat}"
                rows.append(
                    CampaignRow(
                        scenario,
                        target,
                        "named",
                        repeat,
                        f"{scenario} fails because its slot is taken.",
                        run,
                        f"{run}/report.html",
                        release,
                        "",
                        0,
                        0.97 - 0.01 * number,
                        "berth_park",
                        "drivers/harbour/berth.c",
                        433 + number,
                        31.4,
                        True,
                    )
                )
    blank = {"function": "", "file": "", "line": 0, "confidence": None, "correct": None}
    rows[3] = dataclasses.replace(rows[3], status="inconclusive", exit_code=3, reason="Two places are left.", **blank)
    rows[9] = dataclasses.replace(rows[9], line=471, correct=False, reason="The tide decides.")
    rows[12] = dataclasses.replace(
        rows[12], status="not-reproduced", exit_code=4, reason="Every call succeeded.", **blank
    )
    failed = {"run_dir": "", "report": "", "release": "", **blank}
    rows[16] = dataclasses.replace(rows[16], status="error", exit_code=1, reason="The guest panicked.", **failed)
    rows[17] = dataclasses.replace(rows[17], status="crashed", exit_code=None, reason="No end within 900 s.", **failed)
    return rows


def long_walk() -> Analysis:
    """A function of 60 lines whose first branch skips one line, the next goes on from there past 40, and the last goes
    back."""
    text = "\n".join(
        ["int buoy_count(struct harbour *h)", "{"] + [f"\tcount += h->buoys[{i}];" for i in range(57)] + ["}"]
    )
    on = dict.fromkeys([1, 2, 3, 5, 47, 48, 49, 59, 60], 10)
    function = annotate(
        "buoy_count", "drivers/harbour/buoy.c", 1, text, on, off={4, *range(6, 47)}, turns={3: [5], 5: [47], 49: [48]}
    )
    whole = named()
    assert whole.error_site is not None
    assert whole.branch is not None
    place = {"function": "buoy_count", "file": "drivers/harbour/buoy.c", "line": 49}
    return dataclasses.replace(
        whole,
        error_site=dataclasses.replace(whole.error_site, **place),
        branch=dataclasses.replace(whole.branch, **place),
        functions=[function],
    )
