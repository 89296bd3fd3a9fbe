"""Delta tables: judged by what deltalake reads, and by DuckDB over the files that the log names, read in plain Python."""

from __future__ import annotations

import builtins
import json
import math
import shutil
import time
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import millstream as mill
from millstream import col, testing

deltalake = pytest.importorskip("deltalake")

ROWS = [{"k": n % 5, "x": n, "day": f"2026-01-0{n % 3 + 1}"} for n in range(1000)]


def log(path: Path) -> list[dict[str, Any]]:
    """The actions of all versions, in plain Python."""
    return [json.loads(line) for entry in sorted((path / "_delta_log").glob("*.json")) for line in entry.read_text().splitlines()]


def active(path: Path) -> list[dict[str, Any]]:
    """The files of the newest version."""
    files: dict[str, dict[str, Any]] = {}
    for action in log(path):
        if "add" in action:
            files[action["add"]["path"]] = action["add"]
        if "remove" in action:
            files.pop(action["remove"]["path"], None)
    return list(files.values())


def rows(path: Path, order: str = "all") -> list[dict[str, Any]]:
    """The rows of the newest version, by DuckDB, without the columns of partitions."""
    files = [str(path / unquote(file["path"])) for file in active(path)]
    if not files:
        return []
    found: list[dict[str, Any]] = duckdb.sql(f"select * from read_parquet({files!r}, hive_partitioning=false) order by {order}").to_arrow_table().to_pylist()
    return found


def marks(path: Path) -> dict[str, int]:
    return {action["txn"]["appId"]: action["txn"]["version"] for action in log(path) if "txn" in action}


# -- appending -------------------------------------------------------------------------------------------------------------


def test_rows_are_appended_once(tmp_path: Path) -> None:
    sink = mill.from_iter(ROWS).write_delta(tmp_path / "t")
    mill.run(sink, checkpoint=tmp_path / "state")
    assert rows(tmp_path / "t", "x") == ROWS
    # The job has finished: run again, it adds nothing.
    assert mill.run(sink, checkpoint=tmp_path / "state").restored is not None
    assert len(rows(tmp_path / "t")) == 1000
    assert "write_delta" in repr(sink)
    # A job that starts anew adds its rows to those that are there, under a name of its own.
    mill.run(sink, checkpoint=tmp_path / "anew")
    assert sorted(row["x"] for row in rows(tmp_path / "t")) == sorted(2 * list(range(1000)))
    assert len(marks(tmp_path / "t")) == 2
    mill.run(sink)
    assert len(rows(tmp_path / "t")) == 3000


def test_partitions_are_in_the_log_whatever_is_in_their_names(tmp_path: Path) -> None:
    names = ["a/b", "50% off", "c=d", " ", "ü", "x" * 300, None, "__HIVE_DEFAULT_PARTITION__", "."]
    given = [{"p": name, "n": number, "d": date(2026, 1, 1 + number % 2), "f": number % 2 == 0} for number, name in enumerate(names)]
    kinds = {"p": str, "n": int, "d": date, "f": bool}
    mill.run(mill.from_iter(given, schema=kinds).write_delta(tmp_path / "t", partition_by=["p", "d", "f"]))
    found = {(file["partitionValues"]["p"], file["partitionValues"]["d"], file["partitionValues"]["f"]) for file in active(tmp_path / "t")}
    assert found == {(row["p"], str(row["d"]), str(row["f"]).lower()) for row in given}
    assert [row["n"] for row in rows(tmp_path / "t", "n")] == list(range(len(names)))
    read = deltalake.DeltaTable(tmp_path / "t").to_pyarrow_table().sort_by("n").to_pylist()
    assert [{name: row[name] for name in kinds} for row in read] == given
    assert sorted(mill.read_delta(tmp_path / "t", columns=list(kinds)).collect().to_pylist(), key=lambda row: row["n"]) == given


def test_an_empty_text_is_no_partition(tmp_path: Path) -> None:
    stream = mill.from_iter([{"p": "", "n": 1}])
    for more in ({}, {"key": "n"}):
        with pytest.raises(mill.ConnectorError, match="DataError: column 'p' is an empty text, and as a partition Delta Lake does not tell it from null"):
            mill.run(stream.write_delta(tmp_path / "t", partition_by="p", **more))
    assert rows(tmp_path / "t") == []
    assert not list((tmp_path / "t").glob("**/*.parquet"))


