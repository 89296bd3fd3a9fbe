"""Mode "dedup": a task that fails goes back alone, and each result is there once."""

from __future__ import annotations

import contextlib
import itertools
import operator
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import millstream as mill
from millstream import col, testing

RESTART = mill.Restart.fixed_delay(50, "1ms")


class Unsteady:
    """A function that fails, the first time it gets certain numbers."""

    def __init__(self, numbers: set[int]) -> None:
        self.left = set(numbers)
        self.calls: Counter[int] = Counter()
        self.lock = threading.Lock()

    def __call__(self, row: mill.Row) -> dict[str, int]:
        with self.lock:
            self.calls[row.n] += 1
            if row.n in self.left:
                self.left.remove(row.n)
                raise OSError(f"no answer for {row.n}")
        return {"n": row.n, "k": row.k}


def failing(number: int, fold: Callable[[int, int], int]) -> tuple[type, list[bool]]:
    """Return an aggregate that fails when it first gets a number, and the failures that are left."""
    # What fails in a batch is called once more, to find the record.
    left = [True, True]

    class Folded:
        def create(self) -> int:
            return 0

        def add(self, state: int, value: int) -> int:
            if value == number and left:
                left.pop()
                raise OSError("no answer")
            return fold(state, value)

        def merge(self, left: int, right: int) -> int:
            return fold(left, right)

        def result(self, state: int) -> int:
            return state

    return Folded, left


def run(output: mill.Output, folder: Path, every: str = "5ms", parallelism: int = 4, **options: object) -> mill.Report:
    checkpoint = mill.Checkpoint(folder / "state", every=every, mode="dedup")
    return mill.run(output, checkpoint=checkpoint, parallelism=parallelism, restart=RESTART, **options)  # type: ignore[arg-type]


def numbers(count: int) -> mill.Stream:
    return mill.generate(rows=count, rate=100_000, n=mill.index(), k=mill.index() % 7)


def test_every_result_is_there_once_though_tasks_fail(tmp_path: Path) -> None:
    unsteady = Unsteady({17, 4_000, 4_001, 12_345, 19_999})
    mapped = numbers(20_000).map(unsteady, schema={"n": int, "k": int})
    report = run(mapped.write_csv(tmp_path / "out"), tmp_path)
    assert not unsteady.left
    assert Counter(mill.read_csv(tmp_path / "out").collect()["n"]) == Counter(range(20_000))
    restarts = [note for note in report.notes if note.startswith("restart ")]
    assert len(restarts) == 5, report.notes
    assert all("of one task alone" in note and "no answer for" in note for note in restarts)
    assert sum("went back alone to" in note for note in report.notes) == 5, report.notes


def test_records_are_counted_once_in_the_report(tmp_path: Path) -> None:
    unsteady = Unsteady({500, 9_000})
    mapped = numbers(10_000).map(unsteady, schema={"n": int, "k": int}).name("mapped")
    report = run(mapped.write_csv(tmp_path / "out"), tmp_path)
    step = next(step for step in report.steps if step.name == "mapped")
    assert (step.rows_in, step.rows_out) == (10_000, 10_000)


def within(time: datetime, other: datetime) -> bool:
    return timedelta(0) <= other - time <= timedelta(milliseconds=100)


