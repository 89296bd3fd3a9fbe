"""Iceberg tables: judged by what pyiceberg reads, and by DuckDB over the files that it names."""

from __future__ import annotations

import builtins
import importlib.metadata
import math
import os
import random
import subprocess
import sys
import textwrap
import time
from datetime import date, datetime, timedelta, timezone
from datetime import time as time_of_day
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import millstream as mill
from millstream import col, testing

pytest.importorskip("pyiceberg")

from iceberg_tables import catalog, lake_in, leftover, made, marks, rows, table
from pyiceberg import types as kinds
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import BucketTransform, DayTransform, IdentityTransform

ROWS = [{"k": n % 5, "x": n, "day": f"2026-01-0{n % 3 + 1}"} for n in range(1000)]


@pytest.fixture
def lake(tmp_path: Path) -> dict[str, str]:
    return lake_in(tmp_path)


# -- appending -------------------------------------------------------------------------------------------------------------


def test_rows_are_appended_once(tmp_path: Path, lake: dict[str, str]) -> None:
    sink = mill.from_iter(ROWS).write_iceberg("s.t", catalog=lake)
    mill.run(sink, checkpoint=tmp_path / "state")
    assert rows(lake, order="x") == ROWS
    # The job has finished: run again, it adds nothing.
    assert mill.run(sink, checkpoint=tmp_path / "state").restored is not None
    assert len(rows(lake)) == 1000
    assert repr(sink) == '<Sink write_iceberg("s.t")>'
    # A job that starts anew adds its rows to those that are there, under a name of its own.
    mill.run(sink, checkpoint=tmp_path / "anew")
    assert sorted(row["x"] for row in rows(lake)) == sorted(2 * list(range(1000)))
    assert len(marks(lake)) == 2
    mill.run(sink)
    assert len(rows(lake)) == 3000
    with table(lake) as found:
        # A commit says which epoch of which run it is.
        summaries = [snapshot.summary.additional_properties for snapshot in found.snapshots()]
        assert {(each["millstream.run"], each["millstream.epoch"]) for each in summaries} == {
            (run, value.split("/")[0]) for run, value in marks(lake).items()
        }
    assert leftover(tmp_path, lake) == set()


