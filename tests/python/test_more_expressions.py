"""list.eval, maps, concat_list, and // and % of decimals, against plain Python and fractions."""

from __future__ import annotations

import math
import random
from decimal import Decimal
from fractions import Fraction
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

import millstream as mill
from millstream import col, element, lit, when


def test_an_expression_over_elements_is_that_of_polars() -> None:
    lists = [[3, None, -1], [], None, [7], [2**40]]
    s = mill.from_arrow(pa.table({"l": pa.array(lists, pa.list_(pa.int64()))}))
    frame = pl.DataFrame({"l": lists}, schema={"l": pl.List(pl.Int64)})
    for ours, theirs in [
        (element() * 2 + 1, pl.element() * 2 + 1),
        (element().fill_null(0).cast(str), pl.element().fill_null(0).cast(pl.String)),
        (element().is_null(), pl.element().is_null()),
        (when(element() > 2).then(element()).otherwise(lit(None)), pl.when(pl.element() > 2).then(pl.element()).otherwise(None)),
    ]:
        assert s.select(x=col("l").list.eval(ours)).collect()["x"] == frame.select(x=pl.col("l").list.eval(theirs))["x"].to_list()
    nested = mill.from_iter([{"l": [[1, 2], [], None]}])
    assert nested.select(x=col("l").list.eval(element().list.eval(element() * 10))).collect()["x"] == [[[10, 20], [], None]]
    # Of a slice only its own elements count, and those under a null do not: 0 in the place of another would divide by zero.
    values = pa.array([0, 0, 1, 2, 0], pa.int64())
    hidden = pa.ListArray.from_arrays(pa.array([0, 2, 4, 5], pa.int32()), values, mask=pa.array([True, False, True]))
    tens = mill.from_arrow(pa.table({"l": hidden})).select(x=col("l").list.eval(lit(Decimal(10)) / element().cast(mill.types.Decimal(5, 0))))
    assert tens.collect()["x"] == [None, [10, 5], None]
    assert repr(col("l").list.eval(element() + 1)) == '<Expr col("l").list.eval(element() + 1)>'


def test_what_is_no_expression_of_an_element_is_refused() -> None:
    s = mill.from_iter([{"l": ["1", "x"], "n": 1}, {"l": ["2"], "n": 1}])
    with pytest.raises(mill.PlanError, match='and not about column "n"'):
        s.select(x=col("l").list.eval(element() + col("n")))
    with pytest.raises(mill.PlanError, match="an aggregate is of many"):
        s.select(x=col("l").list.eval(element().sum()))
    with pytest.raises(mill.PlanError, match=r"list\.eval\(\) takes an expression of mill\.element\(\)"):
        col("l").list.eval(1)  # type: ignore[arg-type]
    with pytest.raises(mill.SchemaError, match=r"list\.eval\(\) needs a list"):
        s.select(x=col("n").list.eval(element()))
    with pytest.raises(mill.MillstreamError, match="element"):
        s.select(x=element())
    whole = s.select(x=col("l").list.eval(element().cast(int)))
    with pytest.raises(mill.DataError, match='"x"'):
        whole.collect()
    assert whole.collect(on_error="skip")["x"] == [[2]]


def test_maps_are_looked_into() -> None:
    maps: list[Any] = [[("a", 1), ("b", None)], [], None, [("b", 2), ("b", 3)]]
    s = mill.from_arrow(pa.table({"m": pa.array(maps, pa.map_(pa.string(), pa.int64())), "k": ["b", "a", "a", None]}))
    found = s.select(
        a=col("m").map.get("a"),
        own=col("m").map.get(col("k")),
        has=col("m").map.contains_key("b"),
        keys=col("m").map.keys(),
        values=col("m").map.values(),
        n=col("m").map.len(),
    )
    as_dicts = [None if entries is None else dict(entries) for entries in maps]
    assert found.collect(parallelism=1).to_pylist() == [
        {
            "a": None if entries is None else entries.get("a"),
            "own": None if entries is None else entries.get(key),
            "has": None if entries is None else "b" in entries,
            "keys": None if pairs is None else [name for name, _ in pairs],
            "values": None if pairs is None else [value for _, value in pairs],
            "n": None if pairs is None else len(pairs),
        }
        for entries, pairs, key in zip(as_dicts, maps, ["b", "a", "a", None], strict=True)
    ]
    with pytest.raises(mill.SchemaError, match=r"map\.get\(\) looks for lit\(1\) \(int64\) in col\(\"m\"\) \(map"):
        s.select(x=col("m").map.get(1))
    with pytest.raises(mill.SchemaError, match=r"map\.keys\(\) needs a map, found"):
        s.select(x=col("k").map.keys())


def test_lists_are_made_of_columns() -> None:
    s = mill.from_iter([{"a": 1, "b": 2.5}, {"a": None, "b": None}])
    assert s.select(x=mill.concat_list("a", "b", 3)).collect()["x"] == [[1.0, 2.5, 3.0], [None, None, 3.0]]
    with pytest.raises(mill.SchemaError, match="needs values of one type"):
        s.select(x=mill.concat_list("a", lit("x")))
    with pytest.raises(mill.PlanError, match="needs at least one"):
        mill.concat_list()


def test_whole_quotients_and_rests_of_decimals_are_exact() -> None:
    chance = random.Random(5)
    for left, right in [(2, 2), (0, 3), (6, 0), (10, 10)]:
        pairs = [(chance.randrange(-(10**12), 10**12), chance.choice([-1, 1]) * chance.randrange(1, 10**6)) for _ in range(300)]
        a = [Decimal(x).scaleb(-left) for x, _ in pairs] + [None, Decimal(0)]
        b = [Decimal(y).scaleb(-right) for _, y in pairs] + [Decimal(1), Decimal(1)]
        s = mill.from_arrow(pa.table({"a": pa.array(a, pa.decimal128(24, left)), "b": pa.array(b, pa.decimal128(20, right))}))
        found = s.select(q=col("a") // col("b"), r=col("a") % col("b")).collect(parallelism=1)
        for x, y, row in zip(a, b, found.to_pylist(), strict=True):
            if x is None:
                assert row == {"q": None, "r": None}
                continue
            whole = math.floor(Fraction(x) / Fraction(y))
            assert (row["q"], Fraction(row["r"])) == (whole, Fraction(x) - whole * Fraction(y)), (x, y)
    prices = mill.from_iter([{"p": Decimal("7.50"), "n": 2}, {"p": Decimal("-7.50"), "n": 0}])
    with pytest.raises(mill.DataError, match="division by zero"):
        prices.select(q=col("p") // col("n")).collect()
    assert prices.select(q=col("p") // 2, r=col("p") % 2, f=col("p") % 2.0).collect().to_pylist() == [
        {"q": Decimal(3), "r": Decimal("1.50"), "f": 1.5},
        {"q": Decimal(-4), "r": Decimal("0.50"), "f": 0.5},
    ]
    with pytest.raises(mill.SchemaError, match=r"\*\* does not work on decimals"):
        prices.select(x=col("p") ** 2)
    assert prices.agg(n=col("p").n_unique()).collect()["n"] == [2]
