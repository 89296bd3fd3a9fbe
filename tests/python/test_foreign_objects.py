"""Bytes of files, libraries and functions are never unpickled: objects are those that this process has pickled."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import millstream as mill
from millstream.errors import SchemaError

RAN: list[str] = []
MARK = {"millstream.type": "object"}


def ran(where: str) -> str:
    RAN.append(where)
    return where


class Trap:
    """Notes that it was unpickled."""

    def __reduce__(self) -> Any:
        return (ran, ("trap",))


@pytest.fixture(autouse=True)
def no_trap_is_sprung() -> Any:
    RAN.clear()
    yield
    assert RAN == []


def marked(kind: pa.DataType = pa.binary(), name: str = "a") -> pa.Field:
    return pa.field(name, kind, metadata=MARK)


def trap_table() -> pa.Table:
    trap = pickle.dumps(Trap())
    columns = {
        "a": pa.array([trap, None]),
        "listed": pa.array([[trap], None], pa.list_(marked(name="item"))),
        "within": pa.array([{"x": trap}, None], pa.struct([marked(name="x")])),
        "mapped": pa.array([[("k", trap)], None], pa.map_(pa.string(), marked(name="value"))),
    }
    fields = [marked(), *(pa.field(name, array.type) for name, array in columns.items() if name != "a")]
    return pa.table(list(columns.values()), schema=pa.schema(fields))


def parquet(folder: Path) -> Path:
    path = folder / "trap.parquet"
    pq.write_table(trap_table(), path)
    return path


SOURCES = {
    "table": lambda folder: mill.from_arrow(trap_table()),
    "batch": lambda folder: mill.from_arrow(trap_table().to_batches()[0]),
    "reader": lambda folder: mill.from_arrow(trap_table().to_reader()),
    "parquet": lambda folder: mill.read_parquet(parquet(folder)),
    "parquet with its own schema": lambda folder: mill.read_parquet(parquet(folder), schema=pq.read_schema(parquet(folder))),
    "ipc": lambda folder: mill.from_arrow(ipc(folder)),
}


def ipc(folder: Path) -> pa.Table:
    with pa.OSFile(str(folder / "trap.arrow"), "wb") as out, pa.ipc.new_file(out, trap_table().schema) as writer:
        writer.write_table(trap_table())
    return pa.ipc.open_file(folder / "trap.arrow").read_all()


@pytest.mark.parametrize("name", SOURCES)
def test_marked_bytes_of_others_stay_bytes(name: str, tmp_path: Path) -> None:
    trap = pickle.dumps(Trap())
    source = SOURCES[name](tmp_path)
    assert "object" not in repr(source.schema)
    if name == "reader":
        rows = source.collect().to_pylist()
    else:
        rows = source.map(lambda row: {"a": row.a, "listed": row.listed, "within": row.within}).collect()
        repr(rows)
        rows = rows.to_pylist()
        source.show()
    assert rows[0].pop("mapped", [("k", trap)]) == [("k", trap)]
    assert rows[0] == {"a": trap, "listed": [trap], "within": {"x": trap}}
    assert rows[1] == dict.fromkeys(rows[1])


@pytest.mark.parametrize("kind", [object, list[object], {"x": object}])
@pytest.mark.parametrize("reader", [mill.read_parquet, mill.read_json, mill.read_csv])
def test_readers_take_no_object_in_a_schema(reader: Any, kind: Any, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("a\n")
    with pytest.raises(SchemaError, match=r'read_\w+: column "a" cannot be read as Python objects.*map\(\)'):
        reader(path, schema={"a": kind})


def test_a_type_of_others_is_no_object() -> None:
    assert mill.types.data_type(marked()) == bytes
    assert mill.types.data_type(object) == object


@pytest.mark.parametrize("kind", [object, list[object]])
def test_functions_of_batches_hand_objects_on_and_make_none(kind: Any) -> None:
    value = {1} if kind is object else [{1}, {2}]
    stream = mill.from_iter([{"a": value}, {"a": None}], schema={"a": kind})
    assert stream.map_batches(lambda batch: batch).collect().to_pylist() == [{"a": value}, {"a": None}]
    assert stream.map_batches(lambda batch: batch.slice(0, 1)).collect()["a"] == [value]

    trap = pickle.dumps(Trap())

    def forged(batch: pa.RecordBatch) -> Any:
        return {"a": pa.array([trap if kind is object else [trap]] * batch.num_rows)}

    with pytest.raises(mill.UserFunctionError, match=r'column "a" holds Python objects.*none of the objects that came in'):
        stream.map_batches(forged).collect()
    read = mill.from_arrow(trap_table()).select("a")
    with pytest.raises(mill.UserFunctionError, match="none of the objects that came in"):
        read.map_batches(lambda batch: batch, schema={"a": object}).collect()


def test_functions_of_windows_hand_objects_on_and_make_none() -> None:
    from datetime import datetime

    at = datetime(2024, 1, 1)
    stream = mill.from_iter([{"k": 1, "t": at, "o": {1}}], schema={"k": int, "t": datetime, "o": object})
    windows = stream.event_time("t").key_by("k").window(mill.tumbling("1h"))
    kept = windows.apply(lambda key, window, rows: rows.select(["o"]), schema={"o": object})
    assert kept.collect()["o"] == [{1}]
    made = windows.apply(lambda key, window, rows: [{"o": {3}}], schema={"o": object})
    assert made.collect()["o"] == [{3}]
    trap = pickle.dumps(Trap())
    forged = windows.apply(lambda key, window, rows: pa.record_batch({"o": pa.array([trap])}), schema={"o": object})
    with pytest.raises(mill.DataError, match="none of the objects that came in"):
        forged.collect()


def test_a_table_keeps_its_objects() -> None:
    table = mill.from_iter([{"a": {1}}], schema={"a": object}).collect()
    assert mill.from_arrow(table).collect().to_pylist() == [{"a": {1}}]
    # Out of the process they are bytes, in it too.
    assert mill.from_arrow(table.to_arrow()).schema == {"a": bytes}


@pytest.mark.parametrize("kind", [object, list[object]])
@pytest.mark.parametrize("writer", ["write_parquet", "write_json", "write_csv"])
def test_objects_are_not_written(writer: str, kind: Any, tmp_path: Path) -> None:
    stream = mill.from_iter([{"a": [1]}], schema={"a": kind})
    with pytest.raises(SchemaError, match='column "a"'):
        getattr(stream, writer)(tmp_path / "out")


def test_a_cast_makes_no_objects() -> None:
    stream = mill.from_iter([b"x"])
    with pytest.raises(SchemaError, match=r"cast\(\) makes no Python objects.*map\(\)"):
        mill.col("value").cast(object)
    with pytest.raises(SchemaError, match=r'cast\(\) makes no Python objects of column "value".*map\(\)'):
        stream.cast({"value": object})