def test_a_file_is_cut_and_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from millstream.io import _delta_files

    monkeypatch.setattr(_delta_files, "_ROWS_PER_GROUP", 1000)
    monkeypatch.setattr(_delta_files, "_FILE_BYTES", 10_000)
    mill.run(mill.generate(10_000, n=mill.index()).select("n", t=col("n").cast(str)).write_delta(tmp_path / "t"))
    files = active(tmp_path / "t")
    assert len(files) > 1
    for file in files:
        path = tmp_path / "t" / unquote(file["path"])
        [(count, least, greatest, text)] = duckdb.sql(f"select count(*), min(n), max(n), min(t) from '{path}'").fetchall()
        statistics = json.loads(file["stats"])
        assert (statistics["numRecords"], statistics["minValues"]["n"], statistics["maxValues"]["n"]) == (count, least, greatest)
        assert statistics["minValues"]["t"] == text
        assert statistics["nullCount"] == {"n": 0, "t": 0}
        assert file["size"] == path.stat().st_size
    assert deltalake.DeltaTable(tmp_path / "t").to_pyarrow_table(filters=[("n", ">=", 9_990)]).num_rows == 10


def test_bounds_are_never_narrower_than_the_values(tmp_path: Path) -> None:
    kinds = pa.schema([("at", pa.timestamp("us")), ("utc", pa.timestamp("us", "UTC")), ("f", pa.float64()), ("long", pa.string()), ("day", pa.date32())])
    at = datetime(2026, 1, 2, 3, 4, 5, 678_901)
    table = pa.table([[at, None], [at.replace(tzinfo=timezone.utc), None], [math.nan, 1.0], ["x" * 100, "y"], [date(1, 1, 1), date(9999, 12, 31)]], schema=kinds)
    mill.run(mill.from_arrow(table).write_delta(tmp_path / "t"))
    statistics = json.loads(active(tmp_path / "t")[0]["stats"])
    assert statistics["minValues"] == {"at": "2026-01-02T03:04:05.678", "utc": "2026-01-02T03:04:05.678Z", "day": "0001-01-01"}
    assert statistics["maxValues"] == {"at": "2026-01-02T03:04:05.679", "utc": "2026-01-02T03:04:05.679Z", "day": "9999-12-31"}
    assert statistics["nullCount"] == {"at": 1, "utc": 1, "f": 0, "long": 0, "day": 0}
    found = deltalake.DeltaTable(tmp_path / "t").to_pyarrow_table(filters=[("at", "=", at)])
    assert found.num_rows == 1


# -- types -----------------------------------------------------------------------------------------------------------------

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678_901)
TYPES: list[tuple[str, pa.DataType, list[Any], str]] = [
    ("flag", pa.bool_(), [True, False], "boolean"),
    ("i8", pa.int8(), [-128, 127], "byte"),
    ("u8", pa.uint8(), [0, 255], "short"),
    ("i16", pa.int16(), [-(2**15), 2**15 - 1], "short"),
    ("u16", pa.uint16(), [0, 2**16 - 1], "integer"),
    ("i32", pa.int32(), [-(2**31), 2**31 - 1], "integer"),
    ("u32", pa.uint32(), [0, 2**32 - 1], "long"),
    ("i64", pa.int64(), [-(2**63), 2**63 - 1], "long"),
    ("u64", pa.uint64(), [0, 2**64 - 1], "decimal(20,0)"),
    ("f32", pa.float32(), [1.5, -0.0], "float"),
    ("f64", pa.float64(), [1e308, 5e-324], "double"),
    ("money", pa.decimal128(12, 2), [Decimal("1234567890.12"), Decimal("-0.01")], "decimal(12,2)"),
    ("long", pa.decimal256(38, 20), [Decimal("1" * 18 + "." + "2" * 20), Decimal(0)], "decimal(38,20)"),
    ("text", pa.string(), ["", "é\n\0"], "string"),
    ("view", pa.string_view(), ["", "a text that is longer than a view holds"], "string"),
    ("word", pa.dictionary(pa.int32(), pa.string()), ["a", "b"], "string"),
    ("bytes", pa.binary(), [b"", b"\x00\xff"], "binary"),
    ("four", pa.binary(4), [b"abcd", b"\0\0\0\0"], "binary"),
    ("day", pa.date32(), [date(1, 1, 1), date(9999, 12, 31)], "date"),
    ("at_s", pa.timestamp("s"), [datetime(1, 1, 1), MOMENT.replace(microsecond=0)], "timestamp_ntz"),
    ("at", pa.timestamp("us"), [datetime(1, 1, 1), MOMENT], "timestamp_ntz"),
    ("zoned", pa.timestamp("us", "Europe/Berlin"), [MOMENT.replace(tzinfo=timezone.utc), datetime(1969, 12, 31, tzinfo=timezone.utc)], "timestamp"),
    ("list", pa.list_(pa.uint8()), [[1, None, 255], []], "array<short>"),
    ("pair", pa.list_(pa.int8(), 2), [[1, 2], [3, 4]], "array<byte>"),
    ("struct", pa.struct([("a", pa.uint64()), ("b", pa.string())]), [{"a": 2**64 - 1, "b": "x"}, {"a": None, "b": None}], "struct<a:decimal(20,0),b:string>"),
    ("map", pa.map_(pa.string(), pa.list_(pa.int64())), [[("a", [1])], []], "map<string,array<long>>"),
]


