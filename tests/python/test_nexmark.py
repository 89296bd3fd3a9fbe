"""Nexmark: the generator, and each query against DuckDB on the same events, a tenth of them late."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import nexmark_oracle as oracle
import pyarrow as pa
import pytest

import millstream as mill
from millstream import testing
from millstream.errors import CheckpointError, MillstreamError, PlanError
from millstream.nexmark import QUERIES, Nexmark, query

EVENTS = 100_000
TABLES = {"person": "persons", "auction": "auctions", "bid": "bids"}
#: Of these the time of day matters, so that their events last for a day and more.
DAYS = ("q10", "q14", "q15", "q16", "q17")


def events_of(name: str, **more: Any) -> Nexmark:
    """Return the events that a query is tested with."""
    return mill.nexmark(**({"events": EVENTS, "event_rate": 1 if name in DAYS else 1000, "seed": 3} | more))


@cache
def database(is_days: bool) -> duckdb.DuckDBPyConnection:
    """Return a database with the same events."""
    events = events_of("q10" if is_days else "q0")
    found = duckdb.connect(config={"threads": 1})
    for name, kind in TABLES.items():
        found.register("records", getattr(events, kind).collect(parallelism=1).to_arrow())
        found.execute(f"CREATE TABLE {name} AS SELECT * FROM records")
        found.unregister("records")
    return found


def plain(table: pa.Table, names: list[str]) -> pa.Table:
    """Return columns in types that both engines' types go into, sorted by all of them."""

    def column(name: str) -> Any:
        kind = table[name].type
        if pa.types.is_timestamp(kind):
            return table[name].cast(pa.timestamp("us"))
        if pa.types.is_integer(kind) or (pa.types.is_decimal(kind) and kind.scale == 0):
            return table[name].cast(pa.int64())
        return table[name].cast(pa.decimal128(38, 3) if pa.types.is_decimal(kind) else pa.string())

    result = pa.table({name: column(name) for name in names})
    return result.sort_by([(name, "ascending") for name in names]).combine_chunks()


def assert_same(found: pa.Table, wanted: pa.Table) -> None:
    """Check that two tables have the same rows, in whatever order."""
    names = wanted.column_names
    left, right = plain(found, names), plain(wanted, names)
    if left.equals(right):
        return
    a, b = (Counter(tuple(row.values()) for row in table.to_pylist()) for table in (left, right))
    few = [list(rows.items())[:3] for rows in (a - b, b - a)]
    raise AssertionError(f"{left.num_rows} rows for {right.num_rows}; too many: {few[0]}, missing: {few[1]}")


# -- the generator ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seed", "event_rate", "delay"), [(0, 10_000, 3000), (2**63 + 11, 7.5, 0), (42, 2_000_000, 1), (1, 333, 100_000)]
)
def test_events_follow_the_rules(seed: int, event_rate: float, delay: int) -> None:
    rows: dict[str, list[Any]] = {kind: [] for kind in TABLES.values()}
    for number in range(12_345):
        kind, values = oracle.event(number, seed, event_rate, delay)
        rows[kind].append(values)
    events = mill.nexmark(12_345, seed=seed, event_rate=event_rate, out_of_order=f"{delay}ms", splits=1)
    for kind, wanted in rows.items():
        assert getattr(events, kind).collect(parallelism=1).to_pylist() == wanted


@pytest.mark.parametrize("kind", TABLES.values())
def test_events_do_not_depend_on_parallelism_or_splits(kind: str) -> None:
    wanted = getattr(mill.nexmark(20_000, splits=1), kind).collect(parallelism=1).to_arrow()
    for splits, parallelism in ((1, 2), (4, 2), (16, 1), (16, 5)):
        found = getattr(mill.nexmark(20_000, splits=splits), kind).collect(parallelism=parallelism).to_arrow()
        assert_same(found, wanted)


def test_only_what_is_used_is_made() -> None:
    bids = mill.nexmark(10_000).bids
    wanted = bids.collect(parallelism=1).to_arrow()
    for names in (["price"], ["channel", "auction"], ["extra"]):
        assert bids.select(*names).collect(parallelism=1).to_arrow().equals(wanted.select(names))
    assert bids.agg(n=mill.count()).collect().to_pylist() == [{"n": 9200}]
    assert "nexmark.bids(" in bids.explain()


@pytest.mark.parametrize("parallelism", [1, 2, 5])
@pytest.mark.parametrize("splits", [1, 16])
def test_no_event_is_late_for_its_window(parallelism: int, splits: int) -> None:
    bids = mill.nexmark(200_000, splits=splits).bids
    counts = bids.key_by("auction").window(mill.tumbling("1s")).agg(n=mill.count())
    assert len(counts.late.collect(parallelism=parallelism)) == 0
    assert sum(counts.collect(parallelism=parallelism)["n"]) == 184_000


