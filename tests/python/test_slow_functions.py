"""Slow functions do not hold up the job: checkpoints come, a stop and Ctrl-C are answered, a kill repeats little."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import millstream as mill
from millstream import col

ROWS = 1_000_000
"""Hours of work: a frame of 8,192 takes 16 s, eight of them wait in a queue."""
SLOW = 0.002


class SlowProcess(mill.ProcessFunction):
    """A slow process function."""

    seen = mill.ValueState(int, default=0)

    def process(self, row: Any, ctx: Any) -> Any:
        """Take a record."""
        time.sleep(SLOW)
        self.seen.value += 1
        yield {"i": row.i}


def slow(row: Any) -> dict[str, int]:
    time.sleep(SLOW)
    return {"i": row.i}


def slow_batch(batch: Any) -> dict[str, Any]:
    time.sleep(8e-6 * batch.num_rows)
    return {"i": batch["i"]}


def numbers() -> mill.Stream:
    return mill.generate(rows=ROWS, i=mill.index(), k=mill.index() % 10)


def slow_value(i: int) -> int:
    time.sleep(SLOW)
    return i


CASES: dict[str, Callable[[], mill.Stream]] = {
    "map": lambda: numbers().map(slow, schema={"i": int}),
    "map after an exchange": lambda: numbers().rebalance().map(slow, schema={"i": int}),
    "map before an exchange": lambda: (
        numbers().map(slow, schema={"i": int}).key_by("i").process(SlowProcess(), schema={"i": int})
    ),
    "filter": lambda: numbers().filter(lambda row: slow(row)["i"] >= 0),
    "flat_map": lambda: numbers().flat_map(lambda row: [slow(row)], schema={"i": int}),
    "udf": lambda: numbers().select(i=mill.udf(returns=int)(slow_value)(col("i"))),
    "process": lambda: numbers().key_by("k").process(SlowProcess(), schema={"i": int}),
    "reduce": lambda: numbers().key_by("k").reduce(lambda a, b: (time.sleep(SLOW), b)[1]),
    "map of what a filter leaves": lambda: numbers().filter(col("i") % 100 == 0).map(slow, schema={"i": int}),
}


@pytest.mark.parametrize("parallelism", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_checkpoints_come_and_a_stop_is_answered(case: str, parallelism: int, tmp_path: Path) -> None:
    job = mill.start(
        CASES[case]().write_parquet(tmp_path / "out"),
        checkpoint=mill.Checkpoint(tmp_path / "state", every="100ms"),
        parallelism=parallelism,
    )
    until = time.monotonic() + 12
    while job.metrics().checkpoints_taken < 8:
        assert time.monotonic() < until, f"{job.metrics().checkpoints_taken} checkpoints"
        time.sleep(0.01)
    began = time.monotonic()
    job.stop()
    report = job.wait()
    assert time.monotonic() - began < 4
    assert report.status == "stopped"


def test_a_sink_that_is_slow_is_no_different(tmp_path: Path) -> None:
    checkpoint = mill.Checkpoint(tmp_path / "state", every="100ms", mode="at_least_once")
    job = mill.start(numbers().for_each(slow), checkpoint=checkpoint, parallelism=2)
    until = time.monotonic() + 12
    while job.metrics().checkpoints_taken < 8:
        assert time.monotonic() < until, f"{job.metrics().checkpoints_taken} checkpoints"
        time.sleep(0.01)
    job.stop()
    assert job.wait().status == "stopped"


SCRIPT = """
    import sys, time
    import millstream as mill

    kind, parallelism, directory, run = sys.argv[1:]
    log = open(f"{directory}/log{run}", "a")

    def slow(row):
        time.sleep(0.002)
        log.write(f"{row.i}\\n")
        log.flush()
        return {"i": row.i}

    def slow_batch(batch):
        time.sleep(8e-6 * batch.num_rows)
        log.write("".join(f"{i}\\n" for i in batch["i"].to_pylist()))
        log.flush()
        return {"i": batch["i"]}

    read = mill.read_parquet(f"{directory}/in.parquet")
    if kind == "map":
        results = read.map(slow, schema={"i": int})
    elif kind == "exchange":
        results = read.rebalance().map(slow, schema={"i": int})
    else:
        results = read.map_batches(slow_batch, schema={"i": int})
    print("begins", flush=True)
    try:
        mill.run(
            results.write_parquet(f"{directory}/out"),
            checkpoint=mill.Checkpoint(f"{directory}/state", every="200ms"),
            parallelism=int(parallelism),
        )
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("parallelism", [1, 2])
@pytest.mark.parametrize("kind", ["map", "exchange", "batches"])
def test_what_an_interrupted_or_killed_run_repeats_is_little(
    kind: str, parallelism: int, ending: signal.Signals, tmp_path: Path
) -> None:
    # One row group, of a million rows where there is time for them.
    rows = ROWS if kind == "batches" else 50_000
    pq.write_table(pa.table({"i": range(rows)}), tmp_path / "in.parquet", row_group_size=rows)
    script = tmp_path / "job.py"
    script.write_text(textwrap.dedent(SCRIPT))

    def run(number: int, ending: signal.Signals) -> set[int]:
        command = [sys.executable, str(script), kind, str(parallelism), str(tmp_path), str(number)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as job:
            assert job.stdout is not None
            job.stdout.readline()
            time.sleep(2.5)
            job.send_signal(ending)
            began = time.monotonic()
            job.communicate(timeout=30)
            took = time.monotonic() - began
        assert took < 4, f"it took {took} s to end"
        lines = (tmp_path / f"log{number}").read_text().split("\n")
        return {int(line) for line in lines[:-1]}

    first, second = run(0, ending), run(1, signal.SIGKILL)
    assert len(first) > 100
    assert second, "the second run went on"
    per_second = parallelism * (125_000 if kind == "batches" else 500)
    # One interval and what is under way; a machine that is busy may take a while longer to write a checkpoint.
    assert len(first & second) < 1.5 * per_second, f"{len(first & second)} of {len(first)} records came again"


def test_a_fast_function_gets_whole_frames() -> None:
    table = pa.table({"x": pa.array(range(2_000_000))})
    for _ in range(10):
        sizes: list[int] = []

        def look(batch: Any, sizes: list[int] = sizes) -> Any:
            sizes.append(batch.num_rows)
            return batch

        mill.run(mill.from_arrow(table).map_batches(look).for_each_batch(lambda batch: None), parallelism=1)
        assert sum(sizes) == 2_000_000
        assert max(sizes) <= 65_536
        # Frames are small at first only, unless another process has the core while the function is called.
        if max(sizes) >= 8_192 and len(sizes) < 200:
            return
    pytest.fail(f"in ten runs there were no whole frames; in the last, {len(sizes)} of at most {max(sizes)}")


def test_a_call_that_costs_as_much_for_any_number_of_records_is_not_made_more_often() -> None:
    calls = 0

    def request(batch: Any) -> Any:
        nonlocal calls
        calls += 1
        time.sleep(0.03)
        return batch

    table = pa.table({"x": pa.array(range(1_000_000))})
    for _ in range(5):
        calls = 0
        mill.run(mill.from_arrow(table).map_batches(request).for_each_batch(lambda batch: None), parallelism=1)
        # Sixteen whole frames, and some to find out; at 20 ms a call it would be endless.
        if calls < 150:
            return
    pytest.fail(f"there were {calls} calls")


@pytest.mark.parametrize("parallelism", [1, 3])
def test_results_are_the_same_however_slow_a_function_is(parallelism: int) -> None:
    def uneven(row: Any) -> dict[str, int]:
        if row.i % 97 == 0:
            time.sleep(0.003)
        return {"i": row.i, "k": row.k}

    numbers = mill.generate(rows=20_000, i=mill.index(), k=mill.index() % 7)
    sums = numbers.map(uneven, schema={"i": int, "k": int}).key_by("k").agg(total=col("i").sum(), n=mill.count())
    expected = {k: (sum(range(k, 20_000, 7)), len(range(k, 20_000, 7))) for k in range(7)}
    assert {row["k"]: (row["total"], row["n"]) for row in sums.collect(parallelism=parallelism).to_pylist()} == expected


# -- batches of a size ---------------------------------------------------------------------------------------------------


def sizes_of(stream: mill.Stream, batch_rows: int, **options: Any) -> list[int]:
    sizes: list[int] = []

    def look(batch: Any) -> Any:
        sizes.append(batch.num_rows)
        return batch

    mill.run(stream.map_batches(look, batch_rows=batch_rows).for_each_batch(lambda batch: None), **options)
    return sizes


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 1000, 70_000])
def test_a_call_gets_as_many_records_as_asked_for(rows: int) -> None:
    stream = mill.from_arrow(pa.table({"x": pa.array(range(rows))}))
    whole, left = divmod(rows, 64)
    sizes = sizes_of(stream, 64, parallelism=1)
    assert sizes == [64] * whole + [left] * (left > 0)


