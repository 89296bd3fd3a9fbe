"""Wide rows: fifty and five hundred columns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from millstream import col
from millstream.bench.contest import Query
from millstream.bench.result import Settings
from millstream.bench.shapes.source import Tables, pl

__all__ = ["NAME", "QUERIES", "queries"]

NAME = "wide"
QUERIES = ("c50-filter", "c50-map", "c50-sum", "c500-filter", "c500-sum")


def _records(rows: int, columns: int) -> Any:
    import numpy as np
    import pyarrow as pa

    dice = np.random.default_rng(columns)
    return pa.table({"k": dice.integers(0, 100, rows)} | {f"c{n}": dice.integers(0, 1000, rows) for n in range(columns)})


def queries(rows: int, settings: Settings, folder: Path) -> Iterator[Query]:
    """Make the data, and return the questions over it: a tenth and a hundredth as many rows."""
    for columns, divisor in ((50, 10), (500, 100)):
        names = [f"c{n}" for n in range(columns)]
        tables = Tables(settings, {"x": _records(max(rows // divisor, 1), columns)})
        x = tables.stream()
        yield tables.query(
            f"c{columns}-filter", f"half of the rows, all of {columns} columns", x.filter(col("c0") < 500), "SELECT * FROM x WHERE c0 < 500",
            lambda f: f.filter(pl("c0") < 500),
        )
        if columns == 50:
            yield tables.query(
                "c50-map", "add one to each of 50 columns", x.select(**{name: col(name) + 1 for name in names}),
                f"SELECT {', '.join(f'{name} + 1 AS {name}' for name in names)} FROM x",
                lambda f, names=names: f.select(**{name: pl(name) + 1 for name in names}),
            )
        yield tables.query(
            f"c{columns}-sum", f"{columns} sums by 100 integers", x.key_by("k").agg(*(col(name).sum() for name in names)),
            f"SELECT k, {', '.join(f'sum({name}) AS {name}' for name in names)} FROM x GROUP BY k",
            lambda f, names=names: f.group_by("k").agg(pl(*names).sum()),
        )
