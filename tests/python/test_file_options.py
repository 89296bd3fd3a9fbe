"""Options of readers and writers of files, against Polars, pyarrow, DuckDB and Python's csv."""

from __future__ import annotations

import bz2
import csv
import functools
import gzip
import io
import json
import lzma
import os
import random
import subprocess
import sys
import time as clock
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import millstream as mill
from millstream import col, lit
from millstream.errors import CheckpointError


def rows(stream: mill.Stream, **options: Any) -> list[dict[str, Any]]:
    return stream.collect(parallelism=1, **options).to_pylist()


def put(path: Path, data: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


# -- read_csv ------------------------------------------------------------------------------------------------------------

POLARS = [
    ("a;b\n1;x\n2;\n", {"separator": ";"}),
    ("a\tb\n1\t'x\ty'\n", {"separator": "\t", "quote_char": "'"}),
    ('a,b\n1,"x\n2,y"\n', {"quote_char": None}),
    ("1,x\n2,y\n", {"has_header": False, "new_columns": ["n", "s"]}),
    ("a,b\n1,x\n", {"new_columns": ["n", "s"]}),
    ("a,b,c\n1,x,2.5\n", {"columns": ["c", "a"]}),
    ("report\n\na,b\n1,x\n", {"skip_lines": 2}),
    ('x\n"y\nz"\na,b\n1,x\n', {"skip_rows": 2}),
    ("a,b\nint,text\n1,x\n", {"skip_rows_after_header": 1}),
    ('# c\na,b\n#1,2\n"#3",4\n# end', {"comment_prefix": "#"}),
    ("a,b\n//x\n/,4\n", {"comment_prefix": "//"}),
    ("a,b\nNA,NA\n1,x\n", {"null_values": "NA"}),
    ('a,b\n-,"n/a"\n1,x\n', {"null_values": ["-", "n/a"]}),
    ("a,b\nNA,NA\n1,x\n", {"null_values": {"a": "NA"}}),
    ("a,b\n1,2,3\n4\n5,6\n", {"truncate_ragged_lines": True}),
    ("a,b\n2024-01-31,2024-01-31T05:15:00\n", {"try_parse_dates": True}),
    ("a,b\n2024-01-31,2024-01-31T05:15:00\n", {"try_parse_dates": False}),
    (b"a,b\n1,x\xff\xfey\n", {"encoding": "utf8-lossy"}),
    ("a,b\n", {}),
]


@pytest.mark.parametrize(("data", "options"), POLARS, ids=lambda value: str(value)[:40])
def test_csv_is_read_as_polars_reads_it(tmp_path: Path, data: str | bytes, options: dict[str, Any]) -> None:
    path = put(tmp_path / "a.csv", data)
    expected = pl.read_csv(path, **options)
    found = mill.read_csv(path, **options)
    assert rows(found) == expected.select(found.schema.names).to_dicts()
    assert set(found.schema.names) == set(expected.columns)


def test_columns_without_a_header_are_numbered_from_one(tmp_path: Path) -> None:
    path = put(tmp_path / "a.csv", "1,x\n2,y\n")
    assert rows(mill.read_csv(path, has_header=False)) == [{"column_1": 1, "column_2": "x"}, {"column_1": 2, "column_2": "y"}]


def test_a_decimal_comma_is_read_as_pandas_and_duckdb_read_it(tmp_path: Path) -> None:
    path = put(tmp_path / "a.csv", "a;b\n1,5;x\n-2,25;y\n3;z\n")
    expected = duckdb.sql(f"select * from read_csv('{path}', delim=';', decimal_separator=',')").fetchall()
    assert [tuple(row.values()) for row in rows(mill.read_csv(path, separator=";", decimal_comma=True))] == expected
    schema = {"a": pa.decimal128(10, 2), "b": str}
    assert rows(mill.read_csv(path, schema=schema, separator=";", decimal_comma=True))[1]["a"] == Decimal("-2.25")


@pytest.mark.parametrize("seed", range(3))
def test_large_files_of_other_dialects_are_read_in_parts(tmp_path: Path, seed: int) -> None:
    """Several tasks read one file; separators, line ends and comments are inside quotes, and escapes outside of ranges."""
    random_number = random.Random(seed)
    texts = ["a;b", "x''y", "#no", "", "plain", "z;;", "'"] + (["line\nend"] if seed == 2 else [])
    records = [(i, random_number.choice(texts) * random_number.randint(1, 3)) for i in range(120_000)]
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=";", quotechar="'", lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(["id", "text"])
    for number, record in enumerate(records):
        writer.writerow(record)
        if number % 1000 == 0:
            buffer.write("#; it's a 'comment'\n" if seed == 1 else "# a comment\n")
    path = put(tmp_path / "a.csv", buffer.getvalue())
    stream = mill.read_csv(path, separator=";", quote_char="'", comment_prefix="#", schema={"id": int, "text": str})
    found = sorted((row["id"], row["text"]) for row in stream.collect(parallelism=4).to_pylist())
    assert found == records


def test_escapes_are_read_as_python_reads_them(tmp_path: Path) -> None:
    text = 'a,b\n"x\\"y","\\\\"\n"p,\\"q",r\n'
    expected = list(csv.DictReader(io.StringIO(text), escapechar="\\", doublequote=False))
    assert rows(mill.read_csv(put(tmp_path / "a.csv", text), escape_char="\\")) == expected


def test_bad_records_of_a_dialect_are_skipped_or_routed_with_their_line(tmp_path: Path) -> None:
    path = put(tmp_path / "a.csv", "x\n#c\na;b\n1,5;x\n1.5;y\n2;z;w\n")
    stream = mill.read_csv(path, separator=";", decimal_comma=True, comment_prefix="#", skip_rows=1, schema={"a": float, "b": str})
    assert rows(stream, on_error="skip") == [{"a": 1.5, "b": "x"}]
    errors = rows(stream.errors, on_error="route")
    assert [error["error"].split(" ", 1)[1] for error in errors] == [
        'line 5: column "a": "1.5" is not a number',
        "line 6: 3 fields where 2 are expected",
    ]
    with pytest.raises(mill.DataError, match="line 5"):
        rows(stream)


def test_empty_and_header_only_files(tmp_path: Path) -> None:
    options: dict[str, Any] = {"skip_lines": 1, "comment_prefix": "#"}
    assert rows(mill.read_csv(put(tmp_path / "a.csv", "x\n#\na,b"), **options)) == []
    assert rows(mill.read_csv(put(tmp_path / "b.csv", ""), schema={"a": int, "b": int}, **options)) == []
    with pytest.raises(mill.SchemaError, match="has no line after those that skip_lines=1 skips; give schema="):
        mill.read_csv(put(tmp_path / "c.csv", "x\n#\n"), **options)
    with pytest.raises(mill.SchemaError, match="has no line after those that skip_rows=100 skips"):
        mill.read_csv(put(tmp_path / "d.csv", "a,b\n1,2\n"), skip_rows=100)
    with pytest.raises(mill.SchemaError, match="is empty: there is nothing to infer"):
        mill.read_csv(put(tmp_path / "e.csv", ""))


def test_messages_say_what_is_wrong_and_where(tmp_path: Path) -> None:
    stream = mill.read_csv(put(tmp_path / "a.csv", "a,b\n1,2\n"), separator=";")
    with pytest.raises(mill.SchemaError, match=r'column "a" does not exist.* the only column is "a,b": .*separator='):
        stream.select("a")
    for name in ("k=1", "k=x"):
        (tmp_path / "in" / name).mkdir(parents=True)
        put(tmp_path / "in" / name / "part-7.csv", "a\n1\n")
    with pytest.raises(mill.SchemaError, match=r'k=x/part-7.csv": the partition k=x'):
        mill.read_csv(tmp_path / "in", hive_partitioning=True, hive_schema={"k": int})
    whole = '[\n{"a": 1},\n{"a": 2}'
    for text, line in ((whole, 3), ('[\n{"a": 1}\n{"a": 2}]', 3), ('[\n{"a": 1},\n\n{"a": ', 4)):
        found = mill.read_json(put(tmp_path / "a.json", text), schema={"a": int})
        with pytest.raises(mill.DataError, match=rf'a.json" line {line}: is no whole JSON, at '):
            rows(found)
    with pytest.raises(mill.DataError, match="line 2: 1 field where 2 are expected"):
        rows(mill.read_csv(put(tmp_path / "b.csv", "a,b\n1\n"), schema={"a": int, "b": int}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"separator": "||"}, r"separator=…\) takes one ASCII character"),
        ({"separator": "é"}, r"separator=…\) takes one ASCII character"),
        ({"separator": '"'}, "separator and quote_char are the same"),
        ({"encoding": "latin1"}, "iconv -f latin1 -t utf-8"),
        ({"decimal_comma": True}, 'separator=";"'),
        ({"skip_rows": -1}, r"skip_rows=…\) takes a number of rows, not -1"),
        ({"comment_prefix": ""}, "a text that a line begins with"),
        ({"escape_char": "\\", "quote_char": None}, "escape_char has a meaning within quotes only"),
        ({"has_header": "yes"}, r"has_header=…\) takes True or False"),
        ({"columns": ["pirce"]}, 'did you mean "price"'),
        ({"columns": []}, "names no column"),
        ({"null_values": {"pirce": "x"}}, 'did you mean "price"'),
        ({"new_columns": ["x"]}, "has 2 columns"),
        ({"missing_columns": "ignore"}, '"raise" or "insert"'),
        ({"missing_columns": "insert", "has_header": False}, "missing_columns has no meaning"),
        ({"row_index_offset": 1}, "row_index_name"),
        ({"row_index_name": "n", "follow": True}, "leave out one of"),
        ({"row_index_name": "qty"}, 'choose another'),
        ({"include_file_paths": "qty"}, "choose another name"),
        ({"hive_partitioning": True}, "in no directory key=value"),
        ({"hive_schema": {"k": int}}, "with hive_partitioning=True only"),
    ],
)
def test_options_that_cannot_be_are_refused_at_the_users_line(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    path = put(tmp_path / "a.csv", "price,qty\n1,2\n")
    with pytest.raises((mill.PlanError, mill.SchemaError), match=message):
        mill.read_csv(path, **options)


# -- all readers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["gz", "zst", "bz2", "xz", "lz4"])
def test_compressed_files_are_read_by_their_ending(tmp_path: Path, ending: str) -> None:
    data = b"a,b\n" + b"".join(b"%d,x\n" % i for i in range(1000))
    if ending in ("zst", "lz4"):
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, {"zst": "zstd", "lz4": "lz4"}[ending]) as out:
            out.write(data)
        packed = sink.getvalue().to_pybytes()
    else:
        packed = {"gz": gzip, "bz2": bz2, "xz": lzma}[ending].compress(data)
    assert len(rows(mill.read_csv(put(tmp_path / f"a.csv.{ending}", packed)))) == 1000


