"""Parquet files of other writers: types, several files, damages."""

from __future__ import annotations

import datetime as dt
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import millstream as mill
from millstream import col


def write(path: Path, *tables: pa.Table, **options: Any) -> str:
    """Write a file, or a directory of files if there are several tables; give its name."""
    if len(tables) == 1:
        pq.write_table(tables[0], path, **options)
    else:
        path.mkdir()
        for number, table in enumerate(tables):
            pq.write_table(table, path / f"{number}.parquet", **options)
    return str(path)


def rows(path: str, **options: Any) -> list[dict[str, Any]]:
    return mill.read_parquet(path, **options).collect(parallelism=1).to_pylist()


BERLIN, UTC = "Europe/Berlin", "UTC"
SAME_TYPE_OR_WIDER: list[tuple[pa.Array, pa.Array, Any]] = [
    (pa.array([1], pa.int32()), pa.array([2**40], pa.int64()), [1, 2**40]),
    (pa.array([-1], pa.int8()), pa.array([255], pa.uint8()), [-1, 255]),
    (pa.array([1], pa.int64()), pa.array([1.5], pa.float64()), [1.0, 1.5]),
    (pa.array([2**31 - 1], pa.int32()), pa.array([0.1], pa.float32()), [2.0**31 - 1, pa.scalar(0.1, pa.float32()).as_py()]),
    (pa.array([None], pa.null()), pa.array(["a"]), [None, "a"]),
    (pa.array(["a"], pa.large_string()), pa.array(["b"], pa.string_view()), ["a", "b"]),
    (pa.array(["a"]).dictionary_encode(), pa.array(["b"]), ["a", "b"]),
    (pa.array([b"a"], pa.binary(1)), pa.array([b"bc"], pa.binary()), [b"a", b"bc"]),
    (pa.array([Decimal("1.25")], pa.decimal128(5, 2)), pa.array([3], pa.int32()), [Decimal("1.25"), Decimal("3.00")]),
    (
        pa.array([dt.datetime(2024, 1, 1)], pa.timestamp("ms")),
        pa.array([dt.datetime(2024, 1, 1, 0, 0, 0, 1)], pa.timestamp("us")),
        [dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 1, 0, 0, 0, 1)],
    ),
    (pa.array([[1]], pa.list_(pa.int8())), pa.array([[2, None]], pa.large_list(pa.int64())), [[1], [2, None]]),
    (pa.array([{"x": 1}], pa.struct({"x": pa.int8()})), pa.array([{"x": 2.5}]), [{"x": 1.0}, {"x": 2.5}]),
]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("case", SAME_TYPE_OR_WIDER, ids=lambda case: f"{case[0].type}-{case[1].type}")
def test_files_of_different_types_meet_in_one_that_holds_all(tmp_path: Path, case: Any, turned: bool) -> None:
    a, b, wanted = case
    tables = [pa.table({"v": a}), pa.table({"v": b})]
    if turned:
        tables, wanted = tables[::-1], wanted[::-1]
    found = rows(write(tmp_path / "d", *tables))
    assert [row["v"] for row in found] == wanted
    assert [type(row["v"]) for row in found] == [type(value) for value in wanted]


