"""Arrow IPC files and streams: what other programs write is read, exactly or with an error, and what we write is read by them."""

from __future__ import annotations

import gzip
import json
import random
import struct
import time
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from pyarrow import ipc

import millstream as mill
from millstream import col

KIND = pa.schema(
    [
        ("i", pa.int8()), ("u", pa.uint64()), ("f", pa.float32()), ("s", pa.string()), ("big", pa.large_string()), ("view", pa.string_view()),
        ("b", pa.binary()), ("o", pa.bool_()), ("d", pa.decimal128(38, 10)), ("day", pa.date32()), ("t", pa.timestamp("ns")),
        ("z", pa.timestamp("ms", "Asia/Kolkata")), ("span", pa.duration("s")), ("cat", pa.dictionary(pa.int16(), pa.string())),
        ("l", pa.list_(pa.list_(pa.int32()))), ("n", pa.struct([("x", pa.int64()), ("y", pa.string())])), ("null", pa.null()),
    ]
)  # fmt: skip


def table(rows: int, seed: int = 1) -> pa.Table:
    chance = random.Random(seed)

    def column(make: Callable[[], Any], kind: Any) -> Any:
        return pa.array([None if chance.random() < 0.2 else make() for _ in range(rows)], kind)

    def word() -> str:
        return chance.choice(["", "a", "é😀", "null", "x" * 40])

    makers: dict[str, Callable[[], Any]] = {
        "i": lambda: chance.randrange(-128, 128), "u": lambda: chance.randrange(2**64), "f": lambda: chance.choice([0.5, float("inf"), -0.0]),
        "s": word, "big": word, "view": word, "b": lambda: word().encode(), "o": lambda: chance.random() < 0.5,
        "d": lambda: Decimal(chance.randrange(-(10**37), 10**37)).scaleb(-10), "day": lambda: chance.randrange(-7 * 10**5, 2 * 10**6),
        "t": lambda: chance.randrange(-(2**62), 2**62), "z": lambda: chance.randrange(2**45), "span": lambda: chance.randrange(-(2**35), 2**35),
        "cat": word, "l": lambda: [None, [1, None], []], "n": lambda: {"x": chance.randrange(9), "y": word()}, "null": lambda: None,
    }  # fmt: skip
    return pa.table({field.name: column(makers[field.name], field.type) for field in KIND})


def write(data: pa.Table, path: Path, *, form: str = "file", compression: str | None = None, rows: int = 100) -> Path:
    options = ipc.IpcWriteOptions(compression=compression)
    new = ipc.new_file if form == "file" else ipc.new_stream
    with new(path, data.schema, options=options) as writer:
        writer.write_table(data, max_chunksize=rows)
    return path


def plain(data: pa.Table) -> list[dict[str, Any]]:
    """Return rows in Python; a timestamp in nanoseconds is a number, which no datetime can hold."""
    kinds = [pa.int64() if field.type == pa.timestamp("ns") else pa.string() if pa.types.is_dictionary(field.type) else field.type for field in data.schema]
    return data.cast(pa.schema([(name, kind) for name, kind in zip(data.column_names, kinds, strict=True)])).to_pylist()


@pytest.mark.parametrize("form", ["file", "stream"])
@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_every_type_is_read_as_it_is(tmp_path: Path, form: str, compression: str | None) -> None:
    data = table(1_000)
    stream = mill.read_arrow(write(data, tmp_path / "a.arrow", form=form, compression=compression))
    read = stream.collect(parallelism=1).to_arrow()
    assert plain(read) == plain(data)
    parquet = mill.from_arrow(data).schema
    assert repr(stream.schema) == repr(parquet), "types are those of the same columns from memory"


def test_what_polars_writes_is_read(tmp_path: Path) -> None:
    frame = pl.DataFrame({"a": [1, None, 3], "s": ["x", "é", None], "c": pl.Series(["p", "q", "p"], dtype=pl.Categorical), "l": [[1], None, []]})
    frame.write_ipc(tmp_path / "f.arrow", compression="zstd")
    frame.write_ipc_stream(tmp_path / "s.arrows")
    for name in ("f.arrow", "s.arrows"):
        assert mill.read_arrow(tmp_path / name).collect(parallelism=1).to_pylist() == frame.to_dicts()