def test_xz_files_of_several_streams_with_padding_are_read(tmp_path: Path) -> None:
    packed = lzma.compress(b"a\n1\n") + bytes(8) + lzma.compress(b"2\n")
    assert rows(mill.read_csv(put(tmp_path / "a.csv.xz", packed))) == [{"a": 1}, {"a": 2}]


def test_partitions_are_read_as_polars_reads_them(tmp_path: Path) -> None:
    frame = pl.DataFrame({"a": [1, 2, 3], "day": [date(2024, 1, 31), None, date(2024, 2, 1)], "k": ["x/y", "z", "x/y"]})
    frame.write_parquet(tmp_path / "in", partition_by=["day", "k"], mkdir=True)
    stream = mill.read_parquet(tmp_path / "in", hive_partitioning=True)
    found = stream.collect().sort("a").to_pylist()
    assert found == pl.read_parquet(tmp_path / "in", hive_partitioning=True).sort("a").select(stream.schema.names).to_dicts()
    filtered = stream.filter((col("day") == date(2024, 1, 31)) & (col("a") > 0))
    assert rows(filtered) == [{"a": 1, "day": date(2024, 1, 31), "k": "x/y"}]
    texts = mill.read_parquet(tmp_path / "in", hive_partitioning=True, hive_schema={"day": str})
    assert sorted(str(row["day"]) for row in rows(texts)) == ["2024-01-31", "2024-02-01", "None"]