@pytest.mark.parametrize("seed", range(4))
def test_windows_joins_and_process_functions_come_to_the_same(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)
    start = datetime(2024, 1, 1)
    rows = [{"n": n, "k": dice.randrange(5), "at": start + timedelta(milliseconds=20 * n - dice.randrange(300))} for n in range(3_000)]
    seconds = (start + timedelta(seconds=3), start + timedelta(seconds=9))
    of_windows = ([row["n"] for row in rows if row["k"] == 2 and row["at"].replace(microsecond=0) == second] for second in seconds)
    failing = Unsteady({sum(numbers) for numbers in of_windows})
    after = Unsteady({dice.randrange(3_000) for _ in range(4)})

    class Latest(mill.ProcessFunction):
        seen = mill.ValueState(int, default=0)
        count = mill.ValueState(int, default=0)

        def __init__(self) -> None:
            # A function: what it belongs to is not copied with the object for each task.
            self.check = lambda row: after(row)

        def process(self, row: mill.Row, ctx: object) -> list[dict[str, int]]:
            self.count.value += 1
            self.seen.value += row.n
            self.check(row)
            return [{"n": row.n, "k": row.k, "count": self.count.value, "total": self.seen.value}]

    timed = mill.from_iter(rows).event_time("at", watermark="300ms")
    windows = timed.key_by("k").window(mill.tumbling("1s")).agg(n=mill.count(), total=col("n").sum())
    late_failing = windows.select(n="total", k="k", c="n").map(
        lambda row: failing(row) | {"c": row.c}, schema={"n": int, "k": int, "c": int}
    )
    running = mill.from_iter([{"n": row["n"], "k": row["k"]} for row in rows]).key_by("k").process(
        Latest(), schema={"n": int, "k": int, "count": int, "total": int}
    )
    joined_failing = Unsteady({dice.randrange(3_000) for _ in range(3)})
    others = mill.from_iter([{"m": row["n"], "k": row["k"], "at": row["at"]} for row in rows]).event_time("at", watermark="300ms")
    pairs = timed.join_interval(others, on="k", lower="0s", upper="100ms").map(
        lambda row: joined_failing(row) | {"m": row.m}, schema={"n": int, "k": int, "m": int}
    )
    checkpoint = mill.Checkpoint(tmp_path / "state", every="3ms", mode="dedup")
    outputs = [late_failing.write_csv(tmp_path / "windows"), running.write_csv(tmp_path / "running"), pairs.write_csv(tmp_path / "pairs")]
    mill.run(*outputs, checkpoint=checkpoint, parallelism=dice.choice([1, 2, 3]), restart=RESTART)
    assert not failing.left and not after.left and not joined_failing.left
    near = [(a["n"], b["n"]) for a in rows for b in rows[max(0, a["n"] - 40) : a["n"] + 40] if a["k"] == b["k"] and within(a["at"], b["at"])]
    assert Counter((row["n"], row["m"]) for row in mill.read_csv(tmp_path / "pairs").collect().to_dicts()) == Counter(near)
    wanted = Counter[tuple[int, datetime]]()
    totals = Counter[tuple[int, datetime]]()
    for row in rows:
        second = row["at"].replace(microsecond=0)
        wanted[row["k"], second] += 1
        totals[row["k"], second] += row["n"]
    shown = mill.read_csv(tmp_path / "windows").collect().to_dicts()
    assert Counter((row["k"], row["c"], row["n"]) for row in shown) == Counter((k, wanted[k, s], totals[k, s]) for k, s in wanted)
    shown = mill.read_csv(tmp_path / "running").collect().to_dicts()
    assert len(shown) == len(rows)
    for k in range(5):
        of_key = sorted((row for row in shown if row["k"] == k), key=lambda row: row["count"])
        assert [row["count"] for row in of_key] == list(range(1, len(of_key) + 1))
        total = 0
        for row in of_key:
            total += row["n"]
            assert row["total"] == total


def test_attempts_that_are_used_up_end_the_job_and_the_next_run_goes_on(tmp_path: Path) -> None:
    is_broken = True

    def broken(row: mill.Row) -> dict[str, int]:
        if row.n == 8_000 and is_broken:
            raise OSError("out of order")
        return {"n": row.n}

    def once() -> mill.Report:
        checkpoint = mill.Checkpoint(tmp_path / "state", every="5ms", mode="dedup")
        mapped = numbers(10_000).map(broken, schema={"n": int})
        return mill.run(mapped.write_csv(tmp_path / "out"), checkpoint=checkpoint, restart=mill.Restart.fixed_delay(3, "1ms"))

    with pytest.raises(mill.UserFunctionError, match="out of order"):
        once()
    is_broken = False
    once()
    assert Counter(mill.read_csv(tmp_path / "out").collect()["n"]) == Counter(range(10_000))


