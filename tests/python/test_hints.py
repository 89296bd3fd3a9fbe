"""Names and forms of other libraries: the error says what to write here."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import millstream as mill
from millstream import col, testing
from millstream._hints import _HINTS, _OF_PACKAGE


def stream() -> Any:
    return mill.from_iter([{"k": 1, "x": 2, "at": datetime(2024, 1, 1)}]).event_time("at")


def keyed() -> Any:
    return stream().key_by("k")


def windowed() -> Any:
    return keyed().window(mill.tumbling("1m"))


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: stream().group_by("k"), r"Stream has no group_by; use key_by\(\)"),
        (lambda: stream().connect(keyed()), r'a\.key_by\("id"\)\.connect\(b\.key_by\("id"\)\)'),
        (lambda: stream().process(5), r'key_by\("user"\)\.process'),
        (lambda: keyed().join(keyed()), r"KeyedStream has no join; remove key_by\(\)"),
        (lambda: windowed().late, r"agg\(…\)\.late"),
        (lambda: windowed().count(), r"agg\(n=mill\.count\(\)\)"),
        (lambda: windowed().sum("x"), r'agg\(x=col\("x"\)\.sum\(\)\)'),
        (lambda: stream().no_such_thing, "'Stream' object has no attribute 'no_such_thing'"),
    ],
)
def test_a_name_of_another_library_is_answered_with_ours(use: Callable[[], Any], message: str) -> None:
    with pytest.raises(AttributeError, match=message):
        use()


def test_a_name_that_is_not_there_is_still_not_there() -> None:
    made = {
        "Stream": stream(),
        "KeyedStream": keyed(),
        "WindowedStream": windowed(),
        "WatermarkStrategy": mill.WatermarkStrategy.ascending(),
        "Output": stream().for_each(lambda row: None),
        "Expr": col("x"),
        "StringNamespace": col("x").str,
        "DateTimeNamespace": col("x").dt,
        "ListNamespace": col("x").list,
        "MapNamespace": col("x").map,
        "StructNamespace": col("x").struct,
        "RollingStream": keyed().rolling("1m"),
        "ConnectedStreams": keyed().connect(keyed()),
        "Job": mill.start(stream().for_each(lambda row: None)),
    }
    for kind, names in _HINTS.items():
        for name in names:
            assert not hasattr(made[kind], name), f"{kind}.{name}"
    # A module of the package is there once something has imported it.
    assert [name for name in _OF_PACKAGE if name not in ("testing", "bench") and hasattr(mill, name)] == []


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (lambda: stream().join(keyed(), on="k"), mill.PlanError, r"remove key_by\(\)"),
        (lambda: stream().enrich(keyed(), on="k"), mill.PlanError, r"remove key_by\(\)"),
        (lambda: stream().union(keyed()), mill.PlanError, r"remove key_by\(\)"),
        (lambda: stream().join(stream(), on="k", window=mill.tumbling("1m"), how="outer"), mill.PlanError, "did you mean 'full'"),
        (lambda: stream().join(stream(), on="k", window=mill.tumbling("1m"), how="left_outer"), mill.PlanError, "did you mean 'left'"),
        (lambda: keyed().agg(n=mill.count(), emit="never"), mill.PlanError, 'emit="end", "checkpoint" or "each"'),
        (lambda: stream().enrich({"k": [1]}, "k"), TypeError, r'by name, as in enrich\(table, on="id"\)'),
        (lambda: stream().join(stream(), "k"), TypeError, r'by name, as in join\(other, on="id"'),
        (lambda: stream().join_asof(stream(), "k"), TypeError, "by name"),
        (lambda: stream().join_interval(stream(), "k"), TypeError, "by name"),
        (lambda: stream().enrich({"k": 1}, on="k"), mill.PlanError, "a dict of columns, as in"),
        (lambda: stream().enrich([], on="k"), mill.SchemaError, r"table of enrich\(\).*mill\.from_iter\(rows, schema="),
        (lambda: stream().enrich({"k": []}, on="k"), mill.SchemaError, r"table of enrich\(\).*mill\.from_iter\(rows, schema="),
        (lambda: stream().enrich([{"k": 1, "z": None}], on="k"), mill.SchemaError, r"table of enrich\(\).*mill\.from_iter"),
    ],
)
def test_a_form_of_another_library_is_answered_with_ours(
    use: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        use()


def test_a_job_of_sinks_alone_collects_nothing(tmp_path: Path) -> None:
    with testing.Job(stream().write_json(tmp_path / "out")) as job, pytest.raises(mill.PlanError, match="it has sinks only"):
        job.collect()


@dataclass
class Out:
    x: int


@pytest.mark.parametrize("returned", [5, Out(1)])
def test_a_process_function_that_returns_one_record_is_told_to_return_a_list(returned: Any) -> None:
    class Returns(mill.ProcessFunction):
        def process(self, row: Any, ctx: mill.ProcessContext) -> Any:
            return returned

    with pytest.raises(mill.UserFunctionError, match=rf"this one returned an? {type(returned).__name__}; yield it, or return \[it\]"):
        keyed().process(Returns(), schema={"x": int}).collect()


def test_a_row_is_read_only() -> None:
    def assigns(row: Any) -> Any:
        row.x = 5
        return {"x": row.x}

    def assigns_by_name(row: Any) -> Any:
        row["x"] = 5
        return {"x": row.x}

    for function in (assigns, assigns_by_name):
        with pytest.raises(mill.UserFunctionError, match=r"rows are read-only; make a new record: row\.asdict\(\) \| \{'x': …\}"):
            stream().map(function, schema={"x": int}).collect()


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: col("x").arg_min("y"), r'^Expr has no arg_min; use min_by\(\), as in col\("name"\)\.min_by\("price"\)$'),
        (lambda: col("x").string_agg(","), r'use str\.join\(\), as in col\("name"\)\.str\.join\(", "\)$'),
        (lambda: col("x").json_path("$"), r"use str\.json_path_match\(\)"),
        (lambda: (col("x") + 1).pow(2), r"use the operator \*\*$"),
        (lambda: col("x").year(), r'^Expr has no year; use col\("x"\)\.dt\.year\(\)$'),
        (lambda: col("x").head(3), r'use col\("x"\)\.str\.head\(\) or col\("x"\)\.list\.head\(\)$'),
        (lambda: mill.when(col("x") > 1).then(1).otherwise(2).fillna(0), r"^Expr has no fillna; use fill_null\(\)"),
        (lambda: mill.when(col("x") > 1).then(1).fillna(0), r"^Expr has no fillna; use fill_null\(\)"),
        (lambda: col("x").sume(), r"^'Expr' object has no attribute 'sume'; did you mean 'sum'\?$"),
        (lambda: col("x").filna(0), r"^'Expr' object has no attribute 'filna'; did you mean 'fill_nan'\?$|if 'fillna' is meant: use fill_null"),
        (lambda: col("x").str.lower(), r"^Expr\.str has no lower; use to_lowercase\(\)$"),
        (lambda: col("x").str.to_lowercse(), r"^'Expr\.str' object has no attribute 'to_lowercse'; did you mean 'to_lowercase'\?$"),
        (lambda: col("x").dt.dayofweek(), r"^Expr\.dt has no dayofweek; use weekday\(\)$"),
        (lambda: col("x").list.std(), r'^Expr\.list has no std; it is a function of every expression: col\("x"\)\.std\(\)$'),
        (lambda: col("x").str.year(), r'^Expr\.str has no year; use col\("x"\)\.dt\.year\(\)$'),
        (lambda: col("x").map.has_key("a"), r"^Expr\.map has no has_key; use contains_key\(\)$"),
        (lambda: col("x").struct.to_json(), r"^Expr\.struct has no to_json; use json_encode\(\)$"),
        (lambda: col("x").no_such_thing, r"^'Expr' object has no attribute 'no_such_thing'$"),
        (lambda: col("x")._private, r"^'Expr' object has no attribute '_private'$"),
    ],
)
def test_functions_of_other_libraries_are_answered_with_ours(use: Callable[[], Any], message: str) -> None:
    with pytest.raises(AttributeError, match=message):
        use()


def test_functions_that_hints_name_are_there() -> None:
    spaces = {"": col("x"), **{f"{name}.": getattr(col("x"), name) for name in ("str", "dt", "list", "map", "struct")}}
    own = {"Expr": "", "StringNamespace": "str.", "DateTimeNamespace": "dt.", "ListNamespace": "list.", "MapNamespace": "map.", "StructNamespace": "struct."}
    for kind, prefix in own.items():
        for name, hint in _HINTS[kind].items():
            if (found := re.match(r"use (str\.|dt\.|list\.|map\.|struct\.|)([a-z_0-9]+)\(", hint)) is not None:
                assert hasattr(spaces[found[1] or prefix], found[2]), f"{kind}.{name}: {hint}"
