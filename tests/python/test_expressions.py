"""Expressions give what Polars gives under the same names."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl
import pytest

import millstream as mill

FRAME = pl.DataFrame(
    {
        "a": [1, -2, 3, None, 7],
        "b": [2, 5, -3, 4, 2],
        "x": [1.5, -0.25, None, 2.75, 1e3],
        "y": [0.5, 2.0, 4.0, float("nan"), -3.0],
        "s": ["Apple pie", "banana", None, "", "Ähre a1b22"],
        "t": [
            datetime(2024, 1, 31, 23, 59, 58, 123456),
            datetime(1969, 12, 31, 12, 0, 1),
            None,
            datetime(2000, 2, 29),
            datetime(2023, 7, 4, 6, 30, 15, 999),
        ],
        "d": [date(2024, 1, 1), date(2020, 12, 31), None, date(1999, 7, 17), date(2024, 2, 29)],
        "u": [timedelta(days=1, hours=2), timedelta(seconds=-90), None, timedelta(0), timedelta(milliseconds=1500)],
        "l": [[1, 2, 3], [], None, [5], [4, 4, -1]],
        "w": [["b", "a"], [], None, ["c"], ["a", "b"]],
        "st": [{"p": 1, "q": "x"}, {"p": None, "q": "y"}, {"p": 3, "q": None}, {"p": 4, "q": "z"}, {"p": 5, "q": "w"}],
        "p": [True, False, None, True, False],
        "q": [True, True, True, None, False],
    }
)

Build = Callable[[Any], Any]

CASES: dict[str, Build] = {
    "add": lambda m: m.col("a") + m.col("b"),
    "radd": lambda m: 10 + m.col("a"),
    "sub": lambda m: m.col("a") - 1,
    "rsub": lambda m: 1 - m.col("a"),
    "mul": lambda m: m.col("a") * m.col("x"),
    "true_div": lambda m: m.col("a") / m.col("b"),
    "floor_div": lambda m: m.col("a") // m.col("b"),
    "mod": lambda m: m.col("a") % m.col("b"),
    "neg": lambda m: -m.col("a"),
    "eq": lambda m: m.col("a") == 3,
    "ne": lambda m: m.col("a") != m.col("b"),
    "lt": lambda m: m.col("x") < m.col("y").fill_nan(0.0) if m is pl else m.col("x") < m.when(m.col("y").is_nan()).then(0.0).otherwise(m.col("y")),
    "and_or": lambda m: (m.col("p") & m.col("q")) | (m.col("a") > 2),
    "not": lambda m: ~m.col("p"),
    "xor": lambda m: m.col("p") ^ m.col("q"),
    "eq_missing": lambda m: m.col("a").eq_missing(m.lit(None)),
    "is_null": lambda m: m.col("a").is_null(),
    "is_not_null": lambda m: m.col("s").is_not_null(),
    "fill_null": lambda m: m.col("a").fill_null(0),
    "fill_null_column": lambda m: m.col("a").fill_null(m.col("b")),
    "coalesce": lambda m: m.coalesce(m.col("a"), m.col("b")),
    "is_in": lambda m: m.col("a").is_in([1, 3]),
    "is_in_text": lambda m: m.col("s").is_in(["banana", ""]),
    "is_between": lambda m: m.col("a").is_between(1, 3),
    "is_nan": lambda m: m.col("y").is_nan(),
    "is_finite": lambda m: m.col("y").is_finite(),
    "abs": lambda m: m.col("a").abs(),
    "sign": lambda m: m.col("x").sign(),
    "round": lambda m: (m.col("x") * 1.01).round(1),
    "floor": lambda m: m.col("x").floor(),
    "ceil": lambda m: m.col("x").ceil(),
    "sqrt": lambda m: m.col("b").abs().sqrt(),
    "exp": lambda m: (m.col("x") / 1000).exp(),
    "log": lambda m: m.col("b").abs().log(),
    "log10": lambda m: m.col("b").abs().log10(),
    "sin": lambda m: m.col("x").sin(),
    "pow": lambda m: m.col("x") ** 2,
    "clip": lambda m: m.col("b").clip(0, 3),
    "when": lambda m: m.when(m.col("a") > 2).then(m.lit("big")).when(m.col("a") > 0).then(m.lit("small")).otherwise(m.lit("none")),
    "when_without_otherwise": lambda m: m.when(m.col("a") > 2).then(m.col("b")),
    "cast_float": lambda m: m.col("a").cast(float if m is mill else pl.Float64),
    "cast_text": lambda m: m.col("a").cast(str if m is mill else pl.String),
    "cast_lenient": lambda m: m.col("s").cast(int if m is mill else pl.Int64, strict=False),
    "str.to_lowercase": lambda m: m.col("s").str.to_lowercase(),
    "str.to_uppercase": lambda m: m.col("s").str.to_uppercase(),
    "str.len_chars": lambda m: m.col("s").str.len_chars(),
    "str.len_bytes": lambda m: m.col("s").str.len_bytes(),
    "str.contains": lambda m: m.col("s").str.contains("[0-9]"),
    "str.contains_literal": lambda m: m.col("s").str.contains("e p", literal=True),
    "str.starts_with": lambda m: m.col("s").str.starts_with("A"),
    "str.ends_with": lambda m: m.col("s").str.ends_with("e"),
    "str.replace": lambda m: m.col("s").str.replace("a", "o"),
    "str.replace_all": lambda m: m.col("s").str.replace_all("[aeiou]", "_"),
    "str.replace_all_literal": lambda m: m.col("s").str.replace_all("a", "$", literal=True),
    "str.extract": lambda m: m.col("s").str.extract("([a-z])([0-9]+)", 2),
    "str.extract_all": lambda m: m.col("s").str.extract_all("[0-9]+"),
    "str.split": lambda m: m.col("s").str.split(" "),
    "str.slice": lambda m: m.col("s").str.slice(1, 3),
    "str.head": lambda m: m.col("s").str.head(2),
    "str.tail": lambda m: m.col("s").str.tail(2),
    "str.strip_chars": lambda m: (m.lit("  ") + m.col("s") + m.lit(" ")).str.strip_chars(),
    "str.strip_chars_of": lambda m: m.col("s").str.strip_chars("Aea"),
    "str.pad_start": lambda m: m.col("s").str.pad_start(8, "*"),
    "str.pad_end": lambda m: m.col("s").str.pad_end(8, "*"),
    "str.reverse": lambda m: m.col("s").str.reverse(),
    "str.join": lambda m: m.col("s") + "-" + m.col("s"),
    "dt.year": lambda m: m.col("t").dt.year(),
    "dt.quarter": lambda m: m.col("t").dt.quarter(),
    "dt.month": lambda m: m.col("t").dt.month(),
    "dt.week": lambda m: m.col("t").dt.week(),
    "dt.weekday": lambda m: m.col("t").dt.weekday(),
    "dt.day": lambda m: m.col("t").dt.day(),
    "dt.ordinal_day": lambda m: m.col("t").dt.ordinal_day(),
    "dt.hour": lambda m: m.col("t").dt.hour(),
    "dt.minute": lambda m: m.col("t").dt.minute(),
    "dt.second": lambda m: m.col("t").dt.second(),
    "dt.millisecond": lambda m: m.col("t").dt.millisecond(),
    "dt.microsecond": lambda m: m.col("t").dt.microsecond(),
    "dt.date": lambda m: m.col("t").dt.date(),
    "dt.epoch": lambda m: m.col("t").dt.epoch("ms"),
    "dt.truncate": lambda m: m.col("t").dt.truncate("1h"),
    "dt.round": lambda m: m.col("t").dt.round("15m"),
    "dt.month_start": lambda m: m.col("t").dt.month_start(),
    "dt.month_end": lambda m: m.col("t").dt.month_end(),
    "dt.month_end of dates": lambda m: m.col("d").dt.month_end(),
    "dt.strftime": lambda m: m.col("t").dt.strftime("%Y-%m-%d %H:%M"),
    "dt.of_date": lambda m: m.col("d").dt.weekday(),
    "dt.total_seconds": lambda m: m.col("u").dt.total_seconds(),
    "dt.total_minutes": lambda m: m.col("u").dt.total_minutes(),
    "time_difference": lambda m: m.col("t") - m.lit(datetime(2000, 1, 1)),
    "list.len": lambda m: m.col("l").list.len(),
    "list.get": lambda m: m.col("l").list.get(1, null_on_oob=True),
    "list.last": lambda m: m.col("l").list.last(),
    "list.contains": lambda m: m.col("l").list.contains(4),
    "list.join": lambda m: m.col("w").list.join("+"),
    "list.sum": lambda m: m.col("l").list.sum(),
    "list.max": lambda m: m.col("l").list.max(),
    "list.sort": lambda m: m.col("l").list.sort(),
    "list.reverse": lambda m: m.col("l").list.reverse(),
    "list.slice": lambda m: m.col("l").list.slice(1, 2),
    "struct.field": lambda m: m.col("st").struct.field("q"),
}


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, float) and isinstance(right, (int, float)):
        return (math.isnan(left) and math.isnan(right)) or math.isclose(left, right, rel_tol=1e-12, abs_tol=1e-300)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return bool(left == right) and (left is None) == (right is None)


@pytest.mark.parametrize("name", CASES)
def test_gives_what_polars_gives(name: str) -> None:
    build = CASES[name]
    wanted = FRAME.select(out=build(pl))["out"].to_list()
    table = mill.from_arrow(FRAME).select(out=build(mill)).collect()
    found = table["out"]
    assert len(found) == len(wanted)
    for row, (ours, theirs) in enumerate(zip(found, wanted, strict=True)):
        assert _same(ours, theirs), f"row {row}: {ours!r}, Polars gives {theirs!r}"


def test_every_name_is_one_that_the_engine_knows() -> None:
    import inspect

    from millstream import _namespaces
    from millstream._engine import expression_functions

    known = set(expression_functions())
    called = set()
    for namespace in ("StringNamespace", "DateTimeNamespace", "ListNamespace", "StructNamespace"):
        cls = getattr(_namespaces, namespace)
        text = inspect.getsource(cls)
        called |= {f"{cls._prefix}.{name}" for name in re.findall(r'self\._call\("(\w+)"', text)}
    assert called <= known, sorted(called - known)


def test_overflow_is_an_error_of_the_record() -> None:
    stream = mill.from_iter([{"x": 1}, {"x": 2**63 - 1}])
    with pytest.raises(mill.MillstreamError, match="overflow"):
        stream.select(y=mill.col("x") + 1).collect()
    kept = stream.select(y=mill.col("x") + 1).collect(on_error="skip")
    assert kept.to_pylist() == [{"y": 2}]


def test_truth_of_an_expression_is_refused() -> None:
    with pytest.raises(TypeError, match="combine conditions with &"):
        bool(mill.col("x") > 1)
    with pytest.raises(TypeError, match="is_between"):
        _ = 1 < mill.col("x") < 3


def test_filter_on_what_is_no_aggregate_is_refused() -> None:
    with pytest.raises(mill.PlanError, match="restricts an aggregate"):
        mill.col("x").filter(mill.col("y") > 1)


def test_literals_of_every_kind() -> None:
    from decimal import Decimal

    values = {
        "b": True,
        "i": 7,
        "f": 1.5,
        "s": "x",
        "y": b"\x00\xff",
        "t": datetime(2024, 1, 2, 3, 4, 5, 6),
        "d": date(2024, 1, 2),
        "u": timedelta(seconds=-1),
        "n": Decimal("1.25"),
    }
    row = mill.from_iter([0]).select(**{name: mill.lit(value) for name, value in values.items()}).collect().to_pylist()[0]
    assert row == values


def test_literal_that_is_none_is_refused() -> None:
    with pytest.raises(TypeError, match="is no constant"):
        mill.lit(object())  # type: ignore[arg-type]
