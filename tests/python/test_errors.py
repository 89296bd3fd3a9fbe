"""Every wrong use is an error where it stands, with a message that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import millstream as mill
from millstream import col

S = mill.from_iter([{"name": "a", "price": 1.5, "qty": 2, "tags": ["x"]}])

CASES: dict[str, tuple[type[BaseException], str, Callable[[], Any]]] = {
    "unknown column": (mill.SchemaError, r'"prise" does not exist; did you mean "price"', lambda: S.select("prise")),
    "unknown column in an expression": (mill.SchemaError, r'did you mean "qty"', lambda: S.filter(col("qyt") > 1)),
    "wrong type": (mill.SchemaError, r'col\("price"\).*col\("name"\)', lambda: S.select(x=col("price") + col("name"))),
    "filter that is not boolean": (mill.SchemaError, "boolean", lambda: S.filter(col("qty"))),
    "key that cannot be hashed": (mill.SchemaError, "tags|key", lambda: mill.from_iter([{"o": {1}}], schema={"o": object}).key_by("o")),
    "bare number as a duration": (mill.PlanError, "bare number 5", lambda: S.event_time("price", watermark=5)),  # type: ignore[arg-type]
    "aggregate outside agg": (mill.PlanError, "agg", lambda: S.select(x=col("qty").sum())),
    "no aggregate in agg": (mill.PlanError, "aggregate|agg", lambda: S.key_by("name").agg(x=col("qty") + 1)),
    "two columns of one name": (mill.PlanError, "qty", lambda: S.select("qty", qty=col("price"))),
    "union of other columns": (mill.SchemaError, "union|column", lambda: S.union(S.drop("qty"))),
    "late of what is no window": (mill.PlanError, "late|window", lambda: S.late),
    "explode of no list": (mill.SchemaError, "list", lambda: S.explode("name")),
    "unnest of no struct": (mill.SchemaError, "struct", lambda: S.unnest("name")),
    "names in a list": (mill.PlanError, r"select\(\*names\)", lambda: S.select(["name", "qty"])),  # type: ignore[arg-type]
    "constant as a column": (mill.PlanError, r"name a constant: x=lit\(5\)", lambda: S.select(5)),  # type: ignore[arg-type]
    "no function": (mill.PlanError, "takes a function", lambda: S.map(5)),  # type: ignore[arg-type]
    "no sink": (mill.PlanError, "at least one sink", lambda: mill.run()),
    "stream as a sink": (mill.PlanError, "end it with a sink", lambda: mill.run(S)),  # type: ignore[arg-type]
    "collect without end": (mill.PlanError, "never end", lambda: mill.generate().collect()),
    "wrong mode": (mill.PlanError, "exactly_once", lambda: mill.Checkpoint("x", mode="twice")),  # type: ignore[arg-type]
    "retain nothing": (mill.PlanError, "at least 1", lambda: mill.Checkpoint("x", retain=0)),
    "wrong parallelism": (mill.PlanError, "parallelism", lambda: S.collect(parallelism=0)),
    "wrong on_error": (mill.PlanError, '"skip"', lambda: S.collect(on_error="ignore")),  # type: ignore[arg-type]
    "restart without a checkpoint": (
        mill.PlanError,
        "checkpoint",
        lambda: mill.run(S.print(), restart=mill.Restart.fixed_delay(1)),
    ),
    "index outside generate": (mill.PlanError, "generate", lambda: S.select(x=mill.index())),
    "type that is none": (mill.SchemaError, "not a column type", lambda: mill.from_iter([1], schema={"x": print})),
    "list of nothing": (mill.SchemaError, r"list\[str\]", lambda: mill.from_iter([1], schema={"x": list})),
    "records of several types": (mill.SchemaError, "holds both", lambda: mill.from_iter([{"x": 1}, {"x": "a"}])),
    "record that does not fit": (
        mill.SchemaError,
        r"""record 1: column "x" is int64 and cannot hold 'a' \(str\)""",
        lambda: mill.from_iter([{"x": 1}, {"x": "a"}], schema={"x": int}),
    ),
    "no records": (mill.SchemaError, "pass schema=", lambda: mill.from_iter([])),
    "one record for many": (mill.PlanError, r"write \[record\]", lambda: mill.from_iter({"x": 1})),
    "text for many": (mill.PlanError, r"write \[value\]", lambda: mill.from_iter("abc")),
    "what has no arrow": (mill.PlanError, "from_iter", lambda: mill.from_arrow([1, 2])),
    "missing file": (mill.ConnectorError, "nothing.txt", lambda: mill.read_text("nothing.txt")),
    "udf without a type": (mill.PlanError, "annotate", lambda: mill.udf()(lambda x: x)),
    "quantile out of range": (mill.PlanError, "between 0 and 1", lambda: col("x").quantile(99)),
    "is_in of a text": (mill.PlanError, r"write is_in\(\['abc'\]\)", lambda: col("x").is_in("abc")),
    "name twice": (
        mill.PlanError,
        "twice|two steps|same|both",
        lambda: mill.run(S.key_by("name").agg(n=mill.count()).name("a").print(), S.key_by("qty").agg(n=mill.count()).name("a").print()),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_is_an_error_where_it_stands(name: str, raises_at_caller: Any) -> None:
    kind, message, call = CASES[name]
    raises_at_caller(kind, message, call)


def test_errors_are_of_one_family() -> None:
    for kind in (mill.PlanError, mill.SchemaError, mill.CheckpointError, mill.ConnectorError, mill.UserFunctionError):
        assert issubclass(kind, mill.MillstreamError)


def test_updating_stream_into_an_append_only_sink(tmp_path: Path) -> None:
    updating = S.key_by("name").agg(n=mill.count(), emit="1s")
    with pytest.raises(mill.PlanError, match="updating stream.*key=") as info:
        updating.write_parquet(tmp_path)
    assert 'emit="end"' in str(info.value)


def test_iterator_cannot_keep_exactly_once(tmp_path: Path) -> None:
    stream = mill.from_iter(iter([1, 2]), schema=int)
    for mode in ("exactly_once", "at_least_once"):
        with pytest.raises(mill.MillstreamError, match="from_iter"):
            mill.run(stream.write_csv(tmp_path / "out"), checkpoint=mill.Checkpoint(tmp_path / "state", mode=mode))  # type: ignore[arg-type]


def test_malformed_line_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("a,b\n1,2\n3,x\n5,6\n")
    stream = mill.read_csv(path, schema={"a": int, "b": int})
    with pytest.raises(mill.MillstreamError, match=r"bad\.csv.*3"):
        stream.collect()
    assert stream.collect(on_error="skip").to_pylist() == [{"a": 1, "b": 2}, {"a": 5, "b": 6}]


def test_state_of_another_plan_is_refused(tmp_path: Path) -> None:
    rows = mill.generate(rows=100, k=mill.index() % 3)
    mill.run(rows.key_by("k").agg(n=mill.count()).name("a").write_csv(tmp_path / "one"), checkpoint=tmp_path / "state")
    with pytest.raises(mill.CheckpointError, match="plan|step|restore"):
        other = rows.key_by("k").agg(n=mill.count(), m=col("k").max()).name("b")
        mill.run(other.write_csv(tmp_path / "two"), checkpoint=tmp_path / "state")


def test_state_in_use_is_refused(tmp_path: Path) -> None:
    endless = mill.generate(rate=100)
    with (
        mill.start(endless.write_csv(tmp_path / "a"), checkpoint=tmp_path / "state"),
        pytest.raises(mill.CheckpointError, match="use|lock"),
    ):
        mill.start(endless.write_csv(tmp_path / "b"), checkpoint=tmp_path / "state")


def test_callback_cannot_keep_exactly_once(tmp_path: Path) -> None:
    with pytest.raises(mill.PlanError, match="at_least_once"):
        mill.run(S.for_each(lambda row: None), checkpoint=tmp_path / "state")
    mill.run(S.for_each(lambda row: None), checkpoint=mill.Checkpoint(tmp_path / "state", mode="at_least_once"))


def test_step_of_an_error_is_an_attribute() -> None:
    with pytest.raises(mill.MillstreamError) as info:
        S.map(lambda row: 1 / 0, schema=int).name("divide").collect()
    assert info.value.step == "divide"
    assert isinstance(info.value.__cause__, ZeroDivisionError)