def test_paths_and_numbers_of_rows(tmp_path: Path) -> None:
    put(tmp_path / "in/a.csv", "x\n1\n2\n")
    put(tmp_path / "in/sub/b.csv", "x\n3\n")
    stream = mill.read_csv(tmp_path / "in", recursive=True, include_file_paths="path", row_index_name="n", row_index_offset=1)
    expected = pl.read_csv(tmp_path / "in/a.csv", include_file_paths="path", row_index_name="n", row_index_offset=1)
    found = stream.collect().sort("x").to_pylist()
    assert found[:2] == [dict(row, path=str(Path(row["path"]).resolve())) for row in expected.to_dicts()]
    assert found[2] == {"n": 1, "x": 3, "path": str((tmp_path / "in/sub/b.csv").resolve())}
    with pytest.raises(mill.ConnectorError, match="recursive=True"):
        mill.read_csv(put(tmp_path / "only/sub/b.csv", "x\n").parent.parent)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_files_with_other_columns_are_united_by_name(tmp_path: Path, kind: str) -> None:
    pl.DataFrame({"a": [1], "b": ["x"]}).__getattribute__(f"write_{kind}")(tmp_path / f"1.{kind}")
    pl.DataFrame({"c": [2.5], "a": [2]}).__getattribute__(f"write_{kind}")(tmp_path / f"2.{kind}")
    read: Any = getattr(mill, f"read_{kind}")
    found = read(tmp_path, missing_columns="insert").collect().sort("a").to_pylist()
    assert found == [{"a": 1, "b": "x", "c": None}, {"a": 2, "b": None, "c": 2.5}]
    # A filter that is told to the reader takes a missing column for null.
    assert rows(read(tmp_path, missing_columns="insert").filter(col("c") > 1).select("a")) == [{"a": 2}]
    assert rows(read(tmp_path, missing_columns="insert", columns=["b"]).filter(col("b").is_null())) == [{"b": None}]
    with pytest.raises(mill.MillstreamError, match="missing_columns"):
        rows(read(tmp_path))


def test_brotli_parquet_is_read(tmp_path: Path) -> None:
    pl.DataFrame({"a": [1, 2]}).write_parquet(tmp_path / "a.parquet", compression="brotli")
    assert rows(mill.read_parquet(tmp_path / "a.parquet")) == [{"a": 1}, {"a": 2}]


# -- options and checkpoints ---------------------------------------------------------------------------------------------

JOB = """
import sys, millstream as mill
path, out, state, separator, kill = sys.argv[1:]
seen = 0
def check(row):
    global seen
    seen += 1
    if kill == "kill" and seen == 30_000:
        import os
        os._exit(9)
    return True
stream = mill.read_csv(path, separator=separator, comment_prefix="#", include_file_paths="path", row_index_name="n")
report = mill.run(stream.filter(check).{sink}, checkpoint=mill.Checkpoint(state, every="20ms"), parallelism=2)
print("\\n".join(report.notes))
"""


def job(tmp_path: Path, sink: str, separator: str = ";", kill: str = "") -> subprocess.CompletedProcess[str]:
    script = put(tmp_path / "job.py", JOB.replace("{sink}", sink))
    arguments = [str(tmp_path / "in"), str(tmp_path / "out"), str(tmp_path / "state"), separator, kill]
    return subprocess.run([sys.executable, str(script), *arguments], check=False, capture_output=True, text=True, cwd=tmp_path, timeout=300)


@pytest.mark.parametrize("sink", ['write_csv("out", partition_by="k", max_rows_per_file=5000)', 'write_csv("one.csv.gz")', 'write_parquet("one.parquet")'])
def test_a_job_that_is_killed_goes_on_amid_its_files(tmp_path: Path, sink: str) -> None:
    for name in "ab":
        lines = [f"{i};{i % 3};'q'\n" + ("# c\n" if i % 100 == 0 else "") for i in range(30_000)]
        put(tmp_path / f"in/{name}.csv", "a;k;t\n" + "".join(lines))
    assert job(tmp_path, sink, kill="kill").returncode == 9
    if "one" in sink:
        assert not list(tmp_path.glob("one.*"))
    done = job(tmp_path, sink)
    assert done.returncode == 0, done.stderr
    assert "was read_csv" not in done.stdout
    if "parquet" in sink:
        frame = pl.read_parquet(tmp_path / "one.parquet")
    elif "one" in sink:
        frame = pl.read_csv(tmp_path / "one.csv.gz")
        assert not list(tmp_path.glob(".one*"))
    else:
        parts = sorted((tmp_path / "out").rglob("part-*"))
        assert {part.parent.name for part in parts} == {"k=0", "k=1", "k=2"}
        frames = [pl.read_csv(part) for part in parts]
        assert max(len(frame) for frame in frames) <= 5000
        frame = pl.concat(frames)
    assert len(frame) == 60_000
    assert frame.group_by("path").agg(pl.col("n").n_unique(), pl.col("a").sum())["n"].to_list() == [30_000, 30_000]
    assert (frame["n"] == frame["a"]).all()


