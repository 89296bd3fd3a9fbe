"""CSV and JSON as a user meets them: values to the last digit, what is inferred, errors that say what to do."""

from __future__ import annotations

import json
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import millstream as mill
from millstream import col

FORMATS = ["csv", "json", "parquet"]


def read(form: str, path: Path, **options: Any) -> list[dict[str, Any]]:
    return list(getattr(mill, f"read_{form}")(path, **options).collect().to_pylist())


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (int, 1.75, "1.75 is not a whole number"),
        (int, 2**63, "9223372036854775808 is too large or too small for int64"),
        (float, 2**53 + 1, "9007199254740993 has more digits than float64 holds"),
        (Decimal, "0.0000000001", "has more digits than decimal"),
        (date, 1.5, "1.5 has more digits than date holds"),
        (time, 86_400_000_000, "is too large or too small for time"),
        (timedelta, 0.5, "0.5 has a finer fraction"),
        (bool, 1, "1 is not true or false"),
        (mill.Timestamp("ms"), "2024-01-02T03:04:05.0001", "has a finer fraction of a second than timestamp"),
        (mill.Timestamp("us"), "2024-01-02T03:04:05+02:00", "has an offset"),
        (mill.Timestamp("us", "Europe/Berlin"), "2024-03-31T02:30:00", "a local time that does not exist"),
    ],
)
def test_what_does_not_fit_is_told_with_file_line_column_and_value(tmp_path: Path, kind: Any, value: Any, expected: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"a": None}) + "\n" + json.dumps({"a": value}) + "\n")
    stream = mill.read_json(path, schema={"a": kind})
    with pytest.raises(mill.DataError) as info:
        stream.collect()
    message = str(info.value)
    assert "a.json" in message and "line 2" in message and 'column "a"' in message and expected in message, message
    assert "Int64" not in message and "Timestamp(M" not in message
    assert stream.collect(on_error="skip").to_pylist() == [{"a": None}]


def test_numbers_and_times_are_read_to_the_last_digit(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"id":92233720368547758089,"n":1e3,"d":12345678901234567.25,"t":1704164645123,"w":"PT1H30M"}\n')
    schema = {"id": str, "n": int, "d": mill.types.Decimal(20, 2), "t": mill.Timestamp("ms"), "w": timedelta}
    assert read("json", path, schema=schema) == [
        {
            "id": "92233720368547758089",
            "n": 1000,
            "d": Decimal("12345678901234567.25"),
            "t": datetime(2024, 1, 2, 3, 4, 5, 123000),
            "w": timedelta(hours=1, minutes=30),
        }
    ]


def test_nan_of_python_is_named_where_the_stream_is_declared(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"a": float("nan")}) + "\n")
    with pytest.raises(mill.SchemaError, match="line 1: NaN and Infinity are not JSON: write null"):
        mill.read_json(path, schema={"a": float})


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("parallelism", [1, 3])
def test_a_result_without_rows_is_one_file_with_the_columns(tmp_path: Path, form: str, parallelism: int) -> None:
    stream = mill.from_iter([{"a": 1, "s": "x"}] * 100).rebalance().filter(col("a") > 5)
    for _ in range(2):
        mill.run(getattr(stream, f"write_{form}")(tmp_path / "out"), checkpoint=tmp_path / "state", parallelism=parallelism)
        assert len(list((tmp_path / "out").glob("*"))) == 1
    assert read(form, tmp_path / "out", schema={"a": int, "s": str}) == []
    if form == "parquet":
        assert mill.read_parquet(tmp_path / "out").schema == stream.schema
    if form == "csv":
        assert [path.read_text() for path in (tmp_path / "out").glob("*")] == ["a,s\n"]


@pytest.mark.parametrize("form", FORMATS)
def test_rows_of_one_task_leave_no_empty_file(tmp_path: Path, form: str) -> None:
    stream = mill.from_iter([{"k": 7}] * 10).key_by("k").agg(n=mill.count())
    mill.run(getattr(stream, f"write_{form}")(tmp_path / "out"), parallelism=4)
    assert len(list((tmp_path / "out").glob("*"))) == 1
    assert read(form, tmp_path / "out") == [{"k": 7, "n": 10}]