def test_a_catalog_by_its_name(tmp_path: Path, lake: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    script = """
    import millstream as mill
    mill.run(mill.from_iter([{"a": 1}]).write_iceberg("s.t", catalog="prod"))
    print(mill.read_iceberg("s.t", catalog="prod").collect().to_pylist())
    """
    settings = {f"PYICEBERG_CATALOG__PROD__{key.upper()}": value for key, value in lake.items()}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env={**os.environ, **settings}, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[{'a': 1}]\n", done.stderr
    # The properties name the catalog, too: it is another one in the same database.
    with pytest.raises(mill.ConnectorError, match="has no table"):
        mill.read_iceberg("s.t", catalog=lake)
    assert mill.read_iceberg("s.t", catalog={"name": "prod", **lake}).collect().to_pylist() == [{"a": 1}]


def test_partitions_whatever_is_in_their_names(tmp_path: Path, lake: dict[str, str]) -> None:
    names = ["a/b", "50% off", "c=d", " ", "ü", "", None, "null", "__HIVE_DEFAULT_PARTITION__", "."]
    given = [{"p": name, "n": number, "d": date(2026, 1, 1 + number % 2), "f": number % 2 == 0} for number, name in enumerate(names)]
    stream = mill.from_iter(given, schema={"p": str, "n": int, "d": date, "f": bool})
    mill.run(stream.write_iceberg("s.t", catalog=lake, partition_by=["p", "d", "f"]))
    with table(lake) as found:
        partitions = [tuple(each.values()) for each in found.inspect.files()["partition"].to_pylist()]
        assert found.scan().to_arrow().sort_by("n").to_pylist() == given
        assert found.scan(row_filter="p == 'a/b' and d == '2026-01-01'").to_arrow().to_pylist() == given[:1]
    assert sorted(partitions, key=str) == sorted(((row["p"], row["d"], row["f"]) for row in given), key=str)
    assert sorted(mill.read_iceberg("s.t", catalog=lake).collect().to_pylist(), key=lambda row: row["n"]) == given


@pytest.mark.parametrize("key", [None, "n"])
def test_partitions_by_transforms(lake: dict[str, str], key: str | None) -> None:
    at = [datetime(2025 + n % 2, 1 + n % 3, 1 + n % 2, n % 3, n % 60) for n in range(30)]
    given = [
        {"n": n, "name": f"name {n % 7}", "a": when, "b": when, "c": when.replace(tzinfo=timezone.utc), "d": when.date(), "money": Decimal(n)}
        for n, when in enumerate(at)
    ]
    given.append(dict.fromkeys(given[0]) | {"n": 30})
    types = {"n": int, "name": str, "a": datetime, "b": datetime, "c": mill.types.Timestamp("us", "UTC"), "d": date, "money": mill.types.Decimal(9, 2)}
    by = ["bucket(4, n)", "truncate(6, name)", "year(a)", "hours(b)", "day(c)", "month(d)", "bucket(2,money)"]
    stream = mill.from_iter(given, schema=types)
    mill.run(stream.write_iceberg("s.t", catalog=lake, key=key, partition_by=by))
    with table(lake) as found:
        shown = [(field.name, str(field.transform)) for field in found.spec().fields]
        assert shown == [
            ("n_bucket", "bucket[4]"), ("name_trunc", "truncate[6]"), ("a_year", "year"), ("b_hour", "hour"), ("c_day", "day"), ("d_month", "month"),
            ("money_bucket", "bucket[2]"),
        ]  # fmt: skip
        assert found.scan().to_arrow().sort_by("n").to_pylist() == given
        # Readers leave files out by partitions: none of a row is in the wrong one.
        for n in (0, 17, 29):
            wanted = f"n == {n} and name == 'name {n % 7}' and a == '{at[n].isoformat()}' and c == '{at[n].isoformat()}+00:00'"
            assert found.scan(row_filter=wanted).to_arrow()["n"].to_pylist() == [n]
    # Written as it is, whether the partitions are named again or not.
    for again in (by, ()):
        mill.run(stream.write_iceberg("s.t", catalog=lake, key=key, partition_by=again))
    with table(lake) as found:
        assert sorted(found.scan().to_arrow()["n"].to_pylist()) == sorted((1 if key else 3) * list(range(31)))


@pytest.mark.parametrize("key", [None, "n"])
def test_partitions_by_times(lake: dict[str, str], key: str | None) -> None:
    at = [datetime(1969, 12, 31, 23, 59, 59, 999_999), datetime(1970, 1, 1), datetime(1, 1, 1), None]
    given = [{"n": n, "a": when, "u": None if when is None else when.replace(tzinfo=timezone.utc)} for n, when in enumerate(at)]
    stream = mill.from_iter(given, schema={"n": int, "a": datetime, "u": mill.types.Timestamp("us", "UTC")})
    for _ in range(2 if key else 1):
        mill.run(stream.write_iceberg("s.t", catalog=lake, key=key, partition_by=["a", "u"]))
    assert sorted(mill.read_iceberg("s.t", catalog=lake).collect().to_pylist(), key=lambda row: row["n"]) == given
    with table(lake) as found:
        assert found.scan(row_filter="a == '1969-12-31T23:59:59.999999'").to_arrow()["n"].to_pylist() == [0]


def test_many_rows_are_cut_into_files(lake: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    from millstream.io import _iceberg_files

    monkeypatch.setattr(_iceberg_files, "_BUFFERED_BYTES_MAX", 200_000)
    monkeypatch.setattr(_iceberg_files, "_FILE_BYTES", 50_000)
    mill.run(mill.generate(50_000, n=mill.index()).write_iceberg("s.t", catalog=lake))
    with table(lake) as found:
        files = found.inspect.files()
        assert files.num_rows > 4
        assert found.scan(row_filter="n >= 49990").to_arrow().num_rows == 10
    assert [row["n"] for row in rows(lake)] == list(range(50_000))


def test_manifests_are_merged(lake: dict[str, str]) -> None:
    source = testing.Source({"n": int})
    with testing.Job(source.stream().write_iceberg("s.t", catalog=lake)) as job:
        for n in range(12):
            source.push({"n": n})
            job.checkpoint()
            if n == 0:
                with table(lake) as found:
                    found.transaction().set_properties({"commit.manifest.min-count-to-merge": "5"}).commit_transaction()
    with table(lake) as found:
        assert len(found.current_snapshot().manifests(found.io)) < 5
    assert [row["n"] for row in rows(lake)] == list(range(12))


# -- types -----------------------------------------------------------------------------------------------------------------

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678_901)
TYPES: list[tuple[str, pa.DataType, list[Any], str]] = [
    ("flag", pa.bool_(), [True, False], "boolean"),
    ("i8", pa.int8(), [-128, 127], "int"),
    ("u8", pa.uint8(), [0, 255], "int"),
    ("i16", pa.int16(), [-(2**15), 2**15 - 1], "int"),
    ("u16", pa.uint16(), [0, 2**16 - 1], "int"),
    ("i32", pa.int32(), [-(2**31), 2**31 - 1], "int"),
    ("u32", pa.uint32(), [0, 2**32 - 1], "long"),
    ("i64", pa.int64(), [-(2**63), 2**63 - 1], "long"),
    ("u64", pa.uint64(), [0, 2**64 - 1], "decimal(20, 0)"),
    ("f32", pa.float32(), [1.5, -0.0], "float"),
    ("f64", pa.float64(), [1e308, 5e-324], "double"),
    ("money", pa.decimal128(12, 2), [Decimal("1234567890.12"), Decimal("-0.01")], "decimal(12, 2)"),
    ("long", pa.decimal256(38, 20), [Decimal("1" * 18 + "." + "2" * 20), Decimal(0)], "decimal(38, 20)"),
    ("text", pa.string(), ["", "é\n\0"], "string"),
    ("view", pa.string_view(), ["", "a text that is longer than a view holds"], "string"),
    ("word", pa.dictionary(pa.int32(), pa.string()), ["a", "b"], "string"),
    ("bytes", pa.binary(), [b"", b"\x00\xff"], "binary"),
    ("day", pa.date32(), [date(1, 1, 1), date(9999, 12, 31)], "date"),
    ("clock", pa.time64("us"), [time_of_day(0), time_of_day(23, 59, 59, 999_999)], "time"),
    ("clock_s", pa.time32("s"), [time_of_day(0), time_of_day(23, 59, 59)], "time"),
    ("at_s", pa.timestamp("s"), [datetime(1, 1, 1), MOMENT.replace(microsecond=0)], "timestamp"),
    ("at", pa.timestamp("us"), [datetime(1, 1, 1), MOMENT], "timestamp"),
    ("zoned", pa.timestamp("us", "Europe/Berlin"), [MOMENT.replace(tzinfo=timezone.utc), datetime(1969, 12, 31, tzinfo=timezone.utc)], "timestamptz"),
    ("list", pa.list_(pa.uint8()), [[1, None, 255], []], "list<int>"),
    ("pair", pa.list_(pa.int8(), 2), [[1, 2], [3, 4]], "list<int>"),
    ("struct", pa.struct([("a", pa.uint64()), ("b", pa.string())]), [{"a": 2**64 - 1, "b": "x"}, {"a": None, "b": None}], "struct"),
    ("map", pa.map_(pa.string(), pa.list_(pa.int64())), [[("a", [1])], []], "map<string, list<long>>"),
]


@pytest.mark.parametrize("key", [None, "n"])
def test_every_type_is_exact(lake: dict[str, str], key: str | None) -> None:
    given = pa.table(
        [pa.array([1, 2, 3]), *(pa.array([*values, None], type=kind) for _, kind, values, _ in TYPES)], names=["n", *(name for name, *_ in TYPES)]
    )
    # Twice, so that rows with a key are read, and written again.
    for _ in range(2 if key else 1):
        mill.run(mill.from_arrow(given).write_iceberg("s.t", catalog=lake, key=key))
    with table(lake) as found:
        shown = {field.name: str(field.field_type) for field in found.schema().fields}
        read = found.scan().to_arrow().sort_by("n")
    for name, _, _, declared in TYPES:
        assert shown[name] == declared or (declared == "struct" and shown[name].startswith("struct<")), name
    back = mill.read_iceberg("s.t", catalog=lake).collect().to_arrow().sort_by("n")
    for name, _, values, _ in TYPES:
        assert read[name].to_pylist() == [*values, None], name
        assert back[name].to_pylist() == [*values, None], name
    assert math.copysign(1, back["f32"][1].as_py()) == -1


def test_bytes_of_a_fixed_length(lake: dict[str, str]) -> None:
    # The engine has bytes of any length.
    given = pa.table({"four": pa.array([b"abcd", None], pa.binary(4)), "n": [1, 2]})
    mill.run(mill.from_arrow(given).write_iceberg("s.t", catalog=lake))
    assert [row["four"] for row in rows(lake, order="n")] == [b"abcd", None]
    made(lake, ("four", kinds.FixedType(4)), name="s.u")
    with table(lake, "s.u") as found:
        found.append(pa.table({"four": pa.array([b"efgh"], pa.binary(4))}))
    assert mill.read_iceberg("s.u", catalog=lake).collect().to_pylist() == [{"four": b"efgh"}]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (pa.timestamp("ns"), r"column 'x' is timestamp\[ns\], for which Iceberg has no type .*; its times have microseconds: use .dt.cast_time_unit"),
        (pa.list_(pa.timestamp("ns", "UTC")), r"column 'x' is list\[timestamp\[ns, UTC\]\]"),
        (pa.duration("us"), r"column 'x' is duration\[us\].*; cast\(\) it to str"),
        (pa.time64("ns"), r"column 'x' is time\[ns\].*; its times of day have microseconds"),
        (pa.decimal256(39, 0), r"column 'x' is decimal\[39, 0\].*; its decimals have up to 38 digits"),
        (pa.null(), r"column 'x' is null"),
        (pa.struct([("a", pa.duration("s"))]), r"column 'x' is struct\[a: duration\[s\]\]"),
    ],
)
def test_a_type_without_an_exact_form(lake: dict[str, str], kind: pa.DataType, message: str) -> None:
    with pytest.raises(mill.SchemaError, match=message):
        mill.from_arrow(pa.table({"x": pa.array([], type=kind)})).write_iceberg("s.t", catalog=lake)


