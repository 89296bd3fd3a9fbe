"""any, all, product, mode, min_by, max_by and lists of quantiles, against plain Python over the same records."""

from __future__ import annotations

import json
import math
import random
import statistics
from collections import Counter
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import millstream as mill
from millstream import col, testing

NAN = float("nan")
SECOND = 1_000_000

AGGREGATES = {
    "any": col("flag").any(),
    "all": col("flag").all(),
    "product": col("small").product(),
    "scaled": col("x").product(),
    "mode": col("word").mode(),
    "least": col("word").min_by("x"),
    "most": col("word").max_by(col("x")),
    "some": col("small").quantile([0.25, 1.0, 0]),
    "kept": col("flag").any().filter(col("small") > 0),
}


def records(seed: int, count: int) -> list[dict[str, Any]]:
    """Records with nulls, NaN of both signs, infinities, zeros, ties and groups without any value."""
    chance = random.Random(seed)
    floats = [None, NAN, -NAN, 0.0, -0.0, 1.5, -2.25, 1e200, -1e-200, 5e-324, math.inf, 3.0]
    made = []
    for number in range(count):
        key = chance.randrange(6)
        is_empty = key == 5
        made.append(
            {
                "k": key,
                "t": number * SECOND + chance.randrange(3) * SECOND,
                "flag": None if is_empty else chance.choice([True, False, None]) if key != 4 else True,
                "small": None if is_empty else chance.choice([None, -3, -1, 0, 1, 2, 7] if key % 2 else [1, 2, -1, 3, None]),
                "x": None if is_empty else chance.choice(floats if key % 2 else [1.5, -2.25, 1e200, 1e-200, 3.0, None]),
                "word": None if is_empty else chance.choice(["a", "b", "c", "ä", None]),
            }
        )
    return made


def table(rows: list[dict[str, Any]]) -> pa.Table:
    schema = pa.schema(
        [("k", pa.int64()), ("t", pa.timestamp("us")), ("flag", pa.bool_()), ("small", pa.int32()), ("x", pa.float64()), ("word", pa.string())]
    )
    return pa.Table.from_pylist(rows, schema=schema)


def product_of_floats(values: list[float]) -> float | None:
    if not values:
        return None
    if any(math.isnan(value) for value in values):
        return NAN
    sign = math.prod(math.copysign(1.0, value) for value in values)
    if any(math.isinf(value) for value in values):
        return NAN if 0.0 in values else sign * math.inf
    exact = math.prod((abs(Fraction(value)) for value in values), start=Fraction(1))
    try:
        return math.copysign(float(exact), sign)
    except OverflowError:
        return sign * math.inf


def by_of(pairs: list[tuple[float, Any]], *, is_least: bool) -> Any:
    """Return the value of the pair that is best; NaN is the largest number, null the smallest value."""
    order = [((math.isnan(by), 0.0 if math.isnan(by) else by), (value is not None, value or ""), value) for by, value in pairs]
    return None if not order else (min if is_least else max)(order, key=lambda pair: pair[:2])[2]


def quantile(values: list[int], at: float) -> float | None:
    if not values:
        return None
    ordered, place = sorted(values), Fraction(at) * (len(values) - 1)
    low = math.floor(place)
    high = min(low + 1, len(values) - 1)
    return float(ordered[low] + (place - low) * (ordered[high] - ordered[low]))


def expected(rows: list[dict[str, Any]]) -> dict[str, Any]:
    flags = [row["flag"] for row in rows if row["flag"] is not None]
    small = [row["small"] for row in rows if row["small"] is not None]
    words = Counter(row["word"] for row in rows if row["word"] is not None)
    pairs = [(row["x"], row["word"]) for row in rows if row["x"] is not None]
    most = max(words.values(), default=0)
    return {
        "any": any(flags),
        "all": all(flags),
        "product": math.prod(small) if small else None,
        "scaled": product_of_floats([row["x"] for row in rows if row["x"] is not None]),
        "mode": sorted(word for word, times in words.items() if times == most),
        "least": by_of(pairs, is_least=True),
        "most": by_of(pairs, is_least=False),
        "some": [quantile(small, at) for at in (0.25, 1.0, 0)],
        "kept": any(row["flag"] for row in rows if (row["small"] or 0) > 0),
    }


