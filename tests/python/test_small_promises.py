"""Sorting, long conditions, durations and options: each is exact or an error at the line that is wrong."""

from __future__ import annotations

import math
from decimal import Decimal

import pyarrow as pa
import pytest

import millstream as mill


def test_sort_puts_nan_after_numbers_and_null_last() -> None:
    nan = math.nan
    values = mill.from_iter([{"v": v} for v in [3.0, nan, 1.0, None, 2.0, nan, -math.inf]]).collect().sort()["v"]
    assert [str(value) for value in values] == ["-inf", "1.0", "2.0", "3.0", "nan", "nan", "None"]


def test_sort_compares_lists_and_structs_part_by_part() -> None:
    lists = [[1, None], [1], None, [None], [0, 5], []]
    table = mill.from_iter([{"v": v} for v in lists], schema={"v": list[int]}).collect()
    assert table.sort()["v"] == [[], [0, 5], [1], [1, None], [None], None]
    structs = [{"a": 1, "b": None}, {"a": None, "b": 2.0}, {"a": 1, "b": math.nan}, None, {"a": 1, "b": 1.0}]
    table = mill.from_iter([{"v": v} for v in structs], schema=pa.schema([("v", pa.struct([("a", pa.int64()), ("b", pa.float64())]))])).collect()
    assert [str(value) for value in table.sort()["v"]] == [str(structs[place]) for place in (4, 2, 0, 1, 3)]
    decimals = mill.from_iter([Decimal("1.5"), None, Decimal("-2")]).collect().sort()["value"]
    assert decimals == [Decimal("-2"), Decimal("1.5"), None]


def test_durations_finer_than_a_microsecond_are_refused() -> None:
    pandas = pytest.importorskip("pandas")
    with pytest.raises(mill.PlanError, match="finer than a microsecond"):
        mill.tumbling(pandas.Timedelta("1500ns"))
    assert mill.tumbling(pandas.Timedelta("1500us")).size == pandas.Timedelta("1500us")


def test_options_of_the_wrong_kind_are_refused_at_once() -> None:
    with pytest.raises(mill.PlanError, match="not None"):
        mill.Checkpoint(None)  # type: ignore[arg-type]
    with pytest.raises(mill.PlanError, match="progress is True, False or None, not 'x'"):
        mill.run(mill.from_iter([1]).for_each(print), progress="x")  # type: ignore[arg-type]


def test_partitions_that_are_one_text_are_refused() -> None:
    class One(mill.Source):
        schema = {"n": int}

        def partitions(self) -> str:
            return "abc"

        def open(self, partition: str, position: object) -> mill.SourceReader:
            raise AssertionError

    with pytest.raises(mill.MillstreamError, match=r"partitions\(\) returns the names.*not 'abc'"):
        mill.from_source(One()).collect()