def shown(kind: Any) -> str:
    """A type of the log, in words."""
    if isinstance(kind, str):
        return kind
    if kind["type"] == "array":
        return f"array<{shown(kind['elementType'])}>"
    if kind["type"] == "map":
        return f"map<{shown(kind['keyType'])},{shown(kind['valueType'])}>"
    return f"struct<{','.join(field['name'] + ':' + shown(field['type']) for field in kind['fields'])}>"


@pytest.mark.parametrize("key", [None, "n"])
def test_every_type_is_exact(tmp_path: Path, key: str | None) -> None:
    table = pa.table(
        [pa.array([1, 2, 3]), *(pa.array([*values, None], type=kind) for _, kind, values, _ in TYPES)], names=["n", *(name for name, *_ in TYPES)]
    )
    mill.run(mill.from_arrow(table).write_delta(tmp_path / "t", key=key))
    [metadata] = [action["metaData"] for action in log(tmp_path / "t") if "metaData" in action]
    kinds = {field["name"]: shown(field["type"]) for field in json.loads(metadata["schemaString"])["fields"]}
    assert kinds == {"n": "long", **{name: declared for name, _, _, declared in TYPES}}
    found = deltalake.DeltaTable(tmp_path / "t").to_pyarrow_table().sort_by("n")
    back = mill.read_delta(tmp_path / "t").collect().to_arrow().sort_by("n")
    for name, _, values, _ in TYPES:
        assert found[name].to_pylist() == [*values, None], name
        assert back[name].to_pylist() == [*values, None], name
    assert math.copysign(1, found["f32"][1].as_py()) == -1
    assert math.isnan(found["f64"].to_pylist()[0]) is False


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (pa.timestamp("ns"), r"column 'x' is timestamp\[ns\], for which Delta Lake has no type .*; its times have microseconds: use .dt.cast_time_unit"),
        (pa.list_(pa.timestamp("ns", "UTC")), r"column 'x' is list\[timestamp\[ns, UTC\]\]"),
        (pa.duration("us"), r"column 'x' is duration\[us\].*; cast\(\) it to str"),
        (pa.time64("us"), r"column 'x' is time\[us\]"),
        (pa.decimal256(39, 0), r"column 'x' is decimal\[39, 0\].*; its decimals have up to 38 digits"),
        (pa.null(), r"column 'x' is null"),
        (pa.struct([("a", pa.duration("s"))]), r"column 'x' is struct\[a: duration\[s\]\]"),
    ],
)
def test_a_type_without_an_exact_form(tmp_path: Path, kind: pa.DataType, message: str) -> None:
    with pytest.raises(mill.SchemaError, match=message):
        mill.from_arrow(pa.table({"x": pa.array([], type=kind)})).write_delta(tmp_path / "t")


def test_names_that_differ_in_case_alone(tmp_path: Path) -> None:
    with pytest.raises(mill.SchemaError, match=r"does not tell the columns 'Id' and 'ID' apart; rename\(\) one"):
        mill.from_iter([{"Id": 1, "x": 2, "ID": 3}]).write_delta(tmp_path / "t")


def test_python_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(mill.SchemaError, match=r"column 'x' is object.*; leave it out with drop\(\)"):
        mill.from_iter([{"x": object()}], schema={"x": object}).write_delta(tmp_path / "t")


def test_a_time_beyond_microseconds_is_an_error(tmp_path: Path) -> None:
    table = pa.table({"x": pa.array([10**15], type=pa.int64()).view(pa.timestamp("s"))})
    with pytest.raises(mill.ConnectorError, match="DataError: column 'x': .*out of bounds"):
        mill.run(mill.from_arrow(table).write_delta(tmp_path / "t"))


# -- tables that are there -------------------------------------------------------------------------------------------------


