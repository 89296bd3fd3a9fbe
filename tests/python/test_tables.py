"""Tables by row, column and slice, and their order; streams split several ways; sources that are generator functions."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

import millstream as mill
from millstream import col

ROWS = [{"a": n % 4 if n % 5 else None, "b": float(n % 3) if n % 7 else float("nan"), "c": str(n)} for n in range(40)]


@pytest.fixture
def table() -> mill.Table:
    return mill.from_iter(ROWS, schema={"a": int, "b": float, "c": str}).collect(parallelism=1)


@pytest.mark.parametrize(
    "rows", [slice(None), slice(3), slice(-3, None), slice(5, 20), slice(20, 5), slice(None, None, -1), slice(1, 30, 7), slice(90, 99)]
)
def test_a_slice_has_the_rows_that_a_list_has(table: mill.Table, rows: slice) -> None:
    part = table[rows]
    assert [row["c"] for row in part] == [row["c"] for row in ROWS[rows]]
    assert part.schema == table.schema


def test_rows_columns_and_ends(table: mill.Table) -> None:
    assert table[8] == ROWS[8] and table[-1]["c"] == "39"
    assert table.columns == ["a", "b", "c"] and table[["c", "a"]].columns == ["c", "a"]
    assert [len(table.head()), len(table.head(0)), len(table.head(99)), table.head(2)["c"]] == [5, 0, 40, ["0", "1"]]
    assert [len(table.tail()), len(table.tail(0)), len(table.tail(99)), table.tail(2)["c"]] == [5, 0, 40, ["38", "39"]]
    assert table.to_dicts()[3] == ROWS[3]


@pytest.mark.parametrize(
    ("use", "kind", "message"),
    [
        (lambda table: table[40], IndexError, r"no row 40; there are 40"),
        (lambda table: table["d"], KeyError, r"no column 'd'; there are a, b, c"),
        (lambda table: table[["a", "d"]], KeyError, r"no column 'd'"),
        (lambda table: table[1.5], TypeError, r"row number or a slice, not 1\.5"),
        (lambda table: table.head(-1), mill.PlanError, r"head\(\) takes a number of rows"),
        (lambda table: table.sort("a", descending=[True, False]), mill.PlanError, r"one of them for the one column"),
        (lambda table: table.sort("a", descending="yes"), mill.PlanError, r"sort\(\): descending is True or False.*it is 'yes'"),
    ],
)
def test_what_is_not_there_is_named(table: mill.Table, use: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        use(table)


@pytest.mark.parametrize("descending", [False, True, [True, False], [False, True]])
def test_rows_are_sorted_as_polars_sorts_them(table: mill.Table, descending: Any) -> None:
    # A stable sort in Polars, with nulls at the end; both hold NaN for the greatest number.
    expected = pl.DataFrame(table).sort("a", "b", descending=descending, nulls_last=True, maintain_order=True)
    found = table.sort("a", "b", descending=descending)
    assert found["c"] == expected["c"].to_list()


def test_each_record_goes_to_the_first_condition_that_holds() -> None:
    rows = [{"x": x} for x in [None, *range(10)]]
    small, even, rest = mill.from_iter(rows).branch(col("x") < 3, col("x") % 2 == 0)
    assert sorted(small.collect()["x"]) == [0, 1, 2]
    assert sorted(even.collect()["x"]) == [4, 6, 8]
    assert rest.collect().sort()["x"] == [3, 5, 7, 9, None]
    with pytest.raises(mill.PlanError, match="at least one condition"):
        mill.from_iter(rows).branch()


def test_steps_of_ones_own_stand_in_the_chain() -> None:
    def over(stream: mill.Stream, limit: int, *, name: str) -> mill.Stream:
        return stream.filter(col(name) > limit)

    assert mill.from_iter([1, 2, 3]).pipe(over, 1, name="value").columns == ["value"]
    assert sorted(mill.from_iter([1, 2, 3]).pipe(over, 1, name="value").collect()["value"]) == [2, 3]


def test_a_generator_function_is_called_by_every_run(tmp_path: Path) -> None:
    calls: list[str] = []

    def numbers() -> Iterator[int]:
        calls.append("call")
        yield from range(5)

    stream = mill.from_iter(numbers, schema=int)
    assert calls == []
    assert sorted(stream.collect()["value"]) == sorted(stream.collect()["value"]) == [0, 1, 2, 3, 4]
    assert len(calls) == 2
    assert sorted(mill.from_iter(numbers).collect()["value"]) == [0, 1, 2, 3, 4]
    with pytest.raises(mill.PlanError, match="numbers"):
        mill.run(stream.write_json(tmp_path / "out"), checkpoint=tmp_path / "state")


def test_a_function_that_needs_more_is_refused() -> None:
    def pages(start: int, size: int) -> Iterator[int]:
        yield from range(start, size)

    with pytest.raises(mill.PlanError, match=r"pages takes more than a start offset.*def pages\(start\)"):
        mill.from_iter(pages)  # type: ignore[arg-type]


def test_the_command_names_its_version() -> None:
    said = subprocess.run([sys.executable, "-m", "millstream", "--version"], capture_output=True, text=True, check=True).stdout
    assert said == f"millstream {mill.__version__}\n"


def _raises() -> Iterator[int]:
    yield 1
    raise ValueError("boo")


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: mill.from_iter(_raises), mill.ConnectorError, r"from_iter\(_raises\) raised ValueError: boo"),
        (lambda: mill.from_iter(lambda: 5), mill.PlanError, r"from_iter\(<lambda>\): the function returned 5"),  # type: ignore[arg-type, return-value]
        (lambda: mill.generate(rate=True), mill.PlanError, "rate"),
        (lambda: mill.on_count(0), mill.PlanError, r"on_count\(\) takes a number of records of at least 1, not 0"),
        (lambda: mill.on_count(True), mill.PlanError, r"on_count\(\)"),
        (lambda: mill.on_processing_time(mill.every(3)), mill.PlanError, r"takes a duration.*use on_count\(\)"),  # type: ignore[arg-type]
        (lambda: mill.on_processing_time(5), mill.PlanError, r"on_processing_time\(\)"),  # type: ignore[arg-type]
    ],
)
def test_what_a_function_does_wrong_is_told_by_its_name(make: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        make()


EXACT = {
    "ns": pa.array([1, 10**18 + 1, None], pa.timestamp("ns")),
    "far": pa.array([2**62, -(2**62), None], pa.timestamp("s", "UTC")),
    "offset": pa.array([1, 2, None], pa.timestamp("ms", "+03:30")),
    "day": pa.array([1, 2**31 - 1, None], pa.int32()).view(pa.date32()),
    "span": pa.array([1, 2**62, None], pa.duration("ns")),
    "clock": pa.array([1, 2, None], pa.time64("ns")),
    "word": pa.array(["a", None, "b"], pa.string()).dictionary_encode(),
    "money": pa.array([1, None, -1], pa.int32()).cast(pa.decimal128(15, 3)),
    "small": pa.array([1, None, -128], pa.int8()),
    "map": pa.array([[(1, "a")], None, []], pa.map_(pa.int64(), pa.string())),
    "pair": pa.array([[1, 2], None, [3, None]], pa.list_(pa.int8(), 2)),
    "struct": pa.array([{"a": [True]}, None, {"a": None}]),
    "none": pa.nulls(3),
}


@pytest.mark.parametrize("again", [lambda table: pickle.loads(pickle.dumps(table)), copy.copy, copy.deepcopy])
def test_a_copy_of_a_table_is_the_same_to_the_last_bit(again: Any) -> None:
    fields = [pa.field(name, values.type, metadata={"unit": name}) for name, values in EXACT.items()]
    data = pa.Table.from_arrays(list(EXACT.values()), schema=pa.schema(fields, metadata={"made": "by hand"}))
    table = mill.from_arrow(pa.concat_tables([data] * 5)).collect(parallelism=1)
    found = again(table)
    assert found is not table and found.schema == table.schema and len(found) == 15
    assert found.to_arrow().equals(table.to_arrow(), check_metadata=True)
    part = again(table[4:6])
    assert part.to_arrow().equals(table[4:6].to_arrow(), check_metadata=True)
    assert again(table[:0]).schema == table.schema


def test_the_order_of_many_rows_is_kept() -> None:
    table = mill.generate(rows=100_000, n=mill.index()).collect()
    assert pickle.loads(pickle.dumps(table))["n"] == table["n"]


def test_objects_of_a_table_are_pickled_with_it() -> None:
    table = mill.from_iter([{"o": {1, 2}, "n": 1}, {"o": None, "n": None}], schema={"o": object, "n": pa.int16()}).collect()
    found = pickle.loads(pickle.dumps(table))
    assert found.schema == table.schema and found.to_pylist() == [{"o": {1, 2}, "n": 1}, {"o": None, "n": None}]
    assert copy.deepcopy(table).to_pylist() == table.to_pylist()
    nested = mill.from_iter([{"l": [{1}]}], schema={"l": list[object]}).collect()
    with pytest.raises(TypeError, match=r"objects inside of a list, struct or map \(column 'l'\) cannot be pickled; pickle its to_pylist\(\)"):
        pickle.dumps(nested)
