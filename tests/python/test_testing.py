"""The test kit: what a test of a user's pushes, moves, kills and collects."""

from __future__ import annotations

import gc
import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

import millstream as mill
from millstream import col, testing
from millstream.errors import MillstreamError, PlanError, SchemaError, UserFunctionError

START = datetime(2024, 1, 1)
VISITS = {"user": str, "at": datetime, "amount": int}


def at(second: float) -> datetime:
    return START + timedelta(seconds=second)


def visit(user: str, second: float, amount: int = 1) -> dict[str, Any]:
    return {"user": user, "at": at(second), "amount": amount}


def visits(**options: Any) -> testing.Source:
    return testing.Source(VISITS, **options)


def per_minute(source: testing.Source, watermark: Any = "5s") -> mill.Stream:
    timed = source.stream().event_time("at", watermark=watermark)
    return timed.key_by("user").window(mill.tumbling("1m")).agg(n=mill.count(), total=col("amount").sum())


def short(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """User, second at which the window begins, number: sorted, as rows of different keys come in any order."""
    return sorted((row["user"], (row["window_start"] - START).total_seconds(), row["n"]) for row in rows)


# -- pushing and collecting ---------------------------------------------------------------------------------------------


def test_a_stream_of_a_source_is_collected_as_it_is_pushed() -> None:
    source = testing.Source({"x": int})
    odd = source.stream().filter(col("x") % 2 == 1)
    with testing.Job(odd) as job:
        assert job.collect() == []
        source.push({"x": 1}, {"x": 2}, (3,))
        assert job.collect() == [{"x": 1}, {"x": 3}]
        assert job.collect(odd) == []
        source.push({"x": 5})
        assert job.collect() == [{"x": 5}]


@pytest.mark.parametrize(
    "make",
    [
        lambda: pa.table({"x": [1, 2], "y": ["a", None]}),
        lambda: pa.record_batch({"x": [1, 2], "y": ["a", None]}),
        lambda: pl.DataFrame({"x": [1, 2], "y": ["a", None]}),
        lambda: pa.table({"y": ["a", None], "x": [1, 2]}),
        lambda: mill.from_iter([{"x": 1, "y": "a"}, {"x": 2, "y": None}]).collect(),
    ],
)
def test_a_table_is_pushed_as_its_rows(make: Callable[[], Any]) -> None:
    source = testing.Source({"x": int, "y": str})
    source.push(make())
    with testing.Job(source.stream()) as job:
        assert job.collect() == [{"x": 1, "y": "a"}, {"x": 2, "y": None}]


def test_what_does_not_fit_is_refused_as_a_whole() -> None:
    source = testing.Source({"x": int})
    with pytest.raises(SchemaError, match="record 1"):
        source.push({"x": 1}, {"x": "two"})
    with pytest.raises(SchemaError, match=r"push\(\) of a table that does not fit.*\"x\""):
        source.push(pa.table({"x": [0.5]}))
    with pytest.raises(SchemaError, match=r"push\(\) of a table that does not fit"):
        source.push(pa.table({"y": [1]}))
    with pytest.raises(PlanError, match=r"write push\(\*records\)"):
        source.push([{"x": 1}])
    with testing.Job(source.stream()) as job:
        assert job.collect() == []


def test_nothing_follows_the_end_of_a_split() -> None:
    source = testing.Source({"x": int}, splits=2)
    source.end(split=0)
    source.end(split=0)
    with pytest.raises(PlanError, match="split 0 of source has ended"):
        source.push({"x": 1})
    with pytest.raises(PlanError, match="has no split 2; there are 2, numbered from 0"):
        source.push({"x": 1}, split=2)
    with pytest.raises(PlanError, match="numbered from 0 to 1, not -1"):
        source.push({"x": 1}, split=-1)
    source.push({"x": 1}, split=1)
    source.watermark("2024-01-01")
    source.idle()
    source.end()
    assert testing.collect(source.stream()) == [{"x": 1}]


def test_arguments_are_checked_at_the_line_of_the_user() -> None:
    with pytest.raises(PlanError, match="takes a number of splits from 1, not 0"):
        testing.Source({"x": int}, splits=0)
    with pytest.raises(PlanError, match="the name of a source is a text"):
        testing.Source({"x": int}, name="")
    source = testing.Source({"x": int})
    with pytest.raises(PlanError, match=r"watermark\(\) takes a time such as .*, not 5"):
        source.watermark(5)  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="not 'noon'"):
        source.watermark("noon")
    with pytest.raises(PlanError, match=r"Job\(\) takes the streams to collect"):
        testing.Job()
    with pytest.raises(PlanError, match=r"a testing\.Clock, not"):
        testing.Job(source.stream(), clock=datetime(2024, 1, 1))  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="takes a seed"):
        testing.Job(source.stream(), seed=-1)
    with pytest.raises(PlanError, match="takes sinks, not int"):
        testing.Job(source.stream(), 3)  # type: ignore[arg-type]
    with testing.Job(source.stream(), source.stream().filter(col("x") > 1)) as job:
        with pytest.raises(PlanError, match="collects 2 streams; pass one"):
            job.collect()
        with pytest.raises(PlanError, match="does not collect this stream"):
            job.collect(source.stream().filter(col("x") > 1))
        with pytest.raises(PlanError, match="collects streams, not 'x'"):
            job.pending("x")  # type: ignore[arg-type]
        with pytest.raises(PlanError, match=r"use collect\(\)"):
            job.latest(source.stream())
    with pytest.raises(MillstreamError, match="the job is closed"):
        job.run()