def made(path: Path, schema: pa.Schema, **more: Any) -> None:
    deltalake.DeltaTable.create(path, schema, **more)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ([("id", pa.int64()), ("naem", pa.string())], r"the table has no column 'name'; did you mean 'naem'\? \(it has id, naem\)"),
        ([("id", pa.int32()), ("name", pa.string())], r"column 'id' of the table is integer, which does not hold every int64 exactly"),
        ([("id", pa.float64()), ("name", pa.string())], r"column 'id' of the table is double"),
        ([("id", pa.decimal128(18, 0)), ("name", pa.string())], r"column 'id' of the table is decimal\(18,0\)"),
        ([("id", pa.int64()), ("name", pa.binary())], r"column 'name' of the table is binary, which does not hold every str"),
        ([("id", pa.int64()), ("name", pa.string()), pa.field("must", pa.int64(), nullable=False)], r"column 'must' of the table is NOT NULL"),
    ],
)
def test_a_table_that_does_not_fit(tmp_path: Path, columns: list[Any], message: str) -> None:
    made(tmp_path / "t", pa.schema(columns))
    stream = mill.from_iter([{"id": 1, "name": "a"}])
    with pytest.raises(mill.SchemaError, match=message):
        stream.write_delta(tmp_path / "t")


def test_a_table_whose_nested_values_are_not_null(tmp_path: Path) -> None:
    inner = pa.field("x", pa.int64(), nullable=False)
    kinds = {"array<long not null>": pa.list_(inner), "struct<x:long not null>": pa.struct([inner]), "map<string,long not null>": pa.map_(pa.string(), inner)}
    for number, (shown_kind, kind) in enumerate(kinds.items()):
        made(tmp_path / str(number), pa.schema([("c", kind)]))
        own = {"array": pa.list_(pa.int64()), "struct": pa.struct([("x", pa.int64())]), "map": pa.map_(pa.string(), pa.int64())}[shown_kind.split("<")[0]]
        with pytest.raises(mill.SchemaError, match=f"column 'c' of the table is {shown_kind}, which does not hold every"):
            mill.from_arrow(pa.table({"c": pa.array([], own)})).write_delta(tmp_path / str(number))


def test_a_table_that_was_changed_after_the_plan(tmp_path: Path) -> None:
    sink = mill.from_iter([{"id": 1, "name": "a"}]).write_delta(tmp_path / "t")
    made(tmp_path / "t", pa.schema([("id", pa.int64())]))
    with pytest.raises(mill.ConnectorError, match=r"SchemaError: write_delta\(\): the table has no column 'name'"):
        mill.run(sink)


@pytest.mark.parametrize("key", [None, "id"])
def test_a_wider_table(tmp_path: Path, key: str | None) -> None:
    columns = [("more", pa.string()), ("id", pa.decimal128(22, 2)), ("f", pa.float64()), ("l", pa.list_(pa.int64())), pa.field("n", pa.int64(), nullable=False)]
    made(tmp_path / "t", pa.schema(columns), partition_by=["more"])
    given = pa.table({"n": [7], "id": pa.array([1], pa.int64()), "f": pa.array([1.5], pa.float32()), "l": pa.array([[1]], pa.list_(pa.int8()))})
    mill.run(mill.from_arrow(given).write_delta(tmp_path / "t", key=key))
    assert deltalake.DeltaTable(tmp_path / "t").to_pyarrow_table().to_pylist() == [{"more": None, "id": Decimal("1.00"), "f": 1.5, "l": [1], "n": 7}]
    missing = given.set_column(0, "n", pa.array([None], pa.int64()))
    with pytest.raises(mill.ConnectorError, match="DataError: column 'n' is null, and the column of the table is NOT NULL"):
        mill.run(mill.from_arrow(missing).write_delta(tmp_path / "t", key=key))


def test_a_table_with_rules_of_its_own(tmp_path: Path) -> None:
    schema = pa.schema([("id", pa.int64())])
    stream = mill.from_iter([{"id": 1}])
    made(tmp_path / "c", schema)
    deltalake.DeltaTable(tmp_path / "c").alter.add_constraint({"positive": "id > 0"})
    with pytest.raises(mill.SchemaError, match="the table has the constraint positive, which write_delta"):
        stream.write_delta(tmp_path / "c")
    made(tmp_path / "a", schema, configuration={"delta.appendOnly": "true"})
    mill.run(stream.write_delta(tmp_path / "a"))
    for more in ({"key": "id"}, {"mode": "overwrite"}):
        with pytest.raises(mill.SchemaError, match="the table is append-only"):
            stream.write_delta(tmp_path / "a", **more)
    made(tmp_path / "p", schema.append(pa.field("p", pa.int64())), partition_by=["p"])
    with pytest.raises(mill.SchemaError, match="the table has the partitions p, not the partitions id"):
        mill.from_iter([{"id": 1, "p": 1}]).write_delta(tmp_path / "p", partition_by="id")


