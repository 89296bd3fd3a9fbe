"""Steps over columns and records, against plain Python."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import millstream as mill
from millstream import col

ROWS = [{"k": i % 7, "x": i, "t": [f"a{i}", "b"] if i % 3 else [], "s": {"p": i, "q": str(i)}} for i in range(500)]


def rows(stream: mill.Stream, **options: Any) -> list[dict[str, Any]]:
    return stream.collect(**options).to_pylist()


def by(key: str, found: list[dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    assert len({row[key] for row in found}) == len(found), "a key came twice"
    return {row[key]: row for row in found}


def test_select_and_with_columns() -> None:
    stream = mill.from_iter(ROWS)
    assert rows(stream.select("x", y=col("x") * 2)) == [{"x": r["x"], "y": r["x"] * 2} for r in ROWS]
    assert rows(stream.select("x").with_columns(x=col("x") + 1, z=mill.lit("c"))) == [
        {"x": r["x"] + 1, "z": "c"} for r in ROWS
    ]


def test_drop_rename_cast() -> None:
    stream = mill.from_iter(ROWS).drop("t", "s").rename({"x": "y"}).cast({"y": float})
    assert stream.schema == {"k": int, "y": float}
    assert rows(stream) == [{"k": r["k"], "y": float(r["x"])} for r in ROWS]


def test_filter_by_expression_and_by_function() -> None:
    stream = mill.from_iter(ROWS).select("x")
    wanted = [{"x": r["x"]} for r in ROWS if r["x"] % 5 == 0]
    assert rows(stream.filter(col("x") % 5 == 0)) == wanted
    assert rows(stream.filter(lambda row: row.x % 5 == 0)) == wanted


def test_explode() -> None:
    stream = mill.from_iter(ROWS).select("x", "t")
    assert rows(stream.explode("t")) == [{"x": r["x"], "t": t} for r in ROWS for t in r["t"]]
    assert rows(stream.explode("t", keep_empty=True)) == [{"x": r["x"], "t": t} for r in ROWS for t in r["t"] or [None]]


def test_unnest() -> None:
    assert rows(mill.from_iter(ROWS).select("s").unnest("s")) == [r["s"] for r in ROWS]


def test_limit_ends_an_unbounded_stream() -> None:
    assert len(mill.generate().limit(1234).collect(limit=5000)) == 1234


def test_union_and_branch() -> None:
    stream = mill.from_iter(ROWS).select("x")
    yes, no = stream.branch(col("x") < 100)
    assert sorted(r["x"] for r in rows(yes)) == list(range(100))
    assert sorted(r["x"] for r in rows(yes.union(no))) == list(range(500))


def test_a_stream_used_twice_is_read_once() -> None:
    seen: list[int] = []
    stream = mill.from_iter([{"x": i} for i in range(10)]).inspect(lambda row: seen.append(row.x))
    first: list[int] = []
    second: list[int] = []
    mill.run(
        stream.for_each(lambda row: first.append(row.x)),
        stream.filter(col("x") > 4).for_each(lambda row: second.append(row.x)),
    )
    assert sorted(seen) == sorted(first) == list(range(10))
    assert sorted(second) == [5, 6, 7, 8, 9]


@pytest.mark.parametrize("parallelism", [1, 2, 5])
def test_every_aggregate(parallelism: int) -> None:
    import statistics

    values: dict[int, list[int]] = defaultdict(list)
    for row in ROWS:
        values[row["k"]].append(row["x"])
    stream = mill.from_iter(ROWS)
    x = col("x")
    found = by(
        "k",
        rows(
            stream.key_by("k").agg(
                n=mill.count(),
                sum=x.sum(),
                mean=x.mean(),
                min=x.min(),
                max=x.max(),
                first=x.first(),
                last=x.last(),
                unique=(x % 10).n_unique(),
                std=x.std(),
                var=x.var(),
                median=x.median(),
                q=x.quantile(0.25),
                all=x.collect(),
                even=mill.count().filter(x % 2 == 0),
                about=(x % 10).approx_n_unique(),
                near=x.approx_quantile(0.5),
            ),
            parallelism=parallelism,
        ),
    )
    assert set(found) == set(values)
    for key, own in values.items():
        row = found[key]
        assert row["n"] == len(own)
        assert row["sum"] == sum(own)
        assert row["mean"] == pytest.approx(statistics.fmean(own))
        assert (row["min"], row["max"]) == (min(own), max(own))
        assert (row["first"], row["last"]) == (own[0], own[-1])
        assert row["unique"] == row["about"] == len({value % 10 for value in own})
        assert row["std"] == pytest.approx(statistics.stdev(own))
        assert row["var"] == pytest.approx(statistics.variance(own))
        assert row["median"] == pytest.approx(statistics.median(own))
        assert row["q"] == pytest.approx(statistics.quantiles(own, n=4, method="inclusive")[0])
        assert row["all"] == own
        assert row["even"] == sum(value % 2 == 0 for value in own)
        assert row["near"] == pytest.approx(statistics.median(own), rel=0.05)


def test_key_by_expression() -> None:
    found = rows(mill.from_iter(ROWS).key_by(bucket=col("x") // 100).agg(n=mill.count()))
    assert by("bucket", found) == {b: {"bucket": b, "n": 100} for b in range(5)}


def test_null_and_nan_are_keys() -> None:
    nan = float("nan")
    found = rows(mill.from_iter([{"k": k} for k in (None, 1.0, nan, None, nan)]).key_by("k").agg(n=mill.count()))
    assert Counter(repr(row["k"]) for row in found) == {"None": 1, "1.0": 1, "nan": 1}
    assert {repr(row["k"]): row["n"] for row in found} == {"None": 2, "1.0": 1, "nan": 2}


def test_sum_of_no_value_is_null() -> None:
    found = rows(mill.from_iter([{"k": 1, "x": None}], schema={"k": int, "x": int}).key_by("k").agg(s=col("x").sum(), n=col("x").count()))
    assert found == [{"k": 1, "s": None, "n": 0}]


def test_updating_stream_ends_with_the_latest_row_of_each_key() -> None:
    stream = mill.from_iter(ROWS).key_by("k").agg(n=mill.count(), emit="each")
    assert stream.updating_key == ["k"]
    assert by("k", rows(stream)) == {k: {"k": k, "n": n} for k, n in Counter(r["k"] for r in ROWS).items()}


def test_reduce() -> None:
    def longest(left: Any, right: Any) -> Any:
        return left if left.x >= right.x else right

    found = rows(mill.from_iter(ROWS).select("k", "x").key_by("k").reduce(longest))
    assert by("k", found) == {k: {"k": k, "x": max(r["x"] for r in ROWS if r["k"] == k)} for k in range(7)}


def test_own_aggregate() -> None:
    class Product:
        def create(self) -> int:
            return 1

        def add(self, state: int, value: int) -> int:
            return state * value % 1_000_003

        def merge(self, left: int, right: int) -> int:
            return left * right % 1_000_003

        def result(self, state: int) -> int:
            return state

    found = rows(mill.from_iter(ROWS).key_by("k").agg(p=mill.aggregate(Product, col("x") + 1)))
    for row in found:
        wanted = 1
        for source in ROWS:
            if source["k"] == row["k"]:
                wanted = wanted * (source["x"] + 1) % 1_000_003
        assert row["p"] == wanted


def test_generate_is_the_same_in_every_run() -> None:
    stream = mill.generate(rows=10_000, k=mill.index() % 10, x=mill.random(3))
    first, second = (rows(stream.key_by("k").agg(s=col("x").sum()), parallelism=p) for p in (1, 4))
    assert by("k", first).keys() == by("k", second).keys() == set(range(10))
    for k, row in by("k", first).items():
        assert row["s"] == pytest.approx(by("k", second)[k]["s"])


def test_iter_batches_gives_everything_and_can_be_left() -> None:
    assert sum(batch.num_rows for batch in mill.generate(rows=100_000).iter_batches()) == 100_000
    for batch in mill.generate().iter_batches():
        assert batch.num_rows > 0
        break


def test_collect_until_gives_what_came() -> None:
    table = mill.generate(rate=1000).collect(until="300ms")
    assert 0 < len(table) < 1000


def test_graph_is_drawn() -> None:
    graph = mill.from_iter(ROWS).filter(col("x") > 1).key_by("k").agg(n=mill.count()).graph(parallelism=2)
    assert graph.nodes[0].kind == "source"
    assert any("hash" in edge.label for edge in graph.edges)
    assert graph._repr_html_().count("<rect") == len(graph.nodes)
    assert "agg" in str(graph)


def test_explain_shows_the_steps() -> None:
    text = mill.from_iter(ROWS).filter(col("x") > 1).key_by("k").agg(n=mill.count()).explain()
    assert "filter" in text
    assert "agg" in text


def test_now_is_the_time_at_which_records_pass() -> None:
    began = datetime.now(UTC)
    stream = mill.generate(rows=3).with_columns(seen=mill.now()).with_columns(again=mill.col("seen"))
    rows = stream.collect().to_pylist()
    assert all(began - timedelta(milliseconds=1) <= row["seen"] <= datetime.now(UTC) for row in rows)
    assert all(row["seen"] == row["again"] for row in rows)


def test_now_is_asked_for_when_a_condition_is_looked_at() -> None:
    late = datetime.now(UTC) + timedelta(seconds=0.3)
    stream = mill.generate(rows=100, rate=100, due=mill.lit(late)).filter(mill.col("due") > mill.now())
    assert 0 < len(stream.collect()) < 100


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_the_first_records_are_those_of_the_first_file(kind: str, tmp_path: Path) -> None:
    for number in range(5):
        rows = [{"n": 1_000_000 * number + row, "text": f"some text {row}"} for row in range(20_000)]
        mill.run(getattr(mill.from_iter(rows), f"write_{kind}")(tmp_path / f"{number}"), parallelism=1)
        [written] = (tmp_path / f"{number}").glob(f"*.{kind}")
        written.rename(tmp_path / f"part{number}.{kind}")
    stream = getattr(mill, f"read_{kind}")(tmp_path / f"part*.{kind}")
    everything = [1_000_000 * number + row for number in range(5) for row in range(20_000)]
    odd = [n for n in everything if n % 2]
    for _ in range(3):
        for rows in (1, 30_000):
            assert stream.limit(rows).collect(parallelism=3)["n"] == everything[:rows]
            assert stream.collect(limit=rows, parallelism=3)["n"] == everything[:rows]
            made = stream.filter(col("n") % 2 == 1).with_columns(m=col("n") + 1).map(lambda row: {"m": row.m}, schema={"m": int})
            assert made.limit(rows).collect(parallelism=3)["m"] == [n + 1 for n in odd[:rows]]


def test_first_and_last_pass_over_nulls_where_asked_and_texts_are_joined_in_event_time() -> None:
    chance = random.Random(3)
    rows = [
        {"k": chance.randrange(20), "t": datetime(2026, 1, 1) + timedelta(seconds=chance.randrange(1000)), "s": chance.choice([None, "a", "b", "é", ""])}
        for _ in range(2_000)
    ]
    keyed = mill.from_iter(rows).event_time("t", watermark="1h").key_by("k")
    result = keyed.agg(
        first=col("s").first(ignore_nulls=True),
        last=col("s").last(ignore_nulls=True),
        a=col("s").last(ignore_nulls=True).filter(col("s") != "é"),
        null=col("s").first(),
        joined=col("s").str.join(", "),
    )
    seen = {row["k"]: row for row in result.collect(parallelism=2).to_pylist()}
    for key in range(20):
        texts = [row["s"] for row in sorted((row for row in rows if row["k"] == key), key=lambda row: row["t"])]
        there = [text for text in texts if text is not None]
        assert seen[key] == {
            "k": key,
            "first": there[0],
            "last": there[-1],
            "a": [text for text in there if text != "é"][-1],
            "null": texts[0],
            "joined": ", ".join(there),
        }
    none = mill.from_iter([None], schema={"s": str}).agg(f=col("s").first(ignore_nulls=True), j=col("s").str.join("-"))
    assert none.collect().to_pylist() == [{"f": None, "j": ""}]
    with pytest.raises(mill.PlanError, match="takes True or False"):
        col("s").first(ignore_nulls="yes")  # type: ignore[arg-type]
    with pytest.raises(mill.SchemaError, match="list of strings"):
        mill.from_iter([1]).agg(j=col("value").str.join("-"))


def test_the_length_of_a_name_is_counted_in_characters(tmp_path: Path) -> None:
    def run(name: str) -> mill.Report:
        totals = mill.from_iter([{"k": 1}]).key_by("k").agg(n=mill.count()).name(name)
        return mill.run(totals.write_csv(tmp_path / "out"), checkpoint=tmp_path / "state")

    run("日" * 200)
    assert mill.read_state(tmp_path / "state", step="日" * 200).to_pylist() == [{"k": 1, "n": 1}]
    with pytest.raises(mill.PlanError, match="1 to 200 printable characters"):
        run("日" * 201)
