"""What mode "dedup" costs and what it saves, compared with "exactly_once", in alternating runs.

    python benches/jobs/dedup.py [--rows 20000000] [--runs 5]

First three jobs that nothing disturbs, with a checkpoint every 100 ms: millions of records a second in both modes, medians. Then a job of eight tasks, one of
which fails once, two thirds of the way through: how many records were taken a second time, how long no record of any task was taken after the
failure, and how long the whole job took with the failure and without. Results are compared before anything is printed.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import millstream as mill
from millstream import col

MODES = ("exactly_once", "dedup")
TASKS = 8
EVERY = "100ms"


def table(rows: int) -> pa.Table:
    """Return records of 600,000 keys that come and go, ten to a microsecond of event time."""
    dice = np.random.default_rng(1)
    index = np.arange(rows, dtype=np.int64)
    keys = index // 20 + dice.integers(0, 100, rows)
    return pa.table({"k": keys % 600_000, "x": dice.integers(0, 1000, rows), "t": pa.array(index // 10).cast(pa.timestamp("us"))})


def run(stream: mill.Stream, work: Path, mode: str, parallelism: int) -> tuple[float, pa.Table, mill.Report]:
    """Run a job into Parquet files; return the seconds, the output and the report."""
    shutil.rmtree(work, ignore_errors=True)
    checkpoint = mill.Checkpoint(work / "state", every=EVERY, mode=mode)  # type: ignore[arg-type]
    restart = mill.Restart.fixed_delay(3, "1ms")
    began = time.perf_counter()
    report = mill.run(stream.write_parquet(work / "out"), checkpoint=checkpoint, parallelism=parallelism, restart=restart, progress=False)
    seconds = time.perf_counter() - began
    out = mill.read_parquet(work / "out").collect().to_arrow()
    return seconds, out.sort_by([(name, "ascending") for name in out.column_names]), report


def calm(rows: int, runs: int, work: Path) -> None:
    """Print how fast undisturbed jobs are in both modes."""
    records = mill.from_arrow(table(rows))
    jobs: dict[str, mill.Stream] = {
        "sums of 600 k keys": records.key_by("k").agg(n=mill.count(), s=col("x").sum()),
        "10 ms windows": records.event_time("t").key_by("k").window(mill.tumbling("10ms")).agg(n=mill.count(), s=col("x").max()),
        "map, filter": records.with_columns(y=col("x") * 0.908).filter(col("k") % 123 == 0),
    }
    print(f"{'':22}" + "".join(f"{mode:>14}" for mode in MODES) + f"{'ratio':>8}   millions of records a second")
    for name, stream in jobs.items():
        seconds: dict[str, list[float]] = {mode: [] for mode in MODES}
        outputs = []
        for turn in range(runs + 1):
            for mode in MODES:
                took, out, _ = run(stream, work, mode, 2)
                outputs.append(out)
                if turn:
                    seconds[mode].append(took)
        if any(out != outputs[0] for out in outputs):
            raise SystemExit(f"{name}: the results differ")
        rates = [rows / statistics.median(seconds[mode]) / 1e6 for mode in MODES]
        print(f"{name:22}" + "".join(f"{rate:14.1f}" for rate in rates) + f"{rates[1] / rates[0]:8.2f}")


class Calls:
    """A function of batches that notes when it took which records, and fails once."""

    def __init__(self, fail_at: int) -> None:
        self.fail_at = fail_at
        self.taken: list[tuple[float, int]] = []
        self.rows = 0
        self.failed: float | None = None

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        time.sleep(batch.num_rows * 2e-7)
        self.rows += batch.num_rows
        if self.failed is None and self.rows >= self.fail_at:
            self.failed = time.perf_counter()
            raise OSError("once")
        self.taken.append((time.perf_counter(), batch.num_rows))
        return batch.append_column("y", pc.multiply(batch.column("x"), 2))


def disturbed(rows: int, runs: int, work: Path) -> None:
    """Print what the failure of one of eight tasks costs in both modes."""
    print(f"\none of {TASKS} tasks fails{'':8}{'taken again':>14}{'no task works':>16}{'whole job, seconds':>20}{'without failure':>18}")
    for mode in MODES:
        found = []
        for _ in range(runs):
            figures: list[float] = []
            outputs = []
            for fail_at in (10 * rows, 2 * rows // 3):
                calls = Calls(fail_at)
                seconds, out, _ = run(_summed(rows, calls), work, mode, TASKS)
                outputs.append(out)
                figures.append(seconds)
            if outputs[0] != outputs[1]:
                raise SystemExit(f"{mode}: the results differ after a failure")
            assert calls.failed is not None
            again = sum(count for _, count in calls.taken) - rows
            after = [at for at, _ in calls.taken if at > calls.failed]
            gaps = np.diff([calls.failed, *after])
            found.append((again, float(gaps.max()), figures[1], figures[0]))
        again, gap, seconds, without = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"{mode:28}{again:14,.0f}{gap * 1000:13.1f} ms{seconds:20.2f}{without:18.2f}")


def _summed(rows: int, calls: Callable[[pa.RecordBatch], pa.RecordBatch]) -> mill.Stream:
    records = mill.generate(rows=rows, k=(mill.index() * 7919) % 100_003, x=mill.index() % 1000).rebalance()
    schema = {"k": int, "x": int, "y": int}
    mapped = records.map_batches(calls, schema=schema)
    return mapped.key_by("k").agg(n=mill.count(), s=col("y").sum())


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        calm(given.rows, given.runs, Path(folder) / "job")
        disturbed(given.rows // 2, given.runs, Path(folder) / "job")


if __name__ == "__main__":
    main()