# -- keys ------------------------------------------------------------------------------------------------------------------


def test_an_updating_stream_is_merged(tmp_path: Path) -> None:
    totals = mill.from_iter(ROWS).key_by("k").agg(n=mill.count(), t=col("x").sum(), emit="each")
    mill.run(totals.write_delta(tmp_path / "t", key="k"), checkpoint=tmp_path / "state")
    assert rows(tmp_path / "t", "k") == [{"k": k, "n": 200, "t": sum(range(k, 1000, 5))} for k in range(5)]
    # Rows that the filter withdraws are deleted, over several checkpoints.
    source = testing.Source({"k": int, "x": int})
    small = source.stream().key_by("k").agg(t=col("x").sum(), emit="each").filter(col("t") < 10)
    with testing.Job(small.write_delta(tmp_path / "u", key="k")) as job:
        for step, expected in [
            ([(1, 5), (2, 6)], {1: 5, 2: 6}),
            ([(1, 5)], {2: 6}),
            ([(1, -3), (2, 1)], {1: 7, 2: 7}),
            ([(1, 3), (1, -1), (3, 50)], {1: 9, 2: 7}),
        ]:
            source.push(*({"k": k, "x": x} for k, x in step))
            job.checkpoint()
            assert {row["k"]: row["t"] for row in rows(tmp_path / "u")} == expected
        source.end()


def test_rows_with_a_key_replace_each_other(tmp_path: Path) -> None:
    given = [{"a": n % 3, "b": "x" if n % 2 else "y", "n": n, "p": n % 2} for n in range(100)]
    mill.run(mill.from_iter(given).write_delta(tmp_path / "t", key=["b", "a"], partition_by="p"))
    mill.run(mill.from_iter([{"a": 0, "b": "x", "n": -1, "p": 0}]).write_delta(tmp_path / "t", key=["a", "b"]))
    expected = {(row["a"], row["b"]): (row["n"], row["p"]) for row in given} | {(0, "x"): (-1, 0)}
    read = deltalake.DeltaTable(tmp_path / "t").to_pyarrow_table().to_pylist()
    assert len(read) == 6
    assert {(row["a"], row["b"]): (row["n"], row["p"]) for row in read} == expected


def test_a_key_that_is_null(tmp_path: Path) -> None:
    with pytest.raises(mill.ConnectorError, match="DataError: column 'k' is null, and it is of the key"):
        mill.run(mill.from_iter([{"k": None, "x": 1}], schema={"k": int, "x": int}).write_delta(tmp_path / "t", key="k"))


@pytest.mark.parametrize("name", ["a b", "q`uote", "Select", "ü.x", "__deletes", "target"])
def test_names_of_columns(tmp_path: Path, name: str) -> None:
    stream = mill.from_iter([{name: 1, "x": 2}, {name: 1, "x": 3}])
    mill.run(stream.write_delta(tmp_path / "t", key=name), checkpoint=tmp_path / "state")
    mill.run(stream.write_delta(tmp_path / "t", key=name))
    assert rows(tmp_path / "t") == [{name: 1, "x": 3}]


# -- what is refused -------------------------------------------------------------------------------------------------------