def test_what_cannot_go_back_alone_takes_the_job_back(tmp_path: Path) -> None:
    unsteady = Unsteady({700})

    async def asked(row: mill.Row) -> dict[str, int]:
        return unsteady(row)

    answered = numbers(2_000).map_async(asked, schema={"n": int, "k": int})
    report = run(answered.write_csv(tmp_path / "out"), tmp_path)
    assert Counter(mill.read_csv(tmp_path / "out").collect()["n"]) == Counter(range(2_000))
    assert any(note.startswith("restart 1") and "of the job" in note for note in report.notes), report.notes
    assert not any("went back alone" in note for note in report.notes)


def test_results_by_the_clock_take_the_job_back(tmp_path: Path) -> None:
    most, left = failing(3_000, max)
    totals = numbers(5_000).key_by("k").agg(count=mill.count(), most=mill.aggregate(most, "n"), emit="5ms")
    report = run(totals.write_sqlite(tmp_path / "out.db", "t", key="k"), tmp_path)
    assert not left
    assert any(note.startswith("restart 1") and "of the job" in note for note in report.notes), report.notes
    with contextlib.closing(sqlite3.connect(tmp_path / "out.db")) as db:
        shown = {key: (count, most) for key, count, most in db.execute("SELECT k, count, most FROM t")}
    assert shown == {k: (len(range(k, 5_000, 7)), range(k, 5_000, 7)[-1]) for k in range(7)}


def test_the_mode_needs_a_restart_strategy(tmp_path: Path) -> None:
    checkpoint = mill.Checkpoint(tmp_path / "state", mode="dedup")
    with pytest.raises(mill.PlanError, match=r'mode="dedup".*restart=mill.Restart.fixed_delay'):
        mill.run(numbers(10).write_csv(tmp_path / "out"), checkpoint=checkpoint)


def test_it_goes_on_from_a_checkpoint_of_the_first_way_and_back(tmp_path: Path) -> None:
    for mode, steps in [("exactly_once", 300), ("dedup", 300), ("exactly_once", 300), ("dedup", None)]:
        totals = mill.generate(rows=500, n=mill.index(), k=mill.index() % 7).key_by("k").agg(n=col("n").sum())
        checkpoint = mill.Checkpoint(tmp_path / "state", every="1ms", mode=mode)
        testing.simulate(totals.write_csv(tmp_path / "out"), seed=3, checkpoint=checkpoint, steps=steps)
    shown = mill.read_csv(tmp_path / "out").collect().to_dicts()
    assert {row["k"]: row["n"] for row in shown} == {k: sum(range(k, 500, 7)) for k in range(7)}


@pytest.mark.parametrize("seed", range(3))
def test_what_is_combined_ahead_of_an_exchange_is_there_once(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)
    failing = {dice.randrange(5, 60) for _ in range(6)}
    calls = itertools.count()

    def doubled(batch: pa.RecordBatch) -> pa.RecordBatch:
        # Records are cut by how long calls take.
        time.sleep(dice.choice([0, 0, 0.001, 0.004]))
        if next(calls) in failing:
            raise OSError("no answer")
        return batch.append_column("y", pc.multiply(batch.column("x"), 2))

    rows = 400_000
    records = mill.generate(rows=rows, k=(mill.index() * 7919) % 100_003, x=mill.index() % 1000).rebalance()
    totals = records.map_batches(doubled, schema={"k": int, "x": int, "y": int}).key_by("k").agg(n=mill.count(), s=col("y").sum())
    report = run(totals.write_parquet(tmp_path / "out"), tmp_path, every="20ms", parallelism=3)
    # How many do so depends on where checkpoints fall between the failures.
    assert any("went back alone" in note for note in report.notes), report.notes
    index = np.arange(rows)
    keys = (index * 7919) % 100_003
    shown = mill.read_parquet(tmp_path / "out").collect().to_arrow().sort_by("k")
    assert shown["k"].to_pylist() == sorted(set(keys.tolist()))
    assert shown["n"].to_pylist() == np.bincount(keys)[np.bincount(keys) > 0].tolist()
    sums = np.bincount(keys, weights=(index % 1000) * 2)
    assert shown["s"].to_pylist() == sums[np.bincount(keys) > 0].astype(int).tolist()