def shown(row: dict[str, Any]) -> str:
    """Return a row as text: NaN is NaN, and zero has its sign."""
    return repr({name: "nan" if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()})


def compare(found: list[dict[str, Any]], groups: dict[Any, list[dict[str, Any]]], keys: tuple[str, ...]) -> None:
    assert len(found) == len(groups)
    for row in found:
        key = tuple(row[name] for name in keys)
        wanted = expected(groups[key])
        assert shown({name: row[name] for name in AGGREGATES}) == shown(wanted), (key, groups[key])


def micros(moment: Any) -> int:
    import datetime

    return round((moment - datetime.datetime(1970, 1, 1)) / datetime.timedelta(microseconds=1))


@pytest.mark.parametrize("seed", range(3))
def test_of_keys_and_of_all(seed: int) -> None:
    rows = records(seed, 60)
    groups: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["k"],), []).append(row)
    s = mill.from_arrow(table(rows))
    compare(s.key_by("k").agg(**AGGREGATES).collect(parallelism=2).to_pylist(), groups, ("k",))
    [all_of_them] = s.agg(**AGGREGATES).collect().to_pylist()
    assert shown(all_of_them) == shown(expected(rows))
    [none] = s.filter(col("k") > 100).agg(**AGGREGATES).collect().to_pylist()
    assert shown(none) == shown(expected([]))


@pytest.mark.parametrize(("size", "slide"), [(10, 10), (12, 4), (9, 2)])
def test_of_windows(size: int, slide: int) -> None:
    rows = records(7, 70)
    groups: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        second = row["t"] // SECOND
        for start in range(second - second % slide, second - size, -slide):
            groups.setdefault((row["k"], start), []).append(row)
    window = mill.tumbling(f"{size}s") if size == slide else mill.sliding(f"{size}s", slide=f"{slide}s")
    s = mill.from_arrow(table(rows)).event_time("t", watermark="5s")
    found = s.key_by("k").window(window).agg(**AGGREGATES).collect(parallelism=2).to_pylist()
    for row in found:
        row["start"] = micros(row["window_start"]) // SECOND
    compare(found, groups, ("k", "start"))


def test_of_sessions_counts_and_the_last_seconds() -> None:
    rows = sorted(records(11, 60), key=lambda row: row["t"])
    s = mill.from_arrow(table(rows)).event_time("t", watermark="5s")
    for row in s.key_by("k").rolling("10s").agg(**AGGREGATES).collect(parallelism=1).to_pylist():
        at = micros(row["t"])
        within = [other for other in rows if other["k"] == row["k"] and at - 10 * SECOND < other["t"] <= at]
        assert shown({name: row[name] for name in AGGREGATES}) == shown(expected(within))
    for row in s.key_by("k").window(mill.session("4s")).agg(**AGGREGATES).collect(parallelism=1).to_pylist():
        first, end = micros(row["window_start"]), micros(row["window_end"])
        within = [other for other in rows if other["k"] == row["k"] and first <= other["t"] < end]
        assert shown({name: row[name] for name in AGGREGATES}) == shown(expected(within))
    by_key: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        by_key.setdefault(row["k"], []).append(row)
    found = mill.from_arrow(table(rows)).key_by("k").window(mill.count_window(4)).agg(**AGGREGATES).collect(parallelism=1).to_pylist()
    wanted = [expected(of[at : at + 4]) for of in by_key.values() for at in range(0, len(of) - 3, 4)]
    assert sorted(shown({name: row[name] for name in AGGREGATES}) for row in found) == sorted(map(shown, wanted))


@pytest.mark.parametrize("steps", [40, 90, 200])
def test_state_survives_a_kill(tmp_path: Path, steps: int) -> None:
    rows = records(3, 80)
    source = tmp_path / "in.arrow"
    with pa.ipc.new_file(source, table(rows).schema) as writer:
        writer.write_table(table(rows), max_chunksize=9)

    def flow() -> mill.Output:
        s = mill.read_arrow(source).event_time("t", watermark="5s")
        return s.key_by("k").window(mill.global_window(), trigger=mill.on_count(5)).agg(**AGGREGATES).to_changelog().write_arrow(tmp_path / "out")

    checkpoint = mill.Checkpoint(tmp_path / "state", every="1ms")
    assert testing.simulate(flow(), seed=steps, steps=steps, checkpoint=checkpoint, parallelism=2, frame_rows=10) is None
    report = testing.simulate(flow(), seed=1, checkpoint=checkpoint, parallelism=2, frame_rows=10)
    assert report is not None and report.status == "finished"
    last = {row["k"]: row for row in mill.read_arrow(tmp_path / "out").collect(parallelism=1).to_pylist()}
    latest: dict[Any, dict[str, Any]] = {}
    for row in mill.read_arrow(tmp_path / "out").collect(parallelism=1).to_pylist():
        if row["pane"] >= latest.get(row["k"], row)["pane"]:
            latest[row["k"]] = row
    assert set(last) == set(latest)
    for key, row in latest.items():
        assert shown({name: row[name] for name in AGGREGATES}) == shown(expected([each for each in rows if each["k"] == key]))