def test_a_smaller_bound_than_that_of_the_events_makes_some_late() -> None:
    bids = mill.nexmark(200_000).bids.event_time("date_time", watermark="1s")
    counts = bids.key_by("auction").window(mill.tumbling("1s")).agg(n=mill.count())
    late = len(counts.late.collect())
    assert 1000 < late < 18_400
    assert sum(counts.collect()["n"]) == 184_000 - late


def test_splits_are_read_side_by_side() -> None:
    # Read one after another, all windows would be open until the last split begins.
    bids = mill.nexmark(400_000, event_rate=1000).bids.select("date_time")
    starts = bids.window_all(mill.tumbling("1s")).agg(n=mill.count())
    seen: list[int] = []
    rows = starts.inspect(lambda row: seen.append(row.n)).limit(3)
    assert len(rows.collect(parallelism=1)) == 3
    assert 3 <= len(seen) < 390


def test_an_endless_stream_is_cut_short() -> None:
    events = mill.nexmark(seed=5)
    assert not events.bids.is_bounded
    assert len(events.persons.limit(3).collect()) == 3


def test_the_rate_is_kept() -> None:
    began = time.monotonic()
    assert len(mill.nexmark(1000, rate=2000).bids.collect()) == 920
    assert 0.4 < time.monotonic() - began < 5


def test_event_time_goes_by_the_rate() -> None:
    def span(**options: Any) -> float:
        times = mill.nexmark(2001, out_of_order="0s", **options).bids.collect(parallelism=1)["date_time"]
        return float((max(times) - min(times)).total_seconds())

    assert span() == pytest.approx(0.2, abs=0.002)
    assert span(event_rate=100) == pytest.approx(20, abs=0.1)
    assert span(rate=20_000) == pytest.approx(0.1, abs=0.002)
    assert span(rate=20_000, event_rate=1000) == pytest.approx(2, abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"events": -1}, r"nexmark\(events=\.\.\.\) takes a number of events, not -1"),
        ({"events": 1.5}, r"nexmark\(events=\.\.\.\) takes a number of events, not 1.5"),
        ({"events": 2**60}, "no exact time"),
        ({"rate": 0}, r"nexmark\(rate=\.\.\.\) takes events a second, above 0, not 0"),
        ({"rate": float("nan")}, "above 0, not nan"),
        ({"event_rate": "1s"}, r"nexmark\(event_rate=\.\.\.\) takes events a second, above 0, not '1s'"),
        ({"event_rate": float("inf")}, "event_rate=inf"),
        ({"seed": -3}, r"nexmark\(seed=\.\.\.\) takes a whole number from 0, not -3"),
        ({"splits": 0}, r"nexmark\(splits=\.\.\.\) takes a number of splits from 1, not 0"),
        ({"splits": 5000}, "at most 1024, not 5000"),
        ({"out_of_order": 3}, "out_of_order is the bare number 3"),
        ({"out_of_order": "5us"}, r"nexmark\(out_of_order=\.\.\.\) takes whole milliseconds, not '5us'"),
        ({"out_of_order": "90d"}, "at most 49 days late"),
    ],
)
def test_wrong_arguments(
    arguments: dict[str, Any], message: str, raises_at_caller: Callable[..., pytest.ExceptionInfo[BaseException]]
) -> None:
    raises_at_caller(PlanError, message, lambda: mill.nexmark(**arguments))


def test_the_name_is_the_package_and_its_function() -> None:
    """``import millstream.nexmark as nx`` gave the function: nx.query was not there."""
    import millstream.nexmark as nx
    import millstream.nexmark.q2 as q2

    assert nx is mill.nexmark
    assert nx.query("q2").stream is q2.query
    assert nx.QUERIES == QUERIES
    assert isinstance(nx.nexmark(10), Nexmark)
    assert isinstance(mill.nexmark(10), Nexmark)
    assert list(inspect.signature(mill.nexmark).parameters)[:2] == ["events", "rate"]


def test_other_splits_cannot_go_on(tmp_path: Path) -> None:
    def sink(**options: Any) -> mill.Output:
        return mill.nexmark(200_000, **options).bids.select("price").write_csv(tmp_path / "out")

    assert testing.simulate(sink(), seed=1, steps=60, checkpoint=tmp_path / "state", parallelism=1) is None
    assert mill.checkpoints(tmp_path / "state")
    with pytest.raises(MillstreamError, match=r"bids \d+ of 16.*no longer has"):
        mill.run(sink(splits=3), checkpoint=tmp_path / "state", progress=False)


# -- the queries -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in QUERIES if query(name).sql is not None])
def test_a_query_has_the_rows_that_duckdb_has(name: str) -> None:
    asked = query(name)
    assert asked.sql is not None
    wanted = database(name in DAYS).sql(asked.sql).to_arrow_table()
    assert wanted.num_rows > 0
    stream = asked.stream(events_of(name))
    for parallelism in (1, 2, 5):
        assert_same(stream.collect(parallelism=parallelism).to_arrow(), wanted)


