"""Iceberg tables of tests: made and read by pyiceberg, and by DuckDB over the files that it names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import duckdb
from pyiceberg import types as kinds
from pyiceberg.catalog import load_catalog
from pyiceberg.schema import Schema


def lake_in(path: Path) -> dict[str, str]:
    """A catalog in a file of SQLite."""
    return {"type": "sql", "uri": f"sqlite:///{path}/catalog.db", "warehouse": f"file://{path}/lake"}


@contextlib.contextmanager
def catalog(lake: dict[str, str]) -> Iterator[Any]:
    """The catalog, until the end of the block."""
    found = load_catalog("default", **lake)
    try:
        yield found
    finally:
        found.close()


@contextlib.contextmanager
def table(lake: dict[str, str], name: str = "s.t") -> Iterator[Any]:
    """A table, until the end of the block."""
    with catalog(lake) as found:
        yield found.load_table(name)


def rows(lake: dict[str, str], name: str = "s.t", order: str = "all") -> list[dict[str, Any]]:
    """The rows of the newest snapshot, by DuckDB over the files that it names."""
    with table(lake, name) as found:
        tasks = list(found.scan().plan_files())
    files = [unquote(urlsplit(task.file.file_path).path) for task in tasks]
    if not files:
        return []
    read: list[dict[str, Any]] = duckdb.sql(f"select * from read_parquet({files!r}, hive_partitioning=false) order by {order}").to_arrow_table().to_pylist()
    assert len(read) == sum(task.file.record_count for task in tasks)
    return read


def marks(lake: dict[str, str], name: str = "s.t") -> dict[str, str]:
    """The properties by which runs of jobs know what they have committed."""
    with table(lake, name) as found:
        return {key: value for key, value in found.properties.items() if key.startswith("millstream-")}


def made(lake: dict[str, str], *fields: tuple[str, Any] | tuple[str, Any, bool], name: str = "s.t", **more: Any) -> None:
    """Make a table."""
    schema = Schema(*(kinds.NestedField(number, each[0], each[1], required=len(each) > 2) for number, each in enumerate(fields, 1)))
    with catalog(lake) as found:
        found.create_namespace_if_not_exists(name.split(".")[0])
        found.create_table(name, schema, **more)


def leftover(tmp_path: Path, lake: dict[str, str], name: str = "s.t") -> set[str]:
    """The data files that no snapshot names."""
    with table(lake, name) as found:
        named = {unquote(urlsplit(path).path) for path in found.inspect.all_files()["file_path"].to_pylist()}
    return {str(path) for path in (tmp_path / "lake").glob("**/*.parquet")} - named