@pytest.mark.parametrize(
    ("a", "b", "names"),
    [
        (pa.array([1]), pa.array(["1"]), "str.*int64"),
        (pa.array([True]), pa.array([1]), "int64.*bool"),
        (pa.array([0], pa.timestamp("us", UTC)), pa.array([0], pa.timestamp("us")), r"timestamp\[us\].*timestamp\[us, UTC\]"),
        (pa.array([0], pa.timestamp("us", UTC)), pa.array([0], pa.timestamp("us", BERLIN)), ".*Europe/Berlin.*UTC"),
        (pa.array([0], pa.int64()), pa.array([0], pa.uint64()), "uint64.*int64"),
        (pa.array([{"x": 1}]), pa.array([{"y": 1}]), "struct.*y.*struct.*x"),
        (pa.array([dt.date(2024, 1, 1)]), pa.array([0], pa.timestamp("us")), r"timestamp\[us\].*date"),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_files_that_have_no_type_in_common_are_refused_at_the_call(tmp_path: Path, a: Any, b: Any, names: str) -> None:
    path = write(tmp_path / "d", pa.table({"v": a}), pa.table({"v": b}))
    with pytest.raises(mill.SchemaError, match=f'column "v" is {names}') as info:
        mill.read_parquet(path)
    assert "1.parquet" in str(info.value) and "0.parquet" in str(info.value)


def test_a_column_that_only_some_files_have_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "d", pa.table({"a": [1]}), pa.table({"a": [2], "b": [3]}))
    with pytest.raises(mill.SchemaError, match='1.parquet" has a column "b"'):
        mill.read_parquet(path)
    assert rows(path, schema={"a": int}) == [{"a": 1}, {"a": 2}]
    path = write(tmp_path / "e", pa.table({"a": [1], "b": [3]}), pa.table({"a": [2]}))
    with pytest.raises(mill.SchemaError, match='1.parquet" has no column "b"'):
        mill.read_parquet(path)


def test_a_value_that_the_stream_s_type_does_not_hold_names_file_row_column_and_value(tmp_path: Path) -> None:
    path = write(tmp_path / "d", pa.table({"v": [0.5]}), pa.table({"v": [1, 2**53 + 1, 3]}))
    with pytest.raises(mill.DataError, match=f'1.parquet": row 2, column "v": {2**53 + 1}'):
        rows(path)
    kept = mill.read_parquet(path).collect(parallelism=1, on_error="skip").to_pylist()
    assert [row["v"] for row in kept] == [0.5, 1.0, 3.0]
    float_file = write(tmp_path / "f.parquet", pa.table({"v": [1.0, 2.5]}))
    with pytest.raises(mill.DataError, match='f.parquet": row 2, column "v": 2.5 has a fraction'):
        rows(float_file, schema={"v": int})
    with pytest.raises(mill.SchemaError, match="float64 and cannot be read as str"):
        rows(float_file, schema={"v": str})
    naive = write(tmp_path / "n.parquet", pa.table({"v": pa.array([0], pa.timestamp("us"))}))
    with pytest.raises(mill.SchemaError, match=r"timestamp\[us\] and cannot be read as timestamp\[us, UTC\]"):
        rows(naive, schema={"v": mill.Timestamp("us", tz="UTC")})


YEARS = [dt.datetime(1000, 1, 1, 1, 2, 3, 456789), dt.datetime(9999, 12, 31, 23, 59, 59, 999999), None]


@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: [t, None], lambda t: {"x": t}], ids=["column", "list", "struct"])
def test_int96_times_are_exact_over_their_whole_range(tmp_path: Path, wrap: Any) -> None:
    values = pa.array([wrap(year) for year in YEARS])
    path = write(tmp_path / "a.parquet", pa.table({"t": values}), use_deprecated_int96_timestamps=True, store_schema=False)
    kinds = {"column": mill.Timestamp("us"), "list": [mill.Timestamp("us")], "struct": {"x": mill.Timestamp("us")}}
    kind = kinds["list" if pa.types.is_list(values.type) else "struct" if pa.types.is_struct(values.type) else "column"]
    assert rows(path, schema={"t": kind}) == [{"t": wrap(year)} for year in YEARS]
    with pytest.raises(mill.DataError, match='column "t": the time 1000-01-01T01:02:03.456789 is outside'):
        rows(path)


def test_int96_digits_are_kept_or_refused(tmp_path: Path) -> None:
    nanos = [0, 1, -1, 1_720_000_000_123_456_789, -(2**63) + 1, 2**63 - 1]
    table = pa.table({"t": pa.array(nanos, pa.timestamp("ns")), "i": range(len(nanos))})
    path = write(tmp_path / "a.parquet", table, use_deprecated_int96_timestamps=True, row_group_size=2)
    assert mill.read_parquet(path).schema["t"] == mill.Timestamp("ns")
    found = mill.read_parquet(path).filter(col("i") > 0).collect(parallelism=1).to_arrow()
    assert found["t"].cast(pa.int64()).to_pylist() == nanos[1:]
    with pytest.raises(mill.DataError, match='row 2, column "t".*has nanoseconds'):
        rows(path, schema={"t": mill.Timestamp("us")})


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", ["America/New_York", "UTC", "+05:30", None])
@pytest.mark.parametrize("store_schema", [True, False])
@pytest.mark.parametrize("int96", [True, False])
def test_zones_survive(tmp_path: Path, unit: str, zone: str | None, store_schema: bool, int96: bool) -> None:
    values = pa.array([1_720_000_000, None]).cast(pa.timestamp("s")).cast(pa.timestamp(unit, zone))
    path = write(
        tmp_path / "a.parquet",
        pa.table({"t": values, "l": pa.array([[values[0]], None], pa.list_(values.type))}),
        store_schema=store_schema,
        use_deprecated_int96_timestamps=int96,
    )
    found = mill.read_parquet(path).collect().to_arrow()
    # Without the schema a file only tells that a time is one of UTC; an INT96 time not even that.
    kept = zone if store_schema else "UTC" if zone and not int96 else None
    for kind in (found.schema.field("t").type, found.schema.field("l").type.value_type):
        assert kind.tz == kept
    assert found["t"].cast(pa.timestamp("s", kept)).cast(pa.int64()).to_pylist() == [1_720_000_000, None]


