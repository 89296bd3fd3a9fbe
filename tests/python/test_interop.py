"""pandas, Polars, pyarrow and DuckDB objects go in and come out."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import millstream as mill
from millstream import col

DATA = {"x": [1, 2, None], "s": ["a", None, "c"], "t": [datetime(2024, 1, 1), datetime(2024, 1, 2), None]}
ROWS = [dict(zip(DATA, values, strict=True)) for values in zip(*DATA.values(), strict=True)]


@pytest.mark.parametrize(
    "given",
    [
        pa.table(DATA),
        pa.record_batch(DATA),
        pa.table(DATA).to_reader(),
        pl.DataFrame(DATA),
        pd.DataFrame({"x": pd.array([1, 2, None], dtype="Int64"), "s": ["a", None, "c"], "t": DATA["t"]}),
    ],
    ids=["table", "record_batch", "reader", "polars", "pandas"],
)
def test_goes_in(given: Any) -> None:
    found = mill.from_arrow(given).select("x", "s", col("t").cast(mill.Timestamp("us"))).collect()
    assert found.to_pylist() == ROWS


def test_duckdb_goes_in_and_out() -> None:
    with duckdb.connect() as database:
        relation = database.sql("SELECT range AS n, range % 3 AS k FROM range(1000)")
        counts = mill.from_arrow(relation).key_by("k").agg(n=mill.count(), s=col("n").sum()).collect()
        found = database.sql("SELECT k, n, s FROM counts ORDER BY k").fetchall()
        wanted = database.sql("SELECT range % 3, count(*), sum(range)::BIGINT FROM range(1000) GROUP BY 1 ORDER BY 1").fetchall()
    assert found == wanted


def test_comes_out() -> None:
    table = mill.from_iter(ROWS).collect()
    assert table.to_arrow().to_pylist() == ROWS
    assert table.to_polars().to_dicts() == ROWS
    assert table.to_pandas()["x"].sum() == 3
    assert pa.table(table).equals(table.to_arrow())
    assert pl.DataFrame(table).shape == (3, 3)
    assert len(table) == 3
    assert table["s"] == ["a", None, "c"]


def test_a_table_is_not_copied_on_its_way_in() -> None:
    table = pa.table({"x": pa.array(range(1000))})
    found = mill.from_arrow(table).collect(parallelism=1).to_arrow()
    assert found.column("x").chunk(0).buffers()[1].address == table.column("x").chunk(0).buffers()[1].address


def test_a_reader_is_read_as_it_goes() -> None:
    taken: list[int] = []

    def batches() -> Any:
        for number in range(1000):
            taken.append(number)
            yield pa.record_batch({"x": [number] * 100})

    reader = pa.RecordBatchReader.from_batches(pa.schema({"x": pa.int64()}), batches())
    assert len(mill.from_arrow(reader).collect(limit=50)) == 50
    assert len(taken) < 500
    again = mill.from_arrow(reader)
    del again


VALUES: dict[str, tuple[Any, Any]] = {
    "bool": (bool, True),
    "int": (int, -(2**63)),
    "float": (float, 1e-300),
    "str": (str, "äöü \U0001f600"),
    "bytes": (bytes, b"\x00\xff"),
    "date": (date, date(1969, 12, 31)),
    "datetime": (datetime, datetime(1900, 1, 1, 0, 0, 0, 1)),
    "timedelta": (timedelta, timedelta(days=-1, microseconds=1)),
    "decimal": (mill.types.Decimal(20, 4), Decimal("-12345.6789")),
    "utc": (mill.Timestamp("ms", "UTC"), datetime(2024, 7, 1, 12, tzinfo=__import__("datetime").timezone.utc)),
    "zone": (
        mill.Timestamp("us", "Europe/Berlin"),
        datetime(2024, 7, 1, 12, tzinfo=__import__("zoneinfo").ZoneInfo("Europe/Berlin")),
    ),
    "list": (list[str], ["a", None]),
    "nested": (list[list[int]], [[1], [], None]),
    "struct": ({"a": int, "b": list[float]}, {"a": 1, "b": [1.5]}),
    "object": (object, {1, "x", (2, 3)}),
    "int8": (pa.int8(), -128),
    "uint64": (pa.uint64(), 2**64 - 1),
    "float32": (pa.float32(), 0.5),
    "dictionary": (pa.dictionary(pa.int32(), pa.string()), "a"),
    "large": (pa.large_string(), "a"),
    "polars": (pl.Int16, 7),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_of_every_type_makes_the_round(name: str) -> None:
    kind, value = VALUES[name]
    stream = mill.from_iter([{"v": value}, {"v": None}], schema={"v": kind})
    assert stream.collect()["v"] == [value, None]
    assert stream.map(lambda row: {"v": row.v}, schema={"v": kind}).collect()["v"] == [value, None]
    assert stream.filter(lambda row: row["v"] is not None).collect()["v"] == [value]


@pytest.mark.parametrize("schema", [{"a": int, "b": str}, pa.schema({"a": pa.int64(), "b": pa.string()}), pl.Schema({"a": pl.Int64, "b": pl.String})])
def test_schemas_of_other_libraries(schema: Any) -> None:
    stream = mill.from_iter([(1, "x")], schema=schema)
    assert stream.schema.names == ["a", "b"]
    assert stream.collect().to_pylist() == [{"a": 1, "b": "x"}]
    assert stream.schema.to_arrow().names == ["a", "b"]


def test_table_shows_itself() -> None:
    table = mill.from_iter([{"a": i, "b": "<b>" * 30} for i in range(50)]).collect()
    text = repr(table)
    assert "50 rows" in text
    assert max(map(len, text.splitlines())) < 60
    html = table._repr_html_()
    assert html.count("<tr>") == 22
    assert "<b>" not in html
