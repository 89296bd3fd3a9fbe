"""Arrow data of other libraries, handed over through the C interface: slices at all depths, columns of nulls, damage."""

from __future__ import annotations

import random
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

import millstream as mill

PAIR = pa.struct([("x", pa.int64()), ("y", pa.list_(pa.string()))])


def kinds() -> dict[str, tuple[pa.DataType, Any]]:
    """Types that nest, each with a way to draw a value."""

    def pair(dice: random.Random) -> Any:
        return {"x": dice.randint(0, 9), "y": [dice.choice(["a", None, "bc"]) for _ in range(dice.randint(0, 2))]}

    return {
        "struct": (PAIR, pair),
        "struct of struct": (pa.struct([("s", PAIR), ("t", pa.struct([("u", PAIR)]))]), lambda d: {"s": pair(d), "t": {"u": pair(d)}}),
        "list of struct": (pa.list_(PAIR), lambda d: [pair(d) for _ in range(d.randint(0, 3))]),
        "struct of list of struct": (pa.struct([("l", pa.large_list(PAIR))]), lambda d: {"l": [pair(d)] * d.randint(0, 2)}),
        "fixed list of struct": (pa.list_(PAIR, 2), lambda d: [pair(d), pair(d)]),
        "struct of fixed list of fixed list": (
            pa.struct([("f", pa.list_(pa.list_(PAIR, 1), 2))]),
            lambda d: {"f": [[pair(d)], [pair(d)]]},
        ),
        "struct of null": (pa.struct([("n", pa.null()), ("s", PAIR)]), lambda d: {"n": None, "s": pair(d)}),
        "struct of dictionary": (pa.struct([("d", pa.dictionary(pa.int8(), pa.string()))]), lambda d: {"d": d.choice("abc")}),
    }


@pytest.mark.parametrize("name", kinds())
def test_a_slice_of_a_slice_is_read_as_pyarrow_reads_it(name: str) -> None:
    kind, draw = kinds()[name]
    dice = random.Random(name)
    values = pa.array([draw(dice) if dice.random() < 0.8 else None for _ in range(40)], kind)
    for _ in range(60):
        start = dice.randint(0, 40)
        part = values.slice(start, dice.randint(0, 40 - start))
        start = dice.randint(0, len(part))
        part = part.slice(start, dice.randint(0, len(part) - start))
        table = pa.table({"v": part, "n": pa.nulls(len(part))})
        assert mill.from_arrow(table).collect().to_pylist() == table.to_pylist()
        reader = pa.RecordBatchReader.from_batches(table.schema, table.to_batches())
        assert mill.from_arrow(reader).collect()["v"] == part.to_pylist()
        given = mill.from_iter([{"a": 1}]).map_batches(lambda batch, table=table: table, schema={"v": kind, "n": None})
        assert given.collect().to_pylist() == table.to_pylist()


def test_columns_of_nulls_of_polars() -> None:
    frame = pl.DataFrame({"n": [None, None], "l": [[None], None], "s": [{"x": None, "y": 1}, None]})
    assert mill.from_arrow(frame).collect().to_pylist() == frame.to_dicts()
    assert mill.from_arrow(frame.slice(1)).collect().to_pylist() == frame.slice(1).to_dicts()
    given = mill.from_arrow(frame).map_batches(lambda batch: pl.from_arrow(batch), schema=pa.schema(frame.to_arrow().schema))
    assert given.collect().to_pylist() == frame.to_dicts()


def test_what_contradicts_itself_is_refused() -> None:
    damaged = pa.StringArray.from_buffers(2, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"a\xff"))
    inside = pa.StructArray.from_arrays([damaged], ["t"])
    for column in (damaged, inside):
        table = pa.table({"v": column})
        for given in (table, pa.RecordBatchReader.from_batches(table.schema, table.to_batches())):
            with pytest.raises(mill.MillstreamError, match='"v" is not valid'):
                mill.from_arrow(given).collect()
        with pytest.raises(mill.MillstreamError, match='"v" is not valid'):
            mill.from_iter([{"a": 1}]).map_batches(lambda batch, table=table: table, schema={"v": column.type}).collect()


def test_what_is_no_table_is_refused() -> None:
    for given in (pa.array([1]), pa.chunked_array([[1]])):
        with pytest.raises(mill.SchemaError, match="table"):
            mill.from_arrow(given)
    rows = pa.array([{"a": 1}, None])
    with pytest.raises(mill.MillstreamError, match="row 1 is null"):
        mill.from_arrow(rows)
    assert mill.from_arrow(pa.record_batch({"a": [1]})).collect()["a"] == [1]


def test_a_stream_that_was_read_is_refused() -> None:
    reader = pa.table({"a": [1]}).to_reader()
    capsule = reader.__arrow_c_stream__()

    class Once:
        def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
            return capsule

    assert mill.from_arrow(Once()).collect()["a"] == [1]
    with pytest.raises(mill.MillstreamError, match="read already"):
        mill.from_arrow(Once())
