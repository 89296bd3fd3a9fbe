"""Splits that keep together: fast ones wait for slow ones, nobody waits for ever, and the result is the same."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import millstream as mill
from millstream import testing
from millstream.errors import PlanError

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
Rows = list[dict[str, Any]]


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


class Paced(mill.Source):
    """Splits with a record a second each; `gives(split, done)` says whether one has its next records now."""

    schema = {"at": mill.Timestamp("us", "UTC"), "split": str}

    def __init__(
        self,
        splits: dict[str, int],
        *,
        rows: int = 5,
        gives: Callable[[str, int], bool] = lambda split, done: True,
        saw: Callable[[str, int], None] = lambda split, second: None,
        bounded: bool = True,
    ) -> None:
        self.is_bounded = bounded
        self._splits, self._rows, self._gives, self._saw = splits, rows, gives, saw

    def partitions(self) -> list[str]:
        return list(self._splits)

    def open(self, partition: str, position: Any) -> mill.SourceReader:
        source, count, begun = self, self._splits[partition], position or 0

        class Reader(mill.SourceReader):
            done = begun

            def next_batch(self) -> Any:
                if self.done >= count:
                    return None if source.is_bounded else []
                if not source._gives(partition, self.done):
                    return []
                first, self.done = self.done, min(self.done + source._rows, count)
                source._saw(partition, first)
                return [{"at": at(second), "split": partition} for second in range(first, self.done)]

            def position(self) -> int:
                return self.done

        return Reader()


def aligned(drift: str = "20s", group: str | None = None, idleness: str | None = None) -> mill.WatermarkStrategy:
    strategy = mill.WatermarkStrategy.ascending().with_alignment(drift, group=group)
    return strategy if idleness is None else strategy.with_idleness(idleness)


def counts_of(timed: mill.Stream) -> mill.Stream:
    return timed.key_by("split").window(mill.tumbling("10s")).agg(n=mill.count())


class Furthest:
    """How far each split has been read, and how far any was ahead of the slowest when it was read."""

    def __init__(self, *splits: str) -> None:
        self.seconds = dict.fromkeys(splits, -1)
        self.ahead = 0

    def __call__(self, split: str, second: int) -> None:
        # Read next is `second`, so the watermark of the split is at the second before.
        self.ahead = max(self.ahead, second - 1 - min(self.seconds.values()))
        self.seconds[split] = max(self.seconds[split], second + 4)


@pytest.mark.parametrize("parallelism", [1, 2])
@pytest.mark.parametrize("how", ["splits", "group", "union"])
def test_no_split_is_read_further_ahead_than_the_drift(how: str, parallelism: int) -> None:
    furthest = Furthest("fast", "slow")
    turns = {"slow": 0}

    def gives(split: str, done: int) -> bool:
        if split == "fast":
            return True
        turns["slow"] += 1
        return turns["slow"] % 7 == 0

    def source(**splits: int) -> mill.Stream:
        return mill.from_source(Paced(splits, gives=gives, saw=furthest))

    if how == "splits":
        timed = source(fast=600, slow=600).event_time("at", watermark=aligned())
    elif how == "group":
        fast = source(fast=600).event_time("at", watermark=aligned(group="both"))
        timed = fast.union(source(slow=600).event_time("at", watermark=aligned(group="both")))
    else:
        timed = source(fast=600).union(source(slow=600)).event_time("at", watermark=aligned())
    for seed in range(3):
        furthest.__init__("fast", "slow")  # type: ignore[misc]
        rows: Rows = []
        keep = rows.append
        sink = counts_of(timed).for_each(lambda row, keep=keep: keep(row.asdict()))
        report = testing.simulate(sink, seed=seed, parallelism=parallelism)
        assert report is not None and report.rows_late == 0
        assert len(rows) == 120 and all(row["n"] == 10 for row in rows)
        # Frames of five records are read whole.
        assert 10 < furthest.ahead <= 20, furthest.ahead


def test_without_alignment_the_fast_one_runs_ahead() -> None:
    furthest = Furthest("fast", "slow")
    turns = {"slow": 0}

    def gives(split: str, done: int) -> bool:
        turns[split] = turns.get(split, 0) + 1
        return split == "fast" or turns["slow"] % 7 == 0

    timed = mill.from_source(Paced({"fast": 600, "slow": 600}, gives=gives, saw=furthest, bounded=True))
    stream = counts_of(timed.event_time("at", watermark="0s"))
    testing.simulate(stream.for_each(lambda row: None), seed=1, parallelism=2)
    assert furthest.ahead > 100


@pytest.mark.parametrize("seed", range(12))
def test_whatever_ends_stalls_or_is_killed_the_job_ends_with_the_same_result(seed: int, tmp_path: Path) -> None:
    source = random.Random(seed)
    names = [f"s{i}" for i in range(source.randint(1, 6))]
    lengths = {name: source.choice([0, 1, 5, 30, 200]) for name in names}
    stalls = {name: source.choice([0.0, 0.3, 0.9]) for name in names}
    cut = source.randint(0, len(names))
    groups = [names[:cut], names[cut:]]

    def gives(split: str, done: int) -> bool:
        return source.random() >= stalls[split]

    streams = [
        mill.from_source(Paced({name: lengths[name] for name in group}, gives=gives, rows=source.choice([1, 5, 50]))).name(
            "source of " + " ".join(group)
        )
        for group in groups
        if group
    ]
    if source.random() < 0.5:
        one, *others = streams
        united = one.union(*others) if others else one
        timed = united.event_time("at", watermark=aligned(source.choice(["1ms", "20s", "1h"])))
    else:
        one, *others = [
            stream.event_time("at", watermark=aligned(source.choice(["1ms", "20s"]), group="g")) for stream in streams
        ]
        timed = one.union(*others) if others else one
    sink = counts_of(timed).write_json(tmp_path / "out")
    report = None
    for attempt in range(500):
        # At first it is killed after some steps.
        steps = source.randint(20, 200) if attempt < 20 else 100_000
        report = testing.simulate(
            sink, seed=seed * 1000 + attempt, steps=steps, parallelism=source.randint(1, 4), frame_rows=source.choice([2, 1000]),
            checkpoint=tmp_path / "state",
        )  # fmt: skip
        if report is not None:
            break
    assert report is not None
    schema = {"split": str, "window_start": mill.Timestamp("us", "UTC"), "n": int}
    rows = mill.read_json(tmp_path / "out", schema=schema).collect().to_pylist() if any(lengths.values()) else []
    found = {(row["split"], row["window_start"]): row["n"] for row in rows}
    expected: dict[tuple[str, datetime], int] = {}
    for name, length in lengths.items():
        for second in range(length):
            key = (name, at(second // 10 * 10))
            expected[key] = expected.get(key, 0) + 1
    assert found == expected


def wait_until(condition: Callable[[], Any], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


@pytest.mark.parametrize("parallelism", [1, 2])
def test_a_job_says_which_split_pauses_and_for_which(parallelism: int) -> None:
    is_open = threading.Event()
    read: dict[str, int] = {}

    def gives(split: str, done: int) -> bool:
        return split == "fast" or done == 0 or is_open.is_set()

    def saw(split: str, second: int) -> None:
        read[split] = second

    def source(name: str) -> mill.Stream:
        timed = mill.from_source(Paced({name: 500}, gives=gives, saw=saw)).event_time("at", watermark=aligned(group="g"))
        return timed.name(f"{name} step")

    job = mill.start(counts_of(source("fast").union(source("slow"))).for_each(lambda row: None), parallelism=parallelism)
    wait_until(lambda: any(step.paused for step in job.metrics().steps))
    wait_until(lambda: [step.paused.watermark for step in job.metrics().steps if step.paused] == [at(29)])
    [(name, paused)] = [(step.name, step.paused) for step in job.metrics().steps if step.paused is not None]
    assert name == "fast step"
    assert (paused.splits, paused.split, paused.slowest, paused.slowest_watermark) == (1, "fast", "slow", at(4))
    [sentence] = [it for it in job.status.waits if "pauses" in it]
    assert sentence == f"reading for fast step pauses: fast at {at(29)} waits for slow at {at(4)}"
    # At 24 it was just as far ahead as it may be, and was read once more. The thread of the reader is some frames ahead.
    assert 25 <= read["fast"] <= 60
    is_open.set()
    report = job.wait()
    assert report is not None and report.rows_in == 1000
    assert all(step.paused is None for step in report.steps)


def test_an_idle_split_is_not_waited_for_and_all_may_be_idle() -> None:
    is_open = threading.Event()
    read: dict[str, int] = {}

    def gives(split: str, done: int) -> bool:
        return split == "fast" or done == 0 or is_open.is_set()

    def saw(split: str, second: int) -> None:
        read[split] = second

    timed = mill.from_source(Paced({"fast": 500, "slow": 500}, gives=gives, saw=saw, bounded=False))
    counts: Rows = []
    stream = counts_of(timed.event_time("at", watermark=aligned(idleness="100ms")))
    job = mill.start(stream.for_each(lambda row: counts.append(row.asdict())), parallelism=2)
    # The slow one goes idle, the fast one is read to its end, and then goes idle as well.
    wait_until(lambda: read.get("fast") == 495)
    time.sleep(0.3)
    assert not any(step.paused for step in job.metrics().steps)
    is_open.set()
    wait_until(lambda: read.get("slow") == 495)
    job.stop()
    job.wait()


def test_two_alignments_of_one_source_are_refused() -> None:
    source = mill.from_source(Paced({"a": 1}))
    one = source.event_time("at", watermark=aligned()).name("one")
    two = source.event_time("at", watermark=aligned()).name("two")
    with pytest.raises(PlanError, match="'?\"?one\"?'? aligns the splits of the same source already"):
        mill.run(one.for_each(lambda row: None), two.for_each(lambda row: None))
    plain = source.event_time("at", watermark="5s")
    mill.run(one.for_each(lambda row: None), plain.for_each(lambda row: None))


def test_files_that_keep_together_are_read_in_turn(tmp_path: Path) -> None:
    for number in range(3):
        rows = [{"at": at(second), "split": str(number)} for second in range(200)]
        mill.run(mill.from_iter(rows).write_json(tmp_path / "in" / str(number)))
    schema = {"at": mill.Timestamp("us", "UTC"), "split": str}
    order: list[tuple[str, datetime]] = []
    timed = mill.read_json(tmp_path / "in" / "*" / "*.json", schema=schema).event_time("at", watermark=aligned("30s"))
    testing.simulate(
        timed.for_each(lambda row: order.append((row.split, row.at))), seed=1, parallelism=1, frame_rows=10, checkpoint=None
    )
    assert len(order) == 600
    furthest = dict.fromkeys("012", NOON)
    for split, when in order:
        furthest[split] = when
        ended = [name for name, time in furthest.items() if time == at(199)]
        left = [time for name, time in furthest.items() if name not in ended]
        if left and split not in ended:
            assert when - min(left) <= timedelta(seconds=50), (split, when, furthest)


def test_explain_shows_the_drift() -> None:
    timed = mill.from_source(Paced({"a": 1})).event_time("at", watermark=aligned("90s"))
    assert 'drift of at most "1m30s"' in timed.explain()


def test_a_table_that_keeps_together_with_its_stream_is_not_waited_for() -> None:
    # The stream waited for the table to end, and the table for the stream to come closer.
    def rows(shift: int) -> mill.Stream:
        made = [{"id": i % 50, "x": i, "t": at(i / 10)} for i in range(shift, shift + 3000)]
        return mill.from_iter(made).event_time("t", watermark=aligned("10s", group="both"))

    joined = rows(0).enrich(rows(0).select("id", y="x"), on="id")
    job = mill.start(joined.for_each(lambda row: None), parallelism=2)
    assert job.wait("30s").status == "finished"
