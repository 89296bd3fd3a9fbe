"""The queries of Nexmark compared with DuckDB, in wall-clock and processor time.

    python benches/jobs/nexmark.py --events 10_000_000 [q5 q7]
    python benches/jobs/nexmark.py --events 10_000_000 --parallelism 2,1,5 --kills 2 [q5 q7]

Processor time says more on a machine that others use as well. Each query is answered once by each engine, and the results are
compared; with several parallelisms once with each, of which the first is timed. With ``--kills`` a process also runs the query with a
checkpoint every 50 ms into Parquet files, is killed so often in the middle and goes on, and what it has written is compared as well.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import millstream as mill
from millstream.bench.contest import Query, _compare
from millstream.bench.nexmark import _duckdb, make, streams
from millstream.nexmark import QUERIES, query


def timed(answer: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return an answer with the seconds and the processor seconds that it took."""
    began, began_processor = time.perf_counter(), time.process_time()
    result = answer()
    return result, time.perf_counter() - began, time.process_time() - began_processor


KILLED = """
import sys
import millstream as mill
from millstream.nexmark import query

name, events, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
stream = query(name).stream(mill.nexmark(events, out_of_order="3s", splits=4))
mill.run(stream.write_parquet(f"{folder}/out"), checkpoint=mill.Checkpoint(f"{folder}/state", every="50ms"), parallelism=2, progress=False)
"""


def killed(name: str, events: int, kills: int, folder: Path) -> tuple[Any, int]:
    """Return what a query has written that was killed so often, and how many of the kills came before its end."""

    def newest() -> int:
        try:
            return max((info.id for info in mill.checkpoints(folder / "state")), default=0)
        except mill.CheckpointError:  # The directory is not there yet, or is being made.
            return 0

    hit = 0
    for _ in range(kills):
        before = newest()
        child = subprocess.Popen([sys.executable, "-c", KILLED, name, str(events), str(folder)])
        while child.poll() is None and newest() < before + 2:
            time.sleep(0.01)
        if child.poll() is None:
            os.kill(child.pid, signal.SIGKILL)
            hit += child.wait() == -signal.SIGKILL
    subprocess.run([sys.executable, "-c", KILLED, name, str(events), str(folder)], check=True)
    return mill.read_parquet(folder / "out").collect(), hit


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("queries", nargs="*", default=list(QUERIES))
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--parallelism", default="2")
    parser.add_argument("--kills", type=int, default=0)
    options = parser.parse_args()
    timed_with, *others = map(int, options.parallelism.split(","))
    tables = make(options.events, options.queries)
    events, ask = streams(tables), _duckdb(tables, timed_with)
    print("| query | rows | seconds | DuckDB | processor seconds | DuckDB | our rate by processor time |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in options.queries:
        asked = query(name)
        stream = asked.stream(events)
        ours, seconds, processor = timed(lambda stream=stream: stream.collect(parallelism=timed_with))
        theirs, shown = None, ("none", "none", "")
        if asked.sql is not None:
            theirs, their_seconds, their_processor = timed(ask(asked.sql))
            job = Query(name, asked.about, options.events, lambda ours=ours: ours, {})
            _compare(job, ours, theirs, "duckdb")
            for parallelism in others:
                _compare(job, stream.collect(parallelism=parallelism), theirs, "duckdb")
            ratio = their_processor / processor
            shown = (f"{their_seconds:.2f}", f"{their_processor:.2f}", f", x{ratio:.2f} of DuckDB's")
            if options.kills and stream.updating_key is None:
                with tempfile.TemporaryDirectory() as folder:
                    written, hit = killed(name, options.events, options.kills, Path(folder))
                    _compare(job, written, theirs, "duckdb")
                shown = (*shown[:2], f"{shown[2]}, {hit} kills")
        rate = options.events / processor / 1e6
        print(
            f"| {name}: {asked.about} | {len(ours):,} | {seconds:.2f} | {shown[0]} | {processor:.2f} | {shown[1]} "
            f"| {rate:.1f} M/s{shown[2]} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