def test_dictionaries_grow_over_row_groups_and_files(tmp_path: Path) -> None:
    def table(number: int) -> pa.Table:
        values = [f"{number}_{i}" for i in range(100)]
        return pa.Table.from_pandas(
            pd.DataFrame({"c": pd.Categorical(values, ordered=number == 0), "n": range(100)}), preserve_index=False
        )

    with pq.ParquetWriter(tmp_path / "a.parquet", table(1).schema) as writer:
        for number in range(1, 4):
            writer.write_table(table(number))
    wanted = {f"{number}_{i}" for number in range(1, 4) for i in range(100)}
    one = mill.read_parquet(str(tmp_path / "a.parquet"))
    assert {row["c"] for row in one.collect().to_pylist()} == wanted
    assert len(one.key_by("c").agg(n=mill.count()).collect()) == 300
    many = mill.read_parquet(write(tmp_path / "d", *map(table, range(1, 4))))
    assert {row["c"] for row in many.collect().to_pylist()} == wanted
    mill.run(many.write_parquet(str(tmp_path / "out")))
    assert len(set(pq.read_table(tmp_path / "out")["c"].to_pylist())) == 300


def test_maps_pass_from_arrow_and_parquet_to_everything(tmp_path: Path) -> None:
    maps = [[("a", 1), ("b", None)], [], None, [("a", 2)]]
    table = pa.table({"m": pa.array(maps, pa.map_(pa.string(), pa.int64())), "n": [1, 2, 3, 4]})
    wanted = table.to_pylist()
    path = write(tmp_path / "a.parquet", table)
    for stream in (mill.from_arrow(table), mill.read_parquet(path), mill.from_arrow(table.slice(1)).union(mill.from_arrow(table[:1]))):
        assert sorted(stream.collect().to_pylist(), key=lambda row: row["n"]) == wanted
        assert repr(stream.schema["m"]) == "map[str, int64]"
    assert "map" in repr(mill.read_parquet(path).schema)
    mill.run(mill.read_parquet(path).write_parquet(str(tmp_path / "out")))
    assert pq.read_table(tmp_path / "out").to_pylist() == wanted
    assert mill.read_parquet(str(tmp_path / "out")).collect().to_pylist() == wanted
    mill.run(mill.read_parquet(path).write_json(str(tmp_path / "json")))
    read = mill.read_json(str(tmp_path / "json"), schema={"m": dict[str, int], "n": int}).collect()
    assert sorted(read.to_pylist(), key=lambda row: row["n"]) == wanted
    made = mill.from_iter([{"m": {"a": 1, "b": None}}, {"m": [("c", 2)]}, {"m": None}], schema={"m": dict[str, int]}).collect()
    assert made.to_pylist() == [{"m": [("a", 1), ("b", None)]}, {"m": [("c", 2)]}, {"m": None}]
    seen = mill.from_arrow(table).map(lambda r: {"k": len(r.m or []), "m": r.m}, schema={"k": int, "m": dict[str, int]})
    assert sorted(row["k"] for row in seen.collect().to_pylist()) == [0, 0, 1, 2]


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "brotli", "lz4", "zstd"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_every_codec_is_read(tmp_path: Path, codec: str, version: str) -> None:
    table = pa.table({"a": range(5000), "s": [f"text {i % 7}" for i in range(5000)]})
    path = write(tmp_path / "a.parquet", table, compression=codec, data_page_version=version)
    assert mill.read_parquet(path).collect(parallelism=1).to_arrow().equals(table)


