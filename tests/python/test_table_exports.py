"""Tables as frames of pandas and polars: every value is the same there, or an error names its column."""

from __future__ import annotations

from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest

import millstream as mill
from millstream.errors import DataError, SchemaError

LARGE = 2**53 + 1


def table(**columns: pa.Array) -> mill.Table:
    return mill.from_arrow(pa.table(columns)).collect()


@pytest.mark.parametrize("name", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])
def test_integers_with_nulls_stay_integers_in_pandas(name: str) -> None:
    bits, signed = int(name.strip("uint")), not name.startswith("u")
    values = [(-(2 ** (bits - 1)) if signed else 0), 2 ** (bits - signed) - 1]
    frame = table(a=pa.array([*values, None], name), b=pa.array([*values, 1], name)).to_pandas()
    assert list(frame.columns) == ["a", "b"]
    assert str(frame["a"].dtype) == (f"Int{bits}" if signed else f"UInt{bits}")
    assert frame["a"].tolist()[:2] == values and frame["a"].tolist()[2] is pd.NA
    assert str(frame["b"].dtype) == name
    assert frame["b"].tolist() == [*values, 1]


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([[LARGE, None], None]), [[LARGE, None], None]),
        (pa.array([{"x": LARGE}, {"x": None}]), [{"x": LARGE}, {"x": None}]),
        (pa.array([[{"x": [LARGE, None]}], []]), [[{"x": [LARGE, None]}], []]),
        (pa.array([[("k", LARGE), ("j", None)]], pa.map_(pa.string(), pa.int64())), [[("k", LARGE), ("j", None)]]),
    ],
)
def test_integers_with_nulls_within_others_stay_integers_in_pandas(array: Any, expected: Any) -> None:
    assert table(a=array).to_pandas()["a"].tolist() == expected


def test_an_empty_table_has_its_columns() -> None:
    frame = mill.from_iter([], schema={"a": int, "b": str}).collect().to_pandas()
    assert list(frame.columns) == ["a", "b"] and len(frame) == 0
    assert mill.from_iter([], schema={"a": int, "o": object}).collect().to_polars().columns == ["a", "o"]


def test_what_pandas_cannot_hold_names_its_column() -> None:
    with pytest.raises(DataError, match=r"to_pandas\(\): column 'bad' \(time64\[ns\]\) cannot be converted.*cast it before"):
        table(ok=pa.array([1]), bad=pa.array([1], pa.time64("ns"))).to_pandas()


@pytest.mark.parametrize(("kind", "value"), [(object, {1, 2}), (list[object], [{1}, {2}]), ({"x": object}, {"x": {1}})])
def test_objects_come_back_as_the_objects(kind: Any, value: Any) -> None:
    rows = [{"n": 1, "o": value, "m": 2}, {"n": 3, "o": None, "m": 4}]
    found = mill.from_iter(rows, schema={"n": int, "o": kind, "m": int}).collect(parallelism=1)
    for frame in (found.to_pandas(), found.to_polars()):
        assert list(frame.columns) == ["n", "o", "m"]
        assert frame["o"].to_list() == [value, None]
        assert frame["m"].to_list() == [2, 4]
    alone = mill.from_iter([{"o": value}], schema={"o": kind}).collect()
    assert alone.to_pandas()["o"].tolist() == alone.to_polars()["o"].to_list() == [value]


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (pa.array([2**62], pa.duration("s")), DataError, "out of range in milliseconds"),
        (pa.array([0, 2**55], pa.timestamp("s")), DataError, "out of range in milliseconds"),
        (pa.array([-(2**55)], pa.timestamp("s", "UTC")), DataError, "out of range in milliseconds"),
        (pa.array([[2**62]], pa.list_(pa.duration("s"))), DataError, "out of range in milliseconds"),
        (pa.array([{"x": 2**62}], pa.struct([("x", pa.duration("s"))])), DataError, "out of range in milliseconds"),
        (pa.array([1], pa.decimal256(76)), SchemaError, r"decimal\[76, 0\].*38 digits.*cast"),
        (pa.array([[1]], pa.list_(pa.decimal256(76))), SchemaError, "38 digits.*cast"),
        (pa.array([1], pa.timestamp("us", "+05:30")), SchemaError, "zones with a name.*convert_time_zone"),
        (pa.array([100], pa.decimal128(5, -2)), SchemaError, "negative scale.*cast"),
    ],
)
def test_what_polars_cannot_hold_names_its_column(array: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=rf'to_polars\(\): column "bad" .*{message}'):
        table(ok=pa.array([1] * len(array)), bad=array).to_polars()


def test_times_in_seconds_that_polars_holds_are_the_same() -> None:
    seconds = [2**53, -(2**53), None]
    frame = table(d=pa.array(seconds, pa.duration("s")), t=pa.array(seconds, pa.timestamp("s"))).to_polars()
    expected = [None if value is None else value * 1000 for value in seconds]
    assert frame.select(pl.all().cast(pl.Int64)).to_dict(as_series=False) == {"d": expected, "t": expected}


HUGE = 2**127 - 1


@pytest.mark.parametrize("expression", ["{}", "[{}]", "{{'x': {}}}", "map(['k'], [{}])"])
@pytest.mark.parametrize("number", [HUGE, -HUGE, 10**38])
def test_integers_of_duckdb_with_39_digits_are_refused(expression: str, number: int) -> None:
    query = f"select 1 as ok, {expression.format(f'{number}::hugeint')} as h"
    with pytest.raises(DataError, match=rf'column "h", row 0: {number} has 39 digits, and decimal\[38, 0\] holds 38; cast'):
        mill.from_arrow(duckdb.sql(query)).collect()
    with pytest.raises(DataError, match="has 39 digits"):
        mill.from_arrow(duckdb.sql(query).arrow()).collect()


def test_integers_of_duckdb_with_38_digits_are_the_same() -> None:
    number = 10**38 - 1
    found = mill.from_arrow(duckdb.sql(f"select {number}::hugeint as h, null::hugeint as n")).collect().to_pylist()
    assert [int(found[0]["h"]), found[0]["n"]] == [number, None]


def test_decimals_of_a_file_with_too_many_digits_are_errors_of_their_record(tmp_path: Any) -> None:
    data = pa.array([1, None, 3], pa.decimal128(38, 0))
    buffers = [data.buffers()[0], pa.py_buffer(b"".join(value.to_bytes(16, "little") for value in (1, 0, HUGE)))]
    huge = pa.Array.from_buffers(pa.decimal128(38, 0), 3, buffers)
    pa.parquet.write_table(pa.table({"h": huge}), tmp_path / "huge.parquet")
    with pytest.raises(DataError, match=rf'row 3, column "h": {HUGE} has 39 digits'):
        mill.read_parquet(tmp_path / "huge.parquet").collect()
    kept = mill.read_parquet(tmp_path / "huge.parquet").collect(on_error="skip")
    assert [row["h"] and int(row["h"]) for row in kept.to_pylist()] == [1, None]


def test_a_function_of_batches_returns_no_decimal_with_too_many_digits() -> None:
    huge = pa.Array.from_buffers(pa.decimal128(38, 0), 1, [None, pa.py_buffer(HUGE.to_bytes(16, "little"))])
    stream = mill.from_iter([1]).map_batches(lambda batch: {"h": huge}, schema={"h": mill.types.Decimal(38, 0)})
    with pytest.raises(mill.UserFunctionError, match="has 39 digits"):
        stream.collect()