def test_a_changed_option_is_told_and_refused_once_the_job_has_ended(tmp_path: Path) -> None:
    put(tmp_path / "in/a.csv", "a;k\n1;2\n")
    sink = 'write_csv("out")'
    assert job(tmp_path, sink).returncode == 0
    changed = job(tmp_path, sink, separator=",")
    assert changed.returncode != 0 and 'separator=";"' in changed.stderr


# -- writers -------------------------------------------------------------------------------------------------------------

TABLE = [
    {"i": 1, "f": 1.5, "s": "a;b", "d": date(2024, 1, 31), "t": datetime(2024, 1, 31, 5, 15), "c": time(5, 15)},
    {"i": None, "f": None, "s": None, "d": None, "t": None, "c": None},
    {"i": -3, "f": -0.25, "s": "", "d": date(1969, 12, 31), "t": datetime(1969, 12, 31, 23, 59, 59), "c": time(0, 0)},
]
TYPES = {"i": int, "f": float, "s": str, "d": date, "t": datetime, "c": time}


@pytest.mark.parametrize(
    "options",
    [
        {"separator": ";", "decimal_comma": True},
        {"quote_char": "'", "separator": "\t"},
        {"separator": "-"},
        {"compression": "gzip", "compression_level": 9},
        {"compression": "zstd", "compression_level": 19},
        {"include_header": False},
        {"null_value": "NA"},
        {"max_rows_per_file": 1},
    ],
    ids=str,
)
def test_own_csv_comes_back_with_the_same_options(tmp_path: Path, options: dict[str, Any]) -> None:
    mill.run(mill.from_iter(TABLE, schema=TYPES).write_csv(tmp_path / "out", **options), parallelism=1)
    reading = {name: value for name, value in options.items() if name in ("separator", "decimal_comma", "quote_char")}
    reading |= {"has_header": options.get("include_header", True), "null_values": options.get("null_value")}
    assert rows(mill.read_csv(tmp_path / "out", schema=TYPES, **reading)) == TABLE


def test_csv_looks_as_polars_writes_it(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "separator": ";",
        "datetime_format": "%d.%m.%Y %H:%M",
        "date_format": "%d.%m.%y",
        "time_format": "%H-%M",
        "null_value": "NA",
        "decimal_comma": True,
    }
    mill.run(mill.from_iter(TABLE, schema=TYPES).write_csv(tmp_path / "a.csv", **options))
    pl.DataFrame(TABLE, schema_overrides={"i": pl.Int64}).write_csv(tmp_path / "b.csv", **options)
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()


@pytest.mark.parametrize("compression", ["uncompressed", "snappy", "gzip", "lz4", "zstd", "brotli"])
def test_parquet_is_compressed_and_grouped_as_asked(tmp_path: Path, compression: Any) -> None:
    stream = mill.generate(rows=1000, a=mill.index())
    mill.run(stream.write_parquet(tmp_path / "a.parquet", compression=compression, row_group_size=300), parallelism=1)
    metadata = pq.read_metadata(tmp_path / "a.parquet")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [300, 300, 300, 100]
    expected = {"lz4": "LZ4"}.get(compression, compression.upper())
    assert metadata.row_group(0).column(0).compression == expected
    assert pl.read_parquet(tmp_path / "a.parquet")["a"].to_list() == list(range(1000))


def test_partitions_come_back_and_are_what_polars_and_duckdb_read(tmp_path: Path) -> None:
    keys = ["x/y", "__HIVE_DEFAULT_PARTITION__", None, "é=%", "", "01", ".."]
    table = [{"a": i, "k": keys[i % len(keys)], "n": i % 2} for i in range(50)]
    stream = mill.from_iter(table, schema={"a": int, "k": str, "n": int})
    for kind in ("csv", "json", "parquet"):
        out = tmp_path / kind
        sink: Any = getattr(stream, f"write_{kind}")(out, partition_by=["k", "n"])
        mill.run(sink, parallelism=2)
        read: Any = getattr(mill, f"read_{kind}")
        back = read(out, hive_partitioning=True, hive_schema={"k": str, "n": int}).collect().sort("a").to_pylist()
        assert back == table, kind
    frame = pl.read_parquet(tmp_path / "parquet", hive_partitioning=True, hive_schema={"k": pl.String, "n": pl.Int64})
    found = {row["a"]: row["k"] for row in frame.to_dicts()}
    assert all(found[row["a"]] == row["k"] for row in table if row["k"] not in ("", "__HIVE_DEFAULT_PARTITION__"))


@pytest.mark.parametrize(("former", "now"), [(["a", "b"], ["a"]), (["a"], []), (["a", "b"], ["b", "a"]), ([], ["a"])])
def test_output_of_another_partitioning_is_refused_or_replaced(former: list[str], now: list[str], tmp_path: Path) -> None:
    # Only directories as deep as those to be written used to be looked into, so that old rows stayed among the new ones.
    table = mill.from_iter([{"a": i % 2, "b": i % 3, "n": i} for i in range(12)])
    mill.run(table.write_csv(tmp_path / "out", partition_by=former))
    (tmp_path / "out" / "a=0").mkdir(exist_ok=True)
    put(tmp_path / "out/a=0/mine.csv", "mine")
    with pytest.raises(mill.ConnectorError, match="already has the output of another run"):
        mill.run(table.write_csv(tmp_path / "out", partition_by=now))
    mill.run(table.write_csv(tmp_path / "out", partition_by=now, on_existing="replace"))
    parts = [pl.read_csv(part) for part in (tmp_path / "out").rglob("part-*")]
    assert sorted(pl.concat([part.select("n") for part in parts])["n"]) == list(range(12))
    assert (tmp_path / "out/a=0/mine.csv").read_text() == "mine"