def test_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    twice = pa.table([[1], [2]], names=["a", "a"])
    path = write(tmp_path / "a.parquet", twice)
    inner = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"])
    calls = {
        "a": [
            lambda: mill.read_parquet(path),
            lambda: mill.read_parquet(path, schema={"a": int}),
            lambda: mill.from_arrow(twice),
            lambda: mill.from_arrow(twice.to_reader()),
            lambda: mill.from_iter([(1, 2)], schema=pa.schema([("a", pa.int64()), ("a", pa.int64())])),
            lambda: mill.from_iter([(1, 2)]).map_batches(lambda batch: batch, schema=twice.schema),
            lambda: mill.from_iter([{"a": 1, "b": 2}]).select("a", col("b").alias("a")),
            lambda: mill.from_iter([{"a": 1, "b": 2}]).rename({"b": "a"}),
            lambda: mill.from_iter([{"a": 1, "b": 2}]).key_by("a").agg(a=mill.count()),
        ],
        "x": [lambda: mill.from_arrow(pa.table({"s": inner})), lambda: mill.read_parquet(write(tmp_path / "s.parquet", pa.table({"s": inner})))],
    }
    for name, group in calls.items():
        for number, call in enumerate(group):
            with pytest.raises(mill.MillstreamError, match=f'"{name}"'):
                print(number, call())
    given = mill.from_iter([{"a": 1}]).map_batches(lambda batch: twice.to_batches()[0], schema={"a": int})
    with pytest.raises(mill.MillstreamError, match='"a"'):
        given.collect()


def test_types_that_nest_too_deep_are_named_with_their_depth(tmp_path: Path) -> None:
    kind, value, python = pa.int64(), 1, int
    for _ in range(499):
        kind, value, python = pa.struct([("a", kind)]), {"a": value}, {"a": python}
    table = pa.table({"x": pa.array([value], kind)})
    for call in (
        lambda: mill.from_arrow(table),
        lambda: mill.from_arrow(table.to_reader()),
        lambda: mill.from_iter([{"x": value}]),
        lambda: mill.from_iter([{"x": value}], schema=table.schema),
        lambda: mill.from_iter([{"x": 1}]).map(lambda r: {"x": r.x}, schema={"x": python}),
        lambda: mill.from_iter([{"x": 1}]).cast({"x": kind}),
    ):
        with pytest.raises(mill.MillstreamError, match="nest"):
            call()
    with pytest.raises(mill.SchemaError, match='column "x" nests 500 types; at most 48'):
        mill.from_arrow(table)
    kind, value = pa.int64(), 1
    for depth in range(47):
        kind, value = (pa.list_(kind), [value]) if depth % 2 else (pa.struct([("a", kind)]), {"a": value})
    stream = mill.from_arrow(pa.table({"x": pa.array([value, None], kind), "k": [1, 2]}))
    assert [row["x"] for row in stream.collect().to_pylist()] == [value, None]
    mill.run(stream.write_parquet(str(tmp_path / "p")), checkpoint=str(tmp_path / "s"))
    assert mill.read_parquet(str(tmp_path / "p")).collect().to_arrow()["x"].to_pylist() == [value, None]
    assert stream.key_by("k").agg(n=mill.n_unique("x") if hasattr(mill, "n_unique") else col("x").n_unique()).collect()["n"] == [1, 1]


def test_a_checksum_that_does_not_hold_is_an_error(tmp_path: Path) -> None:
    table = pa.table({"i": range(100_000)})
    path = tmp_path / "a.parquet"
    write(path, table, compression="none", use_dictionary=False, write_page_checksum=True, column_encoding="PLAIN")
    assert mill.read_parquet(str(path)).collect(parallelism=1)["i"] == list(range(100_000))
    damaged = bytearray(path.read_bytes())
    damaged[400_000] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(mill.MillstreamError, match="a.parquet.*[Cc][Rr][Cc]"):
        rows(str(path))


