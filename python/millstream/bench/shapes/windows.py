"""Windows by event time, with keys that are strings and integers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import millstream as mill
from millstream import col
from millstream.bench.contest import Query
from millstream.bench.result import Settings
from millstream.bench.shapes.source import Tables, pl, pl_len

__all__ = ["NAME", "QUERIES", "queries"]

NAME = "windows"
QUERIES = ("w-string", "w-integer", "w-none", "w-sliding")


def _records(rows: int) -> Any:
    import numpy as np
    import pyarrow as pa

    dice = np.random.default_rng(4)
    names = pa.array([f"sensor-{n}" for n in range(100)])
    at = np.arange(rows, dtype=np.int64) * 1000 + dice.integers(0, 1_000_000, rows)
    key = dice.integers(0, 100, rows)
    columns = {"name": names.take(pa.array(key)), "key": key, "v": dice.integers(0, 100, rows), "t": pa.array(at).cast(pa.timestamp("us"))}
    return pa.table(columns)


def queries(rows: int, settings: Settings, folder: Path) -> Iterator[Query]:
    """Make the data, and return the questions over it."""
    tables = Tables(settings, {"x": _records(rows)})
    timed = tables.stream().event_time("t", watermark="1s")
    minute = mill.tumbling("1m")

    def frame(f: Any, *keys: str) -> Any:
        return f.group_by(*keys, pl("t").dt.truncate("1m").alias("window_start")).agg(s=pl("v").sum(), n=pl_len())

    for name, about, key in (("w-string", "a minute, by string", "name"), ("w-integer", "a minute, by integer", "key")):
        yield tables.query(
            name, about, timed.key_by(key).window(minute).agg(s=col("v").sum(), n=mill.count()),
            f"SELECT {key}, time_bucket(INTERVAL 1 MINUTE, t) AS window_start, sum(v) AS s, count(*) AS n FROM x GROUP BY ALL",
            lambda f, key=key: frame(f, key),
        )
    yield tables.query(
        "w-none", "a minute, no key", timed.window_all(minute).agg(s=col("v").sum(), n=mill.count()),
        "SELECT time_bucket(INTERVAL 1 MINUTE, t) AS window_start, sum(v) AS s, count(*) AS n FROM x GROUP BY ALL",
        lambda f: frame(f),
    )
    starts = "unnest(range(time_bucket(INTERVAL 10 SECOND, t) - INTERVAL 50 SECOND, time_bucket(INTERVAL 10 SECOND, t) + INTERVAL 1 SECOND, INTERVAL 10 SECOND))"
    yield tables.query(
        "w-sliding", "a minute each ten seconds, by integer",
        timed.key_by("key").window(mill.sliding("1m", "10s")).agg(s=col("v").sum(), n=mill.count()),
        f"SELECT key, w AS window_start, sum(v) AS s, count(*) AS n FROM (SELECT key, v, {starts} AS w FROM x) GROUP BY ALL",
        None,
    )
