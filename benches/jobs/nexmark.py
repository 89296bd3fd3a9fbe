"""The queries of Nexmark compared with DuckDB, in wall-clock and processor time.

    python benches/jobs/nexmark.py --events 10_000_000 [q5 q7]
    python benches/jobs/nexmark.py --events 10_000_000 --parallelism 2,1,5 --kills 2 [q5 q7]
    python benches/jobs/nexmark.py --events 10_000_000 --runs 3 --flink q0 q1 q2 q3 q4 q5 q7 q8
    python benches/jobs/nexmark.py --events 10_000_000 --parallelism 2,1,5 --in-files q23

Processor time says more on a machine that others use as well. Each query is answered once by each engine, and the results are
compared; with several parallelisms once with each, of which the first is timed. With ``--kills`` a process also runs the query with a
checkpoint every 50 ms into Parquet files, is killed so often in the middle and goes on, and what it has written is compared as well.

With ``--flink`` the events are also written as Parquet files, and read from there by us and by Flink (its SQL, in streaming mode, with
as many tasks; see ``benches/jobs/flink``). Neither keeps the result: ours goes to a function that counts rows, Flink's to its ``blackhole``.
Its seconds are those it reports for the job, without the start of its cluster. Before that, the results over a million events are
compared with ours, row by row. Its Python environment is made under ``~/.cache/millstream/peers`` (or ``$XDG_CACHE_HOME``), with Java 17 and Maven.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from in_flink import Flink, tell, write_events

import pyarrow.parquet as pq

import millstream as mill
from millstream.bench.contest import Query, _compare
from millstream.bench.nexmark import _duckdb, make, streams
from millstream.bench.result import Difference
from millstream.nexmark import QUERIES, Nexmark, query

CHECKED_EVENTS = 1_000_000
FLINK_PROGRAM = Path(__file__).parent / "flink" / "nexmark.py"

Cost = tuple[float, float]
"""Seconds, and processor seconds."""


def timed(answers: Sequence[Callable[[], Any]], runs: int) -> tuple[list[Any], list[Cost]]:
    """Return what each returns, with the medians of the seconds and the processor seconds that it takes, in turns.

    One that runs in another process returns its ``Cost`` itself.
    """
    results: list[Any] = [None] * len(answers)
    costs: list[list[Cost]] = [[] for _ in answers]
    for _ in range(runs):
        for place, answer in enumerate(answers):
            began, began_processor = time.perf_counter(), time.process_time()
            results[place] = result = answer()
            took = time.perf_counter() - began, time.process_time() - began_processor
            costs[place].append(result if isinstance(result, tuple) else took)
    return results, [
        (statistics.median(of[0] for of in found), statistics.median(of[1] for of in found)) for found in costs
    ]


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


class BesideFlink:
    """Queries in Flink, and ours over the same files."""

    def __init__(self, tables: Mapping[str, Any], parallelism: int, heap: str, folder: Path) -> None:
        self.flink = Flink(FLINK_PROGRAM, parallelism, heap, folder / "log")
        self.names: list[str] = self.flink.hello["queries"]
        self.folder = folder
        self.parallelism = parallelism
        self.events = write_events(
            {name: table.to_arrow() for name, table in tables.items()}, folder / "events", parallelism
        )

    def check(self, names: Sequence[str]) -> None:
        """Compare the results over few events with ours."""
        tables = make(CHECKED_EVENTS, names)
        folder = write_events(
            {name: table.to_arrow() for name, table in tables.items()}, self.folder / "few", self.parallelism
        )
        for name in names:
            if name in self.names:
                result = self.folder / name
                self.flink.ask(events=str(folder), query=name, result=str(result))
                asked = query(name)
                ours = asked.stream(streams(tables)).collect(parallelism=self.parallelism)
                _compare(
                    Query(name, asked.about, CHECKED_EVENTS, lambda ours=ours: ours, {}),
                    ours,
                    pq.read_table(result),
                    "flink",
                )
                tell(f"flink: {name} has the same {len(ours):,} rows")

    def jobs(self, name: str) -> list[Callable[[], Any]]:
        """Return our query over the files, which returns how many rows it has, and Flink's, which returns what it took."""
        persons, auctions, bids = (
            mill.read_parquet(self.events / table).event_time("date_time", watermark="3s")
            for table in ("person", "auction", "bid")
        )
        stream = query(name).stream(Nexmark(persons, auctions, bids))

        def ours() -> int:
            rows = [0]

            def count(batch: Any) -> None:
                rows[0] += batch.num_rows

            mill.run(stream.for_each_batch(count), parallelism=self.parallelism, progress=False)
            return rows[0]

        def theirs() -> Cost:
            reply = self.flink.ask(events=str(self.events), query=name)
            return reply["seconds"], reply["processor_seconds"]

        return [ours, theirs]