def test_names_that_differ_in_case_alone(lake: dict[str, str]) -> None:
    with pytest.raises(mill.SchemaError, match=r"do not tell the columns 'Id' and 'ID' apart; rename\(\) one"):
        mill.from_iter([{"Id": 1, "x": 2, "ID": 3}]).write_iceberg("s.t", catalog=lake)


def test_python_objects_are_refused(lake: dict[str, str]) -> None:
    with pytest.raises(mill.SchemaError, match=r"column 'x' is object.*; leave it out with drop\(\)"):
        mill.from_iter([{"x": object()}], schema={"x": object}).write_iceberg("s.t", catalog=lake)


def test_a_time_beyond_microseconds_is_an_error(lake: dict[str, str]) -> None:
    given = pa.table({"x": pa.array([10**15], type=pa.int64()).view(pa.timestamp("s"))})
    with pytest.raises(mill.ConnectorError, match="DataError: column 'x': .*out of bounds"):
        mill.run(mill.from_arrow(given).write_iceberg("s.t", catalog=lake))


# -- tables that are there -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ([("id", kinds.LongType()), ("naem", kinds.StringType())], r"the table has no column 'name'; did you mean 'naem'\? \(it has id, naem\)"),
        ([("id", kinds.IntegerType()), ("name", kinds.StringType())], r"column 'id' of the table is int, which does not hold every int64 exactly"),
        ([("id", kinds.DoubleType()), ("name", kinds.StringType())], r"column 'id' of the table is double"),
        ([("id", kinds.DecimalType(18, 0)), ("name", kinds.StringType())], r"column 'id' of the table is decimal\(18, 0\)"),
        ([("id", kinds.LongType()), ("name", kinds.BinaryType())], r"column 'name' of the table is binary, which does not hold every str"),
        ([("id", kinds.LongType()), ("name", kinds.UUIDType())], r"column 'name' of the table is uuid, which does not hold every str"),
        ([("id", kinds.LongType()), ("name", kinds.StringType()), ("must", kinds.LongType(), True)], r"column 'must' of the table is required"),
        ([("id", kinds.LongType()), ("name", kinds.StringType()), ("u", kinds.UUIDType())], r"column 'u' of the table is uuid, which Millstream has no type"),
    ],
)
def test_a_table_that_does_not_fit(lake: dict[str, str], columns: list[Any], message: str) -> None:
    made(lake, *columns)
    stream = mill.from_iter([{"id": 1, "name": "a"}])
    with pytest.raises(mill.SchemaError, match=message):
        stream.write_iceberg("s.t", catalog=lake)


