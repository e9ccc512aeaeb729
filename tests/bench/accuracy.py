"""How often the verdict is right: finished runs of a campaign, judged by the truth files.

usage: python -m tests.bench.accuracy CAMPAIGN... [--again]

--again analyzes every recording anew first. Truth comes from reading the kernel's source
(loadgen/truth), never from the tool.
"""

from __future__ import annotations

import collections
import json
import sys
import time
from pathlib import Path

from profiler import pipeline, recording
from profiler.errors import ProfilerError
from tests import truth

CONFIDENT = 0.95
VERDICTS = ("right", "site only", "branch only", "inconclusive", "wrong", "not reproduced", "error")


def main(arguments: list[str]) -> int:
    again = "--again" in arguments
    verdicts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    confident_wrong = confident = 0
    for campaign in (Path(a) for a in arguments if not a.startswith("-")):
        for manifest_path in sorted(campaign.rglob(recording.MANIFEST)):
            directory = manifest_path.parent
            manifest = recording.read_manifest(directory)
            started = time.monotonic()
            try:
                if again:
                    pipeline.analyze(directory, progress=lambda _phase, _fraction: None)
                analysis = json.loads((directory / recording.ANALYSIS).read_text())
            except (ProfilerError, OSError) as error:
                verdicts[manifest.release]["error"] += 1
                print(f"{'error':15s}{manifest.scenario}  {manifest.release}: {error}")
                continue
            verdict, detail = judge(manifest.scenario or "", manifest.package_version, analysis)
            verdicts[manifest.release][verdict] += 1
            sure = analysis["conclusion"] == "named" and analysis["confidence"] >= CONFIDENT
            confident += sure
            confident_wrong += sure and verdict != "right"
            print(f"{verdict:15s}{manifest.scenario:28s}{time.monotonic() - started:5.1f} s  {detail}", flush=True)
    print_table(verdicts)
    print(f"wrong in part or whole at confidence >= {CONFIDENT}: {confident_wrong} of {confident}")
    return 0


def judge(scenario: str, package_version: str, analysis: dict[str, object]) -> tuple[str, str]:
    """(verdict, what was claimed against what is true)."""
    true = truth.load(scenario)[package_version]
    judgement = truth.judge(analysis, true)
    if not true.reproduced or analysis["conclusion"] == "not-reproduced":
        return ("not reproduced" if judgement.conclusion_right else "wrong"), str(analysis["reason"])
    claimed = f"{place(analysis['error_site'])} / {place(analysis['branch'])} at {analysis['confidence']}"
    expected = f"true: {[f'{s.function}:{s.line}' for s in true.sites]} / "
    expected += str([f"{b.place.function}:{b.place.line}-{b.place.line_end} {b.outcome}" for b in true.branches])
    detail = f"{claimed}\n{'':15s}    {expected}"
    if judgement.site_right and judgement.branch_right and judgement.outcome_right is not False:
        return ("right" if analysis["conclusion"] == "named" else "inconclusive"), claimed
    if analysis["conclusion"] == "inconclusive":
        return "inconclusive", detail
    if judgement.site_right:
        return "site only", detail
    return ("branch only" if judgement.branch_right else "wrong"), detail


def place(claimed: object) -> str:
    if not isinstance(claimed, dict):
        return "none"
    outcome = f" {claimed['outcome']}" if "outcome" in claimed else ""
    return f"{claimed['function']}:{claimed['line']}{outcome}"


def print_table(verdicts: dict[str, collections.Counter[str]]) -> None:
    print(f"{'kernel':32s}" + "".join(f"{name:>15s}" for name in VERDICTS))
    for release, counts in verdicts.items():
        print(f"{release:32s}" + "".join(f"{counts[name]:15d}" for name in VERDICTS))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
