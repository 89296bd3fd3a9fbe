"""A bare string is a column wherever Polars takes one, and a value where Polars takes a value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

import millstream as mill
from millstream import col

FRAME = pl.DataFrame(
    {
        "a": [1, 5, 3],
        "b": [4, 2, 3],
        "p": [True, False, True],
        "q": [True, True, False],
        "s": ["x", "s", "t"],
        "t": ["t", None, "s"],
        "i": [0, -1, 1],
        "l": [[1, 2], [3, 4], [5, 6]],
        "m": [[2], [4, 3], [7]],
        "w": [["s"], ["t", "x"], []],
    }
)

Build = Callable[[Any], Any]

EXPRESSIONS: dict[str, Build] = {
    "concat_str": lambda m: m.concat_str("s", "a", separator="a"),
    "coalesce": lambda m: m.coalesce("t", "s"),
    "min_horizontal": lambda m: m.min_horizontal("a", "b"),
    "max_horizontal": lambda m: m.max_horizontal("a", "b"),
    "when": lambda m: m.when("p").then("a").otherwise("b"),
    "when.when": lambda m: m.when(m.col("a") > 4).then("a").when("q").then("b").otherwise(m.lit(0)),
    "then": lambda m: m.when(m.col("a") > 2).then("s"),
    "lit": lambda m: m.lit("s"),
    "eq": lambda m: m.col("s") == "t",
    "ne": lambda m: m.col("s") != "s",
    "lt": lambda m: m.col("s") < "t",
    "ge": lambda m: m.col("s") >= "t",
    "reflected": lambda m: "t" == m.col("s"),
    "add": lambda m: m.col("s") + "t",
    "radd": lambda m: "t" + m.col("s"),
    "eq_missing": lambda m: m.col("t").eq_missing("t"),
    "is_in": lambda m: m.col("s").is_in(["t", "x"]),
    "fill_null": lambda m: m.col("t").fill_null("s"),
    "and": lambda m: m.col("p") & "q",
    "or": lambda m: m.col("p") | "q",
    "xor": lambda m: m.col("p") ^ "q",
    "rand": lambda m: "q" & m.col("p"),
    "pow": lambda m: m.col("a").cast(pl.Float64 if m is pl else float) ** "b",
    "is_between": lambda m: m.col("a").is_between("b", 5),
    "clip": lambda m: m.col("a").clip(2, "b"),
    "contains": lambda m: m.col("s").str.contains("s"),
    "starts_with": lambda m: m.col("s").str.starts_with("t"),
    "ends_with": lambda m: m.col("s").str.ends_with("t"),
    "replace": lambda m: m.col("s").str.replace("s", "t"),
    "strip_chars": lambda m: m.col("s").str.strip_chars("t"),
    "split": lambda m: m.col("s").str.split("s"),
    "find": lambda m: m.col("s").str.find("s"),
    "list.get": lambda m: m.col("l").list.get("i", null_on_oob=True),
    "list.contains": lambda m: m.col("w").list.contains("s"),
    "list.join": lambda m: m.col("w").list.join("s"),
    "list.set_union": lambda m: m.col("l").list.set_union("m").list.sort(),
    "list.set_intersection": lambda m: m.col("l").list.set_intersection("m"),
    "list.set_difference": lambda m: m.col("l").list.set_difference("m"),
}

STEPS: dict[str, Callable[[Any, Any], Any]] = {
    "select": lambda m, s: s.select("a", x="s"),
    "with_columns": lambda m, s: s.with_columns("b", x="s"),
    "filter": lambda m, s: s.filter("p"),
    "agg of a filter": lambda m, s: (s.group_by if m is pl else s.key_by)("p").agg(
        n=m.col("a").filter("q").sum() if m is pl else m.col("a").sum().filter("q")
    ).select("n"),
    "key": lambda m, s: (s.group_by if m is pl else s.key_by)(k="s").agg(n=m.col("a").sum()).select("k", "n"),
}


def test_an_expression_takes_strings_as_polars_does() -> None:
    stream = mill.from_arrow(FRAME)
    for name, build in EXPRESSIONS.items():
        wanted = FRAME.select(out=build(pl))["out"].to_list()
        found = stream.select(out=build(mill)).collect()["out"]
        if len(wanted) == 1:
            wanted = wanted * len(found)
        assert found == wanted, name


@pytest.mark.parametrize("name", STEPS)
def test_a_step_takes_strings_as_polars_does(name: str) -> None:
    wanted = STEPS[name](pl, FRAME).to_dicts()
    found = STEPS[name](mill, mill.from_arrow(FRAME)).collect(parallelism=1).to_pylist()
    assert sorted(map(repr, found)) == sorted(map(repr, wanted))


class Longest:
    """The longest text."""

    def create(self) -> str:
        return ""

    def add(self, state: str, value: str) -> str:
        return max(state, value or "", key=len)

    def merge(self, left: str, right: str) -> str:
        return max(left, right, key=len)

    def result(self, state: str) -> str:
        return state


def test_what_polars_does_not_have() -> None:
    stream = mill.from_arrow(FRAME)

    @mill.udf
    def doubled(text: str) -> str:
        return text * 2

    assert stream.select(d=doubled("s")).collect()["d"] == ["xx", "ss", "tt"]
    assert doubled.__wrapped__("s") == "ss"  # type: ignore[attr-defined]
    joined = mill.udf(returns=str)(lambda s, t: s + t)
    assert stream.select(d=joined("s", col("s"))).collect()["d"] == ["xx", "ss", "tt"]
    assert stream.key_by("p").agg(longest=mill.aggregate(Longest, "s")).schema["longest"] == str
    yes, no = stream.branch("p")
    assert (yes.collect()["a"], no.collect()["a"]) == ([1, 3], [5])


WRONG: dict[str, Callable[[mill.Stream], Any]] = {
    "select": lambda s: s.select(x="nix"),
    "with_columns": lambda s: s.with_columns(x="nix"),
    "filter": lambda s: s.filter("nix"),
    "branch": lambda s: s.branch("nix"),
    "key_by": lambda s: s.key_by(k="nix"),
    "concat_str": lambda s: s.select(x=mill.concat_str("s", "nix")),
    "coalesce": lambda s: s.select(x=mill.coalesce("s", "nix")),
    "then": lambda s: s.select(x=mill.when("p").then("nix")),
    "otherwise": lambda s: s.select(x=mill.when("p").then("s").otherwise("nix")),
    "when": lambda s: s.select(x=mill.when("nix").then("s")),
    "horizontal": lambda s: s.select(x=mill.max_horizontal("a", "nix")),
    "is_between": lambda s: s.filter(col("s").is_between("nix", "t")),
    "aggregate": lambda s: s.key_by("p").agg(x=mill.aggregate(Longest, "nix")),
    "udf": lambda s: s.select(x=mill.udf(returns=str)(lambda text: text)("nix")),
    "generate": lambda s: mill.generate(rows=1, x="nix"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_unknown_column_names_what_makes_a_text(name: str) -> None:
    with pytest.raises(mill.SchemaError, match=r'column "nix" does not exist.*lit\("nix"\)'):
        WRONG[name](mill.from_arrow(FRAME))