def test_a_table_whose_nested_values_are_required(lake: dict[str, str]) -> None:
    given: list[tuple[Any, pa.DataType]] = [
        (kinds.ListType(10, kinds.LongType(), element_required=True), pa.list_(pa.int64())),
        (kinds.StructType(kinds.NestedField(10, "x", kinds.LongType(), required=True)), pa.struct([("x", pa.int64())])),
        (kinds.MapType(10, kinds.StringType(), 11, kinds.LongType(), value_required=True), pa.map_(pa.string(), pa.int64())),
    ]
    for number, (declared, own) in enumerate(given):
        made(lake, ("c", declared), name=f"s.t{number}")
        with pytest.raises(mill.SchemaError, match="column 'c' of the table is .*, which does not hold every"):
            mill.from_arrow(pa.table({"c": pa.array([], own)})).write_iceberg(f"s.t{number}", catalog=lake)


def test_other_partitions_and_formats(lake: dict[str, str]) -> None:
    spec = PartitionSpec(PartitionField(2, 1000, DayTransform(), "at_day"))
    made(lake, ("id", kinds.LongType()), ("at", kinds.TimestampType()), partition_spec=spec)
    stream = mill.from_iter([{"id": 1, "at": MOMENT}])
    stream.write_iceberg("s.t", catalog=lake, partition_by="day(at)")
    for other in ("id", "hour(at)", ["day(at)", "id"]):
        with pytest.raises(mill.SchemaError, match=r"the table has the partitions day\(at\), not the partitions "):
            stream.write_iceberg("s.t", catalog=lake, partition_by=other)
    made(lake, ("id", kinds.LongType()), name="s.plain")
    with pytest.raises(mill.SchemaError, match="the table has no partitions, not the partitions id"):
        mill.from_iter([{"id": 1}]).write_iceberg("s.plain", catalog=lake, partition_by="id")
    made(lake, ("id", kinds.LongType()), name="s.old", properties={"format-version": "1"})
    with pytest.raises(mill.SchemaError, match=r"the table has version 1 of Iceberg's format, and version 2 is needed; upgrade it"):
        mill.from_iter([{"id": 1}]).write_iceberg("s.old", catalog=lake)
    made(lake, ("id", kinds.LongType()), name="s.orc", properties={"write.format.default": "orc"})
    with pytest.raises(mill.SchemaError, match=r"the table is written as orc"):
        mill.from_iter([{"id": 1}]).write_iceberg("s.orc", catalog=lake)
    spec = PartitionSpec(PartitionField(1, 1000, IdentityTransform(), "id"), PartitionField(1, 1001, BucketTransform(4), "id_bucket"))
    made(lake, ("id", kinds.LongType()), name="s.twice", partition_spec=spec)
    with pytest.raises(mill.SchemaError, match="the table is partitioned twice by column 'id', which pyiceberg cannot write"):
        mill.from_iter([{"id": 1}]).write_iceberg("s.twice", catalog=lake)
    inner = kinds.StructType(kinds.NestedField(10, "x", kinds.LongType(), required=False))
    spec = PartitionSpec(PartitionField(10, 1000, IdentityTransform(), "x"))
    with catalog(lake) as found:
        found.create_table("s.nested", Schema(kinds.NestedField(1, "c", inner, required=False)), partition_spec=spec)
    with pytest.raises(mill.SchemaError, match="the table is partitioned by 'x', a part of a nested column"):
        mill.from_iter([{"c": {"x": 1}}], schema={"c": {"x": int}}).write_iceberg("s.nested", catalog=lake)
    spec = PartitionSpec(PartitionField(1, 1000, IdentityTransform(), "f"))
    made(lake, ("f", kinds.DoubleType()), name="s.floats", partition_spec=spec)
    with pytest.raises(mill.SchemaError, match=r"column 'f' is double; a partition is of text"):
        mill.from_iter([{"f": 0.5}]).write_iceberg("s.floats", catalog=lake)


