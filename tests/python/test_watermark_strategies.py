"""Watermarks that a column or a class of the user's makes: what is late, restarts, mistakes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import millstream as mill
from millstream import col, testing
from millstream.errors import MillstreamError, PlanError, SchemaError, UserFunctionError

NOON = datetime(2024, 1, 1, 12)
Rows = list[dict[str, Any]]


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


class Delayed(mill.WatermarkGenerator):
    """After each record its time less its own delay."""

    columns = ("delay",)

    def on_batch(self, times: Any, batch: Any) -> Any:
        assert batch.schema.names == ["delay"]
        return pc.subtract(times, batch["delay"])


class EveryThird(mill.WatermarkGenerator):
    """After every third record of a split its time: the count is state."""

    columns = ()

    def __init__(self) -> None:
        self.seen = 0

    def on_batch(self, times: Any, batch: Any) -> Any:
        first, self.seen = self.seen, self.seen + len(times)
        return pa.array([t if (first + i) % 3 == 2 else None for i, t in enumerate(times.to_pylist())], times.type)


def judged(rows: Rows, watermark: Any) -> tuple[Rows, Rows]:
    """What is on time and what is late by the definition, for windows of ten seconds; `watermark(i, row)` is the one after it."""
    latest: datetime | None = None
    good, late = [], []
    for i, row in enumerate(rows):
        end = at((row["at"] - NOON) // timedelta(seconds=10) * 10 + 10)
        (late if latest is not None and latest >= end else good).append(row)
        after = watermark(i, row)
        if after is not None:
            latest = after if latest is None else max(latest, after)
    return good, late


def counted(rows: Rows) -> dict[datetime, int]:
    counts: dict[datetime, int] = {}
    for row in rows:
        start = at((row["at"] - NOON) // timedelta(seconds=10) * 10)
        counts[start] = counts.get(start, 0) + 1
    return counts


def random_rows(seed: int, count: int = 300) -> Rows:
    source = random.Random(seed)
    now = 0.0
    rows = []
    for _ in range(count):
        now += source.random() * 4
        rows.append({"at": at(int(now - source.random() * 40) + 100), "delay": timedelta(seconds=source.randrange(0, 30))})
    return rows


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["array", "state", "column"])
def test_what_is_late_follows_from_the_watermark_after_each_record(kind: str, seed: int, tmp_path: Path) -> None:
    rows = random_rows(seed)
    strategies: dict[str, tuple[Any, Any]] = {
        "array": (Delayed(), lambda i, row: row["at"] - row["delay"]),
        "state": (EveryThird(), lambda i, row: row["at"] if i % 3 == 2 else None),
        "column": (
            mill.WatermarkStrategy.from_column("mark"),
            lambda i, row: row["at"] if row["delay"] < timedelta(seconds=10) else None,
        ),
    }
    watermark, oracle = strategies[kind]
    good, late = judged(rows, oracle)
    assert late, "the seed has nothing late"
    stream = mill.from_iter(rows, schema={"at": datetime, "delay": timedelta})
    stream = stream.with_columns(mark=mill.when(col("delay") < timedelta(seconds=10)).then("at"))
    counts = stream.event_time("at", watermark=watermark).window_all(mill.tumbling("10s")).agg(n=mill.count())
    for frame_rows in (1, 7, 1000):
        folder = tmp_path / str(frame_rows)
        sinks = (counts.write_json(folder / "counts"), counts.late.select("at").write_json(folder / "late"))
        # Killed again and again, and restored from the checkpoint.
        steps: int | None = 60 if frame_rows == 7 else None
        for attempt in range(400):
            report = testing.simulate(
                *sinks, seed=seed + attempt, steps=steps, frame_rows=frame_rows, parallelism=1 + attempt % 2,
                checkpoint=folder / "state",
            )  # fmt: skip
            if report is not None:
                break
        assert report is not None
        found = mill.read_json(folder / "counts", schema={"window_start": datetime, "n": int}).collect().to_pylist()
        assert {row["window_start"]: row["n"] for row in found} == counted(good)
        found = mill.read_json(folder / "late", schema={"at": datetime}).collect().to_pylist()
        assert sorted(row["at"] for row in found) == sorted(row["at"] for row in late)


def test_a_single_watermark_counts_after_the_frame() -> None:
    class Latest(mill.WatermarkGenerator):
        columns = ()

        def on_batch(self, times: Any, batch: Any) -> Any:
            assert batch.num_rows == len(times) and batch.num_columns == 0
            return pc.max(times)

    rows = [{"at": at(s)} for s in (5, 25, 4)]
    timed = mill.from_iter(rows).event_time("at", watermark=Latest())
    counts = timed.window_all(mill.tumbling("10s")).agg(n=mill.count())
    assert [row["n"] for row in counts.collect().to_pylist()] == [2, 1]
    assert counts.late.collect().to_pylist() == []


class Two(mill.Source):
    """Two splits, each with rows of its own."""

    schema = {"at": mill.Timestamp("us", "UTC")}

    def __init__(self, **splits: Sequence[float]) -> None:
        self._splits = splits
        self.waits = lambda done: False

    def partitions(self) -> list[str]:
        return list(self._splits)

    def open(self, partition: str, position: Any) -> Any:
        rows, waits = [{"at": at(s).replace(tzinfo=UTC)} for s in self._splits[partition]], self.waits
        begun = position or 0

        class Reader(mill.SourceReader):
            done = begun

            def next_batch(self) -> Any:
                if self.done >= len(rows):
                    return None
                if waits(self.done):
                    return []
                self.done += 1
                return rows[self.done - 1 : self.done]

            def position(self) -> int:
                return self.done

        return Reader()


def test_each_split_has_a_generator_of_its_own() -> None:
    made: list[int] = []

    class Own(mill.WatermarkGenerator):
        columns = ()

        def __init__(self) -> None:
            self.times: list[datetime] = []

        def on_batch(self, times: Any, batch: Any) -> Any:
            self.times += times.to_pylist()
            made.append(len(self.times))
            assert self.times == sorted(self.times), "the other split's times came here"
            return max(self.times)

    pattern = Own()
    timed = mill.from_source(Two(a=[1, 2, 3, 4], b=[100, 200])).event_time("at", watermark=pattern)
    counts = timed.window_all(mill.tumbling("10s")).agg(n=mill.count())
    assert sum(row["n"] for row in counts.collect(parallelism=1).to_pylist()) == 6
    assert sorted(made) == [1, 1, 2, 2, 3, 4]
    assert pattern.times == [], "the object that was passed is a pattern, and is left as it is"


def test_a_period_moves_time_without_records() -> None:
    calls: list[int] = []

    class Now(mill.WatermarkGenerator):
        columns = ()
        period = "10ms"
        has_records = False

        def on_batch(self, times: Any, batch: Any) -> Any:
            self.has_records = True

        def on_periodic(self) -> Any:
            calls.append(1)
            return at(60).replace(tzinfo=UTC) if self.has_records else None

    fired: list[Any] = []
    source = Two(a=[1, 2])
    source.waits = lambda done: done == 1 and not fired
    timed = mill.from_source(source).event_time("at", watermark=Now())
    counts = timed.window_all(mill.tumbling("10s")).agg(n=mill.count())
    mill.run(counts.for_each(lambda row: fired.append(row.n)), counts.late.for_each(lambda row: fired.append("late")))
    assert fired == [1, "late"]
    assert calls


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (5, "returned 5; return a datetime"),
        ("12:00", "returned '12:00'; return a datetime"),
        (at(0).replace(tzinfo=UTC), "a time with a zone, and the event times have none"),
        (pa.array([1, 2]), "values of type int64; watermarks are times"),
        (pa.array([at(0)]), "returned 1 watermark for 2 records"),
        (pa.array([at(0), at(1)], pa.timestamp("us", "UTC")), "a time with a zone"),
    ],
)
def test_what_a_generator_returns_is_checked(returned: Any, message: str) -> None:
    class Wrong(mill.WatermarkGenerator):
        def on_batch(self, times: Any, batch: Any) -> Any:
            return returned

    timed = mill.from_iter([{"at": at(0)}, {"at": at(1)}]).event_time("at", watermark=Wrong()).name("clicks")
    with pytest.raises(UserFunctionError) as raised:
        timed.collect()
    assert message in str(raised.value)
    assert "clicks" in str(raised.value)
    assert "Wrong" in str(raised.value)


def test_an_error_names_the_step_and_the_line() -> None:
    class Failing(mill.WatermarkGenerator):
        def on_batch(self, times: Any, batch: Any) -> Any:
            raise ValueError("no clock")

    timed = mill.from_iter([{"at": at(0)}]).event_time("at", watermark=Failing()).name("clicks")
    with pytest.raises(UserFunctionError) as raised:
        timed.collect()
    assert "clicks" in str(raised.value) and "Failing raised ValueError: no clock" in str(raised.value)
    cause = raised.value.__cause__
    assert isinstance(cause, ValueError)
    lines = []
    trace = cause.__traceback__
    while trace is not None:
        lines.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert lines[-1] == "on_batch"


def test_mistakes_are_errors_of_the_line_that_makes_them() -> None:
    s = mill.from_iter([{"at": at(0), "x": 1}])

    class Without(mill.WatermarkGenerator):
        pass

    class Text(Delayed):
        columns = "delay"

    with pytest.raises(PlanError, match="Without has no on_batch"):
        s.event_time("at", watermark=Without())
    with pytest.raises(PlanError, match=r"Delayed is a class; pass an object of it: Delayed\(\)"):
        s.event_time("at", watermark=Delayed)  # type: ignore[arg-type]
    with pytest.raises(SchemaError, match="delay"):
        s.event_time("at", watermark=Delayed())
    with pytest.raises(PlanError, match="write a tuple of names"):
        s.event_time("at", watermark=Text())
    with pytest.raises(SchemaError, match='watermarks are times, and column "x" is int64'):
        s.event_time("at", watermark=mill.WatermarkStrategy.from_column("x"))
    with pytest.raises(SchemaError, match="mark"):
        s.event_time("at", watermark=mill.WatermarkStrategy.from_column("mark"))
    with pytest.raises(PlanError, match="exactly one of"):
        mill.WatermarkStrategy("5s", column="x")
    with pytest.raises(PlanError, match="exactly one of"):
        mill.WatermarkStrategy()
    with pytest.raises(PlanError, match="bare number"):
        mill.WatermarkStrategy.ascending().with_alignment(5)  # type: ignore[arg-type]


def test_another_kind_of_watermark_is_refused_at_a_restart(tmp_path: Path) -> None:
    rows = [{"at": at(s), "delay": timedelta(0)} for s in range(100)]

    def job(watermark: Any) -> Any:
        counts = mill.from_iter(rows).event_time("at", watermark=watermark).window_all(mill.tumbling("10s")).agg(n=mill.count())
        return counts.write_json(tmp_path / "out")

    for steps in range(20, 400, 20):
        assert testing.simulate(job("5s"), seed=1, steps=steps, frame_rows=2, checkpoint=tmp_path / "state") is None
        if mill.checkpoints(tmp_path / "state"):
            break
    with pytest.raises(MillstreamError, match="event_time"):
        testing.simulate(job(Delayed()), seed=1, frame_rows=2, checkpoint=tmp_path / "state")
