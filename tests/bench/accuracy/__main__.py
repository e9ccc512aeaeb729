"""The command; `--help` tells the options."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path

from profiler.errors import ProfilerError
from tests.bench.accuracy import analyses, curve, recordings, tables
from tests.bench.accuracy.judging import Row


def main(arguments: list[str]) -> int:
    parsed = _parser().parse_args(arguments)
    try:
        return _record(parsed) if parsed.command == "run" else _tabulate(parsed)
    except ProfilerError as error:
        print(f"accuracy: {error}", file=sys.stderr)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.accuracy", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="record every scenario on every kernel; taken up again where it ended")
    run.add_argument("--out", type=Path, required=True, metavar="DIR")
    run.add_argument("--kernels", type=_names, default=list(recordings.KERNELS), metavar="5.10,6.1,...")
    run.add_argument("--scenarios", type=_names, default=["all"], metavar="all|A,B,...")
    run.add_argument("--seconds", type=float, default=10.0, help="of sampling, in full")
    run.add_argument("--jobs", type=int, default=2)
    run.add_argument(
        "--evidence",
        default=recordings.IN_FULL,
        metavar="RUNGS",
        help="other rungs than samples,exact are run as `whyerrno run` would, and are the table's `ladder`",
    )
    table = commands.add_parser("table", help="analyze the recordings, judge the verdicts, print the tables")
    table.add_argument("directories", type=Path, nargs="+", metavar="DIR")
    table.add_argument("--out", type=Path, metavar="DIR", help="where the results go  [the first DIR]")
    table.add_argument("--again", action="store_true", help="analyze anew what was analyzed before")
    table.add_argument(
        "--evidence", type=_names, default=list(analyses.EVIDENCE), metavar="samples,exact,default,ladder"
    )
    table.add_argument("--scenarios", type=_names, default=["all"], metavar="all|A,B,...")
    table.add_argument("--jobs", type=int, default=2)
    table.add_argument("--markdown", type=Path, metavar="FILE", help="write the table for the README there")
    return parser


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _record(parsed: argparse.Namespace) -> int:
    settings = {"seconds": parsed.seconds, "jobs": parsed.jobs, "rungs": parsed.evidence}
    return recordings.record_all(parsed.out, parsed.kernels, parsed.scenarios, **settings)


def _tabulate(parsed: argparse.Namespace) -> int:
    out: Path = parsed.out or parsed.directories[0]
    found = analyses.find(parsed.directories, out / analyses.FOLDER, parsed.scenarios)
    if not found:
        print("accuracy: no recording of a scenario there", file=sys.stderr)
        return 1
    rows: list[Row] = analyses.missing(parsed.directories, parsed.evidence, parsed.scenarios)
    for done, row in enumerate(analyses.conclude_all(found, parsed.evidence, jobs=parsed.jobs, again=parsed.again), 1):
        rows.append(row)
        print(
            f"{done}: {row.evidence:8s} {row.kernel:5s} {row.scenario:28s} {row.verdict}", file=sys.stderr, flush=True
        )
    rows.sort(key=lambda row: row.order)
    with contextlib.suppress(BrokenPipeError):
        print(tables.text(rows))
    out.mkdir(parents=True, exist_ok=True)
    (out / "accuracy.json").write_text(json.dumps([row.to_json() for row in rows], indent=1) + "\n")
    curve.draw(rows, out / "reliability.png")
    print(f"wrote {out / 'accuracy.json'} and {out / 'reliability.png'}")
    if parsed.markdown:
        parsed.markdown.write_text(tables.markdown(rows))
        print(f"wrote {parsed.markdown}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