def test_damages_end_in_errors_that_name_the_file(tmp_path: Path) -> None:
    random_of = random.Random(7)
    table = pa.table(
        {
            "i": range(3000),
            "s": [f"str{random_of.randrange(100)}" for _ in range(3000)],
            "l": [[j for j in range(random_of.randrange(4))] for _ in range(3000)],
            "m": pa.array([[("k", i)] for i in range(3000)], pa.map_(pa.string(), pa.int64())),
            "t": pa.array(range(3000), pa.timestamp("us", "UTC")),
            "d": pa.array([None if i % 7 == 0 else Decimal(i) for i in range(3000)]),
        }
    )
    original = bytearray(Path(write(tmp_path / "a.parquet", table, row_group_size=700)).read_bytes())
    path, unnamed, raised = tmp_path / "damaged.parquet", [], 0
    for seed in range(600):
        draw = random.Random(seed)
        damaged = bytearray(original)
        for _ in range(draw.choice([1, 1, 3])):
            at = draw.randrange(len(damaged)) if draw.random() < 0.4 else len(damaged) - 1 - draw.randrange(3000)
            damaged[at] ^= 1 << draw.randrange(8)
        if seed % 5 == 0:
            damaged = damaged[: draw.randrange(len(damaged))]
        path.write_bytes(damaged)
        try:
            mill.read_parquet(str(path)).collect(parallelism=1).to_pylist()
        except (mill.DataError, mill.ConnectorError, mill.SchemaError) as error:
            raised += 1
            if "damaged.parquet" not in str(error):
                unnamed.append((seed, str(error)))
        except (UnicodeDecodeError, OverflowError, ValueError):
            pass
    assert raised > 200
    assert not unnamed