@pytest.mark.parametrize("form", ["file", "stream"])
def test_columns_files_and_options_are_those_of_all_readers(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "in"
    for day in (1, 2):
        (folder / f"day={day}").mkdir(parents=True)
        for part in range(3):
            data = pa.table({"n": [100 * day + 10 * part + i for i in range(10)], "x": ["a"] * 10, "unused": [0.5] * 10})
            write(data, folder / f"day={day}" / f"{part}.arrow", form=form, rows=3)
    stream = mill.read_arrow(folder, columns=["n", "day"], recursive=True, hive_partitioning=True, row_index_name="row", include_file_paths="path")
    rows = stream.collect(parallelism=2).to_pylist()
    assert sorted(row["n"] for row in rows) == [100 * d + 10 * p + i for d in (1, 2) for p in range(3) for i in range(10)]
    for row in rows:
        assert row["day"] == row["n"] // 100 and row["row"] == row["n"] % 10
        assert row["path"].endswith(f"day={row['day']}/{row['n'] // 10 % 10}.arrow")
    # A filter and a projection change nothing but what is read.
    assert mill.read_arrow(folder, recursive=True).filter(col("n") >= 225).select("n").collect(parallelism=1)["n"] == list(range(225, 230))


def test_files_that_differ_have_a_type_that_holds_both_or_are_refused(tmp_path: Path) -> None:
    write(pa.table({"a": pa.array([1, 2], pa.int8())}), tmp_path / "1.arrow")
    write(pa.table({"a": pa.array([2**40], pa.int64())}), tmp_path / "2.arrow", form="stream")
    assert sorted(mill.read_arrow(tmp_path).collect()["a"]) == [1, 2, 2**40]
    write(pa.table({"a": ["x"]}), tmp_path / "3.arrow")
    with pytest.raises(mill.SchemaError, match="no type holds both exactly"):
        mill.read_arrow(tmp_path)
    narrow = mill.read_arrow([tmp_path / "1.arrow", tmp_path / "2.arrow"], schema={"a": pa.int16()})
    with pytest.raises(mill.DataError, match=r'2.arrow": row 1, column "a": 1099511627776'):
        narrow.collect()
    assert sorted(narrow.collect(on_error="skip")["a"]) == [1, 2]
    with pytest.raises(mill.SchemaError, match='has no column "b"'):
        mill.read_arrow(tmp_path / "1.arrow", schema={"b": int})


@pytest.mark.parametrize("form", ["file", "stream"])
def test_a_run_that_continues_reads_what_is_left(tmp_path: Path, form: str) -> None:
    path = write(pa.table({"n": range(5_000)}), tmp_path / "a.arrow", form=form, rows=700)

    def halting(batch: Any) -> Any:
        time.sleep(0.005)
        if 3_000 in batch["n"].to_pylist() and not (tmp_path / "go").exists():
            raise RuntimeError("halt")
        return batch

    def flow() -> Any:
        rows = mill.read_arrow(path).map_batches(halting, batch_rows=100)
        return mill.run(rows.write_csv(tmp_path / "out"), checkpoint=mill.Checkpoint(tmp_path / "state", every="5ms"), parallelism=1)

    with pytest.raises(mill.UserFunctionError, match="halt"):
        flow()
    (tmp_path / "go").touch()
    assert flow().restored is not None
    assert sorted(mill.read_csv(tmp_path / "out").collect()["n"]) == list(range(5_000))


def test_a_large_file_is_read_by_all_tasks(tmp_path: Path) -> None:
    data = pa.table({"n": range(2_000_000), "x": pa.array([0.5] * 2_000_000)})
    path = write(data, tmp_path / "a.arrow", rows=50_000)
    total = mill.read_arrow(path).agg(s=col("n").sum(), c=mill.count())
    assert total.collect(parallelism=3).to_pylist() == [{"s": 2_000_000 * 1_999_999 // 2, "c": 2_000_000}]
    assert mill.read_arrow(path).limit(3).collect()["n"] == [0, 1, 2]


def test_new_files_are_followed(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write(pa.table({"n": [1]}), folder / "1.arrow")
    rows: list[int] = []

    def seen(row: Any) -> None:
        rows.append(row.n)
        if row.n == 1:
            write(pa.table({"n": [2]}), folder / ".2", form="stream").rename(folder / "2.arrow")
        else:
            job.stop()

    job = mill.start(mill.read_arrow(folder, follow=True).for_each(seen))
    job.wait("30s")
    assert rows == [1, 2]


def damaged(path: Path) -> list[bytes]:
    """Return the file cut off and with bytes changed in many ways."""
    whole = path.read_bytes()
    chance = random.Random(5)
    cut = [whole[: chance.randrange(len(whole))] for _ in range(60)]
    changed = []
    for _ in range(200):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(data))
            data[at : at + 4] = struct.pack("<i", chance.choice([0, -1, 2**31 - 1, chance.randrange(2**31)]))[: len(data) - at]
        changed.append(bytes(data[: len(whole)]))
    return cut + changed


@pytest.mark.parametrize("form", ["file", "stream"])
@pytest.mark.parametrize("compression", [None, "lz4"])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path, form: str, compression: str | None) -> None:
    path = write(table(300).drop_columns(["null"]), tmp_path / "a.arrow", form=form, compression=compression)
    refused = 0
    for data in damaged(path):
        path.write_bytes(data)
        try:
            mill.read_arrow(path).collect(parallelism=1)
        except (mill.ConnectorError, mill.SchemaError, mill.DataError) as error:
            assert "a.arrow" in str(error)
            assert "panicked" not in str(error)
            refused += 1
    assert refused >= 60, "files that were cut off"


def test_a_stream_without_its_end_is_refused(tmp_path: Path) -> None:
    path = write(pa.table({"n": [1, 2]}), tmp_path / "a.arrows", form="stream", rows=1)
    whole = path.read_bytes()
    assert whole.endswith(b"\xff\xff\xff\xff\0\0\0\0")
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(mill.ConnectorError, match="a.arrows"):
            mill.read_arrow(path)


def test_dictionaries_of_a_stream_may_be_replaced(tmp_path: Path) -> None:
    kind = pa.schema([("c", pa.dictionary(pa.int32(), pa.string())), ("n", pa.int64())])
    words = [["a", "b"], ["x", "y"], ["a", "z"]]
    with ipc.new_stream(tmp_path / "a.arrows", kind) as writer:
        for n, pair in enumerate(words):
            writer.write_batch(pa.record_batch([pa.DictionaryArray.from_arrays(pa.array([1, 0, None], pa.int32()), pa.array(pair)), [n] * 3], schema=kind))
    assert mill.read_arrow(tmp_path / "a.arrows").collect(parallelism=1)["c"] == ["b", "a", None, "y", "x", None, "z", "a", None]


def test_what_is_no_arrow_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    for data in (b"", b"a,b\n1,2\n", b"ARROW1", b"ARROW1\0\0" + b"\0" * 100):
        path.write_bytes(data)
        with pytest.raises(mill.ConnectorError, match=r"a.arrow\" is (not a complete Arrow file|neither an Arrow file nor an Arrow stream)"):
            mill.read_arrow(path)
    with pytest.raises(mill.PlanError, match="there is no file yet to take the columns from; give schema="):
        (tmp_path / "empty").mkdir()
        mill.read_arrow(tmp_path / "empty", follow=True)


def test_dates_beyond_python_and_empty_files(tmp_path: Path) -> None:
    data = pa.table({"t": pa.array([2**62], pa.int64()).cast(pa.timestamp("us")), "day": pa.array([10**8], pa.int32()).cast(pa.date32())})
    read = mill.read_arrow(write(data, tmp_path / "far.arrow")).collect().to_arrow()
    assert read["t"].cast(pa.int64()).to_pylist() == [2**62]
    for form in ("file", "stream"):
        empty = mill.read_arrow(write(data.slice(0, 0), tmp_path / f"{form}.arrow", form=form)).collect().to_arrow()
        assert empty.num_rows == 0 and empty.schema.field("t").type == pa.timestamp("us")
    assert mill.read_arrow(write(pa.table({"t": [datetime(2024, 1, 1)]}), tmp_path / "one.arrow")).collect()["t"] == [datetime(2024, 1, 1)]


@pytest.mark.parametrize(("compression", "level"), [(None, None), ("uncompressed", None), ("lz4", None), ("zstd", None), ("zstd", 19)])
@pytest.mark.parametrize("parallelism", [1, 3])
def test_what_is_written_is_read_by_others_and_by_us(tmp_path: Path, compression: Any, level: Any, parallelism: int) -> None:
    data = table(5_000, seed=4)
    stream = mill.from_arrow(data)
    mill.run(stream.write_arrow(tmp_path / "out", compression=compression, compression_level=level), parallelism=parallelism)
    names = sorted((tmp_path / "out").glob("part-*.arrow"))
    assert names
    # Dictionaries are written as their values.
    index = data.schema.get_field_index("cat")
    expected = sorted(map(repr, plain(data.set_column(index, "cat", data["cat"].cast(pa.string())))))
    others = pa.concat_tables([ipc.open_file(name).read_all() for name in names])
    assert sorted(map(repr, plain(others))) == expected
    assert sorted(map(repr, plain(mill.read_arrow(tmp_path / "out").collect().to_arrow()))) == expected
    assert sum(len(pl.read_ipc(name)) for name in names) == 5_000


def test_small_frames_become_large_batches(tmp_path: Path) -> None:
    rows = mill.generate(rows=300_000, n=mill.index()).map_batches(lambda batch: batch, batch_rows=100)
    mill.run(rows.write_arrow(tmp_path / "a.arrow"), parallelism=1)
    with ipc.open_file(tmp_path / "a.arrow") as file:
        sizes = [file.get_batch(n).num_rows for n in range(file.num_record_batches)]
    assert sizes == [65_536] * 4 + [300_000 - 4 * 65_536]


def test_one_file_and_partitions(tmp_path: Path) -> None:
    rows = mill.from_iter([{"n": 1, "day": "mon"}, {"n": 2, "day": "tue"}])
    for name in ("a.arrow", "b.feather", "c.ipc", "D.ARROW"):
        mill.run(rows.write_arrow(tmp_path / name), checkpoint=tmp_path / f"state-{name}")
        assert pl.read_ipc(tmp_path / name)["n"].to_list() == [1, 2]
    mill.run(rows.write_arrow(tmp_path / "days", partition_by="day"))
    assert sorted(mill.read_arrow(tmp_path / "days", hive_partitioning=True, recursive=True).collect()["day"]) == ["mon", "tue"]
    mill.run(rows.filter(col("n") > 2).write_arrow(tmp_path / "none.arrow"))
    empty = ipc.open_file(tmp_path / "none.arrow").read_all()
    assert (empty.num_rows, empty.column_names) == (0, ["n", "day"])
    for name, said in [("a.parquet", "call write_parquet"), ("a.arrow.gz", "Arrow is compressed inside"), ("a.arrows", "another format, which is not written")]:
        with pytest.raises(mill.PlanError, match=said):
            rows.write_arrow(tmp_path / name)
    with pytest.raises(mill.PlanError, match='another format: write ".csv", or call write_arrow'):
        rows.write_csv(tmp_path / "a.arrow")
    with pytest.raises(mill.PlanError, match=r'compression is "gzip".*it is one of "uncompressed", "lz4", "zstd"'):
        rows.write_arrow(tmp_path / "x", compression="gzip")  # type: ignore[arg-type]
    with pytest.raises(mill.PlanError, match="lz4 has no compression_level"):
        rows.write_arrow(tmp_path / "x", compression="lz4", compression_level=1)


def test_dictionaries_within_others_are_written_as_their_values(tmp_path: Path) -> None:
    words = pa.array(["a", None, "b"]).dictionary_encode()
    nested = pa.table({"s": pa.StructArray.from_arrays([words], ["w"]), "l": pa.ListArray.from_arrays([0, 1, 1, 3], words)})
    mill.run(mill.from_arrow(nested).write_arrow(tmp_path / "a.arrow"), parallelism=1)
    read = ipc.open_file(tmp_path / "a.arrow").read_all()
    assert read.to_pylist() == [{"s": {"w": "a"}, "l": ["a"]}, {"s": {"w": None}, "l": []}, {"s": {"w": "b"}, "l": [None, "b"]}]


def test_a_file_of_an_older_version_is_read(tmp_path: Path) -> None:
    data = pa.table({"n": [1, 2], "s": ["a", None]})
    options = ipc.IpcWriteOptions(metadata_version=ipc.MetadataVersion.V4)
    for new, name in ((ipc.new_file, "a.arrow"), (ipc.new_stream, "a.arrows")):
        with new(tmp_path / name, data.schema, options=options) as writer:
            writer.write_table(data)
        assert mill.read_arrow(tmp_path / name).collect(parallelism=1).to_pylist() == data.to_pylist()


@pytest.mark.parametrize("more", [b"junk", b"\0", None])
def test_what_follows_the_end_of_a_stream_is_not_passed_over(tmp_path: Path, more: bytes | None) -> None:
    path = write(pa.table({"n": [1, 2]}), tmp_path / "a.arrows", form="stream")
    path.write_bytes(path.read_bytes() + (path.read_bytes() if more is None else more))
    with pytest.raises(mill.ConnectorError, match="there is more after the end mark of the stream"):
        mill.read_arrow(path)


def test_files_of_other_kinds_are_called_by_name(tmp_path: Path) -> None:
    path = write(pa.table({"n": [1, 2]}), tmp_path / "a.arrow")
    (tmp_path / "a.arrow.gz").write_bytes(gzip.compress(path.read_bytes()))
    pl.DataFrame({"n": [1]}).write_parquet(tmp_path / "p.arrow")
    for name, said in [("a.arrow.gz", "compressed as a whole, with gzip: decompress it"), ("p.arrow", r"it is Parquet: read it with read_parquet\(\)")]:
        with pytest.raises(mill.ConnectorError, match=said) as raised:
            mill.read_arrow(tmp_path / name)
        assert "rename them" not in str(raised.value)


@pytest.mark.parametrize(("kind", "raw", "shown"), [((5, 2), 1234567, "12345.67"), ((3, 3), 7000, "7.000"), ((2, -3), 700, "700000")])
def test_a_decimal_with_too_many_digits_is_shown_with_all_of_them(tmp_path: Path, kind: Any, raw: int, shown: str) -> None:
    digits = pa.Array.from_buffers(pa.decimal128(*kind), 1, [None, pa.py_buffer(raw.to_bytes(16, "little"))])
    path = write(pa.table({"id": [1], "c": digits}), tmp_path / "a.arrow")
    [letter] = mill.read_arrow(path).errors.collect(on_error="route").to_pylist()
    assert letter["record"] == f'{{"id":1,"c":{shown}}}'
    assert json.loads(letter["record"])["c"] == float(shown)


def test_types_that_cannot_be_are_refused(tmp_path: Path) -> None:
    nothing = pa.table({"c": pa.array([b"", None], pa.binary(0))})
    for make in (lambda: mill.from_arrow(nothing), lambda: mill.read_arrow(write(nothing, tmp_path / "a.arrow"))):
        with pytest.raises(mill.SchemaError, match='column "c" holds bytes of length 0'):
            make().collect()


@pytest.mark.parametrize("kind", ["file", "stream"])
def test_random_damage_is_an_error_that_names_the_file(tmp_path: Path, kind: str) -> None:
    """Some damages were a DataError with the words of a panic in the library."""
    table = pa.table({"a": [1, None, 3], "s": ["x", "yy", None], "l": [[1], [], None], "d": pa.array(["p", "q", "p"]).dictionary_encode()})
    path = tmp_path / "t.arrow"
    with (pa.ipc.new_file if kind == "file" else pa.ipc.new_stream)(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    whole, chance = path.read_bytes(), random.Random(8)
    kinds = set()
    for number in range(250):
        damaged = bytearray(whole)
        place = chance.randrange(len(whole))
        if number % 5 == 0:
            del damaged[place:]
        else:
            damaged[place] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, damaged[place] ^ 1 << chance.randrange(8)])
        path.write_bytes(damaged)
        try:
            mill.read_arrow(path).collect(parallelism=1)
        except mill.ConnectorError as error:
            kinds.add("connector")
            assert "t.arrow" in str(error) and "panicked" not in str(error), error
        except (mill.SchemaError, mill.DataError) as error:
            # A name or a type that is another one now, and text that is not UTF-8: the file is whole.
            kinds.add("other")
            assert "t.arrow" in str(error) or "name" in str(error) or "column" in str(error), error
    assert "connector" in kinds