def compare_in_files(tables: Mapping[str, Any], names: Sequence[str], parallelisms: Sequence[int]) -> None:
    """Compare results that do not fit into memory twice: ours in Parquet files, and DuckDB's while it computes them.

    What is compared is the number of rows, and the sum of the hashes of each row as text.
    """
    import duckdb

    database = duckdb.connect(config={"threads": parallelisms[0]})
    for name, table in tables.items():
        database.register(name, table.to_arrow())
    for name in names:
        asked = query(name)
        assert asked.sql is not None, f"{name} has no SQL"
        columns = [f'"{row[0]}"::VARCHAR' for row in database.sql(f"DESCRIBE {asked.sql}").fetchall()]
        digest = f"SELECT count(*), sum(hash({', '.join(columns)})::HUGEINT) FROM"
        [theirs], seconds, processor = measured(lambda digest=digest, sql=asked.sql: database.sql(f"{digest} ({sql})").fetchall())
        print(f"{name}: {theirs[0]:,} rows, DuckDB {seconds:.1f} s, {processor:.1f} s of processors with their hashes", flush=True)
        for parallelism in parallelisms:
            with tempfile.TemporaryDirectory() as folder:
                sink = asked.stream(streams(tables)).write_parquet(f"{folder}/out", compression="lz4")
                _, seconds, processor = measured(lambda sink=sink, tasks=parallelism: mill.run(sink, parallelism=tasks, progress=False))
                [ours] = database.sql(f"{digest} read_parquet('{folder}/out/*.parquet')").fetchall()
            if ours != theirs:
                raise Difference(f"{name}: {ours[0]:,} rows, DuckDB has {theirs[0]:,}, or other values")
            print(f"{name}: the same with {parallelism} tasks in {seconds:.1f} s, {processor:.1f} s of processors with their files", flush=True)


def measured(answer: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return an answer with the seconds and the processor seconds that it took."""
    began, began_processor = time.perf_counter(), time.process_time()
    result = answer()
    return result, time.perf_counter() - began, time.process_time() - began_processor


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("queries", nargs="*", default=list(QUERIES))
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--parallelism", default="2")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--runs", type=int, default=1, help="of each engine, in turns; the medians are printed")
    parser.add_argument("--in-files", action="store_true", help="only compare with DuckDB, for results that are too large for the memory")
    parser.add_argument("--flink", action="store_true", help="Flink as well, for the queries it has here")
    parser.add_argument("--flink-heap", default="10g", help="the largest heap of its JVM")
    options = parser.parse_args()
    timed_with, *others = map(int, options.parallelism.split(","))
    tables = make(options.events, options.queries)
    if options.in_files:
        compare_in_files(tables, options.queries, [timed_with, *others])
        return
    with tempfile.TemporaryDirectory() as folder:
        beside = BesideFlink(tables, timed_with, options.flink_heap, Path(folder)) if options.flink else None
        try:
            if beside is not None:
                beside.check(options.queries)
            report(options, tables, timed_with, others, beside)
        finally:
            if beside is not None:
                beside.flink.close()


def report(
    options: argparse.Namespace, tables: Any, timed_with: int, others: Sequence[int], beside: BesideFlink | None
) -> None:
    """Answer the queries, and print a line for each."""
    events, ask = streams(tables), _duckdb(tables, timed_with)
    print("| query | rows | seconds | DuckDB | processor seconds | DuckDB | our rate by processor time |", end="")
    print(" from files: seconds | Flink | processor seconds | Flink | M events/s | Flink |" if beside else "")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |" + " ---: |" * 6 * (beside is not None))
    for name in options.queries:
        asked = query(name)
        stream = asked.stream(events)
        answers: list[Callable[[], Any]] = [lambda stream=stream: stream.collect(parallelism=timed_with)]
        if asked.sql is not None:
            answers.append(ask(asked.sql))
        results, costs = timed(answers, options.runs)
        ours, (seconds, processor) = results[0], costs[0]
        shown: tuple[str, ...] = ("none", "none", "")
        if asked.sql is not None:
            theirs, (their_seconds, their_processor) = results[1], costs[1]
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
            del theirs
        results.clear()
        rate = options.events / processor / 1e6
        print(
            f"| {name}: {asked.about} | {len(ours):,} | {seconds:.2f} | {shown[0]} | {processor:.2f} | {shown[1]} "
            f"| {rate:.1f} M/s{shown[2]} |",
            end="",
        )
        if beside is not None:
            print(beside_flink(beside, name, len(ours), options), end="")
        print(flush=True)


def beside_flink(beside: BesideFlink, name: str, rows: int, options: argparse.Namespace) -> str:
    """Return the last cells of a line."""
    if name not in beside.names:
        return " |" * 6
    (found, _), ((seconds, processor), (their_seconds, their_processor)) = timed(beside.jobs(name), options.runs)
    if found != rows:
        raise Difference(f"{name}: {found:,} rows from the files, {rows:,} from memory")
    rate, their_rate = (options.events / each / 1e6 for each in (seconds, their_seconds))
    return f" {seconds:.2f} | {their_seconds:.2f} | {processor:.2f} | {their_processor:.2f} | {rate:.2f} | {their_rate:.2f} (x{rate / their_rate:.1f}) |"


if __name__ == "__main__":
    main()
