"""A table in memory as each engine reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import millstream as mill
from millstream.bench.contest import Query
from millstream.bench.result import Settings

__all__ = ["Tables", "pl", "pl_corr", "pl_len"]


class Tables:
    """Tables by name, given to all engines before anything is timed.

    DuckDB has them as tables of its own, Polars as frames, and Millstream reads the columns of Arrow.
    """

    def __init__(self, settings: Settings, tables: Mapping[str, Any]) -> None:
        self._settings = settings
        self._arrow = {name: table.combine_chunks() for name, table in tables.items()}
        self.rows = max(table.num_rows for table in self._arrow.values())
        self._frames: dict[str, Any] = {}
        self._database: Any = None
        if "duckdb" in settings.against:
            import duckdb

            self._database = duckdb.connect(config={"threads": settings.parallelism})
            for name, table in self._arrow.items():
                self._database.register("records", table)
                self._database.execute(f"CREATE TABLE {name} AS SELECT * FROM records")
                self._database.unregister("records")
        if "polars" in settings.against:
            import polars

            self._frames = {name: polars.DataFrame(table).rechunk().lazy() for name, table in self._arrow.items()}

    def stream(self, name: str = "x") -> mill.Stream:
        """Return a table as a stream."""
        return mill.from_arrow(self._arrow[name])

    def query(
        self, name: str, about: str, ours: mill.Stream, sql: str, polars: Callable[..., Any] | None
    ) -> Query:
        """Return a question: our stream, its SQL, and a function that takes Polars' frames and returns another."""
        peers: dict[str, Callable[[], Any]] = {}
        if self._database is not None:
            database = self._database
            peers["duckdb"] = lambda: database.sql(sql).to_arrow_table()
        if self._frames and polars is not None:
            plan = polars(*self._frames.values())
            peers["polars"] = lambda: plan.collect(engine="streaming").to_arrow()
        threads = self._settings.parallelism
        return Query(name, about, self.rows, lambda: ours.collect(parallelism=threads), peers)


def pl(*names: str) -> Any:
    """Return Polars' expression of columns; Polars is imported only where it is asked for."""
    import polars

    return polars.col(*names)


def pl_len() -> Any:
    """Return Polars' expression of the number of rows."""
    import polars

    return polars.len()


def pl_corr(a: str, b: str) -> Any:
    """Return Polars' expression of a correlation."""
    import polars

    return polars.corr(a, b)