def test_arguments(tmp_path: Path) -> None:
    stream = mill.from_iter([{"k": 1, "f": 0.5}])
    totals = stream.key_by("k").agg(f=col("f").sum(), emit="each")
    endless = mill.generate(n=mill.index())
    cases: list[tuple[Any, str]] = [
        (lambda: stream.write_delta(tmp_path, mode="merge"), r'write_delta\(mode=…\) takes "append" or "overwrite"'),
        (lambda: stream.write_delta(tmp_path, key="kk"), r"there is no column 'kk'; did you mean 'k'"),
        (lambda: stream.write_delta(tmp_path, partition_by="x"), r"partition_by=…\): there is no column 'x'"),
        (lambda: stream.write_delta(tmp_path, key=[]), r"needs at least one column"),
        (lambda: stream.write_delta(tmp_path, key="f"), r"column 'f' is float64; a key is of"),
        (lambda: stream.write_delta(tmp_path, partition_by="f"), r"column 'f' is float64; a partition is of"),
        (lambda: stream.write_delta(tmp_path, key="k", mode="overwrite"), r"leave one of them out"),
        (lambda: stream.write_delta(tmp_path, key=["k", "k"]), r"names a column twice"),
        (lambda: stream.select("k").write_delta(tmp_path, partition_by="k"), r"names all columns"),
        (lambda: endless.write_delta(tmp_path, mode="overwrite"), r"this stream has no end"),
        (lambda: totals.write_delta(tmp_path), r'this stream updates: a row replaces the row of its key \(k\); pass key="k"'),
        (lambda: totals.write_delta(tmp_path, key="f"), r"column 'f' is float64|names f, and this stream updates rows by k"),
        (lambda: stream.write_delta("s3://bucket/t"), r"is in an object store"),
        (lambda: stream.write_delta(3), r"a path is a text"),
        (lambda: mill.read_delta(tmp_path / "none"), r"there is no Delta table at"),
    ]
    for call, message in cases:
        with pytest.raises(mill.MillstreamError, match=message):
            call()
    assert list(tmp_path.iterdir()) == []


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = builtins.__import__
    import importlib

    def missing(name: str, *arguments: Any, **more: Any) -> Any:
        if name == "deltalake":
            raise ModuleNotFoundError("No module named 'deltalake'", name="deltalake")
        return whole(name, *arguments, **more)

    monkeypatch.setattr(importlib, "import_module", missing)
    for call in (lambda: mill.from_iter([1]).write_delta(tmp_path / "t"), lambda: mill.read_delta(tmp_path / "t")):
        with pytest.raises(mill.PlanError, match=r"needs the package deltalake: pip install millstream\[delta\]"):
            call()


def test_an_older_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deltalake, "__version__", "1.5.1")
    with pytest.raises(mill.PlanError, match=r"write_delta\(\) needs deltalake 1.6.2 or newer, and 1.5.1 is installed"):
        mill.from_iter([1]).write_delta(tmp_path / "t")


# -- overwriting -----------------------------------------------------------------------------------------------------------


def test_the_whole_table_is_replaced_at_the_end(tmp_path: Path) -> None:
    stream = mill.from_iter(ROWS)
    mill.run(stream.write_delta(tmp_path / "t", partition_by="day"))
    mill.run(stream.filter(col("x") < 10).write_delta(tmp_path / "t", mode="overwrite"))
    assert [row["x"] for row in rows(tmp_path / "t", "x")] == list(range(10))
    assert deltalake.DeltaTable(tmp_path / "t").version() == 2

    def fails(row: Any) -> Any:
        raise ValueError

    with pytest.raises(mill.UserFunctionError):
        mill.run(stream.map(fails, schema={"k": int, "x": int, "day": str}).write_delta(tmp_path / "t", mode="overwrite"))
    assert len(rows(tmp_path / "t")) == 10
    mill.run(stream.filter(col("x") < 0).write_delta(tmp_path / "t", mode="overwrite"))
    assert rows(tmp_path / "t") == []
    with pytest.raises(mill.PlanError, match=r"write_delta\(.*leave checkpoint= out"):
        mill.run(stream.write_delta(tmp_path / "t", mode="overwrite"), checkpoint=tmp_path / "state")
    assert not (tmp_path / "state").exists()


# -- crashes ---------------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """What a test raises in the place of a kill."""


def pushed(count: int = 40) -> testing.Source:
    source = testing.Source({"n": int})
    source.push(*({"n": n} for n in range(count)))
    source.end()
    return source


@pytest.mark.parametrize("key", [None, "n"])
@pytest.mark.parametrize("kill_after", range(6))
def test_a_kill_between_checkpoints(tmp_path: Path, key: str | None, kill_after: int) -> None:
    source = pushed(5)
    with testing.Job(source.stream().write_delta(tmp_path / "t", key=key)) as job:
        job.checkpoint(after=kill_after)
        job.kill_and_restore()
        job.checkpoint()
    assert [row["n"] for row in rows(tmp_path / "t", "n")] == list(range(5))


