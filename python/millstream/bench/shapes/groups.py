"""Groups: the ten questions of the db-benchmark's groupby, and aggregates over keys of other kinds and numbers.

The questions and the shape of their data are those of https://duckdblabs.github.io/db-benchmark/ (`groupby`, K = 100).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import millstream as mill
from millstream import col
from millstream.bench.contest import Query
from millstream.bench.result import Settings
from millstream.bench.shapes.source import Tables, pl, pl_corr, pl_len

__all__ = ["NAME", "QUERIES", "queries"]

NAME = "groups"
QUERIES = (
    *(f"g{number}" for number in range(1, 11)),
    "g-few", "g-many", "g-two", "g-random", "g-spread", "g-distinct", "g-approx", "g-hot", "g-collect", "g-strings", "g-nulls",
)
_K = 100


def _records(rows: int) -> Any:
    import numpy as np
    import pyarrow as pa

    dice = np.random.default_rng(108)
    many = max(rows // _K, 1)
    texts = [pa.array([f"id{n:03d}" for n in range(1, _K + 1)]), pa.array([f"id{n:010d}" for n in range(1, many + 1)])]
    keys = [dice.integers(0, size, rows) for size in (_K, _K, many)]
    columns = {f"id{n + 1}": texts[n // 2].take(pa.array(keys[n])) for n in range(3)}
    columns |= {f"id{n + 4}": dice.integers(1, size + 1, rows) for n, size in enumerate((_K, _K, many))}
    columns |= {"v1": dice.integers(1, 6, rows), "v2": dice.integers(1, 16, rows), "v3": np.round(dice.uniform(0, 100, rows), 6)}
    return pa.table(columns)


def _others(rows: int) -> Any:
    import numpy as np
    import pyarrow as pa

    dice = np.random.default_rng(7)
    wide = max(rows // 10, 1)
    names = pa.array([f"user-{n}" for n in range(wide)])
    few = pa.array([f"city {n}" for n in range(100)])
    key = dice.integers(0, wide, rows)
    hot = np.where(dice.random(rows) < 0.5, 0, key)
    columns = {
        "few": few.take(pa.array(dice.integers(0, 100, rows))), "name": names.take(pa.array(key)), "n": dice.integers(0, 100, rows),
        "key": key, "hot": hot, "v": dice.integers(0, 1000, rows), "f": np.round(dice.uniform(0, 1000, rows), 3),
        "w": pa.array(dice.integers(0, 1000, rows), mask=dice.random(rows) < 0.3),
        "group": dice.integers(0, max(rows // 300, 1), rows),
    }
    return pa.table(columns)


def queries(rows: int, settings: Settings, folder: Path) -> Iterator[Query]:
    """Make the data, and return the questions over it."""
    yield from _benchmark(Tables(settings, {"x": _records(rows)}))
    yield from _kinds(Tables(settings, {"x": _others(rows)}))


def _benchmark(tables: Tables) -> Iterator[Query]:
    x = tables.stream()

    yield tables.query(
        "g1", "sum by 100 strings", x.key_by("id1").agg(v1=col("v1").sum()),
        "SELECT id1, sum(v1) AS v1 FROM x GROUP BY id1",
        lambda f: f.group_by("id1").agg(pl("v1").sum()),
    )
    yield tables.query(
        "g2", "sum by 100 × 100 strings", x.key_by("id1", "id2").agg(v1=col("v1").sum()),
        "SELECT id1, id2, sum(v1) AS v1 FROM x GROUP BY id1, id2",
        lambda f: f.group_by("id1", "id2").agg(pl("v1").sum()),
    )
    yield tables.query(
        "g3", "sum, mean by many strings", x.key_by("id3").agg(v1=col("v1").sum(), v3=col("v3").mean()),
        "SELECT id3, sum(v1) AS v1, avg(v3) AS v3 FROM x GROUP BY id3",
        lambda f: f.group_by("id3").agg(pl("v1").sum(), pl("v3").mean()),
    )
    yield tables.query(
        "g4", "three means by 100 integers", x.key_by("id4").agg(*(col(v).mean() for v in ("v1", "v2", "v3"))),
        "SELECT id4, avg(v1) AS v1, avg(v2) AS v2, avg(v3) AS v3 FROM x GROUP BY id4",
        lambda f: f.group_by("id4").agg(pl("v1", "v2", "v3").mean()),
    )
    yield tables.query(
        "g5", "three sums by many integers", x.key_by("id6").agg(*(col(v).sum() for v in ("v1", "v2", "v3"))),
        "SELECT id6, sum(v1) AS v1, sum(v2) AS v2, sum(v3) AS v3 FROM x GROUP BY id6",
        lambda f: f.group_by("id6").agg(pl("v1", "v2", "v3").sum()),
    )
    yield tables.query(
        "g6", "median, std by 100 × 100 integers", x.key_by("id4", "id5").agg(m=col("v3").median(), s=col("v3").std()),
        "SELECT id4, id5, quantile_cont(v3, 0.5) AS m, stddev(v3) AS s FROM x GROUP BY id4, id5",
        lambda f: f.group_by("id4", "id5").agg(m=pl("v3").median(), s=pl("v3").std()),
    )
    yield tables.query(
        "g7", "max - min by many strings", x.key_by("id3").agg(d=col("v1").max() - col("v2").min()),
        "SELECT id3, max(v1) - min(v2) AS d FROM x GROUP BY id3",
        lambda f: f.group_by("id3").agg(d=pl("v1").max() - pl("v2").min()),
    )
    yield tables.query(
        "g8", "the two largest of many integers", x.select("id6", "v3").key_by("id6").top_n(2, by="v3", emit="end").select("id6", "v3"),
        "SELECT id6, v3 FROM (SELECT id6, v3, row_number() OVER (PARTITION BY id6 ORDER BY v3 DESC) AS place FROM x) WHERE place <= 2",
        lambda f: f.group_by("id6").agg(pl("v3").top_k(2)).explode("v3"),
    )
    a, b = col("v1").cast(float), col("v2").cast(float)
    n = mill.count().cast(float)
    covariance = n * (a * b).sum() - a.sum() * b.sum()
    spread = (n * (a * a).sum() - a.sum() * a.sum()) * (n * (b * b).sum() - b.sum() * b.sum())
    yield tables.query(
        "g9", "squared correlation by string, integer", x.key_by("id2", "id4").agg(r2=covariance * covariance / spread),
        "SELECT id2, id4, corr(v1, v2) ** 2 AS r2 FROM x GROUP BY id2, id4",
        lambda f: f.group_by("id2", "id4").agg(r2=pl_corr("v1", "v2") ** 2),
    )
    ids = [f"id{number}" for number in range(1, 7)]
    yield tables.query(
        "g10", "sum, count by six keys, all new", x.key_by(*ids).agg(v3=col("v3").sum(), n=mill.count()),
        f"SELECT {', '.join(ids)}, sum(v3) AS v3, count(*) AS n FROM x GROUP BY {', '.join(ids)}",
        lambda f: f.group_by(ids).agg(pl("v3").sum(), n=pl_len()),
    )


def _kinds(tables: Tables) -> Iterator[Query]:
    x = tables.stream()
    # An estimate is compared by being near the truth: nearly all of the names occur.
    low, high = int(tables.rows / 10 * 0.85), int(tables.rows / 10 * 1.15)
    yield tables.query(
        "g-few", "sum by 100 strings", x.key_by("few").agg(s=col("v").sum()),
        "SELECT few, sum(v) AS s FROM x GROUP BY few", lambda f: f.group_by("few").agg(s=pl("v").sum()),
    )
    yield tables.query(
        "g-many", "sum, mean by one string in ten rows", x.key_by("name").agg(s=col("v").sum(), m=col("f").mean()),
        "SELECT name, sum(v) AS s, avg(f) AS m FROM x GROUP BY name",
        lambda f: f.group_by("name").agg(s=pl("v").sum(), m=pl("f").mean()),
    )
    yield tables.query(
        "g-two", "sum by string and integer, 10,000 groups", x.key_by("few", "n").agg(s=col("v").sum()),
        "SELECT few, n, sum(v) AS s FROM x GROUP BY few, n", lambda f: f.group_by("few", "n").agg(s=pl("v").sum()),
    )
    yield tables.query(
        "g-random", "sum, mean, max by integer", x.key_by("key").agg(s=col("v").sum(), m=col("f").mean(), x=col("v").max()),
        "SELECT key, sum(v) AS s, avg(f) AS m, max(v) AS x FROM x GROUP BY key",
        lambda f: f.group_by("key").agg(s=pl("v").sum(), m=pl("f").mean(), x=pl("v").max()),
    )
    yield tables.query(
        "g-spread", "median, std of 300 rows each", x.key_by("group").agg(m=col("f").median(), s=col("f").std()),
        'SELECT "group", quantile_cont(f, 0.5) AS m, stddev(f) AS s FROM x GROUP BY "group"',
        lambda f: f.group_by("group").agg(m=pl("f").median(), s=pl("f").std()),
    )
    yield tables.query(
        "g-distinct", "distinct strings by 100 integers", x.key_by("n").agg(d=col("name").n_unique()),
        "SELECT n, count(DISTINCT name) AS d FROM x GROUP BY n", lambda f: f.group_by("n").agg(d=pl("name").n_unique()),
    )
    yield tables.query(
        "g-approx", "distinct strings, approximate, no key", x.agg(d=col("name").approx_n_unique()).select(is_near=col("d").is_between(low, high)),
        f"SELECT approx_count_distinct(name) BETWEEN {low} AND {high} AS is_near FROM x",
        lambda f: f.select(is_near=pl("name").approx_n_unique().is_between(low, high)),
    )
    yield tables.query(
        "g-hot", "sum, max, one key has half", x.key_by("hot").agg(s=col("v").sum(), x=col("v").max()),
        "SELECT hot, sum(v) AS s, max(v) AS x FROM x GROUP BY hot",
        lambda f: f.group_by("hot").agg(s=pl("v").sum(), x=pl("v").max()),
    )
    yield tables.query(
        "g-collect", "lists by 100 integers", x.key_by("n").agg(l=col("v").collect()).select("n", rows=col("l").list.len()),
        "SELECT n, len(list(v)) AS rows FROM x GROUP BY n",
        lambda f: f.group_by("n").agg(l=pl("v")).select("n", rows=pl("l").list.len()),
    )
    yield tables.query(
        "g-strings", "first and greatest string by integer", x.key_by("key").agg(m=col("name").max(), n=mill.count()),
        "SELECT key, max(name) AS m, count(*) AS n FROM x GROUP BY key",
        lambda f: f.group_by("key").agg(m=pl("name").max(), n=pl_len()),
    )
    yield tables.query(
        "g-nulls", "sum, count of a column with nulls", x.key_by("n").agg(s=col("w").sum(), c=col("w").count()),
        "SELECT n, sum(w) AS s, count(w) AS c FROM x GROUP BY n",
        lambda f: f.group_by("n").agg(s=pl("w").sum(), c=pl("w").count()),
    )