def test_batches_of_any_size_have_all_records_in_order(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": range(3_000)}), tmp_path / "in.parquet", row_group_size=701)
    for batch_rows in (1, 7, 1000, 100_000):
        stream = mill.read_parquet(tmp_path / "in.parquet").map_batches(lambda batch: batch, batch_rows=batch_rows)
        assert stream.collect(parallelism=1).to_arrow()["x"].to_pylist() == list(range(3_000))


def test_batches_of_a_size_come_over_an_exchange() -> None:
    stream = mill.generate(rows=10_000, x=mill.index()).rebalance()
    sizes = sizes_of(stream, 100, parallelism=2)
    assert sum(sizes) == 10_000
    assert max(sizes) == 100
    assert len(sizes) <= 120


@pytest.mark.parametrize("batch_rows", [0, -1, True, 1.5, "64"])
def test_a_size_that_is_none_is_refused_at_once(batch_rows: Any) -> None:
    with pytest.raises(mill.PlanError, match=r"map_batches\(\): batch_rows is how many rows a call gets, at least 1, not "):
        mill.from_iter([1]).map_batches(lambda batch: batch, batch_rows=batch_rows)


def test_a_batch_that_fails_is_one_of_the_size() -> None:
    def fail(batch: Any) -> Any:
        if 5 in batch["x"].to_pylist():
            raise ValueError("five")
        return batch

    stream = mill.generate(rows=20, x=mill.index()).map_batches(fail, batch_rows=4)
    rows = stream.collect(parallelism=1, on_error="skip").to_arrow()["x"].to_pylist()
    assert rows == [x for x in range(20) if not 4 <= x < 8]


def test_the_size_of_batches_may_change_from_run_to_run(tmp_path: Path) -> None:
    def job(batch_rows: int | None) -> mill.Report:
        stream = mill.generate(rows=1000, x=mill.index()).map_batches(lambda batch: batch, batch_rows=batch_rows)
        return mill.run(stream.write_parquet(tmp_path / "out"), checkpoint=tmp_path / "state")

    assert job(10).status == "finished"
    # A job that has finished is refused if its plan has changed.
    assert job(None).status == "finished"


# -- overdue -------------------------------------------------------------------------------------------------------------


def test_a_checkpoint_that_is_overdue_is_reported(tmp_path: Path) -> None:
    def stuck(row: Any) -> dict[str, int]:
        if row.value == 3:
            time.sleep(3)
        return {"value": row.value}

    job = mill.start(
        mill.from_iter(range(6)).map(stuck, schema={"value": int}).write_parquet(tmp_path / "out"),
        checkpoint=mill.Checkpoint(tmp_path / "state", every="50ms"),
        parallelism=1,
    )
    until = time.monotonic() + 20
    while not any("has been under way for" in wait for wait in job.status.waits):
        assert time.monotonic() < until
        time.sleep(0.01)
    status = job.status
    overdue = job.metrics().checkpoint_overdue
    assert overdue is not None
    assert overdue.since.total_seconds() >= 1
    assert len(overdue.waits_for) == 1
    assert "is still at work on what came before it" in str(status)
    report = job.wait()
    assert report.checkpoint_overdue is None
    assert [note for note in report.notes if "more than ten times its interval" in note], report.notes


def test_a_job_in_time_says_nothing(tmp_path: Path) -> None:
    report = mill.run(
        mill.generate(rows=1000, i=mill.index()).map(slow, schema={"i": int}).write_parquet(tmp_path / "out"),
        checkpoint=mill.Checkpoint(tmp_path / "state", every="200ms"),
        parallelism=1,
    )
    assert report.checkpoint_overdue is None
    assert not [note for note in report.notes if "under way" in note]


def test_the_progress_line_shows_an_overdue_checkpoint() -> None:
    from datetime import timedelta

    from millstream._progress import Display

    class Shown:
        def update(self, task: Any, **fields: Any) -> None:
            self.fields = fields

    line = Display(is_patient=False)
    line._progress = shown = Shown()
    line.update(mill.Metrics(checkpoints_taken=2, checkpoint_overdue=mill.Overdue(3, timedelta(seconds=12), ["map"])))
    assert shown.fields["note"] == "2 checkpoints, the next one overdue, 12 s so far"
    line.update(mill.Metrics(checkpoint_overdue=mill.Overdue(1, timedelta(seconds=12), ["map"])))
    assert shown.fields["note"] == "the next one overdue, 12 s so far"
