"""The queries of Nexmark compared with DuckDB, in wall-clock and processor time.

    python benches/jobs/nexmark.py --events 10_000_000 [q5 q7]

Processor time says more on a machine that others use as well. Each query is answered once by each engine, and the results are
compared.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from millstream.bench.contest import Query, _compare
from millstream.bench.nexmark import _duckdb, make, streams
from millstream.nexmark import QUERIES, query


def timed(answer: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return an answer with the seconds and the processor seconds that it took."""
    began, began_processor = time.perf_counter(), time.process_time()
    result = answer()
    return result, time.perf_counter() - began, time.process_time() - began_processor


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("queries", nargs="*", default=list(QUERIES))
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--parallelism", type=int, default=2)
    options = parser.parse_args()
    tables = make(options.events, options.queries)
    events, ask = streams(tables), _duckdb(tables, options.parallelism)
    print("| query | rows | seconds | DuckDB | processor seconds | DuckDB | our rate by processor time |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in options.queries:
        asked = query(name)
        stream = asked.stream(events)
        ours, seconds, processor = timed(lambda stream=stream: stream.collect(parallelism=options.parallelism))
        theirs, shown = None, ("none", "none", "")
        if asked.sql is not None:
            theirs, their_seconds, their_processor = timed(ask(asked.sql))
            _compare(Query(name, asked.about, options.events, lambda ours=ours: ours, {}), ours, theirs, "duckdb")
            ratio = their_processor / processor
            shown = (f"{their_seconds:.2f}", f"{their_processor:.2f}", f", x{ratio:.2f} of DuckDB's")
        rate = options.events / processor / 1e6
        print(
            f"| {name}: {asked.about} | {len(ours):,} | {seconds:.2f} | {shown[0]} | {processor:.2f} | {shown[1]} "
            f"| {rate:.1f} M/s{shown[2]} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