@pytest.mark.parametrize("form", FORMATS)
def test_values_that_text_is_hard_for_come_back(tmp_path: Path, form: str) -> None:
    given = pa.table(
        {
            "far": pa.array([2**63 - 1, -(2**63), None], pa.timestamp("ms")),
            "fine": pa.array([2**63 - 1, -1, None], pa.timestamp("ns", "Europe/Berlin")),
            "day": pa.array([2**31 - 1, -(2**31), None], pa.int32()).cast(pa.date32()),
            "span": pa.array([-1, 2**63 - 1, None], pa.duration("us")),
            "id": pa.array([2**64 - 1, 0, None], pa.uint64()),
            "real": pa.array([-0.0, float("-inf"), None], pa.float64()),
            "small": pa.array([0.1, 3.4e38, None], pa.float32()),
            "text": pa.array(["", "null", None]),
        }
    )
    mill.run(getattr(mill.from_arrow(given), f"write_{form}")(tmp_path / "out"), parallelism=1)
    if form != "parquet":
        text = next((tmp_path / "out").glob("part-*")).read_text()
        assert "ERROR" not in text and "invalid" not in text and "+292278994-08-17T07:12:55.807" in text
    back = getattr(mill, f"read_{form}")(tmp_path / "out", schema=given.schema).collect().to_arrow()
    for name in given.column_names:
        assert back[name].type == given[name].type
        found, expected = back[name].combine_chunks(), given[name].combine_chunks()
        assert found.equals(expected), (name, found.cast(pa.string()), expected.cast(pa.string()))
    assert repr(back["real"][0].as_py()) == "-0.0"


def test_csv_of_other_systems(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"a,b\r1,x\r2,y\r")
    with pytest.raises(mill.SchemaError, match="carriage return without a line feed"):
        mill.read_csv(path)
    path.write_text("at\n1704164645123\n")
    assert read("csv", path, schema={"at": mill.Timestamp("ms")}) == [{"at": datetime(2024, 1, 2, 3, 4, 5, 123000)}]
    path.write_text("a,a\n1,2\n")
    with pytest.raises(mill.SchemaError, match='two columns "a": give them different names'):
        mill.read_csv(path)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["2024-01-02T03:04"], [datetime(2024, 1, 2, 3, 4)]),
        (["2024-01-02", "2024-01-02T03:04"], [datetime(2024, 1, 2), datetime(2024, 1, 2, 3, 4)]),
        (["2024-01-02T03:04Z"], [datetime(2024, 1, 2, 3, 4, tzinfo=timezone.utc)]),
        (["2024-01-02T03:04Z", "2024-01-02T03:04"], ["2024-01-02T03:04Z", "2024-01-02T03:04"]),
        (["2024-01-02T24:00"], ["2024-01-02T24:00"]),
        ([1, 0.5], [1.0, 0.5]),
        ([2**53 + 1, 2**63], [2**53 + 1, 2**63]),
        ([-1, 2**63], [Decimal(-1), Decimal(2**63)]),
        ([2**53 + 1, 0.5], ["9007199254740993", "0.5"]),
        (["x", 1], ["x", "1"]),
    ],
)
@pytest.mark.parametrize("form", ["csv", "json"])
def test_what_is_inferred_holds_all_values_and_can_be_read(tmp_path: Path, form: str, values: list[Any], expected: list[Any]) -> None:
    # A file each: the heads of several files are looked at, and files without rows decide nothing.
    for number, value in enumerate(values):
        line = f"{value}" if form == "csv" else json.dumps({"a": value})
        (tmp_path / f"{number}.{form}").write_text(("a\n" if form == "csv" else "") + line + "\n")
    (tmp_path / f"9.{form}").write_text("a\n" if form == "csv" else "")
    found = [row["a"] for row in getattr(mill, f"read_{form}")(tmp_path).collect(parallelism=1).to_pylist()]
    assert found == expected and list(map(type, found)) == list(map(type, expected))


def test_what_the_samples_did_not_show_is_an_error_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    many = '{"a":5}\n' * 300_000
    path.write_text(many + '{"a":1.75}\n' + many)
    with pytest.raises(mill.DataError, match=r'line 300001: column "a": 1.75 is not a whole number.*schema='):
        mill.read_json(path).collect(parallelism=1)
    path.write_text(many + '{"a":2,"b":3}\n' + many)
    with pytest.raises(mill.DataError, match=r'line 300001: the key "b".*schema='):
        mill.read_json(path).filter(col("a") == 2).collect(parallelism=1, on_error="fail")
    # With the schema that the messages ask for everything is there.
    path.write_text(many + '{"a":1.75}\n{"a":2,"b":3}\n' + many)
    kept = mill.read_json(path, schema={"a": float, "b": int}).filter(col("a") != 5).collect().to_pylist()
    assert sorted(kept, key=str) == [{"a": 1.75, "b": None}, {"a": 2.0, "b": 3}]


def test_blanks_beside_numbers_make_an_inferred_column_text(tmp_path: Path) -> None:
    for blank in (" ", "\t", '"\r"', '" \n"'):
        (tmp_path / "a.csv").write_text(f"n,b\n1,{blank}\n2,2024-01-02\n3,\n", newline="")
        rows = mill.read_csv(str(tmp_path / "a.csv")).collect().to_pylist()
        assert rows == [{"n": 1, "b": blank.strip('"')}, {"n": 2, "b": "2024-01-02"}, {"n": 3, "b": None}]
