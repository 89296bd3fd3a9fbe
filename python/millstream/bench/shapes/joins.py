"""Joins: the five questions of the db-benchmark's join, each a stream enriched from a table.

The questions and the shape of their data are those of https://duckdblabs.github.io/db-benchmark/ (`join`): the tables have a millionth, a
thousandth and all of the stream's rows; nine in ten keys are on both sides.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from millstream.bench.contest import Query
from millstream.bench.result import Settings
from millstream.bench.shapes.source import Tables

__all__ = ["NAME", "QUERIES", "queries"]

NAME = "joins"
QUERIES = ("j1", "j2", "j3", "j4", "j5")


def _tables(rows: int) -> dict[str, Any]:
    import numpy as np
    import pyarrow as pa

    dice = np.random.default_rng(42)
    sizes = [max(rows // 1_000_000, 10), max(rows // 1000, 10), rows]

    def keys(size: int) -> tuple[Any, Any]:
        """Return the keys of the stream and of the table: of 1.1 times as many, each side has its own tenth."""
        all_keys = dice.permutation(size + size // 10) + 1
        return all_keys[:size], all_keys[size // 10 :]

    pairs = [keys(size) for size in sizes]
    left = [dice.permutation(np.resize(ours, rows)) for ours, _ in pairs]
    tables = {"x": {f"id{n + 1}": left[n] for n in range(3)} | {"id5": _texts(left[1]), "v1": np.round(dice.uniform(0, 100, rows), 6)}}
    for n, (name, (_, theirs)) in enumerate(zip(("small", "medium", "big"), pairs, strict=True)):
        tables[name] = {f"id{n + 1}": theirs, "v2": np.round(dice.uniform(0, 100, len(theirs)), 6)}
        if name == "medium":
            tables[name]["id5"] = _texts(theirs)
    return {name: pa.table(columns) for name, columns in tables.items()}


def _texts(numbers: Any) -> Any:
    import numpy as np
    import pyarrow as pa

    distinct, places = np.unique(numbers, return_inverse=True)
    return pa.array([f"id{n}" for n in distinct.tolist()]).take(pa.array(places))


def queries(rows: int, settings: Settings, folder: Path) -> Iterator[Query]:
    """Make the data, and return the questions over it."""
    tables = Tables(settings, _tables(rows))
    x = tables.stream()

    def join(name: str, about: str, table: str, key: str, how: str = "inner") -> Query:
        place = ("x", "small", "medium", "big").index(table)
        side = tables.stream(table).select(key, "v2")
        ours = x.select(key, "v1").enrich(side, on=key, how=how)  # type: ignore[arg-type]
        sql = f"SELECT x.{key}, v1, v2 FROM x {'LEFT ' if how == 'left' else ''}JOIN {table} ON x.{key} = {table}.{key}"
        return tables.query(
            name, about, ours, sql, lambda *f: f[0].select(key, "v1").join(f[place].select(key, "v2"), on=key, how=how)
        )

    yield join("j1", "with a few rows, by integer", "small", "id1")
    yield join("j2", "with a thousandth, by integer", "medium", "id2")
    yield join("j3", "the same, left", "medium", "id2", "left")
    yield join("j4", "with a thousandth, by string", "medium", "id5")
    yield join("j5", "with as many rows, by integer", "big", "id3")