def test_query_7_takes_bids_from_the_start_of_a_window_to_its_end() -> None:
    start = datetime(2015, 7, 15)
    bids = [
        {"auction": number, "bidder": 7, "price": price, "date_time": start + timedelta(seconds=second), "extra": ""}
        for number, (price, second) in enumerate([(9, 0), (5, 4), (9, 10), (9, 20), (8, 20), (1, 30)])
    ]
    kinds = {"auction": int, "bidder": int, "price": int, "date_time": mill.Timestamp("ms"), "extra": str}
    stream = mill.from_iter(bids, schema=kinds).event_time("date_time")
    events = mill.nexmark(0)
    rows = query("q7").stream(Nexmark(events.persons, events.auctions, stream)).collect().to_pylist()
    # The bid at 10 s is the highest of both windows, that at 20 s of two others, and that at 30 s of its own.
    assert sorted(row["auction"] for row in rows) == [0, 2, 2, 3, 3, 5]


@pytest.mark.parametrize("parallelism", [1, 2, 5])
def test_query_12_counts_each_bid_in_one_window_of_the_clock(parallelism: int) -> None:
    rows = query("q12").stream(events_of("q12")).collect(parallelism=parallelism).to_pylist()
    found: Counter[int] = Counter()
    for row in rows:
        found[row["bidder"]] += row["bid_count"]
        assert (row["endtime"] - row["starttime"]).total_seconds() == 10
        assert row["starttime"].second % 10 == 0
        assert abs(row["starttime"].timestamp() - time.time()) < 600
    wanted = database(False).sql("SELECT bidder, count(*) FROM bid GROUP BY bidder").fetchall()
    assert found == dict(wanted)


@pytest.mark.parametrize("name", ["q3", "q5", "q7", "q8", "q9", "q11", "q19"])
@pytest.mark.parametrize("seed", range(2))
def test_a_query_that_is_left_and_goes_on_has_the_same_rows(name: str, seed: int, tmp_path: Path) -> None:
    asked = query(name)
    stream = asked.stream(events_of(name))
    sink = stream.write_parquet(tmp_path / "out")
    state = tmp_path / "state"
    left = 0
    for at in range(20):
        steps = None if at == 19 else 60 + 40 * at
        report = testing.simulate(sink, seed=seed * 100 + at, steps=steps, checkpoint=state, parallelism=1 + (seed + at) % 3)
        if report is not None:
            break
        left += 1
    assert left > 1
    assert asked.sql is not None
    assert_same(mill.read_parquet(tmp_path / "out").collect().to_arrow(), database(False).sql(asked.sql).to_arrow_table())


JOB = """
import sys
import millstream as mill
from millstream.nexmark import query

name, folder, rate = sys.argv[1:]
events = mill.nexmark(60_000, rate=float(rate), event_rate=1000, seed=3, splits=4)
sink = query(name).stream(events).write_parquet(f"{folder}/out")
mill.run(sink, checkpoint=mill.Checkpoint(f"{folder}/state", every="50ms"), parallelism=2, progress=False)
"""


@pytest.mark.parametrize("name", ["q0", "q5", "q11", "q18"])
def test_a_killed_query_goes_on_to_the_same_rows(name: str, tmp_path: Path) -> None:
    def start(rate: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", JOB, name, str(tmp_path), str(rate)])

    def newest() -> int:
        try:
            return max((info.id for info in mill.checkpoints(tmp_path / "state")), default=0)
        except CheckpointError:  # the directory is not there yet, or is just being made
            return 0

    # At this rate it would run for a quarter of a minute.
    child = start(4_000)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and newest() < 8:
        time.sleep(0.02)
    assert newest() >= 8
    assert child.poll() is None, "it has ended before it was killed"
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert start(100_000).wait(60) == 0
    # Without the rate the events are the same.
    wanted = query(name).stream(mill.nexmark(60_000, event_rate=1000, seed=3)).collect().to_arrow()
    assert_same(mill.read_parquet(tmp_path / "out").collect().to_arrow(), wanted)


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_over_events_without_end(name: str) -> None:
    asked = query(name)
    if name in ("q4", "q6"):
        with pytest.raises(PlanError, match=f"query {name} takes the mean of winning bids, .* bounded events"):
            asked.stream(mill.nexmark())
        return
    stream = asked.stream(mill.nexmark(event_rate=1000))
    assert not stream.is_bounded
    assert len(stream.collect(limit=1, until="20s")) == 1


def test_names_of_queries() -> None:
    assert [query(name).name for name in QUERIES] == list(QUERIES)
    with pytest.raises(PlanError, match="there is no query 'q99'; there are q0, q1, .*; did you mean"):
        query("q99")
