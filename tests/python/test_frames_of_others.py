"""Frames and values of polars, pandas, pyarrow and numpy come in as what they are, or are refused by the name of their column."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import millstream as mill
from millstream import col, testing
from millstream.errors import MillstreamError, PlanError, SchemaError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def of_polars(values: list[Any], kind: Any) -> Callable[[], Any]:
    return lambda: pl.DataFrame({"bad": pl.Series(values, dtype=kind)})


def of_objects(*values: Any) -> Callable[[], Any]:
    return lambda: pd.DataFrame({"bad": pd.Series(values, dtype=object)})


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "pl.Int128": (of_polars([2**100], pl.Int128), r'"bad" is Int128.*pl\.Int64.*Decimal\(38, 0\)'),
    "pl.UInt128": (of_polars([2**100], pl.UInt128), r'"bad" is UInt128.*pl\.Int64'),
    "pl.Int128 in a list": (of_polars([[1]], pl.List(pl.Int128)), '"bad" is Int128'),
    "pl.Int128 in a struct": (of_polars([{"a": 1}], pl.Struct({"a": pl.Int128})), '"bad" is Int128'),
    "pl.Object": (of_polars([object()], pl.Object), '"bad" holds Python objects.*from_iter'),
    "nanoseconds": (of_objects(datetime(2024, 1, 1), pd.Timestamp(1, unit="ns")), r'"bad", row 1: .* nanoseconds.*to_datetime'),
    "nanoseconds alone": (of_objects(pd.NaT, pd.Timestamp(1, unit="ns")), r'"bad", row 1: .* nanoseconds'),
    "nanoseconds of a length": (of_objects(timedelta(1), pd.Timedelta(1, "ns")), r'"bad", row 1: .* nanoseconds.*to_timedelta'),
    "nanoseconds in a list": (of_objects([datetime(2024, 1, 1)], [pd.Timestamp(1, unit="ns")]), r'"bad", row 1: .* nanoseconds'),
    "a time of day with a zone": (of_objects(None, time(1, tzinfo=UTC)), r'"bad", row 1: .* zone.*tzinfo=None'),
    "a time of day with a zone in a struct": (of_objects({"x": time(1, tzinfo=UTC)}), r'"bad", row 0: .* zone'),
    "two zones": (
        of_objects(datetime(2024, 1, 1, tzinfo=UTC), None, datetime(2024, 1, 1, tzinfo=ZoneInfo("Asia/Tokyo"))),
        r'"bad", row 2: .* zone Asia/Tokyo.*row 0 has UTC.*utc=True',
    ),
    "texts and numbers": (of_objects(1, "a"), "bad.*make each of its columns one type"),
    "texts and bytes": (of_objects(b"a", "a"), '"bad" mixes texts and bytes'),
    "truth and numbers": (of_objects(True, 2), "bad"),
    "large integers": (of_objects(1, 2**70), f'"bad" holds {2**70}.*64 bits'),
    "sets": (of_objects({1}), '"bad" holds sets.*sorted'),
    "zones and none": (of_objects(datetime(2024, 1, 1), datetime(2024, 1, 1, tzinfo=UTC)), '"bad" mixes times with a zone'),
    "dates and times": (of_objects(date(2024, 1, 1), datetime(2024, 1, 1, 5)), '"bad" mixes dates and times'),
    "periods": (lambda: pd.DataFrame({"bad": pd.period_range("2024-01", periods=2, freq="M")}), '"bad" holds periods.*to_timestamp'),
    "intervals": (lambda: pd.DataFrame({"bad": pd.interval_range(0, 2)}), '"bad" holds intervals.*left'),
    "sparse": (lambda: pd.DataFrame({"bad": pd.arrays.SparseArray([0, 1])}), "bad"),
    "complex": (lambda: pd.DataFrame({"bad": [1j]}), "bad"),
    "two of one name": (lambda: pd.DataFrame([[1, 2]], columns=["bad", "bad"]), "bad"),
    "unknown zone": (lambda: pa.table({"bad": pa.array([0], pa.timestamp("s", "Mars/Olympus"))}), '"bad" has the time zone "Mars/Olympus"'),
    "unknown zone in a list": (lambda: pa.table({"bad": pa.array([[0]], pa.list_(pa.timestamp("s", "europe/berlin")))}), '"bad" has the time zone'),
    "union": (
        lambda: pa.table({"bad": pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1]), pa.array(["a"])])}),
        '"bad" holds a union',
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_arrow_does_not_have_is_refused_by_name(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(MillstreamError, match=message):
        mill.from_arrow(make())


KEPT: dict[str, tuple[Callable[[], Any], list[Any]]] = {
    "pl.Enum": (of_polars(["a", None], pl.Enum(["b", "a"])), ["a", None]),
    "pl.Categorical": (of_polars(["a", "b", None, "a"], pl.Categorical), ["a", "b", None, "a"]),
    "pl.Categorical in a list": (of_polars([["b", "a"], None], pl.List(pl.Categorical)), [["b", "a"], None]),
    "pl.Array": (of_polars([[1, 2], None], pl.Array(pl.Int32, 2)), [[1, 2], None]),
    "pl.Array of none": (of_polars([[], []], pl.Array(pl.Int32, 0)), [[], []]),
    "pl.Decimal": (of_polars([Decimal("1.25"), None], pl.Decimal(38, 2)), [Decimal("1.25"), None]),
    "pl.Time": (of_polars([time(1, 2, 3, 4), None], pl.Time), [time(1, 2, 3, 4), None]),
    "pl.Binary": (of_polars([b"\xff", None], pl.Binary), [b"\xff", None]),
    "pl.Null": (of_polars([None, None], pl.Null), [None, None]),
    "pl.UInt64": (of_polars([2**64 - 1], pl.UInt64), [2**64 - 1]),
    "Int64": (lambda: pd.DataFrame({"bad": pd.array([2**63 - 1, None], dtype="Int64")}), [2**63 - 1, None]),
    "boolean": (lambda: pd.DataFrame({"bad": pd.array([True, None], dtype="boolean")}), [True, None]),
    "string": (lambda: pd.DataFrame({"bad": pd.array(["a", None], dtype="string")}), ["a", None]),
    "objects of one kind": (of_objects("a", None, math.nan), ["a", None, None]),
    "decimals": (of_objects(Decimal("1.1"), Decimal("2.22")), [Decimal("1.1"), Decimal("2.22")]),
    "large_list": (lambda: pa.table({"bad": pa.array([[1], None], pa.large_list(pa.int64()))}), [[1], None]),
    "list_view": (lambda: pa.table({"bad": pa.array([[1], [2, 3], None], pa.list_view(pa.int64()))[1:]}), [[2, 3], None]),
    "runs": (lambda: pa.table({"bad": pa.RunEndEncodedArray.from_arrays([2, 5], ["a", None])[1:4]}), ["a", None, None]),
    "string_view": (lambda: pa.table({"bad": pa.array(["a", "more than twelve bytes"], pa.string_view())}), ["a", "more than twelve bytes"]),
    "binary_view": (lambda: pa.table({"bad": pa.array([b"a", b"more than twelve bytes"], pa.binary_view())}), [b"a", b"more than twelve bytes"]),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_arrow_has_is_kept(name: str) -> None:
    make, expected = KEPT[name]
    assert [row["bad"] for row in mill.from_arrow(make()).collect(parallelism=1).to_pylist()] == expected


def test_frames_that_functions_return_are_looked_at_too() -> None:
    stream = mill.from_iter([{"a": 1}])
    objects = pl.DataFrame({"a": pl.Series([object()], dtype=pl.Object)})
    with pytest.raises(MillstreamError, match='"a" holds Python objects'):
        stream.map_batches(lambda _: objects, schema={"a": bytes}).collect(parallelism=1)
    with pytest.raises(MillstreamError, match="mixes texts and bytes"):
        stream.map_batches(lambda _: {"a": pd.Series(["a", b"b"], dtype=object)}, schema={"a": bytes}).collect(parallelism=1)


SCALARS = [
    (np.int8(1), 1),
    (np.float16(1.5), 1.5),
    (np.float32(0.1), float(np.float32(0.1))),
    (np.bool_(True), True),
    (np.str_("a"), "a"),
    (np.bytes_(b"a"), b"a"),
    (np.datetime64("2024-01-01"), date(2024, 1, 1)),
    (np.timedelta64(5, "D"), timedelta(5)),
    (np.array([1, 2]), [1, 2]),
    (np.array(5), 5),
    (np.longdouble(0.5), np.longdouble(0.5)),
]


@pytest.mark.parametrize("value, expected", SCALARS, ids=lambda value: type(value).__name__)
def test_scalars_of_numpy_are_values_of_python(value: Any, expected: Any) -> None:
    assert mill.from_iter([{"a": value}]).collect().to_pylist() == [{"a": expected}]


@pytest.mark.parametrize("kind", [mill.Timestamp("us"), mill.Timestamp("ns", "Europe/Berlin"), date, timedelta, time], ids=str)
@pytest.mark.parametrize("value", [0, 1.5, True, np.int64(5), Decimal(1)], ids=repr)
def test_a_bare_number_is_no_time(kind: Any, value: Any) -> None:
    with pytest.raises(SchemaError, match='"a"') as refused:
        mill.from_iter([{"a": value}], schema={"a": kind})
    assert kind is time or "cast()" in str(refused.value)


def test_zones_that_nobody_knows_are_refused_where_they_are_declared() -> None:
    with pytest.raises(SchemaError, match="Mars/Olympus.*Europe/Berlin"):
        mill.Timestamp("us", "Mars/Olympus")
    for zone in ("UTC", "Europe/Berlin", "+05:30", "-0330", "Z"):
        mill.Timestamp("us", zone)


LARGE = [2**64, 2**70, 10**400, -1, -(2**64), 1.5, "3", True]


@pytest.mark.parametrize("value", LARGE, ids=lambda value: f"{value!r:.24}")
def test_numbers_out_of_range_are_refused_by_the_call(value: Any, tmp_path: Path) -> None:
    stream = mill.from_iter([{"a": 1}])
    calls: dict[str, Callable[[], Any]] = {
        "limit": lambda: stream.limit(value),
        "collect(limit)": lambda: stream.collect(limit=value),
        "show": lambda: stream.show(value),
        "parallelism": lambda: stream.collect(parallelism=value),
        "explain": lambda: stream.explain(parallelism=value),
        "iter_batches": lambda: list(stream.iter_batches(parallelism=value)),
        "run": lambda: mill.run(stream.write_csv(tmp_path / "out"), parallelism=value),
        "generate": lambda: mill.generate(rows=value),
        "random": lambda: mill.random(value),
        "retain": lambda: mill.Checkpoint(tmp_path, retain=value),
        "attempts": lambda: mill.Restart.fixed_delay(value),
        "precision": lambda: mill.types.Decimal(value, 0),
        "scale": lambda: mill.types.Decimal(38, value),
        "read_state": lambda: mill.read_state(tmp_path, step="a", id=value),
        "simulate": lambda: testing.simulate(stream.write_csv(tmp_path / "out"), seed=value),
        "frame_rows": lambda: testing.simulate(stream.write_csv(tmp_path / "out"), seed=1, frame_rows=value),
        "steps": lambda: testing.simulate(stream.write_csv(tmp_path / "out"), seed=1, steps=value),
    }
    for name, call in calls.items():
        with pytest.raises(PlanError) as refused:
            print(name, call())
        assert len(str(refused.value)) < 400, name


def test_negative_zero_is_zero_in_sqlite_and_stays_in_parquet(tmp_path: Path) -> None:
    stream = mill.from_iter([{"a": -0.0}])
    mill.run(stream.write_sqlite(tmp_path / "a.db", "t"), stream.write_parquet(tmp_path / "p"), parallelism=1)
    import sqlite3

    connection = sqlite3.connect(tmp_path / "a.db")
    ((stored,),) = connection.execute("SELECT a FROM t").fetchall()
    connection.close()
    assert math.copysign(1, stored) == 1, "SQLite holds it now: the docstring of write_sqlite() says otherwise"
    (back,) = mill.read_parquet(tmp_path / "p").select(a=col("a")).collect().to_pylist()
    assert math.copysign(1, back["a"]) == -1
