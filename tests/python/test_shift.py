"""`shift` and `diff` per key, compared with Polars: values, kills, state that is read, and what is refused."""

from __future__ import annotations

import random
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import millstream as mill
from millstream import col, testing

KINDS: dict[str, tuple[Any, pl.DataType | type[pl.DataType]]] = {
    "i": (int, pl.Int64),
    "f": (float, pl.Float64),
    "s": (str, pl.String),
    "d": (date, pl.Date),
    "t": (datetime, pl.Datetime("us")),
    "w": (timedelta, pl.Duration("us")),
    "l": (list[int], pl.List(pl.Int64)),
}
NUMBERS = ("i", "f", "d", "t", "w")


def rows_of(seed: int, count: int) -> list[dict[str, Any]]:
    dice = random.Random(seed)
    start = datetime(2026, 1, 1)

    def value(kind: str) -> Any:
        if dice.random() < 0.15:
            return None
        number = dice.randrange(-1000, 1000)
        made = {"i": number, "f": number / 8, "s": f"s{number}", "d": date(2026, 1, 1) + timedelta(days=number), "l": [number] * (number % 3)}
        return {**made, "t": start + timedelta(microseconds=number), "w": timedelta(microseconds=number)}[kind]

    keys: list[Any] = ["a", "b", None, "a key that is longer than a word"]
    return [{"n": n, "k": dice.choice(keys), **{kind: value(kind) for kind in KINDS}} for n in range(count)]


def stream_of(rows: list[dict[str, Any]]) -> mill.Stream:
    return mill.from_iter(rows, schema={"n": int, "k": str, **{name: kind for name, (kind, _) in KINDS.items()}})


def frame_of(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"n": pl.Int64, "k": pl.String, **{name: kind for name, (_, kind) in KINDS.items()}})


def sorted_rows(rows: Any) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: row["n"])


@pytest.mark.parametrize("seed", range(6))
def test_values_are_those_of_polars(seed: int) -> None:
    rows, back = rows_of(seed, 300), 1 + seed * seed % 7
    shifted = stream_of(rows).key_by("k").shift(back, **{f"{kind}_before": kind for kind in KINDS})
    expected = frame_of(rows).with_columns(pl.col(kind).shift(back).over("k").alias(f"{kind}_before") for kind in KINDS)
    assert sorted_rows(shifted.collect(parallelism=2).to_pylist()) == expected.to_dicts()
    changes = stream_of(rows).key_by("k").diff(back, **{f"{kind}_change": kind for kind in NUMBERS})
    expected = frame_of(rows).with_columns(pl.col(kind).diff(back).over("k").alias(f"{kind}_change") for kind in NUMBERS)
    assert sorted_rows(changes.collect(parallelism=2).to_pylist()) == expected.to_dicts()


def test_expressions_and_what_follows() -> None:
    rows = [{"k": n % 2, "x": n * n} for n in range(6)]
    steps = mill.from_iter(rows).key_by(key=col("k") + 1).shift(before=col("x") * 10).filter(col("before") > 0).select("x", "before")
    assert sorted(steps.collect().to_pylist(), key=lambda row: row["x"]) == [{"x": 9, "before": 10}, {"x": 16, "before": 40}, {"x": 25, "before": 90}]
    prices = mill.from_iter([{"k": 1, "p": Decimal("1.50")}, {"k": 1, "p": Decimal("1.25")}])
    assert prices.key_by("k").diff(change="p").collect().to_pylist()[1]["change"] == Decimal("-0.25")
    # The order within a key is that of the files' records; event time goes on.
    timed = mill.from_iter([{"k": 1, "at": datetime(2026, 1, 1, 0, minute)} for minute in (5, 1, 9)]).event_time("at", watermark="1h")
    gaps = timed.key_by("k").diff(gap="at").collect().to_pylist()
    assert [row["gap"] for row in gaps] == [None, timedelta(minutes=-4), timedelta(minutes=8)]


@pytest.mark.parametrize("seed", range(4))
def test_kills_change_nothing(seed: int) -> None:
    dice, rows = random.Random(seed), rows_of(seed, 120)
    source = testing.Source({"n": int, "k": str, "i": int})
    stream = source.stream().key_by("k").shift(3, before="i").key_by("k").diff(change="i")
    with testing.Job(stream) as job:
        for at in range(0, len(rows), 10):
            source.push(*({name: row[name] for name in ("n", "k", "i")} for row in rows[at : at + 10]))
            if dice.random() < 0.4:
                job.kill_and_restore()
            if dice.random() < 0.6:
                job.checkpoint()
        source.end()
        job.checkpoint()
        found = sorted_rows(job.collect())
    frame = frame_of(rows).select("n", "k", "i")
    expected = frame.with_columns(before=pl.col("i").shift(3).over("k"), change=pl.col("i").diff().over("k"))
    assert found == expected.to_dicts()


def test_a_job_goes_on_and_its_state_can_be_read(tmp_path: Path) -> None:
    rows = [{"k": "ab"[n % 2], "x": n} for n in range(7)]

    def job(count: int) -> list[Any]:
        found: list[Any] = []
        stream = mill.from_iter(lambda start: iter(rows[start:count]), schema={"k": str, "x": int})
        sink = stream.key_by("k").shift(2, before="x").name("earlier").for_each(lambda row: found.append((row.x, row.before)))
        mill.run(sink, checkpoint=mill.Checkpoint(tmp_path / "state", mode="at_least_once"), parallelism=1)
        return found

    assert job(7) == [(n, n - 4 if n >= 4 else None) for n in range(7)]
    state = mill.read_state(tmp_path / "state", step="earlier").to_pylist()
    assert sorted(state, key=lambda row: row["before"]) == [
        {"k": "b", "before": 3}, {"k": "a", "before": 4}, {"k": "b", "before": 5}, {"k": "a", "before": 6}
    ]  # fmt: skip


def test_a_difference_that_does_not_fit() -> None:
    rows = [{"k": 1, "x": x} for x in (-2, 2**63 - 1, 5)]
    stream = mill.from_iter(rows).key_by("k").diff(change="x")
    with pytest.raises(mill.DataError, match="overflow"):
        stream.collect()
    assert [row["change"] for row in stream.collect(on_error="skip").to_pylist()] == [None, 7]


def test_what_is_refused() -> None:
    keyed = mill.from_iter([{"k": 1, "x": 1, "s": "a"}]).key_by("k")
    for call, message in [
        (lambda: keyed.shift(0, before="x"), "from 1 to 10000 rows back, found 0"),
        (lambda: keyed.shift(-1, before="x"), "looks back, and -1 rows back would be rows that have not arrived"),
        (lambda: keyed.shift("x"), r'takes a number of rows, not \'x\'; columns are named, as in shift\(before="price"\)'),
        (lambda: keyed.diff(True, change="x"), "takes a number of rows, not True"),
        (lambda: keyed.shift(), "needs a column"),
        (lambda: keyed.shift(x="x"), r'there is one already; give it another name, as in shift\(x_before="x"\)'),
        (lambda: keyed.shift(before="y"), "y"),
        (lambda: keyed.diff(change="s"), '"change" would be of values of type .*, which have no difference'),
        (lambda: keyed.agg(n=mill.count(), emit="each").key_by("k").shift(before="n"), "updat"),
    ]:
        with pytest.raises(mill.MillstreamError, match=message):
            call()