def test_products_that_do_not_fit_are_errors_of_their_group() -> None:
    rows = [{"k": 1, "n": 2**40}, {"k": 1, "n": -(2**30)}, {"k": 2, "n": 2**62}, {"k": 2, "n": 2}, {"k": 3, "n": -(2**62)}, {"k": 3, "n": 2}]
    rows += [{"k": 4, "n": 2**62}, {"k": 4, "n": 2**62}, {"k": 4, "n": 0}]
    products = mill.from_iter(rows).key_by("k").agg(p=col("n").product())
    with pytest.raises(mill.DataError, match='product "p".* overflows int64; cast its input to float'):
        products.collect()
    # What is too large on the way and in the end not, is not.
    assert sorted(map(tuple, map(dict.values, products.collect(on_error="skip").to_pylist()))) == [(3, -(2**63)), (4, 0)]
    unsigned = mill.from_arrow(pa.table({"n": pa.array([2**63, 1, None], pa.uint64()), "b": [True, True, None]}))
    assert unsigned.agg(a=col("n").product(), b=col("b").product()).collect().to_pylist() == [{"a": 2**63, "b": 1}]


def test_what_they_do_not_take_is_refused() -> None:
    s = mill.from_iter([{"n": 1, "d": __import__("decimal").Decimal(1), "l": [1], "s": "a"}])
    for aggregate, said in [
        (col("n").any(), r"any\(\) needs booleans, found col\(\"n\"\) \(int64\)"),
        (col("s").all(), r"all\(\) needs booleans"),
        (col("d").product(), r"product\(\) needs integers, floats or booleans; cast it to float, found decimal"),
        (col("n").min_by("l"), r"min_by\(\) needs values with an order \(numbers, strings, times\) to go by, found list"),
        (col("l").mode(), r"list\.mode\(\) needs a list of values with an order"),
    ]:
        with pytest.raises(mill.SchemaError, match=said):
            s.agg(x=aggregate)
    with pytest.raises(mill.PlanError, match="needs at least one quantile"):
        col("n").quantile([])
    with pytest.raises(mill.PlanError, match="between 0 and 1, not 2"):
        col("n").quantile([0.5, 2])
    # Nested values are kept as they are.
    assert s.agg(x=col("l").max_by("n"), y=col("d").min_by("s")).collect().to_pylist() == [{"x": [1], "y": 1}]


def test_equal_aggregates_of_expressions_are_computed_once() -> None:
    rows = [{"k": n % 3, "a": n, "b": 2 * n + n % 2} for n in range(60)]
    a, b = col("a").cast(float), col("b").cast(float)
    mean = a.sum() / mill.count().cast(float)
    both = (a * b).sum() / mill.count().cast(float) - mean * (b.sum() / mill.count().cast(float))
    shared = mill.from_iter(rows).key_by("k").agg(mean=mean, both=both, own=a.sum(), few=a.sum().filter(col("b") > 20) + a.sum())
    # Sums of a, of b, of their product and of some of a; a count; and the sum that has a name of its own.
    assert shared.explain().count("sum(float64)") == 2 * 5
    for row in shared.collect().to_pylist():
        group = [record for record in rows if record["k"] == row["k"]]
        of_a, of_b = [Fraction(record["a"]) for record in group], [Fraction(record["b"]) for record in group]
        n = len(group)
        assert row["mean"] == float(sum(of_a) / n)
        assert math.isclose(row["both"], sum(x * y for x, y in zip(of_a, of_b, strict=True)) / n - sum(of_a) * sum(of_b) / n / n)
        assert row["own"] == sum(of_a)
        assert row["few"] == sum(of_a) + sum(record["a"] for record in group if record["b"] > 20)


