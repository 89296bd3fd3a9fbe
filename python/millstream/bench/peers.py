"""Engines that ours can be compared with, if they are installed."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from millstream.errors import PlanError
from millstream.table import Table

__all__ = ["PEERS", "Peer", "chosen", "duckdb_answers", "polars_frame", "prepare"]


@dataclass(frozen=True)
class Peer:
    """An engine by the name of its package."""

    name: str

    def is_installed(self) -> bool:
        """Return whether it can be imported."""
        return importlib.util.find_spec(self.name) is not None

    def version(self) -> str | None:
        """Return its version."""
        try:
            return version(self.name)
        except PackageNotFoundError:
            return None


PEERS = {name: Peer(name) for name in ("duckdb", "polars")}


def chosen(text: str) -> tuple[str, ...]:
    """Return the engines of a list with commas; ``all`` means those that are installed."""
    if not text:
        return ()
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if names == ("all",):
        names = tuple(name for name, peer in PEERS.items() if peer.is_installed())
        if not names:
            raise PlanError(f"none of the engines to compare with is installed: pip install {' '.join(PEERS)} pyarrow")
    for name in names:
        if name not in PEERS:
            raise PlanError(f"--against takes {', '.join(PEERS)} or all, not {name!r}")
        if not PEERS[name].is_installed():
            raise PlanError(f"{name} is not installed: pip install {name}")
    if names and importlib.util.find_spec("pyarrow") is None:
        raise PlanError("--against compares the results, and needs pyarrow for it: pip install pyarrow")
    return names


def prepare(names: Sequence[str], parallelism: int) -> None:
    """Set for engines how many threads they have, where that goes by the environment; before they are imported."""
    if "polars" in names:
        os.environ.setdefault("POLARS_MAX_THREADS", str(parallelism))


def duckdb_answers(table: Table | None, parallelism: int) -> Callable[[str], Callable[[], Any]]:
    """Return what turns SQL over ``events`` into a function that answers it, on a database of its own."""
    import duckdb

    database = duckdb.connect(config={"threads": parallelism})
    if table is not None:
        database.register("records", table.to_arrow())
        database.execute("CREATE TABLE events AS SELECT * FROM records")
        database.unregister("records")
    return lambda query: lambda: database.sql(query).to_arrow_table()


def polars_frame(table: Table) -> Any:
    """Return a lazy frame of the records."""
    import polars

    return polars.DataFrame(table).lazy()