def test_a_table_that_was_changed_after_the_plan(lake: dict[str, str]) -> None:
    sink = mill.from_iter([{"id": 1, "name": "a"}]).write_iceberg("s.t", catalog=lake)
    made(lake, ("id", kinds.LongType()))
    with pytest.raises(mill.ConnectorError, match=r"SchemaError: write_iceberg\(\): the table has no column 'name'"):
        mill.run(sink)


@pytest.mark.parametrize("key", [None, "id"])
def test_a_wider_table(lake: dict[str, str], key: str | None) -> None:
    spec = PartitionSpec(PartitionField(1, 1000, IdentityTransform(), "more"))
    numbers = kinds.ListType(10, kinds.LongType(), element_required=False)
    columns = [("more", kinds.StringType()), ("id", kinds.DecimalType(22, 2)), ("f", kinds.DoubleType()), ("l", numbers), ("n", kinds.LongType(), True)]
    made(lake, *columns, partition_spec=spec)
    given = pa.table({"n": [7], "id": pa.array([1], pa.int64()), "f": pa.array([1.5], pa.float32()), "l": pa.array([[1]], pa.list_(pa.int8()))})
    mill.run(mill.from_arrow(given).write_iceberg("s.t", catalog=lake, key=key))
    with table(lake) as found:
        assert found.scan().to_arrow().to_pylist() == [{"more": None, "id": Decimal("1.00"), "f": 1.5, "l": [1], "n": 7}]
    for name, message in (("n", "is required|NOT NULL"), ("id", "it is of the key")):
        broken = given.set_column(given.column_names.index(name), name, pa.nulls(1, given.schema.field(name).type))
        if name == "n" or key:
            with pytest.raises(mill.ConnectorError, match=f"DataError: column {name!r} is null, and .*({message})"):
                mill.run(mill.from_arrow(broken).write_iceberg("s.t", catalog=lake, key=key))


# -- rows with a key -------------------------------------------------------------------------------------------------------


def test_rows_are_replaced_and_deleted(tmp_path: Path, lake: dict[str, str]) -> None:
    counts = mill.from_iter(ROWS).key_by("k").agg(n=mill.count(), total=col("x").sum(), emit="each")
    mill.run(counts.write_iceberg("s.t", catalog=lake, key="k"), checkpoint=tmp_path / "state")
    expected = [{"k": k, "n": 200, "total": sum(range(k, 1000, 5))} for k in range(5)]
    assert rows(lake) == expected
    # The same again replaces each row.
    mill.run(counts.write_iceberg("s.t", catalog=lake, key="k"))
    assert rows(lake) == expected
    source = testing.Source({"k": int, "x": int})
    sums = source.stream().key_by("k").agg(x=col("x").sum(), emit="each").filter(col("x") % 2 == 1)
    with testing.Job(sums.write_iceberg("s.u", catalog=lake, key="k")) as job:
        source.push({"k": 1, "x": 1}, {"k": 2, "x": 1}, {"k": 3, "x": 2})
        job.checkpoint()
        assert rows(lake, "s.u") == [{"k": 1, "x": 1}, {"k": 2, "x": 1}]
        source.push({"k": 1, "x": 1}, {"k": 2, "x": 2})
        job.checkpoint()
        assert rows(lake, "s.u") == [{"k": 2, "x": 3}]
        source.push({"k": 2, "x": 1})
        job.checkpoint()
        assert rows(lake, "s.u") == []
        # Only deletes of keys that are not there: a snapshot all the same, which has the mark.
        source.push({"k": 7, "x": 1}, {"k": 7, "x": 1})
        job.checkpoint()
    assert rows(lake, "s.u") == []
    with table(lake, "s.u") as found:
        assert len(found.snapshots()) == 4


@pytest.mark.parametrize("partition_by", [(), "bucket(3, k)", "word"])
def test_random_changes_of_keys(lake: dict[str, str], partition_by: Any) -> None:
    dice = random.Random(f"1 {partition_by}")
    words = ["a", "b", "a long text that is cut in statistics"]
    source = testing.Source({"k": int, "word": str, "x": int})
    totals = source.stream().key_by("k", "word").agg(x=col("x").sum(), emit="each").filter(col("x") % 3 != 0)
    sums: dict[tuple[int, str], int] = {}
    with testing.Job(totals.write_iceberg("s.t", catalog=lake, key=["word", "k"], partition_by=partition_by)) as job:
        for _ in range(10):
            for _ in range(dice.randrange(12)):
                k, word, x = dice.randrange(8), dice.choice(words), dice.randrange(5)
                sums[k, word] = sums.get((k, word), 0) + x
                source.push({"k": k, "word": word, "x": x})
            job.checkpoint()
            if dice.random() < 0.2:
                job.kill_and_restore()
            expected = [{"k": k, "word": word, "x": x} for (k, word), x in sorted(sums.items()) if x % 3]
            assert rows(lake, order="k, word") == expected