@pytest.mark.parametrize("what", ["total", "median"])
def test_a_window_made_after_its_end_keeps_its_first_result(what: str) -> None:
    """Its result waits for the next watermark; a task that went back in between lost it."""
    start = datetime(2024, 1, 1)
    total, left = failing(666, operator.add)
    source = testing.Source({"k": int, "at": datetime, "v": int})
    timed = source.stream().event_time("at").key_by("k")
    trigger = mill.on_watermark(late=mill.every(100))
    windows = timed.window(mill.tumbling("10s"), allowed_lateness="50s", trigger=trigger)
    aggregates = {"x": mill.aggregate(total, "v")} | ({"median": col("v").median()} if what == "median" else {})
    with testing.Job(windows.agg(**aggregates), mode="dedup") as job:
        for k, second, v in [(1, 101, 1), (2, 95, 7)]:
            source.push({"k": k, "at": start + timedelta(seconds=second), "v": v})
            job.run()
        job.checkpoint()
        for k, second, v in [(1, 101, 666), (3, 200, 1), (4, 300, 1)]:
            source.push({"k": k, "at": start + timedelta(seconds=second), "v": v})
            job.run()
        source.end()
        assert {(row["k"], row["x"]) for row in job.latest()} == {(1, 667), (2, 7), (3, 1), (4, 1)}
        assert any("went back alone" in note for note in job.report().notes)
    assert not left


def test_a_task_that_went_back_while_its_input_was_idle_holds_nobody_up() -> None:
    start = datetime(2024, 1, 1)
    unsteady = Unsteady({7})
    left, right = (testing.Source({"n": int, "k": int, "at": datetime}) for _ in range(2))
    schema = {"n": int, "k": int, "at": datetime}
    checked = left.stream().map(lambda row: unsteady(row) | {"at": row.at}, schema=schema).filter(col("n") != 7).event_time("at")
    both = checked.union(right.stream().event_time("at"))
    counts = both.window_all(mill.tumbling("1s")).agg(n=mill.count())
    with testing.Job(counts, mode="dedup") as job:
        left.push({"n": 1, "k": 0, "at": start})
        job.run()
        left.idle()
        job.run()
        # It comes to nothing, so its task stays idle.
        left.push({"n": 7, "k": 0, "at": start})
        for second in range(5):
            right.push({"n": 100 + second, "k": 0, "at": start + timedelta(seconds=second)})
            job.run()
        job.checkpoint()
        assert not unsteady.left
        before = job.collect()
        assert len(before) >= 3
        left.end()
        right.end()
        assert sum(row["n"] for row in [*before, *job.collect()]) == 6


@pytest.mark.parametrize("seed", range(12))
def test_barriers_that_are_repeated_after_failed_checkpoints_touch_no_output(seed: int, tmp_path: Path) -> None:
    """A sink gave what it held to a checkpoint that was long over."""
    dice = random.Random(seed)
    unsteady = Unsteady({dice.randrange(100, 500) for _ in range(3)})
    records = mill.generate(rows=500, n=mill.index(), k=mill.index() % 7)
    counted = records.key_by("k").process(Numbered(unsteady), schema={"n": int, "number": int})
    checkpoint = mill.Checkpoint(tmp_path / "state", every="1ms", mode="dedup")
    testing.arm("checkpoint.publish", first=dice.randrange(2, 6), times=dice.randrange(2, 20), effect="fail")
    try:
        testing.simulate(counted.write_csv(tmp_path / "out"), seed=seed, checkpoint=checkpoint, frame_rows=7, parallelism=dice.choice([1, 2]))
    finally:
        testing.disarm()
    shown = mill.read_csv(tmp_path / "out").collect().to_dicts()
    assert Counter(row["n"] for row in shown) == Counter(range(500))
    assert Counter(row["number"] for row in shown) == Counter(n // 7 + 1 for n in range(500))


class Numbered(mill.ProcessFunction):
    """Each record with its number among those of its key."""

    count = mill.ValueState(int, default=0)

    def __init__(self, check: Unsteady) -> None:
        self.check = lambda row: check(row)

    def process(self, row: mill.Row, ctx: object) -> list[dict[str, int]]:
        self.check(row)
        self.count.value += 1
        return [{"n": row.n, "number": self.count.value}]