@pytest.mark.parametrize("key", [None, "n"])
@pytest.mark.parametrize("where", ["before", "after", "conflict"])
def test_a_commit_that_is_cut_short(tmp_path: Path, key: str | None, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from millstream.io import _delta_sink as delta

    whole = delta._DeltaSink._write
    left = [1]

    def cut(self: Any, table: Any, handle: Any, mark: Any) -> None:
        if left:
            left.pop()
            if where == "conflict":
                # Another writer commits between the look and the commit.
                mill.run(mill.from_iter([{"n": 1000}]).write_delta(tmp_path / "t"))
            else:
                if where == "after":
                    whole(self, table, handle, mark)
                raise OSError("cut")
        whole(self, table, handle, mark)

    stream = mill.from_iter([{"n": n} for n in range(10)])
    sink = stream.write_delta(tmp_path / "t", key=key)
    with monkeypatch.context() as patch:
        patch.setattr(delta._DeltaSink, "_write", cut)
        if where == "conflict":
            mill.run(sink, checkpoint=tmp_path / "state")
        else:
            with pytest.raises(mill.ConnectorError, match="cut"):
                mill.run(sink, checkpoint=tmp_path / "state")
    mill.run(sink, checkpoint=tmp_path / "state")
    expected = list(range(10)) + ([1000] if where == "conflict" else [])
    assert [row["n"] for row in rows(tmp_path / "t", "n")] == expected


def test_a_restart_within_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed: list[int] = []

    def once(row: Any) -> Any:
        if row.n == 30 and not failed:
            failed.append(1)
            raise ValueError("once")
        return {"n": row.n}

    stream = mill.from_iter(lambda start: ({"n": n} for n in range(start, 60)), schema={"n": int}).map(once, schema={"n": int})
    mill.run(
        stream.write_delta(tmp_path / "t"), checkpoint=mill.Checkpoint(tmp_path / "state", every="1ms"), restart=mill.Restart.fixed_delay(2, "1ms"), parallelism=1
    )
    assert [row["n"] for row in rows(tmp_path / "t", "n")] == list(range(60))
    # What was written and never named was removed.
    assert len(list((tmp_path / "t").glob("**/*.parquet"))) == len(active(tmp_path / "t"))


def test_two_jobs_on_one_table(tmp_path: Path) -> None:
    def job(number: int) -> mill.Job:
        stream = mill.from_iter(lambda start: ({"n": number * 1000 + n} for n in range(start, 500)), schema={"n": int})
        return mill.start(stream.write_delta(tmp_path / "t"), checkpoint=mill.Checkpoint(tmp_path / f"state-{number}", every="1ms"), parallelism=1)

    jobs = [job(number) for number in range(3)]
    for each in jobs:
        each.wait()
    assert [row["n"] for row in rows(tmp_path / "t", "n")] == [number * 1000 + n for number in range(3) for n in range(500)]


def test_one_plan_that_runs_twice_at_a_time(tmp_path: Path) -> None:
    def numbers(start: int) -> Any:
        for n in range(start, 300):
            time.sleep(0.0002)
            yield {"n": n}

    sink = mill.from_iter(numbers, schema={"n": int}).write_delta(tmp_path / "t")
    jobs = [mill.start(sink, checkpoint=mill.Checkpoint(tmp_path / f"state-{number}", every="1ms"), parallelism=1) for number in range(2)]
    for each in jobs:
        each.wait()
    assert [row["n"] for row in rows(tmp_path / "t", "n")] == sorted(2 * list(range(300)))


# -- what the checkpoint and the table say of each other -------------------------------------------------------------------


def test_the_table_is_put_back_from_a_copy(tmp_path: Path) -> None:
    source = testing.Source({"n": int})
    with testing.Job(source.stream().write_delta(tmp_path / "t")) as job:
        source.push({"n": 1})
        job.checkpoint()
        shutil.copytree(tmp_path / "t", tmp_path / "copy")
        for n in (2, 3):
            source.push({"n": n})
            job.checkpoint()
        shutil.rmtree(tmp_path / "t")
        shutil.copytree(tmp_path / "copy", tmp_path / "t")
        with pytest.raises(mill.ConnectorError, match="CheckpointError: the table lacks output that the checkpoint knows to be committed"):
            job.kill_and_restore()


def test_an_entry_of_the_log_without_its_content(tmp_path: Path) -> None:
    source = testing.Source({"n": int})
    with testing.Job(source.stream().write_delta(tmp_path / "t")) as job:
        for n in range(2):
            source.push({"n": n})
            job.checkpoint()
        entry = tmp_path / "t" / "_delta_log" / f"{2:020}.json"
        whole = entry.read_text()
        entry.write_text(whole[:50])
        with pytest.raises(mill.ConnectorError, match="the table .* cannot be read: .*Json error") as caught:
            job.kill_and_restore()
        assert "unknown" not in str(caught.value)
    # After a loss of power it may be empty: then it is a version that changes nothing, and the epoch is committed again.
    source = testing.Source({"n": int})
    with testing.Job(source.stream().write_delta(tmp_path / "u")) as job:
        for n in range(2):
            source.push({"n": n})
            job.checkpoint()
        (tmp_path / "u" / "_delta_log" / f"{2:020}.json").write_text("")
        job.kill_and_restore()
        assert [row["n"] for row in rows(tmp_path / "u", "n")] == [0, 1]


# -- reading ---------------------------------------------------------------------------------------------------------------


def test_a_version_and_columns_are_read(tmp_path: Path) -> None:
    for number in range(3):
        mill.run(mill.from_iter([{"a": number, "b": str(number)}]).write_delta(tmp_path / "t"))
    assert mill.read_delta(tmp_path / "t").collect().to_pylist() == [{"a": n, "b": str(n)} for n in range(3)]
    assert mill.read_delta(tmp_path / "t", version=2, columns=["b", "a"]).collect().to_pylist() == [{"b": "0", "a": 0}, {"b": "1", "a": 1}]
    assert mill.read_delta(str(tmp_path / "t"), version=0).collect().to_pylist() == []
    # A file that was written before a column was added has nulls there.
    deltalake.DeltaTable(tmp_path / "t").alter.add_columns(deltalake.Field("c", deltalake.schema.PrimitiveType("long")))
    mill.run(mill.from_iter([{"a": 3, "b": "3", "c": 4}]).write_delta(tmp_path / "t"))
    assert mill.read_delta(tmp_path / "t", columns="c").collect()["c"] == [None, None, None, 4]
    with pytest.raises(mill.SchemaError, match=r"the table has no column 'aa'; did you mean 'a'"):
        mill.read_delta(tmp_path / "t", columns="aa")
    with pytest.raises(mill.ConnectorError, match="cannot be read"):
        mill.read_delta(tmp_path / "t", version=99)
    with pytest.raises(mill.PlanError, match="takes the number of a version"):
        mill.read_delta(tmp_path / "t", version="1")
    (tmp_path / "empty").mkdir()
    with pytest.raises(mill.ConnectorError, match="there is no Delta table"):
        mill.read_delta(tmp_path / "empty")


@pytest.mark.parametrize("feature", ["deletionVectors", "columnMapping", "someOther"])
def test_a_table_that_the_reader_does_not_know(tmp_path: Path, feature: str) -> None:
    mill.run(mill.from_iter([{"a": 1}]).write_delta(tmp_path / "t"))
    entry = tmp_path / "t" / "_delta_log" / f"{0:020}.json"
    actions = [json.loads(line) for line in entry.read_text().splitlines()]
    for action in actions:
        if "protocol" in action:
            action["protocol"] = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": [feature], "writerFeatures": [feature]}
    entry.write_text("".join(json.dumps(action) + "\n" for action in actions))
    with pytest.raises(mill.ConnectorError, match="the table at .* cannot be read|the table .* cannot be read"):
        mill.read_delta(tmp_path / "t")
    if feature == "columnMapping":
        with pytest.raises(mill.SchemaError, match="the feature columnMapping, which write_delta"):
            mill.from_iter([{"a": 2}]).write_delta(tmp_path / "t")


def test_a_run_that_goes_on_reads_the_version_that_it_began_with(tmp_path: Path) -> None:
    for number in range(10):
        mill.run(mill.from_iter([{"n": number * 10 + n} for n in range(10)]).write_delta(tmp_path / "t"))
    changed: list[int] = []

    def change(row: Any) -> Any:
        if row.n < 55 and not changed:
            # So that a checkpoint comes between two files.
            time.sleep(0.001)
        if row.n == 55 and not changed:
            changed.append(len(mill.checkpoints(tmp_path / "state")))
            mill.run(mill.from_iter([{"n": 1000}]).write_delta(tmp_path / "t"))
            deltalake.DeltaTable(tmp_path / "t").optimize.compact()
            raise ValueError("once")
        return {"n": row.n}

    read = mill.read_delta(tmp_path / "t").map(change, schema={"n": int})
    sink = read.write_parquet(tmp_path / "out")
    with pytest.raises(mill.UserFunctionError, match="once"):
        mill.run(sink, checkpoint=mill.Checkpoint(tmp_path / "state", every="1ms"), parallelism=1)
    # The script is started again, and the newest version is another one by now.
    sink = mill.read_delta(tmp_path / "t").map(change, schema={"n": int}).write_parquet(tmp_path / "out")
    mill.run(sink, checkpoint=mill.Checkpoint(tmp_path / "state", every="1ms"), parallelism=1)
    found = sorted(pq.read_table(tmp_path / "out")["n"].to_pylist())
    assert found == list(range(100)) + ([] if changed[0] else [1000])