def test_columns_of_others_keep_their_values(lake: dict[str, str]) -> None:
    made(lake, ("k", kinds.LongType()), ("note", kinds.StringType()), ("x", kinds.LongType()), ("l", kinds.ListType(10, kinds.LongType(), element_required=False)))
    with table(lake) as found:
        found.append(pa.table({"k": [1, 2, 2, None], "note": ["a", "b", "c", "d"], "x": [0, 0, 0, 0], "l": [[1], None, [2, 3], []]}))
    mill.run(mill.from_iter([{"x": 5, "k": 2}, {"x": 6, "k": 2}, {"x": 7, "k": 9}]).write_iceberg("s.t", catalog=lake, key="k"))
    # All rows of a key are replaced, as a merge does; a row without a key is no row of one.
    assert rows(lake, order="k nulls first, note") == [
        {"k": None, "note": "d", "x": 0, "l": []},
        {"k": 1, "note": "a", "x": 0, "l": [1]},
        {"k": 2, "note": "b", "x": 6, "l": None},
        {"k": 2, "note": "c", "x": 6, "l": [2, 3]},
        {"k": 9, "note": None, "x": 7, "l": None},
    ]


KEYS: list[tuple[pa.DataType, list[Any]]] = [
    (pa.string(), ["", "é", "b"]),
    (pa.binary(), [b"", b"\0", b"\xff"]),
    (pa.bool_(), [True, False]),
    (pa.uint64(), [0, 1, 2**64 - 1]),
    (pa.decimal128(10, 2), [Decimal("1.00"), Decimal("-1.00"), Decimal("99999999.99")]),
    (pa.date32(), [date(1, 1, 1), date(9999, 12, 31)]),
    (pa.time64("us"), [time_of_day(0), time_of_day(23, 59)]),
    (pa.timestamp("us"), [datetime(1, 1, 1), MOMENT]),
    (pa.timestamp("us", "UTC"), [MOMENT.replace(tzinfo=timezone.utc), datetime(1969, 12, 31, tzinfo=timezone.utc)]),
]


@pytest.mark.parametrize(("kind", "values"), KEYS, ids=[str(kind) for kind, _ in KEYS])
def test_keys_of_every_type(lake: dict[str, str], kind: pa.DataType, values: list[Any]) -> None:
    keys = pa.array(values, kind)
    for x in range(3):
        given = pa.table({"k": keys.slice(0, len(values) if x == 0 else 1), "i": [n for n in range(len(values) if x == 0 else 1)]})
        given = given.append_column("x", pa.array([x] * given.num_rows))
        mill.run(mill.from_arrow(given).write_iceberg("s.t", catalog=lake, key=["i", "k"]))
    back = mill.read_iceberg("s.t", catalog=lake).collect().to_arrow().sort_by("i").to_pylist()
    assert back == [{"k": value, "i": n, "x": 0 if n else 2} for n, value in enumerate(values)]


@pytest.mark.parametrize("name", ["a b", "q`uote", "Select", "ü.x", "__deletes", "__change", "__row", "row", "key0"])
def test_names_of_columns(tmp_path: Path, lake: dict[str, str], name: str) -> None:
    stream = mill.from_iter([{name: 1, "x": 2}, {name: 1, "x": 3}])
    mill.run(stream.write_iceberg("s.t", catalog=lake, key=name, partition_by=name), checkpoint=tmp_path / "state")
    mill.run(stream.write_iceberg("s.t", catalog=lake, key=name))
    assert mill.read_iceberg("s.t", catalog=lake).collect().to_pylist() == [{name: 1, "x": 3}]


# -- what is refused -------------------------------------------------------------------------------------------------------