def test_a_value_that_names_no_directory_is_refused_before_the_checkpoint(tmp_path: Path) -> None:
    # The commit used to fail, and so did each further run: the checkpoint named a file that nothing could make.
    table = mill.from_iter([{"k": "x" * 253, "n": 1}])
    mill.run(table.write_csv(tmp_path / "fits", partition_by="k"))
    assert [len(path.name) for path in (tmp_path / "fits").iterdir()] == [255]
    for value in ("x" * 254, "/" * 90, "é" * 200):
        table = mill.from_iter([{"k": value, "n": 1}])
        with pytest.raises(mill.DataError, match="at most 255 bytes.*shorten the value"):
            mill.run(table.write_csv(tmp_path / "out", partition_by="k"), checkpoint=tmp_path / "state")
        assert not list((tmp_path / "state").glob("manifest-*"))


@pytest.mark.parametrize("name", ["out", "out.csv"])
def test_the_working_directory_may_change_while_a_job_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A relative path used to be looked up at each step: the output went into two directories, or the job failed.
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)

    def move(row: Any) -> bool:
        if row.n == 2000:
            os.chdir(tmp_path / "elsewhere")
        return True

    stream = mill.generate(rows=4000, rate=10_000, n=mill.index()).filter(move)
    mill.run(stream.write_csv(name), checkpoint=mill.Checkpoint(tmp_path / "state", every="10ms"), parallelism=1)
    files = [tmp_path / name] if (tmp_path / name).is_file() else list((tmp_path / name).iterdir())
    assert sorted(n for file in files for n in pl.read_csv(file)["n"]) == list(range(4000))
    assert not list((tmp_path / "elsewhere").iterdir())


def test_many_partitions_keep_few_files_open(tmp_path: Path) -> None:
    stream = mill.generate(rows=1000, a=mill.index(), k=mill.index() % 90)
    mill.run(stream.write_csv(tmp_path / "out", partition_by="k"), parallelism=1)
    back = mill.read_csv(tmp_path / "out", hive_partitioning=True).collect().sort("a").to_pylist()
    assert back == [{"a": i, "k": i % 90} for i in range(1000)]


def test_files_have_about_the_size_asked_for(tmp_path: Path) -> None:
    mill.run(mill.generate(rows=20_000, a=mill.index()).write_json(tmp_path / "out", approximate_bytes_per_file=50_000), parallelism=1)
    sizes = [path.stat().st_size for path in (tmp_path / "out").iterdir()]
    assert len(sizes) > 2 and len(rows(mill.read_json(tmp_path / "out"))) == 20_000


