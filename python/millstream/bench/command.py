"""The command line of the benchmarks."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["add_arguments", "main"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe what the command takes."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="workloads; all of them unless named")
    parser.add_argument("--list", action="store_true", help="say which workloads there are")
    parser.add_argument("--against", default="", metavar="ENGINES", help="duckdb,polars, or all that are installed: engines to compare with")
    parser.add_argument("--rows", type=int, help="how many records (checkpoint: keys; latency: records a second)")
    parser.add_argument("--events", type=int, help="nexmark: how many events; the same as --rows")
    parser.add_argument("--query", default="", metavar="QUERIES", help="nexmark: q5,q7; shapes: groups,j5 or another list; all of them unless named")
    parser.add_argument("--seconds", type=float, help="how long checkpoint and latency take for each line; default 3")
    parser.add_argument("--parallelism", type=int, help="how many threads; default: the cores this process may use")
    parser.add_argument("--runs", type=int, help="of how many runs the median is shown; default 3")
    parser.add_argument("--json", metavar="FILE", help="write machine and figures into a file")
    parser.add_argument("--svg", metavar="FILE", help="draw the bars into a file")


_SECONDS, _RUNS = 3.0, 3


def _check_options(options: argparse.Namespace, against: Sequence[str]) -> None:
    """Refuse what would do nothing."""
    from millstream.bench import WORKLOADS
    from millstream.errors import PlanError

    named = [WORKLOADS[name] for name in options.names if name in WORKLOADS]
    for option, only in _OF_SOME.items():
        # These mean nothing to the others that run.
        if getattr(options, option) and (len(options.names) != 1 or options.names[0] not in only):
            raise PlanError(f"--{option} is for {' or '.join(only)} alone, as in: millstream bench nexmark --{option} {_EXAMPLES[option]}")
    for option in ("seconds", "runs", "parallelism", "against"):
        if getattr(options, option) and named and not any(option in workload.options for workload in named):
            takers = ", ".join(workload.name for workload in WORKLOADS.values() if option in workload.options)
            raise PlanError(f"--{option} would do nothing for {', '.join(options.names)}; it is for {takers}")
    for workload in named:
        absent = [name for name in against if name not in workload.peers]
        if absent and workload.peers and options.against != "all":
            raise PlanError(f"{workload.name} compares with {', '.join(workload.peers)}, not with {absent[0]}")


_OF_SOME = {"events": ("nexmark",), "query": ("nexmark", "shapes")}
_EXAMPLES = {"events": "10_000_000", "query": "q5"}


def main(options: argparse.Namespace) -> int:
    """Run it; give the exit code."""
    from millstream.bench import WORKLOADS, Settings, peers, report, run
    from millstream.errors import PlanError

    if options.list:
        for name, workload in WORKLOADS.items():
            print(f"{name:<11} {workload.about}")
        return 0
    if options.events is not None and options.rows is not None:
        raise PlanError("--events is the same as --rows; give one of them")
    for name in ("rows", "events", "seconds", "parallelism", "runs"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise PlanError(f"--{name} is {value:g}; it is a number above 0")
    parallelism = options.parallelism or len(os.sched_getaffinity(0))
    against = peers.chosen(options.against)
    _check_options(options, against)
    peers.prepare(against, parallelism)
    queries = tuple(name.strip() for name in options.query.split(",") if name.strip())
    rows = options.rows if options.events is None else options.events
    settings = Settings(rows, options.seconds or _SECONDS, parallelism, options.runs or _RUNS, against, queries)
    about = report.machine()
    print(f"millstream {about['millstream']}, python {about['python']}, {about['processor']}, {about['cores']} cores", end="")
    print("".join(f", {name} {peers.PEERS[name].version()}" for name in against))
    if about["load"] > 0.5 * about["cores"]:
        print(f"the machine is busy with something else (load {about['load']:.1f}): expect lower and less steady figures")
    is_terminal = sys.stderr.isatty()

    def tell(text: str) -> None:
        print(f"\r\x1b[K{text} …" if is_terminal else f"{text} …", end="" if is_terminal else "\n", file=sys.stderr, flush=True)

    results = []
    for name in options.names or WORKLOADS:
        try:
            results.extend(run([name], settings, tell))
        except PlanError as error:
            if options.names:
                raise
            # Of all workloads, those run that can.
            print(f"\n{name} is left out: {error}")
            continue
        if is_terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        report.show(results[-1])
    if options.json:
        Path(options.json).write_text(report.as_json(results), encoding="utf-8")
    if options.svg:
        Path(options.svg).write_text(report.as_svg(results), encoding="utf-8")
    return 0