def test_arguments(tmp_path: Path, lake: dict[str, str]) -> None:
    stream = mill.from_iter([{"k": 1, "f": 0.5, "at": MOMENT, "clock": MOMENT.time()}])
    totals = stream.key_by("k").agg(f=col("f").sum(), emit="each")
    endless = mill.generate(n=mill.index())

    def write(name: Any = "s.t", given: mill.Stream = stream, **more: Any) -> Any:
        return lambda: given.write_iceberg(name, **{"catalog": lake, **more})

    cases: list[tuple[Any, str]] = [
        (write(mode="merge"), r'write_iceberg\(mode=…\) takes "append" or "overwrite"'),
        (write(key="kk"), r"there is no column 'kk'; did you mean 'k'"),
        (write(partition_by="x"), r"partition_by=…\): there is no column 'x'"),
        (write(partition_by="day(att)"), r"there is no column 'att'; did you mean 'at'"),
        (write(partition_by="dya(at)"), r"'dya\(at\)' is none of year\(…\), month\(…\).*; did you mean 'day'"),
        (write(partition_by="bucket(at)"), r"'bucket\(at\)' is none of"),
        (write(partition_by="bucket(0, k)"), r"'bucket\(0, k\)' is none of"),
        (write(partition_by="day(k)"), r"'day\(k\)' does not go with column 'k', which is long"),
        (write(partition_by="bucket(4, f)"), r"'bucket\(4, f\)' does not go with column 'f', which is double"),
        (write(partition_by="bucket(4, clock)"), r"column 'clock' is a time of day, by which pyiceberg cannot partition"),
        (write(partition_by="f"), r"column 'f' is double; a partition is of"),
        (write(partition_by=["k", "bucket(4, k)"]), r"names column 'k' twice"),
        (write(key=[]), r"needs at least one column"),
        (write(key="f"), r"column 'f' is float64; a key is of"),
        (write(key="k", mode="overwrite"), r"leave one of them out"),
        (write(key=["k", "k"]), r"names a column twice"),
        (write(given=endless, mode="overwrite"), r"this stream has no end"),
        (write(given=totals), r'this stream updates: a row replaces the row of its key \(k\); pass key="k"'),
        (write(given=totals, key="f"), r"column 'f' is float64|names f, and this stream updates rows by k"),
        (write("t"), r'takes the name of a table with its namespace, such as "shop.orders", not \'t\''),
        (write("s..t"), r"takes the name of a table"),
        (write(3), r"takes the name of a table"),
        (write(catalog=3), r"write_iceberg\(catalog=…\) takes the name of a catalog"),
        (write(catalog={"type": 3}), r"takes the name of a catalog .* not a dict with other values than texts"),
        (write(catalog="nowhere"), r"catalog=…\): the catalog 'nowhere' cannot be used: URI missing"),
        (write(catalog={"type": "sqll", "uri": "x"}), r"the catalog cannot be used: 'sqll' is not a valid CatalogType"),
        (write(catalog={"type": "in-memory"}), r"a catalog of the type 'in-memory' is gone when its process ends; use one of sql, rest"),
        (write(catalog={"type": "sql", "uri": "sqlite:////no/such/folder/x.db"}), r"the catalog cannot be reached: .*unable to open database"),
        (lambda: mill.read_iceberg("s.none", catalog=lake), r"the catalog has no table 's.none'"),
    ]
    for call, message in cases:
        with pytest.raises(mill.MillstreamError, match=message):
            call()
    assert [path.name for path in tmp_path.iterdir()] == ["catalog.db"]