def test_one_file_is_there_at_the_end_and_complete(tmp_path: Path) -> None:
    for name in ("a.csv", "a.tsv", "a.csv.gz", "a.json", "a.ndjson.zst", "a.parquet"):
        kind = {"tsv": "csv", "ndjson": "json"}.get(name.split(".")[1], name.split(".")[1])
        tabs: Any = {"separator": "\t"} if name == "a.tsv" else {}
        stream = mill.from_iter(({"a": i} for i in range(5000)), schema={"a": int})
        write: Any = functools.partial(getattr(stream, f"write_{kind}"), **tabs)
        mill.run(write(tmp_path / name), parallelism=2)
        assert (tmp_path / name).is_file()
        read: Any = getattr(mill, f"read_{kind}")
        assert rows(read(tmp_path / name)) == [{"a": i} for i in range(5000)]
        with pytest.raises(mill.ConnectorError, match='already exists: replace it with on_existing="replace"'):
            mill.run(write(tmp_path / name))
        mill.run(getattr(mill.from_iter([{"a": 7}]), f"write_{kind}")(tmp_path / name, on_existing="replace", **tabs))
        assert rows(read(tmp_path / name)) == [{"a": 7}]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(("a.csv", "a.tsv", "a.csv.gz", "a.json", "a.ndjson.zst", "a.parquet"))
    mill.run(mill.from_iter([], schema={"a": int}).write_csv(tmp_path / "empty.csv"))
    assert (tmp_path / "empty.csv").read_text() == "a\n"
    with pytest.raises(mill.MillstreamError):
        mill.run(mill.from_iter([1, 0]).map(lambda row: {"a": 1 // row.value}, schema={"a": int}).write_csv(tmp_path / "failed.csv"))
    assert not list(tmp_path.glob("*failed*"))


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("csv", "a.csv.bz2", r'a compressed file of a kind that is not written: write "\.csv", "\.csv\.gz" or "\.csv\.zst"'),
        ("csv", "a.csv.BZ2", "a compressed file of a kind"),
        ("csv", "a.gz", "a compressed file of a kind"),
        ("json", "a.jsonl.zip", r'write "\.json", "\.json\.gz" or "\.json\.zst"'),
        ("parquet", "a.parquet.gz", r'Parquet is compressed inside, so write "\.parquet" and compression=…'),
        ("csv", "a.parquet", r'another format: write "\.csv", or call write_parquet\(\)'),
        ("parquet", "a.csv", r'another format: write "\.parquet", or call write_csv\(\)'),
        ("json", "b.d/a.txt", r'another format: write "\.json", or call write_csv\(\)'),
        ("csv", "a.ndjson.gz", "a compressed file of a kind"),
        ("csv", "a.xlsx", r'another format, which is not written: write "\.csv"'),
        ("csv", "a.tsv", r'tabs between its fields: pass separator="\\t", or write "\.csv"'),
        ("csv", "a.tsv.gz", "tabs between its fields"),
    ],
)
def test_a_path_with_the_ending_of_a_file_that_is_not_written_is_refused(kind: str, name: str, message: str, tmp_path: Path) -> None:
    # A directory with this name was made, or a file with commas.
    stream = mill.from_iter([{"a": 1}])
    write: Any = getattr(stream, f"write_{kind}")
    with pytest.raises(mill.PlanError, match=f"write_{kind}: .*{Path(name).name}.* has the ending of .*{message}"):
        write(tmp_path / name)
    assert not list(tmp_path.iterdir())
    # What is a directory already, or is called one, is a directory.
    mill.run(write(f"{tmp_path}/one/{name}/"))
    (tmp_path / "two" / name).mkdir(parents=True)
    mill.run(write(tmp_path / "two" / name))
    assert (tmp_path / "one" / name).is_dir() and list((tmp_path / "two" / name).iterdir())


@pytest.mark.parametrize("name", ["out.d", "v1.2", "2024.01.31", "a.csv.d", "a.parts", ".csv", "csv", "gz", ".gz"])
def test_other_endings_are_part_of_the_name_of_a_directory(name: str, tmp_path: Path) -> None:
    mill.run(mill.from_iter([{"a": 1}]).write_csv(tmp_path / name))
    assert (tmp_path / name).is_dir()


def test_one_parquet_file_is_compressed_as_files_of_a_directory_are(tmp_path: Path) -> None:
    mill.run(mill.from_iter([{"a": 1}]).write_parquet(tmp_path / "a.parquet"))
    assert pq.read_metadata(tmp_path / "a.parquet").row_group(0).column(0).compression == "SNAPPY"


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda s: s.write_csv("out", separator=";;"), r"separator=…\) takes one ASCII character"),
        (lambda s: s.write_csv("out", separator='"'), "the same character"),
        (lambda s: s.write_csv("out", compression="gzp"), 'did you mean "gzip"'),
        (lambda s: s.write_csv("a.csv.gz", compression="zstd"), "the name of the file says that it is gzip"),
        (lambda s: s.write_csv("out", compression_level=3), "uncompressed has no compression_level"),
        (lambda s: s.write_parquet("out", compression="zstd", compression_level=23), "is 1 to 22, not 23"),
        (lambda s: s.write_parquet("out", compression="zstandard"), "it is one of"),
        (lambda s: s.write_csv("out", decimal_comma=True), "another character"),
        (lambda s: s.write_csv("out", decimal_comma=True, separator=";", quote_char=","), "quote_char is another character"),
        (lambda s: s.write_csv("out", null_value="a,b"), "null_value is written without quotes"),
        (lambda s: s.write_csv("out", date_format="%Q"), "is no form of a date"),
        (lambda s: s.write_csv("out", date_format="%H"), "is no form of a date"),
        (lambda s: s.write_csv("out", partition_by="pirce"), 'did you mean "price"'),
        (lambda s: s.write_csv("out", partition_by=["price", "at"]), "names all columns"),
        (lambda s: s.write_csv("a.csv", partition_by="price"), "the path names one file"),
        (lambda s: s.write_csv("a.csv.bz2"), r'write "\.csv", "\.csv\.gz" or "\.csv\.zst"'),
        (lambda s: s.write_json("a.jsonl.xz"), r'write "\.json", "\.json\.gz" or "\.json\.zst"'),
        (lambda s: s.write_parquet("a.parquet.gz"), r"Parquet is compressed inside"),
        (lambda s: s.write_csv("out", max_rows_per_file=0), "takes a number of rows"),
        (lambda s: s.write_json("out", on_existing="append"), '"refuse" or "replace"'),
        (lambda s: mill.generate(rate=1, a=mill.index()).write_csv("a.csv"), "has no end: give a directory"),
    ],
)
def test_options_of_writers_that_cannot_be_are_refused(write: Any, message: str) -> None:
    stream = mill.from_iter([{"price": 1, "at": date(2024, 1, 1)}])
    with pytest.raises((mill.PlanError, mill.SchemaError), match=message):
        write(stream)


@pytest.mark.parametrize(("name", "compression"), [("a.parquet", "SNAPPY"), ("B.PARQUET", "SNAPPY"), ("c.pq", "SNAPPY")])
def test_one_file_of_parquet_is_compressed_as_usual(name: str, compression: str, tmp_path: Path) -> None:
    # Its name says nothing of compression, and used to be taken for "uncompressed".
    mill.run(mill.from_iter([{"a": 1}]).write_parquet(tmp_path / name))
    assert pq.ParquetFile(tmp_path / name).metadata.row_group(0).column(0).compression == compression


def test_names_of_files_may_be_in_capitals(tmp_path: Path) -> None:
    mill.run(mill.from_iter([{"a": 1}]).write_csv(tmp_path / "A.CSV"))
    mill.run(mill.from_iter([{"a": 1}]).write_csv(tmp_path / "A.csv.GZ"))
    assert (tmp_path / "A.CSV").read_text() == gzip.decompress((tmp_path / "A.csv.GZ").read_bytes()).decode() == "a\n1\n"
    assert rows(mill.read_csv([tmp_path / "A.CSV", tmp_path / "A.csv.GZ"])) == [{"a": 1}] * 2


def test_a_value_that_looks_like_null_is_an_error(tmp_path: Path) -> None:
    stream = mill.from_iter([{"s": "NA"}])
    with pytest.raises(mill.DataError, match="null_value writes for null"):
        mill.run(stream.write_csv(tmp_path / "out", null_value="NA"))
    assert json.dumps(rows(stream)) == '[{"s": "NA"}]'


# -- read_json -----------------------------------------------------------------------------------------------------------