def test_encrypted_files_say_so(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PARE" + bytes(100) + b"PARE")
    with pytest.raises(mill.ConnectorError, match="a.parquet.*encrypted"):
        mill.read_parquet(str(path))
    path.write_bytes(b"PAR1" + bytes(100))
    with pytest.raises(mill.ConnectorError, match="a.parquet.*not a complete Parquet file"):
        mill.read_parquet(str(path))


def test_types_of_any_layout_are_read_as_pyarrow_reads_them(tmp_path: Path) -> None:
    arrays = {
        "ls": pa.array(["a", None], pa.large_string()),
        "vs": pa.array(["a", None], pa.string_view()),
        "ll": pa.array([[1], None], pa.large_list(pa.int32())),
        "fl": pa.array([[1, 2], None], pa.list_(pa.int32(), 2)),
        "fb": pa.array([b"ab", None], pa.binary(2)),
        "f2": pa.array([1.5, None], pa.float16()),
        "d2": pa.array([Decimal("1.5"), None], pa.decimal256(50, 3)),
        "d3": pa.array([Decimal("1.5"), None], pa.decimal32(5, 2)),
        "d6": pa.array([Decimal("1.5"), None], pa.decimal64(15, 2)),
        "dt": pa.array(["a", None]).dictionary_encode(),
        "di": pa.array([7, None]).dictionary_encode(),
        "dn": pa.array([["a"], None], pa.list_(pa.dictionary(pa.int8(), pa.string()))),
        "nn": pa.array([None, None], pa.null()),
        "ln": pa.array([[None], None], pa.list_(pa.null())),
        "t3": pa.array([dt.time(1, 2, 3), None], pa.time32("s")),
        "t6": pa.array([dt.time(1, 2, 3, 4), None], pa.time64("us")),
        "du": pa.array([dt.timedelta(1), None], pa.duration("s")),
        "da": pa.array([dt.date(1, 1, 1), None], pa.date64()),
        "uu": pa.array([b"0123456789abcdef", None], pa.uuid()) if hasattr(pa, "uuid") else pa.array([None, None]),
    }
    table = pa.table(arrays)
    wanted = table.to_pylist()
    for row in wanted:
        row["uu"] = row["uu"].bytes if row["uu"] is not None else None
    assert mill.from_arrow(table).collect().to_pylist() == wanted
    assert rows(write(tmp_path / "a.parquet", table)) == wanted
    mill.run(mill.from_arrow(table).write_parquet(str(tmp_path / "out")))
    assert rows(str(tmp_path / "out")) == wanted
    runs = pa.RunEndEncodedArray.from_arrays([2, 3], pa.array(["a", None]))
    assert mill.from_arrow(pa.table({"r": runs})).collect()["r"] == ["a", "a", None]
    views = pa.array([[1], None, [2, 3]], pa.list_view(pa.int64()))
    assert mill.from_arrow(pa.table({"v": views})).collect()["v"] == [[1], None, [2, 3]]


def test_a_directory_of_directories_names_them(tmp_path: Path) -> None:
    (tmp_path / "year=2024").mkdir()
    write(tmp_path / "year=2024" / "a.parquet", pa.table({"a": [1]}))
    with pytest.raises(mill.ConnectorError, match=r"year=2024.*\*\*"):
        mill.read_parquet(str(tmp_path))
    assert rows(str(tmp_path / "**" / "*")) == [{"a": 1}]


def test_seconds_are_times_to_every_reader(tmp_path: Path) -> None:
    # Parquet has no type for seconds; they were written as bare integers, which only the schema of Arrow in the file told to be times.
    import duckdb

    when = [dt.datetime(1969, 12, 31, 23, 59, 59), dt.datetime(2024, 3, 1, 12), None]
    table = pa.table(
        {
            "t": pa.array(when, pa.timestamp("s")),
            "z": pa.array(when, pa.timestamp("s", "Europe/Berlin")),
            "c": pa.array([dt.time(1, 2, 3), dt.time(23, 59, 59), None], pa.time32("s")),
            "l": pa.array([[when[1], None], [], None], pa.list_(pa.timestamp("s"))),
            "n": pa.array([{"t": when[0]}, {"t": None}, None], pa.struct([("t", pa.timestamp("s"))])),
        }
    )
    mill.run(mill.from_arrow(table).write_parquet(tmp_path / "out"), parallelism=1)
    [path] = (tmp_path / "out").glob("*.parquet")
    found = pq.ParquetFile(path).read()
    assert found.to_pylist() == table.to_pylist()
    assert pq.ParquetFile(path).schema.column(0).logical_type.type == "TIMESTAMP"
    with duckdb.connect() as connection:
        kinds = connection.sql(f"select * from read_parquet('{path}')").types
    assert [str(kind) for kind in kinds[:3]] == ["TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "TIME"]
    again = mill.read_parquet(path).collect(parallelism=1)
    assert again.to_arrow().to_pylist() == table.to_pylist()
    assert mill.read_parquet(path, schema={"t": mill.Timestamp("s")}).collect()["t"] == when

    far = pa.table({"t": pa.array([2**62], pa.timestamp("s"))})
    with pytest.raises(mill.MillstreamError, match='"t" is timestamp\\[s\\], and a value is out of range in the milliseconds'):
        mill.run(mill.from_arrow(far).write_parquet(tmp_path / "far"))


def test_only_columns_whose_values_repeat_have_dictionaries(tmp_path: Path) -> None:
    rows = 300_000
    dice = random.Random(3)
    table = pa.table({
        "id": pa.array(range(rows), pa.int64()),
        "measured": pa.array([dice.random() for _ in range(rows)]),
        "name": pa.array([f"a name that nobody else has, {n}" for n in range(rows)]),
        "at": pa.array(range(rows), pa.timestamp("us")),
        "town": pa.array([f"town {dice.randrange(500)}" for _ in range(rows)]),
        # Each value comes round again long after a batch has ended.
        "in_turn": pa.array([f"sensor {n % 20_000}" for n in range(rows)]),
        "mostly_null": pa.array([n if n % 10 == 0 else None for n in range(rows)]),
        "small": pa.array([n % 200 for n in range(rows)], pa.uint8()),
        "nested": pa.array([[n % 3] for n in range(rows)]),
    })
    for parallelism in (1, 2):
        path = tmp_path / f"{parallelism}.parquet"
        mill.run(mill.from_arrow(table).write_parquet(path), parallelism=parallelism, progress=False)
        found = pq.read_table(path)
        assert found.schema.equals(table.schema)
        assert found.sort_by("id").equals(table)
        group = pq.ParquetFile(path).metadata.row_group(0)
        columns = [group.column(index) for index in range(group.num_columns)]
        plain = {column.path_in_schema for column in columns if not column.has_dictionary_page}
        assert plain == {"id", "measured", "name", "at"}