def test_without_the_package(lake: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = builtins.__import__
    import importlib

    def missing(name: str, *arguments: Any, **more: Any) -> Any:
        if name == "pyiceberg":
            raise ModuleNotFoundError("No module named 'pyiceberg'", name="pyiceberg")
        return whole(name, *arguments, **more)

    monkeypatch.setattr(importlib, "import_module", missing)
    for call in (lambda: mill.from_iter([1]).write_iceberg("s.t", catalog=lake), lambda: mill.read_iceberg("s.t", catalog=lake)):
        with pytest.raises(mill.PlanError, match=r"needs the package pyiceberg: pip install millstream\[iceberg\]"):
            call()


@pytest.mark.parametrize("version", ["0.11.1", "0.13.0"])
def test_another_release_of_the_package(lake: dict[str, str], monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    with pytest.raises(mill.PlanError, match=f"write_iceberg\\(\\) needs pyiceberg 0.12, and {version} is installed"):
        mill.from_iter([1]).write_iceberg("s.t", catalog=lake)


# -- overwriting -----------------------------------------------------------------------------------------------------------


def test_the_whole_table_is_replaced_at_the_end(tmp_path: Path, lake: dict[str, str]) -> None:
    stream = mill.from_iter(ROWS)
    mill.run(stream.write_iceberg("s.t", catalog=lake, partition_by="day"))
    mill.run(stream.filter(col("x") < 10).write_iceberg("s.t", catalog=lake, mode="overwrite"))
    assert [row["x"] for row in rows(lake, order="x")] == list(range(10))
    with table(lake) as found:
        assert len(found.snapshots()) == 2

    def fails(row: Any) -> Any:
        raise ValueError

    with pytest.raises(mill.UserFunctionError):
        mill.run(stream.map(fails, schema={"k": int, "x": int, "day": str}).write_iceberg("s.t", catalog=lake, mode="overwrite"))
    assert len(rows(lake)) == 10
    mill.run(stream.filter(col("x") < 0).write_iceberg("s.t", catalog=lake, mode="overwrite"))
    assert rows(lake) == []
    with pytest.raises(mill.PlanError, match=r"write_iceberg\(.*leave checkpoint= out"):
        mill.run(stream.write_iceberg("s.t", catalog=lake, mode="overwrite"), checkpoint=tmp_path / "state")
    assert not (tmp_path / "state").exists()


# -- reading ---------------------------------------------------------------------------------------------------------------


def test_a_snapshot_and_columns_are_read(lake: dict[str, str]) -> None:
    for number in range(3):
        mill.run(mill.from_iter([{"a": number, "b": str(number)}]).write_iceberg("s.t", catalog=lake))
    with table(lake) as found:
        snapshots = [snapshot.snapshot_id for snapshot in found.snapshots()]
    assert mill.read_iceberg("s.t", catalog=lake).collect().to_pylist() == [{"a": n, "b": str(n)} for n in range(3)]
    read = mill.read_iceberg("s.t", catalog=lake, snapshot=snapshots[1], columns=["b", "a"])
    assert read.collect().to_pylist() == [{"b": "0", "a": 0}, {"b": "1", "a": 1}]
    # An older snapshot has the columns of its time; in a newer one, files of that time have nulls.
    with table(lake) as found, found.update_schema() as schema:
        schema.add_column("c", kinds.LongType())
        schema.rename_column("b", "text")
    mill.run(mill.from_iter([{"a": 3, "text": "3", "c": 4}]).write_iceberg("s.t", catalog=lake))
    assert mill.read_iceberg("s.t", catalog=lake, columns=["c", "text"]).collect().to_pylist() == [
        *({"c": None, "text": str(n)} for n in range(3)),
        {"c": 4, "text": "3"},
    ]
    assert mill.read_iceberg("s.t", catalog=lake, snapshot=snapshots[0]).schema.names == ["a", "b"]
    made(lake, ("a", kinds.LongType()), name="s.empty")
    assert mill.read_iceberg("s.empty", catalog=lake).collect().to_pylist() == []
    with pytest.raises(mill.SchemaError, match=r"the table has no column 'aa'; did you mean 'a'"):
        mill.read_iceberg("s.t", catalog=lake, columns="aa")
    with pytest.raises(mill.ConnectorError, match=rf"the table 's.t' has no snapshot 99; it has .*{snapshots[2]}"):
        mill.read_iceberg("s.t", catalog=lake, snapshot=99)
    with pytest.raises(mill.PlanError, match="takes the id of a snapshot"):
        mill.read_iceberg("s.t", catalog=lake, snapshot="1")
    made(lake, ("u", kinds.UUIDType()), ("a", kinds.LongType()), name="s.uuid")
    with pytest.raises(mill.SchemaError, match="column 'u' of the table is uuid, which Millstream has no type for"):
        mill.read_iceberg("s.uuid", catalog=lake)
    assert mill.read_iceberg("s.uuid", catalog=lake, columns="a").collect().to_pylist() == []


def test_a_run_that_goes_on_reads_the_snapshot_that_it_began_with(tmp_path: Path, lake: dict[str, str]) -> None:
    for number in range(10):
        mill.run(mill.from_iter([{"n": number * 10 + n} for n in range(10)]).write_iceberg("s.t", catalog=lake))
    changed: list[int] = []

    def change(row: Any) -> Any:
        if row.n < 55 and not changed:
            # So that a checkpoint comes between two files.
            time.sleep(0.001)
        if row.n == 55 and not changed:
            changed.append(len(mill.checkpoints(tmp_path / "state")))
            mill.run(mill.from_iter([{"n": 1000}]).write_iceberg("s.t", catalog=lake, mode="overwrite"))
            raise ValueError("once")
        return {"n": row.n}

    def sink() -> mill.Output:
        return mill.read_iceberg("s.t", catalog=lake).map(change, schema={"n": int}).write_parquet(tmp_path / "out")

    with pytest.raises(mill.UserFunctionError, match="once"):
        mill.run(sink(), checkpoint=mill.Checkpoint(tmp_path / "state", every="1ms"), parallelism=1)
    # The script is started again, and the newest snapshot is another one by now.
    mill.run(sink(), checkpoint=mill.Checkpoint(tmp_path / "state", every="1ms"), parallelism=1)
    found = sorted(pq.read_table(tmp_path / "out")["n"].to_pylist())
    assert found == (list(range(100)) if changed[0] else [1000])


@pytest.mark.parametrize("gone", ["snapshot", "files", "table"])
def test_what_a_run_reads_is_removed(tmp_path: Path, lake: dict[str, str], gone: str) -> None:
    for number in range(2):
        mill.run(mill.from_iter([{"n": number}]).write_iceberg("s.t", catalog=lake))
    stream = mill.read_iceberg("s.t", catalog=lake)
    if gone == "files":
        for path in (tmp_path / "lake").glob("**/*.parquet"):
            path.unlink()
        with pytest.raises(mill.ConnectorError, match=r"'.*\.parquet' of snapshot \d+ cannot be read: .*; if the snapshot was removed"):
            stream.collect()
        return
    with table(lake) as found:
        if gone == "snapshot":
            mill.run(mill.from_iter([{"n": 1000}]).write_iceberg("s.t", catalog=lake, mode="overwrite"))
            found.refresh()
            found.maintenance.expire_snapshots().older_than(datetime.now() + timedelta(days=1)).commit()
    if gone == "snapshot":
        with pytest.raises(mill.ConnectorError, match=r"snapshot \d+ of the table 's.t', which the job began with, has expired; start with"):
            stream.collect()
        return
    with catalog(lake) as every:
        every.drop_table("s.t")
    made(lake, ("n", kinds.LongType()))
    with pytest.raises(mill.ConnectorError, match="the table 's.t' is not the one that the stream was declared with"):
        stream.collect()
