"""Time of derived streams and of quiet inputs: windows over windows, idleness, files that turn up."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import millstream as mill
from millstream import col, testing

EPOCH = datetime(2024, 1, 1)


def at(seconds: float) -> datetime:
    return EPOCH + timedelta(seconds=seconds)


def seconds(time: datetime) -> float:
    return (time - EPOCH).total_seconds()


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def minute() -> Any:
    rows = [{"k": i % 3, "at": at(i)} for i in range(60)]
    return mill.from_iter(rows).event_time("at").key_by("k")


@pytest.mark.parametrize("parallelism", [1, 2, 3, 5])
@pytest.mark.parametrize("second", ["5s", "10s", "20s", "60s"])
def test_rows_of_a_window_are_never_late_for_the_next(parallelism: int, second: str) -> None:
    # A task that was idle was left out by those after it, though it had windows open; their rows were lost.
    small = minute().window(mill.tumbling("10s")).agg(n=mill.count())
    large = small.key_by("k").window(mill.tumbling(second)).agg(n=col("n").sum())
    for _ in range(5):
        found: list[tuple[str, int]] = []
        report = mill.run(
            large.for_each(lambda row, found=found: found.append(("window", row.n))),
            large.late.for_each(lambda row, found=found: found.append(("late", row.n))),
            parallelism=parallelism,
        )
        assert sum(n for kind, n in found if kind == "window") == 60
        assert not [n for kind, n in found if kind == "late"]
        assert report.rows_late == 0


@pytest.mark.parametrize("parallelism", [1, 2, 4])
@pytest.mark.parametrize("lateness", ["0s", "3s", "30s", "1h"])
def test_allowed_lateness_holds_time_back_for_the_next_window(parallelism: int, lateness: str) -> None:
    small = minute().window(mill.tumbling("10s"), allowed_lateness=lateness).agg(n=mill.count())
    large = small.key_by("k").window(mill.tumbling("20s"), allowed_lateness=lateness).agg(n=col("n").sum())
    largest = large.key_by(all=mill.lit(0)).window(mill.tumbling("1m")).agg(n=col("n").sum())
    assert [row["n"] for row in largest.collect(parallelism=parallelism).to_pylist()] == [60]
    rows = sorted((seconds(row["window_start"]), row["n"]) for row in large.collect(parallelism=parallelism).to_pylist())
    assert rows == [(start, n) for start in (0, 20, 40) for n in sorted([7, 7, 6])]


@pytest.mark.parametrize("parallelism", [1, 3])
def test_window_results_unite_with_records(parallelism: int) -> None:
    small = minute().window(mill.tumbling("10s"), allowed_lateness="5s").agg(n=mill.count()).select("k", "n")
    raw = mill.from_iter([{"k": i % 3, "n": 1, "at": at(i)} for i in range(0, 60, 2)]).event_time("at").select("k", "n")
    both = small.union(raw).key_by("k").window(mill.tumbling("20s")).agg(n=col("n").sum())
    rows = both.collect(parallelism=parallelism).to_pylist()
    assert sum(row["n"] for row in rows) == 90


class Scripted(mill.Source):
    """Splits that give rows (seconds, key) after a while, and then nothing more."""

    schema = {"k": int, "at": datetime}
    is_bounded = False

    def __init__(self, splits: dict[str, tuple[float, list[tuple[int, int]]]]) -> None:
        self.splits = splits

    def partitions(self) -> list[str]:
        return list(self.splits)

    def open(self, partition: str, position: Any) -> mill.SourceReader:
        delay, rows = self.splits[partition]
        return ScriptedReader(time.monotonic() + delay, [{"at": at(when), "k": k} for when, k in rows])


class ScriptedReader(mill.SourceReader):
    def __init__(self, start: float, rows: list[dict[str, Any]]) -> None:
        self.start, self.rows = start, rows

    def next_batch(self) -> Any:
        if time.monotonic() < self.start:
            return []
        rows, self.rows = self.rows, []
        return rows

    def position(self) -> int:
        return 0


def idle_after(idleness: str) -> mill.WatermarkStrategy:
    return mill.WatermarkStrategy.bounded_out_of_orderness("0s").with_idleness(idleness)


@pytest.mark.parametrize("parallelism", [1, 2, 3])
@pytest.mark.parametrize("later", [None, 0, 1])
def test_when_all_splits_are_idle_time_is_the_latest_of_them(parallelism: int, later: int | None) -> None:
    given = {0: [(0, 1), (5, 1), (25, 1)], 1: [(2, 2)]}
    source = testing.Source({"k": int, "at": datetime}, splits=2)
    stream = source.stream().event_time("at", watermark=idle_after("1s")).key_by("k")
    windows = stream.window(mill.tumbling("10s")).agg(n=mill.count())
    twice = windows.key_by("k").window(mill.tumbling("20s")).agg(n=col("n").sum())
    clock = testing.Clock()
    with testing.Job(twice, clock=clock, parallelism=parallelism) as job:
        for split in sorted(given, key=lambda split: split == later):
            if split == later:
                clock.advance("400ms")
            source.push(*({"k": k, "at": at(when)} for when, k in given[split]), split=split)
        job.run()
        clock.advance("1s")
        found = [(row["k"], seconds(row["window_start"]), row["n"]) for row in job.collect()]
    assert sorted(found) == [(1, 0, 2), (2, 0, 1)]


@pytest.mark.parametrize("parallelism", [1, 2])
def test_an_idle_input_takes_on_the_time_of_those_it_meets(parallelism: int) -> None:
    quiet = mill.from_source(Scripted({"a": (0.0, [(1, 1)])})).event_time("at", watermark=idle_after("200ms"))
    flowing = mill.from_source(Scripted({"b": (0.0, [(2, 2), (90, 2)])})).event_time("at", watermark=idle_after("200ms"))
    windows = quiet.key_by("k").window(mill.tumbling("10s")).agg(n=mill.count()).select("k", "n")
    both = windows.union(flowing.select("k", n=mill.lit(1).cast(int)))
    rows: list[tuple[int, int]] = []
    sums = both.key_by("k").window(mill.tumbling("20s")).agg(n=col("n").sum())
    job = mill.start(sums.for_each(lambda row: rows.append((row.k, row.n))), parallelism=parallelism)
    wait_until(lambda: len(rows) == 2)
    job.stop()
    job.wait()
    assert sorted(rows) == [(1, 1), (2, 1)]


def write(path: Path, rows: list[tuple[int, float]]) -> None:
    lines = "".join(json.dumps({"k": k, "at": at(when).isoformat()}) + "\n" for k, when in rows)
    hidden = path.with_name("." + path.name)
    hidden.write_text(lines)
    hidden.rename(path)


def followed(folder: Path, watermark: Any = "0s") -> Any:
    return mill.read_json(folder, schema={"k": int, "at": datetime}, follow=True).event_time("at", watermark=watermark)


@pytest.mark.parametrize("parallelism", [1, 2, 3])
def test_rows_of_a_new_older_file_are_in_a_window_or_late(tmp_path: Path, parallelism: int) -> None:
    # A task without a file knew nothing of the time that had passed: it aggregated old rows early, and they were dropped.
    write(tmp_path / "a.json", [(0, when) for when in range(40)])
    windows = followed(tmp_path).key_by("k").window(mill.tumbling("10s")).agg(n=mill.count())
    counted: list[int] = []
    late: list[float] = []
    job = mill.start(
        windows.for_each(lambda row: counted.append(row.n)),
        windows.late.for_each(lambda row: late.append(seconds(row.at))),
        parallelism=parallelism,
    )
    wait_until(lambda: sum(counted) == 30)
    for number in range(4):
        write(tmp_path / f"b{number}.json", [(1, 5 + number), (1, 35), (1, 100)])
    wait_until(lambda: len(late) == 4)
    write(tmp_path / "c.json", [(2, 200)])
    job.stop()
    report = job.wait()
    assert sorted(late) == [5, 6, 7, 8]
    assert report.rows_late == 4
    assert not report.notes


@pytest.mark.parametrize("parallelism", [1, 2, 3])
@pytest.mark.parametrize("idleness", ["never", "1h"])
def test_a_file_that_holds_time_holds_it_for_all_tasks(tmp_path: Path, parallelism: int, idleness: str) -> None:
    # The task that had read a newer file took rows of the files it got next for late, though no window had fired.
    strategy = mill.WatermarkStrategy.bounded_out_of_orderness("0s").with_idleness(idleness)
    write(tmp_path / "slow.json", [(0, 0)])
    write(tmp_path / "fast.json", [(1, 0), (1, 100)])
    rows = followed(tmp_path, strategy)
    windows = rows.key_by("k").window(mill.tumbling("10s")).agg(n=mill.count())
    counted: list[int] = []
    read: list[int] = []
    job = mill.start(
        windows.for_each(lambda row: counted.append(row.n)),
        windows.late.for_each(lambda row: None),
        rows.for_each(lambda row: read.append(row.k)),
        parallelism=parallelism,
    )
    wait_until(lambda: len(read) == 3)
    for number in range(6):
        write(tmp_path / f"new{number}.json", [(2, number % 3)])
        wait_until(lambda number=number: len(read) == 4 + number)
    assert counted == []
    assert job.metrics().rows_late == 0
    # Once nothing holds it any more, time goes on for all.
    for name in ["slow", *[f"new{number}" for number in range(6)]]:
        with (tmp_path / f"{name}.json").open("a") as file:
            file.write(json.dumps({"k": 3, "at": at(200).isoformat()}) + "\n")
    wait_until(lambda: sum(counted) == 8)
    job.stop()
    assert job.wait().rows_late == 0


@pytest.mark.parametrize("is_held", [True, False])
@pytest.mark.parametrize("parallelism", [1, 2, 3, 4])
def test_a_split_that_wakes_is_late_by_the_time_of_all_tasks(parallelism: int, is_held: bool) -> None:
    # Two splits are idle by then, in one task or in two; one that gives rows of the same second again and again holds time for both.
    ahead, sleeps, too, ticks = range(4)
    source = testing.Source({"k": int, "at": datetime}, splits=4)
    stream = source.stream().event_time("at", watermark=idle_after("200ms"))
    windows = stream.key_by("k").window(mill.tumbling("10s")).agg(n=mill.count())
    clock = testing.Clock()
    with testing.Job(windows, windows.late, clock=clock, parallelism=parallelism) as job:
        source.push({"k": 1, "at": at(100)}, split=ahead)
        for _ in range(10):
            if is_held:
                source.push({"k": 0, "at": at(3)}, split=ticks)
            clock.advance("100ms")
        source.push({"k": 2, "at": at(4)}, split=sleeps)
        source.push({"k": 3, "at": at(5)}, split=too)
        assert sorted(row["k"] for row in job.collect(windows.late)) == ([] if is_held else [2, 3])


@pytest.mark.parametrize("parallelism", [1, 2, 3])
def test_a_full_file_is_passed_over_with_idleness(tmp_path: Path, parallelism: int) -> None:
    windows = followed(tmp_path, idle_after("300ms")).key_by("k").window(mill.tumbling("10s")).agg(n=mill.count())
    counted: list[int] = []
    job = mill.start(windows.for_each(lambda row: counted.append(row.n)), parallelism=parallelism)
    for number in range(3):
        write(tmp_path / f"app{number}.log", [(0, 10 * number + when) for when in range(10)])
        wait_until(lambda number=number: sum(counted) == 10 * number)
    job.stop()
    report = job.wait()
    assert report.rows_late == 0
    assert not report.notes


@pytest.mark.parametrize(
    ("unit", "size", "offset", "lateness", "cast"),
    [
        ("s", "1500ms", "0s", "0s", "ms"),
        ("s", "2s", "500ms", "0s", "ms"),
        ("s", "2s", "-1us", "0s", "us"),
        ("ms", "1001us", "0s", "0s", "us"),
        ("s", "1s", "0s", "1ms", "ms"),
    ],
)
def test_bounds_that_the_unit_cannot_hold_are_refused(unit: str, size: str, offset: str, lateness: str, cast: str) -> None:
    table = pa.table({"k": [1], "at": pa.array([0], pa.timestamp(unit))})
    keyed = mill.from_arrow(table).event_time("at").key_by("k")
    with pytest.raises(mill.PlanError, match=rf'cast\(\{{"at": mill.Timestamp\("{cast}"\)\}}\)'):
        keyed.window(mill.tumbling(size, offset=offset), allowed_lateness=lateness)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize(("size", "offset"), [("2s", "1s"), ("3s", "7s"), ("5s", "-13s"), ("1d", "0s")])
def test_records_are_within_their_window(unit: str, size: str, offset: str) -> None:
    times = [-100_000, -1, 0, 1, 2, 3, 86_399, 86_400]
    table = pa.table({"k": [0] * len(times), "at": pa.array(times, pa.timestamp("s")).cast(pa.timestamp(unit))})
    stream = mill.from_arrow(table).event_time("at", watermark="2d").key_by("k")
    windows = stream.window(mill.tumbling(size, offset=offset)).agg(first=col("at").min(), last=col("at").max(), n=mill.count())
    rows = windows.collect().to_pylist()
    assert sum(row["n"] for row in rows) == len(times)
    for row in rows:
        assert row["window_start"] <= row["first"] <= row["last"] < row["window_end"]


def test_durations_finer_than_a_microsecond_are_refused() -> None:
    with pytest.raises(mill.PlanError, match="finer than a microsecond"):
        mill.tumbling("1.5us")
    with pytest.raises(mill.PlanError, match="finer than a microsecond"):
        mill.tumbling("0.0000001s")
    assert mill.tumbling("0.1s").size == "0.1s"


def counts(by: mill.Expr, folder: Path, *, halts: bool, earlier: bool) -> mill.Report:
    def rows(start: int) -> Any:
        for x in range(start, 40):
            if halts:
                time.sleep(0.005)
                if x == 30:
                    raise RuntimeError("halt")
            yield {"x": x, "k": x}

    stream = mill.from_iter(rows, schema={"x": int, "k": int})
    if earlier:
        keyed = stream.with_columns(k=by).filter(col("x") >= 0).key_by("k")
    else:
        keyed = stream.key_by(k=by)
    sink = keyed.agg(n=mill.count()).write_json(folder / "out")
    return mill.run(sink, checkpoint=mill.Checkpoint(folder / "state", every="10ms"), parallelism=1)


@pytest.mark.parametrize("earlier", [False, True])
def test_another_key_expression_is_another_plan(tmp_path: Path, earlier: bool) -> None:
    # x % 5 went on with the counts of x % 3.
    with pytest.raises(mill.MillstreamError, match="halt"):
        counts(col("x") % 3, tmp_path, halts=True, earlier=earlier)
    with pytest.raises(mill.CheckpointError, match=r'changed: agg .*col\("x"\) % 3.*col\("x"\) % 5'):
        counts(col("x") % 5, tmp_path, halts=False, earlier=earlier)
    # Where it is computed is nothing to the state.
    counts(col("x") % 3, tmp_path, halts=False, earlier=not earlier)
    found = [json.loads(line) for path in (tmp_path / "out").glob("[!.]*") for line in path.read_text().splitlines()]
    assert sorted((row["k"], row["n"]) for row in found) == [(0, 14), (1, 13), (2, 13)]