def test_json_arrays_and_documents_are_read_as_python_reads_them(tmp_path: Path) -> None:
    table = [{"a": i, "s": '"]}\\' * (i % 3), "l": [{"x": i}]} for i in range(3000)]
    put(tmp_path / "array.json", json.dumps(table, indent=2))
    put(tmp_path / "dense.json", json.dumps(table))
    put(tmp_path / "values.json", "\n".join(json.dumps(row, indent=1) for row in table))
    assert rows(mill.read_json(tmp_path / "array.json")) == table
    assert rows(mill.read_json(tmp_path / "dense.json", columns=["a"])) == [{"a": row["a"]} for row in table]
    assert rows(mill.read_json(tmp_path / "values.json", format="values")) == table
    with pytest.raises(mill.SchemaError, match='format="values"'):
        mill.read_json(tmp_path / "values.json")
    with pytest.raises(mill.DataError, match="the array is not closed"):
        rows(mill.read_json(put(tmp_path / "cut.json", json.dumps(table)[:-1])))


@pytest.mark.parametrize("data", ["[", "[ \n", "\ufeff[", "[" + " " * 5000, '[,{"a": 1}]', '[\n , ]'])
def test_an_array_that_is_cut_off_or_begins_with_a_comma_is_an_error(data: str, tmp_path: Path) -> None:
    # A file of the opening bracket alone used to be an empty one.
    path = put(tmp_path / "cut.json", data)
    for options in ({}, {"format": "values"}):
        with pytest.raises(mill.DataError, match="the file is cut off|no value where one should begin"):
            rows(mill.read_json(path, schema={"a": int}, **options))
    assert rows(mill.read_json(put(tmp_path / "empty.json", "[" + " " * 5000 + "]"), schema={"a": int})) == []


def slowly(path: Path, **columns: Any) -> mill.Stream:
    """Return many small records, read slowly enough that a job is left between its checkpoints."""
    return mill.generate(rate=2_000, n=mill.index()).with_columns(text=lit("x"), **columns).limit(2400)


def begun(tmp_path: Path, name: str, **options: Any) -> mill.Checkpoint:
    """Begin to write one file, and stop once some of its parts are committed."""
    checkpoint = mill.Checkpoint(tmp_path / "state", every="20ms")
    write = "write_parquet" if name.endswith("parquet") else "write_csv"
    job = mill.start(getattr(slowly(tmp_path), write)(tmp_path / name, **options), checkpoint=checkpoint)
    while len([part for part in (tmp_path / f".{name}.parts").glob("part-*")]) < 3:
        clock.sleep(0.01)
    job.stop()
    assert job.wait().status == "stopped"
    return checkpoint


@pytest.mark.parametrize(
    "change",
    [
        lambda s, p: s.with_columns(more=col("n") + 1).write_csv(p / "o.csv"),
        lambda s, p: s.rename({"text": "a longer name"}).write_csv(p / "o.csv"),
        lambda s, p: s.select("n").write_csv(p / "o.csv"),
        lambda s, p: s.write_csv(p / "o.csv", include_header=False),
        lambda s, p: s.write_csv(p / "o.csv", separator=";"),
        lambda s, p: s.with_columns(n=col("n").cast(str)).write_csv(p / "o.csv"),
        lambda s, p: s.write_csv(p / "p.csv"),
        lambda s, p: s.write_csv(p / "o.csv.gz"),
        lambda s, p: s.write_csv(p / "o"),
    ],
    ids=["more", "renamed", "less", "no header", "separator", "type", "name", "packed", "directory"],
)
def test_one_file_is_continued_in_one_form_or_not_at_all(change: Any, tmp_path: Path) -> None:
    checkpoint = begun(tmp_path, "o.csv")
    with pytest.raises(CheckpointError):
        mill.run(change(slowly(tmp_path), tmp_path), checkpoint=checkpoint)
    # Nothing was lost by trying.
    mill.run(slowly(tmp_path).write_csv(tmp_path / "o.csv"), checkpoint=checkpoint)
    assert (tmp_path / "o.csv").read_text() == "n,text\n" + "".join(f"{n},x\n" for n in range(2400))
    assert not list(tmp_path.glob(".o*"))


def test_one_file_of_parquet_is_continued_in_one_form_or_not_at_all(tmp_path: Path) -> None:
    checkpoint = begun(tmp_path, "o.parquet")
    with pytest.raises(CheckpointError, match='was begun as parquet.*columns "n" int64, "text" str, and would be continued as .*"other"'):
        mill.run(slowly(tmp_path).rename({"text": "other"}).write_parquet(tmp_path / "o.parquet"), checkpoint=checkpoint)
    mill.run(slowly(tmp_path).write_parquet(tmp_path / "o.parquet"), checkpoint=checkpoint)
    assert mill.read_parquet(tmp_path / "o.parquet").collect(parallelism=1)["n"] == list(range(2400))


def test_a_file_of_others_is_not_overwritten(tmp_path: Path) -> None:
    checkpoint = begun(tmp_path, "o.csv")
    (tmp_path / "o.csv").write_text("mine\n")
    with pytest.raises(mill.ConnectorError, match="has come into being since the job began, and is not its own"):
        mill.run(slowly(tmp_path).write_csv(tmp_path / "o.csv"), checkpoint=checkpoint)
    assert (tmp_path / "o.csv").read_text() == "mine\n"
    (tmp_path / "o.csv").rename(tmp_path / "mine.csv")
    mill.run(slowly(tmp_path).write_csv(tmp_path / "o.csv"), checkpoint=checkpoint)
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 2401


def test_what_is_replaced_stays_until_the_new_file_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "keep.csv"
    target.write_text("old\n")
    rows = mill.from_iter([{"a": "1"}, {"a": "x"}])
    with pytest.raises(mill.DataError):
        mill.run(rows.with_columns(b=col("a").cast(int)).write_csv(target, on_existing="replace"))
    assert target.read_text() == "old\n"
    mill.run(rows.write_csv(target, on_existing="replace"))
    assert target.read_text() == "a\n1\nx\n"
    assert [path.name for path in tmp_path.iterdir()] == ["keep.csv"]