def test_one_log_is_read_by_several_jobs() -> None:
    source = testing.Source({"x": int})
    source.push({"x": 1})
    with testing.Job(source.stream()) as first, testing.Job(source.stream().select(y=col("x") + 1), seed=3) as second:
        assert (first.collect(), second.collect()) == ([{"x": 1}], [{"y": 2}])
        source.push({"x": 5})
        assert (second.collect(), first.collect()) == ([{"y": 6}], [{"x": 5}])


def test_several_streams_are_collected_each_by_itself() -> None:
    source = visits()
    counts = per_minute(source)
    big = source.stream().filter(col("amount") > 5)
    with testing.Job(counts, counts.late, big) as job:
        source.push(visit("a", 0), visit("a", 70, 9), visit("b", 3, 7))
        assert short(job.collect(counts)) == [("a", 0, 1)]
        assert [row["user"] for row in job.collect(counts.late)] == ["b"]
        assert sorted(row["amount"] for row in job.collect(big)) == [7, 9]


def test_records_that_fail_are_collected_as_errors() -> None:
    source = testing.Source({"x": int})
    shares = source.stream().map(lambda row: {"y": 12 // row.x}, schema={"y": int})
    with testing.Job(shares, shares.errors, on_error="route") as job:
        source.push({"x": 3}, {"x": 0}, {"x": 4})
        assert job.collect(shares) == [{"y": 4}, {"y": 3}]
        assert ["ZeroDivisionError" in row["error"] for row in job.collect(shares.errors)] == [True]


def test_a_source_that_ends_ends_the_job() -> None:
    source = visits(splits=2)
    counts = per_minute(source)
    with testing.Job(counts) as job:
        source.push(visit("a", 10))
        source.push(visit("a", 20), split=1)
        source.end(split=0)
        assert job.collect() == []
        assert not job.is_over
        with pytest.raises(MillstreamError, match="has not come to its end"):
            job.report()
        source.end()
        assert short(job.collect()) == [("a", 0, 2)]
        assert job.is_over
        assert (job.report().status, job.report().rows_in) == ("finished", 2)
        job.kill_and_restore()
        assert job.collect() == []
        assert job.is_over


def test_collect_runs_a_stream_to_its_end() -> None:
    rows = [{"k": "a", "x": 1}, {"k": "b", "x": 2}, {"k": "a", "x": 3}]
    table = mill.from_iter(rows)
    assert testing.collect(table.filter(col("x") > 1)) == rows[1:]
    totals = testing.collect(table.key_by("k").agg(total=col("x").sum(), emit="checkpoint"), seed=4, parallelism=3)
    assert sorted((row["k"], row["total"]) for row in totals) == [("a", 4), ("b", 2)]
    with pytest.raises(PlanError, match=r"end its sources with source\.end\(\)"):
        testing.collect(testing.Source({"x": int}).stream())
    with pytest.raises(PlanError, match="takes a stream"):
        testing.collect([1])  # type: ignore[arg-type]


def test_sinks_of_a_job_write_as_in_a_run(tmp_path: Path) -> None:
    source = testing.Source({"x": int})
    out = tmp_path / "out"
    with testing.Job(source.stream(), source.stream().write_csv(out)) as job:
        source.push({"x": 1})
        job.run()
        assert not list(out.glob("[!.]*"))
        source.push({"x": 2})
        job.kill_and_restore(after=1)
        job.checkpoint()
        lines = [line for file in out.glob("[!.]*.csv") for line in file.read_text().splitlines() if line != "x"]
        assert sorted(lines) == ["1", "2"]
        source.push({"x": 3})
    # Closed, the job has removed what no checkpoint names.
    assert not list(out.glob(".*"))


# -- event time ---------------------------------------------------------------------------------------------------------


def test_a_watermark_by_hand_closes_windows() -> None:
    source = visits()
    with testing.Job(per_minute(source)) as job:
        source.push(visit("a", 0), visit("b", 59.5), visit("a", 30))
        assert job.collect() == []
        source.watermark(at(59))
        assert job.collect() == []
        source.watermark(at(60))
        assert short(job.collect()) == [("a", 0, 2), ("b", 0, 1)]
        # It takes nothing back, and adds nothing to what is known.
        source.watermark(at(10))
        source.push(visit("a", 61))
        assert job.collect() == []


@pytest.mark.parametrize(
    "moment",
    ["2024-01-01T00:01:00", "2024-01-01 00:01", at(60), date(2024, 1, 2)],
)
def test_times_are_taken_in_every_form(moment: Any) -> None:
    source = visits()
    with testing.Job(per_minute(source)) as job:
        source.push(visit("a", 0))
        source.watermark(moment)
        assert short(job.collect()) == [("a", 0, 1)]


@pytest.mark.parametrize(
    ("zone", "moment", "message"),
    [
        (None, at(60).replace(tzinfo=UTC), "has a zone, and the times of the source have none"),
        (None, "2024-01-01 01:01:00+01:00", "has a zone, and the times of the source have none"),
        ("UTC", at(60), "has no zone, and the times of the source have one"),
    ],
)
def test_a_watermark_has_a_zone_if_the_times_have_one(zone: str | None, moment: Any, message: str) -> None:
    source = testing.Source({"at": mill.Timestamp("us", zone)})
    with pytest.raises(mill.PlanError, match=message):
        source.watermark(moment)
    source.watermark("2024-01-01T00:01:00")
    # Which column has the event time is not known here.
    testing.Source({"at": mill.Timestamp("us", zone), "other": mill.Timestamp("us", None if zone else "UTC")}).watermark(moment)


def test_the_slowest_split_holds_the_watermark() -> None:
    source = visits(splits=3)
    with testing.Job(per_minute(source), parallelism=2) as job:
        source.push(visit("a", 0))
        source.watermark(at(300), split=0)
        source.watermark(at(300), split=1)
        assert job.collect() == []
        source.watermark(at(59), split=2)
        assert job.collect() == []
        source.watermark(at(60), split=2)
        assert short(job.collect()) == [("a", 0, 1)]


def test_a_split_that_is_idle_by_hand_is_not_waited_for() -> None:
    source = visits(splits=2)
    counts = per_minute(source)
    with testing.Job(counts, counts.late) as job:
        source.push(visit("a", 0), visit("a", 80))
        assert job.collect(counts) == []
        source.idle(split=1)
        assert short(job.collect(counts)) == [("a", 0, 1)]
        # It has something again, and is waited for again.
        source.push(visit("b", 70), split=1)
        assert job.collect(counts) == []
        source.push(visit("a", 400))
        assert job.collect(counts) == []
        source.idle(split=1)
        assert short(job.collect(counts)) == [("a", 60, 1), ("b", 60, 1)]
        # A reader that is opened after the mark tells it again.
        job.kill_and_restore()
        source.push(visit("a", 600))
        assert short(job.collect(counts)) == [("a", 360, 1)]
        assert job.collect(counts.late) == []


def test_records_behind_a_watermark_by_hand_are_late() -> None:
    source = visits()
    counts = per_minute(source)
    with testing.Job(counts, counts.late) as job:
        source.watermark(at(60))
        source.push(visit("a", 59), visit("a", 61))
        source.watermark(at(120))
        assert short(job.collect(counts)) == [("a", 60, 1)]
        assert [row["at"] for row in job.collect(counts.late)] == [at(59)]


def test_watermarks_survive_a_restart() -> None:
    source = visits(splits=2)
    counts = per_minute(source)
    with testing.Job(counts, counts.late, parallelism=2) as job:
        source.push(visit("a", 30))
        source.watermark(at(60), split=0)
        job.checkpoint()
        job.kill_and_restore(parallelism=3)
        source.push(visit("a", 10))
        source.watermark(at(60), split=1)
        assert short(job.collect(counts)) == [("a", 0, 1)]
        assert [row["at"] for row in job.collect(counts.late)] == [at(10)]


# -- processing time ----------------------------------------------------------------------------------------------------


def test_the_clock_is_moved_by_hand() -> None:
    clock = testing.Clock("2024-01-01T06:00:00+02:00")
    assert clock.now == datetime(2024, 1, 1, 4, tzinfo=UTC)
    clock.advance("1h30m")
    clock.advance(timedelta(microseconds=1))
    assert clock.now == datetime(2024, 1, 1, 5, 30, 0, 1, tzinfo=UTC)
    clock.move_to(datetime(2024, 1, 2, 1, tzinfo=timezone(timedelta(hours=1))))
    assert clock.now == datetime(2024, 1, 2, tzinfo=UTC)
    with pytest.raises(PlanError, match="processing time does not go back"):
        clock.move_to("2024-01-01")
    with pytest.raises(PlanError, match="bare number"):
        clock.advance(5)  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="must not be negative"):
        clock.advance("-1s")
    with pytest.raises(PlanError, match="a clock begins at a time such as"):
        testing.Clock(0)  # type: ignore[arg-type]


def test_nothing_that_goes_by_the_clock_happens_before_it_moves() -> None:
    clock = testing.Clock("2024-01-01")
    source = testing.Source({"k": str})
    counts = source.stream().key_by("k").agg(n=mill.count(), emit="10s")
    with testing.Job(counts, clock=clock) as job:
        source.push({"k": "a"})
        assert job.collect() == []
        clock.advance("9s")
        source.push({"k": "a"})
        assert job.collect() == []
        clock.advance("1s")
        assert job.collect() == [{"op": "insert", "k": "a", "n": 2}]
        source.push({"k": "a"})
        # What was pushed is counted before the clock moves.
        clock.advance("10s")
        assert job.collect() == [{"op": "update", "k": "a", "n": 3}]


WINDOWS: dict[str, Callable[[], Any]] = {
    "tumbling": lambda: mill.tumbling("1m"),
    "sliding": lambda: mill.sliding("1m", slide="30s"),
    "cumulative": lambda: mill.cumulative("20s", "1m"),
    "session": lambda: mill.session("15s"),
    "count": lambda: mill.count_window(3, partial=True),
    "global": lambda: mill.global_window(),
}


def triggered(source: testing.Source, window: str) -> mill.Stream:
    timed = source.stream().event_time("at", watermark="5s")
    return timed.key_by("user").window(WINDOWS[window](), trigger=mill.on_processing_time("10s")).agg(total=col("amount").sum())


@pytest.mark.parametrize("window", [name for name in WINDOWS if name != "count"])
def test_triggers_on_processing_time_fire_as_the_clock_moves(window: str) -> None:
    clock = testing.Clock("2024-01-01")
    source = visits()
    totals = triggered(source, window)
    with testing.Job(totals, clock=clock) as job:
        source.push(visit("a", 0, 5), visit("a", 1, 6))
        assert job.collect() == []
        clock.advance("9s")
        assert job.collect() == []
        clock.advance("1s")
        fired = job.collect()
        assert {row["total"] for row in fired} == {11}
        assert {row["op"] for row in fired} == {"insert"}
        clock.advance("30s")
        assert job.collect() == []
        source.push(visit("a", 2, 10))
        clock.advance("10s")
        again = job.collect()
        # A session that has grown is another window: its former row goes.
        expected = {("delete", None), ("insert", 21)} if window == "session" else {("update", 21)}
        assert {(row["op"], row["total"]) for row in again} == expected
        assert {row["total"] for row in job.latest()} == {21}


def test_timers_fire_one_after_the_other_however_far_the_clock_is_moved() -> None:
    clock = testing.Clock("2024-01-01")
    source = testing.Source({"k": str})
    seen: list[datetime] = []

    def note(row: Any) -> Any:
        seen.append(clock.now)
        return row.asdict()

    counts = source.stream().key_by("k").agg(n=mill.count(), emit="1s").to_changelog()
    noted = counts.map(note, schema={"op": str, "k": str, "n": int})
    with testing.Job(noted, clock=clock) as job:
        source.push({"k": "a"})
        clock.advance("1m")
        assert job.collect() == [{"op": "insert", "k": "a", "n": 1}]
    # The result came out when it was due, and not when the clock had come to its end.
    assert seen == [datetime(2024, 1, 1, 0, 0, 1, tzinfo=UTC)]


def test_now_is_the_time_of_the_clock() -> None:
    clock = testing.Clock("2024-01-01")
    source = testing.Source({"x": int})
    with testing.Job(source.stream().with_columns(seen=mill.now()), clock=clock) as job:
        source.push({"x": 1})
        clock.advance("1h")
        source.push({"x": 2})
        hours = [(row["x"], row["seen"]) for row in job.collect()]
    assert hours == [(1, datetime(2024, 1, 1, tzinfo=UTC)), (2, datetime(2024, 1, 1, 1, tzinfo=UTC))]
    [row] = mill.from_iter([1]).with_columns(seen=mill.now()).collect().to_pylist()
    assert row["seen"] > datetime(2026, 1, 1, tzinfo=UTC)


def test_idleness_goes_by_the_clock() -> None:
    clock = testing.Clock("2024-01-01")
    source = visits(splits=2)
    strategy = mill.WatermarkStrategy.bounded_out_of_orderness("5s").with_idleness("10s")
    with testing.Job(per_minute(source, strategy), clock=clock) as job:
        source.push(visit("a", 0), visit("a", 90))
        assert job.collect() == []
        clock.advance("9s")
        source.push(visit("a", 91))
        assert job.collect() == []
        clock.advance("2s")
        assert short(job.collect()) == [("a", 0, 1)]


def test_one_clock_moves_all_its_jobs() -> None:
    clock = testing.Clock("2024-01-01")
    source = testing.Source({"k": str})
    counts = source.stream().key_by("k").agg(n=mill.count(), emit="10s")
    source.push({"k": "a"})
    with testing.Job(counts, clock=clock) as first:
        with testing.Job(counts, clock=clock) as second:
            clock.advance("10s")
            assert first.collect() == second.collect() == [{"op": "insert", "k": "a", "n": 1}]
        clock.advance("10s")
        assert first.collect() == []


# -- updating streams ---------------------------------------------------------------------------------------------------


def test_changes_of_an_updating_stream_carry_what_they_do() -> None:
    source = testing.Source({"op": str, "k": str, "x": int})
    rows = mill.from_changelog(source.stream(), key="k")
    with testing.Job(rows) as job:
        source.push(("insert", "a", 1), ("insert", "b", 2), ("update", "a", 3))
        assert job.latest() == [{"k": "b", "x": 2}, {"k": "a", "x": 3}]
        source.push(("delete", "b", 2), ("insert", "c", 4))
        assert job.pending() == [{"op": "delete", "k": "b", "x": 2}, {"op": "insert", "k": "c", "x": 4}]
        assert job.collect() == [{"op": "delete", "k": "b", "x": 2}, {"op": "insert", "k": "c", "x": 4}]
        job.kill_and_restore()
        source.push(("update", "c", 5))
        assert job.collect() == [{"op": "update", "k": "c", "x": 5}]
        assert job.latest() == [{"k": "a", "x": 3}, {"k": "c", "x": 5}]


def test_a_column_op_of_an_updating_stream_is_refused() -> None:
    source = testing.Source({"op": str})
    counts = source.stream().key_by("op").agg(n=mill.count(), emit="checkpoint")
    with pytest.raises(PlanError, match=r"to_changelog\(op=\"change\"\)"):
        testing.Job(counts)
    with testing.Job(counts.to_changelog(op="change")) as job:
        source.push({"op": "x"})
        assert job.collect() == [{"change": "insert", "op": "x", "n": 1}]


# -- restarts -----------------------------------------------------------------------------------------------------------


def test_rows_are_pending_until_a_checkpoint_commits_them() -> None:
    source = testing.Source({"x": int})
    with testing.Job(source.stream()) as job:
        source.push({"x": 1})
        assert job.pending() == [{"x": 1}]
        assert job.pending() == [{"x": 1}]
        job.checkpoint()
        assert job.pending() == []
        source.push({"x": 2})
        assert job.collect() == [{"x": 1}, {"x": 2}]


@pytest.mark.parametrize("mode", ["exactly_once", "at_least_once", "none"])
def test_what_a_kill_does_to_results_depends_on_the_mode(mode: Any) -> None:
    source = testing.Source({"x": int})
    with testing.Job(source.stream(), mode=mode) as job:
        source.push({"x": 1}, {"x": 2}, {"x": 3})
        if mode != "none":
            job.checkpoint(after=1)
        job.kill_and_restore()
        source.push({"x": 4})
        values = [row["x"] for row in job.collect()]
    again = {"exactly_once": [1, 2, 3, 4], "at_least_once": [1, 2, 3, 2, 3, 4], "none": [1, 2, 3, 4]}
    assert values == again[mode]


def test_a_kill_in_mode_none_loses_what_is_on_its_way() -> None:
    source = testing.Source({"x": int})
    slow = source.stream().rebalance().select(x=col("x") + 0)
    lost = 0
    for seed in range(10):
        with testing.Job(slow, mode="none", seed=seed, frame_rows=1) as job:
            if seed == 0:
                source.push(*({"x": x} for x in range(6)))
            job.kill_and_restore(after=4)
            values = sorted(row["x"] for row in job.collect())
            assert len(set(values)) == len(values)
            assert set(values) >= {4, 5}
            lost += 6 - len(values)
    assert lost > 0


def test_a_job_is_killed_at_a_chosen_record() -> None:
    source = testing.Source({"x": int})
    calls: list[int] = []

    def note(row: Any) -> Any:
        calls.append(row.x)
        return {"x": row.x}

    noted = source.stream().map(note, schema={"x": int})
    source.push(pa.table({"x": list(range(10))}))
    with testing.Job(noted) as job:
        job.checkpoint(after=3)
        assert calls == [0, 1, 2]
        job.kill_and_restore(after=4)
        assert set(calls[3:]) <= {3, 4, 5, 6}
        job.kill_and_restore(after=0)
        with pytest.raises(PlanError, match=r"kill_and_restore\(after=8\): .* had 7 more records to emit"):
            job.kill_and_restore(after=8)
        assert [row["x"] for row in job.collect()] == list(range(10))
    assert Counter(calls)[0] == Counter(calls)[2] == 1


def disordered() -> list[dict[str, Any]]:
    """Records of three keys, some out of order, some late, with ties in time."""
    seconds = [0, 3, 1, 20, 20, 18, 41, 12, 44, 66, 61, 90, 64, 95, 2, 130]
    return [visit("abc"[index % 3], second, index + 1) for index, second in enumerate(seconds)]


def outcome(window: str, act: Callable[[testing.Job, testing.Source], None], seed: int) -> list[str]:
    """What comes out of a window when the kit drives it so, committed or late, in a comparable order."""
    # What a window of a number of records has depends on their order, which only one split has.
    splits = 1 if window == "count" else 2
    source = visits(splits=splits)
    timed = source.stream().event_time("at", watermark="5s")
    trigger = mill.on_processing_time("1h") if window == "global" else None
    windowed = timed.key_by("user").window(WINDOWS[window](), trigger=trigger)
    totals = windowed.agg(n=mill.count(), total=col("amount").sum(), amounts=col("amount").collect())
    late = [] if window in ("count", "global") else [totals.late]
    for index, record in enumerate(disordered()):
        source.push(record, split=index % splits)
    with testing.Job(totals, *late, seed=seed, frame_rows=2) as job:
        act(job, source)
        source.watermark(at(200))
        rows = job.collect(totals)
        source.end()
        rows += job.collect(totals)
        rows += [row for stream in late for row in job.collect(stream)]
        assert job.is_over
    return sorted(str({**row, "amounts": sorted(row.get("amounts", []))}) for row in rows)


@pytest.mark.parametrize("window", list(WINDOWS))
def test_a_kill_at_every_record_changes_nothing(window: str) -> None:
    def nothing(job: testing.Job, source: testing.Source) -> None:
        pass

    expected = outcome(window, nothing, 0)
    assert expected
    for kill_at in range(len(disordered()) + 1):

        def killed(job: testing.Job, source: testing.Source, after: int = kill_at) -> None:
            job.checkpoint(after=after // 2)
            job.kill_and_restore(after=after - after // 2, parallelism=1 + after % 3)

        assert outcome(window, killed, kill_at) == expected, f"killed at record {kill_at}"


def random_run(seed: int, *, has_kills: bool) -> list[list[str]]:
    """Two sources, a union and a window, all drawn from the seed; with kills and other parallelism on the way, or without."""
    chance, kills = random.Random(seed), random.Random(-seed)
    sources = [visits(splits=chance.randint(1, 3), name="left"), visits(splits=chance.randint(1, 2), name="right")]
    window = WINDOWS[chance.choice(["tumbling", "sliding", "cumulative", "session"])]()
    timed = sources[0].stream().union(sources[1].stream()).event_time("at", watermark="5s")
    totals = timed.key_by("user").window(window).agg(n=mill.count(), total=col("amount").sum())
    pushed = 0
    for step in range(60):
        source = chance.choice(sources)
        split = chance.randrange(source._splits)
        if chance.random() < 0.15:
            source.watermark(at(3 * step - 9), split=split)
        else:
            source.push(visit(chance.choice("abcd"), 3 * step - chance.randrange(24), step), split=split)
            pushed += 1
    for source in sources:
        source.end()
    shape: dict[str, Any] = {"parallelism": chance.randint(1, 4), "chaining": chance.random() < 0.5}
    seed += 1000 if has_kills else 0
    with testing.Job(totals, totals.late, seed=seed, frame_rows=chance.choice([1, 2, 7, None]), **shape) as job:
        for _ in range(3 if has_kills else 0):
            ahead = kills.randint(0, pushed)
            job.checkpoint(after=ahead)
            lost = kills.randint(0, pushed - ahead)
            job.kill_and_restore(after=lost, parallelism=kills.randint(1, 4))
            pushed -= ahead
        found = [sorted(map(str, job.collect(stream))) for stream in (totals, totals.late)]
        assert job.is_over
    return found


def test_random_jobs_give_the_same_whatever_is_killed_when() -> None:
    late = 0
    for seed in range(40):
        expected = random_run(seed, has_kills=False)
        assert random_run(seed, has_kills=True) == expected, f"seed {seed}"
        late += len(expected[1])
    assert late > 0


def test_equal_seeds_give_equal_runs_and_others_other_orders() -> None:
    def run(seed: int) -> list[tuple[str, int]]:
        source = testing.Source({"k": str, "x": int}, splits=4)
        for number in range(40):
            source.push({"k": "abcdefgh"[number % 8], "x": number}, split=number % 4)
        passed = source.stream().key_by("k").deduplicate().union(source.stream())
        with testing.Job(passed, seed=seed, parallelism=3, frame_rows=2) as job:
            job.kill_and_restore(after=20)
            return [(row["k"], row["x"]) for row in job.collect()]

    runs = [run(seed) for seed in range(6)]
    assert runs == [run(seed) for seed in range(6)]
    assert len({tuple(rows) for rows in runs}) > 1
    assert {len(rows) for rows in runs} == {48}


def test_a_failure_is_raised_where_the_job_runs_and_can_be_recovered_from() -> None:
    source = testing.Source({"x": int})
    broken = [True]

    def check(row: Any) -> Any:
        if row.x == 2 and broken:
            raise ValueError("not two")
        return {"x": row.x}

    with testing.Job(source.stream().map(check, schema={"x": int})) as job:
        source.push({"x": 1})
        job.checkpoint()
        source.push({"x": 2}, {"x": 3})
        with pytest.raises(UserFunctionError, match="not two") as raised:
            job.run()
        assert isinstance(raised.value.__cause__, ValueError)
        with pytest.raises(UserFunctionError, match="not two"):
            job.collect()
        job.kill_and_restore()
        with pytest.raises(UserFunctionError, match="not two"):
            job.checkpoint()
        broken.clear()
        job.kill_and_restore(after=5)
        assert job.collect() == [{"x": 1}, {"x": 2}, {"x": 3}]


def test_a_function_of_a_job_cannot_drive_it() -> None:
    source = testing.Source({"x": int})
    jobs: list[testing.Job] = []

    def drive(row: Any) -> Any:
        jobs[0].run()
        return {"x": row.x}

    with testing.Job(source.stream().map(drive, schema={"x": int})) as job:
        jobs.append(job)
        source.push({"x": 1})
        with pytest.raises(UserFunctionError, match="cannot drive that job"):
            job.run()


# -- other sources, and what is left over -------------------------------------------------------------------------------


class Slow(mill.Source):
    """Has something only at every other call."""

    schema = {"n": int}
    is_bounded = False

    def open(self, partition: str, position: Any | None) -> SlowReader:
        return SlowReader(position or 0)


class SlowReader(mill.SourceReader):
    def __init__(self, n: int) -> None:
        self.n = n
        self.calls = 0

    def next_batch(self) -> Any:
        self.calls += 1
        if self.calls % 2 or self.n == 5:
            return []
        self.n += 1
        return [{"n": self.n}]

    def position(self) -> Any:
        return self.n


def test_sources_of_all_kinds_can_be_read() -> None:
    pushed = testing.Source({"n": int})
    both = mill.from_source(Slow()).union(pushed.stream(), mill.from_iter([{"n": 100}]))
    with testing.Job(both) as job:
        pushed.push({"n": 50})
        values = {row["n"] for row in job.collect()}
        assert values >= {50, 100}
        for _ in range(20):
            values |= {row["n"] for row in job.collect()}
        assert values == {1, 2, 3, 4, 5, 50, 100}


def test_a_source_can_be_read_by_a_real_run() -> None:
    source = visits(splits=2)
    source.push(visit("a", 0), visit("b", 10))
    source.watermark(at(30))
    source.push(visit("a", 20), split=1)
    source.end()
    rows = per_minute(source).collect(until="10s").to_pylist()
    assert short(rows) == [("a", 0, 2), ("b", 0, 1)]


def test_nothing_is_left_of_a_job_that_nobody_holds() -> None:
    clock = testing.Clock()
    source = testing.Source({"x": int})
    job = testing.Job(source.stream(), clock=clock)
    job.run()
    del job
    gc.collect()
    assert len(clock._jobs) == 0
    clock.advance("1h")


def test_names_are_shown() -> None:
    source = testing.Source({"x": int}, name="clicks")
    assert "clicks" in source.stream().explain()
    with testing.Job(source.stream(), seed=3) as job:
        assert repr(job) == "<testing.Job seed=3 open>"
        source.end()
        assert job.collect() == []
        assert repr(job) == "<testing.Job seed=3 over>"
        assert repr(job.clock) == "<Clock 2000-01-01 00:00:00+00:00>"


@pytest.mark.parametrize("parallelism", [1, 2, 3])
def test_a_bounded_split_that_is_idle_is_late_by_the_time_of_all(parallelism: int) -> None:
    source = visits(splits=3, is_bounded=True)
    counts = per_minute(source, watermark="0s")
    with testing.Job(counts, counts.late, parallelism=parallelism) as job:
        source.idle(split=0)
        source.push(visit("a", 100), split=2)
        source.push(visit("b", 50), split=1)
        assert job.collect(counts) == []
        # The time of the input is 50: its window is open, whatever the task of this split has seen besides.
        source.push(visit("c", 55), split=0)
        assert job.collect(counts) == []
        assert job.collect(counts.late) == []