def test_different_functions_that_look_alike_are_not_shared() -> None:
    @mill.udf(returns=int)
    def same(x: int) -> int:
        return x + 1

    first = same

    @mill.udf(returns=int)
    def same(x: int) -> int:  # type: ignore[no-redef]  # noqa: F811
        return x + 100

    row = mill.from_iter([{"x": 1}]).agg(a=first(col("x")).sum() + 0, b=same(col("x")).sum() + 0).collect().to_pylist()
    assert row == [{"a": 2, "b": 101}]


@pytest.mark.parametrize("parallelism", [1, 3])
def test_aggregates_over_five_hundred_columns(tmp_path: Path, parallelism: int) -> None:
    names = [f"c{number}" for number in range(500)]
    rows = [{"k": n % 5} | {name: n * (at + 1) % 97 for at, name in enumerate(names)} for n in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def result(tasks: int) -> list[dict[str, Any]]:
        stream = mill.read_json(tmp_path / "rows.jsonl")
        means = [col(name).mean().alias(f"mean_{name}") for name in names]
        firsts = [col(name).first().alias(f"first_{name}") for name in names]
        spreads = [col(name).std().alias(f"std_{name}") for name in names]
        return stream.key_by("k").agg(*means, *firsts, *spreads).collect(parallelism=tasks).to_pylist()

    found = {row["k"]: row for row in result(parallelism)}
    assert len(found) == 5
    for key, row in found.items():
        group = [record for record in rows if record["k"] == key]
        for name in names:
            values = [record[name] for record in group]
            assert math.isclose(row[f"mean_{name}"], sum(values) / len(values))
            assert row[f"first_{name}"] in values
            assert math.isclose(row[f"std_{name}"], statistics.stdev(values))


def test_rows_of_state_that_are_too_wide_are_refused() -> None:
    stream = mill.from_iter([{"k": 1, "x": 1.5}])
    with pytest.raises(mill.SchemaError, match="a row of state needs [0-9]+ bytes, more than fits; use fewer aggregates in one step"):
        stream.key_by("k").agg(*(col("x").std().alias(f"a{n}") for n in range(3000))).collect()


def test_values_that_look_alike_in_messages_are_not_shared() -> None:
    rows = [{"b": text, "x": Decimal(number)} for text, number in ((b"0123456789A", "0.1"), (b"0123456789B", "0.2"), (b"0123456789B", "0.3"))]
    stream = mill.from_iter(rows, schema={"b": bytes, "x": mill.types.Decimal(10, 2)})
    counted = stream.agg(
        a=mill.count().filter(col("b") == b"0123456789A") + 0,
        b=mill.count().filter(col("b") == b"0123456789B") + 0,
        c=mill.count().filter(col("b") == b"0123456789B"),
        float=(col("x") * 1.5).sum(),
        exact=(col("x") * Decimal("1.5")).sum(),
        floats=(col("x") * 1.5).sum() + 0,
        exacts=(col("x") * Decimal("1.5")).sum() + 0,
    )
    types = {name: str(counted.schema[name]).partition("[")[0] for name in ("float", "exact", "floats", "exacts")}
    assert types == {"float": "float64", "exact": "decimal", "floats": "float64", "exacts": "decimal"}
    [row] = counted.collect().to_pylist()
    assert (row["a"], row["b"], row["c"]) == (1, 2, 2)
    assert row["exact"] == row["exacts"] == Decimal("0.9")
    assert math.isclose(row["float"], 0.9)


def test_an_aggregate_of_ones_own_with_a_known_name_is_not_shared() -> None:
    class median:  # noqa: N801
        def create(self) -> int:
            return 0

        def add(self, state: int, value: int) -> int:
            return state + value

        def merge(self, state: int, other: int) -> int:
            return state + other

        def result(self, state: int) -> int:
            return state

    rows = [{"x": x} for x in (1, 2, 30)]
    stream = mill.from_iter(rows)
    for first in (True, False):
        own, known = {"own": mill.aggregate(median, "x") * 2}, {"known": col("x").median() * 2}
        [row] = stream.agg(**({**own, **known} if first else {**known, **own})).collect().to_pylist()
        assert row["own"] == 66
        assert row["known"] == 4