@pytest.mark.parametrize("values", [[-1, None, 7], [0.5, None, -1.0], [True, None, False], [Decimal("-1.50"), None]])
def test_what_stands_for_null_is_no_value(values: list[Any], tmp_path: Path) -> None:
    stream = mill.from_iter([{"v": value} for value in values])
    text = mill.run(stream.write_csv(tmp_path / "plain")) and next((tmp_path / "plain").glob("*.csv")).read_text().splitlines()[1]
    with pytest.raises(mill.DataError, match="which null_value writes for null"):
        mill.run(stream.write_csv(tmp_path / "out", null_value=text))


@pytest.mark.parametrize("before", ["", "\n", "\n\n", "\r\n\r\n", "\ufeff\n"])
def test_blank_lines_before_a_header_are_no_header(before: str, tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes((before + "id,name\n1,x\n\n2,y\n").encode())
    wanted = [{"id": 1, "name": "x"}, {"id": 2, "name": "y"}]
    for parallelism in (1, 3):
        assert mill.read_csv(path).collect(parallelism=parallelism).to_pylist() == wanted
    path.write_bytes(("Report 2024\n" + before + "id,name\n1,x\n2,y\n").encode())
    if not before.startswith("\ufeff"):
        assert mill.read_csv(path, skip_lines=1).collect(parallelism=1).to_pylist() == wanted
        assert mill.read_csv(path, skip_lines=1, schema={"id": int, "name": str}).collect(parallelism=1).to_pylist() == wanted


def write_both(folder: Path, kind: str) -> Any:
    """Write two files whose other columns do not go together, and return their reader."""
    folder.mkdir()
    first, second = pa.table({"x": [1, 2], "y": ["a", "b"], "z": [1.5, None]}), pa.table({"w": [[1]], "x": [3], "y": [7]})
    for number, table in enumerate((first, second)):
        path = folder / f"{number}.{kind}"
        if kind == "parquet":
            pq.write_table(table, path)
        elif kind == "arrow":
            with pa.ipc.new_file(path, table.schema) as writer:
                writer.write_table(table)
        elif kind == "csv":
            path.write_text("x,y,y\n1,a,b\n2,b,\n" if number == 0 else "w,x,y\n1,3,7\n")
        else:
            path.write_text('{"x":1,"y":"a","y":1}\n{"x":2}\n' if number == 0 else '{"x":3,"w":{"q":1}}\n')
    return {"parquet": mill.read_parquet, "arrow": mill.read_arrow, "csv": mill.read_csv, "json": mill.read_json}[kind]


@pytest.mark.parametrize("kind", ["parquet", "arrow", "csv", "json"])
def test_columns_that_are_not_read_do_not_matter(tmp_path: Path, kind: str) -> None:
    """Their types were united, and files refused that lack them, have more, or have a name twice."""
    read = write_both(tmp_path / "in", kind)
    with pytest.raises((mill.SchemaError, mill.DataError)):
        read(tmp_path / "in").collect()
    for schema in (None, {"x": int, "y": str}):
        s = read(tmp_path / "in", columns=["x"], schema=schema)
        assert s.collect(parallelism=1).to_pylist() == [{"x": 1}, {"x": 2}, {"x": 3}]
    with pytest.raises((mill.SchemaError, mill.DataError)):
        read(tmp_path / "in", columns=["x", "y"]).collect()
    with_path = read(tmp_path / "in", columns=["file", "x"], include_file_paths="file")
    assert with_path.collect(parallelism=1).to_arrow().column_names == ["file", "x"]
    with pytest.raises(mill.SchemaError, match='columns names "X", and there is no such column; did you mean "x"'):
        read(tmp_path / "in", columns=["X"])


def test_unions_and_names_that_are_there_twice_may_be_left_out(tmp_path: Path) -> None:
    union = pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])])
    table = pa.table([pa.array([1, 2]), union, pa.array([3, 4]), pa.array([5, 6])], names=["x", "u", "y", "y"])
    with pa.ipc.new_file(tmp_path / "t.arrow", table.schema) as writer:
        writer.write_table(table)
    pq.write_table(table.select([0, 2, 3]), tmp_path / "t.parquet")
    for read, path in ((mill.read_arrow, "t.arrow"), (mill.read_parquet, "t.parquet")):
        assert read(tmp_path / path, columns="x").collect().to_pylist() == [{"x": 1}, {"x": 2}]
        with pytest.raises(mill.SchemaError, match='two columns have the name "y"'):
            read(tmp_path / path, columns=["x", "y"])
    with pytest.raises(mill.SchemaError, match='column "u" holds a union of types'):
        mill.read_arrow(tmp_path / "t.arrow", columns=["x", "u"])


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_later_file_with_more_columns_stops_the_job_which_goes_on_with_a_schema(tmp_path: Path, kind: str) -> None:
    read = write_both(tmp_path / "in", kind)
    (tmp_path / "in" / f"1.{kind}").rename(tmp_path / f"later.{kind}")

    def job(schema: Any) -> mill.Job:
        s = read(tmp_path / "in", follow=True, schema=schema).select("x")
        return mill.start(s.write_json(tmp_path / "out"), checkpoint=mill.Checkpoint(tmp_path / "state", every="20ms"))

    def seen() -> list[int]:
        parts = sorted((tmp_path / "out").glob("part-*"))
        return sorted(json.loads(line)["x"] for part in parts for line in part.read_text().splitlines())

    running = job(None)
    while seen() != [1, 2] and running.status.state == "running":
        clock.sleep(0.02)
    (tmp_path / f"later.{kind}").rename(tmp_path / "in" / f"1.{kind}")
    with pytest.raises(mill.SchemaError, match=f'1.{kind}" has a column "w" that other files do not have; name those to read with columns='):
        running.wait()
    with job({"x": int}) as running:
        while seen() != [1, 2, 3] and running.status.state == "running":
            clock.sleep(0.02)
        assert seen() == [1, 2, 3]
